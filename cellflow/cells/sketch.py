"""Numbers by which cells are known again: hashes of names, sums of columns, distances to others, and their ranks."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

NEIGHBORS = 4
"""Other known cells of the same snapshot, to which the distance of each is known."""


def sums(x: np.ndarray, middle: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the sum of the columns of each state, with weights that all differ, ``(n,)``."""
    weights = 0.5 + np.arange(1, x.shape[1] + 1) * (np.sqrt(5) - 1) / 2 % 1  # spread evenly over 0.5 to 1.5
    return np.asarray(((x - middle) / scale) @ weights)


def distances(x: np.ndarray, snapshot: np.ndarray) -> np.ndarray:
    """Return the distance of each state to the next ones of its snapshot, in a ring, ``(n, 4)``."""
    found = np.empty((len(x), NEIGHBORS))
    for one in np.unique(snapshot):
        rows = np.flatnonzero(snapshot == one)
        for k in range(NEIGHBORS):
            found[rows, k] = np.linalg.norm(x[rows] - x[np.roll(rows, -1 - k)], axis=1)
    return found


def hashes_of(names: Iterable[str]) -> np.ndarray:
    """Return a hash of each name that is the same on every machine, ``(n,)``."""
    return (pd.util.hash_array(np.asarray(names, dtype=object), categorize=False) >> np.uint64(1)).astype(np.int64)


def whole_numbers(values: Any, name: str) -> np.ndarray:
    """Return whole numbers of a file, ``(n,)``.

    Raises
    ------
    ValueError
        When they differ from that.
    """
    most = np.iinfo(np.int64).max
    if not all(isinstance(value, int | np.integer) and 0 <= value <= most for value in values):
        raise ValueError(f"Expected whole numbers from 0 to {most} in `{name}`.")
    return np.asarray(values, dtype=np.int64)


def rank_correlation(before: np.ndarray, after: np.ndarray, snapshot: np.ndarray) -> float:
    """Return the correlation of the ranks that values have within their snapshots."""
    ranks = pd.DataFrame({"before": before, "after": after}).groupby(snapshot).rank(pct=True)
    centred = ranks - ranks.groupby(snapshot).transform("mean")
    norm = np.sqrt(np.square(centred["before"]).sum() * np.square(centred["after"]).sum())
    return float((centred["before"] * centred["after"]).sum() / norm) if norm > 0 else 0.0


def short(values: np.ndarray) -> np.ndarray:
    """Return numbers to eight digits, which a file holds in few characters."""
    return np.asarray(np.vectorize(lambda value: float(f"{value:.8g}"), otypes=[np.float64])(values))
