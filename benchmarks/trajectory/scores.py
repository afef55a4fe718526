"""Distances between a prediction and the held-out cells, on all cells, with an interval.

The interval is a bootstrap over cells. Solving the transport problem again for every resample would take hours, so
its value is followed to first order: at the optimum ``W1 = mean f(x) + mean g(y)`` with the dual potentials ``f`` and
``g``, and a small change of the weights changes W1 by the same potentials. Both clouds are resampled. The interval says
how much W1 would vary had other cells been caught; the bias of W1 between finite clouds, the noise floor, stays in it.

Source: Sommerfeld and Munk 2018; del Barrio, González Sanz and Loubes 2024, for the limit law on which this rests.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

import cellflow as cf
from cellflow.errors import ConvergenceError

RESAMPLES, LEVELS = 1000, (0.025, 0.975)
MAX_ITERATIONS = 10_000_000


class Transport(NamedTuple):
    """A solved transport problem: its value and dual potentials ``(n,)`` and ``(m,)``, in units of the cost."""

    value: float
    f: np.ndarray
    g: np.ndarray


def transport(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, *, squared: bool = False) -> Transport:
    """Solve the exact transport problem between weighted clouds, with the Euclidean distance or its square as cost."""
    import ot
    from scipy.spatial.distance import cdist

    costs = cdist(x, y, "sqeuclidean" if squared else "euclidean")
    unit = max(float(costs.max()), np.finfo(float).tiny)
    costs /= unit
    a, b = a / a.sum(), b / b.sum()
    matrix, log = ot.emd(a, b, costs, numItermax=MAX_ITERATIONS, log=True)
    if log["warning"] is not None:
        raise ConvergenceError(f"Transport between {len(x)} and {len(y)} cells was not solved: {log['warning']}.")
    i, j = matrix.nonzero()
    return Transport(float(matrix[i, j] @ costs[i, j]) * unit, log["u"] * unit, log["v"] * unit)


def score(x: np.ndarray, y: np.ndarray, *, weights: np.ndarray | None = None, seed: int = 0) -> dict[str, float]:
    """Return every distance between predicted and true cells ``(n, d)`` and ``(m, d)``.

    ``weights`` ``(n,)`` are those of the predicted cells; ``seed`` is of the bootstrap and of the directions of the
    sliced distance.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    a, b = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64), np.ones(len(y))
    a, b = a / a.sum(), b / b.sum()
    with ThreadPoolExecutor(2) as pool:  # the solver holds no Python lock
        first, second = (pool.submit(transport, x, y, a, b, squared=squared) for squared in (False, True))
        w1, w2 = first.result(), second.result()
    rng = np.random.default_rng(seed)
    spread = _resampled(w1.f, a, rng) + _resampled(w1.g, b, rng)
    low, high = (w1.value + float(end) for end in np.quantile(spread, LEVELS))
    weighted = {"weights_x": a, "weights_y": b}
    return {
        "W1": w1.value,
        "W1_sd": float(spread.std()),
        "W1_low": low,
        "W1_high": high,
        "W2": w2.value**0.5,
        "MMD": cf.metrics.maximum_mean_discrepancy(x, y, **weighted),
        "energy": cf.metrics.energy_distance(x, y, **weighted),
        "sliced_W": cf.metrics.sliced_wasserstein(x, y, generator=cf.generator(seed=seed), **weighted),
    }


def mass_error(predicted: float, true: float) -> float:
    """Return the relative mass error ``|m - M| / M``.

    Source
    ------
    The evaluation code of WFR-FM, which calls it TMV; its text and VGFM call it RME.
    """
    return abs(predicted - true) / true


def _resampled(potential: np.ndarray, weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return how a potential's mean varies over bootstrap samples ``(RESAMPLES,)``, about its own."""
    n = len(potential)
    centred = n * weights * (potential - weights @ potential)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    return (counts @ centred) / n
