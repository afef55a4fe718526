"""Labels of times: "24 hours", "day 3", "per hour"."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cellflow.cells.snapshots import time_unit

if TYPE_CHECKING:
    from anndata import AnnData

_SINGULAR = {
    "seconds": "second",
    "minutes": "minute",
    "hours": "hour",
    "days": "day",
    "weeks": "week",
    "months": "month",
    "years": "year",
}
_SYMBOLS = ("s", "sec", "min", "h", "hr", "hrs", "d", "hpf", "dpf", "hpi", "dpi")
"""Written behind the number, whatever it is: hpf and dpf are hours and days after fertilisation."""


def unit_of(adata: "AnnData", time_key: str) -> str:
    """Return the unit in which labels state times: days for Timedelta, otherwise the name of the column.

    Examples
    --------
    >>> import cellflow as cf
    >>> unit_of(cf.datasets.hsmm(), "hours")
    'hours'
    """
    return time_unit(adata, time_key) or time_key


def unit_of_result(adata: "AnnData", about: Mapping[str, Any], time_key: str | None = None) -> str:
    """Return the unit of the times in a result of `cellflow.tl`.

    Parameters
    ----------
    adata
        The cells.
    about
        The metadata of the result: ``"time_key"`` and ``"unit"``; empty if another program wrote it.
    time_key
        Time column that takes precedence over the one in ``about``, or a unit, if there is no such column.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.hsmm()
    >>> unit_of_result(adata, {"time_key": "age", "unit": "days"}), unit_of_result(adata, {}, "hours")
    ('days', 'hours')
    """
    if time_key is not None:
        return unit_of(adata, time_key) if time_key in adata.obs else time_key
    return str(about.get("unit") or about.get("time_key") or "time")


def time_label(time: float, unit: str) -> str:
    """Return the label of a time.

    Examples
    --------
    >>> time_label(24.0, "hours"), time_label(1.0, "hours"), time_label(3.5, "day"), time_label(0.5, "time")
    ('24 hours', '1 hour', 'day 3.5', 'time 0.5')
    """
    known = unit.lower()
    if known in _SYMBOLS:
        return f"{time:g} {unit}"
    if known in _SINGULAR:
        return f"{time:g} {unit[:-1] if time == 1 else unit}"
    return f"{unit} {time:g}"


def rate_label(unit: str) -> str:
    """Return the label of a rate or velocity.

    Examples
    --------
    >>> rate_label("hours"), rate_label("day"), rate_label("stage")
    ('per hour', 'per day', 'per unit of stage')
    """
    known = unit.lower()
    singular = _SINGULAR.get(known, known)
    return f"per {singular}" if known in (*_SINGULAR, *_SINGULAR.values(), *_SYMBOLS) else f"per unit of {unit}"
