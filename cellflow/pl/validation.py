"""Distances of predictions to held-out snapshots, beside baselines."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellflow.pl.canvas import INK, PREDICTED, axes_or_new, literal, plain
from cellflow.pl.labels import time_label, unit_of_result

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

FLOW, FLOOR = "flow", "half against half"
"""Rows of the table that are not baselines."""
_STYLES: dict[str, dict[str, Any]] = {
    FLOW: {"marker": "o", "color": PREDICTED, "s": 45, "zorder": 4},
    "linear transport": {"marker": "D", "edgecolors": "#0072B2", "s": 95},
    "previous and next": {"marker": "s", "edgecolors": "#009E73", "s": 85},
    "previous snapshot": {"marker": "<", "edgecolors": "#666666", "s": 60},
    "next snapshot": {"marker": ">", "edgecolors": "#666666", "s": 60},
    FLOOR: {"marker": "|", "color": INK, "s": 260, "linewidths": 2},
}
_NAMES = {
    FLOW: "flow (did not see this snapshot)",
    "linear transport": "straight lines (optimal transport)",
    "previous and next": "mixture of both neighbours",
    "previous snapshot": "do nothing: previous snapshot",
    "next snapshot": "do nothing: next snapshot",
    FLOOR: "noise floor: half against half",
}


def validation(
    adata: "AnnData", *, time_key: str | None = None, key: str = "validation", ax: "Axes | None" = None
) -> "Axes":
    """Draw the distance from each prediction to the cells of the left-out snapshot: further left is better.

    Parameters
    ----------
    adata
        Holds what `cellflow.tl.validate` wrote.
    time_key
        Time column that the labels name; ``None`` for the one that `cellflow.tl.validate` noted.
    key
        Name under which `cellflow.tl.validate` wrote.
    ax
        Axes to draw on; ``None`` for new ones.

    Raises
    ------
    KeyError
        When `cellflow.tl.validate` has not run.

    Examples
    --------
    >>> import anndata, pandas as pd, cellflow as cf
    >>> rows = {"time": [24.0, 24.0], "method": ["flow", "previous snapshot"], "W1": [1.0, 2.0], "n_cells": [9, 9]}
    >>> ax = cf.pl.validation(anndata.AnnData(uns={"validation": pd.DataFrame(rows)}), time_key="hours")
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['24 hours']
    """
    table = read_validation(adata, key)
    about = adata.uns.get(f"{key}_about", {})
    unit = unit_of_result(adata, about, time_key)
    times = np.sort(table["time"].unique())
    ax = axes_or_new(ax, size=(8.4, 2.4 + 0.38 * len(times)))
    for place in range(len(times)):
        ax.axhline(place, color="#e4e4e4", linewidth=1, zorder=0)
    for method in table["method"].unique():
        rows = table[table["method"] == method]
        style = _STYLES.get(method, {"marker": "P", "edgecolors": INK})
        ax.scatter(
            rows["W1"], np.searchsorted(times, rows["time"]), label=_NAMES.get(method, literal(method)), **_mark(style)
        )
    ax.set_yticks(range(len(times)), [literal(time_label(time, unit)) for time in times])
    ax.set_ylim(len(times) - 0.4, -0.6)
    ax.set_xlim(0, 1.08 * table["W1"].max())
    ax.set(
        xlabel=literal(f"W1 distance to the left-out cells, in units of {about.get('rep', 'the representation')}"),
        ylabel="left out",
    )
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.03), frameon=False, labelspacing=0.7)
    plain(ax)
    return ax


def _mark(style: dict[str, Any]) -> dict[str, Any]:
    """Hollow where only an edge is coloured, so that marks at the same place are all seen."""
    hollow = {"facecolors": "none", "linewidths": 1.5} if "edgecolors" in style else {}
    return {"zorder": 3, **hollow, **style}


def read_validation(adata: "AnnData", key: str = "validation") -> pd.DataFrame:
    """Return the table that `cellflow.tl.validate` wrote.

    Raises
    ------
    KeyError
        When it has not run.
    """
    if key not in adata.uns:
        raise KeyError(
            f"No `adata.uns[{key!r}]`. Available: {list(adata.uns)}. Run `cf.tl.validate(adata, flow)` first."
        )
    return pd.DataFrame(adata.uns[key])
