"""How many cells conditions have: one is too few, and a condition for every cell is no condition."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cellflow.cells.condition_labels import label_of
from cellflow.cells.condition_rows import Key, names_tuple

if TYPE_CHECKING:
    from cellflow.cells.conditions import Conditions

MANY = 20
"""Conditions from which it is suspected that they name cells, ..."""
FEW = 5
"""... where fewer cells than this have each, on average."""
SHOWN = 3
"""Conditions that a message shows."""


def check_counts(obs: pd.DataFrame, columns: "Conditions", keys: list[Key], index: np.ndarray) -> None:
    """Refuse conditions with a single cell, and about as many conditions as cells.

    Parameters
    ----------
    obs, columns
        The table, and what its columns hold.
    keys, index
        The conditions, and which of them each row has.

    Raises
    ------
    ValueError
        With the column that has the most values, or the conditions.
    """
    counts = np.bincount(index, minlength=len(keys))
    names = [*names_tuple(columns.treatment), *names_tuple(columns.dose), *columns.categories, *columns.numbers]
    if len(keys) >= MANY and len(obs) < FEW * len(keys):
        different = obs[names].nunique()
        name, most = str(different.idxmax()), int(different.max())
        raise ValueError(
            f"{len(keys):,} different conditions for {len(obs):,} cells, and {most:,} different values in {name!r}: "
            "does it name cells or clones, or measure each of them? Name columns in `Conditions` whose values many "
            f"cells share; numbers can be binned: `adata.obs['part'] = pd.cut(adata.obs[{name!r}], 5).astype(str)`."
        )
    lonely = np.flatnonzero(counts < 2)
    if len(lonely):
        shown = ", ".join(repr(label_of(keys[k], columns)) for k in lonely[:SHOWN])
        more = f" and {len(lonely) - SHOWN} others" if len(lonely) > SHOWN else ""
        raise ValueError(
            f"Only one cell has the condition {shown}{more}: two or more are needed. Leave it out: `adata = adata["
            f"adata.obs.groupby({names}, observed=True, dropna=False)[{names[0]!r}].transform('size') > 1].copy()`."
        )
