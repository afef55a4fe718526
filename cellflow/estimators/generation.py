"""`ImageGenerator`: a flow, or a diffusion model, from noise to images."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

from cellflow import couplings, paths, training
from cellflow.couplings import Coupling
from cellflow.errors import unknown
from cellflow.estimators.distillation import DISTILLING, REFINING, STEPS, Lesson, followed
from cellflow.estimators.domains import digest
from cellflow.estimators.guidance import ForgetfulObjective, Guided
from cellflow.estimators.image_flow import Make, Session, check_settings, keeping_history, network_for, train
from cellflow.estimators.noise_flow import NoiseFlow
from cellflow.estimators.rounds import go_on
from cellflow.estimators.serialize import encode
from cellflow.images.sets import ImageSet
from cellflow.images.streams import ImageStream
from cellflow.networks import FlowMap
from cellflow.objectives import FlowMapObjective, NoiseMatching, Objective, VelocityMatching
from cellflow.pairing.image_batches import ImageBatches, image_batches
from cellflow.paths import GaussianPath
from cellflow.seeds import generator, generator_at, seeded
from cellflow.training import Origin, Recipe, Reflow, Repairing

if TYPE_CHECKING:
    from lightning_fabric import Fabric

OBJECTIVES = ("velocity", "noise")
"""What the network learns: the velocity of the path (flow matching), or the noise in it (diffusion)."""


class ImageGenerator(NoiseFlow):
    """A model that makes images like those it has seen, out of noise.

    Parameters
    ----------
    path
        How noise and image are joined: a path, or the name of one.
    objective
        ``"velocity"`` for flow matching; ``"noise"`` for the diffusion model with the same network, which needs
        ``path="variance_preserving"``.
    coupling
        Which noise goes with which image: a coupling, or the name of one. ``"exact"`` is OT-CFM.
    conditional
        Whether the classes of the images are learned too, so that they can be asked for.
    forget
        Share of samples whose class is left out in training: what guidance needs, and samples of no class.
    network
        A callable from the channels of the images to a module (with ``condition_dim=`` for classes); None for a small
        `UNet` that suits their size.
    steps
        Optimiser steps.
    batch_size
        Images per step.
    recipe
        How the optimiser runs.
    flip
        Whether to mirror each image every other time.
    seed
        Seed of everything random.
    device
        ``"cpu"``, ``"cuda"``, or ``"auto"`` for the GPU where there is one.
    progress
        Whether to show a bar while fitting.

    Attributes
    ----------
    field_
        The fitted network.
    history_
        Terms of the objective at every step.
    shape_
        Channels, height and width of the images.
    classes_
        Names of the classes, where they were learned, else None.

    Source: Lipman et al. 2023, section 4, for flow matching; Ho et al. 2020, section 3, for diffusion; Ho and Salimans
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

    def __init__(
        self,
        *,
        path: GaussianPath | str = "linear",
        objective: str = "velocity",
        coupling: Coupling | str = "independent",
        conditional: bool = False,
        forget: float = 0.1,
        network: Make | None = None,
        steps: int = 10_000,
        batch_size: int = 128,
        recipe: Recipe | None = None,
        flip: bool = False,
        seed: int = 0,
        device: str = "auto",
        progress: bool = False,
    ) -> None:
        self.path = path
        self.objective = objective
        self.coupling = coupling
        self.conditional = conditional
        self.forget = forget
        self.network = network
        self.steps = steps
        self.batch_size = batch_size
        self.recipe = recipe
        self.flip = flip
        self.seed = seed
        self.device = device
        self.progress = progress

    def fit(
        self,
        images: ImageSet | ImageStream,
        y: None = None,
        *,
        folder: str | Path | None = None,
        resume: bool = False,
        fabric: "Fabric | None" = None,
        watch: Callable[[Self], None] | None = None,
        every: int = 1000,
    ) -> Self:
        """Fit the model; an earlier fit is forgotten.

        Parameters
        ----------
        images
            Images of one shape, with labels where classes are learned; `cellflow.images.read_images` reads them.
        y
            Not used; there for scikit-learn.
        folder, resume, fabric, watch, every
            As for `DomainTranslator.fit`.

        Raises
        ------
        TypeError
            When these are no images.
        ValueError
            When there is one only, labels are missing, or settings contradict each other.
        FileExistsError, CheckpointError
            As for `DomainTranslator.fit`.
        """
        check_settings(self.steps, self.batch_size, self.recipe)
        objective = self._objective()
        rng = generator(seed=int(self.seed))
        images = _of_images(images).to(self._device() if fabric is None else fabric.device)
        fitted = self._unfitted()
        fitted.shape_, fitted.classes_ = images.shape, images.classes if self.conditional else None
        batches = self._batches(images, rng)
        with seeded(rng):
            fitted.field_ = fitted._field().to(images.device)
        fitted.history_ = train(
            fitted.field_,
            ForgetfulObjective(objective, self.forget),
            batches,
            steps=self.steps,
            generator=rng,
            recipe=self.recipe,
            about=self._about(images),
            progress=self.progress,
            session=Session(folder, resume, fabric, keeping_history(fitted, watch), every),
        )
        return self._become(fitted)

    def refine(
        self,
        images: ImageSet | ImageStream,
        *,
        rounds: int,
        steps: int | None = None,
        repairing: Repairing | None = None,
    ) -> Self:
        """Train a fitted flow further, on pairs of noise and image that it makes itself.

        On the linear path its ways come to be straight, so that few solver steps will do; on others, curved by
        themselves, they do not.

        Parameters
        ----------
        images
            The images it was fitted on. Up to 4096 of them, chosen at random, and as many draws of noise are followed;
            each is an end of one pair.
        rounds
            How often it pairs noise and images anew.
        steps
            Optimiser steps per round; None for as many as the fit.
        repairing
            How: None for ``cellflow.training.Reflow(both_ends=True)``, which keeps real images in play.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError, TypeError
            When the images do not fit, or ``rounds`` is below 1.

        Source: Liu, Gong and Liu 2023, algorithm 1.

        Examples
        --------
        >>> import cellflow as cf
        >>> from functools import partial
        >>> network = partial(cf.networks.UNet, width=8, multipliers=(1, 2), blocks=1)
        >>> digits = cf.datasets.digits().take(range(20))
        >>> model = cf.ImageGenerator(network=network, steps=5, batch_size=8).fit(digits)
        >>> len(model.refine(digits, rounds=2, steps=3, repairing=cf.training.Reflow(2)).history_)
        11
        """
        images, rng = self._fitted_on(images), generator_at(int(self.seed), REFINING)
        noise, real = self._origins(images, rng)
        refined = self._to_refine()
        go_on(
            refined.field_,
            self._objective(),
            (noise.x, real.x),
            history=refined.history_,
            repairing=repairing or Reflow(both_ends=True),
            rounds=rounds,
            steps=self.steps if steps is None else steps,
            batch_size=self.batch_size,
            recipe=self.recipe,
            generator=rng,
            condition=noise.condition,
            progress=self.progress,
        )
        return self._become(refined)

    def distill(
        self,
        images: ImageSet | ImageStream,
        *,
        steps: int = STEPS,
        objective: FlowMapObjective | str = "trajectories",
        taught: bool = True,
        guidance: float = 1.0,
        recipe: Recipe | None = None,
        folder: str | Path | None = None,
        resume: bool = False,
    ) -> Self:
        """Teach a flow map what the fitted model does, so that ``generate(n, solver=Jumps(1))`` does it at once.

        Parameters
        ----------
        images
            The images it was fitted on: states between noise and them are what the map learns from.
        steps
            Optimiser steps.
        objective
            How the map learns: ``"trajectories"`` from those of the fitted flow; or an objective for flow maps (its
            path, unit and teacher are filled in), or the name of one: ``"semigroup"``, ``"lagrangian"``,
            ``"eulerian"``, ``"mean_velocity"`` or ``"direct"``.
        taught
            Whether the fitted flow is the teacher. Otherwise the map, which starts from it, learns velocity and jumps
            together from the pairs of the data alone.
        guidance
            How hard the map presses for a class that is asked for, once and for all.
        recipe
            How the optimiser runs; None for that of the fit with ``"trajectories"``, and for a learning rate of
            1e-3 otherwise.
        folder
            Where the state of the training is kept, so that it can be resumed; another one than that of the fit.
        resume
            Whether to go on from the state in ``folder``.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError, TypeError
            When the images do not fit, settings are of the wrong kind, guidance has no teacher or no classes, or the
            objective is not one for flow maps.

        Source: Boffi, Albergo and Vanden-Eijnden 2024, section 4 (flow map matching, distillation); Meng et al. 2023
        for guidance.

        Examples
        --------
        >>> import cellflow as cf
        >>> from functools import partial
        >>> network = partial(cf.networks.UNet, width=8, multipliers=(1, 2), blocks=1)
        >>> digits = cf.datasets.digits().take(range(40))
        >>> model = cf.ImageGenerator(network=network, steps=5, batch_size=8).fit(digits).distill(digits, steps=5)
        >>> model.generate(3, solver=cf.integrate.Jumps(1))
        ImageSet(3 images, 1 x 8 x 8, generated)
        """
        images = self._fitted_on(images)
        if guidance != 1 and (self.classes_ is None or not taught):
            raise ValueError(f"Guidance {guidance} needs a model that knows classes, as a teacher (`taught=True`).")
        rng, velocity = generator_at(int(self.seed), DISTILLING), self._velocity()
        flow_map = self._blank_map("forward").to(images.device)
        self.map_history_ = Lesson(
            objective, taught, steps, self.batch_size, recipe, self.recipe, folder, resume
        ).learn(
            flow_map,
            velocity if guidance == 1 else Guided(velocity, guidance),
            origins=lambda: self._origins(images, rng),
            pairs=lambda: self._batches(images, rng),
            path=paths.resolve(self.path),
            unit=1.0,
            generator=rng,
            about={**self._about(images), "guidance": guidance},
            progress=self.progress,
        )
        self.flow_map_ = flow_map
        return self

    def _batches(self, images: ImageSet | ImageStream, rng: torch.Generator) -> ImageBatches:
        return image_batches(
            None,
            images,
            coupling=couplings.resolve(self.coupling),
            batch_size=self.batch_size,
            generator=rng,
            condition="labels" if self.conditional else None,
            flip=self.flip,
        )

    def _origins(self, images: ImageSet | ImageStream, rng: torch.Generator) -> list[Origin]:
        """Return noise at time 0 and real images at time 1, as many of each."""
        chosen = followed(len(images), self.shape_, rng)
        n = len(chosen)
        real, noise = images.scaled(chosen), torch.randn(n, *self.shape_, generator=rng).to(images.device)
        if self.flip:
            mirrored = (torch.rand(n, 1, 1, 1, generator=rng) < 0.5).to(images.device)
            real = torch.where(mirrored, real.flip(-1), real)
        if self.classes_ is None:
            return [Origin(noise, 0.0), Origin(real, 1.0)]
        classes = images.one_hot(chosen).to(images.device)
        forgotten = (torch.rand(n, 1, generator=rng) < self.forget).to(classes)
        return [Origin(noise, 0.0, classes * (1 - forgotten)), Origin(real, 1.0, classes)]

    def _fitted_on(self, images: object) -> ImageSet | ImageStream:
        """Return images where the field is, once they are known to be like those of the fit."""
        self._check_fitted()
        found = _of_images(images).to(next(self.field_.parameters()).device)
        if found.shape != self.shape_ or (self.classes_ is not None and found.classes != self.classes_):
            raise ValueError(f"Expected the images of the fit, {self.shape_} each; found {found}.")
        return found

    def _velocity(self) -> Any:
        return self._objective().velocity(self.field_)

    def _blank_map(self, spans: str) -> FlowMap:
        if self.objective == "velocity":
            return super()._blank_map(spans)
        with seeded(generator_at(int(self.seed), DISTILLING)):  # a network of noise is none of mean velocities
            return FlowMap(self._field(times=2), spans=spans).to(next(self.field_.parameters()))

    def _objective(self) -> Objective:
        if self.objective not in OBJECTIVES:
            raise ValueError(unknown("objective", self.objective, OBJECTIVES))
        path = paths.resolve(self.path)
        return VelocityMatching(path) if self.objective == "velocity" else NoiseMatching(path)

    def _field(self, **settings: int) -> torch.nn.Module:
        make = network_for(self.network, self.shape_)
        known = {} if self.classes_ is None else {"condition_dim": len(self.classes_)}
        return make(self.shape_[0], **known, **settings)

    def _about(self, images: ImageSet | ImageStream) -> dict[str, Any]:
        """Return what a resumed fit must share with the one that was interrupted."""
        names = ("path", "objective", "coupling", "conditional", "forget", "network", "batch_size", "flip")
        return {"images": digest(images), **{name: encode(getattr(self, name)) for name in names}}

    def _learned(self) -> dict[str, Any]:
        classes = None if self.classes_ is None else list(self.classes_)
        return {"shape": list(self.shape_), "classes": classes, "history": self.history_.columns}

    def _restore(self, learned: dict[str, Any]) -> None:
        self.shape_ = tuple(learned["shape"])
        self.classes_ = None if learned["classes"] is None else tuple(learned["classes"])
        self.history_ = training.History(learned["history"])
        with seeded(generator(seed=int(self.seed))):
            self.field_ = self._field()


def _of_images(images: object) -> ImageSet | ImageStream:
    if not isinstance(images, ImageSet | ImageStream):
        raise TypeError(
            f"Expected images; found {type(images).__name__}. `cf.images.read_images` reads folders and arrays."
        )
    return images
