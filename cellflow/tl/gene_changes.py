"""The effect of changed genes on the shares of groups: its interval, its rank among random genes, its size in words."""

import logging

import numpy as np
import pandas as pd

from cellflow.cells.states import States
from cellflow.nearest import Nearest

log = logging.getLogger(__name__)

SMALL = 0.1
"""Shift, in units of the distance from a cell to its nearest neighbour, below which it is said to be small."""
FEW = 0.1
"""Share of random genes that do as much, above which a change is said to be no more than that of any gene."""


def units(clones: pd.Series | None, cells: States) -> np.ndarray:
    """Return the number of the sampled unit of each cell ``(n,)``; a cell without a clone is one by itself."""
    if clones is None:
        return np.arange(len(cells))
    codes, names = pd.factorize(clones.iloc[cells.rows])
    return np.where(codes < 0, len(names) + np.arange(len(codes)), codes)


def half_width(change: np.ndarray, weight: np.ndarray, units: np.ndarray, confidence: float) -> np.ndarray:
    """Return half of the interval of the mean change ``(groups,)``, given that cells of one unit vary together."""
    from scipy.stats import t

    codes = np.unique(units, return_inverse=True)[1]
    n = int(codes.max()) + 1
    if n < 2:
        raise ValueError("All cells are of one unit in `lineage_key`: there is no interval. Name other cells.")
    off = weight[:, None] * (change - weight @ change)
    sums = np.zeros((n, change.shape[1]))
    np.add.at(sums, codes, off)
    error = np.sqrt((sums**2).sum(axis=0) * n / (n - 1))
    return np.asarray(t.ppf((1 + confidence) / 2, n - 1) * error)


def table_of_changes(
    groups: list[str], before: np.ndarray, change: np.ndarray, half: np.ndarray, random: np.ndarray
) -> pd.DataFrame:
    """Return the changes of the shares of groups, the largest first.

    Parameters
    ----------
    groups
        Their names ``(k,)``.
    before, change
        Mean share of each ``(k,)``, and by how much it changes.
    half
        Half of the interval of the change ``(k,)``.
    random
        Changes by random genes ``(m, k)``.

    Source
    ------
    Phipson and Smyth 2010 for p values of random draws, which count the observed one.

    Examples
    --------
    >>> ones = np.ones(1)
    >>> table_of_changes(["a"], 0.2 * ones, 0.3 * ones, 0.1 * ones, np.zeros((9, 1)))["p_random"].tolist()
    [0.1]
    """
    larger = (np.abs(random) >= np.abs(change)).sum(axis=0)
    some = len(random) > 0
    table = pd.DataFrame(
        {
            "group": np.array(groups, dtype=object),
            "before": before,
            "after": before + change,
            "change": change,
            "low": change - half,
            "high": change + half,
            "rank": np.where(some, larger + 1.0, np.nan),
            "p_random": np.where(some, (larger + 1) / (len(random) + 1), np.nan),
        }
    )
    table = table.iloc[np.argsort(-np.abs(change), kind="stable")].reset_index(drop=True)
    table.index = table.index.astype(str)
    return table


def sizes(shift: np.ndarray, cells: States) -> tuple[float, float]:
    """Return the root mean squared shift, and the same in units of the median distance to the nearest neighbour."""
    length = float(np.sqrt((shift**2).sum(axis=1).mean()))
    nearest = float(np.median(Nearest(cells.x, 2).search(cells.x)[0][:, 1]))
    return length, length / nearest if nearest > 0 else float("nan")


def say(genes: list[str], table: pd.DataFrame, relative: float, n_random: int) -> None:
    """Log a note if a change means little."""
    names, best = " and ".join(genes), table.iloc[0]
    if relative < SMALL:
        log.warning(
            "The change of %s moves cells by %.1g %% of the distance to their nearest neighbour: less than two cells "
            "of one kind differ.",
            names,
            100 * relative,
        )
    if n_random and best["p_random"] > FEW:
        log.warning(
            "The largest change, of %r by %+.2g, ranks %d of %d in size among those by random genes with loadings of "
            "similar length: it is not specific to %s.",
            best["group"],
            best["change"],
            best["rank"],
            n_random + 1,
            names,
        )
