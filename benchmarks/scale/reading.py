"""Reading a representation: peak memory above what the process had, beside the size of the representation.

The rows of ten million cells in h5ad files are newer than the others, and of another machine: names now lose the table
of where each of them is before the representation is read, which took up to a third of its size.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

import cellflow as cf
from benchmarks.rows import Row
from benchmarks.scale.case import Case, Watch
from cellflow.cells.store_files import elements

ROWS = 100_000
"""Cells that are made, and written, at a time."""


def read(watch: Watch, *, form: str, cells: int, files: int = 1, dim: int = 50) -> Row:
    """Read the representation, the times and the names of cells in one file or several, in double precision there."""
    with TemporaryDirectory() as folder:
        paths = [_written(Path(folder, f"day{k:03}"), form, cells // files, dim, seed=k) for k in range(files)]
        with watch:
            found = cf.cells.read_stores(paths, columns=["day"])
        size = found.obsm["X_pca"].nbytes / 2**30
        return {"representation_gib": size, "above_by_size": watch.row["above_gib"] / size}


def _written(path: Path, form: str, cells: int, dim: int, *, seed: int) -> Path:
    """Write cells as anndata does, without ever holding all of them."""
    import h5py
    import zarr

    path = path.with_suffix(".h5ad" if form == "h5ad" else ".zarr")
    root: Any = h5py.File(path, "w") if form == "h5ad" else zarr.open_group(str(path), mode="w", zarr_format=3)
    names = pd.Index([f"{seed}-{k}" for k in range(cells)])
    days = pd.DataFrame({"day": np.arange(cells) % 5}, index=names)
    for name, element in {
        "obs": days,
        "var": pd.DataFrame(index=pd.Index([], dtype=str)),
        "obsm": {},
        "uns": {},
    }.items():
        elements().write_elem(root, name, element)
    if form == "h5ad":
        values = root["obsm"].create_dataset("X_pca", (cells, dim), dtype="f8", chunks=(1000, dim))
    else:
        sharded = {"shards": (10_000, dim)} if form == "sharded" else {}
        values = root["obsm"].create_array("X_pca", shape=(cells, dim), dtype="f8", chunks=(1000, dim), **sharded)
    values.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    rng = np.random.default_rng(seed)
    for start in range(0, cells, ROWS):
        stop = min(start + ROWS, cells)
        values[start:stop] = rng.normal(size=(stop - start, dim))
    if form == "h5ad":
        root.close()
    return path


def _cases(cells: tuple[int, ...], several: int) -> list[Case]:
    return [
        Case(read, {"form": form, "cells": n, "files": files}, f"{n:,} x 50, {form}, files: {files}", reach="<= 1.5 x")
        for n in cells
        for form in ("h5ad", "zarr", "sharded")
        for files in (1, several)
    ]


CASES = {"small": _cases((20_000,), 4), "full": _cases((1_000_000, 10_000_000), 10)}
