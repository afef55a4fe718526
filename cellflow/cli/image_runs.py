"""Runs on images: what translation and generation share, from reading a folder to writing one."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellflow.cli import runs, shared
from cellflow.cli.built import run_of
from cellflow.cli.image_reading import FORMER
from cellflow.cli.image_sizes import FIRST_LOOK
from cellflow.cli.settings import Settings, plain
from cellflow.errors import optional
from cellflow.estimators.latents import TRAIN
from cellflow.files import committed
from cellflow.images import ImageSet, ImageStream, Levels
from cellflow.images.tables import FILE
from cellflow.images.tiff import INSTALL, write_tiffs, written
from cellflow.report.grids import save_grid

if TYPE_CHECKING:
    import pandas as pd
    from lightning_fabric import Fabric

    from cellflow.estimators import DomainTranslator, ImageGenerator

log = logging.getLogger("cellflow")
PREVIEWS, TABLE = "previews", "table.csv"


def fit(
    folder: Path,
    cfg: Settings,
    command: str,
    model: Any,
    samples: Sequence[ImageSet | ImageStream],
    preview: Callable[[Any], list[Any]],
    fabric: "Fabric | None" = None,
) -> bool:
    """Fit a model and write its run folder; return whether this process continues with the report.

    Parameters
    ----------
    folder
        The folder of the run.
    cfg, command
        What was asked for.
    model
        The model: a translator or a generator.
    samples
        The data of the fit.
    preview
        Makes rows of images for a preview, with the current model.
    fabric
        The processes that train together; ``None`` for one.
    """
    import torch

    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    watch = runs.Stopwatch()

    def look(current: "DomainTranslator | ImageGenerator") -> None:
        current.history_.to_csv(folder / runs.HISTORY)
        save_grid(folder / PREVIEWS / f"step-{len(current.history_):07d}.png", preview(current))

    trained = cfg.autoencoder == TRAIN  # first, which takes a minute or two as well
    minutes = FIRST_LOOK / 2 if trained else FIRST_LOOK
    run = run_of(cfg, folder, fabric=fabric, watch=look, watch_every=cfg.preview, watch_first=minutes)
    log.info(
        "fitting %s images of %s: %d steps of %d; previews go to %s every %d steps, the first one %s",
        " and ".join(f"{len(some)}" for some in samples),
        " x ".join(map(str, samples[0].shape)),
        cfg.steps,
        cfg.batch_size,
        folder / PREVIEWS,
        cfg.preview,
        f"after at most {minutes:g} min" + " of the flow, once the autoencoder is trained" * trained,
    )
    with run.locked():
        if run.leads:
            runs.write_settings(folder, plain(cfg))
        model.fit(*samples, run=run)
        if not run.leads:
            return False
        model.save(folder, overwrite=cfg.resume)
        model.history_.to_csv(folder / runs.HISTORY)
        device = shared.device_of(model.field_, fabric)
        runs.write_facts(folder, command=command, seed=cfg.seed, device=device, seconds={"fit": watch.seconds()})
    log.info("fitted in %.1f s", watch.seconds())
    return True


def write(images: ImageSet, out: str | Path) -> None:
    """Write each image as a PNG under its name, or its number; see `write_parts`."""
    write_parts([images], images.names or numbered(len(images)), out, images.levels)


def numbered(n: int) -> list[str]:
    """Return names for images without one.

    Examples
    --------
    >>> numbered(10)[:2]
    ['00', '01']
    """
    return [f"{number:0{len(str(n))}d}" for number in range(n)]


def check_out(names: Sequence[str], out: str | Path, levels: Levels | None) -> list[Path]:
    """Return where images are written, without suffix, after checking that they can be.

    Raises
    ------
    FileExistsError
        When the folder is not empty.
    ValueError
        When two images would have the same name.
    MissingDependencyError
        When they are TIFF, and `tifffile` is not installed.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file. Choose a folder with `out=`.")
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty. Choose another folder with `out=`.")
    stems = [folder / Path(name).with_suffix("") for name in names]
    if twice := [path for path, count in Counter(stems).items() if count > 1]:
        raise ValueError(f"Two images would both be written to {twice[0]}. Rename one of them.")
    if levels is not None and written(levels):
        optional("tifffile", install=INSTALL)
    return stems


def write_parts(parts: Iterable[ImageSet], names: Sequence[str], out: str | Path, levels: Levels | None) -> None:
    """Write each image as a PNG under its name, one part after the other, and their tables as one.

    Parts that are made on demand are not started if they could not be written: see `check_out`.

    Microscope images, with more than 8 bits or their own channels, are written as OME-TIFF.

    Raises
    ------
    FileExistsError, MissingDependencyError
        As for `check_out`.
    ValueError
        When two images would have the same name, or are bytes that are neither grey nor coloured.
    """
    folder, stems = Path(out), check_out(names, out, levels)
    paths: list[Path] = []
    tables = []
    for images in parts:
        ending = ".png" if images.levels is None or not written(images.levels) else ".tif"
        new = [stem.with_name(stem.name + ending) for stem in stems[len(paths) : len(paths) + len(images)]]
        _write_each(images, new)
        paths += new
        tables += [] if images.obs is None else [images.obs]
    if tables:
        _write_table(tables, [path.relative_to(folder).as_posix() for path in paths], folder / TABLE)
    log.info("%d images: %s", len(paths), folder)


def _write_table(tables: Sequence["pd.DataFrame"], files: Sequence[str], path: Path) -> None:
    """Write what is known of images, with the names under which they were written."""
    import pandas as pd

    table = pd.concat(tables).drop(columns=FILE, errors="ignore")
    table.insert(0, FILE, list(files))
    with committed(path) as partial:
        table.to_csv(partial, index=False)


def check_fitted(cfg: Settings, *, shape: tuple[int, ...], levels: Levels | None) -> None:
    """Refuse settings for reading images that contradict the model.

    Raises
    ------
    ValueError
        Naming both.
    """
    size = [cfg.size] * 2 if isinstance(cfg.size, int) else cfg.size
    if size is not None and tuple(size) != shape[1:]:
        raise ValueError(
            f"The model makes only images of {shape[1]} x {shape[2]} pixels; found size={cfg.size}. "
            "Leave `size` out, or fit a model of that size."
        )
    if cfg.channels not in (None, shape[0]):
        raise ValueError(
            f"The model makes only images of {shape[0]} channel{'s' * (shape[0] != 1)}; found channels={cfg.channels}. "
            "Leave it out."
        )
    if cfg.percentiles is not None or cfg.white_level not in (None, FORMER["white_level"]):
        of = "come from the fit" if levels is not None else "are 0 and 255: the model was fitted on images of 8 bits"
        raise ValueError(f"Black and white levels {of}. Leave `white_level` and `percentiles` out.")


def refuse_inside(cfg: Settings) -> None:
    """Refuse an `out` inside the folder of the `input`, of which it would be a part the next time.

    Raises
    ------
    ValueError
        Then.
    """
    folder, out = Path(cfg.input), Path(cfg.out)
    whole = folder.resolve()
    if folder.is_dir() and out.resolve().is_relative_to(whole):
        raise ValueError(
            f"`out={out}` is inside `input={folder}`: what is written there would be read as its images the next time. "
            f"Choose a folder outside it, such as `out={whole.with_name(whole.name + '-made')}`."
        )


def refuse_strength(cfg: Settings) -> None:
    """Refuse a `strength` without images to change.

    Raises
    ------
    ValueError
        Then.
    """
    if cfg.strength is not None:
        raise ValueError(
            "`strength` applies to images that a fitted model changes. Give `model=` and `input=`, or leave it out."
        )


def refuse_overlap(cfg: Settings) -> None:
    """Refuse an `overlap` while a translation is fitted, whose tiles are those of `fit=tiles`.

    Raises
    ------
    ValueError
        Then.
    """
    if cfg.overlap is not None:
        raise ValueError(
            "`overlap` applies to fields that a fitted model translates. Give `model=` and `input=`, or leave it out: "
            "`fit=tiles` alone cuts the images of a fit into tiles."
        )


def one_condition(cfg: Settings) -> dict[str, str] | None:
    """Return the requested condition of the images.

    Raises
    ------
    ValueError
        When there are several.
    """
    asked: dict[str, str] | None = cfg.condition
    if isinstance(asked, list):
        raise ValueError(f"Expected one condition for the images, `condition.drug=A`; found a list of {len(asked)}.")
    return asked


def require(cfg: Settings, *names: str) -> None:
    """Raise if settings are missing that this use of a command needs."""
    missing = [name for name in names if cfg[name] is None]
    if missing:
        wanted = " ".join(f"{name}=..." for name in missing)
        raise ValueError(f"missing {wanted}. `--help` explains every setting.")


def _write_each(images: ImageSet, paths: Sequence[Path]) -> None:
    from PIL import Image

    levels = images.levels
    if levels is not None and written(levels):
        return write_tiffs(levels.numbers(images.scaled()), paths, channels=levels.channels)
    if images.shape[0] not in (1, 3):
        raise ValueError(f"Expected images with 1 or 3 channels to write as PNG; found {images.shape[0]}.")
    for path, image in zip(paths, images.bytes().permute(0, 2, 3, 1).cpu().numpy(), strict=True):
        with committed(path, durable=False) as partial:
            Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(partial)
    return None
