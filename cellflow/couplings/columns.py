"""Exact optimal transport in linear memory: solve over few pairs, price all pairs, add those that help, repeat.

A plan over some pairs comes with prices of the points. A pair that is cheaper than its two prices would make the plan
cheaper; if there is none, the plan is optimal among all pairs, and the prices prove it. Only a few pairs for each point
are looked at more than once.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cellflow.couplings.cost import Cost, Euclidean, SquaredEuclidean
from cellflow.couplings.draws import systematic
from cellflow.couplings.pricing import BLOCK, pair_costs, price, reduced_minima
from cellflow.couplings.simplex import corner, solve, whole_units
from cellflow.couplings.sparse import SparsePlan
from cellflow.errors import ConvergenceError
from cellflow.seeds import generator

GAP = 1e-9
"""Most that a plan may cost above the proven bound, as a share of its cost."""
POINT_BYTES = 10_000
"""Bytes for each point at the peak, as measured: a dozen pairs, in the graph of the simplex and in work."""
_ROUGH = 1e-3  # the gap of a plan that only gives first prices
_FEW = 800  # points up to which prices start from nothing
_PART = 4  # of more, one in so many gives the first prices
_FIRST, _ADDED = 8, 3  # pairs of each source point that are taken at first, and later when they pay
_ROUNDS = 200
_CHECKED = 256  # pairs of which the cost is asked for a second time
_DIGITS = 16 * torch.finfo(torch.float64).eps


@dataclass(frozen=True, eq=False)
class Optimum:
    """A plan of least cost, and the prices that prove it.

    Parameters
    ----------
    i, j
        The pairs that carry mass ``(k,)``.
    units
        How many of the units of mass each carries ``(k,)``.
    cost
        The cost of the plan, of a mass of 1.
    bound
        Lower bound on the cost of every plan: the weighted prices.
    u, v
        The prices ``(n,)`` and ``(m,)``: the sum of two is at most the cost of their pair.
    """

    i: Tensor
    j: Tensor
    units: Tensor
    cost: float
    bound: float
    u: Tensor
    v: Tensor


def columns_memory(n: int, m: int) -> int:
    """Return the bytes that `transport` needs for ``n`` and ``m`` points, besides the points.

    Examples
    --------
    >>> columns_memory(10_000, 10_000) < columns_memory(100_000, 100_000) < 2**32
    True
    """
    return 4 * BLOCK + POINT_BYTES * (n + m)


def transport(cost: Cost, x0: Tensor, x1: Tensor, a: Tensor, b: Tensor, *, max_iterations: int) -> SparsePlan:
    """Return the plan of least cost, with its prices as ``potentials``.

    Parameters
    ----------
    cost
        Cost of matching two points, which depends on these two only.
    x0, x1
        The clouds ``(n, ...)`` and ``(m, ...)``.
    a, b
        Nonnegative weights ``(n,)`` and ``(m,)``, with any sums.
    max_iterations
        Most pivots of each simplex.

    Raises
    ------
    ConvergenceError
        When a simplex takes more than ``max_iterations`` pivots.

    Source
    ------
    Ford and Fulkerson 1958, "A suggested computation for maximal multi-commodity network flows" (column generation);
    Gerber and Maggioni 2017, "Multiscale strategies for computing optimal transport" (prices of a part come first).

    Examples
    --------
    >>> import torch
    >>> x0, x1, a, b = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.5]]), torch.ones(2), torch.ones(1)
    >>> transport(SquaredEuclidean(), x0, x1, a, b, max_iterations=100)
    SparsePlan(2 x 1, mass 1, 2 pairs, cost 1.25)
    """
    n, m = len(x0), len(x1)
    units_a, units_b = (units.cpu() for units in whole_units(a, b))
    rows, columns = units_a.nonzero().squeeze(1), units_b.nonzero().squeeze(1)
    inside = x0[rows.to(x0.device)], x1[columns.to(x1.device)]
    found = optimum(cost, *inside, units_a[rows], units_b[columns], max_iterations=max_iterations)
    u, v = found.u, found.v
    if len(columns) < m:
        v = reduced_minima(cost, inside[0], x1, u, torch.zeros(m, dtype=torch.float64), dim=0)
        v[columns] = found.v
    if len(rows) < n:
        u = reduced_minima(cost, x0, x1, torch.zeros(n, dtype=torch.float64), v, dim=1)
        u[rows] = found.u
    i, j, masses = rows[found.i], columns[found.j], found.units / units_a.sum()
    i, j, masses, u, v = (part.to(a.device) for part in (i, j, masses, u, v))
    return SparsePlan(i, j, masses, shape=(n, m), cost=found.cost, potentials=(u, v))


def optimum(
    cost: Cost, x0: Tensor, x1: Tensor, a: Tensor, b: Tensor, *, max_iterations: int, gap: float = GAP
) -> Optimum:
    """Return the plan of least cost between weights ``(n,)`` and ``(m,)``, positive whole numbers with the same sum.

    Its cost exceeds the lower bound from its prices by at most the share ``gap``; the rest is as for `transport`.
    """
    m, mass = len(x1), a.sum()
    u, v = _first_prices(cost, x0, x1, a, b, max_iterations)
    keys, costs, cheap = _first_pairs(cost, x0, x1, a, b, u, v)
    for _ in range(_ROUNDS):
        solved = solve(keys // m, keys % m, costs, a, b, u, v, max_iterations=max_iterations)
        u, v, carrying = solved.u, solved.v, keys[solved.places]
        total = float(solved.units @ costs[solved.places] / mass)
        rounding = solved.rounding + _DIGITS * max(float(part.abs().max()) for part in (costs, u, v))
        found = price(cost, x0, x1, u, v, below=-gap / 10 * abs(total) - rounding, per_row=_ADDED)
        bound = float((a @ (u + found.slack) + b @ v) / mass)
        paying = found.i * m + found.j
        if total - bound <= gap * abs(total) + rounding or bool(torch.isin(paying, keys).all()):
            total = float(solved.units @ pair_costs(cost, x0, x1, carrying // m, carrying % m) / mass)
            return Optimum(carrying // m, carrying % m, solved.units, total, bound, u + found.slack, v)
        kept = cheap | torch.isin(keys, carrying)
        keys, costs = _joined(keys[kept], costs[kept], paying, found.costs)
        cheap = torch.ones_like(keys, dtype=torch.bool)
    raise ConvergenceError(
        f"Optimal transport between {len(x0)} and {m} points still costs {total:.6g}, and the proven lower bound is "
        f"{bound:.6g}, after {_ROUNDS} rounds of adding pairs. Couple fewer points at a time, or take `Sinkhorn`."
    )


def _first_prices(
    cost: Cost, x0: Tensor, x1: Tensor, a: Tensor, b: Tensor, max_iterations: int
) -> tuple[Tensor, Tensor]:
    """Return the prices that a part of the points has among itself, extended to all by what they would pay there."""
    none = torch.zeros_like(a), torch.zeros_like(b)
    if max(len(a), len(b)) <= _FEW:
        return none
    some0, some1 = (x[_part(weights).to(x.device)] for x, weights in ((x0, a), (x1, b)))
    equal = whole_units(torch.ones(len(some0)), torch.ones(len(some1)))
    part = optimum(cost, some0, some1, *equal, max_iterations=max_iterations, gap=_ROUGH)
    u = reduced_minima(cost, x0, some1, none[0], part.v, dim=1)
    return u, reduced_minima(cost, some0, x1, part.u, none[1], dim=0)


def _part(weights: Tensor) -> Tensor:
    """Return points that stand for all, drawn evenly by their weights; the same ones each time."""
    n, draws = len(weights), generator(0)
    order = torch.randperm(n, generator=draws)
    return order[systematic(weights[order].cumsum(0), min(n, max(_FEW, n // _PART)), generator=draws)]


def _first_pairs(
    cost: Cost, x0: Tensor, x1: Tensor, a: Tensor, b: Tensor, u: Tensor, v: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the pairs to begin with, their costs, and which are the cheapest; others keep it solvable."""
    found = price(cost, x0, x1, u, v, below=float("inf"), per_row=_FIRST)
    if not isinstance(cost, SquaredEuclidean | Euclidean):
        _check_of_pairs(cost, x0, x1, found.i[:_CHECKED], found.j[:_CHECKED], found.costs[:_CHECKED])
    i, j = corner(a, b, *_orders(x0, x1))
    cheapest = found.i * len(b) + found.j
    keys, costs = _joined(cheapest, found.costs, i * len(b) + j, pair_costs(cost, x0, x1, i, j))
    return keys, costs, torch.isin(keys, cheapest)


def _check_of_pairs(cost: Cost, x0: Tensor, x1: Tensor, i: Tensor, j: Tensor, costs: Tensor) -> None:
    again = pair_costs(cost, x0, x1, i, j)
    if not torch.allclose(again, costs, rtol=1e-6, atol=1e-6 * float(costs.abs().max())):
        raise ValueError(
            f"Expected the cost of each pair to depend on its two points only; {cost} returned "
            f"{float(costs[(again - costs).abs().argmax()]):.6g} for a pair among others and "
            f"{float(again[(again - costs).abs().argmax()]):.6g} for the same pair among fewer. Divide by a constant "
            "in place of the largest cost, for example, or couple fewer points at a time."
        )


def _orders(x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
    """Return both clouds in order of the number that differs most among their points."""
    x0, x1 = (x.detach().reshape(len(x), -1).double() for x in (x0, x1))
    widest = (x0.var(dim=0, correction=0) + x1.var(dim=0, correction=0)).argmax()
    return x0[:, widest].argsort(stable=True).cpu(), x1[:, widest].argsort(stable=True).cpu()


def _joined(keys: Tensor, costs: Tensor, more: Tensor, more_costs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the numbers of two lists of pairs in order, each once, and their costs."""
    every, order = torch.cat([keys, more]).sort(stable=True)
    first = torch.ones_like(every, dtype=torch.bool)
    first[1:] = every[1:] != every[:-1]
    return every[first], torch.cat([costs, more_costs])[order[first]]
