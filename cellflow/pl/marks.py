"""Cells as marks, with a colour bar or a legend."""

from collections.abc import Sequence
from textwrap import shorten, wrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellflow.pl.canvas import dot_size, literal
from cellflow.pl.coloring import PLAIN, Coloring, colors_of
from cellflow.pl.look import Look

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PER_COLUMN = 16
"""Names in a column of a legend."""
WIDEST = 26
"""Letters in a line of a legend; longer names go on in the next line, and end after the third."""


def draw_cells(
    ax: "Axes",
    xy: np.ndarray,
    coloring: Coloring | None,
    *,
    alpha: float = 0.8,
    look: Look = PLAIN,
    shown: np.ndarray | None = None,
    beside: "Sequence[Axes] | None" = None,
) -> None:
    """Draw cells with a colour bar or a legend beside them; without colours, in grey.

    Parameters
    ----------
    ax
        The axes.
    xy
        Where the cells are, ``(n, 2)``.
    coloring
        What their colour shows; ``None`` for nothing.
    alpha
        Opacity, if the look has none.
    look
        How they are drawn.
    shown
        Cells to draw in colour, a mask ``(n,)``; the others are drawn in grey behind them. ``None`` for all.
    beside
        Axes that share the colour bar or legend; empty to leave it out; ``None`` for ``ax`` only.
    """
    size = dot_size(len(xy)) if look.size is None else look.size
    style: dict[str, Any] = {"s": size, "linewidths": 0, "rasterized": True, "zorder": 1}
    style["alpha"] = alpha if look.alpha is None else look.alpha
    shown = np.ones(len(xy), dtype=bool) if shown is None else shown
    if not shown.all():
        behind = style | {"alpha": 0.3 * style["alpha"], "s": 0.7 * size}
        ax.scatter(*xy[~shown].T, color=look.na_color, **behind)
    hosts = [ax] if beside is None else list(beside)
    if coloring is None:
        ax.scatter(*xy[shown].T, color=look.na_color, **style)
    elif coloring.categorical:
        _categories(ax, xy, coloring, style, look, shown)
        if hosts and look.legend_loc == "right margin":
            add_legend(hosts[-1], coloring, look)
    else:
        _numbers(ax, xy, coloring, style, look, shown, hosts)


def _numbers(
    ax: "Axes",
    xy: np.ndarray,
    coloring: Coloring,
    style: dict[str, Any],
    look: Look,
    shown: np.ndarray,
    hosts: "list[Axes]",
) -> None:
    from matplotlib.colors import Normalize

    values = coloring.numbers()
    low, high = look.limits(values)
    known = np.flatnonzero(shown & ~np.isnan(values))
    missing = shown & np.isnan(values)
    if missing.any():
        ax.scatter(*xy[missing].T, color=look.na_color, **style)
    # In the order of the file, later cells would hide earlier ones.
    order = np.random.default_rng(0).permutation(known)
    if coloring.ranked and look.sort_order:
        order = order[np.argsort(values[order], kind="stable")]
    style |= {"c": np.clip(values[order], low, high), "cmap": colors_of(look), "norm": Normalize(low, high)}
    ax.scatter(*xy[order].T, **style)
    if hosts:
        add_bar(hosts, coloring, look)


def add_bar(axes: "list[Axes]", coloring: Coloring, look: Look) -> None:
    """Add the colour bar of numbers beside one or several axes, unless all numbers are missing."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    values = coloring.numbers()
    finite = values[np.isfinite(values)]
    if not len(finite):
        return
    low, high = look.limits(values)
    ends = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
    room: dict[str, Any] = {"fraction": 0.05, "pad": 0.02, "aspect": 30}
    room["extend"] = ends[bool(finite.min() < low), bool(finite.max() > high)]
    where: Any = axes[0] if len(axes) == 1 else axes
    # A mappable of its own: the bar is opaque where the marks are not.
    scale = ScalarMappable(Normalize(low, high), colors_of(look))
    bar = axes[0].figure.colorbar(scale, ax=where, label=written(coloring.label) if coloring.label else "", **room)
    bar.outline.set_visible(False)
    if coloring.ticks:
        bar.set_ticks(list(coloring.ticks), labels=[f"{tick:g}" for tick in coloring.ticks])


def _categories(
    ax: "Axes", xy: np.ndarray, coloring: Coloring, style: dict[str, Any], look: Look, shown: np.ndarray
) -> None:
    codes = coloring.values.cat.codes.to_numpy()
    for k in range(len(coloring.categories)):
        color, marker = coloring.mark(k)
        ax.scatter(*xy[(codes == k) & shown].T, color=color, marker=marker, **style)
    if (missing := (codes < 0) & shown).any():
        ax.scatter(*xy[missing].T, color=look.na_color, **style)


def add_legend(ax: "Axes", coloring: Coloring, look: Look) -> None:
    """Add a legend of categories right of axes, as an artist, so that the axes may have another legend.

    Parameters
    ----------
    ax
        The axes.
    coloring
        What the colours show.
    look
        How cells are drawn.
    """
    from matplotlib.legend import Legend
    from matplotlib.lines import Line2D

    handles, dot = [], {"linestyle": "", "markersize": 6}
    for k, category in enumerate(coloring.categories):
        color, marker = coloring.mark(k)
        handles.append(Line2D([], [], **dot, label=written(category), color=color, marker=marker))  # type: ignore[arg-type]
    if coloring.values.isna().any():
        handles.append(Line2D([], [], **dot, label="none", color=look.na_color, marker="o"))  # type: ignore[arg-type]
    legend = Legend(
        ax,
        handles,
        [str(handle.get_label()) for handle in handles],
        title=written(coloring.label) if coloring.label else "",
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        alignment="left",
        fontsize=None if len(handles) <= PER_COLUMN else "small",
        ncols=legend_columns(len(handles)),
    )
    ax.add_artist(legend).set_clip_on(False)  # else the layout leaves no room for it


def legend_columns(n: int) -> int:
    """Return the number of legend columns for ``n`` names.

    Examples
    --------
    >>> legend_columns(8), legend_columns(60)
    (1, 4)
    """
    return 1 + (max(n, 1) - 1) // PER_COLUMN


def legend_width(coloring: Coloring | None, look: Look) -> float:
    """Return the approximate width of a colour bar or legend, in inches."""
    if coloring is None or not coloring.categorical:
        return 0.8 if coloring is not None else 0.0
    if look.legend_loc != "right margin":
        return 0.0
    lines = [line for name in (*coloring.categories, coloring.label) for line in written(name).split("\n")]
    return legend_columns(len(coloring.categories)) * (0.5 + 0.085 * max(map(len, lines), default=0))


def written(name: str, width: int = WIDEST) -> str:
    """Return a name as it is shown: over several lines if it is long.

    Examples
    --------
    >>> print(written("progenitors of the lateral plate mesoderm"))
    progenitors of the lateral
    plate mesoderm
    """
    return literal(wrapped(name, width))


def titled(look: Look, number: int, group: str | None, width: int = WIDEST) -> str:
    """Return the title of a panel: the given one, else the name of its group, else nothing.

    Examples
    --------
    >>> titled(Look(), 0, ""), titled(Look(title=""), 0, "A"), titled(Look(), 0, None)
    ('""', '', '')
    """
    asked = look.title_of(number, None)
    if asked is None:
        return "" if group is None else written(group, width)
    return written(asked, width) if asked else ""


def wrapped(name: str, width: int = WIDEST) -> str:
    """Return a name over several lines, at most three; in quotes if nothing would be visible.

    Examples
    --------
    >>> print(wrapped(""))
    ""
    >>> print(wrapped("word " * 30, 10))
    word word
    word word
    word …
    """
    lines = wrap(name, width) or [f'"{name}"']
    return "\n".join(lines if len(lines) <= 3 else [*lines[:2], shorten(lines[2], width - 4, placeholder="") + " …"])


def add_key_below(figure: "Figure", handles: "Sequence[Artist]", columns: int = 4) -> None:
    """Say below a figure what its marks are, by their labels."""
    size = min(columns, len(handles))
    figure.legend(handles=list(handles), loc="outside lower center", ncols=size, frameon=False, fontsize=8.5)


def medians(xy: np.ndarray, coloring: Coloring, shown: np.ndarray) -> pd.DataFrame:
    """Return the positions for the names of categories: for each, its cell nearest to the median.

    Returns
    -------
    DataFrame
        Columns ``"name"``, ``"x"``, ``"y"``, the largest category first.
    """
    codes, rows = coloring.values.cat.codes.to_numpy(), []
    for k, name in enumerate(coloring.categories):
        cells = xy[(codes == k) & shown]
        if len(cells):
            x, y = cells[np.linalg.norm(cells - np.median(cells, axis=0), axis=1).argmin()]
            rows.append((name, x, y, len(cells)))
    table = pd.DataFrame(rows, columns=["name", "x", "y", "n"])
    return table.sort_values("n", ascending=False, kind="stable").drop(columns="n")
