"""What is said after Ctrl-C: what was saved, and the command that goes on."""

import shlex
from pathlib import Path

from cellflow.cli import distillation
from cellflow.cli.settings import Settings
from cellflow.cli.shared import launcher
from cellflow.estimators.loading import DESCRIPTION
from cellflow.training.checkpoint import STATE
from cellflow.training.run import Stopped
from cellflow.training.search import begun


def goodbye(stop: KeyboardInterrupt, command: str, cfg: Settings, overrides: list[str]) -> str:
    """Return a message on what was saved, with the command that resumes.

    Examples
    --------
    >>> goodbye(KeyboardInterrupt(), "fit", Settings({"out": None}), [])
    'Stopped; nothing was saved yet.'
    """
    said = str(stop) or "Stopped."
    if command == "distill" and (distillation.state_of(cfg) / STATE).exists():
        return f"{said} On the command line:\n  {again(command, overrides)}"
    out = cfg.get("out")
    unsaved = not (isinstance(stop, Stopped) and stop.saved)  # as the fits of a validation are
    if out is not None and unsaved and (Path(out) / DESCRIPTION).exists():
        return (
            f"Stopped; the fitted model is in {out}. Its report: {shlex.join(['cellflow', 'report', f'model={out}'])}"
        )
    if out is None or not begun(out):
        return "Stopped; nothing was saved yet."
    return f"{said} On the command line:\n  {again(command, overrides, f'out={out}')}"


def again(command: str, overrides: list[str], *more: str) -> str:
    """Return the command that goes on from where this one was stopped.

    Examples
    --------
    >>> again("fit", ["steps=9", "out=first"], "out=second")
    'cellflow fit steps=9 out=second resume=true'
    """
    kept = [word for word in overrides if not word.startswith(("out=", "resume="))]
    return shlex.join([*launcher(), command, *kept, *more, "resume=true"])
