"""Schrödinger bridges between Gaussians, where the truth is known: ``python -m benchmarks.bridges``.

Two tables. The published one: N(-0.1, I) to N(0.1, I), reference Brownian motion of scale 1, 10,000 points, 20
Euler-Maruyama steps; the KL divergence of a Gaussian fitted to 10,000 generated points from the true marginal, at time
1 and over 21 times. And general covariances over epsilon: the errors of means, covariances and cross-covariance.

Each score has its floor beside it: what sampling leaves of a perfect learner, who pays for the 10,000 points that it
learned from and for the 10,000 that it generates.
"""

import argparse
import csv
import math
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor, nn

import cellflow as cf
from benchmarks.gaussian import GaussianBridge, divergence, general, standard
from cellflow.integrate import Noisy

RESULTS = Path(__file__).parent / "results"
POINTS, TIMES, SOLVER_STEPS, FINE_STEPS = 10_000, 21, 20, 100
PUBLISHED = {5: (0.001, 0.005), 20: (0.029, 0.028), 50: (0.124, 0.221)}
"""Best published KL at time 1, and mean KL over 21 times, by dimension (Tong et al. 2024, tables 3 and 7)."""
GENERAL_POINTS, GENERAL_DIMS, EPSILONS = 4000, (2, 20, 50), (0.5, 2.0, 8.0)

Row = dict[str, Any]


def train(x0: Tensor, x1: Tensor, sigma: float, steps: int, rng: torch.Generator) -> tuple[nn.Module, float]:
    """Return a bridge trained on one entropic plan between all points, and the seconds that it took."""
    start = time.perf_counter()
    field = cf.networks.Heads(cf.networks.MLP(x0.shape[1], heads=2, width=64, depth=1, harmonics=16), score="shared")
    objective = cf.objectives.BridgeMatching(cf.paths.BrownianBridge(sigma), score_weight=10.0)
    coupling = cf.couplings.Sinkhorn(2 * sigma**2, tolerance=1e-3)
    batches = cf.pairing.paired_batches(
        x0, x1, coupling=coupling, batch_size=2048, ot_batch_size="whole", generator=rng
    )
    cf.training.fit(field, objective, batches, steps=steps, generator=rng)
    return field, time.perf_counter() - start


def published(dim: int, seed: int, steps: int) -> Row:
    """Train on the published pair, and score it as published."""
    rng, truth = cf.generator(seed=seed), standard(dim)
    x0, x1 = (m.float() + torch.randn(POINTS, dim, generator=rng) for m in (truth.mean0, truth.mean1))
    fresh, again = (m.float() + torch.randn(POINTS, dim, generator=rng) for m in (truth.mean0, truth.mean1))
    field, seconds = train(x0, x1, truth.sigma, steps, rng)
    found = cf.integrate.sde(
        field, fresh, sigma=truth.sigma, solver=Noisy(SOLVER_STEPS, method="euler_maruyama"), save=TIMES, generator=rng
    )
    scores = [divergence(x, *truth.marginal(t)) for t, x in zip(found.t.tolist(), found.x, strict=True)]
    ends = ((found.x[0] - truth.mean0) * (found.x[-1] - truth.mean1)).mean().item()
    floor = divergence(x1, *truth.marginal(1.0)) + divergence(again, *truth.marginal(1.0))
    return {"kl_end": scores[-1], "kl_mean": mean(scores), "covariance": ends, "floor": floor, "seconds": seconds}


def generally(dim: int, epsilon: float, seed: int, steps: int) -> Row:
    """Train between Gaussians of general covariances, and compare moments with the closed form."""
    rng, truth = cf.generator(seed=seed), general(dim, sigma=math.sqrt(epsilon / 2), seed=seed)
    (x0, _), (_, x1), (fresh, _) = (truth.draw(GENERAL_POINTS, rng) for _ in range(3))
    field, seconds = train(x0, x1, truth.sigma, steps, rng)
    found = cf.integrate.sde(field, fresh, sigma=truth.sigma, solver=FINE_STEPS, save=3, generator=rng).x
    start, end = truth.draw(GENERAL_POINTS, rng)
    middle = (start + end) / 2 + truth.sigma / 2 * torch.randn(start.shape, generator=rng)
    # Learning from a sample and generating another one are two independent errors of the same size.
    floors = {f"{name}_floor": math.sqrt(2) * error for name, error in errors(truth, start, middle, end).items()}
    return errors(truth, *found) | floors | {"seconds": seconds}


def errors(truth: GaussianBridge, start: Tensor, middle: Tensor, end: Tensor) -> dict[str, float]:
    """Return how far the moments of points ``(n, d)`` at times 0, 1/2 and 1 are from the truth.

    The mean's error is in units of the target's spread, those of covariances are relative to the target's covariance.
    """
    start, middle, end = (x.double() for x in (start, middle, end))
    cross = torch.cov(torch.cat([start, end], dim=1).T)[: start.shape[1], start.shape[1] :]
    scale, spread = truth.cov1.norm(), truth.cov1.trace().sqrt()
    return {
        "mean": ((end.mean(0) - truth.mean1).norm() / spread).item(),
        "middle": ((torch.cov(middle.T) - truth.marginal(0.5)[1]).norm() / scale).item(),
        "end": ((torch.cov(end.T) - truth.cov1).norm() / scale).item(),
        "cross": ((cross - truth.cross()).norm() / scale).item(),
    }


def write(rows: list[Row], general_rows: list[Row], command: str) -> None:
    """Write every run as CSV, and the means as two tables, beside the published values and the floors."""
    RESULTS.mkdir(exist_ok=True)
    for name, table in (("bridges", rows), ("bridges_general", general_rows)):
        with (RESULTS / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, table[0])
            writer.writeheader()
            writer.writerows(table)
    text = "\n".join([*_published_table(rows, command), "", *_general_table(general_rows)])
    (RESULTS / "bridges.md").write_text(text + "\n")
    print(text)


def _published_table(rows: list[Row], command: str) -> list[str]:
    lines = [
        "# Schrödinger bridges between Gaussians",
        "",
        f"Made by `{command}` on {time.strftime('%Y-%m-%d')}, one thread. N(-0.1, I) to N(0.1, I), sigma 1,",
        "10,000 points, 20 Euler-Maruyama steps: KL divergence of generated points from the truth, mean (standard",
        "deviation) over seeds.",
        "The floor is the sampling noise of 10,000 training and 10,000 generated points at time 1: what a perfect fit",
        "of the training points has. A learner that does not fit their noise comes below it, by one half at best. The",
        f"ends covary by {standard(1).cross().item():.3f} in the true bridge, by 0 for independent pairs.",
        "",
        "| d | KL at t = 1 | published best | floor | mean KL | published best | covariance of the ends | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for dim in sorted({row["dim"] for row in rows}):
        some, (end, over) = [row for row in rows if row["dim"] == dim], PUBLISHED[dim]
        cells = [_cell(some, "kl_end"), f"{end}", f"{mean(row['floor'] for row in some):.4f}", _cell(some, "kl_mean")]
        cells += [f"{over}", _cell(some, "covariance"), f"{mean(row['seconds'] for row in some):.0f}"]
        lines.append(f"| {dim} | {' | '.join(cells)} |")
    return lines


def _general_table(rows: list[Row]) -> list[str]:
    lines = [
        "## General covariances",
        "",
        "N(m0, A) to N(m1, B): variances from 0.25 to 4 along axes turned at random, so that A and B do not commute;",
        f"epsilon = 2 sigma^2; {GENERAL_POINTS} points to learn from, as many generated in {FINE_STEPS} steps of",
        "stochastic Heun. Errors, with what two samples of that size leave in square brackets: the mean at time 1 in",
        "units of the target's spread; covariances at times 1/2 and 1, and the cross-covariance of both ends, in",
        "Frobenius norm relative to the target's covariance. What exceeds the floor at time 1 lies along the target's",
        "narrowest axes: with epsilon 8 the noise is 16 times their variance, and all of it must vanish in a thin last "
        "layer.",
        "",
        "| d | epsilon | mean | covariance, t = 1/2 | covariance, t = 1 | cross-covariance | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for dim, epsilon in sorted({(row["dim"], row["epsilon"]) for row in rows}):
        some = [row for row in rows if (row["dim"], row["epsilon"]) == (dim, epsilon)]
        cells = [
            f"{_cell(some, name)} [{mean(row[f'{name}_floor'] for row in some):.3f}]"
            for name in ("mean", "middle", "end", "cross")
        ]
        lines.append(f"| {dim} | {epsilon:g} | {' | '.join(cells)} | {mean(row['seconds'] for row in some):.0f} |")
    return lines


def _cell(rows: list[Row], name: str) -> str:
    values = [row[name] for row in rows]
    return f"{mean(values):.4f} ({stdev(values):.4f})" if len(values) > 1 else f"{values[0]:.4f}"


def main() -> None:
    """Run both tables with every seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds")
    parser.add_argument("--steps", type=int, default=1500, help="optimiser steps")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows, general_rows = [], []
    for seed in range(given.seeds):
        for dim in sorted(PUBLISHED):
            torch.manual_seed(seed)
            rows.append({"dim": dim, "seed": seed, **published(dim, seed, given.steps)})
            print(rows[-1], flush=True)
        for dim in GENERAL_DIMS:
            for epsilon in EPSILONS:
                torch.manual_seed(seed)
                row = {"dim": dim, "epsilon": epsilon, "seed": seed, **generally(dim, epsilon, seed, given.steps)}
                general_rows.append(row)
                print(row, flush=True)
    write(rows, general_rows, f"python -m benchmarks.bridges --seeds {given.seeds} --steps {given.steps}")


if __name__ == "__main__":
    main()
