"""What a score of images must be able to see: grain and blur; and real images made worse on purpose.

A distance between features says nothing about what its features do not see. Report the same distance for degraded real
images beside it: a distance that puts them nearer to real images than real images are cannot rank models.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from cellflow.networks.frequencies import waves
from cellflow.shapes import check_points
from cellflow.signature import checked

GREY_LEVELS = (5, 10, 20)
"""Standard deviations of the noise in `spoiled`, of 255 grey levels."""
_BLUR = 1.0
"""Standard deviation of the blur in `spoiled`, in pixels."""
_HALF_NYQUIST = 0.25
"""Cycles per pixel above which a frequency is high."""
_ROUNDING = 1e-20
"""Energy per pixel that rounding leaves in even images."""


@checked
def high_frequency_ratio(images: Tensor, real: Tensor) -> float:
    """Return the energy of images in high frequencies, relative to that of real images.

    1 for images as sharp as real ones, more for grain, less for blur. Report it beside any distance of features, which
    may see neither. White noise of standard deviation ``s`` adds ``s^2`` times the fraction of frequencies that are
    high, about 0.8, to the energy.

    Parameters
    ----------
    images, real
        Images ``(n, c, h, w)`` and ``(m, c, h, w)`` from -1 to 1.

    Raises
    ------
    ValueError
        When the images have different shapes, or real ones no energy in high frequencies.

    Notes
    -----
    Energy is that of a cosine transform, whose basis does not jump at the edges of an image; frequencies are high above
    a quarter of a cycle per pixel, in any direction: structures of less than four pixels.

    Examples
    --------
    >>> import torch
    >>> stripes = torch.tensor([-1.0, 1.0]).repeat(1, 1, 8, 4)
    >>> round(high_frequency_ratio(0.5 * stripes, stripes), 6)
    0.25
    """
    for name, side in (("images", images), ("real", real)):
        check_points(side, name=name, axes=4)
    if images.shape[1:] != real.shape[1:]:
        raise ValueError(
            f"Expected images and real ones of one shape (c, h, w); found {tuple(images.shape[1:])} and "
            f"{tuple(real.shape[1:])}. `cf.images.read_images(..., size=)` brings images to one size."
        )
    mine, theirs = (_high_energy(side) for side in (images, real))
    if theirs < _ROUNDING:
        raise ValueError("Expected real images with some energy in high frequencies; found none: they are uniform.")
    return mine / theirs


@checked
def spoiled(images: Tensor, *, generator: torch.Generator) -> dict[str, Tensor]:
    """Return deliberately degraded real images, by name: with Gaussian noise of 5, 10 and 20 grey levels, and blurred.

    Score them like a model's images, and as many of them: see `blind_to`.

    Parameters
    ----------
    images
        ``(n, c, h, w)`` from -1 to 1; the result is clipped to that range, as in files of bytes.
    generator
        Draws the noise.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> images = cf.datasets.digits().scaled(range(50)) / 2  # nothing is clipped
    >>> worse = spoiled(images, generator=cf.generator(seed=0))
    >>> {name: round(high_frequency_ratio(some, images), 2) for name, some in worse.items()}
    {'noise of 5': 1.02, 'noise of 10': 1.12, 'noise of 20': 1.36, 'blurred': 0.02}
    """
    check_points(images, name="images", axes=4)
    found = {}
    for levels in GREY_LEVELS:
        noise = torch.randn(images.shape, generator=generator, device=generator.device).to(images)
        found[f"noise of {levels}"] = (images + noise * (levels / 127.5)).clamp(-1, 1)
    return found | {"blurred": _blurred(images).clamp(-1, 1)}


@checked
def blind_to(real: float, controls: Mapping[str, float]) -> tuple[str, ...]:
    """Return the controls that a distance puts no farther from real images than other real images are.

    A distance with such a blind spot ranks models by something other than how real their images look.

    Parameters
    ----------
    real
        Distance of real images to other real images.
    controls
        Distance of what should be farther, with as many images, to the same others: of `spoiled` images by name, or of
        the source images of a translation.

    Examples
    --------
    >>> blind_to(16.6, {"noise of 5": 16.4, "noise of 20": 13.0, "blurred": 76.5})
    ('noise of 5', 'noise of 20')
    """
    if not all(map(math.isfinite, (real, *controls.values()))):
        raise ValueError(f"Expected finite distances; found {real} and {dict(controls)}.")
    return tuple(name for name, distance in controls.items() if distance <= real)


def _high_energy(images: Tensor) -> float:
    """Return the mean energy per pixel above half of the highest frequency."""
    y, x = (torch.arange(size, device=images.device) / (2 * size) for size in images.shape[2:])
    high = torch.hypot(y[:, None], x[None]) > _HALF_NYQUIST
    energy = torch.zeros((), dtype=torch.float64, device=images.device)
    for part in images.split(256):
        energy += waves(part.double()).square()[..., high].sum()
    return float(energy) / images.numel()


def _blurred(images: Tensor) -> Tensor:
    reach = math.ceil(3 * _BLUR)
    offsets = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    window = torch.exp(-(offsets**2) / (2 * _BLUR**2))
    window = window / window.sum()
    flat = images.flatten(0, 1)[:, None]
    flat = F.conv2d(F.pad(flat, (reach,) * 4, mode="replicate"), window[None, None, None])
    return F.conv2d(flat, window[None, None, :, None]).reshape(images.shape)
