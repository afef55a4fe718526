"""Transport plans: which points of two clouds are matched, and with how much mass."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

import torch
from torch import Tensor

from cellflow.couplings.cost import Cost
from cellflow.couplings.problem import MOST_BYTES, cost_matrix
from cellflow.shapes import as_states, check_dense, extremes, finite
from cellflow.signature import checked

AT_ONCE = 2**25
"""Bytes of the masses that are looked at at once: small enough for what is done to them to stay in a cache."""


class Plan(ABC):
    """A matching of ``n`` source points with ``m`` target points: ``(n, m)`` nonnegative masses ``P``.

    Masses are float64, on the device of the data. `SparsePlan`, `DensePlan`, `ProductPlan` and `PotentialsPlan` differ
    only in what they store. No plan makes an array of all pairs above 256 MiB: `blocks` iterates over those of large
    ones.

    Attributes
    ----------
    cost
        The transport cost, ``sum(P * C)``, if the solver knows it.
    """

    cost: float | None

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """The number of source points and of target points."""

    @abstractmethod
    def marginals(self) -> tuple[Tensor, Tensor]:
        """Return the mass of every source point ``(n,)`` and of every target point ``(m,)``."""

    def dense(self) -> Tensor:
        """Return all ``(n, m)`` masses.

        Raises
        ------
        ValueError
            When they take more than 256 MiB.
        """
        return self._rows(torch.arange(self._small()[0], device=self._device))

    def blocks(self, most: int = AT_ONCE) -> Iterator[tuple[slice, Tensor]]:
        """Yield the masses a few rows at a time: a slice of ``k`` rows, and their ``(k, m)`` masses.

        Parameters
        ----------
        most
            Maximum size of a block in bytes; a block has at least one row.

        Examples
        --------
        >>> import torch
        >>> from cellflow.couplings import ProductPlan
        >>> for rows, masses in ProductPlan(torch.ones(3), torch.ones(2)).blocks(most=32):
        ...     print(rows, tuple(masses.shape))
        slice(0, 2, None) (2, 2)
        slice(2, 3, None) (1, 2)
        """
        n, m = self.shape
        for rows in row_slices(n, m, most):
            yield rows, self._rows(torch.arange(rows.start, rows.stop, device=self._device))

    def cost_by(self, cost: Cost, x0: Tensor, x1: Tensor) -> float:
        """Return the transport cost under any cost, between any points, in the order of this plan.

        Parameters
        ----------
        cost
            Cost of matching two points.
        x0, x1
            The points ``(n, ...)`` and ``(m, ...)``.

        Examples
        --------
        >>> import torch, cellflow as cf
        >>> plan = cf.couplings.DensePlan(torch.eye(2))
        >>> plan.cost_by(cf.couplings.SquaredEuclidean(), torch.zeros(2, 1), torch.ones(2, 1))
        2.0
        """
        costs = ((masses, cost_matrix(cost, x0[rows], x1)) for rows, masses in self.blocks())
        return sum(float(torch.vdot(masses.flatten(), matrix.flatten())) for masses, matrix in costs)

    @abstractmethod
    def rescaled(self, source: Tensor, target: Tensor) -> "Plan":
        """Return the plan with each mass multiplied by the sum of its source's rate and its target's rate.

        Parameters
        ----------
        source, target
            The rates ``(n,)`` and ``(m,)``, 0 or more.

        Examples
        --------
        >>> import torch
        >>> from cellflow.couplings import DensePlan
        >>> DensePlan(torch.eye(2)).rescaled(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.5])).dense()
        tensor([[1.5000, 0.0000],
                [0.0000, 2.5000]], dtype=torch.float64)
        """

    @property
    @abstractmethod
    def permutation(self) -> Tensor | None:
        """The target of each source point ``(n,)`` if the plan is a permutation, else ``None``."""

    @property
    def mass(self) -> float:
        """The mass of the whole plan: 1 unless the coupling is unbalanced."""
        return float(self._row_mass.sum())

    @checked
    def sample(self, n: int, *, generator: torch.Generator, replace: bool = True) -> tuple[Tensor, Tensor]:
        """Draw ``n`` pairs in proportion to their mass.

        Parameters
        ----------
        n
            The number of pairs.
        generator
            The source of randomness, on any device.
        replace
            Draw each pair independently. Otherwise draw evenly: every source point appears ``n`` times its share of the
            mass, rounded up or down; if the plan is one-to-one and ``n`` is its size, every pair appears once. The
            pairs come in random order, and their expected counts are the same either way.

        Returns
        -------
        The source indices ``(n,)`` and the target indices ``(n,)``.

        Examples
        --------
        >>> import torch
        >>> from cellflow.couplings import DensePlan
        >>> from cellflow.seeds import generator
        >>> plan = DensePlan(torch.tensor([[0.0, 0.5], [0.5, 0.0]]))
        >>> i, j = plan.sample(2, generator=generator(seed=0), replace=False)
        >>> sorted(zip(i.tolist(), j.tolist()))
        [(0, 1), (1, 0)]
        """
        if n < 1:
            raise ValueError(f"Expected at least one pair to draw; found n={n}.")
        return self._independent(n, generator) if replace else self._even(n, generator)

    @checked
    def push(self, values: Tensor) -> Tensor:
        """Send mass on the source points, ``(n,)`` or ``(n, k)``, to the target points, ``(m,)`` or ``(m, k)``.

        Each source point divides its mass in proportion to its row of the plan, so the total is kept. Mass on a source
        point without mass in the plan has nowhere to go and is left out.

        Examples
        --------
        >>> import torch
        >>> from cellflow.couplings import DensePlan
        >>> DensePlan(torch.tensor([[0.2, 0.2], [0.0, 0.6]])).push(torch.tensor([1.0, 0.0]))
        tensor([0.5000, 0.5000])
        """
        values = finite(as_states(values, what="`values`"), what="`values`")
        return _as(values, self._forward(_shares(values, self._row_mass, side="source")))

    @checked
    def pull(self, values: Tensor) -> Tensor:
        """Send mass on the target points, ``(m,)`` or ``(m, k)``, back to the source points: `push` reversed.

        Examples
        --------
        >>> import torch
        >>> from cellflow.couplings import DensePlan
        >>> DensePlan(torch.tensor([[0.2, 0.2], [0.0, 0.6]])).pull(torch.tensor([0.0, 1.0]))
        tensor([0.2500, 0.7500])
        """
        values = finite(as_states(values, what="`values`"), what="`values`")
        return _as(values, self._backward(_shares(values, self._column_mass, side="target")))

    @checked
    def barycentric(self, x1: Tensor, *, alone: float | None = None) -> Tensor:
        """Return the mean target of each source point, ``(n, ...)``, where ``x1`` is ``(m, ...)``.

        Parameters
        ----------
        x1
            The target points.
        alone
            The value for a point without mass in the plan; ``None`` to raise.

        Examples
        --------
        >>> import torch
        >>> from cellflow.couplings import DensePlan
        >>> DensePlan(torch.tensor([[0.2, 0.2], [0.0, 0.6]])).barycentric(torch.tensor([[0.0], [4.0]]))
        tensor([[2.],
                [4.]])
        """
        return self._means(x1, self._backward, self._row_mass, sides=("source", "target"), alone=alone)

    @checked
    def origins(self, x0: Tensor, *, alone: float | None = None) -> Tensor:
        """Return the mean source of each target point, ``(m, ...)``, where ``x0`` is ``(n, ...)``.

        Parameters
        ----------
        x0
            The source points.
        alone
            As for `barycentric`.

        Examples
        --------
        >>> import torch
        >>> from cellflow.couplings import DensePlan
        >>> DensePlan(torch.tensor([[0.2, 0.2], [0.0, 0.6]])).origins(torch.tensor([[0.0], [4.0]]))
        tensor([[0.],
                [3.]])
        """
        return self._means(x0, self._forward, self._column_mass, sides=("target", "source"), alone=alone)

    def __repr__(self) -> str:
        n, m = self.shape
        return f"{type(self).__name__}({', '.join([f'{n} x {m}', f'mass {self.mass:.4g}', *self._details()])})"

    def _means(
        self,
        x: Tensor,
        carry: Callable[[Tensor], Tensor],
        masses: Tensor,
        *,
        sides: tuple[str, str],
        alone: float | None,
    ) -> Tensor:
        """Return the mean of ``x``, points of the second side, for each point of the first, whose masses are given."""
        empty, expected = int((masses == 0).sum()), sum(self.shape) - len(masses)
        if empty and alone is None:
            message = (
                f"Expected every {sides[0]} point to have a {sides[1]}; {empty} of {len(masses)} have no mass in this "
                "plan. Leave them out, or give them weight."
            )
            raise ValueError(message)
        x = finite(as_states(x, what="the points"), what="the points")
        if x.shape[0] != expected or not x.numel():
            raise ValueError(f"Expected {expected} {sides[1]} points (n, ...); found shape {tuple(x.shape)}.")
        means = carry(x.reshape(x.shape[0], -1).double()) / masses[:, None]
        if empty:
            means[masses == 0] = alone  # type: ignore[assignment]
        return _as(x, means if x.ndim == 1 else means.reshape(-1, *x.shape[1:]))

    @cached_property
    def _row_mass(self) -> Tensor:
        return self.marginals()[0]

    @cached_property
    def _column_mass(self) -> Tensor:
        return self.marginals()[1]

    @property
    def _device(self) -> torch.device:
        return self._row_mass.device

    def _details(self) -> list[str]:
        return [] if self.cost is None else [f"cost {self.cost:.4g}"]

    @abstractmethod
    def _independent(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def _even(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def _rows(self, rows: Tensor) -> Tensor:
        """Return the masses ``(k, m)`` of some source points ``(k,)``."""

    def _small(self) -> tuple[int, int]:
        """Return the shape, provided that all masses fit into one array."""
        n, m = self.shape
        if 8 * n * m > MOST_BYTES:
            raise ValueError(
                f"All {n} x {m} masses take {8 * n * m / 2**30:.2g} GiB; at most {MOST_BYTES / 2**20:.4g} MiB are made "
                "at once. Use `push` and `pull` to carry values, `sample` to draw pairs, or walk rows with `blocks`."
            )
        return n, m

    @abstractmethod
    def _forward(self, values: Tensor) -> Tensor:
        """Return the transposed plan times ``values`` ``(n, k)``."""

    @abstractmethod
    def _backward(self, values: Tensor) -> Tensor:
        """Return the plan times ``values`` ``(m, k)``."""


def solved(iterations: int | None, settings: Mapping[str, float]) -> list[str]:
    """Describe in words how an iterative solver ended."""
    converged = [] if iterations is None else [f"converged in {iterations} iterations"]
    return [*converged, *(f"{name} {value:.3g}" for name, value in settings.items())]


def row_slices(n: int, m: int, most: int) -> Iterator[slice]:
    """Yield slices of ``n`` rows of ``m`` eight-byte numbers that take at most so many bytes, or one row.

    Examples
    --------
    >>> list(row_slices(3, 2, most=32))
    [slice(0, 2, None), slice(2, 3, None)]
    """
    step = max(1, most // (8 * m))
    return (slice(first, min(n, first + step)) for first in range(0, n, step))


def masses_of(masses: Tensor) -> Tensor:
    """Return ``masses`` as float64, refusing anything that is not a plan."""
    check_dense(masses, what="the masses")
    masses = masses.detach().double()
    lowest, highest = extremes(masses)
    if not 0 <= lowest <= highest < math.inf:
        bad = int((~torch.isfinite(masses) | (masses < 0)).sum())
        raise ValueError(f"Expected finite, nonnegative masses; {bad} of {masses.numel()} are not.")
    if highest == 0:
        raise ValueError("Expected a plan that carries mass; all masses are zero or there are none.")
    return masses


def one_to_one(shape: tuple[int, int], i: Tensor, j: Tensor, masses: Tensor) -> Tensor | None:
    """Return the target of each source point if the ordered pairs join all points one to one, in equal parts."""
    if shape[0] != shape[1] or i.numel() != shape[0] or masses.max() > masses.min() * (1 + 1e-9):
        return None
    rows = torch.arange(shape[0], device=i.device)
    return j if torch.equal(i, rows) and torch.equal(j.sort().values, rows) else None


def _shares(values: Tensor, masses: Tensor, *, side: str) -> Tensor:
    """Return float64 ``values`` ``(n, k)`` per unit of mass, zero where there is no mass."""
    if values.ndim not in (1, 2) or values.shape[0] != masses.numel():
        message = f"Expected mass on {masses.numel()} {side} points, (n,) or (n, k); found shape {tuple(values.shape)}."
        raise ValueError(message)
    columns = values.double().reshape(values.shape[0], -1)
    return torch.where(masses[:, None] > 0, columns / masses[:, None], 0)


def _as(given: Tensor, result: Tensor) -> Tensor:
    """Shape and type ``result`` as ``given``: a vector stays a vector, whole numbers become float64."""
    result = result.squeeze(1) if given.ndim == 1 else result
    return result.to(given.dtype) if given.is_floating_point() else result
