"""Costs in units of epsilon plus the terms of their points, a block of pairs at a time."""

from typing import TypeAlias

import torch
from torch import Tensor

from cellflow.couplings.cost import Cost, Factored, Factors
from cellflow.couplings.problem import cost_matrix

MOST = 1e12
"""Largest cost in units of epsilon: what is added to it is then rounded by a ten-thousandth of an e-fold."""
MOST_SINGLE = 2.0**11
"""Largest cost in units of epsilon for which factors are multiplied in single precision: what sums over many pairs
lose is then below 1e-5."""

Chosen: TypeAlias = slice | Tensor
"""Some of the points: a slice, or their positions."""
ALL = slice(None)


class Exponents:
    """Blocks of ``r_i + c_j - C_ij / epsilon``, with the costs recomputed for each.

    Costs that can be factored, such as squared distances, are a product of matrices, with the terms of points
    subtracted before: in single precision where none is too large for that.

    Parameters
    ----------
    x0, x1
        The clouds ``(n, ...)`` and ``(m, ...)``.
    cost
        Cost of matching two points; that of a pair must not depend on other points.
    epsilon
        The unit of the costs.
    dtype
        Precision of the blocks.

    Raises
    ------
    ValueError
        When epsilon is too small for double precision.

    Examples
    --------
    >>> import torch
    >>> from cellflow.couplings import SquaredEuclidean
    >>> x = torch.tensor([[0.0], [2.0]])
    >>> exponents = Exponents(x, x, SquaredEuclidean(), 2.0)
    >>> exponents(slice(0, 1), ALL, torch.zeros(2), torch.ones(2))
    tensor([[ 1., -1.]], dtype=torch.float64)
    """

    def __init__(
        self, x0: Tensor, x1: Tensor, cost: Cost, epsilon: float, *, dtype: torch.dtype = torch.float64
    ) -> None:
        self._x0, self._x1, self._cost, self._epsilon, self._dtype = x0, x1, cost, epsilon, dtype
        self._factors: Factors | None = None
        if isinstance(cost, Factored):
            factors = cost.factors(x0, x1)
            largest = factors.largest() / epsilon
            check_costs(factors.largest(), epsilon)
            single = dtype == torch.float32 and largest <= MOST_SINGLE
            within = torch.float32 if single else torch.float64
            source, target, left, right = factors
            self._factors = Factors(
                source / epsilon, target / epsilon, (left / epsilon).to(within), right.to(within).contiguous()
            )

    def rounded(self, terms: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the float64 terms ``(n,)`` and ``(m,)`` that blocks made of these have, once they are rounded."""
        if self._factors is None:
            return terms
        within, sides = self._factors.left.dtype, self._factors[:2]
        r, c = ((term - side).to(within).double() + side for term, side in zip(terms, sides, strict=True))
        return r, c

    def __call__(self, rows: Chosen, columns: Chosen, r: Tensor, c: Tensor) -> Tensor:
        """Return the block of some rows and columns; ``r`` ``(n,)`` and ``c`` ``(m,)`` are the terms of all points."""
        if self._factors is None:
            costs = cost_matrix(self._cost, self._x0[rows], self._x1[columns])
            check_costs(float(costs.max()), self._epsilon)
            return costs.div_(-self._epsilon).add_(c[columns]).add_(r[rows][:, None]).to(self._dtype)
        source, target, left, right = self._factors
        of_columns, of_rows = c[columns] - target[columns], r[rows] - source[rows]
        block = torch.addmm(of_columns.to(left.dtype), left[rows], right[columns].T)
        return block.add_(of_rows.to(left.dtype)[:, None]).to(self._dtype)


def check_costs(most: float, epsilon: float) -> None:
    """Raise if the largest cost is beyond double precision in units of epsilon.

    Raises
    ------
    ValueError
        In that case; the message names the least possible epsilon.
    """
    if most > MOST * epsilon:
        raise ValueError(
            f"Expected an epsilon of at least {most / MOST:.2g} for costs of up to {most:.2g}, as double precision "
            f"cannot tell them apart with a smaller one; found {epsilon:.2g}. Raise it, or use `Exact()`, the limit of "
            "small "
            "epsilon."
        )
