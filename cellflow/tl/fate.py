"""Fates of cells: the share of each group around their end points, simulated if a flow has noise."""

import logging
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd

from cellflow.cells.clock import TimeLike, one_time
from cellflow.cells.columns import NAMED, read_kinds
from cellflow.cells.snapshots import time_labels_of
from cellflow.cells.states import Cells, States, positions
from cellflow.estimators.conditional import Condition
from cellflow.estimators.snapshot_verbs import check_weighs
from cellflow.integrate import Fixed, Jumps, Noisy, Solver, resolve
from cellflow.signature import checked_but
from cellflow.tl.cells import about, asked_under, check_key, note_absent, target
from cellflow.tl.descendants import neighbors_of, snapshot_at
from cellflow.tl.fate_ends import Votes, bounds, count_ends, ends_of, member_shares
from cellflow.tl.fate_table import WITHOUT, column, write_fate
from cellflow.tl.files import on_files
from cellflow.tl.terminal import AUTO, terminal_states, write_states
from cellflow.training.run import progress_bar

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow

log = logging.getLogger(__name__)

INSTEAD = ' Or leave it out: `terminal="auto"` finds where cells settle.'
"""What a message adds where a column holds no groups."""

STEPS = 20
"""Steps of a simulation. On embryoid bodies 89% of the shares lie in the intervals of a run of 100 steps, where another
seed of 100 steps has 91%, at a fifth of the time: ``benchmarks/results/fate.md``."""


@on_files
@checked_but("cells", "solver", "condition")
def fate(
    adata: "AnnData",
    flow: "SnapshotFlow",
    *,
    groupby: str | None = None,
    terminal: str | None = None,
    at: TimeLike | None = None,
    cells: Cells | None = None,
    condition: Condition | None = None,
    n_samples: int = 100,
    solver: Solver | str | int | None = None,
    n_neighbors: int | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    progress: bool | None = None,
    key_added: str = "fate",
    copy: bool = False,
) -> "AnnData | None":
    """Follow each cell to its end point, and count the groups found there.

    An end point is assigned to the groups of its nearest measured cells.

    * With a flow that has learned a score each cell is simulated many times, and its fate is a probability. The
      interval accounts for the number of simulations; with an ensemble, each of whose members is simulated as often,
      also for how these differ. It does not cover errors that all of them share.
    * Without a score a cell has one end point, and its fate is the share of each group among the cells around it: how
      near it lands to the border of a group, not how likely it is to get there. Only an ensemble gives an interval.
    * If growth was learned, an end point is weighted by the descendants of the cell there: the probability is that of a
      descendant. How many descendants a cell has is written too, for means over cells.

    Parameters
    ----------
    adata
        Cells with the time and the representation that the flow was fitted on.
    flow
        A fitted flow.
    groupby
        Column of ``obs`` with the groups; cells without one count as ``"none"``. With ``terminal`` the states are named
        by it.
    terminal
        ``"auto"`` to find the groups: states of that snapshot in which carried mass settles, separated by valleys of
        low density. ``None`` for those of ``groupby``. Backward in time they are initial states.
    at
        Time of a snapshot in ``adata``; ``None`` for the last fitted one. Times before the cells' own give their
        origins.
    cells
        The cells: a mask, names, or rows of ``obs``; ``None`` for all cells at other times within the fitted range.
    condition
        With a flow that has conditions: what the cells are to be under, such as ``{"drug": "A", "dose": 3.0}``;
        ``None`` for each cell's own. They land as in `push`.
    n_samples
        Simulations of each cell, if there is noise.
    solver
        As for `SnapshotFlow.simulate`; or as for `SnapshotFlow.transport`, for fates without noise. ``None`` for
        ``Noisy(20)`` with a score, and ``Fixed()`` without one.
    n_neighbors
        Number of measured cells with which an end point is compared; ``None`` for 10, or all of a smaller snapshot.
    confidence
        Coverage of the interval.
    seed
        Seed of the noise.
    progress
        Whether to show a progress bar with the time left.
    key_added
        Name of the result, without "/".
    copy
        Whether to return a copy instead of writing into ``adata``.

    Writes
    ------
    ``obsm[key_added]``
        Table of cells by groups: probability, or share; missing for all other cells. A name that files cannot hold is
        changed: "Ery/Mega" becomes the column "Ery_Mega".
    ``obsm[f"{key_added}_low"]``, ``obsm[f"{key_added}_high"]``
        Its interval; missing for all cells without simulation or ensemble.
    ``obs[f"{key_added}_{column}"]``
        Each column of that table by itself, such as ``obs["fate_Neutrophil"]``, for ``sc.pl.embedding``.
    ``obs[f"{key_added}_spread"]``
        Root mean squared distance of a cell's end points from their mean, in units of the representation; 0 for one
        end point.
    ``obs[f"{key_added}_descendants"]``
        Where growth was learned: descendants of a cell at a later time, relative to those of other cells unless sizes
        of the population were given.
    ``obs[f"{key_added}_terminal"]``, ``obs[f"{key_added}_membership"]``
        With ``terminal``: the state of each measured cell at that time, and how much it belongs to it, 0 to 1.
    ``uns[key_added]``
        ``"groups"``, the true names of the groups in the order of the columns; ``"at"``, ``"groupby"``,
        ``"direction"`` (``"backward"`` where all cells are after that time, and these are origins), ``"kind"``
        (``"simulation"`` or ``"neighbors"``), ``"n_samples"``, ``"confidence"``, ``"rep"``, ``"time_key"`` and
        ``"unit"`` of time; with an ensemble ``"members"``. With ``terminal`` the table ``"states"``: of each state its
        share of the carried mass (the mean of the shares, by weights and descendants), its stability (1 where resampled
        halves of the end points agree on it, at least 0.5) and its speed, as a share of the mean speed of all cells.

    Raises
    ------
    KeyError
        When there is no such column, or cell.
    TypeError
        For a solver with noise, when the flow was fitted without a score.
    ValueError
        When the column holds a continuous quantity; when there are no cells at that time, or none at others.

    Notes
    -----
    A terminal state is terminal only as far as the snapshot shows: whether cells would go on afterwards is unknown, and
    if they move faster there than on their way, a warning is logged. Groups that are connected by cells count as one
    state, a strongly bent continuum may count as two, and a state with less than 2 % of the mass is joined to another.
    A flow knows no labels: a group that a neighbouring fitted snapshot lacks is carried into others, or arises from
    them. For groups of 5 % of a snapshot or more a warning is logged.

    Source
    ------
    Wilson 1927 for the interval; Kish 1965 for the effective number of weighted simulations; Monti et al. 2003 for the
    stability of states.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> path = cf.paths.BrownianBridge(0.5)
    >>> flow = cf.SnapshotFlow(rep="X_latent", path=path, stochastic=True, steps=20).fit(adata)
    >>> first = adata.obs["time"] == 0
    >>> cf.tl.fate(adata, flow, groupby="fate", cells=first, n_samples=5)
    >>> adata.obsm["fate"][first.to_numpy()].sum(axis=1).round(6).unique()
    array([1.])

    Without labels, the two branches are found:

    >>> flow = cf.SnapshotFlow(rep="X_latent", steps=150).fit(adata)
    >>> cf.tl.fate(adata, flow, terminal="auto")
    >>> list(adata.obsm["fate"].columns)
    ['terminal 1', 'terminal 2']
    """
    check_key(key_added)
    _check_asked(groupby, terminal, n_samples, confidence)
    states = flow.read(adata, weights=flow.weight_key in adata.obs)  # for shares of groups alone
    default: Solver = Noisy(STEPS) if flow.stochastic else Fixed()
    chosen: Solver = default if solver is None else resolve(solver, default=default, verb="tl.fate")
    if isinstance(chosen, Jumps):
        check_weighs(flow)
    noisy = isinstance(chosen, Noisy)
    turns = n_samples if noisy else 1
    labels = None if groupby is None else read_kinds(adata, groupby, setting="groupby", instead=INSTEAD)
    if labels is not None:
        note_absent(labels, states.time, flow.clock_.times, states.weight)
    like = time_labels_of(adata, flow.time_key)
    moment = flow.clock_.times[-1] if at is None else one_time(at, what="`at`", like=like)
    others = _all_but(flow, states, moment)
    asked = asked_under(adata, flow, others if cells is None else states.take(positions(adata, cells)), condition)
    there = snapshot_at(flow, states, moment, of=asked)
    neighbors = neighbors_of(n_neighbors, there, moment)
    found = None
    if terminal is not None:
        carried = asked_under(adata, flow, _one_side(others, asked, moment), condition)
        found = terminal_states(flow, carried, there, moment, chosen, neighbors, labels=labels, seed=seed)
    groups = pd.Series(found.labels) if found is not None else cast("pd.Series", labels).iloc[there.rows]
    votes = Votes(there.x, groups, neighbors)
    _note_small(groups, neighbors, moment)
    with progress_bar(shown=progress, start=0, steps=turns * (1 + len(flow.members)), what="fates") as bar:
        ends = ends_of(flow, asked, moment, chosen, turns, seed)
        share, spread, mass, effective = count_ends(asked, moment, votes, ends, bar)
        beside = member_shares(
            flow, asked, moment, votes, chosen, turns, seed, lambda done, loss: bar(turns + done, loss)
        )
    low, high = bounds(share, effective if noisy else None, beside, confidence, n_neighbors=neighbors)
    noted = {
        "at": moment,
        "groupby": groupby or "",
        "direction": _direction(asked.time, moment),
        "kind": "simulation" if noisy else "neighbors",
        "n_samples": turns,
        "confidence": confidence,
        **({} if beside is None else {"members": len(beside)}),
        **about(adata, flow),
    }
    written = target(adata, copy=copy)
    write_fate(written, key_added, asked.rows, {"": share, "_low": low, "_high": high}, votes.groups, noted)
    written.obs[f"{key_added}_spread"] = column(adata, asked.rows, spread if noisy else np.zeros_like(spread))
    if flow.growth_:
        later = asked.time < moment
        written.obs[f"{key_added}_descendants"] = column(adata, asked.rows, np.where(later, mass / turns, np.nan))
    if found is not None:
        write_states(written, key_added, there.rows, found)
    return written if copy else None


def _check_asked(groupby: str | None, terminal: str | None, n_samples: int, confidence: float) -> None:
    if groupby is None and terminal is None:
        raise ValueError(
            "Expected a column with groups in `groupby`, or `terminal='auto'` to find the states where cells settle; "
            "found neither."
        )
    if terminal not in (None, AUTO):
        raise ValueError(
            f"Expected `terminal` to be 'auto' or None; found {terminal!r}. For fates toward known groups, name their "
            "column in `groupby`."
        )
    if n_samples < 2 or not 0 < confidence < 1:
        raise ValueError(f"Expected n_samples >= 2 and 0 < confidence < 1; found {n_samples} and {confidence}.")


def _note_small(groups: pd.Series, n_neighbors: int, moment: float) -> None:
    """Warn of groups that cannot get a share of 1, having fewer cells than an end point has neighbours."""
    if n_neighbors == len(groups) and groups.fillna(WITHOUT).nunique() > 1:
        log.warning(
            "Every end point has all %d cells at time %g as neighbors, so all cells have the same, meaningless fate. "
            "Lower `n_neighbors`, or choose a snapshot with more cells by `at`.", len(groups), moment,
        )  # fmt: skip
    counts = groups.fillna(WITHOUT).value_counts()
    small = [f"{str(name)!r} ({n})" for name, n in counts.items() if n < n_neighbors < len(groups)]
    if small:
        said = ", ".join(small[:NAMED]) + (f" and {len(small) - NAMED} more" if len(small) > NAMED else "")
        log.warning(
            "Fewer than %d cells at time %g are in %s, fewer than the neighbors of an end point: the share of such a "
            "group stays below 1 even if all cells go there. Merge it with another, or lower `n_neighbors`.",
            n_neighbors, moment, said,
        )  # fmt: skip


def _all_but(flow: "SnapshotFlow", cells: States, moment: float) -> States:
    """Return the cells at other times that the flow covers."""
    time, first, last = cells.time, flow.clock_.times[0], flow.clock_.times[-1]
    others = cells.take((time != moment) & (time >= first) & (time <= last))
    if not len(others):
        raise ValueError(f"All cells are at time {moment:g}; there is none to follow. Choose another `at`.")
    return others


def _one_side(others: States, asked: States, moment: float) -> States:
    """Return the other cells before a time; or those after it, if all requested cells are after it or none before."""
    before, after = others.time < moment, others.time > moment
    backward = (asked.time > moment).any() and not (asked.time < moment).any()
    return others.take(after if after.any() and (backward or not before.any()) else before)


def _direction(time: np.ndarray, moment: float) -> str:
    """Return whether cells are before the time of their fates or after it: then these are origins."""
    before, after = (time < moment).any(), (time > moment).any()
    if before and after:
        log.info("%d cells are after time %g: their shares are those of their origins.", (time > moment).sum(), moment)
    return "both" if before and after else "backward" if after else "forward"
