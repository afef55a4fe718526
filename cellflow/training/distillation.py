"""Distillation: a flow map learns to replace many solver steps of a fitted flow by a few jumps."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cellflow.batch import Batch
from cellflow.errors import unknown
from cellflow.fields import Field
from cellflow.integrate import Fixed, ode
from cellflow.networks import FlowMap
from cellflow.objectives import (
    EulerianMatching,
    FlowMapMatching,
    FlowMapObjective,
    LagrangianMatching,
    MeanVelocityMatching,
    SemigroupMatching,
    TrajectoryMatching,
)
from cellflow.paths import GaussianPath
from cellflow.seeds import draw_seed, generator_at
from cellflow.training.history import History
from cellflow.training.loop import OnStep, fit
from cellflow.training.recipe import Recipe
from cellflow.training.run import Run

TRAJECTORIES = "trajectories"
"""The objective that regresses on the fitted flow's own trajectories: the most stable and most accurate one, see
``benchmarks/results/few_step_cells.md``."""
OBJECTIVES: dict[str, Callable[..., FlowMapObjective]] = {
    "semigroup": SemigroupMatching,
    "lagrangian": LagrangianMatching,
    "eulerian": EulerianMatching,
    "mean_velocity": MeanVelocityMatching,
    "direct": FlowMapMatching,
}
"""The other objectives, by name; in all of them the map is part of its own target."""
ADAPTIVE, RECIPE = 1.0, Recipe(learning_rate=1e-3)
"""Power by which these downweight large errors, and their default recipe: at four times the learning rate, maps of both
directions diverge where a flow branches."""
STEPS = 3000
"""Optimiser steps of a distillation by an estimator."""
NUMBERS = 2**27
"""Most numbers that trajectories hold, 512 MB: of more states, as many as fit are chosen at random."""
AT_ONCE = 2**22
"""Most numbers that are integrated at once."""


def distill(
    flow_map: FlowMap,
    teacher: nn.Module | None,
    batches: Iterable[Batch],
    *,
    steps: int,
    generator: torch.Generator,
    objective: FlowMapObjective | TrajectoryMatching | str = TRAJECTORIES,
    path: GaussianPath | None = None,
    unit: float | None = None,
    recipe: Recipe | None = None,
    run: Run | None = None,
    about: Mapping[str, Any] | None = None,
    on_step: OnStep | None = None,
) -> History:
    """Train a flow map in place to follow a fitted flow, and return the history.

    The number of jumps, and the times between which they lead, are chosen afterwards. The ``distill`` of an estimator
    calls this with its own flow.

    Parameters
    ----------
    flow_map
        The map: untrained, or `FlowMap.of` the flow, whose jumps are its Euler steps to begin with.
    teacher
        The velocity of the fitted flow, which is not changed. ``None`` for a map that learns velocity and jumps
        together, from the pairs of the data alone.
    batches
        With ``"trajectories"``, those of the teacher, by `trajectory_batches`; otherwise pairs of the data, as for
        `cellflow.training.fit`.
    steps
        Optimiser steps.
    generator
        Seeds all random numbers.
    objective
        How the map is trained: ``"trajectories"`` by regression on those of the teacher; or an objective for flow maps,
        or the name of one: ``"semigroup"``, ``"lagrangian"``, ``"eulerian"``, ``"mean_velocity"`` or ``"direct"``. The
        teacher is filled in if it has none.
    path, unit
        Path between the points of a pair, and unit of length; ``None`` for those of the objective.
    recipe
        How the optimiser runs; ``None`` for ``Recipe()`` with ``"trajectories"``, and otherwise for a learning rate of
        1e-3: at higher ones, maps that are part of their own target diverge.
    run
        Folder, resumption, monitoring and devices of the training; its folder must not be that of the fit.
    about, on_step
        As for `cellflow.training.fit`.

    Raises
    ------
    ValueError, TypeError
        When the objective is not one for flow maps, or is ``"trajectories"`` without a teacher.
    FileExistsError, FloatingPointError, CheckpointError, KeyboardInterrupt
        As for `cellflow.training.fit`.

    Source
    ------
    Boffi, Albergo and Vanden-Eijnden 2024, section 4 (flow map matching, distillation).

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> rng, x = cf.generator(seed=0), torch.randn(50, 2, generator=cf.generator(seed=1))
    >>> flow = cf.networks.MLP(dim=2, width=16)
    >>> ways = cf.training.trajectory_batches(flow, [cf.training.Origin(x, 0.0)], batch_size=8, generator=rng)
    >>> flow_map = cf.networks.FlowMap.of(flow)
    >>> distill(flow_map, flow, ways, steps=5, generator=rng)
    History(5 steps, last loss ...)
    >>> pairs = cf.pairing.paired_batches(x, x + 3, batch_size=8, generator=rng)
    >>> distill(flow_map, None, pairs, objective="semigroup", steps=5, generator=rng)
    History(5 steps, last loss ...)
    """
    chosen = resolve(objective)
    if isinstance(chosen, TrajectoryMatching) and teacher is None:
        raise ValueError("Trajectories are those of the teacher; without one (teacher=False), choose 'semigroup'.")
    if recipe is None:
        recipe = Recipe() if isinstance(chosen, TrajectoryMatching) else RECIPE
    if str(recipe.precision) == "64":
        flow_map.double()
    chosen = replace(chosen, unit=chosen.unit if unit is None else unit)
    settings: FlowMapObjective | TrajectoryMatching = chosen
    if isinstance(chosen, FlowMapObjective):
        chosen = replace(chosen, path=path or chosen.path)
        settings = replace(chosen, teacher=None)
        if teacher is not None and chosen.teacher is None:
            weight = next(flow_map.parameters())
            known = deepcopy(teacher).to(weight.device, weight.dtype).eval().requires_grad_(requires_grad=False)
            chosen = replace(chosen, teacher=known)
    history = fit(
        flow_map,
        chosen,
        batches,
        steps=steps,
        generator=generator,
        recipe=recipe,
        run=run,
        about={**(about or {}), "map": [flow_map.spans, teacher is not None, repr(settings)]},
        on_step=on_step,
    )
    flow_map.eval()
    return history


def resolve(objective: FlowMapObjective | TrajectoryMatching | str) -> FlowMapObjective | TrajectoryMatching:
    """Return the objective, or the one of that name.

    Raises
    ------
    ValueError, TypeError
        When no objective for flow maps has that name, or it is not an objective for flow maps.

    Examples
    --------
    >>> type(resolve("lagrangian")).__name__, resolve("lagrangian").adaptive
    ('LagrangianMatching', 1.0)
    """
    choices = [TRAJECTORIES, *OBJECTIVES]
    if isinstance(objective, FlowMapObjective | TrajectoryMatching):
        return objective
    if not isinstance(objective, str):
        raise TypeError(
            f"Expected an objective for flow maps, or the name of one ({', '.join(choices)}); found {objective!r}."
        )
    if objective not in choices:
        raise ValueError(unknown("objective", objective, choices))
    return TrajectoryMatching() if objective == TRAJECTORIES else OBJECTIVES[objective](adaptive=ADAPTIVE)


class Origin(NamedTuple):
    """States that trajectories pass through, such as the cells of a snapshot.

    Parameters
    ----------
    x
        States ``(n, ...)``.
    at
        Model time of the states.
    condition
        Condition of each, ``(n, k)``.
    """

    x: Tensor
    at: float
    condition: Tensor | None = None

    def to(self, dtype: torch.dtype) -> "Origin":
        """Return the states in another precision."""
        return Origin(self.x.to(dtype), self.at, None if self.condition is None else self.condition.to(dtype))

    def take(self, rows: Tensor) -> "Origin":
        """Return some of them."""
        return Origin(self.x[rows], self.at, None if self.condition is None else self.condition[rows])


class Course(NamedTuple):
    """Trajectories at common times.

    Parameters
    ----------
    t
        Times ``(k,)``, increasing.
    x
        States at these times, ``(k, n, ...)``.
    condition
        Condition of each trajectory, ``(n, k)``.
    """

    t: Tensor
    x: Tensor
    condition: Tensor | None


@dataclass(frozen=True)
class TrajectoryBatches:
    """An endless stream of batches of pairs on the trajectories of a flow; the same at every iteration.

    Parameters
    ----------
    courses
        The trajectories.
    batch_size
        Pairs per batch.
    seed
        Seed of the draws of trajectories and times.
    both
        Whether pairs may also lead backward in time.

    Examples
    --------
    >>> course = Course(torch.linspace(0, 1, 5), torch.zeros(5, 3, 2), None)
    >>> batch = next(iter(TrajectoryBatches((course,), batch_size=4, seed=0, both=False)))
    >>> batch.x0.shape, bool((batch.start < batch.stop).all())
    (torch.Size([4, 2]), True)
    """

    courses: tuple[Course, ...] = field(repr=False)
    batch_size: int
    seed: int
    both: bool

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches from the first on."""
        return self.iterate(0)

    def iterate(self, start: int) -> Iterator[Batch]:
        """Yield batches from number ``start`` on."""
        return (self._draw(generator_at(self.seed, number)) for number in count(start))

    def _draw(self, rng: torch.Generator) -> Batch:
        sizes = torch.tensor([float(course.x.shape[1]) for course in self.courses])
        chosen = torch.multinomial(sizes, self.batch_size, replacement=True, generator=rng)
        parts = [self._pairs(course, int((chosen == k).sum()), rng) for k, course in enumerate(self.courses)]
        parts = [part for part in parts if len(part.x0)]
        return Batch._make(None if column[0] is None else torch.cat(column) for column in zip(*parts, strict=True))

    def _pairs(self, course: Course, n: int, rng: torch.Generator) -> Batch:
        row = torch.randint(course.x.shape[1], (n,), generator=rng)
        first = torch.randint(len(course.t), (n,), generator=rng)
        # Any other moment, evenly: a pair of one moment twice would teach nothing.
        second = (first + torch.randint(1, len(course.t), (n,), generator=rng)) % len(course.t)
        if not self.both:
            first, second = torch.minimum(first, second), torch.maximum(first, second)
        condition = None if course.condition is None else course.condition[row.to(course.x.device)]
        x0, x1 = course.x[first, row], course.x[second, row]
        return Batch(x0, x1, course.t[first].to(x0), course.t[second].to(x0), condition)


def trajectory_batches(
    velocity: Field,
    origins: Sequence[Origin],
    *,
    batch_size: int,
    generator: torch.Generator,
    both: bool = True,
    moments: int = 33,
) -> TrajectoryBatches:
    """Follow a fitted flow from known states to both ends of its time, and draw pairs of points on its trajectories.

    Every trajectory passes through a real point in ``origins``, of the source or of the target, so that errors of the
    flow do not accumulate over rounds of its own samples.

    Parameters
    ----------
    velocity
        The fitted velocity, ``velocity(t, x, condition)``.
    origins
        States that the trajectories pass through, with their times.
    batch_size
        Pairs per batch.
    generator
        Seeds the choice of trajectories and pairs; advances.
    both
        Whether pairs may also lead backward in time, which a map of ``spans="both"`` requires.
    moments
        Number of equally spaced times of a trajectory, with four evaluations of the velocity between two.

    Returns
    -------
    TrajectoryBatches
        Batches whose pairs begin at ``start`` and end at ``stop``, for `cellflow.objectives.TrajectoryMatching`.

    Raises
    ------
    ValueError
        For fewer than two times, or no origins.

    Source
    ------
    Luhman and Luhman 2021 (knowledge distillation), for pairs of any two times.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> still = lambda t, x, condition: torch.zeros_like(x)
    >>> rng = cf.generator(seed=0)
    >>> batches = trajectory_batches(still, [Origin(torch.ones(9, 2), 0.5)], batch_size=4, generator=rng)
    >>> batch = next(iter(batches))
    >>> torch.equal(batch.x0, batch.x1), batch.span()[1].abs().min() > 0
    (True, tensor(True))
    """
    if moments < 2 or not origins:
        raise ValueError(f"Expected at least two moments, and one origin; found {moments} and {len(origins)}.")
    weight = next(velocity.parameters(), None) if isinstance(velocity, nn.Module) else None
    if weight is not None:  # states in the precision of the flow
        origins = [origin.to(weight.dtype) for origin in origins]
    total, size = sum(len(origin.x) for origin in origins), origins[0].x[0].numel()
    share = min(1.0, NUMBERS / (total * moments * size))
    chosen = [_some(origin, share, generator) for origin in origins]
    courses = tuple(_followed(velocity, origin, moments) for origin in chosen)
    return TrajectoryBatches(courses, batch_size, draw_seed(generator), both)


def _some(origin: Origin, share: float, rng: torch.Generator) -> Origin:
    if share == 1:
        return origin
    rows = torch.randperm(len(origin.x), generator=rng)[: max(1, int(share * len(origin.x)))]
    return origin.take(rows.to(origin.x.device))


def _followed(velocity: Field, origin: Origin, moments: int) -> Course:
    """Follow states backward to time 0 and forward to time 1."""
    size = max(1, AT_ONCE // (moments * origin.x[0].numel()))
    parts = [_both_ways(velocity, origin.take(rows), moments) for rows in torch.arange(len(origin.x)).split(size)]
    return Course(parts[0].t, torch.cat([part.x for part in parts], dim=1), origin.condition)


def _both_ways(velocity: Field, origin: Origin, moments: int) -> Course:
    before = round(origin.at * (moments - 1))
    # At least one stretch to each end that is not there yet, however near it is.
    before = min(max(before, int(origin.at > 0)), moments - 1 - int(origin.at < 1))
    x, at, condition = origin
    t, states = [torch.tensor([at])], [x[None]]
    if before:
        back = ode(velocity, x, start=at, stop=0.0, solver=Fixed(steps=before), save=before + 1, condition=condition)
        t, states = [back.t.cpu().flip(0)], [back.x.flip(0)]
    if before < moments - 1:
        after = moments - 1 - before
        on = ode(velocity, x, start=at, stop=1.0, solver=Fixed(steps=after), save=after + 1, condition=condition)
        t, states = [*t, on.t.cpu()[1:]], [*states, on.x[1:]]
    return Course(torch.cat(t), torch.cat(states), condition)
