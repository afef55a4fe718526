"""What a prediction must beat: baselines that learn nothing, and the noise floor.

They see the snapshots on both sides of the target, and the part of the *real* time between them that has passed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

import cellflow as cf
from benchmarks.trajectory.tasks import Task
from cellflow.couplings import Plan

EPSILON, RELAXATION = 0.06, 0.2
"""Strength of the entropy and of the relaxation of the unbalanced plan, in units of the total variance of the training
cells: 0.3 and 1 where five dimensions are standardised."""
PAIRS = 8000
"""Pairs drawn evenly from the unbalanced plan, near to all pairs by mass, of which there are millions: so many, but at
least as many as the target has cells, and at most four times that."""
FLOOR = "half against half (noise floor)"
NAMES = (
    "copy previous",
    "copy next",
    "both mixed",
    "exact OT midpoint, pairs drawn",
    "exact OT midpoint, pairs by mass",
    "unbalanced OT midpoint, many pairs",
    "independent midpoint, pairs drawn",
)


def settings() -> dict[str, Any]:
    """Return what a record of the baselines must share with another.

    Examples
    --------
    >>> sorted(settings())
    ['epsilon', 'names', 'pairs', 'relaxation']
    """
    return {"names": [*NAMES, FLOOR], "epsilon": EPSILON, "relaxation": RELAXATION, "pairs": PAIRS}


class Points(NamedTuple):
    """Points ``(n, d)`` in the scaled space, with weights ``(n,)`` or None."""

    x: np.ndarray
    weights: np.ndarray | None = None


@dataclass(frozen=True)
class Around:
    """The snapshots around a target.

    Parameters
    ----------
    x0, x1
        Cells before and after, ``(k, d)`` and ``(m, d)``.
    fraction
        The part of the real time between them that has passed.
    n
        How many pairs are drawn: as many as the target has cells.
    unit
        Total variance of the training cells.
    """

    x0: torch.Tensor
    x1: torch.Tensor
    fraction: float
    n: int
    unit: float

    def drawn(self, plan: Plan, generator: torch.Generator) -> Points:
        """Return ``n`` points of straight lines, their pairs drawn with replacement in proportion to the plan."""
        return self._between(*plan.sample(self.n, generator=generator))

    def evenly(self, plan: Plan, generator: torch.Generator) -> Points:
        """Return the points of many pairs, drawn evenly: less noisy than as many pairs as there are cells."""
        pairs = min(max(PAIRS, self.n), 4 * self.n)
        return self._between(*plan.sample(pairs, generator=generator, replace=False))

    def by_mass(self, plan: Plan) -> Points:
        """Return a point for each pair of a sparse plan, with its mass."""
        i, j, masses = plan.pairs  # type: ignore[attr-defined]
        return Points(self._between(i, j).x, masses.numpy())

    def _between(self, i: torch.Tensor, j: torch.Tensor) -> Points:
        return Points(torch.lerp(self.x0[i], self.x1[j], self.fraction).numpy())


def baselines(task: Task, target: int, *, seed: int) -> Iterator[tuple[str, Points]]:
    """Yield every baseline that the snapshots around a target allow, by name.

    Parameters
    ----------
    task
        What may be seen.
    target
        Position of the snapshot that is predicted.
    seed
        Of the pairs that are drawn.
    """
    before, after = task.neighbours(target)
    if before is not None:
        yield NAMES[0], Points(task.observed[before])
    if after is not None:
        yield NAMES[1], Points(task.observed[after])
    if before is None or after is None:
        return
    around = _around(task, before, target, after)
    yield NAMES[2], _mixed(around)
    exact = cf.couplings.Exact()(around.x0, around.x1)
    yield NAMES[3], around.drawn(exact, cf.generator(seed=seed))
    yield NAMES[4], around.by_mass(exact)
    solve = cf.couplings.UnbalancedSinkhorn(EPSILON * around.unit, RELAXATION * around.unit)
    unbalanced = solve(around.x0, around.x1)
    yield NAMES[5], around.evenly(unbalanced, cf.generator(seed=seed))
    independent = cf.couplings.Independent()(around.x0, around.x1)
    yield NAMES[6], around.drawn(independent, cf.generator(seed=seed))


def floor(task: Task, target: int, *, seed: int) -> dict[str, float]:
    """Return what sampling alone makes of W1 and W2: between random halves of the held-out cells."""
    true = torch.from_numpy(np.asarray(task.truth[target], np.float64))
    return {
        f"W{order}": cf.metrics.split_half_floor(true, generator=cf.generator(seed=seed), order=order)
        for order in (1, 2)
    }


def _around(task: Task, before: int, target: int, after: int) -> Around:
    x0, x1 = (torch.from_numpy(task.observed[k]) for k in (before, after))
    passed = (task.real[target] - task.real[before]) / (task.real[after] - task.real[before])
    seen = np.concatenate(task.training.clouds).astype(np.float64)
    return Around(x0, x1, passed, len(task.truth[target]), float(seen.var(axis=0).sum()))


def _mixed(around: Around) -> Points:
    """Return all cells of both sides, the nearer one weighing more."""
    sides = ((around.x0, 1 - around.fraction), (around.x1, around.fraction))
    weights = [np.full(len(x), share / len(x)) for x, share in sides]
    return Points(torch.cat([around.x0, around.x1]).numpy(), np.concatenate(weights))
