"""A folder of images that need not fit into memory: files are decoded when a batch asks for them."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from cellflow.data.image_files import decode, decode_all, image_paths
from cellflow.data.image_labels import Labelled, labels_by_folder, named_labels
from cellflow.data.pixels import Conversion, scaled

_CHECKED_AT_ONCE = 4096
_CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False, repr=False)
class ImageStream(Labelled):
    """Images that stay in their files until they are asked for. Made by `stream_images`.

    Parameters
    ----------
    paths
        The files.
    conversion
        How each is brought to bytes; it sets size and channels.
    labels, names, classes
        As for `ImageSet`.
    device
        Where batches come out.

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

    def __post_init__(self) -> None:
        if self.conversion.sides is None or self.conversion.channels is None:
            raise ValueError("Expected `size` and `channels`: files that are not read yet cannot tell them.")
        self._check_labels(self.device)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        height, width = self.conversion.sides or (0, 0)
        return self.conversion.channels or 0, height, width

    def __len__(self) -> int:
        return len(self.paths)

    def scaled(self, indices: Tensor | Sequence[int] | None = None) -> Tensor:
        """Decode some images, or all, with a thread per core; return float32 ``(n, c, h, w)`` from -1 to 1."""
        rows = range(len(self)) if indices is None else torch.as_tensor(indices).tolist()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            images = list(pool.map(lambda row: decode(self.paths[row], self.conversion), rows))
        return scaled(torch.stack(images).to(self.device))

    def to(self, device: str | torch.device) -> "ImageStream":
        """Return the same images, with batches on another device."""
        return replace(self, device=torch.device(device))


def stream_images(
    folder: str | Path,
    *,
    size: int | tuple[int, int],
    channels: int,
    labels: str | Sequence[int | str] | None = None,
    skip_unreadable: bool = False,
    background: int = 255,
    white_level: int = 65535,
) -> ImageStream:
    """Find the images in a folder, to be read when they are asked for.

    Parameters
    ----------
    folder, size, channels, labels, background, white_level
        As for `read_images`.
    skip_unreadable
        Whether to read every file once now, and leave out those that cannot be read, with a warning that names them.

    Examples
    --------
    >>> stream_images("plates", size=64, channels=1, labels="folder")  # doctest: +SKIP
    ImageStream(1200000 images, 1 x 64 x 64, 384 classes)
    """
    folder = Path(folder)
    conversion = Conversion(size, channels, background, white_level)
    paths = image_paths(folder)
    if skip_unreadable:
        parts = [paths[start : start + _CHECKED_AT_ONCE] for start in range(0, len(paths), _CHECKED_AT_ONCE)]
        paths = [path for part in parts for path in decode_all(part, conversion, skip_unreadable=True)[1]]
    names = tuple(path.relative_to(folder).as_posix() for path in paths)
    if labels is None:
        return ImageStream(tuple(paths), conversion, names=names)
    numbers, classes = labels_by_folder(names) if isinstance(labels, str) else named_labels(labels)
    return ImageStream(tuple(paths), conversion, numbers, names, classes)
