"""Scores of a learned motion itself, where its velocity and growth are known: path action and growth correlation.

Both are those of the evaluation of WFR-FM (Peng et al. 2026), so that the published values stand beside ours.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

import cellflow as cf
from benchmarks.trajectory.methods import Rates, RollOut
from benchmarks.trajectory.tasks import Task
from cellflow.integrate import Fixed

STEPS = 100
"""Runge-Kutta steps along the whole motion."""


def path_action(rates: Rates, x: np.ndarray, start: float, stop: float, *, length: float) -> float:
    r"""Return the Wasserstein-Fisher-Rao action of a motion, for particles ``(n, d)`` whose mass at ``start`` is 1.

    .. math:: \int_{start}^{stop} \sum_i w_i(t) \tfrac12 \left( |v(x_i, t)|^2 + \delta^2 g(x_i, t)^2 \right) dt,
        \qquad \dot x_i = v, \quad \dot w_i = w_i g, \quad w_i = 1/n \text{ at first}

    Growth counts the square of the length ``delta``: over more than ``pi * delta`` no mass is moved, it is cheaper to
    let it die and be born. Where mass is kept the kinetic part is left: half the square of the speed, over time.

    Source
    ------
    Chizat et al. 2018 for the distance; the halves and the start weights are those of WFR-FM's evaluation.
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
    found = cf.integrate.ode(both, z.double(), start=start, stop=stop, solver=Fixed("rk4", steps=STEPS))
    return float(found.x[-1][:, -1].sum())


def growth_correlation(predicted: np.ndarray, true: np.ndarray) -> float:
    """Return Pearson's correlation of two growth rates, both ``(n,)``; NaN where one is the same everywhere."""
    if np.ptp(predicted) == 0 or np.ptp(true) == 0:
        return float("nan")
    return float(np.corrcoef(predicted, true)[0, 1])


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
            scores["growth_r"] = growth_correlation(np.concatenate(predicted), np.concatenate(true))
    return scores
