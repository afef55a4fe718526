"""Building the field of a flow: how wide, with what scales, with or without a score."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from cellflow.data.snapshots import Snapshots
from cellflow.networks import Standardized, TwoHeads, TwoNetworks

SCORES = ("two_networks", "two_heads")
"""How a score can be learned beside the velocity."""

Scales = tuple[Tensor, Tensor, Tensor]
"""Centre, spread and typical velocity per dimension, each ``(d,)``."""


def spreads(snapshots: Snapshots) -> Scales:
    """Return centre, spread and typical velocity, in model time, of the cells."""
    # In double precision: sums over a million cells lose their digits in single.
    shift, scale = (
        torch.from_numpy(moment(axis=0, dtype=np.float64)).float() for moment in (snapshots.x.mean, snapshots.x.std)
    )
    return shift, scale, scale * (len(snapshots.clock.times) - 1)


def overall(scales: Scales) -> float:
    """Return the spread over all dimensions together: the unit in which an error is large or small."""
    spread = float(scales[1].double().square().mean().sqrt())
    return spread if spread > 0 else 1.0


def build_field(
    make: Callable[..., nn.Module], dim: int, *, score: str | None, sigma: float, scales: Scales | None
) -> nn.Module:
    """Return an untrained field on ``dim`` dimensions.

    Parameters
    ----------
    make
        A callable from the width of the states to a module; with ``score="two_heads"`` it takes ``heads=2``.
    dim
        Width of the states.
    score
        None, or one of `SCORES`.
    sigma
        Scale of the noise: the score drift is as large, whatever the spread of the data.
    scales
        What the network's inputs and outputs are standardised with; None leaves them alone.
    """
    if score == "two_heads":
        return TwoHeads(_scaled(make(dim, heads=2), scales, sigma, outputs="both"))
    velocity = _scaled(make(dim), scales, sigma, outputs="velocity")
    if score is None:
        return velocity
    return TwoNetworks(velocity, _scaled(make(dim), scales, sigma, outputs="score"))


def _scaled(network: nn.Module, scales: Scales | None, sigma: float, *, outputs: str) -> nn.Module:
    if scales is None:
        return network
    shift, scale, speed = scales
    diffusion = torch.full_like(speed, sigma)
    units = {"velocity": speed, "score": diffusion, "both": torch.cat([speed, diffusion])}[outputs]
    return Standardized(network, shift=shift, scale=scale, speed=units)
