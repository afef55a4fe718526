"""What wants a GPU, in order of worth, within twelve minutes: ``make gpu``, or ``python -m benchmarks.gpu``.

Each job is a benchmark of its own with a limit in seconds; its rows are kept as they come, with the device's name. Jobs
that have all their rows are skipped, so the same command goes on where time ran out; at the end it says what is left.
"""

import importlib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from benchmarks.command import options
from benchmarks.rows import Table

LEAST = 15
"""Seconds below which no job is started."""


class Job(NamedTuple):
    """One benchmark: what it is called, its module and words, its limit, where its rows go, and how many it has."""

    name: str
    module: str
    words: str
    seconds: int
    table: str
    rows: int
    toy: str  # words of a run that is small enough for a test on a CPU


FULL = "size=full seeds=1 flow_steps=3000 steps=700"
TINY = "seeds=1 flow_steps=1 steps=1 batch=4 simulated=4 images=6 device=cpu method=trajectories"
JOBS = (
    Job("checkerboard", "few_step", "task=checkerboard size=full seeds=1 steps=6000 batch=25000", 200,
        "few_step_checkerboard_full", 15, "task=gaussians seeds=1 steps=1 batch=8 method=Lagrangian"),
    Job("digits in few steps", "images few_step", f"task=mnist {FULL}", 160, "few_step_mnist_full", 12,
        f"task=mnist {TINY}"),
    Job("images per second", "speed images", "size=full rounds=3 repeats=10 compiled=", 120, "image_speed_full", 22,
        "size=small rounds=1 repeats=1"),
    Job("clothes in few steps", "images few_step", f"task=fashion {FULL}", 120, "few_step_fashion_full", 12,
        f"task=fashion {TINY}"),
    Job("flows beside diffusion", "images generation", "task=mnist size=gpu steps=2000 images=2000", 100,
        "generation", 33, "task=mnist steps=1 images=8 batch=4 method=FM device=cpu"),
)  # fmt: skip


def main(words: Sequence[str] | None = None) -> int:
    """Run the jobs, and return the exit code: 2 where there is no GPU."""
    given = options("gpu", __doc__, words, seconds=720, cpu_dry_run=False)
    if not (torch.cuda.is_available() or given.cpu_dry_run):
        print("No CUDA device on this machine; `--cpu-dry-run` runs each job at toy size.")
        return 2
    start, left = time.monotonic(), []
    where = ["--commit-table"] if given.commit_table else [f"out={given.out}"]
    for job in JOBS:
        table = Table(given.out / f"{job.table}.csv", ())
        limit = min(job.seconds, given.seconds - (time.monotonic() - start))
        if len(table.read()) >= job.rows:
            print(f"{job.name}: there already", flush=True)
        elif given.cpu_dry_run:
            main_of(job.module)([*job.toy.split(), *where])
            continue
        elif limit >= LEAST:
            _run(job, limit, where)
        if len(table.read()) < job.rows:
            left.append(f"{job.name} ({len(table.read())} of {job.rows} rows)")
    print(f"Left: {', '.join(left) or 'nothing'}. {time.monotonic() - start:.0f} s of {given.seconds}.")
    return 0


def main_of(module: str) -> Callable[[Sequence[str]], None]:
    """Return what a benchmark runs."""
    inner = "__main__" if module == "few_step" else module.split()[1]
    found: Callable[[Sequence[str]], None] = importlib.import_module(f"benchmarks.{module.split()[0]}.{inner}").main
    return found


def _run(job: Job, limit: float, where: list[str]) -> None:
    """Run a job in a process of its own, which is stopped at its limit."""
    package, *kind = job.module.split()
    print(f"--- {job.name}: {job.words}", flush=True)
    try:
        command = [sys.executable, "-m", f"benchmarks.{package}", *kind, *job.words.split(), *where]
        print(f"--- {job.name}: exit code {subprocess.run(command, timeout=limit, check=False).returncode}", flush=True)
    except subprocess.TimeoutExpired:
        print(f"--- {job.name}: stopped after {limit:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
