"""The figures of a report of a flow, drawn without pyplot, so that no figure stays open."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cellflow import pl, tl
from cellflow.cells.snapshots import read_times
from cellflow.estimators import prediction
from cellflow.pl.canvas import literal
from cellflow.pl.genes import COLUMNS as GENES_PER_ROW
from cellflow.pl.labels import rate_label, time_label, unit_of
from cellflow.pl.validation import KINDS, figure_size
from cellflow.report import cell_types, estimator, fates, growth, left_out
from cellflow.report.html import Drawing, blank

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow

MOST_SNAPSHOTS = 6
"""Maximum number of snapshots to draw beside their prediction; of more, a regular selection."""
MOMENTS = 25
_VALIDATED = {
    "times": "Distance from each prediction to the held-out cells: further left is better. Below the noise floor "
    "differences mean little.",
    "new cells": "Distance of carried cells to new cells of the next snapshot: further left is better. If the full "
    "circle lies far to the right of the empty one, the flow has memorised its cells, not learned the population.",
    "couplings": "Share of mass that lands on its own label, and agreement of clones: further right is better. If the "
    "flow is left of not moving, cells change state, or are carried across lineages.",
}
"""Captions."""


def drawings(
    adata: "AnnData", flow: "SnapshotFlow", *, basis: str, genes: Sequence[str] = (), groupby: str | None = None
) -> Iterator[Drawing]:
    """Draw all available figures for these cells and this flow, one after the other."""
    unit = unit_of(adata, flow.time_key)
    yield cell_types.drawing(adata, flow, basis=basis, groupby=groupby)
    yield from _validation(adata, unit)
    yield from _predictions(adata, flow, basis, unit)
    if flow.conditions_ is None:  # untreated cells of a first snapshot alone do not say under what to follow them
        figure = blank(7.2, 5.4)
        pl.trajectories(adata, flow, basis=basis, ax=figure.subplots())
        yield Drawing(
            "trajectories", "trajectories", figure,
            "Trajectories of cells of the first snapshot to "
            f"{time_label(flow.clock_.times[-1], unit)}, over all cells.",
        )  # fmt: skip
    figure = blank(7.2, 5.4)
    kind = "cell" if flow.n_features_in_ == 1 else "stream"
    shown = _covered(adata, flow)
    if groupby is not None and shown.obs[groupby].nunique() > cell_types.MOST_COLORS:
        shown = shown.copy()
        shown.obs[groupby] = cell_types.grouped(shown, groupby)
    pl.velocity(shown, flow, basis=basis, kind=kind, color=groupby, ax=figure.subplots())
    yield Drawing(
        "trajectories" if groupby is None else "opening", "velocity", figure,
        f"Where cells move (change {rate_label(unit)})."
        + (" Averaged where there are enough cells; thicker lines are faster." if kind == "stream" else ""),
    )  # fmt: skip
    yield from fates.drawings(adata, flow, basis=basis, groupby=groupby, genes=genes)
    if groupby is not None and flow.growth_:
        yield growth.drawing(adata, flow, groupby=groupby, unit=unit)
    if len(genes) and not left_out.undecoded(adata, flow, genes):
        yield _genes(adata, flow, genes)
    yield estimator.loss(flow)


def _validation(adata: "AnnData", unit: str) -> Iterator[Drawing]:
    for kind, end in KINDS.items():
        if f"validation{end}" in adata.uns:
            figure = blank(*figure_size(adata, kind=kind))
            pl.validation(adata, kind=kind, time_key=unit, ax=figure.subplots())
            section = end.strip("_") or "validation"
            yield Drawing(section, section, figure, _VALIDATED[kind])


def _predictions(adata: "AnnData", flow: "SnapshotFlow", basis: str, unit: str) -> Iterator[Drawing]:
    """Draw held-out snapshots and, separately, fitted ones."""
    first, last = flow.clock_.times[0], flow.clock_.times[-1]
    inner = [float(t) for t in np.unique(read_times(adata, flow.time_key)) if first < t < last]
    unseen = _few([time for time in inner if time not in flow.clock_.times])
    seen = _few([time for time in inner if time in flow.clock_.times])
    if unseen:
        figure = blank(8.4, 0.4 + 3.7 * len(unseen))
        predicted = tl.interpolate(adata, flow, at=unseen, genes=False)
        pl.interpolation(adata, predicted, time_key=flow.time_key, basis=basis, figure=figure)
        yield Drawing(
            "predictions", "predicted", figure,
            "Held-out snapshots: observed cells, and the flow's prediction of them. The flow never saw these cells; "
            "the neighbouring snapshots are carried towards them. Larger dots have more weight.",
        )  # fmt: skip
    if seen:
        figure = blank(8.4, 0.4 + 3.7 * len(seen))
        pl.interpolation(adata, _carried(adata, flow, seen), time_key=flow.time_key, basis=basis, figure=figure)
        for ax, time in zip(figure.axes[1::2], seen, strict=True):
            start = literal(time_label(_before(flow, time), unit))
            ax.set_title(ax.get_title().replace(", predicted\n", f", carried from {start}\n"))
        yield Drawing(
            "predictions", "carried", figure,
            "Fitted snapshots: observed cells, and those of the fitted snapshot before carried to the same time. The "
            "flow was fitted on both, so this shows how well it fits, not how well it predicts.",
        )  # fmt: skip


def _carried(adata: "AnnData", flow: "SnapshotFlow", times: list[float]) -> "AnnData":
    """Carry the fitted snapshot before each time to it, in the form of `cellflow.tl.interpolate`."""
    import anndata

    cells, states, obs = flow.read(adata), [], []
    for at in times:
        for number, part in enumerate(prediction.arriving(flow, cells, at)):
            states.append(part.x)
            names = [f"{name}@{at:g}" + (f"#{number}" if number else "") for name in adata.obs_names[part.origin.rows]]
            obs.append(pd.DataFrame({flow.time_key: at, "weight": part.weight}, index=names))
    x, table = np.concatenate(states), pd.concat(obs)
    if flow.rep == "X":
        return anndata.AnnData(X=x, obs=table, var=adata.var[[]].copy())
    return anndata.AnnData(obs=table, obsm={flow.rep: x})


def _before(flow: "SnapshotFlow", time: float) -> float:
    return flow.clock_.times[flow.clock_.times.index(time) - 1]


def _genes(adata: "AnnData", flow: "SnapshotFlow", genes: Sequence[str]) -> Drawing:
    """Draw the course of genes, decoding few cells at a time."""
    few, first, last = adata[fates.thin(adata, flow)], flow.clock_.times[0], flow.clock_.times[-1]
    times = np.union1d(np.linspace(first, last, MOMENTS), flow.clock_.times)
    course = tl.interpolate(few, flow, at=times, genes=list(genes))
    rows = -(-len(genes) // GENES_PER_ROW)
    figure = blank(10.4, 0.6 + 2.5 * rows)
    unseen = [t for t in np.unique(read_times(adata, flow.time_key)) if t not in flow.clock_.times]
    pl.genes(adata, course, genes=genes, time_key=flow.time_key, left_out=unseen, figure=figure)
    return Drawing(
        "genes", "genes", figure,
        "Predicted mean expression (line), beside the measured one (dots). The line is decoded from the "
        "representation, which keeps only part of each gene's variance, so it need not meet the dots.",
    )  # fmt: skip


def _few(times: list[float]) -> list[float]:
    places = np.unique(np.linspace(0, len(times) - 1, min(len(times), MOST_SNAPSHOTS)).round().astype(int))
    return [times[place] for place in places]


def _covered(adata: "AnnData", flow: "SnapshotFlow") -> "AnnData":
    """Return the cells within the fitted times: no velocity was learned at a held-out edge."""
    time = read_times(adata, flow.time_key)
    inside = (time >= flow.clock_.times[0]) & (time <= flow.clock_.times[-1])
    return adata if inside.all() else adata[inside]
