"""A folder of images that need not fit into memory: files are decoded when a batch asks for them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from cellflow.files import path_of
from cellflow.images.assembling import Range
from cellflow.images.files import decode_all, readable, tried
from cellflow.images.labels import Labelled, numbers_of
from cellflow.images.levels import Levels, check_kind
from cellflow.images.limits import MAX_PIXELS, UnreadableImageError
from cellflow.images.numbers import Numbers, in_one_depth, in_steps, kinds_of, settled
from cellflow.images.outside import warn_of_outside
from cellflow.images.pixels import FORMER, Background, Conversion, scaled
from cellflow.images.sets import ImageSet
from cellflow.images.tables import FILE, Table, labels_of, names_of, part_of, pictures_of
from cellflow.seeds import device_of
from cellflow.signature import checked, checked_but

SEEN, COUNTED = 8, 200
"""Files that are looked at for the kind of their numbers, and for percentiles."""
_CPU = torch.device("cpu")


@checked
@dataclass(frozen=True, eq=False, repr=False)
class ImageStream(Labelled):
    """Images that stay in their files until they are asked for. Made by `stream_images`.

    Parameters
    ----------
    paths
        The files.
    conversion
        How each is converted to bytes; it sets size and channels.
    labels, names, classes
        As for `ImageSet`.
    device
        Device of the batches.
    obs, levels
        As for `ImageSet`.
    strict
        Whether numbers below black or above white are refused, as where a ``white_level`` says what they are, rather
        than clipped.

    Examples
    --------
    >>> import cellflow as cf
    >>> plates = stream_images("plates", size=64, channels=1)  # doctest: +SKIP
    >>> plates.scaled([3, 1]).shape  # doctest: +SKIP
    torch.Size([2, 1, 64, 64])
    """

    paths: tuple[Path, ...]
    conversion: Conversion
    labels: Tensor | None = None
    names: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    device: torch.device = _CPU
    obs: pd.DataFrame | None = None
    levels: Levels | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.paths, tuple | list) or not self.paths:
            found = "none" if isinstance(self.paths, tuple | list) else type(self.paths).__name__
            raise ValueError(f"Expected a tuple with the paths of one image or more; found {found}.")
        if self.conversion.sides is None or self.conversion.channels is None:
            raise ValueError(
                "Expected `size` and `channels`, such as size=64 and channels=3: they are unknown before the files "
                "are read."
            )
        if self.conversion.tiles:
            raise ValueError("Files that are read on demand cannot be cut into tiles. Use `read_images`.")
        if self.levels is not None and len(self.levels.low) != self.conversion.channels:
            raise ValueError(f"Expected levels of {self.conversion.channels} channels; found {len(self.levels.low)}.")
        self._check_rows(self.device)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        height, width = self.conversion.sides or (0, 0)
        return self.conversion.channels or 0, height, width

    def __len__(self) -> int:
        return len(self.paths)

    @checked
    def scaled(self, indices: Tensor | Sequence[int] | None = None) -> Tensor:
        """Decode some images, or all, with a thread per core; return float32 ``(n, c, h, w)`` from -1 to 1.

        Raises
        ------
        UnreadableImageError
            When files are damaged; the message names them.
        """
        rows = range(len(self)) if indices is None else numbers_of(indices, len(self)).tolist()
        return scaled(self._decoded(rows).to(self.device))

    @checked
    def take(self, indices: Tensor | Sequence[int]) -> "ImageStream":
        """Return the images at these positions, still in their files; classes keep their numbers."""
        rows = numbers_of(indices, len(self))
        some = rows.tolist()
        names = None if self.names is None else tuple(self.names[row] for row in some)
        labels = None if self.labels is None else self.labels[rows.to(self.labels.device)]
        paths = tuple(self.paths[row] for row in some)
        return replace(self, paths=paths, labels=labels, names=names, obs=part_of(self.obs, rows))

    def read(self) -> ImageSet:
        """Return all of them in memory.

        Raises
        ------
        UnreadableImageError
            As for `scaled`.
        """
        images = self._decoded(range(len(self))).to(self.device)
        return ImageSet(images, self.labels, self.names, self.classes, obs=self.obs, levels=self.levels)

    @checked
    def to(self, device: str | torch.device) -> "ImageStream":
        """Return the same images, with batches on another device."""
        return replace(self, device=device_of(device))

    def _decoded(self, rows: Sequence[int]) -> Tensor:
        paths = [self.paths[row] for row in rows]
        found, _ = decode_all(paths, self.conversion, skip_unreadable=False, quiet=True)
        for image, path in zip(settled(found, self.levels), paths, strict=True):
            _require_alike(image, path, self.levels, strict=self.strict)
        steps, _ = in_steps(found, paths, white_level=None, levels=self.levels)  # all bytes, or levels are known
        return torch.stack(steps)


@checked_but("size", "channels")
def stream_images(
    folder: str | Path,
    *,
    size: int | tuple[int, int],
    channels: int,
    labels: str | Sequence[int | str] | None = None,
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
) -> ImageStream:
    """List the images in a folder, to be read on demand.

    Parameters
    ----------
    folder, size, channels, labels, background, white_level, max_pixels, table, file_column, fit, pages, levels
        As for `read_images`, without tiles.
    percentiles
        As for `read_images`, of 200 images, evenly spaced.
    skip_unreadable
        Whether to read every file once now, and skip those that cannot be read, with a warning that names them.

    Raises
    ------
    FileNotFoundError, KeyError, ValueError
        When the folder does not exist or has no images; when ``size`` or ``channels`` is missing; or for a table, as
        for `read_images`.
    UnreadableImageError
        When files may be skipped and none can be read.

    Warns
    -----
    UserWarning
        As for `read_images`, of a few images, evenly spaced.

    Examples
    --------
    >>> stream_images("plates", size=64, channels=1, labels="folder")  # doctest: +SKIP
    ImageStream(1200000 images, 1 x 64 x 64, 384 classes)
    """
    folder = path_of(folder, name="folder")
    if folder.is_file():
        raise ValueError(
            f"Expected a folder of pictures; {folder} is one file, which is read whole: use `read_images`."
        )
    conversion = Conversion(size, channels, background, white_level, max_pixels, fit, pages)
    Range(white_level, levels, percentiles)  # said twice, it is refused before a file is looked for
    paths, obs = pictures_of(folder, table, file_column)
    if skip_unreadable:
        paths = readable(paths, conversion)
    names = names_of(paths, folder)
    obs = None if obs is None else obs.loc[[*names]]
    # Version 0.2.0 clipped what a white level leaves out: its runs are to go on, and to be reported.
    strict = levels is None and percentiles is None and background != FORMER
    if levels is None:
        levels = _levels(paths, conversion, percentiles, where=str(folder))
    else:
        _check_some(paths, conversion, levels, where=str(folder))
    stream = ImageStream(tuple(paths), conversion, names=names, obs=obs, levels=levels, strict=strict)
    if labels is None:
        return stream
    numbers, classes = labels_of(labels, names, obs)
    return replace(stream, labels=numbers, classes=classes)


def _require_alike(image: Tensor | Numbers, path: Path, levels: Levels | None, *, strict: bool) -> None:
    """Refuse a file that is not like those that were looked at first, where it would be clipped without a word.

    Raises
    ------
    ValueError
        When its numbers are of another kind, or outside the range of a white level.
    """
    kind, expected = image.kind if isinstance(image, Numbers) else "uint8", levels.kind if levels else "uint8"
    small = (kind, expected) == ("uint8", "uint16")  # white is white for them, too: see `in_steps`
    counts = levels is None and isinstance(image, Numbers)
    if counts or (kind != expected and not small):
        raise ValueError(
            f"Expected images of {'bytes' if levels is None else f'{expected} numbers'}, like the first ones; found "
            f"{'camera counts' if counts else kind} in {path}. Save all files in one way"
            f"{'' if 'float32' in (kind, expected) else ', or use `read_images`: it looks at all of them first'}."
        )
    if levels is None:
        return
    (number,) = in_one_depth([image], levels)
    least, most = float(number.inside.min()), float(number.inside.max())
    if least < 0 and (strict or levels.kind != "float32"):
        found = f"Expected numbers of 0 and more, like those of the first images; found {least:g} in {path}."
        if not strict:  # a range that is given, as that of a fit, stays as it is
            raise ValueError(f"{found} Use `read_images`, for which all below black is black.")
        raise ValueError(
            f"{found} Use `read_images` with `percentiles=(0.1, 99.9)`, or give "
            "`levels=cf.images.Levels(low, high, 'float32')`."
        )
    if strict and most > float(torch.tensor(levels.high, dtype=torch.float32).max()):
        eight = ", of 8 bits, brought to 16" if small else ""
        raise ValueError(
            f"Expected numbers from 0 to {max(levels.high):.10g}, what is white; found {least:g} to {most:.10g} in "
            f"{path}{eight}. Set `white_level` to the largest value, or `percentiles=(0.1, 99.9)`."
        )


def _check_some(paths: Sequence[Path], conversion: Conversion, levels: Levels, *, where: str) -> None:
    """Look at some files whether given levels are theirs; warn if they are outside.

    Raises
    ------
    ValueError
        When they have numbers of another kind, or other channels.
    """
    found = _some(paths, conversion, SEEN)
    if not found:
        return  # whoever reads them is told
    images, known = settled([image for image, _ in found], levels), [path for _, path in found]
    check_kind(levels, kinds_of(images), where=where)
    in_steps(images, known, white_level=None, levels=levels)
    warn_of_outside(images, [path.name for path in known], levels, where=where)


def _levels(
    paths: Sequence[Path], conversion: Conversion, percentiles: tuple[float, float] | None, *, where: str
) -> Levels | None:
    """Return the levels of a camera's files, by some of them; ``None`` where these hold bytes."""
    found = _some(paths, conversion, SEEN if percentiles is None else COUNTED)
    if not found:
        return None  # whoever reads them is told
    images, known = zip(*found, strict=True)
    return in_steps(images, known, white_level=conversion.white_level, percentiles=percentiles, where=where)[1]


def _some(paths: Sequence[Path], conversion: Conversion, n: int) -> list[tuple[Tensor | Numbers, Path]]:
    """Return ``n`` evenly spaced images at most, of those that can be read, and their files."""
    some = paths[:: -(-len(paths) // n)]
    return [(image, path) for path in some if not isinstance(image := tried(path, conversion), UnreadableImageError)]
