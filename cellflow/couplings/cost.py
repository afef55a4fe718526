"""Costs of matching two points: `SquaredEuclidean`, `Euclidean`, or any function of two clouds.

Costs are computed in float64 whatever the data. A matching compares small differences between large sums; the
exact solvers work in float64 anyway; and the matrix product below loses half the digits to cancellation.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cellflow.signature import checked

Cost = Callable[[Tensor, Tensor], Tensor]
"""Two clouds ``(n, ...)`` and ``(m, ...)`` to the ``(n, m)`` costs of joining each pair."""


@checked
@dataclass(frozen=True)
class SquaredEuclidean:
    """The squared distance, summed over all dimensions of a state.

    Examples
    --------
    >>> import torch
    >>> SquaredEuclidean()(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0], [1.0, 0.0]]))
    tensor([[25.,  1.]], dtype=torch.float64)
    """

    @checked
    def __call__(self, x0: Tensor, x1: Tensor) -> Tensor:
        """Return the ``(n, m)`` squared distances between ``x0`` of shape ``(n, ...)`` and ``x1`` ``(m, ...)``."""
        x0, x1 = _pair(x0, x1)
        # The product form cancels when both clouds sit far from the origin: move the origin between them.
        centre = (x0.mean(dim=0) + x1.mean(dim=0)) / 2
        x0, x1 = x0 - centre, x1 - centre
        squares = torch.addmm(x1.square().sum(dim=1), x0, x1.T, alpha=-2)
        return squares.add_(x0.square().sum(dim=1, keepdim=True)).clamp_(min=0)


@checked
@dataclass(frozen=True)
class Euclidean:
    """The distance, over all dimensions of a state.

    Examples
    --------
    >>> import torch
    >>> Euclidean()(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0], [1.0, 0.0]]))
    tensor([[5., 1.]], dtype=torch.float64)
    """

    @checked
    def __call__(self, x0: Tensor, x1: Tensor) -> Tensor:
        """Return the ``(n, m)`` distances between ``x0`` of shape ``(n, ...)`` and ``x1`` of shape ``(m, ...)``."""
        # A root turns a rounding error of 1e-16 into 1e-8, so here the differences are summed directly.
        return torch.cdist(*_pair(x0, x1), compute_mode="donot_use_mm_for_euclid_dist")


def _pair(x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
    if (
        any(x.is_complex() or x.layout != torch.strided for x in (x0, x1))
        or x0.shape[1:] != x1.shape[1:]
        or not x0.ndim
        or not x0.numel()
        or not x1.numel()
    ):
        raise ValueError(
            f"Expected clouds of real states (n, ...) and (m, ...) of one shape; found {tuple(x0.shape)} of {x0.dtype} "
            f"and {tuple(x1.shape)} of {x1.dtype}."
        )
    rows = _rows(x0), _rows(x1)
    for name, side in zip(("x0", "x1"), rows, strict=True):
        if not bool(torch.isfinite(side).all()):
            raise ValueError(
                f"Expected finite states in `{name}`; some hold NaN or infinity. Remove or impute them first."
            )
    return rows


def _rows(x: Tensor) -> Tensor:
    return x.detach().reshape(x.shape[0], -1).double()
