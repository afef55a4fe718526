"""Rows of a table as conditions: sets of treatments with doses, levels of categories, and numbers."""

import math
from collections.abc import Callable, Mapping, Sequence, Set, Sized
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellflow.cells.doses import NAMED, number_of, one_unit, read_dose
from cellflow.cells.treatments import Treated, coded, name_of, names_in, treated

if TYPE_CHECKING:
    from cellflow.cells.conditions import Conditions
    from cellflow.cells.fitted_conditions import FittedConditions

Key = tuple[Treated, tuple[str, ...], tuple[float, ...]]
"""A condition: its treatments, the levels of its categories, and its numbers."""


@dataclass(frozen=True, eq=False)
class ConditionTable:
    """The different conditions of many cells: a row for each condition, and which of them each cell has.

    Parameters
    ----------
    vectors
        What a field sees of each condition, ``(k, width)`` float32; controls come first.
    index
        The condition of each cell, ``(n,)``.
    labels
        A name of each condition for people, ``(k,)``, all different: ``"control"``, ``"A+B"``, ``"A, dose 3"``.
    is_control
        Which conditions are controls, ``(k,)``.
    context
        A number of the categories and numbers of each condition, ``(k,)``: conditions that differ in nothing but
        treatments have the same.

    Examples
    --------
    >>> import cellflow as cf
    >>> obs = pd.DataFrame({"drug": ["A", "control", "A", "control"]})
    >>> table = cf.Conditions("drug").fit(obs).read(obs)
    >>> table.labels, table.index.tolist(), table.counts().tolist()
    (('control', 'A'), [1, 0, 1, 0], [2, 2])
    """

    vectors: np.ndarray
    index: np.ndarray
    labels: tuple[str, ...]
    is_control: np.ndarray
    context: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, condition: int) -> np.ndarray:
        """Return which cells have a condition, ascending."""
        return np.flatnonzero(self.index == condition)

    def counts(self) -> np.ndarray:
        """Return how many cells each condition has, ``(k,)``."""
        return np.bincount(self.index, minlength=len(self))


def keys_of(obs: pd.DataFrame, fitted: "FittedConditions") -> tuple[list[Key], np.ndarray]:
    """Return the different conditions of a table, and which of them each row has, ``(n,)``.

    Raises
    ------
    KeyError, ValueError
        As `FittedConditions.read`.
    """
    found, units = parsed(obs, fitted)
    for column, unit, known in zip(fitted.dose, units, fitted.units, strict=True):
        if unit and unit != known:
            had = f"doses in {known!r}" if known else "numbers without a unit"
            raise ValueError(f"Expected {had} in {column!r}, as in training; found doses in {unit!r}. Convert them.")
    return found


def parsed(
    obs: pd.DataFrame, columns: "FittedConditions | Conditions"
) -> tuple[tuple[list[Key], np.ndarray], tuple[str, ...]]:
    """Return what `keys_of` does, and the unit of each dose column.

    Parameters
    ----------
    obs
        The table.
    columns
        Which columns hold what.
    """
    treatment, dose = names_tuple(columns.treatment), names_tuple(columns.dose)
    doses = [partial(read_dose, column=name, separator=columns.separator) for name in dose]
    numbers = [partial(_number, column=name) for name in columns.numbers]
    reads: list[Callable[[Any], Any]] = [
        *[name_of] * len(treatment),
        *doses,
        *[name_of] * len(columns.categories),
        *numbers,
    ]
    names = [*treatment, *dose, *columns.categories, *columns.numbers]
    read = [coded(column_of(obs, name), how) for name, how in zip(names, reads, strict=True)]
    codes, firsts = _joint([codes for codes, _ in read], len(obs))
    keys: dict[Key, int] = {}
    place = np.zeros(len(firsts), dtype=np.int64)
    for k, row in enumerate(firsts):
        values = [different[codes_[row]] for codes_, different in read]
        place[k] = keys.setdefault(_key(values, columns, treatment, dose), len(keys))
    at = slice(len(treatment), len(treatment) + len(dose))
    units = tuple(
        one_unit((unit for _, unit in different), column=name)
        for name, (_, different) in zip(dose, read[at], strict=True)
    )
    return (list(keys), place[codes] if len(obs) else codes), units


def names_tuple(given: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return names of columns: one, several or none."""
    return () if given is None else (given,) if isinstance(given, str) else tuple(given)


def column_of(obs: pd.DataFrame, name: str) -> pd.Series:
    """Return one column of a table.

    Raises
    ------
    KeyError
        When there is none of that name.
    ValueError
        When there are two.
    """
    if name not in obs:
        raise KeyError(f"No column {name!r} for the conditions. Available: {[*obs.columns][:30]}.")
    column: pd.Series = obs[name]
    if column.ndim > 1:
        raise ValueError(f"There are {column.shape[1]} columns called {name!r}. Rename all but one.")
    return column


def _joint(codes: list[np.ndarray], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return one code for each row from several, and the first row with each."""
    joint = np.zeros(n, dtype=np.int64)
    for each in codes:
        joint, _ = pd.factorize(joint * (int(each.max(initial=0)) + 1) + each)
    return joint, np.unique(joint, return_index=True)[1]


def _number(value: Any, *, column: str) -> float:
    """Return a continuous covariate."""
    found = number_of(value)
    if found is None or not math.isfinite(found):
        raise ValueError(
            f"Expected finite numbers in {column!r}, one of `numbers`; found {value!r}. Fill it in, leave these cells "
            "out, or name the column in `categories`."
        )
    return found


def _key(
    values: list[Any], columns: "FittedConditions | Conditions", treatment: tuple[str, ...], dose: tuple[str, ...]
) -> Key:
    """Return the condition of the values of one row."""
    t, d, c = len(treatment), len(treatment) + len(dose), len(treatment) + len(dose) + len(columns.categories)
    for name, value in zip(columns.categories, values[d:c], strict=True):
        if value is None:
            raise ValueError(
                f"Some cells have no value in {name!r}, one of `categories`. Fill it in, or leave them out."
            )
    doses = [found for found, _ in values[t:d]]
    effect = _treated(values[:t], doses, columns, treatment, dose)
    return effect, tuple(values[d:c]), tuple(values[c:])


def _treated(
    texts: list[str | None],
    doses: list[tuple[float, ...]],
    columns: "FittedConditions | Conditions",
    treatment: tuple[str, ...],
    dose: tuple[str, ...],
) -> Treated:
    """Return the treatments of one row."""
    if not treatment:
        found = zip(dose, doses, strict=True)
        return treated(*_aligned([(name, (name,), amounts) for name, amounts in found], True), added=True)
    if all(text is None for text in texts):
        raise ValueError(
            f"Some cells have no treatment in {' or '.join(map(repr, treatment))}. If they are controls, say so: "
            f"`adata.obs[{treatment[0]!r}] = adata.obs[{treatment[0]!r}].astype(object).fillna({columns.control!r})`; "
            "else leave them out."
        )
    sets = [
        names_in(text, control=columns.control, separator=columns.separator, column=name)
        for text, name in zip(texts, treatment, strict=True)
    ]
    given = [*doses] * len(sets) if len(doses) == 1 else doses or [(math.nan,)] * len(sets)
    where = dose * len(sets) if len(doses) == 1 else dose or treatment
    joined = _aligned(list(zip(where, sets, given, strict=True)), bool(dose))
    return treated(*joined, added=len(dose) > 1)


def _aligned(
    columns: list[tuple[str, tuple[str, ...], tuple[float, ...]]], dosed: bool
) -> tuple[list[str], list[float]]:
    """Return names with the dose of each, from the names and doses of each column."""
    names: list[str] = []
    doses: list[float] = []
    for column, found, given in columns:
        if found and not given and dosed:
            shown = ", ".join(map(repr, found[:NAMED]))
            raise ValueError(
                f"No dose in {column!r} for {shown}: expected an amount for every cell that is treated, 0 for none. "
                f"Fill it in, or leave these cells out: `adata = adata[adata.obs[{column!r}].notna()].copy()`."
            )
        if len(given) not in (1, len(found)) and found:
            raise ValueError(f"Expected one dose, or {len(found)}, in {column!r} for {found}; found {given}.")
        names += found
        doses += given * len(found) if len(given) == 1 else given if found else ()
    return names, doses


def label_of(key: Key, columns: "FittedConditions | Conditions") -> str:
    """Return the name of a condition for people."""
    (effect, levels, numbers), named = key, names_tuple(columns.dose)
    doses = {dose for _, dose in effect}
    joint = columns.separator or "+"
    if not effect:
        first = columns.control if columns.treatment else " + ".join(f"{name} 0" for name in named)
    elif not columns.treatment:
        first = ", ".join(f"{name} {dose:g}" for name, dose in effect)
    elif len(doses) == 1:  # NaN is the same object, or doses are equal
        dose = next(iter(doses))
        first = joint.join(name for name, _ in effect) + (f", {named[0]} {dose:g}" if dose == dose else "")
    else:
        first = joint.join(f"{name} {dose:g}" for name, dose in effect)
    rest = [f"{name} {value}" for name, value in zip(columns.categories, levels, strict=True)]
    rest += [f"{name} {value:g}" for name, value in zip(columns.numbers, numbers, strict=True)]
    return ", ".join([first, *rest])


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
        raise KeyError(f"{foreign[0]!r} is none of the columns that this was fitted with: {list(fitted.columns)}.")
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


def _such(fitted: "FittedConditions") -> str:
    return "{" + ", ".join(f"{name!r}: ..." for name in fitted.columns) + "}"


def _values(value: Any, n: int, name: str) -> list[Any]:
    """Return one value for each row."""
    values = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(values, str | bytes | Mapping | Set) or not isinstance(values, Sized):
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
