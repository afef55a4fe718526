"""Doses: numbers, or numbers with one unit ("10 nM"), and the scale on which a field sees them."""

import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np

from cellflow.cells.treatments import is_missing

NAMED = 5
"""Offending values that a message shows."""
DECADE = 10.0
"""How many times smaller than the smallest dose the control is on the scale, as in plots of dose and response."""
_FORM = re.compile(r"\s*(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(?P<unit>(?:[^\W\d]|%).*?)?\s*")
_MICRO = str.maketrans({"\N{MICRO SIGN}": "u", "\N{GREEK SMALL LETTER MU}": "u"})


@dataclass(frozen=True)
class DoseScale:
    """The scale on which doses of one treatment are seen, from 0 at dose 0 to 1 at the largest dose of a training.

    A dose ``d`` is seen as ``log1p(d / u) / log1p(largest / u)``, where ``u`` is a tenth of the smallest dose: linear
    below ``u``, the logarithm of the dose above it, and more than 1 beyond the largest dose.

    Parameters
    ----------
    smallest, largest
        The smallest and the largest dose above 0 in training, in the units of the column.

    Examples
    --------
    >>> scale = DoseScale.of([0.0, 1.0, 10.0, 100.0])
    >>> [round(scale.amount(dose), 2) for dose in (0.0, 1.0, 10.0, 100.0)]
    [0.0, 0.35, 0.67, 1.0]
    """

    smallest: float = 1.0
    largest: float = 1.0

    @classmethod
    def of(cls, doses: Iterable[float]) -> "DoseScale":
        """Return the scale of the doses of a training; that of a dose of 1 if none is above 0."""
        above = [dose for dose in doses if dose > 0]
        return cls(min(above), max(above)) if above else cls()

    @classmethod
    def over(cls, scales: Collection["DoseScale"]) -> "DoseScale":
        """Return the scale of the doses of several treatments, for a treatment without its own scale."""
        return cls.of([scale.smallest for scale in scales] + [scale.largest for scale in scales])

    @property
    def curvature(self) -> float:
        """How bent the scale is: ``expm1(curvature * amount) / expm1(curvature)`` is the dose over the largest one."""
        return _log1p(self.largest, self.smallest)

    def amount(self, dose: float) -> float:
        """Return what a field sees of a dose."""
        return 0.0 if dose == 0 else _log1p(dose, self.smallest) / self.curvature


def _log1p(dose: float, smallest: float) -> float:
    """Return ``log1p(dose / u)``, whatever the range of doses is."""
    return float(np.logaddexp(0.0, math.log(dose) - math.log(smallest) + math.log(DECADE)))


def read_dose(value: Any, *, column: str, separator: str | None) -> tuple[tuple[float, ...], str]:
    """Return the dose, or one for each name of a combination, and the unit; empty if the value is missing.

    Parameters
    ----------
    value
        A number, a text such as ``"10"``, ``"10 nM"``, ``"1 nM+3 nM"``, or a missing value.
    column
        Name of the column, for a message.
    separator
        The separator between the doses of a combination.

    Raises
    ------
    ValueError
        When it is neither, when a dose is negative or not finite, or when there are several units.

    Examples
    --------
    >>> read_dose("10 nM", column="dose", separator="+"), read_dose(3, column="dose", separator="+")
    (((10.0,), 'nM'), ((3.0,), ''))
    """
    if is_missing(value) or value == "":
        return (), ""
    found = [_number(value)]
    if isinstance(value, str) and separator and (found[0] is None or separator in found[0][1]):  # "1e+3" is a number
        several = [_number(text) for text in value.split(separator)]
        found = found if None in several and None not in found else several
    if None in found:
        raise ValueError(
            f"Expected amounts in the dose column {column!r}, numbers or numbers with a unit such as '10 nM'; found "
            f"{value!r}. Write numbers, for example `adata.obs[{column!r}] = adata.obs[{column!r}].map({{{value!r}: "
            "1.0, ...}).astype(float)`."
        )
    pairs = [each for each in found if each is not None]
    bad = [dose for dose, _ in pairs if not (math.isfinite(dose) and dose >= 0)]
    if bad:
        cure = (
            f"Amounts are not logarithms: a log10 dose is turned back with `10.0 ** adata.obs[{column!r}]`; leave "
            "other cells out first."
            if math.isfinite(bad[0])
            else "No finite amount is that: fill it in, or leave these cells out."
        )
        raise ValueError(f"Expected doses of 0 or more in {column!r}; found {bad[0]:g}. {cure}")
    return tuple(dose for dose, _ in pairs), one_unit(pairs, column=column)


def one_unit(doses: Iterable[tuple[float, str]], *, column: str) -> str:
    """Return the only unit of doses; ``""`` for numbers without one, and a 0 needs none.

    Raises
    ------
    ValueError
        When there are several, or some have one and others do not.

    Examples
    --------
    >>> one_unit([(10.0, "nM"), (0.0, ""), (3.0, "nM")], column="dose")
    'nM'
    """
    given = list(doses)
    found = sorted({unit for _, unit in given} - {""})
    bare = next((dose for dose, unit in given if dose and not unit), None)
    if found and bare is not None:
        raise ValueError(
            f"Expected doses in one unit in {column!r}; found some in {found[0]!r} and {digits(bare)} without a unit. "
            f"Write the unit with each, such as '{digits(bare)} {found[0]}', or with none: 1 uM is 1000 nM."
        )
    if len(found) > 1:
        shown = ", ".join(map(repr, found[:NAMED]))
        raise ValueError(
            f"Expected doses in one unit in {column!r}; found {shown}. Convert them to one, as numbers: 1 uM is 1000 "
            "nM."
        )
    return found[0] if found else ""


def digits(number: float) -> str:
    """Return a number with as many digits as needed to distinguish it from every other.

    Examples
    --------
    >>> digits(3.0), digits(1e9), digits(1000001.0), digits(0.1)
    ('3', '1e+09', '1000001', '0.1')
    """
    short = f"{number:g}"
    return short if float(short) == number else repr(float(number)).removesuffix(".0")


def _number(value: Any) -> tuple[float, str] | None:
    """Return a dose and its unit; ``None`` where it is neither a number nor text with one."""
    if isinstance(value, str):
        match = _FORM.fullmatch(value.translate(_MICRO))
        return None if match is None else (_rounded(float(match["number"])), match["unit"] or "")
    number = number_of(value)
    return None if number is None else (number, "")


def number_of(value: Any) -> float | None:
    """Return a real number, or numeric text, as a number; ``None`` for anything else: truth values, lengths of time.

    It has 15 digits, or fewer for a less precise type: 0.1 + 0.2 is 0.3, and so is 0.3 as float32.

    Examples
    --------
    >>> number_of("3"), number_of(True), number_of(2), number_of(0.1 + 0.2), number_of(np.float32(0.3))
    (3.0, None, 2.0, 0.3, 0.3)
    """
    if is_missing(value) or isinstance(value, bool | np.bool_ | np.timedelta64 | np.datetime64 | np.complexfloating):
        return None
    if not isinstance(value, str) and not isinstance(value, Real | Decimal):
        return None
    try:
        return _rounded(float(str(value) if isinstance(value, np.float32 | np.float16) else value))
    except (ValueError, OverflowError):
        return None


def _rounded(number: float) -> float:
    """Return a number without the error of rounding in its last digits."""
    found = float(f"{number:.15g}")
    return found if math.isfinite(found) else number
