"""Does a flow carry cells it was not fitted on: ``python -m benchmarks.studies.new_cells``.

Half of the cells of every snapshot are fitted. Both halves are carried to the next snapshot, and compared with its
other half by the energy distance, averaged over intervals: fitted cells, new cells. Beside them, the two halves of the
later snapshot (the floor), new cells that do not move, and new cells shifted by the difference of the fitted means.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import anndata
import numpy as np
import pandas as pd

import cellflow as cf
from benchmarks import page
from benchmarks.command import Several, Words, options
from benchmarks.trajectory.settings import load
from cellflow.metrics import energy_distance

SETS: dict[str, tuple[str, int, int]] = {
    "myoblasts": ("hsmm", 10, 0),
    "blood progenitors": ("", 40, 0),
    "blood progenitors, days 4 and 6": ("", 40, 0),
    "EB-50, 800 a day": ("eb", 50, 800),
    "Cite-50, 800 a day": ("cite", 50, 800),
    "dyngen": ("dyngen", 5, 0),
    "gene circuit": ("gene_circuit", 2, 0),
    "EB-5": ("eb", 5, 0),
    "mouse": ("mouse_hematopoiesis", 2, 0),
    "EB-100, 800 a day": ("eb", 100, 800),
}
"""For each set its name among those of the trajectory benchmark, its dimensions, and the cells a day, 0 for all."""
SETTINGS: dict[str, dict[str, Any]] = {
    "before": {"regularize": False},
    "after": {},
    "balanced": {"coupling": "exact", "growth": False},
}
"""Settings of the flows that are compared."""
MOST = 2000
"""Points of each cloud that are compared."""

Halves = list[tuple[np.ndarray, np.ndarray]]
"""Fitted and new cells of each snapshot."""


def main(words: Words = None) -> None:
    """Compute and write ``new_cells.md``."""
    given = options(
        "studies.new_cells", __doc__, words, sets=Several(SETS), seeds=(1,), steps=1500, batch_size=128,
        settings=Several(SETTINGS),
    )  # fmt: skip
    rows = []
    for name in given.sets:
        for seed in given.seeds:
            found = dict(scores(name, int(seed), given.steps, given.batch_size, given.settings))
            print(name, seed, {key: float(f"{value:.4g}") for key, value in found.items()}, flush=True)
            rows.append({"set": name, **found})
            (given.out / "new_cells.md").write_text("\n".join(text(pd.DataFrame(rows), given.command)) + "\n")


def halves(name: str, seed: int) -> tuple[tuple[float, ...], Halves]:
    """Return the times of a set, and the two halves of each of its snapshots."""
    source, dims, most = SETS[name]
    if source:
        cells = load("dataset", source).load(dims)
        times, clouds = cells.times, list(cells.clouds)
    else:
        adata = cf.datasets.hematopoiesis()
        day = adata.obs["day"].to_numpy(dtype=float)
        times = tuple(np.unique(day).tolist())
        clouds = [np.asarray(adata.obsm["X_pca"])[day == time] for time in times]
        if name.endswith("days 4 and 6"):
            times, clouds = times[1:], clouds[1:]
    rng = np.random.default_rng(seed)
    shuffled = [rng.permutation(cloud)[: most or None] for cloud in clouds]
    return times, [(cloud[: len(cloud) // 2], cloud[len(cloud) // 2 :]) for cloud in shuffled]


def scores(name: str, seed: int, steps: int, batch_size: int, settings: list[str]) -> Iterator[tuple[str, float]]:
    """Yield every score of one set by its name."""
    times, parts = halves(name, seed)
    fitted = [cloud for cloud, _ in parts]
    legs = list(pairwise(range(len(times))))
    shifts = {b: fitted[b].mean(axis=0) - fitted[a].mean(axis=0) for a, b in legs}
    yield "cells", float(sum(map(len, fitted)))
    yield "floor", mean_distance(parts, {b: fitted[b] for _, b in legs})
    yield "not moving", mean_distance(parts, {b: parts[a][1] for a, b in legs})
    yield "shift", mean_distance(parts, {b: parts[a][1] + shifts[b] for a, b in legs})
    adata = anndata.AnnData(
        obs=pd.DataFrame({"time": np.repeat(times, [len(cloud) for cloud in fitted])}).rename(str),
        obsm={"X_pca": np.concatenate(fitted).astype(np.float32)},
    )
    for setting in settings:
        flow = cf.SnapshotFlow(steps=steps, batch_size=batch_size, **SETTINGS[setting])
        began = perf_counter()
        flow.fit(adata)
        yield f"{setting}, seconds", perf_counter() - began
        yield f"{setting}, steps", float(len(flow.history_))
        for k, half in enumerate(("fitted", "new")):
            yield f"{setting}, {half}", distance_of(flow, times, parts, k)


def distance_of(flow: cf.SnapshotFlow, times: tuple[float, ...], parts: Halves, half: int) -> float:
    """Return the mean distance of one half, carried from each snapshot to the next, weighted if it grows."""
    found = []
    for (a, b), (start, stop) in zip(pairwise(range(len(times))), pairwise(times), strict=True):
        carried = flow.transport(parts[a][half].astype(np.float32), start=start, stop=stop)
        weights = None if carried.log_weight is None else carried.shares()[-1][:MOST]
        found.append(energy_distance(carried.x[-1][:MOST], parts[b][1][:MOST], weights_x=weights))
    return float(np.mean(found))


def mean_distance(parts: Halves, predicted: dict[int, np.ndarray]) -> float:
    """Return the mean distance of predictions to the new cells of their snapshots."""
    return float(np.mean([energy_distance(x[:MOST], parts[b][1][:MOST]) for b, x in predicted.items()]))


def text(rows: pd.DataFrame, command: str) -> list[str]:
    """Return the page: one line for each set, the mean over seeds."""
    means = rows.groupby("set", sort=False).mean()
    head = ["set", *means.columns]
    table = [
        [name, *(f"{value:.3g}" if value < 100 else f"{value:.0f}" for value in row)]
        for name, *row in means.itertuples()
    ]
    first, last = page.fill(Path(__file__).with_suffix(".md"), made=page.made_by(command))
    return [*first, "", *page.table(head, table), "", *last]


if __name__ == "__main__":
    main()
