"""Building the field of a flow: its width, its scales, and its outputs beside the velocity."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from cellflow.cells.snapshots import Snapshots
from cellflow.errors import unknown
from cellflow.networks import Heads, Standardized

HEADS = ("shared", "separate")
"""Whether one network returns all outputs, or each output has a network of its own."""


class Scales(NamedTuple):
    """Scales by which the network's inputs and outputs are standardised.

    Centre, spread and typical velocity per dimension, each ``(d,)``, and a typical growth rate, one number; rates are
    per unit of model time.
    """

    shift: Tensor
    scale: Tensor
    speed: Tensor
    rate: float


def spreads(snapshots: Snapshots) -> Scales:
    """Return the scales of the cells, which typically move by their spread, and grow e-fold, in an interval."""
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
    """Return the spread over all dimensions together: the unit of length of errors."""
    spread = float(scales.scale.double().square().mean().sqrt())
    return spread if spread > 0 else 1.0


def build_field(
    make: Callable[..., nn.Module],
    scales: Scales,
    beside: Sequence[str] = (),
    *,
    heads: str = "shared",
    sigma: float = 0.0,
    standardize: bool = True,
) -> nn.Module:
    """Return an untrained field.

    Parameters
    ----------
    make
        A callable from the width of the states to a module; it takes ``heads=`` where several outputs share one.
    scales
        Scales of the data, whose width is that of the states.
    beside
        Outputs beside the velocity that an objective requires: ``"score"``, ``"growth"``, both or none.
    heads
        One of `HEADS`.
    sigma
        Scale of the noise, which sets that of the score drift.
    standardize
        Whether the network's inputs and outputs are standardised.

    Raises
    ------
    ValueError
        For unknown ``heads``.
    TypeError
        When outputs share a network that cannot be made with ``heads=``.

    Examples
    --------
    >>> import cellflow as cf
    >>> field = build_field(cf.networks.MLP, blank(2), ("score", "growth"), sigma=0.5)
    >>> field.velocity.network.last.out_features
    6
    """
    if heads not in HEADS:
        raise ValueError(unknown("heads", heads, HEADS))
    dim = len(scales.shift)
    units = {"score": torch.full_like(scales.speed, sigma), "growth": torch.full_like(scales.speed, scales.rate)}

    def scaled(network: nn.Module, *speeds: Tensor) -> nn.Module:
        if not standardize:
            return network
        return Standardized(network, shift=scales.shift, scale=scales.scale, speed=torch.cat(speeds))

    if not beside:
        return scaled(make(dim), scales.speed)
    if heads == "shared":
        whole = scaled(_of_several(make, dim, 1 + len(beside)), scales.speed, *(units[name] for name in beside))
        return Heads(whole, **dict.fromkeys(beside, "shared"))
    velocity = scaled(make(dim), scales.speed)
    return Heads(velocity, **{name: scaled(make(dim), units[name]) for name in beside})


def _of_several(make: Callable[..., nn.Module], dim: int, heads: int) -> nn.Module:
    try:
        return make(dim, heads=heads)
    except TypeError as error:
        raise TypeError(
            f"Expected a network that can be made with `heads={heads}`; making one failed: {error}. Let it take "
            '`heads`, as `cf.networks.MLP` does, or give each output a network of its own: heads="separate".'
        ) from error
