"""The fates of all cells: as they were written, and of those at the time of the fates their own group."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cellflow.cells.columns import read_labels
from cellflow.cells.snapshots import read_times
from cellflow.tl.fate_table import WITHOUT, FateTable

if TYPE_CHECKING:
    from anndata import AnnData

ALL = "all"
"""What cells are called together, without fates."""


def shares_of(
    adata: "AnnData", table: FateTable | None, asked: str | Sequence[str] | None
) -> tuple[list[str], np.ndarray]:
    """Return the fates, and the probability of each for all cells ``(n, k)``; NaN for cells without."""
    if table is None:
        if asked is not None:
            raise ValueError(
                "`fates` names fates, but `by=None` asks for one trend of all cells. Leave one of them out."
            )
        return [ALL], np.ones((adata.n_obs, 1))
    shares, labels = table.shares.copy(), labels_of(adata, table)
    if labels is not None:
        own = np.stack([labels == group for group in table.groups], axis=1)
        there = _at(adata, table) & own.any(axis=1)
        shares[there] = own[there]
    names = list(table.groups) if asked is None else [asked] if isinstance(asked, str) else list(asked)
    if not names:
        raise ValueError("Expected the name of one fate or more in `fates`; found none.")
    return names, shares[:, [table.number(name) for name in names]]


def _at(adata: "AnnData", table: FateTable) -> np.ndarray:
    """Return which cells are at the time of the fates."""
    key = str(table.about.get("time_key", ""))
    if key not in adata.obs:
        return np.zeros(adata.n_obs, dtype=bool)
    return np.asarray(read_times(adata, key) == table.at)


def labels_of(adata: "AnnData", table: FateTable | None) -> np.ndarray | None:
    """Return the group of each cell ``(n,)``, if the groups of the fates still exist."""
    if table is None:
        return np.full(adata.n_obs, ALL, dtype=object)
    if not table.groupby or table.groupby not in adata.obs:
        return None
    return np.asarray(read_labels(adata, table.groupby, setting="groupby").fillna(WITHOUT).to_numpy(dtype=object))
