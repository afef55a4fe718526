"""Runs on images: what translation and generation share, from reading a folder to writing one."""

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellflow.cli import runs, shared
from cellflow.cli.built import run_of
from cellflow.cli.image_sizes import FIRST_LOOK
from cellflow.cli.settings import Settings, plain
from cellflow.errors import optional
from cellflow.estimators.latents import TRAIN
from cellflow.files import committed
from cellflow.images import ImageSet, ImageStream, Levels, read_images, stream_images
from cellflow.images.files import ENDINGS, tried
from cellflow.images.levels import check_range
from cellflow.images.pixels import Conversion
from cellflow.images.reading import ZARR
from cellflow.images.tables import FILE
from cellflow.images.tiff import INSTALL, write_tiffs, written
from cellflow.report.grids import save_grid
from cellflow.training.search import begun

if TYPE_CHECKING:
    import pandas as pd
    from lightning_fabric import Fabric

    from cellflow.estimators import DomainTranslator, ImageGenerator

log = logging.getLogger("cellflow")
PREVIEWS, TABLE = "previews", "table.csv"
SINCE = ("max_pixels", "table", "file_column", "white_level", "background", "fit", "pages", "percentiles")
"""Settings of reading that the first version did not have."""
FORMER = {"white_level": 65535, "background": 255}
"""Defaults of reading in version 0.2.0, which are now null."""
WHITE = FORMER["white_level"]
"""What `white_level` was in earlier versions where nothing was said."""


def as_begun(cfg: Settings) -> None:
    """Give a run that goes on the defaults that it was begun with, where these were others in an earlier version.

    Raises
    ------
    ValueError
        When a new run is told twice what is white.
    """
    if not (cfg.resume and cfg.out is not None and begun(Path(cfg.out))):
        return check_range(cfg.white_level, percentiles=cfg.percentiles)
    then = runs.read_settings(Path(cfg.out))
    for name, value in FORMER.items():
        if cfg[name] is None and then.get(name) == value:
            cfg[name] = value
    return None


def read(
    path: str, cfg: Settings, *, labels: str | None = None, levels: Levels | None = None
) -> ImageSet | ImageStream:
    """Read a folder or a file of images by the settings, or list them, to be read on demand.

    With ``levels``, those of a model, the settings of black and white are ignored.
    """
    size = tuple(cfg.size) if isinstance(cfg.size, list) else cfg.size
    found = stream_images if cfg.stream else read_images
    # Runs of earlier versions lack some settings.
    known = {name: cfg[name] for name in SINCE if name in cfg}
    percentiles, white = known.pop("percentiles", None), known.pop("white_level", None)
    if percentiles is not None and levels is None:
        known["percentiles"] = tuple(percentiles)  # runs of earlier versions may have a white beside it, to no effect
    elif levels is None:
        known["white_level"] = white
    return found(
        path,
        size=size,
        channels=cfg.channels,
        labels=labels,
        skip_unreadable=cfg.skip_unreadable,
        levels=levels,
        **known,
    )


def reading(cfg: Settings) -> dict[str, Any]:
    """Return how images are read by the settings, as far as these say more than the defaults."""
    known = {name: cfg.get(name) for name in ("size", "channels", *SINCE) if name not in ("max_pixels", "file_column")}
    return {name: value for name, value in known.items() if value not in (None, FORMER.get(name), "crop")}


def said(cfg: Settings) -> dict[str, str]:
    """Return how images were read, for a report; nothing where that was by the defaults.

    Examples
    --------
    >>> said(Settings({"size": 64, "fit": "tiles", "percentiles": [0.1, 99.9], "white_level": None}))
    {'images read with': 'size=64 fit=tiles percentiles=[0.1,99.9]'}
    """
    words = [f"{name}={str(value).replace(' ', '')}" for name, value in reading(cfg).items()]
    return {"images read with": " ".join(words)} if words else {}


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
    if cfg.percentiles is not None or cfg.white_level not in (None, WHITE):
        of = "come from the fit" if levels is not None else "are 0 and 255: the model was fitted on images of 8 bits"
        raise ValueError(f"Black and white levels {of}. Leave `white_level` and `percentiles` out.")


def as_fitted(cfg: Settings, then: Settings, shape: tuple[int, ...]) -> Settings:
    """Return the settings for reading images for a fitted model: those of its run, except for how files are read.

    Parameters
    ----------
    cfg
        The present settings.
    then
        The settings of the run, which are changed.
    shape
        Channels, height and width of the images of the fit.
    """
    then.size, then.channels = list(shape[1:]), shape[0]
    for name in ("skip_unreadable", "stream", "max_pixels", "table", "file_column", "pages", "fit"):
        then[name] = cfg[name]
    if cfg.background is not None:
        then.background = cfg.background
    return then


def read_as_fitted(
    cfg: Settings, then: Settings, shape: tuple[int, ...], *, levels: Levels | None, fields: bool
) -> ImageSet | ImageStream:
    """Read the `input` for a fitted model, in the size of its images; say so where cells change their size by that.

    Parameters
    ----------
    cfg, then
        The present settings, and those of the run, which are changed: see `as_fitted`.
    shape
        Channels, height and width of the images of the fit.
    levels
        The levels of the fit.
    fields
        Whether the command can carry whole fields by tiles.

    Raises
    ------
    ValueError
        When images of another size are given to a model of tiles, which were not scaled. Where the images of the fit
        were as they are in their files, the log has a warning.
    """
    tiles, own = then.get("fit") == "tiles", then.size is None
    asked = cfg.size is not None or cfg.fit == "tiles" or (cfg.fit == "pad" and not tiles)
    then = as_fitted(cfg, then, shape)
    if tiles and not asked:
        then.size = None
    images = read(cfg.input, then, levels=levels)
    if asked or not (tiles or own):
        return images
    name, found = (cfg.input, tuple(images.shape[1:])) if tiles else _first(Path(cfg.input), images, then, levels)
    if found in (None, tuple(shape[1:])):
        return images
    side = shape[1] if shape[1] == shape[2] else f"[{shape[1]},{shape[2]}]"
    several = f"`overlap={max(min(shape[1:]) // 4, 1)}` to carry whole fields in tiles, " if fields else ""
    said = (
        f"{name}: {' x '.join(map(str, found))} pixels, and the model was fitted on images of {shape[1]} x {shape[2]} "
        "that were not scaled: cells have another size for it if images are scaled. Set "
        f"{several}`fit=tiles` to cut them into tiles, or `size={side}` to scale them."
    )
    if tiles:
        raise ValueError(said)
    log.warning(said)
    return images


def _first(
    path: Path, images: ImageSet | ImageStream, then: Settings, levels: Levels | None
) -> tuple[str, tuple[int, int] | None]:
    """Return the name of the first of the images that were read, and its height and width in the file.

    These are ``None`` if it cannot be read alone, as of tables without names.
    """
    whole = path.is_file() or path.suffix == ZARR
    first = path if whole or not images.names else path / images.names[0]
    if first.suffix.lower() in ENDINGS:
        sizes: list[tuple[int, int]] = []
        tried(first, Conversion(size=tuple(then.size), max_pixels=then.max_pixels, pages=then.pages), sizes=sizes)
        return first.name, sizes[0] if sizes else None
    if not whole:
        return first.name, None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what there is to warn of was said when it was read for the model
        height, width = read(str(first), Settings({**then, "size": None, "table": None}), levels=levels).shape[1:]
    return first.name, (height, width)


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
