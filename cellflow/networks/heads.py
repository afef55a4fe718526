"""Fields with two heads, velocity and score: one network for both, or one for each."""

from torch import Tensor, nn

from cellflow.field import Heads


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
        both = self.network(t, x, condition)
        if both.shape[1] != 2 * x.shape[1]:
            raise ValueError(
                f"Expected a network that returns two heads, (n, {2 * x.shape[1]}); found {tuple(both.shape)}. "
                "`cf.networks.MLP(..., heads=2)` does."
            )
        return Heads(*both.chunk(2, dim=1))


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
