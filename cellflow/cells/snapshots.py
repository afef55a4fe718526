"""Reading AnnData: times, representations, snapshots. Cells are never reordered and never dropped."""

import hashlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cellflow.cells.clock import Clock, TimeLike, distinct_times, how_read, time_labels, to_numbers
from cellflow.cells.columns import read_column, read_groups, read_numbers, read_weights
from cellflow.cells.condition_rows import ConditionTable
from cellflow.cells.single import read_single
from cellflow.cells.states import Cells, States, positions
from cellflow.cells.stores import FROM_FILE, digests_of_files

if TYPE_CHECKING:
    from anndata import AnnData

log = logging.getLogger(__name__)

MOST = 5
"""Times that a message shows."""
ROUNDING = 1e-9
"""Share of the whole time below which two times are the same, but for rounding."""


@dataclass(frozen=True)
class Snapshots:
    """The cells of an AnnData by time point.

    Parameters
    ----------
    x
        The representation of every cell, ``(n, d)``, in the order of the AnnData.
    time
        The time of every cell, ``(n,)``, in the user's units.
    clock
        The time points.
    groups
        The name of the group of every cell, ``(n,)``, if pairs may not cross groups; else ``None``.
    weights
        The weight of every cell in its snapshot, ``(n,)``; ``None`` if all weigh the same.
    rates
        Expected growth rate of every cell, ``(n,)``, per unit of the user's time; ``None`` without expectation.
    conditions
        The conditions, and which of them every cell has; ``None`` for none.
    names
        The name of every cell, ``(n,)``, if known.
    labels
        If the time column holds labels such as "day 2", the number of each.
    """

    x: np.ndarray
    time: np.ndarray
    clock: Clock
    groups: np.ndarray | None = None
    weights: np.ndarray | None = None
    rates: np.ndarray | None = None
    conditions: ConditionTable | None = None
    names: np.ndarray | None = None
    labels: Mapping[str, float] = field(default_factory=dict)

    def at(self, time: float) -> np.ndarray:
        """Return the positions of the cells of one time point."""
        return np.flatnonzero(self.time == time)

    def said(self, time: float) -> str:
        """Return a time in words, as its column has it."""
        return next((repr(label) for label, of in self.labels.items() if of == time), f"time {time:g}")

    def take(self, cells: np.ndarray) -> "Snapshots":
        """Return some cells, a mask ``(n,)``, on the clock of all."""
        groups, weights, rates = (
            None if part is None else part[cells] for part in (self.groups, self.weights, self.rates)
        )
        table = self.conditions
        kept = None if table is None else replace(table, index=table.index[cells])
        names = None if self.names is None else self.names[cells]
        return Snapshots(self.x[cells], self.time[cells], self.clock, groups, weights, rates, kept, names, self.labels)

    def digest(self) -> str:
        """Return a digest of all cells and their times, which identifies the data."""
        digest = hashlib.sha256(np.ascontiguousarray(self.x).data)  # without a copy, as large again
        digest.update(np.ascontiguousarray(self.time).data)
        if self.groups is not None:
            digest.update("\n".join(self.groups).encode())
        for values in (self.weights, self.rates):
            digest.update(b"" if values is None else values.tobytes())
        if self.conditions is not None:
            for values in (self.conditions.vectors, self.conditions.index):
                digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()

    def about(self, adata: "AnnData | None" = None) -> dict[str, object]:
        """Return what identifies the data of a training: the times, a digest of the cells, and one of each file.

        ``adata`` holds the same cells, and knows their files if there are any.
        """
        files = {} if adata is None else digests_of_files(adata, self.x, self.time)
        return {**files, "times": list(self.clock.times), "cells": self.digest()}

    def clouds(self) -> list[np.ndarray]:
        """Return the representation of the cells of each time point, in order of time."""
        return self.each(self.x)

    def each(self, values: np.ndarray) -> list[np.ndarray]:
        """Return values of all cells, ``(n, ...)``, split by time point, in order of time."""
        return [values[self.at(time)] for time in self.clock.times]


def read_snapshots(
    adata: "AnnData",
    *,
    time_key: str,
    rep: str,
    within: str | None = None,
    weight_key: str | None = None,
    prior_key: str | None = None,
    n_pcs: int | None = None,
) -> Snapshots:
    """Read the time, the representation and, if asked, the group, weight and expected growth of every cell.

    Parameters
    ----------
    adata
        May be a view or backed by a file.
    time_key
        Column of ``obs`` with the time: numbers, categories that are numbers, Timedelta (counted in days), or numbers
        with one word before or after them, such as "E8.5", "24h" or "day 3"; the word is dropped.
    rep
        Key in ``obsm``, or ``"X"``.
    within
        Column of ``obs`` with the group of every cell; ``None`` for no groups.
    weight_key
        Column of ``obs`` with the weight of every cell; ``None`` if all weigh the same.
    prior_key
        Column of ``obs`` with the expected rate of growth of every cell; ``None`` for no expectation.
    n_pcs
        How many of the first columns of the representation are read; ``None`` for all.

    Raises
    ------
    KeyError
        When a column or the representation is missing; the message lists those available.
    ValueError
        When times or values are unusable, with the reason; when there is one time point, or one cell at a time.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> snapshots = read_snapshots(adata, time_key="time", rep="X_latent")
    >>> len(snapshots.x) == adata.n_obs
    True
    """
    time = read_times(adata, time_key)
    if said := how_read(adata.obs[time_key], what=f"`adata.obs[{time_key!r}]`"):
        log.info(said)
    _check_snapshots(time, time_key)
    times = np.unique(time)
    groups = None if within is None else read_groups(adata, within, setting="within")
    weights = None if weight_key is None else read_weights(adata, weight_key)
    empty = [] if weights is None else [f"{t:g}" for t in times if not weights[time == t].any()]
    if empty:
        raise ValueError(f"All cells at time {', '.join(empty)} have weight 0 in `adata.obs[{weight_key!r}]`.")
    rates = None if prior_key is None else read_numbers(adata, prior_key, setting="prior_key")
    x, names, labels = read_rep(adata, rep, n_pcs=n_pcs), adata.obs_names.to_numpy(), time_labels_of(adata, time_key)
    return Snapshots(x, time, Clock(tuple(times.tolist()), labels), groups, weights, rates, names=names, labels=labels)


def _check_snapshots(time: np.ndarray, time_key: str) -> None:
    """Refuse a single time point, times that differ by rounding, and times at which there is one cell."""
    (times, counts), where = np.unique(time, return_counts=True), f"`adata.obs[{time_key!r}]`"
    if len(times) == 1:
        raise ValueError(f"{where} holds one time point ({times[0]:g}); a flow needs two or more.")
    lonely = times[counts < 2]
    if len(lonely) > len(times) / 2:
        raise ValueError(
            f"{where} holds {len(times)} different times for {len(time)} cells: a continuous time, such as a "
            "pseudotime, but each snapshot needs many cells. Bin it, into eight parts for example, each at its "
            f"median: `adata.obs['binned'] = adata.obs[{time_key!r}].astype(float).groupby(pd.qcut(adata.obs["
            f"{time_key!r}].astype(float), 8, duplicates='drop'), observed=True).transform('median')`."
        )
    if len(lonely):
        shown = ", ".join(f"{t:g}" for t in lonely[:MOST]) + (" and others" if len(lonely) > MOST else "")
        raise ValueError(
            f"Only one cell at time {shown} in {where}: a snapshot needs two or more. "
            "Leave that cell out, or merge its time point with the next."
        )
    close = np.diff(times) < ROUNDING * np.ptp(times)
    if close.any():
        first, second = float(times[:-1][close][0]), float(times[1:][close][0])
        raise ValueError(
            f"{where} holds {first!r} and {second!r}: times that differ only by rounding would be two snapshots. Round "
            f"them: `adata.obs[{time_key!r}] = adata.obs[{time_key!r}].astype(float).round(6)`."
        )


def read_states(
    adata: "AnnData",
    *,
    time_key: str,
    rep: str,
    cells: Cells | None = None,
    weight_key: str | None = None,
    n_pcs: int | None = None,
) -> States:
    """Read the representation, the time and, if asked, the weight of all cells, or of some.

    Parameters
    ----------
    adata, time_key, rep, weight_key, n_pcs
        As for `read_snapshots`; cells of a single time will do.
    cells
        A mask over all cells, or names; ``None`` for all.

    Raises
    ------
    KeyError, ValueError, TypeError
        As for `read_snapshots` and `cellflow.cells.states.positions`.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.hsmm()
    >>> states = read_states(adata, time_key="hours", rep="X", cells=adata.obs["hours"] == 72)
    >>> len(states), states.time.min()
    (49, np.float64(72.0))
    """
    weight = None if weight_key is None else read_weights(adata, weight_key)
    x = read_rep(adata, rep, n_pcs=n_pcs)
    states = States(x, read_times(adata, time_key), np.arange(adata.n_obs), weight=weight)
    return states if cells is None else states.take(positions(adata, cells))


def read_times(adata: "AnnData", time_key: str) -> np.ndarray:
    """Return the time of every cell as float64, ``(n,)``.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> adata = anndata.AnnData(np.zeros((2, 1), "float32"), obs=pd.DataFrame({"day": ["2", "7"]}, index=["a", "b"]))
    >>> read_times(adata, "day")
    array([2., 7.])
    """
    column = read_column(adata, time_key, setting="time_key")
    if not adata.obs_names.is_unique:
        raise ValueError(
            "`adata.obs_names` has duplicates, so cells cannot be named. Run `adata.obs_names_make_unique()`."
        )
    if not adata.n_obs:
        raise ValueError("`adata` holds no cells.")
    time = to_numbers(column, what=f"`adata.obs[{time_key!r}]`", labels=True)
    bad = ~np.isfinite(time)
    if bad.any():
        kept = "" if np.isnan(time[bad]).all() else ".replace([np.inf, -np.inf], np.nan)"
        raise ValueError(
            f"{bad.sum()} of {len(time)} cells have no finite time in `adata.obs[{time_key!r}]`. Leave them out "
            f"first: `adata = adata[adata.obs[{time_key!r}]{kept}.notna()].copy()`."
        )
    return time


def time_labels_of(adata: "AnnData", time_key: str) -> dict[str, float]:
    """Return the labels of a time column, such as "day 2", and the number of each; empty if it holds numbers.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> obs = pd.DataFrame({"day": ["day 2", "day 7"]}, index=["a", "b"])
    >>> time_labels_of(anndata.AnnData(np.zeros((2, 1), "float32"), obs=obs), "day")
    {'day 2': 2.0, 'day 7': 7.0}
    """
    return time_labels(read_column(adata, time_key, setting="time_key"), what=f"`adata.obs[{time_key!r}]`")


def time_unit(adata: "AnnData", time_key: str) -> str:
    """Return the unit of a time column: ``"days"`` for Timedelta, ``""`` for numbers, which have none.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> obs = pd.DataFrame({"age": pd.to_timedelta([1, 2], unit="D"), "day": [1, 2]}, index=["a", "b"])
    >>> adata = anndata.AnnData(np.zeros((2, 1), "float32"), obs=obs)
    >>> time_unit(adata, "age"), time_unit(adata, "day")
    ('days', '')
    """
    dtype = read_column(adata, time_key, setting="time_key").dtype
    dtype = dtype.categories.dtype if isinstance(dtype, pd.CategoricalDtype) else dtype
    return "days" if pd.api.types.is_timedelta64_dtype(dtype) else ""


def read_rep(adata: "AnnData", rep: str, *, n_pcs: int | None = None) -> np.ndarray:
    """Return a representation as float32, ``(n, d)``, or its first ``n_pcs`` columns.

    Examples
    --------
    >>> import cellflow as cf
    >>> read_rep(cf.datasets.branching(seed=0), "X_latent").dtype
    dtype('float32')
    """
    if rep != "X" and rep not in adata.obsm:
        raise KeyError(
            f"No `adata.obsm[{rep!r}]`. Available: {[*adata.obsm, 'X']}. Compute one first, for example with "
            "`sc.pp.pca`, or set `rep`."
        )
    if rep == "X" and adata.X is None:
        raise KeyError("`adata.X` holds nothing. Set `rep` to one of `adata.obsm`, or fill `X`.")
    values = adata.X if rep == "X" else adata.obsm[rep]
    shape = values.shape
    if len(shape) != 2:
        raise ValueError(f"Expected numbers of shape (cells, dimensions) in {rep!r}; found shape {tuple(shape)}.")
    columns = None if n_pcs is None else _fewer(n_pcs, shape[1], rep)
    own = FROM_FILE in adata.obs  # read for this: a copy would be as large again
    return read_single([values], rep=rep, names=adata.obs_names, columns=columns, copy=not own)


def _fewer(n_pcs: int, columns: int, rep: str) -> int:
    """Return how many of the first columns are read, provided that there are as many, and that they have an order."""
    if rep == "X":
        raise ValueError(
            "`n_pcs` chooses the first columns of a representation in `obsm`; the genes of `X` have no such order. Run "
            "`sc.pp.pca(adata)` and set `rep='X_pca'`, or leave out `n_pcs`."
        )
    if not 1 <= n_pcs <= columns:
        raise ValueError(f"Expected `n_pcs` from 1 to the {columns} columns of {rep!r}; found {n_pcs}.")
    return n_pcs


def leave_out(adata: "AnnData", time_key: str, times: TimeLike | Iterable[TimeLike]) -> "AnnData":
    """Return a view without the cells of one time point, of several or of none.

    Raises
    ------
    ValueError
        When there are no cells at one of the times, or it is named twice.

    Examples
    --------
    >>> import cellflow as cf
    >>> leave_out(cf.datasets.hsmm(), "hours", [24]).n_obs
    197
    """
    time, like = read_times(adata, time_key), time_labels_of(adata, time_key)
    left_out = distinct_times(times, what="the times to leave out", none=True, like=like)
    absent = [t for t in left_out if not (time == t).any()]
    if absent:
        known = ", ".join(f"{t:g}" for t in np.unique(time))
        raise ValueError(f"No cells at time {', '.join(f'{t:g}' for t in absent)} to leave out. Available: {known}.")
    return adata[~np.isin(time, left_out)]
