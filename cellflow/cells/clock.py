"""Experimental time in the user's units, and model time in [0, 1]."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

TIMEDELTA_UNIT = pd.Timedelta(days=1)
"""Timedelta columns are counted in days."""


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

    def model_times(self, time: Any, *, extrapolate: bool = False) -> float | Tensor:
        """Return the model times of one time, or of one for each state ``(n,)``, in any form that users write them.

        Raises
        ------
        ValueError
            When a time is not a number, or outside the snapshots and not to be extrapolated to.
        """
        given = np.asarray(time.detach().cpu() if isinstance(time, Tensor) else time)
        times = to_numbers(list(np.atleast_1d(given)), what="the time")
        for extreme in {times.min(), times.max()} if times.size else ():
            self.check(float(extreme), extrapolate=extrapolate)
        model = (times - self.times[0]) * self.per_time
        return float(model[0]) if given.ndim == 0 else torch.from_numpy(model)

    def user_times(self, t: Tensor) -> Tensor:
        """Return the experimental times of model times, in double precision."""
        return self.times[0] + t.double() / self.per_time

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


def to_numbers(values: Any, *, what: str) -> np.ndarray:
    """Return times as float64: numbers, categories that are numbers, strings that are numbers, or Timedelta.

    Raises
    ------
    ValueError
        When a value is no number; the message shows which.
    """
    column = pd.Series(values)
    if isinstance(column.dtype, pd.CategoricalDtype):
        kind = column.cat.categories.dtype
        column = column.astype(np.float64 if pd.api.types.is_integer_dtype(kind) else kind)
    if column.dtype in (np.float32, np.float16):
        # 1.1 in single precision is not 1.1: through its shortest decimal it is again what the user wrote.
        column = column.astype(str)
    if pd.api.types.is_timedelta64_dtype(column.dtype):
        return column.to_numpy(dtype="timedelta64[ns]") / TIMEDELTA_UNIT.to_timedelta64()
    if pd.api.types.is_bool_dtype(column.dtype) or pd.api.types.is_datetime64_any_dtype(column.dtype):
        raise ValueError(f"{what} holds {column.dtype}, which is no length of time. Use numbers or Timedelta.")
    numbers = pd.to_numeric(column, errors="coerce")
    failed = column[numbers.isna() & column.notna()].unique()
    if len(failed):
        raise ValueError(
            f"{what} holds {', '.join(map(repr, failed[:5]))}: not numbers. Make a numeric column first, for "
            "example with `adata.obs['day'] = adata.obs['stage'].str.extract(r'([0-9.]+)')[0].astype(float)`."
        )
    return numbers.to_numpy(dtype=np.float64, na_value=np.nan)
