"""Conditions: how columns of a table become what a field sees: treatments, doses, combinations, donors."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from cellflow.cells.condition_counts import check_counts
from cellflow.cells.condition_rows import Key, names_tuple, parsed
from cellflow.cells.doses import DoseScale
from cellflow.cells.fitted_conditions import FittedConditions
from cellflow.cells.name_vectors import NameVectors, listed, read_vectors
from cellflow.cells.told_apart import check_told_apart
from cellflow.cells.treatments import stripped
from cellflow.signature import checked

log = logging.getLogger(__name__)


@checked
@dataclass(frozen=True)
class Conditions:
    """How columns of ``obs`` become what a field sees: treatments, doses, combinations, and what else differs.

    Every condition becomes a row of numbers. The effect of its treatments is the sum, over their names, of the amount
    of each times its vector: an axis of its own, or its embedding. So a combination has no order, the control is 0, and
    a treatment grows from it with the dose. The amount is 1 for a treatment without a dose and for the largest dose in
    training, and follows the logarithm of the dose (see `cellflow.cells.doses.DoseScale`). Then come categories, with
    an axis for each level, and numbers.

    Typical uses::

        Conditions(treatment="drug")                                      # "control", "A", "B", "A+B"
        Conditions(treatment="perturbation", control="non-targeting")     # another name for no treatment
        Conditions(treatment="drug", dose="dose")                         # amounts: 0, 1, 10, or "10 nM"
        Conditions(dose="tgfb")                                           # one treatment, of which only doses differ
        Conditions(treatment=("drug1", "drug2"), dose=("dose1", "dose2")) # a column for each of a combination
        Conditions(treatment="drug", categories=("donor",))               # what else the field should know
        Conditions(treatment="drug", embeddings={"drug": "fingerprints"}) # `uns["fingerprints"]`: drugs never seen

    An estimator takes the name of a column instead of ``Conditions(treatment=name)``.

    Parameters
    ----------
    treatment
        Column with the names of treatments: ``"A"``, or ``"A+B"`` for a combination, in any order; or several columns
        with names, of which a cell may lack all but one. ``None`` for a single treatment that is given by its doses.
    dose
        Column with amounts, 0 or more, in one unit: for all names of a cell, or one column for each of ``treatment``.
        Numbers, numbers with a unit such as ``"10 nM"``, or ``"1+3"`` for the names of ``"A+B"`` in that order. A dose
        of 0 is the control, whose doses may be missing.
    control
        The name of the control. In a combination it adds nothing: ``"A+control"`` is ``"A"``.
    categories
        Further columns that the field sees: donor, cell line. Levels that were not in training cannot be predicted,
        unless they have a vector in ``embeddings``.
    numbers
        Columns with continuous covariates; they are standardised by their different values.
    embeddings
        For the column of treatments or for a category, a table with a vector for each name: a key of ``uns``, a mapping
        from names to vectors, or a data frame with the names as its index. Names that were not in training can be
        predicted if they have a vector, at doses on the scale of all others. All vectors are divided by their root mean
        square length in training.
    separator
        What separates the names of a combination; ``None`` if names are never combined and may contain any character.

    Raises
    ------
    ValueError
        When there is no column, or one is named twice; when the number of dose columns is neither 1 nor that of
        treatment columns; when the separator is empty, or embeddings are for other columns; for a table, when vectors
        differ in length, or are NaN or infinite.
    TypeError
        When a setting is of another type.

    Examples
    --------
    >>> obs = pd.DataFrame({"drug": ["control", "A", "B", "A+B", "B+A"] * 2, "dose": [0, 1, 1, 10, 10] * 2})
    >>> fitted = Conditions(treatment="drug", dose="dose").fit(obs)
    >>> fitted.read(obs).labels
    ('control', 'A, dose 1', 'A+B, dose 10', 'B, dose 1')
    >>> fitted.encode({"drug": "A+B", "dose": "1+10"}, 1).round(2)
    array([[0.52, 1.  ]], dtype=float32)

    Drugs that were not in training, by vectors of two numbers:

    >>> table = {"A": [1.0, 0.0], "B": [0.0, 1.0], "C": [0.6, 0.8]}
    >>> Conditions(treatment="drug", embeddings={"drug": table}).fit(obs).encode({"drug": "C"}, 1).round(2)
    array([[0.6, 0.8]], dtype=float32)
    """

    treatment: str | tuple[str, ...] | None = None
    dose: str | tuple[str, ...] | None = None
    control: str = "control"
    categories: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    embeddings: Mapping[str, Any] | None = field(default=None, hash=False)
    separator: str | None = "+"

    def __post_init__(self) -> None:
        for name in ("treatment", "dose"):
            columns = names_tuple(getattr(self, name))
            object.__setattr__(self, name, columns if len(columns) > 1 else columns[0] if columns else None)
        for name in ("categories", "numbers"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "control", stripped(self.control))
        _check_columns(self)
        if self.embeddings is not None:
            # Plain numbers, which print, compare and are saved.
            object.__setattr__(self, "embeddings", {key: _plain(key, table) for key, table in self.embeddings.items()})

    @checked
    def fit(self, obs: pd.DataFrame, uns: Mapping[str, Any] | None = None) -> FittedConditions:
        """Learn names, scales of doses and moments from a table.

        Parameters
        ----------
        obs
            A row for each cell, with any pandas types; unused categories are ignored. If no cell is a control, but some
            have a name that is commonly used for controls, a warning is logged.
        uns
            Holds the `embeddings` that are given by key.

        Raises
        ------
        KeyError
            When a column, or a key of ``uns``, is missing.
        ValueError
            When a name, dose or number is missing or unusable; when a condition has a single cell, or there are about
            as many conditions as cells; when a name in the data has no vector in its table, or a vector of zeros.

        Examples
        --------
        >>> Conditions(treatment="drug").fit(pd.DataFrame({"drug": ["control", "A"] * 2})).names
        ('A',)
        """
        if not len(obs):
            raise ValueError("There are no cells to read conditions from.")
        (keys, index), units = parsed(obs, self)
        check_counts(obs, self, keys, index)
        tables = self._tables(uns)
        treatment, dose = names_tuple(self.treatment), names_tuple(self.dose)
        names = sorted({name for key in keys for name, _ in key[0]})
        given = [(column, tables[column]) for column in treatment if column in tables]
        fitted = FittedConditions(
            treatment=treatment,
            dose=dose,
            control=self.control,
            separator=self.separator,
            categories=self.categories,
            numbers=self.numbers,
            effects=given[0][1].unit(names, what=given[0][0]) if given else NameVectors(tuple(names)),
            scales={name: _scale(name, keys) for name in names} if dose else {},
            units=units,
            levels=tuple(self._level(k, name, keys, tables.get(name)) for k, name in enumerate(self.categories)),
            moments=tuple(_moments([key[2][k] for key in keys], name) for k, name in enumerate(self.numbers)),
            trained=tuple(names),
        )
        check_told_apart(keys, fitted)
        if treatment and all(key[0] for key in keys) and (alike := fitted.like_control()):
            log.warning(
                "No cell has the control %r in %r, while some have %r. If that is the control, set "
                "`Conditions(control=%r)`.",
                *(self.control, treatment[0], alike, alike),
            )
        return fitted

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
    """Return conditions; the name of a column stands for the column of treatments.

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


def _moments(given: list[float], column: str) -> tuple[float, float]:
    """Return mean and spread of a continuous covariate over its different values."""
    values = np.unique(given)
    if len(values) < 2:
        raise ValueError(f"{column!r} holds one number, {values[0]:g}, at all cells: leave it out of `numbers`.")
    with np.errstate(over="ignore", invalid="ignore"):
        mean, spread = float(values.mean()), float(values.std())
    if not (np.isfinite([mean, spread]).all() and spread > 0):
        raise ValueError(f"The numbers in {column!r} are too large, or too close, to be standardised. Rescale them.")
    return mean, spread


def _check_columns(given: Conditions) -> None:
    """Refuse settings that contradict each other."""
    treatment, dose = names_tuple(given.treatment), names_tuple(given.dose)
    columns = [*treatment, *dose, *given.categories, *given.numbers]
    if not columns:
        raise ValueError("Expected a column or more in `Conditions`, such as `treatment='drug'`; found none.")
    twice = [name for name in columns if columns.count(name) > 1]
    if twice:
        raise ValueError(f"Expected every column once in `Conditions`; found {twice[0]!r} twice.")
    if treatment and len(dose) not in (0, 1, len(treatment)):
        raise ValueError(
            f"Expected one column in `dose`, or one for each of {len(treatment)} in `treatment`; found {len(dose)}."
        )
    if len(dose) > 1 and not treatment:
        raise ValueError(
            f"Expected one column in `dose` without `treatment`; found {len(dose)}. Several treatments need a "
            "column with their names."
        )
    if given.separator == "":
        raise ValueError(
            "Expected a `separator` of one character or more, or None if names are never combined; found ''."
        )
    allowed = [*treatment, *given.categories]
    foreign = [name for name in given.embeddings or () if name not in allowed]
    if foreign:
        raise ValueError(f"Expected `embeddings` for some of {allowed}, columns with names; found {foreign[0]!r}.")
    if sum(name in treatment for name in given.embeddings or ()) > 1:
        raise ValueError(
            f"Expected one table in `embeddings` for all of {list(treatment)}, under the first of them; found several."
        )


def _plain(column: str, table: Any) -> Any:
    """Return a table as a mapping from names to tuples of numbers; a key of ``uns`` as it is."""
    return table if isinstance(table, str) else read_vectors(table, what=f"`embeddings[{column!r}]`").plain()
