"""Distillation of a fitted `SnapshotFlow` into a flow map: a verb bound in its class."""

from typing import TYPE_CHECKING, Any

from cellflow import couplings
from cellflow.cells.stores import Stored
from cellflow.estimators import snapshot_pairs
from cellflow.estimators.base import DISTILLING, OLD_DISTILLING
from cellflow.estimators.fields import overall, spreads
from cellflow.estimators.snapshot_states import check_representation
from cellflow.objectives import FlowMapObjective
from cellflow.renamed import renamed
from cellflow.seeds import generator_at
from cellflow.signature import checked_but
from cellflow.training import Recipe, Run
from cellflow.training.distillation import STEPS, TRAJECTORIES

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators.snapshots import SnapshotFlow


@checked_but("adata", "objective")
def distill(
    self: "SnapshotFlow",
    adata: "AnnData | Stored",
    *,
    steps: int = STEPS,
    objective: FlowMapObjective | str = TRAJECTORIES,
    teacher: bool = True,
    recipe: Recipe | None = None,
    run: Run | None = None,
    **old: Any,
) -> "SnapshotFlow":
    """Distil the fitted flow into a flow map, for ``transport(..., solver=Jumps(1))``.

    The map jumps between any two times of the fitted range, forward and backward; where growth was learned, with the
    weights of cells. With an ensemble the map is that of the flow; its members have none, and are followed by steps.

    Parameters
    ----------
    adata
        The cells that the flow was fitted on, or their files: the map learns from states on their trajectories.
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
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> flow = cf.SnapshotFlow(rep="X_latent", steps=20).fit(adata).distill(adata, steps=20)
    >>> x = adata.obsm["X_latent"][:3]
    >>> flow.transport(x, start=0, stop=4, solver=cf.integrate.Jumps(1)).evaluations
    1
    """
    given = renamed("SnapshotFlow.distill", old, OLD_DISTILLING)
    run, teacher = given.get("run", run), given.get("teacher", teacher)
    distilled = self._copy(run)
    cells = snapshot_pairs.cells(self, adata)
    snapshots = self._snapshots(cells)
    if snapshots.clock != self.clock_ or snapshots.x.shape[1] != self.n_features_in_:
        raise ValueError(
            f"Expected the cells of the fit: times {list(self.clock_.times)} in {self.n_features_in_} dimensions; "
            f"found {list(snapshots.clock.times)} in {snapshots.x.shape[1]}. Leave out held-out cells."
        )
    check_representation(self, cells, snapshots.x, snapshots.time)
    rng, device = generator_at(int(self.seed), DISTILLING), next(distilled.field_.parameters()).device
    distilled.flow_map_ = distilled._blank_map("both", growth=self.growth_)
    return self._learn_map(
        distilled,
        distilled.field_ if self.growth_ else distilled._velocity(),
        known=lambda: snapshot_pairs.passed(self, snapshots, device),
        pairs=lambda: self._pair(snapshots, couplings.resolve(self.coupling), rng, self.masses_, device),
        objective=objective,
        teacher=teacher,
        recipe=recipe,
        run=run,
        steps=steps,
        generator=rng,
        unit=overall(spreads(snapshots)),
        about=self._about(snapshots.about(cells)),
    )
