"""Costs of matching two points: `SquaredEuclidean`, `Euclidean`, or any function of two clouds.

Costs are computed in float64 whatever the data. A matching compares small differences between large sums; the
exact solvers work in float64 anyway; and the matrix product below loses half the digits to cancellation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from cellflow.signature import checked

Cost = Callable[[Tensor, Tensor], Tensor]
"""Two clouds ``(n, ...)`` and ``(m, ...)`` to the ``(n, m)`` costs of joining each pair."""


class Factors(NamedTuple):
    """Costs as ``source_i + target_j - left_i . right_j``, computed block by block as matrix products.

    Parameters
    ----------
    source, target
        A number for each point, ``(n,)`` and ``(m,)``, float64.
    left, right
        A vector for each point, ``(n, d)`` and ``(m, d)``, float64.
    """

    source: Tensor
    target: Tensor
    left: Tensor
    right: Tensor

    def largest(self) -> float:
        """Return an upper bound of all costs and of their terms."""
        lengths = (float(side.norm(dim=1).max()) for side in (self.left, self.right))
        return sum(float(side.abs().max()) for side in (self.source, self.target)) + next(lengths) * next(lengths)


@runtime_checkable
class Factored(Protocol):
    """A cost that can be factored."""

    def factors(self, x0: Tensor, x1: Tensor) -> Factors:
        """Return the factors of the costs between clouds ``x0`` of shape ``(n, ...)`` and ``x1`` ``(m, ...)``."""


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
        source, target, left, right = self.factors(x0, x1)
        return torch.addmm(target, left, right.T, alpha=-1).add_(source[:, None]).clamp_(min=0)

    def factors(self, x0: Tensor, x1: Tensor) -> Factors:
        """Return the factors of the squared distances between ``x0`` of shape ``(n, ...)`` and ``x1`` ``(m, ...)``.

        Examples
        --------
        >>> import torch
        >>> source, target, left, right = SquaredEuclidean().factors(torch.ones(2, 1), torch.zeros(1, 1))
        >>> source[:, None] + target - left @ right.T
        tensor([[1.],
                [1.]], dtype=torch.float64)
        """
        x0, x1 = _pair(x0, x1)
        # The product form cancels when both clouds sit far from the origin: move the origin between them.
        centre = (x0.mean(dim=0) + x1.mean(dim=0)) / 2
        x0, x1 = x0 - centre, x1 - centre
        return Factors(x0.square().sum(dim=1), x1.square().sum(dim=1), 2 * x0, x1)


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
