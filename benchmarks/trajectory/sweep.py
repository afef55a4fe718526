"""The whole committed table: ``python -m benchmarks.trajectory all``, and ``... table`` from what is there."""

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from benchmarks.command import parse, parser
from benchmarks.trajectory import figures, table
from benchmarks.trajectory.settings import CONFIGS, SKIPPED

LIST = CONFIGS / "all.yaml"


def run_all(words: list[str]) -> int:
    """Do every run of the list, some at a time, and write table and figures; return the exit code."""
    made = _parser("all", "Do every run of the list, and write table and figures.")
    made.add_argument("--workers", type=int, default=2, help="runs at a time")
    made.add_argument("--list", type=Path, default=LIST, help="YAML file with the runs")
    given = parse(made, words)
    lines = yaml.safe_load(given.list.read_text())["runs"]
    with ThreadPoolExecutor(given.workers) as pool:
        # First the baselines of each table, once: two runs would both compute them.
        list(pool.map(lambda line: _one(line, given.records), baselines_of(lines)))
        codes = list(pool.map(lambda line: _one(line, given.records), lines))
    failed = [line for line, code in zip(lines, codes, strict=True) if code not in (0, SKIPPED)]
    for line in failed:
        print(f"failed: {line}", file=sys.stderr)
    return _publish(given) or bool(failed)


def run_table(words: list[str]) -> int:
    """Write table and figures from the records that are there; return the exit code."""
    return _publish(parse(_parser("table", "Write table and figures from the records that are there."), words))


def baselines_of(lines: list[str]) -> list[str]:
    """Return a line for each table, which computes nothing but its baselines."""
    kept = [
        " ".join(word for word in line.split() if word.split("=")[0] in ("protocol", "dataset", "dims"))
        for line in lines
    ]
    return [f"{line} seeds=0" for line in dict.fromkeys(kept)]


def _publish(given: argparse.Namespace) -> int:
    try:
        rows = table.write(given.records, results=given.out, command=given.command)
    except FileNotFoundError as error:
        print(f"benchmarks.trajectory: {error}", file=sys.stderr)
        return 1
    for path in [
        given.out / "trajectory.md",
        given.out / "trajectory.csv",
        *figures.draw(rows, given.records, given.out),
    ]:
        print(path)
    return 0


def _one(line: str, records: Path) -> int:
    """Do one run in a process of its own, so that its memory is its own."""
    command = [sys.executable, "-m", "benchmarks.trajectory", *line.split(), f"out={records}"]
    print(f"--- {line}", flush=True)
    return subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False).returncode


def _parser(name: str, about: str) -> argparse.ArgumentParser:
    made = parser(f"trajectory {name}", about)
    made.add_argument("--records", type=Path, default=Path("runs/trajectory"), help="folder of the records")
    return made
