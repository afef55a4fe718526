"""Predictions of a flow at any time, and their distance to measured cells."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from cellflow.cells.states import States
from cellflow.errors import unknown
from cellflow.estimators.chains import chain_of
from cellflow.integrate import Adaptive, Fixed, Jumps
from cellflow.metrics import population_distance
from cellflow.seeds import generator_at

if TYPE_CHECKING:
    from cellflow.cells.fitted_conditions import FittedConditions
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
        Their weights ``(n,)``, which sum to 1 over all snapshots carried to the time.
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
    times: Sequence[float] | None = None,
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
    times
        The fitted times that have cells, for one condition; ``None`` for all fitted times. Times before the first or
        after the last are reached from that one.

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
    for start, share in _nearness(flow, at, origin, times, extrapolate=extrapolate).items():
        there = cells.at(start)
        if not len(there):
            known = list(flow.clock_.times)
            raise ValueError(f"No cells at time {start:g} in `adata`; the flow was fitted on {known}.")
        parts.append(_carried(flow, there, at, share, solver, extrapolate=extrapolate))
    return parts


def arriving(flow: "SnapshotFlow", cells: States, at: float) -> list[Carried]:
    """Carry the fitted snapshot before a fitted time to it; with conditions, that of each, by its share of cells there.

    Parameters
    ----------
    flow, cells
        As for `predict`.
    at
        A fitted time other than the first.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> flow = cf.SnapshotFlow(rep="X_latent", steps=20).fit(adata)
    >>> len(arriving(flow, flow.read(adata), flow.clock_.times[-1]))
    1
    """
    known = flow.clock_.times
    if cells.condition is None:
        return [_carried(flow, cells.at(known[known.index(at) - 1]), at, 1.0, Fixed())]
    there, parts = cells.at(at), []
    conditions, counts = np.unique(np.asarray(there.condition), axis=0, return_counts=True)
    for condition, count in zip(conditions, counts, strict=True):
        chain = chain_of(cells, np.tile(condition, (len(cells), 1)), cast("FittedConditions", flow.conditions_).effect)
        before = [time for time in known if time < at and (chain.time == time).any()]
        if before:
            parts.append(_carried(flow, chain.at(before[-1]), at, count / len(there), Fixed()))
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
    if cells.condition is not None:
        return _score_of_conditions(flow, cells)
    distances = _distances(flow, cells, flow.clock_.times)
    return -sum(distances) / len(distances)


def _score_of_conditions(flow: "SnapshotFlow", cells: States) -> float:
    """Return minus the mean over conditions of the mean distance of each."""
    own, found = np.asarray(cells.condition), []
    for condition in np.unique(own, axis=0):
        chain = chain_of(cells, np.tile(condition, (len(cells), 1)), cast("FittedConditions", flow.conditions_).effect)
        times = [time for time in flow.clock_.times if (chain.time == time).any()]
        if len(times) > 1:
            found.append(np.mean(_distances(flow, chain, times)))
    if not found:
        raise ValueError("Expected cells of one condition at two fitted times, or untreated ones at an earlier time.")
    return -float(np.mean(found))


def _distances(flow: "SnapshotFlow", cells: States, known: Sequence[float]) -> list[float]:
    """Return the distance between carried and measured cells at each time that can be predicted."""
    seen = set(np.unique(cells.time).tolist())
    steps = [(here, there) for here, there in pairwise(known) if {here, there} <= seen]
    between = [
        time for time in sorted(seen - set(known)) if known[0] < time < known[-1] and {*_around(known, time)} <= seen
    ]
    predictions = [(there, [_carried(flow, cells.at(here), there, 1.0, Fixed())]) for here, there in steps]
    predictions += [(time, predict(flow, cells, time, times=known)) for time in between]
    if not predictions:
        raise ValueError(
            "Expected cells at two fitted times that follow each other, or at a time between two such with cells at "
            f"both; found cells at {sorted(seen)}, and the flow was fitted on {list(known)}. Give more of the cells."
        )
    return [
        population_distance(
            np.concatenate([part.x for part in parts]),
            cells.at(time).x,
            weights_x=np.concatenate([part.weight for part in parts]),
            weights_y=cells.at(time).weight,
            generator=generator_at(int(flow.seed), number),
        )
        for number, (time, parts) in enumerate(predictions)
    ]


def _around(times: Sequence[float], at: float) -> tuple[float, float]:
    """Return the times before and after a time, twice the same at one of them, and outside of all."""
    place = int(np.searchsorted(times, at))
    if place == len(times) or times[place] == at or place == 0:
        return (times[min(place, len(times) - 1)],) * 2
    return times[place - 1], times[place]


def _nearness(
    flow: "SnapshotFlow", at: float, origin: str, times: Sequence[float] | None, *, extrapolate: bool
) -> dict[float, float]:
    """Return the fitted times that cells are carried from, and the share of each side."""
    flow.clock_.check(at, extrapolate=extrapolate)
    before, after = _around(flow.clock_.times if times is None else times, at)
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
    given: dict[str, Any] = {"condition": there.condition, "solver": solver, "extrapolate": extrapolate}
    found = flow.transport(there.x, start=there.time, stop=at, **given)
    # A copy, so that where the cells began is not kept beside where they end.
    return Carried(there, found.x[-1].clone().numpy(), share * there.weighed(found.shares()[-1].numpy()), at)
