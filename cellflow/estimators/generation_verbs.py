"""A fitted `ImageGenerator` makes images, of a class where it has learned them: its verbs, bound in its class."""

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from cellflow import integrate
from cellflow.estimators.conditional_verbs import Condition, asked, check_guidance, check_strength, relabelled
from cellflow.estimators.guidance import Guided, Labels, one_hot
from cellflow.estimators.latents import pixels
from cellflow.estimators.pixel_levels import as_images
from cellflow.estimators.portions import at_once, in_parts
from cellflow.images.sets import ImageSet
from cellflow.integrate import Adaptive, Fixed, Jumps, Trajectory
from cellflow.seeds import generator
from cellflow.signature import checked_but

if TYPE_CHECKING:
    from cellflow.estimators.generation import ImageGenerator

GENERATION, TRAJECTORY = Fixed("midpoint", steps=50), Fixed("midpoint", steps=48)
"""Default solvers, of samples and of trajectories."""
SIMULATE = "DomainTranslator.simulate"


@checked_but("solver", "condition")
def generate(
    self: "ImageGenerator",
    n: int,
    *,
    label: Labels | None = None,
    condition: Condition | None = None,
    guidance: float = 1.0,
    solver: Fixed | Adaptive | Jumps | str | int = GENERATION,
    seed: int = 0,
    batch_size: int | None = None,
    **old: Any,
) -> ImageSet:
    """Generate images.

    Parameters
    ----------
    n
        Number of images.
    label
        Their class, by name or number, or one for each; ``None`` for unconditional images.
    condition
        Their conditions, if these were learned: a value for each column, as ``{"drug": "A", "dose": 3.0}``, or a column
        of ``n`` values, or a data frame of ``n`` rows. It becomes ``obs`` of the images.
    guidance
        Strength of classifier-free guidance: 1 for none, larger values for more typical and less diverse images.
    solver
        `cellflow.integrate.Fixed`, `Adaptive`, or, once there is a flow map (`distill`), `Jumps`, whose guidance is
        fixed by `distill`; or the name of a method, or a number of steps.
    seed
        Seed of the noise.
    batch_size
        Images at a time; ``None`` for as many as are quickest on the device. The result does not depend on it,
        but for the tolerance of an `Adaptive` solver, whose steps are those of all that are carried together.

    Raises
    ------
    NotFittedError
        Before ``fit``; with ``Jumps``, before ``distill``.
    TypeError
        For a solver with noise.
    ValueError
        When the class or a name is unknown, or the model has learned none; when guidance has no class or condition, or
        is given with jumps.
    KeyError
        When the condition lacks a column or has an extra one.
    """
    chosen = integrate.resolve(solver, default=GENERATION, verb="ImageGenerator.generate", noisy=SIMULATE, old=old)
    rows = _condition(self, n, label, condition, guidance)
    states = _flow(self, n, rows, guidance, chosen, seed=seed, batch_size=batch_size).x[-1]
    labels = None if rows is None or label is None else rows.argmax(dim=1)
    (levels,), classes = self.levels_, None if labels is None else self.classes_
    made = as_images(pixels(self.autoencoder_, states.float()), levels)
    found = ImageSet(made, labels, classes=classes, source="generated", levels=levels)
    return cast("ImageSet", relabelled(found, condition, self.conditions_))


@checked_but("solver", "condition")
def trajectory(
    self: "ImageGenerator",
    n: int,
    *,
    save: int = 9,
    label: Labels | None = None,
    condition: Condition | None = None,
    guidance: float = 1.0,
    solver: Fixed | Adaptive | Jumps | str | int = TRAJECTORY,
    seed: int = 0,
    batch_size: int | None = None,
    **old: Any,
) -> Trajectory:
    """Return trajectories from noise to images: times ``(save,)`` and pixels ``(save, n, c, h, w)``.

    Parameters
    ----------
    n, label, condition, guidance, solver, seed, batch_size
        As for `generate`.
    save
        Number of equally spaced times, including both ends.
    """
    chosen = integrate.resolve(solver, default=TRAJECTORY, verb="ImageGenerator.trajectory", noisy=SIMULATE, old=old)
    rows = _condition(self, n, label, condition, guidance)
    found = _flow(self, n, rows, guidance, chosen, seed=seed, batch_size=batch_size, save=save)
    return found._replace(x=pixels(self.autoencoder_, found.x))


def _condition(
    flow: "ImageGenerator", n: int, label: Labels | None, condition: Condition | None, guidance: float
) -> Tensor | None:
    """Return the given classes, one-hot, or conditions; rows of zeros without one, ``None`` if none were learned."""
    flow._check_fitted()
    if not isinstance(n, int | np.integer) or n < 1:
        raise ValueError(f"Expected a number of images >= 1; found {n!r}.")
    check_strength(guidance, dropped=True)  # whether they are is asked below, where it is known what was given
    if label is None and condition is None and guidance != 1:
        raise ValueError(f"Guidance {guidance} needs a class. Give a `label`, or a `condition`.")
    if label is not None and flow.classes_ is None:
        raise ValueError("This model has learned no classes. Fit one with `conditional=True`.")
    if condition is not None:
        check_guidance(flow, guidance, None)
        return asked(flow, condition, n)
    if flow.conditions_ is not None:
        if flow.condition_dropout == 0:
            raise ValueError(
                "With condition_dropout=0 the model has no unconditional images. Give a `condition`, in columns "
                f"{list(flow.conditions_.columns)}."
            )
        return torch.zeros(n, flow.conditions_.width + 1, dtype=torch.float32)
    if flow.classes_ is None:
        return None
    if label is not None:
        return one_hot(label, n, flow.classes_)
    if flow.condition_dropout == 0:
        raise ValueError(
            f"With condition_dropout=0 the model has no unconditional images. Give a `label`: {flow.classes_}."
        )
    return torch.zeros(n, len(flow.classes_), dtype=torch.float32)


def _flow(
    flow: "ImageGenerator",
    n: int,
    condition: Tensor | None,
    guidance: float,
    solver: Fixed | Adaptive | Jumps,
    *,
    seed: int,
    batch_size: int | None,
    save: int = 2,
) -> Trajectory:
    """Carry noise to images, some samples at a time."""
    if isinstance(solver, Jumps) and guidance != 1:
        raise ValueError("The guidance of jumps is fixed by `distill(images, guidance=...)`. Leave it out here.")
    velocity = flow._velocity()
    field = velocity if guidance == 1 else Guided(velocity, guidance)
    weight = next(flow.field_.parameters())
    size = at_once(batch_size, flow._state_shape, weight.device)
    noise = torch.randn(n, *flow._state_shape, generator=generator(seed=seed), dtype=torch.float32)
    rows = iter(torch.arange(n).split(size))

    def carry(part: Tensor) -> Trajectory:
        some = None if condition is None else condition[next(rows)].to(weight)
        return flow._carry(field, part.to(weight), solver, save=save, condition=some)

    return in_parts(carry, noise.split(size), n=n, batch_size=size)
