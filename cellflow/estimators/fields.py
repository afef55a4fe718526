"""Building the field of a flow: its width, its scales, and its outputs beside the velocity."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from cellflow import networks
from cellflow.cells.snapshots import Snapshots
from cellflow.errors import unknown
from cellflow.integrate import Trajectory
from cellflow.networks import Heads, Standardized

Make = Callable[..., nn.Module]
"""From the width of vectors, or the channels of images, to a network."""

COARSEST = 16
"""Longest side, in pixels, with attention."""
_WIDTH = 32
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


def network_for(network: Make | str | None, shape: tuple[int, ...]) -> Make:
    """Return the factory of the network: the given one, or the default for the shape of a sample.

    Vectors get an `MLP`. Images get a `UNet` of width 32 that halves them while both sides are even and more than
    four pixels long, at most three times, with attention from 16 pixels a side on.

    Raises
    ------
    ValueError
        When images cannot be halved to a size at which attention is affordable.

    Examples
    --------
    >>> network_for(None, (3, 32, 32)).keywords
    {'width': 32, 'multipliers': (1, 2, 2, 2), 'attention': (1, 2, 3)}
    """
    if network is not None:
        return networks.resolve(network)
    if len(shape) == 1:
        return networks.MLP
    sides = [shape[1:]]
    while all(side % 2 == 0 and side > 4 for side in sides[-1]) and len(sides) < 4:
        sides.append(tuple(side // 2 for side in sides[-1]))
    if max(sides[-1]) > COARSEST:
        raise ValueError(
            f"No default network for images of {shape[1]} x {shape[2]}: halved while that is even, {len(sides) - 1} "
            f"time(s), they are still larger than {COARSEST} pixels a side. Resize them, with "
            "size=64 where they are read, or give a `network`."
        )
    return partial(
        networks.UNet,
        width=_WIDTH,
        multipliers=(1, 2, 2, 2)[: len(sides)],
        attention=tuple(level for level, two in enumerate(sides) if level and max(two) <= COARSEST),
    )


def in_parts(flow: Callable[[Tensor], Trajectory], parts: Iterable[Tensor]) -> Trajectory:
    """Carry states some at a time; return all of them, on the CPU.

    Examples
    --------
    >>> import torch
    >>> stay = lambda x: Trajectory(torch.tensor([0.0, 1.0]), torch.stack([x, x]), 1)
    >>> in_parts(stay, [torch.zeros(2, 3), torch.zeros(1, 3)]).x.shape
    torch.Size([2, 3, 3])
    """
    found = [flow(part) for part in parts]
    return Trajectory(
        found[0].t.cpu(), torch.cat([one.x.cpu() for one in found], dim=1), sum(one.evaluations for one in found)
    )
