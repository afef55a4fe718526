"""What a perturbation flow is built of: effects in closed form, one scale, and the cells that are held out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cellflow.cells.fitted_conditions import FittedConditions
from cellflow.estimators.arms import Arms
from cellflow.estimators.fields import Scales, check_scales
from cellflow.networks.additive import AdditiveShift
from cellflow.networks.treated import SAME, Treated
from cellflow.pairing import aside
from cellflow.pairing.condition_legs import ConditionLeg
from cellflow.pairing.legs import LegBatches
from cellflow.training.additive import fit_additive
from cellflow.training.effects import Confirmed, Fold, HeldArm, folds_of
from cellflow.training.noise import told_from_controls

LEAST = 10
"""Cells on either side from which on held-out ones are compared."""
MOST = 300
"""Cells of each side that are held out where they are many."""
EQUAL = 1e-6
"""Shares that differ by less are one."""
SHARES = ("share", "own", "seen", "kept")
"""Buffers of a field in which its shares are."""


def scales_of(x: np.ndarray, *, standardize: bool | str) -> Scales:
    """Return the scales of all cells: one for all columns, unless each column should count alike.

    Columns of a representation with a small spread, such as the last principal components, are mostly noise. Divided by
    its own spread, each would count as much as any other in how a network distinguishes cells, and the network would
    generalise less between groups of cells.

    Examples
    --------
    >>> x = np.array([[4.0, 0.0], [-4.0, 3.0]])
    >>> scales_of(x, standardize=True).scale, scales_of(x, standardize="loss").scale
    (tensor([3.0208, 3.0208]), tensor([4.0000, 1.5000]))
    """
    shift, scale = (torch.from_numpy(found(axis=0, dtype=np.float64)).float() for found in (x.mean, x.std))
    if standardize is True:
        check_scales(Scales(shift, scale, scale, 1.0), standardize=True)
        scale = torch.where(scale > 0, scale.double().square().mean().sqrt().float(), 0)
    return Scales(shift, scale, scale, 1.0)


def effects_of(arms: Arms, conditions: FittedConditions, legs: Sequence[ConditionLeg]) -> AdditiveShift:
    """Return the additive effects of treatments on the mean of the cells of some legs."""
    seen = [arms.table.vectors[leg.condition, conditions.effect] for leg in legs]
    effects = torch.from_numpy(np.stack(seen)).double()
    sides = [[arms.x[rows.numpy()].astype(np.float64) for rows in (leg.source, leg.target)] for leg in legs]
    changes = torch.from_numpy(np.stack([after.mean(axis=0) - before.mean(axis=0) for before, after in sides]))
    noise = torch.tensor([1 / len(before) + 1 / len(after) for before, after in sides], dtype=torch.float64)
    counts = [len(after) for _, after in sides]
    spread = torch.from_numpy(np.average([after.var(axis=0) for _, after in sides], axis=0, weights=counts))
    curvature = torch.from_numpy(np.asarray(conditions.dose_curvature, dtype=np.float64))
    return fit_additive(changes, noise=noise, spread=spread, effects=effects, curvature=curvature).shift.float()


def amounts_of(arms: Arms, conditions: FittedConditions) -> tuple[float, bool]:
    """Return the typical amount of a treatment, and whether there is only one treatment, at one amount."""
    effects = arms.table.vectors[:, conditions.effect]
    seen = np.unique(effects[(effects != 0).any(axis=1)], axis=0)
    return (float(np.median(np.abs(seen).max(axis=1))), len(seen) == 1) if len(seen) else (1.0, False)


Build = Callable[[Sequence[ConditionLeg]], Treated]
"""An untrained field, from the legs that it sees."""


def folds(
    arms: Arms,
    batches: LegBatches,
    *,
    build: Build,
    pair: Callable[[Arms], LegBatches],
    generator: torch.Generator,
) -> list[Fold]:
    """Split the cells of a fit: whole groups in three folds or, with fewer groups, cells of each arm in one.

    Parameters
    ----------
    arms, batches
        The cells, and their pairs.
    build
        Returns an untrained field.
    pair
        Pairs some of the cells.
    generator
        Chooses cells.

    Returns
    -------
    folds
        Empty where there are too few cells.
    """
    found = _by_group(arms, batches, build)
    return found if found else _by_cell(arms, build, pair, generator)


def _by_group(arms: Arms, batches: LegBatches, build: Build) -> list[Fold]:
    """Hold whole groups out: those of a treatment that other groups have as well tell what is learned of them."""
    of = [arm.group for arm in arms.arms for _ in np.unique(arms.table.index[arm.target])]
    sizes = dict.fromkeys(of, 0)
    for leg, group in zip(batches.legs, of, strict=True):
        sizes[group] += min(len(leg.source), len(leg.target))
    comparable = [group for group, size in sizes.items() if size >= LEAST]
    found = []
    for held in folds_of(comparable, [sizes[group] for group in comparable]) or []:
        apart = [group in held for group in of]
        seen = [leg for leg, out in zip(batches.legs, apart, strict=True) if not out]
        known = {leg.condition for leg in seen}
        judged = [leg for leg, out in zip(batches.legs, apart, strict=True) if out and leg.condition in known]
        judged = [leg for leg in judged if min(len(leg.source), len(leg.target)) >= LEAST]
        if judged:
            found.append(Fold(build(seen), batches.only([not out for out in apart]), held_arms(arms, judged)))
    return found


def _by_cell(arms: Arms, build: Build, pair: Callable[[Arms], LegBatches], generator: torch.Generator) -> list[Fold]:
    """Hold out some controls of every group and some treated cells of every arm that has enough of them."""
    sides = {(arm.group, ""): arm.source for arm in arms.arms}
    sides |= {(arm.group, arm.label): arm.target for arm in arms.arms}
    held = np.zeros(len(arms.x), dtype=bool)
    for rows in sides.values():
        count = round(len(rows) * min(max(aside.TENTH, MOST / len(rows)), aside.THIRD))
        if count >= LEAST:
            held[rows[torch.randperm(len(rows), generator=generator)[:count].numpy()]] = True
    judged = [leg for leg in arms.taken(held).legs() if min(len(leg.source), len(leg.target)) >= LEAST]
    if not judged:
        return []
    seen = arms.taken(~held)
    fold = aside.divided(lambda: Fold(build(seen.legs()), pair(seen), held_arms(arms, judged)), what="cells")
    return [] if fold is None else [fold]


def confirm(field: Treated, arms: Arms, conditions: FittedConditions, legs: Sequence[ConditionLeg]) -> None:
    """Reduce the shares of a field to what distinguishes the cells under each treatment from controls.

    Treatments are compared one by one. An axis is judged by the treatment that consists of this axis alone, if there is
    one: cells under a combination do not show which of its treatments has an effect. A combination of named treatments
    without an effect visible in its own cells keeps that of its treatments. Treatments whose shares differ from those
    of their axes get their own.

    Parameters
    ----------
    field
        Its shares are changed.
    arms, conditions, legs
        The cells, how treatments are read, and which cells are under which.
    """
    seen, of = _distinct(arms.table.vectors[:, conditions.effect])
    sides, which = held_arms(arms, legs), np.array([of[leg.condition] for leg in legs])
    told = np.array([_told(sides, which == row) for row in range(len(seen))])
    by_axis = _axes(seen, told, sides, which)
    parts = np.abs(seen) / np.abs(seen).sum(axis=1, keepdims=True)
    named = conditions.effects.vectors is None
    kept = np.maximum(told, parts @ by_axis if named else 0.0)
    share, own = (parts @ each.cpu().double().numpy() for each in (field.share, field.own))
    field.share.mul_(torch.from_numpy(by_axis).to(field.share))
    final = field.share.cpu().double().numpy()
    apart = (np.abs(final - (kept * share)[:, None]) * (seen != 0)).max(axis=1, initial=0) > EQUAL
    field.keep(*(torch.from_numpy(each[apart]).float() for each in (seen, np.column_stack([kept * share, own]))))


def kept_shares(
    field: Treated,
    found: Confirmed | None,
    arms: Arms,
    conditions: FittedConditions,
    legs: Sequence[ConditionLeg],
    regular: bool,
) -> dict[str, Tensor]:
    """Return the shares of a field after training, by the names of its buffers; the field itself is unchanged.

    Parameters
    ----------
    field
        The field, as it is trained.
    found
        What held-out cells confirm, if they were asked.
    arms, conditions, legs
        As for `confirm`.
    regular
        Whether treatments that cannot be distinguished from controls are left out.
    """
    before = {name: getattr(field, name).clone() for name in SHARES}
    if found is not None:
        field.share.copy_(found.share)
        field.own.copy_(found.own)
    if regular:
        confirm(field, arms, conditions, legs)
    return exchanged(field, before)


def exchanged(field: Treated, shares: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give a field other shares, and return the previous ones."""
    before = {name: getattr(field, name) for name in shares}
    for name, value in shares.items():
        setattr(field, name, value.to(before[name]))  # a training may have made the field double
    return before


def watched_with(
    watch: Callable[[Any], object] | None, field: Treated, shares: Mapping[str, Tensor]
) -> Callable[[Any], object] | None:
    """Return a watch during which a field has its final shares, so that what is predicted or saved there is shrunk."""
    if watch is None:
        return None

    def look(history: Any) -> object:
        trained = exchanged(field, shares)
        try:
            return watch(history)
        finally:
            exchanged(field, trained)

    return look


def _distinct(effects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return distinct treatments, at whatever dose, and which of them each row has: -1 for the control."""
    lengths, of = np.linalg.norm(effects, axis=1), np.full(len(effects), -1)
    some = lengths > 0
    if not some.any():
        return np.zeros((0, effects.shape[1])), of
    unit = effects[some] / lengths[some, None]
    first, of[some] = np.unique((unit @ unit.T > SAME).argmax(axis=1), return_inverse=True)
    return unit[first].astype(np.float64), of


def _axes(seen: np.ndarray, told: np.ndarray, sides: Sequence[HeldArm], which: np.ndarray) -> np.ndarray:
    """Return how well each axis is distinguished from no effect: by itself, or by all that have it, ``(p,)``."""
    single, known, found = (seen != 0).sum(axis=1) == 1, dict[bytes, float](), []
    for has in seen.T != 0:
        alone, key = has & single, has.tobytes()
        if not alone.any() and key not in known:
            known[key] = _told(sides, np.isin(which, np.flatnonzero(has)))
        found.append(float(told[alone].max()) if alone.any() else known[key])
    return np.array(found)


def _told(sides: Sequence[HeldArm], some: np.ndarray) -> float:
    """Return how well the treated cells of some arms are told from controls, all together; 1 for no arms."""
    arms = [arm[:2] for arm, one in zip(sides, some, strict=True) if one]
    return told_from_controls(arms).share if arms else 1.0


def held_arms(arms: Arms, legs: Sequence[ConditionLeg]) -> list[HeldArm]:
    """Return the cells of legs."""

    def at(rows: Tensor) -> Tensor:
        return torch.from_numpy(arms.x[rows.cpu().numpy()])

    return [
        HeldArm(at(leg.source), at(leg.target), torch.from_numpy(arms.table.vectors[leg.condition])) for leg in legs
    ]
