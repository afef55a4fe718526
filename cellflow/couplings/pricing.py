"""Reduced costs of all pairs under dual prices, in blocks: which pairs are cheaper than their prices."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cellflow.couplings.cost import Cost, Euclidean, SquaredEuclidean
from cellflow.couplings.problem import cost_blocks, cost_matrix

BLOCK = 2**25
"""Bytes of one block of reduced costs: large enough for a matrix product, small beside what a problem holds."""
PARTS = 6
"""Parts of the source points, in each of which a target point may find a partner of its own."""

_NEAR = 1e-6  # squared distances below this share of the largest have lost half their digits in a product
_LISTED = 64  # listed pairs whose costs are asked for at once: a cost knows clouds, and gives 64 x 64 for them


@dataclass(frozen=True, eq=False)
class Priced:
    """What a walk over all pairs found.

    Parameters
    ----------
    i, j
        Pairs ``(k,)`` that cost less than the sum of their two prices, each listed at most once.
    costs
        Their costs ``(k,)``.
    slack
        The least reduced cost of each source point ``(n,)``; below zero where its price is too high.
    """

    i: Tensor
    j: Tensor
    costs: Tensor
    slack: Tensor


def price(cost: Cost, x0: Tensor, x1: Tensor, u: Tensor, v: Tensor, *, below: float, per_row: int) -> Priced:
    """Return the pairs whose reduced cost, ``cost - u_i - v_j``, is the lowest of their points and under ``below``.

    Parameters
    ----------
    cost
        Cost of matching two points.
    x0, x1
        The clouds ``(n, ...)`` and ``(m, ...)``.
    u, v
        The prices of the source points ``(n,)`` and of the target points ``(m,)``.
    below
        Only pairs with a lower reduced cost are taken; infinity for the lowest of each point.
    per_row
        Maximum number of pairs for each source point; a target point has up to ``PARTS``.

    Examples
    --------
    >>> import torch
    >>> x0, x1 = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [3.0]])
    >>> found = price(SquaredEuclidean(), x0, x1, torch.zeros(2), torch.tensor([0.5, 0.0]), below=0.0, per_row=1)
    >>> found.i.tolist(), found.j.tolist(), found.costs.tolist(), found.slack.tolist()
    ([0], [0], [0.0], [-0.5, 0.5])
    """
    n, m = len(x0), len(x1)
    u, v = u.double().to(x0.device), v.double().to(x0.device)
    slack, keys, found = torch.empty_like(u), [], []
    part = -(-n // PARTS)
    least, where = torch.full_like(v, below), torch.zeros_like(v, dtype=torch.long)

    def keep(i: Tensor, j: Tensor, reduced: Tensor) -> None:
        keys.append(i * m + j)
        found.append(reduced + u[i] + v[j])

    for first in range(0, n, part):
        least.fill_(below)
        for rows, reduced in reduced_costs(cost, x0[first : first + part], x1, u[first : first + part], v):
            start = first + rows.start
            slack[start : first + rows.stop] = reduced.amin(dim=1)
            hit = (slack[start : first + rows.stop] < below).nonzero().squeeze(1)
            if len(hit):
                values, places = reduced[hit].topk(min(per_row, m), dim=1, largest=False)
                i, nth = (values < below).nonzero(as_tuple=True)
                keep(hit[i] + start, places[i, nth], values[i, nth])
            hit = (reduced.amin(dim=0) < least).nonzero().squeeze(1)
            if len(hit):
                least[hit], places = (reduced if len(hit) == m else reduced[:, hit]).min(dim=0)
                where[hit] = places + start
        j = (least < below).nonzero().squeeze(1)
        keep(where[j], j, least[j])
    every, order = torch.cat(keys).sort()
    first_time = torch.ones_like(every, dtype=torch.bool)
    first_time[1:] = every[1:] != every[:-1]
    every, costs = every[first_time].cpu(), torch.cat(found)[order[first_time]].cpu()
    return Priced(every // m, every % m, costs, slack.cpu())


def reduced_minima(cost: Cost, x0: Tensor, x1: Tensor, u: Tensor, v: Tensor, *, dim: int) -> Tensor:
    """Return the least reduced cost of each target point ``(m,)``, for ``dim`` 0, or of each source point ``(n,)``.

    Examples
    --------
    >>> import torch
    >>> x0, x1 = torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0]])
    >>> reduced_minima(SquaredEuclidean(), x0, x1, torch.zeros(2), torch.ones(1), dim=1)
    tensor([8., 3.], dtype=torch.float64)
    """
    u, v = u.double().to(x0.device), v.double().to(x0.device)
    rows, columns = torch.empty_like(u), torch.full_like(v, float("inf"))
    for some, reduced in reduced_costs(cost, x0, x1, u, v):
        if dim:
            rows[some] = reduced.amin(dim=1)
        else:
            columns = torch.minimum(columns, reduced.amin(dim=0))
    return (rows if dim else columns).cpu()


def pair_costs(cost: Cost, x0: Tensor, x1: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Return the costs ``(k,)`` of a list of pairs.

    Examples
    --------
    >>> import torch
    >>> x0, x1 = torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [4.0]])
    >>> pair_costs(SquaredEuclidean(), x0, x1, torch.tensor([0, 1, 1]), torch.tensor([1, 1, 0]))
    tensor([16.,  9.,  4.], dtype=torch.float64)
    """
    parts = zip(i.to(x0.device).split(_LISTED), j.to(x1.device).split(_LISTED), strict=True)
    return torch.cat([cost_matrix(cost, x0[rows], x1[columns]).diagonal() for rows, columns in parts]).cpu()


def reduced_costs(cost: Cost, x0: Tensor, x1: Tensor, u: Tensor, v: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield ``cost - u_i - v_j`` some rows at a time: a slice of ``k`` rows, and ``(k, m)`` float64 numbers."""
    if isinstance(cost, SquaredEuclidean):
        yield from _squares(*_centred(x0, x1), u, v)
    elif isinstance(cost, Euclidean):
        x0, x1 = _centred(x0, x1)
        for rows, squares in _squares(x0, x1, torch.zeros_like(u), torch.zeros_like(v)):
            yield rows, _mended(squares, x0[rows], x1).sqrt_().sub_(v).sub_(u[rows, None])
    else:
        for rows, costs in cost_blocks(cost, x0, x1, most=BLOCK):
            yield rows, (costs - v).sub_(u[rows, None])  # a cost may keep what it returns


def _centred(x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
    x0, x1 = x0.detach().reshape(len(x0), -1).double(), x1.detach().reshape(len(x1), -1).double()
    centre = x1.mean(dim=0)
    return x0 - centre, x1 - centre


def _squares(x0: Tensor, x1: Tensor, u: Tensor, v: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield reduced squared distances, each block from one matrix product: prices are two more dimensions."""
    left = torch.cat([x0, (x0.square().sum(dim=1) - u)[:, None], torch.ones_like(u)[:, None]], dim=1)
    right = torch.cat([-2 * x1, torch.ones_like(v)[:, None], (x1.square().sum(dim=1) - v)[:, None]], dim=1).T
    k = max(1, BLOCK // (8 * len(x1)))
    for first in range(0, len(x0), k):
        rows = slice(first, min(len(x0), first + k))
        yield rows, left[rows] @ right


def _mended(squares: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
    """Return squared distances, with small ones recomputed as sums: a product has lost the digits that a root needs."""
    far = float(x0.square().sum(dim=1).max() + x1.square().sum(dim=1).max())
    i, j = (squares < _NEAR * far).nonzero(as_tuple=True)
    if 8 * len(i) > squares.numel():
        return torch.cdist(x0, x1, compute_mode="donot_use_mm_for_euclid_dist").square_()
    squares[i, j] = (x0[i] - x1[j]).square().sum(dim=1)
    return squares
