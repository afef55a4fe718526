"""Sets of images: all of them as bytes in memory, or read from a folder when they are asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cellflow.errors import unknown
from cellflow.files import path_of
from cellflow.images.arrays import convert_array, read_arrays
from cellflow.images.files import decode_all, stack
from cellflow.images.labels import Labelled, named_labels, numbers_of
from cellflow.images.limits import MAX_PIXELS
from cellflow.images.pixels import Conversion, scaled
from cellflow.images.tables import FILE, Table, by_file, in_order, labels_of, names_of, part_of, pictures_of, read_table
from cellflow.seeds import device_of
from cellflow.signature import checked, checked_but

SUFFIXES = frozenset({".npy", ".npz", ".gz", ".idx"})


class Images(Protocol):
    """The interface of a set of images, in memory or not."""

    @property
    def labels(self) -> Tensor | None:
        """The class of each image ``(n,)``, a number that counts in ``classes``."""
        ...

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the classes."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of the batches."""
        ...

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def scaled(self, indices: Tensor | Sequence[int] | None = None) -> Tensor:
        """Return some images, or all, as float32 ``(n, c, h, w)`` from -1 to 1."""
        ...

    def one_hot(self, indices: Tensor | None = None) -> Tensor:
        """Return the classes of some images, or all, as a condition ``(n, k)``."""
        ...


@checked_but("images")
@dataclass(frozen=True, eq=False, repr=False)
class ImageSet(Labelled):
    """Images as bytes in memory, on one device: CIFAR-10 takes 150 MB.

    Parameters
    ----------
    images
        Bytes ``(n, c, h, w)``, with any number of channels.
    labels
        The class of each image ``(n,)``, counted from 0.
    names
        A name for each image, such as its path in the folder.
    classes
        The names of the classes; their numbers without.
    source
        Where the images come from, for reports.
    obs
        A table with a row for each image, in their order: drug, dose, plate, well. `cellflow.Conditions` reads it.

    Examples
    --------
    >>> import torch
    >>> some = ImageSet(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), labels=torch.tensor([0, 1, 0, 1]))
    >>> some
    ImageSet(4 images, 1 x 8 x 8, 2 classes)
    >>> some.scaled([0]).unique()
    tensor([-1.])
    """

    images: Tensor
    labels: Tensor | None = None
    names: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    source: str = ""
    obs: pd.DataFrame | None = None

    def __post_init__(self) -> None:
        found = getattr(self.images, "dtype", type(self.images).__name__)
        if found != torch.uint8 or self.images.layout != torch.strided:
            raise TypeError(f"Expected bytes (torch.uint8); found {found}. `read_images` converts arrays.")
        if self.images.ndim != 4 or self.images.numel() == 0:
            raise ValueError(f"Expected images (n, c, h, w); found shape {tuple(self.images.shape)}.")
        self._check_rows(self.device)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    @property
    def device(self) -> torch.device:
        """Device of the images."""
        return self.images.device

    def __len__(self) -> int:
        return len(self.images)

    @checked
    def scaled(self, indices: Tensor | Sequence[int] | None = None) -> Tensor:
        """Return some images, or all, as float32 ``(n, c, h, w)`` from -1 to 1."""
        if indices is None:
            return scaled(self.images)
        return scaled(self.images.index_select(0, numbers_of(indices, len(self)).to(self.device)))

    @checked
    def to(self, device: str | torch.device) -> "ImageSet":
        """Return the set on another device."""
        return replace(self, images=self.images.to(device_of(device)))

    @checked
    def take(self, indices: Tensor | Sequence[int]) -> "ImageSet":
        """Return the images with these numbers; the classes keep theirs."""
        rows = numbers_of(indices, len(self)).to(self.device)
        names = None if self.names is None else tuple(self.names[row] for row in rows.tolist())
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, images=self.images[rows], labels=labels, names=names, obs=part_of(self.obs, rows))

    def only(self, *classes: str) -> "ImageSet":
        """Return the images of some classes, which keep their numbers.

        Raises
        ------
        ValueError
            When there is no such class.
        """
        known = self.classes or ()
        for name in classes:
            if name not in known:
                raise ValueError(unknown("class", name, known))
        wanted = torch.tensor([known.index(name) for name in classes], device=self.device)
        return self.take(torch.isin(self._known_labels(), wanted).nonzero().squeeze(1))


@checked_but("labels")
def read_images(
    source: str | Path | np.ndarray | Tensor | ImageSet,
    *,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    labels: str | Sequence[int | str] | np.ndarray | Tensor | None = None,
    skip_unreadable: bool = False,
    background: int = 255,
    white_level: int = 65535,
    max_pixels: int = MAX_PIXELS,
    table: Table | None = None,
    file_column: str = FILE,
) -> ImageSet:
    """Read images into memory, brought to one shape.

    Files are PNG, JPEG, TIFF, BMP or WebP with 8 or 16 bits, in colour, grey, or with a palette; photographs are
    turned upright. What is transparent is laid on ``background``.

    Parameters
    ----------
    source
        A folder, searched with what is below it; a file (.npy, .npz, idx, idx gzipped); or an array or tensor
        ``(n, h, w)``, ``(n, h, w, c)`` or ``(n, c, h, w)`` of bytes, truth values, 16-bit numbers or floats from 0
        to 1.
    size, channels, background, white_level, max_pixels
        As for `Conversion`.
    labels
        The class of each image, as numbers or names; ``"folder"`` takes the first folder below ``source``, the name of
        a column those of the table.
    skip_unreadable
        Whether files that cannot be read are left out, with a warning that names them, rather than refused.
    table
        What the images show: a table with a row for each, or its file (.csv or .tsv, gzipped or not), which is looked
        for in the folder too. Of a folder, the images that it names are read, in its order. Of an array, it has a row
        for each image, in their order. It becomes ``obs`` of the set.
    file_column
        Column of the table with the file of each image: its path below the folder.

    Raises
    ------
    FileNotFoundError
        When there is no such folder or file, or the table names files that are not there.
    KeyError
        When the table has no column with the files.
    ValueError
        When there are no images, they differ in shape, or their range leaves open what they mean; when the table has
        more rows for one image, or a row without one.
    UnreadableImageError
        When files are damaged; the message names them.

    Examples
    --------
    >>> import numpy as np
    >>> read_images(np.zeros((3, 20, 30)), size=16, labels=["a", "b", "a"])
    ImageSet(3 images, 1 x 16 x 16, 2 classes)
    >>> import pandas as pd
    >>> plate = pd.DataFrame({"drug": ["control", "A", "A"], "dose": [0.0, 1.0, 3.0]})
    >>> images = read_images(np.zeros((3, 16, 16)), table=plate)
    >>> images
    ImageSet(3 images, 1 x 16 x 16, obs: drug, dose)
    >>> images.take(images.obs["drug"] == "A").obs["dose"].tolist()
    [1.0, 3.0]
    """
    conversion = Conversion(size, channels, background, white_level, max_pixels)
    if isinstance(source, ImageSet):
        # By name: `asdict` would copy the images.
        kept = {field.name: getattr(source, field.name) for field in fields(source)}
        read = ImageSet(**{**kept, "images": conversion(source.images)})
    elif not isinstance(source, str | Path):
        read = ImageSet(convert_array(source, conversion, where="the array"))
    elif path_of(source, name="source").suffix in SUFFIXES and not Path(source).is_dir():
        read = _from_file(Path(source), conversion)
    else:
        read = _from_folder(Path(source), conversion, table, file_column, skip_unreadable=skip_unreadable)
    if table is not None and (isinstance(source, ImageSet) or read.obs is None):
        read = _with_table(read, table, file_column)
    if labels is None:
        return read
    numbers, classes = labels_of(labels, read.names, read.obs)
    return replace(read, labels=numbers, classes=classes)


def _from_file(path: Path, conversion: Conversion) -> ImageSet:
    if not path.is_file():
        raise FileNotFoundError(f"No file {path}. Looked from {Path.cwd()}.")
    array, labels = read_arrays(path)
    numbers, classes = (None, None) if labels is None else named_labels(labels)
    return ImageSet(convert_array(array, conversion, where=str(path)), numbers, classes=classes, source=str(path))


def _from_folder(
    folder: Path, conversion: Conversion, table: Table | None, file_column: str, *, skip_unreadable: bool
) -> ImageSet:
    if folder.is_file():
        raise ValueError(f"Expected a folder of images; {folder} is one file. Give the folder that it is in.")
    paths, obs = pictures_of(folder, table, file_column)
    images, paths = decode_all(paths, conversion, skip_unreadable=skip_unreadable)
    names = names_of(paths, folder)
    obs = None if obs is None else obs.loc[[*names]]
    return ImageSet(stack(images, paths), names=names, source=str(folder), obs=obs)


def _with_table(read: ImageSet, table: Table, file_column: str) -> ImageSet:
    """Return images with a table: matched by name where both have names, else in their order."""
    frame = read_table(table, file_column=file_column)
    if read.names is None or file_column not in frame:
        return replace(read, obs=in_order(frame, len(read)))
    rows, obs = by_file(frame, read.names, file_column=file_column)
    return replace(read.take(rows), obs=obs)
