"""Scores at times that a flow has not seen, beside baselines without learning."""

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cellflow.cells.snapshots import Snapshots
from cellflow.couplings import Exact
from cellflow.estimators.prediction import predict
from cellflow.integrate import Adaptive, Fixed, Jumps
from cellflow.metrics import population_distance, split_half_floor, standard_error, thinned, wasserstein
from cellflow.seeds import generator_at

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow

log = logging.getLogger(__name__)

Z = 1.96
"""Half-width of a 95 % interval in standard errors."""
FLOOR_OF = 4
"""Minimum number of cells for comparing two halves of a half."""
_TINY = torch.finfo(torch.float64).tiny
Population = tuple[Tensor, Tensor]
"""Points ``(n, d)``, and their weights ``(n,)``, float64."""
Parts = Sequence[Population]
"""A population that consists of parts, such as cells that come from different snapshots."""


def compare(
    adata: "AnnData",
    flow: "SnapshotFlow",
    snapshots: Snapshots,
    time: float,
    *,
    max_cells: int,
    n_seeds: int,
    solver: Fixed | Adaptive | Jumps,
) -> list[dict[str, object]]:
    """Score flows that have not seen a time, and the baselines and the floor there: rows of `cellflow.tl.validate`."""
    flows = [_without(adata, flow, snapshots, time, seed=int(flow.seed) + k) for k in range(n_seeds)]
    before, after = (flows[0].clock_.times[k] for k in flows[0].clock_.around(time))
    place, fraction = snapshots.clock.times.index(time), (time - before) / (after - before)
    rng = generator_at(flow.seed, place)
    first, true, last = (drawn(snapshots, snapshots.at(t), max_cells, rng) for t in (before, time, after))
    predictions: dict[str, Parts] = {
        "flow": carried(adata, flows[0], time, solver),
        "linear transport": [linear_transport(first[0], last[0], first[1], last[1], fraction=fraction)],
        "previous and next": [(first[0], (1 - fraction) * first[1]), (last[0], fraction * last[1])],
        "previous snapshot": [first],
        "next snapshot": [last],
    }

    scores = {name: distance(parts, true, most=max_cells, generator=rng) for name, parts in predictions.items()}
    scores["half against half"] = split_half_floor(true[0], weights=true[1], generator=rng)
    apart = generator_at(flow.seed, place + len(snapshots.clock.times))  # scores do not depend on their errors
    errors = {
        name: error_of([_thinned(part, max_cells, apart) for part in parts], true, generator=apart)
        for name, parts in predictions.items()
    }
    errors["half against half"] = _error_of_floor(true, apart)
    others = [
        distance(carried(adata, other, time, solver), true, most=max_cells, generator=apart) for other in flows[1:]
    ]
    scores["flow"], errors["flow"] = over_seeds([scores["flow"], *others], errors["flow"])
    return [
        {"time": time, "method": name, "W1": value, **ends("W1", value, errors[name]), "n_cells": len(true[0])}
        for name, value in scores.items()
    ]


def linear_transport(
    x0: Tensor, x1: Tensor, a: Tensor | None = None, b: Tensor | None = None, *, fraction: float
) -> Population:
    """Return points ``(n, d)`` on the straight lines of the exact plan between two clouds, and their weights ``(n,)``.

    Interpolation by optimal transport, without learning.

    Parameters
    ----------
    x0, x1
        Clouds before and after, ``(k, d)`` and ``(m, d)``.
    a, b
        Their weights ``(k,)`` and ``(m,)``; equal if not given.
    fraction
        Position on the line: 0 at ``x0``, 1 at ``x1``.

    Source
    ------
    McCann 1997, displacement interpolation.

    Examples
    --------
    >>> import torch
    >>> points, weights = linear_transport(torch.zeros(2, 1), torch.ones(2, 1), fraction=0.25)
    >>> points.flatten(), weights
    (tensor([0.2500, 0.2500]), tensor([0.5000, 0.5000], dtype=torch.float64))
    """
    i, j, masses = Exact()(x0, x1, a, b).pairs
    return torch.lerp(x0[i], x1[j], fraction), masses


def drawn(snapshots: Snapshots, rows: np.ndarray, most: int, generator: torch.Generator) -> Population:
    """Return cells with their weights, which sum to 1; if there are more than ``most``, that many represent them."""
    weights = None if snapshots.weights is None else torch.from_numpy(snapshots.weights[rows])
    x, known = thinned(torch.from_numpy(snapshots.x[rows]), weights, most, generator=generator)
    return evenly(x) if known is None else (x, known / known.sum())


def evenly(x: Tensor, share: float = 1.0) -> Population:
    """Return points with equal weights that sum to a share."""
    return x, torch.full((len(x),), share / len(x), dtype=torch.float64)


def inside(flow: "SnapshotFlow", snapshots: Snapshots) -> list[float]:
    """Return the snapshots with a snapshot on each side that the flow may see."""
    known = known_times(flow, snapshots)
    return [time for time in snapshots.clock.times if known[0] < time < known[-1]]


def known_times(flow: "SnapshotFlow", snapshots: Snapshots) -> tuple[float, ...]:
    """Return the times that the flow may see."""
    return flow.clock_.times if hasattr(flow, "clock_") else snapshots.clock.times


def unseen(flow: "SnapshotFlow", times: list[float]) -> list[float]:
    """Return the times that a fitted flow has not seen."""
    return [time for time in times if hasattr(flow, "clock_") and time not in flow.clock_.times]


def refitted(adata: "AnnData", flow: "SnapshotFlow", cells: np.ndarray, *, seed: int) -> "SnapshotFlow":
    """Fit the settings of a flow again on some of the cells, a mask over all; without an ensemble."""
    from sklearn.base import clone

    alone = {"seed": seed, "ensemble": None, "replicate_key": None}
    found: SnapshotFlow = clone(flow).set_params(**alone).fit(adata[cells])
    return found


def carried(adata: "AnnData", flow: "SnapshotFlow", time: float, solver: Fixed | Adaptive | Jumps) -> Parts:
    """Return what a flow predicts at a time, from the fitted snapshot on each side."""
    parts = predict(flow, flow.read(adata), time, solver=solver)
    return [(torch.from_numpy(part.x), torch.from_numpy(part.weight)) for part in parts]


def distance(parts: Parts, true: Population, *, most: int, generator: torch.Generator) -> float:
    """Return the W1 between a population, thinned if large, and cells."""
    x, weights = (torch.cat(side) for side in zip(*parts, strict=True))
    return population_distance(x, true[0], weights_x=weights, weights_y=true[1], most=most, generator=generator)


def error_of(
    parts: Parts, true: Population, *, score: Callable[..., float] = wasserstein, generator: torch.Generator
) -> float:
    """Return the standard error of the distance between a population and cells, over the sampling of cells."""

    def again(*rows: Tensor) -> float:
        (x, a), (y, b) = _some(parts, rows[:-1]), _some([true], rows[-1:])
        return score(x, y, weights_x=a, weights_y=b)

    return standard_error(again, *(len(x) for x, _ in (*parts, true)), generator=generator)


def over_seeds(scores: Sequence[float], error: float) -> tuple[float, float]:
    """Return the mean score of several fits, and the standard error of one, over other cells and other seeds."""
    return float(np.mean(scores)), float(np.hypot(error, np.std(scores, ddof=1) if len(scores) > 1 else 0.0))


def ends(name: str, value: float, error: float) -> dict[str, float]:
    """Return the ends of the interval of a distance, as columns."""
    return {f"{name}_low": max(0.0, value - Z * error), f"{name}_high": value + Z * error}


def _without(adata: "AnnData", flow: "SnapshotFlow", snapshots: Snapshots, time: float, seed: int) -> "SnapshotFlow":
    """Return a flow that has not seen a time: the one given, or a new fit."""
    own = seed == int(flow.seed)
    if own and unseen(flow, [time]):
        return flow
    log.info("leaving out time %g and fitting again%s", time, "" if own else f" with seed {seed}")
    rest = [other for other in known_times(flow, snapshots) if other != time]
    return refitted(adata, flow, np.isin(snapshots.time, rest), seed=seed)


def _thinned(part: Population, most: int, generator: torch.Generator) -> Population:
    points, known = thinned(*part, most, generator=generator)
    return evenly(points, float(part[1].sum())) if known is None else (points, known)


def _some(parts: Parts, rows: Sequence[Tensor]) -> Population:
    """Return some points of each part, and their weights, which sum to the same over each part as before."""
    x = torch.cat([x[row] for (x, _), row in zip(parts, rows, strict=True)])
    share = [w[row] * (w.sum() / w[row].sum().clamp(min=_TINY)) for (_, w), row in zip(parts, rows, strict=True)]
    return x, torch.cat(share)


def _error_of_floor(true: Population, generator: torch.Generator) -> float:
    """Return the standard error of the floor; not a number where there are too few cells."""
    x, weights = true
    if len(x) < FLOOR_OF:
        return float("nan")

    def again(rows: Tensor) -> float:
        return split_half_floor(x[rows], weights=weights[rows], generator=generator, repeats=1)

    return standard_error(again, len(x), generator=generator)
