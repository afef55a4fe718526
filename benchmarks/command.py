"""The command line that the benchmarks share: ``task=shapes steps=100`` as well as ``--task shapes --steps 100``."""

import argparse
import importlib
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

from benchmarks.rows import RESULTS


def parser(name: str, about: str | None) -> argparse.ArgumentParser:
    """Return a parser that knows what all benchmarks take."""
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    folder = Path("runs/bench", *name.split())
    made.add_argument("--out", type=Path, default=folder, help=f"folder of tables and figures, {folder} by default")
    made.add_argument("--commit-table", action="store_true", help="write into benchmarks/results instead")
    made.add_argument("--threads", type=int, default=1, help="of torch")
    made.add_argument("--note", default="", help="a sentence for the page: what its reader should know of this run")
    return made


def parse(made: argparse.ArgumentParser, words: Sequence[str] | None) -> argparse.Namespace:
    """Return what was asked for; ``command`` is the command itself, ``out`` the folder, which is there.

    ``tail`` is what a page adds to commands that it puts together from its rows.
    """
    given = sys.argv[1:] if words is None else words
    found = made.parse_args([re.sub(r"^[a-z_]+(?==)", _dashed, word) for word in given])
    torch.set_num_threads(found.threads)
    found.command = shlex.join([*made.prog.split(), *given])
    found.tail = " --commit-table" * found.commit_table
    found.out = RESULTS if found.commit_table else found.out
    found.out.mkdir(parents=True, exist_ok=True)
    return found


def _dashed(name: re.Match[str]) -> str:
    return "--" + name[0].replace("_", "-")


class Several:
    """Reads known names with commas between them, or ``all``; a comma that a space follows belongs to a name."""

    def __init__(self, known: Iterable[str]) -> None:
        self.known = list(known)

    def __call__(self, text: str) -> list[str]:
        """Return the names in the text."""
        names = self.known if text == "all" else [name for name in re.split(r",(?! )", text) if name]
        for name in names:
            if name not in self.known:
                raise argparse.ArgumentTypeError(f"unknown {name!r}; choose from {', '.join(self.known)}, or all")
        return list(names)


def numbers(text: str) -> tuple[int, ...]:
    """Return numbers with commas between them."""
    return tuple(int(part) for part in text.split(","))


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


def guarded(name: str, main: Callable[[Sequence[str] | None], None], words: Sequence[str] | None = None) -> None:
    """Run a benchmark; what a user can cause, such as a missing file, is said in a sentence."""
    try:
        main(words)
    except (FileNotFoundError, ValueError, argparse.ArgumentTypeError) as error:
        raise SystemExit(f"benchmarks.{name}: {error}") from error
