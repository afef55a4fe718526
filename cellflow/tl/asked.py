"""The conditions of a prediction: what a field sees of them, their names, and what is written."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellflow.cells.condition_words import nothing
from cellflow.cells.doses import number_of
from cellflow.cells.treatments import quoted
from cellflow.estimators.arms import treatments_alone

if TYPE_CHECKING:
    from cellflow.cells.fitted_conditions import FittedConditions
    from cellflow.estimators import PerturbationFlow


@dataclass(frozen=True, eq=False)
class Asked:
    """One condition under which to predict some cells.

    Parameters
    ----------
    given
        What was asked for: a value for each column.
    label
        What it is called.
    vectors, index
        What a field sees, ``(k, width)``, and the row of each cell in it, ``(n,)``.
    """

    given: Mapping[str, Any]
    label: str
    vectors: np.ndarray
    index: np.ndarray


def read_asked(
    flow: "PerturbationFlow", condition: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None, obs: pd.DataFrame
) -> list[Asked]:
    """Return the conditions under which to predict some cells.

    Parameters
    ----------
    flow
        A fitted flow.
    condition
        One or several, each a value for each column; ``None`` for the treatments of the fit.
    obs
        The cells; columns other than treatments that are not given keep their values.

    Raises
    ------
    TypeError
        When it is neither a mapping nor a list of mappings, or an entry is not a single value.
    KeyError, ValueError
        When a column is unknown or missing, a name is unknown, or a condition is given twice.
    """
    treatments = treatments_alone(flow.conditions_)
    found: dict[tuple[bytes, bytes], Asked] = {}
    asked: list[Asked] = []
    for one in _several(flow, condition):
        table = flow.conditions_.table(one, len(obs), obs=obs)
        own = {name: one[name] for name in treatments.columns if name in one}
        rest = [f"{name} {quoted(str(value), [', '])}" for name, value in one.items() if name not in own]
        label = ", ".join([treatments.table(own, 1).labels[0], *rest])
        what = table.vectors.tobytes(), table.index.tobytes()
        if what in found and condition is not None:  # treatments of the fit may be as one for it
            raise ValueError(
                f"{dict(one)} occurs twice in `condition`: it is {found[what].label!r}. Name each condition once."
            )
        found[what] = Asked(one, label, table.vectors, table.index)
        asked.append(found[what])
    return asked


def table_of_asked(
    flow: "PerturbationFlow", asked: Sequence[Asked], obs: pd.DataFrame, columns: Sequence[str]
) -> dict[str, Any]:
    """Return columns for all cells under all conditions, one condition after the other, as `Conditions` reads them.

    Parameters
    ----------
    flow
        A fitted flow.
    asked
        The conditions.
    obs
        The cells.
    columns
        Names of columns.
    """
    empty, n, found = nothing(flow.conditions_), len(obs), {}
    for name in columns:
        parts = []
        for one in asked:
            if name in one.given or name in empty:
                parts.append(np.full(n, one.given.get(name, empty.get(name)), dtype=object))
            else:
                parts.append(obs[name].to_numpy(dtype=object))
        found[name] = column_of(np.concatenate(parts), amounts=name in amounts_of(flow.conditions_))
    return found


def set_apart(own: Mapping[str, Any], columns: Collection[str]) -> dict[str, Any]:
    """Return columns of a result beside the user's; if names clash, ours becomes ``predicted_...``.

    Examples
    --------
    >>> set_apart({"origin": 1, "weight": 2}, ["drug", "weight"])
    {'origin': 1, 'predicted_weight': 2}
    """
    return {free_name(name, columns): values for name, values in own.items()}


def free_name(name: str, columns: Collection[str]) -> str:
    """Return the name of a result's column beside those of the user, see `set_apart`."""
    while name in columns:
        name = f"predicted_{name}"
    return name


def _several(flow: "PerturbationFlow", condition: Any) -> Sequence[Mapping[str, Any]]:
    given = flow.treatments_ if condition is None else [condition] if isinstance(condition, Mapping) else condition
    such = dict.fromkeys(treatments_alone(flow.conditions_).columns, "...")
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(one, Mapping) for one in given):
        raise TypeError(
            f"Expected `condition` as a mapping such as {such}, or a list of such; found {condition!r:.60}."
        )
    if not len(given):
        raise ValueError(f"Expected one condition or more, such as {such}; found none.")
    for one in given:
        for name, value in one.items():
            if hasattr(value, "__len__") and not isinstance(value, str):
                raise TypeError(
                    f"Expected one value for {name!r}; found {len(value)}. Combinations are written 'A+B'; several "
                    f"conditions are a list: `condition=[{{{name!r}: ...}}, {{{name!r}: ...}}]`."
                )
    return given


def amounts_of(fitted: "FittedConditions") -> tuple[str, ...]:
    """Return the columns of numbers: of doses, and of what is continuous."""
    return (*fitted.dose, *fitted.numbers)


def column_of(values: np.ndarray, *, amounts: bool = False) -> Any:
    """Return numbers as such, and everything else as text categories; missing values stay missing.

    In a column of ``amounts``, text that reads as a number counts as one, as on the command line.

    Examples
    --------
    >>> column_of(np.array(["3.0", 1], dtype=object), amounts=True)
    array([3., 1.])
    """
    column = pd.Series(values, dtype=object)
    missing = column.isna()
    if amounts and all(number_of(value) is not None for value in column[~missing]):
        return column.map(number_of).astype(np.float64).to_numpy()
    if all(isinstance(value, int | float | np.number) and not isinstance(value, bool) for value in column[~missing]):
        return column.astype(np.float64).to_numpy()
    return pd.Categorical(column.where(missing, column.astype(str)))
