"""Mean fates of groups of cells, as bars."""

from typing import TYPE_CHECKING

import numpy as np

from cellflow.pl.canvas import figure_or_new, plain
from cellflow.pl.fates import Fates
from cellflow.pl.look import Look
from cellflow.pl.marks import titled, written
from cellflow.pl.panels import groups_of

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure


def draw_bars(
    adata: "AnnData", found: Fates, *, by: str | None, look: Look, figure: "Figure | None"
) -> "Figure":  # fmt: skip
    """Draw a bar of the mean fates for each snapshot or group, from the first on top."""
    groups = groups_of(adata, by or "time", found.time_key or None, found.unit)
    rows = [(name, cells & found.known) for name, cells, _ in groups]
    rows = [(name, cells) for name, cells in rows if cells.any()]
    means = np.stack([np.average(found.shares[cells], axis=0, weights=found.descendants[cells]) for _, cells in rows])
    lines = [line for group in found.groups for line in written(group).split("\n")]
    high = max(0.42 * len(rows), 0.23 * len(lines))
    figure = figure_or_new(figure, size=(5.4 + 0.09 * max(map(len, lines)), 1.3 + high))
    ax, left, places = figure.subplots(), np.zeros(len(rows)), np.arange(len(rows))
    for group, color, share in zip(found.groups, found.colors(adata, look), means.T, strict=True):
        ax.barh(places, share, left=left, height=0.7, color=color, label=written(group), edgecolor="white")
        left = left + share
    ax.set_yticks(places, [f"{written(str(name))} ({cells.sum():,})" for name, cells in rows])
    ax.invert_yaxis()
    weighed = "over descendants" if np.ptp(found.descendants[found.known]) > 0 else "over cells"
    about = found.said.replace("this group", "each fate").replace("\n", " ")
    ax.set(xlim=(0, 1), xlabel=f"{about},\nmean {weighed}")
    handles, names = ax.containers, [written(group) for group in found.groups]
    if look.legend_loc not in (None, "none"):
        ax.legend(handles, names, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    ax.set_title(titled(look, 0, None, 40))
    plain(ax)
    return figure
