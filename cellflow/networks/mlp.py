"""The network for vectors."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cellflow.errors import unknown
from cellflow.networks.embedding import TimeEmbedding, check_inputs, require_sizes
from cellflow.signature import checked


@checked
class MLP(nn.Module):
    """A residual multi-layer perceptron; time and condition scale and shift every layer.

    The last layer starts at zero, so an untrained network is the zero field.

    Parameters
    ----------
    dim
        Width of the states.
    width
        Width of the hidden layers; ``None`` for 128, or twice that of the states where this is more.
    depth
        Number of residual blocks.
    condition_dim
        Width of the condition; 0 for none.
    harmonics
        Number of Fourier harmonics of time, see `TimeEmbedding`.
    heads
        Number of fields to return side by side, ``(n, heads * dim)``: see `Heads`.
    times
        Number of times that the network takes: 2 for a `FlowMap`.

    Raises
    ------
    ValueError
        When a size is too small.

    Examples
    --------
    >>> import torch
    >>> MLP(dim=2)(torch.rand(5), torch.randn(5, 2)).shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        dim: int,
        *,
        width: int | None = None,
        depth: int = 3,
        condition_dim: int = 0,
        harmonics: int = 4,
        heads: int = 1,
        times: int = 1,
    ) -> None:
        super().__init__()
        self.dim, self.condition_dim = dim, condition_dim
        width = max(128, 2 * dim) if width is None else width
        require_sizes(dim=dim, width=width, heads=heads)
        require_sizes(0, depth=depth, condition_dim=condition_dim)
        context = max(16, width // 4)
        self.time = TimeEmbedding(context, harmonics=harmonics, times=times)
        self.condition = nn.Linear(condition_dim, context, bias=False) if condition_dim else None
        self.first = nn.Linear(dim, width)
        self.blocks = nn.ModuleList(_Block(width, context) for _ in range(depth))
        self.last = nn.Linear(width, heads * dim)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the field at times ``t`` ``(n,)``, states ``x`` ``(n, dim)``, condition ``(n, condition_dim)``.

        Raises
        ------
        ValueError
            When a state or a condition has another width than the network's.
        """
        check_inputs(t, x, condition, self.first.weight)
        self._check(x, condition)
        context = self.time(t)
        if self.condition is not None and condition is not None:
            context = context + self.condition(condition)
        context = nn.functional.silu(context)
        hidden = self.first(x)
        for block in self.blocks:
            hidden = block(hidden, context)
        found: Tensor = self.last(nn.functional.silu(hidden))
        return found

    def _check(self, x: Tensor, condition: Tensor | None) -> None:
        found = 0 if condition is None else condition.shape[-1]
        if x.ndim != 2 or (condition is not None and condition.ndim != 2):
            shapes = tuple(x.shape), None if condition is None else tuple(condition.shape)
            raise ValueError(f"Expected states (n, {self.dim}) and a condition (n, k) or None; found {shapes}.")
        if found != self.condition_dim:
            raise ValueError(f"Expected a condition of width {self.condition_dim}; found {found}. See `condition_dim`.")
        if x.shape[-1] != self.dim:
            raise ValueError(f"Expected states of width {self.dim}; found {x.shape[-1]}. See `dim`.")


class _Block(nn.Module):
    """``h + W2 silu(W1 h * (1 + scale) + shift)``, scale and shift read off the context."""

    def __init__(self, width: int, context: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)
        self.modulation = nn.Linear(context, 2 * width)

    def forward(self, hidden: Tensor, context: Tensor) -> Tensor:
        scale, shift = self.modulation(context).chunk(2, dim=1)
        inner = self.inner(nn.functional.silu(hidden))
        found: Tensor = hidden + self.outer(nn.functional.silu(torch.addcmul(shift + inner, inner, scale)))
        return found


NETWORKS: dict[str, Callable[..., nn.Module]] = {"mlp": MLP}
"""Networks for vectors by name: each takes the width of the states."""


def resolve(network: Callable[..., nn.Module] | str) -> Callable[..., nn.Module]:
    """Return the factory itself, or the one of that name in ``NETWORKS``.

    Raises
    ------
    ValueError
        When no network has that name.
    TypeError
        When it is a network already: a fit must start from a fresh one.

    Examples
    --------
    >>> resolve("mlp")(3).dim
    3
    """
    if isinstance(network, nn.Module):
        raise TypeError(
            f"Expected a callable that makes a network; found one. Pass `lambda dim: {type(network).__name__}(...)`."
        )
    if isinstance(network, str):
        if network not in NETWORKS:
            hint = "Or pass a callable from the width of the states to a module, such as `partial(MLP, width=256)`."
            raise ValueError(f"{unknown('network', network, NETWORKS)} {hint}")
        return NETWORKS[network]
    if not callable(network):
        raise TypeError(f"Expected `network` to be a name, or a callable that makes one; found {network!r}.")
    return network
