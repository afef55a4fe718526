"""Jumps: a flow map carries states, with their weights, from one time to another in any number of steps."""

import math
from typing import Any

import torch
from torch import Tensor

from cellflow.fields import Field, outputs
from cellflow.integrate.failures import check_finite
from cellflow.integrate.solvers import Jumps
from cellflow.integrate.trajectory import Trajectory, check_states, saved_times
from cellflow.integrate.weighted import weights_at_start
from cellflow.shapes import per_sample, time_of
from cellflow.signature import checked_but


@checked_but("solver")
def jump(
    flow_map: Field,
    x: Tensor,
    *,
    steps: int = 1,
    start: float | Tensor = 0.0,
    stop: float | Tensor = 1.0,
    condition: Tensor | None = None,
    save: int | None = None,
    log_weight: Tensor | None = None,
) -> Trajectory:
    """Carry states from ``start`` to ``stop`` in equal jumps of a flow map; with weights if the map has growth.

    Parameters
    ----------
    flow_map
        A `cellflow.networks.FlowMap`, or any callable of two times ``(n, 2)``, states and condition that returns the
        mean velocity between them; or `cellflow.fields.Outputs`, with the mean growth rate too.
    x
        States at ``start``, ``(n, ...)``; the result follows their dtype and device.
    steps
        Number of jumps, independent of the training.
    start, stop
        Times, one number or one for each sample ``(n,)``. ``stop`` before ``start`` goes back in time.
    condition
        Passed to the map.
    save
        Number of states to keep, equally spaced in time, including both ends; ``None`` for one after every jump. Where
        ``save - 1`` does not divide ``steps``, jumps are added until it does.
    log_weight
        Log weights at ``start``, ``(n,)``, for a map with growth; by default each weight is 1/n.

    Returns
    -------
    Trajectory
        The saved states, those at ``start`` first; with growth their ``log_weight`` too.

    Raises
    ------
    ValueError
        For steps < 1, save < 2, states with NaN, a field of one time, or jumps that the map has not learned: backward
        with ``spans="forward"``, to any time but 1 with ``spans="end"``; weights for a map without growth.
    ConvergenceError
        When states become infinite or NaN.

    Source
    ------
    Boffi, Albergo and Vanden-Eijnden 2024, the semigroup property.

    Examples
    --------
    >>> import torch
    >>> def constant(times, x, condition):  # the flow of a constant velocity of 2
    ...     return torch.full_like(x, 2.0)
    >>> jump(constant, torch.zeros(1, 1), steps=2).x.flatten()
    tensor([0., 1., 2.])
    """
    check_states(x, condition)
    steps = Jumps(steps).steps
    if save is not None and save < 2:
        raise ValueError(f"`save` must be at least 2; found {save}.")
    each = 1 if save is None else math.ceil(steps / (save - 1))
    steps = steps if save is None else each * (save - 1)
    begin, end = time_of(start, x), time_of(stop, x)
    _check(flow_map, begin, end, steps)
    states, gain = [x], x.new_zeros(len(x))
    gains = [gain]
    with torch.no_grad():
        for k in range(steps):
            s, t = (torch.lerp(begin, end, j / steps) for j in (k, k + 1))
            velocity, _, growth = outputs(flow_map(torch.stack([s, t], dim=1), x, condition))
            if growth is None and log_weight is not None:
                raise ValueError(
                    "This flow map has no growth rate, so weights stay as they are: leave out `log_weight`."
                )
            if velocity.shape != x.shape:
                raise ValueError(
                    f"Expected mean velocities of the states' shape {tuple(x.shape)}; the map returned "
                    f"{tuple(velocity.shape)}."
                )
            last, x = x, x + per_sample(t - s, x) * velocity
            gain = gain if growth is None else gain + (t - s) * growth
            for found in (x, gain):
                check_finite(found, t, field=flow_map, x=last, start=states[0])
            if (k + 1) % each == 0:
                states.append(x)
                gains.append(gain)
    kept = None if growth is None else weights_at_start(states[0], log_weight) + torch.stack(gains)
    return Trajectory(saved_times(x, start, stop, len(states)), torch.stack(states), steps, kept)


def _check(flow_map: Any, begin: Tensor, end: Tensor, steps: int) -> None:
    """Refuse jumps that the map has not learned."""
    if isinstance(flow_map, torch.nn.Module) and not hasattr(flow_map, "spans"):
        raise ValueError(
            f"Expected a flow map; found {type(flow_map).__name__}, which may see only one time. Distil it into a "
            "`cf.networks.FlowMap`, or integrate it with `cf.integrate.ode`."
        )
    spans = getattr(flow_map, "spans", "both")
    if spans == "forward" and bool((end < begin).any()):
        raise ValueError(
            "This flow map only has jumps to later times; found `stop` before `start`. Train a `FlowMap(network, "
            "spans='both')` for the way back, or integrate it with `cf.integrate.ode`."
        )
    if spans == "end" and (steps > 1 or not bool((end == 1).all())):
        raise ValueError(
            f"This flow map only has jumps to time 1, each in one step; found stop={end[0].item():g} in {steps} "
            "step(s). Train a `FlowMap(network, spans='forward')` for others."
        )
