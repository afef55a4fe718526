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

RESAMPLES = 1000
MAX_ITERATIONS = 10_000_000
LEVELS = (0.025, 0.975)


class Transport(NamedTuple):
    """A solved transport problem: its value and dual potentials ``(n,)`` and ``(m,)``, in units of the cost."""

    value: float
    f: np.ndarray
    g: np.ndarray


def transport(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, *, squared: bool = False) -> Transport:
    """Solve the exact transport problem between weighted clouds, with the Euclidean distance or its square as cost.

    Raises
    ------
    ConvergenceError
        When the network simplex takes too many pivots.

    Examples
    --------
    >>> x, y, one = np.zeros((1, 2)), np.array([[3.0, 4.0]]), np.ones(1)
    >>> round(transport(x, y, one, one).value, 6), round(transport(x, y, one, one, squared=True).value, 6)
    (5.0, 25.0)
    """
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


def interval(found: Transport, a: np.ndarray, b: np.ndarray, *, seed: int) -> tuple[float, float, float]:
    """Return the bootstrap's standard deviation and its 95 % interval of a transport value."""
    rng = np.random.default_rng(seed)
    spread = _resampled(found.f, a, rng) + _resampled(found.g, b, rng)
    low, high = np.quantile(spread, LEVELS)
    return float(spread.std()), found.value + float(low), found.value + float(high)


def score(x: np.ndarray, y: np.ndarray, *, weights: np.ndarray | None = None, seed: int = 0) -> dict[str, float]:
    """Return every distance between a prediction and the held-out cells.

    Parameters
    ----------
    x, y
        Predicted and true cells ``(n, d)`` and ``(m, d)``.
    weights
        Of the predicted cells ``(n,)``; each the same without.
    seed
        Of the bootstrap and of the directions of the sliced distance.

    Examples
    --------
    >>> x = np.zeros((10, 2))
    >>> found = score(x, x + 1.0)
    >>> round(found["W1"], 4), round(found["W2"], 4), round(found["energy"], 4)
    (1.4142, 1.4142, 2.8284)
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    a, b = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64), np.ones(len(y))
    a, b = a / a.sum(), b / b.sum()
    with ThreadPoolExecutor(2) as pool:  # the solver holds no Python lock
        first = pool.submit(transport, x, y, a, b)
        second = pool.submit(transport, x, y, a, b, squared=True)
        w1, w2 = first.result(), second.result()
    sd, low, high = interval(w1, a, b, seed=seed)
    rng = cf.generator(seed=seed)
    return {
        "W1": w1.value,
        "W1_sd": sd,
        "W1_low": low,
        "W1_high": high,
        "W2": w2.value**0.5,
        "MMD": cf.metrics.maximum_mean_discrepancy(x, y, weights_x=a, weights_y=b),
        "energy": cf.metrics.energy_distance(x, y, weights_x=a, weights_y=b),
        "sliced_W": cf.metrics.sliced_wasserstein(x, y, generator=rng, weights_x=a, weights_y=b),
    }


def mass_error(predicted: float, true: float) -> float:
    """Return the relative mass error ``|m - M| / M``.

    Source: the evaluation code of WFR-FM, which calls it TMV; its text and VGFM call it RME.

    Examples
    --------
    >>> mass_error(1.0, 2.0)
    0.5
    """
    return abs(predicted - true) / true


def _resampled(potential: np.ndarray, weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return how a potential's mean varies over bootstrap samples ``(RESAMPLES,)``, about its own."""
    n = len(potential)
    centred = n * weights * (potential - weights @ potential)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    return (counts @ centred) / n
