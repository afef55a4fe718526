"""Where each cell goes: on its own label, and near its own clone, beside not moving and static plans."""

import logging
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cellflow import couplings
from cellflow.cells.columns import read_labels
from cellflow.cells.snapshots import Snapshots
from cellflow.couplings import Exact, Plan
from cellflow.errors import ConvergenceError
from cellflow.integrate import Adaptive, Fixed, Jumps
from cellflow.metrics import bootstrap, clone_agreement, label_shares
from cellflow.pairing import snapshot_batches
from cellflow.seeds import generator_at

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow

log = logging.getLogger(__name__)

LABELS, CLONES = "label persistence", "clone agreement"
"""The names of the two scores in the table."""


class Scored(NamedTuple):
    """A flow, and the cells that it carries.

    Attributes
    ----------
    name
        ``"fitted"`` or ``"new"`` cells.
    flow
        The fitted flow.
    cells
        A mask over all cells ``(n,)``.
    solver
        How they are carried.
    """

    name: str
    flow: "SnapshotFlow"
    cells: np.ndarray
    solver: Fixed | Adaptive | Jumps


class _Side(NamedTuple):
    """Cells of one snapshot, by position, and the share that each has of it, float64."""

    rows: np.ndarray
    share: Tensor


def compare(
    adata: "AnnData",
    scored: list[Scored],
    snapshots: Snapshots,
    *,
    groupby: str | None,
    lineage_key: str | None,
    max_cells: int,
) -> list[dict[str, object]]:
    """Score where cells go in each interval: rows of the third table of `cellflow.tl.validate`.

    Raises
    ------
    ValueError
        When no interval has a label or a clone on both sides.
    """
    rows = []
    for score, column, setting in ((LABELS, groupby, "groupby"), (CLONES, lineage_key, "lineage_key")):
        if column is None:
            continue
        names = read_labels(adata, column, setting=setting).to_numpy()
        found = [row for one in scored for row in _rows(score, names, one, snapshots, max_cells)]
        if not found:
            raise ValueError(
                f"No two neighbouring snapshots share a {'clone' if score == CLONES else 'label'} in "
                f"`adata.obs[{column!r}]`. Leave cells without one missing (NaN)."
            )
        rows += found
    return rows


def _rows(score: str, names: np.ndarray, one: Scored, snapshots: Snapshots, most: int) -> Iterator[dict[str, object]]:
    for number, (here, there) in enumerate(pairwise(one.flow.clock_.times)):
        rng = generator_at(one.flow.seed, 3 * len(snapshots.clock.times) + 1 + number)
        start, end = snapshots.at(here), snapshots.at(there)
        start = start[one.cells[start]]
        shared = _shared(names[start], names[end])
        if not shared or (score == CLONES and len(_known(names[end])) < 2):
            continue
        kept = shared if score == CLONES else []
        before, after = (
            _side(rows, snapshots, named, most, rng) for rows, named in _whole(start, end, names, kept, most, rng)
        )
        x0, x1 = (torch.from_numpy(snapshots.x[side.rows]) for side in (before, after))
        found = one.flow.transport(x0, start=here, stop=there, solver=one.solver)
        landings: dict[str, tuple[Tensor | Plan, Tensor | None]] = {
            "flow": (found.x[-1], found.shares()[-1] * before.share),
            "not moving": (x0, before.share),
            "exact plan": (Exact()(x0, x1, before.share, after.share), None),
        }
        own = _own_plan(one.flow, snapshots, before, after, (here, there), rng)
        if own is not None:
            landings["plan of the flow"] = (own, None)
        for method, (moved, mass) in landings.items():
            known = (moved, names[before.rows], x1, names[after.rows])
            if score == LABELS:
                share, carried = label_shares(*known, weights=mass)
                interval = bootstrap(_mean, share[carried > 0], carried[carried > 0], generator=rng, paired=True)
                n = int((carried > 0).sum())
            else:
                clones = clone_agreement(*known, weights=mass)
                interval, n = bootstrap(torch.mean, clones, generator=rng), len(clones)
            yield {
                "start": here, "time": there, "score": score, "method": method, "cells": one.name,
                "value": interval.value, "low": interval.low, "high": interval.high, "n": n,
            }  # fmt: skip


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return values @ weights / weights.sum()


def _known(names: np.ndarray) -> set[str]:
    return set(pd.Series(names, dtype=object).dropna().astype(str))


def _shared(before: np.ndarray, after: np.ndarray) -> list[str]:
    """Return the labels or clones that are on both sides."""
    return sorted(_known(before) & _known(after))


def _whole(
    before: np.ndarray, after: np.ndarray, names: np.ndarray, clones: list[str], most: int, rng: torch.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the cells of both sides, and which of them are kept whatever their number, masks.

    Clones are kept whole, as many as fit into half of the cells that are compared, and at least one.
    """
    if not clones:
        return [(side, np.zeros(len(side), dtype=bool)) for side in (before, after)]
    order = [clones[k] for k in torch.randperm(len(clones), generator=rng)]
    place = pd.Series(np.arange(len(order)), index=order)
    ranks = [place.reindex(pd.Series(names[side]).astype(str)).to_numpy() for side in (before, after)]
    sizes = np.stack([np.bincount(rank[~np.isnan(rank)].astype(int), minlength=len(order)) for rank in ranks])
    fits = max(1, int((sizes.cumsum(axis=1) <= most // 2).all(axis=0).sum()))
    fits = len(order) if max(len(before), len(after)) <= most else fits
    return [(side, rank < fits) for side, rank in zip((before, after), ranks, strict=True)]


def _side(rows: np.ndarray, snapshots: Snapshots, kept: np.ndarray, most: int, rng: torch.Generator) -> _Side:
    """Return the kept cells and some of the others, who weigh the more, so that all stand for the whole snapshot."""
    weight = np.ones(len(rows)) if snapshots.weights is None else snapshots.weights[rows]
    if len(rows) > most:
        order = np.flatnonzero(~kept)[torch.randperm(int((~kept).sum()), generator=rng).numpy()]
        some = order[: max(1, most - int(kept.sum()))]
        weight = np.where(kept, weight, weight * len(order) / len(some))
        chosen = np.sort(np.concatenate([np.flatnonzero(kept), some]))
        rows, weight = rows[chosen], weight[chosen]
    return _Side(rows, torch.from_numpy(weight / weight.sum()))


def _own_plan(
    flow: "SnapshotFlow",
    snapshots: Snapshots,
    before: _Side,
    after: _Side,
    times: tuple[float, float],
    rng: torch.Generator,
) -> Plan | None:
    """Return the plan of the flow's coupling; ``None`` if that is the exact plan, or it finds no plan."""
    if couplings.resolve(flow.coupling) == Exact() and snapshots.groups is None and snapshots.rates is None:
        return None

    def each(values: np.ndarray | None) -> list[Any] | None:
        return None if values is None else [values[side.rows] for side in (before, after)]

    rates = None if snapshots.rates is None else each(snapshots.rates / flow.clock_.per_time)
    even = all(side.share.max() <= side.share.min() * (1 + 1e-12) for side in (before, after))
    try:
        return snapshot_batches(
            [torch.from_numpy(snapshots.x[side.rows]) for side in (before, after)],
            [flow.clock_.model(time) for time in times],
            coupling=flow.coupling,
            batch_size=1,
            generator=rng,
            ot_batch_size="whole",
            masses=None if snapshots.rates is None else (1.0, 1.0),
            weights=None if even else [side.share for side in (before, after)],
            rates=rates,
            within=each(snapshots.groups),
            path=flow.path,
        ).plans[0]
    except (ConvergenceError, ValueError) as error:
        log.warning("The coupling of the flow finds no plan from %g to %g and is left out: %s", *times, error)
        return None
