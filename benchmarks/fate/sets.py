"""Cells whose clones say what they became, and the scores of fates by them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
import torch

import cellflow as cf
from benchmarks.couplings.course import Course
from benchmarks.couplings.sets import larry_cells
from benchmarks.rows import Row

Score = Callable[[np.ndarray], Row]
"""From the shares of groups ``(n, k)`` of the asked cells to scores."""


@dataclass(frozen=True, eq=False)
class Case:
    """Snapshots, the groups of the cells of the last one, and which earlier cells are asked.

    ``asked`` has positions in each snapshot but the last; shares are theirs, one snapshot after the other.
    """

    course: Course
    ends: np.ndarray
    names: tuple[str, ...]
    asked: tuple[np.ndarray, ...]
    score: Score

    @property
    def member(self) -> np.ndarray:
        """Of every cell of the last snapshot, the group, one-hot ``(m, k)``."""
        return np.asarray(self.ends[:, None] == np.asarray(self.names), dtype=np.float64)


@lru_cache(maxsize=1)
def larry(cells: int) -> Case:
    """Return cells of day 2 whose clones are known later, and the share of neutrophils in these."""
    course, truth, ends = larry_cells(cells)
    known = np.flatnonzero(~np.isnan(truth))

    def score(shares: np.ndarray) -> Row:
        total = shares.sum(axis=1)
        share = np.divide(shares[:, 0], total, out=np.full(len(total), 0.5), where=total > 0)
        pairs = torch.from_numpy(np.stack([share, truth[known]], axis=1))
        rng = cf.generator(seed=0)
        return {**_interval("r", _pearson, pairs, rng), **_interval("auc", _auc, pairs, rng)}

    nobody = np.zeros(0, int)
    return Case(course, ends, ("Neutrophil", "Monocyte"), (known, nobody), score)


@lru_cache(maxsize=1)
def clones(cells: int) -> Case:
    """Return cells of days 2 and 4 whose clones have become something else by day 6."""
    adata = cf.datasets.hematopoiesis()
    course = Course.of(adata, "clones", time_key="day", rep="X_pca", label="state")
    early, late = (adata.obs[adata.obs["day"].isin(days)] for days in ((2, 4), (6,)))
    early = pd.concat([early[early["day"] == day] for day in (2, 4)])  # in the order of the snapshots
    names = tuple(sorted(set(late["state"].astype(str))))

    def score(shares: np.ndarray) -> Row:
        table = pd.DataFrame(shares, columns=list(names))
        found = cf.metrics.fate_overlap(table, early["state"], early["clone"], late["state"], late["clone"]).numpy()
        changed = ~np.isnan(found)
        by_clone = pd.Series(found[changed]).groupby(early["clone"].astype(str).to_numpy()[changed]).mean().to_numpy()
        return _interval("overlap", torch.mean, torch.from_numpy(by_clone), cf.generator(seed=0))

    asked = tuple(np.arange(len(cloud)) for cloud in course.clouds[:-1])
    return Case(course, late["state"].astype(str).to_numpy(), names, asked, score)


SETS: dict[str, Callable[[int], Case]] = {"larry": larry, "clones": clones}


def _interval(
    name: str, statistic: Callable[[torch.Tensor], torch.Tensor | float], sample: torch.Tensor, rng: torch.Generator
) -> Row:
    found = cf.metrics.bootstrap(statistic, sample, generator=rng)
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def _pearson(pairs: torch.Tensor) -> float:
    return float(torch.corrcoef(pairs.T)[0, 1].nan_to_num())  # a constant says nothing of the other


def _auc(pairs: torch.Tensor) -> float:
    from sklearn.metrics import roc_auc_score

    positive = pairs[:, 1].numpy() > 0.5
    return float(roc_auc_score(positive, pairs[:, 0].numpy())) if 0 < positive.sum() < len(positive) else 0.5
