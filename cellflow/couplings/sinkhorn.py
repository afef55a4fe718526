"""Entropic optimal transport, balanced and unbalanced: one loop on the dual potentials.

Both couplings return ``P = a b^T exp((f + g - C) / epsilon)``, the plan that minimises

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
from cellflow.couplings.potentials import Potentials
from cellflow.couplings.problem import check_clouds, cost_matrix, dense_memory, weights_of
from cellflow.errors import ConvergenceError

PATH = "path"
"""The ``epsilon`` that stands for 2 sigma^2 d in every interval."""


@dataclass(frozen=True)
class Sinkhorn:
    """Entropic optimal transport: the static Schrödinger bridge.

    Parameters
    ----------
    epsilon
        Strength of the entropic regularisation, in units of the cost: towards 0 the plan becomes exact, towards
        infinity independent. A number is that of every interval, however long it is. ``"path"`` is
        ``2 sigma^2 d`` over an interval of model time ``d``, with the ``sigma`` of the `BrownianBridge` between the
        pairs, as SB-CFM and [SF]2M require; it is for the squared distance.
    cost
        Cost of matching two points.
    tolerance
        Converged when at most this share of the mass sits on the wrong target point; the source points'
        masses are exact. One part in 10,000 is less than sampling the plan adds, and below it, where epsilon
        is a thousandth of the mean cost, the error falls only like one over the iterations.
    max_iterations
        Most updates of both potentials.

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

    epsilon: float | str
    cost: Cost = SquaredEuclidean()
    tolerance: float = 1e-4
    max_iterations: int = 10_000

    def __post_init__(self) -> None:
        _check_settings(self.epsilon, self.cost, self.tolerance, self.max_iterations)

    def over(self, duration: float, sigma: float) -> "Sinkhorn":
        """Return the coupling over one interval, with a number for ``epsilon``; one that is a number stays.

        Parameters
        ----------
        duration
            Model time of the interval.
        sigma
            Scale of the Brownian motion that the path is a bridge of; 0 for none.

        Raises
        ------
        ValueError
            When ``epsilon`` is that of the path, and the path has no such noise.
        """
        return replace(self, epsilon=_of_path(duration, sigma)) if self.epsilon == PATH else self

    def memory(self, n: int, m: int) -> int:
        """Return the bytes that matching ``n`` with ``m`` points at once takes."""
        return dense_memory(n, m)

    def __call__(self, x0: Tensor, x1: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> DensePlan:
        """Couple ``x0`` of shape ``(n, ...)`` with ``x1`` ``(m, ...)``; weights ``a``, ``b`` are scaled to sum to 1.

        Raises
        ------
        ConvergenceError
            When ``max_iterations`` do not reach ``tolerance``.
        """
        check_clouds(x0, x1)
        a, b = weights_of(a, x0, name="a"), weights_of(b, x1, name="b")
        costs = cost_matrix(self.cost, x0, x1)
        potentials = Potentials(costs, a / a.sum(), b / b.sum(), _number(self.epsilon), (math.inf, math.inf))
        return _solve(potentials, self.tolerance, self.max_iterations)


@dataclass(frozen=True)
class UnbalancedSinkhorn:
    """Entropic transport that may create and destroy mass where moving it costs more.

    Weights are masses here and are used as given: let them sum to the size of each population. Left out, each
    side has mass 1.

    Parameters
    ----------
    epsilon
        Strength of the entropic regularisation, in units of the cost: a number for every interval, or ``"path"`` as
        for `Sinkhorn`.
    relaxation
        What a change of mass costs, in units of the cost: one number, or one for the source and one for the
        target, the same in every interval, however far cells travel in it. Infinity on a side keeps its masses;
        towards infinity the plan becomes that of `Sinkhorn`.
    cost
        Cost of matching two points.
    tolerance
        Converged when another update would move at most this share of the mass.
    max_iterations
        Most updates of both potentials.

    Source
    ------
    Chizat et al. 2018, "Scaling algorithms for unbalanced optimal transport problems"; Séjourné, Vialard and
    Peyré 2022, "Faster unbalanced optimal transport", proposition 2 (the shift between both potentials).

    Examples
    --------
    >>> import torch
    >>> x0, x1 = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [9.0]])
    >>> plan = UnbalancedSinkhorn(epsilon=0.1, relaxation=1.0)(x0, x1)
    >>> plan.marginals()[1] > 0.01  # no mass moves to the far point
    tensor([ True, False])
    """

    uses_states: ClassVar[bool] = True
    divisible: ClassVar[bool] = True

    epsilon: float | str
    relaxation: float | tuple[float, float]
    cost: Cost = SquaredEuclidean()
    tolerance: float = 1e-4
    max_iterations: int = 10_000

    def __post_init__(self) -> None:
        _check_settings(self.epsilon, self.cost, self.tolerance, self.max_iterations)
        pair = isinstance(self.relaxation, int | float) or len(self.relaxation) == 2
        if not pair or not all(side > 0 for side in self._relaxations()):
            message = f"Expected one relaxation above 0, or a pair (source, target); found {self.relaxation!r}."
            raise ValueError(message)

    @property
    def keeps_mass(self) -> bool:
        """Whether neither side may change its masses."""
        return all(map(math.isinf, self._relaxations()))

    def over(self, duration: float, sigma: float) -> "UnbalancedSinkhorn":
        """Return the coupling over one interval, as `Sinkhorn.over`; its relaxation stays as it is."""
        return replace(self, epsilon=_of_path(duration, sigma)) if self.epsilon == PATH else self

    def memory(self, n: int, m: int) -> int:
        """Return the bytes that matching ``n`` with ``m`` points at once takes."""
        return dense_memory(n, m)

    def __call__(self, x0: Tensor, x1: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> DensePlan:
        """Couple ``x0`` of shape ``(n, ...)`` with ``x1`` ``(m, ...)``, whose points have masses ``a`` and ``b``.

        Raises
        ------
        ConvergenceError
            When ``max_iterations`` do not reach ``tolerance``.
        """
        check_clouds(x0, x1)
        a, b = weights_of(a, x0, name="a"), weights_of(b, x1, name="b")
        if self.keeps_mass and not math.isclose(float(a.sum()), float(b.sum()), rel_tol=1e-9):
            message = (
                f"Expected equal total masses where no side may change; found {float(a.sum()):.6g} in `a` and "
                f"{float(b.sum()):.6g} in `b`. Make one relaxation finite, or use Sinkhorn."
            )
            raise ValueError(message)
        potentials = Potentials(cost_matrix(self.cost, x0, x1), a, b, _number(self.epsilon), self._relaxations())
        return _solve(potentials, self.tolerance, self.max_iterations)

    def _relaxations(self) -> tuple[float, float]:
        # A YAML file brings the pair as a list.
        if isinstance(self.relaxation, int | float):
            return self.relaxation, self.relaxation
        source, target = self.relaxation
        return source, target


def _check_settings(epsilon: float | str, cost: Cost, tolerance: float, max_iterations: int) -> None:
    if isinstance(epsilon, str):
        if epsilon != PATH:
            raise ValueError(f"Expected epsilon as a number above 0, or {PATH!r}; found {epsilon!r}.")
        if not isinstance(cost, SquaredEuclidean):
            raise ValueError(f"The epsilon of a path is in units of the squared distance; found {cost}.")
        epsilon = 1.0
    for name, value in (("epsilon", epsilon), ("tolerance", tolerance), ("max_iterations", max_iterations)):
        if not 0 < value < math.inf:
            raise ValueError(f"Expected {name} above 0 and finite; found {value}.")


def _of_path(duration: float, sigma: float) -> float:
    """Return the epsilon of a Schrödinger bridge over an interval."""
    if not sigma > 0:
        raise ValueError(
            f"epsilon={PATH!r} takes its size from Brownian motion, and this path is not a bridge of one. Set "
            "`path=cf.paths.BrownianBridge(sigma)`, or give epsilon as a number."
        )
    return 2 * sigma**2 * duration


def _number(epsilon: float | str) -> float:
    if isinstance(epsilon, str):
        raise ValueError(
            f"epsilon={epsilon!r} is a number in an interval only, and no interval is known here. Give the coupling to "
            "an estimator or to `snapshot_batches(..., path=path)`, or call `coupling.over(duration, sigma)` first."
        )
    return epsilon


def _solve(potentials: Potentials, tolerance: float, max_iterations: int) -> DensePlan:
    error = math.nan
    for iteration in range(1, max_iterations + 1):
        error = potentials.update_source()
        if error <= tolerance:
            f, g = potentials.values()
            matrix, cost = potentials.plan()
            return DensePlan(matrix, cost=cost, potentials=(f, g), iterations=iteration, error=error)
        potentials.update_target()
    message = (
        f"Sinkhorn did not converge in {max_iterations} iterations: {error:.2g} of the mass is misplaced, asked for "
        f"at most {tolerance:.2g}. Choose a larger epsilon (now {potentials.epsilon:.3g}; the mean cost is "
        f"{potentials.mean_cost():.3g}), or raise max_iterations."
    )
    raise ConvergenceError(message)
