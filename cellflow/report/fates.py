"""Fates of cells, the courses of genes toward them, and the genes that go with them."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cellflow import pl, tl
from cellflow.cells.snapshots import read_times
from cellflow.pl.fate import COLUMNS as FATES_PER_ROW
from cellflow.pl.fate import MOST
from cellflow.pl.labels import time_label, unit_of
from cellflow.report.html import Drawing, blank
from cellflow.tl.fate_table import read_fate

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow

MOST_CELLS = 500
"""Cells of a snapshot over which the expression of a gene is averaged: 500 decoded cells are 70 MB for 17,000 genes."""
MOST_GROUPS = MOST - 2
"""Groups whose fates are drawn; all others are one, and cells without a group another."""
MOMENTS, MOST_LINES, GENES_PER_ROW, FEWEST_ROWS = 25, 12, 4, 6
"""Times of a trend; genes that are drawn as lines, and side by side; genes from which on there is a map too."""
FEWEST_CELLS, FEWEST_GENES, MOST_DRIVEN = 20, 10, 3
"""Cells and genes that correlations need to be shown; fates whose genes are shown, the commonest ones."""
RESAMPLES = 50
"""Resamples of the cells for the bands of trends: their ends are then known to a tenth of their width."""


def drawings(
    adata: "AnnData", flow: "SnapshotFlow", *, basis: str, groupby: str | None, genes: Sequence[str]
) -> Iterator[Drawing]:
    """Draw the fates that were written, or else those toward the groups of a column, and figures derived from them."""
    few = _with_fates(adata, flow, groupby)
    if few is None:
        return
    yield _fates(few, flow, basis)
    if few.X is not None and few.n_vars >= FEWEST_GENES:
        yield from _drivers(few, flow)
    if len(genes):
        yield from _trends(few, flow, list(genes))


def thin(adata: "AnnData", flow: "SnapshotFlow") -> np.ndarray:
    """Return the positions of at most ``MOST_CELLS`` cells of each fitted snapshot, in order."""
    time, rng = read_times(adata, flow.time_key), np.random.default_rng(flow.seed)
    chosen = [rng.permutation(np.flatnonzero(time == t))[:MOST_CELLS] for t in flow.clock_.times]
    return np.sort(np.concatenate(chosen))


def written(adata: "AnnData") -> bool:
    """Return whether `cellflow.tl.fate` has written fates, toward no more groups than are drawn."""
    return "fate" in adata.obsm and "fate" in adata.uns and len(read_fate(adata).groups) <= MOST


def _with_fates(adata: "AnnData", flow: "SnapshotFlow", groupby: str | None) -> "AnnData | None":
    """Return some cells of each fitted snapshot with their fates; ``None`` if there are none."""
    if not written(adata) and groupby is None:
        return None
    few = adata[thin(adata, flow)].copy()
    if written(adata):
        return few
    there = few[read_times(few, flow.time_key) == flow.clock_.times[-1]]
    shown = str(groupby)
    if flow.conditions_ is not None and groupby in flow.conditions_.columns:  # which the flow reads
        shown = f"{groupby}, the commonest"
    few.obs[shown] = _commonest(few.obs[groupby], there.obs[groupby])
    tl.fate(few, flow, groupby=shown, key_added="fate", progress=False)
    return few


def _fates(few: "AnnData", flow: "SnapshotFlow", basis: str) -> Drawing:
    """Draw the fates of some cells of each fitted snapshot before that of the fates."""
    about, table = few.uns["fate"], read_fate(few)
    where = time_label(table.at, unit_of(few, flow.time_key))
    if about.get("kind") == "simulation":
        said = (
            f"Each cell was simulated {about['n_samples']} times: the share of its end points at {where} "
            "that are in each group. Errors of the flow are not part of these probabilities."
        )
    else:
        said = (
            f"The share of each group among the measured cells around the place where a cell ends at {where}. This "
            "flow has no noise: a share between 0 and 1 means that the cell lands near the border of a group; it is "
            "not a probability. For probabilities, fit a flow with `stochastic=True`."
        )
    figure = pl.fate(few, basis=basis, figure=blank(11.0, 0.4 + 2.9 * -(-len(table.groups) // FATES_PER_ROW)))
    return Drawing("fates", "fates", figure, f"{said} Grey: cells at {where}.")


def _drivers(few: "AnnData", flow: "SnapshotFlow") -> Iterator[Drawing]:
    """Draw the genes that go with each of the commonest fates, of those that differ between cells before them."""
    table, time = read_fate(few), read_times(few, flow.time_key)
    usable = table.known & ((time > table.at) if table.backward else (time < table.at))
    if usable.sum() < FEWEST_CELLS or table.backward:
        return
    shares = table.shares[usable]
    told = [k for k in np.argsort(-shares.mean(axis=0), kind="stable") if np.ptp(shares[:, k]) > 0]
    for number, k in enumerate(told[:MOST_DRIVEN], start=1):
        tl.drivers(few, flow, fate=table.groups[k])
        figure = pl.drivers(few, figure=blank(9.6, 6.0))
        yield Drawing(
            "drivers", f"drivers_{number}", figure,
            f"Genes whose expression goes with the fate {table.groups[k]}, in cells before "
            f"{time_label(table.at, unit_of(few, flow.time_key))}, given time; full dots: false discovery rate below "
            "5 %. Association, not cause: a gene may be a consequence of what decides the fate.",
        )  # fmt: skip


def _trends(few: "AnnData", flow: "SnapshotFlow", genes: list[str]) -> Iterator[Drawing]:
    """Draw the expression of genes along the courses toward each fate, and of many genes as a map too."""
    tl.trends(few, flow, genes=genes, n_times=MOMENTS, n_bootstrap=RESAMPLES, max_cells=MOST_CELLS, progress=False)
    shown = genes[:MOST_LINES]
    figure = blank(11.0, 0.8 + 2.6 * -(-len(shown) // GENES_PER_ROW))
    yield Drawing(
        "trends", "trends", pl.trends(few, genes=shown, figure=figure),
        "Expression along the courses that lead to each fate, decoded from the representation: mean, and a band for "
        "the uncertainty from the number of cells. Dots: measured cells of the group. Bands show no bias of the flow.",
    )  # fmt: skip
    if len(genes) >= FEWEST_ROWS:
        yield Drawing(
            "trends", "trends_heatmap", pl.trends_heatmap(few, figure=blank(11.0, 3.0 + 0.2 * len(genes))),
            "The same for all genes, each scaled from its minimum to its maximum, ordered by their peaks.",
        )  # fmt: skip


def _commonest(groups: pd.Series, there: pd.Series) -> pd.Series:
    """Return groups as names, with those that are rare at the end merged, so that not too many are drawn."""
    kept = there.astype(object).value_counts().index[:MOST_GROUPS]
    named = groups.astype(object)
    return named.where(named.isin(kept) | named.isna(), "other groups")
