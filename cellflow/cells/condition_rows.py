"""Rows of a table as conditions: sets of treatments with doses, levels of categories, and numbers."""

import math
from collections.abc import Callable, Sequence
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
        A readable name of each condition, ``(k,)``, all different: ``"control"``, ``"A+B"``, ``"A, dose 3"``.
    is_control
        Which conditions are controls, ``(k,)``.
    context
        An index for the categories and numbers of each condition, ``(k,)``: conditions that differ only in treatments
        share it.

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
        one_unit(((max(amounts, default=0.0), unit) for amounts, unit in different), column=name)
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
    if not treatment and not dose:  # nothing but donors, cell lines and the like
        return ()
    if not treatment:
        return treated(_aligned(dose[0], dose, doses[0], control=None), added=False)
    if all(text is None for text in texts):
        raise ValueError(
            f"Some cells have no treatment in {' or '.join(map(repr, treatment))}. If they are controls, mark them: "
            f"`adata.obs[{treatment[0]!r}] = adata.obs[{treatment[0]!r}].astype(object).fillna({columns.control!r})`; "
            "else leave them out."
        )
    sets = [
        names_in(text, separator=columns.separator, column=name, control=columns.control)
        for text, name in zip(texts, treatment, strict=True)
    ]
    if len(dose) > 1:
        each = zip(dose, sets, doses, strict=True)
        pairs = [pair for one in each for pair in _aligned(*one, control=columns.control)]
    else:
        names = tuple(name for one in sets for name in one)
        pairs = _aligned(dose[0] if dose else "", names, doses[0] if dose else (math.nan,), control=columns.control)
    return treated(pairs, added=len(dose) > 1 or (bool(dose) and len(doses[0]) > 1))


def _aligned(
    column: str, names: tuple[str, ...], doses: tuple[float, ...], *, control: str | None
) -> list[tuple[str, float]]:
    """Return names with the dose of each, without the control."""
    found = [name for name in names if name != control]
    if found and not doses:
        shown = ", ".join(map(repr, found[:NAMED]))
        raise ValueError(
            f"No dose in {column!r} for {shown}: expected an amount for every cell that is treated, 0 for none. "
            f"Fill it in, or leave these cells out: `adata = adata[adata.obs[{column!r}].notna()].copy()`."
        )
    if found and len(doses) not in (1, len(names)):
        raise ValueError(f"Expected one dose, or {len(names)}, in {column!r} for {names}; found {doses}.")
    each = doses * len(names) if len(doses) == 1 else doses
    return [(name, dose) for name, dose in zip(names, each, strict=False) if name != control]
