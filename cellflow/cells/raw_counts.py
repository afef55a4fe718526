"""Raw counts that are taken for expression: a warning before they are fitted."""

import numpy as np

from cellflow.renamed import warn

GENES, HIGH, CELLS = 20, 10, 1000
"""Fewest columns that are taken for genes; counts of which none is higher could be logarithms that were rounded; most
cells that are looked at."""


def warn_of_counts(x: np.ndarray, rep: str) -> None:
    """Warn where the expression itself is the representation, and looks like counts.

    Parameters
    ----------
    x
        The representation of the cells, ``(n, d)``.
    rep
        Its key; only ``"X"`` is looked at.

    Warns
    -----
    UserWarning
        For whole numbers from 0, some of them high, in as many columns as only genes have.

    Examples
    --------
    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn_of_counts(np.arange(100.0).reshape(2, 50), "X")
    >>> str(caught[0].message).partition(",")[0]
    '`adata.X` has whole numbers only'
    """
    if rep != "X" or x.shape[1] < GENES or not len(x):
        return
    some = x[:: -(-len(x) // CELLS)]
    if some.max() >= HIGH and some.min() >= 0 and not np.mod(some, 1).any():
        warn(
            "`adata.X` has whole numbers only, as raw counts are: a few genes with high counts, and the depth of each "
            "cell, would outweigh everything else. Fit a representation instead: `sc.pp.normalize_total(adata)`, "
            "`sc.pp.log1p(adata)`, `sc.pp.pca(adata)`, and `rep='X_pca'`."
        )
