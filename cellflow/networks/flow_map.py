"""Two-time flow maps: networks that jump from any time to any other."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from cellflow.errors import unknown
from cellflow.fields import Outputs, outputs
from cellflow.networks.embedding import TimeEmbedding, check_inputs
from cellflow.shapes import per_sample
from cellflow.signature import checked

SPANS = ("forward", "both", "end")
"""Which jumps a map knows: to any later time, to any time, or to time 1 only."""


@checked
class FlowMap(nn.Module):
    """The map ``X(s, t, x) = x + (t - s) v(s, t, x)``, which carries a state from time ``s`` to time ``t`` at once.

    It is the identity at ``s = t``, whatever the weights are; there ``v`` is the velocity of the flow. So a flow map is
    a field as well: called with one time for each sample it returns the velocity, called with two, ``(n, 2)``, the mean
    velocity between them.

    With ``growth`` the log of a particle's weight changes by ``(t - s) g(s, t, x)`` in a jump: not at all at ``s = t``,
    where ``g`` is the growth rate. Both are then returned, as `cellflow.fields.Outputs`. In two jumps the changes add
    up, the second one from where the first one ends.

    Parameters
    ----------
    network
        A network of two times, such as ``MLP(dim, times=2)`` or ``UNet(channels, times=2)``: it sees when a jump begins
        and how long it is.
    spans
        Which jumps are learned: ``"forward"`` to any later time, ``"both"`` directions, or ``"end"``, to time 1 only (a
        consistency model). Objectives draw such jumps, and only these can be requested.
    growth
        Whether the map also has a growth rate, which the network then returns too: a `Heads` of a
        network of two times. Objectives learn it if it is there.

    Raises
    ------
    ValueError
        When the network sees only one time, or for unknown spans.

    Source
    ------
    Boffi, Albergo and Vanden-Eijnden 2024 and 2025 (flow map matching; how to build a consistency model).

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> flow_map = FlowMap(cf.networks.MLP(dim=2, times=2))
    >>> x = torch.randn(5, 2)
    >>> torch.equal(flow_map.jump(torch.full((5,), 0.3), torch.full((5,), 0.3), x), x)
    True
    >>> growing = FlowMap(cf.networks.Heads(cf.networks.MLP(dim=2, heads=2, times=2), growth="shared"), growth=True)
    >>> growing(torch.rand(5, 2), x).growth.shape
    torch.Size([5])
    """

    def __init__(self, network: nn.Module, *, spans: str = "forward", growth: bool = False) -> None:
        super().__init__()
        if spans not in SPANS:
            raise ValueError(unknown("spans", spans, SPANS))
        if not any(getattr(module, "times", 1) == 2 for module in network.modules()):
            raise ValueError(
                f"Expected a network that sees two times; {type(network).__name__} sees one. Build it with `times=2` "
                "(a network of your own: take `t` of shape (n, 2) and set `self.times = 2`), or start from a fitted "
                "field with `FlowMap.of(field)`."
            )
        self.network, self.spans, self.growth = network, spans, growth

    @classmethod
    @checked
    def of(cls, field: nn.Module, *, spans: str = "forward", growth: bool = False) -> "FlowMap":
        """Return a map that starts from a copy of a velocity field: its initial jumps are Euler steps of the flow.

        Every `TimeEmbedding` in the field is given a second time, with weights of zero. With ``growth`` the map starts
        from the growth rate of the field too, which must return one.

        Raises
        ------
        ValueError
            When the field holds no `TimeEmbedding`, so that there is no place for a second time.

        Examples
        --------
        >>> import torch, cellflow as cf
        >>> field, x, s, t = cf.networks.MLP(dim=2), torch.randn(5, 2), torch.zeros(5), torch.ones(5)
        >>> torch.allclose(FlowMap.of(field).jump(s, t, x), x + field(s, x))
        True
        """
        network = deepcopy(field)
        if not any(isinstance(module, TimeEmbedding) for module in network.modules()):
            raise ValueError(
                f"Found no `TimeEmbedding` in {type(field).__name__}, so it cannot be given a second time. Build a "
                "network with `times=2`, wrap it in `FlowMap`, and pass the field to the objective as its `teacher`."
            )
        for parent in list(network.modules()):
            for name, child in parent.named_children():
                if isinstance(child, TimeEmbedding):
                    setattr(parent, name, child.with_second_time())
        return cls(network, spans=spans, growth=growth)

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor | Outputs:
        """Return the velocity at times ``t`` ``(n,)``, or the mean velocity between the two times of ``t`` ``(n, 2)``.

        States are ``(n, ...)``; the result is shaped as they are. With growth: `Outputs`, with the mean rate too.
        """
        check_inputs(t, x, condition, x)
        if t.ndim == 2 and t.shape[1] != 2:
            raise ValueError(
                f"Expected times (n,), or (n, 2) for where a step begins and ends; found {tuple(t.shape)}."
            )
        begin, end = t.unbind(1) if t.ndim == 2 else (t, t)
        known = outputs(self.network(torch.stack([begin, end - begin], dim=1), x, condition), growth=self.growth)
        return Outputs(known.velocity, growth=known.growth) if self.growth else known.velocity

    @checked
    def jump(self, s: Tensor, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return where states ``x`` ``(n, ...)`` at times ``s`` ``(n,)`` are at times ``t`` ``(n,)``.

        Nothing is checked here: `cellflow.integrate.jump` knows which jumps were learned.
        """
        velocity = outputs(self(torch.stack([s, t], dim=1), x, condition)).velocity
        return x + per_sample(t - s, x) * velocity
