"""Predictions of a flow at any time, and their distance to measured cells."""

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cellflow.cells.states import States
from cellflow.errors import unknown
from cellflow.integrate import Adaptive, Fixed, Jumps
from cellflow.metrics import population_distance
from cellflow.seeds import generator_at

if TYPE_CHECKING:
    from cellflow.estimators.snapshots import SnapshotFlow

ORIGINS = ("both", "before", "after")
"""The snapshots from which cells are carried to a time."""


class Carried(NamedTuple):
    """Cells of one snapshot, carried to one time.

    Attributes
    ----------
    origin
        The cells before.
    x
        Their states there, ``(n, d)``.
    weight
        Their weights ``(n,)``: over all snapshots that are carried to the time they sum to 1.
    time
        The time, in the user's units.
    """

    origin: States
    x: np.ndarray
    weight: np.ndarray
    time: float


def predict(
    flow: "SnapshotFlow",
    cells: States,
    at: float,
    *,
    origin: str = "both",
    solver: Fixed | Adaptive | Jumps = Fixed(),
    extrapolate: bool = False,
) -> list[Carried]:
    """Carry the neighbouring fitted snapshots to one time, each weighted by how near it is.

    Parameters
    ----------
    flow
        A fitted flow.
    cells
        Cells at fitted times, see `SnapshotFlow.read`; those at other times are not used.
    at
        The time, in the user's units. At a fitted time its own cells are returned.
    origin
        ``"both"`` sides, or only the snapshot ``"before"`` or ``"after"``.
    solver
        As for `SnapshotFlow.transport`.
    extrapolate
        Whether times outside the fitted range are allowed.

    Raises
    ------
    ValueError
        When the time is outside the fitted range, or there are no cells to carry.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> flow = cf.SnapshotFlow(rep="X_latent", steps=20).fit(adata)
    >>> [round(float(part.weight.sum()), 3) for part in predict(flow, flow.read(adata), 0.5)]
    [0.5, 0.5]
    """
    if origin not in ORIGINS:
        raise ValueError(unknown("origin", origin, ORIGINS))
    parts = []
    for start, share in _nearness(flow, at, origin, extrapolate=extrapolate).items():
        there = cells.at(start)
        if not len(there):
            known = list(flow.clock_.times)
            raise ValueError(f"No cells at time {start:g} in `adata`; the flow was fitted on {known}.")
        parts.append(_carried(flow, there, at, share, solver, extrapolate=extrapolate))
    return parts


def score(flow: "SnapshotFlow", cells: States) -> float:
    """Return minus the mean distance between carried and measured cells.

    Every snapshot at a fitted time is carried to the next fitted time; to a time in between, both its neighbours are.

    Parameters
    ----------
    flow
        A fitted flow.
    cells
        Cells with their times, see `SnapshotFlow.read`.

    Raises
    ------
    ValueError
        When there is nothing to compare.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> flow = cf.SnapshotFlow(rep="X_latent", steps=20).fit(adata)
    >>> score(flow, flow.read(adata)) < 0
    True
    """
    known, seen = flow.clock_.times, set(np.unique(cells.time).tolist())
    steps = [(here, there) for here, there in pairwise(known) if {here, there} <= seen]
    between = [
        time
        for time in sorted(seen - set(known))
        if known[0] < time < known[-1] and {known[k] for k in flow.clock_.around(time)} <= seen
    ]
    predictions = [(there, [_carried(flow, cells.at(here), there, 1.0, Fixed())]) for here, there in steps]
    predictions += [(time, predict(flow, cells, time)) for time in between]
    if not predictions:
        raise ValueError(
            "Expected cells at two fitted times that follow each other, or at a time between two such with cells at "
            f"both; found cells at {sorted(seen)}, and the flow was fitted on {list(known)}. Give more of the cells."
        )
    distances = [
        population_distance(
            np.concatenate([part.x for part in parts]),
            cells.at(time).x,
            weights_x=np.concatenate([part.weight for part in parts]),
            weights_y=cells.at(time).weight,
            generator=generator_at(int(flow.seed), number),
        )
        for number, (time, parts) in enumerate(predictions)
    ]
    return -sum(distances) / len(distances)


def _nearness(flow: "SnapshotFlow", at: float, origin: str, *, extrapolate: bool) -> dict[float, float]:
    """Return the fitted times that cells are carried from, and the share of each side."""
    clock = flow.clock_
    clock.check(at, extrapolate=extrapolate)
    before, after = (clock.times[k] for k in clock.around(at))
    if not clock.times[0] <= at <= clock.times[-1]:
        before = after = clock.times[0] if at < clock.times[0] else clock.times[-1]
    if origin != "both" or before == after:
        return {after if origin == "after" else before: 1.0}
    near = (after - at) / (after - before)
    return {before: near, after: 1 - near}


def _carried(
    flow: "SnapshotFlow",
    there: States,
    at: float,
    share: float,
    solver: Fixed | Adaptive | Jumps,
    *,
    extrapolate: bool = False,
) -> Carried:
    found = flow.transport(there.x, start=there.time, stop=at, solver=solver, extrapolate=extrapolate)
    return Carried(there, found.x[-1].numpy(), share * there.weighed(found.shares()[-1].numpy()), at)
