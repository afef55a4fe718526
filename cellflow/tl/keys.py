"""Which columns of ``obs`` belong to which result: two results never share one."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from anndata import AnnData

STATE = "terminal"
"""What the column of ``obs`` with the found terminal states is called, after the key of the fates."""
BESIDE = ("spread", "descendants", STATE, "membership")
"""Other columns of ``obs`` that fates are written with, after their key."""
ENDINGS = ("", "_low", "_high", "_confidence", "_spread", "_cell_cycle", "_apoptosis")
"""What columns of tools are called after their key, but for those of fates."""


def check_free(adata: "AnnData", key: str, columns: Iterable[str]) -> None:
    """Refuse columns of ``obs`` that belong to another result.

    Parameters
    ----------
    adata
        To be written into.
    key
        The name of the result; an earlier result of that name is replaced.
    columns
        Names of the columns.

    Raises
    ------
    ValueError
        With the column, and the result that it belongs to.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> adata.uns["fate"], adata.obs["fate_low"] = {"time_key": "time", "unit": ""}, 0.0
    >>> check_free(adata, "fate_low", ["fate_low"])
    Traceback (most recent call last):
    ValueError: `adata.obs['fate_low']` belongs to the result 'fate', and would be overwritten. Choose another ...
    """
    wanted = set(columns)
    for other in map(str, adata.uns):
        taken = wanted & columns_of_result(adata, other) if other != key else set()
        if taken:
            raise ValueError(
                f"`adata.obs[{min(taken)!r}]` belongs to the result {other!r}, and would be overwritten. Choose "
                "another `key_added`."
            )


def columns_of_result(adata: "AnnData", key: str) -> set[str]:
    """Return the columns of ``obs`` that a tool wrote under a key, if any.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> flow = cf.SnapshotFlow(rep="X_latent", steps=20).fit(adata)
    >>> cf.tl.push(adata, flow, cells=adata.obs["time"] == 0, at=4)
    >>> columns_of_result(adata, "push"), columns_of_result(adata, "fate")
    ({'push'}, set())
    """
    noted, table = adata.uns.get(key), adata.obsm.get(key)
    if not isinstance(noted, Mapping) or "unit" not in noted:
        return set()
    if isinstance(table, pd.DataFrame) and "groups" in noted:
        names = {f"{key}_{column}" for column in (*table.columns, *BESIDE)}
    else:
        names = {f"{key}{ending}" for ending in ENDINGS}
    return names & set(map(str, adata.obs.columns))
