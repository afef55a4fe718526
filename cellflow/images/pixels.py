"""Pixels: every kind of picture becomes bytes of one shape, and bytes become numbers from -1 to 1."""

from dataclasses import dataclass
from numbers import Integral

import torch
import torch.nn.functional as F
from torch import Tensor

from cellflow.images.limits import MAX_PIXELS
from cellflow.shapes import check_dense
from cellflow.signature import checked

CHANNELS = {1: "grey", 3: "RGB"}
_AT_ONCE = 1024  # images converted together, for the sake of memory


@checked
@dataclass(frozen=True)
class Conversion:
    """How a picture of any kind becomes ``(channels, height, width)`` bytes.

    Parameters
    ----------
    size
        Side in pixels, or height and width: the picture is scaled until it covers this (antialiased, bilinear), and
        its centre is cut out. ``None`` leaves it as it is.
    channels
        1 for grey (luma of ITU-R 601), 3 for RGB (grey repeated), ``None`` to keep what is there.
    background
        What shows through transparent pixels: a grey level from 0 to 255.
    white_level
        The value of a 16-bit picture that becomes 255; 0 stays 0, in between is linear. The same for every picture,
        so that brightness can be compared: 4095 for a 12-bit camera.
    max_pixels
        Most pixels that a file may claim to hold: a few kilobytes may unpack to gigabytes.

    Examples
    --------
    >>> import torch
    >>> Conversion(size=8, channels=1)(torch.zeros(2, 3, 20, 30, dtype=torch.uint8)).shape
    torch.Size([2, 1, 8, 8])
    """

    size: int | tuple[int, int] | None = None
    channels: int | None = None
    background: int = 255
    white_level: int = 65535
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        if self.channels is not None and self.channels not in CHANNELS:
            raise ValueError(f"Expected channels=1 for grey, 3 for RGB, or None; found {self.channels}.")
        if not 0 <= self.background <= 255:
            raise ValueError(f"Expected a background from 0 (black) to 255 (white); found {self.background}.")
        if not 1 <= self.white_level <= 65535:
            raise ValueError(f"Expected a white_level from 1 to 65535; found {self.white_level}.")
        if self.max_pixels < 1:
            raise ValueError(f"Expected max_pixels >= 1; found {self.max_pixels}.")
        if self.size is not None and min(self.sides or (0,)) < 1:
            raise ValueError(f"Expected a size of at least one pixel; found {self.size}.")

    @property
    def sides(self) -> tuple[int, int] | None:
        """Height and width asked for."""
        return (int(self.size), int(self.size)) if isinstance(self.size, Integral) else self.size  # type: ignore[return-value]

    def __call__(self, images: Tensor) -> Tensor:
        """Convert bytes ``(n, c, h, w)``: grey, grey with alpha, RGB or RGBA."""
        parts = [self._converted(part) for part in images.split(_AT_ONCE)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @checked
    def bytes_of(self, values: Tensor, *, where: str) -> Tensor:
        """Return 16-bit ``values`` (int32) as bytes.

        Raises
        ------
        ValueError
            When a value lies outside 0 to ``white_level``.
        """
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > self.white_level:
            raise ValueError(
                f"Expected 16-bit values from 0 to white_level={self.white_level}; found {low} to {high} in {where}. "
                "Set `white_level` to the largest value that your camera gives."
            )
        return (values.double() * (255 / self.white_level)).round().to(torch.uint8)

    def _converted(self, images: Tensor) -> Tensor:
        images = _opaque(images, self.background)
        if self.channels is not None:
            images = _grey(images) if self.channels == 1 else images.expand(-1, 3, -1, -1)
        return images.contiguous() if self.sides is None else _fitted(images, *self.sides)


@checked
def scaled(images: Tensor) -> Tensor:
    """Return bytes as float32 from -1 to 1.

    Examples
    --------
    >>> import torch
    >>> scaled(torch.tensor([0, 255], dtype=torch.uint8))
    tensor([-1.,  1.])
    """
    check_dense(images, what="`images`")
    return images.float() / 127.5 - 1


@checked
def to_bytes(images: Tensor) -> Tensor:
    """Return numbers from -1 to 1 as bytes; what lies outside is clipped. The inverse of `scaled`.

    Examples
    --------
    >>> import torch
    >>> to_bytes(torch.tensor([-1.2, -1.0, 0.0, 1.0]))
    tensor([  0,   0, 128, 255], dtype=torch.uint8)
    """
    check_dense(images, what="`images`")
    if not torch.isfinite(images).all():
        raise ValueError("Expected finite pixels; found NaN or infinity. The flow that made these images diverged.")
    return (images * 127.5 + 128).clamp(0, 255).to(torch.uint8)


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
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).to(torch.uint8)[:, None]


def _fitted(images: Tensor, height: int, width: int) -> Tensor:
    """Scale until both sides are covered, and cut out the centre."""
    h, w = images.shape[2:]
    scale = max(height / h, width / w)
    covering = max(height, round(h * scale)), max(width, round(w * scale))
    if covering != (h, w):
        images = F.interpolate(images, size=covering, mode="bilinear", antialias=True)
    top, left = (covering[0] - height) // 2, (covering[1] - width) // 2
    return images[:, :, top : top + height, left : left + width].contiguous()
