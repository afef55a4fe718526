"""Names of treatments, in every form in which pandas holds them, and the sets that combinations of them are."""

from collections.abc import Callable, Hashable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

Treated = tuple[tuple[str, float], ...]
"""The treatments of a condition, in alphabetical order, each with its dose; NaN where no doses are given."""


def is_missing(value: Any) -> bool:
    """Return whether a value of a column is missing, in whichever way.

    Examples
    --------
    >>> [is_missing(value) for value in (None, float("nan"), pd.NA, "", 0)]
    [True, True, True, False, False]
    """
    nothing = value is None or value is pd.NA or value is pd.NaT
    return nothing or (isinstance(value, float | np.floating | Decimal) and bool(value != value))


def name_of(value: Any) -> str | None:
    """Return a value of a column as a name; ``None`` where it is missing.

    Whole numbers have no decimals, and no name has spaces around it.

    Examples
    --------
    >>> name_of("DMSO "), name_of(3.0), name_of(True), name_of(float("nan"))
    ('DMSO', '3', 'True', None)
    """
    if is_missing(value):
        return None
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return stripped(str(value))


def stripped(name: str) -> str:
    """Return a name without spaces around it; spaces alone are one.

    Examples
    --------
    >>> stripped(" A "), stripped("  ")
    ('A', '  ')
    """
    return name.strip() or name


def quoted(text: str, marks: Sequence[str]) -> str:
    """Return a text in quotes if it holds one of some marks, or begins as if it were in quotes.

    Examples
    --------
    >>> quoted("a", [", "]), quoted("a, b", [", "]), quoted("a, b", [])
    ('a', "'a, b'", 'a, b')
    """
    return repr(text) if marks and (text[:1] in ("'", '"') or any(mark in text for mark in marks)) else text


def joined(names: Sequence[str]) -> str:
    """Return one text for several names, which no other names in that number have.

    Examples
    --------
    >>> joined(["a", "b"]), joined(["a, b", "c"]), joined(["a", "b, c"]), joined(["a, b"])
    ('a, b', "'a, b', c", "a, 'b, c'", 'a, b')
    """
    return names[0] if len(names) == 1 else ", ".join(quoted(name, [", "]) for name in names)


def joined_columns(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Return one text for each row of several columns of names ``(n,)``, the same for the same names alone.

    Examples
    --------
    >>> joined_columns([np.array(["a", "b"]), np.array(["x", "x"])]).tolist()
    ['a, x', 'b, x']
    """
    rows, place = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
    return np.array([joined(row) for row in rows.tolist()], dtype=str)[place.reshape(-1)]


def coded(column: pd.Series, read: Callable[[Any], Any] = name_of) -> tuple[np.ndarray, list[Any]]:
    """Return the different values of a column as read, and which of them each row has, ``(n,)``.

    Parameters
    ----------
    column
        A column of any type.
    read
        What makes a hashable thing of a value.

    Raises
    ------
    TypeError
        When a value is a list, an array, or another thing that is neither text nor a number.

    Examples
    --------
    >>> coded(pd.Series(["b", "a", None, "b"], dtype="category"))
    (array([0, 1, 2, 0]), ['b', 'a', None])
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        values, first = [*column.cat.categories, None], column.cat.codes.to_numpy().astype(np.int64)
        first[first < 0] = len(values) - 1
    elif _mixed(column):  # 1, 1.0 and True are one key of a mapping, and are not one name
        keys, table = zip(map(type, column.array), column.array, strict=True), dict[Any, int]()
        first = np.array([table.setdefault(key if key[1] == key[1] else None, len(table)) for key in keys])
        values = [None if key is None else key[1] for key in table]
    else:
        first, unique = pd.factorize(column, use_na_sentinel=False)
        values = [*unique.to_numpy()] if unique.dtype in ("float32", "float16") else list(unique)  # of their precision
    turned, found = np.zeros(len(values), dtype=np.int64), dict[Any, int]()
    for code in pd.unique(first):
        turned[code] = found.setdefault(read(values[code]), len(found))
    return turned[first], list(found)


def _mixed(column: pd.Series) -> bool:
    """Return whether a column holds things of several types, apart from missing ones.

    Raises
    ------
    TypeError
        When some are lists or arrays.
    """
    if column.dtype != object:
        return False
    kinds = set(map(type, column.array[~column.isna().to_numpy()]))
    strange = [kind for kind in kinds if not issubclass(kind, Hashable)]
    if strange:
        raise TypeError(f"Expected names or numbers in {column.name!r}; found {strange[0].__name__}.")
    return len(kinds) > 1


def names_in(value: str | None, *, separator: str | None, column: str, control: str) -> tuple[str, ...]:
    """Return the names of a combination, the control among them; in the order given, perhaps twice.

    Raises
    ------
    ValueError
        When there is nothing before or after a separator.

    Examples
    --------
    >>> names_in("B + A+control", separator="+", column="drug", control="control")
    ('B', 'A', 'control')
    """
    if value is None:
        return ()
    if not separator or separator not in value or value == control:
        return (value,)
    names = [part.strip() for part in value.split(separator)]
    if "" in names and control != "":
        raise ValueError(
            f"{value!r} in {column!r} has no name on one side of {separator!r}, which separates the names of a "
            f"combination. If {separator!r} is part of a name, set `separator=None`, or to what separates yours."
        )
    return tuple(names)


def treated(pairs: Sequence[tuple[str, float]], *, added: bool) -> Treated:
    """Return treatments as a set: without those at dose 0, each name once.

    Parameters
    ----------
    pairs
        Names, each with its dose; NaN where there is none.
    added
        Whether doses of the same name add up, as those that are given for each do; else they are one dose.

    Examples
    --------
    >>> treated([("B", 1.0), ("A", 0.0), ("B", 2.0)], added=True)
    (('B', 3.0),)
    """
    found: dict[str, float] = {}
    for name, dose in pairs:
        if dose != 0:
            found[name] = found[name] + dose if added and name in found else dose
    return tuple(sorted(found.items()))
