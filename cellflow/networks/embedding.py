"""The embedding of time."""

from copy import deepcopy
from math import pi

import torch
from torch import Tensor, nn

from cellflow.signature import checked


def check_inputs(t: Tensor, x: Tensor, condition: Tensor | None, weight: Tensor) -> None:
    """Raise unless a network gets floating-point tensors of one length, in the precision of its weights.

    Raises
    ------
    TypeError
        When one of them is not a floating-point tensor.
    ValueError
        When there is not a time, and a condition, for each state.
    """
    for name, part in (("x", x), ("t", t), ("condition", condition)):
        if part is None and name == "condition":
            continue
        if (
            not isinstance(part, Tensor)
            or not part.is_floating_point()
            or not part.ndim
            or part.layout != torch.strided
        ):
            found = f"{tuple(part.shape)} of {part.dtype}" if isinstance(part, Tensor) else type(part).__name__
            raise TypeError(f"Expected `{name}` as a dense floating-point tensor (n, ...); found {found}.")
        if len(part) not in (1, len(x)) or part.dtype != x.dtype:
            raise ValueError(
                f"Expected a `{name}` for each of {len(x)} states, of {x.dtype} as the states; found "
                f"{tuple(part.shape)} of {part.dtype}."
            )
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
        raise TypeError(f"Expected states of {weight.dtype}, as the weights of the network; found {x.dtype}.")


@checked
class TimeEmbedding(nn.Module):
    """Time, its first harmonics, and a linear map of both.

    Harmonics up to order ``k`` resolve about ``1 / k`` of the time range: a small number keeps a field smooth between
    snapshots, where nothing was measured.

    Parameters
    ----------
    width
        Size of the embedding.
    harmonics
        Number of sines and cosines of ``k pi t``.
    times
        Number of times: 2 for a flow map, which sees when a jump begins and how long it is.

    Examples
    --------
    >>> import torch
    >>> TimeEmbedding(16)(torch.rand(5)).shape
    torch.Size([5, 16])
    """

    orders: Tensor

    def __init__(self, width: int, *, harmonics: int = 4, times: int = 1) -> None:
        super().__init__()
        require_sizes(width=width, times=times)
        require_sizes(0, harmonics=harmonics)
        self.times = times
        self.register_buffer("orders", pi * torch.arange(1, harmonics + 1), persistent=False)
        self.linear = nn.Linear(times * (1 + 2 * harmonics), width)

    def forward(self, t: Tensor) -> Tensor:
        """Embed times ``(n,)``, or ``(n, times)`` where there are several, as ``(n, width)``.

        Raises
        ------
        ValueError
            When there are more or fewer times than the network has inputs for.
        """
        if not isinstance(t, Tensor) or not t.is_floating_point() or not t.ndim or t.layout != torch.strided:
            kind = f"{tuple(t.shape)} of {t.dtype}" if isinstance(t, Tensor) else type(t).__name__
            raise TypeError(f"Expected times `t` as a floating-point tensor, one for each sample; found {kind}.")
        if t.dtype != self.linear.weight.dtype and not torch.is_autocast_enabled(t.device.type):
            raise TypeError(f"Expected times of {self.linear.weight.dtype}, as the weights; found {t.dtype}.")
        if t.shape[1:].numel() != self.times:
            raise ValueError(
                f"Expected {self.times} time(s) for each sample; found times of shape {tuple(t.shape)}. Build the "
                "network with `times=2` for a flow map, and call it through `cf.networks.FlowMap`."
            )
        each = t.reshape(len(t), self.times, 1)
        phase = each * self.orders.to(t.dtype)
        found: Tensor = self.linear(torch.cat([each, phase.sin(), phase.cos()], dim=2).flatten(1))
        return found

    def with_second_time(self) -> "TimeEmbedding":
        """Return a copy that takes a second time, and does not react to it yet.

        Raises
        ------
        ValueError
            When there is a second time already.

        Examples
        --------
        >>> import torch
        >>> one, t = TimeEmbedding(16), torch.rand(5)
        >>> torch.allclose(one.with_second_time()(torch.stack([t, torch.rand(5)], dim=1)), one(t), atol=1e-6)
        True
        """
        if self.times != 1:
            raise ValueError(f"Expected an embedding of one time; found one of {self.times}.")
        weight, bias = self.linear.weight, self.linear.bias
        two = deepcopy(self)
        two.times = 2
        two.linear = nn.utils.skip_init(  # no first weights are drawn, from the global random state, to be overwritten
            nn.Linear, 2 * weight.shape[1], len(bias), device=weight.device, dtype=weight.dtype
        )
        with torch.no_grad():
            two.linear.weight.copy_(torch.cat([weight, torch.zeros_like(weight)], dim=1))
            two.linear.bias.copy_(bias)
        return two


def require_sizes(least: int = 1, /, **sizes: int) -> None:
    """Raise for a size of a network that is too small.

    Raises
    ------
    ValueError
        With the size.

    Examples
    --------
    >>> require_sizes(0, depth=-1)
    Traceback (most recent call last):
    ValueError: Expected `depth` of at least 0; found -1.
    """
    for name, size in sizes.items():
        if size < least:
            raise ValueError(f"Expected `{name}` of at least {least}; found {size}.")
