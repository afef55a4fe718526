"""`DomainTranslator`: a flow from one set of samples to another, with nothing said about who belongs to whom."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from cellflow import couplings, paths, training
from cellflow.couplings import Coupling
from cellflow.estimators.distillation import DISTILLING, REFINING, STEPS, Lesson, followed
from cellflow.estimators.domain_flow import DomainFlow
from cellflow.estimators.domains import Domain, Points, Samples, as_images, digest, read_both, scales_of
from cellflow.estimators.fields import Scales, blank, build_field, overall
from cellflow.estimators.image_flow import Make, Session, check_settings, keeping_history, network_for, train
from cellflow.estimators.rounds import go_on, repairing_for
from cellflow.estimators.serialize import FORMER, encode, modernise_training
from cellflow.metrics import feature_network
from cellflow.objectives import BridgeMatching, FlowMapObjective, Objective, VelocityMatching
from cellflow.pairing.features import Features
from cellflow.pairing.image_batches import ImageBatches, image_batches
from cellflow.paths import GaussianPath
from cellflow.renamed import renamed
from cellflow.seeds import generator, generator_at, seeded
from cellflow.training import Origin, Recipe, Repairing

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class DomainTranslator(DomainFlow):
    """A flow from a source domain to a target domain: images to images, or control cells to treated ones.

    Both domains are images (an `ImageSet`, an `ImageStream`), arrays or tensors ``(n, d)`` or ``(n, c, h, w)``, or
    cells (AnnData). Bytes count as pixels from -1 to 1; other numbers are taken as they are. What comes out has the
    form of what went in.

    Parameters
    ----------
    path
        How a source and a target sample are joined: a path, or the name of one.
    coupling
        Who is paired with whom: a coupling, or the name of one.
    features
        In which space they are paired: None for the samples themselves, a number of principal components, or the name
        of a network of `cellflow.metrics.feature_network`. A space of your own is given to `fit`.
    within_labels
        Whether only samples of one class are paired; for cells, the column of ``obs`` with the class.
    stochastic
        Whether the score is learned beside the velocity, on a path with noise: the flow is then a Schrödinger bridge,
        and can be simulated with noise both ways.
    heads
        What returns the score: ``"shared"``, the network of the velocity (one that takes ``heads=``), or
        ``"separate"``, a network of its own.
    network
        A callable from the width of vectors, or the channels of images, to a module; None for one that suits their
        shape: an `MLP` on standardised vectors, or a small `UNet`.
    rep
        Representation of cells: a key of ``obsm``, or ``"X"``.
    steps
        Optimiser steps.
    batch_size
        Pairs per step.
    recipe
        How the optimiser runs.
    flip
        Whether to mirror each pair of images, both sides alike, every other time.
    ot_batch_size
        Samples a side that are paired at once, see `cellflow.pairing.image_batches`.
    seed
        Seed of everything random.
    device
        ``"cpu"``, ``"cuda"``, or ``"auto"`` for the GPU where there is one.
    progress
        Whether to show a bar while fitting.

    Attributes
    ----------
    field_
        The fitted field: the velocity, or velocity and score.
    history_
        Terms of the objective at every step.
    shape_
        Shape of one sample.
    pixels_
        Whether it was fitted on bytes.

    Source: Tong et al. 2024 (TMLR), section 4.2, with the source domain as the source; Tong et al. 2024 (AISTATS) with
    a score.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> x = torch.randn(50, 2, generator=cf.generator(seed=0))
    >>> model = DomainTranslator(steps=20).fit(x, x + 3)
    >>> model.translate(x[:5]).shape, model.translate(x[:5] + 3, reverse=True).shape
    (torch.Size([5, 2]), torch.Size([5, 2]))
    """

    def __init__(
        self,
        *,
        path: GaussianPath | str = "linear",
        coupling: Coupling | str = "exact",
        features: int | str | None = None,
        within_labels: bool | str = False,
        stochastic: bool = False,
        heads: str = "shared",
        network: Make | str | None = None,
        rep: str = "X_pca",
        steps: int = 3000,
        batch_size: int = 128,
        recipe: Recipe | None = None,
        flip: bool = False,
        ot_batch_size: int | str = "auto",
        seed: int = 0,
        device: str = "auto",
        progress: bool = False,
        **given: Any,
    ) -> None:
        new = renamed("DomainTranslator", given, FORMER["DomainTranslator"])
        self.path = path
        self.coupling = coupling
        self.features = features
        self.within_labels = within_labels
        self.stochastic = new.get("stochastic", stochastic)
        self.heads = new.get("heads", heads)
        self.network = network
        self.rep = rep
        self.steps = steps
        self.batch_size = batch_size
        self.recipe = recipe
        self.flip = flip
        self.ot_batch_size = ot_batch_size
        self.seed = seed
        self.device = device
        self.progress = progress

    def fit(
        self,
        source: Samples,
        target: Samples,
        *,
        features: Features | None = None,
        folder: str | Path | None = None,
        resume: bool = False,
        fabric: "Fabric | None" = None,
        watch: Callable[[Self], None] | None = None,
        every: int = 1000,
    ) -> Self:
        """Fit the flow; an earlier fit is forgotten. Neither domain is changed.

        Parameters
        ----------
        source, target
            Samples of both domains, as many as there are of each.
        features
            A space of your own to pair samples in: a function of samples ``(n, ...)``, or the features of both sides,
            ``(n, d)`` and ``(m, d)``; in place of the setting.
        folder
            Where the state of the training is kept, so that it can be resumed after an interruption.
        resume
            Whether to go on from the state in ``folder``.
        fabric
            A launched ``lightning_fabric.Fabric``, for several devices; sets the device.
        watch
            Called every so many steps with a translator that is as good as this one will be by then; needs ``folder``.
        every
            How many steps.

        Raises
        ------
        ValueError, TypeError, KeyError
            When the domains differ in shape or kind, hold the same samples or one only, or settings contradict each
            other.
        FileExistsError
            When ``folder`` holds a training already, and it is not to be resumed.
        CheckpointError
            When the state in ``folder`` is damaged, or of other data or settings.
        """
        check_settings(self.steps, self.batch_size, self.recipe)
        if not isinstance(self.stochastic, bool):
            raise TypeError(f"Expected `stochastic` to be True or False; found {self.stochastic!r}.")
        if resume and folder is not None:
            modernise_training("DomainTranslator", folder)
        rng = generator(seed=int(self.seed))
        domains = self._read_both(source, target, self._device() if fabric is None else fabric.device)
        fitted, scales = self._unfitted(), scales_of(*domains)
        fitted.shape_, fitted.pixels_ = tuple(domains[0].shape), not isinstance(domains[0], Points)
        fitted.unit_ = overall(scales)
        with seeded(rng):
            fitted.field_ = fitted._field(scales).to(domains[0].device)
        fitted.history_ = train(
            fitted.field_,
            fitted._objective(unit=fitted.unit_),
            self._pair(*domains, features, rng),
            steps=self.steps,
            generator=rng,
            recipe=self.recipe,
            about=self._about(*domains),
            progress=self.progress,
            session=Session(folder, resume, fabric, keeping_history(fitted, watch), every),
        )
        return self._become(fitted)

    def refine(
        self,
        source: Samples,
        target: Samples,
        *,
        rounds: int,
        steps: int | None = None,
        repairing: Repairing | None = None,
    ) -> Self:
        """Train a fitted flow further, on pairs that it makes itself.

        Parameters
        ----------
        source, target
            The samples it was fitted on. Images in files are all read into memory: give a part of them, `take`.
        rounds
            How often it pairs them anew.
        steps
            Optimiser steps per round; None for as many as the fit.
        repairing
            How: None for `cellflow.training.MarkovianFitting` where there is a score (DSBM), else
            `cellflow.training.Reflow`, after which few solver steps will do on the linear path.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            When the samples do not fit, or ``rounds`` is below 1.

        Examples
        --------
        >>> import torch, cellflow as cf
        >>> x = torch.randn(50, 2, generator=cf.generator(seed=0))
        >>> model = cf.DomainTranslator(steps=20).fit(x, x + 3)
        >>> len(model.refine(x, x + 3, rounds=2, steps=5).history_)
        30
        """
        self._check_fitted()
        rng = generator_at(int(self.seed), REFINING)
        ends = self._read_both(source, target, next(self.field_.parameters()).device)
        for domain in ends:
            self._check_domain(domain)
        refined = self._to_refine()
        go_on(
            refined.field_,
            self._objective(unit=self.unit_),
            (ends[0].scaled(), ends[1].scaled()),
            history=refined.history_,
            repairing=repairing or repairing_for(paths.resolve(self.path), stochastic=self.stochastic),
            rounds=rounds,
            steps=self.steps if steps is None else steps,
            batch_size=self.batch_size,
            recipe=self.recipe,
            generator=rng,
            progress=self.progress,
        )
        return self._become(refined)

    def distill(
        self,
        source: Samples,
        target: Samples,
        *,
        steps: int = STEPS,
        objective: FlowMapObjective | str = "trajectories",
        taught: bool = True,
        features: Features | None = None,
        recipe: Recipe | None = None,
        folder: str | Path | None = None,
        resume: bool = False,
    ) -> Self:
        """Teach a flow map what the fitted flow does, so that ``translate(..., solver=Jumps(1))`` does it at once.

        The map knows jumps both ways; how many are taken is chosen afterwards.

        Parameters
        ----------
        source, target
            The samples it was fitted on: states between them are what the map learns from.
        steps
            Optimiser steps.
        objective
            How the map learns: ``"trajectories"`` from those of the fitted flow; or an objective for flow maps (its
            path, unit and teacher are filled in), or the name of one: ``"semigroup"``, ``"lagrangian"``,
            ``"eulerian"``, ``"mean_velocity"`` or ``"direct"``.
        taught
            Whether the fitted flow is the teacher. Otherwise the map, which starts from it, learns velocity and jumps
            together from the pairs of the data alone.
        features
            As for `fit`.
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
            When the samples do not fit, settings are of the wrong kind, or the objective is not one for flow maps.

        Source: Boffi, Albergo and Vanden-Eijnden 2024, section 4 (flow map matching, distillation).

        Examples
        --------
        >>> import torch, cellflow as cf
        >>> x = torch.randn(50, 2, generator=cf.generator(seed=0))
        >>> model = cf.DomainTranslator(steps=20).fit(x, x + 3).distill(x, x + 3, steps=20)
        >>> from cellflow.integrate import Jumps
        >>> model.translate(x[:5], solver=Jumps(1)).shape
        torch.Size([5, 2])
        >>> model.translate(x[:5] + 3, solver=Jumps(2), reverse=True).shape
        torch.Size([5, 2])
        """
        self._check_fitted()
        rng = generator_at(int(self.seed), DISTILLING)
        domains = self._read_both(source, target, next(self.field_.parameters()).device)
        for domain in domains:
            self._check_domain(domain)
        flow_map = self._blank_map("both")
        self.map_history_ = Lesson(
            objective, taught, steps, self.batch_size, recipe, self.recipe, folder, resume
        ).learn(
            flow_map,
            self._velocity(),
            origins=lambda: [
                Origin(domain.scaled(followed(len(domain), self.shape_, rng)), at)
                for domain, at in zip(domains, (0.0, 1.0), strict=True)
            ],
            pairs=lambda: self._pair(*domains, features, rng),
            path=paths.resolve(self.path),
            unit=self.unit_,
            generator=rng,
            about=self._about(*domains),
            progress=self.progress,
        )
        self.flow_map_ = flow_map
        return self

    def _objective(self, *, unit: float = 1.0) -> Objective:
        path = paths.resolve(self.path)
        return (BridgeMatching if self.stochastic else VelocityMatching)(path, unit=unit)

    def _read_both(self, source: Samples, target: Samples, device: torch.device) -> tuple[Domain, Domain]:
        group = self.within_labels if isinstance(self.within_labels, str) else None
        return read_both(source, target, rep=self.rep, group=group, device=device)

    def _pair(self, x0: Domain, x1: Domain, features: Features | None, rng: torch.Generator) -> ImageBatches:
        space = _space(self.features, x0)
        return image_batches(
            as_images(x0),
            as_images(x1),
            coupling=couplings.resolve(self.coupling),
            batch_size=self.batch_size,
            generator=rng,
            features=space if features is None else features,
            within_labels=bool(self.within_labels),
            flip=self.flip,
            ot_batch_size=self.ot_batch_size,
        )

    def _field(self, scales: Scales) -> nn.Module:
        return build_field(
            network_for(self.network, self.shape_),
            scales,
            self._objective().heads,
            heads=self.heads,
            sigma=paths.resolve(self.path).sigma,
            standardize=len(self.shape_) == 1,
        )

    def _about(self, x0: Domain, x1: Domain) -> dict[str, Any]:
        """Return what a resumed fit must share with the one that was interrupted."""
        names = ("path", "coupling", "features", "within_labels", "stochastic", "heads", "network", "batch_size")
        settings = {name: encode(getattr(self, name)) for name in (*names, "flip", "ot_batch_size")}
        return {"source": digest(x0), "target": digest(x1), **settings}

    def _learned(self) -> dict[str, Any]:
        return {
            "shape": list(self.shape_),
            "pixels": self.pixels_,
            "unit": self.unit_,
            "history": self.history_.columns,
        }

    def _restore(self, learned: dict[str, Any]) -> None:
        self.shape_, self.pixels_ = tuple(learned["shape"]), learned["pixels"]
        self.unit_, self.history_ = learned["unit"], training.History(learned["history"])
        with seeded(generator(seed=int(self.seed))):
            self.field_ = self._field(blank(self.shape_[0]))


def _space(features: int | str | None, domain: Domain) -> Features | None:
    """Return the space that a setting names."""
    if not isinstance(features, str):
        return features
    if len(domain.shape) == 1:
        raise ValueError(f"The features {features!r} are those of images; leave out `features`, or give a number.")
    return feature_network(features).to(domain.device)
