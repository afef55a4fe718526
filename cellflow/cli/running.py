"""Running a command: its settings, its errors in one sentence, and Ctrl-C."""

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count

from cellflow.cli.commands import COMMANDS
from cellflow.cli.compose import in_its_words, settings_from
from cellflow.cli.failures import EXPECTED, sentence
from cellflow.cli.settings import Settings
from cellflow.cli.words import read_line
from cellflow.errors import OutsideLevelsWarning
from cellflow.processes import rank
from cellflow.together import OF_FIRST, are_joined

log = logging.getLogger("cellflow")

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""
FULL_ERROR = "HYDRA_FULL_ERROR"
"""Environment variable: 1 shows the whole traceback of an error."""


def run(command: str, words: list[str]) -> int:
    """Call a command with the settings that its words ask for, once or for every job of a sweep; return its code."""
    asked: list[tuple[Settings, list[str]]] = []
    try:
        with _spoken(command):
            return 0 if _act(command, lambda: _jobs(command, words, asked)) else 1
    except KeyboardInterrupt as stop:
        if rank() == 0:
            print(f"\n{_goodbye(stop, command, asked)}", file=sys.stderr)  # noqa: T201
        return INTERRUPTED


@contextmanager
def _spoken(command: str) -> Iterator[None]:
    """Show what is logged, and warnings as one sentence each; the first of several processes speaks for all."""
    handler = logging.StreamHandler(sys.stderr)
    log.addHandler(handler)
    log.setLevel(logging.INFO if rank() == 0 else logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = partial(_say, command, count())
            yield
    finally:
        log.removeHandler(handler)


def _jobs(command: str, words: list[str], asked: list[tuple[Settings, list[str]]]) -> bool:
    """Read the settings of all jobs, then run each; return whether all went well. Note what was asked for last."""
    line = read_line(words)
    own = [] if line.folder is None else [f"--config-dir={line.folder}"]
    jobs = [([*own, *job], settings_from(command, job, line.folder)) for job in line.jobs()]
    if not line.sweep:
        asked.append((jobs[0][1], jobs[0][0]))
        COMMANDS[command](jobs[0][1])
        return True
    from cellflow.cli.sweeps import sweep

    try:
        return sweep(command, jobs, partial(_member, command), line.launcher, partial(_spoken, command))
    except KeyboardInterrupt as stop:
        from cellflow.cli.goodbye import again

        line_again = again(command, words, f"out={jobs[0][1].get('out')}")
        raise KeyboardInterrupt(f"Stopped; finished jobs are kept. On the command line:\n  {line_again}") from stop


def _member(command: str, settings: Settings) -> None:
    COMMANDS[command](settings)


def _act(command: str, what: Callable[[], bool | None]) -> bool:
    """Do something; return whether it went well, and say in a sentence why it did not."""
    try:
        return what() is not False
    except EXPECTED as error:
        said = sentence(error)
        if said is None or os.environ.get(FULL_ERROR) == "1":
            raise
        which = f" (process {rank()})" if rank() else ""
        if not which or (are_joined() and OF_FIRST not in getattr(error, "__notes__", ())):  # before, all say the same
            print(f"cellflow {command}{which}: {in_its_words(said, command)}", file=sys.stderr)  # noqa: T201
        return False


def _say(command: str, outside: "count[int]", message: Warning | str, *_: object) -> None:
    """Show a warning as one sentence, without the line of code that it comes from.

    Large fields are read one after the other: that they are outside the levels of a fit is said of the first one, and
    then once for all others, which ``outside`` counts.
    """
    if isinstance(message, OutsideLevelsWarning):
        earlier = next(outside)
        if earlier == 1:
            log.warning("warning: further images are outside the levels of the fit, too; this is not said again")
        if earlier:
            return
    log.warning("warning: %s", in_its_words(str(message), command))


def _goodbye(stop: KeyboardInterrupt, command: str, asked: list[tuple[Settings, list[str]]]) -> str:
    """Return what to say after Ctrl-C; before a command began there is nothing to go on with."""
    if not asked:
        return str(stop) or "Stopped."
    from cellflow.cli.goodbye import goodbye

    return goodbye(stop, command, *asked[-1])
