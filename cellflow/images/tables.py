"""A table beside images: a row for each image, which says what it shows (drug, dose, plate, well)."""

import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from torch import Tensor

from cellflow.errors import unknown
from cellflow.files import path_of
from cellflow.images.files import image_paths
from cellflow.images.labels import labels_by_folder, named_labels
from cellflow.renamed import warn

FILE = "file"
"""Default name of the column with the files."""
Table = pd.DataFrame | str | Path
"""Forms in which a table can be given."""
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_MISSING = ("", "NA", "NaN", "nan")
"""What stands for a missing value: fewer words than pandas takes, for ``"None"`` may name a control."""
_NAMED = 5
"""Files that a message names."""


def read_table(table: Table, *, folder: Path | None = None, file_column: str = FILE) -> pd.DataFrame:
    """Return a table with at least one row, and columns of different names.

    Parameters
    ----------
    table
        The table, or its file: .csv or .tsv, gzipped or not, with a header.
    folder
        Folder of the images, in which the file is also looked for.
    file_column
        Column with the files, which is read as text.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When it is not a table, has no rows, or has two columns of one name; or the folder and the working directory
        each hold such a file.

    Examples
    --------
    >>> read_table(pd.DataFrame({"file": ["a.png"], "drug": ["A"]})).columns.tolist()
    ['file', 'drug']
    """
    if isinstance(table, pd.DataFrame):
        frame, where = table.copy(), "the table"
    else:
        path = _found(path_of(table, name="table"), folder)
        frame, where = _from_file(path, file_column), str(path)
    if not len(frame):
        raise ValueError(f"Expected a row for each image in {where}; found none.")
    twice = [name for name, count in Counter(frame.columns).items() if count > 1]
    if twice:
        raise ValueError(f"Expected columns of different names in {where}; found {twice[0]!r} twice. Rename one.")
    return frame


def by_file(
    frame: pd.DataFrame, names: Sequence[str], *, folder: Path | None = None, file_column: str = FILE
) -> tuple[list[int], pd.DataFrame]:
    """Return the image of each row of a table, and the table with the names of the images as its index.

    Parameters
    ----------
    frame
        The table.
    names
        Names of the images: their paths below the folder.
    folder
        The folder, for files that are named by their whole path.
    file_column
        Column with the files.

    Raises
    ------
    KeyError
        When the column does not exist.
    FileNotFoundError
        When a file is not among the images.
    ValueError
        When a row names no file, or two rows name the same.

    Warns
    -----
    UserWarning
        When the table has no row for some of the images.

    Examples
    --------
    >>> rows, obs = by_file(pd.DataFrame({"file": ["b.png", "a.png"], "dose": [1, 0]}), ["a.png", "b.png"])
    >>> rows, obs.loc["a.png", "dose"].item()
    ([1, 0], 0)
    """
    if file_column not in frame:
        raise KeyError(
            f"The table has no column {file_column!r} with the file of each image. Available: {list(frame.columns)}. "
            "Set `file_column`."
        )
    nowhere = np.flatnonzero(frame[file_column].isna())
    if len(nowhere):
        raise ValueError(f"Row {nowhere[0]} of the table names no file. Leave such rows out ({len(nowhere)}).")
    files = [_below(value, folder) for value in frame[file_column]]
    twice = [name for name, count in Counter(files).items() if count > 1]
    if twice:
        raise ValueError(
            f"Expected one row for each image; the table has more for {len(twice)}: {_listed(twice)}. Keep one of each."
        )
    numbers = {name: number for number, name in enumerate(names)}
    lacking = [name for name in files if name not in numbers]
    if lacking:
        raise FileNotFoundError(
            f"{len(lacking)} of {len(files)} files of the table are no pictures in {folder or 'the set'}: "
            f"{_listed(lacking)}.{_elsewhere(lacking[0], names)} Name files by their path below the folder, and leave "
            "out rows without one."
        )
    if len(files) < len(names):
        left = sorted(numbers.keys() - set(files))
        warn(f"Left out {len(left)} of {len(names)} pictures, for which the table has no row: {_listed(left)}.")
    return [numbers[name] for name in files], frame.set_axis(files, axis=0)


def pictures_of(folder: Path, table: Table | None, file_column: str) -> tuple[list[Path], pd.DataFrame | None]:
    """Return the images in a folder, or those that a table names, in its order, and the table.

    Raises
    ------
    FileNotFoundError, KeyError, ValueError
        As for `cellflow.images.files.image_paths`, `read_table` and `by_file`.
    """
    paths = image_paths(folder)
    if table is None:
        return paths, None
    frame = read_table(table, folder=folder, file_column=file_column)
    rows, obs = by_file(frame, names_of(paths, folder), folder=folder, file_column=file_column)
    return [paths[row] for row in rows], obs


def names_of(paths: Sequence[Path], folder: Path) -> tuple[str, ...]:
    """Return the names of images: their paths below their folder."""
    return tuple(path.relative_to(folder).as_posix() for path in paths)


def in_order(frame: pd.DataFrame, n: int) -> pd.DataFrame:
    """Return the table of images without names: a row for each, in order.

    Raises
    ------
    ValueError
        When it has more or fewer rows.
    """
    if len(frame) != n:
        raise ValueError(f"Expected a row of the table for each of {n} images, in their order; found {len(frame)}.")
    return frame


def labels_of(
    asked: str | Sequence[int | str] | np.ndarray | Tensor, names: tuple[str, ...] | None, obs: pd.DataFrame | None
) -> tuple[Tensor, tuple[str, ...]]:
    """Return the label of each image and the names of the classes: as given, by folder, or from a column of the table.

    Raises
    ------
    ValueError
        When a table has no such column, or the column has no label for an image; as for `labels_by_folder`.

    Examples
    --------
    >>> labels_of("drug", None, pd.DataFrame({"drug": ["B", "A"]}))
    (tensor([1, 0]), ('A', 'B'))
    """
    if not isinstance(asked, str):
        return named_labels(asked)
    if obs is None or asked == "folder":
        return labels_by_folder(names)
    if asked not in obs:
        raise ValueError(unknown("column of the table", asked, obs.columns))
    missing = int(obs[asked].isna().sum())
    if missing:
        raise ValueError(f"{missing} of {len(obs)} images have no label in column {asked!r} of the table.")
    return named_labels(obs[asked].astype(str).tolist())


def part_of(obs: pd.DataFrame | None, rows: Tensor) -> pd.DataFrame | None:
    """Return the rows of some images.

    Examples
    --------
    >>> import torch
    >>> part_of(pd.DataFrame({"dose": [0, 1, 2]}), torch.tensor([2, 0]))["dose"].tolist()
    [2, 0]
    """
    return None if obs is None else obs.iloc[rows.cpu().numpy()]


def _found(path: Path, folder: Path | None) -> Path:
    """Return where the file of a table is: in the folder of the images, or where its path says."""
    places = [place for place in ([] if folder is None else [folder / path]) + [path] if place.is_file()]
    if not places:
        also = "" if folder is None else f" nor in {folder}"
        raise FileNotFoundError(f"No table {path}{also}. The working directory is {Path.cwd()}.")
    if len(places) > 1 and not places[0].samefile(places[1]):
        raise ValueError(f"There are two tables, {places[0]} and {places[1].resolve()}. Give the whole path of one.")
    return places[0]


def _from_file(path: Path, file_column: str) -> pd.DataFrame:
    ending = Path(path.stem if path.suffix == ".gz" else path.name).suffix.lower()
    if ending not in _SEPARATORS:
        raise ValueError(
            f"Expected a table in .csv or .tsv, gzipped or not; found {path}. Others are read by pandas: "
            "`table=pd.read_excel(...)`."
        )
    try:
        frame = pd.read_csv(
            path,
            sep=_SEPARATORS[ending],
            dtype={file_column: str},
            na_values=list(_MISSING),
            keep_default_na=False,
            low_memory=False,  # one type a column
        )
    except (ValueError, OverflowError, EOFError, zlib.error) as error:  # of pandas and gzip
        raise ValueError(f"{path} cannot be read as a table ({error}).") from error
    if not isinstance(frame.index, pd.RangeIndex):
        raise ValueError(f"Expected as many values in a row of {path} as its header has names; found more.")
    return frame


def _below(value: object, folder: Path | None) -> str:
    """Return the path of a file below the folder, with the separators of POSIX."""
    path = PurePosixPath(str(value).strip().replace("\\", "/"))
    for root in () if folder is None else (folder, folder.resolve()):
        if path.is_relative_to(root.as_posix()) and path.is_absolute():
            return path.relative_to(root.as_posix()).as_posix()
    return path.as_posix()


def _elsewhere(name: str, names: Sequence[str]) -> str:
    same = [other for other in names if PurePosixPath(other).name == PurePosixPath(name).name]
    return f" There is {same[0]!r}." if same else ""


def _listed(words: Sequence[str]) -> str:
    more = f" and {len(words) - _NAMED} more" if len(words) > _NAMED else ""
    return ", ".join(map(repr, words[:_NAMED])) + more
