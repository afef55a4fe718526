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
from cellflow.integrate import Fixed, Trajectory, grow, ode
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
from cellflow.shapes import check_points
from cellflow.signature import checked, checked_but
from cellflow.training.history import History
from cellflow.training.loop import OnStep, fit
from cellflow.training.recipe import Recipe
from cellflow.training.run import Run

TRAJECTORIES = "trajectories"
"""The objective that regresses on trajectories of the fitted flow: the most stable and most accurate one, see
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
"""Training steps of a distillation by an estimator."""
NUMBERS = 2**27
"""Most numbers that trajectories hold, 512 MB: of more states, as many as fit are chosen at random."""
AT_ONCE = 2**22
"""Most numbers that are integrated at once."""


@checked_but("path", "objective")
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

    The number of jumps and their times are chosen afterwards. The ``distill`` method of an estimator calls this with
    its own flow.

    Parameters
    ----------
    flow_map
        The map: untrained, or `FlowMap.of` the flow, whose jumps are its Euler steps to begin with.
    teacher
        The velocity of the fitted flow, which is not changed; for a map with growth the field that returns a growth
        rate too. ``None`` for a map that learns velocity and jumps together, from pairs of the data only.
    batches
        With ``"trajectories"``, those of the teacher, by `trajectory_batches`; otherwise pairs of the data, as for
        `cellflow.training.fit`.
    steps
        Training steps.
    generator
        Seeds all random numbers.
    objective
        How the map is trained: ``"trajectories"`` by regression on those of the teacher; or an objective for flow maps,
        or the name of one: ``"semigroup"``, ``"lagrangian"``, ``"eulerian"``, ``"mean_velocity"`` or ``"direct"``. If
        it has no teacher, this one is filled in.
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
    >>> known = cf.training.trajectory_batches(flow, [x], [0.0], batch_size=8, generator=rng)
    >>> flow_map = cf.networks.FlowMap.of(flow)
    >>> distill(flow_map, flow, known, steps=5, generator=rng)
    History(5 steps, last loss ...)
    >>> pairs = cf.pairing.paired_batches(x, x + 3, batch_size=8, generator=rng)
    >>> distill(flow_map, None, pairs, objective="semigroup", steps=5, generator=rng)
    History(5 steps, last loss ...)
    """
    chosen = resolve(objective)
    if isinstance(chosen, TrajectoryMatching) and teacher is None:
        raise ValueError("Trajectories need a teacher; without one (teacher=False), choose 'semigroup'.")
    if recipe is None:
        recipe = Recipe() if isinstance(chosen, TrajectoryMatching) else RECIPE
    if str(recipe.precision) == "64":
        flow_map.double()
    chosen = replace(chosen, unit=chosen.unit if unit is None else unit)
    settings: FlowMapObjective | TrajectoryMatching = chosen
    if isinstance(chosen, FlowMapObjective):
        chosen = replace(chosen, path=chosen.path if path is None else path)
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
        about={
            **(about or {}),
            "map": [flow_map.spans, teacher is not None, repr(settings)] + flow_map.growth * ["growth"],
        },
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


class Trajectories(NamedTuple):
    """Trajectories of one snapshot, at common times.

    Parameters
    ----------
    t
        Times ``(k,)``, increasing.
    x
        States at these times, ``(k, n, ...)``.
    condition
        Condition of each trajectory, ``(n, k)``.
    log_weight
        Log weights at these times, ``(k, n)``; ``None`` without growth.
    """

    t: Tensor
    x: Tensor
    condition: Tensor | None
    log_weight: Tensor | None = None


@checked
@dataclass(frozen=True)
class TrajectoryBatches:
    """An endless stream of batches of pairs on the trajectories of a flow; the same at every iteration.

    Parameters
    ----------
    trajectories
        Those of each snapshot.
    batch_size
        Pairs per batch.
    seed
        Seed of the draws of trajectories and times.
    both
        Whether pairs may also lead backward in time.

    Examples
    --------
    >>> still = Trajectories(torch.linspace(0, 1, 5), torch.zeros(5, 3, 2), None)
    >>> batch = next(iter(TrajectoryBatches((still,), batch_size=4, seed=0, both=False)))
    >>> batch.x0.shape, bool((batch.start < batch.stop).all())
    (torch.Size([4, 2]), True)
    """

    trajectories: tuple[Trajectories, ...] = field(repr=False)
    batch_size: int
    seed: int
    both: bool

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches from the first on."""
        return self.iterate(0)

    @checked
    def iterate(self, start: int) -> Iterator[Batch]:
        """Yield batches from number ``start`` on."""
        return (self._draw(generator_at(self.seed, number)) for number in count(start))

    def _draw(self, rng: torch.Generator) -> Batch:
        sizes = torch.tensor([float(part.x.shape[1]) for part in self.trajectories], dtype=torch.float32)
        chosen = torch.multinomial(sizes, self.batch_size, replacement=True, generator=rng)
        parts = [self._pairs(part, int((chosen == k).sum()), rng) for k, part in enumerate(self.trajectories)]
        parts = [part for part in parts if len(part.x0)]
        return Batch._make(None if column[0] is None else torch.cat(column) for column in zip(*parts, strict=True))

    def _pairs(self, followed: Trajectories, n: int, rng: torch.Generator) -> Batch:
        row = torch.randint(followed.x.shape[1], (n,), generator=rng)
        first = torch.randint(len(followed.t), (n,), generator=rng)
        # Any other time, evenly: a pair of one time twice would teach nothing.
        second = (first + torch.randint(1, len(followed.t), (n,), generator=rng)) % len(followed.t)
        if not self.both:
            first, second = torch.minimum(first, second), torch.maximum(first, second)
        condition = None if followed.condition is None else followed.condition[row.to(followed.x.device)]
        x0, x1 = followed.x[first, row], followed.x[second, row]
        weight = followed.log_weight
        masses = () if weight is None else (weight[first, row], weight[second, row])
        return Batch(x0, x1, followed.t[first].to(x0), followed.t[second].to(x0), condition, *masses)


@checked
def trajectory_batches(
    velocity: Field,
    snapshots: Sequence[Tensor],
    times: Sequence[float],
    conditions: Sequence[Tensor] | None = None,
    *,
    batch_size: int,
    generator: torch.Generator,
    both: bool = True,
    growth: bool = False,
    n_times: int = 33,
) -> TrajectoryBatches:
    """Follow a fitted flow from known states to both ends of its time, and draw pairs of points on its trajectories.

    Every trajectory passes through a known state, of the source or of the target, so that errors of the flow do not
    accumulate over rounds of its own samples.

    Parameters
    ----------
    velocity
        The fitted velocity, ``velocity(t, x, condition)``.
    snapshots
        States that the trajectories pass through, ``(n_k, ...)`` each.
    times
        Model time of each snapshot.
    conditions
        Conditions of the states of each snapshot, ``(n_k, c)`` each; ``None`` for a flow without conditions.
    batch_size
        Pairs per batch.
    generator
        Seeds the choice of trajectories and pairs; advances.
    both
        Whether pairs may also lead backward in time, which a map of ``spans="both"`` requires.
    growth
        Whether to follow weights too, for a map with growth; ``velocity`` is then a field that also returns a growth
        rate, and pairs have masses.
    n_times
        Number of equally spaced times of a trajectory, with four evaluations of the velocity between two.

    Returns
    -------
    TrajectoryBatches
        Batches whose pairs begin at ``start`` and end at ``stop``, for `cellflow.objectives.TrajectoryMatching`.

    Raises
    ------
    ValueError
        For fewer than two times of a trajectory, or unless there is a time for each of one or more snapshots.

    Source
    ------
    Luhman and Luhman 2021 (knowledge distillation), for pairs of any two times.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> still = lambda t, x, condition: torch.zeros_like(x)
    >>> batches = trajectory_batches(still, [torch.ones(9, 2)], [0.5], batch_size=4, generator=cf.generator(seed=0))
    >>> batch = next(iter(batches))
    >>> torch.equal(batch.x0, batch.x1), batch.span()[1].abs().min() > 0
    (True, tensor(True))
    """
    if n_times < 2 or not len(snapshots) or len(snapshots) != len(times):
        raise ValueError(
            f"Expected n_times >= 2, and a time for each of one or more snapshots; found n_times={n_times}, "
            f"{len(snapshots)} snapshots and {len(times)} times."
        )
    if not all(0 <= time <= 1 for time in times) or batch_size < 1:
        raise ValueError(
            f"Expected model times from 0 to 1, and batch_size >= 1; found {list(times)} and {batch_size}."
        )
    for k, x in enumerate(snapshots):
        check_points(x, name=f"snapshots[{k}]")
        if conditions is not None and (len(conditions) != len(snapshots) or conditions[k].shape[:1] != x.shape[:1]):
            raise ValueError(f"Expected `conditions` with a row for each state of each of {len(snapshots)} snapshots.")
    weight = next(velocity.parameters(), None) if isinstance(velocity, nn.Module) else None
    dtype = snapshots[0].dtype if weight is None else weight.dtype  # the flow's own precision
    share = min(1.0, NUMBERS / (sum(map(len, snapshots)) * n_times * snapshots[0][0].numel()))
    found = []
    for k, (x, at) in enumerate(zip(snapshots, times, strict=True)):
        rows = torch.arange(len(x))
        if share < 1:
            rows = torch.randperm(len(x), generator=generator)[: max(1, int(share * len(x)))]
        condition = None if conditions is None else conditions[k][rows].to(dtype)
        found.append(_followed(velocity, x[rows].to(dtype), at, condition, n_times, growth=growth))
    return TrajectoryBatches(tuple(found), batch_size, draw_seed(generator), both)


def _followed(
    velocity: Field, x: Tensor, at: float, condition: Tensor | None, n_times: int, *, growth: bool
) -> Trajectories:
    """Follow states backward to time 0 and forward to time 1, some at a time."""
    size = max(1, AT_ONCE // (n_times * x[0].numel()))
    follow = grow if growth else ode
    parts = [
        _both_ways(follow, velocity, x[rows], at, None if condition is None else condition[rows], n_times)
        for rows in torch.arange(len(x)).split(size)
    ]
    t, states, weights = zip(*parts, strict=True)
    return Trajectories(t[0], torch.cat(states, dim=1), condition, torch.cat(weights, dim=1) if growth else None)


def _both_ways(
    follow: Callable[..., Trajectory], velocity: Field, x: Tensor, at: float, condition: Tensor | None, n_times: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the times ``(n_times,)``, and states ``(n_times, n, ...)`` and changes of log weight ``(n_times, n)``."""
    before = round(at * (n_times - 1))
    # At least one stretch to each end that is not there yet, however near it is.
    before = min(max(before, int(at > 0)), n_times - 1 - int(at < 1))
    t, states, weights = [torch.tensor([at], dtype=torch.float32)], [x[None]], [x.new_zeros(1, len(x))]
    for end, steps, back in ((0.0, before, True), (1.0, n_times - 1 - before, False)):
        if steps:
            found = follow(
                velocity, x, start=at, stop=end, solver=Fixed(steps=steps), save=steps + 1, condition=condition
            )
            gain = found.x.new_zeros(found.x.shape[:2]) if found.log_weight is None else found.log_weight
            new = [found.t.cpu()[1:], found.x[1:], (gain - gain[:1])[1:]]
            for known, part in zip((t, states, weights), new, strict=True):
                known.insert(0, part.flip(0)) if back else known.append(part)
    return torch.cat(t), torch.cat(states), torch.cat(weights)
