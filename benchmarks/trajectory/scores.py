"""Distances between a prediction and the held-out cells, on all cells, with an interval.

The interval is a bootstrap over cells. Solving the transport problem again for every resample would take hours, so
its value is followed to first order: at the optimum ``W1 = mean f(x) + mean g(y)`` with the dual potentials ``f`` and
``g``, and a small change of the weights changes W1 by the same potentials. Both clouds are resampled. The interval says
how much W1 would vary had other cells been caught; the bias of W1 between finite clouds, the noise floor, stays in it.

Source: Sommerfeld and Munk 2018; del Barrio, González Sanz and Loubes 2024, for the limit law on which this rests.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import cellflow as cf
from benchmarks.trajectory.methods import Rates, RollOut
from benchmarks.trajectory.tasks import Task
from cellflow.errors import ConvergenceError
from cellflow.integrate import Fixed

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
    weighted, directions = {"weights_x": a, "weights_y": b}, cf.generator(seed=seed)
    return {
        "W1": w1.value, "W1_sd": float(spread.std()), "W1_low": low, "W1_high": high, "W2": w2.value**0.5,
        "MMD": cf.metrics.maximum_mean_discrepancy(x, y, **weighted),
        "energy": cf.metrics.energy_distance(x, y, **weighted),
        "sliced_W": cf.metrics.sliced_wasserstein(x, y, generator=directions, **weighted),
    }  # fmt: skip


def _resampled(potential: np.ndarray, weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return how a potential's mean varies over bootstrap samples ``(RESAMPLES,)``, about its own."""
    n = len(potential)
    centred = n * weights * (potential - weights @ potential)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    return np.asarray((counts @ centred) / n)


def path_action(rates: Rates, x: np.ndarray, start: float, stop: float, *, length: float) -> float:
    r"""Return the Wasserstein-Fisher-Rao action of a motion, for particles ``(n, d)`` whose mass at ``start`` is 1.

    .. math:: \int_{start}^{stop} \sum_i w_i(t) \tfrac12 \left( |v(x_i, t)|^2 + \delta^2 g(x_i, t)^2 \right) dt,
        \qquad \dot x_i = v, \quad \dot w_i = w_i g, \quad w_i = 1/n \text{ at first}

    Growth counts the square of the length ``delta``: over more than ``pi * delta`` no mass is moved, it is cheaper to
    let it die and be born. Where mass is kept the kinetic part is left: half the square of the speed, over time.

    Source: Chizat et al. 2018 for the distance; the halves and the start weights are those of WFR-FM's evaluation.
    """

    def both(t: Tensor, z: Tensor, condition: Tensor | None) -> Tensor:
        """Return the slopes of state, log of weight and action of each particle."""
        pace = rates(z[:, :-2].numpy(), float(t[0]))
        growth = np.zeros(len(z)) if pace.growth is None else pace.growth
        weight = np.exp(z[:, -2].numpy())
        spent = weight * (np.square(pace.velocity).sum(axis=1) + length**2 * np.square(growth)) / 2
        return torch.from_numpy(np.column_stack([pace.velocity, growth, spent])).to(z)

    n = len(x)
    z = torch.from_numpy(np.column_stack([x, np.full(n, -np.log(n)), np.zeros(n)]))
    found = cf.integrate.ode(both, z.double(), start=start, stop=stop, solver=Fixed("rk4", steps=100))
    return float(found.x[-1][:, -1].sum())


def of_motion(task: Task, fitted: RollOut) -> dict[str, Any]:
    """Return the scores of a fitted motion from the first snapshot to the last, as far as they are defined.

    ``action`` needs the protocol's weighted particles, the length of the data set, which is ``length``, and rates.
    ``growth_r`` needs the true growth rate too, and a predicted one: over all observed cells, each at its own time.
    """
    if fitted.rates is None or not task.protocol.weighted:
        return {}
    scores: dict[str, Any] = {}
    if task.truths.length is not None:
        start, stop = task.times[0], task.times[-1]
        action = path_action(fitted.rates, task.observed[0], start, stop, length=task.truths.length)
        scores |= {"action": action, "length": task.truths.length}
    if task.truths.growth is not None:
        paces = [fitted.rates(x, task.times[k]) for k, x in task.observed.items()]
        predicted = [pace.growth for pace in paces if pace.growth is not None]
        if len(predicted) == len(paces):
            true = [task.truths.growth(task.space.leave(x)) for x in task.observed.values()]
            rates = np.concatenate(predicted), np.concatenate(true)
            same = any(np.ptp(rate) == 0 for rate in rates)  # everywhere: nothing to correlate
            scores["growth_r"] = float("nan") if same else float(np.corrcoef(*rates)[0, 1])
    return scores
