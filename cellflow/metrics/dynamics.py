"""Baselines for a prediction at a held-out time, which learn nothing: weighted populations."""

import torch
from torch import Tensor

from cellflow.couplings import Exact


def linear_transport(x0: Tensor, x1: Tensor, *, fraction: float) -> tuple[Tensor, Tensor]:
    """Return points ``(n, d)`` on the straight lines of the exact plan between two clouds, and their weights ``(n,)``.

    The interpolation that optimal transport gives without any learning.

    Parameters
    ----------
    x0, x1
        Clouds before and after, ``(k, d)`` and ``(m, d)``.
    fraction
        How far along: 0 at ``x0``, 1 at ``x1``.

    Source
    ------
    McCann 1997, displacement interpolation.

    Examples
    --------
    >>> import torch
    >>> points, weights = linear_transport(torch.zeros(2, 1), torch.ones(2, 1), fraction=0.25)
    >>> points.flatten(), weights
    (tensor([0.2500, 0.2500]), tensor([0.5000, 0.5000], dtype=torch.float64))
    """
    i, j, masses = Exact()(x0, x1).pairs
    return torch.lerp(x0[i], x1[j], fraction), masses


def mixture(x0: Tensor, x1: Tensor, *, fraction: float) -> tuple[Tensor, Tensor]:
    """Return the points of two clouds and their weights, which sum to ``fraction`` over ``x1``: no point moves.

    Examples
    --------
    >>> import torch
    >>> points, weights = mixture(torch.zeros(9, 1), torch.ones(5, 1), fraction=0.25)
    >>> round(float(weights @ points[:, 0]), 6)
    0.25
    """
    shares = ((x0, 1 - fraction), (x1, fraction))
    return torch.cat([x0, x1]), torch.cat([x.new_full((len(x),), share / len(x)) for x, share in shares])
