"""How a network sees time."""

from math import pi

import torch
from torch import Tensor, nn


class TimeEmbedding(nn.Module):
    """Time, its first harmonics, and a linear map of both.

    Harmonics up to order ``k`` resolve about ``1 / k`` of the time range: few of them keep a field smooth between
    snapshots, where nothing was measured.

    Parameters
    ----------
    width
        Size of the embedding.
    harmonics
        How many sines and cosines of ``k pi t`` are taken.

    Examples
    --------
    >>> import torch
    >>> TimeEmbedding(16)(torch.rand(5)).shape
    torch.Size([5, 16])
    """

    orders: Tensor

    def __init__(self, width: int, *, harmonics: int = 4) -> None:
        super().__init__()
        self.register_buffer("orders", pi * torch.arange(1, harmonics + 1), persistent=False)
        self.linear = nn.Linear(1 + 2 * harmonics, width)

    def forward(self, t: Tensor) -> Tensor:
        """Embed times ``(n,)`` as ``(n, width)``."""
        phase = t[:, None] * self.orders.to(t.dtype)
        return self.linear(torch.cat([t[:, None], phase.sin(), phase.cos()], dim=1))
