"""New cells in the principal components of a reference."""

import logging
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cellflow.cells.expression import Expression, places_of, read_expression
from cellflow.cells.fingerprint import LOADINGS
from cellflow.cells.loadings import Loadings, read_loadings
from cellflow.cells.name_vectors import listed
from cellflow.cells.snapshots import read_rep
from cellflow.renamed import warn
from cellflow.signature import checked

if TYPE_CHECKING:
    from anndata import AnnData

log = logging.getLogger(__name__)

OTHER_UNITS = 3.0
"""Factor by which the size of expression differs where it is in other units: counts, and their logarithms."""


@checked
def project(
    new: "AnnData",
    reference: "AnnData",
    *,
    rep: str = "X_pca",
    layer: str | None = None,
    use_raw: bool = False,
    max_missing: float = 0.3,
    copy: bool = False,
) -> "AnnData | None":
    """Project new cells onto the principal components of a reference, so that flows fitted there can use them.

    Genes are matched by name, in any order. The PCA may be centred or not, and use only some of the genes. Missing
    genes get their mean in the reference, which moves no cell.

    Parameters
    ----------
    new
        The new cells, in the units of the reference: normalised and, if it was scaled, scaled by its means and
        deviations.
    reference
        Cells with ``obsm["X_pca"]`` and ``varm["PCs"]`` as from ``sc.pp.pca``, and the expression behind them.
    rep
        Key of the representation in ``obsm``; other than ``"X_pca"`` with loadings under the same key, as by
        ``sc.pp.pca(adata, key_added=...)``.
    layer, use_raw
        Where the expression is, in both: a layer, or ``raw``; by default ``X``.
    max_missing
        The share of the genes of the PCA that may be missing.
    copy
        Whether to return a copy instead of writing into ``new``.

    Writes
    ------
    ``new.obsm[rep]``
        The components ``(cells, d)``; existing ones are replaced.
    ``new.varm["PCs"]``
        The loadings, in the order of these genes, 0 for those that were not in the PCA: genes are decoded by them.
    ``new.uns["projection"]``
        ``"rep"``; ``"n_genes"``, the number used; ``"missing"``, the names of missing genes; and ``"missing_weight"``,
        their share of the squared loadings.

    Raises
    ------
    KeyError
        When there are no components, loadings or expression.
    ValueError
        When more genes are missing than allowed, several share a name, expression is not finite, or the loadings of the
        reference do not fit its expression.

    Warns
    -----
    UserWarning
        When the expression seems to be in other units than the reference.

    Examples
    --------
    >>> import numpy as np, scanpy as sc, cellflow as cf
    >>> adata = cf.datasets.hsmm()
    >>> sc.pp.pca(adata, n_comps=10)
    >>> new = cf.datasets.hsmm()[:50, ::-1].copy()
    >>> cf.pp.project(new, adata)
    >>> bool(np.allclose(new.obsm["X_pca"], adata.obsm["X_pca"][:50], atol=1e-3))
    True
    """
    if not 0 <= max_missing < 1:
        raise ValueError(f"Expected 0 <= max_missing < 1; found {max_missing}.")
    if new.isbacked and (copy or new.is_view):
        raise ValueError("A file, or a view of one, cannot be copied in place. Take `new.to_memory()` first.")
    loadings = read_loadings(reference, rep, genes=True, layer=layer, use_raw=use_raw)
    if loadings is None:
        raise KeyError(f"There are no loadings for {rep!r} in the reference. Run `sc.pp.pca(reference)`.")
    places_of(loadings.names, list(loadings.names), where="reference")  # refuses names that several genes have
    expression = read_expression(new, layer=layer, use_raw=use_raw)
    there = loadings.names.isin(expression.names)
    _check_missing(loadings.names, there, expression, max_missing)
    columns = places_of(expression.names, list(loadings.names[there]), where=f"`{expression.where}` of `new`")
    x = _projected(expression, columns, loadings, there, read_rep(reference, rep).mean(axis=0, dtype=np.float64))
    written = new.copy() if copy else new
    written.obsm[rep] = x
    written.varm[LOADINGS.get(rep, rep)] = _in_order(loadings, written.var_names)
    squares = np.square(loadings.matrix).sum(axis=1)
    missing = loadings.names[~there]
    written.uns["projection"] = {
        "rep": rep,
        "n_genes": int(there.sum()),
        "missing": np.array([str(name) for name in missing], dtype=object if len(missing) else str),
        "missing_weight": float(squares[~there].sum() / squares.sum()),
    }
    if len(missing):
        log.warning(
            "%d of %d genes of the PCA are missing, with %.0f%% of its squared loadings, and are given their mean: %s",
            len(missing),
            len(there),
            100 * written.uns["projection"]["missing_weight"],
            listed([str(name) for name in missing]),
        )
    return written if copy else None


def _check_missing(names: pd.Index, there: np.ndarray, expression: Expression, most: float) -> None:
    """Refuse new cells that lack too many genes."""
    share = 1 - float(there.mean())
    if there.any() and share <= most:
        return
    upper = pd.Index(expression.names.astype(str).str.upper())
    alike = int(names.astype(str).str.upper().isin(upper).sum())
    if alike > 2 * there.sum():
        cure = f"Regardless of case {alike:,} are there: rename them, for example by `new.var_names.str.upper()`."
    else:
        theirs, ours = (", ".join(map(repr, some[:3])) for some in (names, expression.names))
        cure = (
            f"They are called {theirs} there, and {ours} here. Use the same kind of names for both, or allow more with "
            "`max_missing`."
        )
    raise ValueError(
        f"{(~there).sum():,} of {len(there):,} genes of the PCA ({share:.0%}) are missing in the new cells; at most "
        f"{most:.0%} may. {cure}"
    )


def _projected(
    expression: Expression, columns: np.ndarray, loadings: Loadings, there: np.ndarray, middle: np.ndarray
) -> np.ndarray:
    """Return the components of cells ``(n, d)``; ``middle`` are the mean components of the reference ``(d,)``."""
    matrix = loadings.matrix
    mean = loadings.offset + matrix @ middle
    # The mean cell of the reference has its mean components, whether these were centred or not.
    constant = middle - mean[there] @ matrix[there]
    n = expression.values.shape[0]
    found, squares = np.empty((n, matrix.shape[1]), dtype=np.float32), np.zeros(len(columns))
    for some, values in expression.parts(np.arange(n)):
        here = values[:, columns]
        square = here.multiply(here) if hasattr(here, "multiply") else np.square(here)
        squares += np.asarray(square.sum(axis=0)).ravel()
        found[some] = np.asarray(here @ matrix[there]) + constant
    if not np.isfinite(squares).all():
        gene = loadings.names[there][int((~np.isfinite(squares)).argmax())]
        raise ValueError(f"`{expression.where}` of the new cells holds NaN or infinity, first in the gene {gene!r}.")
    known = float((loadings.variance + mean**2)[there].mean())
    ratio = np.sqrt(float(squares.mean()) / n / known) if known > 0 and n else 1.0
    if not 1 / OTHER_UNITS <= ratio <= OTHER_UNITS:
        warn(
            f"The expression of the new cells is {ratio:.2g} times as large as that of the reference, by its root mean "
            "square: it seems to be in other units, such as counts instead of logarithms. Prepare both in the same way."
        )
    return found


def _in_order(loadings: Loadings, names: pd.Index) -> np.ndarray:
    """Return the loadings of genes ``(n_vars, d)``, 0 for others."""
    places = loadings.names.get_indexer(names)
    found = np.zeros((len(names), loadings.matrix.shape[1]))
    found[places >= 0] = loadings.matrix[places[places >= 0]]
    return found
