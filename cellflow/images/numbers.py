"""The numbers of cameras on their way into a set of images: brought to one size, one depth and one range."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from cellflow.images.levels import STEPS, Levels, check_range, found_levels, narrow
from cellflow.renamed import warn
from cellflow.signature import checked

BYTES_TO_STEPS = 257
"""White of 16 bits over white of 8."""

LUMA = (19595, 38470, 7471)
"""Shares of red, green and blue in grey, of 65536: ITU-R 601 as Pillow rounds it."""


SIGNED = "int16"
"""Kind of numbers of 16 bits with a sign, which only all images of a set tell: see `settled`."""


@checked
@dataclass(frozen=True)
class Frame:
    """Where an image is in one that is padded around it.

    Parameters
    ----------
    top, bottom, left, right
        Its first row and the one after its last; the same of its columns.
    ground
        What is around it, of 65535.
    """

    top: int
    bottom: int
    left: int
    right: int
    ground: int = 0

    def inside(self, values: Tensor) -> Tensor:
        """Return the image ``(c, h, w)`` without what is around it.

        Examples
        --------
        >>> import torch
        >>> Frame(0, 1, 1, 2).inside(torch.arange(4).reshape(1, 2, 2)).tolist()
        [[[1]]]
        """
        return values[:, self.top : self.bottom, self.left : self.right]

    def around(self, steps: Tensor) -> Tensor:
        """Return 16 bits ``(c, h, w)`` with ``ground`` around the image."""
        filled = torch.full_like(steps, self.ground)
        filled[:, self.top : self.bottom, self.left : self.right] = self.inside(steps)
        return filled


@checked
@dataclass(frozen=True, eq=False)
class Numbers:
    """One image as its camera has it.

    Parameters
    ----------
    values
        Its numbers ``(c, h, w)``, in single precision.
    kind
        Their original number type: ``"uint8"``, ``"uint16"``, ``"int16"``, or ``"float32"``, also for 32 bits.
    channels
        The names of its channels.
    colours
        Whether its three channels are red, green and blue, of which a grey one can be made.
    frame
        Where the image is, if it is padded: what is around it says nothing about the range of the numbers.
    """

    values: Tensor
    kind: str
    channels: tuple[str, ...] | None = None
    colours: bool = False
    frame: Frame | None = None

    @property
    def inside(self) -> Tensor:
        """The numbers without what is padded around them."""
        return self.values if self.frame is None else self.frame.inside(self.values)


def settled(images: Sequence[Tensor | Numbers], levels: Levels | None = None) -> list[Tensor | Numbers]:
    """Return images whose signed numbers of 16 bits have become counts, or floats where any of them is negative.

    Parameters
    ----------
    images
        All images of a set.
    levels
        The range that is given for them, if any: then they become what it is of.

    Examples
    --------
    >>> import torch
    >>> some = [Numbers(torch.full((1, 2, 2), value), "int16") for value in (7.0, -7.0)]
    >>> [image.kind for image in settled(some[:1])], [image.kind for image in settled(some)]
    (['uint16'], ['float32', 'float32'])
    """
    signed = [image for image in images if isinstance(image, Numbers) and image.kind == SIGNED]
    floats = levels.kind == "float32" if levels else any(bool((image.inside < 0).any()) for image in signed)
    kind = "float32" if floats else "uint16"
    return [
        replace(image, kind=kind) if isinstance(image, Numbers) and image.kind == SIGNED else image for image in images
    ]


def kinds_of(images: Sequence[Tensor | Numbers]) -> set[str]:
    """Return the kinds of numbers that there are among images.

    Examples
    --------
    >>> import torch
    >>> sorted(kinds_of([torch.zeros(1, 2, 2).byte(), Numbers(torch.zeros(1, 2, 2), "float32")]))
    ['float32', 'uint8']
    """
    return {image.kind if isinstance(image, Numbers) else "uint8" for image in images}


def in_steps(
    images: Sequence[Tensor | Numbers],
    paths: Sequence[Path | str],
    *,
    white_level: float | None,
    levels: Levels | None = None,
    percentiles: tuple[float, float] | None = None,
    where: str = "",
) -> tuple[list[Tensor], Levels | None]:
    """Return images of any depth as 16 bits with one range, and that range; if all are bytes, they stay as they are.

    Parameters
    ----------
    images
        Bytes ``(c, h, w)``, or camera counts.
    paths
        What each is called.
    white_level
        The white of images of more than 8 bits, unless a range is given.
    levels
        The range, such as that of the images of a fit.
    percentiles
        Percentages of the pixels below black and below white that define the range.
    where
        Where the images come from.

    Raises
    ------
    ValueError
        When a range is given twice; when channels differ, or their names from those of the levels; when a number
        lies above ``white_level``, or floats are not from 0 to 1 and no range is given.

    Warns
    -----
    UserWarning
        When a channel uses less than a tenth of its range, or ``white_level`` has no effect.

    Examples
    --------
    >>> import torch
    >>> dim = Numbers(torch.tensor([0.0, 1000.0]).reshape(1, 1, 2), "uint16")
    >>> steps, levels = in_steps([dim], ["a.tif"], white_level=4000)
    >>> steps[0].flatten().tolist(), levels.high
    ([0, 16384], (4000.0,))
    """
    check_range(white_level, levels, percentiles)
    images = settled(images, levels)
    deep = [image for image in images if isinstance(image, Numbers)]
    if not deep and levels is None and percentiles is None:
        warn_of_bytes(white_level, where=where)
        return [image for image in images if isinstance(image, Tensor)], None
    several = _several(images, levels)
    numbers = [_as_numbers(image, several=several) for image in images]
    kind, names = _kind(numbers, paths, several=several), _names(numbers)
    channels = {len(image.values): path for image, path in zip(numbers, paths, strict=True)}
    if len(channels) > 1:
        found = ", ".join(f"{count} ({path})" for count, path in sorted(channels.items())[:3])
        raise ValueError(f"Expected images with the same channels; found {found}. Keep one kind of files in a folder.")
    if levels is not None and levels.channels and names and levels.channels != names:
        raise ValueError(
            f"Expected the channels that the levels are of, {', '.join(levels.channels)}; files name them "
            f"{', '.join(names)}. Bring them in that order."
        )
    values = [image.inside for image in numbers]
    if percentiles is not None:
        levels = found_levels(values, percentiles=percentiles, kind=kind, channels=names)
    elif levels is None:
        places = [_place(path, where) for path in paths]
        levels = _of_white(numbers, places, white_level=white_level, kind=kind, names=names)
        if kind == "uint8":
            warn_of_bytes(white_level, where=where)
        if (unused := narrow(values, levels, where=where)) is not None:
            warn(unused)
    return [_steps(image, levels) for image in numbers], levels


def warn_of_bytes(white_level: float | None, *, where: str = "") -> None:
    """Warn if a white is given for images of 8 bits, where it has no effect.

    Examples
    --------
    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn_of_bytes(100, where="plates")
    >>> caught[0].message
    UserWarning('`white_level=100` has no effect on the images of plates, which have 8 bits: their white is 255. Set ...
    """
    if white_level not in (None, 255, STEPS):  # 65535: the former default
        warn(
            f"`white_level={white_level:.10g}` has no effect on the images{where and f' of {where}'}, which have 8 "
            "bits: their white is 255. Set `percentiles=(0.1, 99.9)` if they use little of it."
        )


def in_one_depth(images: Sequence[Tensor | Numbers], levels: Levels) -> list[Numbers]:
    """Return images as numbers that can be compared with given levels.

    Examples
    --------
    >>> import torch
    >>> in_one_depth([torch.full((1, 1, 1), 2).byte()], Levels((0.0,), (65535.0,)))[0].values.item()
    514.0
    """
    images = settled(images, levels)
    several = _several(images, levels)
    return [_as_numbers(image, several=several) for image in images]


def _several(images: Sequence[Tensor | Numbers], levels: Levels | None) -> bool:
    """Return whether bytes, if there are any, become 16 bits."""
    deep = any(isinstance(image, Numbers) and image.kind != "uint8" for image in images)
    return deep or (levels is not None and levels.kind == "uint16")


def _steps(image: Numbers, levels: Levels) -> Tensor:
    steps = levels.steps(image.values[None])[0]
    return steps if image.frame is None else image.frame.around(steps)


def _as_numbers(image: Tensor | Numbers, *, several: bool) -> Numbers:
    """Return bytes as numbers, in 16 bits where others have these."""
    if isinstance(image, Numbers):
        factor = BYTES_TO_STEPS if several and image.kind == "uint8" else 1
        return image if factor == 1 else replace(image, values=image.values * factor, kind="uint16")
    return Numbers(image.float() * (BYTES_TO_STEPS if several else 1), "uint16" if several else "uint8")


def _kind(numbers: Sequence[Numbers], paths: Sequence[Path | str], *, several: bool) -> str:
    kinds = {image.kind: path for image, path in zip(numbers, paths, strict=True)}
    if "float32" in kinds and len(kinds) > 1:
        found = ", ".join(f"{kind} ({path})" for kind, path in sorted(kinds.items()))
        raise ValueError(f"Expected whole numbers or floats in one set of images; found both, {found}. Save all alike.")
    return list(kinds).pop() if len(kinds) == 1 else "uint16" if several else "uint8"


def _names(numbers: Sequence[Numbers]) -> tuple[str, ...] | None:
    """Return the names of the channels where all files that have names agree on them."""
    found = {image.channels for image in numbers if image.channels is not None}
    if len(found) > 1:
        first, second = sorted(found)[:2]
        if set(first) != set(second):
            raise ValueError(
                f"Expected the same channels in every file; files name them {', '.join(first)} and "
                f"{', '.join(second)}. Read those of one kind: from a folder of their own, or with a `table` of them."
            )
        raise ValueError(f"Expected channels in one order; files name them {first} and {second}. Bring them in one.")
    return found.pop() if found else None


def _place(path: Path | str, where: str) -> str:
    """Return an image as a message calls it: with its folder, for two folders may have files of the same names."""
    known = not where or Path(where).name == str(path) or str(path).startswith(where)
    return str(path) if known else f"{path} of {where}"


def _of_white(
    numbers: Sequence[Numbers],
    paths: Sequence[str],
    *,
    white_level: float | None,
    kind: str,
    names: tuple[str, ...] | None,
) -> Levels:
    """Return the range from 0 to white; refuse what lies outside."""
    ends = [(float(image.inside.min()), float(image.inside.max())) for image in numbers]
    high = _white(white_level, kind, brightest=max(most for _, most in ends))
    most_allowed = float(torch.tensor(high, dtype=torch.float32))  # the numbers are in single precision, too
    negative = next(((least, path) for (least, _), path in zip(ends, paths, strict=True) if least < 0), None)
    if negative is not None:
        raise ValueError(
            f"Expected numbers of 0 and more, where `white_level` says what is white; found {negative[0]:g} in "
            f"{negative[1]}. Set `percentiles=(0.1, 99.9)`, or `levels=cf.images.Levels(low, high, 'float32')`."
        )
    for (least, most), path in zip(ends, paths, strict=True):
        if most <= most_allowed:
            continue
        if kind == "float32":
            raise ValueError(
                f"Expected 32-bit values or floats from 0 to {high:.10g}, or to be told what is white; found {least:g} "
                f"to {most:.10g} in {path}. Set `white_level` to the largest value, or `percentiles=(0.1, 99.9)`, or "
                "`levels=cf.images.Levels(low, high, 'float32')`."
            )
        raise ValueError(
            f"Expected 16-bit values from 0 to white_level={high:.10g}; found {least:.0f} to {most:.0f} in {path}. "
            "Set `white_level` to the largest value that your camera gives."
        )
    count = len(numbers[0].values)
    return Levels((0.0,) * count, (float(high),) * count, kind, names)


def _white(white_level: float | None, kind: str, *, brightest: float) -> float:
    """Return what is white in numbers of a kind.

    Raises
    ------
    ValueError
        When it is more than such numbers can be.
    """
    if kind == "uint8":
        return 255
    if kind == "float32":
        # 65535 was the default, also for floats from 0 to 1: older runs have it among their settings.
        if white_level is None or (white_level == STEPS and brightest <= 1):
            return 1
        return white_level
    if white_level is not None and white_level > STEPS:
        raise ValueError(
            f"Expected a white_level of at most {STEPS} for images of 16 bits; found {white_level:.10g}. Leave it out."
        )
    return STEPS if white_level is None else white_level
