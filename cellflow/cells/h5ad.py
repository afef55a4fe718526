"""Reading files of cells, which may be damaged or hold something else."""

from pathlib import Path

import anndata
from anndata import AnnData
from anndata._io.specs.registry import IORegistryError  # what it raises for kinds of data that it does not know

_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError, IORegistryError)
"""What anndata, h5py and zarr raise for files whose contents are not what they say."""


def read_adata(path: Path) -> AnnData:
    """Return the cells in an .h5ad file or a .zarr folder.

    Raises
    ------
    FileNotFoundError, PermissionError
        When the file does not exist or may not be read.
    ValueError
        When it has another suffix, is damaged, or holds something else.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "cells.h5ad"
    >>> _ = path.write_bytes(b"something else")
    >>> read_adata(path)
    Traceback (most recent call last):
    ValueError: Expected the cells of an AnnData in ...cells.h5ad; it is damaged or has another format.
    """
    reader = {".h5ad": anndata.read_h5ad, ".zarr": anndata.read_zarr}.get(path.suffix)
    if reader is None:
        raise ValueError(f"Expected an .h5ad file or a .zarr folder; found {path}.")
    if not path.exists():
        raise FileNotFoundError(f"No file {path}.")
    try:
        return reader(path)
    except PermissionError:
        raise
    except _UNREADABLE as error:
        raise ValueError(f"Expected the cells of an AnnData in {path}; it is damaged or has another format.") from error
