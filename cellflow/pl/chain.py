"""Where cells of each snapshot go, from group to group, over all snapshots."""

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cellflow.cells.columns import read_labels
from cellflow.cells.states import Cells, States, positions
from cellflow.integrate import Fixed
from cellflow.nearest import Nearest
from cellflow.tl.descendants import NEIGHBORS, snapshot_at

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow

NO_GROUP = "none"
"""What cells without a group count as, as in `cellflow.tl.push`."""


@dataclass(frozen=True)
class Chain:
    """Shares of groups at each time, and the mass that goes from one to another.

    Parameters
    ----------
    times
        The times, in order.
    groups
        Names of the groups.
    shares
        Share of each group at each time, ``(times, groups)``.
    links
        Mass that goes from group to group over each interval, ``(times - 1, groups, groups)``; each sums to 1.
    """

    times: tuple[float, ...]
    groups: tuple[str, ...]
    shares: np.ndarray
    links: np.ndarray


def chain_of_groups(
    adata: "AnnData",
    flow: "SnapshotFlow",
    *,
    groupby: str,
    cells: Cells | None = None,
    reverse: bool = False,
    n_neighbors: int = NEIGHBORS,
) -> Chain:
    """Carry the cells of every snapshot to the next, and sum their mass by group.

    With chosen cells of one snapshot, their mass is carried from snapshot to snapshot: at each, mass that lands near a
    measured cell continues from there.

    Parameters
    ----------
    adata
        Cells with the time and the representation that the flow was fitted on.
    flow
        A fitted flow.
    groupby
        Column of ``obs`` with the groups.
    cells
        Cells of one snapshot, to follow only these; ``None`` for all cells of all snapshots.
    reverse
        Whether to go back in time, to ancestors.
    n_neighbors
        Number of measured cells among which to divide the mass of a carried cell; for smaller snapshots, all cells.

    Raises
    ------
    ValueError
        When chosen cells come from several snapshots, or there is no snapshot to go to.
    """
    states = flow.read(adata)
    labels = read_labels(adata, groupby, setting="groupby")
    column = adata.obs[groupby]
    known = list(map(str, column.cat.categories)) if hasattr(column, "cat") else sorted(labels.dropna().unique())
    codes = pd.Categorical(labels, categories=known).codes.astype(int)
    groups = [*known, NO_GROUP] if (codes < 0).any() else known
    codes = np.where(codes < 0, len(known), codes)
    times = [time for time in flow.clock_.times if len(states.at(time))]
    mass, started = None, times[-1] if reverse else times[0]
    if cells is not None:
        mass, started = _chosen(states, positions(adata, cells))
    steps = [time for time in (times[::-1] if reverse else times) if (time <= started if reverse else time >= started)]
    if len(steps) < 2:
        raise ValueError(f"There is no fitted snapshot {'before' if reverse else 'after'} time {started:g} to go to.")
    shares, links = [], []
    for start, stop in pairwise(steps):
        here = states.at(start)
        weight = here.weighed(np.full(len(here), 1 / len(here))) if mass is None else mass[here.rows]
        shares.append(np.bincount(codes[here.rows], weights=weight / weight.sum(), minlength=len(groups)))
        there, near, landed = _step(flow, here, states, weight, stop, n_neighbors, weighs=not reverse)
        link = np.zeros((len(groups), len(groups)))
        np.add.at(link, (np.repeat(codes[here.rows], near.shape[1]), codes[there.rows[near]].ravel()), landed.ravel())
        links.append(link)
        if mass is not None:
            mass = np.zeros(adata.n_obs)
            np.add.at(mass, there.rows[near].ravel(), landed.ravel())
    last = states.at(steps[-1])
    weight = last.weighed(np.full(len(last), 1 / len(last))) if mass is None else mass[last.rows]
    shares.append(np.bincount(codes[last.rows], weights=weight / weight.sum(), minlength=len(groups)))
    seen = np.flatnonzero(np.sum(shares, axis=0) > 0)
    found = np.array(shares)[:, seen], np.array(links)[:, seen][:, :, seen]
    if reverse:
        steps, found = steps[::-1], (found[0][::-1], found[1][::-1].transpose(0, 2, 1))
    return Chain(tuple(steps), tuple(groups[k] for k in seen), *found)


def _step(
    flow: "SnapshotFlow",
    here: States,
    states: States,
    weight: np.ndarray,
    stop: float,
    n_neighbors: int,
    *,
    weighs: bool,
) -> tuple[States, np.ndarray, np.ndarray]:
    """Return the cells of the next snapshot, those near each carried cell ``(n, k)``, and the mass on each, ``(n, k)``.

    Forward, growth weighs the descendants of a cell; backward, each cell has one ancestor.
    """
    there = snapshot_at(flow, states, stop, of=here)
    k = min(n_neighbors, len(there))
    found = flow.transport(here.x, start=here.time, stop=stop, condition=here.condition, solver=Fixed())
    grown = weight * (found.shares()[-1].numpy() * len(here) if weighs else 1.0)
    near = Nearest(there.x, k).rows(found.x[-1].numpy())
    return there, near, np.repeat((grown / grown.sum() / k)[:, None], k, axis=1)


def _chosen(states: States, rows: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the mass of chosen cells among all, and their time."""
    chosen = states.take(rows)
    times = np.unique(chosen.time)
    if len(times) != 1:
        shown = ", ".join(f"{time:g}" for time in times[:5]) or "none"
        raise ValueError(f"Expected `cells` of one snapshot; found times {shown}. Name those of one.")
    mass = np.zeros(len(states))
    mass[rows] = chosen.weighed(np.full(len(chosen), 1 / len(chosen)))
    return mass, float(times[0])
