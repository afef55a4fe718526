"""Commands on two sets of images: fit a translation, and use it."""

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cellflow.cli import image_reading, image_runs, image_sizes, runs, shared
from cellflow.cli.beforehand import check_scores, check_solver
from cellflow.cli.built import conditions_of, load_run, settings_of, solver_of
from cellflow.cli.kept import kept_settings
from cellflow.cli.left_out import hold_out
from cellflow.cli.settings import Settings
from cellflow.cli.whole_fields import fields_of
from cellflow.datasets import cell_silhouettes
from cellflow.images import ImageSet, ImageStream, Levels, read_images
from cellflow.integrate import Fixed, Noisy
from cellflow.lock import A_SAVE, locked
from cellflow.report import Split
from cellflow.report.image_conditions import in_turn
from cellflow.seeds import draw_seed, generator_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lightning_fabric import Fabric

    from cellflow.estimators import DomainTranslator

log = logging.getLogger("cellflow")
SMOOTH = Fixed("midpoint", steps=20)
"""Solver of flows without noise."""
SHOWN = 12
"""Images in a row of a preview."""
AT_ONCE = 1000
"""Number of images to translate before they are written, if they are read from their files on demand."""


def translate(cfg: Settings) -> None:
    """Fit a translation from two folders, or translate a folder with a fitted one."""
    if cfg.model is not None:
        return _apply(cfg)
    image_runs.refuse_strength(cfg)
    image_runs.refuse_overlap(cfg)
    image_runs.require(cfg, "source", *(() if conditions_of(cfg) and cfg.table else ("target",)))
    fabric = shared.join(cfg)
    image_reading.as_begun(cfg)
    source, target = _both(cfg)
    image_sizes.settle(cfg, source.shape)
    for name in ("source", "target"):
        cfg[name] = None if cfg[name] is None else str(Path(cfg[name]).resolve())
    with shared.run_folder(cfg, "translate", fabric) as folder:
        _fit(folder, source, target, cfg, "translate", fabric)
    return None


def demo(cfg: Settings) -> None:
    """Translate untreated cells into treated ones, by their outlines."""
    fabric = shared.join(cfg)
    with shared.run_folder(cfg, "demo", fabric) as folder:
        _fit(folder, *_both(cfg), cfg, "demo task=translation", fabric)


def report(cfg: Settings) -> None:
    """Write the report of a fitted translation again."""
    from cellflow.estimators import DomainTranslator

    folder = runs.existing_folder(cfg.model)
    then, source, target = read_again(folder)
    write_report(folder, load_run(DomainTranslator, folder, cfg), source, target, then)


def read_again(folder: Path) -> tuple[Settings, Split[Any], Split[Any]]:
    """Return the settings of a finished run, and the images that it was fitted and scored on."""
    then = kept_settings(folder, "translate")
    source, target = (hold_out(images, then) for images in _both(then))
    return then, source, target


def _apply(cfg: Settings) -> None:
    """Write the translated images of a folder."""
    from cellflow.estimators import DomainTranslator

    image_runs.require(cfg, "input", "out")
    image_runs.refuse_inside(cfg)
    folder = runs.existing_folder(cfg.model)
    then = kept_settings(folder, "translate")
    model = load_run(DomainTranslator, folder, cfg)
    levels, returned = (model.levels_[k] for k in ((1, 0) if cfg.reverse else (0, 1)))
    image_runs.check_fitted(cfg, shape=model.shape_, levels=levels)
    if cfg.strength is not None and not model.stochastic:
        raise ValueError(
            "`strength` needs a bridge with noise, and this flow has none: it could not discard anything. Fit one with "
            "`path=brownian_bridge stochastic=true`, or change images with `cellflow generate model=... input=...`."
        )
    if cfg.overlap is not None:
        then = image_reading.as_fitted(cfg, then, model.shape_)
        return image_runs.write_parts(*_fields(model, then, levels, cfg), cfg.out, returned)
    _check_taken(_solver(model, cfg), cfg)
    smooth = not cfg.stochastic and cfg.strength is None and not isinstance(solver_of(cfg, default=SMOOTH), Noisy)
    images = image_reading.read_as_fitted(cfg, then, model.shape_, levels=levels, fields=smooth)
    names = images.names or image_runs.numbered(len(images))
    if isinstance(images, ImageSet):
        once = (_carried(model, some, cfg, seed=cfg.seed) for some in [images])
        return image_runs.write_parts(once, names, cfg.out, returned)
    return image_runs.write_parts(_in_parts(model, images, cfg), names, cfg.out, returned)


def _carried(model: "DomainTranslator", images: ImageSet | ImageStream, cfg: Settings, *, seed: int) -> ImageSet:
    """Translate images, with noise or without."""
    return _way(model, cfg, seed=seed)(images, reverse=cfg.reverse, condition=image_runs.one_condition(cfg))


def _fields(
    model: "DomainTranslator", then: Settings, levels: Levels | None, cfg: Settings
) -> "tuple[Iterator[ImageSet], tuple[str, ...]]":
    """Return large fields of any sizes, translated by tiles one after the other, and their names."""
    from cellflow.estimators.conditional_verbs import asked, own

    if cfg.stochastic:
        raise ValueError("`overlap` cuts fields into tiles, whose noise would differ. Leave `stochastic=true` out.")
    if cfg.fit != "crop":
        raise ValueError(f"`overlap` carries whole fields of any size. Leave `fit={cfg.fit}` out, or `overlap`.")
    if not cfg.overlap < min(model.shape_[1:]):
        raise ValueError(
            f"Expected an `overlap` below the side of a tile, {min(model.shape_[1:])}; found {cfg.overlap}."
        )
    solver = solver_of(cfg, default=SMOOTH)
    if isinstance(solver, Noisy):
        raise ValueError("`overlap` cuts fields into tiles, whose noise would differ. Leave `solver=noisy` out.")
    _check_taken(solver, cfg)
    how = {"reverse": cfg.reverse, "guidance": cfg.guidance, "solver": solver, "overlap": cfg.overlap}
    fields, condition = fields_of(cfg, then, levels), image_runs.one_condition(cfg)
    # All conditions at once: a wrong one in the middle would be found after fields before it were written.
    own(model, fields.obs) if condition is None else asked(model, condition, len(fields.names), obs=fields.obs)
    return (model.translate(field, condition=condition, **how) for field in fields.each), fields.names


def _in_parts(model: "DomainTranslator", images: ImageStream, cfg: Settings) -> "Iterator[ImageSet]":
    """Yield translated images, some at a time, so that neither they nor their originals fill the memory."""
    for number, rows in enumerate(torch.arange(len(images)).split(AT_ONCE)):
        yield _carried(model, images.take(rows), cfg, seed=draw_seed(generator_at(cfg.seed, number)))


def _fit(
    folder: Path,
    source: ImageSet | ImageStream,
    target: ImageSet | ImageStream,
    cfg: Settings,
    command: str,
    fabric: "Fabric | None",
) -> None:
    from cellflow.estimators import DomainTranslator
    from cellflow.estimators.conditional_verbs import check_strength

    splits = [hold_out(images, cfg) for images in (source, target)]
    others = {"conditions": conditions_of(cfg)} if "conditions" in cfg else {}
    model = DomainTranslator(**settings_of(DomainTranslator, cfg, **others))
    few = splits[0].held_out.take(range(min(SHOWN, len(splits[0].held_out))))
    shown = few.read() if isinstance(few, ImageStream) else few
    check_solver(cfg, noisy=cfg.stochastic)
    _check_taken(_solver(model, cfg), cfg)
    check_strength(cfg.get("guidance", 1.0), dropped=model.conditions is not None and model.condition_dropout > 0)
    check_scores(shown.scaled(), cfg.feature_network, cfg.target_class)

    def preview(current: DomainTranslator) -> list[Any]:
        carry = _way(current, cfg, seed=0)
        return [shown.bytes(), carry(shown, **in_turn(current, splits[1].held_out, len(shown))).bytes()]

    if image_runs.fit(folder, cfg, command, model, [split.fitted for split in splits], preview, fabric):
        write_report(folder, model, splits[0], splits[1], cfg)


def write_report(
    folder: Path, model: "DomainTranslator", source: Split[Any], target: Split[Any], cfg: Settings
) -> None:
    """Write the report of a run, as its settings say."""
    from cellflow.report import write_translation

    with locked(folder, wait=A_SAVE):
        write_translation(
            folder,
            model,
            source,
            target,
            title=folder.name,
            details=runs.details(folder) | image_reading.said(cfg),
            feature_network=cfg.feature_network,
            target_class=cfg.target_class,
            solver=_solver(model, cfg),
            reading=image_reading.reading(cfg),
        )
    log.info("open %s", folder / runs.REPORT)


def _way(model: "DomainTranslator", cfg: Settings, *, seed: int) -> "Callable[..., ImageSet]":
    """Return how images are translated."""
    solver, strength = _solver(model, cfg), cfg.get("strength")
    if isinstance(solver, Noisy):
        return partial(model.simulate, solver=solver, seed=seed, strength=1.0 if strength is None else strength)
    return partial(model.translate, solver=solver, guidance=cfg.get("guidance", 1.0))


def _check_taken(solver: Any, cfg: Settings) -> None:
    """Refuse settings that a solver does not take."""
    strength, guidance = cfg.get("strength"), cfg.get("guidance", 1.0)
    if isinstance(solver, Noisy) and guidance != 1:
        raise ValueError(f"`guidance` is for flows without noise; found {guidance}. Set `solver=fixed`, too.")
    if strength is not None and not isinstance(solver, Noisy):
        raise ValueError(
            f"`strength` needs noise; found {strength}. It is for bridges (`stochastic=true`), without `overlap` and "
            "without `solver=fixed`."
        )


def _solver(model: "DomainTranslator", cfg: Settings) -> Any:
    """Return the solver of the settings; where they name none, with noise if a score was learned."""
    return solver_of(cfg, default=Noisy(20) if model.stochastic else SMOOTH)


def _both(cfg: Settings) -> tuple[ImageSet | ImageStream, ImageSet | ImageStream]:
    """Return the source and the target images: those of the demo, or those that the settings name."""
    if cfg.get("task") == "translation":
        cells = cell_silhouettes()
        return read_images(cells.only("control"), size=cfg.size), read_images(cells.only("cytd"), size=cfg.size)
    labels = "folder" if cfg.within_labels else None
    if cfg.target is None:
        return _by_control(image_reading.read(cfg.source, cfg, labels=labels), cfg)
    return image_reading.read(cfg.source, cfg, labels=labels), image_reading.read(cfg.target, cfg, labels=labels)


def _by_control(images: ImageSet | ImageStream, cfg: Settings) -> tuple[ImageSet | ImageStream, ImageSet | ImageStream]:
    """Return the controls among images, and the others.

    Raises
    ------
    ValueError
        When there are none of either.
    """
    from cellflow.estimators.conditional_groups import table_of

    conditions, obs = conditions_of(cfg), table_of(images, what="`source`")
    if conditions is None:
        raise ValueError("missing target=..., or the columns that mark images of `source` as controls.")
    known = conditions.fit(obs)
    found = known.read(obs)
    known.require_control(found)
    control = torch.from_numpy(found.is_control[found.index])
    if bool(control.all()):
        raise ValueError("All images are controls: there is no treatment to learn. Check the table.")
    return images.take(control), images.take(~control)
