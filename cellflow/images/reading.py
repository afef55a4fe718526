"""Reading images into memory: from folders, files and arrays, brought to one shape."""

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cellflow.files import path_of
from cellflow.images.arrays import convert_array, read_arrays
from cellflow.images.assembling import Range, assembled
from cellflow.images.files import decode_all, require_picture
from cellflow.images.labels import named_labels
from cellflow.images.levels import STEPS, Levels
from cellflow.images.limits import MAX_PIXELS
from cellflow.images.numbers import BYTES_TO_STEPS, Numbers, warn_of_bytes
from cellflow.images.pixels import Background, Conversion
from cellflow.images.sets import ImageSet
from cellflow.images.stores import is_store
from cellflow.images.tables import FILE, Table, by_file, in_order, labels_of, names_of, pictures_of, read_table
from cellflow.images.tiles import images_of
from cellflow.signature import checked_but

SUFFIXES = frozenset({".npy", ".npz", ".gz", ".idx"})


@checked_but("labels")
def read_images(
    source: str | Path | np.ndarray | Tensor | ImageSet,
    *,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    labels: str | Sequence[int | str] | np.ndarray | Tensor | None = None,
    skip_unreadable: bool = False,
    background: Background = None,
    white_level: float | None = None,
    max_pixels: int = MAX_PIXELS,
    table: Table | None = None,
    file_column: str = FILE,
    fit: str = "crop",
    pages: str | None = None,
    percentiles: tuple[float, float] | None = None,
    levels: Levels | None = None,
) -> ImageSet:
    """Read images into memory, brought to one shape.

    Files are PNG, JPEG, TIFF, BMP or WebP, in colour, grey, or with a palette; photographs are turned upright.
    Transparent pixels show ``background``, or white. Images with more than 8 bits, or their own channels, such as
    microscope TIFFs (``pip install 'cellflow-torch[microscopy]'``), keep their depth and the names of their channels:
    see `Levels`.

    Parameters
    ----------
    source
        A folder, searched with what is below it; a file (a picture, .npy, .npz, .zarr, idx, idx gzipped); or an array
        or tensor ``(n, h, w)``, ``(n, h, w, c)`` or ``(n, c, h, w)`` of bytes, truth values, numbers of 16 or 32 bits,
        or floats from 0 to 1. With as many channels as ``channels`` says, or 1, 3 or 4. Four channels of an array of
        bytes, truth values or floats are taken for colours with transparency (RGBA), with a warning where channels come
        first, unless ``channels=4``, ``percentiles`` or ``levels``, or of floats a ``white_level``, are given.
    size, channels, background, white_level, max_pixels, fit, pages
        As for `Conversion`. With ``fit="tiles"`` an image becomes several, whose names end in ``@row,column``.
    labels
        The class of each image, as numbers or names; ``"folder"`` uses the first folder below ``source``, the name of a
        column the table.
    skip_unreadable
        Whether to skip files that cannot be read, with a warning that names them, rather than raise.
    table
        What the images show: a table with a row for each, or its file (.csv or .tsv, gzipped or not), also looked for
        in the folder. For a folder, only the images that it names are read, in its order. For an array, it has a row
        for each image, in order. It becomes ``obs`` of the set.
    file_column
        Column of the table with the file of each image: its path below the folder.
    percentiles
        Percentages of all pixels of a channel below black and below white, instead of ``white_level``: ``(0.1, 99.9)``
        for images of unknown range.
    levels
        Black and white of each channel, instead of ``white_level``: the levels of a set that was read before, so that
        numbers mean the same in both.

    Raises
    ------
    FileNotFoundError
        When the folder or file does not exist, or the table names missing files.
    KeyError
        When the table has no column with the files.
    ValueError
        When there are no images, they differ in shape, or their range is ambiguous; when several of ``white_level``,
        ``percentiles`` and ``levels`` are given; when the table has several rows for one image, or a row without an
        image.
    UnreadableImageError
        When files are damaged; the message names them.

    Warns
    -----
    UserWarning
        When images are cropped, or camera images use less than a tenth of their range; when ``levels`` are given, and
        many pixels of an image are above white or below black, or most images use less than a tenth of the range; when
        ``white_level`` has no effect, as on images of 8 bits.

    Examples
    --------
    >>> import numpy as np
    >>> read_images(np.zeros((3, 20, 20)), size=16, labels=["a", "b", "a"])
    ImageSet(3 images, 1 x 16 x 16, 2 classes)
    >>> field = np.arange(40 * 60, dtype=np.uint16).reshape(1, 40, 60)
    >>> read_images(field, size=20, fit="tiles", white_level=4095)
    ImageSet(6 images, 1 x 20 x 20, uint16)
    >>> import pandas as pd
    >>> plate = pd.DataFrame({"drug": ["control", "A", "A"], "dose": [0.0, 1.0, 3.0]})
    >>> images = read_images(np.zeros((3, 16, 16)), table=plate)
    >>> images
    ImageSet(3 images, 1 x 16 x 16, obs: drug, dose)
    >>> images.take(images.obs["drug"] == "A").obs["dose"].tolist()
    [1.0, 3.0]
    """
    conversion = Conversion(size, channels, background, white_level, max_pixels, fit, pages)
    given = Range(white_level, levels, percentiles)
    numbered = True  # whether images have no names but their order
    if isinstance(source, ImageSet):
        numbered = source.names is None
        read = _again(source, conversion, given)
    elif not isinstance(source, str | Path):
        read = _of_array(source, conversion, given, where="the array")
    elif is_array(path := path_of(source, name="source")):
        read = _from_file(path, conversion, given)
    else:
        numbered = False
        read = _from_folder(path, conversion, given, table, file_column, skip_unreadable=skip_unreadable)
    if table is not None and (isinstance(source, ImageSet) or read.obs is None):
        read = _with_table(read, table, None if numbered else file_column, tiles=conversion.tiles)
    if labels is None:
        return read
    if isinstance(labels, str) and labels == "folder" and numbered and read.labels is not None:
        raise ValueError("The images have labels of their own, beside them. Leave `labels` out to take these.")
    return _labelled(read, *labels_of(labels, None if numbered else read.names, read.obs), tiles=conversion.tiles)


def is_array(path: Path) -> bool:
    """Return whether a path holds an array, rather than pictures.

    Examples
    --------
    >>> is_array(Path("stack.zarr")), is_array(Path("plates")), is_array(Path("plates/1.tif"))
    (True, False, False)
    """
    return is_store(path) or (path.suffix in SUFFIXES and not path.is_dir())


def _again(source: ImageSet, conversion: Conversion, given: Range) -> ImageSet:
    """Return a set brought to another size; its numbers mean what they meant."""
    # By name: `asdict` would copy the images.
    kept = {field.name: getattr(source, field.name) for field in fields(source)}
    if conversion.fit == "tiles" and conversion.sides is not None:
        raise ValueError("A set of images cannot be cut into tiles. Read its files again, or pass its array.")
    _require_levels(source, given)
    if source.levels is None and source.images.shape[1] in (1, 3):
        return ImageSet(**{**kept, "images": conversion(source.images)})
    # Channels of their own: none of them is transparency.
    parts = [conversion.of_camera(Numbers(image.float(), "uint16")) for image in source.images]
    return ImageSet(**{**kept, "images": torch.stack([_back(part, source.images.dtype) for part in parts])})


def _require_levels(source: ImageSet, given: Range) -> None:
    """Refuse other levels than those of a set: what black and white were is gone.

    Raises
    ------
    ValueError
        Saying what to do.
    """
    if source.levels is None:
        if given.levels is not None or given.percentiles is not None:
            raise ValueError("These images are bytes without levels. Read their files, or their array, again for some.")
        return warn_of_bytes(given.white_level)
    white = given.white_level
    if (
        given.levels not in (None, source.levels)
        or given.percentiles is not None
        or (white not in (None, STEPS) and any(high != white for high in source.levels.high))
    ):
        raise ValueError("These images already have levels. Read their files again for others.")
    return None


def _back(image: Numbers, dtype: torch.dtype) -> Tensor:
    """Return the pixels of an image that was brought to another size, in the numbers that they were in."""
    pixels = image.values.round().to(dtype)
    if image.frame is None:
        return pixels
    ground = image.frame.ground // (BYTES_TO_STEPS if dtype == torch.uint8 else 1)
    return replace(image.frame, ground=ground).around(pixels)


def _of_array(array: np.ndarray | Tensor, conversion: Conversion, given: Range, *, where: str) -> ImageSet:
    ranged = given.levels is not None or given.percentiles is not None
    found = convert_array(array, conversion, where=where, ranged=ranged)
    if isinstance(found, Tensor) and not conversion.tiles:
        warn_of_bytes(given.white_level, where=where)
        return ImageSet(found)
    read = assembled(list(found), [str(number) for number in range(len(found))], conversion, given, where=where)
    return replace(read, names=read.names if conversion.tiles else None, source="")


def _from_file(path: Path, conversion: Conversion, given: Range) -> ImageSet:
    if not path.exists():
        raise FileNotFoundError(f"No file {path}. The working directory is {Path.cwd()}.")
    array, labels = read_arrays(path)
    read = replace(_of_array(array, conversion, given, where=str(path)), source=str(path))
    if labels is None:
        return read
    return _labelled(read, *named_labels(labels), tiles=conversion.tiles)


def _from_folder(
    folder: Path,
    conversion: Conversion,
    given: Range,
    table: Table | None,
    file_column: str,
    *,
    skip_unreadable: bool,
) -> ImageSet:
    if folder.is_file():  # one picture is as good as a folder with nothing else in it
        require_picture(folder)
        paths, obs, where, folder = [folder], None, str(folder), folder.parent
    else:
        (paths, obs), where = pictures_of(folder, table, file_column), str(folder)
    images, paths = decode_all(paths, conversion, skip_unreadable=skip_unreadable, where=where)
    return assembled(images, names_of(paths, folder), conversion, given, where=where, obs=obs)


def _with_table(read: ImageSet, table: Table, file_column: str | None, *, tiles: bool) -> ImageSet:
    """Return images with a table: matched by name where both have names, else in their order; tiles by their image."""
    frame = read_table(table, file_column=file_column or FILE)
    names, images = images_of(read.names) if tiles and read.names else (read.names, None)
    if names is None or file_column is None or file_column not in frame:
        obs = in_order(frame, len(read) if names is None else len(names))
        return replace(read, obs=obs if images is None else obs.iloc[images].set_axis([*(read.names or ())], axis=0))
    rows, obs = by_file(frame, names, file_column=file_column)
    if images is None:
        return replace(read.take(rows), obs=obs)
    taken = [tile for row in rows for tile, image in enumerate(images) if image == row]
    read = read.take(taken)
    return replace(read, obs=obs.loc[[names[images[tile]] for tile in taken]].set_axis([*(read.names or ())], axis=0))


def _labelled(read: ImageSet, labels: Tensor, classes: tuple[str, ...], *, tiles: bool) -> ImageSet:
    """Return images with a label for each; tiles have that of their image.

    Raises
    ------
    ValueError
        When there are more or fewer labels.
    """
    names, images = images_of(read.names) if tiles and read.names else (range(len(read)), range(len(read)))
    if len(labels) not in (len(names), len(read)):
        raise ValueError(f"Expected a label for each of {len(names)} images; found {len(labels)}.")
    return replace(read, labels=labels if len(labels) == len(read) else labels[list(images)], classes=classes)
