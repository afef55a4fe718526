"""The field of treatments: what they displace all cells by, and a network on how cells differ in it."""

import torch
from torch import Tensor, nn

from cellflow.fields import Field, Outputs, outputs
from cellflow.networks.additive import AdditiveShift


class Treated(nn.Module):
    r"""A field that treatments move cells by, and under which the control stays where it is.

    .. math::

        v(t, x, c) = s(c) \, (\mathrm{shift}(c) + r(c) \, d(t, x, c)), \quad
        d = a(c) \, N(t, x, c), \quad a(c) = \min(1, \max_q |c_q| / \rho)

    with additive effects of the treatments, which no optimiser trains, and a network N whose part grows from 0 with the
    amount, so that a dose between 0 and a measured one moves cells a part of the way there. The shares s, of
    all, and r, of what differs between cells, are those that cells which were not trained on confirm, see
    `cellflow.training.effects`: those of a combination are means over its treatments by their amounts. With r = 0 this
    is a mean shift, and with s = 0 no change.

    Where there is a single treatment, the network learns the whole of what it does, ``whole``, and its difference from
    the mean shift is d: a constant says nothing of cells that respond otherwise than those of the fit.

    Parameters
    ----------
    network
        Any field of the whole condition; scores and growth that it returns beside the velocity stay as they are.
    shift
        The additive effects; the first entries of a condition, as many as these are wide, are its treatments.
    reach
        The amount from which on the network counts in full.
    whole
        Whether the network learns the whole displacement, and not only what the additive effects leave.

    Attributes
    ----------
    share, own
        The shares s and r of each treatment ``(p,)``, 1 until they are set.

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
    [0.0, 3.0, 3.5]
    """

    reach: Tensor
    share: Tensor
    own: Tensor
    whole: Tensor

    def __init__(self, network: Field, shift: AdditiveShift, *, reach: float = 1.0, whole: bool = False) -> None:
        super().__init__()
        if not reach > 0:
            raise ValueError(f"Expected reach > 0; found {reach}.")
        self.network, self.shift = network, shift
        self.register_buffer("reach", torch.full((), float(reach)))
        self.register_buffer("whole", torch.full((), float(whole)))
        for name in ("share", "own"):
            self.register_buffer(name, torch.ones(len(shift.line)))

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
        effect, found = condition[:, :width], self.network(t, x, condition)
        amounts = effect.abs()
        part = (amounts.amax(dim=1, keepdim=True) / self.reach).clamp(max=1)
        parts = amounts / amounts.sum(dim=1, keepdim=True).clamp(min=1e-12)
        share, own = (parts @ shares[:, None] for shares in (self.share, self.own))
        shift = self.shift(effect)
        velocity = share * (shift + own * (part * outputs(found).velocity - self.whole * shift))
        return velocity if isinstance(found, Tensor) else outputs(found)._replace(velocity=velocity)
