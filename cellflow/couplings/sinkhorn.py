"""Balanced entropic optimal transport, and the loop on the dual potentials that unbalanced transport shares.

`Sinkhorn` and `UnbalancedSinkhorn` return ``P = a b^T exp((f + g - C) / epsilon)``, the plan that minimises

    sum(P C) + epsilon KL(P | a b^T) + relaxation_0 KL(P 1 | a) + relaxation_1 KL(P^T 1 | b)

where ``KL(p | q) = sum(p log(p / q) - p + q)``; balanced means an infinite relaxation, which makes the marginal
exact. The entropy is relative to the product of the weights. POT's ``sinkhorn(a, b, C, reg)`` takes it relative to
the counting measure, which changes the potentials but not the plan, since the marginals are fixed. Unbalanced, it
does change the plan: compare with ``sinkhorn_unbalanced(a, b, C, reg, reg_m, reg_type="kl")``.

Brownian motion of scale sigma over a model time d has the density exp(-|x1 - x0|^2 / (2 sigma^2 d)): with the squared
distance as the cost, the Schrödinger bridge between two snapshots has epsilon = 2 sigma^2 d.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from cellflow.couplings.cost import Cost, SquaredEuclidean
from cellflow.couplings.dense import DensePlan
from cellflow.couplings.plan import Plan
from cellflow.couplings.potentials import Potentials, Updated, advance
from cellflow.couplings.potentials_plan import PotentialsPlan
from cellflow.couplings.problem import MOST_BYTES, check_clouds, cost_matrix, dense_memory, weights_of
from cellflow.couplings.relative import Relative, median_cost
from cellflow.couplings.streamed import KERNEL_BYTES, StreamedPotentials, streamed_memory
from cellflow.errors import ConvergenceError
from cellflow.signature import checked
from cellflow.time_laws import LARGEST

PATH = "path"
"""The ``epsilon`` that stands for 2 sigma^2 d in every interval."""

ROUNDED = 1e-3
"""Share of the mass by which rounding may change masses that are kept: what sampling a plan adds is more."""


@checked
@dataclass(frozen=True)
class Sinkhorn:
    """Entropic optimal transport: the static Schrödinger bridge.

    Parameters
    ----------
    epsilon
        Strength of the entropic regularisation, in units of the cost: towards 0 the plan becomes exact, towards
        infinity independent. A number holds for every interval, however long; `Relative` is in units of each interval's
        median cost. ``"path"`` is ``2 sigma^2 d`` over an interval of model time ``d``, with the ``sigma`` of the
        `BrownianBridge` between the pairs, as SB-CFM and [SF]2M require; it needs the squared distance.
    cost
        Cost of matching two points.
    tolerance
        Converged when at most this share of the mass is on the wrong target point; the masses of source points are
        exact. One part in 10,000 is less than the error of sampling the plan; below it, if epsilon is a thousandth of
        the mean cost, the error falls only like one over the iterations.
    max_iterations
        Maximum number of updates of both potentials.
    kernel_bytes
        For clouds whose ``n x m`` numbers take more than 256 MiB: how many bytes of the kernel are stored, which saves
        recomputing them in each iteration. Nothing else of that size is stored.

    Source
    ------
    Cuturi 2013, "Sinkhorn distances"; Schmitzer 2019, "Stabilized sparse scaling algorithms", algorithm 2; Tong et al.
    2024 (AISTATS), proposition 3.1, for the bridge.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[0.0], [1.0]])
    >>> Sinkhorn(epsilon=1.0)(x, x).dense()
    tensor([[0.3655, 0.1345],
            [0.1345, 0.3655]], dtype=torch.float64)
    >>> Sinkhorn("path").over(duration=0.25, sigma=2.0).epsilon
    2.0
    """

    keeps_mass: ClassVar[bool] = True
    uses_states: ClassVar[bool] = True
    divisible: ClassVar[bool] = True

    epsilon: float | Relative | str
    cost: Cost = SquaredEuclidean()
    tolerance: float = 1e-4
    max_iterations: int = 10_000
    kernel_bytes: int = KERNEL_BYTES

    def __post_init__(self) -> None:
        check_settings(self.epsilon, self.cost, self.tolerance, self.max_iterations, self.kernel_bytes)

    @checked
    def over(self, duration: float, sigma: float) -> "Sinkhorn":
        """Return the coupling for one interval, with ``epsilon`` as a number; a number stays as it is.

        Parameters
        ----------
        duration
            Model time of the interval.
        sigma
            Scale of the Brownian motion of which the path is a bridge; 0 for none.

        Raises
        ------
        ValueError
            When ``epsilon`` is ``"path"`` and the path has no such noise.
        """
        return replace(self, epsilon=of_path(duration, sigma)) if self.epsilon == PATH else self

    def memory(self, n: int, m: int) -> int:
        """Return the bytes needed to match ``n`` with ``m`` points at once: for large clouds, linear in the points."""
        return entropic_memory(n, m, self.kernel_bytes)

    def __call__(
        self, x0: Tensor, x1: Tensor, a: Tensor | None = None, b: Tensor | None = None
    ) -> DensePlan | PotentialsPlan:
        """Couple ``x0`` of shape ``(n, ...)`` with ``x1`` ``(m, ...)``; weights ``a``, ``b`` are scaled to sum to 1.

        Raises
        ------
        ConvergenceError
            When ``tolerance`` is not reached within ``max_iterations``.
        """
        check_clouds(x0, x1)
        a, b = weights_of(a, x0, name="a"), weights_of(b, x1, name="b")
        epsilon = number(self.epsilon, self.cost, x0, x1, a, b)
        return solve(
            x0,
            x1,
            a / a.sum(),
            b / b.sum(),
            cost=self.cost,
            epsilon=epsilon,
            relaxations=(math.inf, math.inf),
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
            kernel_bytes=self.kernel_bytes,
        )


def entropic_memory(n: int, m: int, kernel_bytes: int) -> int:
    """Return the bytes that an entropic solver needs for ``n`` and ``m`` points.

    Examples
    --------
    >>> entropic_memory(1000, 1000, 2**31), entropic_memory(10**6, 10**6, 0) < 2**33
    (48000000, True)
    """
    return dense_memory(n, m) if fits(n, m) else streamed_memory(n, m, kernel_bytes)


def fits(n: int, m: int) -> bool:
    """Whether a number for each pair may be stored."""
    return 8 * n * m <= MOST_BYTES


def check_settings(
    epsilon: float | Relative | str, cost: Cost, tolerance: float, max_iterations: int, kernel_bytes: int = 0
) -> None:
    """Raise for settings that an entropic solver cannot use.

    Raises
    ------
    ValueError
        When a number is not above 0 and finite, a name is unknown, or the epsilon of a path is not in units of the
        cost.
    """
    if isinstance(epsilon, str):
        if epsilon != PATH:
            raise ValueError(f"Expected epsilon as a number above 0, Relative(factor) or {PATH!r}; found {epsilon!r}.")
        if not isinstance(cost, SquaredEuclidean):
            raise ValueError(f"The epsilon of a path is in units of the squared distance; found {cost}.")
    strength = epsilon if isinstance(epsilon, int | float) else 1.0
    for name, value in (("epsilon", strength), ("tolerance", tolerance), ("max_iterations", max_iterations)):
        if not 0 < value < math.inf:
            raise ValueError(f"Expected {name} above 0 and finite; found {value}.")
    if kernel_bytes < 0:
        raise ValueError(f"Expected kernel_bytes of 0 or more; found {kernel_bytes}.")


def of_path(duration: float, sigma: float) -> float:
    """Return the epsilon of a Schrödinger bridge over an interval.

    Raises
    ------
    ValueError
        When the path has no noise.

    Examples
    --------
    >>> of_path(0.5, 2.0)
    4.0
    """
    if not 0 < duration < math.inf or not sigma <= LARGEST:
        raise ValueError(f"Expected a finite duration above 0, and a finite sigma; found {duration} and {sigma}.")
    if not sigma > 0:
        raise ValueError(
            f"epsilon={PATH!r} takes its size from Brownian motion, and this path is not a Brownian bridge. Set "
            "`path=cf.paths.BrownianBridge(sigma)`, or give epsilon as a number."
        )
    return 2 * sigma**2 * duration


def number(epsilon: float | Relative | str, cost: Cost, x0: Tensor, x1: Tensor, a: Tensor, b: Tensor) -> float:
    """Return an epsilon in units of the cost between two weighted clouds.

    Raises
    ------
    ValueError
        For ``"path"``, which is a number only for a given interval.

    Examples
    --------
    >>> import torch
    >>> x, weight = torch.zeros(1, 1), torch.ones(1, dtype=torch.float64)
    >>> number(Relative(0.5), SquaredEuclidean(), x, x + 2, weight, weight)
    2.0
    """
    if isinstance(epsilon, str):
        raise ValueError(
            f"epsilon={epsilon!r} is a number only for a given interval, and no interval is known here. Give the "
            "coupling to "
            "an estimator or to `snapshot_batches(..., path=path)`, or call `coupling.over(duration, sigma)` first."
        )
    return epsilon.of(median_cost(cost, x0, x1, a, b)) if isinstance(epsilon, Relative) else epsilon


def solve(
    x0: Tensor,
    x1: Tensor,
    a: Tensor,
    b: Tensor,
    *,
    cost: Cost,
    epsilon: float,
    relaxations: tuple[float, float],
    tolerance: float,
    max_iterations: int,
    kernel_bytes: int,
    least: float = 0.0,
) -> DensePlan | PotentialsPlan:
    """Solve for the potentials between two weighted clouds, and return their plan.

    Parameters
    ----------
    x0, x1
        The clouds ``(n, ...)`` and ``(m, ...)``.
    a, b
        Their masses ``(n,)`` and ``(m,)``.
    cost
        Cost of matching two points.
    epsilon
        Strength of the entropic regularisation, in units of the cost.
    relaxations
        Cost of a change of mass at the source and at the target; infinity forbids it.
    tolerance, max_iterations, kernel_bytes
        As for `Sinkhorn`.
    least
        Share of its mass that every source point keeps.

    Raises
    ------
    ConvergenceError
        When it needs more iterations, or numbers exceed double precision.
    """
    potentials: Potentials | StreamedPotentials
    if fits(len(x0), len(x1)):
        potentials = Potentials(cost_matrix(cost, x0, x1), a, b, epsilon, relaxations)
    else:
        potentials = StreamedPotentials(
            x0, x1, cost, a, b, epsilon, relaxations, tolerance=tolerance, kept=kernel_bytes
        )
    iterations, error = advance(potentials, tolerance, max_iterations)
    if not error <= tolerance:
        raise ConvergenceError(
            f"Sinkhorn did not converge in {max_iterations} iterations: {error:.2g} of the mass is misplaced; the "
            f"tolerance is {tolerance:.2g}. Choose a larger epsilon (now {epsilon:.3g}; the mean cost is "
            f"{potentials.mean_cost():.3g}; that of a path grows with its sigma), or raise max_iterations."
        )
    plan = potentials.plan(least, iterations=iterations, error=error)
    _check_masses(plan, potentials, max(10 * tolerance, ROUNDED) + least)
    return plan


def _check_masses(plan: Plan, potentials: Updated, most: float) -> None:
    """Raise unless the plan has the masses that may not change, but for rounding."""
    for found, wanted, relaxation in zip(
        plan.marginals(), potentials.weights, potentials.relaxed.relaxations, strict=True
    ):
        misplaced = float((found - wanted).abs().sum() / wanted.sum())
        if not math.isfinite(misplaced) or (math.isinf(relaxation) and misplaced > most):
            raise ConvergenceError(
                f"Potentials converged to a plan of mass {float(found.sum()):.3g} instead of "
                f"{float(wanted.sum()):.3g}: double precision is too coarse for such costs "
                f"(mean {potentials.mean_cost():.3g}) with epsilon {potentials.epsilon:.3g}. Choose a larger epsilon, "
                "or leave out points that are far from all others."
            )
