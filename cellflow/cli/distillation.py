"""The command that distils a finished run, whatever it fitted, and compares few jumps with many steps."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellflow.cells.snapshots import leave_out
from cellflow.cli import cells, generation, runs, shared, translation
from cellflow.cli.built import load_run, run_of
from cellflow.cli.kept import kept_settings
from cellflow.cli.parts import build
from cellflow.cli.settings import Settings
from cellflow.report import few_steps
from cellflow.together import once, together

if TYPE_CHECKING:
    import pandas as pd
    from lightning_fabric import Fabric

log = logging.getLogger("cellflow")
STATE = "distilling"
"""Folder below that of the run, with the state of a distillation under way."""


def distill(cfg: Settings) -> None:
    """Distil a run, score few jumps beside many steps, and write its report again."""
    import torch

    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    folder = runs.existing_folder(cfg.model)
    kinds: dict[str, Callable[..., None]] = {"DomainTranslator": _translation, "ImageGenerator": _generation}
    kind = runs.estimator_of(folder)
    if kind == "PerturbationFlow":
        raise ValueError(
            f"{folder} holds a PerturbationFlow, not a SnapshotFlow, DomainTranslator or ImageGenerator. Distil it in "
            f"Python: `flow = cf.PerturbationFlow.load({str(folder)!r})`, then "
            f"`flow.distill(adata).save({str(folder)!r}, overwrite=True)` with the cells of its fit. `cellflow perturb "
            "... solver=jumps` then uses the map."
        )
    fabric = shared.join(cfg)
    with shared.held(folder, fabric):
        kinds.get(kind, _cells)(folder, cfg, fabric)
        if fabric is None or fabric.is_global_zero:
            _remove(state_of(cfg))  # last, so that whatever was stopped before can be resumed


def state_of(cfg: Settings) -> Path:
    """Return the folder with the state of the distillation of a run."""
    return Path(cfg.model) / STATE


def _cells(folder: Path, cfg: Settings, fabric: "Fabric | None") -> None:
    _, flow, adata = cells.read_run(cfg)
    held_out = kept_settings(folder, "fit").data.holdout
    seen = leave_out(adata, flow.time_key, held_out)
    if _learn(folder, cfg, fabric, flow, seen):
        _compare(folder, few_steps.compare_cells(adata, flow))
        cells.write_report(folder, adata, flow)


def _translation(folder: Path, cfg: Settings, fabric: "Fabric | None") -> None:
    from cellflow.estimators import DomainTranslator

    model = load_run(DomainTranslator, folder, cfg)
    then, source, target = translation.read_again(folder)
    if not _learn(folder, cfg, fabric, model, source.fitted, target.fitted, guidance=cfg.guidance):
        return
    asked = {"feature_network": then.feature_network, "guidance": cfg.guidance}
    _compare(folder, few_steps.compare_translated(model, source, target, **asked))
    translation.write_report(folder, model, source, target, then)


def _generation(folder: Path, cfg: Settings, fabric: "Fabric | None") -> None:
    from cellflow.estimators import ImageGenerator

    model = load_run(ImageGenerator, folder, cfg)
    then, images = generation.read_again(folder)
    if not _learn(folder, cfg, fabric, model, images.fitted, guidance=cfg.guidance):
        return
    _compare(
        folder, few_steps.compare_generated(model, images, feature_network=then.feature_network, guidance=cfg.guidance)
    )
    generation.write_report(folder, model, images, then)


def _learn(folder: Path, cfg: Settings, fabric: "Fabric | None", model: Any, *samples: Any, **settings: Any) -> bool:
    """Distil a model and save it; return whether this process goes on to compare and report."""
    state = folder / STATE
    with together(fabric):
        once(lambda: _refuse_begun(state, resume=cfg.resume))
    watch, run = runs.Stopwatch(), run_of(cfg, state, fabric=fabric)
    model.set_params(progress=cfg.progress)
    model.distill(
        *samples,
        steps=cfg.steps,
        objective=cfg.objective,
        teacher=cfg.teacher,
        recipe=build(cfg.recipe),
        run=run,
        **settings,
    )
    if not run.leads:
        return False
    model.save(folder, overwrite=True)
    log.info("distilled in %.1f s", watch.seconds())
    return True


def _refuse_begun(state: Path, *, resume: bool) -> None:
    if state.exists() and not resume:
        raise FileExistsError(
            f"{state} holds an interrupted distillation. Resume it with `resume=true`, or remove that folder."
        )


def _remove(state: Path) -> None:
    """Remove the state of a distillation: in one step what is asked for, then its files."""
    done = state.with_name(f".{state.name}")
    shutil.rmtree(done, ignore_errors=True)
    state.replace(done)
    shutil.rmtree(done)


def _compare(folder: Path, table: "pd.DataFrame") -> None:
    runs.write_table(table, folder / few_steps.FILE)
    log.info("%s", table.round(4).to_string(index=False))
