"""Other packages as methods, where they are installed: torchcfm beside us, otpfm in an environment of its own."""

import os
import subprocess
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cellflow as cf
from benchmarks.peers import Loop, global_seed, matcher
from benchmarks.trajectory.methods import Particles, RollOut, Training
from benchmarks.trajectory.recipe import IntervalBatches, published_split
from cellflow.errors import MissingDependencyError
from cellflow.integrate import Fixed

OTPFM_PYTHON = "OTPFM_PYTHON"
"""Environment variable: the Python of the environment that holds otpfm."""
OTPFM_DEFAULT = Path(".venv-otpfm/bin/python")
WORKER = Path(__file__).with_name("otpfm_worker.py")


@dataclass(frozen=True)
class Torchcfm:
    """torchcfm with the published settings: its matcher, and the training loop of its runner.

    Parameters
    ----------
    exact
        Whether pairs are matched by optimal transport, or taken as drawn.
    sigma, steps, batch_size
        As published.
    """

    exact: bool = True
    sigma: float = 0.1
    steps: int = 14_000
    batch_size: int = 128

    def fit(self, training: Training, *, seed: int) -> RollOut:
        """Train on the training part of the published split, and keep the last weights."""
        clouds = published_split(training)
        with global_seed(seed):
            loop = self.loop(clouds, training.times, seed=seed)
            loop.train(self.steps)
        return RollOut(euler(loop.field), {"steps": self.steps, "cells": "80 % of the training"})

    def loop(self, clouds: tuple[torch.Tensor, ...], times: tuple[float, ...], *, seed: int) -> Loop:
        """Return the untrained loop. Draws from the global state of torch and NumPy, as torchcfm does."""
        matched = matcher("exact" if self.exact else "independent", self.sigma)
        cells = IntervalBatches(clouds, times, cf.couplings.Independent(), self.batch_size, seed).cells(
            cf.generator(seed=seed)
        )

        def draw() -> tuple[torch.Tensor, ...]:
            """Match every interval, and take a random one for each sample."""
            columns = []
            for (x0, x1), (start, stop) in zip(pairwise(next(cells)), pairwise(times), strict=True):
                t, x, u = matched.sample_location_and_conditional_flow(x0, x1)
                columns.append((start + t * (stop - start), x, u / (stop - start)))
            chosen, everyone = torch.randint(len(columns), (self.batch_size,)), torch.arange(self.batch_size)
            return tuple(torch.stack(column)[chosen, everyone] for column in zip(*columns, strict=True))

        return Loop(clouds[0].shape[1], draw)


@dataclass(frozen=True)
class Otpfm:
    """otpfm in an environment of its own: its quick start, on chains of cells along exact plans.

    The network, the potentials and their curriculum are those of its README and of its command line's defaults; the
    last averaged weights are kept, and cells are carried by its velocity at equal times.

    Parameters
    ----------
    epochs, batch_size, chains
        Passes through so many chains of cells, one cell of every training snapshot each, and chains per step.
    """

    epochs: int = 300
    batch_size: int = 256
    chains: int = 4000

    def fit(self, training: Training, *, seed: int) -> RollOut:
        """Train in the other environment."""
        python = otpfm_python()
        folder = tempfile.TemporaryDirectory(prefix="otpfm-")
        chains = chains_along_plans(training, self.chains, seed=seed)
        span = training.times[-1] - training.times[0]
        knots = (np.array(training.times) - training.times[0]) / span
        np.savez(Path(folder.name, "fit.npz"), chains=chains, knots=knots)
        settings = (str(self.epochs), str(self.batch_size), str(seed))
        _work(python, "fit", folder.name, *settings)

        def carry(x: np.ndarray, start: float, stop: float) -> Particles:
            times = (np.array([start, stop]) - training.times[0]) / span
            np.savez(Path(folder.name, "carry.npz"), x=x, times=times)
            _work(python, "carry", folder.name)
            return Particles(np.load(Path(folder.name, "carried.npy")), evaluations=100)

        return RollOut(carry, {"epochs": self.epochs})


def otpfm_python() -> Path:
    """Return the Python of the environment that holds otpfm.

    Raises
    ------
    MissingDependencyError
        When there is none, with the commands that make it.
    """
    python = Path(os.environ.get(OTPFM_PYTHON, OTPFM_DEFAULT))
    if not python.is_file():
        raise MissingDependencyError(
            f"otpfm needs an environment of its own, and there is no {python}. Make it with `make peers`, that is "
            f"`python3 -m venv .venv-otpfm && .venv-otpfm/bin/pip install -c constraints.txt otpfm`, or name its "
            f"Python in {OTPFM_PYTHON}."
        )
    return python


def chains_along_plans(training: Training, n: int, *, seed: int) -> np.ndarray:
    """Return ``(n, snapshots, d)`` chains: a cell of the first snapshot, its partner in the next, and so on.

    Examples
    --------
    >>> cloud = np.arange(6, dtype=np.float32).reshape(3, 2)
    >>> chains = chains_along_plans(Training((cloud, cloud + 1), (0.0, 1.0)), 4, seed=0)
    >>> (chains[:, 1] - chains[:, 0]).min(), chains.shape
    (np.float32(1.0), (4, 2, 2))
    """
    rng, clouds = cf.generator(seed=seed), [torch.from_numpy(cloud) for cloud in training.clouds]
    rows = [torch.randint(len(clouds[0]), (n,), generator=rng)]
    for x0, x1 in pairwise(clouds):
        rows.append(_partners(cf.couplings.Exact()(x0, x1), rows[-1], rng))
    return torch.stack([cloud[row] for cloud, row in zip(clouds, rows, strict=True)], dim=1).numpy()


def _partners(plan: Any, rows: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Draw a target of each source, in proportion to its row of a sparse plan."""
    i, j, masses = plan.pairs
    first = torch.argsort(i, stable=True)
    i, j, until = i[first], j[first], masses[first].cumsum(0)
    begin = torch.cat([until.new_zeros(1), until])[torch.searchsorted(i, rows)]
    end = until[torch.searchsorted(i, rows, right=True) - 1]
    level = begin + (end - begin) * torch.rand(len(rows), generator=rng, dtype=until.dtype)
    return j[torch.searchsorted(until, level).clamp(max=len(j) - 1)]


def euler(field: torch.nn.Module) -> Any:
    """Return the roll-out of a field on the protocol's own clock: 100 Euler steps."""

    def carry(x: np.ndarray, start: float, stop: float) -> Particles:
        found = cf.integrate.ode(field, torch.from_numpy(x), start=start, stop=stop, solver=Fixed("euler", steps=100))
        return Particles(found.x[-1].numpy(), evaluations=found.evaluations)

    return carry


def _work(python: Path, *arguments: str) -> None:
    """Run the worker in the other environment.

    Raises
    ------
    RuntimeError
        With the last line of what it said, when it fails.
    """
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([python, WORKER, *arguments], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"otpfm failed: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else '?'}")
