"""Distilling an `ImageGenerator` into a flow map."""

from typing import TYPE_CHECKING, Any

from cellflow.estimators.base import DISTILLING, OLD_DISTILLING
from cellflow.estimators.guidance import Guided
from cellflow.estimators.latents import encoded
from cellflow.images.sets import ImageSet
from cellflow.images.streams import ImageStream
from cellflow.objectives import FlowMapObjective
from cellflow.renamed import renamed
from cellflow.seeds import generator_at
from cellflow.signature import checked_but
from cellflow.training import Recipe, Run
from cellflow.training.distillation import STEPS, TRAJECTORIES

if TYPE_CHECKING:
    from cellflow.estimators.generation import ImageGenerator


@checked_but("objective")
def distill(
    self: "ImageGenerator",
    images: ImageSet | ImageStream,
    *,
    steps: int = STEPS,
    objective: FlowMapObjective | str = TRAJECTORIES,
    teacher: bool = True,
    guidance: float = 1.0,
    recipe: Recipe | None = None,
    run: Run | None = None,
    **old: Any,
) -> "ImageGenerator":
    """Distil the fitted model into a flow map, for ``generate(n, solver=Jumps(1))``.

    Parameters
    ----------
    images
        The images of the fit: the map learns from states between noise and them.
    steps, objective, run
        As for `cellflow.training.distill`; the objective's path, unit and teacher are filled in.
    teacher
        Whether the fitted flow is the teacher. Otherwise the map, which starts from it, learns from pairs of the data
        only.
    guidance
        Strength of classifier-free guidance that the map learns.
    recipe
        Settings of the optimiser; ``None`` for those of the fit with ``"trajectories"``, and otherwise for those of
        `cellflow.training.distill`.

    Raises
    ------
    NotFittedError
        Before ``fit``.
    ValueError, TypeError
        When the images are not those of the fit, settings are invalid, guidance has no teacher or no classes, or
        the objective is not one for flow maps.

    Source
    ------
    Meng et al. 2023 for guidance.

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
    given = renamed("ImageGenerator.distill", old, OLD_DISTILLING)
    run, teacher = given.get("run", run), given.get("teacher", teacher)
    distilled, images = self._fitted_on(images, run)
    conditions = self._conditioned(images, self.conditions_)
    if guidance != 1 and ((self.classes_ is None and conditions is None) or not teacher):
        raise ValueError(f"Guidance {guidance} needs a model with classes as a teacher (`teacher=True`).")
    states = encoded(self.autoencoder_, images)
    rng, velocity = generator_at(int(self.seed), DISTILLING), distilled._velocity()
    distilled.flow_map_ = distilled._blank_map("forward")
    return self._learn_map(
        distilled,
        velocity if guidance == 1 else Guided(velocity, guidance),
        known=lambda: self._both_ends(states, rng, conditions),
        pairs=lambda: self._batches(states, rng, conditions),
        objective=objective,
        teacher=teacher,
        recipe=recipe,
        run=run,
        steps=steps,
        generator=rng,
        unit=1.0,
        about=self._about(self._digests(images, conditions)) | {"guidance": guidance},
    )
