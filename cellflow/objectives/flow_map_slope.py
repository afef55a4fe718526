"""Derivatives along a direction, by forward-mode differentiation."""

from collections.abc import Callable

import torch
from torch import Tensor


def along(function: Callable[..., Tensor], *points_and_directions: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the value of a function and its derivative, where each argument moves along its own direction.

    Forward mode is a state of the whole process in torch: no two threads may be in it at once.

    Raises
    ------
    NotImplementedError
        When a layer has no forward mode, as fused attention has not; the message names the switch.

    Examples
    --------
    >>> import torch
    >>> along(lambda x, y: x * y, (torch.tensor(2.0), torch.tensor(1.0)), (torch.tensor(3.0), torch.tensor(0.0)))
    (tensor(6.), tensor(3.))
    """
    points, directions = zip(*points_and_directions, strict=True)
    try:
        value, slope = torch.func.jvp(function, points, directions)[:2]
    except NotImplementedError as error:
        raise NotImplementedError(
            f"A layer of this network has no derivative in forward mode ({str(error).splitlines()[0]}). Train with "
            "`cf.objectives.SemigroupMatching`, which needs none; or take `cf.networks.UNet`, which has one; or, where "
            "the layer is fused attention, switch to the plain one: train under `with "
            "torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`."
        ) from error
    return value, slope
