"""The scores of a prediction, all against measured cells, treated and untreated."""

from typing import NamedTuple

import numpy as np
from scipy.stats import false_discovery_control, spearmanr, ttest_ind_from_stats

import cellflow as cf
from benchmarks.perturbation.folds import Space, Truth
from benchmarks.rows import Row

TOP = 50
RATE = 0.05
"""False discovery rate at which a gene counts as changed."""
MOST = 1500
"""Points of a cloud that distances compare; of more, so many drawn once."""
HALVES = 10
HALF = "half against half"


class Predicted(NamedTuple):
    """Predicted cells ``(n, d)`` in components, or ``(n, genes)``, with their weights ``(n,)`` where they differ."""

    x: np.ndarray
    genes: bool = False
    weight: np.ndarray | None = None


def score(predicted: Predicted, truth: Truth, space: Space) -> Row:
    """Return all scores of one prediction."""
    x = np.asarray(predicted.x, dtype=np.float64)
    if not np.isfinite(x).all():
        return {"failed": "not finite"}
    mean = np.average(x, axis=0, weights=predicted.weight)
    if predicted.genes:
        change, points = mean - truth.control.mean(axis=0, dtype=np.float64), space.enter(x)
    else:
        change, points = space.genes(mean - space.enter(truth.control).mean(axis=0, dtype=np.float64)), x
    found = _of_change(change, truth) | _of_clouds(points, space.enter(truth.treated), predicted.weight)
    if truth.aligned and len(x) == len(truth.treated) and points.shape[1] == 1:
        found["rank"] = _rank(points[:, 0], space.enter(truth.treated)[:, 0])
    return found


def halves(truth: Truth, space: Space) -> Row:
    """Return the scores of one half of the treated cells as a prediction of the other, averaged over random halves."""
    rng, rows = np.random.default_rng(0), []
    for _ in range(HALVES):
        order = rng.permutation(len(truth.treated))
        one, two = np.array_split(order, 2)
        rest = Truth(truth.treated[two], truth.control)
        rows.append(score(Predicted(truth.treated[one], genes=True), rest, space))
    names = [name for name in rows[0] if all(isinstance(row.get(name), int | float) for row in rows)]
    found: Row = {name: float(np.mean([row[name] for row in rows])) for name in names}
    if truth.aligned:
        x, y = space.enter(truth.control)[:, 0], space.enter(truth.treated)[:, 0]
        found["rank"] = _rank(x, y)  # what a cell was says so much of what it will be
    return found


def _of_change(change: np.ndarray, truth: Truth) -> Row:
    """Compare a change of genes with the measured one."""
    measured = truth.treated.mean(axis=0, dtype=np.float64) - truth.control.mean(axis=0, dtype=np.float64)
    if len(measured) < 3:
        return {}
    top = np.argsort(-np.abs(measured))[:TOP]
    changed = _changed(truth)
    right = int((np.sign(change[changed]) == np.sign(measured[changed])).sum())
    return {
        "pearson": _pearson(change, measured),
        "pearson_top": _pearson(change[top], measured[top]),
        "right": right,
        "changed": int(changed.sum()),
    }


def _of_clouds(x: np.ndarray, y: np.ndarray, weight: np.ndarray | None) -> Row:
    """Compare two clouds."""
    a, w = cf.metrics.thinned(x, weight, MOST, generator=cf.generator(seed=0))
    b, _ = cf.metrics.thinned(y.astype(np.float64), None, MOST, generator=cf.generator(seed=1))
    return {
        "energy": cf.metrics.energy_distance(a, b, weights_x=w),
        "MMD": cf.metrics.maximum_mean_discrepancy(a, b, weights_x=w),
        "W1": cf.metrics.wasserstein(a, b, weights_x=w),
    }


def _changed(truth: Truth) -> np.ndarray:
    """Return which genes really changed: Welch's t test, false discovery rate of Benjamini and Hochberg."""
    both = [np.asarray(x, dtype=np.float64) for x in (truth.treated, truth.control)]
    means, spreads = [x.mean(axis=0) for x in both], [x.std(axis=0, ddof=1) for x in both]
    varies = spreads[0] + spreads[1] > 0
    found = means[0] != means[1]  # of genes that are the same in all cells of a kind
    if varies.any():
        one, two = ([*(each[k][varies] for each in (means, spreads)), len(both[k])] for k in (0, 1))
        p = ttest_ind_from_stats(*one, *two, equal_var=False).pvalue
        found[varies] = false_discovery_control(p) < RATE
    return np.asarray(found)


def _pearson(x: np.ndarray, y: np.ndarray) -> float | None:
    if len(x) < 3 or np.ptp(x) < 1e-9 or np.ptp(y) < 1e-9:
        return None  # no change says nothing of its direction
    return float(np.corrcoef(x, y)[0, 1])


def _rank(x: np.ndarray, y: np.ndarray) -> float:
    return float(spearmanr(x, y).statistic)
