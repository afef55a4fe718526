"""Conditions: how columns of a table become what a field sees: treatments, doses, combinations, donors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cellflow.cells.condition_rows import Key, names_tuple, parsed
from cellflow.cells.doses import DoseScale
from cellflow.cells.fitted_conditions import FittedConditions
from cellflow.cells.name_vectors import NameVectors, listed, read_vectors
from cellflow.signature import checked_but

Names = str | tuple[str, ...] | None


@checked_but("embeddings")
@dataclass(frozen=True)
class Conditions:
    """How columns of ``obs`` become what a field sees: treatments, doses, combinations, and what else differs.

    Parameters
    ----------
    treatment
        Column with the names of treatments: ``"A"``, or ``"A+B"`` for a combination, in any order; or several columns,
        with one name each. ``None`` where there is one treatment, of which the doses are given.
    dose
        Column with amounts, 0 or more: for all names, or one for each column of ``treatment``.
    control
        The name of no treatment.
    categories
        Further columns that the field sees: donor, cell line.
    numbers
        Columns with continuous covariates, which are standardised.
    embeddings
        For a column of names or categories, a table of a vector for each name: a key of ``uns``, a mapping, or a data
        frame with the names as its index. Names that were not in training can then be asked for.
    separator
        What separates the names of a combination; ``None`` where names are never combined.

    Examples
    --------
    >>> obs = pd.DataFrame({"drug": ["control", "A", "B", "A+B", "B+A"] * 2})
    >>> fitted = Conditions(treatment="drug").fit(obs)
    >>> fitted.read(obs).labels
    ('control', 'A', 'A+B', 'B')
    """

    treatment: Names = None
    dose: Names = None
    control: str = "control"
    categories: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    embeddings: Mapping[str, Any] | None = None
    separator: str | None = "+"

    def fit(self, obs: pd.DataFrame, uns: Mapping[str, Any] | None = None) -> FittedConditions:
        """Learn names, scales of doses and moments from a table.

        Parameters
        ----------
        obs
            A row for each cell.
        uns
            Where `embeddings` that are given by key are.

        Raises
        ------
        KeyError
            When a column, or a key of ``uns``, is missing.
        ValueError
            When a value cannot be used, or a condition has a single cell.
        """
        if not len(obs):
            raise ValueError("There are no cells to read conditions from.")
        (keys, index), units = parsed(obs, self)
        _check_counts(keys, index)
        tables = self._tables(uns)
        treatment, dose = names_tuple(self.treatment), names_tuple(self.dose)
        names = sorted({name for key in keys for name, _ in key[0]})
        given = next((tables[name] for name in treatment if name in tables), None)
        effects = NameVectors(tuple(names)) if given is None else given.unit(names, what=treatment[0])
        return FittedConditions(
            treatment=treatment,
            dose=dose,
            control=self.control,
            separator=self.separator,
            categories=self.categories,
            numbers=self.numbers,
            effects=effects,
            scales={name: _scale(name, keys) for name in names} if dose else {},
            units=units,
            levels=tuple(self._level(k, name, keys, tables.get(name)) for k, name in enumerate(self.categories)),
            moments=tuple(
                _moments(np.unique([key[2][k] for key in keys]), name) for k, name in enumerate(self.numbers)
            ),
            trained=tuple(names),
        )

    def _tables(self, uns: Mapping[str, Any] | None) -> dict[str, NameVectors]:
        """Return the tables of vectors by column."""
        found: dict[str, NameVectors] = {}
        for column, given in (self.embeddings or {}).items():
            if isinstance(given, str) and (uns is None or given not in uns):
                have = listed([str(key) for key in uns or ()])
                raise KeyError(f"No `uns[{given!r}]` for `embeddings[{column!r}]`. Available: {have}.")
            table = uns[given] if isinstance(given, str) and uns is not None else given
            found[column] = read_vectors(table, what=f"`embeddings[{column!r}]`")
        return found

    def _level(self, k: int, column: str, keys: list[Key], table: NameVectors | None) -> NameVectors:
        """Return the levels of a category."""
        names = sorted({key[1][k] for key in keys})
        return NameVectors(tuple(names)) if table is None else table.unit(names, what=column)


def resolve(given: Conditions | str | None) -> Conditions | None:
    """Return conditions as such: the name of a column stands for that of treatments.

    Examples
    --------
    >>> resolve("drug").treatment
    'drug'
    """
    if given is None or isinstance(given, Conditions):
        return given
    if isinstance(given, str):
        return Conditions(treatment=given)
    raise TypeError(f"Expected `conditions` as `cf.Conditions(...)` or the name of a column; found {given!r:.60}.")


def _scale(name: str, keys: list[Key]) -> DoseScale:
    """Return the scale of the doses of a name."""
    return DoseScale.of(dose for key in keys for other, dose in key[0] if other == name)


def _moments(values: np.ndarray, column: str) -> tuple[float, float]:
    """Return mean and spread of a continuous covariate over its different values."""
    if len(values) < 2:
        raise ValueError(f"{column!r} holds one number, {values[0]:g}, at all cells: leave it out of `numbers`.")
    return float(values.mean()), float(values.std())


def _check_counts(keys: list[Key], index: np.ndarray) -> None:
    """Refuse conditions with a single cell."""
    counts = np.bincount(index, minlength=len(keys))
    if (counts < 2).any():
        lonely = [str(keys[k]) for k in np.flatnonzero(counts < 2)]
        raise ValueError(f"{len(lonely)} of {len(keys)} conditions have one cell, for example {lonely[0]}.")
