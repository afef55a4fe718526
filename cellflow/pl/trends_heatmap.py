"""Trends of many genes as a heat map, ordered by when they peak."""

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from cellflow.pl.canvas import figure_or_new, literal
from cellflow.pl.coloring import colors_of
from cellflow.pl.labels import unit_of_result
from cellflow.pl.look import Look
from cellflow.pl.marks import wrapped, written
from cellflow.signature import checked
from cellflow.tl.trend_table import Trends, read_trends

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

NAMED = 80
"""Genes whose names are written at most."""
LETTER = 0.078
"""Width of a letter of a label, in inches."""
MOST = 12
"""Fates that are drawn at most."""


@checked
def trends_heatmap(
    adata: "AnnData",
    *,
    genes: str | Sequence[str] | None = None,
    fates: str | Sequence[str] | None = None,
    order_by: str | None = None,
    cmap: "str | Colormap | None" = None,
    key: str = "trends",
    figure: "Figure | None" = None,
) -> "Figure":
    """Draw the trends of many genes, a panel for each fate, all on one scale; genes are ordered by their peak.

    Each gene is scaled from its lowest to its highest expression over all fates that are drawn, so that panels can be
    compared.

    Parameters
    ----------
    adata
        Holds what `cellflow.tl.trends` wrote.
    genes, fates
        Names of some of them; ``None`` for all.
    order_by
        The fate whose peaks order the genes; ``None`` for the first that is drawn.
    cmap
        A colour map of matplotlib, or its name; ``None`` for viridis without its palest end.
    key
        Name under which `cellflow.tl.trends` wrote.
    figure
        Figure to draw on; ``None`` for a new one.

    Raises
    ------
    KeyError
        When there are no trends of that name, or the gene or fate does not exist.
    ValueError
        When there are more fates than panels, or the colour map does not exist.

    Examples
    --------
    >>> import scanpy as sc, cellflow as cf
    >>> adata = cf.datasets.hsmm()
    >>> sc.pp.pca(adata)
    >>> flow = cf.SnapshotFlow(time_key="hours", steps=20).fit(adata)
    >>> cf.tl.trends(adata, flow, genes=["MYOG", "CDK1", "MEF2C"], by=None, n_bootstrap=20)
    >>> cf.pl.trends_heatmap(adata).axes[0].get_title()
    'all'
    """
    shown = read_trends(adata, key).some(genes, fates)
    if len(shown.fates) > MOST:
        raise ValueError(f"There are {len(shown.fates)} fates; at most {MOST} are drawn. Name some with `fates`.")
    first = shown.fates[0] if order_by is None else order_by
    values = scaled(shown.mean)
    order = by_peak(shown.some(None, first).mean[0])
    named, colors = len(order) <= NAMED, colors_of(Look(cmap=cmap))
    width = 1.6 + 0.09 * (max(map(len, shown.genes)) if named else 4) + 2.2 * len(shown.fates)
    high = 0.16 * max(len(order), 8) if named else 6.0
    figure = figure_or_new(figure, size=(width, 1.3 + high))
    panels = figure.subplots(1, len(shown.fates), squeeze=False, sharey=True)[0]
    edges, unit = _edges(shown.time), unit_of_result(adata, shown.about)
    rows = np.arange(len(order) + 1) - 0.5
    for fate, ax in enumerate(panels):
        drawn = np.ma.masked_invalid(values[fate][order])
        marks = ax.pcolormesh(edges, rows, drawn, cmap=colors, vmin=0, vmax=1, rasterized=True)
        ax.set(title=written(shown.fates[fate], 18), xlabel=literal(unit))
        ax.title.set_fontsize(10)
        ax.set_facecolor("#dddddd")
    panels[0].invert_yaxis()
    if named:
        panels[0].set_yticks(range(len(order)), [literal(shown.genes[k]) for k in order], fontsize=7.5)
        panels[0].set_ylabel(_said(shown, first, "", high))
    else:
        panels[0].set_yticks([])
        panels[0].set_ylabel(_said(shown, first, f"{len(order):,} ", high))
    bar = figure.colorbar(marks, ax=list(panels), fraction=0.05, pad=0.02, aspect=30, ticks=[0, 1])
    bar.ax.set_yticklabels(["lowest", "highest"])
    bar.set_label("expression of each gene")
    return figure


def scaled(values: np.ndarray) -> np.ndarray:
    """Return values ``(fates, genes, times)``, those of each gene scaled from 0 to 1; 0 if they are all equal.

    Examples
    --------
    >>> scaled(np.array([[[1.0, 2.0]], [[2.0, 3.0]]])).tolist()
    [[[0.0, 0.5]], [[0.5, 1.0]]]
    """
    known = np.isfinite(values)
    low = np.where(known, values, np.inf).min(axis=(0, 2), keepdims=True)
    span = np.where(known, values, -np.inf).max(axis=(0, 2), keepdims=True) - low
    found: np.ndarray = (values - low) / np.where((span > 0) & np.isfinite(span), span, 1.0)
    return found


def by_peak(values: np.ndarray) -> np.ndarray:
    """Return the order of genes by the time of their peak, from their values ``(genes, times)``.

    Those that peak at one time, such as the last, are ordered by the middle of their expression above the lowest.

    Examples
    --------
    >>> by_peak(np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.9, 1.0]])).tolist()
    [1, 2, 0]
    """
    known = np.nan_to_num(values, nan=-np.inf)
    above = np.nan_to_num(values - np.nanmin(np.where(np.isfinite(values), values, np.inf), axis=1, keepdims=True))
    middle = above @ np.arange(values.shape[1]) / np.maximum(above.sum(axis=1), np.finfo(float).tiny)
    return np.lexsort((middle, known.argmax(axis=1)))


def _edges(time: np.ndarray) -> np.ndarray:
    """Return the borders between times ``(times + 1,)``."""
    if len(time) == 1:
        return np.array([time[0] - 0.5, time[0] + 0.5])
    middles = (time[1:] + time[:-1]) / 2
    return np.concatenate([[time[0]], middles, [time[-1]]])


def _said(shown: Trends, first: str, number: str, high: float) -> str:
    """Return the label of the genes, in lines no longer than the axes are high, in inches."""
    toward = f" toward {wrapped(first)}" if shown.about.get("by") else ""
    return literal(fill(f"{number}genes, by when they peak{toward}", min(60, max(12, int(high / LETTER)))))
