"""The tasks: images to be generated; cells and their treatment, nuclei and their outlines, digits, clothes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

import cellflow as cf
from benchmarks.images.looks import Images, coloured, measured, outlines, overlap, resized, same_hue, stained, value
from cellflow.images import ImageSet, read_images
from cellflow.metrics import foreground, structural_similarity


class Dataset(NamedTuple):
    """Images to be generated, by split, and the network that judges them; None for the published FID."""

    load: Callable[[str], ImageSet]
    network: str | None


DATASETS = {
    "mnist": Dataset(cf.datasets.mnist, "mnist"),
    "fashion": Dataset(cf.datasets.fashion_mnist, "fashion"),
    "cifar10": Dataset(cf.datasets.cifar10, None),
    "cifar10_jpeg": Dataset(partial(cf.datasets.cifar10, jpeg=True), "cifar10_jpeg"),
}


class Sets(NamedTuple):
    """Both sets of images of a translation: to train on, or to be tested on."""

    source: ImageSet
    target: ImageSet


@dataclass(frozen=True, eq=False)
class Direction:
    """One way to translate, and what a good translation keeps and becomes."""

    name: str
    kept_by: str  # what the score of preservation is called
    kept: Callable[[Tensor, Tensor], Tensor]  # from inputs and outputs to one number each, 1 where everything is kept
    wanted: tuple[int, ...] | None = None  # classes that an output should be taken for; None where there is none
    same_class: bool = False  # whether an output should have the class of its own source instead
    outline: Images | None = None  # where the object is, for the overlap with the true partner
    descriptors: Images | None = None  # a few numbers of each image that people would measure
    backward: bool = False  # whether this way runs from target to source


@dataclass(frozen=True, eq=False)
class Task:
    """Two sets of images without pairs, and how translations between them are judged."""

    train: Sets
    test: Sets
    network: str  # whose features distances are measured in
    directions: tuple[Direction, ...]  # all are scored; the first is the one that is trained
    view: Images = lambda images: images  # what the network is shown of an image
    partnered: bool = False  # whether test image k of the source and of the target show the same object
    flip: bool = False  # whether mirrored images are as good
    features: tuple[Images, Images] | None = None  # what couplings may compare instead of pixels, a side each

    def chosen(self, direction: Direction, n: int, generator: torch.Generator) -> tuple[Sets, Tensor]:
        """Return at most ``n`` test images a side, as many of each, and the rows of the inputs."""
        ends = self.test[::-1] if direction.backward else self.test
        n = min(n, *(len(end) for end in ends))
        rows = [torch.randperm(len(end), generator=generator)[:n] for end in ends]
        if self.partnered:
            rows[1] = rows[0]
        return Sets(*(end.take(some) for end, some in zip(ends, rows, strict=True))), rows[0]


def shapes() -> Task:
    """Outlines of untreated cells to those of cells under cytochalasin D, at 32 x 32."""
    cells = read_images(cf.datasets.cell_silhouettes(), size=32)
    # The split on which the feature network was trained: its verdict on test cells is on cells that it has not seen.
    train, test = (
        Sets(part.only("control"), part.only("cytd")) for part in cells.split(0.8, generator=cf.generator(seed=0))
    )
    way = Direction("control -> cytd", "SSIM", structural_similarity, wanted=(1,), descriptors=measured)
    return Task(train, test, "silhouettes", (way,), view=resized(64), flip=True)


def masks() -> Task:
    """Outlines of nuclei to their fluorescence and back; the true pairs are kept for scoring."""
    nuclei, drawn = (cf.datasets.nuclei("fluorescence", "train", masks=masks) for masks in (False, True))
    known = sorted(set(nuclei.names or ()))  # the microscope images: a random half gives outlines, the other nuclei
    half = {known[k] for k in torch.randperm(len(known), generator=cf.generator(seed=0))[: len(known) // 2].tolist()}
    first = torch.tensor([name in half for name in nuclei.names or ()])
    train = Sets(drawn.take(first.nonzero().squeeze(1)), nuclei.take((~first).nonzero().squeeze(1)))
    test = Sets(*(cf.datasets.nuclei("fluorescence", "test", masks=masks) for masks in (True, False)))
    forward = Direction(
        "mask -> fluorescence", "Dice", overlap(outlines, foreground), wanted=(0, 1, 2), outline=foreground
    )
    back = Direction(
        "fluorescence -> mask", "Dice", overlap(foreground, outlines), (6, 7, 8), outline=outlines, backward=True
    )
    features = _as_numbers(outlines), _object
    return Task(train, test, "nuclei", (forward, back), partnered=True, flip=True, features=features)


def stains() -> Task:
    """Fluorescent nuclei to stained ones."""
    parts = []
    for split in ("train", "test"):
        grey = cf.datasets.nuclei("fluorescence", split)
        colours = replace(grey, images=grey.images.expand(-1, 3, -1, -1).contiguous())
        parts.append(Sets(colours, cf.datasets.nuclei("histology", split)))
    way = Direction("fluorescence -> histology", "Dice", overlap(foreground, stained), wanted=(3, 4, 5))
    return Task(parts[0], parts[1], "nuclei", (way,), flip=True, features=(_object, _as_numbers(stained)))


def digits_in_colour() -> Task:
    """Coloured twos to coloured threes and back, the published protocol."""
    train, test = (
        Sets(*(coloured(cf.datasets.mnist(split).only(digit), generator=cf.generator(seed=0)) for digit in "23"))
        for split in ("train", "test")
    )
    ways = (
        Direction("2 -> 3", "same hue", same_hue, wanted=(3,)),
        Direction("3 -> 2", "same hue", same_hue, wanted=(2,), backward=True),
    )
    return Task(train, test, "mnist", ways, view=value)


def clothes() -> Task:
    """Clothes to digits: garment number k should become digit k."""
    train, test = (
        Sets(replace(cf.datasets.fashion_mnist(split), classes=tuple("0123456789")), cf.datasets.mnist(split))
        for split in ("train", "test")
    )
    way = Direction("Fashion -> MNIST", "SSIM", structural_similarity, same_class=True)
    return Task(train, test, "mnist", (way,))


TASKS: dict[str, Callable[[], Task]] = {
    "shapes": shapes, "masks": masks, "stains": stains, "coloured": digits_in_colour, "fashion": clothes,
}  # fmt: skip
"""The translations; ``translation.md`` beside this file says what each of them is."""


def _as_numbers(outline: Images) -> Images:
    return lambda images: outline(images).any(1, keepdim=True).float()


def _object(images: Tensor) -> Tensor:
    return foreground(images).float()
