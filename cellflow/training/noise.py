"""Whether treated cells can be told from controls at all, or differ by no more than halves of the controls would."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cellflow.seeds import generator

MOST = 300
"""Most cells of each side that are compared."""
PERMUTED = 199
"""How often cells are dealt out anew."""


def chance_of(arms: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Return how likely controls and treated cells would differ as much as they do if treatments did nothing.

    This is the permutation test of the energy distance, with cells dealt out anew within each arm, for all arms
    together: effects that no arm shows by itself can be told from chance where several have them.

    Parameters
    ----------
    arms
        Controls ``(n, d)`` and treated cells ``(m, d)`` of each arm.

    Returns
    -------
    float
        Between 0.005 and 1: the smaller, the less it is chance.

    Source
    ------
    Székely and Rizzo 2004, "Testing for equal distributions in high dimension", section 2.

    Examples
    --------
    >>> x, y = torch.randn(2, 60, 5, generator=generator(seed=0))
    >>> chance_of([(x, y)]) > 0.05, chance_of([(x, y + 1)])
    (True, 0.005)
    """
    rng = generator(seed=0)
    found = torch.stack([_statistics(x0, x1, rng) for x0, x1 in arms]).sum(dim=0)
    return float((1 + (found[1:] >= found[0]).sum()) / (1 + PERMUTED))


def _statistics(x0: Tensor, x1: Tensor, rng: torch.Generator) -> Tensor:
    """Return the statistic of an arm, and after each deal, ``(1 + PERMUTED,)``."""
    x0, x1 = (x[torch.randperm(len(x), generator=rng)[:MOST].to(x.device)].double().cpu() for x in (x0, x1))
    n, m = len(x0), len(x1)
    apart = torch.cdist(pooled := torch.cat([x0, x1]), pooled)
    deals = torch.stack([torch.randperm(n + m, generator=rng) for _ in range(PERMUTED)])
    sides = torch.cat([torch.full((n,), 1 / n), torch.full((m,), -1 / m)]).double()
    weights = torch.cat([sides[None], sides[deals]])
    return -((weights @ apart) * weights).sum(dim=1) * n * m / (n + m)
