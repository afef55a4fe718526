"""Fates of cells, on an embedding."""

from typing import TYPE_CHECKING, Any

from cellflow.cells.snapshots import read_times
from cellflow.pl.basis import read_basis
from cellflow.pl.canvas import GREY, dot_size, figure_or_new, literal
from cellflow.pl.cells import time_colors
from cellflow.pl.labels import time_label, unit_of_result
from cellflow.signature import checked
from cellflow.tl.fate_table import read_fate

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure

MOST = 12
COLUMNS = 4


@checked
def fate(
    adata: "AnnData",
    *,
    basis: str = "pca",
    components: tuple[int, int] = (0, 1),
    key: str = "fate",
    figure: "Figure | None" = None,
) -> "Figure":
    """Draw the fates that `cellflow.tl.fate` wrote, a panel for each group.

    Parameters
    ----------
    adata
        Holds what `cellflow.tl.fate` wrote. Cells without a fate are grey.
    basis
        What to draw on: ``"pca"`` for ``obsm["X_pca"]``.
    components
        Which two columns of the basis to show.
    key
        Name under which `cellflow.tl.fate` wrote.
    figure
        Figure to draw on; ``None`` for a new one.

    Raises
    ------
    KeyError
        When there are no fates of that name, or no such basis.
    ValueError
        When there are more groups than panels.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> path = cf.paths.BrownianBridge(0.5)
    >>> flow = cf.SnapshotFlow(rep="X_latent", path=path, stochastic=True, steps=20).fit(adata)
    >>> cf.tl.fate(adata, flow, groupby="fate", n_samples=2)
    >>> figure = cf.pl.fate(adata, basis="latent")
    >>> [ax.get_title() for ax in figure.axes][:2] == list(adata.obsm["fate"].columns)[:2]
    True
    """
    table = read_fate(adata, key)
    if len(table.groups) > MOST:
        raise ValueError(f"There are {len(table.groups)} groups; at most {MOST} are drawn. Merge some first.")
    about = table.about
    time = read_times(adata, about["time_key"]) if about.get("time_key") in adata.obs else None
    unit = unit_of_result(adata, about)
    picture = read_basis(adata, basis, rep=str(about["rep"]), components=components, time=time, unit=unit)
    columns = min(COLUMNS, len(table.groups))
    rows = -(-len(table.groups) // columns)
    figure = figure_or_new(figure, size=(2.9 * columns + 1.0, 2.9 * rows + 0.4))
    panels = figure.subplots(rows, columns, squeeze=False)
    known = table.known
    xy, size = picture.xy, dot_size(len(known))
    style = {"s": size, "linewidths": 0, "rasterized": True}
    for ax, group in zip(panels.flat, table.groups, strict=False):
        ax.scatter(*xy[~known].T, color=GREY, alpha=0.5, **style)
        values = table.share(group)[known]
        marks = ax.scatter(*xy[known].T, c=values, cmap=time_colors(), vmin=0, vmax=1, **style)
        ax.set_title(literal(group))
        picture.dress(ax)
    for ax in panels.flat[len(table.groups) :]:
        ax.set_visible(False)
    figure.colorbar(marks, ax=panels, label=_said(about, unit), fraction=0.04, pad=0.02)
    return figure


def _said(about: dict[str, Any], unit: str) -> str:
    there = about.get("kind") == "neighbors"
    said = "share of this group\naround the end point" if there else "probability of this group"
    if "at" not in about:
        return said
    return literal(f"{said} at {time_label(float(about['at']), unit)}")
