"""What learns nothing, or next to nothing, and must be beaten.

Each sees what a method sees, and answers ``None`` where it has no answer. The change of a condition is the mean of its
cells minus that of the untreated cells that it began with, of its own context where there is one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from anndata import AnnData

import cellflow as cf
from benchmarks.perturbation.folds import REP, Ask, control_rows, groups
from benchmarks.perturbation.scores import Predicted
from benchmarks.rows import Row

LEAST = 40
"""Cells of a condition, treated and untreated, whose change is looked at; of fewer, where there are no others."""
COMPONENTS = 10
"""By which ridge regression tells contexts apart: those of their untreated cells."""
PENALTIES = np.logspace(-2, 5, 15)

Answer = Predicted | None


@dataclass(frozen=True, eq=False)
class Change:
    """What a treatment did to the cells of one condition: the mean change ``(genes,)``."""

    condition: Row
    genes: np.ndarray


def changes(seen: AnnData, least: int = LEAST) -> list[Change]:
    """Return the change of every condition that was seen."""
    found, few, x = list[Change](), list[Change](), np.asarray(seen.X)
    for condition, rows in groups(seen.obs):
        before = control_rows(seen.obs, condition.get("context"))
        if before.any():
            change = Change(condition, x[rows].mean(axis=0) - x[before].mean(axis=0))
            (found if min(len(rows), before.sum()) >= least else few).append(change)
    return found or few


def no_change(seen: AnnData, asks: Sequence[Ask], *, seed: int) -> list[Answer]:
    """Untreated cells as they are."""
    return [Predicted(np.asarray(ask.start.X), genes=True) for ask in asks]


def mean_shift(seen: AnnData, asks: Sequence[Ask], *, seed: int) -> list[Answer]:
    """Return the mean change of what is most alike: the condition in other contexts, the treatment, or anything."""
    known = changes(seen)
    return [_shifted(ask, np.mean([change.genes for change in _alike(ask, known)], axis=0)) for ask in asks]


def additive(seen: AnnData, asks: Sequence[Ask], *, seed: int) -> list[Answer]:
    """Return the sum of the changes of all parts of a combination, each in proportion between doses and times seen."""
    known = changes(seen)
    found: list[Answer] = []
    for ask in asks:
        parts = [_interpolated(part, ask, known) for part in ask.treatment.split("+")]
        whole = [part for part in parts if part is not None]
        found.append(_shifted(ask, np.sum(whole, axis=0)) if len(whole) == len(parts) else None)
    return found


def nearest_context(seen: AnnData, asks: Sequence[Ask], *, seed: int) -> list[Answer]:
    """Return the change in the context whose untreated cells are nearest, or of the condition that is nearest."""
    known, found = changes(seen), list[Answer]()
    for ask in asks:
        alike = _alike(ask, known)
        if ask.context is not None and any(change.condition["context"] != ask.context for change in alike):
            own = ask.start.obsm[REP].mean(axis=0)
            near = min(alike, key=lambda change: float(np.linalg.norm(_before(seen, change) - own)))
        else:
            near = min(alike, key=lambda change: _apart(ask, change.condition))
        found.append(_shifted(ask, near.genes))
    return found


def copied(seen: AnnData, asks: Sequence[Ask], *, seed: int) -> list[Answer]:
    """Return cells of the nearest condition as they were measured, of the same context."""
    found: list[Answer] = []
    for ask in asks:
        there = [(c, rows) for c, rows in groups(seen.obs) if c.get("context") in (None, ask.context)]
        if not there:
            found.append(None)
            continue
        nearest = min(there, key=lambda group: _apart(ask, group[0]))
        found.append(Predicted(np.asarray(seen.X)[nearest[1]], genes=True))
    return found


def midpoint(seen: AnnData, asks: Sequence[Ask], *, seed: int) -> list[Answer]:
    """Return pairs of an exact plan between the conditions on both sides, so far along as dose or time says."""
    found: list[Answer] = []
    for ask in asks:
        sides = _sides(seen, ask)
        if sides is None:
            found.append(None)
            continue
        below, above, part = sides
        x0, x1 = (torch.from_numpy(seen.obsm[REP][rows]).double() for rows in (below, above))
        rng = cf.generator(seed=seed)
        x0, x1 = (cf.metrics.thinned(x, None, 1500, generator=rng)[0] for x in (x0, x1))
        i, j = cf.couplings.Exact()(x0, x1).sample(max(len(x0), len(x1)), generator=rng)
        found.append(Predicted((x0[i] + part * (x1[j] - x0[i])).numpy()))
    return found


def ridge(seen: AnnData, asks: Sequence[Ask], *, seed: int) -> list[Answer]:
    """Return ridge regression of the change on the condition; its penalty by leaving contexts or conditions out."""
    known = changes(seen)
    if len(known) < 3:
        return [None] * len(asks)
    names = sorted({part for change in known for part in change.condition["treatment"].split("+")})
    times = sorted({change.condition.get("time", 0.0) for change in known})
    doses = [change.condition["dose"] for change in known if change.condition.get("dose")]
    scale = float(np.median(doses)) if doses else 1.0

    def row(condition: Row, before: np.ndarray) -> np.ndarray:
        dose, parts = condition.get("dose"), condition["treatment"].split("+")
        amount = 1.0 if dose is None else float(np.log1p(dose / scale) / np.log(2))
        each = [amount * parts.count(name) for name in names]
        at = [amount * (condition.get("time", 0.0) == time) for time in times]
        return np.array([*each, *at, *(before[:COMPONENTS] if "context" in condition else [])])

    table = np.stack([row(change.condition, _before(seen, change)) for change in known])
    asked = np.stack([row(_condition(ask), ask.start.obsm[REP].mean(axis=0)) for ask in asks])
    several = len({change.condition.get("context") for change in known}) > 2
    apart = [change.condition["context"] if several else k for k, change in enumerate(known)]
    predicted = _regressed(table, np.stack([change.genes for change in known]), asked, np.array(apart))
    return [_shifted(ask, change) for ask, change in zip(asks, predicted, strict=True)]


def _regressed(x: np.ndarray, y: np.ndarray, asked: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """Return what ridge regression says of the rows ``asked``, with the penalty that predicts rows left out best."""
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

    spread = x.std(axis=0)
    scaled = [(table - x.mean(axis=0))[:, spread > 0] / spread[spread > 0] for table in (x, asked)]
    if not scaled[0].size:
        return np.tile(y.mean(axis=0), (len(asked), 1))
    split = LeaveOneGroupOut()
    errors = [
        np.square(cross_val_predict(Ridge(penalty), scaled[0], y, groups=apart, cv=split) - y).sum()
        for penalty in PENALTIES
    ]
    model = Ridge(PENALTIES[int(np.argmin(errors))]).fit(scaled[0], y)
    return np.asarray(model.predict(scaled[1]))


Method = Callable[..., list[Answer]]

BASELINES: dict[str, Method] = {
    "no change": no_change,
    "mean shift": mean_shift,
    "additive": additive,
    "nearest context": nearest_context,
    "ridge on the condition": ridge,
    "copy of the nearest condition": copied,
    "exact OT midpoint": midpoint,
}


def _shifted(ask: Ask, change: np.ndarray) -> Predicted:
    return Predicted(np.asarray(ask.start.X) + change, genes=True)


def _condition(ask: Ask) -> Row:
    """Return the columns of a question."""
    found = {name: getattr(ask, name) for name in ("treatment", "dose", "context", "time")}
    return {name: value for name, value in found.items() if value is not None}


def _alike(ask: Ask, known: list[Change]) -> list[Change]:
    """Return the changes that are most like what is asked for, and at the same time where there are such."""
    same = [
        [c for c in known if all(c.condition.get(name) == getattr(ask, name) for name in columns)]
        for columns in (("treatment", "dose", "time"), ("treatment", "time"), ("treatment",), ("time",), ())
    ]
    return next(found for found in same if found)


def _apart(ask: Ask, condition: Row) -> tuple[float, float, float]:
    """Return how far a condition is from what is asked for: by its drugs, then by time, then by dose."""
    own, other = set(ask.treatment.split("+")), set(condition["treatment"].split("+"))
    time = abs((ask.time or 0.0) - condition.get("time", 0.0))
    doses = [np.log1p(dose) for dose in (ask.dose or 0.0, condition.get("dose", 0.0))]
    return 1 - len(own & other) / len(own | other), time, abs(doses[0] - doses[1])


def _before(seen: AnnData, change: Change) -> np.ndarray:
    """Return the mean of the untreated cells that a condition began with."""
    return np.asarray(seen.obsm[REP][control_rows(seen.obs, change.condition.get("context"))].mean(axis=0))


def _interpolated(part: str, ask: Ask, known: list[Change]) -> np.ndarray | None:
    """Return the mean change by one drug at the dose and time asked for; none at dose 0 and at the first time."""
    own = [change for change in known if change.condition["treatment"] == part]
    if not own:
        return None
    if ask.time is not None and any(change.condition["time"] == ask.time for change in own):
        own = [change for change in own if change.condition["time"] == ask.time]
        axis, at = "dose", ask.dose
    else:
        axis, at = ("time", ask.time) if ask.time is not None else ("dose", ask.dose)
    if at is None:
        return np.asarray(np.mean([change.genes for change in own], axis=0))
    places = sorted({float(change.condition[axis]) for change in own})
    means = [np.mean([c.genes for c in own if c.condition[axis] == place], axis=0) for place in places]
    whole = np.stack([np.zeros_like(means[0]), *means])
    return np.stack([np.interp(at, [0.0, *places], column) for column in whole.T])


def _sides(seen: AnnData, ask: Ask) -> tuple[np.ndarray, np.ndarray, float] | None:
    """Return the rows of the conditions below and above in dose or time, and the part of the way between them."""
    if "+" in ask.treatment:
        return None
    own = [(c, rows) for c, rows in groups(seen.obs)
           if c["treatment"] == ask.treatment and c.get("context") == ask.context]  # fmt: skip
    axis, at = "dose", ask.dose
    if ask.dose is None or (ask.time is not None and not any(c.get("time") == ask.time for c, _ in own)):
        axis, at = "time", ask.time
    elif ask.time is not None:
        own = [group for group in own if group[0]["time"] == ask.time]
    if at is None:
        return None
    untreated = np.flatnonzero(control_rows(seen.obs, ask.context))
    places = {0.0: untreated} | {float(c[axis]): rows for c, rows in own}
    below, above = ([p for p in places if p < at], [p for p in places if p > at])
    if not below or not above:
        return None
    low, high = max(below), min(above)
    part = (at - low) / (high - low) if low == 0 else np.log(at / low) / np.log(high / low)
    return places[low], places[high], float(part)
