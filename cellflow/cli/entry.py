"""What is asked of the program: a command, its help, or the version. What a command needs is loaded when it runs."""

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
    return run(command, rest)
