"""Planted driver genes, found again: ``python -m benchmarks.drivers``.

2,000 genes, 20 of which go with the fate (correlation 0.3 before a dropout of 60 %), 396 with time, and 396 with
coordinates of the state that have nothing to do with the fate. Fates are predicted by a flow, or known; drivers are
found with default settings.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.stats import false_discovery_control, norm

import cellflow as cf
from benchmarks import page
from benchmarks.command import Several, Words, guarded, options
from benchmarks.rows import Row, Table

FATES: dict[str, dict[str, Any]] = {
    "flow": {},
    "flow, growth known": {"prior_key": "growth_rate"},
    "exact plans, 50 steps": {"coupling": "exact", "growth": False, "steps": 50},
    "true": {"steps": 1},
    "random, smooth": {"steps": 1},
}
"""Where fates are from: settings of the flow. Of those that are random, no gene is a driver."""
LEVEL = 0.05


def main(words: Words = None) -> None:
    """Measure what is not in the table yet, and write it."""
    given = options("drivers", __doc__, words, fates=Several(FATES), seeds=5, steps=1000, cells=1500)
    found = Table(given.out / "drivers.csv", key=("fates", "times", "seed"))
    for column, size in (("steps", given.steps), ("cells", given.cells)):
        found.refuse_others(column, size)
    for seed in range(given.seeds):
        left = [name for name in given.fates if not found.read(fates=name, seed=seed)]
        if left:
            adata = cf.datasets.planted_drivers(given.cells, seed=seed)
        for name in left:
            start = time.perf_counter()
            flow = predict(adata, name, given.steps, seed)
            size = {"seconds": time.perf_counter() - start, "steps": given.steps, "cells": given.cells}
            found.put(*({"fates": name, "seed": seed} | row | size for row in rows(adata, flow)))
    page.write(given.out / "drivers.md", text(found.read(), given.command))


def predict(adata: AnnData, name: str, steps: int, seed: int) -> cf.SnapshotFlow:
    """Write fates, and return the flow."""
    settings: dict[str, Any] = {"rep": "X_latent", "steps": steps, "seed": seed, "device": "cpu"} | FATES[name]
    flow = cf.SnapshotFlow(**settings).fit(adata)
    cf.tl.fate(adata, flow, groupby="fate")
    if name in ("true", "random, smooth"):
        upper = (adata.obs["fate"] == "upper").to_numpy(float) if name == "true" else smooth(adata, seed)
        early = (adata.obs["time"] < adata.obs["time"].max()).to_numpy()
        adata.obsm["fate"]["upper"] = np.where(early, upper, np.nan)
    return flow


def smooth(adata: AnnData, seed: int) -> np.ndarray:
    """Return a random smooth function of the state between 0 and 1: a Gaussian process by random Fourier features."""
    rng = np.random.default_rng(seed)
    x = adata.obsm["X_latent"] / adata.obsm["X_latent"].std(axis=0)
    waves = np.cos(x @ rng.normal(0, 0.5, (x.shape[1], 200)) + rng.uniform(0, 2 * np.pi, 200))
    found = waves @ rng.normal(0, 1, 200) / 10
    return np.asarray(1 / (1 + np.exp(-2 * found)))


def rows(adata: AnnData, flow: cf.SnapshotFlow) -> Iterator[Row]:
    """Yield what is found among all earlier cells, and among the earliest."""
    early = (adata.obs["time"] < adata.obs["time"].max()).to_numpy()
    share, true = adata.obsm["fate"]["upper"].to_numpy()[early], (adata.obs["fate"] == "upper").to_numpy()[early]
    about = {"fate_correlation": float(np.corrcoef(share, true)[0, 1])}
    for times, asked in (("all", None), ("first", 0.0)):
        cf.tl.drivers(adata, flow, fate="upper", time=asked)
        yield {"times": times} | about | judged(adata, adata.uns["drivers"], adata.uns["drivers_about"])


def judged(adata: AnnData, table: pd.DataFrame, about: dict[str, Any]) -> Row:
    """Return how many of the genes named are drivers."""
    driver = (adata.var["kind"] == "driver").to_numpy()[adata.var_names.get_indexer(table["gene"])]
    best, marginal = int(driver.sum()), table["correlation"].to_numpy().argsort()[::-1]
    free = about["n_cells"] - len(about["times"]) - 2
    everyone = 2 * norm.sf(np.abs(np.arctanh(table["partial"])) * np.sqrt(free))
    named = {"": table["q_value"] < LEVEL, "_every_cell": false_discovery_control(everyone) < LEVEL}
    found: Row = {"precision": driver[:best].mean(), "precision_without_time": driver[marginal[:best]].mean()}
    for name, which in named.items():
        found |= {f"named{name}": int(which.sum()), f"false{name}": int((which & ~driver).sum())}
    return found


def text(found: list[Row], command: str) -> list[str]:
    """Return the page."""
    (about,) = page.fill(Path(__file__).with_suffix(".md"), made=page.made_by(command))
    table = pd.DataFrame(found)
    head = [
        "fates", "times", "seeds", "correlation with the true fate", "precision at 20", "lowest", "without time",
        "named at q < 0.05", "of these false", "counting every cell: named", "of these false",
    ]  # fmt: skip
    lines = []
    for (name, times), some in table.groupby(["fates", "times"], sort=False):
        lines.append([
            name, times, len(some), f"{some['fate_correlation'].mean():.2f}", f"{some['precision'].mean():.2f}",
            f"{some['precision'].min():.2f}", f"{some['precision_without_time'].mean():.2f}",
            *(f"{some[column].mean():.1f}" for column in ("named", "false", "named_every_cell", "false_every_cell")),
        ])  # fmt: skip
    return [*about, "", *page.table(head, lines)]


if __name__ == "__main__":
    guarded("drivers", main)
