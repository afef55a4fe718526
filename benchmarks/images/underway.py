"""A method that is being trained, in a folder of its own: what is stopped, as at the end of a GPU slot, goes on."""

import json
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import cellflow as cf
from benchmarks.rows import Row, digest
from cellflow.files import committed
from cellflow.training.checkpoint import STATE

FOLDER = Path("runs") / "bench" / "images"
SAVED = 0.25
"""Minutes after which a training is saved."""
LOOKS = 100
"""How often the steps of a training are counted."""
Clock = Callable[[], float]
T = TypeVar("T")


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

    def timed(
        self, part: str, steps: int, train: Callable[..., T], clock: Clock = time.perf_counter
    ) -> tuple[T, float]:
        """Return what ``train(run=...)`` does in so many steps, and the seconds of all of them, before a stop too."""
        watch = Stopwatch(steps, clock)
        made = train(run=watch.on(self.run(part)))
        (spent,) = self.rows(f"{part}, seconds", lambda: [{"seconds": watch.seconds()}])
        return made, spent["seconds"]

    def forget(self, part: str = "") -> None:
        """Remove the folder, or that of a part, once the rows are in a table."""
        if self.folder is not None:
            shutil.rmtree(self.folder / part, ignore_errors=True)


class Stopwatch:
    """Seconds of a number of steps, by those that were taken in this process: earlier ones are gone with theirs.

    What comes before the first look, such as plans and pairs, is made again by each process, and counts once.
    """

    def __init__(self, steps: int, clock: Clock = time.perf_counter) -> None:
        self._steps, self._every, self._looks = steps, max(1, steps // LOOKS), 0
        self._clock, self._start, self._first = clock, clock(), 0.0

    def on(self, run: cf.training.Run) -> cf.training.Run:
        """Return the run, looked at by this watch."""
        return replace(run, watch=self, watch_every=self._every)

    def __call__(self, trained: object) -> None:
        """Count the steps since the last look."""
        self._looks += 1
        self._first = self._first or self._clock()

    def seconds(self) -> float:
        """Return the seconds of all steps."""
        now, taken = self._clock(), min(self._looks * self._every, self._steps)
        later = taken - self._every  # than the first look
        if later <= 0 or taken == self._steps:
            return (now - self._start) * (self._steps / taken if taken else 1)
        return self._first - self._start + (now - self._first) * (self._steps - self._every) / later


NOWHERE = Underway()
"""Nothing is kept."""
