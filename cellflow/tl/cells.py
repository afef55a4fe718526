"""Choosing cells, and checking that they are what the flow expects."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd

from cellflow.cells.snapshots import read_rep, read_times, time_unit

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow

Cells: TypeAlias = Sequence[str] | Sequence[bool] | np.ndarray | pd.Series | pd.Index


def states_and_times(adata: "AnnData", flow: "SnapshotFlow") -> tuple[np.ndarray, np.ndarray]:
    """Return the representation ``(n, d)`` and the time ``(n,)`` of every cell, under the keys of the flow."""
    return read_rep(adata, flow.rep), read_times(adata, flow.time_key)


def positions(adata: "AnnData", cells: Cells) -> np.ndarray:
    """Return the positions of chosen cells, in the order of the AnnData for a mask, in the given order for names.

    Parameters
    ----------
    adata
        Where the cells are.
    cells
        A mask over all cells, such as ``adata.obs["hours"] == 72``, or names.

    Raises
    ------
    KeyError
        When a name is not there.
    ValueError
        When a mask has another length than there are cells, or nothing is chosen.
    TypeError
        When the cells are numbered: neither names nor a mask.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.hsmm()
    >>> positions(adata, adata.obs["hours"] == 72).shape
    (49,)
    """
    if isinstance(cells, pd.Series) and cells.dtype == bool:
        cells = _by_name(adata, cells)
    chosen = np.asarray(cells)
    if np.issubdtype(chosen.dtype, np.number):
        raise TypeError("Expected names of cells, or a mask over all of them; found numbers.")
    if chosen.dtype == bool:
        if len(chosen) != adata.n_obs:
            raise ValueError(f"Expected a mask over {adata.n_obs} cells; found one over {len(chosen)}.")
        found = np.flatnonzero(chosen)
    else:
        found = adata.obs_names.get_indexer(chosen)
        if (found < 0).any():
            missing = ", ".join(repr(str(name)) for name in chosen[found < 0][:3])
            raise KeyError(f"No cells {missing} in `adata.obs_names`. Give names of cells, or a mask over all of them.")
    if not len(found):
        raise ValueError("No cells were chosen: the mask or the list of names is empty.")
    return found


def _by_name(adata: "AnnData", mask: pd.Series) -> np.ndarray:
    """Return a mask in the order of the AnnData, whatever the order of its index."""
    if len(mask) == adata.n_obs and set(mask.index) == set(adata.obs_names):
        return mask.reindex(adata.obs_names).to_numpy()
    raise ValueError(f"Expected a mask over the {adata.n_obs} cells of `adata`; found one over other cells.")


def about(adata: "AnnData", flow: "SnapshotFlow") -> dict[str, str]:
    """Return what every result carries with it: the representation, the time column, and the unit of time."""
    return {"rep": flow.rep, "time_key": flow.time_key, "unit": time_unit(adata, flow.time_key)}


def target(adata: "AnnData", *, copy: bool) -> "AnnData":
    """Return the AnnData to write into: the one given, or a copy.

    Raises
    ------
    ValueError
        When a backed file would have to be copied.
    """
    if adata.isbacked and (copy or adata.is_view):
        raise ValueError("A file, or a view of one, cannot be copied in place. Take `adata.to_memory()` first.")
    return adata.copy() if copy else adata


def refuse_jumps(jumps: int | None) -> None:
    """Raise where a flow with growth is asked to jump.

    Raises
    ------
    ValueError
        A flow map carries states, and knows nothing of their weights.
    """
    if jumps is not None:
        raise ValueError("This flow knows growth, and jumps would lose the weights of its cells. Leave out `jumps`.")
