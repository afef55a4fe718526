"""A score of fates: whether cells that change become what their clones became."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cellflow.metrics.persistence import Labels, labels_of
from cellflow.signature import checked


@checked
def fate_overlap(
    fates: pd.DataFrame, labels: Labels, clones: Labels, labels_next: Labels, clones_next: Labels
) -> Tensor:
    """Return the overlap of the predicted change of each cell with the real change of its clone, 0 to 1.

    Only what a cell changes into counts: its own group is left out of its prediction and of what its clone became, and
    both are scaled to sum to 1. Staying in its group, which is right for most cells, therefore scores nothing. The
    overlap is the sum over the other groups of the smaller share. A cell that is predicted not to change at all gets
    the shares of all later cells.

    Parameters
    ----------
    fates
        Share of each group in what a cell becomes ``(n, groups)``, named by its columns; such as
        ``adata.obsm["fate"]``.
    labels, clones
        Group and clone of each cell ``(n,)``; missing values for none.
    labels_next, clones_next
        The same for the cells of the later snapshot ``(m,)``.

    Returns
    -------
    Tensor
        One number for each cell ``(n,)``; NaN for a cell whose clone is not seen later, or has become nothing else.
        Cells of one clone are not independent.

    Raises
    ------
    ValueError
        When lengths differ, a later group has no column, or no clone has become something else.

    Examples
    --------
    >>> import pandas as pd
    >>> fates = pd.DataFrame({"stem": [0.8, 0.8], "blood": [0.15, 0.1], "skin": [0.05, 0.1]})
    >>> after = ["blood", "stem", "skin"], ["a", "a", "b"]
    >>> fate_overlap(fates, ["stem", "stem"], ["a", "c"], *after).numpy().round(2)
    array([0.75,  nan])
    """
    given = {"labels": labels, "clones": clones, "labels_next": labels_next, "clones_next": clones_next}
    now, clone, then, later = (labels_of(one, name=name) for name, one in given.items())
    if not len(fates) == len(now) == len(clone) or len(then) != len(later):
        raise ValueError(
            f"Expected a label and a clone for each of {len(fates)} cells, and as many later labels as clones; found "
            f"{len(now)}, {len(clone)}, {len(then)} and {len(later)}."
        )
    names = [str(name) for name in fates.columns]
    known = then.notna() & later.notna()
    then, later = then[known].astype(str), later[known].astype(str)
    if missing := sorted(set(then) - set(names)):
        raise ValueError(f"Expected a column for each later group; none for {missing}. There are {names}.")
    became = pd.crosstab(later, then).reindex(columns=names, fill_value=0)
    real = became.reindex(clone.astype(str)).fillna(0.0).to_numpy(dtype=np.float64)
    other = now.astype(str).to_numpy()[:, None] != np.asarray(names)[None, :]
    changed = (real * other).sum(axis=1) > 0
    if not changed.any():
        raise ValueError("Expected a clone with cells of another group in the later snapshot; found none.")
    found = fates.to_numpy(dtype=np.float64)[changed] * other[changed]
    overall = np.asarray([(then == name).mean() for name in names])
    found = np.where(found.sum(axis=1, keepdims=True) > 0, found, overall * other[changed])
    overlap = np.full(len(fates), np.nan)
    overlap[changed] = np.minimum(_scaled(found), _scaled((real * other)[changed])).sum(axis=1)
    return torch.from_numpy(overlap)


def _scaled(shares: np.ndarray) -> np.ndarray:
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))
