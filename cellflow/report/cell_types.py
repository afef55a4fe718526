"""The cells themselves: by time and by group on the basis of the page, and how many of each group a snapshot has."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cellflow.cells.columns import read_labels
from cellflow.cells.snapshots import read_times
from cellflow.pl.basis import read_basis
from cellflow.pl.cells import Coloring, by_column, by_time, draw_cells
from cellflow.pl.labels import time_label, unit_of
from cellflow.report import html
from cellflow.report.html import Drawing, blank

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow

MOST_COLORS = 24
"""Maximum number of groups with a colour or a row of their own; rarer ones are merged."""
OTHERS = "other groups"
FEW = 20
"""Minimum number of cells of a group, over all snapshots, for meaningful fates and rates."""


def grouped(adata: "AnnData", groupby: str, *, most: int = MOST_COLORS) -> pd.Series:
    """Return the groups of all cells as names, with rare ones merged if there are too many.

    Examples
    --------
    >>> import cellflow as cf
    >>> sorted(grouped(cf.datasets.branching(seed=0), "fate", most=2).unique())[0]
    'lower'
    """
    labels = read_labels(adata, groupby, setting="groupby")
    counts = labels.value_counts()
    if len(counts) <= most:
        return labels
    kept = counts.index[: most - 1]
    return labels.where(labels.isin(kept) | labels.isna(), OTHERS)


def drawing(adata: "AnnData", flow: "SnapshotFlow", *, basis: str, groupby: str | None) -> Drawing:
    """Draw the cells, coloured by time and, if there are any, by group."""
    unit = unit_of(adata, flow.time_key)
    time, n_pcs = read_times(adata, flow.time_key), flow.n_pcs
    picture = read_basis(adata, basis, rep=flow.rep, time=time, unit=unit, n_pcs=n_pcs)
    colorings = [by_time(adata, flow.time_key, unit)]
    if groupby is not None:
        colorings.append(_by_group(adata, groupby))
    figure = blank(6.0 * len(colorings), 4.6)
    for ax, coloring in zip(figure.subplots(1, len(colorings), squeeze=False)[0], colorings, strict=True):
        draw_cells(ax, picture.xy, coloring)
        picture.dress(ax)
    said = "All cells, including those of held-out snapshots, by time" + (
        "." if groupby is None else f", and by {groupby}."
    )
    return Drawing("cells", "cells", figure, said)


def _by_group(adata: "AnnData", groupby: str) -> Coloring:
    """Colour by group, with the colours that scanpy has noted where all groups have one."""
    shown = grouped(adata, groupby)
    if shown.nunique() == read_labels(adata, groupby, setting="groupby").nunique():
        own = adata.obs[groupby]
        if pd.api.types.is_numeric_dtype(own.dtype):
            return Coloring(groupby, shown.astype("category").reset_index(drop=True))
        return by_column(adata, groupby)
    return Coloring(groupby, shown.astype("category").reset_index(drop=True))


def table(adata: "AnnData", flow: "SnapshotFlow", *, groupby: str) -> str:
    """Return an HTML table: the cells of every group in every snapshot, and their share of it."""
    shown, time = grouped(adata, groupby).fillna("no group"), read_times(adata, flow.time_key)
    counts = pd.crosstab(shown.to_numpy(), time)
    counts = counts.loc[counts.sum(axis=1).sort_values(ascending=False, kind="stable").index]
    shares, unit = counts / counts.sum(axis=0), unit_of(adata, flow.time_key)
    rows = [
        [str(name), *(f"{n:,} ({share:.0%})" if n else "–" for n, share in zip(of, part, strict=True))]
        for name, of, part in zip(counts.index, counts.to_numpy(), shares.to_numpy(), strict=True)
    ]
    header = ["", *(time_label(float(t), unit) for t in counts.columns)]
    found = html.table(header, rows, numbers=range(1, len(header)))
    few = counts.index[(counts.sum(axis=1) < FEW).to_numpy()]
    if len(few):
        names = ", ".join(map(str, few[:5])) + (f" and {len(few) - 5} more" if len(few) > 5 else "")
        found += html.paragraph(
            f"Fewer than {FEW} cells: {names}. Their fates and growth rest on few cells.", style="note"
        )
    return found + _absent_note(np.asarray(counts.to_numpy()))


def _absent_note(counts: np.ndarray) -> str:
    """Explain the dash, if there is one."""
    return html.paragraph("–: no cells of the group in that snapshot.", style="note") if (counts == 0).any() else ""
