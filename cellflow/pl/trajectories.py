"""Trajectories of single cells, over all cells."""

from typing import TYPE_CHECKING, Any

import numpy as np

from cellflow import tl
from cellflow.cells.snapshots import read_times
from cellflow.integrate import Fixed, Solver
from cellflow.pl.basis import Basis, read_basis
from cellflow.pl.canvas import INK, axes_or_new
from cellflow.pl.cells import by_column, by_time, draw_cells
from cellflow.pl.labels import unit_of_result
from cellflow.pl.noted import check_noted, width_of
from cellflow.signature import checked_but

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

    from cellflow.estimators import SnapshotFlow


@checked_but("solver")
def trajectories(
    adata: "AnnData",
    flow: "SnapshotFlow | None" = None,
    *,
    basis: str = "pca",
    color: str | None = None,
    n: int = 50,
    solver: Solver | str | int = Fixed(),
    components: tuple[int, int] = (0, 1),
    key: str = "trajectories",
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the trajectories of some cells over all cells.

    Parameters
    ----------
    adata
        The cells.
    flow
        A fitted flow, to follow ``n`` cells of its first snapshot now; nothing is written. ``None`` to draw what
        `cellflow.tl.trajectories` wrote.
    basis
        What to draw on: ``"pca"`` for ``obsm["X_pca"]``. In an embedding other than the flow's representation,
        trajectories are projected through the nearest cells.
    color
        Column of ``obs``, or gene, that colours the cells; ``None`` for their time.
    n
        Most trajectories that are drawn.
    solver
        As for `cellflow.tl.trajectories`, where a flow is given.
    components
        Which two columns of the basis to show.
    key
        Name under which `cellflow.tl.trajectories` wrote.
    ax
        Axes to draw on; ``None`` for new ones.

    Raises
    ------
    KeyError
        When there is nothing to draw, or no such basis or column.

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
    found = _stored(adata, key) if flow is None else _follow(adata, flow, n, solver)
    rep, time_key = str(found["rep"]), str(found["time_key"])
    unit = unit_of_result(adata, found)
    time, n_pcs = read_times(adata, time_key), width_of(found)
    picture = read_basis(adata, basis, rep=rep, components=components, time=time, unit=unit, n_pcs=n_pcs)
    coloring = by_time(adata, time_key, unit) if color is None else by_column(adata, color)
    ax = axes_or_new(ax, size=(6.4, 5.2))
    draw_cells(ax, picture.xy, coloring, alpha=0.55)
    _draw(ax, _projected(picture, np.asarray(found["x"]), np.asarray(found["time"]), n))
    picture.dress(ax)
    return ax


def _stored(adata: "AnnData", key: str) -> dict[str, Any]:
    if key not in adata.uns:
        raise KeyError(
            f"No `adata.uns[{key!r}]`. Available: {list(adata.uns)}. Run `cf.tl.trajectories(adata, flow)` first, or "
            "pass the flow: `cf.pl.trajectories(adata, flow)`."
        )
    found: dict[str, Any] = adata.uns[key]
    check_noted(adata, found)
    return found


def _follow(adata: "AnnData", flow: "SnapshotFlow", n: int, solver: Solver | str | int) -> dict[str, Any]:
    """Follow cells on an AnnData of its own, with nothing but times, weights and states in it."""
    import anndata

    x = flow.read(adata).x
    seen = () if flow.conditions_ is None else flow.conditions_.columns
    keys = list(dict.fromkeys([flow.time_key, *([] if flow.weight_key is None else [flow.weight_key]), *seen]))
    obs = adata.obs[keys].copy()
    light = anndata.AnnData(X=x, obs=obs) if flow.rep == "X" else anndata.AnnData(obs=obs, obsm={flow.rep: x})
    tl.trajectories(light, flow, n=n, solver=solver)
    found: dict[str, Any] = light.uns["trajectories"]
    return found


def _projected(picture: Basis, x: np.ndarray, time: np.ndarray, n: int) -> np.ndarray:
    """Return at most ``n`` projected trajectories, ``(n, n_times, 2)``, spread evenly over those that are there."""
    rows = np.unique(np.linspace(0, x.shape[1] - 1, min(n, x.shape[1])).round().astype(int))
    x, time = x[:, rows], time[:, rows]
    flat = picture.states(x.reshape(-1, x.shape[2]), time.reshape(-1))
    return flat.reshape(*time.shape, 2).transpose(1, 0, 2)


def _draw(ax: "Axes", paths: np.ndarray) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.patheffects import Normal, Stroke

    casing = [Stroke(linewidth=2.2, foreground="white", alpha=0.7), Normal()]
    lines = LineCollection(list(paths), colors=INK, linewidths=0.9, alpha=0.85, path_effects=casing, zorder=2)
    lines.set_label("trajectories")
    ax.add_collection(lines)
    marks: dict[str, Any] = {"s": 18, "linewidths": 0.8, "edgecolors": INK, "zorder": 3}
    starts = ax.scatter(*paths[:, 0].T, facecolors="white", label="start", **marks)
    ends = ax.scatter(*paths[:, -1].T, facecolors=INK, label="end", **marks)
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
