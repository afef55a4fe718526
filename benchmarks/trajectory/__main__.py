"""The command line: ``python -m benchmarks.trajectory protocol=A dataset=eb dims=5 method=otcfm seeds=5``."""

import sys
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import DictConfig, OmegaConf

from benchmarks.trajectory.run import Job, run
from benchmarks.trajectory.settings import CONFIGS, made, through_hydra
from benchmarks.trajectory.sweep import run_all, run_table
from benchmarks.trajectory.tasks import PROTOCOLS, choose

COMMANDS = {"all": run_all, "table": run_table}


def main(arguments: list[str] | None = None) -> int:
    """Run what the arguments say, and return the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] in ("--help", "-h", "help"):
        print(usage())
        return 0
    return COMMANDS[given[0]](given[1:]) if given[0] in COMMANDS else through_hydra(given, _act)


def usage() -> str:
    """Return what can be asked for: the settings with their comments, and every choice."""
    parts = [(CONFIGS / "config.yaml").read_text().split("\nhydra:")[0], "# protocols"]
    parts += [f"#   {name:<12} {protocol.about}" for name, protocol in PROTOCOLS.items()]
    for group in ("dataset", "method"):
        parts.append(f"# {group}s")
        for file in sorted((CONFIGS / group).glob("*.yaml")):
            parts.append(f"#   {file.stem:<20} {file.read_text().splitlines()[0].removeprefix('# ')}")
    return "\n".join(parts)


def _act(cfg: DictConfig, method: str) -> None:
    torch.set_num_threads(cfg.threads)
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise ValueError(f"missing {' '.join(f'{key}=...' for key in missing)}.")
    job = Job(
        protocol=choose(cfg.protocol),
        cells=made(cfg.dataset).load(cfg.dims),
        method=made(cfg.method),
        name=cfg.name or method,
        settings=cast("dict[str, Any]", OmegaConf.to_container(cfg.method, resolve=True)),
        folds=OmegaConf.to_container(cfg.fold) if OmegaConf.is_list(cfg.fold) else cfg.fold,
        seeds=cfg.seeds,
        out=Path(cfg.out),
        again=cfg.again,
    )
    run(job)


if __name__ == "__main__":
    sys.exit(main())
