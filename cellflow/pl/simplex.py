"""Fates of cells as places between the fates: on a triangle, or on a circle of more than three."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cellflow.pl.canvas import GREY, INK, figure_or_new
from cellflow.pl.fates import Fates
from cellflow.pl.look import Look
from cellflow.pl.marks import written
from cellflow.pl.panels import panels

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE = 0.22
"""Half the width over which cells between two fates are scattered."""
NARROWEST, WIDEST = 0.02, 0.08
"""How far cells that share a place may stand from it, at least and at most."""
CLOSE = 0.02
"""How far apart such cells stand at most."""


def draw_simplex(
    adata: "AnnData",
    found: Fates,
    *,
    color: str | Sequence[str] | None,
    by: str | None,
    look: Look,
    figure: "Figure | None",
) -> "Figure":
    """Draw each cell at the mean of the places of the fates, weighted by its own.

    Raises
    ------
    ValueError
        When there is only one fate.

    Source
    ------
    Velten et al. 2017 (Nature Cell Biology 19, 271-281), circular projection of fate probabilities.
    """
    if len(found.groups) < 2:
        raise ValueError(
            f"There is only one fate, {found.groups[0]!r}, and so nothing between fates. Use `kind='bars'`."
        )
    few = adata[found.known]
    order = around(found.shares[found.known])
    corners = places(len(order))
    xy = found.shares[found.known][:, order] @ corners
    xy = along(xy) if len(order) == 2 else apart(xy)
    time_key = found.time_key if found.time_key in adata.obs else None
    single = (isinstance(color, str) or color is None or len(color) == 1) and by is None
    laid: dict[str, Any] = {"time_key": time_key, "unit": found.unit, "look": look}
    if single and figure is None:
        figure = figure_or_new(None, size=(6.4, 2.6 if len(order) == 2 else 5.4))
    made = panels(few, color=color, by=by, ax=None, figure=figure, **laid)
    names = [found.groups[k] for k in order]
    colors = [found.colors(adata, look)[k] for k in order]
    for panel in made.panels:
        _frame(panel.ax, corners, names, colors, small=len(made.panels) > 1)
        made.draw(panel, xy, alpha=0.7)
    whole = made.finish(xy)
    return whole if whole is figure or not hasattr(whole, "get_xlabel") else whole.figure  # type: ignore[return-value]


def places(n: int) -> np.ndarray:
    """Return the places of ``n`` fates ``(n, 2)``: two on a line, others on a circle, the first on top.

    Examples
    --------
    >>> places(3).round(2)
    array([[ 0.  ,  1.  ],
           [ 0.87, -0.5 ],
           [-0.87, -0.5 ]])
    """
    if n == 2:
        return np.array([[-1.0, 0.0], [1.0, 0.0]])
    turn = np.pi / 2 - 2 * np.pi * np.arange(n) / n
    found: np.ndarray = np.column_stack([np.cos(turn), np.sin(turn)]).round(12) + 0.0
    return found


def apart(xy: np.ndarray) -> np.ndarray:
    """Return places ``(n, 2)`` at which cells of one place stand side by side around it, always in the same way.

    Shares among ten neighbours are tenths: hundreds of cells may have the same. Each place becomes a disc whose area is
    the number of its cells, no wider than half the way to the next one; a cell that is alone stays where it is.

    Examples
    --------
    >>> apart(np.array([[0.0, 0.0], [1.0, 0.0]])).tolist()
    [[0.0, 0.0], [1.0, 0.0]]
    >>> bool(np.linalg.norm(apart(np.zeros((50, 2))), axis=1).max() <= WIDEST)
    True
    """
    spots, where, counts = np.unique(xy.round(6), axis=0, return_inverse=True, return_counts=True)
    where = where.ravel()
    step = min(CLOSE, _reach(spots) / np.sqrt(counts.max()))
    found, rng = xy.copy(), np.random.default_rng(0)
    for spot in np.flatnonzero(counts > 1):
        cells = rng.permutation(np.flatnonzero(where == spot))
        number = np.arange(len(cells)) + 0.5
        turn = np.pi * (3 - np.sqrt(5)) * number
        found[cells] += step * np.sqrt(number)[:, None] * np.column_stack([np.cos(turn), np.sin(turn)])
    return found


def along(xy: np.ndarray) -> np.ndarray:
    """Return places between two fates ``(n, 2)``, scattered across the line, and along it where many are in one place.

    Examples
    --------
    >>> np.ptp(along(np.tile([0.4, 0.0], (50, 1))), axis=0).round(1)
    array([0.2, 0.4])
    """
    rng = np.random.default_rng(0)
    spots, where, counts = np.unique(xy.round(6), axis=0, return_inverse=True, return_counts=True)
    found = xy.copy()
    found[:, 1] += LINE * rng.uniform(-1, 1, size=len(xy))
    found[:, 0] += _reach(spots) * rng.uniform(-1, 1, size=len(xy)) * (counts[where.ravel()] > 1)
    return found


def _reach(spots: np.ndarray) -> float:
    """Return how far from its place a cell may stand: not half the way to the next place."""
    from scipy.spatial import cKDTree

    if len(spots) == 1:
        return WIDEST
    return float(np.clip(0.45 * np.median(cKDTree(spots).query(spots, k=2)[0][:, 1]), NARROWEST, WIDEST))


def around(shares: np.ndarray) -> np.ndarray:
    """Return an order of fates around a circle in which those that cells have together are neighbours.

    Starting from the commonest, each is followed by that with which it shares most, among those that are left.

    Examples
    --------
    >>> around(np.array([[0.5, 0.0, 0.5, 0.0], [0.6, 0.0, 0.4, 0.0], [0.0, 0.4, 0.2, 0.4]]))
    array([0, 2, 1, 3])
    """
    if shares.shape[1] <= 3:
        return np.arange(shares.shape[1])
    together = shares.T @ shares
    order, left = [int(shares.sum(axis=0).argmax())], set(range(shares.shape[1]))
    left.remove(order[0])
    while left:
        order.append(max(sorted(left), key=lambda k: together[order[-1], k]))
        left.remove(order[-1])
    return np.array(order)


def _frame(ax: "Axes", corners: np.ndarray, names: list[str], colors: list[str], *, small: bool) -> None:
    """Draw the edges between the fates, and their names outside."""
    closed = np.concatenate([corners, corners[:1]])
    if len(corners) > 3:
        turn = np.linspace(0, 2 * np.pi, 181)
        closed = np.column_stack([np.cos(turn), np.sin(turn)])
    ax.plot(*closed.T, color=GREY, linewidth=0.8, zorder=0)
    for corner, name, color in zip(corners, names, colors, strict=True):
        x, y = corner
        ax.scatter(x, y, s=150 if small else 420, color=color, alpha=0.35, linewidths=0, zorder=0.5)  # below the cells
        ax.scatter(x, y, s=150 if small else 420, color="none", edgecolors=color, linewidths=1.2, zorder=0.5)
        side = "center" if abs(x) < 0.3 else "left" if x > 0 else "right"
        if len(corners) == 2:  # above the cells; in small panels not beyond the line: a neighbour has a name there
            side = "center" if not small else "right" if x > 0 else "left"
        stands = "bottom" if y > 0.3 or len(corners) == 2 else "top" if y < -0.3 else "center"
        lift = LINE + 0.08 if len(corners) == 2 else 0.0
        away = ((12 if small else 21) * x * (side != "center" and lift == 0), (12 if small else 21) * y)
        ax.annotate(
            written(name, 13 if small else 16), (x, y + lift), xytext=away, textcoords="offset points", ha=side,
            va=stands, fontsize=7.5 if small else 9, color=INK, zorder=5,
        )  # fmt: skip
    ax.set_aspect("equal")
    ax.set_axis_off()
    if len(corners) == 2:
        ax.set(xlim=(-1.2, 1.2) if small else (-1.5, 1.5), ylim=(-0.6, 0.6))
    else:  # room for names around, which in small panels are as large beside a smaller circle
        low, high, far = float(corners[:, 1].min()), (1.8 if small else 1.3), (1.9 if small else 1.15)
        ax.set(xlim=(-far, far), ylim=(low - (0.7 if small else 0.2), high))
