"""How much of the effect of treatments holds for cells that were not trained on, and for how many steps to train.

Held-out controls are carried part of the way, and compared with held-out treated cells by energy distance. If there are
groups, such as donors or cell types, whole groups are held out: what is learned from some of them should hold for
others.
"""

import logging
import math
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cellflow.batch import Batch
from cellflow.integrate import Fixed, ode
from cellflow.networks.treated import Treated
from cellflow.objectives import Objective
from cellflow.seeds import draw_seed, generator_at
from cellflow.training.history import History
from cellflow.training.loop import fit
from cellflow.training.recipe import Recipe
from cellflow.training.run import Stopped
from cellflow.training.search import LONGER, PART
from cellflow.training.stopping import EVERY, HELD_OUT, PATIENCE, EarlyStopping

log = logging.getLogger(__name__)

SHARES = torch.linspace(0, 1, 11, dtype=torch.float64)
"""Shares that are tried."""
RESAMPLED = 50
"""How often held-out cells are resampled."""
CLOSE = 0.02
"""Distances to groups held out that differ by less are said to be equal, as a part of the smaller one."""
WHOLE = 0.9
"""A share from which on nothing speaks against all: by so much it differs between samples of some dozens of cells."""
MOST_ARMS, MOST_CELLS, MOST_OF_ARM = 32, 1000, 300
"""Most arms of each fold that are looked at, and cells of a side: of all arms together, but for 100 of each, and of
one."""
SOLVER = Fixed("midpoint", steps=5)
"""How they are carried: to a fraction of the distance between them."""


class HeldArm(NamedTuple):
    """Cells that are not trained on.

    Attributes
    ----------
    x0, x1
        Controls ``(n, d)``, and treated cells ``(m, d)``.
    condition
        The condition of the latter, ``(k,)``.
    """

    x0: Tensor
    x1: Tensor
    condition: Tensor


class Fold(NamedTuple):
    """One division of the cells.

    Attributes
    ----------
    field
        An untrained `cellflow.networks.treated.Treated`, with the effects on the cells that it sees.
    seen
        Batches of the training cells.
    held
        The others.
    """

    field: Treated
    seen: Iterable[Batch]
    held: Sequence[HeldArm]


class Confirmed(NamedTuple):
    """What held-out cells say.

    Attributes
    ----------
    history
        The mean over the folds: the loss and, as ``"validation"``, the root of the energy distance at the best share.
    steps
        For how many steps to train on all cells.
    share, own
        The share of each treatment's effect, and of its differences between cells, ``(p,)`` each, float64.
    """

    history: History
    steps: int
    share: Tensor
    own: Tensor


def confirmed_effects(
    folds: Sequence[Fold],
    objective: Objective,
    *,
    width: int,
    steps: int,
    generator: torch.Generator,
    recipe: Recipe | None = None,
) -> Confirmed:
    """Train on part of the cells in each fold; find the steps and the shares that fit the others best.

    Every 25 steps, for at most a third of ``steps``, the held-out controls are carried, each by a share of its way. The
    best number of steps has the smallest distance to the held-out treated cells at the best share: the root of the
    energy distance, averaged over arms. As in `cellflow.training.fit_unmemorised`, training on all cells takes 1.5
    times as many, or all ``steps`` if the distance is still falling.

    The share of a treatment is then found for bootstrap samples of the held-out cells of all arms that have it, and
    averaged: a real effect has 1, no effect has 0, and if cells are too few to tell, it lies in between. A treatment
    without held-out cells has the share of all arms together.

    Parameters
    ----------
    folds
        Splits of the cells.
    objective
        The loss.
    width
        The width p of the treatments, the first entries of a condition.
    steps
        The most steps.
    generator
        Seeds the trainings; advances by one number.
    recipe
        How the optimiser runs.

    Source
    ------
    Efron and Tibshirani 1993, "An introduction to the bootstrap", chapter 17, for the choice on held-out parts.
    """
    seed, recipe = draw_seed(generator), recipe or Recipe()
    looks = [_Looks(fold, width, seed + number) for number, fold in enumerate(folds)]
    histories = []
    for number, (fold, seen) in enumerate(zip(folds, looks, strict=True)):
        settings: dict[str, Any] = {"steps": steps, "until": steps // PART, "recipe": recipe}
        settings |= {"generator": generator_at(seed, number), "stopping": EarlyStopping((), seed, judge=seen)}
        try:
            histories.append(fit(deepcopy(fold.field), objective, fold.seen, **settings))
        except Stopped as stop:
            raise Stopped(stop.step, stop.steps, None, search="the effects of treatments") from None
    history = _mean(histories)
    best, falls = _earliest(
        torch.cat([seen.distances(max(len(s.carried) for s in looks)) for seen in looks]), CLOSE * (len(folds) > 1)
    )
    chosen = steps if falls and len(history) >= steps // PART else min(steps, math.ceil(LONGER * EVERY * (best + 1)))
    arms = [arm for seen in looks for arm in seen.arms]
    known = [
        curves(*each, generator_at(seed, len(folds) + k))
        for k, each in enumerate(
            zip(
                arms,
                [z for seen in looks for z in seen.at(best)],
                [m for seen in looks for m in seen.shifts],
                strict=True,
            )
        )
    ]
    share, own = _shares(arms, known, width)
    log.info(
        "held-out cells improve for %d steps, and confirm %.0f %% of effects and %.0f %% of their differences between "
        "cells",
        chosen,
        100 * float(share.mean()),
        100 * float(own.mean()),
    )
    return Confirmed(history, chosen, share, own)


@dataclass(eq=False)
class _Looks:
    """Carries held-out cells whenever it is asked, and remembers where they came to."""

    fold: Fold
    width: int
    seed: int
    arms: list[HeldArm] = field(init=False)
    shifts: list[Tensor] = field(init=False)
    carried: list[list[Tensor]] = field(init=False, default_factory=list)
    found: list[Tensor] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        rng, held = generator_at(self.seed, 0), self.fold.held
        some = [held[k] for k in torch.randperm(len(held), generator=rng)[:MOST_ARMS].tolist()]
        most = min(max(MOST_CELLS // len(some), 100), MOST_OF_ARM)
        self.arms = [HeldArm(_some(arm.x0, most, rng), _some(arm.x1, most, rng), arm.condition) for arm in some]
        effects = torch.stack([arm.condition[: self.width] for arm in self.arms])
        shift = self.fold.field.shift
        self.shifts = list(shift(effects.to(shift.line)).cpu().double())

    def __call__(self, field: nn.Module) -> float:
        """Return the root of the energy distance at the best shares, the mean over arms.

        Roots, as squares would ask those arms alone that move the farthest.
        """
        like = next(field.parameters())
        x0 = torch.cat([arm.x0 for arm in self.arms]).to(like)
        sizes = [len(arm.x0) for arm in self.arms]
        condition = torch.stack([arm.condition for arm in self.arms]).to(like)
        condition = condition.repeat_interleave(torch.tensor(sizes, device=like.device), dim=0)
        with torch.no_grad():
            z = ode(field, x0, condition=condition, solver=SOLVER).x[-1]
        self.carried.append([part.cpu().double() for part in z.split(sizes)])
        every = zip(self.arms, self.carried[-1], self.shifts, strict=True)
        self.found.append(torch.stack([_distances(*each) for each in every]))
        return float(self.found[-1].mean(dim=0).min())

    def at(self, look: int) -> list[Tensor]:
        """Return where the cells of each arm came to at a look; at the last one for a fold that had ended before."""
        return self.carried[min(look, len(self.carried) - 1)]

    def distances(self, looks: int) -> Tensor:
        """Return the distances of each arm at each look for some shares, ``(arms, looks, shares)``."""
        return torch.stack([self.found[min(look, len(self.found) - 1)] for look in range(looks)], dim=1)


def curves(arm: HeldArm, carried: Tensor, shift: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return the energy distance for all shares, less that of not moving, of bootstrap samples ``(RESAMPLED, 11, 11)``.

    The estimate is the unbiased one, which leaves pairs of a cell with itself out. Shares are those of a cell's whole
    displacement, and of its difference from the mean shift. Without a generator, it is that of the cells themselves,
    ``(1, 11, 11)``.

    Examples
    --------
    >>> x = torch.arange(100.0)[:, None]
    >>> arm, none = HeldArm(x, x + 5, torch.ones(1)), torch.zeros(1)
    >>> [int(curves(arm, x + moved, none, None)[0, :, -1].argmin()) for moved in (5, 10, -5)]
    [10, 5, 0]
    >>> int(curves(arm, x - 5, none + 5, None)[0, -1].argmin())
    0
    """
    x0, x1 = arm.x0.cpu().double(), arm.x1.cpu().double()
    a, b = (_weights(len(x), generator) for x in (x0, x1))
    apart = (1 - a.square().sum(dim=1)).clamp(min=1e-12)
    found = []
    for share in SHARES:
        for own in SHARES:
            z = _moved(x0, carried, shift, share, own)
            within = ((a @ torch.cdist(z, z)) * a).sum(dim=1) / apart
            found.append(2 * ((a @ torch.cdist(z, x1)) * b).sum(dim=1) - within)
    return (torch.stack(found, dim=1) - found[0][:, None]).reshape(-1, len(SHARES), len(SHARES))


def _moved(x0: Tensor, carried: Tensor, shift: Tensor, share: Tensor, own: Tensor) -> Tensor:
    """Return controls that go a share of their way, and a share of what that differs from the mean shift by."""
    shift = shift.cpu().double()
    return x0 + share * (shift + own * (carried.cpu().double() - x0 - shift))


def _distances(arm: HeldArm, carried: Tensor, shift: Tensor) -> Tensor:
    """Return the root of the energy distance for some shares, in units of the cells."""
    x0, x1 = arm.x0.cpu().double(), arm.x1.cpu().double()
    clouds = [_moved(x0, carried, shift, share, own) for share in SHARES[::5] for own in SHARES[::5]]
    own = torch.cdist(x1, x1).mean()
    found = [2 * torch.cdist(z, x1).mean() - torch.cdist(z, z).mean() - own for z in clouds]
    return torch.stack(found).clamp(min=0).sqrt()


def _earliest(distances: Tensor, close: float) -> tuple[int, bool]:
    """Return the earliest look that is as good as the best one, and whether the distance still falls at the last ones.

    Distances hardly change over many looks, while a network memorises ever more of the cells that it sees.
    """
    means = distances.mean(dim=0).min(dim=1).values
    early = int((means <= (1 + close) * means.min()).int().argmax())
    return early, len(means) - early <= PATIENCE


def _shares(arms: Sequence[HeldArm], known: Sequence[Tensor], width: int) -> tuple[Tensor, Tensor]:
    """Return the shares of each treatment; arms count as much as can be known of them."""
    weights = [len(arm.x0) * len(arm.x1) / (len(arm.x0) + len(arm.x1)) for arm in arms]
    every = torch.stack([w * each for w, each in zip(weights, known, strict=True)])
    effects = torch.stack([arm.condition[:width].cpu() for arm in arms]) != 0
    best = [(every[has] if has.any() else every).sum(dim=0).flatten(1).argmin(dim=1) for has in effects.T]
    share, own = (torch.stack([SHARES[k].mean() for k in side]) for side in zip(*map(_places, best), strict=True))
    return torch.where(share < WHOLE, share, 1), torch.where(own < WHOLE, own, 1)


def _places(entries: Tensor) -> tuple[Tensor, Tensor]:
    """Return which share of all, and which of what differs between cells, entries of `curves` have."""
    return entries // len(SHARES), entries % len(SHARES)


def _weights(n: int, generator: torch.Generator | None) -> Tensor:
    """Return what cells weigh in each bootstrap sample, ``(RESAMPLED, n)``; each row sums to 1."""
    if generator is None:
        return torch.full((1, n), 1 / n, dtype=torch.float64)
    drawn = torch.randint(n, (RESAMPLED, n), generator=generator)
    return torch.zeros(drawn.shape, dtype=torch.float64).scatter_add_(1, drawn, torch.ones(drawn.shape).double()) / n


def _some(x: Tensor, most: int, rng: torch.Generator) -> Tensor:
    return x[torch.randperm(len(x), generator=rng)[:most].to(x.device)]


def _mean(histories: Sequence[History]) -> History:
    """Return the mean over folds; a fold that ended before counts with its last value."""
    longest = max(map(len, histories))
    rows: dict[str, list[float]] = {}
    for name in histories[0].columns:
        columns = []
        for history in histories:
            given = history.columns[name]
            known = [value for value in given if not math.isnan(value)]
            late = [known[-1] if name != HELD_OUT or k % EVERY == 0 else math.nan for k in range(1, longest + 1)]
            columns.append([*given, *late[len(given) :]])
        rows[name] = [sum(values) / len(values) for values in zip(*columns, strict=True)]
    return History(rows)


def folds_of(groups: Sequence[Any], sizes: Sequence[int], count: int = 3) -> list[list[Any]] | None:
    """Split groups into parts of about equal size, to be held out in turn; ``None`` for fewer groups than parts.

    Examples
    --------
    >>> folds_of(["x", "y", "z", "w"], [5, 50, 30, 7])
    [['y'], ['z'], ['w', 'x']]
    """
    if len(groups) < count:
        return None
    parts: list[list[Any]] = [[] for _ in range(count)]
    filled = [0] * count
    for size, _, group in sorted(
        ((size, k, group) for k, (size, group) in enumerate(zip(sizes, groups, strict=True))),
        key=lambda each: (-each[0], each[1]),
    ):
        least = filled.index(min(filled))
        parts[least].append(group)
        filled[least] += size
    return parts
