"""Cells under conditions, measured or not."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellflow.cells.snapshots import read_rep
from cellflow.cells.states import Cells, positions
from cellflow.cells.treatments import coded
from cellflow.estimators.arms import treatments_alone
from cellflow.estimators.perturbation_verbs import WAY, check_cells
from cellflow.estimators.portions import rows_of
from cellflow.integrate import Adaptive, Fixed, Jumps, resolve
from cellflow.renamed import warn
from cellflow.signature import checked_but
from cellflow.tl.asked import Asked, read_asked, set_apart, table_of_asked
from cellflow.tl.files import on_files
from cellflow.tl.genes import MOST_DECODED, Decode, Genes, about_genes, read_decoder, var_of
from cellflow.training.run import progress_bar

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import PerturbationFlow


@on_files
@checked_but("condition", "cells", "genes", "decode", "solver")
def perturb(
    adata: "AnnData",
    flow: "PerturbationFlow",
    *,
    condition: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    cells: Cells | None = None,
    genes: Genes = "auto",
    layer: str | None = None,
    use_raw: bool = False,
    decode: Decode | None = None,
    solver: Fixed | Adaptive | Jumps | str | int = WAY,
    progress: bool | None = None,
) -> "AnnData":
    """Predict cells under conditions, measured or not.

    Cells are carried in chunks: only the result grows with the number of cells and conditions.

    Parameters
    ----------
    adata
        Cells with the representation that the flow was fitted on.
    flow
        A fitted flow.
    condition
        A value for each column of the conditions, as ``{"drug": "A+B", "dose": 3.0}``; or a list of such, each once.
        Columns other than treatments, such as a donor, may be left out: each cell keeps its own. ``None`` for all
        treatments of the fit.
    cells
        A mask over all cells, names, or rows of ``obs``; ``None`` for the controls. A warning says if some of them
        are treated already.
    genes
        Whether to decode genes through the stored PCA loadings; or the names of those to decode. ``"auto"`` decodes all
        genes of the PCA if there are loadings that fit ``X`` and the result takes at most 1 GiB; a warning is logged if
        genes were not in the PCA.
    layer, use_raw, decode
        As for `interpolate`.
    solver
        As for `PerturbationFlow.transport`.
    progress
        Whether to show a progress bar.

    Returns
    -------
    AnnData
        One row per condition and cell: ``obsm[rep]``; in ``obs`` the columns of the condition and of groups, and
        ``condition`` (its name), ``origin`` (name of the cell it was carried from) and ``weight`` (sums to 1 in each
        condition). If a column of the condition or of groups has one of these names, it is kept, and these become
        ``predicted_condition``, ``predicted_origin`` and ``predicted_weight``. ``X`` holds decoded genes, in the units
        of the PCA's input, or nothing. ``uns["perturbation"]``: ``"rep"``, and ``"fingerprint"``, by which plots
        notice another representation; with genes ``"variance_carried"`` and ``"genes_left_out"``, as of `interpolate`.

    Raises
    ------
    KeyError, ValueError
        When a column of a condition is unknown or missing, a name was not seen in training and has no embedding, a
        condition occurs twice, or there are no controls and ``cells`` is not given.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd, cellflow as cf
    >>> x = np.random.default_rng(0).normal(size=(90, 2)).astype("float32")
    >>> drug = np.repeat(["control", "A", "B"], 30)
    >>> adata = anndata.AnnData(obs=pd.DataFrame({"drug": drug}, index=[f"c{k}" for k in range(90)]), obsm={"X_pca": x})
    >>> flow = cf.PerturbationFlow(conditions="drug", steps=20).fit(adata)
    >>> cf.tl.perturb(adata, flow, condition={"drug": "A+B"}).obs["condition"].unique().tolist()
    ['A+B']
    """
    import anndata

    chosen = resolve(solver, default=WAY, verb="tl.perturb", noisy="PerturbationFlow.simulate")
    rows, x = _chosen(adata, flow, cells), read_rep(adata, flow.rep)
    check_cells(flow, adata, x)
    x, obs = x[rows], adata.obs.iloc[rows]
    asked = read_asked(flow, condition, obs)
    how: dict[str, Any] = {"genes": genes, "decode": decode, "layer": layer, "use_raw": use_raw, "most": MOST_DECODED}
    decoder = read_decoder(adata, flow.rep, **how, width=x.shape[1], rows=len(rows) * len(asked))
    states = np.empty((len(asked) * len(rows), x.shape[1]), dtype=np.float32)
    values = None if decoder is None else np.empty((len(states), len(decoder.names)), dtype=np.float32)
    width = max(x.shape[1], 0 if decoder is None else len(decoder.names))
    with progress_bar(shown=progress, start=0, steps=len(states), what="perturbing") as bar:
        for number, one in enumerate(asked):
            for some in rows_of(len(x), width):
                carried = flow.transport(x[some], condition=one.vectors[one.index[some]], solver=chosen).x[-1].numpy()
                at = number * len(rows) + some.start
                states[at : at + len(carried)] = carried
                if values is not None and decoder is not None:
                    values[at : at + len(carried)] = decoder.decode(carried)
                bar(at + len(carried), None)
    whole, columns = flow.rep == "X", _columns(flow, obs)
    own = set_apart(_own_columns(asked, obs), columns)
    noted = {} if flow.fingerprint_ is None else {"fingerprint": flow.fingerprint_.note()}
    return anndata.AnnData(
        X=states if whole else values,
        obs=pd.DataFrame(table_of_asked(flow, asked, obs, columns) | own, index=_names(obs, asked)),
        var=adata.var[[]].copy() if whole else None if decoder is None else var_of(adata, decoder),
        obsm={} if whole else {flow.rep: states},
        uns={"perturbation": {"rep": flow.rep} | noted | about_genes(adata, decoder)},
    )


def _chosen(adata: "AnnData", flow: "PerturbationFlow", cells: Cells | None) -> np.ndarray:
    """Return the positions of the cells to carry."""
    flow._check_fitted()
    if cells is not None:
        rows = positions(adata, cells)
        _warn_of_treated(flow, adata.obs.iloc[rows])
        return rows
    treatments = treatments_alone(flow.conditions_)
    lacking = [name for name in treatments.columns if name not in adata.obs]
    if lacking:
        raise KeyError(
            f"No `adata.obs[{lacking[0]!r}]`, which marks the controls. Name the cells: `cells=adata.obs_names`."
        )
    table = treatments.read(adata.obs)
    treatments.require_control(table)
    return np.flatnonzero(table.is_control[table.index])


def _warn_of_treated(flow: "PerturbationFlow", obs: pd.DataFrame) -> None:
    """Warn of treated cells among those to carry: the flow would add a treatment to the one that they have."""
    fitted = flow.conditions_
    treated = np.zeros(len(obs), dtype=bool)
    for name in filter(obs.columns.__contains__, fitted.treatment):
        codes, names = coded(obs[name])
        treated |= np.array([found not in (None, fitted.control) for found in names], dtype=bool)[codes]
    for name in filter(obs.columns.__contains__, fitted.dose):
        treated &= pd.to_numeric(obs[name], errors="coerce").to_numpy(float, na_value=np.nan) != 0
    if treated.any():
        warn(
            f"{treated.sum()} of {len(obs)} `cells` are treated already. The flow carries untreated cells, so that a "
            f"treatment would be added to theirs; choose cells whose treatment is {fitted.control!r}."
        )


def _columns(flow: "PerturbationFlow", obs: pd.DataFrame) -> list[str]:
    """Return the columns of the result that are the user's: of conditions, and of groups where the cells have them."""
    return list(dict.fromkeys([*flow.conditions_.columns, *(name for name in flow._groups() if name in obs)]))


def _own_columns(asked: Sequence[Asked], obs: pd.DataFrame) -> dict[str, Any]:
    """Return the columns that are not the user's, names as categories, which are small."""
    names, n = pd.Categorical(obs.index.astype(str)), len(obs)
    labels = pd.CategoricalDtype([one.label for one in asked])
    return {
        "condition": pd.Categorical.from_codes(np.repeat(np.arange(len(asked)), n), dtype=labels),
        "origin": pd.Categorical.from_codes(np.tile(names.codes, len(asked)), dtype=names.dtype),
        "weight": np.full(len(asked) * n, 1 / n),
    }


def _names(obs: pd.DataFrame, asked: Sequence[Asked]) -> list[str]:
    return [f"{name}@{one.label}" for one in asked for name in obs.index]
