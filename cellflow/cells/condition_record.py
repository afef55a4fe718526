"""What conditions have learned as JSON, read without trust."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cellflow.cells.doses import DoseScale
from cellflow.cells.name_vectors import NameVectors, texts

if TYPE_CHECKING:
    from cellflow.cells.fitted_conditions import FittedConditions

_COLUMNS = ("treatment", "dose", "categories", "numbers")
_OTHERS = ("units", "control", "separator", "trained", "effects", "scales", "levels", "moments")


def read_record(kind: type["FittedConditions"], record: Mapping[str, Any]) -> "FittedConditions":
    """Return fitted conditions from their record.

    Raises
    ------
    KeyError, TypeError, ValueError
        When it is not what `FittedConditions.record` writes.
    """
    if not isinstance(record, Mapping) or record.keys() != {*_COLUMNS, *_OTHERS}:
        raise ValueError(f"Expected conditions with {[*_COLUMNS, *_OTHERS]}; found others.")
    columns = {name: texts(record[name], what=name) for name in _COLUMNS}
    control, separator = record["control"], record["separator"]
    if not isinstance(control, str) or not (separator is None or (isinstance(separator, str) and separator)):
        raise TypeError("Expected texts in `control` and `separator`; found others.")
    found = kind(
        **columns,
        control=control,
        separator=separator,
        effects=NameVectors.of_record(record["effects"]),
        scales={name: DoseScale(smallest, largest) for name, smallest, largest in _triples(record["scales"])},
        units=_units(record["units"]),
        levels=tuple(NameVectors.of_record(level) for level in _list(record["levels"], "levels")),
        moments=tuple(_pair(pair) for pair in _list(record["moments"], "moments")),
        trained=texts(record["trained"], what="trained"),
    )
    _check(found)
    return found


def _check(found: "FittedConditions") -> None:
    """Refuse parts that contradict each other."""
    lengths = {
        "units": (len(found.units), len(found.dose)),
        "levels": (len(found.levels), len(found.categories)),
        "moments": (len(found.moments), len(found.numbers)),
        "dose": (len(found.dose), len(found.dose) if not found.treatment else min(len(found.dose), 1)),
    }
    if len(found.dose) == len(found.treatment):
        del lengths["dose"]
    for name, (has, expected) in lengths.items():
        if has != expected:
            raise ValueError(f"Expected {expected} values in `{name}` of conditions; found {has}.")
    if len(found.columns) != sum(len(getattr(found, name)) for name in _COLUMNS) or not found.columns:
        raise ValueError("Expected different columns, one or more, in conditions; found others.")
    if set(found.trained) - set(found.effects.names) or (found.dose and set(found.scales) != set(found.trained)):
        raise ValueError("Expected vectors and scales for all treatments of conditions; found others.")


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"Expected a list in `{what}` of conditions; found {type(value).__name__}.")
    return value


def _units(value: Any) -> tuple[str, ...]:
    if not all(isinstance(each, str) for each in _list(value, "units")):
        raise TypeError("Expected texts in `units` of conditions; found others.")
    return tuple(value)


def _numbers(value: Any, n: int, *, least: float) -> tuple[float, ...]:
    right = isinstance(value, list) and len(value) == n
    if not right or not all(isinstance(each, int | float) and not isinstance(each, bool) for each in value):
        raise TypeError(f"Expected {n} numbers in conditions; found {value!r:.60}.")
    if not all(math.isfinite(each) for each in value) or not value[-1] > 0 or min(value) < least:
        raise ValueError(
            f"Expected finite numbers of {least:g} or more in conditions, the last above 0; found {value}."
        )
    return tuple(map(float, value))


def _pair(value: Any) -> tuple[float, float]:
    mean, spread = _numbers(value, 2, least=-math.inf)
    return mean, spread


def _triples(value: Any) -> list[tuple[str, float, float]]:
    """Return names with the smallest and the largest dose of each."""
    found = []
    for each in _list(value, "scales"):
        if not isinstance(each, list) or len(each) != 3 or not isinstance(each[0], str):
            raise TypeError(f"Expected a name and two doses in `scales` of conditions; found {each!r:.60}.")
        smallest, largest = _numbers(each[1:], 2, least=0)
        if not 0 < smallest <= largest:
            raise ValueError(f"Expected doses above 0 in `scales` of conditions; found {smallest} to {largest}.")
        found.append((each[0], smallest, largest))
    if len({name for name, *_ in found}) < len(found):
        raise ValueError("Expected one scale for each treatment; found several.")
    return found
