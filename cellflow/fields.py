"""What a field is: any callable of time, state and condition; and what it returns if that is more than a velocity."""

from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from cellflow.signature import checked, checked_but


class Outputs(NamedTuple):
    """What a field returns.

    Attributes
    ----------
    velocity
        Velocity of the deterministic flow, shaped as the state.
    score_drift
        Half the squared diffusion times the score, shaped as the state; ``None`` where no score was learned. Forward
        in time the stochastic process drifts with ``velocity + score_drift``, backward with ``velocity -
        score_drift``: the score itself, which is unbounded where noise vanishes, is never formed.
    growth
        Rate ``(n,)`` at which the log mass of a particle changes, per unit of model time: positive where cells divide
        and negative where they die. ``None`` where no growth was learned.

    Source
    ------
    Tong et al. 2024 (AISTATS), equations 5 and 6, for the score drift.
    """

    velocity: Tensor
    score_drift: Tensor | None = None
    growth: Tensor | None = None


class Field(Protocol):
    """A velocity (or noise, or score) as a function of time, state and condition.

    Every ``nn.Module`` whose ``forward`` has this signature is a field, and so is a plain function. A field that knows
    a score or a growth rate beside the velocity returns `Outputs`.

    Examples
    --------
    >>> import torch
    >>> def decay(t, x, condition=None):
    ...     return -x
    >>> decay(torch.zeros(3), torch.ones(3, 2)).shape
    torch.Size([3, 2])
    """

    def __call__(self, t: Tensor, x: Tensor, condition: Tensor | None, /) -> Any:
        """Return the field at times ``t`` of shape ``(n,)`` and states ``x`` of shape ``(n, ...)``.

        One tensor shaped as ``x``, or `Outputs`.
        """
        ...


@checked_but("found")
def outputs(found: object, *, score: bool = False, growth: bool = False) -> Outputs:
    """Return what a field returned as `Outputs`, after checking that nothing needed is missing.

    Parameters
    ----------
    found
        `Outputs`, or one tensor, which is a velocity.
    score, growth
        Whether a score or a growth rate is needed.

    Raises
    ------
    TypeError
        When the field returned neither, or lacks what is needed.
    ValueError
        When the growth is not one number for each state.

    Examples
    --------
    >>> import torch
    >>> outputs(torch.zeros(1, 2))
    Outputs(velocity=tensor([[0., 0.]]), score_drift=None, growth=None)
    >>> outputs(Outputs(torch.zeros(1, 2), growth=torch.ones(1)), growth=True).growth
    tensor([1.])
    """
    known = Outputs(found) if isinstance(found, Tensor) else found
    needed = {"score": score, "growth": growth}
    names = [name for name, asked in needed.items() if asked]
    if not isinstance(known, Outputs):
        raise TypeError(f"Expected a field that returns a tensor or `cf.fields.Outputs`; found {type(found).__name__}.")
    held = {"score": known.score_drift is not None, "growth": known.growth is not None}
    lacking = [name for name in names if not held[name]]
    if lacking:
        given = ", ".join(f'{name}="shared"' for name in names)
        trained = "GrowthMatching" if names == ["growth"] else "BridgeMatching"
        raise TypeError(
            f"Expected a field that returns a velocity and a {' and a '.join(names)}; this one returned no "
            f"{' and no '.join(lacking)}. Build it as `cf.networks.Heads(network, {given})` and train it with "
            f"`cf.objectives.{trained}`."
        )
    if growth and known.growth is not None and known.growth.shape != known.velocity.shape[:1]:
        raise ValueError(
            f"Expected one growth rate for each of {len(known.velocity)} states, ({len(known.velocity)},); found shape "
            f"{tuple(known.growth.shape)}."
        )
    return known


@checked
class VelocityOf(nn.Module):
    """The velocity of a field that returns more, as a field of its own.

    Parameters
    ----------
    field
        A field that returns `Outputs`, or a velocity.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> field = cf.networks.Heads(cf.networks.MLP(dim=2, width=16, heads=2), score="shared")
    >>> VelocityOf(field)(torch.zeros(1), torch.zeros(1, 2)).shape
    torch.Size([1, 2])
    """

    def __init__(self, field: Field) -> None:
        super().__init__()
        self.field = field

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the velocity at times ``t`` ``(n,)`` and states ``x``, shaped as ``x``."""
        return outputs(self.field(t, x, condition)).velocity
