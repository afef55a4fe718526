"""Growth: what snapshots show of it, what depends on the relaxation, and growth by group of cells."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellflow.cells.columns import read_labels
from cellflow.pl.canvas import INK, PREDICTED, literal
from cellflow.pl.labels import rate_label, time_label
from cellflow.report import html
from cellflow.report.html import Drawing, blank
from cellflow.tl.sensitivity import conclusion, sensitivity
from cellflow.training.confirmed import last_confirmed

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.couplings import Plan
    from cellflow.estimators import SnapshotFlow

LEAST = 5
"""Minimum number of cells of a group that is drawn."""


def text(adata: "AnnData", flow: "SnapshotFlow", *, unit: str) -> str:
    """Say what identifies the growth of a flow, and how far it depends on the relaxation of the plans."""
    level = (
        "Population sizes were given, so rates are absolute."
        if flow.masses is not None
        else "No population sizes were given: only differences between cells of one snapshot are meaningful."
    )
    expected = (
        "" if flow.prior_key is None else f" The expected growth of each cell, obs[{flow.prior_key!r}], is included."
    )
    said = html.paragraph(
        "Snapshots show how the shares of states change between them. That this is growth, and not travel from one "
        f"state to another, is an assumption about how far cells travel. {level}{expected}{_turnover(flow, unit=unit)}"
        f"{_confirmed(flow)}"
    )
    table = sensitivity(adata, flow)
    if table is None:
        return said
    rows = [
        (time_label(time, unit), f"{spread:.2f}", f"{half:.2f}", f"{double:.2f}", f"{level:.1f}")
        for time, spread, half, double, level in table.to_numpy().tolist()
    ]
    header = ("Snapshot", "Spread", "Ranks at half", "Ranks at double", "Level")
    return (
        said
        + html.paragraph(
            conclusion(table, known=flow.prior_key is not None)
            or "At half and double the relaxation of the plans, growth is much the same."
        )
        + html.table(header, rows, numbers=range(1, len(header)))
        + html.paragraph(
            "Spread: standard deviation of the growth of log mass over an interval, by the plans. Ranks: Spearman's "
            "correlation with growth at half and at double the relaxation. Level: how many times larger the spread is "
            "at half than at double; 1 if shares decide, up to 4 if travel is taken for death.",
            style="note",
        )
    )


def _turnover(flow: "SnapshotFlow", *, unit: str) -> str:
    """Say which share of the population growth replaces in each interval, and at which relaxation."""
    said = []
    if isinstance(flow.turnover_, dict):  # many legs: the table of plans is in `flow.turnover_`
        return ""
    for (start, stop), share, plan in zip(pairwise(flow.clock_.times), flow.turnover_, _plans(flow), strict=True):
        if share is not None:
            relaxation = getattr(plan, "settings", {}).get("relaxation")
            by = "" if relaxation is None else f" (relaxation {relaxation:.3g})"
            said.append(f"{share:.0%} from {time_label(start, unit)} to {time_label(stop, unit)}{by}")
    return f" According to the plans, growth replaces this share of the population: {', '.join(said)}." if said else ""


def _confirmed(flow: "SnapshotFlow") -> str:
    """Say how much of the growth of the plans held-out cells confirm."""
    share = last_confirmed(flow.search_history_)
    if share is None:
        return ""
    return f" Held-out cells confirm {share:.0%} of it: this share was learned."


def _plans(flow: "SnapshotFlow") -> "Sequence[Plan | None]":
    """Return the plan of each interval; a flow that was loaded has none."""
    return getattr(flow, "plans_", [None] * len(flow.turnover_))


def drawing(adata: "AnnData", flow: "SnapshotFlow", *, groupby: str, unit: str) -> Drawing:
    """Draw the growth rates of the fitted cells of each group: median, and the middle half of the cells."""
    states = flow.read(adata, weights=False)
    known = states.take(np.isin(states.time, flow.clock_.times[:-1]))
    rate = pd.Series(flow.growth_rate(known.x, known.time, condition=known.condition))
    groups: Any = pd.Series(read_labels(adata, groupby, setting="groupby").to_numpy()[known.rows])
    quarters = rate.groupby(groups).quantile(np.array([0.25, 0.5, 0.75])).unstack()
    quarters = quarters[groups.value_counts().reindex(quarters.index) >= LEAST].sort_values(0.5)
    figure = blank(6.4, 1.2 + 0.32 * len(quarters))
    ax = figure.subplots()
    places = np.arange(len(quarters))
    ax.hlines(places, quarters[0.25], quarters[0.75], color=INK, linewidth=1.4)
    ax.scatter(quarters[0.5], places, color=PREDICTED, zorder=2)
    ax.axvline(0, color=INK, linewidth=0.6, linestyle=":")
    ax.set_ylim(-0.6, len(quarters) - 0.4)
    ax.set_yticks(places, [literal(str(name)) for name in quarters.index])
    ax.set(xlabel=literal(f"growth rate {rate_label(unit)}"), ylabel=literal(groupby))
    ax.spines[["top", "right"]].set_visible(False)
    caption = (
        f"Growth rates that the flow has learned, by {groupby}: median, and the middle half of the cells, before the "
        "last snapshot. Growth cannot be distinguished from the share of a group in the sample: a rate says how the "
        "number of sampled cells changes, relative to other cells."
    )
    return Drawing("growth", "growth", figure, caption)
