"""Fields that know more than a velocity, a score or a growth rate: one network for both, or one for each."""

from torch import Tensor, nn

from cellflow.fields import GrowthHeads, Heads


class TwoHeads(nn.Module):
    """One network for velocity and score: its output, twice as wide as the state, is cut in two.

    Parameters
    ----------
    network
        A module called as ``network(t, x, condition)`` that returns ``(n, 2 d)`` (or ``2 c`` channels).

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> field = TwoHeads(cf.networks.MLP(dim=3, width=16, heads=2))
    >>> field(torch.zeros(5), torch.zeros(5, 3)).score_drift.shape
    torch.Size([5, 3])
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Heads:
        """Return both heads at times ``t`` ``(n,)`` and states ``x`` ``(n, d, ...)``."""
        return Heads(*_halves(self.network(t, x, condition), x))


class TwoNetworks(nn.Module):
    """A network for the velocity and another for the score.

    Parameters
    ----------
    velocity, score_drift
        Modules called as ``network(t, x, condition)`` that return tensors shaped as the state.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> field = TwoNetworks(cf.networks.MLP(dim=3, width=16), cf.networks.MLP(dim=3, width=16))
    >>> field(torch.zeros(5), torch.zeros(5, 3)).velocity.shape
    torch.Size([5, 3])
    """

    def __init__(self, velocity: nn.Module, score_drift: nn.Module) -> None:
        super().__init__()
        self.velocity, self.score_drift = velocity, score_drift

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Heads:
        """Return both heads at times ``t`` ``(n,)`` and states ``x`` ``(n, d, ...)``."""
        return Heads(self.velocity(t, x, condition), self.score_drift(t, x, condition))


class GrowthHead(nn.Module):
    """One network for velocity and growth rate: its output, twice as wide as the state, is cut in two.

    The growth rate is the mean of the second half. So any network that can serve `TwoHeads` can serve here.

    Parameters
    ----------
    network
        A module called as ``network(t, x, condition)`` that returns ``(n, 2 d)`` (or ``2 c`` channels).

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> field = GrowthHead(cf.networks.MLP(dim=3, width=16, heads=2))
    >>> field(torch.zeros(5), torch.zeros(5, 3)).growth.shape
    torch.Size([5])
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> GrowthHeads:
        """Return velocity and growth at times ``t`` ``(n,)`` and states ``x`` ``(n, d, ...)``."""
        velocity, rest = _halves(self.network(t, x, condition), x)
        return GrowthHeads(velocity, rest.flatten(1).mean(dim=1))


class GrowthNetwork(nn.Module):
    """A network for the velocity and another for the growth rate.

    Parameters
    ----------
    velocity
        A module called as ``network(t, x, condition)`` that returns a tensor shaped as the state.
    growth
        A module called in the same way; the growth rate is the mean of what it returns for each state.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> field = GrowthNetwork(cf.networks.MLP(dim=3, width=16), cf.networks.MLP(dim=3, width=16))
    >>> field(torch.zeros(5), torch.zeros(5, 3)).growth.shape
    torch.Size([5])
    """

    def __init__(self, velocity: nn.Module, growth: nn.Module) -> None:
        super().__init__()
        self.velocity, self.growth = velocity, growth

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> GrowthHeads:
        """Return velocity and growth at times ``t`` ``(n,)`` and states ``x`` ``(n, d, ...)``."""
        return GrowthHeads(self.velocity(t, x, condition), self.growth(t, x, condition).flatten(1).mean(dim=1))


def _halves(both: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    if both.shape[1] != 2 * x.shape[1]:
        raise ValueError(
            f"Expected a network that returns two heads, (n, {2 * x.shape[1]}); found {tuple(both.shape)}. "
            "`cf.networks.MLP(..., heads=2)` does."
        )
    first, second = both.chunk(2, dim=1)
    return first, second
