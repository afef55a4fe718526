"""The plan that stores all its masses."""

from collections.abc import Mapping
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from cellflow.couplings.draws import shuffled, systematic
from cellflow.couplings.plan import Plan, masses_of, one_to_one, solved
from cellflow.shapes import as_states
from cellflow.signature import checked


@checked
@final
class DensePlan(Plan):
    """A plan that stores all its masses.

    Parameters
    ----------
    matrix
        The masses ``(n, m)``.
    cost
        The transport cost, where known.
    potentials
        The dual potentials ``(n,)`` and ``(m,)``, in units of the cost, where an entropic solver found them.
    iterations
        How many iterations the solver took.
    error
        The error at which the solver stopped: the misplaced fraction of the mass.
    settings
        Settings of the solver, by name, if it chose them itself.

    Examples
    --------
    >>> import torch
    >>> DensePlan(torch.tensor([[0.2, 0.2], [0.0, 0.6]]))
    DensePlan(2 x 2, mass 1)
    """

    def __init__(
        self,
        matrix: Tensor,
        *,
        cost: float | None = None,
        potentials: tuple[Tensor, Tensor] | None = None,
        iterations: int | None = None,
        error: float | None = None,
        settings: Mapping[str, float] | None = None,
    ) -> None:
        matrix = as_states(matrix, what="`matrix`")
        if matrix.ndim != 2:
            raise ValueError(f"Expected a matrix of masses (n, m); found shape {tuple(matrix.shape)}.")
        self._matrix = masses_of(matrix)
        self.cost = cost
        self.potentials = potentials
        self.iterations = iterations
        self.error = error
        self.settings = dict(settings or {})

    @checked
    def joining(self, cost: float, **settings: float) -> "DensePlan":
        """Return the same masses with the transport cost to report, if the solver minimised another.

        Parameters
        ----------
        cost
            The transport cost.
        **settings
            Settings that the solver chose.

        Examples
        --------
        >>> import torch
        >>> DensePlan(torch.eye(2)).joining(6.0, epsilon=0.5)
        DensePlan(2 x 2, mass 2, cost 6, epsilon 0.5)
        """
        return DensePlan(self._matrix, cost=cost, iterations=self.iterations, error=self.error, settings=settings)

    def rescaled(self, source: Tensor, target: Tensor) -> "DensePlan":
        """Return the plan with each mass multiplied by the sum of its source's rate and its target's rate."""
        return DensePlan(self._matrix * (source[:, None] + target))

    @property
    def converged(self) -> bool | None:
        """True for the plan of an iterative solver, which raises if it does not converge; ``None`` for any other."""
        return None if self.iterations is None else True

    @property
    def shape(self) -> tuple[int, int]:
        """The number of source points and of target points."""
        n, m = self._matrix.shape
        return n, m

    def marginals(self) -> tuple[Tensor, Tensor]:
        """Return the mass of every source point ``(n,)`` and of every target point ``(m,)``."""
        return self._matrix.sum(dim=1), self._matrix.sum(dim=0)

    def dense(self) -> Tensor:
        """Return all ``(n, m)`` masses."""
        return self._matrix

    @property
    def permutation(self) -> Tensor | None:
        """The target of each source point ``(n,)`` if the plan is a permutation, else ``None``."""
        n, m = self.shape
        if int((self._matrix > 0).sum()) != n or n != m:
            return None
        i, j = self._matrix.nonzero().unbind(dim=1)
        return one_to_one(self.shape, i, j, self._matrix[i, j])

    def _details(self) -> list[str]:
        return [*super()._details(), *solved(self.iterations, self.settings)]

    # Every pair is one number, row by row, so that a row is a run of consecutive numbers.
    @cached_property
    def _cumulative(self) -> Tensor:
        return self._matrix.flatten().cumsum(dim=0)

    def _independent(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        # Not by an alias table: it is twice the plan's size, and the search takes some twenty steps.
        heights = torch.rand(n, generator=generator, device=generator.device, dtype=torch.float64)
        heights = heights.to(self._matrix.device) * self._cumulative[-1]
        pairs = torch.searchsorted(self._cumulative, heights, right=True)
        return self._unflatten(pairs.clamp(max=self._cumulative.numel() - 1))

    def _even(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return self._unflatten(shuffled(systematic(self._cumulative, n, generator=generator), generator=generator))

    def _unflatten(self, pairs: Tensor) -> tuple[Tensor, Tensor]:
        return pairs // self.shape[1], pairs % self.shape[1]

    def _rows(self, rows: Tensor) -> Tensor:
        return self._matrix[rows]

    def _forward(self, values: Tensor) -> Tensor:
        return self._matrix.T @ values

    def _backward(self, values: Tensor) -> Tensor:
        return self._matrix @ values
