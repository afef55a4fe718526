"""Cells before and under a drug that moves a protein into the nucleus: untreated wells to treated ones, BBBC013.

The images are dark, and as bright as their variance is large: the root of the intensities evens both out.
"""

import hashlib
from dataclasses import replace
from functools import cache

from torch import Tensor

import cellflow as cf
from benchmarks.images import features
from benchmarks.images.tasks import Direction, Sets, Task, overlap, resized
from cellflow.images import ImageSet
from cellflow.metrics import foreground
from cellflow.metrics.features import TrainedNetwork

SIDE = 32
"""Pixels: half of the file's, a fourth of the time."""
PROTEIN, DNA = 0, 1
"""The channels."""
CARRIES = 9000
"""Grey levels of the protein in all of a cell at 64 x 64, above which it is said to carry any. Of the labelled cells
all with the protein around the nucleus do, 93 % of those with it inside, and 37 % of those labelled as without."""
KINDS = ("without the protein", "with the protein")
STEPS = 400
"""Of the classifier of treatments."""


def nucleus(images: Tensor) -> Tensor:
    """Return where the nucleus is ``(n, 1, h, w)``: bright in the channel of DNA."""
    return foreground(2 * intensities(images)[:, DNA : DNA + 1] - 1)


def nuclear_share(images: Tensor) -> Tensor:
    """Return which share of the protein of each cell lies in its nucleus ``(n, 1)``; 0 of none."""
    protein = intensities(images)[:, PROTEIN].flatten(1)
    within = (protein * nucleus(images).flatten(1)).sum(1)
    return (within / protein.sum(1).clamp(min=1e-6))[:, None]


def intensities(images: Tensor) -> Tensor:
    """Return the intensities from 0 to 1 that images show the root of."""
    return ((images + 1) / 2).square()


def by_protein(cells: ImageSet) -> ImageSet:
    """Return cells in two classes: without the protein, and with it."""
    total = cells.images[:, PROTEIN].float().flatten(1).sum(1)
    return replace(cells, labels=(total > CARRIES).long(), classes=KINDS)


@cache
def treatments() -> TrainedNetwork:
    """Return a network that tells control from treated cells, trained on wells A; the same every time."""
    cells = _prepared(cf.datasets.wortmannin("train"))
    network = features.train(features.Task(cf.datasets.wortmannin, STEPS, flip=True), cells, seed=0)
    weights = b"".join(value.detach().numpy().tobytes() for value in network.state_dict().values())
    return TrainedNetwork("wortmannin", cells.classes or (), hashlib.sha256(weights).hexdigest(), network)


def task() -> Task:
    """Untreated cells to treated ones, in two channels; wells A to train, wells B to test."""
    ends = []
    for split in ("train", "test"):
        cells = cf.datasets.wortmannin(split)
        ends.append(Sets(*(_prepared(by_protein(cells.only(name))) for name in ("control", "wortmannin"))))
    way = Direction(
        "control -> wortmannin", "nuclear Dice", overlap(nucleus, nucleus), wanted=(1,), descriptors=nuclear_share,
        described_by="nuclear share of the protein",
    )  # fmt: skip
    return Task(ends[0], ends[1], "wortmannin", (way,), flip=True, trained=treatments, classes=True)


def _prepared(cells: ImageSet) -> ImageSet:
    """Return the root of the intensities, at fewer pixels."""
    shares = resized(SIDE)((cells.scaled() + 1) / 2).clamp(0, 1)
    return replace(cells, images=cf.images.to_bytes(2 * shares.sqrt() - 1))
