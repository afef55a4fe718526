"""Rows of a matrix in a file: as they are, or genes through the loadings of a PCA."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from cellflow.cells.store_files import reading

CHUNK = 512
"""Rows that annbatch fetches in one piece."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a matrix in a file.

    Parameters
    ----------
    values
        The matrix ``(n, width)``: of HDF5, of zarr, sparse, or in memory.
    path
        The file, for messages; ``None`` where they are in memory.
    loadings
        What it is multiplied by, ``(width, d)``; ``None`` for the matrix itself.

    Examples
    --------
    >>> rows = Rows(np.eye(3, dtype=np.float32), Path("cells.h5ad"), np.ones((3, 2)))
    >>> rows.shape, [block.tolist() for block in rows.blocks(3)]
    ((3, 2), [[[1.0, 1.0], [1.0, 1.0]], [[1.0, 1.0]]])
    """

    values: Any
    path: Path | None = None
    loadings: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, through the loadings."""
        return tuple(self.values.shape) if self.loadings is None else (self.values.shape[0], self.loadings.shape[1])

    def blocks(self, step: int) -> Iterator[Any]:
        """Yield some rows at a time; annbatch fetches them where it is installed and knows the kind of file.

        Raises
        ------
        ValueError
            When the file is damaged there.
        """
        wide = self.values.shape[1] if self.loadings is not None else 1
        step = max(1, step if self.loadings is None else step * self.shape[1] // max(wide, 1))
        found = self._fetched(step) if _by_annbatch(self.values) else self._cut(step)
        while True:
            with nullcontext() if self.path is None else reading(self.path):
                block = next(found, None)
            if block is None:
                return
            if self.loadings is not None:
                block = np.asarray(block @ self.loadings)
            yield block

    def _cut(self, step: int) -> Iterator[Any]:
        values = self.values
        if getattr(values, "format", "") == "csc":  # from columns no rows can be cut
            values = (values.to_memory() if hasattr(values, "to_memory") else values).tocsr()
        values = getattr(values, "iloc", values)
        for start in range(0, self.shape[0], step):
            yield values[start : min(start + step, self.shape[0])]

    def _fetched(self, step: int) -> Iterator[Any]:
        from annbatch import Loader

        chunks = max(1, step // CHUNK)
        loader = Loader(
            chunk_size=CHUNK,
            preload_nchunks=chunks,
            batch_size=CHUNK * chunks,
            shuffle=False,
            preload_to_gpu=False,
            to_torch=False,
        )
        for batch in loader.add_dataset(self.values):
            yield batch["X"]


def _by_annbatch(values: Any) -> bool:
    """Return whether annbatch is there, and reads such a matrix: in zarr, dense or sparse by rows."""
    if find_spec("annbatch") is None:
        return False
    lies = getattr(values, "group", values)
    return type(lies).__module__.split(".")[0] == "zarr" and getattr(values, "format", "csr") == "csr"


def check_whole(values: Any, *, what: str, where: str) -> None:
    """Refuse an array of zarr that lacks chunks: zarr itself reads zeros for them.

    Raises
    ------
    ValueError
        When some are missing.
    """
    expected, there = getattr(values, "nchunks", 0), getattr(values, "nchunks_initialized", 0)
    if there < expected:
        raise ValueError(
            f"{what} in {where} is truncated: {expected - there} of its {expected} chunks are missing. Copy the file "
            "again, or rewrite it."
        )
