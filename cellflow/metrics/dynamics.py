"""Baselines for a prediction at a held-out time, which learn nothing."""

import torch
from torch import Tensor

from cellflow.couplings import Exact


def linear_transport(x0: Tensor, x1: Tensor, *, fraction: float, n: int, generator: torch.Generator) -> Tensor:
    """Return ``n`` points on the straight lines of the exact plan between two clouds.

    The interpolation that optimal transport gives without any learning.

    Parameters
    ----------
    x0, x1
        Clouds before and after, ``(k, d)`` and ``(m, d)``.
    fraction
        How far along: 0 at ``x0``, 1 at ``x1``.
    n
        How many points.
    generator
        Draws the pairs.

    Source
    ------
    McCann 1997, displacement interpolation.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> x0, x1 = torch.zeros(4, 1), torch.ones(4, 1)
    >>> linear_transport(x0, x1, fraction=0.25, n=2, generator=cf.generator(seed=0)).flatten()
    tensor([0.2500, 0.2500])
    """
    i, j = Exact()(x0, x1).sample(n, generator=generator, replace=False)
    return torch.lerp(x0[i], x1[j], fraction)


def mixture(x0: Tensor, x1: Tensor, *, fraction: float, n: int, generator: torch.Generator) -> Tensor:
    """Return ``n`` points of a mixture of two clouds, the fraction ``fraction`` from ``x1``: no point moves.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> mixed = mixture(torch.zeros(9, 1), torch.ones(9, 1), fraction=0.25, n=8, generator=cf.generator(seed=0))
    >>> mixed.sum()
    tensor(2.)
    """
    later = round(fraction * n)
    rows0 = torch.randint(len(x0), (n - later,), generator=generator, device=generator.device)
    rows1 = torch.randint(len(x1), (later,), generator=generator, device=generator.device)
    return torch.cat([x0[rows0.to(x0.device)], x1[rows1.to(x1.device)]])
