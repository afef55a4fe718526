"""Two-time flow maps: networks that jump from any time to any other."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from cellflow.errors import unknown
from cellflow.networks.embedding import TimeEmbedding
from cellflow.shapes import per_sample

SPANS = ("forward", "both", "end")
"""Which jumps a map knows: to any later time, to any time, or to time 1 only."""


class FlowMap(nn.Module):
    """The map ``X(s, t, x) = x + (t - s) v(s, t, x)``, which carries a state from time ``s`` to time ``t`` at once.

    It is the identity at ``s = t``, whatever the weights are; there ``v`` is the velocity of the flow. So a flow map is
    a field as well: called with one time for each sample it returns the velocity, called with two, ``(n, 2)``, the mean
    velocity between them.

    Parameters
    ----------
    network
        A network of two times, such as ``MLP(dim, times=2)`` or ``UNet(channels, times=2)``: it sees when a jump begins
        and how long it is.
    spans
        Which jumps are learned: ``"forward"`` to any later time, ``"both"`` directions, or ``"end"``, to time 1 only (a
        consistency model). Objectives draw such jumps, and no others can be asked for.

    Raises
    ------
    ValueError
        When the network sees one time only, or for unknown spans.

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
    """

    def __init__(self, network: nn.Module, *, spans: str = "forward") -> None:
        super().__init__()
        if spans not in SPANS:
            raise ValueError(unknown("spans", spans, SPANS))
        if not any(getattr(module, "times", 1) == 2 for module in network.modules()):
            raise ValueError(
                f"Expected a network that sees two times; {type(network).__name__} sees one. Build it with `times=2` "
                "(a network of your own: take `t` of shape (n, 2) and set `self.times = 2`), or start from a fitted "
                "field with `FlowMap.of(field)`."
            )
        self.network, self.spans = network, spans

    @classmethod
    def of(cls, field: nn.Module, *, spans: str = "forward") -> "FlowMap":
        """Return a map that starts from a copy of a velocity field: its jumps are Euler steps of the flow at first.

        Every `TimeEmbedding` in the field is given a second time, with weights of zero.

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
        return cls(network, spans=spans)

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the velocity at times ``t`` ``(n,)``, or the mean velocity between the two times of ``t`` ``(n, 2)``.

        States are ``(n, ...)``; the result is shaped as they are.
        """
        begin, end = t.unbind(1) if t.ndim == 2 else (t, t)
        found: Tensor = self.network(torch.stack([begin, end - begin], dim=1), x, condition)
        return found

    def jump(self, s: Tensor, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return where states ``x`` ``(n, ...)`` at times ``s`` ``(n,)`` are at times ``t`` ``(n,)``.

        Nothing is checked: `cellflow.integrate.jump` knows which jumps were learned.
        """
        found: Tensor = x + per_sample(t - s, x) * self(torch.stack([s, t], dim=1), x, condition)
        return found
