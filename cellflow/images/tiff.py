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

from cellflow.errors import optional
from cellflow.files import committed
from cellflow.images.levels import Levels
from cellflow.images.limits import PixelBudget, UnreadableImageError
from cellflow.images.numbers import LUMA, SIGNED, Numbers
from cellflow.images.reducing import block_means
from cellflow.machine import usable_memory

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPageSeries

    from cellflow.images.pixels import Conversion

ENDINGS = frozenset({".tif", ".tiff"})
INSTALL = "pip install 'cellflow-torch[microscopy]'"
PAGES = ("channels", "max")
"""What several pages can be taken for: channels, or planes of which the brightest pixel counts."""
_TO_KIND = {"u1": "uint8", "u2": "uint16", "i1": SIGNED, "i2": SIGNED}
"""What numbers are counted as; others as floats."""
_DAMAGES = (ValueError, OSError, KeyError, IndexError, TypeError, MemoryError, struct.error, zlib.error)
"""What reading bytes that make no sense can raise."""
# As TIFF counts them: the way that brightness runs, extra samples that are alpha.
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _ALPHA = 0, 1, 2, (1, 2)
_MOST_METADATA = 2**24  # bytes of a description that is parsed


class PackedError(UnreadableImageError):
    """A file whose packing needs `imagecodecs`."""


def is_ours(path: Path, channels: int | None = None) -> bool:
    """Whether a file is read here: a TIFF that is not an image of bytes or bits, as photographs and masks are.

    Parameters
    ----------
    path
        The file.
    channels
        How many are asked for: colours with others beside them, which are not transparency, are read here if all are.
    """
    if path.suffix.lower() not in ENDINGS:
        return False
    tifffile = optional("tifffile", install=INSTALL)
    try:
        with _opened(path) as file:
            if not file.series:
                return False
            series = file.series[0]
            axes, _ = _used(series)
            bytes_or_bits = np.dtype(series.dtype).str[1:] in ("u1", "b1")
            if len(file.series) > 1 or not bytes_or_bits or axes not in ("YX", "YXS", "SYX"):
                return True
            page = series.keyframe
            samples = page.samplesperpixel if "S" in axes and not set(page.extrasamples) & set(_ALPHA) else 1
            grey = page.photometric == _BLACK_IS_ZERO  # its samples are channels, unless the last is transparency
            return samples > 1 and (grey or (page.photometric == _RGB and samples == channels != len(LUMA)))
    except (tifffile.TiffFileError, *_DAMAGES):
        return False  # damaged: the reader of photographs says so


def read_tiff(path: Path, conversion: "Conversion", budget: PixelBudget | None = None) -> Numbers:
    """Return the numbers of a TIFF file, ``(c, h, w)``. Its planes are checked before they are read.

    Parameters
    ----------
    path
        The file: 8, 12, 16 or 32 bits, or floats; including OME-TIFF and files from ImageJ.
    conversion
        What planes are that the file does not call channels, such as those of a stack (``pages``); how many pixels a
        plane may have, and how many times smaller a larger one is made.
    budget
        As for `cellflow.images.files.decode`.

    Raises
    ------
    UnreadableImageError
        When it is damaged, has more pixels, numbers that are not intensities, or a compression that needs
        `imagecodecs`.
    ValueError
        When it holds several images, or planes whose meaning is unknown.
    """
    tifffile = optional("tifffile", install=INSTALL)
    refused, pages = None, conversion.pages
    try:
        with _opened(path) as file:
            axes, shape = _used(file.series[0])
            refused = _refused(len(file.series), axes, shape, pages, path)
            if refused is None:
                factor = _reduction(axes, shape, conversion)
                _require_planes(file.series[0], shape)
                names = _channel_names(file)
                with (budget or PixelBudget()).hold(math.prod(shape)):
                    values, axes = _opaque(_intensities(_values(file.series[0]).reshape(shape)), axes, file.series[0])
                    channels = block_means(_channels_first(values, axes, pages), factor)
    except (tifffile.TiffFileError, *_DAMAGES) as error:
        if "imagecodecs" in str(error):
            raise PackedError(f"{path} (its compression needs `pip install imagecodecs`)") from error
        raise UnreadableImageError(f"{path} ({error})") from error
    if refused is not None:
        raise ValueError(refused)
    known = names if names is not None and len(names) == len(channels) else None
    kind = _TO_KIND.get(values.dtype.str[1:], "float32")
    return Numbers(channels, kind, known, colours="S" in axes and len(channels) == len(LUMA))


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
    """Whether images with these levels are written as TIFF, not PNG: they have more than 8 bits, or their own channels.

    Examples
    --------
    >>> written(Levels((0.0,), (255.0,), "uint8")), written(Levels((0.0,), (4095.0,), "uint16"))
    (False, True)
    """
    return not (levels.kind == "uint8" and len(levels.low) in (1, 3) and levels.channels is None)


def _opened(path: Path) -> "TiffFile":
    """Open a file alone: the description of an OME-TIFF may be of several, which would be read as a part of each."""
    tifffile = optional("tifffile", install=INSTALL)
    file: TiffFile = tifffile.TiffFile(path, _multifile=False)
    names = set(re.findall(r"""FileName=["']([^"']*)["']""", file.ome_metadata or ""))
    if names != {path.name}:
        return file
    file.close()  # all of it is in this file, whatever number it goes by
    whole: TiffFile = tifffile.TiffFile(path)
    return whole


def _used(series: "TiffPageSeries") -> tuple[str, tuple[int, ...]]:
    """Return the axes that are longer than 1, and Y and X, with their lengths."""
    kept = [(axis, n) for axis, n in zip(series.axes, series.shape, strict=True) if n > 1 or axis in "YX"]
    return "".join(axis for axis, _ in kept), tuple(n for _, n in kept)


def _refused(several: int, axes: str, shape: tuple[int, ...], pages: str | None, path: Path) -> str | None:
    """Return why what a file says it holds is not one image; ``None`` where it is."""
    if several > 1:
        return f"Expected one image per file; {path} holds {several}. Write each to its own file."
    planes = _planes(axes)
    if planes and (pages is None or (pages == "channels" and (len(planes) > 1 or {"C", "S"} & set(axes)))):
        found = ", ".join(f"{shape[axes.index(axis)]} along {axis}" for axis in planes)
        return (
            f'Expected one image with its channels in {path}; found more planes ({found}). Set `pages="max"` for '
            'the brightest pixel of a stack, `pages="channels"` if the planes of one axis are channels, or '
            "write each plane to a file of its own."
        )
    if {"C", "S"} <= set(axes):
        return f"Expected channels, or colours, in {path}; found both (axes {axes})."
    return None


def _reduction(axes: str, shape: tuple[int, ...], conversion: "Conversion") -> int:
    """Return how many times smaller the planes are made as they are read; refuse those that are too large."""
    height, width = (shape[axes.index(axis)] if axis in axes else 0 for axis in "YX")
    factor = conversion.reduction(height, width) if height * width else 0
    if factor == 0:
        plane = height * width
        raise ValueError(f"it claims planes of {plane} pixels; set `max_pixels={plane}` if the size is right")
    return factor


def _require_planes(series: "TiffPageSeries", shape: tuple[int, ...]) -> None:
    """Refuse a file that claims planes which are not there, and would be filled up, or more than the memory holds."""
    missing = sum(page is None for page in series.pages)
    if missing:
        raise ValueError(f"it claims {len(series.pages)} planes, of which {missing} are missing")
    claimed = math.prod(shape) * np.dtype(series.dtype).itemsize
    if claimed > usable_memory():
        raise ValueError(f"it claims {claimed / 2**30:.3g} GiB; there are {usable_memory() / 2**30:.3g} GiB of memory")


def _values(series: "TiffPageSeries") -> np.ndarray:
    """Return the numbers of a series, brighter where it is lighter; truth values as bytes."""
    values = series.asarray()
    inverted = series.keyframe.photometric == _WHITE_IS_ZERO
    if values.dtype.kind == "b":
        return np.where(values != inverted, np.uint8(255), np.uint8(0))
    return np.iinfo(values.dtype).max - values if inverted and values.dtype.kind == "u" else values


def _opaque(values: np.ndarray, axes: str, series: "TiffPageSeries") -> tuple[np.ndarray, str]:
    """Return colours without their alpha, where nothing shows through.

    Raises
    ------
    ValueError
        When something does.
    """
    if "S" not in axes or not any(extra in _ALPHA for extra in series.keyframe.extrasamples):
        return values, axes
    samples = np.moveaxis(values, axes.index("S"), 0)
    if not (samples[-1] == np.iinfo(values.dtype).max if values.dtype.kind == "u" else samples[-1] == 1).all():
        raise ValueError("it has transparent pixels in more than 8 bits; write it without alpha")
    return (samples[:-1], "S" + axes.replace("S", "")) if len(samples) > 2 else (samples[0], axes.replace("S", ""))


def _intensities(values: np.ndarray) -> np.ndarray:
    """Return numbers that can be told in single precision.

    Raises
    ------
    ValueError
        For complex and other numbers, and floats that are not finite.
    """
    if values.dtype.kind not in "buif":
        raise ValueError(f"it holds {values.dtype}, which is not an intensity")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise ValueError(f"{bad} of {values.size} pixels are NaN or infinite; fix them, or leave the file out")
    return values


def _planes(axes: str) -> list[str]:
    """Return the axes that are neither of a plane nor of its channels."""
    return [axis for axis in axes if axis not in "YXCS"]


def _channels_first(values: np.ndarray, axes: str, pages: str | None) -> np.ndarray:
    """Return planes ``(c, h, w)``."""
    planes = _planes(axes)
    if planes and pages == "max":
        values = values.max(axis=tuple(axes.index(axis) for axis in planes))
        axes = "".join(axis for axis in axes if axis not in planes)
    elif planes:
        axes = axes.replace(planes[0], "C")
    axes = axes.replace("S", "C")
    if "C" not in axes:
        values, axes = values[None], "C" + axes
    return np.transpose(values, [axes.index(axis) for axis in "CYX"])


def _channel_names(file: "TiffFile") -> tuple[str, ...] | None:
    """Return the names of the channels that the file tells, in OME's or ImageJ's way."""
    if file.ome_metadata and len(file.ome_metadata) <= _MOST_METADATA and "<!ENTITY" not in file.ome_metadata:
        try:
            root = ET.fromstring(file.ome_metadata)
        except ET.ParseError:
            return None  # its planes are read nevertheless
        names = [channel.get("Name") for channel in _channels_inside(root)]
        if names and all(names):
            return tuple(str(name) for name in names)
    labels = (file.imagej_metadata or {}).get("Labels")
    return tuple(map(str, labels)) if isinstance(labels, list | tuple) and labels else None


def _channels_inside(root: ET.Element) -> list[ET.Element]:
    """Return the channels that an OME description tells of its own file, which may be one of several."""
    if len({each.text for each in _named(root, "UUID")}) < 2:
        return _named(root, "Channel")
    planes = [(pixels, plane) for pixels in _named(root, "Pixels") for plane in _named(pixels, "TiffData")]
    own = [both for both in planes if root.get("UUID") in [each.text or "" for each in _named(both[1], "UUID")]]
    if len({id(pixels) for pixels, _ in own}) != 1 or any(plane.get("PlaneCount", "1") != "1" for _, plane in own):
        return []
    channels = {str(number): channel for number, channel in enumerate(_named(own[0][0], "Channel"))}
    ifds = [plane.get("IFD", "0") for _, plane in own]  # where each is, in the order in which planes are read
    if sorted(ifds) != sorted(map(str, range(len(own)))):
        return []
    pages = sorted(zip(map(int, ifds), [plane.get("FirstC", "0") for _, plane in own], strict=True))
    numbers = dict.fromkeys(number for _, number in pages)
    return [channels[number] for number in numbers if number in channels]


def _named(root: ET.Element, name: str) -> list[ET.Element]:
    """Return the elements of a name below another, whatever their namespace."""
    return [element for element in root.iter() if re.fullmatch(rf"(\{{.*\}})?{name}", element.tag)]
