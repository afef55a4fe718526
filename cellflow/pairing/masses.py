r"""Pairs that carry mass at both ends, drawn so that no weight is large.

A plan P between masses a and b gives the pair (i, j) the mass :math:`m_0 = P_{ij} a_i / (P 1)_i` at its beginning and
:math:`m_1 = P_{ij} b_j / (P^T 1)_j` at its end. If pairs were drawn from P itself, a cell with little mass in P would
be drawn rarely, with a weight a thousand times as large. Pairs are therefore drawn from the mean of both ends,
:math:`(m_0 + m_1) / 2`, both scaled to sum to 1: every cell is drawn at least half as often as in proportion to its own
mass, and as :math:`m_0^{1-s} m_1^s` is never above the larger of both, no pair weighs more than twice what it would in
a balanced plan.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from cellflow.couplings import DensePlan, Plan

Masses = tuple[float, float]
"""Size of the population where an interval begins, and where it ends."""


@dataclass(frozen=True)
class WeighedPlan:
    """A plan whose pairs come with their masses.

    Parameters
    ----------
    drawn
        The plan that pairs are drawn from.
    source, target
        Log mass of each source point ``(n,)`` and of each target point ``(m,)``, per unit of its mass in the coupling's
        own plan.
    masses
        Size of the population at both ends.
    """

    drawn: Plan
    source: Tensor
    target: Tensor
    masses: Masses

    def sample(self, n: int, *, generator: torch.Generator, replace: bool = True) -> tuple[Tensor, ...]:
        """Draw ``n`` pairs: source and target indices, and their log masses at both ends, each ``(n,)``.

        Averaged over all draws, the mass at either end is the size of the population there.
        """
        i, j = self.drawn.sample(n, generator=generator, replace=replace)
        source, target = self.source[i], self.target[j]
        start, stop = (math.log(mass) for mass in self.masses)
        rate = torch.logaddexp(source - start, target - stop) - math.log(2)  # log of how often the pair is drawn
        return i, j, source - rate, target - rate


def match(
    coupling: Callable[..., Plan], x0: Tensor, x1: Tensor, masses: Masses | None
) -> tuple[Plan, Plan | WeighedPlan]:
    """Match two sets; return the coupling's plan, and the plan to draw pairs from.

    Parameters
    ----------
    coupling
        How they are matched.
    x0, x1
        Points or rows, ``(n, ...)`` and ``(m, ...)``.
    masses
        Size of the population at both ends, divided equally among the points; ``None`` for pairs without masses.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> x = torch.tensor([[0.0], [1.0]])
    >>> plan, weighed = match(cf.couplings.Exact(), x, x + 1, (1.0, 2.0))
    >>> weighed.sample(2, generator=cf.generator(seed=0))[3].exp()
    tensor([2., 2.], dtype=torch.float64)
    """
    if masses is None:
        plan = coupling(x0, x1)
        return plan, plan
    a, b = (
        torch.full((len(x),), mass / len(x), dtype=torch.float64, device=x.device)
        for x, mass in zip((x0, x1), masses, strict=True)
    )
    plan = coupling(x0, x1, a, b)
    return plan, _weighed(plan, a, b, masses)


def relative(masses: Sequence[float], n: int) -> list[Masses]:
    """Return the sizes at both ends of each interval between ``n`` snapshots, in units of their geometric mean.

    Intervals then count equally in training when the population grows, and plans do not depend on the unit of
    population size.

    Raises
    ------
    ValueError
        Unless there is one finite size above 0 for each snapshot.

    Examples
    --------
    >>> relative((1.0, 4.0, 4.0), 3)
    [(0.5, 2.0), (1.0, 1.0)]
    """
    if len(masses) != n or not all(0 < mass < math.inf for mass in masses):
        raise ValueError(f"Expected a finite size above 0 for each of {n} snapshots in `masses`; found {list(masses)}.")
    return [(math.sqrt(before / after), math.sqrt(after / before)) for before, after in pairwise(masses)]


def _weighed(plan: Plan, a: Tensor, b: Tensor, masses: Masses) -> WeighedPlan:
    rows, columns = plan.marginals()
    source, target = ((mass / found).log() for mass, found in ((a, rows), (b, columns)))
    lost = int((~torch.isfinite(source)).sum()), int((~torch.isfinite(target)).sum())
    if any(lost):
        raise ValueError(
            f"{lost[0]} source and {lost[1]} target points have no mass in the plan, so their growth is unknown: "
            "moving them costs far more than losing them. Raise `relaxation`, or leave these points out."
        )
    rates = (source.exp()[:, None] / masses[0], target.exp() / masses[1])
    balanced = all(torch.allclose(side, torch.ones_like(side), rtol=0, atol=1e-9) for side in rates)
    drawn = plan if balanced else DensePlan(plan.dense() * (rates[0] + rates[1]))
    return WeighedPlan(drawn, source, target, masses)
