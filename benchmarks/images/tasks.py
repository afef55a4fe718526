"""The tasks: images to be generated; cells and their treatment, nuclei and their outlines, digits, clothes."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

import cellflow as cf
from cellflow.images import ImageSet, read_images
from cellflow.metrics import feature_network, foreground, structural_similarity
from cellflow.metrics.features import TrainedNetwork

Images = Callable[[Tensor], Tensor]
SEXTANTS = (("top", "up", "low"), ("down", "top", "low"), ("low", "top", "up"),
            ("low", "down", "top"), ("up", "low", "top"), ("top", "low", "down"))  # fmt: skip
"""Which level red, green and blue have in each sixth of the circle of hues."""


def coloured(digits: ImageSet, *, generator: torch.Generator, side: int = 32) -> ImageSet:
    """Return digits of ``side`` pixels, each with a random hue and full saturation.

    The sextant is the *nearest* multiple of 60 degrees, but the place within it is counted from the one *below*: so
    these are not exactly the hues of HSV. The published protocol has it so, and published distances depend on it.

    Source: Gushchin et al. 2023 (ENOT), the protocol of its coloured digits.
    """
    grey = read_images(digits, size=side)
    hues = torch.rand(len(grey), generator=generator) * 360
    levels = grey.images[:, 0].float()
    shares = (hues % 60 / 60)[:, None, None]
    parts = {"top": levels, "up": levels * shares, "down": levels * (1 - shares), "low": torch.zeros_like(levels)}
    sixth = (hues / 60).round().long() % 6
    names = [[SEXTANTS[k][channel] for k in range(6)] for channel in range(3)]
    channels = [torch.stack([parts[name] for name in column])[sixth, torch.arange(len(hues))] for column in names]
    images = torch.stack(channels, dim=1).round().to(torch.uint8)
    return ImageSet(images, grey.labels, grey.names, grey.classes, f"{digits.source or 'digits'}, coloured")


def hues_of(images: Tensor) -> Tensor:
    """Return the hue of the mean colour of each image, in degrees ``(n,)``."""
    red, green, blue = ((images + 1) / 2).clamp(0, 1).flatten(2).mean(2).unbind(1)
    return torch.rad2deg(torch.atan2(math.sqrt(3) * (green - blue), 2 * red - green - blue)) % 360


def same_hue(inputs: Tensor, outputs: Tensor) -> Tensor:
    """Return how near the hues of input and output are: 1 for one hue, 0 for opposite ones, 0.5 by chance."""
    apart = (hues_of(inputs) - hues_of(outputs)).abs()
    return 1 - torch.minimum(apart, 360 - apart) / 180


def resized(side: int) -> Images:
    """Return a function that brings images to a side of so many pixels."""
    return lambda images: interpolate(images, size=(side, side), mode="bilinear", antialias=True)


def value(images: Tensor) -> Tensor:
    """Return the brightness of coloured images, as a digit was before it was coloured: 28 pixels, grey."""
    return resized(28)(images.amax(1, keepdim=True))


def outlines(images: Tensor) -> Tensor:
    """Return what is white in outlines."""
    return images > 0


def stained(images: Tensor) -> Tensor:
    """Return where a stained nucleus is: darker than what is around it."""
    return cf.metrics.foreground(images, dark=True)


def overlap(first: Images, second: Images) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a score: the overlap (Dice) of the object in an input with the object in its output."""
    return lambda inputs, outputs: cf.metrics.mask_dice(first(inputs), second(outputs))


def measured(images: Tensor) -> Tensor:
    """Return area (share of the image), perimeter (in sides of the image) and circularity of outlines ``(n, 3)``.

    The perimeter counts the edges of pixels, times pi / 4, which is right on average over directions; circularity is
    ``4 pi area / perimeter^2``.
    """
    inside = pad((images > 0).any(1), (1, 1, 1, 1)).float()
    side = images.shape[-1]
    area = inside.flatten(1).mean(1) * (side + 2) ** 2 / side**2
    edges = sum(inside.diff(dim=axis).abs().flatten(1).sum(1) for axis in (1, 2))
    perimeter = torch.as_tensor(edges) * torch.pi / 4 / side
    circularity = 4 * torch.pi * area / perimeter.square().clamp(min=1e-6)
    return torch.stack([area, perimeter, circularity.clamp(max=2)], dim=1)


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
    described_by: str = "area, perimeter, circularity"  # what these are called
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
    classes: bool = False  # whether both sides are in classes within which images may be paired
    trained: Callable[[], TrainedNetwork] | None = None  # makes the network where none of that name is shipped
    features: tuple[Images, Images] | None = None  # what couplings may compare instead of pixels, a side each

    def judge(self) -> TrainedNetwork:
        """Return the network in whose features distances are measured."""
        return feature_network(self.network) if self.trained is None else self.trained()

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
