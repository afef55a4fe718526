"""What values read from a file have to be, and the sentences that say when they are not."""

import reprlib
from collections.abc import Callable, Mapping
from itertools import pairwise
from math import inf, isfinite
from sys import float_info
from typing import Any, NamedTuple, TypeGuard

from cellflow.errors import CheckpointError


class Kind(NamedTuple):
    """A kind of value: what it is called in a message, and whether a value is of it."""

    expected: str
    holds: Callable[[Any], bool]


def is_whole(value: Any) -> TypeGuard[int]:
    """Return whether a value is a whole number, which ``True`` is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> TypeGuard[int | float]:
    """Return whether a value is a number, perhaps infinite or NaN; ``True`` is not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def whole(least: int, most: int = 2**63 - 1) -> Kind:
    """Return the kind of whole numbers in a range.

    Examples
    --------
    >>> [whole(1).holds(value) for value in (3, 0, 3.0, True, None)]
    [True, False, False, False, False]
    """
    return Kind(f"a whole number from {least} on", lambda value: is_whole(value) and least <= value <= most)


def number(least: float = -inf, *, above: bool = False) -> Kind:
    """Return the kind of finite numbers of at least, or above, ``least``.

    Examples
    --------
    >>> [number(0, above=True).holds(value) for value in (3, 0, float("inf"), "3")]
    [True, False, False, False]
    """
    limit = "" if least == -inf else f" {'above' if above else 'of at least'} {least:g}"
    return Kind(
        f"a finite number{limit}",
        lambda value: is_number(value) and isfinite(value) and (value > least if above else value >= least),
    )


TRUTH = Kind("true or false", lambda value: isinstance(value, bool))
TEXT = Kind("a text", lambda value: isinstance(value, str))
ANYTHING = Kind("anything", lambda value: True)


def one_of(*choices: object) -> Kind:
    """Return the kind of a few values."""
    return Kind(
        f"one of {', '.join(map(repr, choices))}",
        lambda value: any(type(value) is type(choice) and value == choice for choice in choices),
    )


def maybe(kind: Kind) -> Kind:
    """Return a kind of which ``None`` is a value too."""
    return Kind(f"{kind.expected}, or nothing", lambda value: value is None or kind.holds(value))


def many(kind: Kind, *, least: int = 0, most: float = inf) -> Kind:
    """Return the kind of lists of a number of values of one kind.

    Examples
    --------
    >>> many(whole(1), least=2).holds([3, 4]), many(whole(1), least=2).holds([3])
    (True, False)
    """
    size = f"{least}" if least == most else f"at least {least}" if most == inf else f"{least} to {most}"
    return Kind(
        f"a list of {size} values, each {kind.expected}",
        lambda value: isinstance(value, list) and least <= len(value) <= most and all(map(kind.holds, value)),
    )


def table(kind: Kind) -> Kind:
    """Return the kind of objects whose values are of one kind.

    Examples
    --------
    >>> table(TEXT).holds({"torch": "2.13"}), table(TEXT).holds({"torch": 2})
    (True, False)
    """
    return Kind(
        f"an object whose values are each {kind.expected}",
        lambda value: isinstance(value, dict) and all(map(kind.holds, value.values())),
    )


def _is_history(value: Any) -> bool:
    if not isinstance(value, dict) or not all(isinstance(column, list) for column in value.values()):
        return False
    if len({len(column) for column in value.values()}) > 1 or (value and not {"loss", "learning_rate"} <= value.keys()):
        return False
    numbers = all(is_number(entry) for column in value.values() for entry in column)
    return numbers and all(map(isfinite, value.get("loss", [])))


HISTORY = Kind("the terms of every step: lists of numbers, all as long as that of a finite `loss`", _is_history)


def _is_times(value: Any) -> bool:
    if not many(number(), least=2).holds(value) or not all(a < b for a, b in pairwise(value)):
        return False
    span = float(value[-1]) - float(value[0])
    return isfinite(span) and span > 1 / float_info.max  # what velocities are divided by, and multiplied with


TIMES = Kind("at least two finite numbers that increase, and not by nearly nothing", _is_times)
OBJECT = Kind("an object", lambda value: isinstance(value, dict))


def check_record(
    found: Any,
    required: Mapping[str, Kind],
    optional: Mapping[str, Kind] | None = None,
    *,
    what: str,
    cure: str,
    under: str = "",
) -> None:
    """Refuse an object that lacks keys, has unknown keys, or holds values of another kind.

    Parameters
    ----------
    found
        What was read.
    required, optional
        Kinds of its values, by key.
    what
        The file and what it should describe, in words.
    cure
        Sentence that says what to do.
    under
        Key of the object itself.

    Raises
    ------
    CheckpointError
        With the first such key, what was expected, and what was found.

    Examples
    --------
    >>> check_record({"step": -1}, {"step": whole(0)}, what="state describes no training", cure="Start again.")
    Traceback (most recent call last):
    cellflow.errors.CheckpointError: state describes no training: expected `step` to be a whole number from 0 on;
    found -1. Start again.
    """
    kinds, dotted = {**required, **(optional or {})}, f"{under}." if under else ""
    if not isinstance(found, dict):
        raise CheckpointError(
            f"{what}: expected {f'`{under}` to be ' if under else ''}an object; found {shown(found)}. {cure}"
        )
    for name in required:
        if name not in found:
            raise CheckpointError(f"{what}: it lacks `{dotted}{name}`, {kinds[name].expected}. {cure}")
    for name, value in found.items():
        if name not in kinds:
            raise CheckpointError(
                f"{what}: it holds `{dotted}{name[:100]}`, which this version does not know. Update cellflow. {cure}"
            )
        if not kinds[name].holds(value):
            raise CheckpointError(
                f"{what}: expected `{dotted}{name}` to be {kinds[name].expected}; found {shown(value)}. {cure}"
            )


def shown(value: Any) -> str:
    """Return a value as Python writes it, shortened.

    Examples
    --------
    >>> shown([0.5] * 1000)
    '[0.5, 0.5, 0.5, 0.5, 0.5, 0.5, ...]'
    """
    text = repr(value[:120]) if isinstance(value, str) else reprlib.repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
