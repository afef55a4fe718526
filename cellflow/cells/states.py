"""States: points in the space of a representation, with their times and rows, read once and handed on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from cellflow.shapes import StatesLike, as_states
from cellflow.signature import checked

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["Cells", "States", "StatesLike", "as_states", "positions"]

Cells: TypeAlias = (
    str
    | Sequence[str]
    | Sequence[bool]
    | np.ndarray
    | pd.Series
    | pd.Index
    | pd.DataFrame
    | pd.api.extensions.ExtensionArray
)
"""A choice of cells: a mask over all of them, names, or rows of ``obs``."""


@checked
@dataclass(frozen=True, eq=False)
class States:
    """Points with the times at which they are, and where they come from.

    Parameters
    ----------
    x
        States in units of the representation, ``(n, d)``, float32.
    time
        Times in the user's units, ``(n,)``.
    rows
        Positions in the AnnData from which they were read, ``(n,)``.
    condition
        Everything else that a field sees, ``(n, k)``; ``None`` for a field without conditions.
    weight
        The weight of each in the population, ``(n,)``; ``None`` if all weigh the same.

    Examples
    --------
    >>> states = States(np.zeros((3, 2), "float32"), np.array([0.0, 0.0, 4.0]), np.arange(3))
    >>> len(states.at(0.0)), states.at(4.0).rows
    (2, array([2]))
    """

    x: np.ndarray
    time: np.ndarray
    rows: np.ndarray
    condition: np.ndarray | None = None
    weight: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @checked
    def take(self, chosen: np.ndarray) -> "States":
        """Return some of the states: a mask over them ``(n,)``, or positions among them."""
        condition, weight = (None if part is None else part[chosen] for part in (self.condition, self.weight))
        return States(self.x[chosen], self.time[chosen], self.rows[chosen], condition, weight)

    @checked
    def weighed(self, shares: np.ndarray) -> np.ndarray:
        """Return the share of each in the population ``(n,)``, given the ``shares`` that equal weights would give.

        Examples
        --------
        >>> states = States(np.zeros((2, 1), "float32"), np.zeros(2), np.arange(2), weight=np.array([1.0, 3.0]))
        >>> states.weighed(np.array([0.5, 0.5])), states.weighed(np.array([0.75, 0.25]))
        (array([0.25, 0.75]), array([0.5, 0.5]))
        """
        if self.weight is None:
            return shares
        weight = self.weight * shares
        return np.asarray(weight / weight.sum())

    @checked
    def at(self, time: float) -> "States":
        """Return the states of one time; empty if there are none."""
        return self.take(np.flatnonzero(self.time == time))


def positions(adata: "AnnData", cells: Cells) -> np.ndarray:
    """Return the positions of chosen cells, in the order of the AnnData for a mask, in the given order for names.

    Parameters
    ----------
    adata
        Where the cells are.
    cells
        A mask over all cells, such as ``adata.obs["hours"] == 72``; names, or one name; or rows of ``obs``, such as
        ``adata.obs.query("hours == 72")``, which are read as names. A Series with an index of names is a mask by name,
        whatever its order.

    Raises
    ------
    KeyError
        When a name is unknown.
    ValueError
        When the length of a mask is not the number of cells, or an entry is neither true nor false; when a name is
        missing or given twice; when nothing is chosen.
    TypeError
        When the cells are given as numbers: neither names nor a mask.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.hsmm()
    >>> positions(adata, adata.obs["hours"] == 72).shape, positions(adata, "T0_CT_A01")
    ((49,), array([0]))
    """
    chosen = _one_axis(adata, cells)
    if not len(chosen):
        raise ValueError("No cells were chosen: the mask or the list of names is empty.")
    if chosen.dtype == object and not all(isinstance(name, str) for name in chosen):
        raise TypeError(
            f"Expected names of cells, or a mask over all of them; found {type(chosen[0]).__name__} in a list."
        )
    if chosen.dtype == bool:
        return _chosen_by_mask(adata, chosen)
    found = np.asarray(adata.obs_names.get_indexer(pd.Index(chosen, dtype=object)))
    if (found < 0).any():
        missing = ", ".join(repr(str(name)) for name in chosen[found < 0][:3])
        raise KeyError(f"No cells {missing} in `adata.obs_names`. Give names of cells, or a mask over all of them.")
    twice = pd.Index(chosen)[pd.Index(chosen).duplicated()].unique()
    if len(twice):
        raise ValueError(
            f"{', '.join(map(repr, twice[:3]))} is named twice in `cells`. Name each cell once, as "
            "`pd.unique(names)` does."
        )
    return found


def _one_axis(adata: "AnnData", cells: Any) -> np.ndarray:
    """Return names ``(n,)`` as objects, or a mask ``(n,)``."""
    if isinstance(cells, pd.DataFrame):
        if len(cells.columns) and all(pd.api.types.is_bool_dtype(kind) for kind in cells.dtypes):
            raise TypeError("Expected one mask over all cells; found a table of truth values. Take one column of it.")
        cells = cells.index
    if isinstance(cells, str) or not isinstance(cells, Iterable) or isinstance(cells, set | frozenset | Mapping):
        if not isinstance(cells, str):
            kind = type(cells).__name__
            raise TypeError(f"Expected names of cells, or a mask over all of them; found {kind}: {cells!r:.40}.")
        cells = [cells]
    if getattr(cells, "ndim", 1) != 1:
        raise ValueError(f"Expected a mask or names along one axis; found an array of shape {np.shape(cells)}.")
    named = isinstance(cells, pd.Series)
    column = cells if named else pd.Series(np.asarray(cells).tolist() if isinstance(cells, list | tuple) else cells)
    if pd.api.types.infer_dtype(column, skipna=True) == "boolean":
        if column.isna().any():
            raise ValueError(
                f"{column.isna().sum()} of {len(column)} entries of the mask are neither True nor False. Decide: "
                "`mask.fillna(False)`."
            )
        column = column.astype(bool)
        return _by_name(adata, column) if named else column.to_numpy()
    if pd.api.types.is_numeric_dtype(column.dtype) and len(column):
        raise TypeError(
            "Expected names of cells, or a mask over all of them; found numbers. For their positions, give "
            "`adata.obs_names[positions]`."
        )
    if column.isna().any():
        raise ValueError(f"{column.isna().sum()} of {len(column)} names of cells are missing (NaN). Leave these out.")
    return column.to_numpy(dtype=object)


def _chosen_by_mask(adata: "AnnData", mask: np.ndarray) -> np.ndarray:
    if len(mask) != adata.n_obs:
        raise ValueError(f"Expected a mask over {adata.n_obs} cells; found one over {len(mask)}.")
    if not mask.any():
        raise ValueError("No cells were chosen: the mask or the list of names is empty.")
    return np.flatnonzero(mask)


def _by_name(adata: "AnnData", mask: pd.Series) -> np.ndarray:
    """Return a mask in the order of the AnnData, whatever the order of its index."""
    if len(mask) == adata.n_obs and set(mask.index) == set(adata.obs_names):
        return mask.reindex(adata.obs_names).to_numpy()
    raise ValueError(
        f"Expected a mask over the {adata.n_obs} cells of `adata`; found one over other cells: {len(mask)}, with names "
        f"such as {str(mask.index[0])!r}. If it is in their order, pass `mask.to_numpy()`."
    )
