"""Few steps beside many on digits, clothes, photographs: ``python -m benchmarks.images few_step task=mnist``.

Fréchet distance of generated images to test images in the features of our small network, no FID, after few steps of
flow matching, reflow and flow maps; and their high frequencies, which tell grain from blur. ``cifar10_jpeg`` is a copy,
not the official archive; ``size=full`` trains a larger network for longer, on a GPU. Rows that are in the table already
are not measured again, and a training that was stopped goes on.
"""

from dataclasses import replace
from functools import partial
from statistics import mean
from typing import Any

import torch
from torch import Tensor

import cellflow as cf
from benchmarks import machine
from benchmarks.command import Words
from benchmarks.few_step.curves import SCORE, Bench, Curve, Other
from benchmarks.images.judge import FLOOR, spoiled
from benchmarks.images.methods import CPU, Size, arguments
from benchmarks.images.tasks import DATASETS
from benchmarks.images.underway import Underway
from cellflow.integrate import Fixed
from cellflow.metrics import feature_network, features_of, frechet_distance, high_frequency_ratio
from cellflow.training.distillation import ADAPTIVE, OBJECTIVES, RECIPE, TRAJECTORIES

SIZES = {
    "cpu": replace(CPU, batch=64, steps=200, flow_steps=600, simulated=512, images=500),
    "full": replace(CPU, width=64, blocks=2, batch=128, steps=1500, flow_steps=5000, simulated=4096, images=2000),
}
TASKS = [name for name, dataset in DATASETS.items() if dataset.network is not None]
REFLOWS = ("reflow, round 1", "reflow, round 2")
MAPS = {
    name: partial(lambda make, flow: make(teacher=flow, adaptive=ADAPTIVE), make) for name, make in OBJECTIVES.items()
}
METHODS = (*REFLOWS, TRAJECTORIES, *MAPS)
SHARP = "high_frequency"
ABOUT_SHARP = "Energy in structures of less than four pixels, relative to real images: more than 1 is grain, less blur."
MOMENTS, MANY = 17, 50
"""Moments at which trajectories are seen; solver steps of the flow at its best."""


def main(words: Words = None) -> None:
    """Run the tasks with the methods and seeds that are asked for."""
    given = arguments("few_step", __doc__, TASKS, METHODS, SIZES, words, seeds=3, first=0, again=False)
    device = torch.device(given.device) if given.device else machine.fastest()
    size = replace(given.sized, device=str(device))
    for name in given.task:
        curve(name, size, full=given.size == "full").record(given, partial(bench, name, size), given.method, device)


def bench(name: str, size: Size, seed: int) -> Bench:
    """Return what is compared on one data set from one seed."""
    load, judge = DATASETS[name].load, feature_network(str(DATASETS[name].network)).to(size.device)
    images, tests = load("train").to(size.device), load("test").scaled()
    real = features_of(tests.to(size.device), judge)
    noise = torch.randn(size.images, *images.shape, generator=cf.generator(10_000 + seed)).to(size.device)

    def pairs(rng: torch.Generator) -> Any:
        return cf.pairing.image_batches(None, images, coupling="independent", batch_size=size.batch, generator=rng)

    def ends(rng: torch.Generator) -> tuple[Tensor, Tensor]:
        x0 = torch.randn(size.simulated, *images.shape, generator=rng).to(size.device)
        return x0, images.scaled(torch.randperm(len(images), generator=rng)[: size.simulated])

    return Bench(
        seed, noise,
        {
            SCORE: lambda x: frechet_distance(features_of(x.clamp(-1, 1), judge), real),
            SHARP: lambda x: high_frequency_ratio(x.clamp(-1, 1).cpu(), tests),
        },
        lambda rng, times: size.network(images.shape, generator=rng), pairs, ends, objectives=MAPS,
        trajectories=TRAJECTORIES, batch=size.batch, steps=size.steps, flow_steps=size.flow_steps, recipe=size.recipe,
        slow=replace(size.recipe, learning_rate=RECIPE.learning_rate), best=Fixed("euler", steps=MANY), many=MANY,
        reflows=REFLOWS, reflow_steps=MOMENTS - 1, moments=MOMENTS, at_once=250, fits=1,
        place=Underway.of(("flow", name, seed, replace(size, steps=0))),
    )  # fmt: skip


def curve(name: str, size: Size, *, full: bool) -> Curve:
    """Return the table of a task."""
    about = [
        f"FD-{name}, no FID: {size.images} generated images. A U-Net of width {size.width} on patches",
        f"of 2 x 2 pixels; the flow: {size.flow_steps} steps of {size.batch} images; every round of reflow,",
        f"and every map: {size.steps} steps, taught by the flow.",
    ]
    words = f"{size.flow_steps} and {size.steps} steps of {size.batch}, width {size.width}"
    scores, sharp = floor(name, size.images, size.device)
    return Curve(
        f"few_step_{name}{'_full' * full}", name + ", GPU size" * full, f"FD-{name}", words, about,
        best=scores.pop(FLOOR), controls=scores, others={SHARP: Other("High frequencies", ABOUT_SHARP, sharp)},
        known=METHODS,
    )  # fmt: skip


def floor(name: str, samples: int, device: str = "cpu", seeds: int = 3) -> tuple[dict[str, float], dict[str, float]]:
    """Return distances and high frequencies of as many real training images, and of these made worse, over seeds."""
    network, load = feature_network(str(DATASETS[name].network)).to(device), DATASETS[name].load
    tests, images = load("test").scaled(), load("train")
    real = features_of(tests.to(device), network)
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in range(seeds):
        order = torch.randperm(len(images), generator=cf.generator(30_000 + seed))
        some = images.scaled(order[:samples])
        for control, shown in {FLOOR: some, **spoiled(some, seed)}.items():
            seen = features_of(shown.to(device), network)
            both = frechet_distance(seen, real), high_frequency_ratio(shown, tests)
            found.setdefault(control, []).append(both)
    scores, sharp = ({control: mean(v[k] for v in values) for control, values in found.items()} for k in (0, 1))
    return scores, sharp
