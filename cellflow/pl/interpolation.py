"""Predicted cells beside observed ones."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cellflow.cells.columns import read_weights
from cellflow.cells.snapshots import read_rep, read_times
from cellflow.pl.basis import Basis, read_basis
from cellflow.pl.canvas import OBSERVED, PREDICTED, dot_size, figure_or_new, literal
from cellflow.pl.coloring import colors_for
from cellflow.pl.labels import time_label, unit_of_result
from cellflow.pl.look import Look, look_of
from cellflow.pl.marks import titled
from cellflow.pl.noted import check_noted, width_of
from cellflow.signature import checked

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AROUND = "snapshots before and after"
COLORS = {"observed": OBSERVED, "predicted": PREDICTED}
TAKES = ("palette", "size", "alpha", "legend_loc", "na_color", "frameon", "title")
"""What of a look is of this plot: its colours have a meaning of their own."""


@checked
def interpolation(
    adata: "AnnData",
    predicted: "AnnData",
    *,
    time_key: str | None = None,
    basis: str | None = None,
    components: tuple[int, int] = (0, 1),
    figure: "Figure | None" = None,
    **look: Any,
) -> "Figure":
    """Draw predicted cells beside those observed at the same time, over the snapshots around them in grey.

    One row per predicted time; all panels have the same limits. The area of a predicted cell is its weight; that of an
    observed one too, if the flow has weights of cells. A representation of one column is drawn as histograms.

    Parameters
    ----------
    adata
        The observed cells.
    predicted
        What `cellflow.tl.interpolate` returned.
    time_key
        Column of ``obs`` with the time, in both; ``None`` for the one noted in ``predicted``.
    basis
        Embedding to draw on: ``"pca"`` for ``obsm["X_pca"]``; ``None`` for a UMAP if there is one, else the
        representation of the prediction.
    components
        Which two columns of the basis to show.
    figure
        Figure to draw on; ``None`` for a new one.
    **look
        How cells are drawn, as for `cells`: ``palette`` (of ``"observed"`` and ``"predicted"``, in this order or by
        name), ``size`` (of a cell of mean weight), ``alpha``, ``na_color`` (of the snapshots around), ``frameon``,
        ``title`` (of each panel, row by row), and ``legend_loc="none"`` to leave out the key below.

    Raises
    ------
    KeyError
        When the basis or column does not exist.
    TypeError, ValueError
        When ``look`` has another argument, or a value that is not possible.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> flow = cf.SnapshotFlow(rep="X_latent", steps=20).fit(adata)
    >>> middle = cf.tl.interpolate(adata, flow, at=0.5)
    >>> figure = cf.pl.interpolation(adata, middle, basis="latent")
    >>> len(figure.axes)
    2
    """
    how = look_of("pl.interpolation", look, takes=TAKES)
    style = _Style(how, colors_for(how, COLORS))
    about = predicted.uns.get("interpolation", {})
    check_noted(adata, about)
    unit, time_key = unit_of_result(adata, about, time_key), time_key or str(about.get("time_key", "time"))
    time, at = read_times(adata, time_key), read_times(predicted, time_key)
    rep = str(about.get("rep") or next(iter(predicted.obsm), "X"))
    n_pcs = width_of(about)
    picture = read_basis(adata, basis, rep=rep, components=components, time=time, unit=unit, n_pcs=n_pcs)
    carried = picture.states(read_rep(predicted, rep), at)
    weight = predicted.obs[str(about.get("weight", "weight"))].to_numpy()
    weights = read_weights(adata, about["weight_key"]) if "weight_key" in about else np.ones(adata.n_obs)
    times = np.unique(at)
    figure = figure_or_new(figure, size=(8.4, 3.9 * len(times)))
    panels = figure.subplots(len(times), 2, squeeze=False)
    for row, moment_ in zip(panels, times, strict=True):
        seen, here = time == moment_, at == moment_
        draw = _histograms if picture.over_time else _clouds
        draw(row, picture, time, float(moment_), weights, carried[here], weight[here], style)
        said = literal(time_label(moment_, unit))
        row[0].set_title(f"{said}, observed\n{_count(int(seen.sum()))}")
        row[1].set_title(f"{said}, predicted\n{_count(int(here.sum()))}")
    _same_limits(panels, picture, carried)
    style.dress(panels)
    if how.legend_loc in (None, "none"):
        return figure
    handles = {label: mark for ax in panels.flat for mark, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=3,
        frameon=False,
        markerscale=(24 / (how.size or dot_size(len(time)))) ** 0.5,
    )
    return figure


@dataclass(frozen=True)
class _Style:
    """A look, and the colours of observed and predicted cells that follow from it."""

    look: Look
    colors: dict[str, str]

    def alpha(self, usual: float) -> float:
        """Return the opacity of something that usually has another."""
        return usual if self.look.alpha is None else self.look.alpha

    def dress(self, panels: np.ndarray) -> None:
        """Give panels their titles, where these were asked for, and take away their axes."""
        for number, ax in enumerate(panels.flat):
            if self.look.title_of(number, None) is not None:
                ax.set_title(titled(self.look, number, None))
            if self.look.frameon is False:
                ax.set_axis_off()


def _same_limits(panels: np.ndarray, picture: Basis, carried: np.ndarray) -> None:
    """Give all panels the same limits: they have one size, so equal aspect widens them alike."""
    if picture.over_time:
        top = max(ax.get_ylim()[1] for ax in panels.flat)
        for ax in panels.flat:
            ax.set_ylim(0, top)
        return
    points = np.concatenate([picture.xy, carried])
    for ax in panels.flat:
        ax.update_datalim([points.min(axis=0), points.max(axis=0)])
        ax.autoscale_view()


def _count(n: int) -> str:
    return f"{n:,} cells" if n else "not measured"


def _clouds(
    row: np.ndarray,
    picture: Basis,
    time: np.ndarray,
    at: float,
    weights: np.ndarray,
    carried: np.ndarray,
    weight: np.ndarray,
    style: _Style,
) -> None:
    size = style.look.size or dot_size(len(time))
    seen, around = time == at, _around(time, at)
    flat: dict[str, Any] = {"linewidths": 0, "rasterized": True}
    front, (observed, predicted) = flat | {"alpha": style.alpha(0.8)}, style.colors.values()
    for ax in row:
        behind = {"color": style.look.na_color, "alpha": style.alpha(0.5)}
        ax.scatter(*picture.xy[around].T, s=size * 0.7, label=AROUND, **behind, **flat)
        picture.dress(ax)
    if seen.any():
        area = size * weights[seen] / weights[seen].mean()
        row[0].scatter(*picture.xy[seen].T, s=area, color=observed, label="observed", **front)
    row[1].scatter(*carried.T, s=size * weight / weight.mean(), color=predicted, label="predicted", **front)


def _histograms(
    row: np.ndarray,
    picture: Basis,
    time: np.ndarray,
    at: float,
    weights: np.ndarray,
    carried: np.ndarray,
    weight: np.ndarray,
    style: _Style,
) -> None:
    values, alpha = picture.xy[:, 1], style.alpha(0.6)
    bins = np.histogram_bin_edges(np.concatenate([values, carried[:, 1]]), bins=40)
    width, around = np.diff(bins)[0], _around(time, at)
    for ax in row:
        _histogram(ax, values[around], weights[around], bins, style.look.na_color, AROUND, alpha)
        ax.set(xlabel=literal(picture.labels[1]), ylabel=f"share of cells per {width:.2g}")
        ax.spines[["top", "right"]].set_visible(False)
    _histogram(row[0], values[time == at], weights[time == at], bins, style.colors["observed"], "observed", alpha)
    _histogram(row[1], carried[:, 1], weight, bins, style.colors["predicted"], "predicted", alpha)


def _histogram(
    ax: "Axes", values: np.ndarray, weight: np.ndarray, bins: np.ndarray, color: str, label: str, alpha: float
) -> None:
    if len(values):
        ax.hist(values, bins=bins.tolist(), weights=weight / weight.sum(), color=color, alpha=alpha, label=label)


def _around(time: np.ndarray, at: float) -> np.ndarray:
    """Return which cells belong to the last snapshot before a time, or to the first after it."""
    known = np.unique(time)
    before, after = known[known < at], known[known > at]
    return np.isin(time, [*before[-1:], *after[:1]])
