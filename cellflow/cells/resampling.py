"""Resampled cells: what another experiment of the same kind could have found. Single cells, or whole donors."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from cellflow.cells.columns import read_groups
from cellflow.cells.snapshots import Snapshots

if TYPE_CHECKING:
    from anndata import AnnData

FEWEST = 5
"""Cells of a snapshot, and of a condition in it, that can be resampled: of fewer, most samples are of two or three."""
TRIES = 1000
"""Draws of donors until every snapshot has one."""


def read_donors(adata: "AnnData", replicate_key: str | None, snapshots: Snapshots) -> np.ndarray | None:
    """Return the index of every cell's donor ``(n,)``; ``None`` if single cells are resampled.

    Parameters
    ----------
    adata
        The cells.
    replicate_key
        Column of ``obs`` with the donors; ``None`` for none.
    snapshots
        The same cells by time.

    Raises
    ------
    KeyError, TypeError
        When the column does not exist, or its name is not a text.
    ValueError
        When a cell has no donor, a snapshot, or a condition in it, has a single donor, or fewer cells than can be
        resampled.

    Examples
    --------
    >>> import cellflow as cf
    >>> from cellflow.cells.snapshots import read_snapshots
    >>> adata = cf.datasets.branching(seed=0)
    >>> adata.obs["donor"] = ["A", "B"] * (adata.n_obs // 2)
    >>> read_donors(adata, "donor", read_snapshots(adata, time_key="time", rep="X_latent"))[:4].tolist()
    [0, 1, 0, 1]
    """
    strata, names = _strata(snapshots)
    few = np.flatnonzero(np.bincount(strata) < FEWEST)
    if len(few):
        raise ValueError(
            f"An ensemble resamples the cells of each snapshot: expected {FEWEST} or more; found "
            f"{np.bincount(strata)[few[0]]} {names[few[0]]}. Leave these cells out, or fit without `ensemble`."
        )
    if replicate_key is None:
        return None
    donors = np.unique(read_groups(adata, replicate_key, setting="replicate_key"), return_inverse=True)[1].reshape(-1)
    alone = np.flatnonzero(_visits(donors, strata).sum(axis=0) < 2)
    if len(alone):
        raise ValueError(
            f"`adata.obs[{replicate_key!r}]` has a single donor {names[alone[0]]}: one donor does not show how donors "
            "differ. Leave `replicate_key` out, so that single cells are resampled, or merge time points."
        )
    return donors


def resampled(snapshots: Snapshots, donors: np.ndarray | None = None, *, generator: torch.Generator) -> np.ndarray:
    """Return the rows of resampled cells, ascending, with repetition.

    Single cells are redrawn, as many as there are, separately in each snapshot, condition and group. Donors that share
    snapshots are drawn together, each with all its cells, and one fewer than there are: a sample of as many would vary
    less than new donors do. They are redrawn until every snapshot and every condition in it has cells, and no group is
    on one side only.

    Parameters
    ----------
    snapshots
        The cells.
    donors
        The number of the donor of each, ``(n,)``; ``None`` to draw single cells.
    generator
        Draws.

    Raises
    ------
    ValueError
        When, for the given donors, some snapshot always lacks cells.

    Source
    ------
    Efron 1979 for single cells; Rao and Wu 1988, section 2, for one donor fewer.

    Examples
    --------
    >>> import cellflow as cf
    >>> from cellflow.cells.snapshots import read_snapshots
    >>> snapshots = read_snapshots(cf.datasets.hsmm(), time_key="hours", rep="X")
    >>> rows = resampled(snapshots, generator=cf.generator(seed=0))
    >>> len(rows), 0.6 < len(np.unique(rows)) / len(rows) < 0.67
    (271, True)
    """
    if donors is not None:
        return _of_donors(snapshots, donors, generator)
    strata, _ = _strata(snapshots, groups=True)
    parts = np.split(np.argsort(strata, kind="stable"), np.bincount(strata).cumsum()[:-1])
    drawn = [rows[torch.randint(len(rows), (len(rows),), generator=generator).numpy()] for rows in parts]
    return np.sort(np.concatenate(drawn))


def _of_donors(snapshots: Snapshots, donors: np.ndarray, generator: torch.Generator) -> np.ndarray:
    from scipy.sparse.csgraph import connected_components

    visits, fine = _visits(donors, _strata(snapshots)[0]), _visits(donors, _strata(snapshots, groups=True)[0])
    groups = np.zeros(len(donors), dtype=int) if snapshots.groups is None else _codes(snapshots.groups)
    of_stratum = _owner(_strata(snapshots, groups=True)[0], groups)
    _, pools = connected_components(visits @ visits.T)
    members = [np.flatnonzero(pools == pool) for pool in range(pools.max() + 1)]
    whole = np.bincount(of_stratum)
    for _ in range(TRIES):
        drawn = [pool[torch.randint(len(pool), (len(pool) - 1,), generator=generator).numpy()] for pool in members]
        counts = np.bincount(np.concatenate(drawn), minlength=len(visits))
        kept = np.bincount(of_stratum, weights=fine[counts > 0].any(axis=0), minlength=len(whole))
        if visits[counts > 0].any(axis=0).all() and ((kept == 0) | (kept == whole)).all():
            return np.repeat(np.arange(len(donors)), counts[donors])
    raise ValueError(
        f"In {TRIES} draws of donors a snapshot, or a group of `within`, always lacked cells at some time. Leave "
        "`replicate_key` out, so that single cells are resampled, or leave out donors that few snapshots have."
    )


def _strata(snapshots: Snapshots, *, groups: bool = False) -> tuple[np.ndarray, list[str]]:
    """Return the number of the snapshot, condition and, if asked, group of each cell, and what each is called."""
    table, parts = snapshots.conditions, [np.searchsorted(snapshots.clock.times, snapshots.time)]
    if table is not None:
        parts.append(table.index)
    if groups and snapshots.groups is not None:
        parts.append(_codes(snapshots.groups))
    found, index = np.unique(np.stack(parts, axis=1), axis=0, return_inverse=True)
    names = [f"at {snapshots.said(snapshots.clock.times[row[0]])}" for row in found]
    if table is not None:
        names = [f"{name} under {table.labels[row[1]]!r}" for name, row in zip(names, found, strict=True)]
    return index.reshape(-1), names


def _codes(labels: np.ndarray) -> np.ndarray:
    return np.unique(labels, return_inverse=True)[1].reshape(-1)


def _visits(donors: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """Return which donors have cells in which strata, ``(donors, strata)``."""
    found = np.zeros((donors.max() + 1, strata.max() + 1), dtype=bool)
    found[donors, strata] = True
    return found


def _owner(strata: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the group of each stratum."""
    found = np.zeros(strata.max() + 1, dtype=int)
    found[strata] = groups
    return found
