r"""Two clouds halved together, again and again, until their parts are small enough to be matched exactly.

The halving sought is the one whose halves, if matched at random, cost least: the best transport plan of rank two. With
squared distances that is the one with the largest :math:`\langle \bar x_1 - \bar x_0, \bar y_1 - \bar y_0 \rangle`, the
product of what the means of the halves differ by on either side. For given halves of one cloud the best halves of the
other lie on either side of a plane, whose normal is the difference of the means of the first: both planes are found in
turn, from the main axis of both clouds on.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

SAMPLE = 4096
"""Most points of each cloud by which the planes are found; all points are then divided by them."""
TURNS = 20
"""Maximum number of iterations for each plane; a handful is usual."""
AT_ONCE = 2**20
"""Numbers that are read in float64 at once: 8 MiB."""


class Block(NamedTuple):
    """Points of both clouds that are matched with each other, and their masses, which sum to the same.

    Parameters
    ----------
    i, a
        Source points ``(k,)`` and their masses.
    j, b
        Target points ``(l,)`` and their masses; a point may have parts of its mass in several blocks.
    """

    i: Tensor
    a: Tensor
    j: Tensor
    b: Tensor

    def divided(self, size: int) -> bool:
        """Whether it has no more pairs than two sides of ``size`` points, or one point on a side."""
        return len(self.i) * len(self.j) <= size**2 or min(len(self.i), len(self.j)) == 1


def blocks_of(x0: Tensor, x1: Tensor, a: Tensor, b: Tensor, size: int) -> Iterator[Block]:
    """Yield the blocks of two clouds, halved until each has about ``size`` points on either side.

    Parameters
    ----------
    x0, x1
        Points ``(n, d)`` and ``(m, d)``.
    a, b
        Their masses in float64, whole numbers above 0 that sum to the same, so that all sums of parts are exact. Of
        equally many equal masses none is ever divided.
    size
        Points on either side.

    Examples
    --------
    >>> x, masses = torch.tensor([[0.0], [9.0], [1.0], [8.0]]), torch.ones(4, dtype=torch.float64)
    >>> for block in blocks_of(x, x.flip(0), masses, masses, size=2):
    ...     print(block.i.tolist(), block.j.tolist())
    [2, 0] [1, 3]
    [1, 3] [2, 0]
    """
    waiting = [Block(torch.arange(len(x0)), a, torch.arange(len(x1)), b)]
    while waiting:
        block = waiting.pop()
        if block.divided(size):
            yield block
        else:
            waiting += _halves(x0, x1, block)


def along(x: Tensor, rows: Tensor, axes: Tensor) -> Tensor:
    """Return some points in the direction of each axis ``(d, k)``, or of one, ``(d,)``, in float64.

    Examples
    --------
    >>> along(torch.eye(2), torch.tensor([1]), torch.tensor([3.0, 4.0], dtype=torch.float64))
    tensor([4.], dtype=torch.float64)
    """
    return torch.cat([x[some].double() @ axes for some in rows.split(max(1, AT_ONCE // x.shape[1]))])


def _halves(x0: Tensor, x1: Tensor, block: Block) -> tuple[Block, Block]:
    of_source, of_target = _axes(x0, x1, block)
    order = along(x0, block.i, of_source).argsort(stable=True)
    i, a = block.i[order], block.a[order]
    reached = a.cumsum(0)
    first = 1 + int((reached[:-1] - reached[-1] / 2).abs().argmin())  # points of the source stay whole
    order = along(x1, block.j, of_target).argsort(stable=True)
    (j0, b0), (j1, b1) = _cut(block.j[order], block.b[order], float(reached[first - 1]))
    return Block(i[:first], a[:first], j0, b0), Block(i[first:], a[first:], j1, b1)


def _cut(j: Tensor, b: Tensor, mass: float) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Divide ordered points where their masses reach ``mass``; the point there may have a part on both sides."""
    reached = b.cumsum(0)
    k = int(torch.searchsorted(reached, mass))  # the first point with which the mass is reached
    over = float(reached[k]) - mass
    if over == 0:
        return (j[: k + 1], b[: k + 1]), (j[k + 1 :], b[k + 1 :])
    first, rest = b[: k + 1].clone(), b[k:].clone()
    first[-1] -= over
    rest[0] = over
    return (j[: k + 1], first), (j[k:], rest)


def _axes(x0: Tensor, x1: Tensor, block: Block) -> tuple[Tensor, Tensor]:
    """Return the normals of the planes that halve the source and the target, ``(d,)`` each."""
    (x, a), (y, b) = _sampled(x0, block.i, block.a), _sampled(x1, block.j, block.b)
    axis, best = _main_axis(torch.cat([x, y])), 0.0
    other = axis
    for _ in range(TURNS):
        other = _difference(x, a, x @ axis)
        axis = _difference(y, b, y @ other)
        gain = float(axis @ other)
        if gain <= best * (1 + 1e-6):
            break
        best = gain
    return axis, other


def _sampled(x: Tensor, rows: Tensor, masses: Tensor) -> tuple[Tensor, Tensor]:
    """Return at most `SAMPLE` points, evenly spaced, less their mean, and their masses."""
    step = -(-len(rows) // SAMPLE)
    points, masses = x[rows[::step]].double(), masses[::step]
    return points - masses @ points / masses.sum(), masses


def _main_axis(x: Tensor) -> Tensor:
    """Return about the axis of most variance of centred points, ``(d,)``, by a few steps from the farthest point."""
    axis = x[x.square().sum(dim=1).argmax()]
    for _ in range(5):
        axis = x.T @ (x @ axis)
        axis = axis / axis.norm().clamp(min=torch.finfo(axis.dtype).tiny)
    return axis


def _difference(x: Tensor, masses: Tensor, height: Tensor) -> Tensor:
    """Return what the mean of the upper half of the mass differs from that of the lower, ``(d,)``."""
    order = height.argsort(stable=True)
    reached = masses[order].cumsum(0)
    upper = torch.empty_like(order, dtype=torch.bool)
    upper[order] = reached > reached[-1] / 2
    high, low = masses * upper, masses * ~upper
    tiny = torch.finfo(masses.dtype).tiny
    return high @ x / high.sum().clamp(min=tiny) - low @ x / low.sum().clamp(min=tiny)
