"""Few steps beside many on digits, clothes, photographs: ``python -m benchmarks.images few_step task=mnist``.

Fréchet distance of generated images to test images in the features of our small network, no FID, after few steps of
flow matching, reflow and flow maps. ``cifar10_jpeg`` is a copy, not the official archive; ``size=full`` trains a larger
network for longer, on a GPU. Rows that are in the table already are not measured again.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn

import cellflow as cf
from benchmarks import machine
from benchmarks.few_step.curves import Curve
from benchmarks.images.sizes import CPU, Size, arguments
from benchmarks.images.tasks import DATASETS
from cellflow.integrate import Fixed
from cellflow.metrics import feature_network, features_of, frechet_distance
from cellflow.objectives import TrajectoryMatching, VelocityMatching
from cellflow.training import Origin, Reflow
from cellflow.training.distillation import ADAPTIVE, OBJECTIVES, RECIPE, TRAJECTORIES

SIZES = {
    "cpu": replace(CPU, batch=64, steps=200, flow_steps=600, simulated=512, images=500),
    "full": replace(CPU, width=64, blocks=2, batch=128, steps=1500, flow_steps=5000, simulated=4096, images=2000),
}
TASKS = [name for name, dataset in DATASETS.items() if dataset.network is not None]
REFLOWS = ("reflow, round 1", "reflow, round 2")
METHODS = (*REFLOWS, TRAJECTORIES, *OBJECTIVES)
MOMENTS, MANY, AT_ONCE = 17, 50, 250
"""Moments at which trajectories are seen; solver steps of the flow at its best; images that are pushed at once."""


def main(words: Sequence[str] | None = None) -> None:
    """Run the tasks with the methods and seeds that are asked for."""
    given = arguments(
        "few_step", __doc__, TASKS, METHODS, SIZES, words, seeds=(3, "how many seeds"),
        first=(0, "the first of them: seeds may run side by side"), again=(False, "measure again what is there"),
    )  # fmt: skip
    device = torch.device(given.device) if given.device else machine.fastest()
    size = replace(given.sized, device=str(device))
    for name in given.task:
        curve(name, size, full=given.size == "full").record(given, partial(Digits, name, size), given.method, device)


class Digits:
    """One data set and seed."""

    reflows: tuple[str, ...] = REFLOWS
    many, trainings = MANY, 1
    scratch: tuple[str, ...] = ()

    def __init__(self, name: str, size: Size, seed: int) -> None:
        self.seed, self.size, load = seed, size, DATASETS[name].load
        self.images = load("train").to(size.device)
        self.network = feature_network(str(DATASETS[name].network)).to(size.device)
        self.real = features_of(load("test").scaled().to(size.device), self.network)
        noise = torch.randn(size.images, *self.images.shape, generator=cf.generator(10_000 + seed))
        self.noise = noise.to(size.device)

    def velocity(self) -> nn.Module:
        """Return a trained velocity field."""
        rng = cf.generator(self.seed)
        field = self.size.network(self.images.shape, generator=rng)
        return self._fit(field, VelocityMatching(), self._pairs(rng), self.size.flow_steps)

    def solved(self, flow: nn.Module, steps: int | None) -> float:
        """Return the distance after Euler steps."""
        return self._distance(lambda x: cf.integrate.ode(flow, x, solver=Fixed("euler", steps=steps or MANY)))

    def reflowed(self, flow: nn.Module) -> Iterator[nn.Module]:
        """Yield the field after each round of reflow, real images kept in play."""
        straight, rng = deepcopy(flow), cf.generator(self.seed)
        for _ in REFLOWS:
            noise, real = self._some(rng)
            cf.training.refit(
                straight, VelocityMatching(), noise, real, repairing=Reflow(solver=MOMENTS - 1, both_ends=True),
                rounds=1, steps=self.size.steps, generator=rng, batch_size=self.size.batch, recipe=self.size.recipe,
            )  # fmt: skip
            yield straight

    def distilled(self, flow: nn.Module, method: str) -> cf.networks.FlowMap:
        """Return a flow map that was taught by the field."""
        rng, recipe = cf.generator(self.seed), self.size.recipe
        objective: Any = TrajectoryMatching()
        if method == TRAJECTORIES:
            origins = [Origin(x, at) for x, at in zip(self._some(rng), (0.0, 1.0), strict=True)]
            batches: Any = cf.training.trajectory_batches(
                flow, origins, batch_size=self.size.batch, generator=rng, both=False, moments=MOMENTS
            )
        else:
            objective = OBJECTIVES[method](teacher=flow, adaptive=ADAPTIVE)
            batches, recipe = self._pairs(rng), replace(recipe, learning_rate=RECIPE.learning_rate)
        spans = getattr(objective, "known_spans", ("forward",))[0]
        return self._fit(cf.networks.FlowMap.of(flow, spans=spans), objective, batches, self.size.steps, recipe)

    def jumped(self, flow_map: cf.networks.FlowMap, steps: int) -> float:
        """Return the distance after jumps."""
        return self._distance(lambda x: cf.integrate.jump(flow_map, x, steps=steps))

    def semigroup(self, flow_map: cf.networks.FlowMap) -> float:
        """Return NaN: images are not asked for it."""
        return float("nan")

    def _distance(self, push: Callable[[Tensor], cf.integrate.Trajectory]) -> float:
        """Return the Fréchet distance of pushed noise to the test images."""
        found = torch.cat([push(part).x[-1] for part in self.noise.split(AT_ONCE)])
        return frechet_distance(features_of(found.clamp(-1, 1), self.network), self.real)

    def _fit(
        self, field: Any, objective: Any, batches: Any, steps: int, recipe: cf.training.Recipe | None = None
    ) -> Any:
        rng = cf.generator(self.seed + 1)
        cf.training.fit(field, objective, batches, steps=steps, generator=rng, recipe=recipe or self.size.recipe)
        return field.eval()

    def _pairs(self, rng: torch.Generator) -> Any:
        return cf.pairing.image_batches(
            None, self.images, coupling="independent", batch_size=self.size.batch, generator=rng
        )

    def _some(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        n = self.size.simulated
        noise = torch.randn(n, *self.images.shape, generator=rng).to(self.size.device)
        return noise, self.images.scaled(torch.randperm(len(self.images), generator=rng)[:n])


def curve(name: str, size: Size, *, full: bool) -> Curve:
    """Return the table of a task."""
    about = [
        f"FD-{name}, no FID: {size.images} generated images. A U-Net of width {size.width} on patches",
        f"of 2 x 2 pixels; the flow: {size.flow_steps} steps of {size.batch} images; every round of reflow,",
        f"and every map: {size.steps} steps, taught by the flow.",
    ]
    words = f"{size.flow_steps} and {size.steps} steps of {size.batch}, width {size.width}"
    return Curve(
        f"few_step_{name}{'_full' * full}", name + ", GPU size" * full, f"FD-{name}", words, about,
        best=floor(name, size.images),
    )  # fmt: skip


def floor(name: str, samples: int, seeds: int = 3) -> float:
    """Return the distance of as many real training images, over seeds."""
    network, load = feature_network(str(DATASETS[name].network)), DATASETS[name].load
    real, images, found = features_of(load("test").scaled(), network), load("train"), []
    for seed in range(seeds):
        rows = torch.randperm(len(images), generator=cf.generator(30_000 + seed))[:samples]
        found.append(frechet_distance(features_of(images.scaled(rows), network), real))
    return mean(found)
