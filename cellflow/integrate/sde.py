"""The stochastic flow of a field with a score: forward, and backward in time."""

from typing import Any, cast

import torch
from torch import Tensor

from cellflow.fields import Field, outputs
from cellflow.integrate.failures import check_finite
from cellflow.integrate.solvers import Noisy, resolve
from cellflow.integrate.trajectory import Trajectory, check_states, saved_times
from cellflow.integrate.weighted import weights_at_start
from cellflow.shapes import per_sample, time_of
from cellflow.signature import checked_but


@checked_but("solver")
def sde(
    field: Field,
    x: Tensor,
    *,
    sigma: float,
    generator: torch.Generator,
    solver: Noisy | str | int = Noisy(),
    start: float | Tensor = 0.0,
    stop: float | Tensor = 1.0,
    condition: Tensor | None = None,
    save: int = 2,
    growth: bool = False,
    log_weight: Tensor | None = None,
    **old: Any,
) -> Trajectory:
    """Simulate the diffusion whose marginals are those of the field's probability flow.

    Forward in time the process drifts with ``velocity + score_drift``, backward with ``-velocity + score_drift``; in
    both directions the noise has scale ``sigma``. With ``growth`` each particle carries a weight whose log grows at the
    field's rate, and shrinks backward: the weighted marginals are those of `grow`.

    Parameters
    ----------
    field
        Returns velocity and score, as trained by `cellflow.objectives.BridgeMatching`.
    x
        States at ``start``, ``(n, ...)``; the result follows their dtype and device.
    sigma
        Scale of the noise per square root of model time: that of the path on which the field was trained.
    generator
        Draws the noise.
    solver
        `Noisy`; or its method, or its number of steps.
    start, stop
        Times, one number or one for each sample ``(n,)``. ``stop`` before ``start`` runs backward.
    condition
        Passed to ``field``.
    save
        Number of states to keep, equally spaced in time, including both ends.
    growth
        Whether to carry weights, if the field returns a growth rate.
    log_weight
        Log weights at ``start``, ``(n,)``; by default each weight is 1/n.

    Returns
    -------
    Trajectory
        Times ``t``, states ``x``, the number of ``evaluations``, and ``log_weight`` with growth.

    Raises
    ------
    TypeError
        When the field returns no score, which the diffusion of the same marginals requires; when ``growth`` is set and
        it returns no growth rate; for a solver without noise, or states of whole numbers.
    ValueError
        For sigma <= 0, an unknown method, fewer than two states to keep, or weights without ``growth``.
    ConvergenceError
        When states become infinite or NaN.

    Source
    ------
    Anderson 1982, for the reverse-time process; for the weights see `cellflow.objectives.growth`.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> from cellflow.fields import Outputs
    >>> free = lambda t, x, condition: Outputs(torch.zeros_like(x), torch.zeros_like(x))
    >>> x = sde(free, torch.zeros(10000, 1), sigma=2.0, generator=cf.generator(seed=0), solver=1).x[-1]
    >>> round(x.std().item(), 1)
    2.0
    """
    other = {"smooth": "cf.integrate.ode", "jumps": "cf.integrate.jump"}
    chosen: Noisy = resolve(solver, default=Noisy(), verb="integrate.sde", **other, old=old)
    check_states(x, condition, some=growth)
    if not 0 < sigma < float("inf"):
        raise ValueError(f"Expected a finite sigma > 0; found {sigma}. Without noise, use `cf.integrate.ode`.")
    if save < 2:
        raise ValueError(f"`save` must be at least 2; found {save}.")
    if log_weight is not None and not growth:
        raise ValueError("Without growth, weights stay as they are: leave out `log_weight`, or set `growth=True`.")
    begin, end = time_of(start, x), time_of(stop, x)
    span = end - begin
    steps = chosen.schedule(save - 1)
    stretch = len(steps) // (save - 1)
    weight = weights_at_start(x, log_weight) if growth else None
    states, weights = [x], [weight]
    with torch.no_grad():
        for k, (u, du) in enumerate(steps):
            quiet, last = chosen.denoise and k + 1 == len(steps), x
            kick = x.new_zeros(()) if quiet else sigma * per_sample((du * span.abs()).sqrt(), x) * _normal(x, generator)
            method = "euler_maruyama" if quiet else chosen.method
            x, gain = _step(field, x, torch.lerp(begin, end, u), span * du, kick, condition, method, growth)
            for found in (x, gain):
                check_finite(found, begin + (u + du) * span, field=field, x=last, start=states[0])
            weight = None if weight is None else weight + gain
            if (k + 1) % stretch == 0:
                states.append(x)
                weights.append(weight)
    evaluations = len(steps) if chosen.method == "euler_maruyama" else 2 * len(steps) - chosen.denoise
    kept = [weight for weight in weights if weight is not None]
    return Trajectory(
        saved_times(x, start, stop, save), torch.stack(states), evaluations, torch.stack(kept) if growth else None
    )


def _normal(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=generator.device).to(x.device)


def _step(
    field: Field, x: Tensor, t: Tensor, dt: Tensor, kick: Tensor, condition: Tensor | None, method: str, growth: bool
) -> tuple[Tensor, Tensor]:
    """Advance by ``dt``, which is negative backward in time, with the noise ``kick``; return what weights gain too."""
    drift, gain = _drift(field, t, x, dt, condition, growth)
    ahead = x + drift + kick
    if method == "euler_maruyama":
        return ahead, gain
    more, later = _drift(field, t + dt, ahead, dt, condition, growth)
    return x + (drift + more) / 2 + kick, (gain + later) / 2


def _drift(
    field: Field, t: Tensor, x: Tensor, dt: Tensor, condition: Tensor | None, growth: bool
) -> tuple[Tensor, Tensor]:
    """Return the displacement over ``dt``, and the gain in log of weight ``(n,)``.

    Velocity and growth change sign with the direction of time, the score drift does not.
    """
    velocity, score_drift, rate = outputs(field(t, x, condition), score=True, growth=growth)
    drift = per_sample(dt, x) * velocity + per_sample(dt.abs(), x) * cast("Tensor", score_drift)
    return drift, dt * rate if rate is not None else torch.zeros_like(dt)
