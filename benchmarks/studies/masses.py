"""Whose masses do half-way cells have: ``python -m benchmarks.studies.masses``.

EB in five components, protocol A. Pairs of one unbalanced plan, straight midpoints, no training; the pairs weigh what
the plan gives them, or what they must so that all cells before count alike, or all cells after, or something between.
W1 to the snapshot that is left out.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import cellflow as cf
from benchmarks import page
from benchmarks.command import Words, options
from benchmarks.trajectory.scores import transport
from benchmarks.trajectory.settings import load
from benchmarks.trajectory.tasks import Task, choose, tasks_of

SETTINGS = ((0.3, 1.0), (0.1, 3.0))
"""Strength of the entropy and of the relaxation, in squared units of the scaled space."""
NAMES = ("the plan", "cells before", "cells after", "geometric mean of both", "both, as on unbalanced geodesics")


def main(words: Words = None) -> None:
    """Compute and write ``trajectory_masses.md``."""
    given = options("studies.masses", __doc__, words, pairs=4000)
    found: dict[str, list[float]] = {}
    for task in tasks_of(load("dataset", "eb").load(5), choose("A")):
        for name, value in rows(task, given.pairs):
            found.setdefault(name, []).append(value)
            print(task.fold.name, name, round(value, 3), flush=True)
    page.write(given.out / "trajectory_masses.md", text(found, given.command))


def weighings(plan: np.ndarray) -> dict[str, np.ndarray]:
    """Return the weights of all pairs ``(n, m)``, by whose masses they have; each sums to 1.

    The last one is how mass moves on the geodesics of unbalanced transport: its square root changes evenly.
    """
    tiny = np.finfo(float).tiny
    before = 1 / np.maximum(plan.shape[0] * plan.sum(axis=1, keepdims=True), tiny)
    after = 1 / np.maximum(plan.shape[1] * plan.sum(axis=0, keepdims=True), tiny)
    factors = (1.0, before, after, np.sqrt(before * after), (np.sqrt(before) + np.sqrt(after)) ** 2)
    return {name: plan * factor / (plan * factor).sum() for name, factor in zip(NAMES, factors, strict=True)}


def rows(task: Task, pairs: int) -> Iterator[tuple[str, float]]:
    """Yield W1 at the snapshot of a fold for every setting and weighing, by name."""
    target = task.fold.legs[0].target
    sides = [k for k in task.neighbours(target) if k is not None]
    x0, x1 = (torch.from_numpy(task.observed[k]) for k in sides)
    true = task.truth[target]
    for epsilon, relaxation in SETTINGS:
        plan = cf.couplings.UnbalancedSinkhorn(epsilon, relaxation)(x0, x1)
        for name, weights in weighings(plan.dense().double().numpy()).items():
            at = (np.random.default_rng(0).random() + np.arange(pairs)) / pairs
            drawn = np.minimum(weights.cumsum().searchsorted(at), weights.size - 1)
            i, j = np.divmod(drawn, weights.shape[1])
            middle = ((x0[i] + x1[j]) / 2).double().numpy()
            found = transport(task.scored(middle), true, np.ones(pairs), np.ones(len(true))).value
            yield f"{epsilon:g} and {relaxation:g} | {name}", found


def text(found: dict[str, list[float]], command: str) -> list[str]:
    """Return the page, the best of each fold marked."""
    best = [min(column) for column in zip(*found.values(), strict=True)]
    table = []
    for name, values in found.items():
        cells = [f"**{v:.3f}**" if v == b else f"{v:.3f}" for v, b in zip(values, best, strict=True)]
        table.append([*name.split(" | "), *cells, f"{np.mean(values):.3f}"])
    head = ["entropy and relaxation", "masses of", *(f"fold {k + 1}" for k in range(len(best))), "mean"]
    first, last = page.fill(Path(__file__).with_suffix(".md"), made=page.made_by(command), best=f"{np.mean(best):.3f}")
    return [*first, "", *page.table(head, table), "", *last]


if __name__ == "__main__":
    main()
