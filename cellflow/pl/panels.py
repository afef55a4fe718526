"""Small multiples: a panel for every colour, every time or every group."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from cellflow.cells.columns import read_labels
from cellflow.cells.snapshots import read_times
from cellflow.pl.canvas import axes_or_new, figure_or_new
from cellflow.pl.coloring import Coloring, by_column, by_time, without_label
from cellflow.pl.labels import time_label
from cellflow.pl.look import Look
from cellflow.pl.marks import add_legend, draw_cells, legend_width, medians, titled, wrapped
from cellflow.pl.names import write_names

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 24
"""Panels of a figure, at most."""
SIDE = 2.9
"""Side of one of several panels, in inches."""


@dataclass(frozen=True)
class Panel:
    """One panel of a figure.

    Parameters
    ----------
    ax
        Its axes.
    coloring
        What the colour of cells shows.
    shown
        The cells that it shows, a mask ``(n,)``; the others are drawn behind them.
    beside
        Axes that share a colour bar or legend; empty if another panel has it.
    title
        What distinguishes it; ``None`` for a single panel.
    time
        The time of its cells, where panels are snapshots.
    """

    ax: "Axes"
    coloring: Coloring | None
    shown: np.ndarray
    beside: "tuple[Axes, ...]"
    title: str | None
    time: float | None


@dataclass(frozen=True)
class Panels:
    """The panels of a figure, and where cells stand in them.

    Parameters
    ----------
    panels
        The panels.
    whole
        The axes of a single panel, or the figure of several.
    look
        How cells are drawn.
    """

    panels: tuple[Panel, ...]
    whole: "Axes | Figure"
    look: Look

    def draw(self, panel: Panel, xy: np.ndarray, *, alpha: float) -> None:
        """Draw the cells ``(n, 2)`` of a panel."""
        draw_cells(
            panel.ax, xy, panel.coloring, alpha=alpha, look=self.look, shown=panel.shown, beside=panel.beside
        )  # fmt: skip

    def finish(self, xy: np.ndarray) -> "Axes | Figure":
        """Write titles, and names on the cells: after all else is drawn, which decides where there is room."""
        for number, panel in enumerate(self.panels):
            if self.look.title_of(number, panel.title) is not None:
                panel.ax.set_title(titled(self.look, number, panel.title, 40))
            if self.look.frameon is False:
                panel.ax.set_axis_off()
        if self.look.legend_loc == "on data":
            self._name(xy)
        return self.whole

    def _name(self, xy: np.ndarray) -> None:
        """Write names on the cells; where not all find room, a legend of all stands beside them too.

        A legend takes room from the axes: names are written after it.
        """
        named = [panel for panel in self.panels if panel.coloring is not None and panel.coloring.categorical]
        crowded = [panel for panel in named if _on_data(panel, xy, draft=True)]
        for panel in crowded:
            add_legend(panel.ax, cast("Coloring", panel.coloring), self.look)
        for panel in named:
            _on_data(panel, xy)


def _on_data(panel: Panel, xy: np.ndarray, *, draft: bool = False) -> list[str]:
    """Write the names of the categories on their cells, and return those for which there is no room."""
    table, texts = medians(xy, cast("Coloring", panel.coloring), panel.shown), list(panel.ax.texts)
    names = [wrapped(name) for name in table["name"]]
    done = write_names(panel.ax, table["x"].to_numpy(), table["y"].to_numpy(), names, clear=xy[:0], on=True)
    if draft:
        for text in set(panel.ax.texts) - set(texts):
            text.remove()
    return [name for name in names if name not in done]


def panels(
    adata: "AnnData",
    *,
    color: str | Sequence[str] | None,
    by: str | None,
    time_key: str | None,
    unit: str,
    look: Look,
    ax: "Axes | None",
    figure: "Figure | None",
    size: tuple[float, float] = (6.4, 5.2),
) -> Panels:
    """Lay out a panel for every colour and every group.

    Parameters
    ----------
    adata
        The cells.
    color
        One column of ``obs`` or gene, or several; ``None`` for time, if it is known.
    by
        ``"time"`` or the time column for a panel for each snapshot; another column for one for each of its groups;
        ``None`` for all cells together.
    time_key
        Time column of the cells; ``None`` if unknown.
    unit
        Unit of time.
    look
        How cells are drawn.
    ax, figure
        Axes to draw on, for a single panel; ``None`` for new ones.
    size
        Width and height of a single panel, in inches.

    Raises
    ------
    KeyError
        When the column or gene does not exist.
    ValueError
        When there are more panels than fit, or several for one ``ax``.
    """
    colorings = _colorings(adata, color, time_key, unit, look)
    groups = groups_of(adata, by, time_key, unit)
    n = len(colorings) * len(groups)
    if n > MOST:
        raise ValueError(f"There are {n} panels; at most {MOST} are drawn. Choose fewer colours, or merge groups.")
    if ax is not None and (n > 1 or figure is not None):
        raise ValueError(f"One `ax` holds one panel; there are {n}. Give only `figure`, or leave both out.")
    if n == 1:
        wide = (size[0] + max(0.0, legend_width(colorings[0], look) - 1.2), size[1])
        ax = figure.subplots() if figure is not None else axes_or_new(ax, size=wide)
        title, shown, time = groups[0]
        return Panels((Panel(ax, colorings[0], shown, (ax,), title, time),), ax, look)
    columns = len(groups) if len(colorings) > 1 and len(groups) > 1 else min(look.ncols, n)
    rows = -(-n // columns)
    several = len(groups) > 1
    legends = [legend_width(each, look) for each in colorings]
    room = max(legends) if several else sum(max(legends[k::columns], default=0.0) for k in range(columns))
    figure = figure_or_new(figure, size=(SIDE * columns + room + 0.2, (SIDE + 0.25) * rows))
    axes = figure.subplots(rows, columns, squeeze=False)
    made = []
    for c, coloring in enumerate(colorings):
        mine = [axes.flat[c * len(groups) + g] for g in range(len(groups))]
        last = min(columns, len(mine)) - 1
        for g, (title, shown, time) in enumerate(groups):
            beside = _beside(mine, g, last, coloring) if several else (mine[g],)
            name = None if coloring is None else coloring.label
            said = title if len(colorings) == 1 else name if title is None else f"{name}, {title}"
            kept = coloring if several else without_label(coloring)
            made.append(Panel(mine[g], kept, shown, beside, said, time))
    for spare in axes.flat[n:]:
        spare.set_visible(False)
    return Panels(tuple(made), figure, look)


def _beside(axes: "list[Axes]", number: int, last: int, coloring: Coloring | None) -> "tuple[Axes, ...]":
    """Return beside which axes a panel has its colour bar or legend: one for all panels of a colour."""
    if coloring is None or coloring.categorical:
        return (axes[number],) if number == last else ()
    return tuple(axes) if number == 0 else ()


def _colorings(
    adata: "AnnData", color: str | Sequence[str] | None, time_key: str | None, unit: str, look: Look
) -> list[Coloring | None]:
    if color is None:
        return [None if time_key is None else by_time(adata, time_key, unit)]
    names = [color] if isinstance(color, str) else list(color)
    if not names:
        raise ValueError("Expected one name or more in `color`; found none.")
    return [by_time(adata, name, unit) if name == time_key else by_column(adata, name, look) for name in names]


def groups_of(
    adata: "AnnData", by: str | None, time_key: str | None, unit: str, *, setting: str = "by"
) -> list[tuple[str | None, np.ndarray, float | None]]:
    """Return title, cells ``(n,)`` and time of each group; one without a title for ``None``.

    Raises
    ------
    KeyError
        When the column does not exist.
    ValueError
        When it holds no groups, such as a pseudotime.
    """
    if by is None:
        return [(None, np.ones(adata.n_obs, dtype=bool), None)]
    if time_key is not None and by in ("time", time_key):
        time = read_times(adata, time_key)
        return [(time_label(float(t), unit), time == t, float(t)) for t in np.unique(time)]
    labels = read_labels(adata, by, setting=setting)
    column = adata.obs[by]
    ordered = map(str, column.cat.categories) if hasattr(column, "cat") else sorted(labels.dropna().unique())
    found = [(name, (labels == name).to_numpy(), None) for name in ordered]
    found = [group for group in found if group[1].any()]
    if not found:
        raise ValueError(f"No cell has a group in `adata.obs[{by!r}]`. Name another column in `{setting}`.")
    return [(name, cells, None) for name, cells, _ in found]
