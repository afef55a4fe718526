"""A field that additive effects of treatments displace vectors by, beside what a network adds."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from cellflow.estimators.domains import Domain, Points
from cellflow.fields import Field, Outputs, outputs
from cellflow.networks.additive import AdditiveShift
from cellflow.training.additive import fit_additive

if TYPE_CHECKING:
    from cellflow.estimators.conditional_domains import Conditioned


class Displaced(nn.Module):
    """A field plus the mean displacement that additive effects of treatments bring, which no optimiser trains.

    What treatments do together, where it was not measured, is the sum of what they do, but for what the network says.

    Parameters
    ----------
    network
        Any field of the whole condition; a score that it returns beside the velocity stays as it is.
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
            raise ValueError("Expected a condition, which this field was fitted with; found none.")
        found = self.network(t, x, condition)
        known, last = outputs(found), self.first + len(self.shift.line)
        velocity = known.velocity + self.shift(condition[:, self.first : last])
        return velocity if isinstance(found, Tensor) else known._replace(velocity=velocity)


def additive_effects(known: "Conditioned | None", source: Domain, target: Domain) -> AdditiveShift | None:
    """Return the additive effects of treatments on vectors; ``None`` for images, and where there is one treatment.

    Displacements are those from the source samples of each leg, or, where controls are among the target samples, from
    these.
    """
    vectors = isinstance(source, Points) and isinstance(target, Points) and len(source.shape) == 1
    if known is None or not vectors:
        return None
    effects = torch.from_numpy(known.table.vectors[:, known.conditions.effect])
    legs = [leg for leg in known.legs if effects[leg.condition].any()]
    if len(torch.unique(effects[[leg.condition for leg in legs]], dim=0)) < 2:
        return None
    x0, x1 = source.scaled().double().cpu(), target.scaled().double().cpu()
    base = torch.zeros_like(x0[0])
    if known.controls:
        still = [leg for leg in known.legs if not effects[leg.condition].any()]
        sizes = torch.tensor([float(len(leg.target)) for leg in still], dtype=torch.float64)
        moved = torch.stack([x1[leg.target].mean(0) - x0[leg.source].mean(0) for leg in still])
        base = sizes @ moved / sizes.sum()
    within = torch.cat([x1[leg.target] - x1[leg.target].mean(0) for leg in known.legs])
    return fit_additive(
        torch.stack([x1[leg.target].mean(0) - x0[leg.source].mean(0) - base for leg in legs]).float(),
        noise=torch.tensor([1 / len(leg.target) + 1 / len(leg.source) for leg in legs]),
        spread=within.square().mean(0).float(),
        effects=effects[[leg.condition for leg in legs]],
        curvature=torch.from_numpy(known.conditions.dose_curvature).float(),
    ).shift
