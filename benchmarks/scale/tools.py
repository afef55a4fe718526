"""What a fitted flow tells of many cells: tools carry some at a time, so that what grows with them is the result.

The flow has the default network, and is trained on few cells of the same population: what it costs to use does not
depend on how well it is fitted. What a tool takes above the data holds its result, of 4 bytes for each of the 50
numbers of a cell. Neighbours among more than 50,000 cells are searched along a graph: recall is the share of the true
ones that are found, for other cells of the population, and for cells of noise alone, which is the hardest case.
"""

import anndata
import numpy as np
import pandas as pd

import cellflow as cf
from benchmarks.rows import Row
from benchmarks.scale.case import Case, Watch
from cellflow.nearest import Nearest

FITTED = 5000
"""Cells that the flow is trained on."""
SPREAD = 5
"""Dimensions in which cells differ; in all of them they have noise."""


def velocity(watch: Watch, *, cells: int, dim: int = 50) -> Row:
    """Write the velocity of all cells."""
    adata, flow = _cells(cells, dim), _flow(dim)
    with watch:
        cf.tl.velocity(adata, flow)
    return {"cells_a_second": cells / watch.row["seconds"]}


def interpolate(watch: Watch, *, cells: int, dim: int = 50) -> Row:
    """Predict as many cells at a time that was not measured."""
    adata, flow = _cells(cells, dim), _flow(dim)
    with watch:
        found = cf.tl.interpolate(adata, flow, at=0.5)
    return {"cells_a_second": found.n_obs / watch.row["seconds"]}


def fates(watch: Watch, *, cells: int, dim: int = 50) -> Row:
    """Follow all cells of the first snapshot to the last, and look at whom they find there."""
    adata, flow = _cells(cells, dim), _flow(dim)
    early = (adata.obs["day"] < 2).to_numpy()
    with watch:
        cf.tl.fate(adata, flow, groupby="kind", cells=early)
    return {"cells_a_second": early.sum() / watch.row["seconds"]}


def neighbors(watch: Watch, *, cells: int, dim: int = 50, structure: bool = True, asked: int = 1000) -> Row:
    """Find ten neighbours of some cells among all, and how many of them are true."""
    draw = np.random.default_rng(1)
    points = _states(cells + asked, dim, draw) if structure else draw.normal(size=(cells + asked, dim))
    points = points.astype(np.float32)
    with watch:
        found = Nearest(points[:cells], 10).rows(points[cells:])
    true = np.empty((asked, 10), dtype=np.int64)
    for row, x in enumerate(points[cells:]):
        true[row] = np.argpartition(np.square(points[:cells] - x).sum(axis=1), 10)[:10]
    return {"recall": float(np.mean([len(np.intersect1d(*both)) / 10 for both in zip(found, true, strict=True)]))}


def _cells(n: int, dim: int) -> anndata.AnnData:
    """Return cells of three days."""
    draw = np.random.default_rng(0)
    day, x = np.arange(n) % 3, _states(n, dim, draw)
    x[:, 0] += day
    obs = pd.DataFrame({"day": day.astype(np.float64), "kind": pd.Categorical(np.where(x[:, 1] > 0, "a", "b"))})
    return anndata.AnnData(obs=obs.set_index(obs.index.astype(str)), obsm={"X_pca": x})


def _states(n: int, dim: int, draw: np.random.Generator) -> np.ndarray:
    """Return states that differ in few dimensions, float32."""
    mixed = np.random.default_rng(2).normal(size=(SPREAD, dim)).astype(np.float32)
    x = 0.2 * draw.standard_normal((n, dim), dtype=np.float32)
    x += draw.standard_normal((n, SPREAD), dtype=np.float32) @ mixed
    return np.asarray(x)


def _flow(dim: int) -> cf.SnapshotFlow:
    return cf.SnapshotFlow(time_key="day", coupling="independent", steps=50, regularize=False).fit(_cells(FITTED, dim))


CASES = {
    "small": [
        Case(velocity, {"cells": 5000}, "velocity of 5,000 x 50"),
        Case(interpolate, {"cells": 5000}, "interpolate 5,000 x 50"),
        Case(fates, {"cells": 5000}, "fates of 5,000 x 50"),
        Case(neighbors, {"cells": 5000, "asked": 50}, "neighbours among 5,000 x 50"),
    ],
    "full": [
        Case(velocity, {"cells": 100_000}, "velocity of 100,000 x 50"),
        Case(
            velocity, {"cells": 1_000_000}, "velocity of 1 M x 50", today="4.2 GiB", reach="<= 0.8 GiB above the data"
        ),
        Case(interpolate, {"cells": 1_500_000}, "interpolate 1 M x 50"),
        Case(fates, {"cells": 300_000}, "fates of 100,000 x 50"),
        Case(neighbors, {"cells": 60_000}, "neighbours among 60,000 x 50"),
        Case(neighbors, {"cells": 1_000_000}, "neighbours among 1 M x 50"),
        Case(neighbors, {"cells": 60_000, "structure": False}, "neighbours among 60,000 x 50, noise alone"),
    ],
}
