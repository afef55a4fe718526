"""The data sets: cells with what is known of each, what is held out, and how their components are fitted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData

import cellflow as cf
from cellflow.datasets.download import folders
from cellflow.errors import unknown

CONTROL = "control"
COLUMNS = ("treatment", "dose", "context", "time")
"""Columns of ``obs`` as the benchmark names them: treatments as ``"A"`` or ``"A+B"``, and ``"control"`` for untreated
cells, whose dose is 0; the context is a cell type or a donor."""
SPLITS = ("context", "donor", "dose", "combination", "time")
STRENGTHS = (0.1, 0.25, 0.5, 1.0)
"""Parts of the real effect of interferon that are added to untreated cells."""
DOSES, TRACKS = (0.03, 0.2, 1.0, 8.0), 600
"""Doses of TNF that are left out, and tracked cells of every dose that are used."""


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells: ``X`` ``(n, genes)`` on a log scale, dense or sparse; ``obs`` has those of `COLUMNS` that vary.

    ``fit_on``: components, variable genes and scales are those of ``"all cells"``, the held-out ones included, as the
    published numbers have it, or of the ``"seen cells"`` of each fold. ``only`` are the doses, combinations or times
    that are left out; all that can be, where there is none. ``track`` is the column that says which rows are one cell.
    """

    name: str
    adata: AnnData
    split: str
    dims: int = 50
    fit_on: str = "seen cells"
    genes: int = 0  # the most variable ones; 0 for all
    standardize: bool = False
    least: int = 40  # cells of a context, treated and untreated, to be asked about
    only: tuple[object, ...] = ()
    track: str | None = None

    @property
    def varying(self) -> tuple[str, ...]:
        """The columns that vary."""
        return tuple(name for name in COLUMNS if name in self.adata.obs)


def kang(fit_on: str = "all cells") -> Cells:
    """Interferon in blood cells, of which one type is left out."""
    adata = cf.datasets.kang()
    named = _named(adata, treatment="condition", context="cell_type")
    return Cells("kang", named, "context", fit_on=fit_on)


def norman(fit_on: str = "all cells") -> Cells:
    """Activated genes, of which one pair is left out; each gene of it was seen alone."""
    return Cells("norman", _named(cf.datasets.norman(), treatment="perturbation"), "combination", fit_on=fit_on)


def dose() -> Cells:
    """Two doses of TGF-beta, of which the smaller one is left out."""
    adata = anndata.read_h5ad(_file("perturbation", "mcf10a_tgfb_dose.h5ad"))
    adata.obs["treatment"] = np.where(adata.obs["dose"] > 0, "TGF-beta", CONTROL)
    named = _named(adata, treatment="treatment", dose="dose")
    return Cells("mcf10a dose", named, "dose", dims=10, fit_on="all cells", only=(12.5,))


def time(only: float = 3.0) -> Cells:
    """Days of TGF-beta, of which one is left out; images of proteins, on a log scale."""
    adata = anndata.read_h5ad(_file("perturbation", "mcf10a_4i_tgfb_time.h5ad"))
    adata.X = np.log1p(np.clip(adata.X, 0, None))
    named = _named(adata, treatment="condition", time="treated_days")
    return Cells(f"mcf10a time, day {only:g}", named, "time", dims=10, fit_on="all cells", standardize=True,
                 only=(only,))  # fmt: skip


def nfkb() -> Cells:
    """Doses of TNF over time, of which one is left out at all times; rows of one track are one cell."""
    adata = anndata.read_h5ad(_file("perturbation", "nfkb_tnf_dose_time_tracks.h5ad"))
    adata = adata[adata.obs["complete_track"].to_numpy()]
    first = adata.obs.drop_duplicates("track")
    chosen = first.groupby("dose_ng_ml", observed=True)["track"].head(TRACKS)
    adata = adata[adata.obs["track"].isin(chosen).to_numpy()].copy()
    treated = (adata.obs["dose_ng_ml"] > 0) & (adata.obs["minutes"] > 0)
    obs = adata.obs.assign(
        treatment=np.where(treated, "TNF", CONTROL), dose=np.where(treated, adata.obs["dose_ng_ml"], 0.0),
        given=adata.obs["dose_ng_ml"],
    )  # fmt: skip
    adata.obs = obs
    named = _named(adata, treatment="treatment", dose="dose", time="minutes")
    named.obs["track"] = obs["track"].astype(str).to_numpy()
    named.obs["given"] = obs["given"].to_numpy(float)
    return Cells("nfkb", named, "dose", dims=1, only=DOSES, track="track")


def null(strength: float = 0.0, seed: int = 0) -> Cells:
    """Untreated cells split at random, as if half of them were treated, with a part of the real change added."""
    whole = cf.datasets.kang()
    adata = whole[(whole.obs["condition"] == CONTROL).to_numpy()].copy()
    treated = np.random.default_rng(seed).random(adata.n_obs) < 0.5
    kinds, x = adata.obs["cell_type"].astype(str).to_numpy(), adata.X.toarray()
    for kind in np.unique(kinds) if strength else []:
        there = whole[(whole.obs["cell_type"] == kind).to_numpy()]
        change = [np.asarray(there[(there.obs["condition"] == name).to_numpy()].X.mean(axis=0)).ravel() for name in
                  ("IFN-beta", CONTROL)]  # fmt: skip
        x[treated & (kinds == kind)] += np.float32(strength) * np.subtract(*change)
    adata.X = x
    adata.obs["treatment"] = np.where(treated, "nothing" if strength == 0 else "interferon", CONTROL)
    named = _named(adata, treatment="treatment", context="cell_type")
    name = "null treatment" if strength == 0 else f"kang, {strength:g} of the effect"
    return Cells(name, named, "context", fit_on="all cells")


def simulation(split: str) -> Cells:
    """Cells of four donors under three drugs, two doses and their pairs; donors respond unlike each other."""
    law = cf.datasets.Perturbations(sensitivity=0.2)
    made = cf.datasets.perturbations(60, doses=(1.0, 2.0, 4.0), law=law)
    named = _named(made, treatment="drug", dose="dose", context="donor")
    only: Mapping[str, tuple[object, ...]] = {"donor": ("donor0",), "dose": (2.0,), "combination": ("A+B",)}
    return Cells(f"simulation, {split}", named, split, dims=20, only=only[split])


def of_user(path: Path, split: str, *, control: str = CONTROL, dims: int = 50, genes: int = 2000, least: int = 40,
            **columns: str) -> Cells:  # fmt: skip
    """Read a file of the user's; counts are scaled to 10,000 a cell, and their logarithm taken."""
    import scanpy as sc

    if not path.is_file():
        raise FileNotFoundError(f"No file {path}. Name an .h5ad file with `path=`.")
    if split not in SPLITS:
        raise ValueError(unknown("split", split, SPLITS))
    adata = anndata.read_h5ad(path)
    used = {name: column for name, column in columns.items() if column}
    for name, column in used.items():
        if column not in adata.obs:
            raise ValueError(f"{name}=: {unknown('column', column, list(adata.obs))}")
    if "treatment" not in used:
        raise ValueError(f"Name the column with the treatments: treatment=COLUMN, of {', '.join(adata.obs)}.")
    values = adata.X.data if hasattr(adata.X, "tocsr") else np.asarray(adata.X)
    if (values == np.round(values)).all():
        sc.pp.normalize_total(adata, target_sum=1e4)
        sc.pp.log1p(adata)
    named = _named(adata, control=control, **used)
    return Cells(path.stem, named, split, dims=dims, genes=min(genes, named.n_vars), least=least)


SETS: dict[str, Callable[[], Cells]] = {
    "kang": kang,
    "kang, clean": lambda: replace(kang("seen cells"), name="kang, clean"),
    "norman": norman,
    "norman, clean": lambda: replace(norman("seen cells"), name="norman, clean"),
    "mcf10a dose": dose,
    "mcf10a time, day 3": time,
    "mcf10a time, day 14": partial(time, 14.0),
    "nfkb": nfkb,
    "null treatment": null,
    **{f"kang, {strength:g} of the effect": partial(null, strength) for strength in STRENGTHS},
    **{f"simulation, {split}": partial(simulation, split) for split in ("donor", "dose", "combination")},
}


@lru_cache(maxsize=2)
def load(name: str) -> Cells:
    """Return the cells of a set."""
    return SETS[name]()


def _named(adata: AnnData, *, control: str = CONTROL, **columns: str) -> AnnData:
    """Return the cells with the columns that are known, under the names of the benchmark."""
    obs = pd.DataFrame(index=adata.obs_names)
    for name, column in columns.items():
        found = adata.obs[column]
        obs[name] = found.to_numpy(float) if name in ("dose", "time") else found.astype(str).to_numpy()
    if control not in set(obs["treatment"]):
        raise ValueError(f"control=: {unknown('treatment', control, sorted(set(obs['treatment'])))}")
    parts = ["+".join(sorted(name.split("+"))) for name in obs["treatment"]]
    obs["treatment"] = np.where(obs["treatment"] == control, CONTROL, parts)
    if "dose" in obs:
        obs.loc[obs["treatment"] == CONTROL, "dose"] = 0.0
    return AnnData(adata.X, obs=obs, var=pd.DataFrame(index=adata.var_names))


def _file(room: str, name: str) -> Path:
    looked = [folder / name for folder in folders(room)]
    if found := next(filter(Path.is_file, looked), None):
        return found
    raise FileNotFoundError(f"No {name}. Looked for {', '.join(map(str, looked))}; set CELLFLOW_DATA to its folder.")
