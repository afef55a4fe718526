"""Shared by flows of images: a network for their shape, and inference in batches."""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn

from cellflow import networks
from cellflow.integrate import Trajectory

Make = Callable[..., nn.Module]
"""From the width of vectors, or the channels of images, to a network."""

COARSEST = 16
"""Longest side, in pixels, with attention."""
_WIDTH = 32


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
