"""The deterministic flow of a field: dx/dt = field(t, x, condition)."""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from cellflow.fields import Field
from cellflow.integrate.failures import check_finite
from cellflow.integrate.solvers import Adaptive, Fixed, resolve
from cellflow.integrate.tables import Table
from cellflow.integrate.trajectory import Trajectory, Velocity, check_states, saved_times
from cellflow.signature import checked_but

ELSEWHERE = {"noisy": "cf.integrate.sde", "jumps": "cf.integrate.jump"}
"""What takes the solvers that are not for a deterministic flow."""


@checked_but("solver")
def ode(
    field: Field,
    x: Tensor,
    *,
    solver: Fixed | Adaptive | Table | str | int = Fixed(),
    start: float | Tensor = 0.0,
    stop: float | Tensor = 1.0,
    condition: Tensor | None = None,
    save: int = 2,
    gradient: bool = False,
    **old: Any,
) -> Trajectory:
    """Integrate dx/dt = field(t, x, condition) from ``start`` to ``stop``.

    The default is of fourth order with fixed steps: it reaches the accuracy of float32 on smooth fields with the fewest
    evaluations of all fixed-step methods (four for each step).

    Parameters
    ----------
    field
        ``field(t, x, condition)`` with times ``(n,)`` and states ``(n, ...)``; returns velocities.
    x
        States at ``start``, shape ``(n, ...)``; the result follows their dtype and device.
    solver
        `Fixed` or `Adaptive`; or a method, or a number of steps.
    start, stop
        Times, one number or one for each sample, shape ``(n,)``. ``stop`` before ``start`` runs backwards.
    condition
        Passed to ``field``.
    save
        Number of states to keep, equally spaced in time, including both ends. Memory grows with ``save``, not with the
        steps. Where ``save - 1`` does not divide the steps, steps are added until it does.
    gradient
        Whether to keep the graph for backpropagation through the solver.

    Returns
    -------
    trajectory
        Times ``t``, states ``x`` and the number of ``evaluations``; ``x[-1]`` is the end.

    Raises
    ------
    TypeError
        For a solver with noise, or of jumps.
    ValueError
        For an unknown method, or times and states of different numbers.
    ConvergenceError
        When states become infinite or NaN, or tolerances cannot be met.
    MissingDependencyError
        When a torchdyn method is requested and torchdyn is not installed.

    Examples
    --------
    >>> import torch
    >>> decay = ode(lambda t, x, condition: -x, torch.ones(1, 2), save=3)
    >>> decay.t, decay.x[:, 0, 0], decay.evaluations
    (tensor([0.0000, 0.5000, 1.0000]), tensor([1.0000, 0.6065, 0.3679]), 80)
    """
    chosen: Fixed | Adaptive = resolve(solver, default=Fixed(), verb="integrate.ode", **ELSEWHERE, old=old)
    check_states(x, condition)
    if save < 2:
        raise ValueError(f"`save` must be at least 2; found {save}.")
    with nullcontext() if gradient else torch.no_grad():
        velocity = Velocity(field, x, start, stop, condition)
        states = [x]
        for k in range(save - 1):
            states.append(chosen.advance(velocity, states[-1], k, save - 1))
        check_finite(states[-1], velocity.stop, field=field, x=states[-1], start=x)
        return Trajectory(saved_times(x, start, stop, save), torch.stack(states), velocity.evaluations)
