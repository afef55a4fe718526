"""The target's images from noise, told which side is asked for: what a translation that keeps nothing would do."""

import torch
from torch import Tensor, nn

import cellflow as cf
from benchmarks.images.methods import TRANSLATORS, Method, Model, Size, sample, within
from benchmarks.images.tasks import Task
from benchmarks.images.underway import NOWHERE, Stopwatch, Underway
from cellflow.images import ImageSet

NAME = "noise -> target"
METHOD = Method("independent")
"""Flow matching from Gaussian noise, one network for both sides."""
METHODS = TRANSLATORS | {NAME: METHOD}
"""All that answer a translation."""


class Towards(nn.Module):
    """A conditional network that is asked for one side: 0 for the source's images, 1 for the target's."""

    def __init__(self, network: nn.Module, side: int) -> None:
        super().__init__()
        self.network, self.side = network, side

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        asked = torch.nn.functional.one_hot(torch.full((len(x),), self.side, device=x.device), 2).to(x.dtype)
        found: Tensor = self.network(t, x, asked)
        return found


def both_sides(task: Task) -> ImageSet:
    """Return the images of both sides, as many of each: those of the smaller one are repeated."""
    n = max(map(len, task.train))
    sides = [end.take(torch.arange(n) % len(end)) for end in task.train]
    images = torch.cat([side.images for side in sides])
    return ImageSet(images, torch.arange(2).repeat_interleave(n), classes=("source", "target"))


def train(task: Task, size: Size, seed: int, place: Underway = NOWHERE) -> Model:
    """Return a model of both sides, trained for as many steps as any other; see `translation.train`."""
    watch, rng = Stopwatch(), cf.generator(seed=seed)
    images = both_sides(task).to(size.device)
    field = size.network(images.shape, generator=rng, condition_dim=2)
    batches = cf.pairing.image_batches(
        None, images, coupling="independent", batch_size=size.batch, generator=rng, condition="labels", flip=task.flip
    )
    cf.training.fit(
        field, METHOD.objective, batches, steps=size.steps, generator=rng, recipe=within(size.recipe, size.steps),
        run=place.run(), on_step=watch,
    )  # fmt: skip
    return Model(field.eval(), METHOD.objective, size.steps, watch.seconds(size.steps))


def generate(model: Model, like: Tensor, *, steps: int, backward: bool, seed: int) -> Tensor:
    """Return as many images of a side as there are inputs, from noise of the same shape."""
    rng = cf.generator(seed=seed)
    noise = torch.randn(like.shape, generator=rng).to(like.device)
    towards = model._replace(field=Towards(model.field, 0 if backward else 1))
    return sample(towards, noise, sampler="ODE", steps=steps, generator=rng)
