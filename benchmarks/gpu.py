"""What wants a GPU, in order of worth, twelve minutes at a time: ``make gpu``, or ``python -m benchmarks.gpu``.

``gpu.yaml`` has the jobs: each is a benchmark of its own with a limit in seconds; its rows are kept as they come, with
the device's name. Jobs that have all their rows are skipped, so the same command goes on where time ran out; at the end
it says what is left. ``--cpu-dry-run`` runs each job at toy size.
"""

import importlib
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks import machine
from benchmarks.command import Words, guarded, options
from benchmarks.rows import Table

JOBS: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
LEAST = 15
"""Seconds below which no job is started."""
GRACE = 10
"""Seconds that a job has to save its training once it is told to stop."""
HERE = "here"
"""In place of a device: that of this machine."""


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
        limit = min(job["seconds"], given.seconds - (time.monotonic() - start))
        if made(job, given.out) >= job["rows"]:
            print(f"{name}: there already", flush=True)
        elif limit >= LEAST:
            _run(name, job["run"], limit, where)
        if (found := made(job, given.out)) < job["rows"]:
            left.append(f"{name} ({found} of {job['rows']} rows)")
    print(f"Left: {', '.join(left) or 'nothing'}. {time.monotonic() - start:.0f} s of {given.seconds}.")
    return 0


def parts_of(run: str) -> tuple[Callable[[Sequence[str]], None], list[str]]:
    """Return what a job runs, and its words."""
    package, *words = shlex.split(run)
    inner = words.pop(0) if "=" not in words[0] else "__main__"
    return importlib.import_module(f"benchmarks.{package}.{inner}").main, words


def made(job: dict[str, Any], folder: Path) -> int:
    """Return how many rows of a job there are, but for those that say how a measurement failed.

    A table may hold other rows: of other jobs and seeds, or of another machine.
    """
    wanted = {column: value if isinstance(value, list) else [value] for column, value in job.get("of", {}).items()}
    if wanted.get("device") == [HERE]:
        wanted["device"] = [machine.name(torch.device("cuda"))]
    rows = Table(folder / f"{job['table']}.csv", ()).read()
    mine = [row for row in rows if all(row.get(column) in values for column, values in wanted.items())]
    return sum(not row.get("failed") for row in mine)


def _run(name: str, run: str, limit: float, where: list[str]) -> None:
    """Run a job in a process of its own, which is told to stop at its limit, and ended soon after."""
    print(f"--- {name}: {run}", flush=True)
    command = [sys.executable, "-m", *shlex.split(f"benchmarks.{run}"), *where]
    with subprocess.Popen(command) as process:
        try:
            print(f"--- {name}: exit code {process.wait(timeout=limit)}", flush=True)
        except subprocess.TimeoutExpired:
            process.terminate()  # a training saves itself
            print(f"--- {name}: stopped after {limit:.0f} s", flush=True)
        finally:
            try:
                process.wait(timeout=GRACE)
            except subprocess.TimeoutExpired:
                process.kill()


if __name__ == "__main__":
    sys.exit(guarded("gpu", main))
