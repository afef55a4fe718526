"""Pixels: every kind of picture becomes bytes of one shape, and bytes become numbers from -1 to 1."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from cellflow.errors import unknown
from cellflow.images.levels import STEPS
from cellflow.images.limits import LARGEST, MAX_PIXELS
from cellflow.images.numbers import BYTES_TO_STEPS, LUMA, Frame, Numbers
from cellflow.images.tiff import PAGES
from cellflow.renamed import warn
from cellflow.shapes import check_dense
from cellflow.signature import checked

log = logging.getLogger(__name__)
CHANNELS = {1: "grey", 3: "RGB"}
WHITE = 255
"""What is behind transparent pixels where nothing is said."""
FORMER: Literal["former"] = "former"
Background: TypeAlias = int | Literal["former"] | None
"""A grey level, or what version 0.2.0 had: white around bytes, and black around camera counts."""
FITS = ("crop", "pad", "tiles")
"""Ways to bring a picture of another shape to the size asked for."""
CUT = 0.02
"""Share of an image that may be cropped without a warning: of one with sides that differ by a pixel or two."""
_LEFT = 512  # pixels a side of what is read, so that blocks at the border, which may be smaller, do not matter
_AT_ONCE = 1024  # images converted together, for the sake of memory


@checked
@dataclass(frozen=True)
class Conversion:
    """How a picture of any kind becomes ``(channels, height, width)`` bytes.

    Parameters
    ----------
    size
        Side in pixels, or height and width, to which an image is resized by ``fit``. ``None`` leaves it as it is.
    channels
        1 for grey (luma of ITU-R 601), 3 for RGB (grey repeated), another number for images with as many, ``None`` to
        keep them.
    background
        A grey level from 0 to 255, which shows through transparent pixels and fills the border of padded images. By
        default transparent pixels show white (255), and the border is black (0). ``"former"``, as in runs of version
        0.2.0: the border is white around bytes, and black around camera counts.
    white_level
        The number that is white in images of 16 bits, 32 bits or floats; 0 is black, in between is linear. The same for
        every image, so that brightness is comparable: 4095 for a 12-bit camera. By default 65535, and 1 for floats and
        32 bits. White of images of 8 bits is always 255.
    max_pixels
        Maximum number of pixels that a file may declare: a few kilobytes can unpack to gigabytes. By default, images of
        up to 2^28 pixels, 16,384 x 16,384, are read too if they become at most half as high and wide: one at a time,
        averaged over blocks of pixels while reading.
    fit
        How an image is brought to ``size``. ``"crop"``: scaled to cover it (antialiased, bilinear), and its centre cut
        out. ``"pad"``: scaled to fit inside, and padded with black, or with ``background`` if it is given.
        ``"tiles"``: not scaled but cut into images of that size, which overlap if it does not divide; see
        `cellflow.images.read_images`.
    pages
        How to read planes of a TIFF that are not declared as channels: ``"channels"``, or ``"max"`` for the brightest
        pixels of a stack; ``None`` to refuse them.

    Examples
    --------
    >>> import torch
    >>> Conversion(size=8, channels=1)(torch.zeros(2, 3, 20, 30, dtype=torch.uint8)).shape
    torch.Size([2, 1, 8, 8])
    """

    size: int | tuple[int, int] | None = None
    channels: int | None = None
    background: Background = None
    white_level: float | None = None
    max_pixels: int = MAX_PIXELS
    fit: str = "crop"
    pages: str | None = None

    def __post_init__(self) -> None:
        if self.channels is not None and self.channels < 1:
            raise ValueError(f"Expected channels=1 for grey, 3 for RGB, or another number; found {self.channels}.")
        if self.fit not in FITS:
            raise ValueError(unknown("fit", self.fit, FITS))
        if self.pages is not None and self.pages not in PAGES:
            raise ValueError(unknown("way to read pages", self.pages, PAGES))
        grey = isinstance(self.background, Real) and 0 <= self.background <= 255
        if not (grey or self.background is None or (isinstance(self.background, str) and self.background == FORMER)):
            raise ValueError(f"Expected a background from 0 (black) to 255 (white); found {self.background!r:.60}.")
        if self.white_level is not None and not 0 < self.white_level < math.inf:
            raise ValueError(f"Expected a finite white_level above 0; found {self.white_level}.")
        if self.max_pixels < 1:
            raise ValueError(f"Expected max_pixels >= 1; found {self.max_pixels}.")
        if self.size is not None and min(self.sides or (0,)) < 1:
            raise ValueError(f"Expected a size of at least one pixel; found {self.size}.")
        if self.tiles and self.size is None:
            raise ValueError('`fit="tiles"` cuts images into tiles of a `size`. Set it, as in `size=128`.')

    @property
    def sides(self) -> tuple[int, int] | None:
        """Requested height and width."""
        return (int(self.size), int(self.size)) if isinstance(self.size, Integral) else self.size  # type: ignore[return-value]

    @property
    def tiles(self) -> bool:
        """Whether images are cut into tiles after reading."""
        return self.fit == "tiles"

    def reduction(self, height: int, width: int) -> int:
        """Return by what factor an image is reduced while reading, a power of 2; 0 if it is too large.

        Examples
        --------
        >>> [Conversion(size=size).reduction(14_000, 14_000) for size in (8, 7000, 7001, None)]
        [16, 2, 0, 0]
        >>> Conversion(size=64).reduction(2048, 2048)
        1
        """
        pixels = height * width
        if pixels <= self.max_pixels:
            return 1
        if self.max_pixels != MAX_PIXELS or pixels > LARGEST or self.sides is None or self.tiles:
            return 0
        scales = self.sides[0] / height, self.sides[1] / width
        scale = max(scales) if self.fit == "crop" else min(scales)
        if scale > 0.5:
            return 0
        # What is left is twice as large as `size`, for the sake of sharpness, unless that would be the whole image.
        most = int(min(max(0.5 / scale, 2), min(height, width) / _LEFT))
        return 2 ** (most.bit_length() - 1) if most > 1 else 0

    def cut_away(self, height: int, width: int) -> float:
        """Return the share of an image of a given height and width that is cropped.

        Examples
        --------
        >>> round(Conversion(size=8).cut_away(20, 40), 3)
        0.5
        """
        if self.sides is None or self.fit != "crop":
            return 0.0
        scale = max(self.sides[0] / height, self.sides[1] / width)
        return 1 - self.sides[0] * self.sides[1] / (scale**2 * height * width)

    def warn_of_cuts(self, sizes: Sequence[tuple[int, int]], *, where: str = "") -> None:
        """Warn if images of some heights and widths, which come from ``where``, lose more than 2 %."""
        shares = [self.cut_away(*size) for size in sizes]
        cropped = sum(share > CUT for share in shares)
        if cropped:
            warn(
                f"Cropped {cropped} of {len(sizes)} images{where and f' of {where}'} whose shape differs from "
                f"size={self.size}: up to "
                f'{100 * max(shares):.0f} % of an image is lost. Set fit="pad" to keep all of each, or fit="tiles" '
                "to cut them into several."
            )

    def tell_of_scale(self, sizes: Sequence[tuple[int, int]], *, where: str = "") -> None:
        """Log from what heights and widths images of ``where`` are scaled: a model knows cells in that size alone."""
        found = sorted(set(sizes))
        if self.sides is None or self.tiles or found in ([], [self.sides]):
            return
        several = f" and other sizes, such as {found[-1][0]} x {found[-1][1]}," if len(found) > 1 else ""
        log.info("%s: scaled from %d x %d%s to %d x %d pixels", where or "images", *found[0], several, *self.sides)

    def __call__(self, images: Tensor) -> Tensor:
        """Convert bytes ``(n, c, h, w)``: grey, grey with alpha, RGB or RGBA."""
        parts = [self._converted(part) for part in images.split(_AT_ONCE)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @checked
    def of_camera(self, image: Numbers) -> Numbers:
        """Return camera counts at the requested size and with the requested channels.

        Raises
        ------
        ValueError
            When it has other channels.
        """
        values, found, names = image.values, len(image.values), image.channels
        if self.channels == 3 and found == 1:
            values = values.expand(3, -1, -1)
        elif self.channels == 1 and image.colours:
            grey = torch.tensordot(torch.tensor(LUMA) / 65536, values, dims=1)
            # A rounding error above white would be refused.
            values, names = grey.clamp(values.amin(dim=0), values.amax(dim=0))[None], None
        elif self.channels not in (None, found):
            raise ValueError(
                f"Expected images with {_counted(self.channels)}; found {found}, which are not colours. Give images "
                "that have them, or write the channels that you want to separate files."
            )
        frame = self._frame(values.shape[1], values.shape[2])
        return Numbers(
            self._fitted(values[None], 0.0)[0], image.kind, names, self.channels is None and image.colours, frame
        )

    def _converted(self, images: Tensor) -> Tensor:
        transparent = images.shape[1] in (2, 4)
        ground = WHITE if self.background == FORMER else self.background
        images = _opaque(images, WHITE if ground is None else ground)
        if self.channels in (1, 3):
            images = _grey(images) if self.channels == 1 else images.expand(-1, 3, -1, -1)
        elif self.channels not in (None, images.shape[1]):
            apart = " beside transparency" if transparent else ""
            raise ValueError(
                f"Expected images with {_counted(self.channels)}; found {images.shape[1]}{apart}. Give images that "
                "have them."
            )
        return self._fitted(images, ground or 0)

    def _frame(self, height: int, width: int) -> Frame | None:
        """Return where an image of such sides is within its padded one; ``None`` where nothing is padded."""
        if self.sides is None or self.fit != "pad":
            return None
        top, left, h, w = _within(height, width, *self.sides)
        ground = 0 if self.background in (None, FORMER) else int(self.background)
        return Frame(top, top + h, left, left + w, ground * BYTES_TO_STEPS)

    def _fitted(self, images: Tensor, ground: float) -> Tensor:
        """Bring images ``(n, c, h, w)`` to the size asked for."""
        if self.sides is None or self.tiles:
            return images.contiguous()
        return _cropped(images, *self.sides) if self.fit == "crop" else _padded(images, *self.sides, ground=ground)


@checked
def scaled(images: Tensor) -> Tensor:
    """Return bytes, or 16 bits, as float32 from -1 to 1.

    Examples
    --------
    >>> import torch
    >>> scaled(torch.tensor([0, 255], dtype=torch.uint8)), scaled(torch.tensor([0, 65535]).to(torch.uint16))
    (tensor([-1.,  1.]), tensor([-1.,  1.]))
    """
    check_dense(images, what="`images`")
    return images.float() / (127.5 if images.dtype == torch.uint8 else STEPS / 2) - 1


@checked
def to_bytes(images: Tensor) -> Tensor:
    """Return numbers from -1 to 1 as bytes; values outside are clipped. The inverse of `scaled`.

    Examples
    --------
    >>> import torch
    >>> to_bytes(torch.tensor([-1.2, -1.0, 0.0, 1.0]))
    tensor([  0,   0, 128, 255], dtype=torch.uint8)
    """
    return (_finite(images) * 127.5 + 128).clamp(0, 255).to(torch.uint8)


@checked
def to_steps(images: Tensor) -> Tensor:
    """Return numbers from -1 to 1 as 16 bits, of type ``uint16``; values outside are clipped.

    Examples
    --------
    >>> import torch
    >>> to_steps(torch.tensor([-1.2, -1.0, 0.0, 1.0]))
    tensor([    0,     0, 32768, 65535], dtype=torch.uint16)
    """
    return ((_finite(images) + 1) * (STEPS / 2)).round().clamp(0, STEPS).to(torch.uint16)


def _finite(images: Tensor) -> Tensor:
    check_dense(images, what="`images`")
    if not torch.isfinite(images).all():
        raise ValueError("Expected finite pixels; found NaN or infinity. The flow that made these images diverged.")
    return images


def _opaque(images: Tensor, background: int) -> Tensor:
    """Lay pictures with alpha, the last of 2 or 4 channels, on a background."""
    if images.shape[1] not in (2, 4):
        return images
    colour, alpha = images[:, :-1].float(), images[:, -1:].float() / 255
    return (colour * alpha + background * (1 - alpha)).round().to(torch.uint8)


def _grey(images: Tensor) -> Tensor:
    """Return the luma of ITU-R 601, in the fixed-point form in which Pillow computes it."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.int().unbind(1)
    shares = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    return ((shares + 32768) >> 16).to(torch.uint8)[:, None]


def _cropped(images: Tensor, height: int, width: int) -> Tensor:
    """Scale until both sides are covered, and cut out the centre."""
    h, w = images.shape[2:]
    scale = max(height / h, width / w)
    images = _resized(images, max(height, round(h * scale)), max(width, round(w * scale)))
    top, left = (images.shape[2] - height) // 2, (images.shape[3] - width) // 2
    return images[:, :, top : top + height, left : left + width].contiguous()


def _padded(images: Tensor, height: int, width: int, *, ground: float) -> Tensor:
    """Scale until both sides are inside, and fill what is left around."""
    top, left, h, w = _within(images.shape[2], images.shape[3], height, width)
    images = _resized(images, h, w)
    around = left, width - images.shape[3] - left, top, height - images.shape[2] - top
    return F.pad(images, around, value=ground).contiguous()


def _within(h: int, w: int, height: int, width: int) -> tuple[int, int, int, int]:
    """Return where an image of sides ``h`` and ``w`` is in a larger one: first row, first column, height, width."""
    scale = min(height / h, width / w)
    h, w = max(1, min(height, round(h * scale))), max(1, min(width, round(w * scale)))
    return (height - h) // 2, (width - w) // 2, h, w


def _resized(images: Tensor, height: int, width: int) -> Tensor:
    if tuple(images.shape[2:]) == (height, width):
        return images
    small = F.interpolate(images, size=(height, width), mode="bilinear", antialias=True)
    if not images.is_floating_point():
        return small
    # A rounding error takes saturated pixels above white, where they would be refused.
    return small.clamp(images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True))


def _counted(channels: int | None) -> str:
    return f"{channels} channel{'s' * (channels != 1)}"
