"""Growth rates of cells: on an embedding, and by group."""

from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from cellflow.cells.columns import read_numbers
from cellflow.cells.snapshots import read_times
from cellflow.pl.basis import read_basis
from cellflow.pl.canvas import GREY, INK, PREDICTED, figure_or_new, literal, plain
from cellflow.pl.coloring import by_column
from cellflow.pl.labels import rate_label, unit_of_result
from cellflow.pl.look import look_of
from cellflow.pl.marks import draw_cells, titled, written
from cellflow.pl.panels import groups_of
from cellflow.signature import checked

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST = 8
"""Cells that a group needs to be drawn as a shape; of fewer, each is a mark."""
BELOW = 36
"""How far the key of marks stands below the axes, in points: beneath the label."""
TAIL = ("p1", "p99")
"""Percentiles of the rates at which colours end: few extreme cells would leave all others in one colour."""


@checked
def growth(
    adata: "AnnData",
    *,
    basis: str | None = None,
    groupby: str | None = None,
    components: tuple[int, int] = (0, 1),
    key: str = "growth",
    figure: "Figure | None" = None,
    **look: Any,
) -> "Figure":
    """Draw the growth rates that `cellflow.tl.growth` wrote, on the cells and by group.

    If the rates depend on an assumption, according to the comparison of `cellflow.tl.growth`, the figure says so.

    Parameters
    ----------
    adata
        Holds what `cellflow.tl.growth` wrote.
    basis
        Embedding to draw on: ``"pca"`` for ``obsm["X_pca"]``; ``None`` for a UMAP if there is one, else the flow's
        representation.
    groupby
        Column of ``obs`` with the groups to compare; ``None`` for the snapshots.
    components
        Which two columns of the basis to show.
    key
        Name under which `cellflow.tl.growth` wrote.
    figure
        Figure to draw on; ``None`` for a new one.
    **look
        How cells are drawn: ``cmap``, ``palette``, ``size``, ``alpha``, ``legend_loc``, ``layer``, ``use_raw``,
        ``sort_order``, ``vmin``, ``vmax``, ``na_color``, ``frameon``, ``title`` and ``ncols``, as for `cells`. The
        colour scale ends at the first and last percentile of the rates unless ``vmin`` or ``vmax`` is given.

    Raises
    ------
    KeyError
        When there are no rates of that name, or the basis or column does not exist.
    ValueError
        When ``groupby`` holds no groups.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> coupling = cf.couplings.UnbalancedSinkhorn(epsilon=0.1, relaxation=1.0)
    >>> flow = cf.SnapshotFlow(rep="X_latent", coupling=coupling, growth=True, steps=20).fit(adata)
    >>> cf.tl.growth(adata, flow, sensitivity=False)
    >>> figure = cf.pl.growth(adata, groupby="fate")
    >>> figure.axes[1].get_xlabel()
    'growth rate per unit of time'
    """
    how = look_of("pl.growth", {"vmin": TAIL[0], "vmax": TAIL[1]} | look)
    if key not in adata.obs or key not in adata.uns:
        raise KeyError(f"No `adata.obs[{key!r}]` of `cf.tl.growth`. Run `cf.tl.growth(adata, flow)` first.")
    about: dict[str, Any] = dict(adata.uns[key])
    rate = read_numbers(adata, key, setting="key")
    time_key, unit = str(about["time_key"]), unit_of_result(adata, about)
    time = read_times(adata, time_key) if time_key in adata.obs else None
    picture = read_basis(adata, basis, rep=str(about["rep"]), components=components, time=time, unit=unit)
    groups = groups_of(adata, groupby or time_key, None if time is None else time_key, unit, setting="groupby")
    said = dict(adata.uns.get(f"{key}_sensitivity", {})).get("conclusion", "")
    size = (10.4, max(4.6, 1.4 + 0.34 * len(groups)) + 0.55 * bool(said))
    figure = figure_or_new(figure, size=size)
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    coloring = by_column(adata, key, how)
    draw_cells(left, picture.xy, coloring, alpha=0.8, look=how)
    figure.axes[-1].set_ylabel(f"growth rate {rate_label(unit)}")
    picture.dress(left)
    if how.frameon is False:
        left.set_axis_off()
    for number, ax in enumerate((left, right)):
        ax.set_title(titled(how, number, None, 40))
    _by_group(right, rate, [(str(name), cells) for name, cells, _ in groups], ordered=groupby is not None)
    right.set(xlabel=literal(f"growth rate {rate_label(unit)}"), ylabel=literal(groupby or ""))
    _say_marks(right)
    if said:
        figure.supxlabel(literal(fill(str(said), 130)), fontsize=8.5, color=PREDICTED)
    return figure


def _say_marks(ax: "Axes") -> None:
    """Say below the groups what dots, bars and shapes are."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.transforms import ScaledTranslation

    handles = [
        Line2D([], [], color=PREDICTED, marker="o", markersize=4.7, linestyle="", label="median"),
        Line2D([], [], color=INK, linewidth=1.6, label="middle half"),
        Patch(color=GREY, alpha=0.7, linewidth=0, label="all cells"),
    ]
    below = ax.transAxes + ScaledTranslation(0, -BELOW / 72, ax.figure.dpi_scale_trans)
    ax.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), bbox_transform=below, ncols=3, frameon=False,
        fontsize=8.5, borderaxespad=0,
    )  # fmt: skip


def _by_group(ax: "Axes", rate: np.ndarray, groups: list[tuple[str, np.ndarray]], *, ordered: bool) -> None:
    """Draw the distribution of the rates of each group, with its median and the middle half; fast ones on top."""
    if ordered:
        groups = sorted(groups, key=lambda group: -float(np.median(rate[group[1]])))
    for place, (_, cells) in enumerate(groups):
        values = rate[cells]
        if len(values) >= LEAST and np.ptp(values) > 1e-12:
            drawn = ax.violinplot(values, positions=[place], orientation="horizontal", widths=0.8, showextrema=False)
            for body in drawn["bodies"]:  # type: ignore[attr-defined]
                body.set(facecolor=GREY, alpha=0.7, linewidth=0)
        else:
            ax.scatter(values, np.full(len(values), place), s=10, color=GREY, zorder=1)
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        ax.hlines(place, low, high, color=INK, linewidth=1.6, zorder=2)
        ax.scatter(middle, place, s=22, color=PREDICTED, zorder=3)
    ax.axvline(0, color=INK, linewidth=0.6, linestyle=":", zorder=0)
    ax.set_yticks(np.arange(len(groups)), [f"{written(name)} ({cells.sum():,})" for name, cells in groups])
    ax.set_ylim(len(groups) - 0.4, -0.6)
    ax.locator_params(axis="x", nbins=5)
    plain(ax)
