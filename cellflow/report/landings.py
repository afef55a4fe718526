"""Sentences and a table on where cells go: on their own label, and near their own clone."""

from typing import TYPE_CHECKING

import pandas as pd

from cellflow.pl.labels import time_label
from cellflow.pl.validation import KINDS, read_validation
from cellflow.report import html
from cellflow.tl.landings import CLONES, LABELS

if TYPE_CHECKING:
    from anndata import AnnData

KIND = "couplings"
UNSEEN = (
    "No score above shows which cell goes where: a flow may match every snapshot and still carry cells into the wrong "
    "lineage. If there is a column of cell types or clones, name it with data.groupby= or data.lineage_key=."
)
_WHAT = {LABELS: "Mass that lands on its own label", CLONES: "Agreement of clones (0.5 is chance)"}
_METHODS = {"not moving": "not moving", "exact plan": "the exact transport plan", "plan of the flow": "the flow's plan"}


def read(adata: "AnnData") -> pd.DataFrame | None:
    """Return the scores of where cells go; ``None`` if no labels or clones were named."""
    return read_validation(adata, kind=KIND) if f"validation{KINDS[KIND]}" in adata.uns else None


def headline(table: pd.DataFrame) -> list[str]:
    """Return sentences on each score, averaged over intervals, and a warning if fewer cells keep their label.

    Examples
    --------
    >>> columns = ["start", "time", "score", "method", "cells", "value", "low", "high", "n"]
    >>> rows = [("flow", "fitted", 0.84, 0.81, 0.87, 300), ("not moving", "fitted", 0.88, 0.86, 0.9, 300)]
    >>> table = pd.DataFrame([(4.0, 6.0, "label persistence", *row) for row in rows], columns=columns)
    >>> headline(table)[0]
    'Mass that lands on its own label: 0.84 by the flow, 0.88 by not moving. In 1 of 1 intervals this is less than by
    not moving. Cells may change state, but they may also be carried across lineages: a warning, not proof.'
    """
    return [_said(score, rows) for score in (LABELS, CLONES) if len(rows := table[table["score"] == score])]


def section(table: pd.DataFrame, unit: str) -> str:
    """Return what was compared, and a table."""
    order = {LABELS: 0, CLONES: 1}
    keys = dict.fromkeys(zip(table["score"], table["start"], table["time"], table["cells"], strict=True))
    shown = [name for name in ("flow", *_METHODS) if name in set(table["method"])]
    rows = []
    for score, start, time, cells in sorted(keys, key=lambda key: (order[key[0]], *key[1:3], key[3])):
        one = table[(table["score"] == score) & (table["time"] == time) & (table["start"] == start)]
        one = one[one["cells"] == cells].set_index("method")
        flow = one.loc["flow"]
        values = [f"{flow['value']:.2f} ({flow['low']:.2f} to {flow['high']:.2f})"]
        values += [f"{one.loc[name, 'value']:.2f}" if name in one.index else "–" for name in shown[1:]]
        span = f"{time_label(start, unit)} to {time_label(time, unit)}"
        rows.append([score.capitalize(), span, cells, f"{int(flow['n']):,}", *values])
    explained = (
        "Where each cell lands, read from the labels of the measured cells around that place, and from how near it is "
        "to cells of its own clone or track: the probability that one of these is nearer than another cell. Static "
        "plans are evaluated at the same cells. Labels are not ground truth, since cells change state; clones are."
    )
    header = (
        "Score",
        "Carried",
        "Cells",
        "Number",
        "Flow (95\u00a0% interval)",
        *(_METHODS[name] for name in shown[1:]),
    )
    header = tuple(name[0].upper() + name[1:] for name in header)
    note = "Number: of cells for labels, of clones for clones."
    return (
        html.paragraph(explained)
        + html.table(header, rows, numbers=range(3, len(header)))
        + html.paragraph(note, style="note")
    )


def _said(score: str, rows: pd.DataFrame) -> str:
    mean = rows.groupby(["method", "cells"])["value"].mean()
    kinds = [cells for cells in ("fitted", "new") if ("flow", cells) in mean.index]
    flow = f"{mean['flow', kinds[0]]:.2f}" + (f" (new cells: {mean['flow', 'new']:.2f})" if kinds[1:] else "")
    others = ", ".join(
        f"{mean[name, kinds[0]]:.2f} by {words}" for name, words in _METHODS.items() if (name, kinds[0]) in mean.index
    )
    found = f"{_WHAT[score]}: {flow} by the flow, {others}."
    one = rows[rows["cells"] == kinds[0]]
    both = one[one["method"] == "flow"].merge(
        one[one["method"] == "not moving"], on=["start", "time"], suffixes=("", "_still")
    )
    below, above = (both["high"] < both["value_still"]).sum(), (both["low"] > both["value_still"]).sum()
    if score == LABELS and below:
        return (
            f"{found} In {below} of {len(both)} intervals this is less than by not moving. Cells may change state, but "
            "they may also be carried across lineages: a warning, not proof."
        )
    if score == CLONES:
        return (
            f"{found} Beyond its interval it is better than not moving in {above} of {len(both)} intervals, and worse "
            f"in {below}."
        )
    return found
