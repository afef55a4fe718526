"""How far generated points are from test points, by an assignment of proved cost, and how far they travelled."""

from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

import cellflow as cf
from cellflow.errors import ConvergenceError
from cellflow.fields import Field
from cellflow.integrate import Fixed

COARSE, ROUNDS, FIRST = 1500, 40, 20
"""Points a side of the coarse solution that prices start from; how often the least raise of a price may shrink, and
from which part of both variances on."""


class Assignment(NamedTuple):
    """The partner of each source point ``(n,)``, the mean squared distance, and a proved lower bound for it."""

    partner: np.ndarray
    cost: float
    bound: float


def assign(x: np.ndarray, y: np.ndarray, *, gap: float = 5e-4) -> Assignment:
    """Match two clouds ``(n, 2)`` one to one, at a mean squared distance within ``gap`` (relative) of the least.

    Source: Bertsekas 1988, "The auction algorithm", with his scaling of the least bid.
    """
    import ot

    if x.shape != y.shape or x.ndim != 2 or x.shape[1] != 2:
        raise ValueError(f"Expected two clouds (n, 2) of one size; found {x.shape} and {y.shape}.")
    x, y = np.ascontiguousarray(x, np.float64), np.ascontiguousarray(y, np.float64)
    m = min(COARSE, len(x))
    weights = np.full(m, 1 / m)
    _, log = ot.emd(weights, weights, ot.dist(x[:m], y[:m]), numItermax=10_000_000, log=True)
    price = -_least(y, x[:m], -log["u"])  # minus a potential
    step = float(x.var(0).sum() + y.var(0).sum()) / FIRST
    for _ in range(ROUNDS):
        partner = _auction(x, y, price, step)
        cost = float(((x - y[partner]) ** 2).sum(1).mean())
        bound = float(_least(x, y, price).mean() - price.mean())
        if cost - bound <= gap * cost:
            return Assignment(partner, cost, bound)
        step = max(step / 5, gap / 2 * bound if bound > 0 else 0)
    raise ConvergenceError(f"Proved only {bound:.6g} of a cost of {cost:.6g}. Raise `gap`, now {gap}.")


@njit(cache=True, fastmath=True)
def _values(i, x, y, price, values):  # type: ignore[no-untyped-def]
    """Write cost plus price of all target points for source point ``i`` into ``values`` ``(n,)``."""
    for j in range(len(y)):
        values[j] = (x[i, 0] - y[j, 0]) ** 2 + (x[i, 1] - y[j, 1]) ** 2 + price[j]


@njit(cache=True)
def _least(x, y, price):  # type: ignore[no-untyped-def]
    """Return the least of cost plus price over all target points, ``(n,)``."""
    found, values = np.empty(len(x)), np.empty(len(y))
    for i in range(len(x)):
        _values(i, x, y, price, values)
        found[i] = values.min()
    return found


@njit(cache=True)
def _auction(x, y, price, step):  # type: ignore[no-untyped-def]
    """Return partners ``(n,)``, each within ``step`` of content; prices rise in place."""
    n = len(x)
    values, owner, partner, waiting = np.empty(n), np.full(n, -1), np.full(n, -1), np.arange(n)
    count = n
    while count:
        count -= 1
        i, best, second, choice = waiting[count], np.inf, np.inf, -1
        _values(i, x, y, price, values)
        for j in range(n):
            if values[j] < best:
                best, second, choice = values[j], best, j
            elif values[j] < second:
                second = values[j]
        price[choice] += second - best + step
        if owner[choice] >= 0:
            waiting[count] = owner[choice]
            count += 1
        owner[choice], partner[i] = i, choice
    return partner


STEPS = 100
"""Euler steps of the probability flow, as published."""


def squared_distance(x: Tensor, y: Tensor) -> float:
    """Return the squared W2 between two clouds ``(n, 2)`` of one size, exact to one part in 2,000."""
    return assign(x.double().numpy(), y.double().numpy()).cost


def travel(velocity: Field, x: Tensor) -> tuple[Tensor, float]:
    """Return where the probability flow takes ``x`` ``(n, 2)``, and the mean energy spent: the integral of |v|^2."""
    path = cf.integrate.ode(velocity, x, solver=Fixed("euler", steps=STEPS), save=STEPS + 1).x
    return path[-1], float((path.diff(dim=0).double() * STEPS).square().sum(-1).mean())


def independent_energy(
    x1: Tensor, modes: Tensor, spread: float, *, rng: torch.Generator, blur: float, points: int = 200, times: int = 40
) -> float:
    """Return the path energy of the exact field that joins independent pairs, from equal Gaussians to points ``x1``.

    Given a point on the way, each pair of a Gaussian (about ``modes`` ``(k, 2)``, of standard deviation ``spread``) and
    a target has a known weight: the field is known, and no other has this path with less energy. ``blur`` is the
    standard deviation of noise around the straight line, which a field averages over.
    """
    total = 0.0
    for t in ((torch.arange(times) + 0.5) / times).tolist():
        rows, kinds = (torch.randint(len(side), (points,), generator=rng) for side in (x1, modes))
        x = t * x1[rows] + (1 - t) * (modes[kinds] + spread * torch.randn(points, 2, generator=rng))
        x = x + blur * torch.randn(points, 2, generator=rng) if blur else x
        own = ((1 - t) * spread) ** 2  # the variance that the source brings, of the variance around a pair's mean
        ends, starts = x1.repeat(len(modes), 1), modes.repeat_interleave(len(x1), dim=0)
        centres = t * ends + (1 - t) * starts
        weights = (-(torch.cdist(x, centres) ** 2) / (2 * (own + blur**2))).softmax(dim=1)
        start = weights @ starts + (1 - t) * spread**2 / (own + blur**2) * (x - weights @ centres)
        total += float((weights @ ends - start).square().sum(1).mean())
    return total / times


def gaussian_energy(x1: Tensor, *, rng: torch.Generator, blur: float, points: int = 200, times: int = 40) -> float:
    """Return the path energy of the exact field of flow matching from a standard Gaussian to blurred points ``x1``.

    Source: Lipman et al. 2023, equation 20, with ``blur`` for their smallest standard deviation.
    """
    total = 0.0
    for t in ((torch.arange(times) + 0.5) / times).tolist():
        rows, sd = torch.randint(len(x1), (points,), generator=rng), 1 - (1 - blur) * t
        x = t * x1[rows] + sd * torch.randn(points, 2, generator=rng)
        weights = (-(torch.cdist(x, t * x1) ** 2) / (2 * sd**2)).softmax(dim=1)
        total += float(((weights @ x1 - (1 - blur) * x) / sd).square().sum(1).mean())
    return total / times
