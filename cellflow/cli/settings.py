"""Shared by all commands: settings as plain values, and where results are written."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from omegaconf import DictConfig, OmegaConf

from cellflow.cli import runs
from cellflow.estimators.serialize import PARTS
from cellflow.integrate import Solver, resolve

if TYPE_CHECKING:
    from cellflow.estimators.base import FlowEstimator

Estimator = TypeVar("Estimator", bound="FlowEstimator")


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


def settings_of(estimator: type["FlowEstimator"], cfg: DictConfig, **others: Any) -> dict[str, Any]:
    """Return the settings of an estimator that the configuration has under their own names; parts are built.

    Parameters
    ----------
    estimator
        Whose settings.
    cfg
        The configuration of the command.
    **others
        Settings that the configuration says in another way.
    """
    return {name: _built(cfg[name]) for name in estimator._get_param_names() if name in cfg} | others


def load_run(estimator: type[Estimator], folder: Path, cfg: DictConfig) -> Estimator:
    """Return the fitted estimator of a run, with those parts that are not cellflow's own as they are given again.

    A part that is named by ``_target_``, as the run has it, takes the other values that it was made with from there.
    Only the part itself is built from them, so that nothing in the folder decides what code is run.
    """
    from hydra.utils import instantiate

    then, parts = runs.read_settings(folder), {}
    for name in PARTS:
        part = OmegaConf.select(cfg, name)
        given = plain(part) if isinstance(part, DictConfig) else {}
        target = given.get("_target_")
        if target and not target.startswith("cellflow."):
            kept = then.get(name)
            same = kept if isinstance(kept, dict) and kept.get("_target_") == target else {}
            parts[name] = instantiate({**same, **given, "_recursive_": False})
    return estimator.load(folder, device=cfg.get("device", "auto"), **parts)


def _built(value: Any) -> Any:
    """Return a part that is built, or a plain value."""
    from hydra.utils import instantiate

    if not OmegaConf.is_config(value):
        return value
    return instantiate(value) if "_target_" in value else plain(value)


def solver_of(cfg: DictConfig, *, default: Solver | None) -> Any:
    """Return the solver of the settings: a part, or the command's default with another number of steps.

    Where the default depends on the flow (``None``), the number of steps itself is returned, if there is one.
    """
    from hydra.utils import instantiate

    if "_target_" in cfg.solver:
        return instantiate(cfg.solver)
    if default is None or cfg.solver.steps is None:
        return default or cfg.solver.steps
    return resolve(cfg.solver.steps, default=default, verb="solver.steps")


def free(out: str | None, default: Path) -> Path:
    """Return the file to write, and refuse to write over one."""
    path = default if out is None else Path(out)
    if path.exists():
        raise FileExistsError(f"{path} exists. Choose another file with `out=`.")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
