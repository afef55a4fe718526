"""Optimal transport between two equal clouds in the plane, to a gap that is proved: 10,000 points in seconds.

An auction: source points bid for target points, and prices rise until nobody would rather have another one. The prices
at the end give a lower bound for every other matching. A dense solver needs a minute here.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from cellflow.errors import ConvergenceError

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

    Source
    ------
    Bertsekas 1988, "The auction algorithm", with his scaling of the least bid.
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
