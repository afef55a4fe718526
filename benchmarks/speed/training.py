"""Speed and memory: ``python -m benchmarks.speed``.

Everything is measured in one run on one machine, the methods in turn, so that their ratios hold where the machine's
own speed drifts.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import cellflow as cf
from benchmarks import machine, page, peers
from benchmarks.command import Words, options
from benchmarks.rows import Row, Table

SNAPSHOTS, CELLS, DIM, BATCH = 5, 3000, 50, 256
RATIOS = (
    ("cellflow, exact (one plan)", "cellflow, independent pairs", "at least 0.9"),
    ("cellflow, exact (super-batches)", "cellflow, independent pairs", ""),
    ("cellflow, exact (one plan)", "torchcfm, exact", "at least 10"),
    ("cellflow, exact (super-batches)", "torchcfm, exact", ""),
    ("cellflow, independent pairs", "torchcfm, independent pairs", "at least 1"),
)
"""Each is the median over rounds."""
# What the import adds in a fresh process.
IMPORT = "import torch, anndata, time; t = time.perf_counter(); import cellflow; print(time.perf_counter() - t)"

Train = Callable[[int], None]


def main(words: Words = None) -> None:
    """Measure everything, or one plan where asked to."""
    plans = (1000, 2000, 4000, 8000)
    given = options("speed", __doc__, words, rounds=5, steps=500, cells=CELLS, plans=plans, one_plan=())
    if given.one_plan:
        print(json.dumps(one_plan(*given.one_plan)))
        return
    imports = [float(subprocess.check_output([sys.executable, "-c", IMPORT])) for _ in range(7)]
    rows = [_row("import", "import cellflow after torch and anndata", median(imports), "s", "goal: under 0.3")]
    rows += steps_per_second(given.rounds, given.steps, given.cells)
    rows.append(_row("peak memory", "training, all methods", machine.peak_megabytes(), "MB", "whole process"))
    rows += plan_costs(given.plans)
    Table(given.out / "speed.csv", ("kind", "what")).put(*rows, whole=True)
    page.write(given.out / "speed.md", text(rows, given.command, given.cells))


def ours(clouds: list[Tensor], field: nn.Module, **pairing: Any) -> tuple[Train, float]:
    """Return a function that trains for so many steps, and the seconds that the pairing took beforehand."""
    start = time.perf_counter()
    times = torch.linspace(0, 1, len(clouds)).tolist()
    batches = cf.pairing.snapshot_batches(clouds, times, batch_size=BATCH, generator=cf.generator(seed=1), **pairing)
    seconds = time.perf_counter() - start

    def train(steps: int) -> None:
        cf.training.fit(field, cf.objectives.VelocityMatching(), batches, steps=steps, generator=cf.generator(seed=2))

    return train, seconds


def theirs(clouds: list[Tensor], kind: str) -> Train:
    """Return torchcfm's training as its single-cell example has it: a batch and a matching per interval and step."""
    matcher = peers.matcher(kind, sigma=0.0)

    def draw() -> tuple[Tensor, ...]:
        parts: list[tuple[Tensor, ...]] = []
        for k in range(len(clouds) - 1):
            x0, x1 = (cloud[torch.randint(len(cloud), (BATCH,))] for cloud in clouds[k : k + 2])
            t, x, u = matcher.sample_location_and_conditional_flow(x0, x1)
            parts.append((t + k, x, u))
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))

    return peers.Loop(DIM, draw, rate=1e-4, decay=0.0).train


def steps_per_second(rounds: int, steps: int, cells: int = CELLS) -> Iterator[Row]:
    """Train with every method in turn, ``rounds`` times, and yield a row for each."""
    rng, plain = cf.generator(seed=0), partial(peers.PlainMLP, DIM)
    clouds = [torch.randn(cells, DIM, generator=rng) + 0.5 * k for k in range(SNAPSHOTS)]
    torch.manual_seed(0)
    methods: dict[str, tuple[Train, float]] = {
        "cellflow, independent pairs": ours(clouds, plain(), coupling="independent"),
        "cellflow, exact (one plan)": ours(clouds, plain(), coupling="exact"),
        "cellflow, exact (super-batches)": ours(clouds, plain(), coupling="exact", ot_batch_size=512),
        "cellflow, exact, own MLP 3 x 64": ours(clouds, cf.networks.MLP(DIM, width=64), coupling="exact"),
    }
    if peers.is_there():
        methods["torchcfm, independent pairs"] = theirs(clouds, "independent"), 0.0
        methods["torchcfm, exact"] = theirs(clouds, "exact"), 0.0
    rates: dict[str, list[float]] = {name: [] for name in methods}
    for train, _ in methods.values():
        train(10)
    for _ in range(rounds):
        for name, (train, _) in methods.items():
            start = time.perf_counter()
            train(steps)
            rates[name].append(steps / (time.perf_counter() - start))
            print(f"  {name}: {rates[name][-1]:.1f} steps/s", flush=True)
    for name, values in rates.items():
        yield _row("training", name, median(values), "steps/s", f"{min(values):.0f} to {max(values):.0f}")
        if methods[name][1] > 0.5:
            yield _row("pairing before the first step", name, methods[name][1], "s", "once, four intervals")
    for above, below, goal in RATIOS:
        if below in rates:
            ratio = median(a / b for a, b in zip(rates[above], rates[below], strict=True))
            yield _row("ratio of speeds", f"{above} / {below}", ratio, "x", f"goal: {goal}" if goal else "")


def plan_costs(sizes: Sequence[int]) -> Iterator[Row]:
    """Solve one plan of each size in a process of its own; yield time and peak memory."""
    for n, m in [(size, other) for size in sizes for other in (size, size + size // 8)]:
        command = [sys.executable, "-m", "benchmarks.speed", "training", f"one_plan={n},{m}"]
        found = json.loads(subprocess.check_output(command, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}))
        name = f"exact plan, {n} x {m}"
        yield _row("one plan", name, found["seconds"], "s", "permutation" if n == m else "network simplex")
        yield _row("peak memory", name, found["megabytes"], "MB", "whole process")
        print(f"  {name}: {found['seconds']:.1f} s, {found['megabytes']:.0f} MB", flush=True)


def one_plan(n: int, m: int) -> Row:
    """Solve one plan between Gaussian clouds in 50 dimensions, and return what it took."""
    rng = cf.generator(seed=0)
    x0, x1 = torch.randn(n, DIM, generator=rng), torch.randn(m, DIM, generator=rng) + 0.5
    start = time.perf_counter()
    cf.couplings.Exact()(x0, x1)
    return {"seconds": time.perf_counter() - start, "megabytes": machine.peak_megabytes()}


def _row(kind: str, name: str, value: float, unit: str, note: str) -> Row:
    return {"kind": kind, "what": name, "value": value, "unit": unit, "note": note}


def text(rows: list[Row], command: str, cells: int) -> list[str]:
    """Return the page."""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}"
    sizes = {"snapshots": SNAPSHOTS, "cells": cells, "dims": DIM, "batch": BATCH}
    made = page.made_by(command, f"{os.cpu_count()} cores ({machine.processor()}), one thread for training")
    (about,) = page.fill(Path(__file__).with_name("training.md"), made=made, versions=versions, **sizes)
    table = ((row | {"value": f"{row['value']:.4g}"}).values() for row in rows)
    return [*about, "", *page.table(list(rows[0]), map(list, table))]
