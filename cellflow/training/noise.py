"""Whether treated cells can be told from controls at all, or differ by no more than halves of the controls would."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cellflow.seeds import generator

MOST = 300
"""Most cells of each side that are compared."""
UNLIKELY = 0.05
"""A chance up to which cells are said to be told apart."""
PERMUTED = 199
"""Number of permutations of the cells."""


class Told(NamedTuple):
    """How well treated cells can be told from controls.

    Attributes
    ----------
    chance
        Probability that they would differ as much if treatments had no effect: from 0.005 to 1.
    share
        How much of the difference is not chance: 1 if that is unlikely, and otherwise the part above the average by
        chance, or 0.
    """

    chance: float
    share: float


def told_from_controls(arms: Sequence[tuple[Tensor, Tensor]]) -> Told:
    """Return how well treated cells can be distinguished from controls.

    This is the permutation test of the energy distance, with cells permuted within each arm, for all arms together:
    effects that no single arm shows can be significant if several arms have them.

    Parameters
    ----------
    arms
        Controls ``(n, d)`` and treated cells ``(m, d)`` of each arm.

    Source
    ------
    Székely and Rizzo 2004, "Testing for equal distributions in high dimension", section 2, for the test; James and
    Stein 1961, with the positive part, for the share.

    Examples
    --------
    >>> x, y = torch.randn(2, 60, 5, generator=generator(seed=1))
    >>> told_from_controls([(x, y + 1)])
    Told(chance=0.005, share=1.0)
    >>> told_from_controls([(x, y)])
    Told(chance=0.835, share=0.0)
    """
    rng = generator(seed=0)
    found = torch.stack([_statistics(x0, x1, rng) for x0, x1 in arms]).sum(dim=0)
    observed, dealt = float(found[0]), found[1:]
    chance = float((1 + (dealt >= observed).sum()) / (1 + PERMUTED))
    above = max(0.0, 1 - float(dealt.mean()) / observed) if observed > 0 else 0.0
    return Told(round(chance, 3), 1.0 if chance <= UNLIKELY else above)


def _statistics(x0: Tensor, x1: Tensor, rng: torch.Generator) -> Tensor:
    """Return the statistic of an arm, and after each deal, ``(1 + PERMUTED,)``."""
    x0, x1 = (x[torch.randperm(len(x), generator=rng)[:MOST].to(x.device)].cpu().double() for x in (x0, x1))
    n, m = len(x0), len(x1)
    apart = torch.cdist(pooled := torch.cat([x0, x1]), pooled)
    deals = torch.stack([torch.randperm(n + m, generator=rng) for _ in range(PERMUTED)])
    sides = torch.cat([torch.full((n,), 1 / n), torch.full((m,), -1 / m)]).double()
    weights = torch.cat([sides[None], sides[deals]])
    return -((weights @ apart) * weights).sum(dim=1) * n * m / (n + m)
