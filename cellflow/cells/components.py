"""How many principal components lie above noise, from the variances of the genes that they were computed from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cellflow.cells.expression import Expression, read_expression
from cellflow.cells.fingerprint import LOADINGS
from cellflow.cells.loadings import spread_out
from cellflow.cells.snapshots import read_rep

if TYPE_CHECKING:
    from anndata import AnnData

CHECKED = 200
"""Cells that are projected again, to see whether the expression is still that of the PCA."""
ALIKE = 0.01
"""Share of the largest spread by which projected cells may differ."""


@dataclass(frozen=True)
class Components:
    """How many of the first columns of a representation are above noise, and the numbers behind it.

    Parameters
    ----------
    n_pcs
        How many; ``None`` if this cannot be decided and all should be used.
    columns
        Columns of the representation.
    why
        The reason, in words.
    variance
        Variance of each column, ``(columns,)``.
    noise
        The largest variance that a component of pure noise would have; ``None`` without information about the genes.
    """

    n_pcs: int | None
    columns: int
    why: str
    variance: tuple[float, ...]
    noise: float | None = None


def components_above_noise(adata: "AnnData", rep: str) -> Components:
    """Return how many principal components have more variance than noise in the same genes would give them.

    The rule: were all genes independent, with the variances that they have, no component would have more variance than
    the edge of their generalised law of Marchenko and Pastur. Components are kept up to the first one that has less.
    This is the limit of a parallel analysis with very many permutations, and takes a second. It is conservative: if a
    few components hold most of the variance, weak but real ones may lie below the edge.

    Parameters
    ----------
    adata
        With loadings in ``varm``, and the expression that the components were computed from in ``X``, or in the layer
        that ``sc.pp.pca`` noted.
    rep
        Key of the components in ``obsm``.

    Source
    ------
    Dobriban and Owen 2019 (JRSS B), deterministic parallel analysis; Silverstein and Choi 1995 for the edge.

    Examples
    --------
    >>> import cellflow as cf, scanpy as sc
    >>> adata = cf.datasets.hsmm()
    >>> sc.pp.pca(adata, n_comps=50)
    >>> found = components_above_noise(adata, "X_pca")
    >>> 5 < found.n_pcs < 50
    True
    >>> components_above_noise(cf.datasets.branching(seed=0), "X_latent").why
    "there are no loadings of 'X_latent' to judge by"
    """
    x = read_rep(adata, rep).astype(np.float64)
    variance, key = x.var(axis=0), LOADINGS.get(rep, rep)
    shown = tuple(variance.tolist())
    if rep == "X" or key not in adata.varm:
        return Components(None, x.shape[1], f"there are no loadings of {rep!r} to judge by", shown)
    loadings = np.asarray(adata.varm[key], dtype=np.float64)
    values = _expression(adata)
    if loadings.ndim != 2 or loadings.shape[1] != x.shape[1] or values is None or not _gives(values, loadings, x):
        return Components(None, x.shape[1], "X is no longer what the components were computed from", shown)
    used = (loadings != 0).any(axis=1)
    noise = edge(_variances(values, adata.n_obs)[used], adata.n_obs)
    below = np.flatnonzero(variance <= noise)
    n = int(below[0]) if len(below) else x.shape[1]
    return Components(max(n, 1), x.shape[1], _reason(n, x.shape[1], int(used.sum()), adata.n_obs), shown, noise)


def _reason(n: int, columns: int, genes: int, cells: int) -> str:
    among = f"the noise of {genes:,} genes in {cells:,} cells"
    if n == columns:
        return f"all have more variance than {among} would give them; more components may have too"
    return f"{n} have more variance than {among} would give them" if n else f"none has more variance than {among}"


def edge(variances: np.ndarray, cells: int) -> float:
    """Return the largest variance of a principal component of independent genes.

    Parameters
    ----------
    variances
        Variance of every gene, ``(genes,)``.
    cells
        Number of cells.

    Examples
    --------
    >>> round(edge(np.ones(100), 400), 3)  # Marchenko and Pastur: (1 + sqrt(100 / 400))^2
    2.25
    """
    from scipy.optimize import minimize_scalar

    highest = float(variances.max(initial=0.0))
    if highest == 0:
        return 0.0
    share = variances / highest

    def mapped(u: float) -> float:
        return float(1 / u + (share / (1 - u * share)).sum() / cells)

    found = minimize_scalar(mapped, bounds=(1e-9, 1 - 1e-9), method="bounded", options={"xatol": 1e-9})
    return float(highest * found.fun)


def _expression(adata: "AnnData") -> Expression | None:
    """Return what the PCA saw: a layer, where it was computed from one, or ``X``; ``None`` where that is not there."""
    noted = adata.uns.get("pca", {})
    layer = noted.get("params", {}).get("layer") if isinstance(noted, Mapping) else None
    layer = layer if layer in adata.layers else None
    return None if layer is None and adata.X is None else read_expression(adata, layer=layer)


def _gives(values: Expression, loadings: np.ndarray, x: np.ndarray) -> bool:
    """Return whether expression gives the components, but for a constant."""
    few = spread_out(len(x), CHECKED)
    projected = values.dense(few) @ loadings
    return bool(((projected - x[few]).std(axis=0) <= ALIKE * x[few].std(axis=0).max()).all())


def _variances(values: Expression, n: int) -> np.ndarray:
    """Return the variance of every gene, ``(genes,)``."""
    total = squares = np.zeros(len(values.names))
    for _, part in values.parts(np.arange(n)):
        total = total + np.asarray(part.sum(axis=0)).ravel()
        square = part.multiply(part) if hasattr(part, "multiply") else part**2
        squares = squares + np.asarray(square.sum(axis=0)).ravel()
    return np.asarray(np.maximum(squares / n - (total / n) ** 2, 0.0))
