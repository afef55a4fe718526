r"""Pairs that carry mass at both ends, drawn so that no weight is large.

A plan P between masses a and b gives the pair (i, j) the mass :math:`m_0 = P_{ij} a_i / (P 1)_i` at its beginning and
:math:`m_1 = P_{ij} b_j / (P^T 1)_j` at its end. If pairs were drawn from P itself, a cell with little mass in P would
be drawn rarely, with a weight a thousand times as large. Pairs are therefore drawn from the mean of both ends,
:math:`(m_0 + m_1) / 2`, both scaled to sum to 1: every cell is drawn at least half as often as in proportion to its own
mass, and as :math:`m_0^{1-s} m_1^s` is never above the larger of both, no pair weighs more than twice what it would in
a balanced plan.

The plan need not be one between the populations as they are. If some cells are expected to divide more than others, at
known rates, the coupling plans from the expected masses of the source points, :math:`a_i e^{g_i}` scaled to the size of
the later population; :math:`m_0` is as before, so that a pair grows by :math:`g_i`, up to a constant, and by what the
plan itself changes.

Of the growth of a pair, :math:`g = \log m_1 - \log m_0`, a share c can be taken if the rest is noise of few samples:
:math:`m_1 = m_0 e^{c g + k}`, with the constant at which the size of the population is kept.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from cellflow.couplings import Plan
from cellflow.couplings.draws import systematic
from cellflow.shapes import as_states

Masses = tuple[float, float]
"""Size of the population where an interval begins, and where it ends."""


@dataclass(frozen=True, eq=False)
class Ends:
    """What the points at both ends of an interval weigh.

    Parameters
    ----------
    masses
        Size of the population at both ends, if pairs carry masses; else ``None``.
    source, target
        Share of each source point ``(n,)`` and of each target point ``(m,)`` in the population, in any unit; ``None``
        for equal shares.
    gain
        Expected growth of the log mass of each source point over the interval, ``(n,)``, up to a constant; ``None``
        without expectation. Otherwise pairs must carry masses.
    share
        Share of the growth of pairs that is taken.
    """

    masses: Masses | None = None
    source: Tensor | None = None
    target: Tensor | None = None
    gain: Tensor | None = None
    share: float = 1.0

    def part(self, sizes: tuple[int, int], most: int, *, generator: torch.Generator) -> "tuple[Tensor, Tensor, Ends]":
        """Draw a random part of both sides; return its rows, ``(k,)`` and ``(l,)``, and their weights.

        Rows are drawn in proportion to their shares, and then weigh the same; a side with no more than ``most`` rows is
        taken as it is.
        """
        rows, source = _some(sizes[0], self.source, most, generator)
        columns, target = _some(sizes[1], self.target, most, generator)
        gain = None if self.gain is None else self.gain[rows.to(self.gain.device)]
        return rows, columns, Ends(self.masses, source, target, gain, self.share)

    def only(self, rows: Tensor, columns: Tensor) -> "Ends":
        """Return the weights of some of the points: masks, or positions."""
        chosen = ((self.source, rows), (self.target, columns), (self.gain, rows))
        source, target, gain = (None if values is None else values[those] for values, those in chosen)
        return Ends(self.masses, source, target, gain, self.share)


@dataclass(frozen=True)
class WeighedPlan:
    """A plan whose pairs come with their masses.

    Parameters
    ----------
    drawn
        The plan from which pairs are drawn.
    source, target
        Log mass of each source point ``(n,)`` and of each target point ``(m,)``, per unit of its mass in the coupling's
        own plan.
    masses
        Size of the population at both ends.
    turnover
        Share of the population that growth replaces: half the difference between the shares of the source points in the
        population and in the coupling's own plan.
    share, shift
        Share of the growth of pairs that is taken, and what is added to it so that the population has its size.
    """

    drawn: Plan
    source: Tensor
    target: Tensor
    masses: Masses
    turnover: float
    share: float = 1.0
    shift: float = 0.0

    def shrunk(self, plan: Plan, share: float) -> "WeighedPlan":
        """Return the same pairs with a share of their growth; ``plan`` is the coupling's own."""
        forward = plan.marginals()[0] * ((1 - share) * self.source).exp()
        size = float(plan.push(forward) @ (share * self.target).exp())
        return replace(self, share=share, shift=math.log(self.masses[1] / size))

    def sample(self, n: int, *, generator: torch.Generator, replace: bool = True) -> tuple[Tensor, ...]:
        """Draw ``n`` pairs: source and target indices, and their log masses at both ends, each ``(n,)``.

        Averaged over all draws, the mass at either end is the size of the population there.
        """
        i, j = self.drawn.sample(n, generator=generator, replace=replace)
        source, target = self.source[i], self.target[j]
        start, stop = (math.log(mass) for mass in self.masses)
        rate = torch.logaddexp(source - start, target - stop) - math.log(2)  # log of how often the pair is drawn
        end = target if self.share == 1 else torch.lerp(source, target, self.share) + self.shift
        return i, j, source - rate, end - rate


def match(
    coupling: Callable[..., Plan], x0: Tensor, x1: Tensor, ends: Ends = Ends()
) -> tuple[Plan, Plan | WeighedPlan]:
    """Match two sets; return the coupling's plan, and the plan from which to draw pairs.

    Parameters
    ----------
    coupling
        How they are matched.
    x0, x1
        Points or rows, ``(n, ...)`` and ``(m, ...)``.
    ends
        Weights of the points at both ends.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> x = torch.tensor([[0.0], [1.0]])
    >>> plan, weighed = match(cf.couplings.Exact(), x, x + 1, Ends(masses=(1.0, 2.0)))
    >>> weighed.sample(2, generator=cf.generator(seed=0))[3].exp()
    tensor([2., 2.], dtype=torch.float64)

    Of two clusters the second is expected to triple, as it has: nobody crosses, and its growth is what was expected.

    >>> x, gain = torch.tensor([[0.0], [9.0]]), torch.tensor([1.0, 3.0]).double().log()
    >>> plan, weighed = match(cf.couplings.Exact(), x, x[[0, 1, 1, 1]], Ends((1.0, 2.0), gain=gain))
    >>> plan.dense()
    tensor([[0.2500, 0.0000, 0.0000, 0.0000],
            [0.0000, 0.2500, 0.2500, 0.2500]], dtype=torch.float64)
    >>> (weighed.target[[0, 1]] - weighed.source).exp().round()
    tensor([1., 3.], dtype=torch.float64)
    """
    if ends.masses is None and ends.source is None and ends.target is None:
        plan = coupling(x0, x1)
        return plan, plan
    masses = ends.masses or (1.0, 1.0)
    a, b = (
        _shares(given, x) * mass for given, x, mass in zip((ends.source, ends.target), (x0, x1), masses, strict=True)
    )
    expected = a if ends.gain is None else torch.softmax(a.log() + ends.gain.to(a), dim=0) * masses[1]
    plan = coupling(x0, x1, expected, b)
    if ends.masses is None:
        return plan, plan
    weighed = _weighed(plan, a, b, masses)
    return plan, weighed if ends.share == 1 else weighed.shrunk(plan, ends.share)


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
    sizes = as_states(masses, what="`masses`").double()
    if sizes.shape != (n,) or not all(0 < mass < math.inf for mass in sizes.tolist()):
        raise ValueError(f"Expected a finite size above 0 for each of {n} snapshots in `masses`; found {list(masses)}.")
    both = list(pairwise(sizes.tolist()))
    if not all(0 < before / after < math.inf for before, after in both):
        raise ValueError(f"Expected sizes that can be compared in `masses`; found {list(masses)}.")
    return [(math.sqrt(before / after), math.sqrt(after / before)) for before, after in both]


def _some(size: int, shares: Tensor | None, most: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
    """Return random rows, and their shares where these differ."""
    order = torch.randperm(size, generator=generator)
    if shares is None:
        return order[:most], None
    known = shares.to(order.device)[order]
    if size <= most:
        return order, known
    return order[systematic(known.cumsum(0), most, generator=generator)], None


def _shares(given: Tensor | None, x: Tensor) -> Tensor:
    """Return the share of each point ``(n,)``."""
    if given is None:
        return torch.full((len(x),), 1 / len(x), dtype=torch.float64, device=x.device)
    shares = given.to(x.device, torch.float64)
    return shares / shares.sum()


def _weighed(plan: Plan, a: Tensor, b: Tensor, masses: Masses) -> WeighedPlan:
    rows, columns = plan.marginals()
    # A point without weight is not in the population: its pairs have no mass, whatever is said of them.
    source, target = (torch.where(mass > 0, (mass / found).log(), 0.0) for mass, found in ((a, rows), (b, columns)))
    lost = int((~torch.isfinite(source)).sum()), int((~torch.isfinite(target)).sum())
    if any(lost):
        raise ValueError(
            f"{lost[0]} source and {lost[1]} target points have no mass in the plan, so their growth is unknown: "
            "moving them costs far more than losing them. Raise `relaxation`, or leave these points out."
        )
    rates = (source.exp() / masses[0], target.exp() / masses[1])
    balanced = all(torch.allclose(side, torch.ones_like(side), rtol=0, atol=1e-9) for side in rates)
    turnover = 0.5 * float((rows / rows.sum() - a / a.sum()).abs().sum())
    return WeighedPlan(plan if balanced else plan.rescaled(*rates), source, target, masses, turnover)
