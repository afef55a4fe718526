"""What a task of translation is: two sets of images, and how a translation is judged."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

import cellflow as cf
from cellflow.images import ImageSet

Images = Callable[[Tensor], Tensor]


class Sets(NamedTuple):
    """Both sets of images of a task: to train on, or to be tested on."""

    source: ImageSet
    target: ImageSet


@dataclass(frozen=True, eq=False)
class Direction:
    """One way to translate, and what a good translation keeps and becomes.

    Parameters
    ----------
    name
        Such as "control -> cytd".
    kept_by
        What the score of preservation is called.
    kept
        Inputs and outputs to one number each, 1 where everything is kept.
    wanted
        Classes of the task's network that an output should be taken for; None where the target has no class, or where
        each output should have the class of its own source.
    same_class
        Whether an output should have the class of its source.
    outline
        Where the object is in the outputs and in the target, for the overlap with the true partner.
    descriptors
        Images to a few numbers each that people would measure.
    backward
        Whether this way runs from target to source.
    """

    name: str
    kept_by: str
    kept: Callable[[Tensor, Tensor], Tensor]
    wanted: tuple[int, ...] | None = None
    same_class: bool = False
    outline: Images | None = None
    descriptors: Images | None = None
    backward: bool = False


@dataclass(frozen=True, eq=False)
class Task:
    """Two sets of images without pairs, and how translations between them are judged.

    Parameters
    ----------
    train, test
        The images; source images of ``train`` have no partners there.
    network
        Name of the shipped network whose features the distances are measured in.
    directions
        The ways that are scored; the first is the one that is trained.
    view
        What the network is shown of an image.
    partnered
        Whether test image k of the source and of the target show the same object.
    flip
        Whether mirrored images are as good.
    features
        What `couplings` may compare instead of pixels: one function of the source images, one of the target images.
    """

    train: Sets
    test: Sets
    network: str
    directions: tuple[Direction, ...]
    view: Images = lambda images: images
    partnered: bool = False
    flip: bool = False
    features: tuple[Images, Images] | None = None

    def chosen(self, direction: Direction, n: int, generator: torch.Generator) -> tuple[Sets, Tensor]:
        """Return at most ``n`` test images a side, as many of each, and the rows of the inputs."""
        ends = self.test[::-1] if direction.backward else self.test
        n = min(n, *(len(end) for end in ends))
        rows = [torch.randperm(len(end), generator=generator)[:n] for end in ends]
        if self.partnered:
            rows[1] = rows[0]
        return Sets(*(end.take(some) for end, some in zip(ends, rows, strict=True))), rows[0]


def resized(side: int) -> Images:
    """Return a function that brings images to a side of so many pixels."""
    return lambda images: interpolate(images, size=(side, side), mode="bilinear", antialias=True)


def value(images: Tensor) -> Tensor:
    """Return the brightness of coloured images, as a digit was before it was coloured: 28 pixels, grey."""
    return resized(28)(images.amax(1, keepdim=True))


def outlines(images: Tensor) -> Tensor:
    """Return what is white in outlines."""
    return images > 0


def stained(images: Tensor) -> Tensor:
    """Return where a stained nucleus is: darker than what is around it."""
    return cf.metrics.foreground(images, dark=True)


def overlap(first: Images, second: Images) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a score: the overlap (Dice) of the object in an input with the object in its output."""
    return lambda inputs, outputs: cf.metrics.mask_dice(first(inputs), second(outputs))


def measured(images: Tensor) -> Tensor:
    """Return area (share of the image), perimeter (in sides of the image) and circularity of outlines ``(n, 3)``.

    The perimeter counts the edges of pixels, times pi / 4, which is right on average over directions; circularity is
    ``4 pi area / perimeter^2``.

    Examples
    --------
    >>> disc = ((torch.arange(64) - 31.5)[:, None] ** 2 + (torch.arange(64) - 31.5) ** 2 < 20**2) * 2.0 - 1
    >>> [round(float(number), 1) for number in measured(disc[None, None])[0]]
    [0.3, 2.0, 1.0]
    """
    inside = torch.nn.functional.pad((images > 0).any(1), (1, 1, 1, 1)).float()
    side = images.shape[-1]
    area = inside.flatten(1).mean(1) * (side + 2) ** 2 / side**2
    edges = sum(inside.diff(dim=axis).abs().flatten(1).sum(1) for axis in (1, 2))
    perimeter = torch.as_tensor(edges) * torch.pi / 4 / side
    circularity = 4 * torch.pi * area / perimeter.square().clamp(min=1e-6)
    return torch.stack([area, perimeter, circularity.clamp(max=2)], dim=1)
