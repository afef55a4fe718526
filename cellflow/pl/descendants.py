"""Descendants or ancestors of chosen cells, by group."""

from typing import TYPE_CHECKING

import numpy as np

from cellflow.pl.canvas import GREY, INK, PREDICTED, axes_or_new, literal, plain
from cellflow.pl.labels import time_label, unit_of_result
from cellflow.signature import checked

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes


@checked
def descendants(
    adata: "AnnData", *, time_key: str | None = None, key: str = "push", ax: "Axes | None" = None
) -> "Axes":
    """Draw the groups among which `cellflow.tl.push` or `cellflow.tl.pull` has divided chosen cells.

    Parameters
    ----------
    adata
        Holds what `cellflow.tl.push` or `cellflow.tl.pull` wrote with ``groupby``.
    time_key
        Time column that the labels name; ``None`` for the one noted with the result.
    key
        ``"push"`` for descendants, ``"pull"`` for ancestors, or the name that was given as ``key_added``.
    ax
        Axes to draw on; ``None`` for new ones.

    Raises
    ------
    KeyError
        When there is nothing of that name, or it holds no groups.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> flow = cf.SnapshotFlow(rep="X_latent", steps=20).fit(adata)
    >>> first, last = flow.clock_.times[0], flow.clock_.times[-1]
    >>> cf.tl.push(adata, flow, cells=adata.obs["time"] == first, at=last, groupby="fate")
    >>> cf.pl.descendants(adata).get_xlabel()
    'share'
    """
    written = adata.uns.get(key, {})
    if "groups" not in written:
        raise KeyError(
            f"No groups in `adata.uns[{key!r}]`. Run `cf.tl.push(adata, flow, cells=..., at=..., groupby=...)` first, "
            "or `cf.tl.pull` for ancestors."
        )
    groups = written["groups"]
    unit = unit_of_result(adata, written, time_key)
    places = np.arange(len(groups))
    ax = axes_or_new(ax, size=(6.0, 1.6 + 0.36 * len(groups)))
    many = f"the {int(written['n_cells'])} chosen cells" if written["n_cells"] != 1 else "the chosen cell"
    ax.barh(places, groups["mass"], height=0.62, color=PREDICTED, label=f"mass of {many}")
    ax.scatter(
        groups["share"], places, marker="|", s=260, color=INK, linewidths=2, zorder=3, label="all cells at that time"
    )
    ax.set_yticks(places, [literal(str(name)) for name in groups.index])
    ax.invert_yaxis()
    ax.set(xlabel="share", xlim=(0, 1), title=literal(f"at {time_label(float(written['at']), unit)}"))
    ax.grid(axis="x", color=GREY, alpha=0.4, zorder=0)
    ax.set_axisbelow(True)
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    plain(ax)
    return ax
