"""theislab's CellFlow, the distribution cellflow-tools, in an environment of its own: its import package has our name.

Settings are those of its notebooks (OT flow matching, attention over drugs, noise 0.5, epsilon 0.5, dropout .9 of the
condition), scaled to a processor: every width an eighth, 1,000 iterations of 256 cells at a rate of 1e-3 in place of
150,000 and more of 1,024, of which 20 are accumulated, at 5e-5. Drugs and contexts are one-hot.
"""

import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from anndata import AnnData

from benchmarks.perturbation.baselines import Answer, Method
from benchmarks.perturbation.folds import REP, Ask
from benchmarks.perturbation.scores import Predicted
from benchmarks.perturbation.sets import CONTROL
from cellflow.errors import MissingDependencyError

PYTHON, DEFAULT = "CELLFLOW_TOOLS_PYTHON", Path(".venv-cellflow-tools/bin/python")
"""Environment variable that names the Python that has cellflow-tools, and where it is otherwise."""
WORKER = Path(__file__).with_name("cellflow_tools_worker.py")


@dataclass(frozen=True)
class CellFlowTools:
    """theislab's CellFlow on sets without doses and times: names of treatments, and contexts."""

    iterations: int = 1000
    batch_size: int = 256

    def __call__(self, seen: AnnData, asks: Sequence[Ask], *, seed: int) -> list[Answer]:
        if {"dose", "time"} & set(seen.obs):
            return [None] * len(asks)
        python = cellflow_tools_python()
        most = max(name.count("+") for name in (*seen.obs["treatment"], *(ask.treatment for ask in asks))) + 1
        context = seen.obs["context"].to_numpy(str) if "context" in seen.obs else np.full(seen.n_obs, "all")
        with tempfile.TemporaryDirectory(prefix="cellflow-tools-") as name:
            folder = Path(name)
            parts = np.array([_parts(treatment, most) for treatment in seen.obs["treatment"]], dtype=str)
            x = np.asarray(seen.obsm[REP], np.float32)
            np.savez(folder / "seen.npz", x=x, parts=parts, context=context, asks=len(asks))
            for k, ask in enumerate(asks):
                start, wanted = np.asarray(ask.start.obsm[REP], np.float32), np.array(_parts(ask.treatment, most))
                np.savez(folder / f"ask{k}.npz", x=start, parts=wanted, context=np.array(ask.context or "all"))
            _work(python, name, *map(str, (self.iterations, self.batch_size, seed)))
            return [Predicted(np.load(folder / f"answer{k}.npy")) for k in range(len(asks))]


def cellflow_tools_python() -> Path:
    """Return the Python of the environment that holds cellflow-tools, or say how to make it."""
    python = Path(os.environ.get(PYTHON, DEFAULT))
    if not python.is_file():
        raise MissingDependencyError(
            f"cellflow-tools needs its own environment, and there is no {python}. Make it with `make peers`, or "
            f"name its Python in {PYTHON}."
        )
    return python


OTHERS: dict[str, Method] = {"cellflow-tools": CellFlowTools()}


def _parts(treatment: str, most: int) -> list[str]:
    names = treatment.split("+")
    return [*names, *[CONTROL] * (most - len(names))]


def _work(python: Path, *arguments: str) -> None:
    """Run the worker in the other environment, and raise with the last line of what it said when it fails."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [python, "-P", WORKER, *arguments], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise RuntimeError(f"cellflow-tools failed: {said[-1] if said else '?'}")
