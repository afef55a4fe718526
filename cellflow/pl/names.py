"""Names beside points, none over another."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from cellflow.pl.canvas import INK, literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyArrowPatch

SIZE = 8.5
"""Size of the letters, in points."""
AWAY = (4, 11, 20, 32, 46, 62)
"""How far from its point a name may stand, in points; the nearest free place is taken."""
TURNS = np.arange(0, 360, 30)
"""Directions in which places are tried, in degrees."""
MARK = 4.0
"""Half the side of what a point covers, in pixels."""


def write_names(ax: "Axes", x: np.ndarray, y: np.ndarray, names: Sequence[str], *, clear: np.ndarray) -> list[str]:
    """Write the names of points beside them, the first ones first; those for which there is no room are left out.

    The axes have to be as they will stay: limits and layout decide where there is room.

    Parameters
    ----------
    ax
        The axes.
    x, y
        The points ``(k,)``.
    names
        Their names.
    clear
        Other points ``(m, 2)`` that no name may cover.

    Returns
    -------
    names
        Those that were written.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = Figure().subplots()
    >>> write_names(ax, np.array([0.5]), np.array([0.5]), ["A"], clear=np.zeros((0, 2)))
    ['A']
    """
    figure = cast("Figure", ax.get_figure(root=True))
    figure.draw_without_rendering()  # layout is done when drawn
    inside, scale = ax.get_window_extent(), figure.dpi / 72
    points = ax.transData.transform(np.column_stack([x, y]))
    taken = [_around(point) for point in (*points, *ax.transData.transform(clear))]
    taken += [np.asarray(text.get_window_extent().extents) for text in ax.texts]
    written = []
    for name, point, at in zip(names, points, zip(x, y, strict=True), strict=True):
        text = ax.annotate(
            literal(name), at, xytext=(0, 0), textcoords="offset points", fontsize=SIZE, color=INK, ha="center",
            va="center", zorder=5, arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": INK, "alpha": 0.6},
        )  # fmt: skip
        leader = cast("FancyArrowPatch", text.arrow_patch)
        leader.set_visible(False)
        box = text.get_window_extent()
        place = _free(point, box.width, box.height, taken, np.asarray(inside.extents), scale)
        if place is None:
            text.remove()
            continue
        centre, away = place
        text.set_position((centre - point) / scale)
        leader.set_visible(away > AWAY[0])
        taken.append(_box(centre, box.width, box.height))
        written.append(name)
    return written


def _free(
    point: np.ndarray, width: float, height: float, taken: Sequence[np.ndarray], inside: np.ndarray, scale: float
) -> tuple[np.ndarray, float] | None:
    """Return the centre of the nearest free place of a name, in pixels, and how far away it is."""
    boxes = np.array(taken)
    for away in AWAY:
        for turn in np.deg2rad(TURNS):
            way = np.array([np.cos(turn), np.sin(turn)])
            room = np.array([width, height]) / 2  # as far as the letters need in that direction, and then some
            centre = point + way * (scale * away + room * np.abs(way))
            low, high = centre - room, centre + room
            if (low < inside[:2]).any() or (high > inside[2:]).any():
                continue
            apart = (boxes[:, 2:] <= low).any(axis=1) | (boxes[:, :2] >= high).any(axis=1)
            if apart.all():
                return centre, away
    return None


def _around(point: np.ndarray) -> np.ndarray:
    return np.concatenate([point - MARK, point + MARK])


def _box(centre: np.ndarray, width: float, height: float) -> np.ndarray:
    half = np.array([width, height]) / 2
    return np.concatenate([centre - half, centre + half])
