"""How cells look: the arguments that all plots of cells share, named as scanpy names them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np

from cellflow.errors import unknown
from cellflow.pl.canvas import GREY
from cellflow.signature import checked

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

LEGENDS = ("right margin", "on data", "none")
Limit = float | str | None
"""An end of a scale of colours: a number, or a percentile such as ``"p99"``."""


@checked
@dataclass(frozen=True)
class Look:
    """How cells are drawn.

    Parameters
    ----------
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

    Raises
    ------
    ValueError
        When a value is invalid; the message says which are valid.

    Examples
    --------
    >>> Look(vmax="p99").limits(np.arange(101.0))
    (0.0, 99.0)
    """

    cmap: "str | Colormap | None" = None
    palette: str | Sequence[str] | Mapping[str, str] | None = None
    size: float | None = None
    alpha: float | None = None
    legend_loc: str | None = "right margin"
    layer: str | None = None
    use_raw: bool = False
    sort_order: bool = True
    vmin: Limit = None
    vmax: Limit = None
    na_color: str = GREY
    frameon: bool | None = None
    title: str | Sequence[str] | None = None
    ncols: int = 4

    def __post_init__(self) -> None:
        if self.size is not None and not 0 < self.size < np.inf:
            raise ValueError(f"Expected size > 0; found {self.size}.")
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            raise ValueError(f"Expected 0 <= alpha <= 1; found {self.alpha}.")
        if self.ncols < 1:
            raise ValueError(f"Expected ncols >= 1; found {self.ncols}.")
        if self.legend_loc is not None and self.legend_loc not in LEGENDS:
            raise ValueError(unknown("legend_loc", self.legend_loc, LEGENDS))
        if self.layer is not None and self.use_raw:
            raise ValueError("`layer` and `use_raw` name two sources for one gene. Give one of them.")
        for name in ("vmin", "vmax"):
            _check_limit(name, getattr(self, name))
        if self.na_color != GREY:  # matplotlib is imported for what was asked alone
            _check_color("na_color", self.na_color)
        if isinstance(self.cmap, str):
            _check_map("cmap", self.cmap)
        if isinstance(self.palette, str):
            _check_map("palette", self.palette)
        elif self.palette is not None:
            _check_palette(self.palette)

    def limits(self, values: np.ndarray) -> tuple[float, float]:
        """Return the limits of the scale for values ``(n,)``, ignoring those that are not finite.

        Raises
        ------
        ValueError
            When the lower end is above the upper one.
        """
        finite = values[np.isfinite(values)]
        if not len(finite):
            return 0.0, 1.0
        low, high = (_limit(end, finite, end_of) for end, end_of in ((self.vmin, 0.0), (self.vmax, 100.0)))
        if low > high:
            raise ValueError(f"Expected vmin <= vmax; found {low:g} and {high:g}.")
        return low, high

    def title_of(self, panel: int, other: str | None) -> str | None:
        """Return the title of a panel, by its number; ``other`` if none was given."""
        if self.title is None:
            return other
        if isinstance(self.title, str):
            return self.title
        return self.title[panel] if panel < len(self.title) else other


def look_of(plot: str, given: Mapping[str, Any], *, takes: Sequence[str] | None = None) -> Look:
    """Return the look that the keyword arguments of a plot specify.

    Parameters
    ----------
    plot
        Its name, for messages.
    given
        The arguments.
    takes
        Those that the plot takes, where some of them would change nothing; ``None`` for all.

    Raises
    ------
    TypeError
        When the plot has no such argument; the message has close matches.

    Examples
    --------
    >>> look_of("pl.velocity", {"size": 4.0}).size
    4.0
    """
    known = [field.name for field in fields(Look) if takes is None or field.name in takes]
    for name in given:
        if name not in known:
            others = ["color", "basis", "by", "figure"] if takes is None else []
            close = get_close_matches(name, [*known, *others], n=3)
            hint = (
                f"Did you mean {' or '.join(close)}?" if close else f"The look of cells is set by {', '.join(known)}."
            )
            raise TypeError(f"{plot}() has no argument {name!r}. {hint}")
    return Look(**given)


def _limit(end: Limit, finite: np.ndarray, otherwise: float) -> float:
    if end is None or isinstance(end, str):
        return float(np.percentile(finite, otherwise if end is None else float(end[1:])))
    return float(end)


def _check_limit(name: str, end: Limit) -> None:
    if isinstance(end, str):
        if not re.fullmatch(r"p\d+(\.\d+)?", end) or float(end[1:]) > 100:
            raise ValueError(f"Expected `{name}` to be a number, or a percentile such as 'p99'; found {end!r:.60}.")
    elif end is not None and not np.isfinite(end):
        raise ValueError(f"Expected `{name}` to be finite; found {end}.")


def _check_color(name: str, color: object) -> None:
    from matplotlib.colors import is_color_like

    if not is_color_like(color):
        raise ValueError(f"Expected a colour in `{name}`, such as '#0072B2' or 'grey'; found {color!r:.60}.")


def _check_map(name: str, asked: str) -> None:
    import matplotlib as mpl

    if asked not in mpl.colormaps:
        close = get_close_matches(asked, list(mpl.colormaps), n=3) or ["viridis", "magma", "tab20"]
        raise ValueError(f"Unknown {name} {asked!r:.60}. Did you mean one of {close}?")


def _check_palette(palette: Sequence[str] | Mapping[str, str]) -> None:
    if not len(palette):
        raise ValueError("Expected one colour or more in `palette`; found none.")
    for color in palette.values() if isinstance(palette, Mapping) else palette:
        _check_color("palette", color)
