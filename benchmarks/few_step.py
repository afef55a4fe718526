"""Flow maps in few steps, where the truth is known: ``python -m benchmarks.few_step``.

``gaussians``: independent N(0, 1) and N(2, 0.25) in two dimensions on straight lines, whose map is known: root mean
squared error of 1 to 16 jumps, and the semigroup error ``||X(s, u) - X(t, u) o X(s, t)||`` over random s < t < u.

``checkerboard``: from a Gaussian of the data's variance to the black squares of a 4 x 4 board on [-1, 1]^2; KL
divergence of the data from 64,000 samples after 1 to 16 jumps, between histograms of 50 x 50 bins. Direction, smoothing
and range are not published; here: KL(data || model), half a count added to every bin, [-1.1, 1.1]^2 with everything
outside in the outermost bins. The floor is the same score for an independent draw of the data. The published run has
150,000 steps of 100,000 points through four layers of 512; that is ``--full``, for a GPU. The default is a CPU-sized
run, and is called that in the table.
"""

import argparse
import csv
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor

import cellflow as cf
from cellflow.objectives import (
    EulerianMatching,
    FlowMapMatching,
    LagrangianMatching,
    MeanVelocityMatching,
    SemigroupMatching,
    VelocityMatching,
)
from cellflow.seeds import generator_at

RESULTS = Path(__file__).parent / "results"
JUMPS = (1, 2, 4, 8, 16)
SAMPLES, BINS, RANGE = {"gaussians": 8_000, "checkerboard": 64_000}, 50, 1.1
PUBLISHED = {
    "Lagrangian": (0.0864, 0.0765, 0.0708, 0.0699, 0.0710),
    "Eulerian": (0.0983, 0.0921, 0.0834, 0.0816, 0.0751),
    "semigroup, middle": (0.1456, 0.0891, 0.0812, 0.0717, 0.0689),
    "semigroup, uniform": (0.1113, 0.1067, 0.0747, 0.0727, 0.0679),
}
"""KL at 1, 2, 4, 8 and 16 jumps (Boffi, Albergo and Vanden-Eijnden 2025, flow-maps.github.io)."""


@dataclass(frozen=True)
class Size:
    """How large a run is."""

    steps: int
    batch_size: int
    width: int
    depth: int


SIZES = {
    "gaussians": Size(steps=3000, batch_size=512, width=64, depth=2),
    "checkerboard": Size(steps=10_000, batch_size=1024, width=128, depth=2),
    "checkerboard, full": Size(steps=150_000, batch_size=100_000, width=512, depth=2),
}
METHODS: dict[str, Any] = {
    "Lagrangian": LagrangianMatching(),
    "Lagrangian, free gradient": LagrangianMatching(stop_gradient=False),
    "Eulerian": EulerianMatching(),
    "Eulerian, stopped gradient": EulerianMatching(stop_gradient=True),
    "semigroup, middle": SemigroupMatching(split="middle"),
    "semigroup, uniform": SemigroupMatching(),
    "mean velocity": MeanVelocityMatching(),
    "direct, from pairs": FlowMapMatching(),
}
TAUGHT = {"Lagrangian, taught": LagrangianMatching, "semigroup, taught": SemigroupMatching}
"""Distillation of the velocity field that serves as the baseline, from which these maps start."""


class Stream:
    """Fresh independent pairs without end; batch k is the same at every iteration."""

    def __init__(self, task: str, batch_size: int, seed: int, device: torch.device) -> None:
        self.task, self.batch_size, self.seed, self.device = task, batch_size, seed, device

    def iterate(self, start: int) -> Iterator[cf.Batch]:
        """Yield batches from number ``start`` on."""
        step = start
        while True:
            rng = generator_at(self.seed, step, device=self.device)
            yield cf.Batch(source(self.task, self.batch_size, rng), target(self.task, self.batch_size, rng))
            step += 1

    def __iter__(self) -> Iterator[cf.Batch]:
        """Yield batches from the first on."""
        return self.iterate(0)


def source(task: str, n: int, rng: torch.Generator) -> Tensor:
    """Draw ``(n, 2)`` points of the source: of unit variance, or of that of the board."""
    noise = torch.randn(n, 2, generator=rng, device=rng.device)
    return noise if task == "gaussians" else noise / 3**0.5


def target(task: str, n: int, rng: torch.Generator) -> Tensor:
    """Draw ``(n, 2)`` points of the target."""
    if task == "gaussians":
        return 2 + torch.randn(n, 2, generator=rng, device=rng.device) / 2
    row, pick = (
        torch.randint(4, (n,), generator=rng, device=rng.device),
        torch.randint(2, (n,), generator=rng, device=rng.device),
    )
    corner = torch.stack([row, 2 * pick + row % 2], dim=1)
    return (corner + torch.rand(n, 2, generator=rng, device=rng.device)) / 2 - 1


def divergence(x: Tensor, data: Tensor) -> float:
    """Return KL(data || x) between smoothed histograms."""

    def shares(points: Tensor) -> Tensor:
        cell = ((points + RANGE) / (2 * RANGE) * BINS).long().clamp(0, BINS - 1)
        counts = torch.bincount(cell[:, 0] * BINS + cell[:, 1], minlength=BINS**2).double() + 0.5
        return counts / counts.sum()

    p, q = shares(data), shares(x)
    return (p * (p / q).log()).sum().item()


def transport_error(x0: Tensor, x1: Tensor) -> float:
    """Return the root mean squared distance from where the known map of the Gaussians sends ``x0``."""
    return (x1 - (2 + x0 / 2)).square().mean().sqrt().item()


def semigroup_error(flow_map: Any, task: str, rng: torch.Generator) -> float:
    """Return the root mean squared difference between one jump and two, over the same stretch, on the flow's way."""
    x = source(task, 4000, rng)
    s, t, u = torch.rand(len(x), 3, generator=rng, device=rng.device).sort(dim=1).values.unbind(1)
    start = cf.integrate.jump(flow_map, x, steps=8, stop=s).x[-1]
    with torch.no_grad():
        two = flow_map.jump(t, u, flow_map.jump(s, t, start))
        return (flow_map.jump(s, u, start) - two).square().mean().sqrt().item()


def scores(task: str, push: Callable[[Tensor, int], Tensor], rng: torch.Generator) -> dict[str, float]:
    """Return the score after each number of jumps."""
    x0 = source(task, SAMPLES[task], rng)
    data = target(task, SAMPLES[task], rng)
    score = (lambda x: transport_error(x0, x)) if task == "gaussians" else (lambda x: divergence(x, data))
    return {f"at_{k}": score(push(x0, k)) for k in JUMPS}


def run(task: str, size: Size, seed: int, device: torch.device, methods: list[str]) -> Iterator[dict[str, Any]]:
    """Train the baseline and every method, and yield a row for each."""
    network = {"width": size.width, "depth": size.depth}

    def train(field: torch.nn.Module, objective: Any) -> float:
        rng, start = cf.generator(seed), time.perf_counter()
        recipe = cf.training.Recipe(learning_rate=1e-3)
        batches = Stream(task, size.batch_size, seed, device)
        cf.training.fit(field, objective, batches, steps=size.steps, generator=rng, recipe=recipe)
        return time.perf_counter() - start

    def judged(push: Callable[[Tensor, int], Tensor]) -> dict[str, float]:
        return scores(task, push, cf.generator(10_000 + seed, device))

    field = cf.networks.MLP(2, **network).to(device)
    seconds = train(field, VelocityMatching())
    yield {"method": "velocity, Euler steps", "seed": seed, "seconds": seconds, "semigroup": float("nan")} | judged(
        lambda x, k: cf.integrate.ode(field, x, steps=k, method="euler").x[-1]
    )
    exact = cf.integrate.ode(field, source(task, SAMPLES[task], cf.generator(10_000 + seed, device)), steps=25).x[-1]
    yield {"method": "velocity, 100 evaluations", "seed": seed, "seconds": seconds, "semigroup": float("nan")} | judged(
        lambda x, k: exact
    )
    for name in methods:
        objective = TAUGHT[name](teacher=field.eval()) if name in TAUGHT else METHODS[name]
        spans = objective.known_spans[0]
        flow_map = (
            cf.networks.FlowMap.of(field)
            if name in TAUGHT
            else cf.networks.FlowMap(cf.networks.MLP(2, **network, times=2), spans=spans).to(device)
        )
        took = train(flow_map, objective) + (seconds if name in TAUGHT else 0.0)
        push = _jumps_of(flow_map)
        semigroup = semigroup_error(flow_map, task, cf.generator(20_000 + seed, device))
        yield {"method": name, "seed": seed, "seconds": took, "semigroup": semigroup} | judged(push)


def _jumps_of(flow_map: Any) -> Callable[[Tensor, int], Tensor]:
    return lambda x, k: cf.integrate.jump(flow_map, x, steps=k).x[-1]


def floor(task: str, seeds: int) -> list[float]:
    """Return the score of a perfect sampler, over seeds."""
    if task == "gaussians":
        return [0.0]
    draws = [cf.generator(30_000 + seed) for seed in range(seeds)]
    return [divergence(target(task, SAMPLES[task], rng), target(task, SAMPLES[task], rng)) for rng in draws]


def write(task: str, size: Size, rows: list[dict[str, Any]], command: str, *, named: str, device: torch.device) -> None:
    """Write every run as CSV, and the means as a table beside the published values."""
    RESULTS.mkdir(exist_ok=True)
    stem = f"few_step_{named}"
    with (RESULTS / f"{stem}.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    seeds = len({row["seed"] for row in rows})
    best = floor(task, seeds)
    about = "root mean squared error" if task == "gaussians" else "KL divergence of the data from 64,000 samples"
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU, one thread"
    lines = [
        f"# Few steps: {named.replace('_', ', ')}",
        "",
        f"Made by `{command}` on {time.strftime('%Y-%m-%d')}: {machine}, torch {torch.__version__}.",
        f"{size.steps} steps of {size.batch_size} fresh pairs, MLP of width {size.width}, {size.depth} residual blocks"
        f"{'' if named.endswith('full') else ': a CPU-sized run, smaller than the published one'}.",
        f"{about[0].upper()}{about[1:]} after 1 to 16 jumps, mean (standard deviation) over {seeds} seed(s).",
        f"Floor: {mean(best):.4f}.",
        "Seconds are those of training, with the teacher's where there is one.",
        "",
        f"| method | {' | '.join(map(str, JUMPS))} | semigroup error | seconds |",
        f"|{'---|' * (len(JUMPS) + 3)}",
    ]
    for method in dict.fromkeys(row["method"] for row in rows):
        lines.append(_line(method, [row for row in rows if row["method"] == method]))
    if task == "checkerboard":
        lines += [f"| published: {name} | {' | '.join(f'{v:.4f}' for v in kl)} | | |" for name, kl in PUBLISHED.items()]
    (RESULTS / f"{stem}.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def _line(method: str, rows: list[dict[str, Any]]) -> str:
    def cell(name: str) -> str:
        values = [row[name] for row in rows]
        return f"{mean(values):.4f}" + (f" ({stdev(values):.4f})" if len(values) > 1 else "")

    jumps = " | ".join(cell(f"at_{k}") for k in JUMPS)
    semigroup = "" if rows[0]["semigroup"] != rows[0]["semigroup"] else cell("semigroup")
    return f"| {method} | {jumps} | {semigroup} | {mean(row['seconds'] for row in rows):.0f} |"


def main() -> None:
    """Run one task with every method and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=["gaussians", "checkerboard"], default="checkerboard")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds")
    parser.add_argument("--full", action="store_true", help="the published size of the checkerboard, for a GPU")
    parser.add_argument("--steps", type=int, help="optimiser steps, where others than the size's are wanted")
    parser.add_argument("--methods", nargs="+", choices=[*METHODS, *TAUGHT], default=[*METHODS, *TAUGHT])
    given = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size = SIZES["checkerboard, full" if given.full else given.task]
    if given.steps:
        size = Size(given.steps, size.batch_size, size.width, size.depth)
    rows = []
    for seed in range(given.seeds):
        torch.manual_seed(seed)
        for row in run(given.task, size, seed, device, given.methods):
            rows.append(row)
            print(row, flush=True)
    command = f"python -m benchmarks.few_step --task {given.task} --seeds {given.seeds}{' --full' * given.full}"
    command += f" --steps {given.steps}" if given.steps else ""
    write(given.task, size, rows, command, named=given.task + "_full" * given.full, device=device)


if __name__ == "__main__":
    main()
