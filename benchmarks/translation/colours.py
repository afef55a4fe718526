"""Coloured digits, as published: a hue for each image, with the sextants of the reference."""

import math

import torch
from torch import Tensor

from cellflow.images import ImageSet, read_images

SEXTANTS = (("top", "up", "low"), ("down", "top", "low"), ("low", "top", "up"),
            ("low", "down", "top"), ("up", "low", "top"), ("top", "low", "down"))  # fmt: skip
"""Which level red, green and blue have in each sixth of the circle of hues."""


def coloured(digits: ImageSet, *, generator: torch.Generator, side: int = 32) -> ImageSet:
    """Return digits of ``side`` pixels, each with a random hue and full saturation.

    The sextant is the *nearest* multiple of 60 degrees, but the place within it is counted from the one *below*: so
    these are not exactly the hues of HSV. The published protocol has it so, and published distances depend on it.

    Source: Gushchin et al. 2023 (ENOT), the protocol of its coloured digits.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> white = ImageSet(torch.full((4, 1, 28, 28), 255, dtype=torch.uint8))
    >>> coloured(white, generator=cf.generator(seed=0))
    ImageSet(4 images, 3 x 32 x 32, digits, coloured)
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
    """Return the hue of the mean colour of each image, in degrees ``(n,)``.

    Examples
    --------
    >>> red, green = torch.tensor([1.0, -1, -1]), torch.tensor([-1.0, 1, -1])
    >>> hues_of(torch.stack([red, green])[:, :, None, None]).round()
    tensor([  0., 120.])
    """
    red, green, blue = ((images + 1) / 2).clamp(0, 1).flatten(2).mean(2).unbind(1)
    return torch.rad2deg(torch.atan2(math.sqrt(3) * (green - blue), 2 * red - green - blue)) % 360


def same_hue(inputs: Tensor, outputs: Tensor) -> Tensor:
    """Return how near the hues of input and output are: 1 for one hue, 0 for opposite ones, 0.5 by chance.

    Examples
    --------
    >>> red, cyan = (torch.tensor(colour)[None, :, None, None] for colour in ([1.0, -1, -1], [-1.0, 1, 1]))
    >>> same_hue(red, red), same_hue(red, cyan)
    (tensor([1.]), tensor([0.]))
    """
    apart = (hues_of(inputs) - hues_of(outputs)).abs()
    return 1 - torch.minimum(apart, 360 - apart) / 180
