"""The settings of a flow in plain words, and how to use it again."""

import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cellflow import couplings, paths
from cellflow.cells.snapshots import read_times
from cellflow.pl.labels import time_label, unit_of

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow

_PATHS = {
    "Linear": "paired cells are joined by straight lines",
    "BrownianBridge": "paired cells are joined by straight lines with noise in between",
    "Trigonometric": "paired cells are joined by arcs",
    "VariancePreserving": "paired cells are joined as in diffusion models",
}
_COUPLINGS = {
    "Independent": "cells of neighbouring snapshots are paired at random",
    "Exact": "cells of neighbouring snapshots are paired so that they move as little as possible (optimal transport)",
    "Sinkhorn": "cells of neighbouring snapshots are paired so that they move little, with some freedom (entropic "
    "optimal transport)",
    "UnbalancedSinkhorn": "cells of neighbouring snapshots are paired so that they move little, and may divide or die "
    "(unbalanced optimal transport)",
}

SCORE = "; a score beside the velocity, for simulation with noise"


def lead(adata: "AnnData", flow: "SnapshotFlow") -> str:
    """Say in one sentence what was fitted."""
    unit, times = unit_of(adata, flow.time_key), flow.clock_.times
    return (
        f"A flow from {time_label(times[0], unit)} to {time_label(times[-1], unit)}, fitted on {sum(flow.n_cells_):,} "
        f"cells of {len(times)} snapshots, in {flow.rep} ({columns(flow)})."
    )


def columns(flow: "SnapshotFlow") -> str:
    """Say how wide the representation is."""
    return "1 column" if flow.n_features_in_ == 1 else f"{flow.n_features_in_} columns"


def snapshots(adata: "AnnData", flow: "SnapshotFlow") -> list[tuple[str, str, str]]:
    """Return time, number of cells and role of every snapshot."""
    counts = Counter(read_times(adata, flow.time_key).tolist())
    unit = unit_of(adata, flow.time_key)
    return [
        (time_label(time, unit), f"{n:,}", "fitted" if time in flow.clock_.times else "left out: the flow never saw it")
        for time, n in sorted(counts.items())
    ]


def settings(flow: "SnapshotFlow") -> list[tuple[str, str]]:
    """Return what the flow was made of, in plain words."""
    path, coupling = paths.resolve(flow.path), couplings.resolve(flow.coupling)
    parameters = sum(p.numel() for p in flow.field_.parameters())
    return [
        ("Representation", f"{flow.rep}, {columns(flow)}"),
        ("Time", f"obs[{flow.time_key!r}]; uneven spacing is kept"),
        ("Pairing", _explain(coupling, _COUPLINGS)),
        ("Path", _explain(path, _PATHS)),
        ("Network", f"{parameters:,} parameters; one field for all intervals" + ("" if flow.score is None else SCORE)),
        ("Training", f"{len(flow.history_):,} steps, {flow.batch_size:,} pairs per interval and step"),
        ("Seed", str(flow.seed)),
    ]


def unmeasured(adata: "AnnData", flow: "SnapshotFlow") -> float:
    """Return a time between the first two snapshots that the flow spans."""
    first, second, *_ = (t for t in np.unique(read_times(adata, flow.time_key)) if t >= flow.clock_.times[0])
    return float((first + second) / 2)


def python_lines(folder: Path, flow: "SnapshotFlow", at: float) -> str:
    """Return a Python script that uses the saved flow."""
    needs = "X" if flow.rep == "X" else f"obsm[{flow.rep!r}]"
    return "\n".join([
        "import anndata",
        "import cellflow as cf",
        "",
        f'adata = anndata.read_h5ad("cells.h5ad")  # your cells, with obs[{flow.time_key!r}] and {needs}',
        f"flow = cf.SnapshotFlow.load({str(folder)!r})",
        f"between = cf.tl.interpolate(adata, flow, at={at:g})  # cells at a time nobody measured",
        "cf.tl.velocity(adata, flow)  # writes adata.obsm['velocity']",
    ])  # fmt: skip


def shell_lines(folder: Path, at: float) -> str:
    """Return shell commands that use the run."""
    model, moment_ = shlex.quote(f"model={folder}"), shlex.quote(f"at=[{at:g}]")
    return f"cellflow interpolate {model} {moment_}\ncellflow velocity {model}\n{report_line(folder)}"


def report_line(folder: Path) -> str:
    """Return the shell command that writes the report again."""
    return f"cellflow report {shlex.quote(f'model={folder}')}"


def _explain(part: object, words: dict[str, str]) -> str:
    known = words.get(type(part).__name__)
    return f"{known}: {part!r}" if known else repr(part)
