"""`SnapshotFlow`: one field through all snapshots of an AnnData."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from cellflow import couplings, networks, paths, training
from cellflow.cells.clock import Clock
from cellflow.cells.conditions import Conditions
from cellflow.cells.fingerprint import Fingerprint, fingerprint
from cellflow.cells.fitted_conditions import FittedConditions
from cellflow.cells.raw_counts import warn_of_counts
from cellflow.cells.snapshots import Snapshots
from cellflow.cells.stores import Stored
from cellflow.couplings import COUPLINGS, Coupling, CouplingLike
from cellflow.estimators import (
    conditional,
    snapshot_distillation,
    snapshot_pairs,
    snapshot_record,
    snapshot_states,
    snapshot_suggestion,
)
from cellflow.estimators import snapshot_members as members
from cellflow.estimators import snapshot_verbs as verbs
from cellflow.estimators.base import SEARCHING, FlowEstimator
from cellflow.estimators.fields import Scales, blank, build_field, spreads, takes_heads, unit_of
from cellflow.estimators.population import AUTO, Sizes, check_growing, learns_growth, population_sizes
from cellflow.estimators.serialize import FORMER
from cellflow.objectives import BridgeMatching, GrowthMatching, Objective, VelocityMatching
from cellflow.objectives.draw import Unit
from cellflow.pairing import Curve, aside, curves
from cellflow.pairing.choice import Matched
from cellflow.paths import GaussianPath
from cellflow.renamed import renamed
from cellflow.seeds import generator, generator_at, precise_device, seeded
from cellflow.signature import checked_but
from cellflow.training import Recipe, Run
from cellflow.training.run import OLD_KEYWORDS

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


class SnapshotFlow(FlowEstimator):
    """A flow through snapshots of a cell population taken at several times.

    One field covers all intervals. Times keep their real spacing, snapshots may have any sizes, and all results are in
    the units of the representation and of the time column.

    Parameters
    ----------
    time_key
        Column of ``obs`` with the time: numbers, categories that are numbers, Timedelta (counted in days), or numbers
        with one word before or after them, such as "E8.5", "24h" or "day 3"; the word is dropped.
    rep
        Key of the representation in ``obsm``, or ``"X"``.
    n_pcs
        Number of its first columns to use; ``None`` for all. `suggest` shows how many are above noise.
    path
        Path between paired cells, with ``sigma`` in units of the representation: a path, or the name of one. The
        ``sigma`` of `BrownianBridge` is its standard deviation from the first snapshot to the last; `suggest_sigma`
        suggests one.
    coupling
        How the cells of neighbouring snapshots are matched: a coupling, a function of two clouds, or the name of a
        coupling. ``"auto"`` is `UnbalancedSinkhorn` with settings derived from the cells: if proportions change between
        snapshots, a balanced plan such as ``"exact"`` carries cells across lineages to compensate.
    steps
        Training steps; a maximum if held-out cells show that fewer are better, see ``regularize``.
    batch_size
        Pairs per interval and step.
    network
        A callable from the width of the representation to a module, or the name of one.
    stochastic
        Whether to learn the score as well, on a path with noise: the flow is then a Schrödinger bridge that can be
        simulated with noise, forward and backward.
    growth
        Whether to learn the growth rate of the cells too; ``"auto"`` for yes with ``coupling="auto"``, unless
        ``within`` has groups that a neighbouring snapshot lacks. Snapshots identify how much the shares of states
        change, given how far cells may travel: with another `UnbalancedSinkhorn` its relaxation decides what is travel,
        and what is death and birth. The size of the population (``masses``) and which single cells divide
        (``prior_key``) must be known from elsewhere; see `cellflow.tl.growth`, which checks what depends on the
        relaxation.
    heads
        Networks of a score and a growth rate: ``"shared"`` with the velocity (in a network that takes ``heads=``), or
        ``"separate"``, one for each.
    masses
        Size of the population, if growth is learned: a mapping or Series from time to size, ``"counts"`` for the
        numbers of cells or the sums of their weights (which usually depend on sampling), or ``None`` for a constant
        size, so that growth is relative to other cells.
    weight_key
        Column of ``obs`` with the weight of each cell in its snapshot, for samples that do not represent the
        population: a cell of weight 2 counts as two. Wherever a snapshot stands for the population, here and in all
        tools, it is weighted. ``None`` if all cells weigh the same.
    prior_key
        Column of ``obs`` with the expected growth rate of each cell, per unit of time, if growth is learned; see
        `cellflow.tl.growth_prior`. Each snapshot is matched after its expected growth. ``None`` for no expectation.
    curve
        How the paths of cells curve: ``"mean"`` or `cellflow.pairing.Mean` with the mean of the population through all
        snapshots, ``"straight"`` between neighbouring ones, ``"spline"`` or `cellflow.pairing.Spline` each along its
        own curve, or `cellflow.training.Geodesics` near measured cells, around empty regions.
    within
        Column of ``obs`` within whose groups pairs are made, such as a donor or a batch; ``None`` for none. The
        fraction of pairs in each group is its fraction of the later snapshot. Between two snapshots of which one lacks
        a group, its cells are left out, with a warning; this is an error if growth is learned, which would be unknown.
    conditions
        What differs between cells besides time, and what the field sees of it: `cellflow.Conditions`, or the name of
        the column with treatments; ``None`` for nothing. One field covers all conditions. Each has its own chain of
        snapshots, of which any may be missing; a treatment that begins later than the first snapshot is reached from
        the untreated cells of the closest earlier time. Cells are paired only inside a condition, and inside a group of
        ``within``; each condition gets the same number of pairs. Growth is relative to other cells of the same
        condition and group.
    recipe
        Settings of the optimiser.
    regularize
        Whether to keep the network from memorising the cells, which makes it useless for others of the same population:
        ``"auto"`` for fewer than 10,000 cells. First a tenth of each snapshot (at least ten cells, at most a third) is
        held out, while a copy of the network is trained on the rest for at most a third of ``steps``. If the loss on
        the held-out cells stops falling, the network is trained on all cells for 1.5 times the steps up to the minimum,
        and otherwise for ``steps``. A path without noise is blurred by half of the typical distance from a cell to its
        nearest neighbour, divided by the root of the number of dimensions. Much of the growth of pairs is chance when
        cells are few: only the share is learned with which held-out cells come closest to those of the next snapshot,
        or all if less is hardly better, unless ``prior_key`` gives the expected growth. Below 750 steps, or with groups
        of fewer than six cells, nothing is held out.
    standardize
        Whether the network sees standardised states inside the model; inputs and outputs keep their units. ``"loss"``
        to also measure errors in units of the spread of each dimension, so that narrow ones count as much as wide ones;
        the coupling still sees the representation as it is.
    ot_batch_size
        Number of cells of each snapshot to match at once, see `cellflow.pairing.paired_batches`.
    ensemble
        Number of additional members, such as 5, that show how the flow would vary: fits with other seeds on resampled
        cells, from which tools compute intervals. Predictions still come from the flow itself, fitted to all cells.
        With 5, a fit takes 2 to 4 times as long, and six times the memory for plans and weights. ``None`` for none.
    replicate_key
        Column of ``obs`` with the donor, or another replicate, of each cell: members resample whole donors. ``None`` to
        resample single cells; intervals then say nothing about other donors.
    seed
        Seed of all random numbers.
    device
        ``"cpu"``, ``"cuda"``, or ``"auto"`` for the GPU if there is one.
    progress
        Whether to show a progress bar while fitting; ``None`` to show it in a terminal only.

    Attributes
    ----------
    field_
        The fitted velocity field, in model time.
    clock_
        The time points and their conversion to model time.
    history_
        Terms of the objective at every step.
    search_history_
        The same for the search for the number of steps, with the loss on held-out cells as ``"validation"``, and the
        share of growth that they confirm as ``"confirmed growth"``; empty without a search.
    blur_
        Standard deviation by which paths were blurred, in units of the representation.
    plans_
        For each interval the plan over the whole snapshots, or ``None`` if super-batches were used. With
        ``conditions`` a mapping, from the label of a condition, the times of two snapshots and, with ``within``, the
        group: ``flow.plans_["A", 0.0, 3.0]``. Not saved: a loaded flow has none.
    matching_
        For each interval how its cells were matched, a `cellflow.pairing.choice.Matched`: in one plan or in
        super-batches, by which coupling, and whether it keeps the masses of cells.
        With ``conditions`` a mapping as ``plans_``. Empty if an earlier version has saved the flow.
    conditions_
        What was learned of the conditions: names, scales of doses; ``None`` without.
    n_features_in_
        Width of the representation.
    n_cells_
        Cells at each time point.
    growth_
        Whether the growth rate was learned.
    masses_
        Size of the population at each time point relative to the first, if growth was learned.
    turnover_
        For each interval the share of the population that growth replaces: the descendants that the plan gives to cells
        beyond their share in their own snapshot. ``None`` if super-batches were used or growth was not learned. With
        ``conditions`` a mapping as ``plans_``.

    Source
    ------
    Tong et al. 2024 (TMLR), section 4.2, for each interval; for plans and growth see `UnbalancedSinkhorn`.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> flow = cf.SnapshotFlow(time_key="time", rep="X_latent", steps=20).fit(adata)
    >>> flow.velocity(adata.obsm["X_latent"][:3], 1.0).shape
    (3, 2)
    """

    clock_: Clock
    conditions_: FittedConditions | None = None
    n_features_in_: int
    n_cells_: tuple[int, ...]
    masses_: Sizes | None
    growth_: bool
    turnover_: "list[float | None] | dict[Any, float | None]"
    matching_: Sequence[Matched] | dict[Any, Matched]
    search_history_: training.History
    blur_: float
    fingerprint_: Fingerprint | None

    def __init__(
        self,
        *,
        time_key: str = "time",
        rep: str = "X_pca",
        n_pcs: int | None = None,
        path: GaussianPath | str = "linear",
        coupling: CouplingLike = "auto",
        steps: int = 3000,
        batch_size: int = 256,
        network: Callable[..., nn.Module] | str = "mlp",
        stochastic: bool = False,
        growth: bool | str = AUTO,
        heads: str = "shared",
        masses: "str | Mapping[float, float] | pd.Series | None" = None,
        weight_key: str | None = None,
        prior_key: str | None = None,
        curve: Curve | str = "mean",
        within: str | None = None,
        conditions: Conditions | str | None = None,
        recipe: Recipe | None = None,
        regularize: bool | str = "auto",
        standardize: bool | str = True,
        ot_batch_size: int | str = "auto",
        ensemble: int | None = None,
        replicate_key: str | None = None,
        seed: int = 0,
        device: str | torch.device = "auto",
        progress: bool | None = None,
        **given: Any,
    ) -> None:
        old = growth is None or (isinstance(growth, str) and growth != AUTO)
        former = {**given, "growth": growth} if old else given
        new = renamed("SnapshotFlow", former, FORMER["SnapshotFlow"])
        self.time_key = time_key
        self.rep = rep
        self.n_pcs = n_pcs
        self.path = path
        self.coupling = coupling
        self.steps = steps
        self.batch_size = batch_size
        self.network = network
        self.stochastic = new.get("stochastic", stochastic)
        self.growth = new.get("growth", growth)
        self.heads = new.get("heads", heads)
        self.masses = masses
        self.weight_key = weight_key
        self.prior_key = prior_key
        self.curve = new.get("curve", curve)
        self.within = within
        self.conditions = conditions
        self.recipe = recipe
        self.regularize = regularize
        self.standardize = standardize
        self.ot_batch_size = ot_batch_size
        self.ensemble = ensemble
        self.replicate_key = replicate_key
        self.seed = seed
        self.device = device
        self.progress = progress

    @checked_but("adata", "y")
    def fit(self, adata: "AnnData | Stored", y: None = None, *, run: Run | None = None, **old: Any) -> Self:
        """Fit the field; an earlier fit is replaced. ``adata`` is not changed.

        Parameters
        ----------
        adata
            Cells with a time and a representation: an AnnData, which may be a view or backed by a file; or the path of
            an .h5ad file or a zarr folder, or a list of these, see `cellflow.cells.read_stores`. With files, training
            resumes only if their content is unchanged.
        y
            Not used; for compatibility with scikit-learn.
        run
            Folder, resumption, monitoring and devices of the training. If it fails, this flow is unchanged.

        Raises
        ------
        KeyError, ValueError
            When the time or the representation is missing or unusable, a part has an unknown name, or settings
            contradict each other.
        FileExistsError
            When the folder of the run already holds a training, and ``resume`` is false.
        CheckpointError
            When the state in that folder is damaged, or belongs to other data or settings; the message names the
            difference.
        """
        run = renamed("SnapshotFlow.fit", old, OLD_KEYWORDS).get("run", run)
        coupling = couplings.resolve(self.coupling)
        self._check_settings()
        fitted, rng, device = self._unfitted(), generator(seed=int(self.seed)), self._device(run)
        cells = snapshot_pairs.cells(self, adata)
        fitted.conditions_ = conditional.fitted_to(self.conditions, cells)
        snapshots = fitted._snapshots(cells)
        warn_of_counts(snapshots.x, self.rep)
        snapshot_suggestion.note_width(self, snapshots.x.shape[1])
        donors = members.donors(self, cells, snapshots)
        conditional.note_no_control(fitted.conditions_, snapshots.conditions)
        fitted.fingerprint_ = fingerprint(cells, self.rep, snapshots.x, snapshots.time)
        fitted.growth_ = learns_growth(self.growth, coupling, snapshots)
        self._check_growth(fitted.growth_)
        fitted.masses_ = fitted._sizes(snapshots, coupling)
        fitted.clock_, fitted.n_features_in_ = snapshots.clock, snapshots.x.shape[1]
        fitted.n_cells_ = tuple(len(snapshots.at(time)) for time in snapshots.clock.times)
        with seeded(rng):
            scales = spreads(snapshots)
            fitted.field_ = fitted._field(scales).to(device)
        batches = self._pair(snapshots, coupling, rng, fitted.masses_, device)
        fitted.plans_, fitted.turnover_ = batches.plans, batches.turnovers
        fitted.matching_ = batches.matched
        fitted.digest_ = snapshots.digest()  # of the cells that the plans are of
        run, searching = fitted._run(run), generator_at(int(self.seed), SEARCHING)
        growing = batches if fitted.growth_ and self.prior_key is None else None
        regular = self._regular(run, aside.is_few(self.regularize, len(snapshots.x)) and coupling.divisible)
        fitted.search_history_ = training.History()
        blurs = regular and paths.resolve(self.path).sigma == 0
        fitted.blur_ = aside.blur(self._clouds(snapshots, precise_device(device))[0]) if blurs else 0.0
        objective = fitted._objective(unit=unit_of(scales, self.standardize), blur=fitted.blur_)

        fitted.history_, fitted.search_history_ = training.fit_unmemorised(
            fitted.field_,
            objective,
            batches,
            parts=lambda: (
                snapshot_pairs.parts(self, snapshots, coupling, searching, fitted.masses_, device, whole=growing)
                if regular
                else None
            ),
            steps=self.steps,
            generator=rng,
            searching=searching,
            recipe=self.recipe,
            run=run,
            about=self._about(snapshots.about(cells) | ({"regular": True} if regular else {})),
        )
        given = (snapshots, donors, coupling, objective, scales, run)
        fitted.members_ = members.fit_members(fitted, *given)
        return self._become(fitted)

    suggest, suggest_sigma = snapshot_suggestion.suggest, snapshot_suggestion.suggest_sigma
    distill = snapshot_distillation.distill
    read, score = snapshot_states.read, verbs.score
    transport, simulate, grow = verbs.transport, verbs.simulate, verbs.grow
    velocity, growth_rate = verbs.velocity, verbs.growth_rate
    _learned, _restore = snapshot_record.learned, snapshot_record.restore
    _snapshots, _clouds = snapshot_pairs.read, snapshot_pairs.clouds
    _population, _pair = snapshot_pairs.population, snapshot_pairs.pair

    def _check_settings(self) -> None:
        networks.resolve(self.network)
        curves.resolve(self.curve)
        for name, choices in (("stochastic", ()), ("growth", (AUTO,))):
            value = getattr(self, name)
            if not isinstance(value, bool) and value not in choices:
                raise TypeError(f"Expected `{name}` to be True or False; found {value!r}.")
        self._check_growth(couplings.resolve(self.coupling) == COUPLINGS[AUTO] if self.growth == AUTO else self.growth)
        aside.is_few(self.regularize, 0)
        members.check_settings(self.ensemble, self.replicate_key)
        super()._check_settings()

    def _check_growth(self, learned: bool) -> None:
        for name in ("masses", "prior_key"):
            if getattr(self, name) is not None and not learned:
                raise ValueError(f"`{name}` is used with growth only. Set `growth=True`.")

    def _objective(self, *, unit: Unit = 1.0, blur: float = 0.0) -> Objective:
        path = paths.blurred(self.path, blur)
        if self.stochastic:
            return BridgeMatching(path, unit=unit, growth_weight=1.0 if self.growth_ else None)
        return GrowthMatching(path, unit=unit) if self.growth_ else VelocityMatching(path, unit=unit)

    def _sizes(self, snapshots: Snapshots, coupling: Coupling) -> Sizes | None:
        if not self.growth_:
            return None
        sizes = population_sizes(self.masses, snapshots)
        if self.within is None and self.prior_key is None:  # in groups of their own, cells may gain on others anyway
            check_growing(coupling, sizes)
        return sizes

    def _field(self, scales: Scales) -> nn.Module:
        make = conditional.seeing(networks.resolve(self.network), self.conditions_)
        return build_field(
            make,
            scales,
            self._objective().heads,
            heads=self.heads,
            alone=("growth",) if self.growth == AUTO and not takes_heads(make) else (),  # it was not asked for
            sigma=paths.resolve(self.path).sigma,
            standardize=self.standardize,
        )

    def _blank(self) -> nn.Module:
        return self._field(blank(self.n_features_in_))
