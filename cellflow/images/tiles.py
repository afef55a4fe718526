"""Large fields as overlapping tiles: cut for a flow that knows small images, and blended again without seams."""

import math
import re
from collections.abc import Sequence
from itertools import product
from pathlib import PurePosixPath

import torch
from torch import Tensor

from cellflow.signature import checked

Place = tuple[int, int]
"""The first row and the first column of a tile."""


class SmallFieldError(ValueError):
    """A field that is smaller than a tile; ``found`` says so without the cure, which a fitted model has another of."""

    def __init__(self, found: str) -> None:
        super().__init__(f'{found} Take smaller tiles, or `fit="pad"`.')
        self.found = found


def tile_name(name: str, place: Place) -> str:
    """Return the name of the tile of a field.

    Examples
    --------
    >>> tile_name("A/1.tif", (0, 128))
    'A/1@0,128.tif'
    """
    path = PurePosixPath(name)
    return str(path.with_name(f"{path.stem}@{place[0]},{place[1]}{path.suffix}"))


def field_of(name: str) -> str:
    """Return the name of the field to which a tile belongs.

    Examples
    --------
    >>> field_of(tile_name("A/1.tif", (0, 128))), field_of("A/1.tif")
    ('A/1.tif', 'A/1.tif')
    """
    return re.sub(r"@\d+,\d+(?=(\.[^./]*)?$)", "", name)


def images_of(names: Sequence[str]) -> tuple[list[str], list[int]]:
    """Return the names of the images that were cut into tiles, in their order, and for each tile which one it is of.

    Examples
    --------
    >>> images_of(["a@0,0.tif", "a@0,8.tif", "b@0,0.tif"])
    (['a.tif', 'b.tif'], [0, 0, 1])
    """
    fields = [field_of(name) for name in names]
    number = {name: k for k, name in enumerate(dict.fromkeys(fields))}
    return list(number), [number[name] for name in fields]


@checked
def cut(image: Tensor, size: tuple[int, int], *, overlap: int = 0) -> tuple[Tensor, list[Place]]:
    """Return a field ``(c, h, w)`` as tiles ``(k, c, *size)`` that cover it, and where each is, row by row.

    Tiles are evenly spaced; if they do not divide the field they overlap by more than requested.

    Parameters
    ----------
    image
        The field.
    size
        Height and width of a tile.
    overlap
        Minimum overlap of neighbouring tiles, in pixels.

    Raises
    ------
    SmallFieldError
        When the field is smaller than a tile.
    ValueError
        When the overlap is no smaller than a tile.

    Examples
    --------
    >>> tiles, places = cut(torch.zeros(1, 10, 8), (4, 8))
    >>> tiles.shape, places
    (torch.Size([3, 1, 4, 8]), [(0, 0), (3, 0), (6, 0)])
    """
    height, width = image.shape[-2:]
    if height < size[0] or width < size[1]:
        raise SmallFieldError(
            f"Expected fields no smaller than a tile, {size[0]} x {size[1]}; found {height} x {width}."
        )
    if not 0 <= overlap < min(size):
        raise ValueError(f"Expected an overlap from 0 to below the side of a tile, {min(size)}; found {overlap}.")
    places = [*product(_starts(height, size[0], overlap), _starts(width, size[1], overlap))]
    return torch.stack([image[:, top : top + size[0], left : left + size[1]] for top, left in places]), places


@checked
def continued(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a field ``(c, h, w)`` padded to at least the size of a tile: its last row and column are repeated.

    Examples
    --------
    >>> continued(torch.tensor([[[1, 2]]]), (2, 3)).tolist()
    [[[1, 2, 2], [1, 2, 2]]]
    """
    height, width = image.shape[-2:]
    if height >= size[0] and width >= size[1]:
        return image
    rows, columns = (torch.arange(max(n, side)).clamp(max=n - 1) for n, side in zip((height, width), size, strict=True))
    return image[:, rows][:, :, columns]


@checked
def blended(tiles: Tensor, places: Sequence[Place], size: tuple[int, int]) -> Tensor:
    """Return the field ``(c, *size)`` blended from tiles ``(k, c, h, w)``, each with less weight towards its border.

    Weights fall linearly from the middle of a tile to zero at its border.

    Parameters
    ----------
    tiles, places
        As `cut` returns them.
    size
        Height and width of the field.

    Examples
    --------
    >>> field = torch.arange(30.0).reshape(1, 5, 6)
    >>> bool(torch.allclose(blended(*cut(field, (3, 4), overlap=1), (5, 6)), field))
    True
    """
    height, width = tiles.shape[-2:]
    weights = _tent(height)[:, None] * _tent(width)
    total = torch.zeros(tiles.shape[1], *size, dtype=torch.float64)
    counted = torch.zeros(size, dtype=torch.float64)
    for tile, (top, left) in zip(tiles, places, strict=True):
        there = slice(top, top + height), slice(left, left + width)
        total[:, *there] += tile.double() * weights
        counted[there] += weights
    return (total / counted).to(tiles.dtype)


def _starts(length: int, side: int, overlap: int) -> list[int]:
    """Return where tiles of a side begin, so that they cover a length."""
    count = 1 + math.ceil((length - side) / (side - overlap))
    return [round(k * (length - side) / max(count - 1, 1)) for k in range(count)]


def _tent(n: int) -> Tensor:
    """Return weights ``(n,)`` that are largest in the middle and above 0 at the ends."""
    return torch.minimum(torch.arange(1, n + 1), torch.arange(n, 0, -1)).double()
