"""The dual potentials of entropic optimal transport, and their updates."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cellflow.couplings.dense import DensePlan
from cellflow.couplings.exponents import check_costs
from cellflow.couplings.plan import Plan
from cellflow.errors import ConvergenceError

_DRIFT = 50.0  # potentials may move this far, in units of epsilon, before the kernel is computed again
_NEGLIGIBLE = 1e-280  # entries below this are taken as zero
_FLOOR = 1e-140  # below this, a sum over the kernel may have lost terms that were taken as zero


@dataclass(frozen=True)
class Relaxed:
    """How relaxed masses change an update of the potentials, which are in units of epsilon.

    Parameters
    ----------
    epsilon
        Strength of the entropic regularisation, in units of the cost.
    relaxations
        Cost of a change of mass at the source and at the target, in units of the cost; infinity forbids it.
    """

    epsilon: float
    relaxations: tuple[float, float]

    def damped(self, sums: Tensor, side: int) -> Tensor:
        """Return the potentials ``(k,)`` of one side, 0 or 1, from its log sums over the other."""
        return sums / -(1 + self.epsilon / self.relaxations[side])

    def shifted(self, f: Tensor, g: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Return both potentials with the best constant added to ``f`` and taken from ``g``.

        Plain updates approach it at a rate of (relaxation / (relaxation + epsilon))^2: hardly ever when almost
        balanced.
        """
        source, target = self.relaxations
        if math.isinf(source) and math.isinf(target):
            return f, g
        surplus = torch.logsumexp(a.log() - f * (self.epsilon / source), dim=0)
        deficit = torch.logsumexp(b.log() - g * (self.epsilon / target), dim=0)
        shift = (surplus - deficit) / (self.epsilon / source + self.epsilon / target)
        return f + shift, g - shift


class Updated(Protocol):
    """Potentials that are updated in turn, however much of the pairs they store."""

    epsilon: float
    weights: tuple[Tensor, Tensor]
    relaxed: Relaxed

    def update_source(self) -> float:
        """Update the source potential; return the share of mass that a target update would move."""

    def update_target(self) -> None:
        """Update the target potential."""

    def plan(self, least: float, *, iterations: int, error: float) -> Plan:
        """Return the plan; each source point keeps a least share of its mass."""

    def mean_cost(self) -> float:
        """Return the mean over all pairs, or many."""


def advance(potentials: Updated, tolerance: float, max_iterations: int) -> tuple[int, float]:
    """Update potentials until a target update would move at most ``tolerance``; return the iterations and the error.

    Raises
    ------
    ConvergenceError
        When potentials become NaN.
    """
    error = math.nan
    for iteration in range(1, max_iterations + 1):
        error = potentials.update_source()
        if error <= tolerance:
            return iteration, error
        if not math.isfinite(error):
            raise ConvergenceError(
                f"Sinkhorn exceeded double precision in iteration {iteration} (epsilon "
                f"{potentials.epsilon:.3g}; the mean cost is {potentials.mean_cost():.3g}). Rescale the states, or "
                "choose a larger epsilon or relaxation."
            )
        potentials.update_target()
    return max_iterations, error


class Potentials:
    """The two potentials while they are being solved for, always kept in the log domain.

    An update needs the log-sum-exp of ``(g - C) / epsilon`` over each row: 20 times the time of a matrix product. So
    the exponentials are kept as a kernel, taken at the potentials of an earlier iteration, and updates are products
    with it; once the potentials have drifted far from these, the kernel is recomputed. What the kernel leaves out is
    below 1e-80 of each sum; if that cannot be guaranteed, the update falls back to the log-sum-exp. All in float64:
    with costs of 1000 epsilon, float32 would round every mass by 1e-4.

    Parameters
    ----------
    costs
        The cost of each pair ``(n, m)``, float64.
    a
        The masses of the source points ``(n,)``.
    b
        The masses of the target points ``(m,)``.
    epsilon
        Strength of the entropic regularisation, in units of the cost.
    relaxations
        Cost of a change of mass at the source and at the target, in units of the cost; infinity forbids it.

    Raises
    ------
    ValueError
        When epsilon is too small for double precision.

    Source
    ------
    Schmitzer 2019, "Stabilized sparse scaling algorithms for entropy regularized transport problems".
    """

    def __init__(self, costs: Tensor, a: Tensor, b: Tensor, epsilon: float, relaxations: tuple[float, float]) -> None:
        check_costs(float(costs.max()), epsilon)
        self.epsilon, self.weights = epsilon, (a, b)
        self.relaxed = Relaxed(epsilon, relaxations)
        self._exponents = costs / -epsilon
        self._a, self._b = a, b
        # In units of epsilon, like everything below.
        self._f = self.relaxed.damped(torch.logsumexp(self._exponents + b.log(), dim=1), 0)
        self._g = self.relaxed.damped(torch.logsumexp(self._exponents + (self._f + a.log())[:, None], dim=0), 1)
        self._next_g = self._g
        self._take_kernel()

    def update_source(self) -> float:
        """Update the source potential; return the share of mass that a target update would move."""
        self._f = self.relaxed.damped(self._source_sums(), 0)
        if _apart(self._f, self._kernel_f) > _DRIFT:  # the other potential is as it was when it was looked at
            self._take_kernel()
        sums = self._target_sums()
        masses = self._b * (self._g + sums).exp()
        self._next_g = self.relaxed.damped(sums, 1)
        return float((masses * torch.expm1(self._next_g - self._g).abs()).sum() / masses.sum())

    def update_target(self) -> None:
        """Update the target potential, then set the constant between both."""
        self._f, self._g = self.relaxed.shifted(self._f, self._next_g, self._a, self._b)
        if max(_apart(self._f, self._kernel_f), _apart(self._g, self._kernel_g)) > _DRIFT:
            self._take_kernel()

    def values(self) -> tuple[Tensor, Tensor]:
        """Return the potentials ``(n,)`` and ``(m,)`` in units of the cost."""
        return self._f * self.epsilon, self._g * self.epsilon

    def plan(self, least: float, *, iterations: int, error: float) -> DensePlan:
        """Return the plan; each source point keeps a least share of its mass."""
        rows, columns = self._f + self._a.log(), self._g + self._b.log()
        if least:  # taken out of the logarithm: the mass of a distant point may be below all numbers
            mass = rows + self._source_sums()
            rows = rows + (self._a.log() + math.log(least) - mass).clamp_min(0).nan_to_num(0.0)
        matrix = (self._exponents + columns).add_(rows[:, None]).exp_()
        cost = -self.epsilon * float(torch.vdot(matrix.flatten(), self._exponents.flatten()))
        return DensePlan(matrix, cost=cost, potentials=self.values(), iterations=iterations, error=error)

    def mean_cost(self) -> float:
        """Return the mean over all pairs, to judge epsilon by."""
        return -self.epsilon * float(self._exponents.mean())

    def _source_sums(self) -> Tensor:
        """Return log(sum_j b_j exp(g_j - C_ij)), ``(n,)``."""
        sums = self._kernel @ (self._b * (self._g - self._kernel_g).exp())
        if _trustworthy(sums):
            return sums.log() - self._kernel_f
        return torch.logsumexp(self._exponents + (self._g + self._b.log()), dim=1)

    def _target_sums(self) -> Tensor:
        """Return log(sum_i a_i exp(f_i - C_ij)), ``(m,)``."""
        sums = self._kernel.T @ (self._a * (self._f - self._kernel_f).exp())
        if _trustworthy(sums):
            return sums.log() - self._kernel_g
        return torch.logsumexp(self._exponents + (self._f + self._a.log())[:, None], dim=0)

    def _take_kernel(self) -> None:
        self._kernel_f, self._kernel_g = self._f, self._g
        self._kernel = (self._exponents + self._g).add_(self._f[:, None]).exp_()
        # Processors multiply the smallest numbers 100 times slower: at small epsilon that is most of the time.
        self._kernel.masked_fill_(self._kernel < _NEGLIGIBLE, 0.0)


def _apart(one: Tensor, other: Tensor) -> float:
    """Return how far potentials have drifted; NaN where they are no numbers."""
    least, most = (one - other).aminmax()
    return max(-float(least), float(most))


def _trustworthy(sums: Tensor) -> bool:
    least, most = sums.aminmax()  # both NaN where one of them is
    return float(least) > _FLOOR and float(most) < math.inf
