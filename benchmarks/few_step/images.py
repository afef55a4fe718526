"""MNIST and Fashion-MNIST: distance to test images after few steps, for flow matching, reflow and flow maps."""

import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

import cellflow as cf
from benchmarks.few_step.plane import JUMPS
from benchmarks.images.sizes import SIZES
from cellflow.estimators.distillation import ADAPTIVE, OBJECTIVES, RECIPE, TRAJECTORIES
from cellflow.metrics import feature_network, features_of, frechet_distance
from cellflow.objectives import TrajectoryMatching, VelocityMatching
from cellflow.training import Origin, Reflow

LOADERS = {"mnist": cf.datasets.mnist, "fashion": cf.datasets.fashion_mnist}
ROUNDS = (1, 2)
REFLOWS = tuple(f"reflow, round {k}" for k in ROUNDS)
METHODS = (*REFLOWS, TRAJECTORIES, *OBJECTIVES)
TEACHER_STEPS, STEPS, BATCH = 600, 200, 64
FOLLOWED, MOMENTS = 512, 17
"""Images, and draws of noise, whose trajectories are followed; moments at which they are seen."""
SAMPLES, MANY = 500, 50


class Bench:
    """One data set and seed: a flow is trained once, and every method starts from it."""

    def __init__(self, name: str, seed: int, device: torch.device, steps: int | None) -> None:
        self.name, self.seed, self.device, self.steps = name, seed, device, steps or STEPS
        self.images = LOADERS[name]("train").to(device)
        self.network = feature_network(name).to(device)
        self.real = features_of(LOADERS[name]("test").scaled().to(device), self.network)
        self.noise = torch.randn(SAMPLES, *self.images.shape, generator=cf.generator(10_000 + seed)).to(device)
        self.recipe = SIZES["cpu"].recipe

    def velocity(self) -> nn.Module:
        """Return a trained velocity field."""
        rng = cf.generator(self.seed)
        field = SIZES["cpu"].network(self.images.shape, heads=1, generator=rng).to(self.device)
        return self._fit(field, VelocityMatching(), self._pairs(rng), TEACHER_STEPS)

    def reflowed(self, field: nn.Module) -> Iterator[nn.Module]:
        """Yield the field after each round of reflow, real images kept in play."""
        field, rng = deepcopy(field), cf.generator(self.seed)
        for _ in ROUNDS:
            noise, real = self._some(rng)
            cf.training.refit(
                field, VelocityMatching(), noise, real, repairing=Reflow(steps=MOMENTS - 1, both_ends=True), rounds=1,
                steps=self.steps, generator=rng, batch_size=BATCH, recipe=self.recipe,
            )  # fmt: skip
            yield field

    def distilled(self, field: nn.Module, method: str) -> cf.networks.FlowMap:
        """Return a flow map that was taught by the field."""
        rng = cf.generator(self.seed)
        objective: Any = TrajectoryMatching()
        if method == TRAJECTORIES:
            noise, real = self._some(rng)
            batches: Any = cf.training.trajectory_batches(
                field, [Origin(noise, 0.0), Origin(real, 1.0)], batch_size=BATCH, generator=rng, both=False,
                moments=MOMENTS,
            )  # fmt: skip
        else:
            objective = OBJECTIVES[method](teacher=field, adaptive=ADAPTIVE)
            batches = self._pairs(rng)
        spans = getattr(objective, "known_spans", ("forward",))[0]
        slow = self.recipe if method == TRAJECTORIES else replace(self.recipe, learning_rate=RECIPE.learning_rate)
        return self._fit(cf.networks.FlowMap.of(field, spans=spans), objective, batches, self.steps, slow)

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
        return cf.data.image_batches(None, self.images, coupling="independent", batch_size=BATCH, generator=rng)

    def _some(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        noise = torch.randn(FOLLOWED, *self.images.shape, generator=rng).to(self.device)
        return noise, self.images.scaled(torch.randperm(len(self.images), generator=rng)[:FOLLOWED])


def run(name: str, seeds: int, steps: int | None, methods: list[str], device: torch.device) -> Iterator[dict[str, Any]]:
    """Yield a row for each method and seed: distance after so many steps; ``seconds`` are those of all training."""
    for seed in range(seeds):
        bench = Bench(name, seed, device, steps)

        def row(method: str, seconds: float, push: Callable[[int], Tensor], of: Bench = bench) -> dict[str, Any]:
            about = {"method": method, "seed": of.seed, "seconds": seconds, "semigroup": float("nan")}
            return about | {f"at_{k}": of.distance(push(k)) for k in JUMPS}

        watch = time.process_time()
        field = bench.velocity()
        seconds = time.process_time() - watch
        yield row("velocity, Euler steps", seconds, _euler(field, bench.noise))
        many = _euler(field, bench.noise)(MANY)
        yield row(f"velocity, {MANY} evaluations", seconds, lambda k, found=many: found)  # type: ignore[misc]
        if set(methods) & set(REFLOWS):
            took, rounds = seconds, bench.reflowed(field)
            for label in REFLOWS:
                watch = time.process_time()
                straight = next(rounds)
                took += time.process_time() - watch
                yield row(f"{label}, Euler steps", took, _euler(straight, bench.noise))
                found = _euler(straight, bench.noise)(MANY)
                yield row(f"{label}, {MANY} evaluations", took, lambda k, found=found: found)  # type: ignore[misc]
        for method in (one for one in methods if one not in REFLOWS):
            watch = time.process_time()
            flow_map = bench.distilled(field, method)
            took = seconds + time.process_time() - watch
            yield row(method, took, _jumps(flow_map, bench.noise))


def _euler(field: nn.Module, noise: Tensor) -> Callable[[int], Tensor]:
    return lambda k: torch.cat(
        [cf.integrate.ode(field, part, steps=k, method="euler").x[-1] for part in noise.split(250)]
    )


def _jumps(flow_map: cf.networks.FlowMap, noise: Tensor) -> Callable[[int], Tensor]:
    return lambda k: torch.cat([cf.integrate.jump(flow_map, part, steps=k).x[-1] for part in noise.split(250)])


def floor(name: str, seeds: int) -> list[float]:
    """Return the distance of as many real training images."""
    found = []
    network = feature_network(name)
    real, images = features_of(LOADERS[name]("test").scaled(), network), LOADERS[name]("train")
    for seed in range(seeds):
        rows = torch.randperm(len(images), generator=cf.generator(30_000 + seed))[:SAMPLES]
        found.append(frechet_distance(features_of(images.scaled(rows), network), real))
    return found
