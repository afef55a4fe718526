"""Courses of cells between measured snapshots: forward for the cells before a time, and backward for those after it.

At the time of a snapshot its own cells count, and between two of them both sides, by how near they are: what is said of
a time never rests on courses that are longer than one interval. Each course is weighted by fates.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cellflow.cells.states import States
from cellflow.integrate import Noisy, Solver
from cellflow.nearest import Nearest
from cellflow.seeds import draw_seed, generator

if TYPE_CHECKING:
    from cellflow.estimators import SnapshotFlow

SAVED = 21
"""States that are kept of a course over one interval; between them it is taken as straight."""
NEIGHBORS = 10
"""Measured cells whose fates a course takes where it lands, with noise."""


class Part(NamedTuple):
    """Courses from one snapshot, at one time.

    Attributes
    ----------
    place
        Which of the times.
    snapshot
        Which of the snapshots.
    near
        The share of this side, by how near the snapshot is.
    x
        States ``(n, d)``.
    weight
        The share of each in the population there, ``(n,)``; they sum to 1.
    fates
        Its probability of each fate ``(n, k)``.
    """

    place: int
    snapshot: int
    near: float
    x: np.ndarray
    weight: np.ndarray
    fates: np.ndarray


@dataclass(frozen=True, eq=False)
class Courses:
    """Cells of several snapshots with known fates, to be carried to times in between.

    Parameters
    ----------
    snapshots
        The cells of each fitted time, which may be none.
    fates
        Their probabilities of each fate, ``(n, k)`` for each snapshot.
    times
        The fitted times.
    at
        The times to carry to, ascending, within the fitted times.
    settled
        The time at which fates are decided; ``None`` if there is only one fate.
    """

    snapshots: Sequence[States]
    fates: Sequence[np.ndarray]
    times: Sequence[float]
    at: np.ndarray
    settled: float | None

    def carried(self, flow: "SnapshotFlow", solver: Solver, seed: int) -> Iterator[Part]:
        """Carry all cells once, with noise if the solver has any, and yield the courses at each time."""
        rng, known = generator(seed=seed), np.asarray(self.times)
        intervals = np.clip(np.searchsorted(known, self.at, side="right") - 1, 0, len(known) - 2)
        for k in np.unique(intervals):
            places = np.flatnonzero(intervals == k)
            gone = (self.at[places] - known[k]) / (known[k + 1] - known[k])
            sides = {k: 1 - gone, k + 1: gone}
            if not all(len(self.snapshots[side]) for side in sides):
                sides = {side: np.ones(len(gone)) for side in sides if len(self.snapshots[side])}
            for side, near in sides.items():
                if near.any():
                    stop = k + 1 if side == k else k
                    way = gone if side == k else 1 - gone
                    yield from self._side(flow, solver, draw_seed(rng), side, stop, places, way, near)

    def _side(
        self,
        flow: "SnapshotFlow",
        solver: Solver,
        seed: int,
        start: int,
        stop: int,
        places: np.ndarray,
        way: np.ndarray,
        near: np.ndarray,
    ) -> Iterator[Part]:
        """Carry one snapshot to the next time, or to the one before, and yield where its cells are on the way."""
        cells = self.snapshots[start]
        span: dict[str, Any] = {"start": cells.time, "stop": self.times[stop], "save": SAVED}
        span["condition"] = cells.condition
        if isinstance(solver, Noisy):
            found = flow.simulate(cells.x, solver=solver, seed=seed, **span)
            fates = self._landed(found.x[-1].numpy(), start, stop)
        else:
            found, fates = flow.transport(cells.x, solver=solver, **span), self.fates[start]
        x, log_weight = found.x.numpy(), None if found.log_weight is None else found.log_weight.double().numpy()
        for place, gone, share in zip(places, way, near, strict=True):
            if share > 0:
                weight = cells.weighed(_shares(log_weight, gone, len(cells)))
                yield Part(int(place), start, float(share), _between(x, gone), weight, fates)

    def _landed(self, x: np.ndarray, start: int, stop: int) -> np.ndarray:
        """Return the fates of courses that end at states ``(n, d)``.

        A cell that is undecided has courses to several fates, which are told apart by where they land: by the fates of
        the measured cells there, wherever this is nearer to the time at which fates are decided.
        """
        there, settled = self.snapshots[stop], self.settled
        if settled is None or not len(there) or abs(self.times[stop] - settled) > abs(self.times[start] - settled):
            return self.fates[start]
        nearest = Nearest(there.x, min(NEIGHBORS, len(there)))
        return np.asarray(self.fates[stop][nearest.rows(x)].mean(axis=1))


def _between(saved: np.ndarray, gone: float) -> np.ndarray:
    """Return what is between saved values ``(k, n, ...)`` at a share of the way."""
    place = gone * (len(saved) - 1)
    before = min(int(place), len(saved) - 2)
    after = place - before
    return np.asarray((1 - after) * saved[before] + after * saved[before + 1])


def _shares(log_weight: np.ndarray | None, gone: float, n: int) -> np.ndarray:
    """Return the weights of courses ``(n,)``, which sum to 1."""
    if log_weight is None:
        return np.full(n, 1 / n)
    here = _between(log_weight - log_weight[0], gone)
    weight = np.exp(here - here.max())
    return np.asarray(weight / weight.sum())
