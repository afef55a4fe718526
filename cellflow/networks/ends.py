"""A bridge from a network that predicts the clean ends of its pairs, rather than the noise that is on them."""

from torch import Tensor, nn

from cellflow.fields import Field, Outputs
from cellflow.networks.embedding import check_inputs
from cellflow.networks.end_guess import EndGuess
from cellflow.paths import BrownianBridge
from cellflow.shapes import per_sample
from cellflow.signature import checked


@checked
class EndPoints(nn.Module):
    """Velocity and score drift of a Brownian bridge, from both ends of its pairs as a network predicts them.

    The network returns where a state came from and where it will go, ``x0`` and ``x1``, on average over all pairs that
    pass there. Forward in time the process drifts by ``(x1 - x) / (1 - t)``, backward by ``(x0 - x) / t``: velocity
    and score drift are half the difference and half the sum, whatever the scale of the noise.

    Learn it with `cellflow.objectives.EndPointMatching`. The last step of a simulation lands on the predicted end,
    without the noise of the state. A network that returns velocity and score (`Heads`) must predict that noise to
    remove it, which it cannot after short training: images come out grainy. In few dimensions, where noise is easy to
    predict, there is no gain.

    With a ``guess`` the network returns what this misses, in units of its error, and sees states of about unit
    variance: untrained, the field is that of the guess.

    Parameters
    ----------
    network
        A module called as ``network(t, x, condition)`` that returns both ends side by side, ``(n, 2 d)`` or ``2 c``
        channels: one that is built with ``heads=2``.
    guess
        Of images: what is known of both ends before any training; ``None`` for nothing.

    Raises
    ------
    ValueError
        When called, if the width of the network differs from that.

    Source
    ------
    Tong et al. 2024 (AISTATS), equations 9 and 10, solved for the ends; Peluchetti 2023, equation 11, for the drift
    towards a predicted end.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> field = EndPoints(cf.networks.UNet(3, width=8, multipliers=(1, 2), heads=2))
    >>> found = field(torch.full((5,), 0.5), torch.randn(5, 3, 8, 8))
    >>> found.velocity.shape, found.score_drift.shape
    (torch.Size([5, 3, 8, 8]), torch.Size([5, 3, 8, 8]))
    """

    def __init__(self, network: Field, guess: EndGuess | None = None) -> None:
        super().__init__()
        self.network, self.guess = network, guess

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Outputs:
        """Return velocity and score drift at times ``t`` ``(n,)`` and states ``x`` ``(n, d, ...)``.

        Of a flow map's two times ``(n, 2)`` the first is that of the state.
        """
        check_inputs(t, x, condition, x)
        t, x = (t, x) if self.guess is None else self.guess.widened(t, x)
        now = (t if t.ndim == 1 else t[:, 0]).clamp(BrownianBridge.margin, 1 - BrownianBridge.margin)
        x0, x1 = self._ends(t, now, x, condition)
        age = per_sample(now, x).to(x)
        onward, back = (x1 - x) / (1 - age), (x0 - x) / age
        return Outputs((onward - back) / 2, (onward + back) / 2)

    def _ends(self, t: Tensor, now: Tensor, x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        guess = None if self.guess is None else self.guess(now, x)
        whole = self.network(t, x if guess is None else guess.seen, condition)
        if not isinstance(whole, Tensor):
            raise TypeError(f"Expected a network that returns a tensor; found one that returns {type(whole).__name__}.")
        if whole.shape[1] != 2 * x.shape[1]:
            raise ValueError(
                f"Expected a network that returns both ends, (n, {2 * x.shape[1]}); found one that returns "
                f"{tuple(whole.shape)}. Build it with `heads=2`, as `cf.networks.UNet` takes it."
            )
        x0, x1 = whole.chunk(2, dim=1)
        return (x0, x1) if guess is None else (guess.x0 + guess.missed0 * x0, guess.x1 + guess.missed1 * x1)
