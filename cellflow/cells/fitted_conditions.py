"""What `Conditions` learns from a table: names, scales of doses, and how they become the numbers that a field sees."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cellflow.cells.condition_labels import label_of
from cellflow.cells.condition_record import read_record
from cellflow.cells.condition_rows import ConditionTable, Key, keys_of
from cellflow.cells.condition_words import rows_of
from cellflow.cells.doses import DoseScale, digits
from cellflow.cells.name_vectors import NameVectors, listed
from cellflow.cells.treatments import Treated

log = logging.getLogger(__name__)

BEYOND = 10.0
"""Times the largest dose in training beyond which a dose is said to be far from all that was learned."""
FAR = 1e6
"""Spreads from the mean of a continuous covariate beyond which it is another quantity."""
MOST = 2**26
"""Most numbers in a table of conditions, 256 MiB."""
CONTROLS = {
    "control", "controls", "ctrl", "ctl", "dmso", "vehicle", "untreated", "unstimulated", "unperturbed", "mock", "pbs",
    "none", "non-targeting", "nontargeting", "non_targeting", "nt", "no treatment", "wt", "wild type", "wildtype",
}  # fmt: skip
"""Names that are commonly given to no treatment, in lower case."""


@dataclass(frozen=True, eq=False)
class FittedConditions:
    """What `Conditions.fit` returns: the names, scales and tables by which rows of a table become numbers.

    A condition is a row of numbers: first the *effect* part, the sum over its treatments of the amount of each times
    the vector of its name, which is 0 for the control; then an axis for each level of the categories; then the
    continuous covariates, standardised.

    Parameters
    ----------
    treatment, dose, control, separator, categories, numbers
        As of `Conditions`.
    effects
        The names of the treatments and the vectors that stand for them.
    scales
        The scale of the doses of each name in training.
    units
        The unit of each dose column, ``""`` where its doses are plain numbers.
    levels
        The names in each category, and the vectors that stand for them.
    moments
        Mean and spread of each continuous covariate.
    trained
        The names of the treatments in training: `effects` may have more.

    Examples
    --------
    >>> import cellflow as cf
    >>> obs = pd.DataFrame({"drug": ["control", "A", "B", "A+B"] * 2})
    >>> fitted = cf.Conditions(treatment="drug").fit(obs)
    >>> fitted.names, fitted.width
    (('A', 'B'), 2)
    >>> fitted.encode({"drug": "B+A"}, 1)
    array([[1., 1.]], dtype=float32)
    """

    treatment: tuple[str, ...]
    dose: tuple[str, ...]
    control: str
    separator: str | None
    categories: tuple[str, ...]
    numbers: tuple[str, ...]
    effects: NameVectors
    scales: Mapping[str, DoseScale]
    units: tuple[str, ...]
    levels: tuple[NameVectors, ...]
    moments: tuple[tuple[float, float], ...]
    trained: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The treatments in training, in alphabetical order, without the control."""
        return self.trained

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read."""
        return tuple(dict.fromkeys((*self.treatment, *self.dose, *self.categories, *self.numbers)))

    @property
    def effect(self) -> slice:
        """Which numbers of a row are those of the treatments; all of them are 0 for the control."""
        return slice(0, self.effects.width)

    @property
    def width(self) -> int:
        """How many numbers a field sees."""
        return self.effects.width + sum(level.width for level in self.levels) + len(self.numbers)

    @property
    def dose_curvature(self) -> np.ndarray:
        """Curvature of the scale of doses along each axis of the effect part ``(effect width,)``; 0 without doses.

        Along the axis of a single name, ``expm1(k * a) / expm1(k)`` for a curvature ``k`` and an amount ``a`` is the
        dose over the largest one. With embeddings, it is that of all names together.
        """
        if not self.dose:
            return np.zeros(self.effects.width)
        if self.effects.vectors is not None:
            return np.full(self.effects.width, DoseScale.over(self.scales.values()).curvature)
        return np.array([self._scale(name).curvature for name in self.effects.names])

    def read(self, obs: pd.DataFrame) -> ConditionTable:
        """Return the conditions of the rows of a table.

        Parameters
        ----------
        obs
            A table with all of `columns`; others are ignored.

        Returns
        -------
        ConditionTable
            One row for each condition that occurs, control first, and which of them each row of ``obs`` has.

        Raises
        ------
        KeyError
            When a column is missing.
        ValueError
            When a treatment or level was not in training; when a dose is missing, negative or in another unit.
        """
        keys, index = keys_of(obs, self)
        return self._table(keys, index)

    def encode(
        self, condition: Mapping[str, Any] | pd.DataFrame, n: int, *, obs: pd.DataFrame | None = None
    ) -> np.ndarray:
        """Return what a field sees of a condition given by its columns, ``(n, width)`` float32.

        Parameters
        ----------
        condition
            A value for each column, such as ``{"drug": "A+B", "dose": 3.0}``, or a column of ``n`` values; or a data
            frame of ``n`` rows. Treatment columns that are left out are empty; the doses of a control may be left out.
        n
            The number of rows.
        obs
            A table of ``n`` rows with the categories and numbers that are not given.

        Raises
        ------
        KeyError
            When a column is missing, or is not one of `columns`.
        ValueError
            When a column has another length than ``n``; for the values, as `read`.

        Examples
        --------
        >>> import cellflow as cf
        >>> obs = pd.DataFrame({"drug": ["control", "A", "A"] * 2, "dose": [0, 1, 10] * 2})
        >>> cf.Conditions(treatment="drug", dose="dose").fit(obs).encode({"drug": "A", "dose": [0, 1, 10]}, 3).round(2)
        array([[0.  ],
               [0.52],
               [1.  ]], dtype=float32)
        """
        table = self.table(condition, n, obs=obs)
        return np.asarray(table.vectors[table.index])

    def table(
        self, condition: Mapping[str, Any] | pd.DataFrame, n: int, *, obs: pd.DataFrame | None = None
    ) -> ConditionTable:
        """Return what `encode` does as a table of different conditions, with their labels.

        Parameters
        ----------
        condition, n, obs
            As of `encode`.
        """
        return self.read(rows_of(condition, n, self, obs=obs))

    def require_control(self, table: ConditionTable) -> None:
        """Raise unless some rows of a table are controls.

        Raises
        ------
        ValueError
            When none is; the message lists the names found.
        """
        if table.is_control.any():
            return
        where, expected = " or ".join(map(repr, self.treatment or self.dose)), repr(self.control)
        if not self.treatment:
            raise ValueError(f"No control: expected cells with a dose of 0 in {where}; found {listed(table.labels)}.")
        likely = self.like_control() or "..."
        raise ValueError(
            f"No control: expected cells with {expected} in {where}; found {listed(self.names)}. Set "
            f"`control={likely!r}`, the name of the control, of `PerturbationFlow` or of `Conditions`."
        )

    def like_control(self) -> str:
        """Return a treatment of the training whose name is commonly used for controls; ``""`` if there is none."""
        same = self.control.strip().casefold()
        return next((name for name in self.names if name.strip().casefold() in {same, *CONTROLS}), "")

    def record(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            **{name: list(getattr(self, name)) for name in ("treatment", "dose", "categories", "numbers", "units")},
            "control": self.control,
            "separator": self.separator,
            "trained": list(self.trained),
            "effects": self.effects.record(),
            "scales": [[name, scale.smallest, scale.largest] for name, scale in self.scales.items()],
            "levels": [level.record() for level in self.levels],
            "moments": [list(pair) for pair in self.moments],
        }

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "FittedConditions":
        """Return what `record` wrote.

        Raises
        ------
        KeyError, TypeError, ValueError
            When it is not what `record` writes.

        Examples
        --------
        >>> import cellflow as cf
        >>> fitted = cf.Conditions(treatment="drug").fit(pd.DataFrame({"drug": ["control", "A"] * 2}))
        >>> FittedConditions.of(fitted.record()).names
        ('A',)
        """
        return read_record(cls, record)

    def _table(self, keys: list[Key], index: np.ndarray) -> ConditionTable:
        """Return the table of conditions, and which of them each row has."""
        if len(keys) * self.width > MOST:
            raise ValueError(
                f"{len(keys):,} conditions of {self.width:,} numbers each do not fit into 256 MiB. Read fewer rows at "
                "once, or give vectors of fewer numbers for names, with `Conditions(embeddings=...)`."
            )
        order = sorted(range(len(keys)), key=lambda k: (bool(keys[k][0]), *keys[k]))
        place = np.argsort(order)
        keys = [keys[k] for k in order]
        contexts = {key[1:]: k for k, key in reversed(list(enumerate(keys)))}
        vectors = np.stack([self._vector(key) for key in keys]) if keys else np.zeros((0, self.width), np.float32)
        self._say_what_is_beyond(keys)
        return ConditionTable(
            vectors=vectors,
            index=place[index] if len(index) else index,
            labels=tuple(label_of(key, self) for key in keys),
            is_control=np.array([not key[0] for key in keys], dtype=bool),
            context=np.array([contexts[key[1:]] for key in keys], dtype=np.int64),
        )

    def _say_what_is_beyond(self, keys: list[Key]) -> None:
        """Log which dose lies farthest beyond those in training, if it is far."""
        doses = {pair for key in keys for pair in key[0] if pair[1] > BEYOND * self._scale(pair[0]).largest}
        if doses:
            name, dose = max(doses, key=lambda pair: pair[1] / self._scale(pair[0]).largest)
            log.warning(
                "A dose of %s of %r is %.3g times the largest in training, %s: nothing was learned there. Is it in the "
                "same unit?",
                *(digits(dose), name, dose / self._scale(name).largest, digits(self._scale(name).largest)),
            )

    def _vector(self, key: Key) -> np.ndarray:
        """Return what a field sees of a condition, ``(width,)``."""
        treated, levels, numbers = key
        parts = [self._effect(treated)]
        for column, level, name in zip(self.categories, self.levels, levels, strict=True):
            parts.append(level.of(name, what=column))
        for column, value, (mean, spread) in zip(self.numbers, numbers, self.moments, strict=True):
            scaled = (value - mean) / spread
            if abs(scaled) > FAR:
                raise ValueError(
                    f"{value:g} in {column!r} is {abs(scaled):.0e} spreads from what was fitted, around {mean:g}. "
                    "Is it in the same units?"
                )
            parts.append(np.array([scaled], dtype=np.float32))
        return np.concatenate(parts)

    def _effect(self, treated: Treated) -> np.ndarray:
        found = np.zeros(self.effects.width, dtype=np.float32)
        what = next(iter((*self.treatment, *self.dose)), "")
        for name, dose in treated:
            amount = 1.0 if np.isnan(dose) else self._scale(name).amount(dose)
            found += np.float32(amount) * self.effects.of(name, what=what)
        return found

    def _scale(self, name: str) -> DoseScale:
        return self.scales.get(name) or DoseScale.over(self.scales.values())
