"""Velocities as streamlines or arrows over the cells."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cellflow.cells.snapshots import read_times
from cellflow.errors import unknown
from cellflow.pl.basis import Basis, read_basis
from cellflow.pl.canvas import INK, axes_or_new, literal
from cellflow.pl.cells import Coloring, by_column, by_time, draw_cells
from cellflow.pl.labels import rate_label, unit_of, unit_of_result
from cellflow.pl.noted import check_noted, width_of
from cellflow.signature import checked

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.quiver import Quiver

    from cellflow.estimators import SnapshotFlow

KINDS = ("stream", "grid", "cell")
GRID = 40
"""Grid points along the longer side of the picture."""
NEAREST = 100
"""Cells whose velocities are averaged at a grid point, at most."""
LEAST = 3.0
"""Cells, counted by their weight in the average, that a grid point needs to be drawn."""


class _Noted(NamedTuple):
    """Velocities ``(n, d)``, the representation they belong to, and the time column and its unit where known.

    Last is how many of the first columns of the representation they have; ``None`` for all.
    """

    velocity: np.ndarray
    rep: str
    time_key: str | None
    unit: str
    n_pcs: int | None


@checked
def velocity(
    adata: "AnnData",
    flow: "SnapshotFlow | None" = None,
    *,
    basis: str = "pca",
    kind: str = "stream",
    color: str | None = None,
    components: tuple[int, int] = (0, 1),
    key: str = "velocity",
    rep: str | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the velocities of the cells.

    Parameters
    ----------
    adata
        The cells.
    flow
        A fitted flow, to evaluate now; nothing is written. ``None`` to draw what `cellflow.tl.velocity` wrote.
    basis
        What to draw on: ``"pca"`` for ``obsm["X_pca"]``. In an embedding other than the velocities' representation,
        arrows show directions only.
    kind
        ``"stream"`` for streamlines, thicker where cells move faster; ``"grid"`` for averaged arrows; ``"cell"`` for
        an arrow on every cell.
    color
        Column of ``obs``, or gene, that colours the cells; ``None`` for their time, where it is known.
    components
        Which two columns of the basis to show.
    key
        Name under which `cellflow.tl.velocity` wrote.
    rep
        The representation that the velocities in ``obsm[key]`` belong to, where they were not written by cellflow.
    ax
        Axes to draw on; ``None`` for new ones.

    Raises
    ------
    KeyError
        When there are no velocities, or no such basis or column.
    ValueError
        When the kind is unknown, or the velocities do not belong to a known representation.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> flow = cf.SnapshotFlow(rep="X_latent", steps=20).fit(adata)
    >>> ax = cf.pl.velocity(adata, flow, basis="latent", kind="grid")
    >>> ax.get_ylabel()
    'latent 2'
    """
    if kind not in KINDS:
        raise ValueError(unknown("kind", kind, KINDS))
    noted = _read(adata, key, rep) if flow is None else _evaluate(adata, flow)
    time = None if noted.time_key is None else read_times(adata, noted.time_key)
    picture = read_basis(
        adata, basis, rep=noted.rep, components=components, time=time, unit=noted.unit, n_pcs=noted.n_pcs
    )
    arrows = picture.velocities(noted.velocity)
    if picture.over_time and kind != "cell":
        raise ValueError(
            "A representation of one column is drawn over time, with nothing between the snapshots to average. Use "
            "`kind='cell'`."
        )
    ax = axes_or_new(ax, size=(6.4, 5.2))
    draw_cells(ax, picture.xy, _coloring(adata, color, noted), alpha=0.55)
    picture.dress(ax)
    _DRAW[kind](ax, picture, arrows, rate_label(noted.unit))
    return ax


def _evaluate(adata: "AnnData", flow: "SnapshotFlow") -> _Noted:
    states = flow.read(adata, weights=False)
    return _Noted(
        flow.velocity(states.x, states.time, condition=states.condition),
        flow.rep,
        flow.time_key,
        unit_of(adata, flow.time_key),
        flow.n_pcs,
    )


def _read(adata: "AnnData", key: str, rep: str | None) -> _Noted:
    if key not in adata.obsm:
        raise KeyError(
            f"No `adata.obsm[{key!r}]`. Available: {[*adata.obsm]}. Run `cf.tl.velocity(adata, flow)` first, or pass "
            "the flow: `cf.pl.velocity(adata, flow)`."
        )
    values = np.asarray(adata.obsm[key])
    note = adata.uns.get(key, {})
    check_noted(adata, note)
    rep = rep or note.get("rep") or _only_fit(adata, key, values.shape[1])
    return _Noted(values, str(rep), note.get("time_key"), unit_of_result(adata, note), width_of(note))


def _only_fit(adata: "AnnData", key: str, width: int) -> str:
    """Return the one representation ``X_...`` of the same width, for velocities that come without a note."""
    fits = [name for name, values in adata.obsm.items() if name.startswith("X_") and values.shape[1] == width]
    if len(fits) != 1:
        raise ValueError(
            f"`adata.obsm[{key!r}]` has {width} columns and no note of its representation; of that width are "
            f"{fits or 'none'}. Name it with `rep`."
        )
    return str(fits[0])


def _coloring(adata: "AnnData", color: str | None, noted: _Noted) -> Coloring | None:
    if color is not None:
        return by_column(adata, color)
    return None if noted.time_key is None else by_time(adata, noted.time_key, noted.unit)


def _stream(ax: "Axes", picture: Basis, arrows: np.ndarray, per: str) -> None:
    gx, gy, mean = on_grid(picture.xy, arrows)
    speed = np.linalg.norm(mean, axis=2)
    if np.isnan(speed).all():
        return
    width = 0.4 + 1.6 * np.nan_to_num(speed / np.nanmax(speed)) if np.nanmax(speed) > 0 else 1.0
    u, v = np.ma.masked_invalid(mean.transpose(2, 0, 1))
    ax.streamplot(gx, gy, u, v, color=INK, linewidth=width, density=1.3, arrowsize=1.1, zorder=2)
    # streamplot leaves no margin, which cuts off the outermost cells.
    ax.use_sticky_edges = False
    ax.autoscale_view(tight=False)


def _grid(ax: "Axes", picture: Basis, arrows: np.ndarray, per: str) -> None:
    gx, gy, mean = on_grid(picture.xy, arrows, n=GRID // 2)
    places = np.stack(np.meshgrid(gx, gy), axis=2)
    seen = ~np.isnan(mean[..., 0])
    _arrows(ax, picture, places[seen], mean[seen], per, longest=1.6 * (gx[1] - gx[0]), thickness=0.004)


def _cell(ax: "Axes", picture: Basis, arrows: np.ndarray, per: str) -> None:
    _arrows(ax, picture, picture.xy, arrows, per, longest=0.06 * np.ptp(picture.xy[:, 0]), thickness=0.0022)


_DRAW = {"stream": _stream, "grid": _grid, "cell": _cell}


def _arrows(
    ax: "Axes", picture: Basis, places: np.ndarray, arrows: np.ndarray, per: str, *, longest: float, thickness: float
) -> None:
    """Draw arrows in the units of the axes, scaled so that all but the fastest are shorter than ``longest``."""
    length = np.abs(arrows[:, 0]) if picture.over_time else np.linalg.norm(arrows, axis=1)
    fast = float(np.quantile(length, 0.95)) if len(length) else 0.0
    if fast == 0:
        return
    drawn = ax.quiver(
        *places.T, *arrows.T, angles="xy", scale_units="xy", scale=fast / longest, width=thickness, color=INK, zorder=2
    )
    # Limits follow where arrows start; they shall hold where they end, too.
    ax.update_datalim(places + arrows * longest / fast)
    ax.autoscale_view()
    if picture.columns is not None and not picture.over_time:
        _key_arrow(ax, drawn, fast, per)


def _key_arrow(ax: "Axes", drawn: "Quiver", fast: float, per: str) -> None:
    """Draw a key above the axes: an arrow of a round speed."""
    digit = 10 ** np.floor(np.log10(fast))
    speed = digit * max(step for step in (1, 2, 5) if step * digit <= fast)
    key = ax.quiverkey(drawn, 0.88, 1.03, speed, literal(f"{speed:g} {per}"), labelpos="W", coordinates="axes")
    key.set_in_layout(False)
    ax.set_title(" ")  # the layout leaves room for a title, not for a key


def on_grid(xy: np.ndarray, arrows: np.ndarray, *, n: int = GRID) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average velocities on a regular grid with a Gaussian kernel; NaN where there are too few cells.

    Parameters
    ----------
    xy
        Where the cells are, ``(cells, 2)``.
    arrows
        Their velocities, ``(cells, 2)``.
    n
        Grid points along the longer side.

    Returns
    -------
    tuple
        Coordinates of the columns and of the rows, and the average velocities ``(rows, columns, 2)``.

    Examples
    --------
    >>> import numpy as np
    >>> xy = np.random.default_rng(0).normal(size=(500, 2))
    >>> _, _, mean = on_grid(xy, np.tile([1.0, 2.0], (500, 1)))
    >>> np.nanmin(mean, axis=(0, 1)), np.nanmax(mean, axis=(0, 1))
    (array([1., 2.]), array([1., 2.]))
    """
    from sklearn.neighbors import NearestNeighbors

    low = xy.min(axis=0)
    span = max(float(np.ptp(xy, axis=0).max()), float(np.finfo(np.float32).tiny))
    scaled = (xy - low) / span
    ends = scaled.max(axis=0)
    axes = [np.linspace(0, end, max(2, round(n * end))) if end > 0 else np.linspace(-0.1, 0.1, 3) for end in ends]
    places = np.stack(np.meshgrid(*axes), axis=2)
    k = min(NEAREST, len(xy))
    model = NearestNeighbors(n_neighbors=k).fit(scaled)
    distance, near = model.kneighbors(places.reshape(-1, 2))
    # Where cells are sparse the kernel reaches their neighbours, where they are dense the next grid point.
    reach = model.kneighbors(n_neighbors=min(10, len(xy) - 1))[0][:, -1]
    weight = np.exp(-0.5 * (distance / max(1 / n, float(np.median(reach)))) ** 2)
    mass = weight.sum(axis=1, keepdims=True)
    mean = np.einsum("gk,gkc->gc", weight, arrows[near]) / np.maximum(mass, np.finfo(float).tiny)
    mean = np.where(mass >= LEAST, mean, np.nan).reshape(*places.shape)
    return low[0] + axes[0] * span, low[1] + axes[1] * span, mean
