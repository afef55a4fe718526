"""Schrödinger bridges between Gaussians, where the truth is known: ``python -m benchmarks.bridges``.

N(-0.1, I) to N(0.1, I), reference Brownian motion of scale 1, 10,000 points, 20 Euler-Maruyama steps; the KL
divergence of a Gaussian fitted to 10,000 generated points from the true marginal, at time 1 and over 21 times. The
floor is the same score for the 10,000 training points, plus that for 10,000 points drawn from the truth: what sampling
leaves of a perfect learner.
"""

import argparse
import csv
import math
import time
from pathlib import Path
from statistics import mean, stdev

import torch
from torch import Tensor

import cellflow as cf

RESULTS = Path(__file__).parent / "results"
MEAN, SIGMA, POINTS, TIMES, SOLVER_STEPS = 0.1, 1.0, 10_000, 21, 20
PUBLISHED = {5: (0.001, 0.005), 20: (0.029, 0.028), 50: (0.124, 0.221)}
"""Best published KL at time 1, and mean KL over 21 times, by dimension (Tong et al. 2024, tables 3 and 7)."""


def truth(t: float, dim: int) -> tuple[Tensor, Tensor]:
    """Return mean ``(dim,)`` and variance of the bridge at time t. Source: Mallasto et al. 2020."""
    variance = (1 - t) ** 2 + t**2 + t * (1 - t) * math.sqrt(4 + SIGMA**4)
    return torch.full((dim,), 2 * MEAN * t - MEAN, dtype=torch.float64), torch.tensor(variance, dtype=torch.float64)


def divergence(x: Tensor, t: float) -> float:
    """Return KL(Gaussian fitted to x || truth at time t)."""
    x = x.double()
    centre, variance = truth(t, x.shape[1])
    covariance = torch.cov(x.T)
    trace, distance = covariance.trace() / variance, (x.mean(0) - centre).square().sum() / variance
    logdet = x.shape[1] * variance.log() - torch.logdet(covariance)
    return ((trace + distance - x.shape[1] + logdet) / 2).item()


def run(dim: int, seed: int, steps: int) -> dict[str, float]:
    """Train a bridge and score it."""
    rng = cf.generator(seed=seed)
    x0, x1 = (shift + torch.randn(POINTS, dim, generator=rng) for shift in (-MEAN, MEAN))
    fresh = torch.randn(POINTS, dim, generator=rng) - MEAN
    start = time.perf_counter()
    field = cf.networks.TwoHeads(cf.networks.MLP(dim, heads=2))
    objective = cf.objectives.BridgeMatching(cf.paths.BrownianBridge(SIGMA))
    coupling = cf.couplings.Sinkhorn(2 * SIGMA**2, tolerance=1e-3)
    batches = cf.data.paired_batches(x0, x1, coupling=coupling, batch_size=512, generator=rng)
    cf.training.fit(field, objective, batches, steps=steps, generator=rng)
    seconds = time.perf_counter() - start
    found = cf.integrate.sde(
        field, fresh, sigma=SIGMA, steps=SOLVER_STEPS, save=TIMES, method="euler_maruyama", generator=rng
    )
    scores = [divergence(x, t) for t, x in zip(found.t.tolist(), found.x, strict=True)]
    ends = ((found.x[0] + MEAN) * (found.x[-1] - MEAN)).mean().item()
    floor = divergence(x1, 1.0) + divergence(torch.randn(POINTS, dim, generator=rng) + MEAN, 1.0)
    return {"kl_end": scores[-1], "kl_mean": mean(scores), "covariance": ends, "floor": floor, "seconds": seconds}


def write(rows: list[dict[str, float]], command: str) -> None:
    """Write every run as CSV, and the means as a table beside the published values."""
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "bridges.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    lines = [
        "# Schrödinger bridges between Gaussians",
        "",
        f"Made by `{command}` on {time.strftime('%Y-%m-%d')}, one thread. N(-0.1, I) to N(0.1, I), sigma 1,",
        "10,000 points, 20 Euler-Maruyama steps: KL divergence of generated points from the truth, mean (standard",
        "deviation) over seeds.",
        "The floor is the sampling noise of 10,000 training and 10,000 generated points at time 1. The ends covary by",
        f"{(math.sqrt(4 + SIGMA**4) - SIGMA**2) / 2:.3f} in the true bridge, by 0 for independent pairs.",
        "",
        "| d | KL at t = 1 | published best | floor | mean KL | published best | covariance of the ends | seconds |",
        "|---|---|---|---|---|---|---|---|",
        *(_line(dim, [row for row in rows if row["dim"] == dim]) for dim in sorted({int(row["dim"]) for row in rows})),
    ]
    (RESULTS / "bridges.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def _line(dim: int, rows: list[dict[str, float]]) -> str:
    def cell(name: str) -> str:
        values = [row[name] for row in rows]
        return f"{mean(values):.4f} ({stdev(values):.4f})" if len(values) > 1 else f"{values[0]:.4f}"

    end, over = PUBLISHED[dim]
    return (
        f"| {dim} | {cell('kl_end')} | {end} | {mean(row['floor'] for row in rows):.4f} | {cell('kl_mean')} | {over} "
        f"| {cell('covariance')} | {mean(row['seconds'] for row in rows):.0f} |"
    )


def main() -> None:
    """Run every dimension with every seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dims", type=int, nargs="+", default=sorted(PUBLISHED), choices=sorted(PUBLISHED))
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds")
    parser.add_argument("--steps", type=int, default=4000, help="optimiser steps")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for dim in given.dims:
        for seed in range(given.seeds):
            torch.manual_seed(seed)
            rows.append({"dim": dim, "seed": seed, **run(dim, seed, given.steps)})
            print(rows[-1], flush=True)
    dims = " ".join(map(str, given.dims))
    write(rows, f"python -m benchmarks.bridges --dims {dims} --seeds {given.seeds} --steps {given.steps}")


if __name__ == "__main__":
    main()
