"""From principal components back to genes, through the loadings that ``sc.pp.pca`` stored."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cellflow.errors import unknown
from cellflow.shapes import as_states

if TYPE_CHECKING:
    from anndata import AnnData

LOADINGS = "PCs"
REP = "X_pca"
CHUNK = 5000
"""Cells that are read from ``X`` at a time."""


@dataclass(frozen=True)
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
    """

    matrix: np.ndarray
    offset: np.ndarray
    seen: np.ndarray

    def some(self, places: np.ndarray) -> "Loadings":
        """Return the same map to some of its genes, by their places among them."""
        places = np.unique(places)
        seen = np.zeros_like(self.seen)
        seen[np.flatnonzero(self.seen)[places]] = True
        return Loadings(self.matrix[places], self.offset[places], seen)

    def decode(self, x: np.ndarray) -> np.ndarray:
        """Return the expression ``(n, genes)`` at states ``(n, d)``."""
        return np.asarray((x @ self.matrix.T + self.offset).astype(np.float32))

    def decode_velocity(self, velocity: np.ndarray) -> np.ndarray:
        """Return the change of expression ``(n, genes)`` for velocities ``(n, d)``."""
        return np.asarray((velocity @ self.matrix.T).astype(np.float32))


def read_loadings(adata: "AnnData", rep: str, *, genes: bool | str, width: int | None = None) -> Loadings | None:
    """Return the map from the representation to genes, or ``None`` where there is none.

    The offset is the mean residual of the components: for all cells of the PCA, their mean expression; for a subset,
    the part of its mean expression that the components do not explain.

    Parameters
    ----------
    adata
        With ``obsm["X_pca"]`` and ``varm["PCs"]`` as from ``sc.pp.pca``, and the ``X`` they were computed from.
    rep
        The representation of the flow.
    genes
        Whether to decode genes; ``"auto"`` where loadings are there.
    width
        How many of the first components states have; ``None`` for all.

    Raises
    ------
    KeyError
        When ``genes`` is true and there are no loadings for this representation.
    ValueError
        When the loadings do not reproduce the representation: ``X`` was changed after the PCA.
    """
    if genes not in (True, False, "auto"):
        raise ValueError(unknown("value of `genes`", genes, [True, False, "auto"]))
    there = rep == REP and LOADINGS in adata.varm and adata.X is not None
    if genes is False or (genes == "auto" and not there):
        return None
    if not there:
        raise KeyError(
            f"Genes can be decoded from {REP!r} with `adata.varm[{LOADINGS!r}]` and `adata.X`; this flow works on "
            f"{rep!r}, and `adata.varm` has {list(adata.varm)}. Run `sc.pp.pca(adata)` and fit on {REP!r}."
        )
    matrix = np.asarray(adata.varm[LOADINGS], dtype=np.float64)
    scores = as_states(adata.obsm[REP], what=repr(REP)).numpy().astype(np.float64)
    _check_loadings(adata, matrix, scores)
    matrix, scores = matrix[:, :width], scores[:, :width]
    seen = (matrix != 0).any(axis=1)
    offset = _mean_expression(adata) - scores.mean(axis=0) @ matrix.T
    return Loadings(matrix[seen], offset[seen], seen)


def _mean_expression(adata: "AnnData") -> np.ndarray:
    total = np.zeros(adata.n_vars)
    for start in range(0, adata.n_obs, CHUNK):
        total += np.asarray(adata.X[start : start + CHUNK].sum(axis=0)).ravel()
    return np.asarray(total / adata.n_obs)


def _check_loadings(adata: "AnnData", matrix: np.ndarray, scores: np.ndarray) -> None:
    """Project a few cells again: apart from a constant, the representation must come out."""
    few = slice(0, min(adata.n_obs, 200))
    expression = adata.X[few]
    expression = expression.toarray() if hasattr(expression, "toarray") else np.asarray(expression)
    if matrix.shape[1] != scores.shape[1]:
        raise ValueError(f"`varm[{LOADINGS!r}]` has {matrix.shape[1]} components, `obsm[{REP!r}]` {scores.shape[1]}.")
    left = (expression @ matrix - scores[few]).std(axis=0)
    if (left > 0.01 * scores[few].std(axis=0).max()).any():
        raise ValueError(
            f"`adata.X` and `adata.varm[{LOADINGS!r}]` do not give `adata.obsm[{REP!r}]`: X was changed after the "
            "PCA. Run `sc.pp.pca(adata)` again and refit, or pass `genes=False`."
        )
