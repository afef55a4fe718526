"""How the files of a run's images are read: by its settings, or as those of a fitted model were."""

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from cellflow.cli import runs
from cellflow.cli.settings import Settings
from cellflow.estimators.pixel_levels import not_bytes
from cellflow.images import ImageSet, ImageStream, Levels, read_images, stream_images
from cellflow.images.arrays import read_arrays
from cellflow.images.files import ENDINGS, tried
from cellflow.images.levels import check_range
from cellflow.images.limits import UnreadableImageError
from cellflow.images.numbers import Numbers
from cellflow.images.pixels import FORMER as FORMER_BACKGROUND
from cellflow.images.pixels import WHITE, Conversion
from cellflow.images.reading import is_array
from cellflow.images.tables import pictures_of
from cellflow.images.tiles import SmallFieldError
from cellflow.training.search import begun

log = logging.getLogger("cellflow")
SINCE = ("max_pixels", "table", "file_column", "white_level", "background", "fit", "pages", "percentiles")
"""Settings of reading that the first version did not have."""
FORMER = {"white_level": 65535, "background": FORMER_BACKGROUND}
"""Defaults of reading in version 0.2.0, which are now null."""


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
    if cfg.background == WHITE and then.get("background") == FORMER["background"]:  # how that version wrote it
        cfg.background = FORMER["background"]
    if cfg.get("heads") == "auto" and then.get("heads") == "shared":
        cfg.heads = "shared"  # the default of version 0.2.0
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


def read_known(path: str, then: Settings, *, levels: Levels | None) -> ImageSet | ImageStream:
    """Read images for a fitted model, as `read` does.

    Raises
    ------
    ValueError
        When the model was fitted on bytes, and these have more bits: before they are asked for a range, which the model
        would refuse.
    """
    kind = None if levels is not None else _more_than_bytes(Path(path), then)
    if kind is not None:
        raise ValueError(not_bytes(kind))
    return read(path, then, levels=levels)


def _more_than_bytes(path: Path, then: Settings) -> str | None:
    """Return the kind of numbers of an array, or of the first picture that can be read; ``None`` of bytes."""
    if not path.exists():
        return None  # its reader says so
    if is_array(path):
        array, _ = read_arrays(path)
        if array.dtype.kind == "f":  # from 0 to 1 they are taken for bytes
            return str(array.dtype) if ((array < 0) | (array > 1)).any() else None
        return None if array.dtype in (np.uint8, np.bool_) else str(array.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the reader warns
        paths = [path] if path.is_file() else pictures_of(path, then.table, then.file_column)[0]
    size = None if then.size is None else tuple(then.size)
    how = Conversion(size=size, max_pixels=then.max_pixels, pages=then.pages)
    found = (tried(path, how) for path in paths)
    first = next((image for image in found if not isinstance(image, UnreadableImageError)), None)
    return first.kind if isinstance(first, Numbers) and first.kind != "uint8" else None


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
    side = shape[1] if shape[1] == shape[2] else f"[{shape[1]},{shape[2]}]"
    overlap = f"`overlap={max(min(shape[1:]) // 4, 1)}`"
    try:
        images = read_known(cfg.input, then, levels=levels)
    except SmallFieldError as error:  # the tiles of a fitted model cannot be smaller, and padding would scale
        several = f"{overlap}, which extends fields at their border, or " if fields else ""
        raise ValueError(
            f"{error.found} Leave `fit=tiles` out and set {several}`size={side}`, which scales them."
        ) from None
    if asked or not (tiles or own):
        return images
    name, found = (cfg.input, tuple(images.shape[1:])) if tiles else _first(Path(cfg.input), images, then, levels)
    if found in (None, tuple(shape[1:])):
        return images
    large = found[0] >= shape[1] and found[1] >= shape[2]
    ways = [f"{overlap} to carry whole fields in tiles"] * fields + ["`fit=tiles` to cut them into tiles"] * large
    said = (
        f"{name}: {' x '.join(map(str, found))} pixels, and the model was fitted on images of {shape[1]} x {shape[2]} "
        "that were not scaled: cells have another size for it if images are scaled. Set "
        f"{', or '.join([', '.join(ways)] * bool(ways) + [f'`size={side}` to scale them'])}."
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
    whole = path.is_file() or is_array(path)
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
