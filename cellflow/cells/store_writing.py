"""Elements of an AnnData written into its file: nothing of it is changed until all is written."""

import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cellflow.cells.store_files import write_element
from cellflow.files import committed, system_error, unwritable

Changes = Mapping[tuple[str, str], Any]
"""What was written: under the place and the key of each, its values, or `GONE`."""
GONE = object()
"""Stands for what was removed, such as the intervals of an earlier result."""


def written(path: Path, part: Changes) -> AbstractContextManager[None]:
    """Write elements into a file of HDF5 or a folder of zarr: beside it on entry, and into its place at the end.

    Raises
    ------
    OSError
        When it cannot be written, such as on a full disk.
    """
    return _zarr(path, part) if path.is_dir() else _h5ad(path, part)


@contextmanager
def _h5ad(path: Path, part: Changes) -> Iterator[None]:
    """Write into a copy of a file, which takes its place at the end."""
    import h5py

    path = path.resolve()  # of a link, what it leads to is replaced
    new = path.with_name(f".{path.stem}.{os.getpid()}.results{path.suffix}")
    for left in path.parent.glob(f".{escape(path.stem)}.*.results{escape(path.suffix)}"):  # by one that was killed
        left.unlink()
    try:
        with _writing(path):
            shutil.copy(path, new)
            with h5py.File(new, "r+") as file:
                for (place, key), value in part.items():
                    group = _group(file, place)
                    if key in group:
                        del group[key]
                    if value is not GONE:
                        write_element(group, key, value)
                _name_columns(file, part)
        yield
        with committed(path) as partial:
            new.replace(partial)
    finally:
        new.unlink(missing_ok=True)


@contextmanager
def _zarr(path: Path, part: Changes) -> Iterator[None]:
    """Write beside a folder of zarr, and move what is written into it at the end."""
    import zarr

    path = path.resolve()  # a link may lead to another disk, from which nothing is moved in one step
    root = zarr.open_group(
        str(path), mode="r+", use_consolidated=False
    )  # or groups keep an old copy of what is in them
    beside = path.with_name(f".{path.stem}.{os.getpid()}.partial.zarr")
    try:
        with _writing(path), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of zarr and anndata about formats that the user has chosen
            new = zarr.open_group(str(beside), mode="w", zarr_format=_version(path))
            for number, value in enumerate(part.values()):
                if value is not GONE:
                    write_element(new, str(number), value)
        yield
        moves = []
        for number, ((place, key), value) in enumerate(part.items()):
            target = Path(path, _group(root, place).path, key)
            moves += [(target, beside / f"old{number}")] if target.exists() else []
            moves += [(beside / str(number), target)] if value is not GONE else []
        with _writing(path):
            consolidated = _forget_consolidated(path)
            _move(moves)
        _name_columns(root, part)
        if consolidated:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                zarr.consolidate_metadata(str(path))
    finally:
        with suppress(FileNotFoundError):
            shutil.rmtree(beside)


def _move(moves: Sequence[tuple[Path, Path]]) -> None:
    """Rename one after the other; where one fails, those before are undone."""
    done: list[tuple[Path, Path]] = []
    try:
        for here, there in moves:
            here.rename(there)
            done.append((here, there))
    except BaseException:
        for here, there in reversed(done):
            there.rename(here)
        raise


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Say of which file it is that it cannot be written, as on a full disk."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # HDF5 has no class for a full disk
        cause = system_error(error)
        if cause is None:
            raise
        raise unwritable(path, cause) from error


def _group(root: Any, place: str) -> Any:
    if place not in root:
        write_element(root, place, {})
    return root[place]


def _name_columns(root: Any, part: Changes) -> None:
    """Say which columns there are: of a table that is what anndata goes by."""
    there = [str(name) for name in root["obs"].attrs["column-order"]]
    of_cells = {key: value for (place, key), value in part.items() if place == "obs"}
    order = [name for name in dict.fromkeys([*there, *of_cells]) if of_cells.get(name) is not GONE]
    if order != there:
        root["obs"].attrs["column-order"] = np.array(order, dtype=object) if hasattr(root, "mode") else order


def _version(path: Path) -> Literal[2, 3]:
    return 3 if (path / "zarr.json").is_file() else 2


def _forget_consolidated(path: Path) -> bool:
    """Remove the copy of all metadata that readers believe, until all is there again; return whether there was one."""
    older, newer = path / ".zmetadata", path / "zarr.json"
    if older.is_file():
        older.unlink()
        return True
    about = json.loads(newer.read_text()) if newer.is_file() else {}
    if about.pop("consolidated_metadata", None) is None:
        return False
    with committed(newer) as partial:
        partial.write_text(json.dumps(about, indent=2))
    return True
