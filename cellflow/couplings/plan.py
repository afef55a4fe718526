"""Transport plans: which points of two clouds are matched, and with how much mass."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from cellflow.shapes import as_states, check_dense, finite
from cellflow.signature import checked


class Plan(ABC):
    """A matching of ``n`` source points with ``m`` target points: ``(n, m)`` nonnegative masses ``P``.

    Masses are float64, on the device of the data. `SparsePlan`, `DensePlan` and `ProductPlan` differ in what they store
    only.

    Attributes
    ----------
    cost
        The transport cost, ``sum(P * C)``, where the solver knows it.
    """

    cost: float | None

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """The number of source points and of target points."""

    @abstractmethod
    def marginals(self) -> tuple[Tensor, Tensor]:
        """Return the mass of every source point ``(n,)`` and of every target point ``(m,)``."""

    @abstractmethod
    def dense(self) -> Tensor:
        """Return all ``(n, m)`` masses."""

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
            Draw each pair independently. Otherwise draw evenly: every source point appears ``n`` times its
            share of the mass, rounded up or down; of a one-to-one plan every pair appears once when ``n`` is
            its size. The pairs come in random order, and their expected counts are the same either way.

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

        Each source point divides what it holds in proportion to its row of the plan, so the total is kept.
        What lies on a source point without mass in the plan has nowhere to go and is left out.

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
            The number that stands for a point without mass in the plan; ``None`` to raise.

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
        if x.shape[0] != expected:
            raise ValueError(f"Expected {expected} {sides[1]} points; found {x.shape[0]}.")
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

    def _details(self) -> list[str]:
        return [] if self.cost is None else [f"cost {self.cost:.4g}"]

    @abstractmethod
    def _independent(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def _even(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def _forward(self, values: Tensor) -> Tensor:
        """Return the transposed plan times ``values`` ``(n, k)``."""

    @abstractmethod
    def _backward(self, values: Tensor) -> Tensor:
        """Return the plan times ``values`` ``(m, k)``."""


def masses_of(masses: Tensor) -> Tensor:
    """Return ``masses`` as float64, refusing what is no plan."""
    check_dense(masses, what="the masses")
    masses = masses.detach().double()
    bad = int((~torch.isfinite(masses) | (masses < 0)).sum())
    if bad:
        raise ValueError(f"Expected finite, nonnegative masses; {bad} of {masses.numel()} are not.")
    if masses.numel() == 0 or masses.max() == 0:
        raise ValueError("Expected a plan that carries mass; all masses are zero or there are none.")
    return masses


def one_to_one(shape: tuple[int, int], i: Tensor, j: Tensor, masses: Tensor) -> Tensor | None:
    """Return the target of each source point where the ordered pairs join all one to one, in equal parts."""
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
