"""Names beside points: none over another, over a point, or over a line."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from cellflow.pl.canvas import INK, literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyArrowPatch

SIZE = 8.5
"""Size of the letters, in points."""
AWAY = (4, 9, 16, 26, 38)
"""How far from its point a name may stand, in points; the nearest free place is taken."""
FAR = (2, 8, 16, 26, 38, 52, 68)
"""The same, for a name that stands best on its point."""
TURNS = np.arange(0, 360, 30)
"""Directions in which places are tried, in degrees."""
MARK = 3.0
"""Half the side of what a point covers, in points."""


@dataclass
class _Room:
    """What is drawn already, in pixels.

    Attributes
    ----------
    points, names
        Boxes ``(m, 4)``: left, bottom, right, top.
    lines, leaders
        Segments ``(m, 2, 2)``: start and end.
    inside
        The box ``(4,)`` of the axes.
    """

    points: np.ndarray
    names: np.ndarray
    lines: np.ndarray
    leaders: np.ndarray
    inside: np.ndarray


def write_names(
    ax: "Axes",
    x: np.ndarray,
    y: np.ndarray,
    names: Sequence[str],
    *,
    clear: np.ndarray,
    lines: np.ndarray | None = None,
    marks: np.ndarray | None = None,
    on: bool = False,
) -> list[str]:
    """Write the names of points beside them, in order; names without room are left out.

    A name that does not fit beside its point has a leader line, which crosses no other name, leader or point. The axes
    must be final: limits and layout decide where there is room.

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
    lines
        Segments ``(m, 2, 2)``, start and end, that no name may cover; ``None`` for none.
    marks
        Half the side of what each of the points to name covers, in points ``(k,)``; ``None`` for that of a dot.
    on
        Whether a name may, and preferably should, lie on its point, as in the middle of a group of cells.

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
    for _ in range(2 if on else 1):  # layout is done when drawn, and limits of equal scale once more when it is done
        figure.draw_without_rendering()
    scale = figure.dpi / 72
    points = ax.transData.transform(np.column_stack([x, y]))
    marks = np.full(len(points), MARK) if marks is None else np.asarray(marks)
    others = ax.transData.transform(clear)
    drawn = np.zeros((0, 2, 2)) if lines is None else np.asarray(lines, dtype=np.float64)
    covered = np.concatenate([_around(points, scale * marks[:, None]), _around(others, scale * MARK)])
    room = _Room(
        points=covered[:0] if on else covered,
        names=np.array([text.get_window_extent().extents for text in ax.texts]).reshape(-1, 4),
        lines=ax.transData.transform(drawn.reshape(-1, 2)).reshape(-1, 2, 2),
        leaders=np.zeros((0, 2, 2)),
        inside=np.asarray(ax.get_window_extent().extents),
    )
    written = []
    for name, point, mark, at in zip(names, points, marks, zip(x, y, strict=True), strict=True):
        text = ax.annotate(
            literal(name), at, xytext=(0, 0), textcoords="offset points", color=INK, ha="center", va="center", zorder=5,
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": INK, "alpha": 0.6},
            **(on_cells() if on else {"fontsize": SIZE}),
        )  # fmt: skip
        leader = cast("FancyArrowPatch", text.arrow_patch)
        leader.set_visible(False)
        text.set_in_layout(not on)  # else names would move what they were placed by
        box = text.get_window_extent()
        half = np.array([box.width, box.height]) / 2
        aways = np.array([0.0, *FAR]) if on else np.array(AWAY) + mark - MARK
        place = _on(point, half, room) if on else None
        place = place or _free(point, half, room, scale * aways)
        if place is None:
            text.remove()
            continue
        centre, beside = place
        text.set_position((centre - point) / scale)
        room.names = np.concatenate([room.names, _around(centre[None], half)])
        if not beside:
            leader.set_visible(True)
            room.leaders = np.concatenate([room.leaders, [[point, centre]]])
        written.append(name)
    return written


def on_cells() -> dict[str, Any]:
    """Return how letters are drawn that stand on cells or arrows: bold, on a light ground with a white line around."""
    from matplotlib.patheffects import withStroke

    ground = {"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.75, "linewidth": 0}
    outline = [withStroke(linewidth=3.0, foreground="white")]
    return {"path_effects": outline, "fontweight": "bold", "fontsize": SIZE + 1, "bbox": ground}


def _on(point: np.ndarray, half: np.ndarray, room: _Room) -> tuple[np.ndarray, bool] | None:
    """Return the place on a point, moved as far as the axes reach, if it is free."""
    low, high = room.inside[:2] + half, room.inside[2:] - half
    centre = np.clip(point, low, np.maximum(low, high))
    return (centre, True) if _fits(_around(centre[None], half), room) else None


def _free(point: np.ndarray, half: np.ndarray, room: _Room, aways: np.ndarray) -> tuple[np.ndarray, bool] | None:
    """Return the centre of the nearest free place of a name, in pixels, and whether it needs no leader there."""
    for away in aways:
        for turn in np.deg2rad(TURNS):
            way = np.array([np.cos(turn), np.sin(turn)])
            centre = point + way * (away + half * np.abs(way))  # as far as the letters need in that direction
            box, beside = _around(centre[None], half), away == aways[0]
            led = beside or _leads(np.array([[point, centre]]), room)
            if led and _fits(box, room) and _nearest(point, box[0], room, aways[1]):
                return centre, beside
    return None


def _nearest(point: np.ndarray, box: np.ndarray, room: _Room, near: float) -> bool:
    """Return whether no other point is so near to a name ``(4,)`` that it would seem to be that one's."""
    centres = (room.points[:, :2] + room.points[:, 2:]) / 2
    far = np.linalg.norm(centres - np.clip(centres, box[:2], box[2:]), axis=1)
    own = float(np.linalg.norm(point - np.clip(point, box[:2], box[2:])))
    return bool((far >= min(own, near) - 1e-6).all())


def _fits(box: np.ndarray, room: _Room) -> bool:
    """Return whether a name ``(1, 4)`` covers nothing."""
    if (box[0, :2] < room.inside[:2]).any() or (box[0, 2:] > room.inside[2:]).any():
        return False
    taken = np.concatenate([room.points, room.names])
    apart = (taken[:, 2:] <= box[:, :2]).any(axis=1) | (taken[:, :2] >= box[:, 2:]).any(axis=1)
    return bool(apart.all() and not _crosses(np.concatenate([room.lines, room.leaders]), box).any())


def _leads(leader: np.ndarray, room: _Room) -> bool:
    """Return whether a leader ``(1, 2, 2)`` crosses no name, no other leader, and no point but its own."""
    start = leader[0, 0]
    own = (room.points[:, :2] <= start).all(axis=1) & (room.points[:, 2:] >= start).all(axis=1)
    boxes = np.concatenate([room.points[~own], room.names])
    return not _crosses(leader, boxes).any() and not _meet(leader[0], room.leaders).any()


def _crosses(segments: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return which segments ``(m, 2, 2)`` go through which boxes ``(k, 4)``, as ``(m, k)``.

    Examples
    --------
    >>> _crosses(np.array([[[0.0, 0.0], [2.0, 2.0]]]), np.array([[1.0, 0.0, 3.0, 3.0], [0.0, 1.0, 0.5, 2.0]])).tolist()
    [[True, False]]
    """
    start, way = segments[:, None, 0], segments[:, None, 1] - segments[:, None, 0]
    way = np.where(way == 0, 1e-9, way)  # upright and level ones
    one, other = (boxes[None, :, :2] - start) / way, (boxes[None, :, 2:] - start) / way
    enters, leaves = np.minimum(one, other).max(axis=-1), np.maximum(one, other).min(axis=-1)
    found: np.ndarray = (enters <= leaves) & (leaves >= 0) & (enters <= 1)
    return found


def _meet(segment: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return which of other segments ``(m, 2, 2)`` one ``(2, 2)`` crosses.

    Examples
    --------
    >>> others = np.array([[[0.0, 2.0], [2.0, 0.0]], [[3.0, 0.0], [4.0, 0.0]]])
    >>> _meet(np.array([[0.0, 0.0], [2.0, 2.0]]), others).tolist()
    [True, False]
    """
    start, end = others[:, 0], others[:, 1]
    apart = _side(segment[0], segment[1], start) * _side(segment[0], segment[1], end)
    found: np.ndarray = (apart <= 0) & (_side(start, end, segment[0]) * _side(start, end, segment[1]) <= 0)
    return found


def _side(start: np.ndarray, end: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return on which side of lines points are, by its sign."""
    way, to = end - start, points - start
    found: np.ndarray = way[..., 0] * to[..., 1] - way[..., 1] * to[..., 0]
    return found


def _around(points: np.ndarray, half: np.ndarray | float) -> np.ndarray:
    """Return boxes ``(m, 4)`` around points ``(m, 2)``."""
    return np.concatenate([points - half, points + half], axis=1)
