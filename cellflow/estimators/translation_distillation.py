"""Distilling a `DomainTranslator` into a flow map."""

from typing import TYPE_CHECKING, Any

from cellflow.estimators.base import DISTILLING, OLD_DISTILLING, some_rows
from cellflow.estimators.conditional_verbs import check_guidance
from cellflow.estimators.domains import Samples
from cellflow.estimators.guidance import Guided
from cellflow.estimators.translation_refining import ends
from cellflow.objectives import FlowMapObjective
from cellflow.pairing.features import Features
from cellflow.renamed import renamed
from cellflow.seeds import generator_at
from cellflow.signature import checked_but
from cellflow.training import Recipe, Run
from cellflow.training.distillation import STEPS, TRAJECTORIES

if TYPE_CHECKING:
    from cellflow.estimators.translation import DomainTranslator


@checked_but("objective")
def distill(
    self: "DomainTranslator",
    source: Samples,
    target: Samples,
    *,
    steps: int = STEPS,
    objective: FlowMapObjective | str = TRAJECTORIES,
    teacher: bool = True,
    guidance: float = 1.0,
    features: Features | None = None,
    recipe: Recipe | None = None,
    run: Run | None = None,
    **old: Any,
) -> "DomainTranslator":
    """Distil the fitted flow into a flow map, for ``translate(..., solver=Jumps(1))``.

    The map jumps in both directions.

    Parameters
    ----------
    source, target
        The samples of the fit: the map learns from states between them.
    steps, objective, run
        As for `cellflow.training.distill`; the objective's path, unit and teacher are filled in.
    teacher
        Whether the fitted flow is the teacher. Otherwise the map, which starts from it, learns from pairs of the data
        only.
    guidance
        Strength of guidance towards the condition that the map learns, see `translate`.
    features
        As for `fit`.
    recipe
        Settings of the optimiser; ``None`` for those of the fit with ``"trajectories"``, and otherwise for those of
        `cellflow.training.distill`.

    Raises
    ------
    NotFittedError
        Before ``fit``.
    ValueError, TypeError
        When the samples are not those of the fit, settings are invalid, or the objective is not one for flow maps.

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
    given = renamed("DomainTranslator.distill", old, OLD_DISTILLING)
    run, teacher = given.get("run", run), given.get("teacher", teacher)
    distilled, domains = self._fitted_on(source, target, run)
    conditions = self._conditioned(source, target, domains, self.conditions_)
    check_guidance(self, guidance, None)
    if guidance != 1 and not teacher:
        raise ValueError(f"Guidance {guidance} needs a teacher. Keep `teacher=True`.")
    rng, velocity = generator_at(int(self.seed), DISTILLING), distilled._velocity()
    distilled.flow_map_ = distilled._blank_map("both")

    def known() -> tuple[Any, ...]:
        if conditions is None:
            return [domain.scaled(some_rows(len(domain), self.shape_, rng)) for domain in domains], (0.0, 1.0)
        x0, x1, rows = ends(self, domains, conditions, rng)
        return [x0, x1], (0.0, 1.0), [rows, rows]

    guided = {} if guidance == 1 else {"guidance": guidance}
    return self._learn_map(
        distilled,
        velocity if guidance == 1 else Guided(velocity, guidance),
        known=known,
        pairs=lambda: self._pair(*domains, features, rng, conditions),
        objective=objective,
        teacher=teacher,
        recipe=recipe,
        run=run,
        steps=steps,
        generator=rng,
        unit=self.unit_,
        about=self._about(self._digests(domains, conditions)) | guided,
    )
