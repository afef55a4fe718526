"""The report of a flow through snapshots: sections of text, tables and figures."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cellflow import couplings, paths
from cellflow.cells.absent import absent_groups
from cellflow.cells.columns import read_labels
from cellflow.cells.expression import places_of
from cellflow.cells.snapshots import read_times
from cellflow.estimators.conditional import refuse
from cellflow.files import committed
from cellflow.lock import A_SAVE, locked
from cellflow.pl.basis import read_basis
from cellflow.pl.labels import time_label, unit_of
from cellflow.report import (
    cell_types,
    chains,
    conditions,
    estimator,
    few_steps,
    growth,
    html,
    landings,
    left_out,
    lineage,
    new_cells,
    validation,
)
from cellflow.report.figures import MOST_SNAPSHOTS, drawings
from cellflow.tl import testable_times

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow

PAGE, FIGURES = "report.html", "figures"
_TITLES = {
    "opening": "Where cells go",
    "cells": "The cells",
    "lineage": "Beside real clones",
    "fitted": "What was fitted",
    "chains": "Which conditions were fitted",
    "validation": "How good the predictions are",
    "new_cells": "Whether new cells are carried as well",
    "couplings": "Whether cells go where they belong",
    "predictions": "Predicted beside observed cells",
    "trajectories": "Trajectories and velocities",
    "fates": "Where cells end",
    "drivers": "Genes that go with a fate",
    "trends": "Genes toward each fate",
    "growth": "Growth",
    "conditions": "What treatments change",
    "genes": "Genes over time",
    "training": "Training",
    "steps": "How many steps it takes",
    "use": "How to use this flow",
    "left_out": "What is not on this page",
    "run": "The run",
}

_PATHS = {
    "Linear": "paired cells are joined by straight lines",
    "BrownianBridge": "paired cells are joined by straight lines with noise in between",
    "Trigonometric": "paired cells are joined by arcs",
    "VariancePreserving": "paired cells are joined as in diffusion models",
}
_COUPLINGS = {
    "Independent": "cells of neighbouring snapshots are paired at random",
    "Exact": "cells of neighbouring snapshots are paired so that they move as little as possible (optimal transport)",
    "Hierarchical": "cells of neighbouring snapshots are paired so that they move little more than necessary (optimal "
    "transport, solved in parts)",
    "Sinkhorn": "cells of neighbouring snapshots are paired so that they move little, with some freedom (entropic "
    "optimal transport)",
    "UnbalancedSinkhorn": "cells of neighbouring snapshots are paired so that they move little, and may divide or die "
    "(unbalanced optimal transport)",
}


def write(
    folder: str | Path,
    adata: "AnnData",
    flow: "SnapshotFlow",
    *,
    title: str,
    details: Mapping[str, str],
    basis: str | None = None,
    genes: Sequence[str] = (),
    groupby: str | None = None,
    lineage_key: str | None = None,
) -> Path:
    """Write the report of a fitted flow: one self-contained HTML page, and its figures as PNG and SVG files.

    Scores beside baselines are shown if `cellflow.tl.validate` has written them, fates if `cellflow.tl.fate` has, and
    the effects of treatments if `cellflow.tl.response` has; nothing is refitted here, and ``adata`` is not changed. The
    page lists what it leaves out, with the reason. No other process can write there meanwhile.

    Parameters
    ----------
    folder
        The folder of the run, where the flow is saved; created if it does not exist. ``report.html`` and ``figures/``
        in it are replaced.
    adata
        The cells, including held-out snapshots.
    flow
        The fitted flow.
    title
        Name of the run.
    details
        What else is known about the run: settings, versions, wall time.
    basis
        Embedding for the figures; ``None`` for a UMAP if there is one, else the representation of the flow.
    genes
        Genes to draw over time, if the flow uses principal components.
    groupby
        Column of ``obs`` with groups of cells, such as cell types: cells are coloured by it, and the fates toward these
        groups are drawn, with the genes that go with them; ``None`` for none.
    lineage_key
        Column of ``obs`` with the clone of each cell: with ``groupby``, fates are compared with what clones became.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    NotFittedError
        Before ``fit``.
    KeyError, ValueError
        When a gene, the column or the basis is missing, several genes have one name, or the column holds numbers that
        differ from cell to cell.
    CheckpointError
        When another process is using the folder.

    Examples
    --------
    >>> import tempfile, cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> flow = cf.SnapshotFlow(rep="X_latent", steps=20).fit(adata)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = cf.report.write(folder, adata, flow, title="A walk", details={"wall time": "2 s"})
    ...     page.name, page.read_text().count("<img")
    ('report.html', 5)
    """
    flow.read(adata)  # refuses cells of another representation before anything is written
    if lineage_key is not None:
        refuse(flow, "report.write(lineage_key=...)", "Leave out `lineage_key`.")
    basis = basis or (left_out.UMAP if left_out.UMAP in adata.obsm else flow.rep)
    _check(adata, flow, basis=basis, genes=genes, groupby=groupby)
    folder = Path(folder)
    with locked(folder, wait=A_SAVE):
        (folder / FIGURES).mkdir(parents=True, exist_ok=True)
        return _write(folder, adata, flow, title, details, basis, genes, groupby, lineage_key)


def _check(adata: "AnnData", flow: "SnapshotFlow", *, basis: str, genes: Sequence[str], groupby: str | None) -> None:
    """Refuse missing data before anything is drawn."""
    read_basis(adata, basis, rep=flow.rep, time=read_times(adata, flow.time_key))
    if groupby is not None:
        read_labels(adata, groupby, setting="groupby")
    if len(genes):
        places_of(adata.var_names, list(genes), where="adata.var_names")


def _write(
    folder: Path,
    adata: "AnnData",
    flow: "SnapshotFlow",
    title: str,
    details: Mapping[str, str],
    basis: str,
    genes: Sequence[str],
    groupby: str | None,
    lineage_key: str | None,
) -> Path:
    clones, when = None, time_label(flow.clock_.times[-1], unit_of(adata, flow.time_key))
    if groupby is not None and lineage_key is not None:
        clones = lineage.compare(adata, flow, groupby=groupby, lineage_key=lineage_key)
    sections = {
        "opening": "",
        "cells": "" if groupby is None else cell_types.table(adata, flow, groupby=groupby),
        "lineage": "" if clones is None else lineage.table(clones) + lineage.unsaved(flow),
        "fitted": _fitted(adata, flow),
        "chains": chains.section(adata, flow),
        **_scored(adata, flow),
        "predictions": _predictions_note(adata, flow),
        "trajectories": "",
        "fates": "" if groupby is None else _absent(adata, flow, groupby),
        "drivers": "",
        "trends": "",
        "growth": growth.text(adata, flow, unit=unit_of(adata, flow.time_key)) if flow.growth_ else "",
        "conditions": conditions.section(adata),
        "genes": "",
        "training": "",
        "steps": "",
        "use": _use(folder, adata, flow),
        "left_out": left_out.section(adata, flow, basis=basis, groupby=groupby, genes=genes),
        "run": html.table(None, details.items()),
    }
    drawn = drawings(adata, flow, basis=basis, genes=genes, groupby=groupby)
    drawn = chain(drawn, conditions.drawings(adata), [] if clones is None else [lineage.drawing(clones, when)])
    for drawing in drawn:
        sections[drawing.section] += html.figure(drawing, folder / FIGURES)
    if flow.distilled and flow.conditions_ is None:  # carries of snapshots as a whole are compared
        sections["steps"] = few_steps.section(folder, folder / FIGURES)
    summary = "" if clones is None else html.paragraph(lineage.sentence(clones, when))
    summary += _summary(adata, flow, folder)
    page = folder / PAGE
    text = html.page(title, _lead(adata, flow), summary, sections, _TITLES)
    with committed(page) as partial:
        partial.write_text(text, encoding="utf-8")
    return page


def _summary(adata: "AnnData", flow: "SnapshotFlow", folder: Path) -> str:
    """Say first how good the flow is: at held-out times, on new cells, and by where cells go."""
    scores, unit = validation.read_scores(adata), unit_of(adata, flow.time_key)
    new, landed = new_cells.read(adata), landings.read(adata)
    found = _left_out(scores, unit) if scores else _untested(adata, flow, folder, tested=new is not None)
    if new is not None:
        found += html.paragraph(new_cells.headline(new, unit))
    if landed is not None:
        found += "".join(map(html.paragraph, landings.headline(landed)))
    elif scores or new is not None:
        found += html.paragraph(landings.UNSEEN, style="note")
    return found


def _left_out(scores: list[validation.Score], unit: str) -> str:
    shown = scores[: validation.MOST_SENTENCES]
    found = html.paragraph(validation.headline(scores))
    found += html.bullets(validation.sentence(score, unit) for score in shown)
    if len(scores) > len(shown):
        found += html.paragraph(f"The other {len(scores) - len(shown)} held-out snapshots are in the table below.")
    return found


def _untested(adata: "AnnData", flow: "SnapshotFlow", folder: Path, *, tested: bool) -> str:
    if flow.conditions_ is not None:
        return html.paragraph(
            "Not tested against held-out cells: validation of flows with conditions is not supported yet."
        )
    command = html.listing(_report_line(folder) + " validate=true")
    if testable_times(adata, flow):
        return (
            html.paragraph("Not tested against held-out cells yet.")
            + html.paragraph("The figures below show what the flow does, not whether it is right. This tests it:")
            + command
        )
    found = html.paragraph("Not tested against held-out snapshots.") + html.paragraph(
        "There is no snapshot between two others, so none can be held out and predicted."
    )
    if tested:
        return found
    return (
        found
        + html.paragraph(
            "The figures below show what the flow does, not whether it is right. This tests whether it carries new "
            "cells as well as fitted ones:"
        )
        + command
    )


def _absent(adata: "AnnData", flow: "SnapshotFlow", groupby: str) -> str:
    """List the groups of cells that a neighbouring snapshot lacks."""
    labels, states = read_labels(adata, groupby, setting="groupby"), flow.read(adata)
    said = absent_groups(labels, states.time, flow.clock_.times, weight=states.weight)
    return html.bullets(said) if said else ""


def _fitted(adata: "AnnData", flow: "SnapshotFlow") -> str:
    return html.table(("Snapshot", "Cells", "Role"), _snapshots(adata, flow), numbers=(1,)) + html.table(
        None, _settings(flow)
    )


def _scored(adata: "AnnData", flow: "SnapshotFlow") -> dict[str, str]:
    """Return the sections on scores, as far as there are any."""
    scores, unit = validation.read_scores(adata), unit_of(adata, flow.time_key)
    new, landed = new_cells.read(adata), landings.read(adata)
    return {
        "validation": validation.section(scores, unit) if scores else "",
        "new_cells": "" if new is None else new_cells.section(new, unit),
        "couplings": "" if landed is None else landings.section(landed, unit),
    }


def _predictions_note(adata: "AnnData", flow: "SnapshotFlow") -> str:
    n = adata.obs[flow.time_key].nunique() - 2
    if n <= MOST_SNAPSHOTS:
        return ""
    return html.paragraph(f"There are {n} inner snapshots; {MOST_SNAPSHOTS} of them are drawn.", style="note")


def _use(folder: Path, adata: "AnnData", flow: "SnapshotFlow") -> str:
    at = _unmeasured(adata, flow)
    return (
        estimator.unsaved(folder)
        + html.paragraph("In Python:")
        + html.listing(_python_lines(folder, flow, at), style="python")
        + html.paragraph("On the command line:")
        + html.listing(_shell_lines(folder, at), style="shell")
    )


def _lead(adata: "AnnData", flow: "SnapshotFlow") -> str:
    """Say in one sentence what was fitted."""
    unit, times = unit_of(adata, flow.time_key), flow.clock_.times
    return (
        f"A flow from {time_label(times[0], unit)} to {time_label(times[-1], unit)}, fitted on {sum(flow.n_cells_):,} "
        f"cells of {len(times)} snapshots, in {flow.rep} ({_columns(flow)})."
    )


def _columns(flow: "SnapshotFlow") -> str:
    """Return the width of the representation, in words."""
    return "1 column" if flow.n_features_in_ == 1 else f"{flow.n_features_in_} columns"


def _snapshots(adata: "AnnData", flow: "SnapshotFlow") -> list[tuple[str, str, str]]:
    """Return time, number of cells and role of every snapshot."""
    counts = Counter(read_times(adata, flow.time_key).tolist())
    unit = unit_of(adata, flow.time_key)
    return [
        (time_label(time, unit), f"{n:,}", "fitted" if time in flow.clock_.times else "held out: the flow never saw it")
        for time, n in sorted(counts.items())
    ]


def _settings(flow: "SnapshotFlow") -> list[tuple[str, str]]:
    """Return the parts of the flow: the main ones explained, and every other setting that is not at its default."""
    path, coupling = paths.resolve(flow.path), couplings.resolve(flow.coupling)
    early = f" of {flow.steps:,}, as held-out cells stopped improving" if len(flow.history_) < flow.steps else ""
    return [
        ("Representation", f"{flow.rep}, {_columns(flow)}"),
        ("Time", f"obs[{flow.time_key!r}]; uneven spacing is kept"),
        ("Pairing", _explain(coupling, _COUPLINGS)),
        *_matching(flow),
        ("Path", _explain(path, _PATHS) + (f", blurred by {flow.blur_:.3g}" if flow.blur_ else "")),
        ("Network", f"{estimator.parameters(flow)}; one field for all intervals"),
        ("Training", f"{len(flow.history_):,} steps{early}, {flow.batch_size:,} pairs per interval and step"),
        ("Seed", str(flow.seed)),
        *estimator.chosen(flow, besides=("rep", "time_key", "coupling", "path", "steps", "batch_size", "seed")),
    ]


def _matching(flow: "SnapshotFlow") -> list[tuple[str, str]]:
    """Return how the cells of each interval were matched, if known and short enough for the page."""
    known = [] if isinstance(flow.matching_, dict) else [str(one) for one in flow.matching_[:MOST_SNAPSHOTS]]
    return [("Matching", "; ".join(known))] if known else []


def _unmeasured(adata: "AnnData", flow: "SnapshotFlow") -> float:
    """Return a time between the first two snapshots that the flow spans."""
    first, second, *_ = (t for t in np.unique(read_times(adata, flow.time_key)) if t >= flow.clock_.times[0])
    return float((first + second) / 2)


def _python_lines(folder: Path, flow: "SnapshotFlow", at: float) -> str:
    """Return a Python script that uses the saved flow."""
    needs = "X" if flow.rep == "X" else f"obsm[{flow.rep!r}]"
    return "\n".join([
        "import anndata",
        "import cellflow as cf",
        "",
        f'adata = anndata.read_h5ad("cells.h5ad")  # your cells, with obs[{flow.time_key!r}] and {needs}',
        f"flow = cf.SnapshotFlow.load({str(folder)!r})",
        f"between = cf.tl.interpolate(adata, flow, at={at:g})  # cells at a time that was not measured",
        "cf.tl.velocity(adata, flow)  # writes adata.obsm['velocity']",
    ])  # fmt: skip


def _shell_lines(folder: Path, at: float) -> str:
    """Return shell commands that use the run."""
    model, moment_ = shlex.quote(f"model={folder}"), shlex.quote(f"at=[{at:g}]")
    return f"cellflow interpolate {model} {moment_}\ncellflow velocity {model}\n{_report_line(folder)}"


def _report_line(folder: Path) -> str:
    """Return the shell command that writes the report again."""
    return f"cellflow report {shlex.quote(f'model={folder}')}"


def _explain(part: object, words: dict[str, str]) -> str:
    known = words.get(type(part).__name__)
    return f"{known}: {part!r}" if known else repr(part)
