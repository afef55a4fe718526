"""`ImageGenerator`: a flow, or a diffusion model, from noise to images."""

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from cellflow import couplings, modes, paths, training
from cellflow.cells.conditions import Conditions, resolve
from cellflow.cells.fitted_conditions import FittedConditions
from cellflow.couplings import CouplingLike
from cellflow.errors import unknown
from cellflow.estimators import editing, generation_distillation, guesses, latents
from cellflow.estimators import generation_verbs as verbs
from cellflow.estimators.base import DISTILLING, REFINING, FlowEstimator, some_rows
from cellflow.estimators.conditional_domains import Conditioned, conditional, conditioned, width
from cellflow.estimators.domains import digest
from cellflow.estimators.fields import Make, network_for
from cellflow.estimators.guidance import ConditionDropout
from cellflow.estimators.pixel_levels import Known, levels_of, recorded, restored
from cellflow.estimators.serialize import FORMER
from cellflow.images.sets import ImageSet
from cellflow.images.streams import ImageStream
from cellflow.networks import FlowMap, GuessedVelocity
from cellflow.objectives import NoiseMatching, Objective, VelocityMatching
from cellflow.pairing.image_batches import ImageBatches, image_batches
from cellflow.pairing.image_legs import image_leg_batches
from cellflow.paths import GaussianPath
from cellflow.renamed import renamed
from cellflow.seeds import generator, generator_at, precise_device, seeded
from cellflow.signature import checked_but
from cellflow.training import ModelCoupling, Recipe, Reflow, Run
from cellflow.training.recipe import check_settings
from cellflow.training.refit import OLD_REFITTING
from cellflow.training.run import OLD_KEYWORDS

OBJECTIVES = ("velocity", "noise")
"""What the network predicts: the velocity of the path (flow matching), or its noise (diffusion)."""


class ImageGenerator(FlowEstimator):
    """A generative model of images: a flow from noise, or a diffusion model.

    Parameters
    ----------
    path
        Path from noise to an image: a path, or the name of one.
    objective
        ``"velocity"`` for flow matching; ``"noise"`` for the diffusion model with the same network, which needs
        ``path="variance_preserving"``.
    coupling
        How noise and images are matched: a coupling, a function of two clouds, or the name of a coupling. ``"exact"``
        is OT-CFM.
    conditional
        Whether to condition on the classes of the images.
    conditions
        Conditions of the images instead of classes, read from their ``obs``: a `cellflow.Conditions`, or the name of
        the column of treatments. Each gets an equal share of the training.
    condition_dropout
        Fraction of samples whose class or condition is dropped in training, which guidance and samples without a class
        require.
    guess
        Whether the network corrects a linear guess of the velocity (`cellflow.networks.VelocityGuess`), with straight
        paths and the objective ``"velocity"``. After short trainings it gained a little on digits and nothing on
        clothes.
    network
        A callable from the channels of the images to a module (with ``condition_dim=`` for classes or conditions);
        ``None`` for a small `UNet` suited to their size.
    steps
        Training steps.
    batch_size
        Images per step.
    recipe
        Settings of the optimiser.
    flip
        Whether to mirror images at random.
    autoencoder
        For images of 128 pixels and more: a flow of latents, see `cellflow.DomainTranslator`.
    seed
        Seed of all random numbers.
    device
        ``"cpu"``, ``"cuda"``, or ``"auto"`` for the GPU if there is one.
    progress
        Whether to show a progress bar while fitting; ``None`` to show it in a terminal only.

    Attributes
    ----------
    field_
        The fitted network.
    history_
        Terms of the objective at every step.
    shape_
        Channels, height and width of the images.
    autoencoder_
        The autoencoder; ``None`` for a flow of pixels.
    levels_
        The levels of the images, in a tuple; ``None`` for bytes.
    classes_
        Names of the classes if they were learned, else ``None``.
    conditions_
        The conditions as they were read; ``None`` without.
    controls_
        Whether the control was among the images.

    Source
    ------
    Lipman et al. 2023, section 4, for flow matching; Ho et al. 2020, section 3, for diffusion; Ho and Salimans
    2022 for guidance.

    Examples
    --------
    >>> import cellflow as cf
    >>> small = cf.networks.UNet
    >>> from functools import partial
    >>> network = partial(small, width=8, multipliers=(1, 2), blocks=1)
    >>> model = ImageGenerator(conditional=True, network=network, steps=5, batch_size=8).fit(cf.datasets.digits())
    >>> model.generate(3, label="7", guidance=2.0, solver=2)
    ImageSet(3 images, 1 x 8 x 8, 10 classes, generated)
    """

    shape_: tuple[int, int, int]
    levels_: Known
    autoencoder_: latents.Known = None
    classes_: tuple[str, ...] | None
    conditions_: FittedConditions | None
    controls_: bool

    def __init__(
        self,
        *,
        path: GaussianPath | str = "linear",
        objective: str = "velocity",
        coupling: CouplingLike = "independent",
        conditional: bool = False,
        conditions: Conditions | str | None = None,
        condition_dropout: float = 0.1,
        guess: bool = False,
        network: Make | None = None,
        steps: int = 10_000,
        batch_size: int = 128,
        recipe: Recipe | None = None,
        flip: bool = False,
        autoencoder: str | Path | None = None,
        seed: int = 0,
        device: str | torch.device = "auto",
        progress: bool | None = None,
        **old: Any,
    ) -> None:
        self.path = path
        self.objective = objective
        self.coupling = coupling
        self.conditional = conditional
        self.conditions = conditions
        now = renamed("ImageGenerator", old, FORMER["ImageGenerator"])
        self.condition_dropout = now.get("condition_dropout", condition_dropout)
        self.guess = guess
        self.network = network
        self.steps = steps
        self.batch_size = batch_size
        self.recipe = recipe
        self.flip = flip
        self.autoencoder = autoencoder
        self.seed = seed
        self.device = device
        self.progress = progress

    @checked_but("images", "y")
    def fit(self, images: ImageSet | ImageStream, y: None = None, *, run: Run | None = None, **old: Any) -> Self:
        """Fit the model; an earlier fit is replaced.

        Parameters
        ----------
        images
            Images of one shape, with labels where classes are learned, and ``obs`` where conditions are;
        `cellflow.images.read_images` reads them.
        y
            Not used; for compatibility with scikit-learn.
        run
            Folder, resumption, monitoring and devices of the training. If it fails, this model is unchanged.

        Raises
        ------
        TypeError
            When they are not images.
        ValueError
            When there is only one image, labels or ``obs`` are missing, or settings contradict each other.
        FileExistsError, CheckpointError
            As for `DomainTranslator.fit`.
        """
        run = renamed("ImageGenerator.fit", old, OLD_KEYWORDS).get("run", run)
        self._check_settings()
        objective = ConditionDropout(self._objective(), self.condition_dropout)
        rng = generator(seed=int(self.seed))
        device = self._device(run)
        images = _of_images(images).to(precise_device(device))
        fitted = self._unfitted()
        fitted.shape_, fitted.classes_ = images.shape, images.classes if self.conditional else None
        fitted.levels_ = levels_of(images)
        known = fitted._conditioned(images, resolve(self.conditions))
        fitted.conditions_, fitted.controls_ = (known.conditions, known.controls) if known else (None, False)
        run = fitted._run(run)
        fitted.autoencoder_ = self._autoencoder(images, run)
        run = latents.run_after(run)
        states = latents.encoded(fitted.autoencoder_, images)
        batches = self._batches(states, rng, known)
        with seeded(rng):
            fitted.field_ = fitted._blank().to(device)
        guesses.measure(fitted.field_, None, states)
        fitted.history_ = training.fit(
            fitted.field_,
            objective,
            batches,
            steps=self.steps,
            generator=rng,
            recipe=self.recipe,
            run=run,
            about=self._about(self._digests(images, known)),
        )
        return self._become(fitted)

    @checked_but("coupling", "rounds", "steps")
    def refine(
        self,
        images: ImageSet | ImageStream,
        *,
        rounds: int,
        steps: int | None = None,
        coupling: ModelCoupling | None = None,
        run: Run | None = None,
        **old: Any,
    ) -> Self:
        """Train a fitted flow further on its own pairs of noise and images (reflow).

        On the linear path trajectories become straight, so that few solver steps suffice; on other paths they do not.

        Parameters
        ----------
        images
            The images of the fit. At most 4096 random ones, and as many draws of noise, are each carried to the other
            end of a pair.
        rounds
            Number of rounds.
        steps
            Training steps per round; ``None`` for as many as the fit.
        coupling
            How pairs are made; ``None`` for ``cellflow.training.Reflow(both_ends=True)``, which keeps real images in
            half of the pairs.
        run
            As for `cellflow.training.refit`. If it fails, this model is unchanged.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError, TypeError
            When the images are not those of the fit, or ``rounds`` is below 1.

        Source
        ------
        Liu, Gong and Liu 2023, algorithm 1.

        Examples
        --------
        >>> import cellflow as cf
        >>> from functools import partial
        >>> network = partial(cf.networks.UNet, width=8, multipliers=(1, 2), blocks=1)
        >>> digits = cf.datasets.digits().take(range(20))
        >>> model = cf.ImageGenerator(network=network, steps=5, batch_size=8).fit(digits)
        >>> len(model.refine(digits, rounds=2, steps=3, coupling=cf.training.Reflow(2)).history_)
        11
        """
        coupling = renamed("ImageGenerator.refine", old, OLD_REFITTING).get("coupling", coupling)
        refined, images = self._fitted_on(images, run)
        rng, steps = generator_at(int(self.seed), REFINING), self.steps if steps is None else steps
        check_settings(steps, self.batch_size, self.recipe)
        known = self._conditioned(images, self.conditions_)
        (noise, real), _, classes = self._both_ends(latents.encoded(self.autoencoder_, images), rng, known)
        found = training.refit(
            refined.field_,
            self._objective(),
            noise,
            real,
            coupling=coupling or Reflow(both_ends=True),
            rounds=rounds,
            steps=steps,
            generator=rng,
            batch_size=self.batch_size,
            at_once=self.batch_size,
            recipe=self.recipe,
            condition=None if classes is None else classes[0],
            run=refined._run(run),
            about=self._about(self._digests(images, known)),
        )
        refined.history_ = sum(found, self.history_)
        return self._become(refined)

    distill = generation_distillation.distill
    generate, trajectory, translate = verbs.generate, verbs.trajectory, editing.translate

    def _autoencoder(self, images: ImageSet | ImageStream, run: Run) -> latents.Known:
        """Return the autoencoder of the setting, trained on the images where that is asked for."""
        given: dict[str, Any] = {"steps": self.steps, "batch_size": self.batch_size, "recipe": self.recipe}
        return latents.autoencoder_of(self.autoencoder, [images], **given, seed=int(self.seed), run=run)

    @property
    def _state_shape(self) -> tuple[int, ...]:
        """The shape of what is carried: of images, or of their latents."""
        return latents.state_shape(self.autoencoder_, self.shape_)

    def _conditioned(
        self, images: ImageSet | ImageStream, conditions: Conditions | FittedConditions | None
    ) -> Conditioned | None:
        """Return the images by condition; ``None`` without conditions."""
        if conditions is None:
            return None
        return conditioned(conditions, images, sources=1, dropped=self.condition_dropout > 0)

    def _digests(self, images: ImageSet | ImageStream, known: Conditioned | None) -> dict[str, str]:
        return {"images": digest(images)} | ({} if known is None else known.digest)

    def _batches(self, images: Any, rng: torch.Generator, known: Conditioned | None) -> ImageBatches:
        settings: dict[str, Any] = {
            "coupling": couplings.resolve(self.coupling),
            "batch_size": self.batch_size,
            "generator": rng,
            "flip": self.flip,
            "path": self.path,
        }
        if known is not None:
            return image_leg_batches(None, images, known.legs, known.seen.to(images.device), **settings)
        return image_batches(None, images, condition="labels" if self.conditional else None, **settings)

    def _both_ends(
        self, images: Any, rng: torch.Generator, known: Conditioned | None
    ) -> tuple[list[Tensor], tuple[float, float], list[Tensor] | None]:
        """Return equal numbers of noise samples and real images, their times, and the conditions of both."""
        real = images.scaled(chosen := some_rows(len(images), self.shape_, rng))
        n, noise = len(real), torch.randn(real.shape, generator=rng, dtype=torch.float32).to(real.device)
        if self.flip:
            mirrored = (torch.rand(n, 1, 1, 1, generator=rng, dtype=torch.float32) < 0.5).to(images.device)
            real = torch.where(mirrored, real.flip(-1), real)
        if self.classes_ is None and known is None:
            return [noise, real], (0.0, 1.0), None
        seen = (images.one_hot(chosen) if known is None else known.of(chosen)).to(images.device)
        dropped = (torch.rand(n, 1, generator=rng, dtype=torch.float32) < self.condition_dropout).to(seen)
        return [noise, real], (0.0, 1.0), [seen * (1 - dropped), seen]

    def _fitted_on(self, images: object, run: Run | None) -> tuple[Self, ImageSet | ImageStream]:
        """Return a copy to train further, and images on its device; refuse images unlike those of the fit."""
        copy = self._copy(run)
        found = _of_images(images).to(next(copy.field_.parameters()).device)
        if found.shape != self.shape_ or (self.classes_ is not None and found.classes != self.classes_):
            raise ValueError(f"Expected the images of the fit, {self.shape_} each; found {found}.")
        return copy, found

    def _blank_map(self, spans: str, *, growth: bool = False) -> FlowMap:
        if self.objective == "velocity":
            return super()._blank_map(spans, growth=growth)
        with seeded(generator_at(int(self.seed), DISTILLING)):  # a network of noise does not predict mean velocities
            return FlowMap(self._blank(times=2), spans=spans).to(next(self.field_.parameters()))

    def _check_settings(self) -> None:
        super()._check_settings()
        ConditionDropout(self._objective(), self.condition_dropout)
        latents.check_setting(self.autoencoder, flip=self.flip)
        if self.guess and self.objective == "noise":
            raise ValueError('Guesses are of the velocity: take objective="velocity", or no `guess`.')
        if resolve(self.conditions) is not None and self.conditional:
            raise ValueError(
                "Expected classes (`conditional=True`) or `conditions`; found both. Put the class into a column of "
                "`obs`, and name it in `cf.Conditions(categories=...)`."
            )

    def _objective(self, *, unit: Any = 1.0) -> Objective:
        if self.objective not in OBJECTIVES:
            raise ValueError(unknown("objective", self.objective, OBJECTIVES))
        path = paths.resolve(self.path)
        return VelocityMatching(path, unit=unit) if self.objective == "velocity" else NoiseMatching(path)

    @modes.single_precision()
    def _blank(self, **settings: int) -> torch.nn.Module:
        seen = width(self.conditions_, dropped=self.condition_dropout > 0) + len(self.classes_ or ())
        network = conditional(network_for(self.network, self._state_shape), seen)(self._state_shape[0], **settings)
        if not self.guess:
            return network
        return GuessedVelocity(network, guesses.of_velocity(self._state_shape, self.path))

    def _learned(self) -> dict[str, Any]:
        classes = None if self.classes_ is None else list(self.classes_)
        known = None if self.conditions_ is None else self.conditions_.record()
        return {
            "shape": list(self.shape_),
            "classes": classes,
            "levels": recorded(self.levels_),
            "history": self.history_.columns,
            "conditions": known,
            "controls": self.controls_,
        }

    def _restore(self, learned: dict[str, Any]) -> None:
        self.shape_, self.levels_ = tuple(learned["shape"]), restored(learned.get("levels"), domains=1)
        self.classes_ = None if learned["classes"] is None else tuple(learned["classes"])
        self.history_ = training.History(learned["history"])
        known = learned.get("conditions")
        self.conditions_ = None if known is None else FittedConditions.of(known)
        self.controls_ = learned.get("controls", False)


def _of_images(images: object) -> ImageSet | ImageStream:
    if not isinstance(images, ImageSet | ImageStream):
        found = type(images).__name__
        raise TypeError(f"Expected images; found {found}. `cf.images.read_images` reads folders and arrays.")
    return images
