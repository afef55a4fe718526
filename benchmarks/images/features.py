"""Train the small feature networks behind ``FD-<network>``: ``python -m benchmarks.images features task=mnist``.

Each learns to tell the classes of one data set apart. Its accuracy on images that it has not seen and the floor of its
distance (real against real) go into ``features.csv``; with ``--commit-table`` its weights go into the package. Seeded:
on one CPU thread the same weights come out again.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import cellflow as cf
from benchmarks.command import Several, Words, options
from benchmarks.rows import Row, Table
from cellflow.images import ImageSet

WEIGHTS = Path(cf.metrics.__file__).parent / "files"
RECIPE = cf.training.Recipe(weight_decay=1e-3, ema=0.99)
FLOOR_SIZE = 200  # images a side in the floor, at most


@dataclass(frozen=True)
class Classification:
    """Tell the class of each target image, given as a one-hot condition."""

    heads: ClassVar[tuple[str, ...]] = ()

    def __call__(self, field: nn.Module, batch: cf.Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        if batch.condition is None:
            raise ValueError("Expected batches with condition='labels'; found none.")
        return {"loss": cross_entropy(field(batch.x1), batch.condition)}

    def velocity(self, field: nn.Module) -> nn.Module:
        return field  # it stands for no velocity


class Task(NamedTuple):
    """What one network learns: images to train and to test, steps, and whether a mirrored image is as good."""

    load: Callable[[str], ImageSet]
    steps: int
    flip: bool


def _nuclei(split: str) -> ImageSet:
    """Return nuclei and masks in colour, in three sizes each."""
    parts, labels = [], []
    for kind, stained in (("fluorescence", False), ("histology", True)):
        images, masks = (cf.datasets.nuclei(kind, split, masks=masks).images for masks in (False, True))
        area = (masks > 127).flatten(1).float().mean(1)
        size = torch.bucketize(area, area.quantile(torch.tensor([1 / 3, 2 / 3])))
        repeats = 4 if stained and split == "train" else 1  # four times fewer of them
        for offset, part in ((3 if stained else 0, images), (6, masks)):
            parts += [part.expand(-1, 3, -1, -1)] * repeats
            labels += [size + offset] * repeats
    kinds, sizes = ("fluorescence", "histology", "mask"), ("small", "medium", "large")
    classes = tuple(f"{kind} {size}" for kind in kinds for size in sizes)
    return ImageSet(torch.cat(parts), torch.cat(labels), classes=classes)


def _silhouettes(split: str) -> ImageSet:
    return cf.datasets.cell_silhouettes().split(0.8, generator=cf.generator(0))[split == "test"]


TASKS = {
    "mnist": Task(cf.datasets.mnist, 2000, flip=False),
    "fashion": Task(cf.datasets.fashion_mnist, 2000, flip=True),
    "silhouettes": Task(_silhouettes, 600, flip=True),
    "nuclei": Task(_nuclei, 2000, flip=True),
    "cifar10_jpeg": Task(partial(cf.datasets.cifar10, jpeg=True), 4000, flip=True),
}


def train(task: Task, images: ImageSet, seed: int) -> cf.metrics.FeatureNetwork:
    """Return a network that was trained on images."""
    rng = cf.generator(seed=seed)
    with cf.seeds.seeded(rng):
        network = cf.metrics.FeatureNetwork(images.shape[0], len(images.classes or ()))
    batches = cf.pairing.image_batches(
        None, images, coupling="independent", condition="labels", batch_size=128, flip=task.flip, generator=rng
    )
    cf.training.fit(network, Classification(), batches, steps=task.steps, generator=rng, recipe=RECIPE)
    return network.eval()


def run(name: str, folder: Path, seed: int = 0) -> Row:
    """Train one network, write its weights, and return its row of the table."""
    task = TASKS[name]
    images, unseen = task.load("train"), task.load("test")
    start = time.perf_counter()
    network = train(task, images, seed)
    seconds, path = time.perf_counter() - start, folder / f"{name}.safetensors"
    folder.mkdir(exist_ok=True, parents=True)
    weights = {key: value.detach().contiguous() for key, value in network.state_dict().items()}
    save_file(weights, path, metadata={"classes": ",".join(images.classes or ())})
    path.chmod(0o644)  # save_file keeps it to its owner
    right = cf.metrics.features_of(unseen.scaled(), network).argmax(1).cpu() == unseen.one_hot().argmax(1).cpu()
    features = cf.metrics.features_of(unseen.scaled(), network.features)
    n = min(FLOOR_SIZE, len(unseen) // 2)
    floor = cf.metrics.real_floor(cf.metrics.frechet_distance, features, n=n, generator=cf.generator(seed=seed))
    return {
        "network": name, "classes": len(images.classes or ()), "train": len(images), "test": len(unseen),
        "accuracy": f"{right.double().mean():.4f}", "floor": f"{floor.value:.3g}", "floor_n": n, "steps": task.steps,
        "seconds": f"{seconds:.0f}", "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }  # fmt: skip


def main(words: Words = None) -> None:
    """Train the networks that are named, or all; write the table."""
    given = options("images features", __doc__, words, task=Several(TASKS))
    for name in given.task:
        row = run(name, WEIGHTS if given.commit_table else given.out / "weights")
        Table(given.out / "features.csv", ("network",)).put(row)
        print(row, flush=True)
