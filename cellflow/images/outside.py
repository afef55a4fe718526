"""Images beside the levels with which they are read: what is clipped, and what a model would hardly see, is said."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from cellflow.errors import OutsideLevelsWarning
from cellflow.images.levels import NARROW, Levels
from cellflow.images.numbers import Numbers, in_one_depth
from cellflow.renamed import warn

CLIPPED, MUCH = 0.1, 0.25
"""Shares of the pixels of a channel that may be outside the levels without a warning: percentiles cut some off.

The larger one where none is further outside than a tenth of the range.
"""
DIM = 0.5
"""Share of the images that may use less than a tenth of the levels without a warning: a fit may have dim ones, too."""


@dataclass(frozen=True)
class _Finding:
    """What is wrong with one channel of an image, and how much."""

    name: str
    share: float
    channel: int
    found: tuple[float, float]
    beyond: float = 0.0

    @property
    def clipped(self) -> bool:
        """Whether so many pixels are outside that something is lost."""
        return self.share > (CLIPPED if self.beyond > NARROW else MUCH)


def warn_of_outside(images: Sequence[Tensor | Numbers], names: Sequence[str], levels: Levels, *, where: str) -> None:
    """Warn, once for all, if images are clipped at given levels, or most of them use less than a tenth of these.

    Parameters
    ----------
    images
        Bytes ``(c, h, w)``, or camera counts, before they are clipped.
    names
        What each is called.
    levels
        Black and white of each channel.
    where
        Where the images come from.

    Warns
    -----
    OutsideLevelsWarning
        With the number of images, and the worst.

    Examples
    --------
    >>> import torch, warnings
    >>> bright = Numbers(torch.tensor([0.0, 5000.0, 5000.0, 9000.0]).reshape(1, 2, 2), "uint16")
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn_of_outside([bright], ["a.tif"], Levels((0.0,), (4095.0,)), where="plates")
    >>> print(str(caught[0].message).partition(". ")[0])
    In 1 of 1 images of plates, up to 75 % of the pixels are above white (a.tif: 0 to 9000 of 0 to 4095)
    """
    bright, dark, dim = _findings([image.inside for image in in_one_depth(images, levels)], names, levels)
    said = [
        _said(some, len(images), where, levels, what)
        for some, what in (
            (bright, "of the pixels{} are above white"),
            (dark, "of the pixels{} are below black"),
        )
        if some
    ]
    if len(dim) > DIM * len(images):
        said.append(_said(dim, len(images), where, levels, "of the range{} is used", few=True))
    if said:
        cut = ", and what is outside is cut off" if bright or dark else ""
        warn(
            f"{' '.join(said)} Black and white are those of other images, such as those of a fit{cut}. If these come "
            "from another camera or exposure, fit a model on such images.",
            OutsideLevelsWarning,
        )


def _findings(
    values: Sequence[Tensor], names: Sequence[str], levels: Levels
) -> tuple[list[_Finding], list[_Finding], list[_Finding]]:
    """Return the images that are above white, below black, and in a small part of the range: of each its worst channel.

    Images of one value, such as empty ones, are left out of the last: they use no part of any range.
    """
    bright, dark, dim = [], [], []
    for image, name in zip(values, names, strict=True):
        above, below, used = [], [], []
        for channel, (low, high) in enumerate(zip(levels.low, levels.high, strict=True)):
            pixels = image[channel]
            found = float(pixels.min()), float(pixels.max())
            extent = high - low
            part = (int((pixels > high).sum()) / pixels.numel(), int((pixels < low).sum()) / pixels.numel())
            above.append(_Finding(name, part[0], channel, found, (found[1] - high) / extent))
            below.append(_Finding(name, part[1], channel, found, (low - found[0]) / extent))
            share = (min(found[1], high) - max(found[0], low)) / extent
            if found[0] < found[1] and max(part) <= CLIPPED:  # of what is clipped, enough is said
                used.append(_Finding(name, max(share, 0.0), channel, found))
        bright += _worst(each for each in above if each.clipped)
        dark += _worst(each for each in below if each.clipped)
        dim += _worst((each for each in used if each.share < NARROW), few=True)
    return bright, dark, dim


def _worst(some: Iterable[_Finding], *, few: bool = False) -> list[_Finding]:
    """Return the one of largest share, or of the smallest where ``few`` is bad; nothing of none."""
    return sorted(some, key=lambda each: each.share, reverse=not few)[:1]


def _said(some: Sequence[_Finding], n: int, where: str, levels: Levels, what: str, *, few: bool = False) -> str:
    """Say in how many images something is found, and which is the worst."""
    (worst,) = _worst(some, few=few)
    low, high = levels.low[worst.channel], levels.high[worst.channel]
    channel = "" if len(levels.low) == 1 else f" of channel {_channel(worst.channel, levels)}"
    share = f"{'as little as' if few else 'up to'} {100 * worst.share:.3g} %"
    return (
        f"In {len(some)} of {n} images of {where}, {share} {what.format(channel)} ({worst.name}: {worst.found[0]:.6g} "
        f"to {worst.found[1]:.6g} of {low:.6g} to {high:.6g})."
    )


def _channel(number: int, levels: Levels) -> str:
    return str(number) if levels.channels is None else levels.channels[number]
