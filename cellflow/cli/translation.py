"""Commands on two sets of images: fit a translation, and use it."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from cellflow import runs
from cellflow.cli import image_runs
from cellflow.cli.settings import new_folder
from cellflow.report import Held

if TYPE_CHECKING:
    from collections.abc import Callable

    from cellflow.data import ImageSet
    from cellflow.estimators import DomainTranslator

log = logging.getLogger("cellflow")
SHOWN = 12
"""Images in a row of a preview."""


def translate(cfg: DictConfig) -> None:
    """Fit a translation from two folders, or translate a folder with a fitted one."""
    if cfg.model is not None:
        return _apply(cfg)
    image_runs.require(cfg, "source", "target")
    labels = "folder" if cfg.within_labels else None
    source, target = (image_runs.read(path, cfg, labels=labels) for path in (cfg.source, cfg.target))
    for name in ("source", "target"):
        cfg[name] = str(Path(cfg[name]).resolve())
    _fit(new_folder(cfg, "translate"), source, target, cfg, "translate")
    return None


def demo(cfg: DictConfig) -> None:
    """Translate untreated cells into treated ones, by their outlines."""
    folder = new_folder(cfg, "demo")
    _fit(folder, *_demo_images(cfg), cfg, "demo task=translation")


def report(cfg: DictConfig) -> None:
    """Write the report of a fitted translation again."""
    from cellflow.estimators import DomainTranslator

    folder = runs.existing_folder(cfg.model)
    then, source, target = read_again(folder)
    write_report(folder, DomainTranslator.load(folder), source, target, then)


def read_again(folder: Path) -> tuple[DictConfig, Held, Held]:
    """Return the settings of a finished run, and the images that it was fitted and scored on."""
    then = OmegaConf.create(runs.read_settings(folder))
    if then.get("task") == "translation":
        source, target = _demo_images(then)
    else:
        labels = "folder" if then.within_labels else None
        source, target = (image_runs.read(path, then, labels=labels) for path in (then.source, then.target))
    return then, image_runs.hold_out(source, then), image_runs.hold_out(target, then)


def _apply(cfg: DictConfig) -> None:
    """Write the translated images of a folder."""
    from cellflow.estimators import DomainTranslator

    image_runs.require(cfg, "input", "out")
    folder = runs.existing_folder(cfg.model)
    then = OmegaConf.create(runs.read_settings(folder))
    model = DomainTranslator.load(folder, device=cfg.device)
    then.size, then.channels = list(model.shape_[1:]), model.shape_[0]
    then.skip_unreadable = cfg.skip_unreadable
    images = image_runs.read(cfg.input, then)
    if cfg.jumps is not None:
        found = model.translate(images, reverse=cfg.reverse, jumps=cfg.jumps)
    else:
        found = _way(model, cfg)(images, reverse=cfg.reverse, steps=cfg.sampling_steps)
    image_runs.write(found, cfg.out)


def _fit(folder: Path, source: "ImageSet", target: "ImageSet", cfg: DictConfig, command: str) -> None:
    from cellflow.estimators import DomainTranslator

    held = [image_runs.hold_out(images, cfg) for images in (source, target)]
    model = DomainTranslator(
        **image_runs.settings(cfg),
        score=cfg.score,
        features=cfg.features,
        within_labels=cfg.within_labels,
        ot_batch_size=cfg.ot_batch_size,
    )
    shown = held[0].unseen.take(range(min(SHOWN, len(held[0].unseen))))

    def run(**training: object) -> None:
        model.fit(held[0].seen, held[1].seen, **training)  # type: ignore[arg-type]

    def preview() -> list:
        carry = _way(model, cfg)
        return [shown.images, carry(shown, steps=cfg.sampling_steps).images]

    if image_runs.fit(folder, cfg, command, model, run, preview):
        write_report(folder, model, held[0], held[1], cfg)


def write_report(folder: Path, model: "DomainTranslator", source: Held, target: Held, cfg: DictConfig) -> None:
    """Write the report of a run, as its settings say."""
    from cellflow.report import write_translation

    write_translation(
        folder,
        model,
        source,
        target,
        title=folder.name,
        details=runs.details(folder),
        judge=cfg.judge,
        target_class=cfg.target_class,
        steps=cfg.sampling_steps,
        noise=cfg.noise,
    )
    log.info("open %s", folder / runs.REPORT)


def _way(model: "DomainTranslator", cfg: DictConfig) -> "Callable[..., ImageSet]":
    """Return how images are translated: with noise where that was learned and is wanted."""
    return model.simulate if model.score is not None and cfg.noise else model.translate


def _demo_images(cfg: DictConfig) -> "tuple[ImageSet, ImageSet]":
    from cellflow.data import read_images
    from cellflow.datasets import cell_silhouettes

    cells = cell_silhouettes()
    source, target = (read_images(cells.only(name), size=cfg.size) for name in ("control", "cytd"))
    return source, target
