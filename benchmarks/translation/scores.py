"""Scores of a translation: how real the outputs look, how far they went, what they kept."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import cellflow as cf
from benchmarks.images.rows import Row
from benchmarks.translation.task import Direction, Task
from cellflow.metrics import (
    Interval,
    against_shuffled,
    bootstrap,
    energy_distance,
    feature_network,
    features_of,
    frechet_distance,
    kernel_distance,
    mask_dice,
    neighbours,
    real_floor,
    structural_similarity,
    target_accuracy,
    transport_cost,
)

REPEATS = 100
"""Draws of a bootstrap interval."""
SUBSET = 100
"""Images a side in a kernel distance, at most."""


@dataclass(frozen=True, eq=False)
class Judge:
    """Scores translations of the same inputs against the same real images.

    Parameters
    ----------
    task, direction
        What is translated, and which way.
    inputs, real
        Test images a side ``(n, c, h, w)`` from -1 to 1; in a task with partners, row k of both shows one object.
    classes
        The class that each output should have ``(n,)``, where the direction asks for that of its source.
    """

    task: Task
    direction: Direction
    inputs: Tensor
    real: Tensor
    classes: Tensor | None

    @staticmethod
    def of(task: Task, direction: Direction, n: int, seed: int) -> "Judge":
        """Return a judge with at most ``n`` test images a side."""
        sets, _ = task.chosen(direction, n, cf.generator(seed=seed))
        return Judge(task, direction, sets.source.scaled(), sets.target.scaled(), sets.source.labels)

    def __call__(self, outputs: Tensor, seed: int) -> Row:
        """Return all scores of the outputs ``(n, c, h, w)``, in the order of the inputs."""
        rng = cf.generator(seed=seed)
        row: Row = {"n": len(outputs), "network": self.task.network}
        row |= self._distances(outputs, rng)
        row |= _with_interval("cost", transport_cost(self.inputs, outputs), rng)
        row |= _with_interval("kept", self.direction.kept(self.inputs, outputs), rng)
        shuffled = against_shuffled(self.direction.kept, self.inputs, outputs, generator=rng)
        row |= {"kept_by": self.direction.kept_by, "kept_shuffled": shuffled.shuffled}
        row |= {
            "ignores_input": shuffled.ignores_input,
            "ssim": float(structural_similarity(self.inputs, outputs).mean()),
        }
        return row | self._accuracy(outputs, rng) | self._partner(outputs)

    def floor(self, seed: int) -> Row:
        """Return how far apart two samples of real images are, of as many as the outputs, or as there are."""
        rng = cf.generator(seed=seed)
        pool = self._features(torch.cat([self.others(len(self.real) * 4, seed), self.real]))
        n = min(len(self.real), len(pool) // 2)
        found = real_floor(frechet_distance, pool, n=n, generator=rng)
        kid = real_floor(self._kernel(seed), pool, n=n, generator=rng)
        return {"n": n, "network": self.task.network, **_interval("fd", found), "kid": kid.value}

    def others(self, n: int, seed: int) -> Tensor:
        """Return at most ``n`` real target images of the training set, drawn without a look at the inputs."""
        end = self.task.train[0 if self.direction.backward else 1]
        return end.scaled(torch.randperm(len(end), generator=cf.generator(seed=seed))[:n])

    def _features(self, images: Tensor) -> Tensor:
        return features_of(self.task.view(images), feature_network(self.task.network))

    def _kernel(self, seed: int) -> Callable[[Tensor, Tensor], float]:
        def distance(x: Tensor, y: Tensor) -> float:
            size = min(SUBSET, len(x), len(y))
            return kernel_distance(x, y, generator=cf.generator(seed=seed), subset_size=size).mean

        return distance

    def _distances(self, outputs: Tensor, rng: torch.Generator) -> Row:
        found, real = self._features(outputs), self._features(self.real)
        near = neighbours(found, real)
        fd = bootstrap(lambda x: frechet_distance(x, real), found, generator=rng, repeats=REPEATS)
        row: Row = {**_interval("fd", fd), "kid": self._kernel(0)(found, real)}
        row |= {"precision": near.precision, "recall": near.recall, "coverage": near.coverage}
        if self.direction.descriptors is None:
            return row
        mine, theirs = (self.direction.descriptors(images).double() for images in (outputs, self.real))
        spread = theirs.std(0)
        measured = bootstrap(
            lambda x: float(energy_distance(x / spread, theirs / spread)), mine, generator=rng, repeats=REPEATS
        )
        return row | _interval("measured", measured)

    def _accuracy(self, outputs: Tensor, rng: torch.Generator) -> Row:
        wanted, classes = self.direction.wanted, self.classes if self.direction.same_class else None
        if wanted is None and classes is None:
            return {}
        network = feature_network(self.task.network)

        def logits(images: Tensor) -> Tensor:
            found = network.logits(images)
            if wanted is None:
                return found
            mask = torch.zeros(found.shape[1], dtype=torch.bool)
            mask[list(wanted)] = True
            return torch.stack([found[:, mask].amax(1), found[:, ~mask].amax(1)], dim=1)

        right = target_accuracy(self.task.view(outputs), logits, 0 if classes is None else classes)
        return _with_interval("accuracy", right, rng)

    def _partner(self, outputs: Tensor) -> Row:
        """Compare outputs with the images that truly belong to the inputs, where these are known."""
        if not self.task.partnered:
            return {}
        row: Row = {
            "partner_mse": float(transport_cost(self.real, outputs).mean()),
            "partner_ssim": float(structural_similarity(self.real, outputs).mean()),
        }
        if self.direction.outline is not None:
            masks = (self.direction.outline(images) for images in (self.real, outputs))
            row["partner_dice"] = float(mask_dice(*masks).mean())
        return row


def _with_interval(name: str, values: Tensor, rng: torch.Generator) -> Row:
    """Return the mean of a score of each image, with its bootstrap interval."""
    return _interval(name, bootstrap(torch.mean, values.double(), generator=rng, repeats=REPEATS))


def _interval(name: str, found: Interval) -> Row:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
