"""Points in the plane, where the truth is known: ``gaussians`` and ``checkerboard``."""

import csv
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import cellflow as cf
from benchmarks.few_step.curves import SCORE, Bench, Curve
from cellflow import objectives
from cellflow.integrate import Fixed
from cellflow.seeds import generator_at, seeded

SAMPLES, BINS, RANGE = {"gaussians": 8_000, "checkerboard": 64_000}, 50, 1.1
MEASURES = {"gaussians": "root mean squared error", "checkerboard": "KL divergence"}
PUBLISHED = Path(__file__).with_name("plane.csv")
"""KL at 1, 2, 4, 8 and 16 jumps (Boffi, Albergo and Vanden-Eijnden 2025, flow-maps.github.io)."""


class Size(NamedTuple):
    """How large a run is; ``origins`` are the points of a side that are followed, or paired by a round of reflow."""

    steps: int
    batch: int
    width: int
    depth: int
    origins: int = 8192


SIZES = {
    ("gaussians", "cpu"): Size(steps=3000, batch=512, width=64, depth=2),
    ("checkerboard", "cpu"): Size(steps=10_000, batch=1024, width=128, depth=2),
    ("checkerboard", "full"): Size(steps=150_000, batch=100_000, width=512, depth=2, origins=200_000),
}
TRAJECTORIES, REFLOW = "trajectories, taught", "reflow, 1 round"
SCRATCH: dict[str, Callable[[nn.Module], Any]] = {
    "Lagrangian": lambda flow: objectives.LagrangianMatching(),
    "Lagrangian, free gradient": lambda flow: objectives.LagrangianMatching(stop_gradient=False),
    "Eulerian": lambda flow: objectives.EulerianMatching(),
    "Eulerian, stopped gradient": lambda flow: objectives.EulerianMatching(stop_gradient=True),
    "semigroup, middle": lambda flow: objectives.SemigroupMatching(split="middle"),
    "semigroup, uniform": lambda flow: objectives.SemigroupMatching(),
    "mean velocity": lambda flow: objectives.MeanVelocityMatching(),
    "direct, from pairs": lambda flow: objectives.FlowMapMatching(),
}
TAUGHT: dict[str, Callable[[nn.Module], Any]] = {
    "Lagrangian, taught": lambda flow: objectives.LagrangianMatching(teacher=flow),
    "semigroup, taught": lambda flow: objectives.SemigroupMatching(teacher=flow),
}
"""Distillation of the velocity field that serves as the baseline, from which these maps start."""
METHODS = (TRAJECTORIES, REFLOW, *SCRATCH, *TAUGHT)


def source(task: str, n: int, rng: torch.Generator) -> Tensor:
    """Draw ``(n, 2)`` points of the source: of unit variance, or of that of the board."""
    noise = torch.randn(n, 2, generator=rng, device=rng.device)
    return noise if task == "gaussians" else noise / 3**0.5


def target(task: str, n: int, rng: torch.Generator) -> Tensor:
    """Draw ``(n, 2)`` points of the target."""
    if task == "gaussians":
        return 2 + torch.randn(n, 2, generator=rng, device=rng.device) / 2
    row, pick = (torch.randint(side, (n,), generator=rng, device=rng.device) for side in (4, 2))
    corner = torch.stack([row, 2 * pick + row % 2], dim=1)
    return (corner + torch.rand(n, 2, generator=rng, device=rng.device)) / 2 - 1


def both(task: str, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw points of either side."""
    return source(task, n, rng), target(task, n, rng)


def divergence(x: Tensor, data: Tensor) -> float:
    """Return KL(data || x) between smoothed histograms."""

    def shares(points: Tensor) -> Tensor:
        cell = ((points + RANGE) / (2 * RANGE) * BINS).long().clamp(0, BINS - 1)
        counts = torch.bincount(cell[:, 0] * BINS + cell[:, 1], minlength=BINS**2).double() + 0.5
        return counts / counts.sum()

    p, q = shares(data), shares(x)
    return (p * (p / q).log()).sum().item()


def bench(task: str, size: Size, device: torch.device, seed: int) -> Bench:
    """Return what is compared on one task from one seed."""
    x0, data = both(task, SAMPLES[task], cf.generator(10_000 + seed, device))

    def score(x1: Tensor) -> float:
        """Return the divergence, or the root mean squared distance from where the known map sends the source."""
        return (x1 - (2 + x0 / 2)).square().mean().sqrt().item() if task == "gaussians" else divergence(x1, data)

    def network(rng: torch.Generator, times: int) -> nn.Module:
        with seeded(rng):
            return cf.networks.MLP(2, width=size.width, depth=size.depth, times=times).to(device)

    def pairs(rng: torch.Generator) -> Iterator[cf.Batch]:
        """Yield fresh independent pairs without end."""
        return (cf.Batch(*both(task, size.batch, generator_at(seed, step, device=device))) for step in count())

    def semigroup(flow_map: cf.networks.FlowMap) -> float:
        """Return the root mean squared difference between one jump and two, on the flow's way."""
        rng = cf.generator(20_000 + seed, device)
        x = source(task, 4000, rng)
        s, t, u = torch.rand(len(x), 3, generator=rng, device=device).sort(dim=1).values.unbind(1)
        start = cf.integrate.jump(flow_map, x, steps=8, stop=s).x[-1]
        with torch.no_grad():
            two = flow_map.jump(t, u, flow_map.jump(s, t, start))
            return (flow_map.jump(s, u, start) - two).square().mean().sqrt().item()

    return Bench(
        seed, x0, {SCORE: score}, network, pairs,
        lambda rng: both(task, size.origins, cf.generator(40_000 + seed, device)),
        objectives=SCRATCH | TAUGHT, trajectories=TRAJECTORIES, batch=size.batch, steps=size.steps,
        flow_steps=size.steps, recipe=cf.training.Recipe(learning_rate=1e-3), best=Fixed(steps=25), many=100,
        reflows=(REFLOW,), reflow_steps=25, scratch=tuple(SCRATCH), semigroup=semigroup,
    )  # fmt: skip


def size_of(task: str, name: str, steps: int | None, batch: int | None) -> Size:
    """Return a size, with other steps and batches where these are given."""
    if (task, name) not in SIZES:
        raise ValueError(f"size={name} is a size of the checkerboard and of images, not of {task}.")
    size = SIZES[task, name]
    return size._replace(steps=steps or size.steps, batch=batch or size.batch)


def curve(task: str, name: str, size: Size, seeds: int) -> Curve:
    """Return the table of a task."""
    what = "Root mean squared error" if task == "gaussians" else "KL divergence of the data from 64,000 samples"
    about = [
        f"{size.steps} steps of {size.batch} fresh pairs, MLP of width {size.width}, {size.depth} residual",
        f"blocks. {what} after 1 to 16 steps.",
    ]
    published: dict[str, list[float]] = {}
    if task == "checkerboard":
        full = SIZES[task, "full"]
        about.append(f"The published run took {full.steps} steps of {full.batch} points.")
        with PUBLISHED.open() as file:
            published = {method: [float(x) for x in values] for method, *values in list(csv.reader(file))[1:]}
    return Curve(
        name=f"few_step_{task}{'_full' * (name == 'full')}", title=task + ", GPU size" * (name == "full"),
        measure=MEASURES[task], size=f"{size.steps} steps of {size.batch}, width {size.width}", about=about,
        best=floor(seeds) if task == "checkerboard" else None, published=published,
    )  # fmt: skip


def floor(seeds: int) -> float:
    """Return the score of a perfect sampler of the board, over seeds."""
    task, rngs = "checkerboard", (cf.generator(30_000 + seed) for seed in range(max(1, seeds)))
    return mean(divergence(*(target(task, SAMPLES[task], rng) for _ in "12")) for rng in rngs)
