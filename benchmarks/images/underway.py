"""A method that is being trained, in a folder of its own: what is stopped, as at the end of a GPU slot, goes on."""

import json
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cellflow as cf
from benchmarks.rows import Row, digest
from cellflow.files import committed
from cellflow.training.checkpoint import STATE

FOLDER = Path("runs") / "bench" / "images"
SAVED = 0.25
"""Minutes after which a training is saved."""


@dataclass(frozen=True)
class Underway:
    """The folder of a method that is under way, named by all that makes its rows; without one, nothing is kept."""

    folder: Path | None = None

    @staticmethod
    def of(settings: Sequence[object]) -> "Underway":
        """Return that of the settings that make the rows."""
        return Underway(FOLDER / digest(settings))

    def run(self, part: str = "training") -> cf.training.Run:
        """Return where a part of the training lives, which goes on where it was stopped."""
        if self.folder is None:
            return cf.training.Run()
        place = self.folder / part
        return cf.training.Run(place, resume=any(place.rglob(STATE)), save_minutes=SAVED)

    def rows(self, name: str, make: Callable[[], Iterable[Row]]) -> list[Row]:
        """Return rows that were made before the training was stopped, or make them now."""
        if self.folder is None:
            return list(make())
        file = self.folder / f"{name}.json"
        if not file.exists():
            with committed(file) as partial:
                partial.write_text(json.dumps(list(make())))
        return list(json.loads(file.read_text()))

    def forget(self) -> None:
        """Remove the folder, once the rows are in a table."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


class Stopwatch:
    """Seconds of a number of steps, by those that were taken in this process: earlier ones are gone with theirs.

    It is called after each step, or, with ``every``, after so many.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter, *, every: int = 1) -> None:
        self._taken, self._every, self._clock, self._start = 0, every, clock, clock()

    def __call__(self, *about: object) -> None:
        """Count what was taken since the last call."""
        self._taken += self._every

    def seconds(self, steps: int) -> float:
        """Return the seconds of so many steps."""
        spent = self._clock() - self._start
        return spent * (steps / self._taken if self._taken else 1)


NOWHERE = Underway()
"""Nothing is kept."""
