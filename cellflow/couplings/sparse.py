"""The plan that stores only the pairs that carry mass."""

from functools import cached_property
from typing import final

import torch
from torch import Tensor

from cellflow.couplings.draws import AliasTable, shuffled, systematic
from cellflow.couplings.plan import Plan, masses_of, one_to_one
from cellflow.signature import checked


@checked
@final
class SparsePlan(Plan):
    """A plan that stores only the pairs that carry mass.

    Parameters
    ----------
    i
        The source point of each pair ``(k,)``.
    j
        The target point of each pair ``(k,)``.
    masses
        The mass of each pair ``(k,)``.
    shape
        The number of source points and of target points.
    cost
        The transport cost, where known.
    potentials
        Prices of the source points ``(n,)`` and of the target points ``(m,)`` that prove the plan optimal, if known:
        the sum of two is at most the cost of their pair, and equal to it where the pair carries mass.

    Examples
    --------
    >>> import torch
    >>> plan = SparsePlan(torch.tensor([0, 1]), torch.tensor([1, 0]), torch.tensor([0.5, 0.5]), shape=(2, 2))
    >>> plan
    SparsePlan(2 x 2, mass 1, one to one)
    >>> plan.permutation
    tensor([1, 0])
    """

    def __init__(
        self,
        i: Tensor,
        j: Tensor,
        masses: Tensor,
        *,
        shape: tuple[int, int],
        cost: float | None = None,
        potentials: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        if not i.shape == j.shape == masses.shape or i.ndim != 1:
            found = ", ".join(str(tuple(entries.shape)) for entries in (i, j, masses))
            raise ValueError(f"Expected rows, columns and masses of one length (k,); found {found}.")
        if any(part.dtype not in (torch.int64, torch.int32) or part.layout != torch.strided for part in (i, j)):
            raise TypeError(f"Expected `i` and `j` as dense tensors of whole numbers; found {i.dtype} and {j.dtype}.")
        masses = masses_of(masses)
        if min(i.min(), j.min()) < 0 or i.max() >= shape[0] or j.max() >= shape[1]:
            raise ValueError(f"Expected pairs within {shape}; found rows up to {i.max()}, columns up to {j.max()}.")
        if potentials is not None and not all(isinstance(side, Tensor) and side.ndim == 1 for side in potentials):
            raise TypeError("Expected `potentials` as two tensors, (n,) and (m,).")
        if potentials is not None and tuple(len(side) for side in potentials) != tuple(shape):
            found = " and ".join(str(len(side)) for side in potentials)
            raise ValueError(f"Expected potentials of all points, {shape[0]} and {shape[1]}; found {found}.")
        # Ordered row by row: an even draw treats a row as a run of consecutive pairs.
        order = torch.argsort(i * shape[1] + j)
        order = order[masses[order] > 0]
        self._i, self._j, self._entries = i[order].long(), j[order].long(), masses[order]
        self._shape = shape
        self.cost, self.potentials = cost, potentials

    @property
    def shape(self) -> tuple[int, int]:
        """The number of source points and of target points."""
        return self._shape

    @property
    def pairs(self) -> tuple[Tensor, Tensor, Tensor]:
        """The source points, target points and masses of all pairs that carry mass, each ``(k,)``."""
        return self._i, self._j, self._entries

    def marginals(self) -> tuple[Tensor, Tensor]:
        """Return the mass of every source point ``(n,)`` and of every target point ``(m,)``."""
        rows = self._entries.new_zeros(self.shape[0]).index_add_(0, self._i, self._entries)
        return rows, self._entries.new_zeros(self.shape[1]).index_add_(0, self._j, self._entries)

    def rescaled(self, source: Tensor, target: Tensor) -> "SparsePlan":
        """Return the plan with each mass multiplied by the sum of its source's rate and its target's rate."""
        return SparsePlan(self._i, self._j, self._entries * (source[self._i] + target[self._j]), shape=self._shape)

    @property
    def permutation(self) -> Tensor | None:
        """The target of each source point ``(n,)`` if the plan is a permutation, else ``None``."""
        return one_to_one(self.shape, *self.pairs)

    def _details(self) -> list[str]:
        kind = f"{self._i.numel()} pairs" if self.permutation is None else "one to one"
        return [kind, *super()._details()]

    @cached_property
    def _alias(self) -> AliasTable:
        return AliasTable(self._entries)

    @cached_property
    def _cumulative(self) -> Tensor:
        return self._entries.cumsum(dim=0)

    def _independent(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        pairs = self._alias.draw(n, generator=generator)
        return self._i[pairs], self._j[pairs]

    def _even(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        pairs = shuffled(systematic(self._cumulative, n, generator=generator), generator=generator)
        return self._i[pairs], self._j[pairs]

    def _rows(self, rows: Tensor) -> Tensor:
        starts, stops = (torch.searchsorted(self._i, rows, right=right) for right in (False, True))
        counts = stops - starts
        place = torch.arange(len(rows), device=rows.device).repeat_interleave(counts)
        before = counts.cumsum(0) - counts
        pairs = torch.arange(len(place), device=rows.device) + (starts - before)[place]
        matrix = self._entries.new_zeros(len(rows), self._shape[1])
        return matrix.index_put_((place, self._j[pairs]), self._entries[pairs], accumulate=True)

    def _forward(self, values: Tensor) -> Tensor:
        return self._add_up(self.shape[1], self._j, values[self._i])

    def _backward(self, values: Tensor) -> Tensor:
        return self._add_up(self.shape[0], self._i, values[self._j])

    def _add_up(self, size: int, places: Tensor, values: Tensor) -> Tensor:
        carried = values * self._entries[:, None]
        return carried.new_zeros(size, values.shape[1]).index_add_(0, places, carried)
