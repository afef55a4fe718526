"""Velocities as streamlines or arrows over the cells."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from cellflow.cells.snapshots import read_times
from cellflow.errors import unknown
from cellflow.pl.basis import read_basis
from cellflow.pl.labels import rate_label, unit_of, unit_of_result
from cellflow.pl.look import look_of
from cellflow.pl.noted import check_noted, width_of
from cellflow.pl.panels import panels
from cellflow.pl.streams import KINDS, Seen, Strokes, draw_velocities, on_grid
from cellflow.signature import checked

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cellflow.estimators import SnapshotFlow

__all__ = ["on_grid", "velocity"]


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
    basis: str | None = None,
    kind: str = "stream",
    color: str | Sequence[str] | None = None,
    by: str | None = None,
    components: tuple[int, int] = (0, 1),
    key: str = "velocity",
    rep: str | None = None,
    confidence: bool = True,
    density: float = 1.0,
    arrow_size: float = 1.0,
    linewidth: float = 1.0,
    ax: "Axes | None" = None,
    figure: "Figure | None" = None,
    **look: Any,
) -> "Axes | Figure":
    """Draw the velocities of the cells.

    Streamlines and averaged arrows are drawn where a cell is nearer than neighbouring cells usually are.

    Parameters
    ----------
    adata
        The cells.
    flow
        A fitted flow, to evaluate now; nothing is written. ``None`` to draw what `cellflow.tl.velocity` wrote.
    basis
        Embedding to draw on: ``"pca"`` for ``obsm["X_pca"]``; ``None`` for a UMAP if there is one, else the velocities'
        representation. In another embedding than that, arrows show directions only.
    kind
        ``"stream"`` for streamlines, thicker where cells move faster; ``"grid"`` for averaged arrows; ``"cell"`` for
        an arrow on every cell.
    color
        Column of ``obs``, or gene, that colours the cells, or several for a panel each; ``None`` for their time, if
        known.
    by
        ``"time"`` for a panel for each snapshot, or a column for one for each of its groups; ``None`` for all cells
        together.
    components
        Which two columns of the basis to show.
    key
        Name under which `cellflow.tl.velocity` wrote.
    rep
        The representation of the velocities in ``obsm[key]``, if they were not written by cellflow.
    density
        Density of streamlines or averaged arrows: 2 for about twice as many.
    confidence
        Whether lines and arrows are paler for less certain velocities, by ``obs[f"{key}_confidence"]``, which
        `cellflow.tl.velocity` writes for a flow with an ensemble.
    arrow_size, linewidth
        Size of the heads of streamlines and averaged arrows, and line width: 2 for twice the default.
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
        When there are no velocities, or the basis, column or gene does not exist.
    ValueError
        When the kind is unknown, a setting is invalid, or the velocities do not belong to a known representation.

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
    how, strokes = look_of("pl.velocity", look), Strokes(density, arrow_size, linewidth)
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
    sure = _confidence(adata, f"{key}_confidence") if confidence else None
    laid: dict[str, Any] = {"time_key": noted.time_key, "unit": noted.unit, "look": how}
    made = panels(adata, color=color, by=by, ax=ax, figure=figure, **laid)
    for panel in made.panels:
        made.draw(panel, picture.xy, alpha=0.55)
        picture.dress(panel.ax)
        some = None if sure is None else sure[panel.shown]
        few = Seen(picture, picture.xy[panel.shown], arrows[panel.shown], rate_label(noted.unit), some)
        draw_velocities(panel.ax, few, kind, strokes.smaller(len(made.panels)))
    return made.finish(picture.xy)


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
            f"`adata.obsm[{key!r}]` has {width} columns and does not say what its representation is; of that width are "
            f"{fits or 'none'}. Name it with `rep`."
        )
    return str(fits[0])


def _confidence(adata: "AnnData", column: str) -> np.ndarray | None:
    """Return the confidence of the velocities, between 0 and 1, ``(n,)``; ``None`` where it was not written."""
    if column not in adata.obs or not pd.api.types.is_numeric_dtype(adata.obs[column].dtype):
        return None
    given = adata.obs[column].to_numpy(dtype=np.float64, na_value=np.nan)
    found: np.ndarray = np.nan_to_num(np.clip(given, 0, 1), nan=0.0)
    return found
