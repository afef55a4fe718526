"""Trajectories of single cells, over all cells."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cellflow import tl
from cellflow.cells.snapshots import read_times
from cellflow.integrate import Fixed, Solver
from cellflow.pl.basis import Basis, key_of, read_basis
from cellflow.pl.canvas import INK
from cellflow.pl.labels import unit_of_result
from cellflow.pl.look import look_of
from cellflow.pl.noted import check_noted, width_of
from cellflow.pl.panels import panels
from cellflow.pl.streams import Strokes
from cellflow.signature import checked_but

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cellflow.estimators import SnapshotFlow


@checked_but("solver")
def trajectories(
    adata: "AnnData",
    flow: "SnapshotFlow | None" = None,
    *,
    basis: str | None = None,
    color: str | Sequence[str] | None = None,
    by: str | None = None,
    n: int = 50,
    solver: Solver | str | int = Fixed(),
    components: tuple[int, int] = (0, 1),
    key: str = "trajectories",
    linewidth: float = 1.0,
    ax: "Axes | None" = None,
    figure: "Figure | None" = None,
    **look: Any,
) -> "Axes | Figure":
    """Draw the trajectories of some cells over all cells.

    Parameters
    ----------
    adata
        The cells.
    flow
        A fitted flow, to follow ``n`` cells of its first snapshot now; nothing is written. ``None`` to draw what
        `cellflow.tl.trajectories` wrote.
    basis
        Embedding to draw on: ``"pca"`` for ``obsm["X_pca"]``; ``None`` for a UMAP if there is one, else the flow's
        representation. In another embedding than that, trajectories are projected through the nearest cells.
    color
        Column of ``obs``, or gene, that colours the cells, or several for a panel each; ``None`` for their time.
    by
        ``"time"`` for a panel for each snapshot, with the part of the trajectories that leads to it; or a column for
        one for each of its groups, with the trajectories of cells of the group; ``None`` for all together.
    n
        Maximum number of trajectories to draw.
    solver
        As for `cellflow.tl.trajectories`, if a flow is given.
    components
        Which two columns of the basis to show.
    key
        Name under which `cellflow.tl.trajectories` wrote.
    linewidth
        Line width: 2 for twice the default.
    ax
        Axes to draw on, for a single panel; ``None`` for new ones.
    figure
        Figure to draw on; ``None`` for a new one.
    **look
        How cells are drawn: ``cmap``, ``palette``, ``size``, ``alpha``, ``legend_loc``, ``layer``, ``use_raw``,
        ``sort_order``, ``vmin``, ``vmax``, ``na_color``, ``frameon``, ``title`` and ``ncols``, as for `cells`.

    Returns
    -------
    Axes or Figure
        The axes of a single panel, or the figure of several.

    Raises
    ------
    KeyError
        When there is nothing to draw, or the basis, column or gene does not exist.
    ValueError
        When a setting is invalid.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> flow = cf.SnapshotFlow(rep="X_latent", steps=20).fit(adata)
    >>> ax = cf.pl.trajectories(adata, flow, basis="latent", n=10)
    >>> ax.get_xlabel()
    'latent 1'
    """
    if n < 1:
        raise ValueError(f"Expected n >= 1 trajectories to draw; found {n}.")
    how, strokes = look_of("pl.trajectories", look), Strokes(linewidth=linewidth)
    if flow is not None and basis is not None:
        key_of(adata, basis, rep=flow.rep)  # refused before trajectories are computed
    found = stored_courses(adata, key) if flow is None else follow(adata, flow, n, solver)
    rep, time_key = str(found["rep"]), str(found["time_key"])
    unit, time = unit_of_result(adata, found), read_times(adata, time_key)
    n_pcs = width_of(found)
    picture = read_basis(adata, basis, rep=rep, components=components, time=time, unit=unit, n_pcs=n_pcs)
    laid: dict[str, Any] = {"time_key": time_key, "unit": unit, "look": how}
    made = panels(adata, color=color, by=by, ax=ax, figure=figure, **laid)
    x, at = np.asarray(found["x"]), np.asarray(found["time"])
    known = adata.obs_names.get_indexer([str(name) for name in found["origin"]])
    times = np.unique(time)
    keyed = False
    for panel in made.panels:
        made.draw(panel, picture.xy, alpha=0.55)
        if panel.time is not None:
            before = times[times < panel.time][-1:]
            paths = _projected(picture, *_between(x, at, before, panel.time), n)
        elif panel.title is not None and by is not None:
            ours = (known >= 0) & panel.shown[known]
            paths = _projected(picture, x[:, ours], at[:, ours], n)
        else:
            paths = _projected(picture, x, at, n)
        _draw(
            panel.ax, paths, strokes.smaller(len(made.panels)).linewidth, keyed=not keyed, several=len(made.panels) > 1
        )
        keyed = keyed or len(paths) > 0
        picture.dress(panel.ax)
    return made.finish(picture.xy)


def stored_courses(adata: "AnnData", key: str) -> dict[str, Any]:
    """Return what `cellflow.tl.trajectories` wrote.

    Raises
    ------
    KeyError
        When there is no result of that name.
    ValueError
        When it belongs to another representation.
    """
    if key not in adata.uns:
        raise KeyError(
            f"No `adata.uns[{key!r}]`. Available: {list(adata.uns)}. Run `cf.tl.trajectories(adata, flow)` first, or "
            "pass the flow: `cf.pl.trajectories(adata, flow)`."
        )
    found: dict[str, Any] = adata.uns[key]
    check_noted(adata, found)
    return found


def follow(
    adata: "AnnData", flow: "SnapshotFlow", n: int, solver: Solver | str | int = Fixed(), *, n_times: int = 50
) -> dict[str, Any]:
    """Follow cells on a separate AnnData, with only times, weights and states."""
    import anndata

    x = flow.read(adata).x
    seen = () if flow.conditions_ is None else flow.conditions_.columns
    keys = list(dict.fromkeys([flow.time_key, *([] if flow.weight_key is None else [flow.weight_key]), *seen]))
    obs = adata.obs[keys].copy()
    light = anndata.AnnData(X=x, obs=obs) if flow.rep == "X" else anndata.AnnData(obs=obs, obsm={flow.rep: x})
    tl.trajectories(light, flow, n=n, n_times=n_times, solver=solver)
    found: dict[str, Any] = light.uns["trajectories"]
    return found


def _projected(picture: Basis, x: np.ndarray, time: np.ndarray, n: int) -> np.ndarray:
    """Return at most ``n`` projected trajectories, ``(n, n_times, 2)``, spread evenly over those that are there."""
    if not x.shape[1]:
        return np.zeros((0, len(x), 2))
    rows = np.unique(np.linspace(0, x.shape[1] - 1, min(n, x.shape[1])).round().astype(int))
    x, time = x[:, rows], time[:, rows]
    flat = picture.states(x.reshape(-1, x.shape[2]), time.reshape(-1))
    return flat.reshape(*time.shape, 2).transpose(1, 0, 2)


def _between(x: np.ndarray, time: np.ndarray, before: np.ndarray, stop: float) -> tuple[np.ndarray, np.ndarray]:
    """Return states and times between a snapshot and the one before, all at as many moments; none for the first."""
    if not len(before):
        return x[:, :0], time[:, :0]
    low, high = np.maximum(float(before[0]), time.min(axis=0)), np.minimum(stop, time.max(axis=0))
    through = np.flatnonzero(high > low)
    moments = np.linspace(low[through], high[through], max(2, len(x) // 2))
    part = np.empty((len(moments), len(through), x.shape[2]))
    for k, cell in enumerate(through):
        order = np.argsort(time[:, cell], kind="stable")
        for c in range(x.shape[2]):
            part[:, k, c] = np.interp(moments[:, k], time[order, cell], x[order, cell, c])
    return part, moments


def _draw(ax: "Axes", paths: np.ndarray, width: float, *, keyed: bool, several: bool) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.patheffects import Normal, Stroke

    if not len(paths):
        return
    casing = [Stroke(linewidth=2.2 * width, foreground="white", alpha=0.7), Normal()]
    lines = LineCollection(list(paths), colors=INK, linewidths=0.9 * width, alpha=0.85, path_effects=casing, zorder=2)
    lines.set_label("trajectories")
    ax.add_collection(lines)
    marks: dict[str, Any] = {"s": 18, "linewidths": 0.8, "edgecolors": INK, "zorder": 3}
    starts = ax.scatter(*paths[:, 0].T, facecolors="white", label="start", **marks)
    ends = ax.scatter(*paths[:, -1].T, facecolors=INK, label="end", **marks)
    if not keyed:
        return
    if several:  # titles stand above
        ax.figure.legend(handles=[starts, ends], loc="outside lower center", ncols=2, frameon=False)
        return
    ax.legend(
        handles=[starts, ends],
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=2,
        frameon=False,
        handletextpad=0.1,
        columnspacing=1.0,
        borderaxespad=0.2,
    )
