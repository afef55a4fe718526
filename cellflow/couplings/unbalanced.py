"""Entropic optimal transport that may create and destroy mass; `cellflow.couplings.sinkhorn` says what it minimises.

Its relaxations can be found from the data: ``"auto"`` stands for a rule that needs no number.

* Target points keep their mass: a cell that was measured has an ancestor. Source points need not: what a source
  point loses or gains is the growth of its descendants.
* A change of mass costs a quarter of the mean squared travel, see `Relative`, and the motion that neighbouring points
  share is free, see `cellflow.couplings.motion`. Without, travel would be read as death.
* A source point keeps at least 1 % of its mass: a few hundred cells cannot tell more.

If composition does not change, the plan has about the masses of both snapshots: nothing has to be decided first.
"""

import logging
import math
from dataclasses import dataclass, replace
from functools import partial
from numbers import Real
from typing import ClassVar, cast

from torch import Tensor

from cellflow.couplings.cost import Cost, SquaredEuclidean
from cellflow.couplings.dense import DensePlan
from cellflow.couplings.motion import common_motion
from cellflow.couplings.potentials_plan import PotentialsPlan
from cellflow.couplings.problem import check_clouds, weights_of
from cellflow.couplings.relative import Relative, mean_travel
from cellflow.couplings.sinkhorn import PATH, check_settings, entropic_memory, number, of_path, solve
from cellflow.couplings.streamed import KERNEL_BYTES
from cellflow.signature import checked, checked_but

log = logging.getLogger(__name__)

AUTO = "auto"
"""The ``epsilon`` and the ``relaxation`` that are derived from the data."""
EPSILON = Relative(0.02)
"""What ``epsilon="auto"`` stands for: less blur than between cells of one type, and 50 iterations."""
RELAXATION = Relative(0.25)
"""What a change of mass at the source costs with ``relaxation="auto"``."""
WIDEST = 100
"""How many times epsilon a relaxation is at most where both are relative: between distant groups that change in size,
the number of iterations is in proportion to it."""
LEAST = 0.01
"""Share of its mass that a source point keeps where motion is free."""

Relaxation = float | Relative
"""What a change of mass costs on one side."""


@checked_but("relaxation")
@dataclass(frozen=True)
class UnbalancedSinkhorn:
    """Entropic transport that may create and destroy mass where moving it costs more.

    Weights are masses here and are used as given: let them sum to the size of each population. Without weights, each
    side has mass 1. With default settings it is the coupling called ``"auto"``, the default of `SnapshotFlow`: its
    plans follow from the data by the rule in `cellflow.couplings.unbalanced`.

    Parameters
    ----------
    epsilon
        Strength of the entropic regularisation, in units of the cost: a number for every interval, `Relative` to the
        median cost of each, or ``"path"`` as for `Sinkhorn`. ``"auto"`` is ``Relative(0.02)``, and at least that of the
        path if this is a bridge. A relative epsilon is at least 1 % of a relative relaxation.
    relaxation
        Cost of a change of mass, in units of the cost: one number, or one for the source and one for the target, the
        same in every interval, however far cells travel; or `Relative` to the mean cost of the exact plan of each
        interval. Infinity on a side keeps its masses; towards infinity the plan becomes that of `Sinkhorn`. ``"auto"``
        keeps the masses of the target, and makes the shared motion of neighbours free.
    cost
        Cost of matching two points.
    tolerance
        Converged when another update would move at most this share of the mass.
    max_iterations
        Maximum number of updates of both potentials.
    kernel_bytes
        As for `Sinkhorn`.
    free_motion
        Whether the motion that neighbouring points share costs nothing; ``None`` for only with ``relaxation="auto"``.
        Costs are then squared distances, and a source point keeps at least 1 % of its mass.

    Source
    ------
    Chizat et al. 2018, "Scaling algorithms for unbalanced optimal transport problems"; Séjourné, Vialard and
    Peyré 2022, "Faster unbalanced optimal transport", proposition 2 (the shift between both potentials). Schiebinger
    et al. 2019 (Waddington-OT) for relaxing the source alone.

    Examples
    --------
    >>> import torch
    >>> x0, x1 = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [9.0]])
    >>> plan = UnbalancedSinkhorn(epsilon=0.1, relaxation=1.0)(x0, x1)
    >>> plan.marginals()[1] > 0.01  # no mass moves to the far point
    tensor([ True, False])

    By default, of two clusters that have both moved, the one that has tripled is recognised:

    >>> before = torch.tensor([[0.0], [0.1], [9.0], [9.1]])
    >>> after = torch.tensor([[1.0], [1.1], [10.0], [10.1]])[[0, 1, 2, 2, 2, 3, 3, 3]]
    >>> UnbalancedSinkhorn()(before, after).marginals()[0].round(decimals=2)
    tensor([0.1300, 0.1300, 0.3700, 0.3700], dtype=torch.float64)
    """

    uses_states: ClassVar[bool] = True
    divisible: ClassVar[bool] = True

    epsilon: float | Relative | str = AUTO
    relaxation: Relaxation | tuple[Relaxation, Relaxation] | str = AUTO
    cost: Cost = SquaredEuclidean()
    tolerance: float = 1e-4
    max_iterations: int = 10_000
    free_motion: bool | None = None
    kernel_bytes: int = KERNEL_BYTES

    def __post_init__(self) -> None:
        epsilon = EPSILON if self.epsilon == AUTO else self.epsilon
        check_settings(epsilon, self.cost, self.tolerance, self.max_iterations, self.kernel_bytes)
        if isinstance(self.relaxation, str) and self.relaxation != AUTO:
            message = f"Expected the relaxation as a number above 0, Relative(factor) or {AUTO!r}; found "
            raise ValueError(f"{message}{self.relaxation!r}.")
        if self._frees_motion and not isinstance(self.cost, SquaredEuclidean):
            raise ValueError(
                f"The motion of neighbours can be free with squared distances only; found {self.cost}. Give the "
                "relaxation as a number, or `Relative(factor)`, and leave `free_motion` out."
            )
        sides = list(self.relaxation) if isinstance(self.relaxation, tuple | list) else [self.relaxation] * 2
        named = isinstance(self.relaxation, str)
        if not named and (len(sides) != 2 or not all(map(_above_none, sides))):
            message = f"Expected one relaxation above 0, or a pair (source, target); found {self.relaxation!r}."
            raise ValueError(message)

    @property
    def keeps_mass(self) -> bool:
        """Whether both sides keep their masses."""
        return all(side == math.inf for side in self._relaxations())

    @checked
    def over(self, duration: float, sigma: float) -> "UnbalancedSinkhorn":
        """Return the coupling for one interval, as `Sinkhorn.over`; its relaxation stays as it is."""
        if self.epsilon == AUTO:
            return replace(self, epsilon=replace(EPSILON, least=2 * sigma**2 * duration))
        return replace(self, epsilon=of_path(duration, sigma)) if self.epsilon == PATH else self

    def scaled(self, factor: float) -> "UnbalancedSinkhorn":
        """Return the coupling with its relaxation multiplied by a factor, to see what depends on it.

        Examples
        --------
        >>> UnbalancedSinkhorn(1.0, (10.0, math.inf)).scaled(2).relaxation
        (20.0, inf)
        """
        source, target = (
            replace(side, factor=factor * side.factor) if isinstance(side, Relative) else factor * side
            for side in self._relaxations()
        )
        return replace(self, relaxation=(source, target), free_motion=self._frees_motion)

    def memory(self, n: int, m: int) -> int:
        """Return the bytes needed to match ``n`` with ``m`` points at once: for large clouds, linear in the points."""
        return entropic_memory(n, m, self.kernel_bytes)

    def __call__(
        self, x0: Tensor, x1: Tensor, a: Tensor | None = None, b: Tensor | None = None
    ) -> DensePlan | PotentialsPlan:
        """Couple ``x0`` of shape ``(n, ...)`` with ``x1`` ``(m, ...)``, whose points have masses ``a`` and ``b``.

        Raises
        ------
        ConvergenceError
            When ``tolerance`` is not reached within ``max_iterations``.
        """
        check_clouds(x0, x1)
        a, b = weights_of(a, x0, name="a"), weights_of(b, x1, name="b")
        if self.keeps_mass and not math.isclose(float(a.sum()), float(b.sum()), rel_tol=1e-9):
            message = (
                f"Expected equal total masses where no side may change; found {float(a.sum()):.6g} in `a` and "
                f"{float(b.sum()):.6g} in `b`. Make one relaxation finite, or use Sinkhorn."
            )
            raise ValueError(message)
        if any(isinstance(setting, Relative | str) for setting in (self.epsilon, *self._relaxations())):
            return self._settled(x0, x1, a, b)(x0, x1, a, b)
        least = LEAST if self._frees_motion else 0.0
        solved = partial(self._solve, least=least)
        if not self._frees_motion:
            return solved(x0, x1, a, b)
        x0, x1 = (x.detach().flatten(1).double() if x.ndim > 1 else x.detach().double()[:, None] for x in (x0, x1))
        plan = solved(x0 + common_motion(x0, x1, a, b, solve=solved), x1, a, b)
        source, target = self._numbers()
        relaxed = {"relaxation": source} | ({} if math.isinf(target) else {"relaxation of targets": target})
        judged = plan.cost_by(self.cost, x0, x1)
        return plan.joining(judged, epsilon=number(self.epsilon, self.cost, x0, x1, a, b), **relaxed)

    def _solve(self, x0: Tensor, x1: Tensor, a: Tensor, b: Tensor, *, least: float) -> DensePlan | PotentialsPlan:
        return solve(
            x0,
            x1,
            a,
            b,
            cost=self.cost,
            epsilon=number(self.epsilon, self.cost, x0, x1, a, b),
            relaxations=self._numbers(),
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
            kernel_bytes=self.kernel_bytes,
            least=least,
        )

    def _settled(self, x0: Tensor, x1: Tensor, a: Tensor, b: Tensor) -> "UnbalancedSinkhorn":
        """Return the coupling between two clouds, with numbers for what is relative to them."""
        epsilon = number(EPSILON if self.epsilon == AUTO else self.epsilon, self.cost, x0, x1, a, b)
        sides = self._relaxations()
        travel = mean_travel(self.cost, x0, x1, a, b) if any(isinstance(side, Relative) for side in sides) else math.nan
        # Where nothing has moved, any change of mass that costs more than the blur is the same.
        source, target = (max(side.of(travel), epsilon) if isinstance(side, Relative) else side for side in sides)
        if isinstance(self.epsilon, Relative | str):
            found = zip(sides, (source, target), strict=True)
            epsilon = max(epsilon, *(value / WIDEST for side, value in found if isinstance(side, Relative)), 0.0)
        log.debug("epsilon %.3g; a change of mass costs %.3g (source), %.3g (target)", epsilon, source, target)
        return replace(self, epsilon=epsilon, relaxation=(source, target), free_motion=self._frees_motion)

    def _numbers(self) -> tuple[float, float]:
        """Return the relaxations, once they are settled."""
        source, target = self._relaxations()
        return cast("float", source), cast("float", target)

    @property
    def _frees_motion(self) -> bool:
        return self.relaxation == AUTO if self.free_motion is None else self.free_motion

    def _relaxations(self) -> tuple[Relaxation, Relaxation]:
        if isinstance(self.relaxation, str):
            return RELAXATION, math.inf
        if isinstance(self.relaxation, int | float | Relative):
            return self.relaxation, self.relaxation
        source, target = self.relaxation  # a YAML file brings the pair as a list
        return source, target


def _above_none(side: object) -> bool:
    """Whether a relaxation of one side is one: a number above 0, or relative."""
    number = isinstance(side, Real) and not isinstance(side, bool)
    return isinstance(side, Relative) or (number and cast("float", side) > 0)
