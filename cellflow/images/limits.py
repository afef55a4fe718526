"""How much of a picture file is believed: a few kilobytes may claim gigabytes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

MAX_PIXELS = 89_478_485
"""Most pixels of a picture unless more are asked for, a side of 9,459: from here on Pillow warns of a bomb."""
LARGEST = 2**28
"""Most pixels of a picture that is made much smaller as it is read, a side of 16,384: each takes at most 10 bytes."""
AT_ONCE = 2 * MAX_PIXELS
"""Pixels that all threads together decode at a time. Each takes at most 16 bytes meanwhile: 2.9 GB."""


class UnreadableImageError(ValueError):
    """A file with the ending of a picture that does not hold one."""


class PixelBudget:
    """Pixels that may be decoded at a time, by all threads together; one picture alone may have more.

    Parameters
    ----------
    most
        The number of pixels.

    Examples
    --------
    >>> budget = PixelBudget(100)
    >>> with budget.hold(60), budget.hold(40):
    ...     budget.left
    0
    >>> budget.left
    100
    """

    def __init__(self, most: int = AT_ONCE) -> None:
        self.most = self.left = most
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Wait until there are so many, and hold them while a picture is decoded."""
        share = min(pixels, self.most)
        with self._changed:
            self._changed.wait_for(lambda: self.left >= share)
            self.left -= share
        try:
            yield
        finally:
            with self._changed:
                self.left += share
                self._changed.notify_all()
