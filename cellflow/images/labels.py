"""Which class each image belongs to."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor

from cellflow.shapes import check_dense

if TYPE_CHECKING:
    import pandas as pd


class Labelled(ABC):
    """Shared by sets of images: labels, conditions and splits."""

    labels: Tensor | None
    names: tuple[str, ...] | None
    classes: tuple[str, ...] | None
    obs: "pd.DataFrame | None"

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Device of the batches."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def take(self, indices: Tensor | Sequence[int]) -> Self:
        """Return the images at these positions; classes keep their numbers."""

    def split(self, fraction: float, *, generator: torch.Generator) -> tuple[Self, Self]:
        """Return two random parts, the first with a ``fraction`` of the images.

        For training and testing, split by what the images share (a patient, a plate) instead, where they share it.

        Examples
        --------
        >>> import torch, cellflow as cf
        >>> first, second = cf.datasets.digits().split(0.8, generator=cf.generator(seed=0))
        >>> len(first), len(second)
        (1438, 359)
        """
        size = round(fraction * len(self))
        if not 0 < size < len(self):
            message = f"Expected a fraction that leaves both parts something of {len(self)} images; found {fraction}."
            raise ValueError(message)
        order = torch.randperm(len(self), generator=generator, device=generator.device).to(self.device)
        return self.take(order[:size]), self.take(order[size:])

    def one_hot(self, indices: Tensor | None = None) -> Tensor:
        """Return the classes of some images, or all, as a condition: float32 ``(n, k)``, 1 where the class is.

        Examples
        --------
        >>> import cellflow as cf
        >>> cf.datasets.digits().one_hot()[3]
        tensor([0., 0., 0., 1., 0., 0., 0., 0., 0., 0.])
        """
        labels = self._known_labels()
        labels = labels if indices is None else labels[indices.to(labels.device)]
        return torch.nn.functional.one_hot(labels, len(self.classes or ())).float()

    def __repr__(self) -> str:
        channels, height, width = self.shape
        parts = [f"{len(self)} images", f"{channels} x {height} x {width}"]
        levels = getattr(self, "levels", None)
        parts += [] if levels is None else [levels.kind, *(levels.channels or ())]
        parts += [] if self.classes is None else [f"{len(self.classes)} classes"]
        parts += [] if self.obs is None else [f"obs: {', '.join(map(str, self.obs.columns))}"]
        source = getattr(self, "source", "")
        return f"{type(self).__name__}({', '.join([*parts, *([source] if source else [])])})"

    def _known_labels(self) -> Tensor:
        if self.labels is None:
            raise ValueError("These images have no labels. Give them: `read_images(..., labels=...)`.")
        return self.labels

    def _check_rows(self, device: torch.device) -> None:
        """Check what is known of each image against their number; count the classes where they have no names."""
        if self.names is not None and len(self.names) != len(self):
            raise ValueError(f"Expected a name for each of {len(self)} images; found {len(self.names)}.")
        if self.obs is not None and (len(self.obs) != len(self) or not self.obs.columns.is_unique):
            raise ValueError(
                f"Expected `obs` as a table with a row for each of {len(self)} images, and columns of different names; "
                f"found {len(self.obs)} rows and columns {list(self.obs.columns)}."
            )
        if not isinstance(self.classes, tuple | list | None):
            raise TypeError(f"Expected `classes` as a tuple of names; found {type(self.classes).__name__}.")
        if self.labels is None:
            return
        labels = self.labels
        if labels.shape != (len(self),) or labels.is_floating_point() or labels.min() < 0:
            raise ValueError(
                f"Expected labels as whole numbers from 0, one for each of {len(self)} images; found "
                f"{labels.dtype} of shape {tuple(labels.shape)}."
            )
        highest = int(labels.max())
        classes = self.classes or tuple(str(number) for number in range(highest + 1))
        if highest >= len(classes):
            raise ValueError(f"Expected labels below the number of classes, {len(classes)}; found {highest}.")
        # The class is frozen for its users; its own start may still put its fields in order.
        object.__setattr__(self, "labels", labels.to(device, torch.long))
        object.__setattr__(self, "classes", classes)


def named_labels(labels: Sequence[int | str] | np.ndarray | Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """Return the number of each label among the different ones in order, and their names.

    Examples
    --------
    >>> named_labels(["b", "a", "b"])
    (tensor([1, 0, 1]), ('a', 'b'))
    """
    array = labels.cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.ndim != 1 or array.dtype.kind not in "biuU":
        message = f"Expected labels (n,), whole numbers or names; found {array.dtype} of shape {array.shape}."
        raise ValueError(message)
    classes, numbers = np.unique(array, return_inverse=True)
    return torch.as_tensor(numbers), tuple(str(name) for name in classes)


def labels_by_folder(names: tuple[str, ...] | None) -> tuple[Tensor, tuple[str, ...]]:
    """Return labels from the first folder below the one that was read.

    Raises
    ------
    ValueError
        When the images do not come from a folder, or lie directly in it.
    """
    if names is None:
        raise ValueError("Expected a folder for labels='folder'; found an array. Give one label for each image.")
    loose = [name for name in names if "/" not in name]
    if loose:
        raise ValueError(
            f"Expected every image in a folder named after its class; found {len(loose)} outside, such as {loose[0]}."
        )
    return named_labels([name.split("/")[0] for name in names])


def numbers_of(indices: Tensor | Sequence[int], n: int) -> Tensor:
    """Return the positions of chosen images ``(k,)``; negative ones count from the end.

    Raises
    ------
    TypeError
        When they are not whole numbers.
    ValueError
        When an image does not exist.

    Examples
    --------
    >>> numbers_of([0, -1], 5)
    tensor([0, 4])
    """
    if isinstance(indices, Tensor):
        check_dense(indices, what="`indices`")
    rows = indices.detach() if isinstance(indices, Tensor) else torch.from_numpy(_whole(np.asarray(indices)))
    if rows.dtype == torch.bool and rows.shape == (n,):
        return rows.nonzero().squeeze(1)
    if rows.ndim != 1 or rows.dtype == torch.bool or rows.is_floating_point() or rows.is_complex():
        raise TypeError(f"Expected `indices` as whole numbers (k,); found shape {tuple(rows.shape)} of {rows.dtype}.")
    if len(rows) and not -n <= int(rows.min()) <= int(rows.max()) < n:
        raise ValueError(f"Expected `indices` from 0 to {n - 1}; found {int(rows.min())} to {int(rows.max())}.")
    return torch.where(rows < 0, rows + n, rows).long()


def _whole(array: np.ndarray) -> np.ndarray:
    """Return an array of whole numbers or truth values, in a type that torch knows."""
    if array.dtype.kind not in "iub" and array.size:
        raise TypeError(f"Expected `indices` as whole numbers (k,); found {array.dtype} of shape {array.shape}.")
    return array if array.dtype.kind == "b" else array.astype(np.int64)
