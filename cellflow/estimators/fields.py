"""Building the field of a flow: how wide, with what scales, with or without a score or a growth rate."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from cellflow.cells.snapshots import Snapshots
from cellflow.networks import GrowthHead, GrowthNetwork, Standardized, TwoHeads, TwoNetworks

BESIDE = ("two_networks", "two_heads")
"""How a score or a growth rate can be learned beside the velocity."""


class Scales(NamedTuple):
    """What the network's inputs and outputs are standardised with.

    Centre, spread and typical velocity per dimension, each ``(d,)``, and a typical growth rate, one number; rates are
    per unit of model time.
    """

    shift: Tensor
    scale: Tensor
    speed: Tensor
    rate: float


def spreads(snapshots: Snapshots) -> Scales:
    """Return the scales of the cells: typically they move by their spread, and grow e-fold, in an interval."""
    # In double precision: sums over a million cells lose their digits in single.
    shift, scale = (
        torch.from_numpy(moment(axis=0, dtype=np.float64)).float() for moment in (snapshots.x.mean, snapshots.x.std)
    )
    intervals = len(snapshots.clock.times) - 1
    return Scales(shift, scale, scale * intervals, float(intervals))


def blank(dim: int) -> Scales:
    """Return scales of one, to be overwritten by saved ones."""
    ones = torch.ones(dim)
    return Scales(ones, ones, ones, 1.0)


def overall(scales: Scales) -> float:
    """Return the spread over all dimensions together: the unit in which an error is large or small."""
    spread = float(scales.scale.double().square().mean().sqrt())
    return spread if spread > 0 else 1.0


def build_field(
    make: Callable[..., nn.Module],
    scales: Scales,
    *,
    score: str | None = None,
    growth: str | None = None,
    sigma: float = 0.0,
    standardize: bool = True,
) -> nn.Module:
    """Return an untrained field.

    Parameters
    ----------
    make
        A callable from the width of the states to a module; for ``"two_heads"`` it takes ``heads=2``.
    scales
        Scales of the data, whose width is that of the states.
    score, growth
        What is learned beside the velocity: each None or one of `BESIDE`, not both.
    sigma
        Scale of the noise: the score drift is as large, whatever the spread of the data.
    standardize
        Whether the network's inputs and outputs are standardised.
    """
    dim, speed = len(scales.shift), scales.speed
    other = torch.full_like(speed, sigma if growth is None else scales.rate)

    def scaled(network: nn.Module, units: Tensor) -> nn.Module:
        if not standardize:
            return network
        return Standardized(network, shift=scales.shift, scale=scales.scale, speed=units)

    kind = score if growth is None else growth
    if kind == "two_heads":
        both = scaled(_with_two_heads(make, dim), torch.cat([speed, other]))
        return TwoHeads(both) if growth is None else GrowthHead(both)
    velocity = scaled(make(dim), speed)
    if kind is None:
        return velocity
    second = scaled(make(dim), other)
    return TwoNetworks(velocity, second) if growth is None else GrowthNetwork(velocity, second)


def _with_two_heads(make: Callable[..., nn.Module], dim: int) -> nn.Module:
    try:
        return make(dim, heads=2)
    except TypeError as error:
        raise TypeError(
            f"Expected a network that can be made with `heads=2`; making one failed: {error}. Let it take `heads`, as "
            "`cf.networks.MLP` does, or learn the second field in a network of its own: 'two_networks'."
        ) from error
