"""Cells under conditions, measured or not."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellflow.cells.name_vectors import listed
from cellflow.cells.snapshots import read_rep
from cellflow.cells.states import Cells, positions
from cellflow.estimators.arms import treatments_alone
from cellflow.estimators.perturbation_verbs import WAY, check_cells
from cellflow.integrate import Adaptive, Fixed, resolve
from cellflow.signature import checked_but
from cellflow.tl.asked import Asked, read_asked, set_apart, table_of_asked
from cellflow.tl.genes import Loadings, read_loadings
from cellflow.training.run import progress_bar

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import PerturbationFlow

log = logging.getLogger(__name__)

AT_ONCE, ON_A_GPU = 2048, 2**16
"""Cells that are carried at a time: on a CPU as many as fit its cache."""
MOST_DECODED = 2**28
"""Numbers of decoded genes, 1 GiB, beyond which they are left out unless they are asked for."""


@checked_but("condition", "cells", "genes", "solver")
def perturb(
    adata: "AnnData",
    flow: "PerturbationFlow",
    *,
    condition: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    cells: Cells | None = None,
    genes: bool | str | Sequence[str] = "auto",
    solver: Fixed | Adaptive | str | int = WAY,
    progress: bool | None = None,
) -> "AnnData":
    """Predict what cells would be under conditions, measured or not.

    Cells are carried some at a time: what grows with the number of cells and conditions is the result alone.

    Parameters
    ----------
    adata
        Cells with the representation that the flow was fitted on.
    flow
        A fitted flow.
    condition
        A value for each column of the conditions, as ``{"drug": "A+B", "dose": 3.0}``; or a list of such, each once.
        What is not a treatment, such as a donor, may be left out: it is that of each cell. ``None`` for all treatments
        of the fit.
    cells
        A mask over all cells, names, or rows of ``obs``; ``None`` for the controls.
    genes
        Whether to decode genes through the stored PCA loadings; or the names of those to decode. ``"auto"`` decodes
        all where there are loadings, and they take at most 1 GiB.
    solver
        As for `PerturbationFlow.transport`.
    progress
        Whether to show a bar.

    Returns
    -------
    AnnData
        One row per condition and cell: ``obsm[rep]``; in ``obs`` the columns of the condition and of groups, and
        ``condition`` (its name), ``origin`` (name of the cell it was carried from) and ``weight`` (sums to 1 in each
        condition). Where a column of the condition or of groups is called so, it is kept, and these are
        ``predicted_condition``, ``predicted_origin`` and ``predicted_weight``. ``X`` holds decoded genes, in the units
        of the PCA's input, or nothing. ``uns["perturbation"]``: ``"rep"``, and ``"fingerprint"``, by which plots
        notice another representation.

    Raises
    ------
    KeyError, ValueError
        When a column of a condition is unknown or missing, a name was not seen in training and has no embedding, a
        condition is asked for twice, or there are no controls and ``cells`` names none.

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

    others: dict[str, Any] = {"noisy": "PerturbationFlow.simulate", "jumps": "cf.integrate.Fixed()"}
    chosen = resolve(solver, default=WAY, verb="tl.perturb", **others)
    rows, x = _chosen(adata, flow, cells), read_rep(adata, flow.rep)
    check_cells(flow, adata, x)
    x, obs = x[rows], adata.obs.iloc[rows]
    asked = read_asked(flow, condition, obs)
    loadings = _loadings(adata, flow, genes, len(rows) * len(asked))
    states = np.empty((len(asked) * len(rows), x.shape[1]), dtype=np.float32)
    values = None if loadings is None else np.empty((len(states), len(loadings.matrix)), dtype=np.float32)
    at_once = AT_ONCE if next(flow.field_.parameters()).device.type == "cpu" else ON_A_GPU
    with progress_bar(shown=progress, start=0, steps=len(states), what="perturbing") as bar:
        for number, one in enumerate(asked):
            for start in range(0, len(rows), at_once):
                some = slice(start, start + at_once)
                carried = flow.transport(x[some], condition=one.vectors[one.index[some]], solver=chosen).x[-1].numpy()
                at = number * len(rows) + start
                states[at : at + len(carried)] = carried
                if values is not None and loadings is not None:
                    values[at : at + len(carried)] = loadings.decode(carried)
                bar(at + len(carried), None)
    whole, columns = flow.rep == "X", _columns(flow, obs)
    own = set_apart(_own_columns(asked, obs), columns)
    known = flow.fingerprint_
    return anndata.AnnData(
        X=states if whole else values,
        obs=pd.DataFrame(table_of_asked(flow, asked, obs, columns) | own, index=_names(obs, asked)),
        var=adata.var[[]].copy() if whole else None if loadings is None else adata.var[loadings.seen].copy(),
        obsm={} if whole else {flow.rep: states},
        uns={"perturbation": {"rep": flow.rep} | ({} if known is None else {"fingerprint": known.note()})},
    )


def _chosen(adata: "AnnData", flow: "PerturbationFlow", cells: Cells | None) -> np.ndarray:
    """Return the positions of the cells to carry."""
    flow._check_fitted()
    if cells is not None:
        return positions(adata, cells)
    treatments = treatments_alone(flow.conditions_)
    lacking = [name for name in treatments.columns if name not in adata.obs]
    if lacking:
        raise KeyError(
            f"No `adata.obs[{lacking[0]!r}]`, which tells the controls. Name the cells: `cells=adata.obs_names`."
        )
    table = treatments.read(adata.obs)
    treatments.require_control(table)
    return np.flatnonzero(table.is_control[table.index])


def _loadings(adata: "AnnData", flow: "PerturbationFlow", genes: Any, n: int) -> Loadings | None:
    """Return the map to the genes that are decoded, for ``n`` rows."""
    if isinstance(genes, bool) or (isinstance(genes, str) and genes == "auto"):
        found = read_loadings(adata, flow.rep, genes=genes)
        if genes == "auto" and found is not None and n * len(found.matrix) > MOST_DECODED:
            log.warning(
                "genes are not decoded: %d rows of %d genes take %.1f GiB. Name some with `genes=[...]`, or decode all "
                "with `genes=True`",
                n,
                len(found.matrix),
                4 * n * len(found.matrix) / 2**30,
            )
            return None
        return found
    if isinstance(genes, type) or not isinstance(genes, Iterable):
        raise TypeError(f"Expected `genes` as True, False, 'auto' or names of genes; found {genes!r:.60}.")
    names = [genes] if isinstance(genes, str) else list(genes)
    found = read_loadings(adata, flow.rep, genes=True)
    places = pd.Index([] if found is None else adata.var_names[found.seen]).get_indexer(names)
    lacking = [str(name) for name, place in zip(names, places, strict=True) if place < 0]
    if found is None or lacking or not names:
        raise KeyError(f"Expected names of genes that the PCA saw in `genes`; found {listed(lacking)}.")
    return found.some(places)


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
