"""Streamlines and arrows, only where cells are."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cellflow.nearest import Nearest
from cellflow.pl.basis import Basis
from cellflow.pl.canvas import INK, literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.quiver import Quiver

KINDS = ("stream", "grid", "cell")
GRID = 50
"""Grid points along the longer side of the picture."""
DENSITY = 1.3
"""How close streamlines are, where those of matplotlib are at 1."""
NEAREST = 100
"""Cells whose velocities are averaged at a grid point, at most."""
LEAST = 3.0
"""Cells, counted by their weight in the average, that a grid point needs to be drawn."""
FEWEST = 3
"""Cells of a panel from which on averages are drawn."""
MOST = 10
"""Times as many, as large, or as thick as usual, at most."""
PALEST = "#d9d9d9"
"""Colour of a velocity without any confidence."""


@dataclass(frozen=True)
class Strokes:
    """How close, large and thick lines and arrows are, relative to what is usual.

    Parameters
    ----------
    density
        How close they are.
    arrow_size
        How large heads are.
    linewidth
        How thick lines are.
    """

    density: float = 1.0
    arrow_size: float = 1.0
    linewidth: float = 1.0

    def smaller(self, panels: int) -> "Strokes":
        """Return the sizes for one of several, smaller panels."""
        return self if panels == 1 else Strokes(0.6 * self.density, 0.7 * self.arrow_size, 0.7 * self.linewidth)

    def __post_init__(self) -> None:
        for name in ("density", "arrow_size", "linewidth"):
            if not 0 < getattr(self, name) <= MOST:
                raise ValueError(f"Expected 0 < {name} <= {MOST}; found {getattr(self, name)}.")


@dataclass(frozen=True)
class Seen:
    """The cells of a panel with their velocities.

    Parameters
    ----------
    picture
        The basis.
    xy
        Where the cells are, ``(n, 2)``.
    arrows
        Their velocities in the basis, ``(n, 2)``.
    per
        Unit of the velocities.
    confidence
        Confidence of each velocity, between 0 and 1, ``(n,)``; ``None`` if unknown.
    """

    picture: Basis
    xy: np.ndarray
    arrows: np.ndarray
    per: str
    confidence: np.ndarray | None = None


def draw_velocities(ax: "Axes", seen: Seen, kind: str, strokes: Strokes) -> None:
    """Draw velocities as streamlines, averaged arrows, or an arrow on every cell."""
    if kind == "cell":
        longest = 0.06 * float(np.ptp(seen.picture.xy[:, 0]))
        _arrows(ax, seen, seen.xy, seen.arrows, seen.confidence, strokes, longest=longest, thickness=0.0022)
    elif len(seen.xy) >= FEWEST:
        (_stream if kind == "stream" else _grid)(ax, seen, strokes)
    if seen.confidence is not None:
        ax.set_xlabel(f"{ax.get_xlabel()}\npale: low confidence")


def _stream(ax: "Axes", seen: Seen, strokes: Strokes) -> None:
    gx, gy, mean = on_grid(seen.xy, seen.arrows)
    speed = np.linalg.norm(mean, axis=2)
    if np.isnan(speed).all():
        return
    fastest = np.nanmax(speed)
    width = strokes.linewidth * (0.4 + 1.6 * np.nan_to_num(speed / fastest) if fastest > 0 else np.ones_like(speed))
    u, v = np.ma.masked_invalid(mean.transpose(2, 0, 1))
    style: dict[str, Any] = {
        "linewidth": width,
        "density": DENSITY * strokes.density,
        "arrowsize": 1.1 * strokes.arrow_size,
    }
    if seen.confidence is None:
        style["color"] = INK
    else:
        sure = on_grid(seen.xy, seen.confidence[:, None])[2][..., 0]
        style |= {"color": np.nan_to_num(sure), "cmap": _pale(), "norm": _unit()}
    # streamplot leaves no margin, which cuts off the outermost cells; panels with and without streams are of one size.
    wide, high = ax.get_xlim(), ax.get_ylim()
    ax.streamplot(gx, gy, u, v, zorder=2, **style)
    ax.set_xlim(wide, auto=True)
    ax.set_ylim(high, auto=True)


def _grid(ax: "Axes", seen: Seen, strokes: Strokes) -> None:
    n = max(4, round(GRID / 2 * strokes.density**0.5))
    gx, gy, mean = on_grid(seen.xy, seen.arrows, n=n)
    places, there = np.stack(np.meshgrid(gx, gy), axis=2), ~np.isnan(mean[..., 0])
    sure = None if seen.confidence is None else on_grid(seen.xy, seen.confidence[:, None], n=n)[2][there, 0]
    longest = 1.6 * float(gx[1] - gx[0])
    _arrows(ax, seen, places[there], mean[there], sure, strokes, longest=longest, thickness=0.004)


def _arrows(
    ax: "Axes",
    seen: Seen,
    places: np.ndarray,
    arrows: np.ndarray,
    sure: np.ndarray | None,
    strokes: Strokes,
    *,
    longest: float,
    thickness: float,
) -> None:
    """Draw arrows in the units of the axes, scaled so that all but the fastest are shorter than ``longest``."""
    over_time = seen.picture.over_time
    length = np.abs(arrows[:, 0]) if over_time else np.linalg.norm(arrows, axis=1)
    fast = float(np.quantile(length, 0.95)) if len(length) else 0.0
    if fast == 0:
        return
    style: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": fast / longest, "zorder": 2}
    style |= {"width": thickness * strokes.linewidth}
    style |= {name: size * strokes.arrow_size for name, size in _HEAD.items()}
    if sure is None:
        drawn = ax.quiver(*places.T, *arrows.T, color=INK, **style)
    else:
        drawn = ax.quiver(*places.T, *arrows.T, sure, cmap=_pale(), norm=_unit(), **style)
    # Limits follow where arrows start; they shall hold where they end, too.
    ax.update_datalim(places + arrows * longest / fast)
    ax.autoscale_view()
    if seen.picture.columns is not None and not over_time:
        _key_arrow(ax, drawn, fast, seen.per)


_HEAD = {"headwidth": 3.0, "headlength": 5.0, "headaxislength": 4.5}


def _key_arrow(ax: "Axes", drawn: "Quiver", fast: float, per: str) -> None:
    """Draw a key above the axes: an arrow of a round speed."""
    digit = 10 ** np.floor(np.log10(fast))
    speed = digit * max(step for step in (1, 2, 5) if step * digit <= fast)
    key = ax.quiverkey(
        drawn, 0.88, 1.03, speed, literal(f"{speed:g} {per}"), labelpos="W", coordinates="axes", color=INK
    )
    key.set_in_layout(False)
    ax.set_title(" ")  # the layout leaves room for a title, not for a key


def _pale() -> "Colormap":
    """Return colours from the palest to that of ink."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("confidence", [PALEST, INK])


def _unit() -> Any:
    from matplotlib.colors import Normalize

    return Normalize(0, 1)


def on_grid(xy: np.ndarray, arrows: np.ndarray, *, n: int = GRID) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average velocities on a regular grid with a Gaussian kernel; NaN where there are no cells.

    A point of the grid has cells where one is nearer than the fifth neighbour of nine cells in ten, or than the next
    point of the grid, and where few weigh enough in the average.

    Parameters
    ----------
    xy
        Where the cells are, ``(cells, 2)``.
    arrows
        Their velocities, ``(cells, 2)``, or any other numbers of them.
    n
        Grid points along the longer side.

    Returns
    -------
    tuple
        Coordinates of the columns and of the rows, and the averages ``(rows, columns, 2)``.

    Examples
    --------
    >>> import numpy as np
    >>> xy = np.random.default_rng(0).normal(size=(500, 2))
    >>> _, _, mean = on_grid(xy, np.tile([1.0, 2.0], (500, 1)))
    >>> np.nanmin(mean, axis=(0, 1)), np.nanmax(mean, axis=(0, 1))
    (array([1., 2.]), array([1., 2.]))
    """
    xy = np.asarray(xy, dtype=np.float64)  # steps of a grid in single precision are not equal
    low = xy.min(axis=0)
    span = max(float(np.ptp(xy, axis=0).max()), float(np.finfo(np.float32).tiny))
    scaled = (xy - low) / span
    ends = scaled.max(axis=0)
    axes = [np.linspace(0, end, max(2, round(n * end))) if end > 0 else np.linspace(-0.1, 0.1, 3) for end in ends]
    places = np.stack(np.meshgrid(*axes), axis=2)
    k = min(NEAREST, len(xy))
    distance, near = Nearest(scaled, k).search(places.reshape(-1, 2))
    # Where cells are sparse the kernel reaches their neighbours, where they are dense the next grid point.
    apart = Nearest(scaled, min(11, len(xy))).search(scaled)[0][:, 1:]
    reach = max(1 / n, float(np.median(apart[:, -1])))
    weight = np.exp(-0.5 * (distance / reach) ** 2)
    mass = weight.sum(axis=1, keepdims=True)
    mean = np.einsum("gk,gkc->gc", weight, arrows[near]) / np.maximum(mass, np.finfo(float).tiny)
    there = (mass >= LEAST) & (distance[:, :1] <= max(1 / n, float(np.quantile(apart[:, min(4, len(xy) - 2)], 0.9))))
    mean = np.where(there, mean, np.nan).reshape(*places.shape[:2], -1)
    return low[0] + axes[0] * span, low[1] + axes[1] * span, mean
