"""A field that knows more than a velocity: from one network, or from one for each output."""

from torch import Tensor, nn

from cellflow.fields import Outputs
from cellflow.signature import checked_but

SHARED = "shared"
"""An output that is cut from what the network of the velocity returns."""


@checked_but("velocity")
class Heads(nn.Module):
    """A velocity, and with it a score, a growth rate, or both.

    Each of the two has its own network, or is a slice of the output of the velocity network, which is then several
    times as wide as the state: velocity, score and growth side by side, in this order.

    Parameters
    ----------
    velocity
        A module called as ``network(t, x, condition)``, that returns ``(n, k d)`` (or ``k c`` channels): ``k`` is 1,
        and one more for each output that shares it.
    score
        ``"shared"``, or a module that returns the score drift, shaped as the state (see `cellflow.fields.Outputs`);
        ``None`` for no score.
    growth
        ``"shared"``, or a module; the growth rate is the mean of what it returns for each state. ``None`` for none.

    Raises
    ------
    ValueError
        When an output is neither a module nor ``"shared"``; when called, if the width of the network differs from that.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> field = Heads(cf.networks.MLP(dim=3, width=16, heads=3), score="shared", growth="shared")
    >>> found = field(torch.zeros(5), torch.zeros(5, 3))
    >>> found.velocity.shape, found.score_drift.shape, found.growth.shape
    (torch.Size([5, 3]), torch.Size([5, 3]), torch.Size([5]))
    >>> apart = Heads(cf.networks.MLP(dim=3, width=16), growth=cf.networks.MLP(dim=3, width=16))
    >>> apart(torch.zeros(5), torch.zeros(5, 3)).score_drift is None
    True
    """

    def __init__(
        self, velocity: nn.Module, *, score: nn.Module | str | None = None, growth: nn.Module | str | None = None
    ) -> None:
        super().__init__()
        if not callable(velocity) or isinstance(velocity, type):
            raise TypeError(f"Expected `velocity` to be a module instance; found {velocity!r:.60}.")
        self.velocity = velocity
        self._shared: list[str] = []
        for name, head in (("score", score), ("growth", growth)):
            if isinstance(head, str):
                if head != SHARED:
                    raise ValueError(f"Expected `{name}` to be a module, {SHARED!r} or None; found {head!r}.")
                self._shared.append(name)
            else:
                setattr(self, name, head)

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Outputs:
        """Return all outputs at times ``t`` ``(n,)`` and states ``x`` ``(n, d, ...)``."""
        velocity, *rest = self._cut(self.velocity(t, x, condition), x)
        found = dict(zip(self._shared, rest, strict=True))
        for name in ("score", "growth"):
            network = getattr(self, name, None)
            if network is not None:
                found[name] = network(t, x, condition)
        growth = found.get("growth")
        return Outputs(velocity, found.get("score"), None if growth is None else growth.flatten(1).mean(dim=1))

    def _cut(self, whole: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        if not isinstance(whole, Tensor):
            raise TypeError(f"Expected a network that returns a tensor; found one that returns {type(whole).__name__}.")
        heads = 1 + len(self._shared)
        if whole.shape[1] != heads * x.shape[1]:
            raise ValueError(
                f"Expected a network of {heads} head{'s'[: heads - 1]}, (n, {heads * x.shape[1]}); found one that "
                f"returns {tuple(whole.shape)}. Build it with `heads={heads}`, as `cf.networks.MLP` takes it."
            )
        return whole.chunk(heads, dim=1)
