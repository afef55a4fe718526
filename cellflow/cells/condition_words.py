"""Conditions that are asked for in words, as rows of a table."""

from collections.abc import Collection, Mapping, Set
from typing import TYPE_CHECKING, Any

import pandas as pd

from cellflow.cells.treatments import name_of

if TYPE_CHECKING:
    from cellflow.cells.fitted_conditions import FittedConditions


def rows_of(
    condition: Mapping[str, Any] | pd.DataFrame, n: int, fitted: "FittedConditions", *, obs: pd.DataFrame | None
) -> pd.DataFrame:
    """Return a condition given in words as a table of ``n`` rows, with all columns of the fit.

    Raises
    ------
    KeyError, ValueError
        As `FittedConditions.encode`.
    """
    if not isinstance(condition, Mapping | pd.DataFrame):
        raise TypeError(
            f"Expected a condition as a mapping from columns to values, such as {_such(fitted)}; found "
            f"{condition!r:.60}."
        )
    given = {str(name): _values(values, n, str(name)) for name, values in condition.items()}
    foreign = [name for name in given if name not in fitted.columns]
    if foreign:
        raise KeyError(f"{foreign[0]!r} is not one of the columns of the fit: {list(fitted.columns)}.")
    for name in (*fitted.categories, *fitted.numbers):
        if name not in given and obs is not None and name in obs:
            given[name] = _values(obs[name], n, name)
    empty = [name for name in fitted.treatment if name not in given]
    if len(empty) < len(fitted.treatment):
        given |= {name: [None] * n for name in empty}
    for column, name in enumerate(fitted.dose):
        if name not in given and _undosed(given, column, fitted):
            given[name] = [0.0] * n
    lacking = [name for name in fitted.columns if name not in given]
    if lacking:
        raise KeyError(
            f"The condition lacks {', '.join(map(repr, lacking))}: expected a value for each of "
            f"{list(fitted.columns)}, which this was fitted with."
        )
    return pd.DataFrame({name: pd.Series(list(given[name]), dtype=object) for name in fitted.columns})


def nothing(fitted: "FittedConditions") -> dict[str, Any]:
    """Return what the columns of treatments and doses hold where they are not given: the control, and 0.

    Examples
    --------
    >>> import cellflow as cf
    >>> obs = pd.DataFrame({"drug": ["control", "A"] * 2, "dose": [0, 3] * 2})
    >>> nothing(cf.Conditions("drug", dose="dose").fit(obs))
    {'drug': 'control', 'dose': 0.0}
    """
    return dict.fromkeys(fitted.treatment, fitted.control) | dict.fromkeys(fitted.dose, 0.0)


def _such(fitted: "FittedConditions") -> str:
    return "{" + ", ".join(f"{name!r}: ..." for name in fitted.columns) + "}"


def _values(value: Any, n: int, name: str) -> list[Any]:
    """Return one value for each row."""
    values: Any = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(values, str | bytes | Mapping | Set) or not isinstance(values, Collection):
        return [values] * n
    if len(values) != n:
        raise ValueError(f"Expected one value, or {n}, for {name!r}; found {len(values)}.")
    return list(values)


def _undosed(given: Mapping[str, list[Any]], column: int, fitted: "FittedConditions") -> bool:
    """Return whether nothing that a dose column belongs to is a treatment."""
    if not fitted.treatment:
        return False
    of = fitted.treatment if len(fitted.dose) == 1 else (fitted.treatment[column],)
    return all(name_of(value) in (None, fitted.control) for name in of for value in set(given.get(name, ())))
