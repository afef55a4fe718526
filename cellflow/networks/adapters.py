"""Wrappers that make a network see what it likes to see."""

import torch
from torch import Tensor, nn


class Standardized(nn.Module):
    """A network that works on standardised states, inside a field in the units of the data.

    What goes in and comes out is in the units of the data: scales never leak. The network itself sees
    ``(x - shift) / scale`` and answers in units of ``speed``.

    Parameters
    ----------
    network
        Any field on states ``(n, d)``.
    shift, scale, speed
        Centre, spread and typical velocity of the data per dimension, each ``(d,)``.

    Raises
    ------
    ValueError
        When a state has another width than the data had.

    Examples
    --------
    >>> import torch
    >>> inner = lambda t, x, condition: torch.ones_like(x)
    >>> field = Standardized(inner, shift=torch.zeros(2), scale=torch.ones(2), speed=torch.tensor([1.0, 10.0]))
    >>> field(torch.zeros(1), torch.zeros(1, 2))
    tensor([[ 1., 10.]])
    """

    shift: Tensor
    scale: Tensor
    speed: Tensor

    def __init__(self, network: nn.Module, *, shift: Tensor, scale: Tensor, speed: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("shift", shift)
        self.register_buffer("scale", torch.where(scale > 0, scale, 1))
        self.register_buffer("speed", torch.where(speed > 0, speed, 1))

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the field at times ``t`` ``(n,)`` and states ``x`` ``(n, d)``, in units of the data."""
        if x.shape[-1] != len(self.shift):
            raise ValueError(f"The model was fitted on states of width {len(self.shift)}; found {x.shape[-1]}.")
        return self.speed * self.network(t, (x - self.shift) / self.scale, condition)
