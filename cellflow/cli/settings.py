"""Shared by all commands: settings as plain values, and where results are written."""

from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from cellflow.cli import runs
from cellflow.integrate import Solver, resolve


def new_folder(cfg: DictConfig, command: str) -> Path:
    """Return the folder of a new run, or of the one to resume; it is written into the configuration too."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    job = HydraConfig.get().job.num if HydraConfig.get().mode == RunMode.MULTIRUN else None
    folder = runs.new_folder(cfg.out, command=command, resume=cfg.resume, job=job)
    cfg.out = str(folder)
    if cfg.resume:
        runs.refuse_changes(folder, plain(cfg))
    return folder


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Return the resolved settings as plain values."""
    return cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True))


def solver_of(cfg: DictConfig, *, default: Solver) -> Any:
    """Return the solver of the settings: a part, or the command's default with another number of steps."""
    from hydra.utils import instantiate

    if "_target_" in cfg.solver:
        return instantiate(cfg.solver)
    return default if cfg.solver.steps is None else resolve(cfg.solver.steps, default=default, verb="solver.steps")


def free(out: str | None, default: Path) -> Path:
    """Return the file to write, and refuse to write over one."""
    path = default if out is None else Path(out)
    if path.exists():
        raise FileExistsError(f"{path} exists. Choose another file with `out=`.")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
