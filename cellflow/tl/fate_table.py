"""The table of fates in an AnnData: the one place that names its columns, writes it and reads it."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellflow.tl.keys import BESIDE, STATE, check_free

if TYPE_CHECKING:
    from anndata import AnnData

LONGEST = 80
"""Bytes of a name in a file: with the rest of a path well below the 255 that file systems allow."""
TAKEN = (*BESIDE, "_index", "zarr.json")
"""Names that no group may have in a file: of other columns, and of what files keep for themselves."""
WITHOUT = "none"
"""The group of cells without one."""


@dataclass(frozen=True, eq=False)
class FateTable:
    """Fates as `cellflow.tl.fate` wrote them.

    Parameters
    ----------
    groups
        The true names of the groups, or of the terminal states, ``(k,)``.
    columns
        Their names in ``obsm`` and behind the key in ``obs``, ``(k,)``: without what files cannot hold.
    shares
        Probability, or share, of each group ``(n, k)``; NaN for cells without a fate.
    low, high
        The ends of the intervals ``(n, k)``; NaN where there are none.
    known
        Which cells have a fate ``(n,)``.
    key
        The name under which they were written.
    about
        Further facts about them: ``uns[key]``.
    """

    groups: tuple[str, ...]
    columns: tuple[str, ...]
    shares: np.ndarray
    low: np.ndarray
    high: np.ndarray
    known: np.ndarray
    key: str
    about: dict[str, Any]

    @property
    def at(self) -> float:
        """The time at which the groups are, in the user's units."""
        return float(self.about["at"])

    @property
    def groupby(self) -> str:
        """The column of ``obs`` with the groups; terminal states that were found have their own."""
        return f"{self.key}_{STATE}" if "states" in self.about else str(self.about.get("groupby", ""))

    @property
    def backward(self) -> bool:
        """Whether all cells are after that time, so that fates are origins."""
        return str(self.about.get("direction", "forward")) == "backward"

    def number(self, group: str) -> int:
        """Return the position of a group among all.

        Raises
        ------
        KeyError
            When there is no such group.
        """
        if group not in self.groups:
            close = get_close_matches(str(group), self.groups, n=1)
            hint = f"Did you mean {close[0]!r}? " if close else ""
            raise KeyError(
                f"No fate {group!r} in `adata.obsm[{self.key!r}]`. {hint}There are {', '.join(map(repr, self.groups))}."
            )
        return self.groups.index(group)

    def share(self, group: str) -> np.ndarray:
        """Return the probability, or share, of one group ``(n,)``; NaN for cells without a fate.

        Raises
        ------
        KeyError
            When there is no such group.
        """
        return np.asarray(self.shares[:, self.number(group)])

    def frame(self) -> pd.DataFrame:
        """Return the shares of all cells under the true names of the groups, such as `fate_overlap` takes."""
        return pd.DataFrame(self.shares, columns=list(self.groups))


def read_fate(adata: "AnnData", key: str = "fate") -> FateTable:
    """Read what `cellflow.tl.fate` wrote, with the true names of the groups.

    Parameters
    ----------
    adata
        Holds the fates; it may come from a file, or be a subset of the cells.
    key
        The name under which they were written.

    Raises
    ------
    KeyError
        When there are none of that name.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> adata.obs["kind"] = adata.obs["fate"].map({"upper": "Ery/Mega", "lower": "Mono"})
    >>> flow = cf.SnapshotFlow(rep="X_latent", steps=20).fit(adata)
    >>> cf.tl.fate(adata, flow, groupby="kind")
    >>> read_fate(adata).groups, list(adata.obsm["fate"].columns)
    (('Ery/Mega', 'Mono'), ['Ery_Mega', 'Mono'])
    """
    table, about = adata.obsm.get(key), adata.uns.get(key)
    if not isinstance(table, pd.DataFrame) or about is None or "at" not in about:
        there = [name for name in adata.obsm if isinstance(adata.obsm[name], pd.DataFrame) and name in adata.uns]
        found = f" There are fates in {there}." if there else ""
        raise KeyError(f"No fates in `adata.obsm[{key!r}]`.{found} Run `cf.tl.fate(adata, flow, groupby=...)` first.")
    columns = tuple(map(str, table.columns))
    named = about.get("groups")  # files of earlier versions have no other names than those of the columns
    groups = columns if named is None else tuple(map(str, np.atleast_1d(named)))
    if len(groups) != len(columns):
        raise ValueError(
            f"`adata.obsm[{key!r}]` has {len(columns)} columns for the {len(groups)} groups in `adata.uns[{key!r}]`. "
            "Run `cf.tl.fate` again."
        )
    shares = table.to_numpy(dtype=np.float64)
    low, high = (_bound(adata, f"{key}_{end}", shares) for end in ("low", "high"))
    return FateTable(groups, columns, shares, low, high, ~np.isnan(shares).any(axis=1), key, dict(about))


def _bound(adata: "AnnData", name: str, shares: np.ndarray) -> np.ndarray:
    table = adata.obsm.get(name)
    if table is None or np.shape(table) != shares.shape:
        return np.full_like(shares, np.nan)
    return np.asarray(table, dtype=np.float64)


def columns_of(groups: Sequence[str]) -> list[str]:
    """Return names that files can hold, one for each group: its own where that is one, and no two alike.

    Files divide names at "/", h5ad and zarr have no empty names, and where case does not count, two names that differ
    by it alone would be one file.

    Examples
    --------
    >>> columns_of(["Ery/Mega", "Ery_Mega", "B cell", "", ".", "spread"])
    ['Ery_Mega_2', 'Ery_Mega', 'B cell', '_', '__2', 'spread_2']
    """
    plain = [_plain(group) for group in groups]
    found, used = [""] * len(groups), {_alike(name) for name in TAKEN}
    # A name that needs no change is kept, also where an earlier group would come to the same.
    for place in sorted(range(len(groups)), key=lambda k: plain[k] != groups[k]):
        name, number = plain[place], 2
        while _alike(name) in used:
            name, number = f"{plain[place]}_{number}", number + 1
        used.add(_alike(name))
        found[place] = name
    return found


def _plain(group: str) -> str:
    name = "".join(char if char.isprintable() and char not in "/\\" else "_" for char in group)
    name = re.sub(r"^\.", "_", name) or "_"
    return name.encode()[:LONGEST].decode(errors="ignore")


def _alike(name: str) -> str:
    """Return what a name is told apart by on every file system."""
    return unicodedata.normalize("NFC", name).casefold()


def write_fate(
    adata: "AnnData",
    key: str,
    rows: np.ndarray,
    tables: dict[str, np.ndarray],
    groups: Sequence[str],
    about: dict[str, Any],
) -> None:
    """Write tables of cells by groups, a column of ``obs`` for each group, and the true names of the groups.

    Parameters
    ----------
    adata
        To be written into.
    key
        The name of what is written.
    rows
        The cells that have a fate, ``(m,)``.
    tables
        By what is added to the key: ``""`` for the shares, ``"_low"`` and ``"_high"`` for the intervals; each
        ``(m, k)``.
    groups
        The true names ``(k,)``.
    about
        What else is kept in ``uns[key]``.

    Raises
    ------
    ValueError
        When a column would overwrite that of the groups, of the time, or of another result.
    """
    columns = columns_of(groups)
    read = {about.get("groupby"), about.get("time_key")}
    if taken := [name for name in columns if f"{key}_{name}" in read]:
        raise ValueError(
            f"The fate toward {taken[0]!r} would overwrite `adata.obs[{f'{key}_{taken[0]}'!r}]`, which was read. "
            "Choose another `key_added`."
        )
    check_free(adata, key, [f"{key}_{name}" for name in (*columns, *BESIDE)])
    stale = _columns_before(adata, key) - read
    for name, values in tables.items():
        table = np.full((adata.n_obs, len(columns)), np.nan)
        table[rows] = values
        adata.obsm[f"{key}{name}"] = pd.DataFrame(table, index=adata.obs_names, columns=columns)
    each = adata.obsm[key].add_prefix(f"{key}_")
    kept = adata.obs.drop(columns=list(stale.union(each.columns)), errors="ignore")
    adata.obs = pd.concat([kept, each], axis=1)  # at once: there may be hundreds
    adata.uns[key] = {"groups": np.array(groups, dtype=object), **about}


def _columns_before(adata: "AnnData", key: str) -> set[Any]:
    """Return the columns of earlier fates of the same name, which may be toward groups that others have not."""
    if key not in adata.obsm or "groups" not in adata.uns.get(key, ()):
        return set()
    return {f"{key}_{column}" for column in (*adata.obsm[key].columns, *BESIDE)}


def column(adata: "AnnData", rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return values of some cells as a column for all, NaN elsewhere."""
    found = np.full(adata.n_obs, np.nan)
    found[rows] = values
    return found
