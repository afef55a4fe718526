"""What wants a GPU, in order of worth, within twelve minutes: ``make gpu``, or ``python -m benchmarks.gpu``.

``gpu.yaml`` has the jobs: each is a benchmark of its own with a limit in seconds; its rows are kept as they come, with
the device's name. Jobs that have all their rows are skipped, so the same command goes on where time ran out; at the end
it says what is left. ``--cpu-dry-run`` runs each job at toy size.
"""

import importlib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.command import Words, options
from benchmarks.rows import Table

JOBS: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
LEAST = 15
"""Seconds below which no job is started."""


def main(words: Words = None) -> int:
    """Run the jobs, and return the exit code: 2 where there is no GPU."""
    given = options("gpu", __doc__, words, seconds=720, cpu_dry_run=False)
    if not (torch.cuda.is_available() or given.cpu_dry_run):
        print("No CUDA device on this machine; `--cpu-dry-run` runs each job at toy size.")
        return 2
    start, left = time.monotonic(), []
    where = ["--commit-table"] if given.commit_table else [f"out={given.out}"]
    for name, job in JOBS.items():
        if given.cpu_dry_run:
            act, words = parts_of(job["toy"])
            act([*words, *where])
            continue
        table = Table(given.out / f"{job['table']}.csv", ())
        limit = min(job["seconds"], given.seconds - (time.monotonic() - start))
        if _made(table) >= job["rows"]:
            print(f"{name}: there already", flush=True)
        elif limit >= LEAST:
            _run(name, job["run"], limit, where)
        if _made(table) < job["rows"]:
            left.append(f"{name} ({_made(table)} of {job['rows']} rows)")
    print(f"Left: {', '.join(left) or 'nothing'}. {time.monotonic() - start:.0f} s of {given.seconds}.")
    return 0


def parts_of(run: str) -> tuple[Callable[[Sequence[str]], None], list[str]]:
    """Return what a job runs, and its words."""
    package, *words = run.split()
    inner = words.pop(0) if "=" not in words[0] else "__main__"
    return importlib.import_module(f"benchmarks.{package}.{inner}").main, words


def _made(table: Table) -> int:
    """Return how many rows there are, but for those that say how a measurement failed."""
    return sum(not row.get("failed") for row in table.read())


def _run(name: str, run: str, limit: float, where: list[str]) -> None:
    """Run a job in a process of its own, which is stopped at its limit."""
    print(f"--- {name}: {run}", flush=True)
    try:
        command = [sys.executable, "-m", *f"benchmarks.{run}".split(), *where]
        print(f"--- {name}: exit code {subprocess.run(command, timeout=limit, check=False).returncode}", flush=True)
    except subprocess.TimeoutExpired:
        print(f"--- {name}: stopped after {limit:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
