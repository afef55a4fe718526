"""otpfm as a method, in an environment of its own: its quick start, on chains of cells along exact plans."""

import os
import subprocess
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

import cellflow as cf
from benchmarks.trajectory.methods import Particles, RollOut, Training
from cellflow.errors import MissingDependencyError

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
            f"otpfm needs an environment of its own, and there is no {python}. Make it with `make peers`, that is "
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
