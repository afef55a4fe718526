"""Few steps beside many, in one run: points in the plane, embryoid bodies, images.

``gaussians``: independent N(0, 1) and N(2, 0.25) in two dimensions on straight lines, whose map is known: root mean
squared error, and the semigroup error ``||X(s, u) - X(t, u) o X(s, t)||`` over random s < t < u.

``checkerboard``: from a Gaussian of the data's variance to the black squares of a 4 x 4 board on [-1, 1]^2; KL
divergence of the data from 64,000 samples, between histograms of 50 x 50 bins. Direction, smoothing and range are not
published; here: KL(data || model), half a count added to every bin, [-1.1, 1.1]^2 with everything outside in the
outermost bins. The floor is the same score for an independent draw of the data. The published run has 150,000 steps of
100,000 points through four layers of 512; that is ``--full``, for a GPU.

``cells``: embryoid bodies in five dimensions, one snapshot left out (protocol A of the trajectory benchmark): W1.

``mnist``, ``fashion``: Fréchet distance of generated images to test images in the features of our small network.

Rows that are in the table already are made anew when their method and seed are asked for.
"""

import argparse
import shlex
from pathlib import Path
from statistics import mean

import torch

from benchmarks.few_step import cells, images, plane
from benchmarks.few_step.table import RESULTS, keep, write

TASKS = ("gaussians", "checkerboard", "cells", "mnist", "fashion")
PLANE = (plane.TRAJECTORIES, plane.REFLOW, *plane.METHODS, *plane.TAUGHT)


def main() -> None:
    """Run one task with the methods and seeds that are asked for."""
    given = _arguments()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    stem = f"few_step_{given.task}{'_full' * given.full}"
    command = f"python -m benchmarks.few_step --task {given.task}{' --full' * given.full} --seeds {given.seeds}"
    command += f" --steps {given.steps}" if given.steps else ""
    command += f" --methods {shlex.join(given.methods)}" if given.methods else ""
    if given.task == "cells":
        rows = cells.run(given.seeds, given.steps, _known(given.methods, cells.METHODS))
    elif given.task in images.LOADERS:
        rows = images.run(given.task, given.seeds, given.steps, _known(given.methods, images.METHODS), device)
    else:
        size, methods = _size(given), _known(given.methods, PLANE)
        rows = (row for seed in range(given.seeds) for row in plane.run(given.task, size, seed, device, methods))
    for row in rows:
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
        keep(RESULTS / f"{stem}.csv", row)
    _write(given, stem, command)


def _write(given: argparse.Namespace, stem: str, command: str) -> None:
    about, published, best = _words(given)
    write(
        stem,
        title=given.task + ", full size" * given.full,
        about=about,
        published=published,
        best=best,
        command=command,
    )


def _words(given: argparse.Namespace) -> tuple[list[str], list[str], float | None]:
    """Return what was done, published rows, and the floor."""
    if given.task == "cells":
        about = [
            "Embryoid bodies, 5 dimensions, protocol A: W1 to the snapshot that was left out, mean over three folds,",
            f"{cells.CELLS} cells a side. The flow: OT-CFM, {cells.FLOW.keywords['steps']} steps; maps:",
            f"{given.steps or cells.STEPS} steps, both ways in time.",
        ]
        rows = [f"| published: {name} | | | | | | {value} | | |" for name, value in cells.PUBLISHED.items()]
        return about, rows, None
    if given.task in images.LOADERS:
        about = [
            f"FD-{given.task}, no FID: {images.SAMPLES} generated images. A small U-Net; the flow:",
            f"{images.TEACHER_STEPS} steps of {images.BATCH} images; every round of reflow, and every map:",
            f"{given.steps or images.STEPS} steps, taught by the flow.",
        ]
        return about, [], mean(images.floor(given.task, 3))
    size = _size(given)
    kind = "" if given.full or given.task == "gaussians" else " A CPU-sized run, smaller than the published one."
    measure = (
        "Root mean squared error" if given.task == "gaussians" else "KL divergence of the data from 64,000 samples"
    )
    about = [
        f"{size.steps} steps of {size.batch_size} fresh pairs, MLP of width {size.width}, {size.depth} residual",
        f"blocks.{kind} {measure} after 1 to 16 steps.",
    ]
    rows = []
    if given.task == "checkerboard":
        rows = [
            f"| published: {name} | | {' | '.join(f'{v:.4f}' for v in kl)} | | |"
            for name, kl in plane.PUBLISHED.items()
        ]
    best = mean(plane.floor(given.task, given.seeds))
    return about, rows, best or None


def _size(given: argparse.Namespace) -> plane.Size:
    size = plane.SIZES["checkerboard, full" if given.full else given.task]
    return plane.Size(given.steps, size.batch_size, size.width, size.depth) if given.steps else size


def _known(asked: list[str] | None, known: tuple[str, ...]) -> list[str]:
    """Return the methods asked for, or all; refuse unknown ones."""
    unknown = sorted(set(asked or ()) - set(known))
    if unknown:
        raise SystemExit(f"unknown method {unknown[0]!r}. Choose from: {', '.join(map(repr, known))}.")
    return list(asked or known)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.few_step", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=TASKS, default="checkerboard")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds")
    parser.add_argument("--full", action="store_true", help="the published size of the checkerboard, for a GPU")
    parser.add_argument("--steps", type=int, help="optimiser steps, where others than the task's are wanted")
    parser.add_argument(
        "--methods", nargs="*", help="which; by default all. None, as in `--methods`, for the page alone"
    )
    given = parser.parse_args()
    if given.full and given.task != "checkerboard":
        parser.error("--full is a size of the checkerboard")
    Path(RESULTS).mkdir(exist_ok=True)
    return given


if __name__ == "__main__":
    main()
