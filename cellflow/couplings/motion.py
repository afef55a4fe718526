r"""The motion that neighbouring points share.

Unbalanced transport weighs movement against a change of mass. If all cells of a population have moved far, it mistakes
travel for death: cells ahead of the motion seem to grow, cells behind seem to die, and a cell is matched with the
nearest partner rather than its own. But the shared motion of a neighbourhood says nothing about the fate of one of its
cells. So the cost of a pair is how far it has moved relative to the others around it,

.. math:: C_{ij} = |x_i + u(x_i) - y_j|^2,

with u the mean displacement, by the plan itself, of the points near :math:`x_i`, weighted by their mass in the plan.
Plan and motion are found in turn, starting from u = 0. A population that has moved as a whole then costs nothing, and
only changes of its composition are left to explain; where neighbours diverge, their mean is small.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from cellflow.couplings.plan import Plan
from cellflow.couplings.relative import sampled

ROUNDS = 4
"""Iterations of the motion: two clusters of which one moves by ten standard deviations need three."""
NEIGHBORHOOD = 20
"""A neighbourhood is one point in so many of those that are compared ..."""
FEWEST, MOST = 10, 50
"""... but has at least and at most so many."""
CHUNK = 4096
"""Points whose neighbours are looked for at once."""


def common_motion(
    x0: Tensor, x1: Tensor, a: Tensor, b: Tensor, *, solve: Callable[[Tensor, Tensor, Tensor, Tensor], Plan]
) -> Tensor:
    """Return the displacement ``(n, d)`` that each source point shares with the points around it.

    Parameters
    ----------
    x0, x1
        Clouds ``(n, d)`` and ``(m, d)``.
    a, b
        Their masses ``(n,)`` and ``(m,)``.
    solve
        From two clouds and their masses to a plan.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> x = torch.randn(50, 2, generator=cf.generator(seed=0), dtype=torch.float64)
    >>> weights = torch.full((50,), 0.02, dtype=torch.float64)
    >>> motion = common_motion(x, x + 3, weights, weights, solve=cf.couplings.UnbalancedSinkhorn(0.5, 5.0))
    >>> motion.mean(0).round()
    tensor([3., 3.], dtype=torch.float64)
    """
    rows, columns = sampled(a), sampled(b)
    x0_some, x1_some = x0[rows], x1[columns]
    a_some, b_some = (side[those] * (side.sum() / side[those].sum()) for side, those in ((a, rows), (b, columns)))
    around = _nearest(x0_some, x0_some)
    motion = torch.zeros_like(x0_some)
    for _ in range(ROUNDS):
        plan = solve(x0_some + motion, x1_some, a_some, b_some)
        moved, mass = plan.barycentric(x1_some) - x0_some, plan.marginals()[0]
        motion = _mean(moved, mass, around)
    if len(rows) == len(x0):
        return motion
    return torch.cat([_mean(moved, mass, _nearest(part, x0_some)) for part in x0.split(CHUNK)])


def _nearest(x: Tensor, among: Tensor) -> Tensor:
    """Return for each point ``(n, d)`` the positions of its neighbours among others, ``(n, k)``."""
    k = min(max(FEWEST, min(MOST, len(among) // NEIGHBORHOOD)), len(among))
    return torch.cat([torch.cdist(part, among).topk(k, dim=1, largest=False).indices for part in x.split(CHUNK)])


def _mean(moved: Tensor, mass: Tensor, around: Tensor) -> Tensor:
    """Return the mean displacement of the points around each, by their mass."""
    weights = mass[around]
    return (moved[around] * weights[..., None]).sum(dim=1) / weights.sum(dim=1, keepdim=True)
