"""Which U-Net suits images of a size: how many levels, how wide the first one is, and where attention is affordable."""

from functools import partial

from cellflow.networks.unet import UNet

COARSEST = 16
"""Longest side, in pixels, with attention, and of the coarsest level."""
LARGE = 128
"""Longest side, in pixels, of images whose first level has all of the width."""
MOST = 1024
"""Longest side, in pixels, for which there is a default: a step of larger images takes tens of gigabytes."""
WIDTH = 32
_FEWEST = 4  # levels of images that can be halved so often


def unet_for(shape: tuple[int, ...], *, width: int = WIDTH) -> "partial[UNet]":
    """Return a `UNet` for images ``(channels, height, width)``, deeper the larger they are; it takes the channels.

    Three halvings while both sides are even and more than four pixels long; then as many as it takes until no side is
    longer than 16 pixels, odd ones upwards. Attention is where no side is longer than that.

    =========  ======  =================================
    longest    levels  channels, in units of ``width``
    =========  ======  =================================
    up to 8    2       1, 2
    16         3       1, 2, 2
    32 to 128  4       1, 2, 2, 2
    256        5       1/2, 1, 2, 2, 2
    512        6       1/2, 1, 2, 2, 2, 2
    =========  ======  =================================

    Use it for a wider or narrower network than the default: ``network=unet_for((3, 64, 64), width=64)``. Above
    128 pixels the first level has half of the channels, so that it costs little more than the second.

    Parameters
    ----------
    shape
        Channels, height and width of the images, each side up to 1024 pixels.
    width
        Channels of the first level for images of up to 128 pixels: 32 by default in estimators, 16 for the command line
        on a CPU.

    Raises
    ------
    ValueError
        For images that are larger.

    Examples
    --------
    >>> unet_for((3, 32, 32)).keywords
    {'width': 32, 'multipliers': (1, 2, 2, 2), 'attention': (1, 2, 3)}
    >>> unet_for((3, 504, 504)).keywords
    {'width': 16, 'multipliers': (1, 2, 4, 4, 4, 4), 'attention': (5,)}
    """
    height, across = shape[1:]
    if max(height, across) > MOST:
        raise ValueError(
            f"No default network for images of {height} x {across}: they are larger than {MOST} pixels a side. Cut "
            'them into tiles (`fit="tiles", size=128`), resize them when reading, or give a `network`.'
        )
    sides = [(height, across)]
    while all(side % 2 == 0 and side > 4 for side in sides[-1]) and len(sides) < _FEWEST:
        sides.append((sides[-1][0] // 2, sides[-1][1] // 2))
    while max(sides[-1]) > COARSEST:
        sides.append((-(-sides[-1][0] // 2), -(-sides[-1][1] // 2)))
    attention = tuple(level for level, two in enumerate(sides) if level and max(two) <= COARSEST)
    if max(height, across) <= LARGE:
        return partial(UNet, width=width, multipliers=(1,) + (2,) * (len(sides) - 1), attention=attention)
    half = max(width // 2, 1)
    return partial(UNet, width=half, multipliers=(1, 2) + (4,) * (len(sides) - 2), attention=attention)
