"""The growth to expect of cells from the genes that they express."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cellflow.cells.expression import places_of
from cellflow.cells.gene_sets import APOPTOSIS, CELL_CYCLE
from cellflow.errors import unknown
from cellflow.renamed import warn
from cellflow.signature import checked
from cellflow.tl.cells import check_key, target
from cellflow.tl.files import on_files
from cellflow.tl.keys import check_free

if TYPE_CHECKING:
    from anndata import AnnData

UNITS = {"minutes": 1 / 1440, "hours": 1 / 24, "days": 1.0, "weeks": 7.0}
"""Units of time, in days."""
LEAST = 5
"""Minimum number of genes of a set: the mean of fewer is the noise of single genes."""
CYCLE_CENTER, CYCLE_WIDTH = 0.25, 0.5
DEATH_CENTER, DEATH_WIDTH = 0.1, 0.2
"""Where rates are half-way between their bounds, and how steeply they rise there: those of Waddington-OT."""

Range = tuple[float, float]


@on_files
@checked
def growth_prior(
    adata: "AnnData",
    *,
    unit: str,
    cell_cycle: Sequence[str] = CELL_CYCLE,
    apoptosis: Sequence[str] = APOPTOSIS,
    birth: Range = (0.3, 1.7),
    death: Range = (0.3, 1.7),
    layer: str | None = None,
    seed: int = 0,
    key_added: str = "growth_prior",
    copy: bool = False,
) -> "AnnData | None":
    """Estimate the expected growth rate of each cell from genes of the cell cycle and of apoptosis.

    Use it when learning growth, as ``SnapshotFlow(prior_key="growth_prior", growth=True)``: snapshots alone do not tell
    cells that have died from cells that have moved far (see `growth`). With a coupling that keeps masses, such as
    ``"exact"``, growth is then as expected here; with `UnbalancedSinkhorn` the plans correct it, the more the smaller
    the relaxation.

    A cell's score is that of ``scanpy.tl.score_genes``, minus its mean over all cells, in units of the mean standard
    deviation of the set's genes, so that it does not depend on how expression is scaled. Scores become rates by the
    logistic functions and constants of Waddington-OT, which are per day. They are a guess: a cell in the cycle need not
    finish it, arrest is invisible, and the bounds were chosen for mouse fibroblasts in culture; give others if the
    doubling time is known.

    Parameters
    ----------
    adata
        Log-normalised expression, whose genes are named by symbols; upper and lower case are not told apart, so that
        symbols of the mouse are found too. All genes are taken from ``adata.raw`` if it exists.
    unit
        Unit of the time column: ``"minutes"``, ``"hours"``, ``"days"`` (also for Timedelta) or ``"weeks"``.
    cell_cycle, apoptosis
        Genes that dividing, and dying, cells express; by default those of Tirosh et al. 2016 and the hallmark set of
        MSigDB. Genes in both sets count for the first only. With an empty second set no cell is expected to die.
    birth, death
        Lowest and highest rate, per day.
    layer
        Layer with the expression; ``None`` for ``adata.raw``, or else ``adata.X``.
    seed
        Seed for drawing the control genes of the scores.
    key_added
        Name of the result, without "/".
    copy
        Whether to return a copy instead of writing into ``adata``.

    Writes
    ------
    ``obs[key_added]``
        Expected rate at which the log of a cell's mass grows, birth minus death, per ``unit``.
    ``obs[f"{key_added}_cell_cycle"]``, ``obs[f"{key_added}_apoptosis"]``
        The scores.
    ``uns[key_added]``
        ``"unit"``, and how many genes of each set were found.

    Warns
    -----
    UserWarning
        When the genes of a set do not vary between cells.

    Raises
    ------
    ValueError
        When the unit is unknown, bounds are reversed, two genes of a set have one name, fewer than 5 are there, or the
        expression is
        counts, or not finite.
    KeyError
        When there is no expression, or no such layer.

    Notes
    -----
    Measured, by plans alone: of myoblasts at 0 h, the rank correlation of rates with CDK1 is -0.3 by the default plans
    (-0.7 by those with one relaxation for all) and 0.7 with this expectation. Of blood progenitors, whose clones are
    known (`cellflow.datasets.hematopoiesis`, day 4 to 6, 316 cells), that with the expansion of their clones is 0.14 by
    the default plans, 0.27 by the genes alone, and 0.20 by both; but the share of mass that stays in its own state
    falls from 0.88 to 0.82, and not with bounds a quarter as far apart: bounds that are too wide force cells to travel.

    Source
    ------
    Schiebinger et al. 2019 (Waddington-OT), supplement, estimation of growth rates.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.hsmm()
    >>> cf.tl.growth_prior(adata, unit="hours")
    >>> adata.obs.groupby("hours")["growth_prior"].mean().round(3).to_dict()
    {0: 0.025, 24: -0.018, 48: -0.024, 72: -0.014}
    """
    check_key(key_added)
    if unit not in UNITS:
        raise ValueError(unknown("unit", unit, UNITS))
    for name, (low, high) in (("birth", birth), ("death", death)):
        if not 0 <= low <= high < np.inf:
            raise ValueError(
                f"Expected `{name}` as two finite rates of 0 or more, the lower one first; found {low, high}."
            )
    for name, names in (("cell_cycle", cell_cycle), ("apoptosis", apoptosis)):
        if isinstance(names, str) or not all(isinstance(gene, str) for gene in names):
            raise TypeError(f"Expected `{name}` as a list of names of genes; found {names!r:.60}.")
    genes = _expression(adata, layer)
    cycling = set(map(str.upper, cell_cycle))
    sets = {"cell_cycle": list(cell_cycle), "apoptosis": [gene for gene in apoptosis if gene.upper() not in cycling]}
    found = {name: _found(genes, names, name) for name, names in sets.items()}
    genes.var_names_make_unique()  # others may share names, which scanpy cannot tell apart
    if not 0 <= seed < 2**32:
        raise ValueError(f"Expected a `seed` from 0 to 2^32 - 1; found {seed}.")
    scores = {name: _score(genes, names, seed) for name, names in found.items()}
    dying = _logistic(scores["apoptosis"], death, DEATH_CENTER, DEATH_WIDTH) if found["apoptosis"] else 0.0
    per_day = _logistic(scores["cell_cycle"], birth, CYCLE_CENTER, CYCLE_WIDTH) - dying
    check_free(adata, key_added, [key_added, *(f"{key_added}_{name}" for name in scores)])
    written = target(adata, copy=copy)
    written.obs[key_added] = per_day * UNITS[unit]
    for name, score in scores.items():
        written.obs[f"{key_added}_{name}"] = score
    written.uns[key_added] = {"unit": unit, **{f"n_{name}": len(names) for name, names in found.items()}}
    return written if copy else None


def _expression(adata: "AnnData", layer: str | None) -> "AnnData":
    """Return the expression alone: what is written into it is not seen by the user."""
    import anndata

    if layer is not None and layer not in adata.layers:
        raise KeyError(f"No `adata.layers[{layer!r}]`. Available: {list(adata.layers)}.")
    if layer is None and adata.raw is not None:
        found = anndata.AnnData(adata.raw.X, obs=adata.obs[[]], var=adata.raw.var[[]])
    else:
        values = adata.X if layer is None else adata.layers[layer]
        if values is None or not adata.n_vars:
            raise KeyError("There is no expression in `adata.X`. Fill it, or name a `layer`.")
        found = anndata.AnnData(values[:], obs=adata.obs[[]], var=adata.var[[]])
    some = _dense(found[:500].X)
    if some.max() > 1 and (some == some.round()).all():
        raise ValueError(
            "Expected log-normalised expression; found whole numbers, as counts are. Run `sc.pp.normalize_total` and "
            "`sc.pp.log1p` first, or name the `layer` that holds it."
        )
    return found


def _found(genes: "AnnData", names: Sequence[str], name: str) -> list[str]:
    """Return those of some genes that are there, as they are spelled there."""
    there = {gene.upper(): gene for gene in genes.var_names}
    found = list(dict.fromkeys(there[gene.upper()] for gene in names if gene.upper() in there))
    if len(found) < LEAST and (names or name == "cell_cycle"):
        raise ValueError(
            f"Expected {LEAST} genes of `{name}` or more; {len(found)} of {len(names)} are in the data, whose genes "
            f"are called {', '.join(genes.var_names[:3])} and so on. Name genes by their symbols, keep more of them, "
            "in `adata.raw` for example, or give a list of your own."
        )
    if found:
        places_of(genes.var_names, found)  # refuses names that several genes have
    return found


def _score(genes: "AnnData", names: list[str], seed: int) -> np.ndarray:
    """Return the score of every cell, in units of the mean standard deviation of the genes; 0 for no genes."""
    import scanpy as sc

    if not names:
        return np.zeros(genes.n_obs)
    spread = float(_dense(genes[:, names].X).std(axis=0, dtype=np.float64).mean())
    if not np.isfinite(spread):
        raise ValueError("Expected finite expression; found NaN or infinity. Remove these cells, or impute.")
    if spread == 0:
        warn(f"{len(names)} genes do not vary between cells, so their expected growth is 0.")
        return np.zeros(genes.n_obs)
    before = np.random.get_state()  # noqa: NPY002  # scanpy seeds the global state
    try:
        sc.tl.score_genes(genes, names, score_name="score", random_state=seed, use_raw=False)
    finally:
        np.random.set_state(before)  # noqa: NPY002
    score = genes.obs["score"].to_numpy()
    return np.asarray((score - score.mean()) / spread)


def _logistic(score: np.ndarray, bounds: Range, center: float, width: float) -> np.ndarray:
    """Return rates between two bounds, half-way at the center, where they rise by their distance per width."""
    from scipy.special import expit

    return np.asarray(bounds[0] + (bounds[1] - bounds[0]) * expit(4 * (score - center) / width))


def _dense(values: object) -> np.ndarray:
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values)
