"""What the network for images is made of: stages of a residual block and attention, and changes of resolution.

Every layer works on channels-last images as well as on others, and differentiates in forward mode.
"""

from math import gcd

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad


class Stage(nn.Module):
    """A residual block, followed by attention where there is any.

    Parameters
    ----------
    inputs, outputs
        Channels of the input and of the output.
    context
        Width of the embedding of time and condition.
    dropout
        Fraction of the inner channels that is dropped in training.
    head_dim
        Maximum number of channels per attention head; ``None`` for no attention.

    Examples
    --------
    >>> import torch
    >>> Stage(8, 16, context=4, head_dim=8)(torch.zeros(2, 8, 6, 6), torch.zeros(2, 4)).shape
    torch.Size([2, 16, 6, 6])
    """

    def __init__(
        self, inputs: int, outputs: int, *, context: int, dropout: float = 0.0, head_dim: int | None = None
    ) -> None:
        super().__init__()
        self.block = ResidualBlock(inputs, outputs, context=context, dropout=dropout)
        self.attention = None if head_dim is None else Attention(outputs, head_dim=head_dim)

    def forward(self, hidden: Tensor, context: Tensor) -> Tensor:
        """Return ``(n, outputs, height, width)`` for ``(n, inputs, height, width)`` and a context ``(n, context)``."""
        hidden = self.block(hidden, context)
        return hidden if self.attention is None else self.attention(hidden)


class ResidualBlock(nn.Module):
    """Two convolutions with a skip connection; the context scales and shifts between them.

    The second convolution starts at zero: an untrained block is the identity.

    Parameters
    ----------
    inputs, outputs, context, dropout
        As for `Stage`.

    Source
    ------
    Dhariwal and Nichol 2021, section 3 (adaptive group normalisation).

    Examples
    --------
    >>> import torch
    >>> x = torch.rand(2, 8, 6, 6)
    >>> torch.equal(ResidualBlock(8, 8, context=4)(x, torch.zeros(2, 4)), x)
    True
    """

    def __init__(self, inputs: int, outputs: int, *, context: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.before, self.inner = Norm(inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.between, self.outer = Norm(outputs, affine=False), zeroed(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.modulation = nn.Linear(context, 2 * outputs)
        self.dropout = nn.Dropout(dropout)
        self.past = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, hidden: Tensor, context: Tensor) -> Tensor:
        """Return ``(n, outputs, height, width)``."""
        inner = self.inner(nn.functional.silu(self.before(hidden)))
        scale, shift = self.modulation(context)[:, :, None, None].chunk(2, dim=1)
        inner = nn.functional.silu(torch.addcmul(shift, self.between(inner), 1 + scale))
        found: Tensor = self.past(hidden) + self.outer(self.dropout(inner))
        return found


class Attention(nn.Module):
    """Self-attention between all pixels, with weights of zero at first.

    torch's fused attention has no forward mode: under a forward-mode derivative, which flow maps need, it is computed
    as two matrix products.

    Parameters
    ----------
    channels
        Channels of the image.
    head_dim
        Maximum number of channels per head.

    Examples
    --------
    >>> import torch
    >>> x = torch.rand(2, 8, 6, 6)
    >>> torch.equal(Attention(8, head_dim=4)(x), x)
    True
    """

    def __init__(self, channels: int, *, head_dim: int) -> None:
        super().__init__()
        self.heads = channels // gcd(channels, head_dim)
        self.norm = Norm(channels)
        self.looks, self.answer = nn.Linear(channels, 3 * channels), zeroed(nn.Linear(channels, channels))

    def forward(self, hidden: Tensor) -> Tensor:
        """Return an image of the same shape."""
        pixels = self.norm(hidden).flatten(2).transpose(1, 2)  # (n, height * width, channels)
        looks = self.looks(pixels).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = looks.unbind(0)  # (n, heads, height * width, head_dim) each
        if in_forward_mode(looks):
            seen = torch.softmax(query @ key.transpose(2, 3) / query.shape[3] ** 0.5, dim=3) @ value
        else:
            seen = nn.functional.scaled_dot_product_attention(query, key, value)
        answer = self.answer(seen.transpose(1, 2).flatten(2))
        found: Tensor = hidden + answer.transpose(1, 2).unflatten(2, hidden.shape[2:])
        return found


class Norm(nn.GroupNorm):
    """Normalisation over groups of at least four channels, at most 32 groups.

    Parameters
    ----------
    channels
        Channels of the image.
    affine
        Whether channels are scaled and shifted afterwards.

    Examples
    --------
    >>> Norm(48).num_groups
    8
    """

    def __init__(self, channels: int, *, affine: bool = True) -> None:
        groups = gcd(channels, 32)
        while groups > 1 and channels < 4 * groups:
            groups //= 2
        super().__init__(groups, channels, affine=affine)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return an image of the same shape."""
        if in_forward_mode(hidden):
            # torch's forward mode of this layer reads neither channels-last images nor two precisions at once.
            hidden = hidden.contiguous().to(hidden.dtype if self.weight is None else self.weight.dtype)
        return super().forward(hidden)


class Downsample(nn.Module):
    """Half the resolution, by a convolution of stride 2.

    Examples
    --------
    >>> import torch
    >>> Downsample(8)(torch.zeros(2, 8, 6, 6)).shape
    torch.Size([2, 8, 3, 3])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return an image of half the height and half the width."""
        found: Tensor = self.convolution(hidden)
        return found


class Upsample(nn.Module):
    """Twice the resolution, by repeated pixels and a convolution.

    Examples
    --------
    >>> import torch
    >>> Upsample(8)(torch.zeros(2, 8, 3, 3)).shape
    torch.Size([2, 8, 6, 6])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return an image of twice the height and twice the width."""
        found: Tensor = self.convolution(nn.functional.interpolate(hidden, scale_factor=2.0, mode="nearest"))
        return found


def zeroed(layer: nn.Module) -> nn.Module:
    """Set the weights of a layer to zero, and return it."""
    for weight in layer.parameters():
        nn.init.zeros_(weight)
    return layer


def in_forward_mode(x: Tensor) -> bool:
    """Return whether ``x`` carries a forward-mode derivative.

    Examples
    --------
    >>> import torch
    >>> seen = []
    >>> one = torch.ones(1)
    >>> _ = torch.func.jvp(lambda x: (seen.append(in_forward_mode(x)), x)[1], (one,), (one,))
    >>> seen, in_forward_mode(one)
    ([True], False)
    """
    if torch.compiler.is_compiling():
        return False
    try:
        return forward_ad.unpack_dual(x).tangent is not None
    except RuntimeError:  # the level, one for all threads, was that of another thread, which has just left it
        return False
