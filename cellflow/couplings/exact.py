"""The couplings without regularisation: independent pairs, and optimal transport."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cellflow.couplings.columns import columns_memory, transport
from cellflow.couplings.cost import Cost, SquaredEuclidean
from cellflow.couplings.given import POINT_MEMORY
from cellflow.couplings.hierarchical import Hierarchical
from cellflow.couplings.problem import check_clouds, cost_matrix, dense_memory, weights_of
from cellflow.couplings.product import ProductPlan
from cellflow.couplings.simplex import OPTIMAL, same
from cellflow.couplings.sparse import SparsePlan
from cellflow.errors import ConvergenceError
from cellflow.machine import usable_memory
from cellflow.signature import checked

DENSE_PAIRS = 2**22
"""Most pairs that are solved as one matrix; beyond, columns are generated, which is then faster."""


@checked
@dataclass(frozen=True)
class Independent:
    """Independent pairs: the product of both weights.

    Examples
    --------
    >>> import torch
    >>> Independent()(torch.zeros(3, 2), torch.zeros(4, 2))
    ProductPlan(3 x 4, mass 1)
    """

    keeps_mass: ClassVar[bool] = True
    uses_states: ClassVar[bool] = False
    divisible: ClassVar[bool] = True

    def memory(self, n: int, m: int) -> int:
        """Return the bytes needed to match ``n`` with ``m`` points at once: a few numbers for each point."""
        return POINT_MEMORY * (n + m)

    def __call__(self, x0: Tensor, x1: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> ProductPlan:
        """Couple ``x0`` of shape ``(n, ...)`` with ``x1`` ``(m, ...)``; weights ``a``, ``b`` are scaled to sum to 1."""
        check_clouds(x0, x1)
        a, b = weights_of(a, x0, name="a"), weights_of(b, x1, name="b")
        return ProductPlan(a / a.sum(), b / b.sum())


@checked
@dataclass(frozen=True)
class Exact:
    """Optimal transport: the plan of least cost that uses up both weights.

    Between equally many points of equal weight the plan is a permutation, found as an assignment: no point is
    duplicated and none is dropped. Otherwise it has at most ``n + m - 1`` pairs. Up to 4 million pairs of points are
    solved as one matrix. Beyond, columns are generated: memory grows with the points, and the cost is proven to be
    within 1e-9 of the least, by the prices in ``plan.potentials``; 16,000 with 17,600 points take less than a minute.
    All solvers use one CPU core and release Python's lock, so that threads can solve ahead.

    Parameters
    ----------
    cost
        Cost of matching two points; beyond 4 million pairs it must depend on these two only.
    max_iterations
        Maximum number of pivots of a network simplex; an assignment needs none.

    Source
    ------
    Crouse 2016, "On implementing 2D rectangular assignment algorithms" (scipy); Bonneel et al. 2011,
    "Displacement interpolation using Lagrangian mass transport" (POT); of columns, see `cellflow.couplings.columns`.

    Examples
    --------
    >>> import torch
    >>> x0, x1 = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[2.1], [0.1], [1.1]])
    >>> Exact()(x0, x1).permutation
    tensor([1, 2, 0])
    """

    keeps_mass: ClassVar[bool] = True
    uses_states: ClassVar[bool] = True
    divisible: ClassVar[bool] = True

    cost: Cost = SquaredEuclidean()
    max_iterations: int = 10_000_000

    def __post_init__(self) -> None:
        if self.max_iterations < 1:
            raise ValueError(f"Expected max_iterations of at least 1; found {self.max_iterations}.")

    def memory(self, n: int, m: int) -> int:
        """Return the bytes needed to match ``n`` with ``m`` points at once."""
        return dense_memory(n, m) if n * m <= DENSE_PAIRS else columns_memory(n, m)

    def at_scale(self) -> Hierarchical | None:
        """Return the coupling that replaces it if clouds are too large for an exact plan, or ``None``."""
        return Hierarchical(cost=self.cost) if isinstance(self.cost, SquaredEuclidean) else None

    def __call__(self, x0: Tensor, x1: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> SparsePlan:
        """Couple ``x0`` of shape ``(n, ...)`` with ``x1`` ``(m, ...)``; weights ``a``, ``b`` are scaled to sum to 1.

        Raises
        ------
        ConvergenceError
            When the network simplex takes more than ``max_iterations`` pivots.
        ValueError
            When the cost of a pair depends on other points, beyond 4 million pairs; when the memory of this process
            does not suffice.
        """
        check_clouds(x0, x1)
        a, b = weights_of(a, x0, name="a"), weights_of(b, x1, name="b")
        if len(x0) * len(x1) > DENSE_PAIRS:
            self._check_memory(len(x0), len(x1))
            return transport(self.cost, x0, x1, a, b, max_iterations=self.max_iterations)
        costs = cost_matrix(self.cost, x0, x1).cpu()
        if len(x0) == len(x1) and same(a) and same(b):
            return _assignment(costs, device=x0.device)
        return _transport(costs, a / a.sum(), b / b.sum(), max_iterations=self.max_iterations)

    def _check_memory(self, n: int, m: int) -> None:
        needed, there = self.memory(n, m), usable_memory()
        if needed > there:
            raise ValueError(
                f"A plan between {n:,} and {m:,} points would take {needed / 1e9:.1f} GB of memory; this process may "
                f"use {there / 1e9:.1f} GB. Take `Hierarchical`, or couple fewer points at a time."
            )


def _assignment(costs: Tensor, *, device: torch.device) -> SparsePlan:
    from scipy.optimize import linear_sum_assignment

    n = costs.shape[0]
    i, j = (torch.as_tensor(side) for side in linear_sum_assignment(costs.numpy()))
    masses = torch.full((n,), 1 / n, dtype=torch.float64, device=device)
    return SparsePlan(i.to(device), j.to(device), masses, shape=(n, n), cost=float(costs[i, j].mean()))


def _transport(costs: Tensor, a: Tensor, b: Tensor, *, max_iterations: int) -> SparsePlan:
    import ot

    # The simplex compares costs with a fixed tolerance: it must not depend on the unit of the data.
    relative = costs / costs.abs().max().clamp(min=torch.finfo(costs.dtype).tiny)
    matrix, log = ot.emd(a.cpu().numpy(), b.cpu().numpy(), relative.numpy(), numItermax=max_iterations, log=True)
    n, m = matrix.shape
    if log["result_code"] != OPTIMAL:
        message = (
            f"Optimal transport between {n} and {m} points was not solved within {max_iterations} iterations "
            f"({log['warning']}). Raise max_iterations, or couple fewer points at a time."
        )
        raise ConvergenceError(message)
    i, j = (torch.as_tensor(side) for side in matrix.nonzero())
    masses = torch.as_tensor(matrix)[i, j]
    total = float(masses @ costs[i, j])
    return SparsePlan(i.to(a.device), j.to(a.device), masses.to(a.device), shape=(n, m), cost=total)
