"""CellRank in an environment of its own: plans go there in files, and fates come back in files."""

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.fate.sets import Case
from cellflow.couplings import Coupling
from cellflow.errors import MissingDependencyError

PYTHON, DEFAULT = "CELLRANK_PYTHON", Path(".venv-doors/bin/python")
"""Environment variable that names the Python of the environment that holds CellRank, and where it is otherwise."""
WORKER = Path(__file__).with_name("cellrank_worker.py")


@dataclass(frozen=True)
class CellRank:
    """CellRank's RealTimeKernel on plans, with its settings for time, and fates toward the groups of the last day."""

    coupling: Coupling

    def shares(self, case: Case, *, seed: int) -> np.ndarray:
        from benchmarks.fate.methods import plans_of

        python, course = cellrank_python(), case.course
        with tempfile.TemporaryDirectory(prefix="cellrank-") as folder:
            given = {f"plan{k}": plan.dense().numpy() for k, plan in enumerate(plans_of(case, self.coupling))}
            time = np.repeat(course.times, [len(cloud) for cloud in course.clouds])
            given |= {"x": np.concatenate(course.clouds), "time": time, "ends": case.ends.astype(str)}
            np.savez(Path(folder, "given.npz"), allow_pickle=False, names=np.array(case.names), **given)
            environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
            done = subprocess.run(
                [python, WORKER, folder], capture_output=True, text=True, env=environment, check=False
            )
            if done.returncode:
                said = done.stderr.strip().splitlines()
                raise RuntimeError(f"CellRank failed: {said[-1] if said else 'it said nothing'}")
            found = np.load(Path(folder, "fates.npy"))
        starts = np.cumsum([0, *(len(cloud) for cloud in course.clouds[:-1])])
        return np.concatenate([found[start + asked] for start, asked in zip(starts, case.asked, strict=False)])


def cellrank_python() -> Path:
    """Return the Python of the environment that holds CellRank.

    Raises
    ------
    MissingDependencyError
        Where there is none; the message says how to make it.
    """
    python = Path(os.environ.get(PYTHON, DEFAULT))
    if not python.is_file():
        raise MissingDependencyError(
            f"CellRank needs its own environment, and there is no {python}. Make it with `make doors`, or name "
            f"its Python in {PYTHON}."
        )
    return python
