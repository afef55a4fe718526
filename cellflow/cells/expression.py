"""Expression as it is stored, and where asked genes stand in it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellflow.cells.name_vectors import listed

if TYPE_CHECKING:
    from anndata import AnnData

AT_ONCE = 2**24
"""Numbers that are held densely at a time: 128 MiB."""
_CLOSE = 3


@dataclass(frozen=True, eq=False)
class Expression:
    """Expression of cells, dense, sparse or on disk, and the names of its genes.

    Parameters
    ----------
    values
        ``(cells, genes)``.
    names
        Names of the genes, in the order of the columns.
    where
        Where it is stored, for messages.
    """

    values: Any
    names: pd.Index
    where: str

    def dense(self, rows: np.ndarray, columns: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return the expression of some cells and genes as float64, dense."""
        found = self.values[np.sort(rows)]  # in order: files are read so
        found = found[:, columns]
        found = np.asarray(found.toarray() if hasattr(found, "toarray") else found, dtype=np.float64)
        return np.asarray(found[np.argsort(np.argsort(rows))])

    def parts(self, rows: np.ndarray) -> Iterator[tuple[slice, Any]]:
        """Yield the expression of cells in parts, as float64; sparse if it is stored sparse."""
        step = max(1, AT_ONCE // max(len(self.names), 1))
        for start in range(0, len(rows), step):
            some = slice(start, min(start + step, len(rows)))
            found = self.values[rows[some]]
            yield some, found.astype(np.float64) if hasattr(found, "tocsr") else np.asarray(found, dtype=np.float64)


def read_expression(adata: "AnnData", *, layer: str | None = None, use_raw: bool = False) -> Expression:
    """Return the expression in ``X``, in a layer, or in ``raw``, without a copy.

    Raises
    ------
    KeyError
        When there is none, or no such layer.
    ValueError
        When both a layer and ``raw`` are requested.

    Examples
    --------
    >>> import cellflow as cf
    >>> read_expression(cf.datasets.hsmm(), layer="fpkm").values.shape
    (271, 2002)
    """
    if layer is not None and use_raw:
        raise ValueError(f"Expected `layer` or `use_raw`; found both, {layer!r} and True. Choose one.")
    if use_raw:
        if adata.raw is None:
            raise KeyError(
                "There is no `adata.raw`. Leave `use_raw` out, or set `adata.raw = adata` before the change."
            )
        return Expression(adata.raw.X, adata.raw.var_names, "adata.raw")
    if layer is not None:
        if layer not in adata.layers:
            raise KeyError(f"No `adata.layers[{layer!r}]`. Available: {list(adata.layers)}.")
        return Expression(adata.layers[layer], adata.var_names, f"adata.layers[{layer!r}]")
    if adata.X is None or not adata.n_vars:
        raise KeyError("There is no expression in `adata.X`. Fill it, name a `layer`, or set `use_raw=True`.")
    return Expression(adata.X, adata.var_names, "adata.X")


def places_of(names: pd.Index, genes: Sequence[str], *, where: str = "adata") -> np.ndarray:
    """Return where genes stand among names, in the given order ``(k,)``.

    Raises
    ------
    KeyError
        When there is no such gene; the message shows those that are spelled alike.
    ValueError
        When a gene is there several times, or none are asked for.

    Examples
    --------
    >>> places_of(pd.Index(["GATA1", "SPI1"]), ["SPI1"])
    array([1])
    >>> places_of(pd.Index(["GATA1", "SPI1"]), ["gata1"])
    Traceback (most recent call last):
    KeyError: "No gene 'gata1' in `adata`. Is it 'GATA1'?"
    """
    if not len(genes):
        raise ValueError("Expected the names of one gene or more; found none.")
    where = where if " " in where else f"`{where}`"  # words, or code
    known = pd.Index(names).astype(str)
    asked = pd.Index([str(gene) for gene in genes])
    for gene in asked:
        if gene not in known:
            raise KeyError(f"No gene {gene!r} in {where}. {alike(gene, known)}")
    repeated = asked[asked.isin(known[known.duplicated()])]
    if len(repeated):
        raise ValueError(
            f"{(known == repeated[0]).sum()} genes in {where} are called {repeated[0]!r}. Give each a name of its "
            "own: `adata.var_names_make_unique()`."
        )
    return np.asarray(known.get_indexer_for(asked))


def alike(gene: str, known: pd.Index) -> str:
    """Return in words which genes may have been meant.

    Examples
    --------
    >>> alike("gata1", pd.Index(["GATA1", "SPI1"]))
    "Is it 'GATA1'?"
    """
    spelled: dict[str, str] = {}
    for name in known:
        spelled.setdefault(name.upper(), name)
    near = [spelled[name] for name in get_close_matches(gene.upper(), spelled, n=_CLOSE)]
    if near:
        return f"Is it {' or '.join(map(repr, near))}?"
    return f"Genes there are {listed(list(known))}."
