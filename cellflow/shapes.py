"""Shapes of states and times: a state is ``(n, ...)``, a time is one number or ``(n,)``."""

import torch
from torch import Tensor


def per_sample(values: Tensor, x: Tensor) -> Tensor:
    """Reshape ``(n,)`` to ``(n, 1, ..., 1)``, so that it multiplies a state ``x`` of shape ``(n, ...)``.

    Examples
    --------
    >>> import torch
    >>> per_sample(torch.zeros(5), torch.zeros(5, 3, 8, 8)).shape
    torch.Size([5, 1, 1, 1])
    """
    return values.reshape(-1, *(1,) * (x.ndim - 1))


def time_of(t: float | Tensor, x: Tensor) -> Tensor:
    """Give every sample of ``x`` its time: ``t`` is one number or ``(n,)``, the result is ``(n,)``.

    Raises
    ------
    ValueError
        When ``t`` has neither one element nor one per sample.

    Examples
    --------
    >>> import torch
    >>> time_of(0.5, torch.zeros(3, 2))
    tensor([0.5000, 0.5000, 0.5000])
    """
    times = torch.as_tensor(t, dtype=x.dtype, device=x.device)
    if times.numel() == 1:
        return times.reshape(1).expand(x.shape[0])
    if times.shape != x.shape[:1]:
        message = f"Expected one time, or one for each of {x.shape[0]} samples; found shape {tuple(times.shape)}."
        raise ValueError(message)
    return times
