"""How times are said: the unit is the name of the user's column, the only thing known about it."""

from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from anndata import AnnData

_PLURALS = {
    "seconds": "second",
    "minutes": "minute",
    "hours": "hour",
    "days": "day",
    "weeks": "week",
    "months": "month",
    "years": "year",
}


def unit_of(adata: "AnnData", time_key: str) -> str:
    """Return what a time is counted in: days for Timedelta, otherwise the name of the column.

    Examples
    --------
    >>> import cellflow as cf
    >>> unit_of(cf.datasets.hsmm(), "hours")
    'hours'
    """
    if time_key not in adata.obs:
        raise KeyError(f"No `adata.obs[{time_key!r}]`. Available: {list(adata.obs.columns)}. Set `time_key`.")
    return "days" if pd.api.types.is_timedelta64_dtype(adata.obs[time_key].dtype) else time_key


def moment(time: float, unit: str) -> str:
    """Say a time.

    Examples
    --------
    >>> moment(24.0, "hours"), moment(3.5, "day"), moment(0.5, "time")
    ('24 hours', 'day 3.5', 'time 0.5')
    """
    return f"{time:g} {unit}" if unit.lower() in _PLURALS else f"{unit} {time:g}"


def rate(unit: str) -> str:
    """Say what a velocity is counted in.

    Examples
    --------
    >>> rate("hours"), rate("day"), rate("stage")
    ('per hour', 'per day', 'per unit of stage')
    """
    known = unit.lower()
    return f"per {_PLURALS.get(known, known)}" if known in {*_PLURALS, *_PLURALS.values()} else f"per unit of {unit}"
