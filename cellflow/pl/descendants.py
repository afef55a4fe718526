"""Descendants or ancestors by group: of chosen cells as bars, or of all over all snapshots as ribbons."""

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from cellflow.cells.states import Cells
from cellflow.pl.canvas import GREY, INK, PREDICTED, axes_or_new, literal, plain
from cellflow.pl.chain import Chain, chain_of_groups
from cellflow.pl.coloring import palette_of
from cellflow.pl.labels import time_label, unit_of, unit_of_result
from cellflow.pl.look import Look
from cellflow.pl.marks import written
from cellflow.pl.sankey import draw_sankey
from cellflow.signature import checked_but

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cellflow.estimators import SnapshotFlow

MOST = 64
"""Groups that are drawn, at most."""


@checked_but("cells")
def descendants(
    adata: "AnnData",
    flow: "SnapshotFlow | None" = None,
    *,
    groupby: str | None = None,
    cells: Cells | None = None,
    reverse: bool = False,
    time_key: str | None = None,
    key: str = "push",
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the groups into which cells go: over all snapshots, or as `cellflow.tl.push` has written them.

    With a flow, a Sankey diagram: the groups of each snapshot as bars, and ribbons from group to group, by the cells of
    each snapshot that are carried to the next. A ribbon is as wide on the left as the share of its group that leaves,
    and on the right as the share that arrives: where it widens, the group grows relative to others. Without one, bars
    of what `cellflow.tl.push` or `cellflow.tl.pull` wrote for chosen cells.

    Parameters
    ----------
    adata
        Without a flow it holds what `cellflow.tl.push` or `cellflow.tl.pull` wrote with ``groupby``.
    flow
        A fitted flow, with which to carry the cells now; nothing is written.
    groupby
        With a flow: column of ``obs`` with the groups.
    cells
        With a flow: cells of one snapshot, a mask, names or rows of ``obs``, to follow only these, from there on;
        ``None`` for all cells of all snapshots.
    reverse
        With a flow: whether to carry cells back in time, to their ancestors.
    time_key
        Time column that the labels name; ``None`` for the one noted with the result.
    key
        Without a flow: ``"push"`` for descendants, ``"pull"`` for ancestors, or the name that was given as
        ``key_added``.
    ax
        Axes to draw on; ``None`` for new ones.

    Raises
    ------
    KeyError
        When there is no result of that name, or it holds no groups; when there is no column ``groupby``.
    ValueError
        When ``groupby`` is not given with a flow or holds no groups, or chosen cells come from several snapshots.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> flow = cf.SnapshotFlow(rep="X_latent", steps=20).fit(adata)
    >>> ax = cf.pl.descendants(adata, flow, groupby="fate")
    >>> first, last = flow.clock_.times[0], flow.clock_.times[-1]
    >>> cf.tl.push(adata, flow, cells=adata.obs["time"] == first, at=last, groupby="fate")
    >>> cf.pl.descendants(adata).get_xlabel()
    'share'
    """
    if flow is not None:
        if groupby is None:
            raise ValueError("Expected the column of `adata.obs` with the groups in `groupby`; found None.")
        unit = unit_of(adata, flow.time_key) if time_key is None else unit_of_result(adata, {}, time_key)
        chain = chain_of_groups(adata, flow, groupby=groupby, cells=cells, reverse=reverse)
        whose = "each snapshot" if cells is None else f"{'ancestors' if reverse else 'descendants'} of the chosen cells"
        ax = _ribbons(adata, chain, groupby, unit, ax)
        ax.set_title(f"{written(groupby, 40)}, share of {whose}", fontsize="medium")
        return ax
    if groupby is not None or cells is not None or reverse:
        raise ValueError("`groupby`, `cells` and `reverse` are for a flow: `cf.pl.descendants(adata, flow, ...)`.")
    return _bars(adata, time_key, key, ax)


def _ribbons(adata: "AnnData", chain: Chain, groupby: str, unit: str, ax: "Axes | None") -> "Axes":
    if len(chain.groups) > MOST:
        raise ValueError(f"There are {len(chain.groups)} groups; at most {MOST} are drawn. Merge the rare ones.")
    longest = max(len(line) for group in chain.groups for line in written(group, 22).split("\n")) + 4
    size = (2.2 * len(chain.times) + 0.16 * longest, max(4.2, 0.24 * len(chain.groups) + 1.6))
    ax = axes_or_new(ax, size=size)
    cast("Figure", ax.get_figure(root=True)).draw_without_rendering()  # names stand where there is room: layout first
    draw_sankey(ax, chain, _colors(adata, chain, groupby), unit)
    return ax


def _colors(adata: "AnnData", chain: Chain, groupby: str) -> tuple[str, ...]:
    known = list(map(str, adata.obs[groupby].astype("category").cat.categories))
    palette = palette_of(adata, groupby, known, Look())
    found = {name: palette[k % len(palette)] for k, name in enumerate(known)}
    return tuple(found.get(group, GREY) for group in chain.groups)


def _bars(adata: "AnnData", time_key: str | None, key: str, ax: "Axes | None") -> "Axes":
    result: dict[str, Any] = adata.uns.get(key, {})
    if "groups" not in result:
        raise KeyError(
            f"No groups in `adata.uns[{key!r}]`. Run `cf.tl.push(adata, flow, cells=..., at=..., groupby=...)` first, "
            "or `cf.tl.pull` for ancestors; or draw all snapshots: `cf.pl.descendants(adata, flow, groupby=...)`."
        )
    groups: pd.DataFrame = result["groups"]
    unit = unit_of_result(adata, result, time_key)
    places = np.arange(len(groups))
    longest = max((len(line) for name in groups.index for line in written(str(name)).split("\n")), default=0)
    ax = axes_or_new(ax, size=(5.4 + 0.08 * longest, 1.6 + 0.36 * len(groups)))
    many = f"the {int(result['n_cells'])} chosen cells" if result["n_cells"] != 1 else "the chosen cell"
    ax.barh(places, groups["mass"], height=0.62, color=PREDICTED, label=f"mass of {many}")
    ax.scatter(
        groups["share"], places, marker="|", s=260, color=INK, linewidths=2, zorder=3, label="all cells at that time"
    )
    ax.set_yticks(places, [written(str(name)) for name in groups.index])
    ax.invert_yaxis()
    ax.set(xlabel="share", xlim=(0, 1), title=literal(f"at {time_label(float(result['at']), unit)}"))
    ax.grid(axis="x", color=GREY, alpha=0.4, zorder=0)
    ax.set_axisbelow(True)
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    plain(ax)
    return ax
