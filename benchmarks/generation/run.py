"""One data set: every method is trained once and scored on its way, and at its end with every number of evaluations."""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import cellflow as cf
from benchmarks.generation.methods import METHODS, Checkpoint, Method, generate, train
from benchmarks.images.rows import RESULTS, Row, keep, read, written
from benchmarks.images.sizes import Size
from cellflow.images import ImageSet
from cellflow.metrics import bootstrap, feature_network, features_of, frechet_distance, kernel_distance, neighbours

KEY = ("dataset", "method", "sampler", "evaluations", "train_steps", "seed", "size")
COLUMNS = (
    *KEY, "distance", "n", "fd", "fd_low", "fd_high", "kid", "precision", "recall", "batch", "train_seconds",
    "sample_seconds", "settings",
)  # fmt: skip
EVALUATIONS = (2, 4, 8, 16, 32)
ON_THE_WAY = 16
"""Evaluations with which a model in training is scored."""
SHARES = (0.0625, 0.125, 0.25, 0.5, 1.0)
"""Parts of the training after which it is scored."""
FLOOR = "real against real"
SAMPLES = Path("runs") / "benchmarks" / "generation"
SHOWN = 12
_REPEATS = 100
_DRAWS = 10
"""Samples of real images that the floor is the mean of."""
_SUBSET = 100


@dataclass(frozen=True)
class Dataset:
    """Images to learn from and to compare with, and the network that compares; None for the published FID."""

    load: Callable[[str], ImageSet]
    network: str | None


DATASETS = {
    "mnist": Dataset(cf.datasets.mnist, "mnist"),
    "fashion": Dataset(cf.datasets.fashion_mnist, "fashion"),
    "cifar10": Dataset(cf.datasets.cifar10, None),
}


@dataclass(frozen=True, eq=False)
class Judge:
    """Scores generated images by their features, against those of real images that nothing was trained on."""

    network: str
    real: Tensor

    @staticmethod
    def of(network: str, real: ImageSet) -> "Judge":
        """Return a judge with these real images."""
        return Judge(network, features_of(real.scaled(), feature_network(network)))

    def __call__(self, images: Tensor) -> Row:
        """Return all scores of images ``(n, c, h, w)`` from -1 to 1."""
        x, y = features_of(images, feature_network(self.network)), self.real
        rng = cf.generator(seed=0)
        fd = bootstrap(lambda some: frechet_distance(some, y), x, generator=rng, repeats=_REPEATS)
        kid = kernel_distance(x, y, generator=rng, subset_size=min(_SUBSET, len(x), len(y))).mean
        near = neighbours(x, y[: len(x)])
        row: Row = {"distance": f"FD-{self.network}", "n": len(images), "kid": kid}
        row |= {"fd": fd.value, "fd_low": fd.low, "fd_high": fd.high}
        return row | {"precision": near.precision, "recall": near.recall}

    def floor(self, samples: list[Tensor]) -> Row:
        """Return the scores of samples of real images: the mean distance, between the least and the largest."""
        network = feature_network(self.network)
        found = [frechet_distance(features_of(one, network), self.real) for one in samples]
        return self(samples[0]) | {"fd": sum(found) / len(found), "fd_low": min(found), "fd_high": max(found)}


@dataclass(frozen=True, eq=False)
class Inception:
    """Gives the FID as published for CIFAR-10: against all training images."""

    real: ImageSet

    def __call__(self, images: Tensor) -> Row:
        """Return the FID of images ``(n, c, h, w)`` from -1 to 1."""
        weights = cf.datasets.inception_weights()
        found = cf.metrics.fid(
            cf.images.to_bytes(images), self.real.images, weights=weights, reference=self.real.source
        )
        return {"distance": "FID", "n": len(images), "fd": found.value}

    def floor(self, samples: list[Tensor]) -> Row:
        """Return the score of the first sample; all of them would take long."""
        return self(samples[0])


def settings(method: Method, size: Size, seed: int) -> str:
    """Return a digest of everything that a row depends on."""
    return hashlib.sha256(repr((method, replace(size, device="cpu"), SHARES, seed)).encode()).hexdigest()[:10]


def run(
    name: str, methods: list[str], size: Size, *, size_name: str, seed: int, out: Path = RESULTS
) -> Iterator[list[Row]]:
    """Yield the floor's row, then those of each method that the file lacks; write them there.

    Raises
    ------
    FileNotFoundError
        When the images, or for CIFAR-10 the weights of the FID, are nowhere.
    """
    dataset, path = DATASETS[name], out / "generation.csv"
    images = dataset.load("train")
    judge = _judge(dataset, images)
    about = {"dataset": name, "seed": seed, "size": size_name}
    rng = cf.generator(seed=seed)
    some = [images.scaled(torch.randperm(len(images), generator=rng)[: size.images]) for _ in range(_DRAWS)]
    floor = about | {"method": FLOOR} | judge.floor(some)
    keep(path, [floor], columns=COLUMNS, key=KEY)
    _keep_samples(SAMPLES / name / "real.npy", some[0])
    yield [floor]
    for chosen in methods:
        known = about | {"method": chosen, "settings": settings(METHODS[chosen], size, seed)}
        if any(all(old[column] == written(value) for column, value in known.items()) for old in read(path)):
            continue
        rows = [known | row for row in _scored(chosen, images, judge, size, seed, SAMPLES / name / f"{chosen}.npy")]
        keep(path, rows, columns=COLUMNS, key=KEY)
        yield rows


def _judge(dataset: Dataset, images: ImageSet) -> Judge | Inception:
    if dataset.network is None:
        cf.datasets.inception_weights()  # now, rather than after days of training
        return Inception(images)
    return Judge.of(dataset.network, dataset.load("test"))


def _scored(
    chosen: str, images: ImageSet, judge: Judge | Inception, size: Size, seed: int, path: Path
) -> Iterator[Row]:
    method = METHODS[chosen]
    noise = torch.randn((size.images, *images.shape), generator=cf.generator(seed=seed + 1)).to(size.device)
    marks = tuple(sorted({max(1, round(share * size.steps)) for share in SHARES}))
    for model in train(images, method, size, marks, seed):
        last = model.steps == marks[-1]
        for sampler, evaluations in _ways(method, last=last):
            row, found = _score(model, method, noise, sampler, evaluations, judge)
            yield row | {"batch": size.batch}
            if last and (sampler, evaluations) == (method.samplers[0], EVALUATIONS[-1]):
                _keep_samples(path, found)


def _ways(method: Method, *, last: bool) -> list[tuple[str, int]]:
    """Return how a model is sampled: once on the way, with every sampler and number of evaluations at the end."""
    if not last:
        return [(method.samplers[0], ON_THE_WAY)]
    return [(sampler, evaluations) for sampler in method.samplers for evaluations in EVALUATIONS]


def _score(
    model: Checkpoint, method: Method, noise: Tensor, sampler: str, evaluations: int, judge: Judge | Inception
) -> tuple[Row, Tensor]:
    start = time.perf_counter()
    found = generate(model.field, method, noise, sampler=sampler, evaluations=evaluations)
    seconds = {"sample_seconds": time.perf_counter() - start, "train_seconds": model.seconds}
    about = {"sampler": sampler, "evaluations": evaluations, "train_steps": model.steps}
    return about | seconds | judge(found), found


def _keep_samples(path: Path, images: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, cf.images.to_bytes(images[:SHOWN]).numpy())


def samples(name: str) -> dict[str, Tensor]:
    """Return a few images of each method, real ones last."""
    stems = [stem for stem in (*METHODS, "real") if (SAMPLES / name / f"{stem}.npy").is_file()]
    return {stem: cf.images.scaled(torch.from_numpy(np.load(SAMPLES / name / f"{stem}.npy"))) for stem in stems}
