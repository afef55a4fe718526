"""Sets of images: all of them as bytes in memory, or read from a folder when they are asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import pandas as pd
import torch
from torch import Tensor

from cellflow.errors import unknown
from cellflow.images.labels import Labelled, numbers_of
from cellflow.images.levels import Levels
from cellflow.images.pixels import scaled, to_bytes
from cellflow.images.tables import part_of
from cellflow.seeds import device_of
from cellflow.signature import checked, checked_but


class Images(Protocol):
    """The interface of a set of images, in memory or not."""

    @property
    def labels(self) -> Tensor | None:
        """The class of each image ``(n,)``, an index into ``classes``."""
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
    """Images as bytes or 16 bits in memory, on one device: CIFAR-10 takes 150 MB.

    Parameters
    ----------
    images
        Bytes ``(n, c, h, w)``, with any number of channels; or 16 bits, from the black to the white of ``levels``.
    labels
        The class of each image ``(n,)``, counted from 0.
    names
        A name for each image, such as its path in the folder.
    classes
        The names of the classes; by default their numbers.
    source
        Where the images come from, for reports.
    obs
        A table with a row for each image, in order: drug, dose, plate, well. `cellflow.Conditions` reads it.
    levels
        Black and white in camera counts; ``None`` for bytes.

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
    levels: Levels | None = None

    def __post_init__(self) -> None:
        found = getattr(self.images, "dtype", type(self.images).__name__)
        expected = torch.uint8 if self.levels is None else torch.uint16
        if found != expected or self.images.layout != torch.strided:
            what = "bytes (torch.uint8)" if self.levels is None else "16 bits (torch.uint16), which have levels"
            raise TypeError(f"Expected {what}; found {found}. `read_images` converts arrays.")
        if self.images.ndim != 4 or self.images.numel() == 0:
            raise ValueError(f"Expected images (n, c, h, w); found shape {tuple(self.images.shape)}.")
        if self.levels is not None and len(self.levels.low) != self.images.shape[1]:
            raise ValueError(f"Expected levels of {self.images.shape[1]} channels; found {len(self.levels.low)}.")
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

    def bytes(self) -> Tensor:
        """Return all images as bytes ``(n, c, h, w)`` for viewing: black is 0, white is 255."""
        return self.images if self.levels is None else to_bytes(self.scaled())

    @checked
    def to(self, device: str | torch.device) -> "ImageSet":
        """Return the set on another device."""
        return replace(self, images=self.images.to(device_of(device)))

    @checked
    def take(self, indices: Tensor | Sequence[int]) -> "ImageSet":
        """Return the images at these positions; classes keep their numbers."""
        rows = numbers_of(indices, len(self)).to(self.device)
        names = None if self.names is None else tuple(self.names[row] for row in rows.tolist())
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, images=self.images[rows], labels=labels, names=names, obs=part_of(self.obs, rows))

    def only(self, *classes: str) -> "ImageSet":
        """Return the images of some classes, which keep their numbers.

        Raises
        ------
        ValueError
            When a class does not exist.
        """
        known = self.classes or ()
        for name in classes:
            if name not in known:
                raise ValueError(unknown("class", name, known))
        wanted = torch.tensor([known.index(name) for name in classes], device=self.device)
        return self.take(torch.isin(self._known_labels(), wanted).nonzero().squeeze(1))
