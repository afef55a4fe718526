"""The files that one data set of cells lies in: which they are, and what of anndata's is in each."""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from glob import has_magic
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

from cellflow.errors import optional
from cellflow.files import path_of

Stored: TypeAlias = str | Path | Sequence[str | Path]
"""Cells in files: the path of an .h5ad file or a zarr folder, a pattern such as "day*.h5ad", or a list of these."""
_DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError)
"""What h5py, zarr and anndata raise for files whose contents are not what they say."""
_ZARR = ("zarr.json", ".zgroup")
"""What a folder of zarr holds: of version 3, and of version 2."""
_BUSY = {
    errno.EAGAIN: "another program is writing to it. Wait until it is closed",
    errno.EMFILE: "the system allows no more open files. Allow more by `ulimit -n 4096`, or put cells into fewer files",
}
"""What the system reports of files that are whole: HDF5 has no class for it."""


def files_of(data: Stored) -> tuple[Path, ...]:
    """Return the named files; those of a pattern in the order of their names.

    A zarr folder with whole data sets, such as an annbatch collection, counts as a list of these.

    Raises
    ------
    TypeError
        When it is neither a path nor a list of paths.
    FileNotFoundError
        When one does not exist, or nothing matches the pattern.
    ValueError
        When one is named twice, or is a folder without zarr.

    Examples
    --------
    >>> files_of("nowhere*.h5ad")
    Traceback (most recent call last):
    FileNotFoundError: No file matches nowhere*.h5ad. Name .h5ad files or zarr folders.
    """
    given = [data] if isinstance(data, str | Path) else data
    if isinstance(given, dict) or not isinstance(given, Sequence) or not all(isinstance(p, str | Path) for p in given):
        raise TypeError(
            f"Expected an AnnData, the path of an .h5ad file or a zarr folder, or a list of paths; found {data!r:.60}."
        )
    found = tuple(store for each in given for path in _named(each) for store in _inside(path))
    if not found:
        raise ValueError("Expected one file or more; found an empty list.")
    places = [path.resolve() for path in found]
    twice = next((path for k, path in enumerate(found) if places[k] in places[:k]), None)
    if twice is not None:
        raise ValueError(f"{twice} is named twice: its cells would count twice. Name each file once.")
    return found


def are_several(data: Stored) -> bool:
    """Return whether it is a pattern or a list rather than the path of one file.

    Examples
    --------
    >>> are_several("day2.h5ad"), are_several("day*.h5ad"), are_several(["day2.h5ad"])
    (False, True, True)
    """
    return not isinstance(data, str | Path) or (has_magic(str(data)) and not Path(data).exists())


def labels_of(files: Sequence[Path]) -> list[str]:
    """Return what files are called in words: by their names, with as many folders as tell them apart.

    Examples
    --------
    >>> labels_of([Path("a/day2.h5ad"), Path("a/day4.zarr")]), labels_of([Path("a/x.h5ad"), Path("b/x.h5ad")])
    (['day2.h5ad', 'day4.zarr'], ['a/x.h5ad', 'b/x.h5ad'])
    """
    whole = [path.absolute() for path in files]
    for n in range(1, max((len(path.parts) for path in whole), default=0) + 1):
        found = ["/".join(path.parts[-n:]) for path in whole]
        if len(set(found)) == len(found):
            return found
    return [str(path) for path in whole]


def elements() -> Any:
    """Return the module of anndata that reads and writes elements: another before version 0.11."""
    try:
        return import_module("anndata.io")
    except ImportError:
        return import_module("anndata.experimental")


def write_element(group: Any, key: str, value: Any) -> None:
    """Write an element of an AnnData into a group of HDF5 or zarr."""
    with any_text():
        elements().write_elem(group, key, value)


@contextmanager
def any_text() -> Iterator[None]:
    """Let anndata write the text columns of pandas 3, which it does only where it is told that it may."""
    import anndata

    if getattr(anndata.settings, "allow_write_nullable_strings", True) is False:
        with anndata.settings.override(allow_write_nullable_strings=True):
            yield
    else:
        yield


@contextmanager
def opened_file(path: Path) -> Iterator[Any]:
    """Yield the root of a file, to be read: a group of HDF5 or of zarr.

    Raises
    ------
    ValueError
        When it is damaged, or holds something else than the cells of an AnnData.
    """
    if path.is_dir():
        with reading(path):
            root = optional("zarr", install="pip install zarr").open_group(str(path), mode="r")
        _check_root(root, path)
        yield root
        return
    import h5py

    with reading(path):
        file = h5py.File(path, "r")
    with file:
        _check_root(file, path)
        yield file


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say of which file it is that what is inside cannot be read.

    Raises
    ------
    ValueError
        For whatever h5py, zarr and anndata raise; permissions, and packages that are missing, are passed on.
    OSError
        When another program writes to it, or too many files are open.
    """
    try:
        yield
    except (PermissionError, ImportError):
        raise
    except _DAMAGED as error:
        number = getattr(error, "errno", None)
        if number in _BUSY:
            raise OSError(f"{path} cannot be read: {_BUSY[number]}.") from error
        raise ValueError(f"Expected the cells of an AnnData in {path}; it is damaged or has another format.") from error


@dataclass(frozen=True, eq=False)
class Store:
    """One file: its root, what it is called, and where it is."""

    root: Any
    label: str
    path: Path

    def there(self, group: str) -> list[str]:
        """Return the keys of a group; none where there is no such group."""
        return sorted(self.root[group]) if group in self.root else []

    def element(self, *where: str) -> Any:
        """Return an element as anndata reads it, in memory."""
        with reading(self.path):
            return elements().read_elem(self.root["/".join(where)])

    def matrix(self, *where: str) -> Any:
        """Return a matrix as it lies in the file, so that some rows of it can be read."""
        with reading(self.path):
            found = self.root["/".join(where)]
            if hasattr(found, "shape") and hasattr(found, "dtype"):
                return found
            kind = str(found.attrs.get("encoding-type", ""))
            return elements().sparse_dataset(found) if kind.startswith("cs") else self.element(*where)


def _check_root(root: Any, path: Path) -> None:
    with reading(path):
        there = {"obs", "var"} <= set(root)
    if not there:
        raise ValueError(f"Expected the cells of an AnnData in {path}; it is damaged or has another format.")


def _named(given: str | Path) -> list[Path]:
    path = path_of(given, name="data").expanduser()
    if not path.exists() and has_magic(str(path)):
        found = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
        if not found:
            raise FileNotFoundError(f"No file matches {given}. Name .h5ad files or zarr folders.")
        return found
    if not path.exists():
        raise FileNotFoundError(f"No file {path}. Name an .h5ad file or a zarr folder.")
    return [path]


def _inside(path: Path) -> list[Path]:
    """Return a file itself, or the data sets that a folder of zarr holds."""
    if path.is_file():
        return [path]
    if not _is_zarr(path):
        raise ValueError(f"Expected an .h5ad file or a zarr folder; {path} is a folder that holds no zarr.")
    if (path / "obs").is_dir():
        return [path]
    parts = [each for each in path.iterdir() if _is_zarr(each) and (each / "obs").is_dir()]
    return sorted(parts, key=lambda each: (len(each.name), each.name)) or [path]  # dataset_2 before dataset_10


def _is_zarr(path: Path) -> bool:
    return any((path / name).is_file() for name in _ZARR)
