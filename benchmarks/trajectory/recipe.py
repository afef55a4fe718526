"""The published training recipe of protocol A, step by step, with our parts.

It differs from our own settings in nearly everything that costs time or accuracy: 80 % of the cells, a fresh matching
of 128 cells per interval and step, pairs drawn with replacement, blur 0.1, a plain network, a constant rate, the last
weights. Source: Tong et al. 2024 (TMLR; AISTATS, appendix F), and the code of both papers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

import cellflow as cf
from benchmarks.peers import PlainMLP
from benchmarks.trajectory.methods import Particles, RollOut, Training
from cellflow.couplings import Coupling
from cellflow.integrate import Fixed
from cellflow.seeds import seeded

SPLIT_SEED = 42


@dataclass(frozen=True)
class VelocityPerIndex:
    """Squared error of the velocity itself, so that an interval twice as long counts a quarter.

    Ours counts displacements, where all intervals weigh alike; this is the published loss.

    Parameters
    ----------
    sigma
        Blur around the straight line.
    """

    sigma: float = 0.1
    heads: ClassVar[tuple[str, ...]] = ()

    def __call__(self, field: nn.Module, batch: cf.Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Return ``{"loss": mean squared error}``."""
        start, duration = batch.span()
        s = torch.rand(len(batch.x0), generator=generator)
        noise = torch.randn(batch.x0.shape, generator=generator)
        x = torch.lerp(batch.x0, batch.x1, s[:, None]) + self.sigma * noise
        target = (batch.x1 - batch.x0) / duration[:, None]
        return {"loss": (field(start + s * duration, x, None) - target).square().mean()}

    def velocity(self, field: nn.Module) -> nn.Module:
        """Return ``field``: it is the velocity."""
        return field


@dataclass(frozen=True)
class Recipe:
    """The published recipe as a method.

    Parameters
    ----------
    coupling
        How the cells of a batch are paired.
    sigma
        Blur.
    steps
        Optimiser steps: 1000 epochs of 14 batches on the embryoid bodies.
    batch_size
        Cells of each snapshot in a step, and samples in the loss.
    width
        Of the network.
    learning_rate, weight_decay
        Of AdamW.
    train_share
        Part of each snapshot that is trained on, by a split with a fixed seed.

    Examples
    --------
    >>> clouds = tuple(np.random.default_rng(k).normal(size=(200, 2)).astype(np.float32) for k in range(3))
    >>> found = Recipe(cf.couplings.Exact(), steps=2).fit(Training(clouds, (0.0, 1.0, 3.0)), seed=42)
    >>> found.carry(clouds[0], 0.0, 1.0).evaluations
    100
    """

    coupling: Coupling
    sigma: float = 0.1
    steps: int = 14_000
    batch_size: int = 128
    width: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    train_share: float = 0.8

    def fit(self, training: Training, *, seed: int) -> RollOut:
        """Train on the training part of the split, and keep the last weights."""
        clouds = published_split(training, share=self.train_share)
        rng = cf.generator(seed=seed)
        with seeded(rng):
            field = PlainMLP(clouds[0].shape[1], self.width)
        constant = cf.training.Recipe(
            self.learning_rate, "constant", warmup=0, ema=0.0, clip=None, weight_decay=self.weight_decay
        )
        batches = IntervalBatches(clouds, training.times, self.coupling, self.batch_size, seed)
        history = cf.training.fit(
            field, VelocityPerIndex(self.sigma), batches, steps=self.steps, generator=rng, recipe=constant
        )

        def carry(x: np.ndarray, start: float, stop: float) -> Particles:
            found = cf.integrate.ode(
                field, torch.from_numpy(x), start=start, stop=stop, solver=Fixed("euler", steps=100)
            )
            return Particles(found.x[-1].numpy(), evaluations=found.evaluations)

        return RollOut(carry, {"steps": self.steps, "last_loss": history["loss"][-1], "cells": "80 % of the training"})


@dataclass(frozen=True)
class IntervalBatches:
    """Batches as published: each step matches a batch of every interval afresh, and takes a random one for each sample.

    Parameters
    ----------
    clouds
        Training cells of each snapshot.
    times
        Their times.
    coupling
        How two batches are paired; pairs are drawn with replacement.
    batch_size
        Cells of each snapshot in a step.
    seed
        Of cells, pairs and intervals.
    """

    clouds: tuple[Tensor, ...]
    times: tuple[float, ...]
    coupling: Coupling
    batch_size: int
    seed: int

    def __iter__(self) -> Iterator[cf.Batch]:
        """Yield batches without end, the same ones at every iteration."""
        rng = cf.generator(seed=self.seed)
        n, intervals = self.batch_size, len(self.clouds) - 1
        knots = torch.tensor(self.times)
        for cells in self.cells(rng):
            pairs = [self._pairs(x0, x1, rng) for x0, x1 in pairwise(cells)]
            x0, x1 = (torch.stack(side) for side in zip(*pairs, strict=True))
            chosen, everyone = torch.randint(intervals, (n,), generator=rng), torch.arange(n)
            yield cf.Batch(x0[chosen, everyone], x1[chosen, everyone], knots[chosen], knots[chosen + 1])

    def cells(self, rng: torch.Generator) -> Iterator[list[Tensor]]:
        """Yield a batch of each snapshot, in shuffled order without repetition until the smallest one is used up."""
        n = self.batch_size
        steps = min(map(len, self.clouds)) // n
        if steps < 1:
            few = min(map(len, self.clouds))
            raise ValueError(f"The published recipe takes batches of {n} cells; a snapshot has {few} in its split.")
        while True:
            orders = [torch.randperm(len(cloud), generator=rng) for cloud in self.clouds]
            for step in range(steps):
                part = slice(step * n, (step + 1) * n)
                yield [cloud[order[part]] for cloud, order in zip(self.clouds, orders, strict=True)]

    def _pairs(self, x0: Tensor, x1: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        if isinstance(self.coupling, cf.couplings.Independent):
            return x0, x1  # in the order drawn
        i, j = self.coupling(x0, x1).sample(len(x0), generator=rng)
        return x0[i], x1[j]


def published_split(training: Training, *, share: float = 0.8) -> tuple[Tensor, ...]:
    """Return the training part of each snapshot: a random share, by the same seed for every run.

    Examples
    --------
    >>> training = Training((np.zeros((10, 2), np.float32), np.ones((20, 2), np.float32)), (0.0, 1.0))
    >>> [len(cloud) for cloud in published_split(training)]
    [8, 16]
    """
    parts = []
    for cloud in training.clouds:
        order = torch.randperm(len(cloud), generator=cf.generator(seed=SPLIT_SEED))
        parts.append(torch.from_numpy(cloud)[order[: int(share * len(cloud))]])
    return tuple(parts)
