"""Scores of images: how real they look; and of a translation, how far it went and what it kept."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

import cellflow as cf
from benchmarks.images.tasks import Dataset, Direction, Task
from benchmarks.rows import Row
from cellflow import metrics
from cellflow.images import ImageSet
from cellflow.metrics import bootstrap, feature_network, features_of, frechet_distance
from cellflow.metrics import structural_similarity as similar
from cellflow.metrics.features import ENCODER, Features, TrainedNetwork
from cellflow.report.image_scores import features_for

REPEATS, SUBSET, DRAWS = 100, 100, 10
"""Draws of a bootstrap interval; images a side in a kernel distance, at most; draws of the floor and its controls."""
FLOOR = "real against real"
COMPONENTS_OF = 2000
"""Images whose principal components are taken, at most."""


def distances(x: Tensor, real: Tensor, rng: torch.Generator) -> Row:
    """Return how far the features ``(n, d)`` of some images are from those of real ones, in every distance."""
    near = metrics.neighbours(x, real[: len(x)])
    fd = bootstrap(lambda some: frechet_distance(some, real), x, generator=rng, repeats=REPEATS)
    near_ = {"precision": near.precision, "recall": near.recall, "coverage": near.coverage}
    return {**interval("fd", fd), "kid": kernel(x, real), **near_}


def kernel(x: Tensor, y: Tensor, seed: int = 0) -> float:
    """Return the kernel distance of features, of subsets that are the same every time."""
    size = min(SUBSET, len(x), len(y))
    return metrics.kernel_distance(x, y, generator=cf.generator(seed=seed), subset_size=size).mean


def interval(name: str, found: metrics.Interval) -> Row:
    """Return a score with its interval."""
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def spread(name: str, found: Sequence[float]) -> Row:
    """Return the mean of a score over draws, between the least and the largest."""
    return {name: sum(found) / len(found), f"{name}_low": min(found), f"{name}_high": max(found)}


def averaged(name: str, values: Tensor, rng: torch.Generator) -> Row:
    """Return the mean of a score of each image, with its bootstrap interval."""
    return interval(name, bootstrap(torch.mean, values.double(), generator=rng, repeats=REPEATS))


def fid(images: Tensor, real: ImageSet) -> float:
    """Return the FID as published, of images from -1 to 1; needs the Inception weights."""
    weights = cf.datasets.inception_weights()
    return metrics.fid(cf.images.to_bytes(images), real.images, weights=weights, reference=real.source).value


def spoiled(images: Tensor, seed: int) -> dict[str, Tensor]:
    """Return images made worse in known ways, by the names of their rows, as bytes would have them."""
    found = metrics.spoiled(images, generator=cf.generator(seed=seed))
    return {
        f"{name} grey levels" if name.startswith("noise") else name: cf.images.scaled(cf.images.to_bytes(some))
        for name, some in found.items()
    }


class Generated:
    """Scores generated images ``(n, c, h, w)`` from -1 to 1 by their features, against those of real test images.

    Where a data set has no network: by the FID as published, against all training images.
    """

    def __init__(self, dataset: Dataset, train: ImageSet) -> None:
        self.network, self.train = dataset.network, train
        if self.network is None:
            cf.datasets.inception_weights()  # now, rather than after days of training
        self.images = dataset.load("test").scaled()
        if self.network is not None:
            self.real = self._features(self.images)

    def __call__(self, images: Tensor) -> Row:
        sharp = {"high_frequency": metrics.high_frequency_ratio(images, self.images)}
        if self.network is None:
            return {"distance": "FID", "n": len(images), "fd": fid(images, self.train), **sharp}
        found = distances(self._features(images), self.real, cf.generator(seed=0))
        del found["coverage"]
        return {"distance": f"FD-{self.network}", "n": len(images), **found, **sharp}

    def baselines(self, samples: list[Tensor]) -> Iterator[Row]:
        """Yield the floor, and the scores of the same samples spoiled; of the FID the floor alone."""
        yield {"method": FLOOR, **self.floor(samples)}
        worse = [] if self.network is None else [spoiled(one, seed) for seed, one in enumerate(samples)]
        for name in worse[0] if worse else ():
            yield {"method": name, **self.floor([one[name] for one in worse])}

    def floor(self, samples: list[Tensor]) -> Row:
        """Return the scores of samples of real images: the mean distance, between the least and the largest.

        The FID is that of the first sample: all of them would take long.
        """
        if self.network is None:
            return self(samples[0])
        found = [frechet_distance(self._features(one), self.real) for one in samples]
        return self(samples[0]) | {"fd": sum(found) / len(found), "fd_low": min(found), "fd_high": max(found)}

    def _features(self, images: Tensor) -> Tensor:
        return features_of(images, feature_network(str(self.network)))


@dataclass(frozen=True, eq=False)
class Translated:
    """Scores translations of the same inputs against the same real images, both ``(n, c, h, w)`` from -1 to 1.

    In a task with partners, row k of both shows one object. ``classes`` ``(n,)`` are those of the sources.
    """

    task: Task
    direction: Direction
    inputs: Tensor
    real: Tensor
    classes: Tensor | None
    encoder: bool = False  # whether distances are measured in features of photographs too

    @staticmethod
    def of(task: Task, direction: Direction, n: int, seed: int, *, encoder: bool = False) -> "Translated":
        """Return a judge with at most ``n`` test images a side."""
        source, target = task.chosen(direction, n, cf.generator(seed=seed))[0]
        return Translated(task, direction, source.scaled(), target.scaled(), source.labels, encoder)

    @cached_property
    def network(self) -> TrainedNetwork:
        """The network of the task."""
        return self.task.judge()

    @cached_property
    def features(self) -> dict[str, Features]:
        """What images are compared by, by the column of the distance: the network of the task, and others."""
        seen = features_for(None, self.others(COMPONENTS_OF, 0)).features
        found: dict[str, Features] = {"fd": lambda images: self.network(self.task.view(images)), "fd_pca": seen}
        return found | ({"fd_effnet": feature_network(ENCODER)} if self.encoder else {})

    @cached_property
    def target(self) -> dict[str, Tensor]:
        """The features of the real test images."""
        return {name: features_of(self.real, function) for name, function in self.features.items()}

    def __call__(self, outputs: Tensor, seed: int) -> Row:
        """Return all scores of the outputs ``(n, c, h, w)``, in the order of the inputs."""
        rng, kept = cf.generator(seed=seed), self.direction.kept
        row: Row = {"n": len(outputs), "network": self.task.network}
        found = {name: features_of(outputs, function) for name, function in self.features.items()}
        row |= distances(found.pop("fd"), self.target["fd"], rng)
        for name, x in found.items():
            row |= interval(name, bootstrap(self._to(name), x, generator=rng, repeats=REPEATS))
        row["high_frequency"] = metrics.high_frequency_ratio(outputs, self.real)
        row |= self._described(outputs, rng)
        row |= averaged("cost", metrics.transport_cost(self.inputs, outputs), rng)
        row |= averaged("kept", kept(self.inputs, outputs), rng)
        shuffled = metrics.against_shuffled(kept, self.inputs, outputs, generator=rng)
        row |= {"kept_by": self.direction.kept_by, "kept_shuffled": shuffled.shuffled}
        row |= {"ignores_input": shuffled.ignores_input, "ssim": float(similar(self.inputs, outputs).mean())}
        return row | self._accuracy(outputs, rng) | self._partner(outputs)

    def controls(self, seed: int) -> Iterator[Row]:
        """Yield how far apart two samples of real images are, as many as the outputs, and spoiled ones from real ones.

        All by the same draws: the mean, between the least and the largest.
        """
        pool = torch.cat([self.others(len(self.real) * 2, seed), self.real])
        n, rng = min(len(self.real), len(pool) // 2), cf.generator(seed=seed)
        draws = [torch.randperm(len(pool), generator=rng)[: 2 * n].split(n) for _ in range(DRAWS)]
        real = {name: features_of(pool, function) for name, function in self.features.items()}
        known = self._descriptors(pool)
        for method, images in {FLOOR: pool, **spoiled(pool, seed)}.items():
            row: Row = {"method": method, "n": n, "network": self.task.network}
            for name, function in self.features.items():
                x = real[name] if method == FLOOR else features_of(images, function)
                row |= spread(name, [frechet_distance(x[one], real[name][other]) for one, other in draws])
                if name == "fd":
                    pairs = [(x[one], real[name][other]) for one, other in draws]
                    row["kid"] = sum(kernel(*pair, seed) for pair in pairs) / DRAWS
                    near = [metrics.neighbours(*pair) for pair in pairs]
                    row |= {
                        k: sum(getattr(one, k) for one in near) / DRAWS for k in ("precision", "recall", "coverage")
                    }
            sharp = [metrics.high_frequency_ratio(images[one], pool[other]) for one, other in draws]
            row |= spread("high_frequency", sharp)
            if self.direction.descriptors is not None:
                mine = known if method == FLOOR else self._descriptors(images)
                apart = [metrics.energy_distance(mine[one], known[other]) for one, other in draws]
                row |= {"described_by": self.direction.described_by, **spread("measured", apart)}
            test = images[-len(self.real) :]  # alone: the classifier has seen the others
            yield row | (self._accuracy(test, rng) if self.direction.wanted else {})

    def others(self, n: int, seed: int) -> Tensor:
        """Return at most ``n`` real target images of the training set, drawn without a look at the inputs."""
        end = self.task.train[0 if self.direction.backward else 1]
        return end.scaled(torch.randperm(len(end), generator=cf.generator(seed=seed))[:n])

    def train_images(self, seed: int) -> Tensor:
        """Return at most ``COMPONENTS_OF`` images of the side that translations start from, of the training set."""
        end = self.task.train[1 if self.direction.backward else 0]
        return end.scaled(torch.randperm(len(end), generator=cf.generator(seed=seed))[:COMPONENTS_OF])

    def fid(self, outputs: Tensor) -> float:
        """Return the FID as published for this protocol: against all test images, however few."""
        return fid(outputs, self.task.test[0 if self.direction.backward else 1])

    def _to(self, name: str) -> Callable[[Tensor], float]:
        return lambda x: frechet_distance(x, self.target[name])

    def _descriptors(self, images: Tensor) -> Tensor:
        """Return what is measured of images ``(n, k)``, in units of the spread among real ones."""
        describe = self.direction.descriptors
        if describe is None:
            return torch.zeros(len(images), 0, dtype=torch.float64)
        return describe(images).double() / describe(self.real).double().std(0)

    def _described(self, outputs: Tensor, rng: torch.Generator) -> Row:
        if self.direction.descriptors is None:
            return {}
        mine, theirs = self._descriptors(outputs), self._descriptors(self.real)
        found = bootstrap(lambda x: metrics.energy_distance(x, theirs), mine, generator=rng, repeats=REPEATS)
        return {"described_by": self.direction.described_by, **interval("measured", found)}

    def _accuracy(self, outputs: Tensor, rng: torch.Generator) -> Row:
        wanted, classes = self.direction.wanted, self.classes if self.direction.same_class else None
        if wanted is None and classes is None:
            return {}

        def logits(images: Tensor) -> Tensor:
            found = self.network.logits(images)
            if wanted is None:
                return found
            mask = torch.isin(torch.arange(found.shape[1]), torch.tensor(wanted))
            return torch.stack([found[:, mask].amax(1), found[:, ~mask].amax(1)], dim=1)

        right = metrics.target_accuracy(self.task.view(outputs), logits, 0 if classes is None else classes)
        return averaged("accuracy", right, rng)

    def _partner(self, outputs: Tensor) -> Row:
        """Compare outputs with the images that truly belong to the inputs, where these are known."""
        if not self.task.partnered:
            return {}
        cost = float(metrics.transport_cost(self.real, outputs).mean())
        row: Row = {"partner_mse": cost, "partner_ssim": float(similar(self.real, outputs).mean())}
        if self.direction.outline is not None:
            masks: Iterable[Tensor] = (self.direction.outline(images) for images in (self.real, outputs))
            row["partner_dice"] = float(metrics.mask_dice(*masks).mean())
        return row
