"""A fitted `ImageGenerator` makes images, of a class where it has learned them: its verbs, bound in its class."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cellflow import integrate
from cellflow.estimators.fields import in_parts
from cellflow.estimators.guidance import Guided, Labels, one_hot
from cellflow.images.pixels import to_bytes
from cellflow.images.sets import ImageSet
from cellflow.integrate import Adaptive, Fixed, Jumps, Trajectory
from cellflow.seeds import generator
from cellflow.signature import checked_but
from cellflow.training.recipe import check_settings

if TYPE_CHECKING:
    from cellflow.estimators.generation import ImageGenerator

GENERATION, TRAJECTORY = Fixed("midpoint", steps=50), Fixed("midpoint", steps=48)
"""Default solvers, of samples and of trajectories."""
SIMULATE = "DomainTranslator.simulate"


@checked_but("solver")
def generate(
    self: "ImageGenerator",
    n: int,
    *,
    label: Labels | None = None,
    guidance: float = 1.0,
    solver: Fixed | Adaptive | Jumps | str | int = GENERATION,
    seed: int = 0,
    batch_size: int = 128,
    **old: Any,
) -> ImageSet:
    """Generate images.

    Parameters
    ----------
    n
        Number of images.
    label
        Their class, by name or number, or one for each; ``None`` for unconditional images.
    guidance
        Strength of classifier-free guidance: 1 for none, larger values for more typical and less diverse images.
    solver
        `cellflow.integrate.Fixed`, `Adaptive`, or, once there is a flow map (`distill`), `Jumps`, whose guidance is
        fixed by `distill`; or the name of a method, or a number of steps.
    seed
        Seed of the noise.
    batch_size
        Images at a time; the result does not depend on it.

    Raises
    ------
    NotFittedError
        Before ``fit``; with ``Jumps``, before ``distill``.
    TypeError
        For a solver with noise.
    ValueError
        When the class is unknown, or the model has learned no classes; when guidance has no class, or is given with
        jumps.
    """
    chosen = integrate.resolve(solver, default=GENERATION, verb="ImageGenerator.generate", noisy=SIMULATE, old=old)
    condition = _condition(self, n, label, guidance)
    states = _flow(self, n, condition, guidance, chosen, seed=seed, batch_size=batch_size).x[-1]
    labels = None if condition is None or label is None else condition.argmax(dim=1)
    return ImageSet(
        to_bytes(states.float()), labels, classes=None if labels is None else self.classes_, source="generated"
    )


@checked_but("solver")
def trajectory(
    self: "ImageGenerator",
    n: int,
    *,
    save: int = 9,
    label: Labels | None = None,
    guidance: float = 1.0,
    solver: Fixed | Adaptive | Jumps | str | int = TRAJECTORY,
    seed: int = 0,
    batch_size: int = 128,
    **old: Any,
) -> Trajectory:
    """Return trajectories from noise to images: times ``(save,)`` and pixels ``(save, n, c, h, w)``.

    Parameters
    ----------
    n, label, guidance, solver, seed, batch_size
        As for `generate`.
    save
        Number of equally spaced times, including both ends.
    """
    chosen = integrate.resolve(solver, default=TRAJECTORY, verb="ImageGenerator.trajectory", noisy=SIMULATE, old=old)
    condition = _condition(self, n, label, guidance)
    return _flow(self, n, condition, guidance, chosen, seed=seed, batch_size=batch_size, save=save)


def _condition(flow: "ImageGenerator", n: int, label: Labels | None, guidance: float) -> Tensor | None:
    """Return the given classes, one-hot; rows of zeros without one, ``None`` if the model has no classes."""
    flow._check_fitted()
    if not isinstance(n, int | np.integer) or n < 1:
        raise ValueError(f"Expected a number of images >= 1; found {n!r}.")
    if label is None and guidance != 1:
        raise ValueError(f"Guidance {guidance} needs a class. Give a `label`.")
    if flow.classes_ is None:
        if label is not None:
            raise ValueError("This model has learned no classes. Fit one with `conditional=True`.")
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
    batch_size: int,
    save: int = 2,
) -> Trajectory:
    """Carry noise to images, some samples at a time."""
    if isinstance(solver, Jumps) and guidance != 1:
        raise ValueError("The guidance of jumps is fixed by `distill(images, guidance=...)`. Leave it out here.")
    check_settings(1, batch_size, None)
    velocity = flow._velocity()
    field = velocity if guidance == 1 else Guided(velocity, guidance)
    weight = next(flow.field_.parameters())
    noise = torch.randn(n, *flow.shape_, generator=generator(seed=seed), dtype=torch.float32)
    rows = iter(torch.arange(n).split(batch_size))

    def carry(part: Tensor) -> Trajectory:
        some = None if condition is None else condition[next(rows)].to(weight)
        return flow._carry(field, part.to(weight), solver, save=save, condition=some)

    return in_parts(carry, noise.split(batch_size))
