"""Fates of cells: on an embedding, as bars by group or time, or on a simplex."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cellflow.cells.snapshots import read_times
from cellflow.errors import unknown
from cellflow.pl.basis import read_basis
from cellflow.pl.canvas import dot_size, figure_or_new, literal
from cellflow.pl.coloring import colors_of
from cellflow.pl.fate_bars import draw_bars
from cellflow.pl.fates import Fates, fates_of
from cellflow.pl.labels import time_label
from cellflow.pl.look import Look, look_of
from cellflow.pl.marks import add_key_below, titled
from cellflow.pl.simplex import draw_simplex
from cellflow.signature import checked

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure

KINDS = ("cells", "bars", "simplex")
MOST = 12
COLUMNS = 4
MOST_TIMES = 3
"""Times of cells without a fate that are named, at most."""


@checked
def fate(
    adata: "AnnData",
    *,
    basis: str | None = None,
    kind: str = "cells",
    color: str | Sequence[str] | None = None,
    by: str | None = None,
    components: tuple[int, int] = (0, 1),
    key: str = "fate",
    figure: "Figure | None" = None,
    **look: Any,
) -> "Figure":
    """Draw the fates that `cellflow.tl.fate` wrote.

    * ``"cells"``: the cells on an embedding, a panel for each fate. Cells without a fate are grey.
    * ``"bars"``: the mean fate of the cells of each snapshot or group. If growth was learned, a cell counts as often as
      it has descendants.
    * ``"simplex"``: each cell between the fates, at the mean of their places weighted by its own: a triangle for three
      fates, a circle for more, on which fates that go together are neighbours. In a circle of more than three fates, a
      cell in the middle may have all of them or two opposite ones: the bars and panels distinguish these.

    Parameters
    ----------
    adata
        Holds what `cellflow.tl.fate` wrote.
    basis
        Embedding to draw on: ``"pca"`` for ``obsm["X_pca"]``; ``None`` for a UMAP if there is one, else the flow's
        representation.
    kind
        ``"cells"``, ``"bars"`` or ``"simplex"``.
    color
        On a simplex: column of ``obs``, or gene, that colours the cells, or several; ``None`` for their time.
    by
        ``"time"`` or a column of ``obs``: a bar for each group, ``None`` for time; on a simplex, a panel for each
        group, ``None`` for all together.
    components
        Which two columns of the basis to show.
    key
        Name under which `cellflow.tl.fate` wrote.
    figure
        Figure to draw on; ``None`` for a new one.
    **look
        How cells are drawn: ``cmap``, ``palette``, ``size``, ``alpha``, ``legend_loc``, ``layer``, ``use_raw``,
        ``sort_order``, ``vmin``, ``vmax``, ``na_color``, ``frameon``, ``title`` and ``ncols``, as for `cells`.

    Raises
    ------
    KeyError
        When there are no fates of that name, or the basis or column does not exist.
    ValueError
        When there are more groups than panels, or the kind is unknown.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> path = cf.paths.BrownianBridge(0.5)
    >>> flow = cf.SnapshotFlow(rep="X_latent", path=path, stochastic=True, steps=20).fit(adata)
    >>> cf.tl.fate(adata, flow, groupby="fate", n_samples=2)
    >>> figure = cf.pl.fate(adata, basis="latent")
    >>> [ax.get_title() for ax in figure.axes][:2] == list(adata.obsm["fate"].columns)[:2]
    True
    """
    if kind not in KINDS:
        raise ValueError(unknown("kind", kind, KINDS))
    how = look_of("pl.fate", look)
    found = fates_of(adata, key)
    if len(found.groups) > MOST:
        raise ValueError(f"There are {len(found.groups)} groups; at most {MOST} are drawn. Merge some first.")
    if kind == "bars":
        return draw_bars(adata, found, by=by, look=how, figure=figure)
    if kind == "simplex":
        return draw_simplex(adata, found, color=color, by=by, look=how, figure=figure)
    return _on_cells(adata, found, basis, components, how, figure)


def _on_cells(
    adata: "AnnData",
    found: Fates,
    basis: str | None,
    components: tuple[int, int],
    look: Look,
    figure: "Figure | None",
) -> "Figure":
    time = read_times(adata, found.time_key) if found.time_key in adata.obs else None
    picture = read_basis(adata, basis, rep=found.rep, components=components, time=time, unit=found.unit)
    columns = min(look.ncols, len(found.groups))
    rows = -(-len(found.groups) // columns)
    figure = figure_or_new(figure, size=(2.9 * columns + 1.0, 2.9 * rows + 0.4))
    panels = figure.subplots(rows, columns, squeeze=False)
    xy = picture.xy
    style: dict[str, Any] = {"s": look.size or dot_size(len(xy)), "linewidths": 0, "rasterized": True}
    low, high = (
        (0.0, 1.0) if look.vmin is None and look.vmax is None else look.limits(found.shares[found.known].ravel())
    )
    for number, (ax, group, values) in enumerate(zip(panels.flat, found.groups, found.shares.T, strict=False)):
        ax.scatter(*xy[~found.known].T, color=look.na_color, **style | {"alpha": 0.5})
        # The most certain on top: else they vanish under the many that are not.
        order = np.flatnonzero(found.known)
        order = order[np.argsort(values[order], kind="stable")] if look.sort_order else order
        marks = ax.scatter(
            *xy[order].T, c=values[order], cmap=colors_of(look), vmin=low, vmax=high, alpha=look.alpha, **style
        )
        ax.set_title(titled(look, number, group))
        picture.dress(ax)
        if look.frameon is False:
            ax.set_axis_off()
    for ax in panels.flat[len(found.groups) :]:
        ax.set_visible(False)
    figure.colorbar(marks, ax=panels, label=found.said, fraction=0.04, pad=0.02)
    if not found.known.all() and look.legend_loc not in (None, "none"):
        _say_grey(figure, found, time, look)
    return figure


def _say_grey(figure: "Figure", found: Fates, time: "np.ndarray | None", look: Look) -> None:
    """Say which cells are grey: those at the time of the fates and beyond, or without one for other reasons."""
    from matplotlib.lines import Line2D

    when = np.full(len(found.known), np.nan) if time is None else time
    there = [t for t in np.unique(when) if not found.known[when == t].any() and np.isfinite(t)]
    said = " or ".join(time_label(float(t), found.unit) for t in there)
    named = 0 < len(there) <= MOST_TIMES and not (~found.known & ~np.isin(when, there)).any()
    label = literal(f"cells at {said}, without a fate" if named else "cells without a fate")
    grey: dict[str, Any] = {"color": look.na_color, "marker": "o", "markersize": 6, "linestyle": ""}
    add_key_below(figure, [Line2D([], [], label=label, **grey)])
