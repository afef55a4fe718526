"""The six lines of a scanpy user, on cells in files: a default fit, cells between snapshots, and all velocities.

Five snapshots, each a file of its own with a representation of 50 columns, and growing from a tenth of all cells to
three tenths: a mixture of 20 Gaussians whose means move and whose shares change. The cells of the first snapshot are
carried to half-way to the second. "Ms a step" begins when everything is paired.

Rows are of several days. One after the other, with two cores of another machine (AMD EPYC) to themselves, the fits took
173 s with 100,000 cells, of which most is for whole plans, and 109 s with a million; a step took 32.7 and 42.1 ms, 29 %
more, which super-batches cost that are matched while it trains (not in the table).
"""

import logging
import shutil
import time
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

import cellflow as cf
from benchmarks.rows import Row
from benchmarks.scale.case import Case, Watch

FOLDER = Path("runs/bench/scale/cells")
SHARES = (0.1, 0.15, 0.2, 0.25, 0.3)
"""Of all cells, in each snapshot."""
DIM, GROUPS = 50, 20


def whole(watch: Watch, *, cells: int, steps: int = 1000) -> Row:
    """Fit, interpolate and write velocities; the seconds of each."""
    files = written(cells)
    paired = _Messages()
    ticks = [time.perf_counter()]
    run = cf.training.Run(
        progress=False, watch=lambda flow: ticks.append(time.perf_counter()), watch_every=max(1, steps // 10)
    )
    with watch:
        began = time.perf_counter()
        flow = cf.SnapshotFlow(time_key="day", steps=steps, device="cpu").fit(files, run=run)
        fitted = time.perf_counter()
        between = cf.tl.interpolate(files, flow, at=0.5, origin="before")
        interpolated = time.perf_counter()
        cf.tl.velocity(files, flow)
        ended = time.perf_counter()
    return {
        "fit_s": fitted - began,
        "interpolate_s": interpolated - fitted,
        "velocity_s": ended - interpolated,
        "ms_a_step": 1000 * (ticks[-1] - ticks[1]) / (steps - max(1, steps // 10)),
        "cells_between": between.n_obs,
        "pairing": paired.found,
    }


def written(cells: int) -> list[str]:
    """Return the files of the snapshots, which are written where they are not there yet."""
    folder = FOLDER / str(cells)
    if not folder.is_dir():
        fresh = folder.with_suffix(".fresh")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        for day, share in enumerate(SHARES):
            _snapshot(round(share * cells), day).write_h5ad(fresh / f"day{day}.h5ad")
        fresh.rename(folder)
    return [str(file) for file in sorted(folder.glob("*.h5ad"))]


def _snapshot(n: int, day: int) -> anndata.AnnData:
    """Return the cells of a day: groups drift, half of them outgrow the others, and cells spread over few columns."""
    fixed, draw = np.random.default_rng(0), np.random.default_rng(1 + day)
    means, drifts = fixed.normal(size=(2, GROUPS, DIM)).astype(np.float32) * np.array([[[3]], [[1]]], np.float32)
    shares = np.exp(0.3 * day * np.linspace(-1, 1, GROUPS))
    group = draw.choice(GROUPS, n, p=shares / shares.sum())
    x = draw.standard_normal((n, DIM), dtype=np.float32)
    x *= np.linspace(2, 0.2, DIM, dtype=np.float32)  # as components of a PCA
    x += (means + day * drifts)[group]
    obs = pd.DataFrame({"day": np.full(n, float(day))}, index=[f"{day}-{k}" for k in range(n)])
    return anndata.AnnData(obs=obs, obsm={"X_pca": x})


class _Messages(logging.Handler):
    """The first thing that is said about pairing: which coupling was chosen, and why."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.found = ""
        logger = logging.getLogger("cellflow")
        logger.setLevel(logging.INFO)
        logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if not self.found and "pairing" in record.getMessage():
            self.found = record.getMessage()


REACH = {10_000_000: "<= 12 GiB and 60 minutes, a step within 10 % of that of 100,000"}
CASES = {
    "small": [Case(whole, {"cells": 2000, "steps": 20}, "2,000 x 50")],
    "full": [
        Case(whole, {"cells": n}, f"{n:,} x 50", threads=2, limit=7200, reach=REACH.get(n, ""))
        for n in (100_000, 1_000_000, 10_000_000)
    ],
}
