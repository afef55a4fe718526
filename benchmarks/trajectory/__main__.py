"""The command line: ``python -m benchmarks.trajectory protocol=A dataset=eb dims=5 method=otcfm seeds=5``.

``all`` does every run of ``configs/all.yaml``, and writes table and figures; ``table`` writes them from what is there.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from omegaconf import DictConfig, OmegaConf

from benchmarks.command import options
from benchmarks.trajectory import table
from benchmarks.trajectory.run import Job, run
from benchmarks.trajectory.settings import CONFIGS, SKIPPED, made, through_hydra
from benchmarks.trajectory.tasks import PROTOCOLS, choose

LIST = CONFIGS / "all.yaml"
TITLE = "trajectory"


def main(arguments: list[str] | None = None) -> int:
    """Run what the arguments say, and return the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] in ("--help", "-h", "help"):
        print(usage())
        return 0
    return publish(*given) if given[0] in ("all", "table") else through_hydra(given, _act)


def usage() -> str:
    """Return what can be asked for: the settings with their comments, and every choice."""
    parts = [(CONFIGS / "config.yaml").read_text().split("\nhydra:")[0], "# protocols"]
    parts += [f"#   {name:<12} {protocol.about}" for name, protocol in PROTOCOLS.items()]
    for group in ("dataset", "method"):
        parts.append(f"# {group}s")
        for file in sorted((CONFIGS / group).glob("*.yaml")):
            parts.append(f"#   {file.stem:<20} {file.read_text().splitlines()[0].removeprefix('# ')}")
    return "\n".join(parts)


def publish(command: str, *words: str) -> int:
    """Do every run of the list, some at a time, for ``all``; write table and figures; return the exit code."""
    given = options(
        f"trajectory {command}", __doc__, words, records=Path("runs/trajectory"), workers=2, list=LIST, title=TITLE
    )
    failed: list[str] = []
    if command == "all":
        lines = yaml.safe_load(given.list.read_text())["runs"]
        # First the baselines of each table, once: two runs would both compute them.
        shared = [
            " ".join(w for w in line.split() if w.split("=")[0] in ("protocol", "dataset", "dims")) for line in lines
        ]
        with ThreadPoolExecutor(given.workers) as pool:
            list(pool.map(lambda line: _one(f"{line} seeds=0", given.records), dict.fromkeys(shared)))
            codes = list(pool.map(lambda line: _one(line, given.records), lines))
        failed = [line for line, code in zip(lines, codes, strict=True) if code not in (0, SKIPPED)]
    try:
        rows = table.write(given.records, results=given.out, command=given.command, name=given.title)
        # Figures of another list would replace those of the same sets.
        drawn = table.draw(rows, given.records, given.out) if given.title == TITLE else []
        print(*drawn, *(f"failed: {line}" for line in failed), sep="\n")
    except FileNotFoundError as error:
        print(f"benchmarks.trajectory: {error}", file=sys.stderr)
        return 1
    return 1 if failed else 0


def _one(line: str, records: Path) -> int:
    """Do one run in a process of its own, so that its memory is its own."""
    command = [sys.executable, "-m", "benchmarks.trajectory", *line.split(), f"out={records}"]
    print(f"--- {line}", flush=True)
    return subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False).returncode


def _act(cfg: DictConfig, method: str) -> None:
    torch.set_num_threads(cfg.threads)
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise ValueError(f"missing {' '.join(f'{key}=...' for key in missing)}.")
    job = Job(
        choose(cfg.protocol), made(cfg.dataset).load(cfg.dims), made(cfg.method), name=cfg.name or method,
        settings=cast("dict[str, Any]", OmegaConf.to_container(cfg.method, resolve=True)),
        folds=OmegaConf.to_container(cfg.fold) if OmegaConf.is_list(cfg.fold) else cfg.fold, seeds=cfg.seeds,
        out=Path(cfg.out), again=cfg.again,
    )  # fmt: skip
    run(job)


if __name__ == "__main__":
    sys.exit(main())
