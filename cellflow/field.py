"""What a field is: any callable of time, state and condition."""

from typing import Protocol

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
