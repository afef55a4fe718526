"""Running a command: its name, its settings, its errors in one sentence, and Ctrl-C."""

import logging
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import cellflow
from cellflow.cli import cells, distillation, generation, perturbation, runs, translation
from cellflow.cli.compose import configs_folder, settings_from
from cellflow.cli.failures import EXPECTED, sentence
from cellflow.cli.help import describe, overview
from cellflow.cli.settings import Settings
from cellflow.cli.shared import launcher
from cellflow.cli.sweeps import sweep
from cellflow.cli.words import read_line
from cellflow.estimators.loading import DESCRIPTION
from cellflow.processes import rank
from cellflow.together import OF_FIRST, are_joined
from cellflow.training.checkpoint import STATE
from cellflow.training.run import Stopped
from cellflow.training.search import begun

log = logging.getLogger("cellflow")

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""
FULL_ERROR = "HYDRA_FULL_ERROR"
"""Environment variable: 1 shows the whole traceback of an error."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    command, rest = (given[0], given[1:]) if given else ("--help", [])
    if command in ("--help", "-h", "help"):
        print(overview(configs_folder(), COMMANDS))  # noqa: T201
        return 0
    if command in ("--version", "-V", "version"):
        print(f"cellflow {cellflow.__version__}")  # noqa: T201
        return 0
    if command not in COMMANDS:
        print(f"cellflow: unknown command {command!r}. Choose from: {', '.join(COMMANDS)}.", file=sys.stderr)  # noqa: T201
        return 2
    if "--help" in rest or "-h" in rest:
        print(describe(configs_folder(), command))  # noqa: T201
        return 0
    return _run(command, rest)


def demo(cfg: Settings) -> None:
    """Run an example on data in the package: snapshots of cells, or a translation of images."""
    (translation.demo if cfg.task == "translation" else cells.demo)(cfg)


def report(cfg: Settings) -> None:
    """Write the report of a finished run again, whatever it fitted."""
    kinds = {
        "DomainTranslator": translation.report,
        "ImageGenerator": generation.report,
        "PerturbationFlow": perturbation.report,
    }
    kinds.get(runs.estimator_of(runs.existing_folder(cfg.model)), cells.report)(cfg)


COMMANDS: dict[str, Callable[[Settings], None]] = {
    "demo": demo,
    "fit": cells.fit,
    "interpolate": cells.interpolate,
    "velocity": cells.velocity,
    "fate": cells.fate,
    "perturb": perturbation.perturb,
    "translate": translation.translate,
    "generate": generation.generate,
    "distill": distillation.distill,
    "report": report,
}


def _run(command: str, words: list[str]) -> int:
    """Call a command with the settings that the words ask for, once or for every job of a sweep."""
    asked: list[tuple[Settings, list[str]]] = []
    try:
        with _spoken():
            return 0 if _act(command, lambda: _jobs(command, words, asked)) else 1
    except KeyboardInterrupt as stop:
        if rank() == 0:
            print(f"\n{_goodbye(stop, command, *asked[-1]) if asked else str(stop) or 'Stopped.'}", file=sys.stderr)  # noqa: T201
        return INTERRUPTED


@contextmanager
def _spoken() -> Iterator[None]:
    """Show what is logged, and warnings as one sentence each; the first of several processes speaks for all."""
    handler = logging.StreamHandler(sys.stderr)
    log.addHandler(handler)
    log.setLevel(logging.INFO if rank() == 0 else logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _say  # type: ignore[assignment]
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
    try:
        return sweep(command, jobs, partial(_member, command), line.launcher, _spoken)
    except KeyboardInterrupt as stop:
        again = _again(command, words, f"out={jobs[0][1].get('out')}")
        raise KeyboardInterrupt(f"Stopped; jobs that are done stay. On the command line:\n  {again}") from stop


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
            print(f"cellflow {command}{which}: {said}", file=sys.stderr)  # noqa: T201
        return False


def _say(message: Warning | str, *_: object) -> None:
    """Show a warning as one sentence, without the line of code that it comes from."""
    log.warning("warning: %s", message)


def _goodbye(stop: KeyboardInterrupt, command: str, cfg: Settings, overrides: list[str]) -> str:
    """Return a message on what was saved, with the command that resumes."""
    said = str(stop) or "Stopped."
    if command == "distill" and (distillation.state_of(cfg) / STATE).exists():
        return f"{said} On the command line:\n  {_again(command, overrides)}"
    out = cfg.get("out")
    unsaved = not (isinstance(stop, Stopped) and stop.saved)  # as the fits of a validation are
    if out is not None and unsaved and (Path(out) / DESCRIPTION).exists():
        return (
            f"Stopped; the fitted model is in {out}. Its report: {shlex.join(['cellflow', 'report', f'model={out}'])}"
        )
    if out is None or not begun(out):
        return "Stopped; nothing was saved yet."
    return f"{said} On the command line:\n  {_again(command, overrides, f'out={out}')}"


def _again(command: str, overrides: list[str], *more: str) -> str:
    """Return the command that goes on from where this one was stopped."""
    kept = [word for word in overrides if not word.startswith(("out=", "resume="))]
    return shlex.join([*launcher(), command, *kept, *more, "resume=true"])
