"""Cells that lie in files, as one AnnData: of the matrices only the representation is read, in single precision."""

from collections.abc import Sequence
from contextlib import ExitStack
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellflow.cells.fingerprint import LOADINGS
from cellflow.cells.single import moments, read_single
from cellflow.cells.store_columns import concatenated, fresh, read_columns
from cellflow.cells.store_files import Store, Stored, files_of, labels_of, opened_file
from cellflow.cells.store_rows import Rows, check_whole
from cellflow.signature import checked_but

if TYPE_CHECKING:
    from anndata import AnnData

FROM_FILE = "from_file"
"""Column of ``obs`` that says of cells that were read from files in which one each lies."""
__all__ = ["FROM_FILE", "Stored", "as_adata", "digests_of_files", "read_stores"]


@checked_but("data")
def read_stores(
    data: Stored, *, rep: str | None = "X_pca", columns: Sequence[str] | None = None, beside: Sequence[str] | None = ()
) -> "AnnData":
    """Return the cells of one file or several as one AnnData, without reading their expression.

    Cells follow each other in the order of the files. The representation is read once, in single precision, some rows
    at a time; of a single file ``X`` stays where it is, and is read when it is needed. Where a file holds no
    representation, but the loadings of a PCA, it is computed from ``X`` through these.

    Parameters
    ----------
    data
        The path of an .h5ad file or of a zarr folder, a pattern such as ``"day*.h5ad"``, or a list of these.
    rep
        Key of the representation in ``obsm``, or ``"X"``; ``None`` for none.
    columns
        The columns of ``obs`` that are read; ``None`` for all.
    beside
        What else of ``obsm`` is read, where it is there; ``None`` for all of it.

    Returns
    -------
    AnnData
        With ``obs``, where ``obs["from_file"]`` says in which file each cell lies; the representation; ``uns`` of the
        first file; and ``var`` and ``varm`` where all files have the same genes. Cells that are called alike in several
        files have the name of the file behind their own.

    Raises
    ------
    FileNotFoundError, TypeError
        When a file is not there, or no files are named.
    KeyError
        When a file lacks the representation or a column.
    ValueError
        When a file is damaged, empty, or named twice; when files differ in the width of the representation, in what a
        column holds, or in the loadings of their PCA.

    Examples
    --------
    >>> import tempfile
    >>> import cellflow as cf
    >>> adata, folder = cf.datasets.branching(seed=0), tempfile.mkdtemp()
    >>> for day in (0, 4):
    ...     adata[adata.obs["time"] == day].write_h5ad(f"{folder}/day{day}.h5ad")
    >>> cells = read_stores([f"{folder}/day0.h5ad", f"{folder}/day4.h5ad"], rep="X_latent")
    >>> cells.obsm["X_latent"].dtype, list(cells.obs["from_file"].cat.categories)
    (dtype('float32'), ['day0.h5ad', 'day4.h5ad'])
    """
    from anndata import AnnData

    files = files_of(data)
    with ExitStack() as stack:
        roots = [stack.enter_context(opened_file(path)) for path in files]
        stores = [Store(*each) for each in zip(roots, labels_of(files), files, strict=True)]
        tables = [_table(store, columns) for store in stores]
        obs = concatenated(tables, [store.label for store in stores])
        counts = [len(table) for table in tables]
        obs[FROM_FILE] = pd.Categorical.from_codes(
            np.repeat(np.arange(len(stores)), counts), categories=pd.Index([store.label for store in stores])
        )
        del tables
        var, varm = _genes(stores)
        chosen = stores[0].there("obsm") if beside is None else beside
        common = [key for key in chosen if key != rep and all(key in store.there("obsm") for store in stores)]
        obsm = {key: _together([store.element("obsm", key) for store in stores], obs.index) for key in common}
        uns = stores[0].element("uns") if "uns" in stores[0].root else {}
        lies = _where_it_lies(stores[0]) if rep != "X" and len(stores) == 1 and len(var) else {}
        adata = AnnData(obs=obs, var=var, varm=varm, obsm=obsm, uns=uns, **lies)
        # Before the representation is there: names that were looked up keep a table, a sixth of its size.
        adata.obs.index = obs.index = fresh(obs.index)
        if rep is not None:
            x = _representation(stores, rep, _Named(obs.index, obs[FROM_FILE]))
            if rep == "X":
                adata.X = x
            else:
                adata.obsm[rep] = x
        return adata


def as_adata(
    data: "AnnData | Stored", *, rep: str, columns: Sequence[str] | None = None, beside: Sequence[str] | None = ()
) -> "AnnData":
    """Return an AnnData as it is, and the cells of files as `read_stores` reads them.

    Raises
    ------
    FileNotFoundError, TypeError, KeyError, ValueError
        As for `read_stores`.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> as_adata(adata, rep="X_latent") is adata
    True
    """
    from anndata import AnnData

    return data if isinstance(data, AnnData) else read_stores(data, rep=rep, columns=columns, beside=beside)


def digests_of_files(adata: "AnnData", *values: np.ndarray) -> dict[str, dict[str, str]]:
    """Return ``"files"``: for each file that cells were read from, a digest of their values; nothing without files.

    Parameters
    ----------
    adata
        The cells.
    *values
        Arrays of all cells, ``(n, ...)``.

    Examples
    --------
    >>> import cellflow as cf
    >>> digests_of_files(cf.datasets.branching(seed=0), np.zeros(3))
    {}
    """
    file = adata.obs.get(FROM_FILE)
    if file is None or not isinstance(file.dtype, pd.CategoricalDtype):
        return {}
    found = {}
    for k, label in enumerate(file.cat.categories):
        rows = np.flatnonzero(file.cat.codes == k)
        digest = sha256()
        if len(rows):
            dense = rows[-1] - rows[0] + 1 == len(rows)
            some = slice(rows[0], rows[-1] + 1) if dense else rows  # without a copy, where they follow each other
            for each in values:
                digest.update(np.ascontiguousarray(each[some]).data)
        found[str(label)] = digest.hexdigest()[:16]
    return {"files": found}


def _table(store: Store, columns: Sequence[str] | None) -> pd.DataFrame:
    table = read_columns(store.root, columns, path=store.path, label=store.label)
    if not len(table):
        raise ValueError(f"{store.label} holds no cells. Leave it out.")
    return table


def _genes(stores: Sequence[Store]) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the genes, and what is known of them, where all files have the same; else none."""
    tables = [store.element("var") for store in stores]
    if not all(table.index.equals(tables[0].index) for table in tables):
        return pd.DataFrame(index=pd.Index([], dtype=str)), {}
    for store in stores:
        for key in set(LOADINGS.values()) & set(store.there("varm")) & set(stores[0].there("varm")):
            if not _alike(stores[0].element("varm", key), store.element("varm", key)):
                raise ValueError(
                    f"The loadings `varm[{key!r}]` of {store.label} differ from those of {stores[0].label}: each file "
                    "has a PCA of its own, so that their columns mean different things. Compute one for all cells."
                )
    return tables[0], {key: stores[0].element("varm", key) for key in stores[0].there("varm")}


def _alike(one: Any, other: Any) -> bool:
    return np.shape(one) == np.shape(other) and bool(np.allclose(one, other, rtol=1e-4, atol=1e-6))


class _Named(Sequence[str]):
    """Names of cells, each with its file where there are several, for messages."""

    def __init__(self, names: pd.Index, file: pd.Series) -> None:
        self._names, self._file = names, file.array

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, k: Any) -> Any:
        name, file = str(self._names[k]), str(self._file[k])
        return name if len(self._file.categories) == 1 or name.endswith(f"-{file}") else f"{name} ({file})"


def _representation(stores: Sequence[Store], rep: str, names: Sequence[str]) -> np.ndarray:
    """Return the representation of all cells, float32 ``(n, d)``."""
    lacking = [store for store in stores if rep not in ([*store.there("obsm"), *(["X"] if "X" in store.root else [])])]
    through = LOADINGS.get(rep, rep)
    if lacking and all("X" in store.root and through in store.there("varm") for store in stores):
        loadings = np.asarray(stores[0].element("varm", through), dtype=np.float64)
        _same_genes(stores, why=f"{rep!r} is computed from `X`")
        x = read_single([Rows(store.matrix("X"), store.path, loadings) for store in stores], rep=rep, names=names)
        return x - moments(x)[0].astype(np.float32)
    if lacking:
        shared = [key for key in stores[0].there("obsm") if all(key in store.there("obsm") for store in stores)]
        raise KeyError(
            f"No `obsm[{rep!r}]` in {', '.join(store.label for store in lacking[:3])}. Available in every file: "
            f"{[*shared, 'X']}. Compute one for all cells first, for example with `sc.pp.pca`, or set `rep`."
        )
    if rep == "X":
        _same_genes(stores, why="the representation is `X`")
    parts = [store.matrix(*(("X",) if rep == "X" else ("obsm", rep))) for store in stores]
    for store, part in zip(stores, parts, strict=True):
        if len(part.shape) != 2:
            raise ValueError(
                f"Expected numbers of shape (cells, dimensions) in {rep!r} of {store.label}; found shape "
                f"{tuple(part.shape)}."
            )
        columns, first = (list(getattr(each, "columns", ())) for each in (part, parts[0]))
        if part.shape[1] == parts[0].shape[1] and columns != first:
            raise ValueError(f"The columns of {rep!r} in {store.label} are others than in {stores[0].label}.")
        if part.shape[1] != parts[0].shape[1]:
            raise ValueError(
                f"{rep!r} has {parts[0].shape[1]} columns in {stores[0].label} and {part.shape[1]} in {store.label}. "
                "Compute one representation for all cells together."
            )
        if rep != "X":
            check_whole(part, what=repr(rep), where=store.label)
    rows = [Rows(part, store.path) for store, part in zip(stores, parts, strict=True)]
    return read_single(rows, rep=rep, names=names)


def _same_genes(stores: Sequence[Store], *, why: str) -> None:
    first = stores[0].element("var").index
    for store in stores[1:]:
        if not store.element("var").index.equals(first):
            raise ValueError(
                f"The genes of {store.label} are others than those of {stores[0].label}, or in another order, where "
                f"{why}. Bring all files to the same genes."
            )


def _together(parts: Sequence[Any], names: pd.Index) -> Any:
    """Return matrices of some cells each, one below the other."""
    if len(parts) == 1 and not isinstance(parts[0], pd.DataFrame):
        return parts[0]
    if isinstance(parts[0], pd.DataFrame):
        return pd.concat(parts).set_axis(names)
    return np.concatenate([part.toarray() if hasattr(part, "toarray") else part for part in parts])


def _where_it_lies(store: Store) -> dict[str, Any]:
    """Return how an AnnData is told where its expression is; nothing where there is none."""
    if "X" not in store.root:
        return {}
    return {"X": store.matrix("X")} if store.path.is_dir() else {"filename": store.path, "filemode": "r"}
