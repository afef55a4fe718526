"""TIFF files of microscopes: any depth, channels that have names, pages."""

import math
import re
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import numpy as np
import torch

from cellflow.errors import optional, unknown
from cellflow.files import committed
from cellflow.images.levels import Levels
from cellflow.images.limits import MAX_PIXELS, PixelBudget, UnreadableImageError
from cellflow.images.numbers import Numbers

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPageSeries

ENDINGS = frozenset({".tif", ".tiff"})
INSTALL = "pip install 'cellflow-torch[microscopy]'"
PAGES = ("channels", "max")
"""What several pages can be taken for: channels, or planes of which the brightest pixel counts."""
_TO_KIND = {"b": "uint8", "u1": "uint8", "u2": "uint16"}
_DAMAGES = (ValueError, OSError, KeyError, IndexError, TypeError, MemoryError, struct.error, zlib.error)
"""What reading bytes that make no sense can raise."""
_MOST_METADATA = 2**24  # bytes of a description that is parsed


def is_ours(path: Path) -> bool:
    """Whether a file is read here: a TIFF that is no picture of bytes, grey or in colour, as photographs are."""
    if path.suffix.lower() not in ENDINGS:
        return False
    tifffile = optional("tifffile", install=INSTALL)
    try:
        with tifffile.TiffFile(path) as file:
            if not file.series:
                return False
            series = file.series[0]
            axes, _ = _used(series)
            return len(file.series) > 1 or np.dtype(series.dtype).str[1:] != "u1" or axes not in ("YX", "YXS", "SYX")
    except (tifffile.TiffFileError, *_DAMAGES):
        return False  # damaged: the reader of photographs says so


def read_tiff(
    path: Path, pages: str | None = None, max_pixels: int = MAX_PIXELS, budget: PixelBudget | None = None
) -> Numbers:
    """Return the numbers of a TIFF file, ``(c, h, w)``.

    Parameters
    ----------
    path
        The file: 8, 12, 16 or 32 bits, or floats; OME-TIFF and what ImageJ writes among others.
    pages
        What planes are that the file does not call channels, such as those of a stack: ``"channels"``, or ``"max"`` for
        their brightest pixels; ``None`` to refuse them.
    max_pixels
        Most pixels of a plane.
    budget
        As for `cellflow.images.files.decode`.

    Raises
    ------
    UnreadableImageError
        When it is damaged, has more pixels, numbers that are no intensities, or is packed in a way that needs
        `imagecodecs`.
    ValueError
        When it holds several images, or planes of which nothing is said.
    """
    if pages is not None and pages not in PAGES:
        raise ValueError(unknown("way to read pages", pages, PAGES))
    tifffile = optional("tifffile", install=INSTALL)
    try:
        with tifffile.TiffFile(path) as file:
            several, (axes, shape) = len(file.series), _used(file.series[0])
            plane = shape[axes.index("Y")] * shape[axes.index("X")] if {"Y", "X"} <= set(axes) else 0
            if not 0 < plane <= max_pixels:
                raise ValueError(f"it claims planes of {plane} pixels; set `max_pixels={plane}` where that is meant")
            names = _channel_names(file)
            with (budget or PixelBudget()).hold(math.prod(shape)):
                values = _intensities(file.series[0].asarray().reshape(shape))
    except (tifffile.TiffFileError, *_DAMAGES) as error:
        raise UnreadableImageError(f"{path} ({error})") from error
    if several > 1:
        raise ValueError(f"Expected one image per file; {path} holds {several}. Write each to a file of its own.")
    channels = _channels_first(values, axes, pages, path)
    known = names if names is not None and len(names) == len(channels) else None
    kind = _TO_KIND.get(values.dtype.str[1:], _TO_KIND.get(values.dtype.kind, "float32"))
    return Numbers(torch.from_numpy(np.ascontiguousarray(channels, dtype=np.float32)), kind, known)


def write_tiffs(values: np.ndarray, paths: Sequence[Path], *, channels: tuple[str, ...] | None = None) -> None:
    """Write each image ``(c, h, w)`` as OME-TIFF, in the numbers that it has, with the names of its channels.

    Each file appears whole or not at all.
    """
    tifffile = optional("tifffile", install=INSTALL)
    about: dict[str, Any] = {"axes": "CYX"} | ({} if channels is None else {"Channel": {"Name": list(channels)}})
    for image, path in zip(values, paths, strict=True):
        with committed(path, durable=False) as partial:
            tifffile.imwrite(partial, image, ome=True, photometric="minisblack", metadata=about)


def written(levels: Levels) -> bool:
    """Whether images of such levels are TIFF files, and not PNG: they have more than bytes, or channels of their own.

    Examples
    --------
    >>> written(Levels((0.0,), (255.0,), "uint8")), written(Levels((0.0,), (4095.0,), "uint16"))
    (False, True)
    """
    return not (levels.kind == "uint8" and len(levels.low) in (1, 3) and levels.channels is None)


def _used(series: "TiffPageSeries") -> tuple[str, tuple[int, ...]]:
    """Return the axes that are longer than 1, and Y and X, with their lengths."""
    kept = [(axis, n) for axis, n in zip(series.axes, series.shape, strict=True) if n > 1 or axis in "YX"]
    return "".join(axis for axis, _ in kept), tuple(n for _, n in kept)


def _intensities(values: np.ndarray) -> np.ndarray:
    """Return numbers that can be told in single precision.

    Raises
    ------
    ValueError
        For complex and other numbers, and floats that are not finite.
    """
    if values.dtype.kind not in "buif":
        raise ValueError(f"it holds {values.dtype}, which is no intensity")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise ValueError(f"{bad} of {values.size} pixels are NaN or infinite; mend them, or leave the file out")
    return values


def _channels_first(values: np.ndarray, axes: str, pages: str | None, path: Path) -> np.ndarray:
    """Return planes ``(c, h, w)``."""
    planes = [axis for axis in axes if axis not in "YXCS"]
    if planes:
        found = ", ".join(f"{values.shape[axes.index(axis)]} along {axis}" for axis in planes)
        if pages is None or (pages == "channels" and (len(planes) > 1 or {"C", "S"} & set(axes))):
            raise ValueError(
                f'Expected one image with its channels in {path}; found more planes ({found}). Set `pages="max"` for '
                'the brightest pixel of a stack, `pages="channels"` where the planes of one axis are channels, or '
                "write each plane to a file of its own."
            )
        if pages == "max":
            values = values.max(axis=tuple(axes.index(axis) for axis in planes))
            axes = "".join(axis for axis in axes if axis not in planes)
        else:
            axes = axes.replace(planes[0], "C")
    if {"C", "S"} <= set(axes):
        raise ValueError(f"Expected channels, or colours, in {path}; found both (axes {axes}).")
    axes = axes.replace("S", "C")
    if "C" not in axes:
        values, axes = values[None], "C" + axes
    return np.transpose(values, [axes.index(axis) for axis in "CYX"])


def _channel_names(file: "TiffFile") -> tuple[str, ...] | None:
    """Return the names of the channels that the file tells, in OME's or ImageJ's way."""
    if file.ome_metadata and len(file.ome_metadata) <= _MOST_METADATA and "<!ENTITY" not in file.ome_metadata:
        root = ET.fromstring(file.ome_metadata)
        names = [element.get("Name") for element in root.iter() if re.fullmatch(r"(\{.*\})?Channel", element.tag)]
        if names and all(names):
            return tuple(str(name) for name in names)
    labels = (file.imagej_metadata or {}).get("Labels")
    return tuple(map(str, labels)) if isinstance(labels, list | tuple) and labels else None
