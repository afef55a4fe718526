"""Which cells of a snapshot lead to which of the next, as sparse matrices whose rows sum to 1."""

import logging
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cellflow.cells.states import States
from cellflow.couplings import DensePlan, Plan, PotentialsPlan, SparsePlan
from cellflow.doors.handed_over import lowered
from cellflow.nearest import Nearest
from cellflow.seeds import draw_seed, generator

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix

    from cellflow.estimators import SnapshotFlow

log = logging.getLogger(__name__)

MOST_NUMBERS = 2**25
"""Numbers of a matrix of 256 MiB."""
MOST_PAIRS = 2**24
"""Pairs of a plan that are exported: of a plan that spreads over more, the largest masses of each row."""
AT_ONCE = 2**22
"""Numbers of a plan that are looked at at a time."""
DRAWN = 100
"""Pairs that are drawn for each cell of a plan that is not looked at whole."""


class Leading(NamedTuple):
    """Where the cells of a snapshot lead.

    Parameters
    ----------
    masses
        Sparse, ``(n, m)``; rows sum to 1.
    dropped
        Share of the mass of the plan that was dropped.
    """

    masses: "csr_matrix"
    dropped: float


def of_coupling(flow: "SnapshotFlow", adata: "AnnData", states: States, *, keep: float) -> list[Leading] | str:
    """Return the plans to which a flow was fitted, or the reason why there are none for these cells.

    A cell without mass in the plan is carried by the flow.

    Parameters
    ----------
    flow, adata, states
        The flow, and cells.
    keep
        Share of each row that is kept, in its largest masses.
    """
    plans = getattr(flow, "plans_", None)
    if flow.conditions_ is not None:
        return "plans of a flow with conditions are of each"
    if plans is None:
        return "they are not saved with a flow"
    if any(plan is None for plan in plans):
        return "cells were matched in parts, super-batches"
    lacking = [
        key for key in (flow.within, flow.weight_key, flow.prior_key) if key is not None and key not in adata.obs
    ]
    if lacking:
        return f"`obs` lacks columns of the fit: {', '.join(lacking)}"
    if flow._snapshots(adata).digest() != getattr(flow, "digest_", None):
        return "these are not the cells of the fit, in their order"
    found = []
    for plan, (start, stop) in zip(plans, pairwise(flow.clock_.times), strict=True):
        leading = _rows_of(plan, keep)
        if leading.dropped:
            log.info("from time %g to %g, %.2g %% of the plan is dropped", start, stop, 100 * leading.dropped)
        found.append(_without_gaps(leading, flow, states, start, stop))
    return found


def of_flow(
    flow: "SnapshotFlow", states: States, times: np.ndarray, *, n_neighbors: int, n_samples: int, seed: int
) -> list[Leading]:
    """Return where the flow carries the cells of each time: in equal parts among the nearest cells of the next.

    Parameters
    ----------
    flow, states
        The flow, and cells.
    times
        Their times, increasing.
    n_neighbors
        Cells among which a carried one is divided.
    n_samples
        With a flow that has a score: how often each is simulated.
    seed
        Seed of the noise.
    """
    found, rng = [], generator(seed=seed)
    for start, stop in pairwise(times.tolist()):
        here, there = states.at(start), states.at(stop)
        nearest = lowered(n_neighbors, len(there), f"cells at time {stop:g}")
        found.append(Leading(_carried(flow, here, there, start, stop, nearest, n_samples, draw_seed(rng)), 0.0))
    return found


def _carried(
    flow: "SnapshotFlow", here: States, there: States, start: float, stop: float, k: int, n_samples: int, seed: int
) -> "csr_matrix":
    from scipy.sparse import csr_matrix

    search, rng = Nearest(there.x, k), generator(seed=seed)
    turns = n_samples if flow.stochastic else 1
    total: Any = csr_matrix((len(here), len(there)))
    span: dict[str, Any] = {"start": start, "stop": stop, "condition": here.condition}
    for _ in range(turns):
        carried = (
            flow.simulate(here.x, **span, seed=draw_seed(rng)) if flow.stochastic else flow.transport(here.x, **span)
        )
        columns = search.rows(carried.x[-1].numpy())
        parts = np.full(columns.size, 1 / (k * turns))
        total = total + csr_matrix((parts, columns.ravel(), k * np.arange(len(here) + 1)), shape=total.shape)
    return csr_matrix(total)


def _without_gaps(leading: Leading, flow: "SnapshotFlow", states: States, start: float, stop: float) -> Leading:
    """Return where cells lead, with those that have no mass in the plan carried by the flow."""
    from scipy.sparse import csr_matrix

    empty = np.flatnonzero(np.asarray(leading.masses.sum(axis=1)).ravel() == 0)
    if not len(empty):
        return leading
    here, there = states.at(start).take(empty), states.at(stop)
    log.warning("%d cells at time %g have no mass in the plan, and are carried by the flow", len(empty), start)
    carried = _carried(flow, here, there, start, stop, min(10, len(there)), 20, 0).tocoo()
    filled = csr_matrix((carried.data, (empty[carried.row], carried.col)), shape=leading.masses.shape)
    return Leading(csr_matrix(leading.masses + filled), leading.dropped)


def _rows_of(plan: Plan, keep: float) -> Leading:
    """Return the largest masses of the rows of a plan; of a large one that may be the same everywhere, drawn pairs."""
    from scipy.sparse import csr_matrix, vstack

    n, m = plan.shape
    if isinstance(plan, SparsePlan):
        i, j, masses = (part.cpu().numpy() for part in plan.pairs)
        return _largest(csr_matrix((masses, (i, j)), shape=(n, m)), keep)
    if not isinstance(plan, DensePlan | PotentialsPlan) and n * m > MOST_NUMBERS:
        pairs = plan.sample(DRAWN * n, generator=generator(seed=0), replace=False)
        log.info("of a plan of %d x %d cells, %d pairs are drawn for each cell", n, m, DRAWN)
        i, j = (side.cpu().numpy() for side in pairs)
        drawn = csr_matrix((np.ones(len(i)), (i, j)), shape=(n, m))
        return _largest(drawn, 1.0)
    parts, lost = [], 0.0
    for _, rows in plan.blocks(8 * AT_ONCE):
        block = _largest_stored(rows, keep, most=max(1, MOST_PAIRS // n))
        parts.append(block.masses)
        lost += block.dropped * float(rows.sum())
    return Leading(csr_matrix(vstack(parts)), lost / plan.mass)


def _largest_stored(rows: Tensor, keep: float, most: int) -> Leading:
    """Return what `_largest` does for rows that are stored whole ``(k, m)``, and at most so many masses of each.

    What is not among these is not sorted: rows of 23,000 cells take a tenth of the time.
    """
    from scipy.sparse import csr_matrix

    values, columns = rows.topk(min(most, rows.shape[1]), dim=1)
    sums, cut = rows.sum(dim=1, keepdim=True), keep < 1 or most < rows.shape[1]
    kept = (values > 0) & (values.cumsum(dim=1) - values < keep * sums)
    left = (values * kept).sum(dim=1, keepdim=True)
    ends = torch.cat([torch.zeros(1, dtype=torch.long), kept.sum(dim=1).cumsum(dim=0).cpu()])
    data, indices = ((values / left)[kept].cpu().numpy(), columns[kept].cpu().numpy())
    found = csr_matrix((data, indices, ends.numpy()), shape=tuple(rows.shape))
    total = float(sums.sum())
    return Leading(found, max(0.0, 1 - float(left.sum()) / total) if cut and total else 0.0)


def _largest(masses: "csr_matrix", keep: float) -> Leading:
    """Return the largest masses of each row that make up a share of it, scaled to sum to 1, and the share dropped."""
    from scipy.sparse import csr_matrix

    n, counts = masses.shape[0], np.diff(masses.indptr)
    rows = np.repeat(np.arange(n), counts)
    order = np.lexsort((-masses.data, rows))
    sizes, sums = masses.data[order], np.asarray(masses.sum(axis=1)).ravel()
    before = np.concatenate([[0.0], sizes.cumsum()])  # the mass of all larger ones of the row stands before each
    larger = before[:-1] - before[masses.indptr[:-1]][rows]
    kept = order[larger < keep * sums[rows]]
    found = csr_matrix((masses.data[kept], (rows[kept], masses.indices[kept])), shape=masses.shape)
    left = np.asarray(found.sum(axis=1)).ravel()
    found.data /= np.repeat(left, np.diff(found.indptr))
    total = float(sums.sum())
    return Leading(found, max(0.0, 1 - float(left.sum()) / total) if keep < 1 and total else 0.0)
