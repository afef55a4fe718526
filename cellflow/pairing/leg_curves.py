"""How the pairs of legs curve: each condition along the curve of its own population's mean."""

import logging
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from cellflow.pairing.condition_legs import ConditionLeg
from cellflow.pairing.curves import Curve, Straight
from cellflow.pairing.mean_curve import MARGIN, SPLINES, Mean, errors_left_out, mean_bends

log = logging.getLogger(__name__)

Chain = list[tuple[list[int], float, float]]
"""Stretches of time that follow each other: the legs of each, and when it begins and ends."""


def leg_bends(curve: Curve, legs: Sequence[ConditionLeg], displacements: Tensor) -> Tensor | None:
    """Return the bends at both ends of the pairs of each leg, ``(2, k, ...)``; ``None`` for straight pairs.

    All groups of a condition bend alike, along the mean of the condition. A condition with one interval, or whose
    groups were measured at different times, stays straight. With ``Mean("auto")`` one spline is chosen for all
    conditions: the means of a single one rest on too few cells.

    Parameters
    ----------
    curve
        `Mean` or `Straight`.
    legs
        The legs.
    displacements
        Mean displacement of each, ``(k, ...)``.

    Raises
    ------
    ValueError
        For another curve, which would need one plan between whole neighbouring snapshots.

    Examples
    --------
    >>> rows = torch.arange(2)
    >>> legs = [ConditionLeg(k, rows, rows, *times) for k, times in enumerate([(0.0, 0.25), (0.25, 1.0)])]
    >>> leg_bends(Mean("monotone"), legs, torch.tensor([[1.0], [3.0]]))  # even motion
    >>> leg_bends(Mean("monotone"), legs, torch.tensor([[1.0], [9.0]])).shape
    torch.Size([2, 2, 1])
    """
    if isinstance(curve, Straight):
        return None
    if not isinstance(curve, Mean):
        raise ValueError(
            f"With `conditions`, paths are straight or follow the mean of each condition; found {curve!r}. Choose "
            '`curve="mean"` or `curve="straight"`.'
        )
    chains = [chain for chain in _chains(legs) if len(chain) > 1]
    steps = displacements.double().flatten(1).cpu().numpy()
    sizes = np.array([len(leg.target) for leg in legs])
    moved = [np.stack([np.average(steps[k], axis=0, weights=sizes[k]) for k, _, _ in chain]) for chain in chains]
    times = [[chain[0][1], *(stop for _, _, stop in chain)] for chain in chains]
    spline = _chosen(moved, times) if curve.spline == "auto" else curve.spline
    bends = np.zeros((2, *steps.shape))
    for chain, step, at in zip(chains, moved, times, strict=True):
        for found, (members, _, _) in zip(mean_bends(step, at, spline).swapaxes(0, 1), chain, strict=True):
            bends[:, members] = found[:, None]
    return torch.from_numpy(bends).reshape(2, *displacements.shape) if bends.any() else None


def _chains(legs: Sequence[ConditionLeg]) -> list[Chain]:
    """Return the stretches of each condition, where these follow each other."""
    found: dict[int, dict[tuple[float, float], list[int]]] = {}
    for number, leg in enumerate(legs):
        found.setdefault(leg.condition, {}).setdefault((leg.start, leg.stop), []).append(number)
    chains: list[Chain] = [[(known[both], *both) for both in sorted(known)] for known in found.values()]
    return [c for c in chains if all(a[2] == b[1] for a, b in pairwise(c))]


def _chosen(moved: Sequence[np.ndarray], times: Sequence[Sequence[float]]) -> str:
    """Return the spline that predicts the left-out means of all conditions clearly better than monotone cubics."""
    errors = {
        spline: sum(errors_left_out(steps, at, spline).sum() for steps, at in zip(moved, times, strict=True))
        for spline in ("straight", *SPLINES)
    }
    best = min(errors, key=lambda spline: errors[spline])
    best = best if errors[best] < MARGIN * errors["monotone"] else "monotone"
    log.info("the curve of each condition's mean: %s (%d conditions of three snapshots or more)", best, len(moved))
    return best
