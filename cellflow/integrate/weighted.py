"""Weighted particles: dx/dt = velocity, d log w / dt = growth."""

import math
from typing import Any, cast

import torch
from torch import Tensor

from cellflow.fields import Field, outputs
from cellflow.integrate.ode import ELSEWHERE, ode
from cellflow.integrate.solvers import Adaptive, Fixed, resolve
from cellflow.integrate.tables import Table
from cellflow.integrate.trajectory import Trajectory, check_states
from cellflow.shapes import check_dense
from cellflow.signature import checked_but


@checked_but("solver")
def grow(
    field: Field,
    x: Tensor,
    *,
    log_weight: Tensor | None = None,
    solver: Fixed | Adaptive | Table | str | int = Fixed(),
    start: float | Tensor = 0.0,
    stop: float | Tensor = 1.0,
    condition: Tensor | None = None,
    save: int = 2,
    gradient: bool = False,
    **old: Any,
) -> Trajectory:
    """Carry weighted particles along a field with a growth rate.

    The particles represent a population that moves and grows: means over it are means weighted by ``exp(log_weight)``,
    and the sum of the weights is its size. Backward in time, weights shrink accordingly.

    Parameters
    ----------
    field
        Returns a velocity and a growth rate, as trained by `cellflow.objectives.GrowthMatching`.
    x
        States at ``start``, shape ``(n, ...)``; the result follows their dtype and device.
    log_weight
        Log weights at ``start``, ``(n,)``; by default each weight is 1/n.
    solver, start, stop, condition, save, gradient
        As in `ode`; the log of the weight is one more coordinate of the state.

    Returns
    -------
    trajectory
        Times ``t``, states ``x``, ``log_weight`` and the number of ``evaluations``.

    Raises
    ------
    TypeError
        When the field returns no growth rate.
    ValueError
        When there is not one weight for each state.

    Examples
    --------
    >>> import math, torch
    >>> from cellflow.fields import Outputs
    >>> doubling = lambda t, x, condition: Outputs(torch.zeros_like(x), growth=torch.full_like(t, math.log(2)))
    >>> grow(doubling, torch.zeros(3, 2)).mass().round(decimals=3)
    tensor([1., 2.])
    """
    solver = resolve(solver, default=Fixed(), verb="integrate.grow", **ELSEWHERE, old=old)
    check_states(x, some=True)
    weight = weights_at_start(x, log_weight)
    if not bool(torch.isfinite(weight).all()):
        raise ValueError("Expected finite numbers in `log_weight`. Leave out the states without weight.")

    def both(t: Tensor, z: Tensor, condition: Tensor | None) -> Tensor:
        velocity, _, growth = outputs(field(t, z[:, :-1].reshape(x.shape), condition), growth=True)
        return torch.cat([velocity.reshape(len(x), -1), cast("Tensor", growth)[:, None]], dim=1)

    both.__wrapped__ = field  # type: ignore[attr-defined]  # whose weights are looked at when something is not finite
    z = torch.cat([x.reshape(len(x), -1), weight[:, None]], dim=1)
    found = ode(
        both, z, solver=solver, start=start, stop=stop, condition=condition, save=save, gradient=gradient
    )  # fmt: skip
    return Trajectory(found.t, found.x[..., :-1].reshape(-1, *x.shape), found.evaluations, found.x[..., -1])


def weights_at_start(x: Tensor, log_weight: Tensor | None) -> Tensor:
    """Return the log weights ``(n,)`` at the start; by default each weight is 1/n.

    Raises
    ------
    ValueError
        When there is not one weight for each state, or one is NaN or infinite.

    Examples
    --------
    >>> weights_at_start(torch.zeros(2, 1), None).exp()
    tensor([0.5000, 0.5000])
    """
    if log_weight is None:
        return x.new_full((len(x),), -math.log(len(x)) if len(x) else 0.0)
    check_dense(log_weight, what="`log_weight`")
    weight = log_weight.to(x)
    if weight.shape != x.shape[:1]:
        raise ValueError(f"Expected one weight for each of {len(x)} states; found shape {tuple(weight.shape)}.")
    if bool((torch.isnan(weight) | (weight == math.inf)).any()):
        raise ValueError("Expected finite numbers in `log_weight`; found NaN or infinity. Give logs of weights.")
    return weight
