"""Sentences and a table on new cells, and a warning if they are carried worse."""

from typing import TYPE_CHECKING

import pandas as pd

from cellflow.pl.labels import time_label
from cellflow.pl.validation import KINDS, read_validation
from cellflow.report import html
from cellflow.report.validation import compare, number
from cellflow.tl.new_cells import by_time, generalisation, idle

if TYPE_CHECKING:
    from anndata import AnnData

KIND = "new cells"
_COLUMNS = {
    ("flow", "new"): "Flow, new cells",
    ("flow", "fitted"): "Flow, fitted cells",
    ("not moving", "new"): "Not moving",
    ("common shift", "new"): "One shift for all",
    ("floor", "fitted"): "Noise floor",
}


def read(adata: "AnnData") -> pd.DataFrame | None:
    """Return the scores on new cells; ``None`` if none were held out."""
    return read_validation(adata, kind=KIND) if f"validation{KINDS[KIND]}" in adata.uns else None


def headline(table: pd.DataFrame, unit: str) -> str:
    """Return sentences on whether new cells are carried as well as fitted ones, and a warning if they are not.

    Examples
    --------
    >>> rows = [("flow", "new", 1.0, 0.4), ("flow", "fitted", 0.98, None), ("not moving", "new", 9.0, None)]
    >>> rows = [(24.0, *row) for row in [*rows, ("common shift", "new", 2.0, None)]]
    >>> headline(pd.DataFrame(rows, columns=["time", "method", "cells", "ED", "p"]), "hours")
    'New cells, which were held out of the fit, are carried to 24 hours as well as fitted ones. They come nearer to the
    next snapshot than without moving, or by one shift for all cells, in 1 of 1 intervals.'
    """
    outcomes = generalisation(table)
    said = [
        f"{_joined([time_label(time, unit) for time in times])} {words}"
        for outcome, words in _SAID.items()
        if (times := [time for time, found in outcomes.items() if found == outcome])
    ]
    scores = by_time(table).values()
    nearer = sum(compare(score["flow", "new"]["ED"], idle(score)) == "better" for score in scores)
    found = (
        f"New cells, which were held out of the fit, are carried to {'; to '.join(said)}. They come nearer to the next "
        f"snapshot than without moving, or by one shift for all cells, in {nearer} of {len(outcomes)} intervals."
    )
    if "no better" in outcomes.values():
        return (
            f"{found} Warning: there the flow has memorised its cells, not learned the population. Do not trust its "
            "velocities away from the fitted cells."
        )
    if "worse" in outcomes.values():
        return f"{found} There the flow knows its own cells better than the population."
    return found


def section(table: pd.DataFrame, unit: str) -> str:
    """Return what was compared, and a table."""
    scores = by_time(table)
    rows = []
    for time, score in scores.items():
        first = score["flow", "new"]
        span = f"{time_label(first['start'], unit)} to {time_label(time, unit)}"
        rows.append([span, f"{int(first['n_cells']):,}", *(number(score[key]["ED"]) for key in _COLUMNS)])
    explained = (
        "The same settings were fitted once more, on part of the cells of every snapshot. Fitted cells, and as many "
        "held-out ones, were then carried to the next snapshot, and compared with held-out cells there: the energy "
        "distance is 0 between equal populations. A flow that has learned the population carries both equally well; "
        "one that has memorised its cells does not."
    )
    caution = (
        "This fit has fewer cells than the flow of this report, which therefore does somewhat better on new ones. The "
        "noise floor compares fitted and new cells of the same snapshot: the score of a perfect flow. The distance "
        "is larger between fewer cells."
    )
    header = ("Carried", "Cells", *_COLUMNS.values())
    return (
        html.paragraph(explained)
        + html.table(header, rows, numbers=range(1, len(header)))
        + html.paragraph(caution, style="note")
    )


_SAID = {
    "as well": "as well as fitted ones",
    "unsure": "less well than fitted ones, but not beyond chance for so few cells",
    "worse": "worse than fitted ones",
    "no better": "worse than fitted ones, and no better than without moving, or by one shift for all cells",
}


def _joined(names: list[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
