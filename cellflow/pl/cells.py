"""Cells as marks, coloured by a number or a category."""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellflow.cells.expression import places_of
from cellflow.cells.snapshots import read_times
from cellflow.pl.canvas import GREY, MARKERS, PALETTE, dot_size, literal

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

MOST_TICKS = 12


@dataclass(frozen=True)
class Coloring:
    """What the colour of cells shows.

    Parameters
    ----------
    label
        Name of the colour bar or legend.
    values
        A number or a category for every cell.
    ticks
        Values to mark on the colour bar; empty for round numbers.
    palette
        Colours of the categories, in their order.
    """

    label: str
    values: pd.Series
    ticks: tuple[float, ...] = ()
    palette: tuple[str, ...] = PALETTE


def by_time(adata: "AnnData", time_key: str, unit: str) -> Coloring:
    """Colour cells by their time, in the unit given."""
    time = read_times(adata, time_key)
    return Coloring(unit, pd.Series(time), _readable(np.unique(time)))


def by_column(adata: "AnnData", name: str) -> Coloring:
    """Colour cells by a column of ``obs``, or by the expression of a gene.

    Raises
    ------
    KeyError
        When there is neither; the message has close matches.
    ValueError
        When there are more categories than can be told apart.

    Examples
    --------
    >>> import cellflow as cf
    >>> by_column(cf.datasets.hsmm(), "MYOG").label
    'MYOG'
    """
    if name not in adata.obs and name not in adata.var_names:
        close = get_close_matches(name, [*map(str, adata.obs.columns), *adata.var_names], n=5)
        hint = f"Did you mean one of {close}?" if close else f"Columns of obs: {list(adata.obs.columns)}."
        raise KeyError(f"No `adata.obs[{name!r}]`, and no gene of that name. {hint}")
    if name not in adata.obs:
        return Coloring(name, pd.Series(expression(adata, name)))
    column = adata.obs[name]
    if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype):
        return Coloring(name, column.reset_index(drop=True))
    column = column.astype("category").reset_index(drop=True)
    most = len(PALETTE) * len(MARKERS)
    if len(column.cat.categories) > most:
        raise ValueError(
            f"`adata.obs[{name!r}]` has {len(column.cat.categories)} categories; at most {most} are drawn."
        )
    return Coloring(name, column, palette=_palette(adata, name, len(column.cat.categories)))


def expression(adata: "AnnData", gene: str) -> np.ndarray:
    """Return the expression of one gene, ``(n,)``."""
    column = adata.X[:, int(places_of(adata.var_names, [gene])[0])]
    return np.asarray(column.toarray() if hasattr(column, "toarray") else column, dtype=np.float64).ravel()


def draw_cells(ax: "Axes", xy: np.ndarray, coloring: Coloring | None, *, alpha: float = 0.8) -> None:
    """Draw cells ``(n, 2)`` with a colour bar or a legend beside them; without colours, in grey."""
    size = dot_size(len(xy))
    style: dict[str, Any] = {"s": size, "alpha": alpha, "linewidths": 0, "rasterized": True, "zorder": 1}
    if coloring is None:
        ax.scatter(xy[:, 0], xy[:, 1], color=GREY, **style)
    elif isinstance(coloring.values.dtype, pd.CategoricalDtype):
        _categories(ax, xy, coloring, style)
    else:
        _numbers(ax, xy, coloring, style)


def time_colors() -> "Colormap":
    """Return viridis without its palest end, which vanishes on white."""
    import matplotlib as mpl
    from matplotlib.colors import ListedColormap

    return ListedColormap(mpl.colormaps["viridis"](np.linspace(0, 0.93, 256)), name="time")


def _numbers(ax: "Axes", xy: np.ndarray, coloring: Coloring, style: dict[str, Any]) -> None:
    from matplotlib.cm import ScalarMappable

    # In the order of the file, later cells would hide earlier ones.
    order = np.random.default_rng(0).permutation(len(xy))
    x, y = xy[order].T
    values = coloring.values.to_numpy(dtype=np.float64, na_value=np.nan)[order]
    marks = ax.scatter(x, y, c=values, cmap=time_colors(), **style)
    # A mappable of its own: the bar is opaque where the marks are not.
    scale = ScalarMappable(marks.norm, marks.cmap)
    bar = ax.figure.colorbar(scale, ax=ax, label=literal(coloring.label), fraction=0.05, pad=0.02, aspect=30)
    bar.outline.set_visible(False)
    if coloring.ticks:
        bar.set_ticks(coloring.ticks, labels=[f"{tick:g}" for tick in coloring.ticks])


def _categories(ax: "Axes", xy: np.ndarray, coloring: Coloring, style: dict[str, Any]) -> None:
    from matplotlib.legend import Legend
    from matplotlib.lines import Line2D

    handles = []
    for k, category in enumerate(coloring.values.cat.categories):
        color, marker = coloring.palette[k % len(coloring.palette)], MARKERS[k // len(coloring.palette)]
        mark: dict[str, Any] = {"color": color, "marker": marker}
        x, y = xy[(coloring.values == category).to_numpy()].T
        ax.scatter(x, y, **mark, **style)
        handles.append(Line2D([], [], linestyle="", markersize=6, label=literal(str(category)), **mark))
    if coloring.values.isna().any():
        x, y = xy[coloring.values.isna().to_numpy()].T
        ax.scatter(x, y, color=GREY, **style)
        handles.append(Line2D([], [], linestyle="", markersize=6, label="none", color=GREY, marker="o"))
    # Added as an artist, so that the axes may have a legend of their own beside it.
    legend = Legend(
        ax,
        handles,
        [str(handle.get_label()) for handle in handles],
        title=literal(coloring.label),
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        alignment="left",
        ncols=1 + (len(handles) - 1) // 16,
    )
    ax.add_artist(legend).set_clip_on(False)  # else the layout leaves no room for it


def _readable(times: np.ndarray) -> tuple[float, ...]:
    """Return the times where all of them can be written beside a colour bar, else none."""
    gaps = np.diff(times) / np.ptp(times) if len(times) > 1 else np.ones(1)
    return tuple(times.tolist()) if len(times) <= MOST_TICKS and gaps.min() > 0.05 else ()


def _palette(adata: "AnnData", name: str, n: int) -> tuple[str, ...]:
    """Return the colours that scanpy noted for a column, if there is one for each category; else ours."""
    noted = adata.uns.get(f"{name}_colors", ())
    return tuple(map(str, noted)) if len(noted) == n else PALETTE
