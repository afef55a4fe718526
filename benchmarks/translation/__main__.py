"""Translate images without pairs, and score it: ``python -m benchmarks.translation task=shapes method=all size=cpu``.

Rows that are in the table already, with the same settings, are not made again. Needs the image sets in
``$CELLFLOW_DATA`` (all but ``shapes``, whose cells are in the package).
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.images.grid import draw
from benchmarks.images.rows import RESULTS, read
from benchmarks.images.sizes import SIZES, Size
from benchmarks.images.words import dashed, numbers, several
from benchmarks.translation.methods import METHODS
from benchmarks.translation.run import run, samples
from benchmarks.translation.table import page, picture
from benchmarks.translation.task import Task
from benchmarks.translation.tasks import TASKS


def main(words: Sequence[str] | None = None) -> None:
    """Run the tasks that are named; write rows, pictures and the page."""
    given = _arguments(sys.argv[1:] if words is None else words)
    torch.set_num_threads(given.threads)
    size = _size(given)
    for name in given.task:
        task = TASKS[name]()
        for rows in run(
            name, task, given.method, size, size_name=given.size, seed=given.seed, fid=given.fid == "yes", out=given.out
        ):
            for row in rows:
                print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
            _write(given, name, task)


def _write(given: argparse.Namespace, name: str, task: Task) -> None:
    """Write the page from what has been measured so far, and draw the samples of a task."""
    rows = read(given.out / "translation.csv")
    (given.out / "translation.md").write_text(page(rows))
    for number, way in enumerate(task.directions):
        last = "true partner" if task.partnered else "real target"
        shown = {last if row == "target" else row: images for row, images in samples(name, way.name).items()}
        draw(shown, given.out / picture(name, number), title=f"{name}: {way.name}")


def _size(given: argparse.Namespace) -> Size:
    size = SIZES[given.size]
    changes = {
        "steps": given.steps,
        "batch": given.batch,
        "images": given.images,
        "solver": given.solver,
        "device": given.device,
    }
    return replace(size, **{key: value for key, value in changes.items() if value})


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.translation", description=__doc__)
    parser.add_argument("--task", type=several(TASKS), default=["shapes"], help=f"{', '.join(TASKS)}, or all")
    parser.add_argument("--method", type=several(METHODS), default=list(METHODS), help="names with commas, or all")
    parser.add_argument("--size", choices=list(SIZES), default="cpu")
    parser.add_argument("--steps", type=int, help="optimiser steps, instead of those of the size")
    parser.add_argument("--batch", type=int, help="images in a batch, instead of those of the size")
    parser.add_argument("--images", type=int, help="test images that are scored, at most")
    parser.add_argument("--solver", type=numbers, help="numbers of solver steps, such as 1,4,16,64")
    parser.add_argument("--device", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fid", choices=("yes", "no"), default="no", help="the FID too: needs the Inception weights")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the table")
    return parser.parse_args(dashed(words))


if __name__ == "__main__":
    main()
