"""Methods of others, as they were published: the training recipe of protocol A, and otpfm.

The recipe, with torchcfm's matching or with ours, differs from our own settings in nearly everything that costs time or
accuracy: 80 % of the cells, a fresh matching of 128 cells per interval and step, pairs drawn with replacement, blur
0.1, a plain network, a constant rate, the last weights; and the squared error of the velocity itself, so that an
interval twice as long counts a quarter. Source: Tong et al. 2024 (TMLR; AISTATS, appendix F), and the code of both.

otpfm runs in an environment of its own: its quick start, on chains of cells along exact plans.
"""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import cellflow as cf
from benchmarks.peers import Loop, global_seed, matcher
from benchmarks.trajectory.methods import Carry, Particles, RollOut, Training
from cellflow.couplings import Coupling
from cellflow.errors import MissingDependencyError
from cellflow.integrate import Fixed

SPLIT_SEED, SHARE = 42, 0.8


@dataclass(frozen=True)
class Recipe:
    """The published recipe as a method: 1000 epochs of 14 batches on the embryoid bodies.

    ``coupling`` pairs the cells of a batch; ``None``: torchcfm does, by optimal transport.
    """

    coupling: Coupling | None = None
    sigma: float = 0.1
    steps: int = 14_000
    batch_size: int = 128

    def fit(self, training: Training, *, seed: int) -> RollOut:
        """Train on the training part of the split, and keep the last weights."""
        clouds = published_split(training)
        with global_seed(seed):
            loop = self.loop(clouds, training.times, seed=seed)
            loop.train(self.steps)
        facts = {"steps": self.steps, "last_loss": loop.loss.item(), "cells": "80 % of the training"}
        return RollOut(euler(loop.field), facts)

    def loop(self, clouds: tuple[Tensor, ...], times: tuple[float, ...], *, seed: int) -> Loop:
        """Return the untrained loop. It draws from the global state of torch and NumPy, as torchcfm does."""
        match, cells = self.matching(seed), epochs(clouds, self.batch_size, seed)

        def draw() -> tuple[Tensor, ...]:
            """Match every interval, and take a random one for each sample."""
            columns = []
            for (x0, x1), (start, stop) in zip(pairwise(next(cells)), pairwise(times), strict=True):
                t, x, velocity = match(x0, x1)
                columns.append((start + t * (stop - start), x, velocity / (stop - start)))
            chosen, everyone = torch.randint(len(columns), (self.batch_size,)), torch.arange(self.batch_size)
            return tuple(torch.stack(column)[chosen, everyone] for column in zip(*columns, strict=True))

        return Loop(clouds[0].shape[1], draw)

    def matching(self, seed: int) -> Any:
        """Return what pairs two batches and draws a blurred point on the line of each pair."""
        coupling, rng = self.coupling, cf.generator(seed=seed)
        if coupling is None:
            return matcher("exact", self.sigma).sample_location_and_conditional_flow

        def match(x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            """Return times ``(n,)`` from 0 to 1, points and velocities ``(n, d)``."""
            if coupling.uses_states:  # otherwise in the order drawn
                i, j = coupling(x0, x1).sample(len(x0), generator=rng)
                x0, x1 = x0[i], x1[j]
            t = torch.rand(len(x0))
            return t, torch.lerp(x0, x1, t[:, None]) + self.sigma * torch.randn(x0.shape), x1 - x0

        return match


def epochs(clouds: tuple[Tensor, ...], n: int, seed: int) -> Iterator[list[Tensor]]:
    """Yield ``n`` cells of each snapshot, in shuffled order without repetition until the smallest one is used up."""
    rng, few = cf.generator(seed=seed), min(map(len, clouds))
    if few < n:
        raise ValueError(f"The published recipe takes batches of {n} cells; a snapshot has {few} in its split.")
    while True:
        orders = [torch.randperm(len(cloud), generator=rng) for cloud in clouds]
        for first in range(0, few - n + 1, n):
            yield [cloud[order[first : first + n]] for cloud, order in zip(clouds, orders, strict=True)]


def published_split(training: Training) -> tuple[Tensor, ...]:
    """Return the training part of each snapshot: a random share, by the same seed for every run."""
    parts = []
    for cloud in training.clouds:
        order = torch.randperm(len(cloud), generator=cf.generator(seed=SPLIT_SEED))
        parts.append(torch.from_numpy(cloud)[order[: int(SHARE * len(cloud))]])
    return tuple(parts)


def euler(field: nn.Module) -> Carry:
    """Return the roll-out of a field on the protocol's own clock: 100 Euler steps."""

    def carry(x: np.ndarray, start: float, stop: float) -> Particles:
        found = cf.integrate.ode(field, torch.from_numpy(x), start=start, stop=stop, solver=Fixed("euler", steps=100))
        return Particles(found.x[-1].numpy(), evaluations=found.evaluations)

    return carry


PYTHON, DEFAULT = "OTPFM_PYTHON", Path(".venv-otpfm/bin/python")
"""Environment variable that names the Python of the environment that holds otpfm, and where it is otherwise."""
WORKER = Path(__file__).with_name("otpfm_worker.py")


@dataclass(frozen=True)
class Otpfm:
    """Network, potentials and their curriculum as in otpfm's README and its command line's defaults; last weights."""

    epochs: int = 300
    batch_size: int = 256
    chains: int = 4000

    def fit(self, training: Training, *, seed: int) -> RollOut:
        """Train in the other environment."""
        python = otpfm_python()
        folder, (first, *_, last) = tempfile.TemporaryDirectory(prefix="otpfm-"), training.times
        chains, knots = chains_along_plans(training, self.chains, seed=seed), np.array(training.times) - first
        np.savez(Path(folder.name, "fit.npz"), chains=chains, knots=knots / (last - first))
        _work(python, "fit", folder.name, *map(str, (self.epochs, self.batch_size, seed)))

        def carry(x: np.ndarray, start: float, stop: float) -> Particles:
            times = (np.array([start, stop]) - first) / (last - first)
            np.savez(Path(folder.name, "carry.npz"), x=x, times=times)
            _work(python, "carry", folder.name)
            return Particles(np.load(Path(folder.name, "carried.npy")), evaluations=100)

        return RollOut(carry, {"epochs": self.epochs})


def otpfm_python() -> Path:
    """Return the Python of the environment that holds otpfm, or say how to make it."""
    python = Path(os.environ.get(PYTHON, DEFAULT))
    if not python.is_file():
        raise MissingDependencyError(
            f"otpfm needs its own environment, and there is no {python}. Make it with `make peers`, that is "
            f"`python3 -m venv .venv-otpfm && .venv-otpfm/bin/pip install -c constraints.txt otpfm`, or name its "
            f"Python in {PYTHON}."
        )
    return python


def chains_along_plans(training: Training, n: int, *, seed: int) -> np.ndarray:
    """Return ``(n, snapshots, d)`` chains: a cell of the first snapshot, its partner in the next, and so on."""
    rng, clouds = cf.generator(seed=seed), [torch.from_numpy(cloud) for cloud in training.clouds]
    rows = [torch.randint(len(clouds[0]), (n,), generator=rng)]
    for x0, x1 in pairwise(clouds):
        each = cf.couplings.Exact()(x0, x1).dense()[rows[-1]]  # of each cell: its row of the plan
        rows.append(torch.multinomial(each, 1, generator=rng)[:, 0])
    return torch.stack([cloud[row] for cloud, row in zip(clouds, rows, strict=True)], dim=1).numpy()


def _work(python: Path, *arguments: str) -> None:
    """Run the worker in the other environment, and raise with the last line of what it said when it fails."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([python, WORKER, *arguments], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"otpfm failed: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else '?'}")
