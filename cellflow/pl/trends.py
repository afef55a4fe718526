"""Expression along the courses that lead to each fate, as lines with bands."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellflow.pl.canvas import GREY, PALETTE, figure_or_new, literal, plain
from cellflow.pl.labels import unit_of_result
from cellflow.pl.marks import written
from cellflow.signature import checked
from cellflow.tl.trend_table import Trends, read_trends

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 4
MOST = 24
"""Genes that are drawn as lines at most."""
DASHES: tuple[Any, ...] = ("-", "--", ":", "-.")


@checked
def trends(
    adata: "AnnData",
    *,
    genes: str | Sequence[str] | None = None,
    fates: str | Sequence[str] | None = None,
    points: bool = True,
    key: str = "trends",
    figure: "Figure | None" = None,
) -> "Figure":
    """Draw the trends that `cellflow.tl.trends` wrote, a panel for each gene and a line for each fate.

    Dots are means of measured cells of a group, in the snapshots that have any. A line is the mean of all courses to
    the group, including cells that do not belong to it yet: early on, dots need not lie on it.

    Parameters
    ----------
    adata
        Holds what `cellflow.tl.trends` wrote.
    genes, fates
        Names of some of them, in the order in which they are drawn; ``None`` for all.
    points
        Whether measured means are drawn.
    key
        Name under which `cellflow.tl.trends` wrote.
    figure
        Figure to draw on; ``None`` for a new one.

    Raises
    ------
    KeyError
        When there are no trends of that name, or the gene or fate does not exist.
    ValueError
        When there are more genes than panels.

    Examples
    --------
    >>> import scanpy as sc, cellflow as cf
    >>> adata = cf.datasets.hsmm()
    >>> sc.pp.pca(adata)
    >>> flow = cf.SnapshotFlow(time_key="hours", steps=20).fit(adata)
    >>> cf.tl.trends(adata, flow, genes=["MYOG", "CDK1"], by=None, n_bootstrap=20)
    >>> [ax.get_title() for ax in cf.pl.trends(adata).axes]
    ['MYOG', 'CDK1']
    """
    shown = read_trends(adata, key).some(genes, fates)
    if len(shown.genes) > MOST:
        raise ValueError(
            f"There are {len(shown.genes)} genes; at most {MOST} are drawn as lines. Name some with `genes`, or draw "
            "all with `cf.pl.trends_heatmap`."
        )
    columns = min(COLUMNS, len(shown.genes))
    rows = -(-len(shown.genes) // columns)
    figure = figure_or_new(figure, size=(1.6 + 2.5 * columns, 0.7 + 2.3 * rows))
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    colors = colors_of(adata, shown)
    for gene, ax in enumerate(panels[: len(shown.genes)]):
        _draw(ax, shown, gene, colors, points=points)
        ax.set_title(literal(shown.genes[gene]))
        ax.set_xlabel(literal(unit_of_result(adata, shown.about)))
        ax.tick_params(labelbottom=True)
        plain(ax)
    for ax in panels[len(shown.genes) :]:
        ax.remove()
    for ax in panels[: len(shown.genes) : columns]:
        ax.set_ylabel("expression")
    _legend(figure, shown, colors, points=points)
    return figure


def colors_of(adata: "AnnData", shown: Trends) -> list[str]:
    """Return a colour for each fate: those that scanpy noted for its column, or ours."""
    column = str(shown.about.get("groupby", ""))
    if column in adata.obs and isinstance(adata.obs[column].dtype, pd.CategoricalDtype):
        categories = list(map(str, adata.obs[column].cat.categories))
        noted = list(map(str, adata.uns.get(f"{column}_colors", ())))
        if len(noted) == len(categories) and set(shown.fates) <= set(categories):
            return [noted[categories.index(fate)] for fate in shown.fates]
    return [PALETTE[k % len(PALETTE)] for k in range(len(shown.fates))]


def _dash(number: int) -> Any:
    """Return how the line of a fate is drawn: colours return, dashes tell these apart."""
    return DASHES[number // len(PALETTE) % len(DASHES)]


def _draw(ax: "Axes", shown: Trends, gene: int, colors: list[str], *, points: bool) -> None:
    for fate, color in enumerate(colors):
        ax.fill_between(shown.time, shown.low[fate, gene], shown.high[fate, gene], color=color, alpha=0.18, linewidth=0)
        ax.plot(shown.time, shown.mean[fate, gene], _dash(fate), color=color, linewidth=1.8, zorder=3)
        if points:
            marks: dict[str, Any] = {"markersize": 5, "markeredgecolor": "white", "markeredgewidth": 0.6, "zorder": 4}
            ax.plot(shown.measured_time, shown.measured[fate, gene], "o", color=color, **marks)
    ax.margins(x=0.04)


def _legend(figure: "Figure", shown: Trends, colors: list[str], *, points: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Line2D | Patch] = [
        Line2D([], [], color=color, linestyle=_dash(k), linewidth=1.8, label=written(fate))
        for k, (fate, color) in enumerate(zip(shown.fates, colors, strict=True))
    ]
    band = 100 * float(shown.about.get("confidence", 0.9))
    handles.append(Patch(color=GREY, alpha=0.5, linewidth=0, label=f"band: {band:g} % of resampled means"))
    if points and np.isfinite(shown.measured).any():
        decoded = ", decoded" if shown.about.get("measured_as") == "decoded" else ""
        words = f"measured cells of the group, mean{decoded}"
        handles.append(Line2D([], [], color=GREY, marker="o", linestyle="", label=words))
    columns = min(COLUMNS, len(shown.genes))
    figure.legend(handles=handles, loc="outside lower center", ncols=max(1, min(4, columns)), frameon=False)
