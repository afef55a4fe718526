"""Validation: at held-out times, on held-out cells, and by where cells go."""

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cellflow.cells.clock import TimeLike, distinct_times
from cellflow.cells.columns import read_labels
from cellflow.cells.snapshots import Snapshots, read_snapshots, time_labels_of
from cellflow.estimators.conditional import refuse
from cellflow.estimators.snapshot_states import check_representation
from cellflow.integrate import Adaptive, Fixed, Jumps
from cellflow.signature import checked, checked_but
from cellflow.tl import held_out, landings, new_cells
from cellflow.tl.cells import about, check_key, note_absent, note_no_members, solver_of, target
from cellflow.tl.files import on_files
from cellflow.tl.held_out import inside, known_times, refitted, unseen
from cellflow.tl.landings import Scored
from cellflow.tl.new_cells import Split

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow

log = logging.getLogger(__name__)

MAX_CELLS = 2000
"""Maximum number of cells of a snapshot to compare: exact transport between 2000 and 2000 takes about a second."""
NEW_CELLS, COUPLINGS = "new_cells", "couplings"
"""Ends of the names of the second and the third table."""


@on_files
@checked_but("solver")
def validate(
    adata: "AnnData",
    flow: "SnapshotFlow",
    *,
    times: TimeLike | Iterable[TimeLike] | None = None,
    keep_aside: bool = True,
    groupby: str | None = None,
    lineage_key: str | None = None,
    n_seeds: int = 1,
    max_cells: int = MAX_CELLS,
    solver: Fixed | Adaptive | Jumps | str | int = Fixed(),
    key_added: str = "validation",
    copy: bool = False,
) -> "AnnData | None":
    """Compare predictions with cells that a flow has not seen, at held-out times and at those of the fit.

    Three questions, one table each. *Is the population right where nothing was measured?* Snapshots are left out and
    predicted. *Was the population learned, or its cells?* The settings are fitted on part of the cells of each
    snapshot; fitted and new (held-out) cells are carried to the next snapshot and compared with its new cells. *Do
    cells go where they belong?* No distance between populations can tell; labels, clones or tracks can: see ``groupby``
    and ``lineage_key``. All scores count cells by their weights, and stand beside baselines that learn nothing.

    Parameters
    ----------
    adata
        Cells with the time and the representation.
    flow
        A flow, fitted or not; it is not changed. Times on which it was not fitted are predicted with it; for any other
        time its settings are fitted again without that time.
    times
        Snapshots to predict, one or several; ``None`` for those that a fitted flow has not seen or, if there are none,
        for all but the first and the last.
    keep_aside
        Whether to fit the settings once more with a fifth of the cells of each snapshot held out (at least 200, but at
        most half), to see how new cells are carried: somewhat worse than by the flow itself, which has seen more cells.
        Takes as long as a fit; not done with ``Jumps``.
    groupby
        Column of ``obs`` with labels, such as cell types. A share on a cell's own label below that of not moving is a
        warning, not proof: cells do change state.
    lineage_key
        Column of ``obs`` with a clone or track for each cell, missing (NaN) where it is not known.
    n_seeds
        Fits of each kind, with seeds from that of the flow on, over which the scores of the first two tables are
        averaged.
    max_cells
        Maximum number of cells of a snapshot, and of a prediction, to compare: more are thinned evenly, see
        `cellflow.metrics.thinned`. W1 depends on their number: compare like with like.
    solver
        As for `interpolate`.
    key_added
        Name of the result, without "/".
    copy
        Whether to return a copy instead of writing into ``adata``.

    Writes
    ------
    ``uns[key_added]``
        Table of ``time``, ``method``, ``W1`` (in units of the representation), its interval ``W1_low`` to ``W1_high``,
        and ``n_cells``; not written where no snapshot lies between two others. The floor (``"half against half"``) is
        the distance between two halves of the left-out snapshot: the score of a perfect model.
    ``uns[f"{key_added}_new_cells"]``
        With ``keep_aside``, table of ``start``, ``time``, ``method``, ``cells`` (``"fitted"`` or ``"new"``), ``ED``
        (energy distance) and ``W1`` with intervals, ``p`` and ``n_cells``: equally many cells of each method, carried
        to ``time``, and compared with new cells there. ``"common shift"`` moves all cells by the difference of the
        means of fitted cells; the ``"floor"`` is that of fitted cells of the next snapshot. ``p``: how often new cells
        fall as far behind fitted ones in ED when both are swapped at random.
    ``uns[f"{key_added}_couplings"]``
        With ``groupby`` or ``lineage_key``, table of ``start``, ``time``, ``score``, ``method``, ``cells``, ``value``,
        ``low``, ``high`` and ``n``. ``"label persistence"`` is the share of mass that lands on a cell's own label
        (`cellflow.metrics.label_persistence`), of ``n`` cells; ``"clone agreement"`` how near to its own clone it lands
        (`cellflow.metrics.clone_agreement`; 0.5 is chance), a mean over ``n`` clones. They use the same neighbours for
        the flow, for not moving, for the exact transport plan and for the plan of the flow's coupling.
    ``uns[f"{key_added}_about"]``
        ``"rep"``, ``"time_key"`` and ``"unit"`` of time.

    Raises
    ------
    KeyError
        When a column is missing.
    ValueError
        When a time is not a snapshot between two others, or there is nothing to compare; with ``Jumps``, when a time
        was fitted.

    Notes
    -----
    A warning is logged for groups of ``groupby`` that a neighbouring snapshot lacks, and that the flow therefore
    carries into others. No score shows that: there are no cells to compare with.

    Intervals of 95 % show where the score of one fit would lie if other cells had been measured
    (`cellflow.metrics.standard_error`; a bootstrap, over cells and over clones, for the third table) and, where
    ``n_seeds`` is above 1, with another seed. With one seed they are too short by what seeds add; those of the energy
    distance are too long near 0, where ``p`` is the better test. New fits have no ensemble, and the log says so if the
    flow has one: intervals here are those of scores.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> cf.tl.validate(adata, cf.SnapshotFlow(rep="X_latent", steps=20), groupby="fate", max_cells=100)
    >>> sorted(adata.uns["validation"]["method"].unique())
    ['flow', 'half against half', 'linear transport', 'next snapshot', 'previous and next', 'previous snapshot']
    >>> sorted(adata.uns["validation_new_cells"]["method"].unique())
    ['common shift', 'floor', 'flow', 'not moving']
    >>> sorted(adata.uns["validation_couplings"]["method"].unique())
    ['exact plan', 'flow', 'not moving', 'plan of the flow']
    """
    check_key(key_added)
    carried = solver_of(flow, solver, verb="tl.validate", old={})
    if adata.isbacked and adata.is_view:
        raise ValueError("A view of a file cannot be subset further. Take `adata.to_memory()` first.")
    if n_seeds < 1 or max_cells < 2:
        raise ValueError(f"Expected n_seeds >= 1 and max_cells >= 2; found {n_seeds} and {max_cells}.")
    labels = None if groupby is None else read_labels(adata, groupby, setting="groupby")
    if lineage_key is not None:
        read_labels(adata, lineage_key, setting="lineage_key")
    refuse(flow, "tl.validate", "Leave out cells of a condition and time, fit, and compare with `tl.interpolate`.")
    snapshots = flow._snapshots(adata)
    if labels is not None:
        note_absent(labels, snapshots.time, known_times(flow, snapshots), snapshots.weights)
    check_representation(flow, adata, snapshots.x, snapshots.time)
    chosen = _chosen(flow, inside(flow, snapshots), times, time_labels_of(adata, flow.time_key))
    seen = sorted(set(chosen) - set(unseen(flow, chosen)))
    if seen and isinstance(carried, Jumps):
        raise ValueError(
            f"To leave out {', '.join(f'{time:g}' for time in seen)} the settings are fitted again, and a new fit has "
            "no flow map to jump with. Use `solver=Fixed()`, or fit and distil a flow without these times first."
        )
    note_no_members(flow, "tl.validate")
    splits = _splits(adata, flow, snapshots, carried, n_seeds) if keep_aside else []
    coupled = groupby is not None or lineage_key is not None
    if not (chosen or keep_aside or coupled):
        raise ValueError(
            f"Expected a snapshot between two others; found snapshots at {list(snapshots.clock.times)} only. Validate "
            "with `keep_aside=True`, or with `groupby` or `lineage_key`."
        )
    tables = {
        "": [
            row
            for time in chosen
            for row in held_out.compare(
                adata, flow, snapshots, time, max_cells=max_cells, n_seeds=n_seeds, solver=carried
            )
        ],
        f"_{NEW_CELLS}": [],
        f"_{COUPLINGS}": [],
    }
    if splits and not isinstance(carried, Jumps):
        tables[f"_{NEW_CELLS}"] = new_cells.compare(splits, snapshots, max_cells=max_cells, solver=carried)
    if coupled:
        scored = _scored(adata, flow, snapshots, splits, carried)
        tables[f"_{COUPLINGS}"] = landings.compare(
            adata, scored, snapshots, groupby=groupby, lineage_key=lineage_key, max_cells=max_cells
        )
    written = target(adata, copy=copy)
    for end, rows in tables.items():
        written.uns.pop(f"{key_added}{end}", None)
        if rows:
            written.uns[f"{key_added}{end}"] = pd.DataFrame(rows)
    written.uns[f"{key_added}_about"] = about(adata, flow)
    _warn(written.uns.get(f"{key_added}_{NEW_CELLS}"))
    return written if copy else None


@on_files
@checked
def testable_times(adata: "AnnData", flow: "SnapshotFlow") -> list[float]:
    """Return the snapshots on which a flow can be tested: those with a snapshot on each side that it may see.

    Examples
    --------
    >>> import cellflow as cf
    >>> testable_times(cf.datasets.hsmm(), cf.SnapshotFlow(time_key="hours", rep="X"))
    [24.0, 48.0]
    """
    return inside(flow, read_snapshots(adata, time_key=flow.time_key, rep=flow.rep, n_pcs=flow.n_pcs))


def _chosen(
    flow: "SnapshotFlow",
    inner: list[float],
    times: TimeLike | Iterable[TimeLike] | None,
    like: Mapping[str, float],
) -> list[float]:
    """Return the times to predict."""
    if times is None:
        return unseen(flow, inner) or inner
    chosen: list[float] = distinct_times(times, what="`times`", like=like).tolist()
    if not chosen or not set(chosen) <= set(inner):
        raise ValueError(f"Expected times with a snapshot on each side, of {inner}; found {chosen}.")
    return chosen


def _splits(
    adata: "AnnData", flow: "SnapshotFlow", snapshots: Snapshots, solver: Fixed | Adaptive | Jumps, n_seeds: int
) -> list[Split]:
    """Return a flow fitted on part of the cells for each seed; none for jumps, which a new fit cannot make."""
    if isinstance(solver, Jumps):
        log.info("no cells are held out: a flow that is fitted again has no flow map to jump with")
        return []
    found = [new_cells.split(adata, flow, snapshots, number=k) for k in range(n_seeds)]
    return [one for one in found if one is not None]


def _scored(
    adata: "AnnData",
    flow: "SnapshotFlow",
    snapshots: Snapshots,
    splits: list[Split],
    solver: Fixed | Adaptive | Jumps,
) -> list[Scored]:
    """Return the flow with the cells that it was fitted on, and that of part of the cells with new ones."""
    new = [Scored("new", splits[0].flow, splits[0].new, solver)] if splits else []
    if hasattr(flow, "clock_"):
        return [Scored("fitted", flow, np.ones(adata.n_obs, dtype=bool), solver), *new]
    if splits:
        return [Scored("fitted", splits[0].flow, ~splits[0].new, solver), *new]
    seen = np.isin(snapshots.time, known_times(flow, snapshots))
    return [Scored("fitted", refitted(adata, flow, seen, seed=int(flow.seed)), seen, solver)]


def _warn(table: pd.DataFrame | None) -> None:
    """Log where the flow has memorised its cells."""
    found = {} if table is None else new_cells.generalisation(table)
    bad = [time for time, outcome in found.items() if outcome == "no better"]
    if bad:
        log.warning(
            "New cells are carried no better than by not moving, or by a common shift, to %s: the flow has memorised "
            "its cells, not learned the population. Do not rely on its velocities away from them.",
            ", ".join(f"{time:g}" for time in bad),
        )
