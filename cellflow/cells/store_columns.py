"""Columns of ``obs`` out of files: only those that are asked for, and from several files one below the other."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cellflow.cells.store_files import elements, reading

_KINDS = {
    "numbers": pd.api.types.is_numeric_dtype,
    "spans of time": pd.api.types.is_timedelta64_dtype,
    "dates": pd.api.types.is_datetime64_any_dtype,
}


def read_columns(root: Any, columns: Sequence[str] | None, *, path: Path, label: str) -> pd.DataFrame:
    """Return the names of the cells in a file, and columns of its ``obs``.

    Parameters
    ----------
    root
        The file, opened.
    columns
        Which ones; ``None`` for all.
    path, label
        Where the file is, and what messages call it.

    Raises
    ------
    KeyError
        When a column is missing.
    ValueError
        When the file is damaged there.
    """
    with reading(path):
        group, about = root["obs"], dict(root["obs"].attrs)
        there = [str(name) for name in about["column-order"]]
    wanted = there if columns is None else list(dict.fromkeys(columns))
    missing = [name for name in wanted if name not in there]
    if missing:
        raise KeyError(f"No `obs[{missing[0]!r}]` in {label}. Available: {there}.")
    with reading(path):
        names = pd.Index(np.asarray(elements().read_elem(group[about["_index"]])).astype(object), dtype=object)
        return pd.DataFrame({name: elements().read_elem(group[name]) for name in wanted}, index=names)


def concatenated(tables: Sequence[pd.DataFrame], labels: Sequence[str]) -> pd.DataFrame:
    """Concatenate tables of cells, with names that are unique.

    If names recur from file to file, each is followed by the name of its file. Columns that a file lacks are missing
    (NaN) there.

    Parameters
    ----------
    tables
        One for each file.
    labels
        What the files are called.

    Raises
    ------
    ValueError
        When a column holds numbers in one file, and text or dates in another.

    Examples
    --------
    >>> one = pd.DataFrame({"day": [2]}, index=["a"])
    >>> concatenated([one, one + 2], ["day2.h5ad", "day4.h5ad"])
                 day
    a-day2.h5ad    2
    a-day4.h5ad    4
    """
    if len(tables) == 1:
        return tables[0].copy(deep=False)
    names = [table.index for table in tables]
    together = names[0].append(names[1:])
    if fresh(together).has_duplicates and all(fresh(each).is_unique for each in names):
        parts = [each.astype(str) + f"-{label}" for each, label in zip(names, labels, strict=True)]
        together = parts[0].append(parts[1:])
    columns = dict.fromkeys(name for table in tables for name in table.columns)
    return pd.DataFrame({name: _column(name, tables, labels) for name in columns}, index=together)


def fresh(names: pd.Index) -> pd.Index:
    """Return names without the table in which pandas keeps where each of them is, once it has looked for one."""
    found: pd.Index = pd.Index(names.array, name=names.name)
    return found


def _column(name: str, tables: Sequence[pd.DataFrame], labels: Sequence[str]) -> Any:
    """Return one column of all files: categories are those of any."""
    has = [k for k, table in enumerate(tables) if name in table]
    parts = [tables[k][name] for k in has]
    kinds = [_kind(part) for part in parts]
    other = next((k for k, kind in enumerate(kinds) if kind != kinds[0]), None)
    if other is not None:
        raise ValueError(
            f"`obs[{name!r}]` holds {kinds[0]} in {labels[has[0]]} and {kinds[other]} in {labels[has[other]]}. Write "
            "the same kind into all files."
        )
    held = [part.dtype.categories.dtype if isinstance(part.dtype, pd.CategoricalDtype) else None for part in parts]
    if held[0] is not None and all(kind == held[0] for kind in held):
        found = pd.Series(pd.api.types.union_categoricals(parts, ignore_order=True))
    else:
        found = pd.concat([_plain(part) for part in parts], ignore_index=True)
    if len(has) == len(tables):
        return found.array if isinstance(found.dtype, pd.CategoricalDtype) else found.to_numpy()
    if found.dtype == bool:  # plain truth values cannot be missing
        found = found.astype("boolean")
    sizes = [len(table) for table in tables]
    lies = np.isin(np.repeat(np.arange(len(tables)), sizes), has)
    return found.set_axis(np.flatnonzero(lies)).reindex(np.arange(sum(sizes))).array


def _plain(column: pd.Series) -> pd.Series:
    """Return a column as what its categories are; numbers that are missing are NaN."""
    if not isinstance(column.dtype, pd.CategoricalDtype):
        return column
    kind = column.cat.categories.dtype
    return column.astype(np.float64 if kind.kind in "iu" and column.isna().any() else kind)


def _kind(column: pd.Series) -> str:
    """Return in words what a column holds."""
    dtype = column.dtype.categories.dtype if isinstance(column.dtype, pd.CategoricalDtype) else column.dtype
    if pd.api.types.is_bool_dtype(dtype):
        return "truth values"
    return next((words for words, holds in _KINDS.items() if holds(dtype)), "text")
