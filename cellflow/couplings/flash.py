"""Initial entropic potentials on a GPU, by the Triton kernels of flash-sinkhorn, which store no pairs."""

import importlib
import importlib.util
from typing import Any

import torch
from torch import Tensor

from cellflow.couplings.cost import Cost, SquaredEuclidean
from cellflow.couplings.exponents import MOST_SINGLE
from cellflow.couplings.potentials import Relaxed

PACKAGE = "flash_sinkhorn"
"""What is used where it is installed: by ``pip install 'cellflow-torch[gpu]'``."""
ITERATIONS = 1000
"""Updates after which potentials are handed on as they are."""


def usable(x0: Tensor, cost: Cost) -> bool:
    """Whether the kernels are installed and apply to these clouds: squared distances, on a CUDA device.

    Examples
    --------
    >>> usable(torch.zeros(2, 1), SquaredEuclidean())
    False
    """
    return x0.is_cuda and isinstance(cost, SquaredEuclidean) and importlib.util.find_spec(PACKAGE) is not None


def begun(x0: Tensor, x1: Tensor, a: Tensor, b: Tensor, g: Tensor, relaxed: Relaxed, tolerance: float) -> Tensor:
    """Return target potentials ``(m,)`` closer to the solution than ``g``, in units of epsilon.

    They come from plain updates in single precision, until an update moves no more than the tolerance: the start for
    the solver in double precision, which judges convergence. If numbers are too large for single precision, ``g`` is
    returned unchanged.

    Parameters
    ----------
    x0, x1
        The clouds ``(n, ...)`` and ``(m, ...)``.
    a, b
        The weights of their points, ``(n,)`` and ``(m,)``, all above 0.
    g
        The target potentials to begin with, ``(m,)``.
    relaxed
        How relaxed masses change an update.
    tolerance
        Share of the mass that an update may still move.

    Source
    ------
    Ye et al., flash-sinkhorn 0.4.1 (MIT): pairs are walked in tiles, as FlashAttention does.
    """
    epsilon = relaxed.epsilon
    factors = SquaredEuclidean().factors(x0, x1)
    if factors.largest() > MOST_SINGLE * epsilon:
        return g
    squares = factors.source / epsilon, factors.target / epsilon
    points = (factors.left / 2).float(), factors.right.float()

    def log_sums(side: int, terms: Tensor) -> Tensor:
        """Return the logarithm of the sums over the other side of ``exp(terms - C / epsilon)``."""
        other = 1 - side
        bias = (terms - squares[other]).float()
        # TF32 would keep ten bits of each product, which is less than the sums of single precision are good for.
        found: Tensor = _kernels().flashsinkhorn_lse(points[side], points[other], bias, epsilon, allow_tf32=False)
        return found.double() / -epsilon - squares[side]

    for _ in range(ITERATIONS):
        f = relaxed.damped(log_sums(0, g + b.log()), 0)
        better = relaxed.damped(log_sums(1, f + a.log()), 1)
        if not bool(torch.isfinite(better).all()):
            break
        moved = float((b * torch.expm1(better - g).abs()).sum() / b.sum())
        _, g = relaxed.shifted(f, better, a, b)
        if moved <= tolerance:
            break
    return g


def _kernels() -> Any:
    return importlib.import_module(f"{PACKAGE}.kernels.sinkhorn_flashstyle_sqeuclid")
