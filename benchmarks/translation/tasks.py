"""The tasks: cells and their treatment, nuclei and their outlines, digits of every colour, clothes."""

from collections.abc import Callable
from dataclasses import replace

import torch

import cellflow as cf
from benchmarks.translation.colours import coloured, same_hue
from benchmarks.translation.task import Direction, Sets, Task, measured, outlines, overlap, resized, stained, value
from cellflow.images import ImageSet, read_images
from cellflow.metrics import foreground, structural_similarity


def shapes() -> Task:
    """Outlines of untreated cells to those of cells under cytochalasin D, at 32 x 32."""
    cells = read_images(cf.datasets.cell_silhouettes(), size=32)
    # The split on which the feature network was trained: its verdict on test cells is on cells that it has not seen.
    train, test = (
        Sets(part.only("control"), part.only("cytd")) for part in cells.split(0.8, generator=cf.generator(seed=0))
    )
    way = Direction("control -> cytd", "SSIM", structural_similarity, wanted=(1,), descriptors=measured)
    return Task(
        train, test, "silhouettes", (way,), view=resized(64), flip=True,
    )  # fmt: skip


def masks() -> Task:
    """Outlines of nuclei to their fluorescence and back; the true pairs are kept for scoring."""
    nuclei, drawn = (cf.datasets.nuclei("fluorescence", "train", masks=masks) for masks in (False, True))
    first = _half_of_the_sources(nuclei)
    train = Sets(drawn.take(first.nonzero().squeeze(1)), nuclei.take((~first).nonzero().squeeze(1)))
    test = Sets(*(cf.datasets.nuclei("fluorescence", "test", masks=masks) for masks in (True, False)))
    forward = Direction(
        "mask -> fluorescence", "Dice", overlap(outlines, foreground), wanted=(0, 1, 2), outline=foreground
    )
    back = Direction(
        "fluorescence -> mask", "Dice", overlap(foreground, outlines), (6, 7, 8), outline=outlines, backward=True
    )
    return Task(
        train, test, "nuclei", (forward, back), partnered=True, flip=True, features=(_as_numbers(outlines), _object),
    )  # fmt: skip


def stains() -> Task:
    """Fluorescent nuclei to stained ones."""
    train, test = (
        Sets(_in_colour(cf.datasets.nuclei("fluorescence", split)), cf.datasets.nuclei("histology", split))
        for split in ("train", "test")
    )
    way = Direction("fluorescence -> histology", "Dice", overlap(foreground, stained), wanted=(3, 4, 5))
    return Task(
        train, test, "nuclei", (way,), flip=True, features=(_object, _as_numbers(stained)),
    )  # fmt: skip


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
    return Task(
        train, test, "mnist", ways, view=value,
    )  # fmt: skip


def clothes() -> Task:
    """Clothes to digits."""
    train, test = (
        Sets(_renamed(cf.datasets.fashion_mnist(split)), cf.datasets.mnist(split)) for split in ("train", "test")
    )
    way = Direction("Fashion -> MNIST", "SSIM", structural_similarity, same_class=True)
    return Task(
        train, test, "mnist", (way,),
    )  # fmt: skip


ABOUT = {
    "shapes": "Outlines of 261 untreated cells and 130 under cytochalasin D (real, 32 x 32); 45 of each to test. "
    "Distances in features of the images scaled up to 64 x 64. The sets are small: trust the intervals, not the third "
    "digit.",
    "masks": "Outlines of nuclei and their fluorescence, 32 x 32. The outlines and the nuclei to train on come from "
    "different microscope images, so no true pair is among them; those of the test images are known, and used for "
    "scoring alone. One model, run both ways.",
    "stains": "8769 fluorescent nuclei and 1934 stained ones, 32 x 32 in colour, of at least two stains; split by "
    "microscope image. Kept: the overlap of the bright nucleus with the dark one.",
    "coloured": "5958 twos and 6131 threes of MNIST, 32 x 32, each in a random hue by the formula of the published "
    "reference (not exactly HSV). Kept: 1 - difference of hues / 180 degrees, 0.5 by chance. FD-mnist sees brightness "
    "only. One model, run both ways.",
    "fashion": "60,000 clothes and 60,000 digits, 28 x 28. Right class: garment number k became digit k, 0.1 by "
    "chance; only a method that is told the classes can do better.",
}
TASKS: dict[str, Callable[[], Task]] = {
    "shapes": shapes,
    "masks": masks,
    "stains": stains,
    "coloured": digits_in_colour,
    "fashion": clothes,
}


def _half_of_the_sources(nuclei: ImageSet) -> torch.Tensor:
    """Return which nuclei belong to a random half of the microscope images."""
    names = nuclei.names or ()
    known = sorted(set(names))
    order = torch.randperm(len(known), generator=cf.generator(seed=0)).tolist()
    chosen = {known[k] for k in order[: len(known) // 2]}
    return torch.tensor([name in chosen for name in names])


def _in_colour(images: ImageSet) -> ImageSet:
    return replace(images, images=images.images.expand(-1, 3, -1, -1).contiguous())


def _renamed(clothes: ImageSet) -> ImageSet:
    return replace(clothes, classes=tuple("0123456789"))


def _as_numbers(outline: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda images: outline(images).any(1, keepdim=True).float()


def _object(images: torch.Tensor) -> torch.Tensor:
    return foreground(images).float()
