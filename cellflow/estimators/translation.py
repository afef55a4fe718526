"""`DomainTranslator`: a flow from one set of samples to another, without pairs."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from cellflow import couplings, paths, training
from cellflow.cells.conditions import Conditions
from cellflow.cells.conditions import resolve as resolve_conditions
from cellflow.cells.fingerprint import Fingerprint
from cellflow.cells.fitted_conditions import FittedConditions
from cellflow.couplings import CouplingLike
from cellflow.estimators import guesses, latents, translation_distillation, translation_refining
from cellflow.estimators import translation_verbs as verbs
from cellflow.estimators.base import SEARCHING, FlowEstimator
from cellflow.estimators.conditional_domains import Conditioned, conditional, conditioned, hold_out_legs, width
from cellflow.estimators.conditional_fields import additive_effects
from cellflow.estimators.conditional_groups import check_conditional, groups_of_both, names_of_classes, with_groups
from cellflow.estimators.domains import (
    Domain,
    Points,
    Samples,
    as_images,
    digests,
    feature_space,
    hold_out,
    read_both,
    regular,
    scales_of,
)
from cellflow.estimators.fields import ENDS, Make, Scales, blank, build_field, network_for, overall
from cellflow.estimators.guidance import ConditionDropout
from cellflow.estimators.pixel_levels import Known, check_levels, check_order, levels_of, recorded, restored
from cellflow.estimators.population import AUTO
from cellflow.estimators.representation import check_cells, known_by
from cellflow.estimators.serialize import FORMER
from cellflow.networks import EndGuess, VelocityGuess
from cellflow.networks.additive import AdditiveShift
from cellflow.networks.treated import Displaced
from cellflow.objectives import BridgeMatching, EndPointMatching, Objective, VelocityMatching
from cellflow.objectives.draw import Unit
from cellflow.pairing import aside
from cellflow.pairing.features import Features
from cellflow.pairing.image_batches import ImageBatches, image_batches
from cellflow.pairing.image_legs import image_leg_batches
from cellflow.paths import BrownianBridge, GaussianPath
from cellflow.renamed import renamed
from cellflow.seeds import generator, generator_at, precise_device, seeded
from cellflow.signature import checked
from cellflow.training import Recipe, Run
from cellflow.training.run import OLD_KEYWORDS
from cellflow.training.search import Parts

DAMPING = 0.001
"""Damping of the flow without noise where ends are predicted, see `cellflow.objectives.DampedVelocity`."""


class DomainTranslator(FlowEstimator):
    """A flow from a source domain to a target domain: images to images, or control cells to treated ones.

    Both domains are images (an `ImageSet`, an `ImageStream`), arrays or tensors ``(n, d)`` or ``(n, c, h, w)``, or
    cells (AnnData). Bytes count as pixels from -1 to 1; other numbers are taken as they are. Results have the form of
    the input.

    Parameters
    ----------
    path
        Path between a source and a target sample: a path, or the name of one.
    coupling
        How samples are matched: a coupling, a function of two clouds, or the name of a coupling.
    features
        Features by which samples are matched: ``None`` for the samples themselves, a number of principal components, or
        the name of a network of `cellflow.metrics.feature_network`. Other features are given to `fit`.
    within_labels
        Whether only samples of one class are paired; for cells, the column of ``obs`` with the class.
    conditions
        What differs between target samples, read from their ``obs``: a `cellflow.Conditions`, or the name of the column
        of treatments. One flow then leads from the source to each of them, and conditions get equal shares of the
        training. ``None`` for one target. For treatments of cells, some of which may have no effect, see
        `cellflow.PerturbationFlow`: it leaves cells unchanged under these, where this flow would carry them by noise.
    within
        Column of ``obs`` of both domains, or several: only samples of one group, such as a plate or a donor, are
        paired.
    condition_dropout
        Fraction of samples whose condition is dropped in training, which guidance requires.
    stochastic
        Whether to learn the score as well, on a path with noise: the flow is then a Schrödinger bridge, and can be
        simulated with noise in both directions.
    heads
        What networks return if there is a score: ``"shared"``, one for velocity and score (a network that takes
        ``heads=``); ``"separate"``, one for each; or, of images on a `cellflow.paths.BrownianBridge`, ``"ends"``, what
        a linear guess of both ends of the bridge misses, see `cellflow.networks.EndGuess`: results have less grain.
        Towards masks, whose edges the guess blurs, ``"shared"`` comes nearer.
        ``"auto"`` is ``"ends"`` where that is possible, otherwise ``"shared"``.
    guess
        Whether the network of a flow between images, on a straight path and without a score, corrects a linear guess
        of the velocity (`cellflow.networks.VelocityGuess`), measured on images of both domains. Where the source has
        grain, outlines or texture that the target lacks, young networks then leave much less of it.
    network
        A callable from the width of vectors, or the channels of images, to a module; ``None`` for one suited to their
        shape: an `MLP` on standardised vectors, or a small `UNet`.
    rep
        Representation of cells: a key of ``obsm``, or ``"X"``.
    steps
        Training steps.
    batch_size
        Pairs per step.
    recipe
        Settings of the optimiser.
    regularize
        As for `cellflow.SnapshotFlow`: early stopping and blurred paths, ``"auto"`` for fewer than 10,000 vectors. Not
        for images, where it was not measured, nor if the features of both domains are given.
    flip
        Whether to mirror pairs of images at random, both images alike.
    ot_batch_size
        Number of samples of each domain to match at once, see `cellflow.pairing.image_batches`.
    autoencoder
        For images of 128 pixels and more: a flow of latents, in which they are several times smaller. ``"train"`` first
        trains a small autoencoder on the images of both domains, for as many steps; the folder of an ``AutoencoderKL``
        of diffusers takes that one. It is saved with the model.
    seed, device, progress
        As for `cellflow.SnapshotFlow`.

    Attributes
    ----------
    field_
        The fitted field: the velocity, or velocity and score.
    history_, search_history_, blur_
        As of `cellflow.SnapshotFlow`.
    shape_
        Shape of one sample.
    autoencoder_
        The autoencoder; ``None`` for a flow of the samples themselves.
    pixels_, levels_
        Whether it was fitted on images; and the `cellflow.images.Levels` of both domains, ``None`` for bytes.
    fingerprint_
        Fingerprint of the representation of cells; ``None`` without cells.
    conditions_
        The conditions as they were read; ``None`` without.
    controls_
        Whether the control was among the target samples.
    segments_
        Number of segments of the curves by which additive effects of treatments depend on doses; ``None`` without.

    Source
    ------
    Tong et al. 2024 (TMLR), section 4.2, with the source domain as the source; Tong et al. 2024 (AISTATS) with
    a score.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> x = torch.randn(50, 2, generator=cf.generator(seed=0))
    >>> model = DomainTranslator(steps=20).fit(x, x + 3)
    >>> model.translate(x[:5]).shape, model.translate(x[:5] + 3, reverse=True).shape
    (torch.Size([5, 2]), torch.Size([5, 2]))

    Images without and with one of two drugs, in one model:

    >>> import pandas as pd
    >>> digits = cf.datasets.digits()
    >>> control, treated = digits.only("0"), digits.only("1", "7")
    >>> plate = pd.DataFrame({"drug": ["A" if label == 1 else "B" for label in treated.labels.tolist()]})
    >>> treated = cf.images.read_images(treated, table=plate)
    >>> model = DomainTranslator(conditions="drug", features=4, steps=2, batch_size=8).fit(control, treated)
    >>> model.translate(control.take([0, 1]), condition={"drug": "B"}, solver=2).obs["drug"].tolist()
    ['B', 'B']
    """

    shape_: tuple[int, ...]
    pixels_: bool
    levels_: Known
    autoencoder_: latents.Known = None
    unit_: float
    fingerprint_: Fingerprint | None
    search_history_: training.History
    blur_: float
    conditions_: FittedConditions | None
    controls_: bool
    segments_: int | None

    def __init__(
        self,
        *,
        path: GaussianPath | str = "linear",
        coupling: CouplingLike = "exact",
        features: int | str | None = None,
        within_labels: bool | str = False,
        conditions: Conditions | str | None = None,
        within: str | Sequence[str] | None = None,
        condition_dropout: float = 0.0,
        stochastic: bool = False,
        heads: str = AUTO,
        guess: bool = False,
        network: Make | str | None = None,
        rep: str = "X_pca",
        steps: int = 3000,
        batch_size: int = 128,
        recipe: Recipe | None = None,
        regularize: bool | str = "auto",
        flip: bool = False,
        ot_batch_size: int | str = "auto",
        autoencoder: str | Path | None = None,
        seed: int = 0,
        device: str | torch.device = "auto",
        progress: bool | None = None,
        **given: Any,
    ) -> None:
        new = renamed("DomainTranslator", given, FORMER["DomainTranslator"])
        self.path = path
        self.coupling = coupling
        self.features = features
        self.within_labels = within_labels
        self.conditions = conditions
        self.within = within
        self.condition_dropout = condition_dropout
        self.stochastic = new.get("stochastic", stochastic)
        self.heads = new.get("heads", heads)
        self.guess = guess
        self.network = network
        self.rep = rep
        self.steps = steps
        self.batch_size = batch_size
        self.recipe = recipe
        self.regularize = regularize
        self.flip = flip
        self.ot_batch_size = ot_batch_size
        self.autoencoder = autoencoder
        self.seed = seed
        self.device = device
        self.progress = progress

    @checked
    def fit(
        self,
        source: Samples,
        target: Samples,
        *,
        features: Features | None = None,
        run: Run | None = None,
        **old: Any,
    ) -> Self:
        """Fit the flow; an earlier fit is replaced. Neither domain is changed.

        Parameters
        ----------
        source, target
            Samples of both domains, in any numbers.
        features
            Your own features for matching, instead of the setting: a function of samples ``(n, ...)``, or the features
            of both domains, ``(n, d)`` and ``(m, d)``.
        run
            Folder, resumption, monitoring and devices of the training. If it fails, this translator is unchanged.

        Raises
        ------
        ValueError, TypeError, KeyError
            When the domains differ in shape or kind, hold the same samples or only one, or settings contradict each
            other.
        FileExistsError
            When the folder of the run already holds a training, and ``resume`` is false.
        CheckpointError
            When the state in that folder is damaged, or belongs to other data or settings.
        """
        run = renamed("DomainTranslator.fit", old, OLD_KEYWORDS).get("run", run)
        self._check_settings()
        rng = generator(seed=int(self.seed))
        device = self._device(run)
        domains = self._read_both(source, target, precise_device(device))
        known = self._conditioned(source, target, domains, resolve_conditions(self.conditions))
        fitted = self._unfitted()
        fitted.conditions_, fitted.controls_ = (known.conditions, known.controls) if known else (None, False)
        fitted.shape_, fitted.pixels_ = tuple(domains[0].shape), not isinstance(domains[0], Points)
        fitted.levels_ = levels_of(*domains)
        check_order(fitted.levels_[0], fitted.levels_[1])
        fitted.fingerprint_, digests_seen = (
            known_by(source, target, domains, rep=self.rep),
            self._digests(domains, known),
        )
        run = fitted._run(run)
        fitted.autoencoder_ = self._autoencoder(domains, run)
        run = latents.run_after(run)
        x0, x1 = (latents.encoded(fitted.autoencoder_, domain) for domain in domains)
        domains, scales = (x0, x1), scales_of(x0, x1)
        fitted.unit_ = overall(scales)
        shift = additive_effects(known, *domains)
        fitted.segments_ = None if shift is None else len(shift.axis)
        with seeded(rng):
            fitted.field_ = fitted._field(scales, shift).to(device)
        searching = generator_at(int(self.seed), SEARCHING)
        fitted.search_history_ = training.History()
        few = self._regular(run, regular(self.regularize, self.coupling, domains, features))
        blurs = few and paths.resolve(self.path).sigma == 0
        fitted.blur_ = aside.blur([domain.scaled() for domain in domains]) if blurs else 0.0
        part = partial(self._pair, features=features, rng=searching)
        batches, sizes = self._pair(*domains, features, rng, known), (len(domains[0]), len(domains[1]))
        guesses.measure(fitted.field_, x0, x1)

        def parts() -> Parts | None:
            if not few:
                return None
            if known is None:
                return hold_out(*domains, part, searching)
            return hold_out_legs(known, sizes, lambda some: part(*domains, known=some), searching)

        fitted.history_, fitted.search_history_ = training.fit_unmemorised(
            fitted.field_,
            fitted._objective(unit=fitted.unit_, blur=fitted.blur_),
            batches,
            parts=parts,
            steps=self.steps,
            generator=rng,
            searching=searching,
            recipe=self.recipe,
            run=run,
            about=self._about(digests_seen | ({"regular": True} if few else {})),
        )
        return self._become(fitted)

    refine, distill = translation_refining.refine, translation_distillation.distill
    translate, simulate, trajectory = verbs.translate, verbs.simulate, verbs.trajectory

    def _fitted_on(self, source: Samples, target: Samples, run: Run | None) -> tuple[Self, tuple[Domain, Domain]]:
        """Return a copy to train further, and samples on its device; refuse samples unlike those of the fit."""
        copy = self._copy(run)
        domains = self._read_both(source, target, next(copy.field_.parameters()).device)
        for number, (given, domain) in enumerate(zip((source, target), domains, strict=True)):
            verbs.check_domain(self, domain)
            check_levels(self.levels_[number], given, again=f"flow.levels_[{number}]")
            check_cells(self, given, domain)
        x0, x1 = (latents.encoded(copy.autoencoder_, domain) for domain in domains)
        return copy, (x0, x1)

    def _check_settings(self) -> None:
        super()._check_settings()
        aside.is_few(self.regularize, 0)
        check_conditional(self)
        if self.stochastic and self.guess:
            raise ValueError(
                '`guess` is for flows without a score. Bridges between images have theirs in heads="ends".'
            )
        latents.check_setting(self.autoencoder, flip=self.flip, features=self.features)
        if not isinstance(self.stochastic, bool):
            raise TypeError(f"Expected `stochastic` to be True or False; found {self.stochastic!r}.")
        if self._is_set(ENDS) and not self.stochastic:
            raise ValueError(
                'heads="ends" are those of a bridge. Set stochastic=True and path=cf.paths.BrownianBridge(0.3), or '
                "leave `heads` out."
            )
        if self.stochastic and self._is_set(ENDS) and not isinstance(paths.resolve(self.path), BrownianBridge):
            raise ValueError(
                f'heads="ends" need a Brownian bridge; found path={self.path!r}. Give '
                'path=cf.paths.BrownianBridge(0.3), or heads="shared".'
            )

    @property
    def _by_ends(self) -> bool:
        """Whether the network predicts both ends of a bridge."""
        if self._is_set(AUTO):
            bridge = isinstance(paths.resolve(self.path), BrownianBridge)
            return self.stochastic and bridge and len(self.shape_) == 3
        return self.stochastic and self._is_set(ENDS)

    @property
    def _guess(self) -> EndGuess | VelocityGuess | None:
        """What the network corrects, not measured yet."""
        if self._by_ends:
            return EndGuess(self._state_shape, paths.resolve(self.path).sigma)
        return guesses.of_velocity(self._state_shape, self.path) if self.guess else None

    def _is_set(self, heads: str) -> bool:
        return isinstance(self.heads, str) and self.heads == heads

    def _autoencoder(self, domains: tuple[Domain, Domain], run: Run) -> latents.Known:
        """Return the autoencoder of the setting, trained on both domains where that is asked for."""
        given: dict[str, Any] = {"steps": self.steps, "batch_size": self.batch_size, "recipe": self.recipe}
        return latents.autoencoder_of(self.autoencoder, domains, **given, seed=int(self.seed), run=run)

    @property
    def _state_shape(self) -> tuple[int, ...]:
        """The shape of what is carried: of samples, or of their latents."""
        return latents.state_shape(self.autoencoder_, self.shape_)

    def _objective(self, *, unit: Unit = 1.0, blur: float = 0.0) -> Objective:
        path = paths.blurred(self.path, blur)
        objective: Objective
        if self._by_ends and isinstance(path, BrownianBridge):
            objective = EndPointMatching(path, unit=unit, damping=DAMPING)
        else:
            objective = (BridgeMatching if self.stochastic else VelocityMatching)(path, unit=unit)
        return ConditionDropout(objective, self.condition_dropout) if self.condition_dropout else objective

    def _read_both(self, source: Samples, target: Samples, device: torch.device) -> tuple[Domain, Domain]:
        group = self.within_labels if isinstance(self.within_labels, str) else None
        domains = read_both(source, target, rep=self.rep, group=group, device=device)
        return domains if self.within is None else with_groups(domains, groups_of_both(source, target, self.within))

    def _conditioned(
        self,
        source: Samples,
        target: Samples,
        domains: tuple[Domain, Domain],
        conditions: Conditions | FittedConditions | None,
    ) -> Conditioned | None:
        """Return the target samples by condition, and what each is paired with; ``None`` without conditions."""
        if conditions is None:
            return None
        groups = None if not (self.within or self.within_labels) else names_of_classes(*domains)
        dropped = self.condition_dropout > 0
        return conditioned(conditions, target, sources=len(domains[0]), groups=groups, dropped=dropped)

    def _digests(self, domains: tuple[Domain, Domain], known: Conditioned | None) -> dict[str, str]:
        return digests(*domains) | ({} if known is None else known.digest)

    def _pair(
        self,
        x0: Domain,
        x1: Domain,
        features: Features | None,
        rng: torch.Generator,
        known: Conditioned | None = None,
    ) -> ImageBatches:
        space = feature_space(self.features, x0)
        settings: dict[str, Any] = {
            "coupling": couplings.resolve(self.coupling),
            "batch_size": self.batch_size,
            "generator": rng,
            "features": space if features is None else features,
            "flip": self.flip,
            "ot_batch_size": self.ot_batch_size,
            "path": self.path,
        }
        if known is not None:
            seen = known.seen.to(x1.device)
            return image_leg_batches(as_images(x0), as_images(x1), known.legs, seen, **settings)
        within = bool(self.within or self.within_labels)
        return image_batches(as_images(x0), as_images(x1), within_labels=within, **settings)

    def _field(self, scales: Scales, shift: AdditiveShift | None = None) -> nn.Module:
        dropped = self.condition_dropout > 0
        if self._by_ends and len(self.shape_) == 1:
            raise ValueError(
                'heads="ends" are for images, whose noise is hard to learn; found vectors. Use heads="shared".'
            )
        field = build_field(
            conditional(network_for(self.network, self._state_shape), width(self.conditions_, dropped=dropped)),
            scales,
            self._objective().heads,
            heads=ENDS if self._by_ends else "shared" if self._is_set(AUTO) else self.heads,
            sigma=paths.resolve(self.path).sigma,
            standardize=len(self.shape_) == 1,
            guess=self._guess,
        )
        if self.segments_ is None or self.conditions_ is None:
            return field
        blank_shift = partial(
            AdditiveShift, self.conditions_.effects.width, self._state_shape[0], segments=self.segments_
        )
        return Displaced(field, shift or blank_shift(), first=int(dropped))

    def _learned(self) -> dict[str, Any]:
        return {
            "shape": list(self.shape_),
            "pixels": self.pixels_,
            "levels": recorded(self.levels_),
            "unit": self.unit_,
            "history": self.history_.columns,
            "search_history": self.search_history_.columns,
            "blur": self.blur_,
            "fingerprint": None if self.fingerprint_ is None else self.fingerprint_.record(),
            "conditions": None if self.conditions_ is None else self.conditions_.record(),
            "controls": self.controls_,
            "segments": self.segments_,
        }

    def _restore(self, learned: dict[str, Any]) -> None:
        self.shape_, self.pixels_ = tuple(learned["shape"]), learned["pixels"]
        self.unit_, self.history_ = learned["unit"], training.History(learned["history"])
        self.search_history_, self.blur_ = training.History(learned.get("search_history")), learned.get("blur", 0.0)
        self.fingerprint_ = Fingerprint.of(learned.get("fingerprint"), width=self.shape_[0])
        known = learned.get("conditions")
        self.conditions_ = None if known is None else FittedConditions.of(known)
        self.controls_, self.segments_ = learned.get("controls", False), learned.get("segments")
        self.levels_ = restored(learned.get("levels"), domains=2)

    def _blank(self) -> nn.Module:
        return self._field(blank(self._state_shape[0]))
