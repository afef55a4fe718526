"""Matching within groups, such as donors, batches or classes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor

from cellflow.couplings.coupling import CouplingLike, over, resolve
from cellflow.couplings.dense import DensePlan
from cellflow.couplings.draws import AliasTable, shuffled, systematic
from cellflow.couplings.plan import Plan
from cellflow.couplings.problem import MOST_BYTES, check_clouds, weights_of
from cellflow.signature import checked_but

Block = tuple[Tensor, Tensor, float, Plan]
"""Source points ``(k,)``, target points ``(l,)``, the share of the mass, and the plan ``(k, l)`` between them."""
Labels = Tensor | np.ndarray | Sequence[str | int]


@checked_but("coupling")
@dataclass(frozen=True, eq=False)
class Within:
    """Match points only within the same group: each group has its own plan.

    The fraction of pairs in each group is its fraction of the target, unless the coupling changes masses: with weights,
    each group then has the mass of its own plan. A group that is missing on one side, or whose points there all weigh
    0, is left out. To pair cells of an AnnData within the groups of a column of ``obs``, use
    ``cellflow.SnapshotFlow(within="donor")``.

    Parameters
    ----------
    coupling
        Matches the points of one group: a coupling, or the name of one.
    source, target
        The group of each point of either cloud, ``(n,)`` and ``(m,)``: names, or whole numbers as a tensor.

    Raises
    ------
    ValueError
        When there is not one label for each point of a cloud, or the clouds have no group in common.

    Examples
    --------
    >>> import torch
    >>> within = Within("exact", ["a", "b", "b"], ["b", "a", "b"])
    >>> plan = within(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[1.0], [2.0], [0.0]]))
    >>> plan.permutation
    tensor([1, 2, 0])
    """

    keeps_mass: ClassVar[bool] = False  # a group that grows gains on the others
    divisible: ClassVar[bool] = False  # labels belong to the points of these clouds

    coupling: CouplingLike
    source: Labels = field(repr=False)
    target: Labels = field(repr=False)

    @property
    def uses_states(self) -> bool:
        """Whether the plan depends on where the points are, inside their groups."""
        return resolve(self.coupling).uses_states

    def memory(self, n: int, m: int) -> int:
        """Return the bytes needed to match all groups, whose plans are all kept."""
        inner = resolve(self.coupling)
        return sum(inner.memory(len(i), len(j)) for i, j in _groups(*_numbered(self.source, self.target)))

    def over(self, duration: float, sigma: float) -> "Within":
        """Return the coupling with that of each group for one interval."""
        return replace(self, coupling=over(resolve(self.coupling), duration, sigma))

    def __call__(self, x0: Tensor, x1: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> "GroupPlan":
        """Couple ``x0`` of shape ``(n, ...)`` with ``x1`` of shape ``(m, ...)``, weighted by ``a`` and ``b``."""
        check_clouds(x0, x1)
        a, b = (
            None if weights is None else weights_of(weights, x, name=name)
            for weights, x, name in ((a, x0, "a"), (b, x1, "b"))
        )
        left, right = (side.to(x0.device) for side in _numbered(self.source, self.target))
        if (len(left), len(right)) != (len(x0), len(x1)):
            raise ValueError(
                f"Expected a group for each of {len(x0)} source and {len(x1)} target points; found {len(left)} and "
                f"{len(right)}."
            )
        inner, blocks = resolve(self.coupling), []
        for i, j in _groups(left, right):
            weights = (None if a is None else a[i], None if b is None else b[j])
            if any(side is not None and not side.any() for side in weights):
                continue
            share = len(j) / len(right) if b is None else float(b[j].sum() / b.sum())
            if b is not None and not inner.keeps_mass:  # weights are masses to it: each plan has that of its group
                share = 1.0
            blocks.append((i, j, share, inner(x0[i], x1[j], *weights)))
        return GroupPlan(blocks, shape=(len(left), len(right)))


def _numbered(source: Labels, target: Labels) -> tuple[Tensor, Tensor]:
    """Return the labels of both sides as whole numbers, the same for the same name."""
    if isinstance(source, Tensor) and isinstance(target, Tensor):
        return source, target
    sides = [_names(side, name) for side, name in ((source, "source"), (target, "target"))]
    numbers = np.unique(np.concatenate(sides), return_inverse=True)[1]
    left, right = np.split(numbers, [len(source)])
    return torch.from_numpy(left), torch.from_numpy(right)


def _names(labels: Labels, name: str) -> np.ndarray:
    """Return the labels of one side, provided that they can be told apart."""
    found = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    if (
        found.ndim != 1
        or found.dtype.kind not in "biuUSO"
        or any(not isinstance(label, str | int) for label in found.tolist())
    ):
        raise ValueError(
            f"Expected `{name}` as a label for each point, names or whole numbers; found {type(labels).__name__}."
        )
    return found


def _groups(left: Tensor, right: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the source points and the target points of each group that both sides have."""
    for label in torch.unique(right[torch.isin(right, left)]):
        yield (left == label).nonzero().squeeze(1), (right == label).nonzero().squeeze(1)


@final
class GroupPlan(Plan):
    """A plan made of blocks: each source and each target point belongs to one block at most.

    Parameters
    ----------
    blocks
        Source points, target points, share of the mass, and the plan between them, for each block.
    shape
        The number of source points and of target points.

    Examples
    --------
    >>> import torch
    >>> from cellflow.couplings import Independent
    >>> plan = Independent()(torch.zeros(1, 1), torch.zeros(1, 1))
    >>> zero, one = torch.tensor([0]), torch.tensor([1])
    >>> GroupPlan([(zero, one, 0.5, plan), (one, zero, 0.5, plan)], shape=(2, 2)).dense()
    tensor([[0.0000, 0.5000],
            [0.5000, 0.0000]], dtype=torch.float64)
    """

    def __init__(self, blocks: Sequence[Block], *, shape: tuple[int, int]) -> None:
        if not blocks:
            raise ValueError(
                "Expected at least one group with weight on both sides; found none in common. Match larger parts."
            )
        self._blocks, self._shape = list(blocks), shape
        costs = [plan.cost for *_, plan in blocks]
        known = [cost for cost in costs if cost is not None]
        shares = [share for _, _, share, _ in blocks]
        complete = len(known) == len(costs)
        self.cost = sum(s * c for s, c in zip(shares, known, strict=True)) if complete else None

    @property
    def shape(self) -> tuple[int, int]:
        """The number of source points and of target points."""
        return self._shape

    def marginals(self) -> tuple[Tensor, Tensor]:
        """Return the mass of every source point ``(n,)`` and of every target point ``(m,)``."""
        rows, columns = (self._weights.new_zeros(size) for size in self._shape)
        for i, j, share, plan in self._blocks:
            of_rows, of_columns = plan.marginals()
            rows[i] += share * of_rows
            columns[j] += share * of_columns
        return rows, columns

    def rescaled(self, source: Tensor, target: Tensor) -> Plan:
        """Return the plan with each mass multiplied by the sum of its source's rate and its target's rate."""
        n, m = self._shape
        if 8 * n * m <= MOST_BYTES:
            return DensePlan(self.dense() * (source[:, None] + target))
        blocks = [(i, j, share, plan.rescaled(source[i], target[j])) for i, j, share, plan in self._blocks]
        return GroupPlan(blocks, shape=self._shape)

    @property
    def permutation(self) -> Tensor | None:
        """The target of each source point ``(n,)`` if the plan is a permutation, else ``None``."""
        n, m = self._shape
        targets = torch.full((n,), -1, device=self._weights.device)
        for i, j, _, plan in self._blocks:
            inner = plan.permutation
            if inner is None:
                return None
            targets[i] = j[inner]
        masses = self.marginals()[0]
        equal = bool(masses.max() <= masses.min() * (1 + 1e-9))
        return targets if n == m and equal else None

    @property
    def _weights(self) -> Tensor:
        device = self._blocks[0][0].device
        masses = [share * plan.mass for _, _, share, plan in self._blocks]
        return torch.tensor(masses, dtype=torch.float64, device=device)

    def _details(self) -> list[str]:
        return [f"{len(self._blocks)} groups", *super()._details()]

    def _independent(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return self._drawn(AliasTable(self._weights).draw(n, generator=generator), generator, replace=True)

    def _even(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return self._drawn(systematic(self._weights.cumsum(0), n, generator=generator), generator, replace=False)

    def _drawn(self, blocks: Tensor, generator: torch.Generator, *, replace: bool) -> tuple[Tensor, Tensor]:
        """Draw as many pairs of each block as its number occurs."""
        counts = torch.bincount(blocks, minlength=len(self._blocks)).tolist()
        pairs = []
        for count, (i, j, _, plan) in zip(counts, self._blocks, strict=True):
            if count:
                rows, columns = plan.sample(count, generator=generator, replace=replace)
                pairs.append(torch.stack([i[rows], j[columns]], dim=1))
        rows, columns = shuffled(torch.cat(pairs), generator=generator).unbind(1)
        return rows, columns

    def _rows(self, rows: Tensor) -> Tensor:
        places = torch.full((self._shape[0],), -1, device=rows.device)
        places[rows] = torch.arange(len(rows), device=rows.device)
        matrix = self._weights.new_zeros(len(rows), self._shape[1])
        for i, j, share, plan in self._blocks:
            some = (places[i] >= 0).nonzero().squeeze(1)
            if len(some):
                matrix[places[i[some]][:, None], j] = share * plan._rows(some)
        return matrix

    def _forward(self, values: Tensor) -> Tensor:
        result = values.new_zeros(self._shape[1], values.shape[1])
        for i, j, share, plan in self._blocks:
            result[j] += share * plan._forward(values[i])
        return result

    def _backward(self, values: Tensor) -> Tensor:
        result = values.new_zeros(self._shape[0], values.shape[1])
        for i, j, share, plan in self._blocks:
            result[i] += share * plan._backward(values[j])
        return result
