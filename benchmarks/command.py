"""The command line that the benchmarks share: ``task=shapes steps=100`` as well as ``--task shapes --steps 100``."""

import argparse
import importlib
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.rows import RESULTS
from cellflow.training.run import Stopped

INTERRUPTED = 130
"""The exit code of what was stopped by Ctrl-C, as shells have it."""
Words = Sequence[str] | None
"""What was said behind the command; ``None``: what the process was given."""


class Several:
    """Reads known names with commas between them, or ``all``; a comma that a space follows belongs to a name."""

    def __init__(self, known: Iterable[str], default: Sequence[str] | None = None) -> None:
        self.known = list(known)
        self.default = self.known if default is None else default

    def __call__(self, text: str) -> list[str]:
        names = self.known if text == "all" else [name for name in re.split(r",(?! )", text) if name]
        for name in names:
            if name not in self.known:
                raise argparse.ArgumentTypeError(f"unknown {name!r}; choose from {', '.join(self.known)}, or all")
        return list(names)


def options(name: str, about: str | None, words: Words, **known: Any) -> argparse.Namespace:
    """Return what was asked for: the options that all benchmarks take, and those that are ``known``.

    An option is given by its default, or by its type where it has none. A tuple holds numbers, with commas between
    them; of a list of words one is chosen, the first by default; `Several` are names.

    ``command`` is the command itself, ``out`` the folder, which is there, and ``tail`` what a page adds to commands
    that it puts together from its rows.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    folder = Path("runs/bench", *name.split())
    parser.add_argument("--commit-table", action="store_true", help="write into benchmarks/results, not into `out`")
    for option, value in {"out": folder, "threads": 1, "note": "", **known}.items():
        parser.add_argument("--" + option.replace("_", "-"), **_way(value))
    given = sys.argv[1:] if words is None else words
    found = parser.parse_args([re.sub(r"^[a-z_]+(?==)", lambda m: "--" + m[0].replace("_", "-"), w) for w in given])
    torch.set_num_threads(found.threads)
    found.command, found.tail = shlex.join([*parser.prog.split(), *given]), " --commit-table" * found.commit_table
    found.out = RESULTS if found.commit_table else found.out
    found.out.mkdir(parents=True, exist_ok=True)
    return found


def _way(value: Any) -> dict[str, Any]:
    """Return how argparse reads an option."""
    if isinstance(value, type):
        return {"type": value}
    if value is False:
        return {"action": "store_true"}
    if isinstance(value, list):
        return {"choices": value, "default": value[0]}
    if isinstance(value, Several):
        return {"type": value, "default": value.default, "help": f"of {', '.join(value.known)}, or all"}
    if isinstance(value, tuple):
        return {"type": lambda text: tuple(map(int, text.split(","))), "default": value, "help": f"default: {value}"}
    return {"type": type(value), "default": value, "help": f"default: {value}" if value else None}


def dispatch(name: str, about: str | None, modules: Sequence[str], *, default: str = "") -> None:
    """Run ``main`` of one of the modules of a package: the one named first, or the default."""
    words = sys.argv[1:]
    if words[:1] in (["--help"], ["-h"], []) and not (default and not words):
        print(f"{about}\nusage: python -m benchmarks.{name} {{{','.join(modules)}}} ...\n\n`--help` after one of them.")
        return
    chosen = words.pop(0) if words and words[0] in modules else default
    if not chosen:
        raise SystemExit(f"benchmarks.{name}: unknown {words[0]!r}; choose from {', '.join(modules)}.")
    guarded(f"{name} {chosen}", importlib.import_module(f"benchmarks.{name}.{chosen}").main, words)


def guarded(name: str, main: Callable[[Words], int | None], words: Words = None) -> int | None:
    """Run a benchmark; what a user can cause, such as a missing file or Ctrl-C, is said in a sentence."""
    try:
        return main(words)
    except (FileNotFoundError, ValueError, argparse.ArgumentTypeError) as error:
        raise SystemExit(f"benchmarks.{name}: {error}") from error
    except KeyboardInterrupt as stop:  # of a training, it would advise what benchmarks have no option for
        after = f" after step {stop.step} of {stop.steps}" if isinstance(stop, Stopped) and stop.saved else ""
        print(f"benchmarks.{name}: stopped{after}. The same command goes on with what is there.", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
