"""Optimal transport between two equal clouds in the plane, to a gap that is proved: 10,000 points in seconds.

An auction: source points bid for target points, and prices rise until nobody would rather have another one. Each
source point keeps a short list of its best offers, valid until prices have risen past the first offer that is not on
it. The prices at the end give a lower bound for every other matching. A dense solver needs a minute here.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from cellflow.errors import ConvergenceError

COARSE, OFFERS, ROUNDS, FIRST = 1500, 24, 40, 20
"""Points a side of the coarse solution that prices start from, offers on the list of each source point, and how often
the least raise of a price may shrink."""


class Assignment(NamedTuple):
    """The partner of each source point ``(n,)``, the mean squared distance, and a proved lower bound for it."""

    partner: np.ndarray
    cost: float
    bound: float


def assign(x: np.ndarray, y: np.ndarray, *, gap: float = 5e-4) -> Assignment:
    """Match two clouds ``(n, 2)`` one to one, at a mean squared distance within ``gap`` (relative) of the least.

    Source: Bertsekas 1988, "The auction algorithm", with his scaling of the least bid.

    Raises
    ------
    ConvergenceError
        When the bound stays away from the cost.
    """
    if x.shape != y.shape or x.ndim != 2 or x.shape[1] != 2:
        raise ValueError(f"Expected two clouds (n, 2) of one size; found {x.shape} and {y.shape}.")
    x, y = np.ascontiguousarray(x, np.float64), np.ascontiguousarray(y, np.float64)
    price = _coarse_prices(x, y)
    offers, outside = np.empty((len(x), OFFERS), np.int64), np.full(len(x), -np.inf)
    step = float(x.var(0).sum() + y.var(0).sum()) / FIRST
    for _ in range(ROUNDS):
        partner = _auction(x, y, price, step, offers, outside)
        cost = float(((x - y[partner]) ** 2).sum(1).mean())
        bound = float(_least(x, y, price).mean() - price.mean())
        if cost - bound <= gap * cost:
            return Assignment(partner, cost, bound)
        step = max(step / 5, gap / 2 * bound if bound > 0 else 0)
    raise ConvergenceError(f"Proved only {bound:.6g} of a cost of {cost:.6g}. Raise `gap`, now {gap}.")


def _coarse_prices(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return prices of all target points from an exact solution between the first few: a price is minus a potential."""
    import ot

    m = min(COARSE, len(x))
    weights = np.full(m, 1 / m)
    _, log = ot.emd(weights, weights, ot.dist(x[:m], y[:m]), numItermax=10_000_000, log=True)
    return np.asarray(-_least(y, x[:m], -log["u"]))


@njit(cache=True, fastmath=True)
def _least(x, y, price):  # type: ignore[no-untyped-def]
    """Return the least of cost plus price over all target points, ``(n,)``."""
    found = np.empty(len(x))
    for i in range(len(x)):
        best = np.inf
        for j in range(len(y)):
            best = min(best, (x[i, 0] - y[j, 0]) ** 2 + (x[i, 1] - y[j, 1]) ** 2 + price[j])
        found[i] = best
    return found


@njit(cache=True)
def _auction(x, y, price, step, offers, outside):  # type: ignore[no-untyped-def]
    """Assign everybody, each within ``step`` of content; prices rise and lists are renewed in place."""
    n = len(x)
    values, owner, partner, waiting = np.empty(n), np.full(n, -1), np.full(n, -1), np.arange(n)
    count = n
    while count:
        count -= 1
        i = waiting[count]
        best, second, choice = np.inf, np.inf, -1
        if outside[i] > -np.inf:
            best, second, choice = _two_best(i, offers[i], x, y, price)
        if second > outside[i]:  # an offer off the list may be better by now
            outside[i] = _list(i, offers[i], values, x, y, price)
            best, second, choice = _two_best(i, offers[i], x, y, price)
        price[choice] += second - best + step
        if owner[choice] >= 0:
            waiting[count] = owner[choice]
            count += 1
        owner[choice], partner[i] = i, choice
    return partner


@njit(cache=True)
def _two_best(i, offers, x, y, price):  # type: ignore[no-untyped-def]
    """Return the least and second least of cost plus price on a list, and the target point of the least."""
    best, second, choice = np.inf, np.inf, -1
    for j in offers:
        value = (x[i, 0] - y[j, 0]) ** 2 + (x[i, 1] - y[j, 1]) ** 2 + price[j]
        if value < best:
            best, second, choice = value, best, j
        elif value < second:
            second = value
    return best, second, choice


@njit(cache=True, fastmath=True)
def _values(i, values, x, y, price):  # type: ignore[no-untyped-def]
    for j in range(len(y)):
        values[j] = (x[i, 0] - y[j, 0]) ** 2 + (x[i, 1] - y[j, 1]) ** 2 + price[j]


@njit(cache=True)
def _list(i, offers, values, x, y, price):  # type: ignore[no-untyped-def]
    """Write the best offers for a source point into its list, and return the best value that is not among them."""
    _values(i, values, x, y, price)
    size, filled = len(offers), 0
    outside = np.inf
    best = np.empty(size)
    for j in range(len(values)):
        value = values[j]
        if filled == size and value >= best[size - 1]:
            outside = min(outside, value)
            continue
        if filled == size:
            outside = min(outside, best[size - 1])
        k = min(filled, size - 1)
        while k > 0 and best[k - 1] > value:
            best[k], offers[k] = best[k - 1], offers[k - 1]
            k -= 1
        best[k], offers[k] = value, j
        filled = min(filled + 1, size)
    return outside
