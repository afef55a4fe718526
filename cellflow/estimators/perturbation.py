"""`PerturbationFlow`: from control cells to treated cells, for many treatments in one field."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
import torch
from torch import nn

from cellflow import couplings, networks, paths, training
from cellflow.cells.conditions import Conditions
from cellflow.cells.conditions import resolve as resolve_conditions
from cellflow.cells.fingerprint import Fingerprint, fingerprint
from cellflow.cells.fitted_conditions import FittedConditions
from cellflow.cells.raw_counts import warn_of_counts
from cellflow.cells.stores import Stored, as_adata
from cellflow.couplings import CouplingLike
from cellflow.estimators import perturbation_distillation, perturbation_fit, perturbation_record
from cellflow.estimators import perturbation_verbs as verbs
from cellflow.estimators.arms import Arms, check_arms, read_arms
from cellflow.estimators.base import SEARCHING, FlowEstimator
from cellflow.estimators.fields import Scales, blank, build_field, unit_of
from cellflow.estimators.mean_shift import shifts_of
from cellflow.networks.additive import AdditiveShift
from cellflow.networks.treated import Treated
from cellflow.objectives import BridgeMatching, Objective, VelocityMatching
from cellflow.objectives.draw import Unit
from cellflow.pairing import aside
from cellflow.pairing.condition_legs import ConditionLeg
from cellflow.pairing.legs import LegBatches, leg_batches
from cellflow.paths import GaussianPath
from cellflow.seeds import generator, generator_at, precise_device, seeded
from cellflow.signature import checked_but
from cellflow.training import Recipe, Run
from cellflow.training.effects import Confirmed, confirmed_effects
from cellflow.training.search import PART
from cellflow.training.stopping import EVERY

if TYPE_CHECKING:
    from anndata import AnnData

BUILDING = 4
"""Stream of random numbers of a seed for the weights of untrained fields."""


class PerturbationFlow(FlowEstimator):
    """A flow from control cells to treated cells: drugs, doses, combinations, knock-outs, in one field.

    There is no time: controls are carried to their treated states. Treated cells are paired only with controls of their
    own group, see ``within``, and every treatment counts the same, however many cells it has.

    **When it helps.** A *mean shift*, the change of the mean of all cells, is hard to beat if all cells respond alike,
    or if there are only a few dozen cells per treatment: no model can then know more. A flow can do better if cells in
    different states respond differently, or if the treatment changes the shape of the population and not only its
    position: then it carries each cell by its own state, also in groups whose treated cells were never measured. Of
    treatments never seen it knows only what their names tell: combinations of known treatments, doses in between, names
    with an embedding. `cellflow.tl.response` compares both on your cells; a flow that only ties with the mean shift
    there is worth no more than it.

    **No harm.** Part of the cells are held out first: whole groups if there are at least three, otherwise single cells.
    They determine for how many steps to train, how large an effect is, and how much of it differs between cells, see
    `cellflow.training.effects`. A treatment whose cells cannot be distinguished from controls, by a permutation test at
    5 %, keeps only what is above chance, often nothing: under it cells stay where they are, as under the control.

    Parameters
    ----------
    control
        The name of the control in the column of treatments; ``None`` for that of ``conditions``, by default
        ``"control"``. A dose of 0 counts as control too.
    conditions
        What the field sees of each cell: `cellflow.Conditions`, or the name of the column of ``obs`` with treatments.
    within
        Column of ``obs`` within whose groups cells are paired, such as a donor, a cell line or a cell type; ``None``
        for none. Groups without treated cells add nothing to the fit, but can be predicted; groups with treated cells
        but without controls are refused. The ``categories`` of ``conditions`` are groups as well.
    rep
        Key of the representation in ``obsm``, or ``"X"``.
    path
        Path between a control and a treated cell: a path, or the name of one.
    coupling
        How cells are matched: a coupling, a function of two clouds, or the name of a coupling.
    network
        A callable from the width of the representation, and of the condition as ``condition_dim``, to a module; or the
        name of one.
    stochastic
        Whether to learn the score as well, on a path with noise: the flow is then a Schrödinger bridge, and can be
        simulated with noise in both directions.
    heads
        Network of the score: ``"shared"`` with the velocity (a network that takes ``heads=``), or ``"separate"``.
    steps
        Training steps; a maximum if held-out cells show that fewer are better, see ``regularize``.
    batch_size
        Pairs per step.
    recipe
        Settings of the optimiser.
    regularize
        Whether part of the cells are held out, as above, and paths are blurred; ``"auto"`` blurs them for fewer than
        10,000 cells.
    standardize
        As for `cellflow.SnapshotFlow`, but True uses one scale for all columns: the last principal components are
        mostly noise, and with a scale of their own a network would weigh them like the first.
    ot_batch_size
        Number of cells on each side to match at once, see `cellflow.pairing.paired_batches`.
    seed
        Seed of all random numbers.
    device
        ``"cpu"``, ``"cuda"``, or ``"auto"`` for the GPU if there is one.
    progress
        Whether to show a progress bar while fitting; ``None`` to show it in a terminal only.

    Attributes
    ----------
    field_
        The fitted field, from model time 0 (controls) to 1 (treated): a `cellflow.networks.treated.Treated`, whose
        ``share`` is the confirmed share of each treatment's effect, and ``own`` that of its differences between cells.
    conditions_
        How conditions are read: names, doses and tables that were learned.
    treatments_
        The treatments of the fit, each as a mapping from column to value, without controls.
    arms_
        Table of the fit, a row for each treatment and group: ``treatment``, ``group``, ``cells``, ``controls``.
    matching_
        How the cells of each row were matched with their controls, by its name: a `cellflow.pairing.choice.Matched`;
        empty if an earlier version has saved the flow.
    shifts_
        The change of the mean, from controls to treated cells, of each of its rows, ``(k, d)``.
    history_, search_history_, blur_
        As of `cellflow.SnapshotFlow`.
    n_features_in_
        Width of the representation.
    segments_
        Pieces of the curves of additive effects over doses.
    told_
        Treatments of the fit with their own shares, such as combinations whose cells contradict their parts.
    fingerprint_
        Fingerprint of the representation of cells.

    Source
    ------
    Tong et al. 2024 (TMLR), section 4.2, with controls as the source; Tong et al. 2024 (AISTATS) with a score.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd, cellflow as cf
    >>> x = np.random.default_rng(0).normal(size=(90, 2)).astype("float32")
    >>> drug = np.repeat(["control", "A", "B"], 30)
    >>> x[drug == "A", 0] += 3
    >>> adata = anndata.AnnData(obs=pd.DataFrame({"drug": drug}, index=[f"c{k}" for k in range(90)]), obsm={"X_pca": x})
    >>> flow = PerturbationFlow(conditions="drug", steps=20).fit(adata)
    >>> flow.transport(x[:5], condition={"drug": "A"}).x.shape
    torch.Size([2, 5, 2])
    """

    conditions_: FittedConditions
    treatments_: tuple[dict[str, Any], ...]
    arms_: pd.DataFrame
    shifts_: np.ndarray
    n_features_in_: int
    search_history_: training.History
    blur_: float
    segments_: int
    told_: int
    fingerprint_: Fingerprint | None

    def __init__(
        self,
        *,
        control: str | None = None,
        conditions: Conditions | str = "condition",
        within: str | None = None,
        rep: str = "X_pca",
        path: GaussianPath | str = "linear",
        coupling: CouplingLike = "exact",
        network: Callable[..., nn.Module] | str = "mlp",
        stochastic: bool = False,
        heads: str = "shared",
        steps: int = 3000,
        batch_size: int = 256,
        recipe: Recipe | None = None,
        regularize: bool | str = "auto",
        standardize: bool | str = True,
        ot_batch_size: int | str = "auto",
        seed: int = 0,
        device: str | torch.device = "auto",
        progress: bool | None = None,
    ) -> None:
        self.control = control
        self.conditions = conditions
        self.within = within
        self.rep = rep
        self.path = path
        self.coupling = coupling
        self.network = network
        self.stochastic = stochastic
        self.heads = heads
        self.steps = steps
        self.batch_size = batch_size
        self.recipe = recipe
        self.regularize = regularize
        self.standardize = standardize
        self.ot_batch_size = ot_batch_size
        self.seed = seed
        self.device = device
        self.progress = progress

    @checked_but("adata", "y")
    def fit(self, adata: "AnnData | Stored", y: None = None, *, run: Run | None = None) -> Self:
        """Fit the field; an earlier fit is replaced. ``adata`` is not changed.

        Parameters
        ----------
        adata
            Control and treated cells, with the columns of the conditions and a representation: an AnnData, the path of
            an .h5ad file or a zarr folder, or a list of these, see `cellflow.cells.read_stores`.
        y
            Not used; for compatibility with scikit-learn.
        run
            Folder, resumption, monitoring and devices of the training. If it fails, this flow is unchanged.

        Raises
        ------
        KeyError, ValueError
            When a column or the representation is missing or unusable, there are no controls, or none in a group with
            treated cells, a condition has a single cell, or settings contradict each other.
        FileExistsError
            When the folder of the run already holds a training, and ``resume`` is false.
        CheckpointError
            When the state in that folder is damaged, or belongs to other data or settings; the message names the
            difference.
        """
        self._check_settings()
        fitted, rng, device = self._unfitted(), generator(seed=int(self.seed)), self._device(run)
        cells = as_adata(adata, rep=self.rep)
        fitted.conditions_ = self._conditions().fit(cells.obs, cells.uns)
        arms = fitted._arms(cells)
        check_arms(arms, within=self._groups())
        warn_of_counts(arms.x, self.rep)
        fitted.n_features_in_, fitted.arms_ = arms.x.shape[1], perturbation_record.table_of(arms)
        fitted.shifts_ = shifts_of(arms)
        fitted.treatments_ = perturbation_record.treatments_of(cells, fitted.conditions_, arms)
        fitted.fingerprint_ = fingerprint(cells, self.rep, arms.x, np.where(arms.control, 0.0, 1.0))
        scales = perturbation_fit.scales_of(arms.x, standardize=self.standardize)
        run, searching = fitted._run(run), generator_at(int(self.seed), SEARCHING)
        regular = self._regular(run, self.regularize is not False)
        few = aside.is_few(self.regularize, len(arms.x)) and paths.resolve(self.path).sigma == 0
        fitted.blur_ = aside.blur(_clouds(arms)) if regular and few else 0.0
        objective = fitted._objective(unit=unit_of(scales, self.standardize), blur=fitted.blur_)
        batches = self._pair(arms, rng, device)
        fitted.matching_ = batches.matched

        reach, alone = perturbation_fit.amounts_of(arms, fitted.conditions_)

        def build(legs: Sequence[ConditionLeg]) -> Treated:
            effects = perturbation_fit.effects_of(arms, fitted.conditions_, legs)
            with seeded(generator_at(int(self.seed), BUILDING)):
                return fitted._field(scales, effects, reach=reach, whole=alone).to(device)

        fitted.field_ = build(batches.legs)
        fitted.segments_ = len(fitted.field_.shift.axis)
        found = fitted._search(arms, batches, objective, build, searching, device) if regular else None
        steps, recipe = self.steps, self.recipe or Recipe()
        fitted.search_history_ = training.History()
        if found is not None:
            steps, fitted.search_history_ = found.steps, found.history
            recipe = replace(recipe, warmup=min(recipe.warmup_steps(steps), steps // 3))
        kept = perturbation_fit.kept_shares(fitted.field_, found, arms, fitted.conditions_, batches.legs, regular)
        fitted.told_ = len(kept["seen"])
        fitted.history_ = training.fit(
            fitted.field_,
            objective,
            batches,
            steps=steps,
            generator=rng,
            recipe=recipe,
            run=replace(run, watch=perturbation_fit.watched_with(run.watch, fitted.field_, kept)),
            about=self._about(perturbation_record.about(arms, cells) | ({"regular": True} if regular else {})),
        )
        perturbation_fit.exchanged(fitted.field_, kept)
        return self._become(fitted)

    read, score = verbs.read, verbs.score
    transport, simulate, velocity = verbs.transport, verbs.simulate, verbs.velocity
    distill = perturbation_distillation.distill
    _learned, _restore = perturbation_record.learned, perturbation_record.restore

    def _check_settings(self) -> None:
        networks.resolve(self.network)
        self._conditions()
        aside.is_few(self.regularize, 0)
        if not isinstance(self.stochastic, bool):
            raise TypeError(f"Expected `stochastic` to be True or False; found {self.stochastic!r}.")
        super()._check_settings()

    def _conditions(self) -> Conditions:
        """Return the conditions as an object, with the name of the controls."""
        found = resolve_conditions(self.conditions)
        if found is None:
            raise TypeError("Expected `conditions` as `cf.Conditions(...)` or the name of a column; found None.")
        return found if self.control is None else replace(found, control=self.control)

    def _groups(self) -> list[str]:
        """Return the columns whose groups are apart, each once."""
        known = getattr(self, "conditions_", None) or self._conditions()
        return list(dict.fromkeys([*([] if self.within is None else [self.within]), *known.categories]))

    def _arms(self, adata: "AnnData") -> Arms:
        return read_arms(adata, self.conditions_, rep=self.rep, within=self._groups())

    def _objective(self, *, unit: Unit = 1.0, blur: float = 0.0) -> Objective:
        path = paths.blurred(self.path, blur)
        return (BridgeMatching if self.stochastic else VelocityMatching)(path, unit=unit)

    def _pair(self, arms: Arms, rng: torch.Generator, device: torch.device) -> LegBatches:
        return leg_batches(
            torch.from_numpy(arms.x).to(precise_device(device)),
            arms.legs(),
            torch.from_numpy(arms.table.vectors).to(precise_device(device)),
            coupling=couplings.resolve(self.coupling),
            batch_size=self.batch_size,
            generator=rng,
            ot_batch_size=self.ot_batch_size,
            path=self.path,
        )

    def _search(
        self,
        arms: Arms,
        batches: LegBatches,
        objective: Objective,
        build: perturbation_fit.Build,
        searching: torch.Generator,
        device: torch.device,
    ) -> Confirmed | None:
        """Ask cells that are held out how long to train, and how much of the effects they confirm."""
        if self.steps // PART < EVERY:
            return None
        folds = perturbation_fit.folds(
            arms,
            batches,
            build=build,
            pair=lambda some: self._pair(some, searching, device),
            generator=searching,
        )
        if not folds:
            return None
        return confirmed_effects(
            folds,
            objective,
            width=self.conditions_.effect.stop,
            steps=self.steps,
            generator=searching,
            recipe=self.recipe,
        )

    def _field(
        self, scales: Scales, effects: AdditiveShift, reach: float = 1.0, whole: bool = False, told: int = 0
    ) -> Treated:
        network = build_field(
            partial(networks.resolve(self.network), condition_dim=self.conditions_.width),
            scales,
            self._objective().heads,
            heads=self.heads,
            sigma=paths.resolve(self.path).sigma,
            standardize=self.standardize,
        )
        return Treated(network, effects, reach=reach, whole=whole, seen=told)

    def _blank(self) -> nn.Module:
        treatments = self.conditions_.effect
        effects = AdditiveShift(treatments.stop - treatments.start, self.n_features_in_, segments=self.segments_)
        return self._field(blank(self.n_features_in_), effects, told=self.told_)


def _clouds(arms: Arms) -> list[torch.Tensor]:
    """Return the controls, and the treated cells, as points."""
    control = arms.control
    return [torch.from_numpy(arms.x[side]) for side in (control, ~control)]
