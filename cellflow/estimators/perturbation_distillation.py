"""Distilling a `PerturbationFlow` into a flow map."""

from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cellflow.cells.stores import Stored, as_adata
from cellflow.estimators import perturbation_record
from cellflow.estimators.arms import Arms
from cellflow.estimators.base import DISTILLING
from cellflow.estimators.fields import overall
from cellflow.estimators.perturbation_fit import scales_of
from cellflow.estimators.perturbation_verbs import check_cells
from cellflow.objectives import FlowMapObjective
from cellflow.pairing.legs import LegBatches
from cellflow.seeds import generator_at
from cellflow.signature import checked_but
from cellflow.training import Recipe, Run
from cellflow.training.distillation import STEPS, TRAJECTORIES

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators.perturbation import PerturbationFlow


@checked_but("adata", "objective")
def distill(
    self: "PerturbationFlow",
    adata: "AnnData | Stored",
    *,
    steps: int = STEPS,
    objective: FlowMapObjective | str = TRAJECTORIES,
    teacher: bool = True,
    recipe: Recipe | None = None,
    run: Run | None = None,
) -> "PerturbationFlow":
    """Distil the fitted flow into a flow map, for ``transport(..., solver=Jumps(1))``.

    The map jumps in both directions, under any condition. The confirmed shares of treatments apply to the map as to the
    flow: a treatment without effect moves no cell.

    Parameters
    ----------
    adata
        The cells of the fit, or their files: the map learns from states between them.
    steps, objective, run
        As for `cellflow.training.distill`; the objective's path, unit and teacher are filled in.
    teacher
        Whether the fitted flow is the teacher. Otherwise the map, which starts from it, learns from pairs of the data
        only.
    recipe
        Settings of the optimiser; ``None`` for those of the fit with ``"trajectories"``, and otherwise for those of
        `cellflow.training.distill`.

    Raises
    ------
    NotFittedError
        Before ``fit``.
    ValueError, TypeError
        When the cells are not those of the fit, settings are invalid, or the objective is not one for flow maps.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd, cellflow as cf
    >>> x = np.random.default_rng(0).normal(size=(60, 2)).astype("float32")
    >>> drug = np.repeat(["control", "A"], 30)
    >>> adata = anndata.AnnData(obs=pd.DataFrame({"drug": drug}, index=[f"c{k}" for k in range(60)]), obsm={"X_pca": x})
    >>> flow = cf.PerturbationFlow(conditions="drug", steps=20).fit(adata).distill(adata, steps=20)
    >>> flow.transport(x[:3], condition={"drug": "A"}, solver=cf.integrate.Jumps(1)).evaluations
    1
    """
    distilled = self._copy(run)
    cells = as_adata(adata, rep=self.rep)
    arms = _arms_of_the_fit(self, cells)
    rng, device = generator_at(int(self.seed), DISTILLING), next(distilled.field_.parameters()).device
    distilled.flow_map_ = distilled._blank_map("both")
    return self._learn_map(
        distilled,
        distilled._velocity(),
        known=lambda: _known(self._pair(arms, rng, device), len(arms.x)),
        pairs=lambda: self._pair(arms, rng, device),
        objective=objective,
        teacher=teacher,
        recipe=recipe,
        run=run,
        steps=steps,
        generator=rng,
        unit=overall(scales_of(arms.x, standardize="loss")),
        about=self._about(perturbation_record.about(arms, cells)),
    )


def _arms_of_the_fit(flow: "PerturbationFlow", adata: "AnnData") -> Arms:
    """Return the arms of the cells, which must be those of the fit.

    Raises
    ------
    ValueError
        When they differ from that.
    """
    arms = flow._arms(adata)
    check_cells(flow, adata, arms.x, np.where(arms.control, 0.0, 1.0))
    if not perturbation_record.table_of(arms).equals(flow.arms_):
        raise ValueError(
            f"Expected the cells of the fit: {int(flow.arms_['cells'].sum())} treated ones in {len(flow.arms_)} arms; "
            f"found {sum(len(arm.target) for arm in arms.arms)} in {len(arms.arms)}. Leave out held-out cells."
        )
    return arms


def _known(batches: LegBatches, n: int) -> tuple[list[Tensor], tuple[float, float], list[Tensor]]:
    """Return ``n`` pairs or more, as many of each condition: both ends, their times, and conditions."""
    found = list(islice(batches, -(-n // batches.batch_size)))
    x0, x1, rows = (torch.cat([getattr(one, name) for one in found]) for name in ("x0", "x1", "condition"))
    return [x0, x1], (0.0, 1.0), [rows, rows]
