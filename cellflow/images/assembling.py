"""From decoded images to a set: tiles, one depth, one range, one stack."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd
from torch import Tensor

from cellflow.images.files import stack
from cellflow.images.levels import Levels, check_kind, check_range
from cellflow.images.numbers import Numbers, in_steps, kinds_of, settled
from cellflow.images.outside import warn_of_outside
from cellflow.images.pixels import Conversion
from cellflow.images.sets import ImageSet
from cellflow.images.tiles import SmallFieldError, cut, tile_name
from cellflow.signature import checked


@checked
@dataclass(frozen=True)
class Range:
    """What is said of the range of a camera's numbers, see `cellflow.images.read_images`.

    Raises
    ------
    ValueError
        When it is said twice, or percentiles are no percentages.
    """

    white_level: float | None
    levels: Levels | None = None
    percentiles: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        check_range(self.white_level, self.levels, self.percentiles)


def assembled(
    images: Sequence[Tensor | Numbers],
    names: Sequence[str],
    conversion: Conversion,
    given: Range,
    *,
    where: str,
    obs: pd.DataFrame | None = None,
) -> ImageSet:
    """Return decoded images, all of one kind, as a set.

    Parameters
    ----------
    images, names
        The images ``(c, h, w)``, and their names.
    conversion
        Whether they are cut into tiles.
    given
        The settings of their range.
    where
        Where they come from.
    obs
        A table whose index has the names.

    Warns
    -----
    UserWarning
        As for `cellflow.images.numbers.in_steps`, and when images are outside the given levels.
    """
    images = whole = settled(images, given.levels)
    known = names
    if given.levels is not None:
        check_kind(given.levels, kinds_of(images), where=where)
    if conversion.tiles and conversion.sides is not None:
        images, names, obs = _tiled(images, names, conversion.sides, obs)
    elif obs is not None:
        obs = obs.loc[[*names]]
    steps, levels = in_steps(
        images, names, white_level=given.white_level, levels=given.levels, percentiles=given.percentiles, where=where
    )
    if given.levels is not None:  # of whole images: many a tile is dark
        warn_of_outside(whole, known, given.levels, where=where)
    return ImageSet(stack(steps, names), names=tuple(names), source=where, obs=obs, levels=levels)


def _tiled(
    images: Sequence[Tensor | Numbers], names: Sequence[str], size: tuple[int, int], obs: pd.DataFrame | None
) -> tuple[list[Tensor | Numbers], list[str], pd.DataFrame | None]:
    """Return all tiles, their names, and for each the row of its image."""
    tiles: list[Tensor | Numbers] = []
    called, origin = [], []
    for image, name in zip(images, names, strict=True):
        values = image.values if isinstance(image, Numbers) else image
        try:
            parts, places = cut(values, size)
        except SmallFieldError as error:
            raise SmallFieldError(f"{name}: {error.found}") from None
        tiles += parts if isinstance(image, Tensor) else [replace(image, values=part) for part in parts]
        called += [tile_name(name, place) for place in places]
        origin += [name] * len(places)
    return tiles, called, None if obs is None else obs.loc[origin].set_axis(called, axis=0)
