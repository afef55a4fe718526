"""A matrix of cells, wherever it lies, in single precision: read once, some rows at a time."""

import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellflow.cells.store_rows import Rows
from cellflow.shapes import as_states

if TYPE_CHECKING:
    import pandas as pd

AT_ONCE = 2**20
"""Numbers that are read at a time: 8 MiB in double precision."""


def read_single(
    parts: Sequence[Any], *, rep: str, names: "Sequence[str] | pd.Index", columns: int | None = None, copy: bool = True
) -> np.ndarray:
    """Concatenate matrices of cells into one float32 matrix ``(n, d)``.

    Each may be an array, a data frame, sparse, or lie in a file: HDF5, zarr, or memory-mapped. Besides the result only
    some rows are in memory at a time. A memory-mapped matrix in single precision is not copied.

    Parameters
    ----------
    parts
        Matrices ``(cells, d)`` of the same width.
    rep
        What messages call them.
    names
        The names of all cells, ``(n,)``.
    columns
        How many of the first columns are read; ``None`` for all.
    copy
        Whether to copy an array that already has the right form.

    Raises
    ------
    ValueError
        When they hold anything but real, finite numbers, or differences that single precision does not keep.

    Examples
    --------
    >>> read_single([np.zeros((2, 3)), np.ones((1, 3))], rep="X_pca", names=["a", "b", "c"], columns=2)
    array([[0., 0.],
           [0., 0.],
           [1., 1.]], dtype=float32)
    """
    width = parts[0].shape[1] if columns is None else columns
    ready = _ready(parts[0], copy) if len(parts) == 1 and width == parts[0].shape[1] else None
    kept = np.empty((sum(part.shape[0] for part in parts), width), dtype=np.float32) if ready is None else ready
    bad: list[np.ndarray] = []
    lost, low, high, start = 0.0, np.inf, -np.inf, 0
    for block in _blocks(parts if ready is None else [ready], rep):
        here, values = slice(start, start + len(block)), block[:, :width]
        start = here.stop
        finite = np.isfinite(values).all(axis=1)
        bad.append(here.start + np.flatnonzero(~finite))
        if ready is None:
            with np.errstate(over="ignore", invalid="ignore"):
                kept[here] = values
        if values.dtype != np.float32 and finite.any() and values.size:
            known = values[finite].astype(np.float64)
            lost = max(lost, float(np.abs(kept[here][finite] - known).max()))
            low, high = min(low, float(known.min())), max(high, float(known.max()))
    _refuse(np.concatenate([*bad, np.empty(0, dtype=int)]), len(kept), names, rep)
    if lost > 0 and lost > 1e-3 * (high - low):
        raise ValueError(
            f"The values of {rep!r} lose their differences in single precision: they are huge, or far from zero "
            "relative to their spread. Subtract their mean, or rescale them, first."
        )
    return kept


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the standard deviation of each column, in double precision, some rows at a time.

    Examples
    --------
    >>> moments(np.array([[0.0, 1.0], [2.0, 1.0]], dtype=np.float32))
    (array([1., 1.]), array([1., 0.]))
    """
    blocks = list(in_blocks(x))
    mean = sum(x[some].sum(axis=0, dtype=np.float64) for some in blocks) / len(x)
    square = sum(np.square(x[some] - mean).sum(axis=0) for some in blocks) / len(x)
    return mean, np.sqrt(square)


def in_blocks(x: np.ndarray) -> Iterator[slice]:
    """Yield which rows of a matrix are held in double precision at a time.

    Examples
    --------
    >>> list(in_blocks(np.zeros((3, 2))))
    [slice(0, 3, None)]
    """
    step = max(1, AT_ONCE // max(x.shape[1], 1))
    for start in range(0, len(x), step):
        yield slice(start, min(start + step, len(x)))


def _blocks(parts: Sequence[Any], rep: str) -> Iterator[np.ndarray]:
    """Yield some rows at a time, as plain numbers."""
    for part in parts:
        rows = part if isinstance(part, Rows) else Rows(part)
        for block in rows.blocks(max(1, AT_ONCE // max(part.shape[1], 1))):
            yield as_states(block, what=repr(rep)).numpy()


def _ready(part: Any, copy: bool) -> np.ndarray | None:
    """Return an array that is as it shall be; a mapped file such that writing to the result does not change it."""
    if not isinstance(part, np.ndarray) or part.dtype != np.dtype(np.float32) or not part.flags.c_contiguous:
        return None
    if isinstance(part, np.memmap) and isinstance(part.base, mmap.mmap) and part.filename is not None:
        return _mapped_again(part)
    return part if not copy and part.flags.writeable else None


def _mapped_again(part: np.memmap) -> np.ndarray | None:
    """Return the same numbers in a mapping of one's own; ``None`` where its file was removed, or replaced since."""
    if not (path := Path(str(part.filename))).is_file():
        return None
    again = np.memmap(path, np.float32, mode="c", offset=part.offset, shape=part.shape)
    ends = [0, -1] if len(part) else []
    return again if np.array_equal(again[ends], part[ends], equal_nan=True) else None


def _refuse(bad: np.ndarray, n: int, names: "Sequence[str] | pd.Index", rep: str) -> None:
    """Refuse rows that are not finite."""
    if len(bad):
        first = ", ".join(str(names[k]) for k in bad[:3])
        raise ValueError(f"{len(bad)} of {n} cells have NaN or infinite values in {rep!r}, for example {first}.")
