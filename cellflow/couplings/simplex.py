"""Transport over a list of pairs: the network simplex of POT on a sparse graph, warm-started from known prices."""

from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cellflow.errors import ConvergenceError

OPTIMAL = 1  # POT's result codes: of a solved problem, and of one that was stopped
_STOPPED = 3
_WHOLE = 2**50
"""Units of mass in all: sums of whole numbers below 2^53 are exact, so that no pivot rounds."""
_ROUNDED = 16 * torch.finfo(torch.float64).eps
"""Rounding of prices, in units of the largest cost and for each point: POT adds this much of a cost to all of them."""


@dataclass(frozen=True, eq=False)
class Solved:
    """A transport of least cost over the allowed pairs.

    Parameters
    ----------
    places
        The pairs that carry mass ``(k,)``, as numbers in the list that was given.
    units
        The units of mass on each, ``(k,)``: whole numbers.
    u, v
        Prices ``(n,)`` and ``(m,)``: no listed pair costs less than the sum of its two, and those with mass cost that.
    rounding
        How far the prices are off, from sums in double precision.
    """

    places: Tensor
    units: Tensor
    u: Tensor
    v: Tensor
    rounding: float


def same(weights: Tensor) -> bool:
    """Whether all weights are one number, to rounding.

    Examples
    --------
    >>> import torch
    >>> same(torch.full((3,), 1 / 3))
    True
    """
    return bool(weights.max() <= weights.min() * (1 + 1e-12))


def whole_units(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return two sets of weights as whole numbers with one sum: exact if weights are equal, else to 1e-15 of the sum.

    Points of weight 0 have 0 units, and do not count as unequal.

    Parameters
    ----------
    a, b
        Nonnegative weights ``(n,)`` and ``(m,)``, with any sums.

    Examples
    --------
    >>> import torch
    >>> whole_units(torch.ones(2), torch.ones(4))
    (tensor([2., 2.], dtype=torch.float64), tensor([1., 1., 1., 1.], dtype=torch.float64))
    """
    n, m = int((a > 0).sum()), int((b > 0).sum())
    if same(a[a > 0]) and same(b[b > 0]):
        return (a > 0).double() * (m // gcd(n, m)), (b > 0).double() * (n // gcd(n, m))
    return _rounded(a), _rounded(b)


def solve(
    i: Tensor, j: Tensor, costs: Tensor, a: Tensor, b: Tensor, u: Tensor, v: Tensor, *, max_iterations: int
) -> Solved:
    """Return the transport of least cost over a list of pairs.

    Parameters
    ----------
    i, j
        The pairs ``(k,)``; over them the weights can be used up.
    costs
        Their costs ``(k,)``.
    a, b
        Weights ``(n,)`` and ``(m,)``, positive whole numbers with the same sum.
    u, v
        Prices to start from, ``(n,)`` and ``(m,)``: those of the last solution, when pairs were added to it, leave
        little to do.
    max_iterations
        Most pivots.

    Raises
    ------
    ConvergenceError
        When ``max_iterations`` is too small.

    Source
    ------
    Bonneel et al. 2011, "Displacement interpolation using Lagrangian mass transport" (POT).
    """
    from ot.lp.emd_wrap import emd_c_sparse

    reduced = costs - u[i] - v[j]  # as costs they leave the same plan optimal, and the prices that follow are small
    scale = float(reduced.abs().max()) or 1.0
    problem = [a.numpy(), b.numpy(), _ids(i), _ids(j), (reduced / scale).numpy(), max_iterations]
    found = emd_c_sparse(*problem, np.zeros(len(a)), np.zeros(len(b)))
    if found[-1] not in (OPTIMAL, _STOPPED):
        found = emd_c_sparse(*problem)  # from nothing: a start from prices can end in a corner
    if found[-1] != OPTIMAL:
        raise ConvergenceError(
            f"Optimal transport between {len(a)} and {len(b)} points was not solved within {max_iterations} iterations "
            f"over {len(i)} pairs (POT's result code {found[-1]}). Raise max_iterations, or couple fewer points at a "
            "time."
        )
    sources, targets, units, _, more_u, more_v, _ = found
    more_u, more_v = _centred(more_u, more_v)
    places = _places(_tensor(sources) * len(b) + _tensor(targets), i * len(b) + j)
    rounding = _ROUNDED * (len(a) + len(b)) * scale
    return Solved(places, torch.as_tensor(units), u + scale * more_u, v + scale * more_v, rounding)


def corner(a: Tensor, b: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return pairs that can carry all the weight: two ordered lists of points, joined from one end to the other.

    Parameters
    ----------
    a, b
        Weights ``(n,)`` and ``(m,)``, positive whole numbers with the same sum.
    first, second
        The orders, ``(n,)`` and ``(m,)``.

    Examples
    --------
    >>> import torch
    >>> corner(torch.tensor([2.0, 1.0]), torch.tensor([1.0, 2.0]), torch.tensor([1, 0]), torch.tensor([0, 1]))
    (tensor([1, 0]), tensor([0, 1]))
    """
    until_a, until_b = a[first].cumsum(dim=0), b[second].cumsum(dim=0)
    starts = torch.cat([until_a.new_zeros(1), until_a, until_b]).unique()[:-1]
    return (
        first[torch.searchsorted(until_a, starts, right=True)],
        second[torch.searchsorted(until_b, starts, right=True)],
    )


def _rounded(weights: Tensor) -> Tensor:
    """Return weights as units, rounded up where most is lost by rounding down."""
    exact = weights.double() / weights.double().sum() * _WHOLE
    units = exact.floor()
    up = (exact - units).topk(int(_WHOLE - units.sum())).indices
    units[up] += 1
    return units


def _centred(u: Any, v: Any) -> tuple[Tensor, Tensor]:
    """Return prices shifted against each other: POT's carry a large number that says nothing."""
    shift = float(np.mean(u))
    return torch.as_tensor(u) - shift, torch.as_tensor(v) + shift


def _places(wanted: Tensor, keys: Tensor) -> Tensor:
    ordered, order = keys.sort()
    return order[torch.searchsorted(ordered, wanted)]


def _ids(numbers: Tensor) -> Any:
    return numbers.numpy().astype(np.uint64)


def _tensor(numbers: Any) -> Tensor:
    return torch.as_tensor(numbers.astype(np.int64))
