"""The independent plan, stored as two vectors."""

from functools import cached_property
from typing import final

import torch
from torch import Tensor

from cellflow.couplings.dense import DensePlan
from cellflow.couplings.draws import AliasTable, shuffled, systematic
from cellflow.couplings.plan import Plan, masses_of
from cellflow.shapes import as_states
from cellflow.signature import checked


@checked
@final
class ProductPlan(Plan):
    """The independent plan, the product of both weights: ``P = a b^T``, stored as two vectors.

    Parameters
    ----------
    a
        The weights of the source points ``(n,)``.
    b
        The weights of the target points ``(m,)``.

    Examples
    --------
    >>> import torch
    >>> ProductPlan(torch.ones(3) / 3, torch.ones(2) / 2).push(torch.tensor([1.0, 0.0, 0.0]))
    tensor([0.5000, 0.5000])
    """

    def __init__(self, a: Tensor, b: Tensor) -> None:
        a, b = as_states(a, what="`a`"), as_states(b, what="`b`")
        if a.ndim != 1 or b.ndim != 1:
            raise ValueError(f"Expected weights (n,) and (m,); found shapes {tuple(a.shape)} and {tuple(b.shape)}.")
        self._a, self._b = masses_of(a), masses_of(b)
        self.cost = None

    @property
    def shape(self) -> tuple[int, int]:
        """The number of source points and of target points."""
        return self._a.numel(), self._b.numel()

    def marginals(self) -> tuple[Tensor, Tensor]:
        """Return the mass of every source point ``(n,)`` and of every target point ``(m,)``."""
        return self._a * self._b.sum(), self._b * self._a.sum()

    def rescaled(self, source: Tensor, target: Tensor) -> Plan:
        """Return the plan with each mass multiplied by the sum of its source's rate and its target's rate."""
        if target.max() <= target.min() * (1 + 1e-9):
            return ProductPlan(self._a * (source + target.mean()), self._b)
        return DensePlan(self.dense() * (source[:, None] + target))

    @property
    def permutation(self) -> Tensor | None:
        """The target of the source point if there is one point on each side, else ``None``."""
        return torch.zeros(1, dtype=torch.long, device=self._a.device) if self.shape == (1, 1) else None

    @cached_property
    def _aliases(self) -> tuple[AliasTable, AliasTable]:
        return AliasTable(self._a), AliasTable(self._b)

    @cached_property
    def _cumulative(self) -> tuple[Tensor, Tensor]:
        return self._a.cumsum(dim=0), self._b.cumsum(dim=0)

    def _independent(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        rows, columns = self._aliases
        return rows.draw(n, generator=generator), columns.draw(n, generator=generator)

    def _even(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        rows, columns = (systematic(cumulative, n, generator=generator) for cumulative in self._cumulative)
        return shuffled(rows, generator=generator), shuffled(columns, generator=generator)

    def _rows(self, rows: Tensor) -> Tensor:
        return torch.outer(self._a[rows], self._b)

    def _forward(self, values: Tensor) -> Tensor:
        return torch.outer(self._b, self._a @ values)

    def _backward(self, values: Tensor) -> Tensor:
        return torch.outer(self._a, self._b @ values)
