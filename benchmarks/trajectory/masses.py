"""Whose masses do half-way cells have: ``python -m benchmarks.trajectory.masses``.

EB in five components, protocol A. Pairs of one unbalanced plan, straight midpoints, no training; the pairs weigh what
the plan gives them, or what they must so that all cells before count alike, or all cells after, or something between.
W1 to the snapshot that is left out.
"""

import argparse
import time
from collections.abc import Iterator

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

import cellflow as cf
from benchmarks.trajectory.__main__ import CONFIGS
from benchmarks.trajectory.protocols import choose
from benchmarks.trajectory.scores import transport
from benchmarks.trajectory.table import RESULTS
from benchmarks.trajectory.tasks import Task, prepare

SETTINGS = ((0.3, 1.0), (0.1, 3.0))
"""Strength of the entropy and of the relaxation, in squared units of the scaled space."""
PAIRS = 4000
NAMES = ("the plan", "cells before", "cells after", "geometric mean of both", "both, as on unbalanced geodesics")


def weighings(plan: np.ndarray) -> dict[str, np.ndarray]:
    """Return the weights of all pairs ``(n, m)``, by whose masses they have; each sums to 1.

    The last one is how mass moves on the geodesics of unbalanced transport: its square root changes evenly.

    Examples
    --------
    >>> found = weighings(np.array([[0.3, 0.1], [0.1, 0.0]]))
    >>> found["cells before"].sum(axis=1).round(6).tolist(), found["cells after"].sum(axis=0).round(6).tolist()
    ([0.5, 0.5], [0.5, 0.5])
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


def page(found: dict[str, list[float]], command: str) -> str:
    """Return the table in Markdown, the best of each fold marked."""
    best = [min(values[k] for values in found.values()) for k in range(len(next(iter(found.values()))))]
    lines = [
        "# Whose masses half-way cells have: EB, five components, protocol A", "",
        f"Made by `{command}` on {time.strftime('%Y-%m-%d')}. Straight midpoints of one unbalanced plan, nothing",
        "learned; W1 by fold, **best**. Pairs weigh what the plan gives them, or so much that all cells before count",
        "alike, or all after.", "",
        "| entropy and relaxation | masses of | fold 1 | fold 2 | fold 3 | mean |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, values in found.items():
        cells = [f"**{v:.3f}**" if v == b else f"{v:.3f}" for v, b in zip(values, best, strict=True)]
        lines.append(f"| {name} | {' | '.join(cells)} | {np.mean(values):.3f} |")
    lines += ["", f"The best of each fold, by a look at the answer: mean {np.mean(best):.3f}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Compute and write ``results/trajectory_masses.md``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=PAIRS, help="pairs that are drawn")
    given = parser.parse_args()
    torch.set_num_threads(1)
    cells, protocol = instantiate(OmegaConf.load(CONFIGS / "dataset" / "eb.yaml")).load(5), choose("A")
    found: dict[str, list[float]] = {}
    for fold in protocol.folds_of(len(cells.times), dataset=cells.name):
        for name, value in rows(prepare(cells, protocol, fold), given.pairs):
            found.setdefault(name, []).append(value)
            print(fold.name, name, round(value, 3), flush=True)
    text = page(found, f"python -m benchmarks.trajectory.masses --pairs {given.pairs}")
    (RESULTS / "trajectory_masses.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
