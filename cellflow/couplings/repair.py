r"""Pairs of a plan, rematched in small groups: the cost never rises, and is soon close to the least.

Two pairs (x, y) and (x', y') cost less with their partners exchanged where :math:`\langle x - x', y - y' \rangle < 0`:
where the middles of both are nearer to each other than half the difference of their displacements. So pairs whose
middles are near are rematched, exactly, in groups; the groups are cut along other random planes each time.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cellflow.couplings.halving import Block, along
from cellflow.couplings.simplex import OPTIMAL
from cellflow.errors import ConvergenceError
from cellflow.seeds import generator_at

PRICED = 3
"""Times that the prices of partners are corrected before an assignment: it then takes less than half as long."""
EXACT = 2**26
"""Whole numbers of at most this sum are divided as they are: POT multiplies and divides by it, and stays exact."""
MOST_PIVOTS = 10_000_000
"""Most pivots of the network simplex in a group, thousands of times as many as it takes."""


class Pairs(NamedTuple):
    """Source points, target points and masses of pairs, ``(k,)`` each."""

    i: Tensor
    j: Tensor
    masses: Tensor

    def of(self, rows: Tensor) -> "Pairs":
        """Return some of them."""
        return Pairs(self.i[rows], self.j[rows], self.masses[rows])

    def block(self) -> Block:
        """Return the points of all pairs, each once, with the sum of their masses."""
        sides = []
        for points in (self.i, self.j):
            found, place = points.unique(return_inverse=True)
            sides += [found, self.masses.new_zeros(len(found)).index_add_(0, place, self.masses)]
        return Block(*sides)


def joined(parts: Iterable[Pairs]) -> Pairs:
    """Return the pairs of all parts."""
    return Pairs(*map(torch.cat, zip(*parts, strict=True)))


def grouped(x0: Tensor, x1: Tensor, pairs: Pairs, size: int, *, seed: int) -> list[Tensor]:
    """Return groups of pairs whose middles are near each other, as their numbers ``(k,)``.

    A point that has several pairs keeps them together where it can, in turn those of the source and of the target: of
    pairs that are split further each time, groups would hold ever fewer points.

    Parameters
    ----------
    x0, x1
        Points ``(n, d)`` and ``(m, d)``.
    pairs
        Pairs of them.
    size
        A group has about as many points of both clouds as two sides of so many have pairs.
    seed
        Another seed cuts along other planes.

    Examples
    --------
    >>> x, numbers = torch.tensor([[0.0], [9.0], [1.0], [8.0]]), torch.arange(4)
    >>> pairs = Pairs(numbers, numbers, torch.ones(4, dtype=torch.float64))
    >>> sorted(sorted(group.tolist()) for group in grouped(x, x, pairs, 2, seed=0))
    [[0, 2], [1, 3]]
    """
    size = max(2, round(size * len(pairs.i) / (len(x0) * len(x1)) ** 0.5))  # with points of either cloud in proportion
    levels = max(1, (-(-len(pairs.i) // size) - 1).bit_length())
    axes = torch.randn(x0.shape[1], levels, generator=generator_at(seed, levels), dtype=torch.float64)
    every = (along(x, torch.arange(len(x)), axes) for x in (x0, x1))
    source, target = ((side - side.mean(dim=0)).float() for side in every)  # half the memory, at no harm
    heights = source[pairs.i].add_(target[pairs.j])
    if len(pairs.i) > max(len(x0), len(x1)):
        heights = _shared(heights, pairs, pairs.i if seed % 2 == 0 else pairs.j)
    groups = [torch.arange(len(pairs.i))]
    for height in heights.unbind(1):
        ordered = [group[height[group].argsort(stable=True)] for group in groups]
        groups = [half for group in ordered for half in group.tensor_split(2) if len(half)]
    return groups


def _shared(heights: Tensor, pairs: Pairs, points: Tensor) -> Tensor:
    """Return for each pair the mean of all pairs of its point, ``(k, levels)``, by their mass."""
    n, weights = int(points.max()) + 1, pairs.masses.to(heights)
    sums = heights.new_zeros(n, heights.shape[1]).index_add_(0, points, heights * weights[:, None])
    return (sums / heights.new_zeros(n).index_add_(0, points, weights)[:, None])[points]


def assigned(costs: Tensor, *, paired: bool = False) -> tuple[Tensor, Tensor]:
    """Return the pairs of least total cost ``(k,)``, one to one, of ``(k, k)`` costs; or where ``paired``, of pairs.

    Points of the same number are paired already then. What each of them could save with another's partner tells
    the price of that partner; prices change no best assignment, and with good ones it is nearly found.
    """
    from scipy.optimize import linear_sum_assignment

    matrix = costs.numpy()
    if paired:
        saved, prices = matrix - matrix.diagonal()[:, None], np.zeros(len(matrix))
        for _ in range(PRICED):
            prices = np.minimum(prices, (prices[:, None] + saved).min(axis=0))
        matrix = matrix - prices
    i, j = linear_sum_assignment(matrix)
    return torch.from_numpy(i), torch.from_numpy(j)


def transported(costs: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the pairs of least total cost, and their masses, which sum to the masses ``a`` and ``b`` of the points.

    Raises
    ------
    ConvergenceError
        When the network simplex does not end.
    """
    import ot

    if min(costs.shape) == 1:
        i, j = (side.flatten() for side in torch.meshgrid(*map(torch.arange, costs.shape), indexing="ij"))
        return i, j, a[i] if costs.shape[1] == 1 else b[j]
    # The simplex compares costs with a fixed tolerance: it must not depend on the unit of the data.
    relative = costs / costs.max().clamp(min=torch.finfo(costs.dtype).tiny)
    total = a.sum()
    if total != b.sum() or total > EXACT:
        a, b = a / total, b / b.sum()
    masses, log = ot.emd(a.numpy(), b.numpy(), relative.numpy(), MOST_PIVOTS, log=True)
    if log["result_code"] != OPTIMAL:
        raise ConvergenceError(
            f"Optimal transport between {len(a)} and {len(b)} points of a block was not solved within {MOST_PIVOTS} "
            f"iterations ({log['warning']}). Take smaller blocks: Hierarchical(block=64)."
        )
    i, j = (torch.from_numpy(side) for side in masses.nonzero())
    return i, j, torch.from_numpy(masses)[i, j] * (total / a.sum())
