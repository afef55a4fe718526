"""Points in the plane, where the truth is known.

``gaussians``: independent N(0, 1) and N(2, 0.25) in two dimensions on straight lines, whose map is known: root mean
squared error of 1 to 16 jumps, and the semigroup error ``||X(s, u) - X(t, u) o X(s, t)||`` over random s < t < u.

``checkerboard``: from a Gaussian of the data's variance to the black squares of a 4 x 4 board on [-1, 1]^2; KL
divergence of the data from 64,000 samples after 1 to 16 jumps, between histograms of 50 x 50 bins. Direction, smoothing
and range are not published; here: KL(data || model), half a count added to every bin, [-1.1, 1.1]^2 with everything
outside in the outermost bins. The floor is the same score for an independent draw of the data. The published run has
150,000 steps of 100,000 points through four layers of 512; that is ``--full``, for a GPU. The default is sized for a
CPU; the page says beside it how large the published run was.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import cellflow as cf
from benchmarks.few_step.seconds import seconds_of
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

JUMPS = (1, 2, 4, 8, 16)
SAMPLES, BINS, RANGE = {"gaussians": 8_000, "checkerboard": 64_000}, 50, 1.1
PUBLISHED = {
    "Lagrangian": (0.0864, 0.0765, 0.0708, 0.0699, 0.0710),
    "Eulerian": (0.0983, 0.0921, 0.0834, 0.0816, 0.0751),
    "semigroup, middle": (0.1456, 0.0891, 0.0812, 0.0717, 0.0689),
    "semigroup, uniform": (0.1113, 0.1067, 0.0747, 0.0727, 0.0679),
}
"""KL at 1, 2, 4, 8 and 16 jumps (Boffi, Albergo and Vanden-Eijnden 2025, flow-maps.github.io)."""


@dataclass(frozen=True)
class Size:
    """How large a run is.

    ``origins`` are the points of a side whose trajectories are followed, and those of a round of reflow.
    """

    steps: int
    batch_size: int
    width: int
    depth: int
    origins: int = 8192


SIZES = {
    "gaussians": Size(steps=3000, batch_size=512, width=64, depth=2),
    "checkerboard": Size(steps=10_000, batch_size=1024, width=128, depth=2),
    "checkerboard, full": Size(steps=150_000, batch_size=100_000, width=512, depth=2, origins=200_000),
}
METHODS: dict[str, Any] = {
    "Lagrangian": LagrangianMatching(),
    "Lagrangian, free gradient": LagrangianMatching(stop_gradient=False),
    "Eulerian": EulerianMatching(),
    "Eulerian, stopped gradient": EulerianMatching(stop_gradient=True),
    "semigroup, middle": SemigroupMatching(split="middle"),
    "semigroup, uniform": SemigroupMatching(),
    "mean velocity": MeanVelocityMatching(),
    "direct, from pairs": FlowMapMatching(),
}
TRAJECTORIES, REFLOW = "trajectories, taught", "reflow, 1 round, Euler steps"
TAUGHT = {"Lagrangian, taught": LagrangianMatching, "semigroup, taught": SemigroupMatching}
"""Distillation of the velocity field that serves as the baseline, from which these maps start."""


class Stream:
    """Fresh independent pairs without end; batch k is the same at every iteration."""

    def __init__(self, task: str, batch_size: int, seed: int, device: torch.device) -> None:
        self.task, self.batch_size, self.seed, self.device = task, batch_size, seed, device

    def iterate(self, start: int) -> Iterator[cf.Batch]:
        """Yield batches from number ``start`` on."""
        step = start
        while True:
            rng = generator_at(self.seed, step, device=self.device)
            yield cf.Batch(source(self.task, self.batch_size, rng), target(self.task, self.batch_size, rng))
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
    row, pick = (
        torch.randint(4, (n,), generator=rng, device=rng.device),
        torch.randint(2, (n,), generator=rng, device=rng.device),
    )
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


def transport_error(x0: Tensor, x1: Tensor) -> float:
    """Return the root mean squared distance from where the known map of the Gaussians sends ``x0``."""
    return (x1 - (2 + x0 / 2)).square().mean().sqrt().item()


def semigroup_error(flow_map: Any, task: str, rng: torch.Generator) -> float:
    """Return the root mean squared difference between one jump and two, over the same stretch, on the flow's way."""
    x = source(task, 4000, rng)
    s, t, u = torch.rand(len(x), 3, generator=rng, device=rng.device).sort(dim=1).values.unbind(1)
    start = cf.integrate.jump(flow_map, x, steps=8, stop=s).x[-1]
    with torch.no_grad():
        two = flow_map.jump(t, u, flow_map.jump(s, t, start))
        return (flow_map.jump(s, u, start) - two).square().mean().sqrt().item()


def scores(task: str, push: Callable[[Tensor, int], Tensor], rng: torch.Generator) -> dict[str, float]:
    """Return the score after each number of jumps."""
    x0 = source(task, SAMPLES[task], rng)
    data = target(task, SAMPLES[task], rng)
    score = (lambda x: transport_error(x0, x)) if task == "gaussians" else (lambda x: divergence(x, data))
    return {f"at_{k}": score(push(x0, k)) for k in JUMPS}


def run(task: str, size: Size, seed: int, device: torch.device, methods: list[str]) -> Iterator[dict[str, Any]]:
    """Train the baseline and every method, and yield a row for each."""
    network = {"width": size.width, "depth": size.depth}
    recipe, clock = cf.training.Recipe(learning_rate=1e-3), seconds_of(device)

    def train(field: torch.nn.Module, objective: Any, batches: Any = None) -> float:
        rng, start = cf.generator(seed), clock()
        pairs = Stream(task, size.batch_size, seed, device) if batches is None else batches
        cf.training.fit(field, objective, pairs, steps=size.steps, generator=rng, recipe=recipe)
        return clock() - start

    def row(method: str, seconds: float, push: Callable[[Tensor, int], Tensor], semigroup: float) -> dict[str, Any]:
        found = scores(task, push, cf.generator(10_000 + seed, device))
        return {"method": method, "seed": seed, "seconds": seconds, "semigroup": semigroup} | found

    field = cf.networks.MLP(2, **network).to(device)
    seconds = train(field, VelocityMatching())
    yield row("velocity, Euler steps", seconds, lambda x, k: euler(field, x, k), float("nan"))
    exact = cf.integrate.ode(field, source(task, SAMPLES[task], cf.generator(10_000 + seed, device)), steps=25).x[-1]
    yield row("velocity, 100 evaluations", seconds, lambda x, k: exact, float("nan"))
    for name in methods:
        if name == REFLOW:
            straight, took = reflowed(task, field, size, seed, device, recipe)
            yield row(name, seconds + took, lambda x, k, of=straight: euler(of, x, k), float("nan"))  # type: ignore[misc]
            continue
        objective, batches, start = _objective(name, field), None, clock()
        if name == TRAJECTORIES:
            batches = followed(task, field, size, seed, device)
        following = clock() - start
        taught = name in (TRAJECTORIES, *TAUGHT)
        spans = getattr(objective, "known_spans", ("forward",))[0]
        flow_map = (
            cf.networks.FlowMap.of(field)
            if taught
            else cf.networks.FlowMap(cf.networks.MLP(2, **network, times=2), spans=spans).to(device)
        )
        took = following + train(flow_map, objective, batches) + (seconds if taught else 0.0)
        semigroup = semigroup_error(flow_map, task, cf.generator(20_000 + seed, device))
        yield row(name, took, _jumps_of(flow_map), semigroup)


def _objective(name: str, field: torch.nn.Module) -> Any:
    if name == TRAJECTORIES:
        return TrajectoryMatching()
    return TAUGHT[name](teacher=field.eval()) if name in TAUGHT else METHODS[name]


def followed(task: str, field: torch.nn.Module, size: Size, seed: int, device: torch.device) -> Any:
    """Return batches of pairs on the trajectories of the baseline."""
    rng = cf.generator(40_000 + seed, device)
    ends = source(task, size.origins, rng), target(task, size.origins, rng)
    origins = [cf.training.Origin(x, at) for x, at in zip(ends, (0.0, 1.0), strict=True)]
    return cf.training.trajectory_batches(
        field, origins, batch_size=size.batch_size, generator=cf.generator(seed), both=False
    )


def reflowed(
    task: str, field: torch.nn.Module, size: Size, seed: int, device: torch.device, recipe: cf.training.Recipe
) -> tuple[torch.nn.Module, float]:
    """Return the baseline after a round of reflow, and the seconds that it took."""
    clock = seconds_of(device)
    rng, straight, start = cf.generator(40_000 + seed, device), deepcopy(field), clock()
    x0, x1 = source(task, size.origins, rng), target(task, size.origins, rng)
    cf.training.refit(
        straight, VelocityMatching(), x0, x1, repairing=cf.training.Reflow(steps=25, both_ends=True), rounds=1,
        steps=size.steps, generator=cf.generator(seed), batch_size=size.batch_size, recipe=recipe,
    )  # fmt: skip
    return straight, clock() - start


def euler(field: torch.nn.Module, x: Tensor, steps: int) -> Tensor:
    """Return the end of so many Euler steps."""
    return cf.integrate.ode(field, x, steps=steps, method="euler").x[-1]


def _jumps_of(flow_map: Any) -> Callable[[Tensor, int], Tensor]:
    return lambda x, k: cf.integrate.jump(flow_map, x, steps=k).x[-1]


def floor(task: str, seeds: int) -> list[float]:
    """Return the score of a perfect sampler, over seeds."""
    if task == "gaussians":
        return [0.0]
    draws = [cf.generator(30_000 + seed) for seed in range(seeds)]
    return [divergence(target(task, SAMPLES[task], rng), target(task, SAMPLES[task], rng)) for rng in draws]
