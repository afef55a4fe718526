"""Axes and figures: the user's own, or new ones; and how all of ours look."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#222222"
GREY = "#b8b8b8"
OBSERVED = "#0072B2"
PREDICTED = "#D55E00"
"""Blue and vermilion of the palette by Okabe and Ito: told apart by every kind of colour vision."""
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6D00", "#222222")
"""The palette of Okabe and Ito 2008, "Color universal design"; yellow is darkened to be seen on white."""
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")


def axes_or_new(ax: "Axes | None", *, size: tuple[float, float]) -> "Axes":
    """Return the given axes, or those of a new pyplot figure, so that a notebook shows it.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> given = Figure().subplots()
    >>> axes_or_new(given, size=(4, 3)) is given
    True
    """
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=size, layout="constrained")[1]


def figure_or_new(figure: "Figure | None", *, size: tuple[float, float]) -> "Figure":
    """Return the figure given, or a new one of pyplot.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> given = Figure()
    >>> figure_or_new(given, size=(4, 3)) is given
    True
    """
    if figure is not None:
        return figure
    import matplotlib.pyplot as plt

    return plt.figure(figsize=size, layout="constrained")


def literal(text: str) -> str:
    r"""Escape a user's name, so that matplotlib shows it literally: between dollar signs it would read mathematics.

    Examples
    --------
    >>> print(literal("cost in $"))
    cost in \$
    """
    return text.replace("$", r"\$")


def plain(ax: "Axes") -> None:
    """Remove the upper and right side of the frame."""
    ax.spines[["top", "right"]].set_visible(False)


def dot_size(n: int) -> float:
    """Return the area of the mark of one of ``n`` cells: many cells, small marks.

    Examples
    --------
    >>> dot_size(271), dot_size(100_000)
    (24.0, 2.0)
    """
    return float(np.clip(20_000 / max(n, 1), 2.0, 24.0))
