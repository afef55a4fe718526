"""The members of a sweep: each is run wherever a launcher takes it, and leaves a record of how it ended."""

import json
import logging
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellflow.cli.failures import sentence
from cellflow.cli.runs import MAY_CHANGE
from cellflow.cli.settings import Settings
from cellflow.errors import CheckpointError
from cellflow.files import committed
from cellflow.training.reading import read_json
from cellflow.training.search import begun

log = logging.getLogger("cellflow")

DONE, FAILED, STOPPED, MISSING = "done", "failed", "stopped", "not run"
"""How a member ended."""
RECORDS = "sweep"
"""Folder of the records within that of a sweep."""


@dataclass(frozen=True)
class Members:
    """The members of a sweep, called with the number of one; what it holds can be sent to another process.

    Parameters
    ----------
    act
        Runs one, from its settings.
    settings
        Those of each.
    folder
        The folder of the sweep.
    spoken
        Sets up logging in a process where nothing is shown yet.
    say
        Brings a message into the words of the command.
    """

    act: Callable[[Settings], object]
    settings: list[Settings]
    folder: Path
    spoken: Callable[[], AbstractContextManager[None]]
    say: Callable[[str], str] = str

    def __call__(self, cfg: Any) -> None:
        """Run a member and keep how it ended; one that is done already is not run again."""
        number = int(cfg.job)
        settings = self.settings[number]
        if settings.get("resume") and record_of(self.folder, number).get("status") == DONE:
            return
        if "resume" in settings:  # what was not begun begins now
            settings.resume = bool(settings.resume) and begun(self.folder / str(number))
        start = time.perf_counter()
        with nullcontext() if log.handlers else self.spoken():
            status, error = self._ended(settings, number)
            write_record(self.folder, number, status=status, seconds=time.perf_counter() - start, error=error)
        if status == STOPPED:
            raise KeyboardInterrupt(error)

    def _ended(self, settings: Settings, number: int) -> tuple[str, str]:
        try:
            self.act(settings)
        except KeyboardInterrupt as stop:
            return STOPPED, str(stop) or "Stopped."
        except Exception as error:  # noqa: BLE001  # the other members go on; it is a row of the table
            said = sentence(error)
            if said is not None:
                said = self.say(said)
            else:  # a fault of the program
                log.error("%s", traceback.format_exc())
            log.error("member %d: %s", number, said or f"{type(error).__name__}: {error}")
            return FAILED, said or f"{type(error).__name__}: {error}"
        return DONE, ""


def keep_jobs(folder: Path, jobs: Sequence[Sequence[str]], *, resume: bool) -> None:
    """Store the settings of each member, so that a sweep resumes only if its numbers mean the same members.

    Parameters
    ----------
    folder
        The folder of the sweep.
    jobs
        The words of each member.
    resume
        Whether to resume.

    Raises
    ------
    ValueError
        When it was started with other members.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> keep_jobs(folder, [["seed=0"], ["seed=1"]], resume=False)
    >>> keep_jobs(folder, [["seed=0"], ["seed=1"], ["seed=2"]], resume=True)
    >>> keep_jobs(folder, [["seed=1"], ["seed=2"]], resume=True)
    Traceback (most recent call last):
    ValueError: Member 0 of the sweep in ... was started with seed=0, and is now seed=1. Give the same members...
    """
    path = folder / RECORDS / "jobs.json"
    known: list[list[str]] = read_json(path) if path.is_file() else []
    asked = [sorted(word for word in job if word.partition("=")[0] not in MAY_CHANGE) for job in jobs]
    for number, (then, now) in enumerate(zip(known, asked, strict=False)):
        if resume and then != now:
            old, new = (
                " ".join(word for word in one if word not in other) or "nothing more"
                for one, other in ((then, now), (now, then))
            )
            raise ValueError(
                f"Member {number} of the sweep in {folder} was started with {old}, and is now {new}. Give the same "
                "members, and new ones after them; or choose another `out=`."
            )
    with committed(path) as partial:
        partial.write_text(json.dumps(known + asked[len(known) :]), encoding="utf-8")


def record_of(folder: Path, number: int) -> dict[str, Any]:
    """Return how a member ended: ``status``, ``seconds`` and ``error``; empty if it left no record.

    Examples
    --------
    >>> record_of(Path("runs/of-nobody"), 0)
    {}
    """
    path = folder / RECORDS / f"{number}.json"
    if not path.is_file():
        return {}
    try:
        return dict(read_json(path))
    except CheckpointError:  # it is run again
        return {}


def write_record(folder: Path, number: int, *, status: str, seconds: float, error: str) -> None:
    """Write how a member ended.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_record(folder, 3, status="done", seconds=1.23456, error="")
    >>> record_of(folder, 3)
    {'status': 'done', 'seconds': 1.23, 'error': ''}
    """
    with committed(folder / RECORDS / f"{number}.json") as partial:
        partial.write_text(
            json.dumps({"status": status, "seconds": round(seconds, 2), "error": error}), encoding="utf-8"
        )
