"""Pictures that are far larger than what is made of them, averaged over blocks as they are read."""

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_STRIP = 2**22  # pixels that are averaged at a time, for the sake of memory
_STEP = 16  # of larger blocks Pillow's means are off by some per cent
_BY_PILLOW = frozenset({"L", "LA", "RGB", "RGBA"})


def block_means(values: np.ndarray, factor: int) -> Tensor:
    """Return planes ``(c, h, w)`` as means over blocks of ``factor`` x ``factor`` pixels, in single precision.

    The remainder at the right and lower border is averaged over the available pixels.

    Examples
    --------
    >>> block_means(np.arange(6.0).reshape(1, 2, 3), 2)
    tensor([[[2.0000, 3.5000]]])
    """
    if factor == 1:
        return torch.from_numpy(_own(values))
    rows = max(1, _STRIP // (values.shape[2] * factor)) * factor
    parts = []
    for start in range(0, values.shape[1], rows):
        strip = _own(values[:, start : start + rows])
        pooled = F.avg_pool2d(torch.from_numpy(strip)[None], factor, ceil_mode=True, count_include_pad=False)
        # Rounding errors stay inside the range of what is averaged: nothing becomes brighter than white.
        ends = torch.from_numpy(strip).flatten(1).aminmax(dim=1)
        parts.append(pooled[0].clamp(ends.min[:, None, None], ends.max[:, None, None]))
    return torch.cat(parts, dim=1)


def reduced(picture: "Picture", factor: int, mode: str) -> "Picture":
    """Return an image of bytes as means over blocks; ``factor`` is a power of 2.

    An image with a palette, or in another mode, is first converted to a mode of bytes.

    Examples
    --------
    >>> from PIL import Image
    >>> reduced(Image.new("1", (10, 8)), 4, "L").size
    (3, 2)
    """
    picture = picture if picture.mode in _BY_PILLOW else picture.convert(mode)
    while factor > 1:
        step = min(factor, _STEP)
        picture, factor = picture.reduce(step), factor // step
    return picture


def _own(values: np.ndarray) -> np.ndarray:
    """Return numbers in single precision that may be written to: Pillow's may not, and torch warns of these."""
    return np.require(values, np.float32, ["C_CONTIGUOUS", "WRITEABLE"])
