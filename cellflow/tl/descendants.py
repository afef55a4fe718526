"""Descendants and ancestors: where the mass of chosen cells goes, and where it came from."""

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellflow.cells.clock import TimeLike, one_time
from cellflow.cells.columns import read_labels
from cellflow.cells.snapshots import time_labels_of
from cellflow.cells.states import Cells, States, positions
from cellflow.estimators.chains import among
from cellflow.estimators.conditional import Condition
from cellflow.integrate import Adaptive, Fixed, Jumps
from cellflow.nearest import Nearest
from cellflow.signature import checked_but
from cellflow.tl.cells import about, asked_under, check_key, solver_of, target
from cellflow.tl.files import on_files
from cellflow.tl.keys import check_free

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow

NEIGHBORS = 10
"""Measured cells among which the mass of a carried cell is divided: enough to smooth over single cells."""

log = logging.getLogger(__name__)


@on_files
@checked_but("cells", "solver", "condition")
def push(
    adata: "AnnData",
    flow: "SnapshotFlow",
    *,
    cells: Cells,
    at: TimeLike,
    condition: Condition | None = None,
    groupby: str | None = None,
    n_neighbors: int | None = None,
    solver: Fixed | Adaptive | Jumps | str | int = Fixed(),
    extrapolate: bool = False,
    key_added: str = "push",
    copy: bool = False,
    **old: Any,
) -> "AnnData | None":
    """Find the descendants of chosen cells among the cells of a later snapshot.

    Each chosen cell is carried forward, and its mass divided equally among its nearest measured cells. With a flow that
    has learned growth, each cell is weighted by its number of descendants.

    Parameters
    ----------
    adata
        Cells with the time and the representation that the flow was fitted on.
    flow
        A fitted flow.
    cells
        The chosen cells: a mask, names, or rows of ``obs``. Together they carry mass 1.
    at
        Time of a snapshot in ``adata``, not before the chosen cells.
    condition
        With a flow that has conditions: the condition of the chosen cells, such as ``{"drug": "A", "dose": 3.0}``;
        ``None`` for each cell's own. They land among measured cells of these conditions; before the first time of such
        cells, among the untreated cells from which the condition starts.
    groupby
        Column of ``obs`` with the groups for which to sum the mass.
    n_neighbors
        Number of measured cells among which to divide the mass of a carried cell; ``None`` for 10, or all of a snapshot
        that has fewer.
    solver
        As for `SnapshotFlow.transport`.
    extrapolate
        Whether times outside the fitted range are allowed.
    key_added
        Name of the result, without "/".
    copy
        Whether to return a copy instead of writing into ``adata``.

    Writes
    ------
    ``obs[key_added]``
        Mass on every cell, which sums to 1; 0 at other times than ``at``.
    ``uns[key_added]``
        ``"at"``, ``"n_cells"``, ``"rep"``, ``"time_key"`` and ``"unit"`` of time; with ``groupby`` the table
        ``"groups"``: the mass of each group, and beside it the share of the group among the cells at that time.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> flow = cf.SnapshotFlow(rep="X_latent", steps=20).fit(adata)
    >>> first, last = flow.clock_.times[0], flow.clock_.times[-1]
    >>> cf.tl.push(adata, flow, cells=adata.obs["time"] == first, at=last, groupby="fate")
    >>> round(float(adata.uns["push"]["groups"]["mass"].sum()), 6)
    1.0
    """
    chosen = solver_of(flow, solver, verb="tl.push", old=old)
    how = (groupby, n_neighbors, chosen, extrapolate, key_added, copy)
    return _land(adata, flow, cells, at, condition, *how, forward=True)


@on_files
@checked_but("cells", "solver", "condition")
def pull(
    adata: "AnnData",
    flow: "SnapshotFlow",
    *,
    cells: Cells,
    at: TimeLike,
    condition: Condition | None = None,
    groupby: str | None = None,
    n_neighbors: int | None = None,
    solver: Fixed | Adaptive | Jumps | str | int = Fixed(),
    extrapolate: bool = False,
    key_added: str = "pull",
    copy: bool = False,
    **old: Any,
) -> "AnnData | None":
    """Find the ancestors of chosen cells among the cells of an earlier snapshot.

    As `push`, backward in time: ``at`` must not be after the chosen cells. Every chosen cell has one ancestor and
    counts once, whatever the growth of its clone.

    Parameters
    ----------
    adata, flow, cells, at, condition, groupby, n_neighbors, solver, extrapolate, key_added, copy
        As for `push`.

    Writes
    ------
    ``obs[key_added]``, ``uns[key_added]``
        As for `push`.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> flow = cf.SnapshotFlow(rep="X_latent", steps=20).fit(adata)
    >>> last = adata.obs["time"] == flow.clock_.times[-1]
    >>> cf.tl.pull(adata, flow, cells=last, at=flow.clock_.times[0])
    >>> round(float(adata.obs["pull"].sum()), 6)
    1.0
    """
    chosen = solver_of(flow, solver, verb="tl.pull", old=old, weighs=False)
    how = (groupby, n_neighbors, chosen, extrapolate, key_added, copy)
    return _land(adata, flow, cells, at, condition, *how, forward=False)


def _land(
    adata: "AnnData",
    flow: "SnapshotFlow",
    cells: Cells,
    at: TimeLike,
    condition: Condition | None,
    groupby: str | None,
    n_neighbors: int | None,
    solver: Fixed | Adaptive | Jumps,
    extrapolate: bool,
    key_added: str,
    copy: bool,
    *,
    forward: bool,
) -> "AnnData | None":
    """Carry the chosen cells to a snapshot, and write their mass on its cells."""
    check_key(key_added)
    states = flow.read(adata)
    groups = None if groupby is None else read_labels(adata, groupby, setting="groupby")
    chosen = asked_under(adata, flow, states.take(positions(adata, cells)), condition)
    moment = one_time(at, what="`at`", like=time_labels_of(adata, flow.time_key))
    there = snapshot_at(flow, states, moment, of=chosen)
    neighbors = neighbors_of(n_neighbors, there, moment)
    late = chosen.time > moment if forward else chosen.time < moment
    if late.any():
        other, side = ("pull", "after") if forward else ("push", "before")
        raise ValueError(f"{late.sum()} of the chosen cells are {side} time {moment:g}. Use `tl.{other}` for those.")
    span: dict[str, Any] = {"start": chosen.time, "stop": moment, "solver": solver, "extrapolate": extrapolate}
    found = flow.transport(chosen.x, condition=chosen.condition, **span)
    landed = found.x[-1].numpy()
    # Forward, growth weighs the descendants of a cell; backward, each cell has one ancestor, and no weight applies.
    weight = chosen.weighed(found.shares()[-1].numpy() if forward else np.ones(len(chosen)))
    mass = np.zeros(adata.n_obs)
    mass[there.rows] = _mass_on(there.x, landed, weight, neighbors)
    check_free(adata, key_added, [key_added])
    written = target(adata, copy=copy)
    written.obs[key_added] = mass
    written.uns[key_added] = {"at": moment, "n_cells": len(chosen), **about(adata, flow)}
    if groups is not None:
        written.uns[key_added]["groups"] = _by_group(groups, mass, there)
    return written if copy else None


def snapshot_at(flow: "SnapshotFlow", states: States, moment: float, *, of: States) -> States:
    """Return the cells of a snapshot, among which the mass of carried cells is divided.

    With conditions, these are cells of the conditions of others, or the untreated ones that lead to these.

    Raises
    ------
    ValueError
        When there are none.
    """
    there = states.at(moment)
    if not len(there):
        known = ", ".join(f"{t:g}" for t in np.unique(states.time))
        raise ValueError(f"No cells at time {moment:g} to carry cells to. Choose one of: {known}.")
    if flow.conditions_ is not None and not len(there := among(states, of, at=moment, effect=flow.conditions_.effect)):
        raise ValueError(
            f"No cells at time {moment:g} are under a condition of the chosen ones, or lead to it. Choose another "
            "`at`, or set their `condition`."
        )
    return there


def neighbors_of(n_neighbors: int | None, there: States, moment: float) -> int:
    """Return how many measured cells of a snapshot count as neighbours of a carried one.

    Raises
    ------
    ValueError
        When the snapshot has fewer cells than requested.
    """
    if n_neighbors is None:
        found = min(NEIGHBORS, len(there))
        if found < NEIGHBORS:
            log.info("There are %d cells at time %g: n_neighbors is %d instead of %d.", found, moment, found, NEIGHBORS)
        return found
    if not 1 <= n_neighbors <= len(there):
        raise ValueError(f"Expected 1 <= n_neighbors <= {len(there)} (cells at time {moment:g}); found {n_neighbors}.")
    return n_neighbors


def _mass_on(cells: np.ndarray, landed: np.ndarray, weight: np.ndarray, n_neighbors: int) -> np.ndarray:
    """Divide the weight of each carried cell among its nearest cells; the masses sum to 1."""
    nearest = Nearest(cells, n_neighbors).rows(landed)
    shares = np.repeat(weight / weight.sum() / n_neighbors, n_neighbors)
    return np.bincount(nearest.ravel(), weights=shares, minlength=len(cells))


def _by_group(groups: pd.Series, mass: np.ndarray, there: States) -> pd.DataFrame:
    """Sum the mass by group; cells without a group count as ``"none"``."""
    labels = groups.fillna("none").to_numpy()
    share = there.weighed(np.full(len(there), 1 / len(there)))
    table = pd.DataFrame({"mass": mass[there.rows], "share": share}).groupby(labels[there.rows]).sum()
    table.index.name = "group"
    return table
