"""Experimental time in the user's units, and model time in [0, 1]."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class Clock:
    """Converts experimental time to model time and back; the spacing of the snapshots is kept.

    Parameters
    ----------
    times
        Times of the snapshots in the user's units, increasing.

    Raises
    ------
    ValueError
        When there are fewer than two times, or they do not increase.

    Examples
    --------
    >>> clock = Clock((2.0, 3.0, 4.0, 7.0))
    >>> clock.model(4.0), clock.time(0.4), clock.per_time
    (0.4, 4.0, 0.2)
    """

    times: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.times) < 2:
            raise ValueError(f"Expected at least two time points; found {list(self.times)}.")
        if not all(before < after for before, after in pairwise(self.times)):
            raise ValueError(f"Expected times that increase; found {list(self.times)}.")

    @property
    def per_time(self) -> float:
        """Model time per unit of the user's time: the factor from a model velocity to one per user's unit."""
        return 1 / (self.times[-1] - self.times[0])

    def model(self, time: float) -> float:
        """Return the model time of an experimental time."""
        return (time - self.times[0]) * self.per_time

    def time(self, model: float) -> float:
        """Return the experimental time of a model time."""
        return self.times[0] + model / self.per_time

    def check(self, time: float, *, extrapolate: bool) -> None:
        """Refuse a time that is not finite or, unless asked to extrapolate, outside the snapshots.

        Raises
        ------
        ValueError
            Naming the fitted range.
        """
        first, last = self.times[0], self.times[-1]
        if not np.isfinite(time):
            raise ValueError(f"Expected a finite time; found {time}.")
        if not extrapolate and not first <= time <= last:
            raise ValueError(
                f"Time {time:g} is outside the fitted range {first:g} to {last:g}. Nothing was learned there; "
                "pass `extrapolate=True` to predict there nevertheless."
            )

    def around(self, time: float) -> tuple[int, int]:
        """Return the positions of the snapshots before and after a time (twice the same at a snapshot)."""
        if time in self.times:
            return self.times.index(time), self.times.index(time)
        after = int(np.clip(np.searchsorted(self.times, time), 1, len(self.times) - 1))
        return after - 1, after
