"""The cells that are handed to another tool: an AnnData of their own, with states, velocities and a graph."""

import logging
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from cellflow.cells.states import States
from cellflow.estimators.chains import chain_of
from cellflow.estimators.conditional import Condition, of_cells

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow

log = logging.getLogger(__name__)

BASIS = "flow"
"""States are in ``obsm["X_flow"]``, velocities in ``obsm["velocity_flow"]``."""
FEWEST = 3
"""Fewest cells of which a graph of neighbours is made."""


class HandedOver(NamedTuple):
    """Cells for another tool.

    Parameters
    ----------
    adata
        The cells, with what is drawn of them.
    states
        Their states, times, and rows in the AnnData of the user.
    velocity
        ``(n, d)``, per unit of the user's time.
    """

    adata: "AnnData"
    states: States
    velocity: np.ndarray


def hand_over(
    adata: "AnnData",
    flow: "SnapshotFlow",
    condition: Condition | None,
    n_neighbors: int,
    *,
    chain: bool,
    dimensions: bool = False,
) -> HandedOver:
    """Return the cells of a flow in a new AnnData, with a graph of neighbours in its representation.

    Parameters
    ----------
    adata, flow
        The cells, and the flow.
    condition
        As for `tl.velocity`.
    n_neighbors
        Number of neighbours of each cell in the graph; fewer if there are not enough cells.
    chain
        Whether to hand over only the cells of its chain, with a condition.
    dimensions
        Whether the variables are the dimensions of the representation instead of genes.

    Raises
    ------
    ValueError
        When there are fewer than three cells, or ``n_neighbors`` is below 2.
    """
    if n_neighbors < 2:
        raise ValueError(f"Expected n_neighbors >= 2; found {n_neighbors}.")
    states = chosen_states(adata, flow, condition, chain=chain)
    if len(states) < FEWEST:
        raise ValueError(f"Expected at least {FEWEST} cells to hand over; found {len(states)}.")
    velocity = flow.velocity(states.x, states.time, condition=states.condition)
    found = _copy(adata, states, _named(adata, flow) if dimensions else None)
    found.obsm[f"X_{BASIS}"] = states.x
    found.obsm[f"velocity_{BASIS}"] = np.asarray(velocity)
    _connect(found, lowered(n_neighbors, len(states) - 1, "cells"))
    return HandedOver(found, states, velocity)


def chosen_states(adata: "AnnData", flow: "SnapshotFlow", condition: Condition | None, *, chain: bool) -> States:
    """Return all cells, each under its own condition or a given one; or those that lead to a condition and are of it.

    Raises
    ------
    ValueError
        When a chain is asked for, and the flow has conditions of which none is given.
    """
    flow._check_fitted()
    if chain and flow.conditions_ is not None:
        if condition is None:
            such = ", ".join(f"{name!r}: ..." for name in flow.conditions_.columns)
            raise ValueError(
                "This flow has conditions, and cells of one do not turn into those of another. Pass one with "
                f"`condition={{{such}}}`: its cells and those that lead to it are handed over."
            )
        own = flow.read(adata, weights=False)
        asked = of_cells(flow, adata, own.rows, condition)
        states = chain_of(own, np.asarray(asked), flow.conditions_.effect)
        if len(np.unique(states.time)) < 2:
            raise ValueError(f"Fewer than two times have cells of the condition {condition!r}, or that lead to it.")
        return states
    return flow.read(adata, condition=condition, weights=False)


def lowered(n_neighbors: int, most: int, of: str) -> int:
    """Return a number of neighbours that exist; a lower number than requested is logged.

    Examples
    --------
    >>> lowered(30, 12, "cells at time 2")
    12
    """
    if n_neighbors <= most:
        return n_neighbors
    log.warning("n_neighbors is lowered from %d to %d, all there are (%s)", n_neighbors, most, of)
    return most


def _named(adata: "AnnData", flow: "SnapshotFlow") -> pd.DataFrame:
    """Return the dimensions of the representation as variables."""
    if flow.rep == "X":
        return pd.DataFrame(adata.var.copy())
    name = flow.rep.removeprefix("X_")
    return pd.DataFrame(index=[f"{name}_{k + 1}" for k in range(flow.n_features_in_)])


def _copy(adata: "AnnData", states: States, dimensions: pd.DataFrame | None) -> "AnnData":
    """Return cells with their columns, embeddings and colours; expression is shared where all cells are taken."""
    from anndata import AnnData
    from scipy.sparse import csr_matrix

    rows, x, var = states.rows, None, dimensions
    if dimensions is not None:
        x = states.x
    elif not adata.isbacked:  # what lies in a file stays there
        var, x = adata.var.copy(), adata.X if len(rows) == adata.n_obs or adata.X is None else adata.X[rows]
    if x is None:  # estimators of CellRank ask for its type
        x = csr_matrix((len(rows), 0 if var is None else len(var)), dtype=np.float32)
    found = AnnData(x, obs=adata.obs.iloc[rows].copy(), var=var)
    for key, values in adata.obsm.items():
        found.obsm[key] = values.iloc[rows] if hasattr(values, "iloc") else values[rows]
    found.uns.update({key: np.asarray(value) for key, value in adata.uns.items() if key.endswith("_colors")})
    return found


def _connect(adata: "AnnData", n_neighbors: int) -> None:
    import warnings

    import scanpy as sc

    with warnings.catch_warnings():  # of umap, about few cells and seeds
        warnings.simplefilter("ignore")
        sc.pp.neighbors(adata, n_neighbors=n_neighbors, use_rep=f"X_{BASIS}")
