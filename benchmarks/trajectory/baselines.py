"""What a prediction must beat: baselines that learn nothing, and the noise floor.

They see the snapshots on both sides of the target, and the part of the *real* time between them that has passed.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

import cellflow as cf
from benchmarks.trajectory.methods import Particles
from benchmarks.trajectory.tasks import Task

EPSILON, RELAXATION = 0.06, 0.2
"""Strength of the entropy and of the relaxation of the unbalanced plan, in units of the total variance of the training
cells: 0.3 and 1 where five dimensions are standardised."""
PAIRS = 8000
"""Pairs drawn evenly from the unbalanced plan, near to all pairs by mass, of which there are millions: so many, but at
least as many as the target has cells, and at most four times that."""
SHIFT = "common shift"
"""All cells moved by the difference of the means of training cells: where only cells are left out, no snapshot."""
FLOOR = "half against half (noise floor)"
NAMES = (
    "copy previous", "copy next", "both mixed", "exact OT midpoint, pairs drawn", "exact OT midpoint, pairs by mass",
    "unbalanced OT midpoint, many pairs", "independent midpoint, pairs drawn",
)  # fmt: skip


def settings() -> dict[str, Any]:
    """Return what a record of the baselines must share with another."""
    return {"names": [*NAMES, FLOOR], "epsilon": EPSILON, "relaxation": RELAXATION, "pairs": PAIRS}


def baselines(task: Task, target: int, *, seed: int) -> Iterator[tuple[str, Particles]]:
    """Yield every baseline that the snapshots around a target allow, by name; ``seed`` is of the pairs drawn."""
    before, after = task.neighbours(target)
    if before is not None:
        yield NAMES[0], Particles(task.observed[before])
    if before is not None and task.protocol.split is not None:
        from_, to = (task.training.clouds[k].mean(axis=0) for k in (before, target))
        yield SHIFT, Particles(task.observed[before] + to - from_)
    if after is not None:
        yield NAMES[1], Particles(task.observed[after])
    if before is None or after is None:
        return
    x0, x1 = (torch.from_numpy(task.observed[k]) for k in (before, after))
    fraction = (task.real[target] - task.real[before]) / (task.real[after] - task.real[before])

    def between(i: torch.Tensor, j: torch.Tensor) -> np.ndarray:
        """Return the points of straight lines between pairs."""
        return torch.lerp(x0[i], x1[j], fraction).numpy()

    weights = [np.full(len(x), share / len(x)) for x, share in ((x0, 1 - fraction), (x1, fraction))]
    yield NAMES[2], Particles(torch.cat([x0, x1]).numpy(), np.concatenate(weights))  # the nearer one weighs more
    n, unit = len(task.truth[target]), float(np.concatenate(task.training.clouds).astype(np.float64).var(axis=0).sum())
    exact = cf.couplings.Exact()(x0, x1)
    yield NAMES[3], Particles(between(*exact.sample(n, generator=cf.generator(seed=seed))))
    i, j, masses = exact.pairs
    yield NAMES[4], Particles(between(i, j), masses.numpy())
    unbalanced = cf.couplings.UnbalancedSinkhorn(EPSILON * unit, RELAXATION * unit)(x0, x1)
    many = min(max(PAIRS, n), 4 * n)  # evenly: less noisy than as many pairs as there are cells
    yield NAMES[5], Particles(between(*unbalanced.sample(many, generator=cf.generator(seed=seed), replace=False)))
    independent = cf.couplings.Independent()(x0, x1)
    yield NAMES[6], Particles(between(*independent.sample(n, generator=cf.generator(seed=seed))))


def floor(task: Task, target: int, *, seed: int) -> dict[str, float]:
    """Return what sampling alone makes of W1 and W2: between random halves of the held-out cells."""
    true = torch.from_numpy(np.asarray(task.truth[target], np.float64))
    return {
        f"W{order}": cf.metrics.split_half_floor(true, generator=cf.generator(seed=seed), order=order)
        for order in (1, 2)
    }
