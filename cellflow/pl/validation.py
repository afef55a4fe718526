"""Scores of a validation beside baselines: at left-out times, on new cells, and of where cells go."""

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellflow.errors import unknown
from cellflow.pl.canvas import INK, OBSERVED, PREDICTED, axes_or_new, literal, plain
from cellflow.pl.coloring import colors_for
from cellflow.pl.labels import time_label, unit_of_result
from cellflow.pl.look import look_of
from cellflow.pl.marks import titled
from cellflow.signature import checked

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

KINDS = {"times": "", "new cells": "_new_cells", "couplings": "_couplings"}
"""What can be drawn, and the end of the name of its table."""
FLOW, FLOOR = "flow", "half against half"
"""Rows of the table that are not baselines."""
MOST_RANGE = 10
"""Ratio of energy distances from which they are drawn on a logarithmic scale."""
TAKES = ("palette", "legend_loc", "title")
"""What of a look is of this plot: it draws scores, not cells."""
_GREEN = "#009E73"
_STYLES: dict[Hashable, dict[str, Any]] = {
    FLOW: {"marker": "o", "color": PREDICTED, "s": 45, "zorder": 4},
    (FLOW, "new"): {"marker": "o", "color": PREDICTED, "s": 45, "zorder": 4},
    (FLOW, "fitted"): {"marker": "o", "edgecolors": PREDICTED, "s": 45, "zorder": 4},
    "linear transport": {"marker": "D", "edgecolors": OBSERVED, "s": 95},
    "exact plan": {"marker": "D", "edgecolors": OBSERVED, "s": 50},
    "plan of the flow": {"marker": "^", "edgecolors": OBSERVED, "s": 50},
    "previous and next": {"marker": "s", "edgecolors": _GREEN, "s": 85},
    "common shift": {"marker": "s", "edgecolors": _GREEN, "s": 50},
    "previous snapshot": {"marker": "<", "edgecolors": "#666666", "s": 60},
    "next snapshot": {"marker": ">", "edgecolors": "#666666", "s": 60},
    "not moving": {"marker": "<", "edgecolors": "#666666", "s": 60},
    FLOOR: {"marker": "|", "color": INK, "s": 260, "linewidths": 2},
    "floor": {"marker": "|", "color": INK, "s": 260, "linewidths": 2},
}
_NAMES: dict[Hashable, str] = {
    FLOW: "flow (did not see this snapshot)",
    (FLOW, "new"): "flow, new cells",
    (FLOW, "fitted"): "flow, fitted cells",
    "linear transport": "straight lines (optimal transport)",
    "exact plan": "optimal transport plan",
    "plan of the flow": "plan of the flow's coupling",
    "previous and next": "mixture of both neighbours",
    "previous snapshot": "do nothing: previous snapshot",
    "next snapshot": "do nothing: next snapshot",
    "not moving": "do nothing: not moving",
    "common shift": "one shift for all cells",
    FLOOR: "noise floor: half against half",
    "floor": "noise floor: cells of the next snapshot",
}
_VALUES = {"times": "W1", "new cells": "ED", "couplings": "value"}
_XLABELS = {
    "times": "W1 distance to the held-out cells, in units of {rep}",
    "new cells": "energy distance to new cells of the next snapshot, in units of {rep}",
    "couplings": "mass on its own label, or agreement of clones (0.5 by chance)",
}
_APART: dict[str, dict[Hashable, float]] = {
    "times": {},
    "new cells": {(FLOW, "new"): -0.12, (FLOW, "fitted"): 0.12},
    "couplings": {
        (FLOW, "new"): -0.28,
        (FLOW, "fitted"): -0.14,
        "not moving": 0.0,
        "exact plan": 0.14,
        "plan of the flow": 0.28,
    },
}
"""By how much marks of a row are apart, so that their intervals are seen."""
_SCORES = {"label persistence": "labels", "clone agreement": "clones"}


@checked
def validation(
    adata: "AnnData",
    *,
    kind: str = "times",
    time_key: str | None = None,
    key: str = "validation",
    ax: "Axes | None" = None,
    **look: Any,
) -> "Axes":
    """Draw what `cellflow.tl.validate` found: a row for each time or interval, a mark for each method.

    Parameters
    ----------
    adata
        Holds what `cellflow.tl.validate` wrote.
    kind
        ``"times"``: W1 to the cells of held-out snapshots. ``"new cells"``: energy distance of fitted and new cells to
        new cells of the next snapshot. In both, further left is better. ``"couplings"``: the share of mass that keeps
        its label, and the agreement of clones, where further right is better. Lines are intervals of 95 %.
    time_key
        Time column that the labels name; ``None`` for the one that `cellflow.tl.validate` noted.
    key
        Name under which `cellflow.tl.validate` wrote.
    ax
        Axes to draw on; ``None`` for new ones.
    **look
        As for `cells`: ``palette`` (of the methods, by their names in the legend or in its order), ``title``, and
        ``legend_loc="none"`` to leave out the legend.

    Raises
    ------
    KeyError
        When `cellflow.tl.validate` has not run, or has not written what to draw.
    TypeError, ValueError
        When ``look`` has another argument, or a value that is not possible.

    Examples
    --------
    >>> import anndata, pandas as pd, cellflow as cf
    >>> rows = {"time": [24.0, 24.0], "method": ["flow", "previous snapshot"], "W1": [1.0, 2.0], "n_cells": [9, 9]}
    >>> ax = cf.pl.validation(anndata.AnnData(uns={"validation": pd.DataFrame(rows)}), time_key="hours")
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['24 hours']
    """
    how = look_of("pl.validation", look, takes=TAKES)
    table = read_validation(adata, key, kind=kind)
    about = adata.uns.get(f"{key}_about", {})
    unit = unit_of_result(adata, about, time_key)
    value, rows, widest = _VALUES[kind], _rows(table, kind, unit), 0.0
    ax = axes_or_new(ax, size=figure_size(adata, key, kind=kind))
    for place in range(len(rows)):
        ax.axhline(place, color="#e4e4e4", linewidth=1, zorder=0)
    methods = _methods(table, kind)
    colors = colors_for(how, {_name(method): _color(_style(method)) for method in methods})
    for method, group in methods.items():
        places = np.array([list(rows).index(row) for row in _keys(group, kind)]) + _APART[kind].get(method, 0.0)
        style = _colored(_style(method), colors[_name(method)])
        low, high = (f"{value}_{end}" if kind != "couplings" else end for end in ("low", "high"))
        if low in group and (kind == "couplings" or _is_flow(method)):
            widest = max(widest, group[high].max())
            ax.hlines(places, group[low], group[high], color=_color(style), linewidth=1.2, alpha=0.6, zorder=2)
        ax.scatter(group[value], places, label=literal(_name(method)), **_mark(style))
    ax.set_yticks(range(len(rows)), [literal(label) for label in rows.values()])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    _scale(ax, kind, table[value], widest)
    rep = about.get("rep", "the representation")
    ax.set(xlabel=literal(_XLABELS[kind].format(rep=rep)), ylabel="left out" if kind == "times" else "carried")
    if how.legend_loc not in (None, "none"):
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.03), frameon=False, labelspacing=0.7)
    ax.set_title(titled(how, 0, None))
    plain(ax)
    return ax


def _scale(ax: "Axes", kind: str, values: pd.Series, widest: float) -> None:
    """From 0, or logarithmic where intervals differ so much that the short distances could not be told apart."""
    if kind == "new cells" and 0 < values.min() < values.max() / MOST_RANGE:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_xlim(values.min() / 1.5, 1.2 * max(values.max(), widest))
    else:
        ax.set_xlim(0, 1.02 if kind == "couplings" else 1.08 * max(values.max(), widest))


def figure_size(adata: "AnnData", key: str = "validation", *, kind: str = "times") -> tuple[float, float]:
    """Return the size in inches that a drawing needs: taller with more times or intervals."""
    table = read_validation(adata, key, kind=kind)
    return 8.4, 2.4 + (0.38 if kind == "times" else 0.55) * len(set(_keys(table, kind)))


def _keys(table: pd.DataFrame, kind: str) -> list[tuple[Any, ...]]:
    """Return what tells the rows of a drawing apart."""
    names = {"times": ["time"], "new cells": ["time", "start"], "couplings": ["score", "time", "start"]}[kind]
    return list(zip(*(table[name] for name in names), strict=True))


def _rows(table: pd.DataFrame, kind: str, unit: str) -> dict[tuple[Any, ...], str]:
    """Return the rows in their order, with their labels."""
    found = {}
    order = {name: place for place, name in enumerate(_SCORES)}
    for row in sorted(set(_keys(table, kind)), key=lambda row: [order.get(part, part) for part in row]):
        *score, time, start = row if kind != "times" else (*row, None)
        span = time_label(time, unit) if start is None else f"{time_label(start, unit)} to {time_label(time, unit)}"
        found[row] = f"{_SCORES[score[0]]}, {span}" if score else span
    return found


def _methods(table: pd.DataFrame, kind: str) -> dict[Hashable, pd.DataFrame]:
    """Return the rows of each method; baselines once, for new cells where there are any."""
    if kind == "times":
        return {method: table[table["method"] == method] for method in table["method"].unique()}
    cells = "new" if "new" in set(table["cells"]) else "fitted"
    found: dict[Hashable, pd.DataFrame] = {
        (FLOW, name): table[(table["method"] == FLOW) & (table["cells"] == name)]
        for name in ("new", "fitted")
        if name in set(table["cells"])
    }
    for method in table["method"].unique():
        rows = table[table["method"] == method]
        if method != FLOW:
            found[method] = rows[rows["cells"] == (cells if cells in set(rows["cells"]) else "fitted")]
    return found


def _is_flow(method: Hashable) -> bool:
    return method == FLOW or (isinstance(method, tuple) and method[0] == FLOW)


def _name(method: Hashable) -> str:
    """Return what the legend calls a method."""
    return _NAMES.get(method, str(method))


def _style(method: Hashable) -> dict[str, Any]:
    return _STYLES.get(method, {"marker": "P", "edgecolors": INK})


def _color(style: dict[str, Any]) -> str:
    """Return the colour of a mark, of its edge where it is hollow."""
    return str(style.get("color", style.get("edgecolors")))


def _colored(style: dict[str, Any], color: str) -> dict[str, Any]:
    return style | {"color" if "color" in style else "edgecolors": color}


def _mark(style: dict[str, Any]) -> dict[str, Any]:
    """Hollow where only an edge is coloured, so that marks at the same place are all seen."""
    hollow = {"facecolors": "none", "linewidths": 1.5} if "edgecolors" in style else {}
    return {"zorder": 3, **hollow, **style}


def read_validation(adata: "AnnData", key: str = "validation", *, kind: str = "times") -> pd.DataFrame:
    """Return a table that `cellflow.tl.validate` wrote.

    Raises
    ------
    KeyError
        When it has not run.
    """
    if kind not in KINDS:
        raise ValueError(unknown("kind", kind, tuple(KINDS)))
    name = f"{key}{KINDS[kind]}"
    if name not in adata.uns:
        asked = ', groupby="cell_type"' if kind == "couplings" else ""
        raise KeyError(
            f"No `adata.uns[{name!r}]`. Available: {list(adata.uns)}. Run `cf.tl.validate(adata, flow{asked})` first."
        )
    return pd.DataFrame(adata.uns[name])
