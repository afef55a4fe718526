"""What is asked of the program: a command, its help, or the version. What a command needs is loaded when it runs."""

import os
import sys

import cellflow
from cellflow.cli.commands import COMMANDS
from cellflow.cli.configs import configs_folder
from cellflow.cli.help import describe, overview
from cellflow.cli.running import run


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    command, rest = (given[0], given[1:]) if given else ("--help", [])
    if command in ("--help", "-h", "help"):
        return _show(overview(configs_folder(), COMMANDS))
    if command in ("--version", "-V", "version"):
        return _show(f"cellflow {cellflow.__version__}")
    if command not in COMMANDS:
        print(f"cellflow: unknown command {command!r}. Choose from: {', '.join(COMMANDS)}.", file=sys.stderr)  # noqa: T201
        return 2
    if "--help" in rest or "-h" in rest:
        return _show(describe(configs_folder(), command))
    return run(command, rest)


def _show(text: str) -> int:
    """Print a text to its end, or until whoever reads it, such as `head`, has seen enough."""
    try:
        print(text, flush=True)  # noqa: T201
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is flushed at the exit goes there
    return 0
