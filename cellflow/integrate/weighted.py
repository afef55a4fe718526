"""Particles whose weights grow and shrink on the way: dx/dt = velocity, d log w / dt = growth."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from cellflow.fields import GrowthField, growth_heads
from cellflow.integrate.ode import ode
from cellflow.integrate.tables import Table


class WeightedTrajectory(NamedTuple):
    """States and weights along the way; the last ones are ``x[-1]`` and ``log_weight[-1]``.

    Attributes
    ----------
    t
        Times, shape ``(k,)``, or ``(k, n)`` where every sample runs on its own clock.
    x
        States at these times, shape ``(k, n, ...)``.
    log_weight
        Logs of the weights at these times, shape ``(k, n)``.
    evaluations
        How often the field was evaluated on the whole batch.
    """

    t: Tensor
    x: Tensor
    log_weight: Tensor
    evaluations: int

    def mass(self) -> Tensor:
        """Return the sum of the weights at each time, relative to the first one, ``(k,)``.

        Examples
        --------
        >>> import torch
        >>> found = WeightedTrajectory(torch.zeros(2), torch.zeros(2, 3, 1), torch.tensor([[0.0] * 3, [1.0] * 3]), 1)
        >>> found.mass()
        tensor([1.0000, 2.7183])
        """
        total = torch.logsumexp(self.log_weight, dim=1)
        return (total - total[0]).exp()


def grow(
    field: GrowthField,
    x: Tensor,
    *,
    log_weight: Tensor | None = None,
    steps: int | None = None,
    start: float | Tensor = 0.0,
    stop: float | Tensor = 1.0,
    condition: Tensor | None = None,
    method: str | Table = "rk4",
    save: int = 2,
    rtol: float | None = None,
    atol: float | None = None,
    gradient: bool = False,
) -> WeightedTrajectory:
    """Carry weighted particles along a field with a growth rate.

    Together they are a population that moves and grows: averages over it are averages weighted by ``exp(log_weight)``,
    and the sum of the weights is its size. Backward in time, growth is undone.

    Parameters
    ----------
    field
        Returns a velocity and a growth rate, as trained by `cellflow.objectives.GrowthMatching`.
    x
        States at ``start``, shape ``(n, ...)``; the result follows their dtype and device.
    log_weight
        Logs of the weights at ``start``, ``(n,)``; without, each weighs 1/n.
    steps, start, stop, condition, method, save, rtol, atol, gradient
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
    >>> from cellflow.fields import GrowthHeads
    >>> doubling = lambda t, x, condition: GrowthHeads(torch.zeros_like(x), torch.full_like(t, math.log(2)))
    >>> grow(doubling, torch.zeros(3, 2)).mass().round(decimals=3)
    tensor([1., 2.])
    """
    weight = x.new_full((len(x),), -math.log(len(x))) if log_weight is None else log_weight.to(x)
    if weight.shape != x.shape[:1]:
        raise ValueError(f"Expected one weight for each of {len(x)} states; found shape {tuple(weight.shape)}.")

    def both(t: Tensor, z: Tensor, condition: Tensor | None) -> Tensor:
        heads = growth_heads(field(t, z[:, :-1].reshape(x.shape), condition))
        return torch.cat([heads.velocity.reshape(len(x), -1), heads.growth[:, None]], dim=1)

    z = torch.cat([x.reshape(len(x), -1), weight[:, None]], dim=1)
    found = ode(
        both, z, steps=steps, start=start, stop=stop, condition=condition, method=method, save=save,
        rtol=rtol, atol=atol, gradient=gradient,
    )  # fmt: skip
    return WeightedTrajectory(found.t, found.x[..., :-1].reshape(-1, *x.shape), found.x[..., -1], found.evaluations)
