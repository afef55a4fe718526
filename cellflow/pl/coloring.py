"""What the colour of cells shows: their time, a column of ``obs``, or a gene."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cellflow.cells.columns import read_column
from cellflow.cells.expression import places_of, read_expression
from cellflow.cells.snapshots import read_times
from cellflow.errors import unknown
from cellflow.pl.canvas import MARKERS, PALETTE
from cellflow.pl.look import Look

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.colors import Colormap

MOST_TICKS = 12
PLAIN = Look()


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
    ranked
        Whether high values are drawn on top of low ones.
    """

    label: str
    values: pd.Series
    ticks: tuple[float, ...] = ()
    palette: tuple[str, ...] = PALETTE
    ranked: bool = False

    @property
    def categories(self) -> tuple[str, ...]:
        """The names of the categories; empty for numbers."""
        return tuple(map(str, self.values.cat.categories)) if self.categorical else ()

    @property
    def categorical(self) -> bool:
        """Whether cells have categories rather than numbers."""
        return isinstance(self.values.dtype, pd.CategoricalDtype)

    def mark(self, category: int) -> tuple[str, str]:
        """Return the colour and the mark of a category, by its position."""
        return self.palette[category % len(self.palette)], MARKERS[category // len(self.palette) % len(MARKERS)]

    def numbers(self) -> np.ndarray:
        """Return the numbers ``(n,)``, missing ones as NaN."""
        return self.values.to_numpy(dtype=np.float64, na_value=np.nan)


def by_time(adata: "AnnData", time_key: str, unit: str) -> Coloring:
    """Colour cells by their time, in the unit given."""
    time = read_times(adata, time_key)
    return Coloring(unit, pd.Series(time), _readable(np.unique(time)))


def by_column(adata: "AnnData", name: str, look: Look = PLAIN) -> Coloring:
    """Colour cells by a column of ``obs``, or by the expression of a gene.

    Raises
    ------
    KeyError
        When there is neither; the message has close matches.
    ValueError
        When there are more categories than distinguishable colours.

    Examples
    --------
    >>> import cellflow as cf
    >>> by_column(cf.datasets.hsmm(), "MYOG").label
    'MYOG'
    """
    if name not in adata.obs:
        values = pd.Series(expression(adata, name, layer=look.layer, use_raw=look.use_raw))
        return Coloring(name, values, ranked=True)
    column = read_column(adata, name, setting="color").reset_index(drop=True)
    if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype):
        return Coloring(name, column, ranked=True)
    column = column.astype("category")
    categories = list(map(str, column.cat.categories))
    palette = palette_of(adata, name, categories, look)
    most = len(palette) * len(MARKERS)
    if len(categories) > most:
        raise ValueError(
            f"`adata.obs[{name!r}]` has {len(categories)} categories; at most {most} are drawn. Merge the rare ones, "
            "or give a `palette` with more colours."
        )
    return Coloring(name, column, palette=palette)


def expression(adata: "AnnData", gene: str, *, layer: str | None = None, use_raw: bool = False) -> np.ndarray:
    """Return the expression of one gene, ``(n,)``: from ``X``, a layer, or ``raw``.

    Raises
    ------
    KeyError
        When the gene or layer does not exist, or there is no expression; the message has close matches.
    ValueError
        When several genes have this name.

    Examples
    --------
    >>> import cellflow as cf
    >>> expression(cf.datasets.hsmm(), "MYOG").shape
    (271,)
    """
    held = read_expression(adata, layer=layer, use_raw=use_raw)
    names = held.names.astype(str)
    if gene not in names:
        close = get_close_matches(gene, [*map(str, adata.obs.columns), *names], n=5)
        hint = f"Did you mean one of {close}?" if close else f"Columns of obs: {list(adata.obs.columns)}."
        raise KeyError(f"No `adata.obs[{gene!r}]`, and no gene of that name. {hint}")
    (at,) = places_of(held.names, [gene])
    column = held.values[:, at]
    return np.asarray(column.toarray() if hasattr(column, "toarray") else column, dtype=np.float64).ravel()


def time_colors() -> "Colormap":
    """Return viridis without its palest end, which vanishes on white."""
    import matplotlib as mpl
    from matplotlib.colors import ListedColormap

    return ListedColormap(mpl.colormaps["viridis"](np.linspace(0, 0.93, 256)), name="time")


def colors_of(look: Look) -> "Colormap":
    """Return the colour map that a look specifies."""
    import matplotlib as mpl

    if look.cmap is None:
        return time_colors()
    return mpl.colormaps[look.cmap] if isinstance(look.cmap, str) else look.cmap


def without_label(coloring: Coloring | None) -> Coloring | None:
    """Return a colouring whose name is shown elsewhere, as in the title."""
    return None if coloring is None else replace(coloring, label="")


def _readable(times: np.ndarray) -> tuple[float, ...]:
    """Return the times where all of them can be written beside a colour bar, else none."""
    gaps = np.diff(times) / np.ptp(times) if len(times) > 1 else np.ones(1)
    return tuple(times.tolist()) if len(times) <= MOST_TICKS and gaps.min() > 0.05 else ()


def colors_for(look: Look, usual: Mapping[str, str]) -> dict[str, str]:
    """Return a colour for each of a few things: that of the palette of a look, by name or in their order, or the usual.

    Raises
    ------
    ValueError
        When the palette has fewer colours than there are things, or names none of them.

    Examples
    --------
    >>> colors_for(Look(palette={"predicted": "red"}), {"observed": "blue", "predicted": "orange"})
    {'observed': 'blue', 'predicted': 'red'}
    """
    asked, names = look.palette, list(usual)
    if asked is None:
        return dict(usual)
    if isinstance(asked, Mapping):
        if strange := [name for name in asked if name not in names]:
            raise ValueError(unknown("name in `palette`", strange[0], names))
        return {**usual, **asked}
    colors = _sampled(asked, len(names)) if isinstance(asked, str) else tuple(asked)
    if len(colors) < len(names):
        raise ValueError(f"Expected a colour in `palette` for each of {names}; found {len(colors)}.")
    return dict(zip(names, colors, strict=False))


def palette_of(adata: "AnnData", name: str, categories: list[str], look: Look) -> tuple[str, ...]:
    """Return colours of the categories of a column: those given; else those stored by scanpy; else ours."""
    asked = look.palette
    if isinstance(asked, Mapping):
        return tuple(asked.get(category, look.na_color) for category in categories)
    if isinstance(asked, str):
        return _sampled(asked, len(categories))
    if asked is not None:
        return tuple(asked)
    noted = tuple(map(str, adata.uns.get(f"{name}_colors", ())))
    return noted if noted and len(noted) == len(categories) else PALETTE


def _sampled(name: str, n: int) -> tuple[str, ...]:
    """Return ``n`` colours of a colour map: the first ones of a list of distinct ones, else evenly spread ones."""
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    found = mpl.colormaps[name]
    if found.N <= 64:  # a list of colours, such as tab20
        return tuple(to_hex(found(k)) for k in range(found.N))
    return tuple(to_hex(color) for color in found(np.linspace(0.02, 0.93, max(n, 1))))
