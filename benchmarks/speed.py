"""Speed and memory: ``python -m benchmarks.speed``.

Everything is measured in one run on one machine, the methods in turn, so that their ratios hold where the machine's
own speed drifts. torchcfm takes part where it is installed (``make bench`` installs it beside us).
"""

import argparse
import csv
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import cellflow as cf

RESULTS = Path(__file__).parent / "results"
SNAPSHOTS, CELLS, DIM, BATCH = 5, 3000, 50, 256
PLAN_SIZES = (1000, 2000, 4000, 8000)


class PlainMLP(nn.Module):
    """Three hidden layers of 64 on ``[x, t]``: the network that torchcfm's examples use, for every method alike."""

    def __init__(self, dim: int = DIM, width: int = 64) -> None:
        super().__init__()
        sizes = [dim + 1, width, width, width]
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(sizes):
            layers += [nn.Linear(wide, narrow), nn.SELU()]
        self.net = nn.Sequential(*layers, nn.Linear(width, dim))

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the velocity."""
        return self.net(torch.cat([x, t[:, None]], dim=1))


def snapshots() -> list[Tensor]:
    """Return five Gaussian clouds that drift apart."""
    rng = cf.generator(seed=0)
    return [torch.randn(CELLS, DIM, generator=rng) + 0.5 * k for k in range(SNAPSHOTS)]


def ours(clouds: list[Tensor], field: nn.Module, **pairing: Any) -> tuple[Callable[[int], None], float]:
    """Return a function that trains for so many steps, and the seconds that the pairing took beforehand."""
    start = time.perf_counter()
    times = torch.linspace(0, 1, len(clouds)).tolist()
    batches = cf.pairing.snapshot_batches(clouds, times, batch_size=BATCH, generator=cf.generator(seed=1), **pairing)
    pairing_seconds = time.perf_counter() - start

    def train(steps: int) -> None:
        cf.training.fit(field, cf.objectives.VelocityMatching(), batches, steps=steps, generator=cf.generator(seed=2))

    return train, pairing_seconds


def torchcfm_loop(clouds: list[Tensor], *, exact: bool) -> Callable[[int], None]:
    """Return torchcfm's training as its single-cell example has it: a batch and a matching per interval and step."""
    matcher_module = importlib.import_module("torchcfm.conditional_flow_matching")
    kind = "ExactOptimalTransportConditionalFlowMatcher" if exact else "ConditionalFlowMatcher"
    matcher, field = getattr(matcher_module, kind)(sigma=0.0), PlainMLP()
    optimizer = torch.optim.Adam(field.parameters(), lr=1e-4)

    def train(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            t, x, u = _torchcfm_batch(matcher, clouds)
            (field(t, x) - u).square().mean().backward()
            optimizer.step()

    return train


def _torchcfm_batch(matcher: Any, clouds: list[Tensor]) -> tuple[Tensor, ...]:
    parts: list[tuple[Tensor, ...]] = []
    for k in range(len(clouds) - 1):
        x0, x1 = (cloud[torch.randint(len(cloud), (BATCH,))] for cloud in clouds[k : k + 2])
        t, x, u = matcher.sample_location_and_conditional_flow(x0, x1)
        parts.append((t + k, x, u))
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def steps_per_second(rounds: int, steps: int) -> Iterator[dict[str, Any]]:
    """Train with every method in turn, ``rounds`` times, and yield a row for each."""
    clouds = snapshots()
    torch.manual_seed(0)
    methods: dict[str, tuple[Callable[[int], None], float]] = {
        "cellflow, independent pairs": ours(clouds, PlainMLP(), coupling="independent"),
        "cellflow, exact (one plan)": ours(clouds, PlainMLP(), coupling="exact"),
        "cellflow, exact (super-batches)": ours(clouds, PlainMLP(), coupling="exact", ot_batch_size=512),
        "cellflow, exact, own MLP 3 x 64": ours(clouds, cf.networks.MLP(DIM, width=64), coupling="exact"),
    }
    if importlib.util.find_spec("torchcfm"):
        methods["torchcfm, independent pairs"] = (torchcfm_loop(clouds, exact=False), 0.0)
        methods["torchcfm, exact"] = (torchcfm_loop(clouds, exact=True), 0.0)
    else:
        print("skipped: torchcfm is not installed (`make bench` installs it)")
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
    yield from _ratios(rates)


def _ratios(rates: dict[str, list[float]]) -> Iterator[dict[str, Any]]:
    """Yield the ratios that are asked for, each the median over rounds."""
    pairs = [
        ("cellflow, exact (one plan)", "cellflow, independent pairs", "at least 0.9"),
        ("cellflow, exact (super-batches)", "cellflow, independent pairs", ""),
        ("cellflow, exact (one plan)", "torchcfm, exact", "at least 10"),
        ("cellflow, exact (super-batches)", "torchcfm, exact", ""),
        ("cellflow, independent pairs", "torchcfm, independent pairs", "at least 1"),
    ]
    for above, below, goal in pairs:
        if below in rates:
            ratio = median(a / b for a, b in zip(rates[above], rates[below], strict=True))
            yield _row("ratio of speeds", f"{above} / {below}", ratio, "x", f"goal: {goal}" if goal else "")


def plan_costs() -> Iterator[dict[str, Any]]:
    """Solve one plan of each size in a process of its own; yield time and peak memory."""
    for n in PLAN_SIZES:
        for m in (n, n + n // 8):
            found = json.loads(_alone("--one-plan", str(n), str(m)))
            name = f"exact plan, {n} x {m}"
            yield _row("one plan", name, found["seconds"], "s", "permutation" if n == m else "network simplex")
            yield _row("peak memory", name, found["megabytes"], "MB", "whole process")
            print(f"  {name}: {found['seconds']:.1f} s, {found['megabytes']:.0f} MB", flush=True)


def one_plan(n: int, m: int) -> None:
    """Solve one plan between Gaussian clouds in 50 dimensions, and print what it took."""
    rng = cf.generator(seed=0)
    x0, x1 = torch.randn(n, DIM, generator=rng), torch.randn(m, DIM, generator=rng) + 0.5
    start = time.perf_counter()
    cf.couplings.Exact()(x0, x1)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "megabytes": _peak_megabytes()}))


def import_seconds(repeats: int = 7) -> dict[str, Any]:
    """Return what ``import cellflow`` adds to ``import torch, anndata``, in fresh processes."""
    code = "import torch, anndata, time; t = time.perf_counter(); import cellflow; print(time.perf_counter() - t)"
    values = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(repeats)]
    return _row("import", "import cellflow after torch and anndata", median(values), "s", "goal: under 0.3")


def _alone(*arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks.speed", *arguments]
    return subprocess.check_output(command, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def _row(kind: str, name: str, value: float, unit: str, note: str) -> dict[str, Any]:
    return {"kind": kind, "what": name, "value": round(value, 4), "unit": unit, "note": note}


def _peak_megabytes() -> float:
    """Return the most memory that this process held; unlike getrusage's figure it does not count the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024


def write(rows: list[dict[str, Any]], command: str) -> None:
    """Write the rows as CSV, and as a table with the command and the machine."""
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "speed.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    lines = [
        "# Speed and memory",
        "",
        f"Made by `{command}` on {time.strftime('%Y-%m-%d')}: {os.cpu_count()} cores ({_processor()}), one thread for",
        f"training; Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}. "
        f"{SNAPSHOTS} snapshots of {CELLS} cells, {DIM} dimensions,",
        f"{BATCH} pairs per interval and step (four intervals), the same plain MLP 3 x 64 for every method unless",
        "said. Our loop clips gradients, averages weights and schedules the learning rate (its defaults); torchcfm's",
        "is the loop of its single-cell example. Methods take turns; values are medians over rounds.",
        "",
        "| kind | what | value | unit | note |",
        "|---|---|---|---|---|",
        *(f"| {r['kind']} | {r['what']} | {r['value']:.4g} | {r['unit']} | {r['note']} |" for r in rows),
    ]
    (RESULTS / "speed.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    """Measure everything, or one plan where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often every method takes its turn")
    parser.add_argument("--steps", type=int, default=500, help="steps per turn")
    parser.add_argument("--one-plan", type=int, nargs=2, metavar=("N", "M"), help="solve one plan and print its cost")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.one_plan:
        one_plan(*given.one_plan)
        return
    rows = [import_seconds(), *steps_per_second(given.rounds, given.steps)]
    rows.append(_row("peak memory", "training, all methods", _peak_megabytes(), "MB", "whole process"))
    rows += plan_costs()
    write(rows, "python -m benchmarks.speed")


if __name__ == "__main__":
    main()
