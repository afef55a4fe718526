"""The command line: the table, the speed, or the figure."""

import argparse
from pathlib import Path

import torch

from benchmarks.toys.figure import draw
from benchmarks.toys.methods import METHODS
from benchmarks.toys.pairs import PAIRS
from benchmarks.toys.run import run
from benchmarks.toys.speed import SPEED, measure
from benchmarks.toys.table import RESULTS, page, read

FIGURE = Path("docs/figures/bridge.png")


def main() -> None:
    """Do what was asked for."""
    given = _arguments()
    torch.set_num_threads(1)
    if given.figure:
        draw(FIGURE, seed=given.seeds[0])
        print(f"wrote {FIGURE}")
        return
    if given.speed:
        (given.out / SPEED).write_text(measure())
    else:
        for seed in given.seeds:
            for pair in given.pairs:
                for row in run(pair, given.methods, seed, steps=given.steps, path=given.out / "toys.csv"):
                    print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
    write(given.out, f"python -m benchmarks.toys --steps {given.steps}")


def write(out: Path, command: str) -> None:
    """Write the page from what has been measured so far."""
    text = page(read(out / "toys.csv"), command)
    speed = out / SPEED
    text += "\n" + speed.read_text() if speed.is_file() else ""
    (out / "toys.md").write_text(text)
    print(text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.toys", description=__doc__)
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), choices=list(PAIRS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44, 45, 46])
    parser.add_argument("--steps", type=int, default=1500, help="optimiser steps (published: 19,000)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the table")
    parser.add_argument("--speed", action="store_true", help="seconds of training to a published W2, beside torchcfm")
    parser.add_argument("--figure", action="store_true", help=f"draw {FIGURE}")
    return parser.parse_args()


if __name__ == "__main__":
    main()
