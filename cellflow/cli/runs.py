"""The folder of a run: its settings, its environment and its results."""

import json
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cellflow.cells.store_files import any_text
from cellflow.cli import documents
from cellflow.cli.former_rules import modern_settings
from cellflow.errors import CheckpointError
from cellflow.estimators.loading import DESCRIPTION
from cellflow.estimators.schema import check_described
from cellflow.files import committed
from cellflow.training.checkpoint import STATE
from cellflow.training.kinds import TEXT, Kind, check_record, is_number, number, table
from cellflow.training.reading import read_json
from cellflow.training.search import begun

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

CONFIG, FACTS, HISTORY, REPORT, CELLS = "config.yaml", "run.json", "history.csv", "report.html", "cells.h5ad"
VALIDATION = ("validation", "validation_new_cells", "validation_couplings")
"""Names of the tables of a validation, each kept as CSV."""
PACKAGES = ("cellflow-torch", "torch", "numpy", "scipy", "anndata", "scanpy", "POT", "lightning-fabric")


def new_folder(out: str | None, *, command: str, resume: bool, job: int | None = None) -> Path:
    """Return the folder of a new run, or of the one to resume.

    Parameters
    ----------
    out
        The folder; ``None`` for ``runs/<command>-<date>``.
    command
        Name of the command.
    resume
        Whether to resume the run in ``out``.
    job
        Number of the job in a sweep.

    Raises
    ------
    FileExistsError
        When the folder already holds a run, and ``resume`` is false.
    CheckpointError
        When there is nothing to resume.

    Examples
    --------
    >>> import tempfile
    >>> new_folder(f"{tempfile.mkdtemp()}/first", command="fit", resume=False).name
    'first'
    """
    stamp = f"{command}-{datetime.now():%Y-%m-%d-%H%M%S}"
    folder = Path("runs") / stamp if out is None else Path(out)
    folder = folder if job is None else folder / str(job)
    if resume:
        if not begun(folder):
            raise CheckpointError(f"Nothing to resume in {folder}: no {STATE}. Name the run's folder with `out=`.")
    elif begun(folder) or (folder / DESCRIPTION).exists():
        raise FileExistsError(
            f"{folder} already holds a run. Choose another `out=`, or add `resume=true` to resume it."
        )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def existing_folder(model: str) -> Path:
    """Return the folder of a finished run.

    Raises
    ------
    CheckpointError
        When it holds no model.
    """
    folder = Path(model)
    if not (folder / DESCRIPTION).is_file():
        cure = f"It was interrupted: resume with `out={folder} resume=true`." if begun(folder) else "Fit one first."
        raise CheckpointError(f"No fitted model in {folder}. {cure}")
    return folder


def estimator_of(folder: Path) -> str:
    """Return the name of the estimator that a run holds.

    Raises
    ------
    CheckpointError
        When the description of the model cannot be read.
    """
    about = read_json(folder / DESCRIPTION)
    check_described(about, what=f"{folder / DESCRIPTION} is damaged or was not written by cellflow")
    return str(about["estimator"])


@contextmanager
def tidied(folder: Path) -> Iterator[None]:
    """Remove what remains of a run that ended before anything was saved: its settings, and an otherwise empty folder.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with tidied(folder):
    ...     write_settings(folder, {"steps": 3})
    >>> folder.exists()
    False
    """
    try:
        yield
    finally:
        if not begun(folder) and not (folder / DESCRIPTION).exists():
            for name in (CONFIG, CELLS):
                (folder / name).unlink(missing_ok=True)
            with suppress(OSError):  # something of the user's is in it
                folder.rmdir()


class Stopwatch:
    """Wall time since it was made.

    Examples
    --------
    >>> Stopwatch().seconds() >= 0
    True
    """

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def seconds(self) -> float:
        """Return the seconds since the start."""
        return time.perf_counter() - self._start


MAY_CHANGE = {
    "resume", "progress", "validate", "report", "keep_aside", "n_seeds", "device", "devices", "threads", "out", "steps",
    "preview",
    "save_every", "save_minutes", "feature_network", "target_class", "solver",
    "overlap",  # without effect on a fit, and taken by one in earlier versions
}  # fmt: skip
"""Settings that a resumed run may have changed."""


def write_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the resolved settings of a run as YAML."""
    text = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)
    with committed(folder / CONFIG) as partial:
        partial.write_text(text, encoding="utf-8")


def read_settings(folder: Path) -> dict[str, Any]:
    """Return what `write_settings` wrote, under the present names of settings.

    Raises
    ------
    CheckpointError
        When it is missing or unreadable.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_settings(folder, {"steps": 3})
    >>> read_settings(folder)
    {'steps': 3}
    """
    try:
        return modern_settings(documents.read(folder / CONFIG))
    except ValueError as error:
        raise CheckpointError(f"The settings of the run cannot be read. {error}") from error


def refuse_changes(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raise if a resumed run has other settings than at its start, and name them.

    Raises
    ------
    ValueError
        With each setting, then and now.
    """
    then = read_settings(folder)
    changed = {key: (then[key], now) for key, now in settings.items() if key in then and not _same(then[key], now)}
    lines = [f"{key}: {before} became {now}" for key, (before, now) in changed.items() if key not in MAY_CHANGE]
    if lines:
        raise ValueError(
            f"{folder} was started with other settings ({'; '.join(lines)}). Resume with the same ones, or choose "
            "another `out=`."
        )


OF_PROCESSES = "accumulate"
"""The setting of a recipe that compensates for another number of processes: the training itself compares both."""


def _same(then: Any, now: Any) -> bool:
    """Whether settings are equal; in a group, only those that existed when the run was started."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        return all(name in now and _same(value, now[name]) for name, value in then.items() if name != OF_PROCESSES)
    return bool(then == now)


def write_facts(folder: Path, *, command: str, seed: int, seconds: Mapping[str, float], device: str) -> None:
    """Write the environment of the run: versions, seed, wall time and machine."""
    facts: dict[str, Any] = {
        "command": command,
        "seed": seed,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "device": device,
        "finished": f"{datetime.now():%Y-%m-%d %H:%M:%S}",
        "python": platform.python_version(),
        "versions": versions(),
    }
    with committed(folder / FACTS) as partial:
        partial.write_text(json.dumps(facts, indent=2), encoding="utf-8")


def write_cells(adata: "AnnData", path: Path) -> None:
    """Write cells as ``.h5ad``; the file is written whole or not at all."""
    with committed(path) as partial, any_text():
        adata.write_h5ad(partial)


def write_table(table: "pd.DataFrame", path: Path) -> None:
    """Write a table as CSV, without its index; the file is written whole or not at all."""
    with committed(path) as partial:
        table.to_csv(partial, index=False)


def read_facts(folder: Path) -> dict[str, Any]:
    """Return what `write_facts` wrote.

    Raises
    ------
    CheckpointError
        When the file is missing or damaged.
    """
    found: dict[str, Any] = read_json(folder / FACTS)
    cure = "Remove it: only the report mentions it."
    check_record(found, _FACTS, what=f"{folder / FACTS} is damaged", cure=cure)
    return found


_FACTS = {
    **dict.fromkeys(("command", "device", "finished", "python"), TEXT),
    "seed": Kind("a number", is_number),
    "seconds": table(number(0)),
    "versions": table(TEXT),
}
"""Packages whose versions every run records."""


def versions() -> dict[str, str]:
    """Return the versions of the packages on which a result depends.

    Examples
    --------
    >>> "torch" in versions()
    True
    """
    return {name: metadata.version(name) for name in PACKAGES}


def details(folder: Path) -> dict[str, str]:
    """Return what a report says about how a run was made.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_facts(folder, command="fit", seed=0, seconds={"fit": 1.0}, device="cpu")
    >>> details(folder)["seed"]
    '0'
    """
    if not (folder / FACTS).is_file():
        return {"folder": str(folder)}
    facts = read_facts(folder)
    return {
        "command": f"cellflow {facts['command']}",
        "seed": str(facts["seed"]),
        "wall time": ", ".join(f"{name} {seconds:g} s" for name, seconds in facts["seconds"].items()),
        "device": facts["device"],
        "finished": facts["finished"],
        "versions": ", ".join(f"{name} {version}" for name, version in facts["versions"].items()),
    }
