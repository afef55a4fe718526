"""The numbers of cameras on their way into a set of images: brought to one size, one depth and one range."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from cellflow.images.levels import STEPS, Levels, found_levels, narrow
from cellflow.renamed import warn
from cellflow.signature import checked

BYTES_TO_STEPS = 257
"""White of 16 bits over white of 8."""

LUMA = (19595, 38470, 7471)
"""Shares of red, green and blue in grey, of 65536: ITU-R 601 as Pillow rounds it."""


@checked
@dataclass(frozen=True, eq=False)
class Numbers:
    """One image as its camera has it.

    Parameters
    ----------
    values
        Its numbers ``(c, h, w)``, in single precision.
    kind
        Their original number type: ``"uint8"``, ``"uint16"`` or ``"float32"``.
    channels
        The names of its channels.
    colours
        Whether its three channels are red, green and blue, of which a grey one can be made.
    """

    values: Tensor
    kind: str
    channels: tuple[str, ...] | None = None
    colours: bool = False


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
    white_level: int,
    levels: Levels | None = None,
    percentiles: tuple[float, float] | None = None,
) -> tuple[list[Tensor], Levels | None]:
    """Return images of any depth as 16 bits with one range, and that range; if all are bytes, they stay as they are.

    Parameters
    ----------
    images
        Bytes ``(c, h, w)``, or camera counts.
    paths
        What each is called.
    white_level
        The white of 16-bit images, unless a range is given.
    levels
        The range, such as that of the images of a fit.
    percentiles
        Percentages of the pixels below black and below white that define the range.

    Raises
    ------
    ValueError
        When channels differ, or their names from those of the levels, a number lies above ``white_level``, or floats
        are not from 0 to 1 and no range is given.

    Warns
    -----
    UserWarning
        When a channel uses less than a tenth of its range.

    Examples
    --------
    >>> import torch
    >>> dim = Numbers(torch.tensor([0.0, 1000.0]).reshape(1, 1, 2), "uint16")
    >>> steps, levels = in_steps([dim], ["a.tif"], white_level=4000)
    >>> steps[0].flatten().tolist(), levels.high
    ([0, 16384], (4000.0,))
    """
    if levels is not None and percentiles is not None:
        raise ValueError("Give `levels` or `percentiles`, not both: each says what is black and what is white.")
    deep = [image for image in images if isinstance(image, Numbers)]
    if not deep and levels is None and percentiles is None:
        return [image for image in images if isinstance(image, Tensor)], None
    several = any(image.kind != "uint8" for image in deep) or (levels is not None and levels.kind == "uint16")
    numbers = [_as_numbers(image, several=several) for image in images]
    kind, names = _kind(numbers, several=several), _names(numbers)
    channels = {len(image.values): path for image, path in zip(numbers, paths, strict=True)}
    if len(channels) > 1:
        found = ", ".join(f"{count} ({path})" for count, path in sorted(channels.items())[:3])
        raise ValueError(f"Expected images with the same channels; found {found}. Keep one kind of files in a folder.")
    if levels is not None and levels.channels and names and levels.channels != names:
        raise ValueError(
            f"Expected the channels that the levels are of, {', '.join(levels.channels)}; files name them "
            f"{', '.join(names)}. Bring them in that order."
        )
    values = [image.values for image in numbers]
    if percentiles is not None:
        levels = found_levels(values, percentiles=percentiles, kind=kind, channels=names)
    elif levels is None:
        levels = _of_white(numbers, paths, white_level=white_level, kind=kind, names=names)
        if (unused := narrow(values, levels)) is not None:
            warn(unused)
    return [levels.steps(image[None])[0] for image in values], levels


def _as_numbers(image: Tensor | Numbers, *, several: bool) -> Numbers:
    """Return bytes as numbers, in 16 bits where others have these."""
    if isinstance(image, Numbers):
        factor = BYTES_TO_STEPS if several and image.kind == "uint8" else 1
        return image if factor == 1 else Numbers(image.values * factor, "uint16", image.channels)
    return Numbers(image.float() * (BYTES_TO_STEPS if several else 1), "uint16" if several else "uint8")


def _kind(numbers: Sequence[Numbers], *, several: bool) -> str:
    kinds = {image.kind for image in numbers}
    if "float32" in kinds and len(kinds) > 1:
        raise ValueError("Expected whole numbers or floats in one set of images; found both. Save all in one way.")
    return kinds.pop() if len(kinds) == 1 else "uint16" if several else "uint8"


def _names(numbers: Sequence[Numbers]) -> tuple[str, ...] | None:
    """Return the names of the channels where all files that have names agree on them."""
    found = {image.channels for image in numbers if image.channels is not None}
    if len(found) > 1:
        first, second = sorted(found)[:2]
        raise ValueError(f"Expected channels in one order; files name them {first} and {second}. Bring them in one.")
    return found.pop() if found else None


def _of_white(
    numbers: Sequence[Numbers],
    paths: Sequence[Path | str],
    *,
    white_level: int,
    kind: str,
    names: tuple[str, ...] | None,
) -> Levels:
    """Return the range from 0 to white; refuse what lies outside."""
    floats = 1 if white_level == STEPS else white_level  # 65535 is what is white where nothing is said
    high = {"uint16": white_level, "float32": floats}.get(kind, 255)
    for image, path in zip(numbers, paths, strict=True):
        least, most = float(image.values.min()), float(image.values.max())
        if least < 0:
            raise ValueError(
                f"Expected numbers of 0 and more, where `white_level` says what is white; found {least:g} in {path}. "
                "Set `percentiles=(0.1, 99.9)`, or `levels=cf.images.Levels(low, high, 'float32')`."
            )
        if kind == "float32" and not 0 <= least <= most <= high:
            raise ValueError(
                f"Expected floats from 0 to {high}, or to be told what is white; found {least:g} to {most:g} in {path}."
                " Set `white_level`, or `percentiles=(0.1, 99.9)`, or `levels=cf.images.Levels(low, high, 'float32')`."
            )
        if not 0 <= least <= most <= high:
            raise ValueError(
                f"Expected 16-bit values from 0 to white_level={high}; found {least:.0f} to {most:.0f} in {path}. Set "
                "`white_level` to the largest value that your camera gives."
            )
    count = len(numbers[0].values)
    return Levels((0.0,) * count, (float(high),) * count, kind, names)
