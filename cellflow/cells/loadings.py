"""From principal components back to genes, through the loadings that ``sc.pp.pca`` stored."""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellflow.cells.decoders import share_carried, shares_carried
from cellflow.cells.expression import Expression, places_of, read_expression
from cellflow.cells.fingerprint import LOADINGS as KEYS
from cellflow.errors import unknown
from cellflow.shapes import as_states

if TYPE_CHECKING:
    from anndata import AnnData

log = logging.getLogger(__name__)

REP = "X_pca"
LOADINGS = KEYS[REP]
CHUNK = 5000
"""Cells that are read from ``X`` at a time."""
CHECKED, MEASURED = 200, 2000
"""Cells that are projected again, and cells over which it is measured what the components carry."""
ROUNDING = 0.01
"""Share of the widest component by which a projection may be off."""


@dataclass(frozen=True, eq=False)
class Loadings:
    """A linear map from the representation to genes: ``x @ matrix.T + offset``.

    Parameters
    ----------
    matrix
        Loadings ``(genes, d)`` of the genes that the PCA used.
    offset
        Expression at the origin of the representation, ``(genes,)``.
    seen
        Which genes of the AnnData the PCA used, ``(n_vars,)``.
    names
        Their names, ``(genes,)``.
    variance, left
        The variance of each gene, and the part that the components do not carry, ``(genes,)``.
    """

    matrix: np.ndarray
    offset: np.ndarray
    seen: np.ndarray
    names: pd.Index
    variance: np.ndarray
    left: np.ndarray

    linear = True

    @property
    def carried(self) -> float:
        """The share of the variance of the genes that the components carry."""
        return share_carried(self.variance, self.left)

    @property
    def carried_of(self) -> np.ndarray:
        """The share of the variance of each gene that the components carry, ``(genes,)``; NaN for one without."""
        return shares_carried(self.variance, self.left)

    def some(self, places: np.ndarray) -> "Loadings":
        """Return the same map to some of its genes, by position."""
        places = np.unique(places)
        seen = np.zeros_like(self.seen)
        seen[np.flatnonzero(self.seen)[places]] = True
        of_each = self.variance[places], self.left[places]
        return Loadings(self.matrix[places], self.offset[places], seen, self.names[places], *of_each)

    def decode(self, x: np.ndarray) -> np.ndarray:
        """Return the expression ``(n, genes)`` at states ``(n, d)``."""
        return np.asarray((x @ self.matrix.T + self.offset).astype(np.float32))

    def change(self, x: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        """Return the change of expression ``(n, genes)`` per unit of time: at all states ``(n, d)`` the same."""
        return self.decode_velocity(velocity)

    def decode_velocity(self, velocity: np.ndarray) -> np.ndarray:
        """Return the change of expression ``(n, genes)`` for velocities ``(n, d)``."""
        return np.asarray((velocity @ self.matrix.T).astype(np.float32))


def read_loadings(
    adata: "AnnData",
    rep: str,
    *,
    genes: bool | str,
    layer: str | None = None,
    use_raw: bool = False,
    width: int | None = None,
) -> Loadings | None:
    """Return the map from the representation to genes, or ``None`` if there is none.

    The offset is the mean residual of the components: for all cells of the PCA, their mean expression; for a subset,
    the part of its mean expression that the components do not explain.

    Parameters
    ----------
    adata
        With ``obsm["X_pca"]`` and ``varm["PCs"]`` as from ``sc.pp.pca``, and the expression they were computed from; or
        with both under the name that ``key_added`` gave them.
    rep
        The representation of the flow.
    genes
        Whether to decode genes; ``"auto"`` if there are loadings that fit the expression; if they do not fit, a warning
        is logged.
    layer, use_raw
        Where the expression is from which the PCA was computed: a layer, or ``raw``; by default ``X``.
    width
        How many of the components the flow uses; ``None`` for all.

    Raises
    ------
    KeyError
        When ``genes`` is true and there are no loadings for this representation, or no such expression.
    ValueError
        When the loadings do not reproduce the representation: the expression was changed after the PCA.

    Examples
    --------
    >>> import scanpy as sc, cellflow as cf
    >>> adata = cf.datasets.hsmm()
    >>> sc.pp.pca(adata, n_comps=10)
    >>> round(read_loadings(adata, "X_pca", genes=True).carried, 2)
    0.24
    """
    if genes not in (True, False, "auto"):
        raise ValueError(unknown("value of `genes`", genes, [True, False, "auto"]))
    key = KEYS.get(rep, rep)
    there = key in adata.varm and rep in adata.obsm and (adata.X is not None or layer is not None or use_raw)
    if genes is False or (genes == "auto" and not there):
        return None
    if not there and key in adata.varm and rep in adata.obsm:
        raise KeyError(
            f"Genes are decoded from {rep!r} through `adata.X`, which is missing: of several files no expression is "
            "read. Put all cells into one file, or give an AnnData that holds their expression."
        )
    if not there:
        raise KeyError(
            f"Genes can be decoded from {REP!r} with `adata.varm[{LOADINGS!r}]` and `adata.X`; this flow works on "
            f"{rep!r}, and `adata.varm` has {list(adata.varm)}. Run `sc.pp.pca(adata)` and fit on {REP!r}, or give a "
            "decoder, such as `decode=cf.cells.fit_decoder(adata, rep=...)`."
        )
    expression = read_expression(adata, layer=layer, use_raw=use_raw)
    if said := misfit(adata, rep, expression):
        if genes == "auto":
            log.warning("genes are not decoded. %s", said)
            return None
        raise ValueError(said)
    matrix = np.asarray(adata.varm[key], dtype=np.float64)
    matrix, scores = matrix[:, :width], _scores(adata, rep)[:, :width]
    seen = (matrix != 0).any(axis=1)
    matrix = matrix[seen]
    columns = columns_of(adata, expression)[seen]
    offset = _mean(expression)[columns] - scores.mean(axis=0) @ matrix.T
    return Loadings(matrix, offset, seen, adata.var_names[seen], *_variances(expression, columns, matrix, scores))


def columns_of(adata: "AnnData", expression: Expression) -> np.ndarray:
    """Return the positions of the genes of ``var`` in an expression ``(n_vars,)``: ``raw`` may have more."""
    if expression.names is adata.var_names or expression.names.equals(adata.var_names):
        return np.arange(adata.n_vars)
    return places_of(expression.names, list(adata.var_names), where=expression.where)


def misfit(adata: "AnnData", rep: str, expression: Expression) -> str:
    """Describe why the expression and the loadings do not give the representation; empty if they do."""
    key = KEYS.get(rep, rep)
    matrix, width = np.asarray(adata.varm[key], dtype=np.float64), np.shape(adata.obsm[rep])[1]
    if matrix.ndim != 2 or matrix.shape[1] != width:
        return f"`varm[{key!r}]` has {matrix.shape[-1]} components, `obsm[{rep!r}]` {width}."
    if _fits(adata, rep, expression, matrix):
        return ""
    others = [(f"layer={name!r}", {"layer": name}) for name in adata.layers]
    others += [] if adata.raw is None else [("use_raw=True", {"use_raw": True})]
    fitting = [said for said, where in others if _fits_there(adata, rep, where, matrix)]
    cure = (
        f"The PCA was computed from other stored expression: pass `{fitting[0]}`."
        if fitting
        else "Run `sc.pp.pca(adata)` again and refit; decode by regression, `decode=cf.cells.fit_decoder(adata, "
        f"rep={rep!r})`; or pass `genes=False`."
    )
    return (
        f"`{expression.where}` and `adata.varm[{key!r}]` do not give `adata.obsm[{rep!r}]`: X was changed after the "
        f"PCA. {cure}"
    )


def _fits_there(adata: "AnnData", rep: str, where: dict[str, Any], matrix: np.ndarray) -> bool:
    expression = read_expression(adata, **where)
    known = set(adata.var_names) <= set(expression.names) and expression.names.is_unique
    return known and _fits(adata, rep, expression, matrix)


def _fits(adata: "AnnData", rep: str, expression: Expression, matrix: np.ndarray) -> bool:
    """Project cells from all over the file again: apart from a constant, the representation must come out."""
    few = spread_out(adata.n_obs, CHECKED)
    scores, values = _scores(adata, rep)[few], expression.dense(few, columns_of(adata, expression))
    left = (values @ matrix - scores).std(axis=0)
    return bool((left <= ROUNDING * scores.std(axis=0).max()).all())


def spread_out(n: int, some: int) -> np.ndarray:
    """Return evenly spaced rows, all of them or some: a file is often sorted by batch.

    Examples
    --------
    >>> spread_out(9, 3)
    array([0, 4, 8])
    """
    return np.unique(np.linspace(0, n - 1, min(n, some)).astype(int))


def _scores(adata: "AnnData", rep: str) -> np.ndarray:
    return as_states(adata.obsm[rep], what=repr(rep)).numpy().astype(np.float64)


def _mean(expression: Expression) -> np.ndarray:
    """Return the mean of all genes over all cells, ``(genes,)``."""
    n, total = expression.values.shape[0], np.zeros(len(expression.names))
    for start in range(0, n, CHUNK):
        total += np.asarray(expression.values[start : start + CHUNK].sum(axis=0)).ravel()
    return np.asarray(total / n)


def _variances(
    expression: Expression, columns: np.ndarray, matrix: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the variance of genes, and what of it components leave over, ``(genes,)``, over at most `MEASURED` cells.

    Cells are taken at equal distances in the order of the file.
    """
    rows = spread_out(len(scores), MEASURED)
    sums = np.zeros((4, len(columns)))
    for some, values in expression.parts(rows):
        here = np.asarray(values.toarray() if hasattr(values, "toarray") else values)[:, columns]
        left = here - scores[rows[some]] @ matrix.T
        sums += [here.sum(axis=0), np.square(here).sum(axis=0), left.sum(axis=0), np.square(left).sum(axis=0)]
    mean, square, mean_left, square_left = sums / len(rows)
    return np.maximum(square - mean**2, 0), np.maximum(square_left - mean_left**2, 0)
