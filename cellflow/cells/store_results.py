"""Results of tools, written into the files that the cells came from: as a whole, or not at all."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellflow.cells.store_columns import read_columns
from cellflow.cells.store_files import Stored, files_of, labels_of, opened_file, write_element
from cellflow.cells.store_writing import GONE, Changes, written
from cellflow.cells.stores import FROM_FILE, read_stores

if TYPE_CHECKING:
    from anndata import AnnData

OF_CELLS, OF_ALL = ("obs", "obsm", "layers"), ("varm", "uns")
"""Where results are written: of which each file gets the rows of its own cells, and all files the same."""
_FAMILIES = {
    "string-array": "labels", "categorical": "labels", "nullable-string-array": "labels", "array": "numbers",
    "nullable-integer": "numbers", "nullable-boolean": "numbers", "csr_matrix": "a sparse matrix",
    "csc_matrix": "a sparse matrix", "dataframe": "a table", "dict": "a mapping",
}  # fmt: skip
"""What an element is in words, by how anndata says that it is encoded."""


@dataclass(frozen=True, eq=False)
class _Before:
    """What an AnnData held: its columns, and everything else by identity, mappings by that of what they hold."""

    obs: pd.DataFrame
    held: dict[tuple[str, str], Any]

    @classmethod
    def of(cls, cells: "AnnData") -> "_Before":
        places = ("obsm", "layers", *OF_ALL)
        held = {(place, key): value for place in places for key, value in getattr(cells, place).items()}
        return cls(cells.obs.copy(deep=False), {k: dict(v) if isinstance(v, Mapping) else v for k, v in held.items()})

    def changes(self, cells: "AnnData") -> Changes:
        """Return what is there now, and was not, or is another; and what is gone."""
        now = _Before.of(cells)
        gone = [where for where in self.held if where not in now.held]
        gone += [("obs", str(name)) for name in self.obs.columns if name not in now.obs and name != FROM_FILE]
        found = {where: value for where, value in now.held.items() if not _is(value, self.held.get(where))}
        for name in now.obs.columns:
            if name != FROM_FILE and (name not in self.obs or not self.obs[name].equals(now.obs[name])):
                column = now.obs[name]
                found["obs", str(name)] = pd.Categorical(column) if column.dtype == object else column.values
        return found | dict.fromkeys(gone, GONE)


def _is(value: Any, before: Any) -> bool:
    if not isinstance(value, dict):
        return value is before
    return isinstance(before, dict) and value.keys() == before.keys() and all(value[k] is before[k] for k in value)


@contextmanager
def results_of(data: Stored, *, rep: str | None, beside: Sequence[str] | None = ()) -> Iterator["AnnData"]:
    """Yield the cells of files; what is written into them goes to the files at the end, but for ``X``.

    Results for cells go to the file of each, those of all to every file. A file of HDF5 is replaced by a copy, which
    takes as much room beside it meanwhile; in a folder of zarr only what is new is written. Either is what it was until
    all of it is written, and where anything fails it stays so.

    Parameters
    ----------
    data, rep, beside
        As for `cellflow.cells.read_stores`.

    Raises
    ------
    FileNotFoundError, TypeError, KeyError, ValueError
        As for `cellflow.cells.read_stores`; and when a key holds something of another kind already.
    PermissionError
        When a file may not be written to; before anything is computed.
    OSError
        When it cannot be written, such as on a full disk.

    Examples
    --------
    >>> import anndata, tempfile
    >>> import cellflow as cf
    >>> path = f"{tempfile.mkdtemp()}/cells.h5ad"
    >>> cf.datasets.branching(seed=0).write_h5ad(path)
    >>> with results_of(path, rep="X_latent") as cells:
    ...     cells.obsm["twice"] = 2 * cells.obsm["X_latent"]
    >>> anndata.read_h5ad(path, backed="r").obsm["twice"].shape
    (1600, 2)
    """
    files = files_of(data)
    for path in files:
        _check_writable(path)
    cells = read_stores(data, rep=rep, beside=beside)
    before = _Before.of(cells)
    yield cells
    found = before.changes(cells)
    rows = {label: np.flatnonzero(cells.obs[FROM_FILE] == label) for label in labels_of(files)}
    if cells.isbacked:
        cells.file.close()
    parts = []
    for path, (label, some) in zip(files, rows.items(), strict=True):
        with opened_file(path) as root:
            names = read_columns(root, [], path=path, label=label).index  # as they are called there
            parts.append((path, _rows_of(found, some, names)))
            _check_kinds(root, parts[-1][1], label)
    with ExitStack() as stack:
        for path, part in parts:
            stack.enter_context(written(path, part))


def _rows_of(found: Changes, rows: np.ndarray, names: pd.Index) -> Changes:
    """Return what one file gets."""
    return {
        (place, key): value
        if place not in OF_CELLS or value is GONE
        else value.iloc[rows].set_axis(names)
        if isinstance(value, pd.DataFrame)
        else value[rows]
        for (place, key), value in found.items()
    }


def _check_writable(path: Path) -> None:
    place = path.resolve()  # of a link, what it leads to is written
    if not (os.access(place, os.W_OK) and os.access(place.parent, os.W_OK)):
        raise PermissionError(
            f"{path} is read-only: results cannot be written into it. Make it and its folder writable, or read the "
            "cells with `cf.cells.read_stores`, which results are then written into."
        )


def _check_kinds(root: Any, part: Changes, label: str) -> None:
    """Refuse to replace what is of another kind than a result."""
    import h5py

    with h5py.File("kinds", "w", driver="core", backing_store=False) as scratch:
        for (place, key), value in part.items():
            if value is GONE or place not in root or key not in root[place]:
                continue
            write_element(scratch, "one", value[:1] if place in OF_CELLS else value)
            then, now = (
                _FAMILIES.get(kind, kind)
                for kind in (str(each.attrs.get("encoding-type", "")) for each in (root[place][key], scratch["one"]))
            )
            if then != now:
                raise ValueError(
                    f"`{place}[{key!r}]` of {label} holds {then} already, and the result is {now}. Give it another "
                    "name with `key_added`, or remove what is there."
                )
            del scratch["one"]
