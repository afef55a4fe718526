"""Solvers that other packages bring: torchdiffeq (adaptive methods) and torchdyn (an optional extra)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cellflow.errors import ConvergenceError, optional, unknown
from cellflow.integrate.trajectory import Velocity

ADAPTIVE = ("dopri5", "dopri8", "bosh3", "adaptive_heun", "fehlberg2")
"""The adaptive methods of torchdiffeq; orders 5, 8, 3, 2 and 2."""

MOST_EVALUATIONS = 100_000
"""Where an adaptive method gives up; a tolerance below the resolution of the dtype would never be met."""

Slope = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class AdaptiveTorchdiffeq:
    """A solver that adapts its steps to the tolerances, through torchdiffeq."""

    method: str
    rtol: float
    atol: float

    def __call__(self, velocity: Velocity, x: Tensor, u0: float, u1: float) -> Tensor:
        """Advance ``x`` from ``u0`` to ``u1``."""
        from torchdiffeq import odeint

        span = torch.tensor([u0, u1], dtype=x.dtype, device=x.device)
        slope = _bounded(velocity, velocity)
        # Without `step_t` the last step runs past the end, where no field was trained, and interpolates back.
        tolerances: dict[str, Any] = {"rtol": self.rtol, "atol": self.atol, "options": {"step_t": span[1:]}}
        try:
            return odeint(slope, x, span, method=self.method, **tolerances)[-1]
        except AssertionError as error:
            # torchdiffeq says with a bare assertion that its step has become too small to move the clock.
            if "underflow in dt" not in str(error):
                raise
            message = f"{self.method!r} cannot meet rtol={self.rtol}, atol={self.atol} in {x.dtype}; {_CURE}"
            raise ConvergenceError(message) from error


@dataclass(frozen=True)
class AdaptiveTorchdyn:
    """A solver that adapts its steps to the tolerances, through torchdyn."""

    method: str
    rtol: float
    atol: float

    def __call__(self, velocity: Velocity, x: Tensor, u0: float, u1: float) -> Tensor:
        """Advance ``x`` from ``u0`` to ``u1``."""
        slope = _bounded(velocity, _stretched(velocity, u0, u1))
        span = torch.tensor([0.0, 1.0], dtype=x.dtype, device=x.device)
        numerics = _torchdyn()
        _, states = numerics.odeint(slope, x, span, self.method, rtol=self.rtol, atol=self.atol, return_all_eval=True)
        return states[-1]


@dataclass(frozen=True)
class FixedTorchdyn:
    """A solver of ``steps`` equal steps, through torchdyn."""

    method: str
    steps: int

    def __call__(self, velocity: Velocity, x: Tensor, u0: float, u1: float) -> Tensor:
        """Advance ``x`` from ``u0`` to ``u1``."""
        if self.method in _IMPLICIT and torch.is_grad_enabled():
            message = f"Gradients do not pass through torchdyn's {self.method!r}. Take an explicit method instead."
            raise ValueError(message)
        span = torch.linspace(0.0, 1.0, self.steps + 1, dtype=x.dtype, device=x.device)
        slope = _stretched(velocity, u0, u1)
        solver = _torchdyn_solver(self.method, x.dtype)
        _, states = _torchdyn().odeint(slope, x, span, solver, save_at=span[-1:])
        return states[-1] if torch.is_grad_enabled() else states[-1].detach()


def is_adaptive_torchdyn(method: str) -> bool:
    """Say whether torchdyn's ``method`` chooses its own steps.

    Raises
    ------
    ValueError
        When torchdyn has no such method for one state.
    MissingDependencyError
        When torchdyn is not installed.
    """
    _torchdyn()
    from torchdyn.numerics.solvers.ode import SOLVER_DICT

    solvers = {name: solver for name, solver in SOLVER_DICT.items() if name not in _SECOND_ORDER}
    if method not in solvers:
        raise ValueError(unknown("torchdyn method", method, solvers))
    return solvers[method]().stepping_class == "adaptive"


_SECOND_ORDER = ("alf", "AsynchronousLeapfrog")  # they integrate positions together with velocities
_IMPLICIT = ("ieuler", "implicit_euler")  # their root finder ends on a new leaf
_CURE = (
    "loosen `rtol` and `atol`, use float64, or take a fixed-step method such as 'rk4'. "
    "A field that is stiff, or grows without bound, looks like this too."
)


def _torchdyn() -> Any:
    return optional("torchdyn.numerics", install="pip install 'cellflow-torch[torchdyn]'")


def _torchdyn_solver(method: str, dtype: torch.dtype) -> Any:
    from torchdyn.numerics.solvers.ode import SOLVER_DICT, RungeKutta4

    solver = SOLVER_DICT[method](dtype=dtype)
    if isinstance(solver, RungeKutta4) and len(solver.tableau[0]) == 4:
        # torchdyn 1.0.6 takes the times 0, 1/2, 1/2 of its table for those of slopes two to four, which are
        # 1/2, 1/2, 1: of first order where the field depends on time.
        times, *rest = solver.tableau
        solver.tableau = (times[1:], *rest)
    return solver


def _stretched(velocity: Velocity, u0: float, u1: float) -> Slope:
    """Stretch u0..u1 to 0..1.

    torchdyn's adaptive loop ends by comparing t + (T - t) with T, which is certain to agree in floating point
    for T = 1 only; where it does not, the loop never ends.
    """
    return lambda w, x: (u1 - u0) * velocity(u0 + w * (u1 - u0), x)


def _bounded(velocity: Velocity, slope: Slope) -> Slope:
    """Stop a method that would go on for ever."""

    def bounded(u: Tensor, x: Tensor) -> Tensor:
        if velocity.evaluations >= MOST_EVALUATIONS:
            message = f"The tolerances were not met within {MOST_EVALUATIONS} evaluations of the field; {_CURE}"
            raise ConvergenceError(message)
        return slope(u, x)

    return bounded
