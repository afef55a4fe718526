"""What translations are judged by: hues of coloured digits as published, outlines, and numbers that people measure."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

import cellflow as cf
from cellflow.images import ImageSet, read_images

Images = Callable[[Tensor], Tensor]
SEXTANTS = (("top", "up", "low"), ("down", "top", "low"), ("low", "top", "up"),
            ("low", "down", "top"), ("up", "low", "top"), ("top", "low", "down"))  # fmt: skip
"""Which level red, green and blue have in each sixth of the circle of hues."""


def coloured(digits: ImageSet, *, generator: torch.Generator, side: int = 32) -> ImageSet:
    """Return digits of ``side`` pixels, each with a random hue and full saturation.

    The sextant is the *nearest* multiple of 60 degrees, but the place within it is counted from the one *below*: so
    these are not exactly the hues of HSV. The published protocol has it so, and published distances depend on it.

    Source: Gushchin et al. 2023 (ENOT), the protocol of its coloured digits.
    """
    grey = read_images(digits, size=side)
    hues = torch.rand(len(grey), generator=generator) * 360
    levels = grey.images[:, 0].float()
    shares = (hues % 60 / 60)[:, None, None]
    parts = {"top": levels, "up": levels * shares, "down": levels * (1 - shares), "low": torch.zeros_like(levels)}
    sixth = (hues / 60).round().long() % 6
    names = [[SEXTANTS[k][channel] for k in range(6)] for channel in range(3)]
    channels = [torch.stack([parts[name] for name in column])[sixth, torch.arange(len(hues))] for column in names]
    images = torch.stack(channels, dim=1).round().to(torch.uint8)
    return ImageSet(images, grey.labels, grey.names, grey.classes, f"{digits.source or 'digits'}, coloured")


def hues_of(images: Tensor) -> Tensor:
    """Return the hue of the mean colour of each image, in degrees ``(n,)``."""
    red, green, blue = ((images + 1) / 2).clamp(0, 1).flatten(2).mean(2).unbind(1)
    return torch.rad2deg(torch.atan2(math.sqrt(3) * (green - blue), 2 * red - green - blue)) % 360


def same_hue(inputs: Tensor, outputs: Tensor) -> Tensor:
    """Return how near the hues of input and output are: 1 for one hue, 0 for opposite ones, 0.5 by chance."""
    apart = (hues_of(inputs) - hues_of(outputs)).abs()
    return 1 - torch.minimum(apart, 360 - apart) / 180


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
    """
    inside = pad((images > 0).any(1), (1, 1, 1, 1)).float()
    side = images.shape[-1]
    area = inside.flatten(1).mean(1) * (side + 2) ** 2 / side**2
    edges = sum(inside.diff(dim=axis).abs().flatten(1).sum(1) for axis in (1, 2))
    perimeter = torch.as_tensor(edges) * torch.pi / 4 / side
    circularity = 4 * torch.pi * area / perimeter.square().clamp(min=1e-6)
    return torch.stack([area, perimeter, circularity.clamp(max=2)], dim=1)
