"""Where each cell goes: on its own label, and near its own clone, beside not moving and static plans."""

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cellflow import couplings
from cellflow.cells.snapshots import Snapshots
from cellflow.couplings import Coupling, Exact, Plan, Within
from cellflow.couplings.coupling import over
from cellflow.integrate import Adaptive, Fixed, Jumps
from cellflow.metrics import bootstrap, clone_agreement, label_shares
from cellflow.paths import diffusion_of
from cellflow.seeds import generator_at

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow

LABELS, CLONES = "label persistence", "clone agreement"
"""The two scores, as they are called in the table."""


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


class _Crossing(NamedTuple):
    """Cells before and after one interval, by position, and what they weigh where they stand for others."""

    before: np.ndarray
    after: np.ndarray
    a: Tensor | None
    b: Tensor | None


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
    KeyError
        When a column is missing.
    ValueError
        When no interval has a clone on both sides.
    """
    rows = []
    for score, column in ((LABELS, groupby), (CLONES, lineage_key)):
        if column is None:
            continue
        if column not in adata.obs:
            raise KeyError(f"No `adata.obs[{column!r}]`. Available: {list(adata.obs.columns)}.")
        names = adata.obs[column].astype(object).to_numpy()
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
        start, end = (snapshots.at(time) for time in (here, there))
        start = start[one.cells[start]]
        shared = _shared(names[start], names[end])
        if not len(shared) or (score == CLONES and pd.unique(names[end][pd.notna(names[end])]).size < 2):
            continue
        crossing = _crossing(start, end, names, shared if score == CLONES else None, most, rng)
        x0, x1 = (torch.from_numpy(snapshots.x[rows]) for rows in (crossing.before, crossing.after))
        found = one.flow.transport(x0, start=here, stop=there, solver=one.solver)
        weights = found.shares()[-1] if crossing.a is None else found.shares()[-1] * crossing.a
        landings: dict[str, tuple[Tensor | Plan, Tensor | None]] = {
            "flow": (found.x[-1], weights),
            "not moving": (x0, crossing.a),
            "exact plan": (Exact()(x0, x1, crossing.a, crossing.b), None),
        }
        own = _coupling(one.flow, snapshots, crossing, here, there)
        if own != Exact():
            landings["plan of the flow"] = (own(x0, x1, crossing.a, crossing.b), None)
        for method, (moved, mass) in landings.items():
            known = (moved, names[crossing.before], x1, names[crossing.after])
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


def _shared(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return the labels or clones that are on both sides."""
    known = [set(pd.Series(side, dtype=object).dropna().astype(str)) for side in (before, after)]
    return np.array(sorted(known[0] & known[1]), dtype=object)


def _crossing(
    before: np.ndarray, after: np.ndarray, names: np.ndarray, clones: np.ndarray | None, most: int, rng: torch.Generator
) -> _Crossing:
    """Return at most ``most`` cells of either side, the same for all methods.

    For labels any cells will do. Clones are kept whole, as many as fit into half of the cells; the others are drawn,
    and weigh more, so that plans are those between the whole snapshots.
    """
    if clones is None:
        return _Crossing(_some(before, most, rng), _some(after, most, rng), None, None)
    named = pd.Series(names).where(pd.notna(names), "").astype(str).to_numpy()
    order = clones[torch.randperm(len(clones), generator=rng).numpy()]
    place = pd.Series(np.arange(len(order)), index=order)
    ranks = [place.reindex(named[side]).to_numpy() for side in (before, after)]
    largest = max(len(before), len(after))
    sizes = np.stack([np.bincount(rank[~np.isnan(rank)].astype(int), minlength=len(order)) for rank in ranks])
    fits = int((sizes.cumsum(axis=1) <= most // 2).all(axis=0).sum()) if largest > most else len(order)
    sides = [_side(side, rank < max(fits, 1), most, rng) for side, rank in zip((before, after), ranks, strict=True)]
    (start, a), (end, b) = sides
    return _Crossing(start, end, a, b)


def _side(rows: np.ndarray, kept: np.ndarray, most: int, rng: torch.Generator) -> tuple[np.ndarray, Tensor | None]:
    """Return the kept cells and some others, and the weight of each where others are fewer than there were."""
    if len(rows) <= most:
        return rows, None
    others = _some(rows[~kept], max(1, most - int(kept.sum())), rng)
    weight = np.concatenate([np.ones(kept.sum()), np.full(len(others), (~kept).sum() / len(others))])
    return np.concatenate([rows[kept], others]), torch.from_numpy(weight / weight.sum())


def _some(rows: np.ndarray, most: int, rng: torch.Generator) -> np.ndarray:
    return rows if len(rows) <= most else rows[np.sort(torch.randperm(len(rows), generator=rng)[:most].numpy())]


def _coupling(flow: "SnapshotFlow", snapshots: Snapshots, crossing: _Crossing, here: float, there: float) -> Coupling:
    """Return the coupling of a flow as it is over one interval, between the cells that are compared."""
    duration = flow.clock_.model(there) - flow.clock_.model(here)
    coupling = over(couplings.resolve(flow.coupling), duration, diffusion_of(flow.path))
    if snapshots.groups is None:
        return coupling
    return Within(coupling, *(snapshots.groups[side] for side in (crossing.before, crossing.after)))
