"""Experimental time in the user's units, and model time in [0, 1]."""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cellflow.cells.time_labels import read_alike, read_time_labels
from cellflow.signature import checked

TimeLike: TypeAlias = float | str | np.ndarray | Tensor | pd.Timedelta | Any
"""A time in any form: a number, a numeric string, a Timedelta; or a label such as "day 1" if its column has any."""
TIMEDELTA_UNIT = pd.Timedelta(days=1)
"""Timedelta columns are counted in days."""


@checked
@dataclass(frozen=True)
class Clock:
    """Converts experimental time to model time and back; the spacing of the snapshots is kept.

    Parameters
    ----------
    times
        Times of the snapshots in the user's units, increasing.
    labels
        If the time column holds labels such as "day 2", the number of each: other times may be written likewise.

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
    labels: Mapping[str, float] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.times) < 2:
            raise ValueError(f"Expected at least two time points; found {list(self.times)}.")
        if not all(before < after for before, after in pairwise(self.times)):
            raise ValueError(f"Expected times that increase; found {list(self.times)}.")

    @property
    def per_time(self) -> float:
        """Model time per unit of the user's time: the factor from a model velocity to one per user's unit."""
        return 1 / (self.times[-1] - self.times[0])

    @checked
    def model(self, time: float) -> float:
        """Return the model time of an experimental time."""
        if math.isnan(time):
            raise ValueError("Expected a time; found NaN.")
        return (time - self.times[0]) * self.per_time

    @checked
    def time(self, model: float) -> float:
        """Return the experimental time of a model time."""
        return self.times[0] + model / self.per_time

    @checked
    def model_times(self, time: TimeLike, *, extrapolate: bool = False) -> float | Tensor:
        """Return the model times of one time, or of one for each state ``(n,)``, in any form.

        Raises
        ------
        ValueError
            When a time is not a number, or is outside the snapshots without extrapolation.
        """
        times = as_times(time, what="the time", like=self.labels)
        for extreme in {times.min(), times.max()} if times.size else ():
            self.check(float(extreme), extrapolate=extrapolate)
        model = (times - self.times[0]) * self.per_time
        return float(model) if times.ndim == 0 else torch.from_numpy(model)

    @checked
    def check(self, time: float, *, extrapolate: bool) -> None:
        """Refuse a time that is not finite or, unless asked to extrapolate, outside the snapshots.

        Raises
        ------
        ValueError
            With the fitted range.
        """
        first, last = self.times[0], self.times[-1]
        if not np.isfinite(time):
            raise ValueError(f"Expected a finite time; found {time}.")
        if not extrapolate and not first <= time <= last:
            raise ValueError(
                f"Time {time:g} is outside the fitted range {first:g} to {last:g}. Nothing was learned there; pass "
                "`extrapolate=True` to predict there anyway."
            )

    @checked
    def around(self, time: float) -> tuple[int, int]:
        """Return the positions of the snapshots before and after a time (twice the same at a snapshot)."""
        if time in self.times:
            return self.times.index(time), self.times.index(time)
        after = int(np.clip(np.searchsorted(self.times, time), 1, len(self.times) - 1))
        return after - 1, after


def as_times(
    given: TimeLike | Iterable[TimeLike], *, what: str, like: Mapping[str, float] = MappingProxyType({})
) -> np.ndarray:
    """Return one time ``()``, or several ``(n,)``, given in any form, as float64.

    Every public function and command that takes times reads them here, or by `one_time` and `distinct_times`.

    Parameters
    ----------
    given
        One time: a number, a numeric string, a Timedelta (counted in days), an array or tensor without axes. Several: a
        list, an array, a tensor, a column.
    what
        What a message calls the caller's argument, such as ``"`at`"``.
    like
        Labels of the time column, see `time_labels`: text may have the same form. Empty if there are none.

    Raises
    ------
    ValueError
        When a value is not a finite number, or there is more than one axis.

    Examples
    --------
    >>> as_times("12", what="`at`"), as_times(["12", np.float32(1.1)], what="`at`")
    (array(12.), array([12. ,  1.1]))
    >>> as_times(["day 1", 5], what="`at`", like={"day 0": 0.0, "day 2": 2.0})
    array([1., 5.])
    """
    values = _untensored(given)
    if getattr(values, "ndim", 0) > 1:
        raise ValueError(f"Expected one time or a list of times in {what}; found {type(given).__name__} of two axes.")
    single = getattr(values, "ndim", None) == 0 or isinstance(values, str) or not isinstance(values, Iterable)
    if single or not hasattr(values, "dtype"):  # columns and arrays have one type, and are read as they are
        values = [_scalar(value, what) for value in ([values] if single else values)]
    times = to_numbers(values, what=what, like=like)
    if not np.isfinite(times).all():
        raise ValueError(f"Expected a finite time in {what}; found {times[~np.isfinite(times)][0]}.")
    return times.reshape(()) if single else times


def one_time(given: TimeLike, *, what: str, like: Mapping[str, float] = MappingProxyType({})) -> float:
    """Return one time as a number.

    Parameters
    ----------
    given, what, like
        As for `as_times`.

    Raises
    ------
    ValueError
        When there is not exactly one, or it is not a finite number.

    Examples
    --------
    >>> one_time(pd.Timedelta(hours=36), what="`at`")
    1.5
    """
    times = as_times(given, what=what, like=like)
    if times.size != 1:
        raise ValueError(f"Expected one time in {what}; found {times.size}.")
    return float(times.reshape(()))


def distinct_times(
    given: TimeLike | Iterable[TimeLike],
    *,
    what: str,
    none: bool = False,
    like: Mapping[str, float] = MappingProxyType({}),
) -> np.ndarray:
    """Return one time or several as numbers ``(n,)``, in the given order.

    Parameters
    ----------
    given, what, like
        As for `as_times`.
    none
        Whether the list may be empty.

    Raises
    ------
    ValueError
        When a time is not a finite number, or occurs twice; when there is none, unless allowed.

    Examples
    --------
    >>> distinct_times("12", what="`at`"), distinct_times([24, 12], what="`at`")
    (array([12.]), array([24., 12.]))
    """
    times = np.atleast_1d(as_times(given, what=what, like=like))
    if not (len(times) or none):
        raise ValueError(f"Expected at least one time in {what}; found none.")
    twice = [time for time, n in Counter(times.tolist()).items() if n > 1]
    if twice:
        raise ValueError(f"Expected each time once in {what}; {', '.join(f'{t:.12g}' for t in twice)} occurs twice.")
    return times


def _untensored(value: Any) -> Any:
    """Return a tensor as an array."""
    if not isinstance(value, Tensor):
        return value
    return (value.detach().float() if value.dtype == torch.bfloat16 else value.detach()).cpu().numpy()


def _scalar(value: Any, what: str) -> Any:
    """Return one time of a list without its array or tensor; float32 as the decimal that it stands for."""
    value = _untensored(value)
    if isinstance(value, np.ndarray) and not value.ndim:
        value = value[()]
    if isinstance(value, bool | np.bool_ | complex) or (isinstance(value, Iterable) and not isinstance(value, str)):
        raise ValueError(f"Expected one time or a list of times in {what}; found {value!r} for one.")
    return float(str(value)) if isinstance(value, np.float32 | np.float16) else value


def to_numbers(
    values: Any, *, what: str, labels: bool = False, like: Mapping[str, float] = MappingProxyType({})
) -> np.ndarray:
    """Return times as float64: numbers, categories that are numbers, strings that are numbers, or Timedelta.

    Parameters
    ----------
    values
        The times.
    what
        What a message calls them.
    labels
        Whether numbers with one word before or after them are read too, see `read_time_labels`.
    like
        Labels whose form times may have, see `as_times`.

    Raises
    ------
    ValueError
        When a value is not a number; the message shows which.
    """
    column = pd.Series(values)
    if isinstance(column.dtype, pd.CategoricalDtype):
        of_categories = column.cat.categories.dtype
        column = column.astype(np.float64 if pd.api.types.is_integer_dtype(of_categories) else of_categories)
    if column.dtype in (np.float32, np.float16):
        # 1.1 in single precision is not 1.1: through its shortest decimal it is again what the user wrote.
        column = column.astype(str)
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind in ("timedelta", "timedelta64"):
        return pd.to_timedelta(column).to_numpy(dtype="timedelta64[ns]") / TIMEDELTA_UNIT.to_timedelta64()
    if kind in _NO_LENGTHS:
        shown = column.dtype if column.dtype != object else f"{kind}s"
        raise ValueError(f"{what} holds {shown}, which is not a length of time. {_cure(kind, what)}")
    numbers = pd.to_numeric(column, errors="coerce")
    rest = column[numbers.isna() & column.notna()]
    strange = [value for value in rest if not isinstance(value, Hashable)]
    if strange:
        raise ValueError(f"{what} holds {type(strange[0]).__name__}: not a time. Give numbers or Timedelta.")
    failed = rest.unique()
    if len(failed) and labels:
        read, _ = read_time_labels(_labels(column), what=what)
        numbers = column.astype(object).map(lambda label: read[str(label)], na_action="ignore").astype(np.float64)
    elif len(failed) and like and all(isinstance(label, str) for label in failed):
        alike = read_alike(failed, like, what=what)
        numbers = numbers.fillna(rest.astype(object).map(alike).astype(np.float64))
    elif len(failed):
        raise ValueError(
            f"{what} holds {', '.join(map(repr, failed[:5]))}: not numbers. Give a number in the unit of the time "
            "column, or a Timedelta."
        )
    return numbers.to_numpy(dtype=np.float64, na_value=np.nan)


def time_labels(values: Any, *, what: str) -> dict[str, float]:
    """Return the labels of a column of times and their numbers; empty if the times are numbers.

    Examples
    --------
    >>> time_labels(["day 2", "day 0"], what="`adata.obs['age']`"), time_labels(["24", "0"], what="`adata.obs['age']`")
    ({'day 2': 2.0, 'day 0': 0.0}, {})
    """
    return read_time_labels(_labels(values), what=what)[0] if how_read(values, what=what) else {}


def how_read(values: Any, *, what: str) -> str:
    """Describe how labels of times are read; empty if the times are numbers.

    Examples
    --------
    >>> how_read(["24h", "0h"], what="`adata.obs['age']`"), how_read(["24", "0"], what="`adata.obs['age']`")
    ("`adata.obs['age']` is read as the numbers before 'h': '24h' is 24.", '')
    """
    column = pd.Series(values)
    column = column.astype(column.cat.categories.dtype) if isinstance(column.dtype, pd.CategoricalDtype) else column
    if pd.api.types.infer_dtype(column, skipna=True) not in ("string", "mixed", "mixed-integer"):
        return ""
    numbers = pd.to_numeric(column, errors="coerce")
    return "" if numbers[column.notna()].notna().all() else read_time_labels(_labels(column), what=what)[1]


_NO_LENGTHS = ("boolean", "complex", "datetime", "datetime64", "date", "period", "interval")


def _labels(values: Any) -> list[str]:
    return [str(label) for label in pd.Series(values).dropna().unique()]


def _cure(kind: str, what: str) -> str:
    """Return how to turn values into lengths of time."""
    column = what.strip("`")
    if not column.startswith("adata.obs["):
        return "Use numbers or Timedelta."
    if kind == "interval":
        return f"Take the middles: `adata.obs['time'] = [part.mid for part in {column}]`."
    if kind in ("boolean", "complex"):
        return "Use numbers or Timedelta."
    dates = f"pd.to_datetime({column}.astype(str))"
    return f"Count from the first, in days: `adata.obs['days'] = ({dates} - {dates}.min()) / pd.Timedelta(days=1)`."
