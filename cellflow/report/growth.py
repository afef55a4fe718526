"""Growth by group of cells."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cellflow.pl.canvas import INK, PREDICTED, literal
from cellflow.pl.labels import rate_label
from cellflow.report.html import Drawing, blank

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow

LEAST = 5
"""Cells that a group needs to be drawn."""


def drawing(adata: "AnnData", flow: "SnapshotFlow", *, groupby: str, unit: str) -> Drawing:
    """Draw the growth rates of the fitted cells of each group: median, and the middle half of the cells."""
    states = flow.read(adata)
    known = states.take(np.isin(states.time, flow.clock_.times[:-1]))
    rate = pd.Series(flow.growth_rate(known.x, known.time))
    groups = adata.obs[groupby].astype(object).iloc[known.rows].reset_index(drop=True)
    quarters = rate.groupby(groups).quantile(np.array([0.25, 0.5, 0.75])).unstack()
    quarters = quarters[groups.value_counts().reindex(quarters.index) >= LEAST].sort_values(0.5)
    figure = blank(6.4, 1.2 + 0.32 * len(quarters))
    ax = figure.subplots()
    places = np.arange(len(quarters))
    ax.hlines(places, quarters[0.25], quarters[0.75], color=INK, linewidth=1.4)
    ax.scatter(quarters[0.5], places, color=PREDICTED, zorder=2)
    ax.axvline(0, color=INK, linewidth=0.6, linestyle=":")
    ax.set_yticks(places, [literal(str(name)) for name in quarters.index])
    ax.set_xlabel(literal(f"growth rate {rate_label(unit)}"))
    ax.spines[["top", "right"]].set_visible(False)
    caption = (
        f"Growth rates that the flow has learned, by {groupby}: median, and the middle half of the cells, before the "
        "last snapshot. Growth and the share of a group in the sample cannot be told apart: a rate says how the number "
        "of cells that were sampled changes, relative to other cells."
    )
    return Drawing("growth", "growth", figure, caption)
