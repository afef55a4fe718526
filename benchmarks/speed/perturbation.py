"""What conditions cost: ``python -m benchmarks.speed perturbation``.

A step at 100 conditions beside that of a flow without conditions at as many pairs, taken in turn; the plans of all
conditions; and `cellflow.tl.perturb` of many cells under many conditions in one call.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

import cellflow as cf
from benchmarks import machine, page
from benchmarks.command import Words, options
from benchmarks.rows import Row, Table
from cellflow.pairing.condition_legs import ConditionLeg
from cellflow.pairing.legs import leg_batches

DIM, BATCH = 50, 256

Train = Callable[[int], None]


def main(words: Words = None) -> None:
    """Measure steps, plans and predictions, and write ``perturbation_speed.csv`` and ``.md``."""
    given = options(
        "speed perturbation", __doc__, words, conditions=100, cells=200, controls=400, rounds=7, steps=150,
        asked=(10_000, 50),
    )  # fmt: skip
    rows = steps(given.conditions, given.cells, given.controls, given.rounds, given.steps)
    rows += predictions(*given.asked)
    Table(given.out / "perturbation_speed.csv", ("what",)).put(*rows, whole=True)
    page.write(given.out / "perturbation_speed.md", text(rows, given.command))


def steps(conditions: int, cells: int, controls: int, rounds: int, many: int) -> list[Row]:
    """Train with conditions and without in turn; return seconds of a step of each, their ratio, and the plans."""
    rng = cf.generator(seed=0)
    points = torch.randn(controls + conditions * cells, DIM, generator=rng)
    source = torch.arange(controls)
    legs = [
        ConditionLeg(f"condition {k}", source, controls + k * cells + torch.arange(cells), condition=k + 1)
        for k in range(conditions)
    ]
    start = time.process_time()
    paired = leg_batches(
        points, legs, torch.cat([torch.zeros(1, conditions), torch.eye(conditions)]), batch_size=BATCH,
        generator=cf.generator(seed=1),
    )  # fmt: skip
    paired_seconds = time.process_time() - start
    alone = cf.pairing.paired_batches(
        points[:controls], points[controls : controls + controls], batch_size=BATCH, generator=cf.generator(seed=1)
    )
    trains = {
        "with": _trained(cf.networks.MLP(DIM, condition_dim=conditions), paired),
        "without": _trained(cf.networks.MLP(DIM), alone),
    }
    seconds: dict[str, list[float]] = {name: [] for name in trains}
    for train in trains.values():
        train(20)
    for _ in range(rounds):
        for name, train in trains.items():
            begun = time.process_time()
            train(many)
            seconds[name].append((time.process_time() - begun) / many)
    ratio = median(a / b for a, b in zip(seconds["with"], seconds["without"], strict=True))
    return [
        _row(f"plans of {conditions} conditions, {controls} x {cells} each", paired_seconds, "s", "side by side"),
        _row("step without conditions", 1000 * median(seconds["without"]), "ms", f"{BATCH} pairs"),
        _row(f"step at {conditions} conditions", 1000 * median(seconds["with"]), "ms", f"{BATCH} pairs"),
        _row(f"step at {conditions} conditions / step without", ratio, "x", "to reach: at most 1.15"),
    ]


def predictions(cells: int, conditions: int) -> list[Row]:
    """Carry so many cells into so many conditions in one call."""
    rng = np.random.default_rng(0)
    names = [f"drug{k}" for k in range(conditions)]
    drug = np.repeat(["control", *names], [cells, *[30] * conditions])
    x = rng.normal(size=(len(drug), DIM)).astype(np.float32)
    obs = pd.DataFrame({"drug": drug}, index=[f"cell{k}" for k in range(len(drug))])
    adata = AnnData(obs=obs, obsm={"X_pca": x})
    flow = cf.PerturbationFlow(conditions="drug", steps=5, regularize=False, ot_batch_size=256, device="cpu").fit(adata)
    machine.reset_peak()
    before, start = machine.peak_megabytes(), time.process_time()
    found = cf.tl.perturb(adata, flow, condition=[{"drug": name} for name in names])
    seconds, more = time.process_time() - start, machine.peak_megabytes() - before
    held = found.obsm["X_pca"].nbytes / 2**20
    return [
        _row(f"perturb, {cells} cells x {conditions} conditions", seconds, "s", "one call, without genes"),
        _row("perturb, memory", more, "MB", f"of which {held:.0f} MB are the states"),
    ]


def text(rows: Sequence[Row], command: str) -> list[str]:
    """Return the page."""
    made = page.made_by(command, f"{machine.processor()}, one thread")
    (about,) = page.fill(Path(__file__).with_name("perturbation.md"), made=made, dims=DIM)
    table = ((row | {"value": f"{row['value']:.4g}"}).values() for row in rows)
    return [*about, "", *page.table(list(rows[0]), map(list, table))]


def _trained(field: torch.nn.Module, batches: Any) -> Train:
    """Return a function that trains for so many steps."""

    def train(many: int) -> None:
        cf.training.fit(field, cf.objectives.VelocityMatching(), batches, steps=many, generator=cf.generator(seed=2))

    return train


def _row(what: str, value: float, unit: str, note: str) -> Row:
    return {"what": what, "value": value, "unit": unit, "note": note}
