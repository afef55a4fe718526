"""The deterministic flow of a field: dx/dt = field(t, x, condition)."""

import math
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor

from cellflow.errors import unknown
from cellflow.fields import Field
from cellflow.integrate.backends import (
    ADAPTIVE,
    AdaptiveTorchdiffeq,
    AdaptiveTorchdyn,
    FixedTorchdyn,
    is_adaptive_torchdyn,
)
from cellflow.integrate.tables import TABLES, FixedSteps, Table
from cellflow.integrate.trajectory import Trajectory, Velocity, check_finite, check_states, saved_times

Solver = Callable[[Velocity, Tensor, float, float], Tensor]


def ode(
    field: Field,
    x: Tensor,
    *,
    steps: int | None = None,
    start: float | Tensor = 0.0,
    stop: float | Tensor = 1.0,
    condition: Tensor | None = None,
    method: str | Table = "rk4",
    save: int = 2,
    rtol: float | None = None,
    atol: float | None = None,
    gradient: bool = False,
) -> Trajectory:
    """Integrate dx/dt = field(t, x, condition) from ``start`` to ``stop``.

    The default method takes fixed steps, because an adaptive method chooses its steps for the whole batch: a
    cell's path would depend on the cells beside it. Among the fixed-step methods, fourth order reaches the
    accuracy of float32 on smooth fields for the fewest evaluations (four a step).

    Parameters
    ----------
    field
        ``field(t, x, condition)`` with times ``(n,)`` and states ``(n, ...)``; returns velocities.
    x
        States at ``start``, shape ``(n, ...)``; the result follows their dtype and device.
    steps
        Number of steps of a fixed-step method; 20 when not given.
    start, stop
        Times, one number or one for each sample, shape ``(n,)``. ``stop`` before ``start`` runs backwards.
    condition
        Handed to ``field`` as it is.
    method
        A fixed-step method ("euler", "midpoint", "heun", "rk4", or a `Table` of your own), an adaptive one of
        torchdiffeq ("dopri5", "dopri8", "bosh3", "adaptive_heun", "fehlberg2"), or "torchdyn:<name>".
    save
        How many states to keep, equally spaced in time, both ends among them. Memory grows with ``save``, not
        with ``steps``. Where ``save - 1`` does not divide ``steps``, steps are added until it does.
    rtol, atol
        Tolerances of an adaptive method, relative and absolute; 1e-5 when not given.
    gradient
        Keep what backpropagation through the solver needs. Without it the result carries no graph.

    Returns
    -------
    trajectory
        Times ``t``, states ``x`` and the number of ``evaluations``; ``x[-1]`` is the end.

    Raises
    ------
    ValueError
        For an unknown method, an option of another kind of method, or times and states that do not fit.
    ConvergenceError
        When the states leave the finite numbers, or tolerances cannot be met.
    MissingDependencyError
        When a torchdyn method is asked for and torchdyn is not installed.

    Examples
    --------
    >>> import torch
    >>> decay = ode(lambda t, x, condition: -x, torch.ones(1, 2), steps=20, save=3)
    >>> decay.t, decay.x[:, 0, 0], decay.evaluations
    (tensor([0.0000, 0.5000, 1.0000]), tensor([1.0000, 0.6065, 0.3679]), 80)
    """
    check_states(x)
    stretches = _count("save", save, least=2) - 1
    solver = _solver(method, steps, rtol, atol, stretches)
    with nullcontext() if gradient else torch.no_grad():
        velocity = Velocity(field, x, start, stop, condition)
        states = [x]
        for k in range(stretches):
            states.append(solver(velocity, states[-1], k / stretches, (k + 1) / stretches))
        check_finite(states[-1], velocity.stop)
        return Trajectory(saved_times(x, start, stop, save), torch.stack(states), velocity.evaluations)


_STEPS = 20
_TOLERANCE = 1e-5
_TORCHDYN = "torchdyn:"


def _solver(method: str | Table, steps: int | None, rtol: float | None, atol: float | None, stretches: int) -> Solver:
    if isinstance(method, Table):
        return FixedSteps(method, _each(method, steps, rtol, atol, stretches))
    if method in TABLES:
        return FixedSteps(TABLES[method], _each(method, steps, rtol, atol, stretches))
    if method in ADAPTIVE:
        return AdaptiveTorchdiffeq(method, *_tolerances(method, steps, rtol, atol))
    if not method.startswith(_TORCHDYN):
        raise ValueError(unknown("method", method, [*TABLES, *ADAPTIVE, "torchdyn:<name>"]))
    name = method.removeprefix(_TORCHDYN)
    if is_adaptive_torchdyn(name):
        return AdaptiveTorchdyn(name, *_tolerances(method, steps, rtol, atol))
    return FixedTorchdyn(name, _each(method, steps, rtol, atol, stretches))


def _each(method: str | Table, steps: int | None, rtol: float | None, atol: float | None, stretches: int) -> int:
    """Return how many steps a fixed-step method takes between two saved states."""
    if rtol is not None or atol is not None:
        message = f"`rtol` and `atol` belong to adaptive methods; {method!r} takes fixed steps, set by `steps`."
        raise ValueError(message)
    return math.ceil(_count("steps", _STEPS if steps is None else steps, least=1) / stretches)


def _tolerances(method: str, steps: int | None, rtol: float | None, atol: float | None) -> tuple[float, float]:
    if steps is not None:
        message = f"`steps` belongs to fixed-step methods; {method!r} is adaptive: set `rtol` and `atol` instead."
        raise ValueError(message)
    return _TOLERANCE if rtol is None else rtol, _TOLERANCE if atol is None else atol


def _count(name: str, value: int, *, least: int) -> int:
    if value < least:
        message = f"`{name}` must be at least {least}; found {value}."
        raise ValueError(message)
    return value
