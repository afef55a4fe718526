"""The target's images from noise, told which side is asked for: what a translation that keeps nothing would do."""

from functools import partial

import pandas as pd
import torch
from torch import Tensor

import cellflow as cf
from benchmarks.images.methods import TRANSLATORS, Method, Size, unet, within
from benchmarks.images.tasks import Task
from benchmarks.images.underway import NOWHERE, Underway
from cellflow.images import ImageSet
from cellflow.integrate import Fixed
from cellflow.objectives import VelocityMatching

NAME = "noise -> target"
METHOD = Method("independent", VelocityMatching())
"""Flow matching from Gaussian noise, one network for both sides: `cellflow.ImageGenerator` with a condition."""
METHODS = TRANSLATORS | {NAME: METHOD}
"""All that answer a translation."""
SIDES = ("source", "target")


def both_sides(task: Task) -> ImageSet:
    """Return the images of both sides, as many of each, with their side: those of the smaller one are repeated."""
    n = max(map(len, task.train))
    sides = [end.take(torch.arange(n) % len(end)) for end in task.train]
    images = torch.cat([side.images for side in sides])
    return ImageSet(images, obs=pd.DataFrame({"side": [side for side in SIDES for _ in range(n)]}))


def train(task: Task, size: Size, seed: int, place: Underway = NOWHERE) -> tuple[cf.ImageGenerator, float]:
    """Return a generator that is told the side, and the seconds of its training; see `translation.train`."""
    model = cf.ImageGenerator(
        conditions="side", condition_dropout=0.0, network=partial(unet, **size.shape(task.train.target.shape)),
        steps=size.steps, batch_size=size.batch, recipe=within(size.recipe, size.steps), flip=task.flip, seed=seed,
        device=size.device,
    )  # fmt: skip
    return place.timed("training", size.steps, partial(model.fit, both_sides(task)))


def generate(
    model: cf.ImageGenerator, like: Tensor, *, sampler: str = "ODE", steps: int, backward: bool, seed: int
) -> Tensor:
    """Return as many images of a side as there are inputs, from noise."""
    if sampler not in METHOD.samplers:
        raise ValueError(f"Expected one of {METHOD.samplers}; found {sampler!r}.")
    asked, solver = {"side": SIDES[0 if backward else 1]}, Fixed("euler", steps=steps)
    return model.generate(len(like), condition=asked, solver=solver, seed=seed).scaled().cpu()
