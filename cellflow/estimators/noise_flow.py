"""What a fitted flow from noise does: make images, of a class where it has learned them."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cellflow import integrate
from cellflow.estimators.base import FlowEstimator
from cellflow.estimators.guidance import Guided, Labels, one_hot
from cellflow.estimators.image_flow import in_parts
from cellflow.images.pixels import to_bytes
from cellflow.images.sets import ImageSet
from cellflow.integrate import Adaptive, Fixed, Jumps, Noisy, Trajectory
from cellflow.seeds import generator
from cellflow.training.recipe import check_settings

GENERATION, COURSE = Fixed("midpoint", steps=50), Fixed("midpoint", steps=48)
"""How noise is carried to images where nothing is said, and how on the way."""
INSTEAD = {Noisy: "DomainTranslator.simulate"}


class NoiseFlow(FlowEstimator):
    """An estimator whose field leads from noise to images. Abstract: subclasses fit it, and set the names below."""

    condition_dropout: float
    shape_: tuple[int, int, int]
    classes_: tuple[str, ...] | None

    def generate(
        self,
        n: int,
        *,
        label: Labels | None = None,
        guidance: float = 1.0,
        solver: Fixed | Adaptive | Jumps | str | int = GENERATION,
        seed: int = 0,
        batch_size: int = 128,
        **old: Any,
    ) -> ImageSet:
        """Make images.

        Parameters
        ----------
        n
            How many.
        label
            The class they should have, by name or number, or one for each; None for no class in particular.
        guidance
            How hard the class is pressed for: 1 as the model learned it, more for typical and less diverse images.
        solver
            `cellflow.integrate.Fixed`, `Adaptive`, or, once there is a flow map (`distill`), `Jumps`, which has its
            guidance built in; or the name of a method, or a number of steps.
        seed
            Seed of the noise they start from.
        batch_size
            Images at a time; makes no difference to the result.

        Raises
        ------
        NotFittedError
            Before ``fit``; with ``Jumps``, before ``distill``.
        TypeError
            For a solver with noise.
        ValueError
            When the class is unknown, or the model has learned none; when guidance has no class to press for, or
            jumps have theirs built in.
        """
        chosen = integrate.resolve(solver, default=GENERATION, verb="ImageGenerator.generate", instead=INSTEAD, old=old)
        condition = self._condition(n, label, guidance)
        states = self._flow(n, condition, guidance, chosen, seed=seed, batch_size=batch_size).x[-1]
        labels = None if condition is None or label is None else condition.argmax(dim=1)
        return ImageSet(
            to_bytes(states.float()), labels, classes=None if labels is None else self.classes_, source="generated"
        )

    def trajectory(
        self,
        n: int,
        *,
        save: int = 9,
        label: Labels | None = None,
        guidance: float = 1.0,
        solver: Fixed | Adaptive | Jumps | str | int = COURSE,
        seed: int = 0,
        batch_size: int = 128,
        **old: Any,
    ) -> Trajectory:
        """Return states on the way from noise to images: times ``(save,)`` and pixels ``(save, n, c, h, w)``.

        Parameters
        ----------
        n, label, guidance, solver, seed, batch_size
            As for `generate`.
        save
            How many equally spaced moments, both ends included.
        """
        chosen = integrate.resolve(solver, default=COURSE, verb="ImageGenerator.trajectory", instead=INSTEAD, old=old)
        condition = self._condition(n, label, guidance)
        return self._flow(n, condition, guidance, chosen, seed=seed, batch_size=batch_size, save=save)

    def _condition(self, n: int, label: Labels | None, guidance: float) -> Tensor | None:
        """Return the classes asked for, one-hot; rows of zeros where none is, None where the model knows none."""
        self._check_fitted()
        if not isinstance(n, int | np.integer) or n < 1:
            raise ValueError(f"Expected a number of images >= 1; found {n!r}.")
        if label is None and guidance != 1:
            raise ValueError(f"Guidance {guidance} has no class to press for. Give a `label`.")
        if self.classes_ is None:
            if label is not None:
                raise ValueError("This model has learned no classes. Fit one with `conditional=True`.")
            return None
        if label is not None:
            return one_hot(label, n, self.classes_)
        if self.condition_dropout == 0:
            raise ValueError(
                f"With condition_dropout=0 the model knows no images without class. Give a `label`: {self.classes_}."
            )
        return torch.zeros(n, len(self.classes_))

    def _flow(
        self,
        n: int,
        condition: Tensor | None,
        guidance: float,
        solver: Fixed | Adaptive | Jumps,
        *,
        seed: int,
        batch_size: int,
        save: int = 2,
    ) -> Trajectory:
        """Let noise flow, some samples at a time."""
        if isinstance(solver, Jumps) and guidance != 1:
            raise ValueError("Jumps have their guidance built in: `distill(images, guidance=...)`. Leave it out here.")
        check_settings(1, batch_size, None)
        velocity = self._velocity()
        field = velocity if guidance == 1 else Guided(velocity, guidance)
        weight = next(self.field_.parameters())
        noise = torch.randn(n, *self.shape_, generator=generator(seed=seed))
        rows = iter(torch.arange(n).split(batch_size))

        def flow(part: Tensor) -> Trajectory:
            some = None if condition is None else condition[next(rows)].to(weight)
            return self._carry(field, part.to(weight), solver, save=save, condition=some)

        return in_parts(flow, noise.split(batch_size))
