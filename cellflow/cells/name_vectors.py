"""Vectors that stand for names: one axis for each name, or what the user gives, for names never seen as well."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cellflow.cells.treatments import name_of

NAMED = 5
"""Names that a message shows."""
MOST = 2**24
"""Most numbers in one table, 64 MiB."""


@dataclass(frozen=True, eq=False)
class NameVectors:
    """A vector for each name.

    Parameters
    ----------
    names
        The names.
    vectors
        The vector of each, ``(m, w)`` float32; ``None`` if each has its own axis.

    Examples
    --------
    >>> NameVectors(("A", "B")).of("B", what="drug")
    array([0., 1.], dtype=float32)
    """

    names: tuple[str, ...]
    vectors: np.ndarray | None = None

    @property
    def width(self) -> int:
        """The length of a vector."""
        return len(self.names) if self.vectors is None else self.vectors.shape[1]

    def of(self, name: str, *, what: str) -> np.ndarray:
        """Return the vector of a name, ``(width,)``.

        Raises
        ------
        ValueError
            When there is none; the message lists the available names.
        """
        found = self._rows.get(name)
        if found is None:
            cure = (
                f"Add its vector to `embeddings[{what!r}]`"
                if self.vectors is not None
                else f"Give vectors for names, `Conditions(embeddings={{{what!r}: table}})`, and fit again, to predict "
                "names that were not in training"
            )
            raise ValueError(f"No {name!r} in {what!r}: training had {listed(self.names)}. {cure}.")
        if self.vectors is None:
            axis: np.ndarray = np.eye(1, self.width, found, dtype=np.float32)[0]
            return axis
        vector: np.ndarray = self.vectors[found]
        return vector

    @property
    def _rows(self) -> dict[str, int]:
        if "_found" not in self.__dict__:
            object.__setattr__(self, "_found", {name: row for row, name in enumerate(self.names)})
        rows: dict[str, int] = self.__dict__["_found"]
        return rows

    def plain(self) -> dict[str, tuple[float, ...]]:
        """Return the vectors by name, as numbers."""
        rows = np.eye(self.width) if self.vectors is None else self.vectors
        return {name: tuple(row.tolist()) for name, row in zip(self.names, rows, strict=True)}

    def unit(self, names: Iterable[str], *, what: str) -> "NameVectors":
        """Return the vectors in units of their root mean square length over some names, that of an axis being 1.

        Raises
        ------
        ValueError
            When one of these names has no vector; when all of their vectors are 0.
        """
        if self.vectors is None:
            return self
        known = list(names)
        lacking = [name for name in known if name not in self._rows]
        if lacking:
            raise ValueError(
                f"`embeddings[{what!r}]` has no vector for {listed(lacking)}, which the data hold. It has "
                f"{listed(self.names)}. Add the vectors, or leave these cells out."
            )
        chosen = self.vectors[[self._rows[name] for name in known]].astype(np.float64)
        length = float(np.sqrt(np.square(chosen).sum(axis=1).mean())) if known else 1.0
        if not length > 0:
            raise ValueError(f"All vectors of `embeddings[{what!r}]` for names in the data are 0.")
        return NameVectors(self.names, (self.vectors / length).astype(np.float32))

    def record(self) -> dict[str, Any]:
        """Return it as JSON; vectors as the bytes of their numbers."""
        found: dict[str, Any] = {"names": list(self.names)}
        if self.vectors is not None:
            found["vectors"] = base64.b64encode(self.vectors.astype("<f4").tobytes()).decode("ascii")
        return found

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> "NameVectors":
        """Return what `record` wrote.

        Raises
        ------
        KeyError, TypeError, ValueError
            When it is not what `record` writes.
        """
        names = texts(record["names"], what="names")
        if record.keys() - {"names", "vectors"}:
            raise ValueError("Expected only names and vectors; found more.")
        if "vectors" not in record:
            return cls(names)
        numbers = np.frombuffer(base64.b64decode(record["vectors"], validate=True), dtype="<f4")
        if not names or not numbers.size or numbers.size % len(names) or not np.isfinite(numbers).all():
            raise ValueError(
                f"Expected finite vectors of one length for {len(names)} names; found {numbers.size} numbers."
            )
        return cls(names, numbers.reshape(len(names), -1).astype(np.float32))


def texts(value: Any, *, what: str) -> tuple[str, ...]:
    """Return different texts from JSON.

    Raises
    ------
    TypeError, ValueError
        When they differ from that.
    """
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise TypeError(f"Expected a list of texts in `{what}`; found {type(value).__name__}.")
    if len(set(value)) < len(value):
        raise ValueError(f"Expected different texts in `{what}`; found one twice.")
    return tuple(value)


def listed(names: Sequence[str]) -> str:
    """Return the first names of a list for a message."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return (", ".join(map(repr, names[:NAMED])) or "nothing") + more


def read_vectors(given: Any, *, what: str) -> NameVectors:
    """Return a table of vectors by name.

    Parameters
    ----------
    given
        A data frame with a name in the index of each row, or a mapping from each name to its vector.
    what
        What a message calls the table.

    Raises
    ------
    TypeError
        When it is neither.
    ValueError
        When it is empty; when vectors differ in length or are not finite; when a name is missing or
        there twice.

    Examples
    --------
    >>> read_vectors({"A": [1.0, 0.0], "B": [0.5, 0.5]}, what="vectors").width
    2
    """
    if isinstance(given, pd.DataFrame):
        keys: list[Any] = list(given.index)
        rows: list[Any] = list(given.to_numpy(dtype=object))
    elif isinstance(given, Mapping):
        keys, rows = list(given), list(given.values())
    else:
        raise TypeError(
            f"Expected a data frame with names as its index, or a mapping from names to vectors, in {what}; found "
            f"{type(given).__name__}."
        )
    names = [name_of(key) for key in keys]
    known = [name for name in names if name is not None]
    if not known or len(known) < len(names):
        raise ValueError(f"Expected a name for each vector in {what}; found {len(names)} vectors, {len(known)} names.")
    twice = [name for name, count in pd.Series(known).value_counts().items() if count > 1]
    if twice:
        raise ValueError(
            f"Expected one vector for each name in {what}; found several for {listed(list(map(str, twice)))}."
        )
    vectors = [_vector(row, name=name, what=what) for name, row in zip(known, rows, strict=True)]
    widths = {len(vector): name for vector, name in zip(vectors, known, strict=True)}
    if len(widths) > 1 or 0 in widths:
        shown = ", ".join(f"{width} for {name!r}" for width, name in sorted(widths.items())[:NAMED])
        raise ValueError(f"Expected vectors of one length, 1 or more, in {what}; found {shown}.")
    if len(vectors) * len(vectors[0]) > MOST:
        raise ValueError(
            f"Expected at most {MOST:,} numbers in {what}; found {len(vectors)} vectors of {len(vectors[0])}. Keep the "
            "names that you will predict, or reduce the vectors with a PCA."
        )
    return NameVectors(tuple(known), np.array(vectors, dtype=np.float32))


def _vector(row: Any, *, name: str, what: str) -> np.ndarray:
    """Return one vector."""
    if isinstance(row, Mapping):
        inner = f"{name}/{next(iter(row), '...')}"
        raise ValueError(
            f"Expected numbers for {name!r} in {what}; found a mapping. Files split names at '/', such as {inner!r}: "
            "keep the table as a data frame with names as its index, which is stored as it is."
        )
    try:
        vector = np.asarray(row).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Expected numbers for {name!r} in {what}; found {row!r:.60}.") from error
    if vector.ndim != 1:
        raise ValueError(f"Expected one row of numbers for {name!r} in {what}; found shape {vector.shape}.")
    with np.errstate(over="ignore"):
        if not np.isfinite(vector.astype(np.float32)).all():
            raise ValueError(
                f"Expected finite numbers for {name!r} in {what}; found NaN or infinity. Fill them, or leave it out."
            )
    return vector
