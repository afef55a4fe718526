"""Cells on an embedding, coloured by a number or a category."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cellflow.cells.snapshots import read_times
from cellflow.pl.basis import read_basis
from cellflow.pl.canvas import GREY
from cellflow.pl.coloring import Coloring, by_column, by_time, expression, time_colors
from cellflow.pl.labels import unit_of
from cellflow.pl.look import Limit, Look
from cellflow.pl.marks import draw_cells
from cellflow.pl.panels import panels
from cellflow.signature import checked

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

__all__ = ["Coloring", "by_column", "by_time", "cells", "draw_cells", "expression", "time_colors"]


@checked
def cells(
    adata: "AnnData",
    *,
    basis: str | None = None,
    color: str | Sequence[str] | None = None,
    by: str | None = None,
    time_key: str | None = None,
    components: tuple[int, int] = (0, 1),
    cmap: "str | Colormap | None" = None,
    palette: str | Sequence[str] | Mapping[str, str] | None = None,
    size: float | None = None,
    alpha: float | None = None,
    legend_loc: str | None = "right margin",
    layer: str | None = None,
    use_raw: bool = False,
    sort_order: bool = True,
    vmin: Limit = None,
    vmax: Limit = None,
    na_color: str = GREY,
    frameon: bool | None = None,
    title: str | Sequence[str] | None = None,
    ncols: int = 4,
    ax: "Axes | None" = None,
    figure: "Figure | None" = None,
) -> "Axes | Figure":
    """Draw cells on an embedding, in one panel or in small multiples.

    Parameters
    ----------
    adata
        The cells.
    basis
        Embedding to draw on: ``"umap"`` for ``obsm["X_umap"]``; ``None`` for a UMAP if there is one, else the PCA.
    color
        Column of ``obs``, or gene; several for a panel each. ``None`` for time, if ``time_key`` is given.
    by
        ``"time"`` for a panel for each snapshot, or a column for one for each of its groups, with all other cells in
        grey; ``None`` for all cells together.
    time_key
        Column of ``obs`` with the time.
    components
        Which two columns of the basis to show.
    cmap
        Colours of numbers: a name of matplotlib, or a colour map; ``None`` for viridis without its palest end.
    palette
        Colours of categories: a list, a name of matplotlib, or a colour for each category; ``None`` for those in
        ``uns[f"{column}_colors"]``, or else those of Okabe and Ito, with other marks if they do not suffice.
    size
        Area of the mark of a cell, in square points; ``None`` for smaller ones the more cells there are.
    alpha
        Opacity, between 0 and 1; ``None`` for that of the plot.
    legend_loc
        Position of the names of categories: ``"right margin"``, ``"on data"``, or ``"none"``.
    layer
        Layer that holds the expression of genes; ``None`` for ``X``.
    use_raw
        Whether genes are read from ``adata.raw``.
    sort_order
        Whether cells with high values are drawn on top; otherwise in random order.
    vmin, vmax
        Limits of the colour scale: numbers, or percentiles such as ``"p99"``; ``None`` for the extremes.
    na_color
        Colour of cells without a value.
    frameon
        Whether there are axes around the cells; ``None`` for those of the plot.
    title
        Title of the panel, or of each; ``None`` for what distinguishes the panels.
    ncols
        Maximum number of panels in a row.
    ax
        Axes to draw on, for a single panel; ``None`` for new ones.
    figure
        Figure to draw on; ``None`` for a new one.

    Returns
    -------
    Axes or Figure
        The axes of a single panel, or the figure of several.

    Raises
    ------
    KeyError
        When the basis, column, gene or layer does not exist.
    ValueError
        When a setting is invalid, or there are too many panels or categories.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> figure = cf.pl.cells(adata, basis="latent", color="fate", by="time", time_key="time")
    >>> figure.axes[0].get_title()
    'time 0'
    """
    look = Look(
        cmap, palette, size, alpha, legend_loc, layer, use_raw, sort_order, vmin, vmax, na_color, frameon, title, ncols
    )  # fmt: skip
    time, unit = (None, "time") if time_key is None else (read_times(adata, time_key), unit_of(adata, time_key))
    rep = next((key for key in ("X_umap", "X_pca", *adata.obsm) if key in adata.obsm), "X")
    picture = read_basis(adata, basis, rep=rep, components=components, time=time, unit=unit)
    made = panels(
        adata, color=color, by=by, time_key=time_key, unit=unit, look=look, ax=ax, figure=figure
    )  # fmt: skip
    for panel in made.panels:
        made.draw(panel, picture.xy, alpha=0.8)
        picture.dress(panel.ax)
    return made.finish(picture.xy)
