"""Schrödinger bridges between Gaussians, where the truth is known: ``python -m benchmarks.bridges``.

Two tables. The published one: N(-0.1, I) to N(0.1, I), reference Brownian motion of scale 1, 10,000 points, 20
Euler-Maruyama steps; the KL divergence of a Gaussian fitted to 10,000 generated points from the true marginal, at time
1 and over 21 times. And general covariances over epsilon: the errors of means, covariances and cross-covariance. Each
score has its floor beside it: what sampling leaves of a perfect learner.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, kl_divergence

import cellflow as cf
from benchmarks import page
from benchmarks.command import Words, guarded, options
from benchmarks.rows import Row, Table, rounded
from cellflow.integrate import Noisy


@dataclass(frozen=True)
class GaussianBridge:
    """The bridge from N(mean0, cov0) to N(mean1, cov1); means ``(d,)``, covariances ``(d, d)``, all float64.

    Source: Janati et al. 2020, theorem 1, for the coupling of the ends; a Brownian bridge between them.
    """

    mean0: Tensor
    cov0: Tensor
    mean1: Tensor
    cov1: Tensor
    sigma: float

    def cross(self) -> Tensor:
        """Return the covariance of start and end, ``(d, d)``."""
        root, inverse = power(self.cov0, 0.5), power(self.cov0, -0.5)
        eye = torch.eye(len(self.cov0), dtype=torch.float64)
        middle = power(4 * root @ self.cov1 @ root + self.sigma**4 * eye, 0.5)
        return (root @ middle @ inverse - self.sigma**2 * eye) / 2

    def marginal(self, t: float) -> tuple[Tensor, Tensor]:
        """Return mean ``(d,)`` and covariance ``(d, d)`` at time ``t``."""
        cross, eye = self.cross(), torch.eye(len(self.cov0), dtype=torch.float64)
        mixed = t * (1 - t) * (cross + cross.T + self.sigma**2 * eye)
        return (1 - t) * self.mean0 + t * self.mean1, (1 - t) ** 2 * self.cov0 + t**2 * self.cov1 + mixed

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw ``n`` pairs of start and end, both ``(n, d)``, float32, from the coupling."""
        cross, dim = self.cross(), len(self.mean0)
        joint = torch.cat([torch.cat([self.cov0, cross], dim=1), torch.cat([cross.T, self.cov1], dim=1)])
        noise = torch.randn(n, 2 * dim, generator=generator, dtype=torch.float64)
        x = torch.cat([self.mean0, self.mean1]) + noise @ power(joint, 0.5)
        return x[:, :dim].float(), x[:, dim:].float()


def power(matrix: Tensor, exponent: float) -> Tensor:
    """Return a power of a symmetric positive matrix ``(d, d)``."""
    values, vectors = torch.linalg.eigh(matrix)
    return torch.einsum("ij,j,kj->ik", vectors, values.clamp_min(0) ** exponent, vectors)


def standard(dim: int, *, shift: float = 0.1, sigma: float = 1.0) -> GaussianBridge:
    """Return the bridge N(-shift, I) to N(shift, I) of the published benchmark."""
    mean, eye = torch.full((dim,), shift, dtype=torch.float64), torch.eye(dim, dtype=torch.float64)
    return GaussianBridge(-mean, eye, mean, eye, sigma)


def general(dim: int, *, sigma: float, seed: int) -> GaussianBridge:
    """Return a bridge between Gaussians with variances from 0.25 to 4 along axes turned at random."""
    rng = cf.generator(seed=seed)
    variances = torch.logspace(-1, 1, dim, base=4, dtype=torch.float64)
    means = torch.randn(2, dim, generator=rng, dtype=torch.float64)
    bases = [torch.linalg.qr(torch.randn(dim, dim, generator=rng, dtype=torch.float64)).Q for _ in means]
    first, second = (torch.einsum("ij,j,kj->ik", basis, variances, basis) for basis in bases)
    return GaussianBridge(means[0], first, means[1], second, sigma)


def divergence(x: Tensor, mean: Tensor, covariance: Tensor) -> float:
    """Return KL(Gaussian fitted to ``x`` ``(n, d)`` || N(mean, covariance))."""
    fitted = MultivariateNormal(x.double().mean(0), torch.cov(x.double().T))
    return kl_divergence(fitted, MultivariateNormal(mean, covariance)).item()


PUBLISHED = {5: (0.001, 0.005), 20: (0.029, 0.028), 50: (0.124, 0.221)}
"""Best published KL at time 1, and mean KL over 21 times, by dimension (Tong et al. 2024, tables 3 and 7)."""
GENERAL = [(dim, epsilon) for dim in (2, 20, 50) for epsilon in (0.5, 2.0, 8.0)]
TIMES, SOLVER_STEPS, FINE_STEPS = 21, 20, 100
HEAD = ("d", "KL at t = 1", "published best", "floor", "mean KL", "published best", "covariance of the ends", "seconds")
GENERAL_HEAD = ("d", "epsilon", "mean", "covariance, t = 1/2", "covariance, t = 1", "cross-covariance", "seconds")


def main(words: Words = None) -> None:
    """Run both tables with every seed."""
    given = options("bridges", __doc__, words, seeds=5, steps=1500, points=(10_000, 4000))
    tables = [Table(given.out / "bridges.csv", ("dim", "seed"))]
    tables.append(Table(given.out / "bridges_general.csv", ("dim", "epsilon", "seed")))
    for seed in range(given.seeds):
        for dim in PUBLISHED:
            row = {"dim": dim, "seed": seed, **published(dim, seed, given.steps, given.points[0])}
            tables[0].put(row)
            print(rounded(row), flush=True)
        for dim, epsilon in GENERAL:
            about = {"dim": dim, "epsilon": epsilon, "seed": seed}
            tables[1].put(about | generally(dim, epsilon, seed, given.steps, given.points[1]))
            print(about, flush=True)
    page.write(given.out / "bridges.md", text(tables[0].read(), tables[1].read(), given.command, given.points))


def train(x0: Tensor, x1: Tensor, sigma: float, steps: int, rng: torch.Generator) -> tuple[nn.Module, float]:
    """Return a bridge trained on one entropic plan between all points, and the seconds that it took."""
    start = time.perf_counter()
    torch.manual_seed(rng.initial_seed())
    field = cf.networks.Heads(cf.networks.MLP(x0.shape[1], heads=2, width=64, depth=1, harmonics=16), score="shared")
    objective = cf.objectives.BridgeMatching(cf.paths.BrownianBridge(sigma), score_weight=10.0)
    coupling = cf.couplings.Sinkhorn(2 * sigma**2, tolerance=1e-3)
    sizes: Any = {"batch_size": 2048, "ot_batch_size": "whole"}
    batches = cf.pairing.paired_batches(x0, x1, coupling=coupling, generator=rng, **sizes)
    cf.training.fit(field, objective, batches, steps=steps, generator=rng)
    return field, time.perf_counter() - start


def published(dim: int, seed: int, steps: int, points: int) -> Row:
    """Train on the published pair, and score it as published."""
    rng, truth = cf.generator(seed=seed), standard(dim)
    means = (truth.mean0, truth.mean1) * 2
    x0, x1, fresh, again = (m.float() + torch.randn(points, dim, generator=rng) for m in means)
    field, seconds = train(x0, x1, truth.sigma, steps, rng)
    solver = Noisy(SOLVER_STEPS, method="euler_maruyama")
    found = cf.integrate.sde(field, fresh, sigma=truth.sigma, solver=solver, save=TIMES, generator=rng)
    scores = [divergence(x, *truth.marginal(t)) for t, x in zip(found.t.tolist(), found.x, strict=True)]
    ends = ((found.x[0] - truth.mean0) * (found.x[-1] - truth.mean1)).mean().item()
    floor = divergence(x1, *truth.marginal(1.0)) + divergence(again, *truth.marginal(1.0))
    return {"kl_end": scores[-1], "kl_mean": mean(scores), "covariance": ends, "floor": floor, "seconds": seconds}


def generally(dim: int, epsilon: float, seed: int, steps: int, points: int) -> Row:
    """Train between Gaussians of general covariances, and compare moments with the closed form."""
    rng, truth = cf.generator(seed=seed), general(dim, sigma=math.sqrt(epsilon / 2), seed=seed)
    (x0, _), (_, x1), (fresh, _) = (truth.draw(points, rng) for _ in range(3))
    field, seconds = train(x0, x1, truth.sigma, steps, rng)
    found = cf.integrate.sde(field, fresh, sigma=truth.sigma, solver=FINE_STEPS, save=3, generator=rng).x
    start, end = truth.draw(points, rng)
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
    scale = truth.cov1.norm()
    return {
        "mean": ((end.mean(0) - truth.mean1).norm() / truth.cov1.trace().sqrt()).item(),
        "middle": ((torch.cov(middle.T) - truth.marginal(0.5)[1]).norm() / scale).item(),
        "end": ((torch.cov(end.T) - truth.cov1).norm() / scale).item(),
        "cross": ((cross - truth.cross()).norm() / scale).item(),
    }


def text(rows: list[Row], general_rows: list[Row], command: str, points: Sequence[int]) -> list[str]:
    """Return the page: means as two tables, beside the published values and the floors."""
    made, cross = page.made_by(command, "one thread"), f"{standard(1).cross().item():.3f}"
    template = Path(__file__).with_name("bridges.md")
    first, second = page.fill(template, made=made, points=f"{points[0]:,}", general=points[1], cross=cross)
    table, general_table = [], []
    for dim, (end, over) in PUBLISHED.items():
        some = [row for row in rows if row["dim"] == dim]
        floor, seconds = (mean(row[name] for row in some) for name in ("floor", "seconds"))
        names = ("kl_end", "kl_mean", "covariance")
        kl_end, kl_mean, ends = (page.spread((row[name] for row in some), ".4f") for name in names)
        table.append([dim, kl_end, end, f"{floor:.4f}", kl_mean, over, ends, f"{seconds:.0f}"])
    for dim, epsilon in GENERAL:
        some = [row for row in general_rows if (row["dim"], row["epsilon"]) == (dim, epsilon)]
        cells = [
            f"{page.spread((row[name] for row in some), '.4f')} [{mean(row[f'{name}_floor'] for row in some):.3f}]"
            for name in ("mean", "middle", "end", "cross")
        ]
        general_table.append([dim, f"{epsilon:g}", *cells, f"{mean(row['seconds'] for row in some):.0f}"])
    return [*first, "", *page.table(HEAD, table), "", *second, "", *page.table(GENERAL_HEAD, general_table)]


if __name__ == "__main__":
    guarded("bridges", main)
