"""Fields of treatments: what they displace all cells by, and a network on how cells differ in it."""

import torch
from torch import Tensor, nn

from cellflow.fields import Field, Outputs, outputs
from cellflow.networks.additive import AdditiveShift

SAME = 1 - 1e-6
"""The cosine of the angle between two treatments from which on they are the same one, at whatever dose."""


class Treated(nn.Module):
    r"""A field that treatments move cells by, and under which the control stays where it is.

    .. math::

        v(t, x, c) = \sum_q s_q \, \mathrm{shift}_q(c_q) + \bar s \, \bar r \, d(t, x, c'), \quad
        d = a(c) \, N(t, x, c), \quad a(c) = \min(1, \max_q |c_q| / \rho), \quad c'_q = c_q \min(1, s_q / \bar s)

    with additive effects of the treatments, which are not trained by gradient descent, and a network N whose part grows
    from 0 with the amount, so that a dose between 0 and a measured one moves cells part of the way there. The shares s,
    of the whole effect, and r, of its differences between cells, are those confirmed on held-out cells, see
    `cellflow.training.effects`. Bars are means over the treatments weighted by their remaining amounts, ``s_q |c_q|``:
    a treatment with share 0 does not affect the others. With r = 0 this is a mean shift, and with s = 0 no change.
    Measured combinations, or vectors, have their own shares if set by `keep`. With a single treatment, the network
    learns its whole effect, ``whole``, and d is the difference from the mean shift: a constant says nothing about cells
    that respond differently from those of the fit.

    Parameters
    ----------
    network
        Any field of the whole condition; scores and growth that it also returns stay as they are.
    shift
        The additive effects; the first entries of a condition, as many as these are wide, are its treatments.
    reach
        The amount from which on the network counts in full.
    whole
        Whether the network learns the whole displacement, or only what the additive effects leave.
    seen
        How many treatments have their own shares.

    Attributes
    ----------
    share, own
        The shares s and r of each treatment ``(p,)``, 1 until they are set.
    seen, kept
        Treatments with their own shares, as vectors of length 1 ``(k, p)``, and these shares ``(k, 2)``.

    Examples
    --------
    >>> import cellflow as cf
    >>> shift = AdditiveShift(width=2, dim=1)
    >>> shift.line.copy_(torch.tensor([[3.0], [4.0]]))
    tensor([[3.],
            [4.]])
    >>> field = Treated(cf.networks.MLP(1, condition_dim=2), shift)
    >>> conditions = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    >>> field(torch.zeros(3), torch.zeros(3, 1), conditions).flatten().tolist()
    [0.0, 3.0, 7.0]
    >>> field.share.copy_(torch.tensor([1.0, 0.0]))
    tensor([1., 0.])
    >>> field(torch.zeros(3), torch.zeros(3, 1), conditions).flatten().tolist()
    [0.0, 3.0, 3.0]
    """

    reach: Tensor
    share: Tensor
    own: Tensor
    whole: Tensor
    seen: Tensor
    kept: Tensor

    def __init__(
        self, network: Field, shift: AdditiveShift, *, reach: float = 1.0, whole: bool = False, seen: int = 0
    ) -> None:
        super().__init__()
        if not reach > 0:
            raise ValueError(f"Expected reach > 0; found {reach}.")
        self.network, self.shift = network, shift
        self.register_buffer("reach", torch.full((), float(reach)))
        self.register_buffer("whole", torch.full((), float(whole)))
        for name in ("share", "own"):
            self.register_buffer(name, torch.ones(len(shift.line)))
        self.register_buffer("seen", torch.zeros(seen, len(shift.line)))
        self.register_buffer("kept", torch.ones(seen, 2))

    def keep(self, treatments: Tensor, kept: Tensor) -> None:
        """Give treatments ``(k, p)`` their own shares s and r ``(k, 2)``, at any dose; earlier ones are replaced."""
        self.seen, self.kept = nn.functional.normalize(treatments, dim=1).to(self.share), kept.to(self.share)

    def shares(self, effect: Tensor) -> tuple[Tensor, Tensor]:
        """Return the shares s and r of each term of treatments ``(n, p)``, of the same shape.

        Examples
        --------
        >>> field = Treated(torch.nn.Identity(), AdditiveShift(width=2, dim=1))
        >>> field.keep(torch.tensor([[1.0, 1.0]]), torch.tensor([[0.5, 0.0]]))
        >>> field.shares(torch.tensor([[1.0, 0.0], [3.0, 3.0]]))[0].tolist()
        [[1.0, 1.0], [0.5, 0.5]]
        """
        share, own = (each.expand(len(effect), -1) for each in (self.share, self.own))
        if not len(self.seen):
            return share, own
        close, row = (nn.functional.normalize(effect, dim=1) @ self.seen.T).max(dim=1, keepdim=True)
        known = close > SAME
        share, own = (
            torch.where(known, each, other)
            for each, other in zip(self.kept[row.squeeze(1)].split(1, dim=1), (share, own), strict=True)
        )
        return share, own

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor | Outputs:
        """Return the field at times ``t`` ``(n,)`` and states ``x`` ``(n, d)`` under conditions ``(n, k)``.

        Raises
        ------
        ValueError
            When there is no condition, or one narrower than the treatments.
        """
        width = len(self.share)
        if condition is None or condition.ndim != 2 or condition.shape[1] < width:
            found = None if condition is None else tuple(condition.shape)
            raise ValueError(f"Expected a condition (n, k) with k >= {width}, treatments first; found {found}.")
        effect = condition[:, :width]
        shares, owns = self.shares(effect)
        share, own, told = _told(effect, shares, owns)
        found = self.network(t, x, torch.cat([told, condition[:, width:]], dim=1))
        part = (told.abs().amax(dim=1, keepdim=True) / self.reach).clamp(max=1)
        apart = part * outputs(found).velocity - self.whole * self.shift(told)
        velocity = self.shift(effect, shares) + share * own * apart
        return velocity if isinstance(found, Tensor) else outputs(found)._replace(velocity=velocity)


class Displaced(nn.Module):
    """A field plus the mean displacement that additive effects of treatments bring, which no optimiser trains.

    The effect of an unmeasured combination is the sum of the effects of its treatments, plus the network's part.
    Unlike in `Treated`, the control moves too, by the network only: from one domain to another. Nothing is confirmed.

    Parameters
    ----------
    network
        Any field of the whole condition; a score that it also returns stays as it is.
    shift
        The additive effects.
    first
        Where in a condition the numbers of the treatments begin.

    Examples
    --------
    >>> shift = AdditiveShift(width=2, dim=1)
    >>> shift.line.copy_(torch.tensor([[3.0], [4.0]]))
    tensor([[3.],
            [4.]])
    >>> field = Displaced(lambda t, x, condition: x, shift)
    >>> field(torch.zeros(2), torch.ones(2, 1), torch.tensor([[0.0, 0.0], [1.0, 1.0]])).flatten()
    tensor([1., 8.])
    """

    def __init__(self, network: Field, shift: AdditiveShift, *, first: int = 0) -> None:
        super().__init__()
        self.network, self.shift, self.first = network, shift, first

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor | Outputs:
        """Return the field at times ``t`` ``(n,)``, states ``x`` ``(n, d)`` and conditions ``(n, k)``.

        Raises
        ------
        ValueError
            When there is no condition.
        """
        if condition is None:
            raise ValueError("Expected a condition, as this field was fitted with conditions; found none.")
        found = self.network(t, x, condition)
        known, last = outputs(found), self.first + len(self.shift.line)
        velocity = known.velocity + self.shift(condition[:, self.first : last])
        return velocity if isinstance(found, Tensor) else known._replace(velocity=velocity)


def _told(effect: Tensor, shares: Tensor, owns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean shares ``(n, 1)`` by what is kept of the amounts, and amounts as a network sees them ``(n, p)``.

    Amounts of a treatment alone, and of those with equal shares, are seen as they are.
    """
    kept = shares * effect.abs()
    total = kept.sum(dim=1, keepdim=True)
    share, own = ((each * kept).sum(dim=1, keepdim=True) / total.clamp(min=1e-12) for each in (shares, owns))
    scale = torch.where(share > 0, (shares / share.clamp(min=1e-12)).clamp(max=1), 1)
    return share, own, effect * scale
