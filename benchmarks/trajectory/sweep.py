"""The whole committed table: ``python -m benchmarks.trajectory all``, and ``... table`` from what is there."""

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from benchmarks.trajectory.figures import draw
from benchmarks.trajectory.table import RESULTS, write

LIST = Path(__file__).parent / "configs" / "all.yaml"
SKIPPED = 3
"""Exit code of a run whose package is not installed."""


def run_all(arguments: list[str]) -> int:
    """Do every run of the list, some at a time, and write table and figures; return the exit code."""
    given = _parser("all", "Do every run of the list, and write table and figures.").parse_args(arguments)
    lines = yaml.safe_load(given.list.read_text())["runs"]
    with ThreadPoolExecutor(given.workers) as pool:
        # First the baselines of each table, once: two runs would both compute them.
        list(pool.map(lambda line: _one(line, given.out), _baselines(lines)))
        codes = list(pool.map(lambda line: _one(line, given.out), lines))
    failed = [line for line, code in zip(lines, codes, strict=True) if code not in (0, SKIPPED)]
    for line in failed:
        print(f"failed: {line}", file=sys.stderr)
    at_a_time = f"--workers {given.workers}"
    _publish(given.out, given.results, f"python -m benchmarks.trajectory all {at_a_time}")
    return 1 if failed else 0


def run_table(arguments: list[str]) -> int:
    """Write table and figures from the records that are there; return the exit code."""
    given = _parser("table", "Write table and figures from the records that are there.").parse_args(arguments)
    try:
        _publish(given.out, given.results, "python -m benchmarks.trajectory table")
    except FileNotFoundError as error:
        print(f"benchmarks.trajectory: {error}", file=sys.stderr)
        return 1
    return 0


def _baselines(lines: list[str]) -> list[str]:
    """Return a line for each table, which computes nothing but its baselines.

    Examples
    --------
    >>> _baselines(["protocol=A dataset=eb method=icfm seeds=2", "protocol=A dataset=eb method=otcfm"])
    ['protocol=A dataset=eb seeds=0']
    """
    kept = [
        " ".join(word for word in line.split() if word.split("=")[0] in ("protocol", "dataset", "dims"))
        for line in lines
    ]
    return [f"{line} seeds=0" for line in dict.fromkeys(kept)]


def _publish(out: Path, results: Path, command: str) -> None:
    rows = write(out, results=results, command=command)
    for path in [results / "trajectory.md", results / "trajectory.csv", *draw(rows, out, results)]:
        print(path)


def _one(line: str, out: Path) -> int:
    """Do one run in a process of its own, so that its memory is its own."""
    command = [sys.executable, "-m", "benchmarks.trajectory", *line.split(), f"out={out}"]
    print(f"--- {line}", flush=True)
    return subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False).returncode


def _parser(name: str, about: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.trajectory {name}", description=about)
    parser.add_argument("--out", type=Path, default=Path("runs/trajectory"), help="folder of the records")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where table and figures go")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time")
    parser.add_argument("--list", type=Path, default=LIST, help="YAML file with the runs")
    return parser
