"""Validation at held-out times, beside baselines that learn nothing."""

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cellflow.cells.clock import TimeLike, distinct_times
from cellflow.cells.snapshots import Snapshots, read_snapshots
from cellflow.couplings import Exact
from cellflow.estimators.prediction import predict
from cellflow.integrate import Adaptive, Fixed, Jumps
from cellflow.metrics import population_distance, split_half_floor, thinned
from cellflow.seeds import generator_at
from cellflow.tl.cells import about, solver_of, target

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow

log = logging.getLogger(__name__)

MAX_CELLS = 2000
"""Cells of a snapshot that are compared: exact transport between 2000 and 2000 takes about a second."""


def validate(
    adata: "AnnData",
    flow: "SnapshotFlow",
    *,
    times: TimeLike | Iterable[TimeLike] | None = None,
    max_cells: int = MAX_CELLS,
    solver: Fixed | Adaptive | Jumps | str | int = Fixed(),
    key_added: str = "validation",
    copy: bool = False,
) -> "AnnData | None":
    """Compare what a flow predicts at times it has not seen with the cells that were measured there.

    Every row of the result is the exact W1 distance to the same cells, of all cells that a method predicts, by weight.
    The baselines learn nothing: the snapshot before, the one after, a mixture of both, and straight lines along the
    exact transport plan between them. The floor is the distance between two halves of the left-out snapshot: the score
    of a perfect model.

    Parameters
    ----------
    adata
        Cells with the time and the representation.
    flow
        A flow, fitted or not; it is not changed. Times that it was not fitted on are predicted with it; for any other
        time its settings are fitted again without that time.
    times
        Snapshots to predict, one or several; ``None`` for those that a fitted flow has not seen, or, where there are
        none, for all but the first and the last.
    max_cells
        Most cells of a snapshot, and of a prediction, that are compared: more are thinned evenly, see
        `cellflow.metrics.thinned`. W1 depends on their number: compare like with like.
    solver
        As for `interpolate`.
    key_added
        Name of what is written.
    copy
        Whether to return a copy instead of writing into ``adata``.

    Writes
    ------
    ``uns[key_added]``
        Table of ``time``, ``method``, ``W1`` (in units of the representation) and ``n_cells``.
    ``uns[f"{key_added}_about"]``
        ``"rep"``, ``"time_key"`` and ``"unit"`` of time.

    Raises
    ------
    ValueError
        When a time is not a snapshot between two others.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> cf.tl.validate(adata, cf.SnapshotFlow(rep="X_latent", steps=20), max_cells=100)
    >>> sorted(adata.uns["validation"]["method"].unique())
    ['flow', 'half against half', 'linear transport', 'next snapshot', 'previous and next', 'previous snapshot']
    """
    carried = solver_of(flow, solver, verb="tl.validate", old={})
    if adata.isbacked and adata.is_view:
        raise ValueError("A view of a file cannot be divided further. Take `adata.to_memory()` first.")
    snapshots = read_snapshots(adata, time_key=flow.time_key, rep=flow.rep)
    inner = _inside(flow, snapshots)
    chosen = (_unseen(flow, inner) or inner) if times is None else distinct_times(times, what="`times`").tolist()
    if not chosen or not set(chosen) <= set(inner):
        raise ValueError(f"Expected times with a snapshot on each side, of {inner}; found {chosen}.")
    rows = [row for time in chosen for row in _compare(adata, flow, snapshots, time, max_cells, carried)]
    written = target(adata, copy=copy)
    written.uns[key_added] = pd.DataFrame(rows)
    written.uns[f"{key_added}_about"] = about(adata, flow)
    return written if copy else None


def testable_times(adata: "AnnData", flow: "SnapshotFlow") -> list[float]:
    """Return the snapshots that a flow can be tested on: those with one that it may see on each side.

    Examples
    --------
    >>> import cellflow as cf
    >>> testable_times(cf.datasets.hsmm(), cf.SnapshotFlow(time_key="hours", rep="X"))
    [24.0, 48.0]
    """
    return _inside(flow, read_snapshots(adata, time_key=flow.time_key, rep=flow.rep))


def linear_transport(x0: Tensor, x1: Tensor, *, fraction: float) -> tuple[Tensor, Tensor]:
    """Return points ``(n, d)`` on the straight lines of the exact plan between two clouds, and their weights ``(n,)``.

    The interpolation that optimal transport gives without any learning.

    Parameters
    ----------
    x0, x1
        Clouds before and after, ``(k, d)`` and ``(m, d)``.
    fraction
        How far along: 0 at ``x0``, 1 at ``x1``.

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
    i, j, masses = Exact()(x0, x1).pairs
    return torch.lerp(x0[i], x1[j], fraction), masses


def mixture(x0: Tensor, x1: Tensor, *, fraction: float) -> tuple[Tensor, Tensor]:
    """Return the points of two clouds and their weights, which sum to ``fraction`` over ``x1``: no point moves.

    Examples
    --------
    >>> import torch
    >>> points, weights = mixture(torch.zeros(9, 1), torch.ones(5, 1), fraction=0.25)
    >>> round(float(weights @ points[:, 0]), 6)
    0.25
    """
    shares = ((x0, 1 - fraction), (x1, fraction))
    return torch.cat([x0, x1]), torch.cat([x.new_full((len(x),), share / len(x)) for x, share in shares])


def _known(flow: "SnapshotFlow", snapshots: Snapshots) -> tuple[float, ...]:
    """Return the times that the flow may see."""
    return flow.clock_.times if hasattr(flow, "clock_") else snapshots.clock.times


def _inside(flow: "SnapshotFlow", snapshots: Snapshots) -> list[float]:
    """Return the snapshots with one that the flow may see on each side."""
    known = _known(flow, snapshots)
    return [time for time in snapshots.clock.times if known[0] < time < known[-1]]


def _unseen(flow: "SnapshotFlow", times: list[float]) -> list[float]:
    """Return the times that a fitted flow has not seen."""
    return [time for time in times if hasattr(flow, "clock_") and time not in flow.clock_.times]


def _without(adata: "AnnData", flow: "SnapshotFlow", snapshots: Snapshots, time: float) -> "SnapshotFlow":
    """Return a flow that has not seen a time: the one given, or a new fit."""
    from sklearn.base import clone

    if _unseen(flow, [time]):
        return flow
    log.info("leaving out time %g, and fitting again", time)
    rest = [other for other in _known(flow, snapshots) if other != time]
    found: SnapshotFlow = clone(flow).fit(adata[np.isin(snapshots.time, rest)])
    return found


def _compare(
    adata: "AnnData",
    flow: "SnapshotFlow",
    snapshots: Snapshots,
    time: float,
    max_cells: int,
    solver: Fixed | Adaptive | Jumps,
) -> list[dict[str, object]]:
    """Score a flow that has not seen a time, the baselines and the floor at that time."""
    flow = _without(adata, flow, snapshots, time)
    before, after = (flow.clock_.times[k] for k in flow.clock_.around(time))
    rng = generator_at(flow.seed, snapshots.clock.times.index(time))
    x0, true, x1 = (
        thinned(snapshots.x[snapshots.at(t)], most=max_cells, generator=rng)[0] for t in (before, time, after)
    )
    fraction = (time - before) / (after - before)
    parts = predict(flow, flow.read(adata), time, solver=solver)
    predictions: dict[str, tuple[Any, Any]] = {
        "flow": (np.concatenate([part.x for part in parts]), np.concatenate([part.weight for part in parts])),
        "linear transport": linear_transport(x0, x1, fraction=fraction),
        "previous and next": mixture(x0, x1, fraction=fraction),
        "previous snapshot": (x0, None),
        "next snapshot": (x1, None),
    }
    scores = {
        name: population_distance(points, true, weights_x=weights, most=max_cells, generator=rng)
        for name, (points, weights) in predictions.items()
    }
    scores["half against half"] = split_half_floor(true, generator=rng)
    return [{"time": time, "method": name, "W1": value, "n_cells": len(true)} for name, value in scores.items()]
