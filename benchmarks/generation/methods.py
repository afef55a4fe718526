"""The methods: one network and budget, and three things that it learns."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor, nn

import cellflow as cf
from benchmarks.images.sizes import Size
from cellflow.images import ImageSet
from cellflow.objectives import NoiseMatching, Objective, VelocityMatching
from cellflow.shapes import per_sample

TIMES = cf.paths.Stratified()


@dataclass(frozen=True)
class Method:
    """How noise and images are paired, what is learned, and how the model is sampled."""

    coupling: str
    objective: Objective
    samplers: tuple[str, ...] = ("euler",)


METHODS = {
    "FM": Method("independent", VelocityMatching(times=TIMES)),
    "OT-CFM": Method("exact", VelocityMatching(times=TIMES)),
    "diffusion": Method("independent", NoiseMatching(times=TIMES), ("ddim", "euler")),
}
"""Diffusion learns the noise on the variance-preserving path; its own sampler (DDIM) comes first."""


class Checkpoint(NamedTuple):
    """A model in training: its field, the steps done, and the seconds that these took."""

    field: nn.Module
    steps: int
    seconds: float


def train(images: ImageSet, method: Method, size: Size, marks: tuple[int, ...], seed: int) -> Iterator[Checkpoint]:
    """Train once, and yield the model after each number of steps in ``marks``; its weights change after that."""
    rng = cf.generator(seed=seed)
    images = images.to(size.device)
    field = size.network(images.shape, heads=1, generator=rng)
    batches = cf.pairing.image_batches(
        None, images, coupling=method.coupling, batch_size=size.batch, generator=rng, flip=images.shape[0] == 3
    )
    seconds = 0.0
    with TemporaryDirectory() as folder:
        for done, mark in pairwise((0, *marks)):
            start = perf_counter()
            cf.training.fit(
                field, method.objective, batches, steps=marks[-1], until=mark, folder=Path(folder), resume=done > 0,
                generator=cf.generator(seed=seed), recipe=size.recipe, save_every=marks[-1],
            )  # fmt: skip
            seconds += perf_counter() - start
            field.eval()
            yield Checkpoint(field, mark, seconds)


@torch.no_grad()
def generate(field: nn.Module, method: Method, noise: Tensor, *, sampler: str, evaluations: int) -> Tensor:
    """Return images from noise ``(n, c, h, w)``, as bytes would have them, for so many evaluations of the network.

    Parameters
    ----------
    field, method
        A trained field, and what it was trained for.
    noise
        Standard Gaussian.
    sampler
        ``"euler"`` along the probability flow, ``"ddim"`` for diffusion; one evaluation a step.
    evaluations
        Of the network, for each image.
    """
    parts = []
    for x in noise.split(256):
        if sampler == "ddim":
            parts.append(ddim(field, method.objective, x, steps=evaluations))
            continue
        velocity = method.objective.velocity(field)
        parts.append(cf.integrate.ode(velocity, x, steps=evaluations, method=sampler).x[-1])
    return cf.images.scaled(cf.images.to_bytes(torch.cat(parts).cpu()))


def ddim(field: nn.Module, objective: Objective, x: Tensor, *, steps: int) -> Tensor:
    """Return images from noise by steps along which the predicted noise and image stay as they are.

    The predicted image is kept within -1 and 1, and the noise is what then remains of ``x``, as is customary: a network
    that has not trained for long predicts far outside at first, where little of the image is in ``x``.

    Source: Song, Meng and Ermon 2021, equation 12 with sigma 0; Dhariwal and Nichol 2021 for the limits.

    Examples
    --------
    >>> import torch
    >>> x = torch.randn(4, 1, 8, 8, generator=cf.generator(seed=0))
    >>> ddim(lambda t, x, condition: x, NoiseMatching(), x, steps=2).shape
    torch.Size([4, 1, 8, 8])
    """
    if not isinstance(objective, NoiseMatching):
        raise TypeError(f"Expected a model of the noise (NoiseMatching); found {objective}. Take sampler='euler'.")
    margin = objective.path.margin
    times = torch.linspace(margin, 1 - margin, steps + 1, device=x.device)
    for now, then in pairwise(times):
        (a, b, _), (a_then, b_then, _) = (objective.path.coefficients(t.expand(len(x))) for t in (now, then))
        predicted = field(now.expand(len(x)), x, None)
        image = ((x - per_sample(a, x) * predicted) / per_sample(b, x)).clamp(-1, 1)
        noise = (x - per_sample(b, x) * image) / per_sample(a, x)
        x = per_sample(a_then, x) * noise + per_sample(b_then, x) * image
    return x
