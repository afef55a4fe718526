"""Commands on one set of images: fit a generator, and use it."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellflow.cli import image_reading, image_runs, image_sizes, runs, shared
from cellflow.cli.beforehand import check_scores, check_solver
from cellflow.cli.built import conditions_of, load_run, settings_of, solver_of
from cellflow.cli.kept import kept_settings
from cellflow.cli.left_out import hold_out
from cellflow.cli.settings import Settings
from cellflow.images import ImageStream
from cellflow.integrate import Fixed
from cellflow.lock import A_SAVE, locked
from cellflow.report import Split
from cellflow.report.image_conditions import in_turn

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from cellflow.estimators import ImageGenerator

log = logging.getLogger("cellflow")
SOLVER = Fixed("midpoint", steps=20)
STRENGTH = 0.5
"""How much of images is given up that are changed, where nothing is said."""
SHOWN = 12
"""Images in a row of a preview."""


def generate(cfg: Settings) -> None:
    """Fit a generator to a folder, or make images with a fitted one."""
    if cfg.model is not None:
        return _apply(cfg)
    image_runs.refuse_strength(cfg)
    image_runs.require(cfg, "data")
    fabric = shared.join(cfg)
    image_reading.as_begun(cfg)
    images = image_reading.read(cfg.data, cfg, labels=cfg.labels)
    image_sizes.settle(cfg, images.shape)
    cfg.data = str(Path(cfg.data).resolve())
    with shared.run_folder(cfg, "generate", fabric) as folder:
        _fit(folder, images, cfg, fabric)
    return None


def _fit(folder: Path, images: Any, cfg: Settings, fabric: "Fabric | None") -> None:
    """Fit and write everything that a run folder holds."""
    from cellflow.estimators import ImageGenerator

    split = hold_out(images, cfg)
    few = split.held_out.take(range(2))
    check_solver(cfg, noisy=False)
    check_scores((few.read() if isinstance(few, ImageStream) else few).scaled(), cfg.feature_network)
    told = {"conditional": images.labels is not None, "conditions": conditions_of(cfg)}
    model = ImageGenerator(**settings_of(ImageGenerator, cfg, **told))

    def preview(current: ImageGenerator) -> list[Any]:
        label = [k % len(current.classes_) for k in range(SHOWN)] if current.classes_ else None
        given = in_turn(current, split.held_out, SHOWN)
        return [current.generate(SHOWN, label=label, solver=solver_of(cfg, default=SOLVER), **given).bytes()]

    if image_runs.fit(folder, cfg, "generate", model, [split.fitted], preview, fabric):
        write_report(folder, model, split, cfg)


def report(cfg: Settings) -> None:
    """Write the report of a fitted generator again."""
    from cellflow.estimators import ImageGenerator

    folder = runs.existing_folder(cfg.model)
    then, images = read_again(folder)
    write_report(folder, load_run(ImageGenerator, folder, cfg), images, then)


def read_again(folder: Path) -> tuple[Settings, Split[Any]]:
    """Return the settings of a finished run, and the images that it was fitted and scored on."""
    then = kept_settings(folder, "generate")
    return then, hold_out(image_reading.read(then.data, then, labels=then.labels), then)


def _apply(cfg: Settings) -> None:
    """Write generated images into a folder."""
    from cellflow.estimators import ImageGenerator

    image_runs.require(cfg, "out")
    if cfg.input is not None:
        image_runs.refuse_inside(cfg)
    folder = runs.existing_folder(cfg.model)
    model = load_run(ImageGenerator, folder, cfg)
    image_runs.check_fitted(cfg, shape=model.shape_, levels=model.levels_[0])
    solver = solver_of(cfg, default=SOLVER)
    asked = {"label": cfg.label, "condition": image_runs.one_condition(cfg), "guidance": cfg.guidance}
    how = {**asked, "solver": solver, "seed": cfg.seed}
    if cfg.input is None:
        image_runs.refuse_strength(cfg)
        once = (model.generate(n, **how) for n in [cfg.n])
        return image_runs.write_parts(once, image_runs.numbered(cfg.n), cfg.out, model.levels_[0])
    then, levels = kept_settings(folder, "generate"), model.levels_[0]
    images = image_reading.read_as_fitted(cfg, then, model.shape_, levels=levels, fields=False)
    strength = STRENGTH if cfg.strength is None else cfg.strength
    read = (images.read() if isinstance(images, ImageStream) else images for _ in range(1))  # not before `out` is free
    changed = (model.translate(some, strength=strength, **how) for some in read)
    return image_runs.write_parts(changed, images.names or image_runs.numbered(len(images)), cfg.out, model.levels_[0])


def write_report(folder: Path, model: "ImageGenerator", images: Split[Any], cfg: Settings) -> None:
    """Write the report of a run, as its settings say."""
    from cellflow.report import write_generation

    with locked(folder, wait=A_SAVE):
        write_generation(
            folder,
            model,
            images,
            title=folder.name,
            details=runs.details(folder) | image_reading.said(cfg),
            feature_network=cfg.feature_network,
            solver=solver_of(cfg, default=SOLVER),
        )
    log.info("open %s", folder / runs.REPORT)
