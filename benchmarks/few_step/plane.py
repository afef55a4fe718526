"""Points in the plane, where the truth is known: ``gaussians`` and ``checkerboard``."""

import csv
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn

import cellflow as cf
from benchmarks.few_step.curves import Curve
from cellflow.integrate import Fixed
from cellflow.objectives import (
    EulerianMatching,
    FlowMapMatching,
    LagrangianMatching,
    MeanVelocityMatching,
    SemigroupMatching,
    TrajectoryMatching,
    VelocityMatching,
)
from cellflow.seeds import generator_at

SAMPLES, BINS, RANGE = {"gaussians": 8_000, "checkerboard": 64_000}, 50, 1.1
MEASURES = {"gaussians": "root mean squared error", "checkerboard": "KL divergence"}
PUBLISHED = Path(__file__).with_name("plane.csv")
"""KL at 1, 2, 4, 8 and 16 jumps (Boffi, Albergo and Vanden-Eijnden 2025, flow-maps.github.io)."""
RECIPE = cf.training.Recipe(learning_rate=1e-3)


@dataclass(frozen=True)
class Size:
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
SCRATCH: dict[str, Any] = {
    "Lagrangian": LagrangianMatching(),
    "Lagrangian, free gradient": LagrangianMatching(stop_gradient=False),
    "Eulerian": EulerianMatching(),
    "Eulerian, stopped gradient": EulerianMatching(stop_gradient=True),
    "semigroup, middle": SemigroupMatching(split="middle"),
    "semigroup, uniform": SemigroupMatching(),
    "mean velocity": MeanVelocityMatching(),
    "direct, from pairs": FlowMapMatching(),
}
TRAJECTORIES, REFLOW = "trajectories, taught", "reflow, 1 round"
TAUGHT = {"Lagrangian, taught": LagrangianMatching, "semigroup, taught": SemigroupMatching}
"""Distillation of the velocity field that serves as the baseline, from which these maps start."""
METHODS = (TRAJECTORIES, REFLOW, *SCRATCH, *TAUGHT)


class Stream:
    """Fresh independent pairs without end; batch k is the same at every iteration."""

    def __init__(self, task: str, batch: int, seed: int, device: torch.device) -> None:
        self.task, self.batch, self.seed, self.device = task, batch, seed, device

    def iterate(self, start: int) -> Iterator[cf.Batch]:
        """Yield batches from number ``start`` on."""
        step = start
        while True:
            rng = generator_at(self.seed, step, device=self.device)
            yield cf.Batch(source(self.task, self.batch, rng), target(self.task, self.batch, rng))
            step += 1

    def __iter__(self) -> Iterator[cf.Batch]:
        """Yield batches from the first on."""
        return self.iterate(0)


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


def divergence(x: Tensor, data: Tensor) -> float:
    """Return KL(data || x) between smoothed histograms."""

    def shares(points: Tensor) -> Tensor:
        cell = ((points + RANGE) / (2 * RANGE) * BINS).long().clamp(0, BINS - 1)
        counts = torch.bincount(cell[:, 0] * BINS + cell[:, 1], minlength=BINS**2).double() + 0.5
        return counts / counts.sum()

    p, q = shares(data), shares(x)
    return (p * (p / q).log()).sum().item()


class Plane:
    """One task and seed."""

    reflows: tuple[str, ...] = (REFLOW,)
    scratch: tuple[str, ...] = tuple(SCRATCH)
    many, trainings = 100, 1

    def __init__(self, task: str, size: Size, device: torch.device, seed: int) -> None:
        self.task, self.size, self.seed, self.device = task, size, seed, device
        rng = cf.generator(10_000 + seed, device)
        self.x0, self.data = source(task, SAMPLES[task], rng), target(task, SAMPLES[task], rng)

    def velocity(self) -> nn.Module:
        """Return the trained velocity field."""
        field = cf.networks.MLP(2, width=self.size.width, depth=self.size.depth).to(self.device)
        return self._fit(field, VelocityMatching())

    def solved(self, flow: nn.Module, steps: int | None) -> float:
        """Return the score after Euler steps, or of 25 steps of Runge and Kutta."""
        solver = Fixed(steps=25) if steps is None else Fixed("euler", steps=steps)
        return self._score(cf.integrate.ode(flow, self.x0, solver=solver).x[-1])

    def reflowed(self, flow: nn.Module) -> Iterator[nn.Module]:
        """Yield the field after a round of reflow."""
        straight, (x0, x1) = deepcopy(flow), self._origins()
        cf.training.refit(
            straight, VelocityMatching(), x0, x1, repairing=cf.training.Reflow(solver=25, both_ends=True), rounds=1,
            steps=self.size.steps, generator=cf.generator(self.seed), batch_size=self.size.batch, recipe=RECIPE,
        )  # fmt: skip
        yield straight

    def distilled(self, flow: nn.Module, method: str) -> cf.networks.FlowMap:
        """Return a flow map: from the field where it is taught by it, else from scratch."""
        if method in SCRATCH:
            spans = getattr(SCRATCH[method], "known_spans", ("forward",))[0]
            net = cf.networks.MLP(2, width=self.size.width, depth=self.size.depth, times=2)
            return self._fit(cf.networks.FlowMap(net, spans=spans).to(self.device), SCRATCH[method])
        if method != TRAJECTORIES:
            return self._fit(cf.networks.FlowMap.of(flow), TAUGHT[method](teacher=flow.eval()))
        origins = [cf.training.Origin(x, at) for x, at in zip(self._origins(), (0.0, 1.0), strict=True)]
        batches = cf.training.trajectory_batches(
            flow, origins, batch_size=self.size.batch, generator=cf.generator(self.seed), both=False
        )
        return self._fit(cf.networks.FlowMap.of(flow), TrajectoryMatching(), batches)

    def jumped(self, flow_map: cf.networks.FlowMap, steps: int) -> float:
        """Return the score after jumps."""
        return self._score(cf.integrate.jump(flow_map, self.x0, steps=steps).x[-1])

    def semigroup(self, flow_map: cf.networks.FlowMap) -> float:
        """Return the root mean squared difference between one jump and two, on the flow's way."""
        rng = cf.generator(20_000 + self.seed, self.device)
        x = source(self.task, 4000, rng)
        s, t, u = torch.rand(len(x), 3, generator=rng, device=rng.device).sort(dim=1).values.unbind(1)
        start = cf.integrate.jump(flow_map, x, steps=8, stop=s).x[-1]
        with torch.no_grad():
            two = flow_map.jump(t, u, flow_map.jump(s, t, start))
            return (flow_map.jump(s, u, start) - two).square().mean().sqrt().item()

    def _score(self, x1: Tensor) -> float:
        """Return the divergence, or the root mean squared distance from where the known map sends the source."""
        if self.task == "gaussians":
            return (x1 - (2 + self.x0 / 2)).square().mean().sqrt().item()
        return divergence(x1, self.data)

    def _origins(self) -> tuple[Tensor, Tensor]:
        rng = cf.generator(40_000 + self.seed, self.device)
        return source(self.task, self.size.origins, rng), target(self.task, self.size.origins, rng)

    def _fit(self, field: Any, objective: Any, batches: Any = None) -> Any:
        pairs = Stream(self.task, self.size.batch, self.seed, self.device) if batches is None else batches
        rng = cf.generator(self.seed)
        cf.training.fit(field, objective, pairs, steps=self.size.steps, generator=rng, recipe=RECIPE)
        return field


def size_of(task: str, name: str, steps: int | None, batch: int | None) -> Size:
    """Return a size, with other steps and batches where these are given."""
    if (task, name) not in SIZES:
        raise ValueError(f"size={name} is a size of the checkerboard and of images, not of {task}.")
    size = SIZES[task, name]
    return replace(size, steps=steps or size.steps, batch=batch or size.batch)


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
    task, found = "checkerboard", []
    for seed in range(max(1, seeds)):
        rng = cf.generator(30_000 + seed)
        found.append(divergence(target(task, SAMPLES[task], rng), target(task, SAMPLES[task], rng)))
    return mean(found)
