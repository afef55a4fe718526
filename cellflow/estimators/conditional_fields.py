"""The additive effects of treatments on the vectors of a translation."""

from typing import TYPE_CHECKING

import torch

from cellflow.estimators.domains import Domain, Points
from cellflow.networks.additive import AdditiveShift
from cellflow.training.additive import fit_additive

if TYPE_CHECKING:
    from cellflow.estimators.conditional_domains import Conditioned


def additive_effects(known: "Conditioned | None", source: Domain, target: Domain) -> AdditiveShift | None:
    """Return the additive effects of treatments on vectors; ``None`` for images, and with one treatment.

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
    x0, x1 = source.scaled().cpu().double(), target.scaled().cpu().double()
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
