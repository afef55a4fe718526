"""What is made of settings: the folder of a run, an estimator and its parts."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cellflow.cells.condition_rows import names_tuple
from cellflow.cells.conditions import Conditions
from cellflow.cli import runs
from cellflow.cli.parts import TARGET, build, find, lacking, parameters, takes
from cellflow.cli.settings import Settings, plain
from cellflow.estimators.serialize import PARTS
from cellflow.integrate import Solver, resolve
from cellflow.training import Run

if TYPE_CHECKING:
    from cellflow.estimators.base import FlowEstimator

Estimator = TypeVar("Estimator", bound="FlowEstimator")


def new_folder(cfg: Settings, command: str) -> Path:
    """Return the folder of a new run, or of the one to resume; it is written into the configuration too."""
    folder = runs.new_folder(cfg.out, command=command, resume=cfg.resume, job=cfg.job)
    cfg.out = str(folder)
    if cfg.resume:
        runs.refuse_changes(folder, plain(cfg))
    return folder


def run_of(cfg: Settings, folder: Path, **others: Any) -> Run:
    """Return the run of a training in a folder, as the settings say."""
    return Run(folder, resume=cfg.resume, save_every=cfg.save_every, save_minutes=cfg.save_minutes, **others)


def settings_of(estimator: type["FlowEstimator"], cfg: Settings, **others: Any) -> dict[str, Any]:
    """Return the settings of an estimator that the configuration has under the same names; parts are built.

    Parameters
    ----------
    estimator
        Whose settings.
    cfg
        The configuration of the command.
    **others
        Settings that the configuration says in another way.
    """
    return {name: build(cfg[name]) for name in estimator._get_param_names() if name in cfg} | others


def conditions_of(cfg: Settings) -> Conditions | None:
    """Return the conditions of the settings; ``None`` if nothing of them is set.

    Raises
    ------
    ValueError
        When they are set without a column, or contradict each other.

    Examples
    --------
    >>> conditions_of(Settings({"conditions": {"treatment": "drug", "categories": "donor"}})).categories
    ('donor',)
    """
    usual: dict[str, Any] = {field.name: field.default for field in fields(Conditions)}
    said = usual | {name: tuple(value) if isinstance(value, list) else value for name, value in cfg.conditions.items()}
    said |= {name: names_tuple(said[name]) for name in ("categories", "numbers")}
    return None if said == usual else Conditions(**said)


def load_run(estimator: type[Estimator], folder: Path, cfg: Settings) -> Estimator:
    """Return the fitted estimator of a run; parts that are not cellflow's own must be given again.

    A part that is named by ``_target_``, as the run has it, takes the other values that it was made with from there.
    Only the part itself is built from them, so that nothing in the folder decides what code is run.
    """
    then, parts = runs.read_settings(folder), {}
    for name in PARTS:
        part = cfg.get(name)
        given = plain(part) if isinstance(part, Settings) else {}
        target = given.get(TARGET)
        if target and not target.startswith("cellflow."):
            kept = then.get(name)
            same = kept if isinstance(kept, dict) and kept.get(TARGET) == target else {}
            inner = [key for key, value in same.items() if key not in given and _holds_part(value)]
            if inner:
                raise ValueError(
                    f"The {name} of the run has your own part in `{name}.{inner[0]}`, and code named in its folder is "
                    f"not run. Name that again too, with `{name}.{inner[0]}.{TARGET}=`."
                )
            parts[name] = build(_whole(name, {**same, **given}))
    return estimator.load(folder, device=cfg.get("device", "auto"), **parts)


def _holds_part(value: Any) -> bool:
    """Whether a value is a part, or has one in it."""
    if isinstance(value, Mapping):
        return TARGET in value or any(_holds_part(each) for each in value.values())
    return isinstance(value, list) and any(_holds_part(each) for each in value)


def _whole(name: str, part: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a part of the user's own, if it takes them and needs no others."""
    taken = parameters(find(part[TARGET], name=f"{name}.{TARGET}"))
    if missing := lacking(part, taken):
        raise ValueError(f"missing {' '.join(f'{name}.{each}=...' for each in missing)}, which {part[TARGET]} needs.")
    if strange := [each for each in part if not takes(taken, each)]:
        raise ValueError(f"{part[TARGET]} takes no `{strange[0]}`, with which the {name} of the run was made.")
    return part


def solver_of(cfg: Settings, *, default: Solver | None) -> Any:
    """Return the solver of the settings: a part, or the command's default with another number of steps.

    Where the default depends on the flow (``None``), the number of steps itself is returned, if there is one.
    """
    if TARGET in cfg.solver:
        return build(cfg.solver)
    if default is None or cfg.solver.steps is None:
        return default or cfg.solver.steps
    return resolve(cfg.solver.steps, default=default, verb="solver.steps")
