"""Digits, clothes, photographs: distance to test images after few steps, for flow matching, reflow and flow maps."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import cellflow as cf
from benchmarks.few_step.plane import JUMPS
from benchmarks.few_step.seconds import seconds_of
from benchmarks.images.sizes import SIZES
from cellflow.estimators.distillation import ADAPTIVE, OBJECTIVES, RECIPE, TRAJECTORIES
from cellflow.metrics import feature_network, features_of, frechet_distance
from cellflow.objectives import TrajectoryMatching, VelocityMatching
from cellflow.training import Origin, Reflow

LOADERS: dict[str, Callable[[str], cf.images.ImageSet]] = {
    "mnist": cf.datasets.mnist,
    "fashion": cf.datasets.fashion_mnist,
    "cifar10_jpeg": partial(cf.datasets.cifar10, jpeg=True),
}
"""Each is judged by the feature network of its name."""
ROUNDS = (1, 2)
REFLOWS = tuple(f"reflow, round {k}" for k in ROUNDS)
METHODS = (*REFLOWS, TRAJECTORIES, *OBJECTIVES)
MOMENTS, MANY = 17, 50
"""Moments at which trajectories are seen; solver steps of the flow at its best."""


@dataclass(frozen=True)
class Setting:
    """How large a run is.

    Parameters
    ----------
    width, blocks
        Of the U-Net, the one of ``benchmarks/images/sizes.py`` otherwise.
    flow_steps
        Optimiser steps of the flow.
    steps
        Of every round of reflow and of every map.
    batch
        Images in each step.
    followed
        Images, and draws of noise, whose trajectories are followed, and that a round of reflow pairs anew.
    samples
        Generated images that are scored.
    """

    width: int
    blocks: int
    flow_steps: int
    steps: int
    batch: int
    followed: int
    samples: int

    def network(self, shape: tuple[int, int, int], rng: torch.Generator) -> nn.Module:
        """Return a fresh network."""
        return replace(SIZES["cpu"], width=self.width, blocks=self.blocks).network(shape, heads=1, generator=rng)


SETTINGS = {
    "cpu": Setting(width=24, blocks=1, flow_steps=600, steps=200, batch=64, followed=512, samples=500),
    "full": Setting(width=64, blocks=2, flow_steps=5000, steps=1500, batch=128, followed=4096, samples=2000),
}


class Bench:
    """One data set and seed: a flow is trained once, and every method starts from it."""

    def __init__(self, name: str, seed: int, device: torch.device, setting: Setting) -> None:
        self.name, self.seed, self.device, self.setting = name, seed, device, setting
        self.images = LOADERS[name]("train").to(device)
        self.network = feature_network(name).to(device)
        self.real = features_of(LOADERS[name]("test").scaled().to(device), self.network)
        self.noise = torch.randn(setting.samples, *self.images.shape, generator=cf.generator(10_000 + seed)).to(device)
        self.recipe = SIZES["cpu"].recipe

    def velocity(self) -> nn.Module:
        """Return a trained velocity field."""
        rng = cf.generator(self.seed)
        field = self.setting.network(self.images.shape, rng).to(self.device)
        return self._fit(field, VelocityMatching(), self._pairs(rng), self.setting.flow_steps)

    def reflowed(self, field: nn.Module) -> Iterator[nn.Module]:
        """Yield the field after each round of reflow, real images kept in play."""
        field, rng = deepcopy(field), cf.generator(self.seed)
        for _ in ROUNDS:
            noise, real = self._some(rng)
            cf.training.refit(
                field, VelocityMatching(), noise, real, repairing=Reflow(steps=MOMENTS - 1, both_ends=True), rounds=1,
                steps=self.setting.steps, generator=rng, batch_size=self.setting.batch, recipe=self.recipe,
            )  # fmt: skip
            yield field

    def distilled(self, field: nn.Module, method: str) -> cf.networks.FlowMap:
        """Return a flow map that was taught by the field."""
        rng = cf.generator(self.seed)
        objective: Any = TrajectoryMatching()
        if method == TRAJECTORIES:
            noise, real = self._some(rng)
            batches: Any = cf.training.trajectory_batches(
                field, [Origin(noise, 0.0), Origin(real, 1.0)], batch_size=self.setting.batch, generator=rng,
                both=False, moments=MOMENTS,
            )  # fmt: skip
        else:
            objective = OBJECTIVES[method](teacher=field, adaptive=ADAPTIVE)
            batches = self._pairs(rng)
        spans = getattr(objective, "known_spans", ("forward",))[0]
        slow = self.recipe if method == TRAJECTORIES else replace(self.recipe, learning_rate=RECIPE.learning_rate)
        return self._fit(cf.networks.FlowMap.of(field, spans=spans), objective, batches, self.setting.steps, slow)

    def distance(self, images: Tensor) -> float:
        """Return the Fréchet distance to the test images."""
        return frechet_distance(features_of(images.clamp(-1, 1), self.network), self.real)

    def _fit(
        self, field: Any, objective: Any, batches: Any, steps: int, recipe: cf.training.Recipe | None = None
    ) -> Any:
        rng = cf.generator(self.seed + 1)
        cf.training.fit(field, objective, batches, steps=steps, generator=rng, recipe=recipe or self.recipe)
        return field.eval()

    def _pairs(self, rng: torch.Generator) -> Any:
        return cf.pairing.image_batches(
            None, self.images, coupling="independent", batch_size=self.setting.batch, generator=rng
        )

    def _some(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        n = self.setting.followed
        noise = torch.randn(n, *self.images.shape, generator=rng).to(self.device)
        return noise, self.images.scaled(torch.randperm(len(self.images), generator=rng)[:n])


def run(
    name: str, seeds: range, setting: Setting, methods: list[str], device: torch.device
) -> Iterator[dict[str, Any]]:
    """Yield a row for each method and seed: distance after so many steps; ``seconds`` are those of all training."""
    clock = seconds_of(device)
    for seed in seeds:
        bench = Bench(name, seed, device, setting)

        def row(method: str, seconds: float, push: Callable[[int], Tensor], of: Bench = bench) -> dict[str, Any]:
            about = {"method": method, "seed": of.seed, "seconds": seconds, "semigroup": float("nan")}
            return about | {f"at_{k}": of.distance(push(k)) for k in JUMPS}

        watch = clock()
        field = bench.velocity()
        seconds = clock() - watch
        yield row("velocity, Euler steps", seconds, _euler(field, bench.noise))
        many = _euler(field, bench.noise)(MANY)
        yield row(f"velocity, {MANY} evaluations", seconds, lambda k, found=many: found)  # type: ignore[misc]
        if set(methods) & set(REFLOWS):
            took, rounds = seconds, bench.reflowed(field)
            last = max(k for k, label in enumerate(REFLOWS) if label in methods)
            for label in REFLOWS[: last + 1]:
                watch = clock()
                straight = next(rounds)
                took += clock() - watch
                yield row(f"{label}, Euler steps", took, _euler(straight, bench.noise))
                found = _euler(straight, bench.noise)(MANY)
                yield row(f"{label}, {MANY} evaluations", took, lambda k, found=found: found)  # type: ignore[misc]
        for method in (one for one in methods if one not in REFLOWS):
            watch = clock()
            flow_map = bench.distilled(field, method)
            took = seconds + clock() - watch
            yield row(method, took, _jumps(flow_map, bench.noise))


def _euler(field: nn.Module, noise: Tensor) -> Callable[[int], Tensor]:
    return lambda k: torch.cat(
        [cf.integrate.ode(field, part, steps=k, method="euler").x[-1] for part in noise.split(250)]
    )


def _jumps(flow_map: cf.networks.FlowMap, noise: Tensor) -> Callable[[int], Tensor]:
    return lambda k: torch.cat([cf.integrate.jump(flow_map, part, steps=k).x[-1] for part in noise.split(250)])


def floor(name: str, samples: int, seeds: int) -> list[float]:
    """Return the distance of as many real training images, over seeds."""
    found = []
    network = feature_network(name)
    real, images = features_of(LOADERS[name]("test").scaled(), network), LOADERS[name]("train")
    for seed in range(seeds):
        rows = torch.randperm(len(images), generator=cf.generator(30_000 + seed))[:samples]
        found.append(frechet_distance(features_of(images.scaled(rows), network), real))
    return found
