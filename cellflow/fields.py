"""What a field is: any callable of time, state and condition. What it returns where that is more than a velocity."""

from typing import NamedTuple, Protocol

from torch import Tensor


class Field(Protocol):
    """A velocity (or noise, or score) as a function of time, state and condition.

    Every ``nn.Module`` whose ``forward`` has this signature is a field, and so is a plain function.

    Examples
    --------
    >>> import torch
    >>> def decay(t, x, condition=None):
    ...     return -x
    >>> decay(torch.zeros(3), torch.ones(3, 2)).shape
    torch.Size([3, 2])
    """

    def __call__(self, t: Tensor, x: Tensor, condition: Tensor | None, /) -> Tensor:
        """Return the field at times ``t`` of shape ``(n,)`` and states ``x`` of shape ``(n, ...)``, shaped as ``x``."""
        ...


class Heads(NamedTuple):
    """What a field of a stochastic flow returns, both shaped as the state.

    ``velocity`` is that of the deterministic flow with the same marginals; ``score_drift`` is half the squared
    diffusion times the score. Forward in time the process drifts with their sum, backward with ``velocity -
    score_drift``: the score itself, which is unbounded where noise vanishes, is never formed.

    Source: Tong et al. 2024 (AISTATS), equations 5 and 6.
    """

    velocity: Tensor
    score_drift: Tensor


class BridgeField(Protocol):
    """A field with two heads."""

    def __call__(self, t: Tensor, x: Tensor, condition: Tensor | None, /) -> Heads:
        """Return both heads at times ``t`` of shape ``(n,)`` and states ``x`` of shape ``(n, ...)``."""
        ...


def two_heads(found: object) -> Heads:
    """Return what a field returned, provided that it has two heads.

    Raises
    ------
    TypeError
        When the field returned one tensor: it knows no score.

    Examples
    --------
    >>> import torch
    >>> two_heads(Heads(torch.zeros(1, 2), torch.ones(1, 2))).score_drift
    tensor([[1., 1.]])
    """
    if not isinstance(found, Heads):
        raise TypeError(
            f"Expected a field with two heads, velocity and score; this one returned {type(found).__name__}. Wrap the "
            "network in `cf.networks.TwoHeads`, or two of them in `cf.networks.TwoNetworks`, and train it with "
            "`cf.objectives.BridgeMatching`."
        )
    return found


class GrowthHeads(NamedTuple):
    """What a field of a growing population returns.

    ``velocity`` is shaped as the state. ``growth`` ``(n,)`` is the rate at which the log of a particle's mass changes
    on its way: per unit of model time, positive where cells multiply and negative where they die.
    """

    velocity: Tensor
    growth: Tensor


class GrowthField(Protocol):
    """A field with a velocity and a growth rate."""

    def __call__(self, t: Tensor, x: Tensor, condition: Tensor | None, /) -> GrowthHeads:
        """Return both at times ``t`` of shape ``(n,)`` and states ``x`` of shape ``(n, ...)``."""
        ...


def growth_heads(found: object) -> GrowthHeads:
    """Return what a field returned, provided that it knows a growth rate.

    Raises
    ------
    TypeError
        When the field returned something else: it knows no growth.
    ValueError
        When the growth is not one number for each state.

    Examples
    --------
    >>> import torch
    >>> growth_heads(GrowthHeads(torch.zeros(1, 2), torch.ones(1))).growth
    tensor([1.])
    """
    if not isinstance(found, GrowthHeads):
        raise TypeError(
            f"Expected a field with a velocity and a growth rate; this one returned {type(found).__name__}. Wrap the "
            "network in `cf.networks.GrowthHead`, or two of them in `cf.networks.GrowthNetwork`, and train it with "
            "`cf.objectives.GrowthMatching`."
        )
    if found.growth.shape != found.velocity.shape[:1]:
        raise ValueError(
            f"Expected one growth rate for each of {len(found.velocity)} states, ({len(found.velocity)},); found shape "
            f"{tuple(found.growth.shape)}."
        )
    return found
