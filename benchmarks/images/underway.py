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
"""How often the seconds of a training are kept."""
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
        """Return what ``train(run=...)`` does in so many steps, and its seconds, with those before a stop."""
        watch = self.watch(part, steps, clock)
        made = train(run=watch.on(self.run(part)))
        (spent,) = self.rows(f"{part}, seconds", lambda: [{"seconds": watch.seconds()}])
        return made, spent["seconds"]

    def watch(self, part: str, steps: int, clock: Clock = time.perf_counter) -> "Stopwatch":
        """Return a watch for so many steps of a part, which goes on where the one before a stop was last read."""
        return Stopwatch(steps, clock, None if self.folder is None else self.folder / f"{part}, so far.json")

    def forget(self) -> None:
        """Remove the folder, once the rows are in a table."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


class Stopwatch:
    """Seconds of a training, which are kept in a file: those before a stop count too.

    They are those that were spent: what is made again by each process, such as pairs, counts each time.
    """

    def __init__(self, steps: int, clock: Clock = time.perf_counter, kept: Path | None = None) -> None:
        self._every, self._clock, self._kept = max(1, steps // LOOKS), clock, kept
        self._start = clock() - (json.loads(kept.read_text()) if kept is not None and kept.exists() else 0.0)

    def on(self, run: cf.training.Run) -> cf.training.Run:
        """Return the run, looked at by this watch."""
        return replace(run, watch=self, watch_every=self._every)

    def __call__(self, trained: object) -> None:
        """Keep the seconds so far."""
        if self._kept is not None:
            with committed(self._kept) as partial:
                partial.write_text(json.dumps(self.seconds()))

    def seconds(self) -> float:
        """Return the seconds so far."""
        return self._clock() - self._start


NOWHERE = Underway()
"""Nothing is kept."""
