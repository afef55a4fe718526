"""Few steps beside many, in one run: points in the plane, embryoid bodies, images.

``gaussians``: independent N(0, 1) and N(2, 0.25) in two dimensions on straight lines, whose map is known: root mean
squared error, and the semigroup error ``||X(s, u) - X(t, u) o X(s, t)||`` over random s < t < u.

``checkerboard``: from a Gaussian of the data's variance to the black squares of a 4 x 4 board on [-1, 1]^2; KL
divergence of the data from 64,000 samples, between histograms of 50 x 50 bins. Direction, smoothing and range are not
published; here: KL(data || model), half a count added to every bin, [-1.1, 1.1]^2 with everything outside in the
outermost bins. The floor is the same score for an independent draw of the data. The published run has 150,000 steps of
100,000 points through four layers of 512; that is ``--full``, for a GPU.

``cells``: embryoid bodies in five dimensions, one snapshot left out (protocol A of the trajectory benchmark): W1.

``mnist``, ``fashion``, ``cifar10_jpeg`` (a copy, not the official archive): Fréchet distance of generated images to
test images in the features of our small network, no FID.
``--full`` trains a larger network for longer, on a GPU.

Rows that are in the table already are made anew when their method and seed are asked for.
"""

import argparse
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from benchmarks.few_step import images, plane
from benchmarks.few_step.seconds import machine
from benchmarks.few_step.table import RESULTS, keep, read, write

TASKS = ("gaussians", "checkerboard", "cells", *images.LOADERS)
MEASURES = {"gaussians": "root mean squared error", "checkerboard": "KL divergence", "cells": "W1"}
PLANE = (plane.TRAJECTORIES, plane.REFLOW, *plane.METHODS, *plane.TAUGHT)


def main() -> None:
    """Run one task with the methods and seeds that are asked for; say in a line which file is missing."""
    try:
        _run(_arguments())
    except FileNotFoundError as error:
        raise SystemExit(f"benchmarks.few_step: {error}") from error


def _run(given: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, as convolutions have it by themselves
    path = given.results / f"few_step_{given.task}{'_full' * given.full}.csv"
    size = _size_in_words(given)
    if others := {row["size"] for row in read(path)} - {size}:
        raise SystemExit(
            f"{path} holds rows of {' and of '.join(sorted(others))}; asked for {size}. Rows of two sizes do not "
            "belong in one table: choose another folder, `--results`, or remove the file."
        )
    for row in _rows(given, device) if given.methods != [] else ():
        found = row | {"size": size, "device": machine(device)}
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in found.items()}, flush=True)
        keep(path, found)
    about, published, best = _words(given)
    title = given.task + ", GPU size" * given.full
    about += [given.note] if given.note else []
    measure = MEASURES.get(given.task, f"FD-{given.task}")
    write(path, title=title, measure=measure, about=about, published=published, best=best, command=_command(given))


def _rows(given: argparse.Namespace, device: torch.device) -> Iterator[dict[str, Any]]:
    """Yield the rows of the task."""
    seeds = range(given.first, given.first + given.seeds)
    if given.task == "cells":
        from benchmarks.few_step import cells  # which needs packages that points and images do without

        yield from cells.run(seeds, given.steps or cells.STEPS, _known(given.methods, cells.METHODS), device)
    elif given.task in images.LOADERS:
        methods = _known(given.methods, images.METHODS)
        yield from images.run(given.task, seeds, _setting(given), methods, device)
    else:
        methods = _known(given.methods, PLANE)
        for seed in seeds:
            yield from plane.run(given.task, _size(given), seed, device, methods)


def _command(given: argparse.Namespace) -> str:
    command = f"python -m benchmarks.few_step --task {given.task}{' --full' * given.full} --seeds {given.seeds}"
    for name in ("first", "flow_steps", "steps", "batch_size"):
        value = getattr(given, name)
        command += f" --{name.replace('_', '-')} {value}" if value else ""
    return command + (f" --methods {shlex.join(given.methods)}" if given.methods else "")


def _size_in_words(given: argparse.Namespace) -> str:
    """Return how large a run is."""
    if given.task == "cells":
        from benchmarks.few_step import cells

        return f"{given.steps or cells.STEPS} steps"
    if given.task in images.LOADERS:
        setting = _setting(given)
        return f"{setting.flow_steps} and {setting.steps} steps of {setting.batch}, width {setting.width}"
    size = _size(given)
    return f"{size.steps} steps of {size.batch_size}, width {size.width}"


def _words(given: argparse.Namespace) -> tuple[list[str], Mapping[str, Sequence[float]], float | None]:
    """Return what was done, published values, and the floor."""
    if given.task == "cells":
        from benchmarks.few_step import cells

        about = [
            "Embryoid bodies, 5 dimensions, protocol A: W1 to the snapshot that was left out, mean over three folds,",
            f"{cells.CELLS} cells a side. The flow: OT-CFM, {cells.FLOW.keywords['steps']} steps; maps:",
            f"{given.steps or cells.STEPS} steps, both ways in time.",
        ]
        return about, {name: [value] for name, value in cells.PUBLISHED.items()}, None
    if given.task in images.LOADERS:
        setting = _setting(given)
        about = [
            f"FD-{given.task}, no FID: {setting.samples} generated images. A U-Net of width {setting.width} on patches",
            f"of 2 x 2 pixels; the flow: {setting.flow_steps} steps of {setting.batch} images; every round of reflow,",
            f"and every map: {setting.steps} steps, taught by the flow.",
        ]
        return about, {}, mean(images.floor(given.task, setting.samples, 3))
    size = _size(given)
    measure = (
        "Root mean squared error" if given.task == "gaussians" else "KL divergence of the data from 64,000 samples"
    )
    about = [
        f"{size.steps} steps of {size.batch_size} fresh pairs, MLP of width {size.width}, {size.depth} residual",
        f"blocks. {measure} after 1 to 16 steps.",
    ]
    published: dict[str, Sequence[float]] = {}
    if given.task == "checkerboard":
        full, published = plane.SIZES["checkerboard, full"], {**plane.PUBLISHED}
        about.append(f"The published run took {full.steps} steps of {full.batch_size} points.")
    best = mean(plane.floor(given.task, given.seeds))
    return about, published, best or None


def _size(given: argparse.Namespace) -> plane.Size:
    size = plane.SIZES["checkerboard, full" if given.full else given.task]
    return replace(size, steps=given.steps or size.steps, batch_size=given.batch_size or size.batch_size)


def _setting(given: argparse.Namespace) -> images.Setting:
    setting = images.SETTINGS["full" if given.full else "cpu"]
    return replace(setting, steps=given.steps or setting.steps, flow_steps=given.flow_steps or setting.flow_steps)


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
    parser.add_argument(
        "--first", type=int, default=0, help="the first of them: seeds may run side by side, where there are cores"
    )
    parser.add_argument("--full", action="store_true", help="the size for a GPU: of the checkerboard, as published")
    parser.add_argument("--steps", type=int, help="optimiser steps, where others than the task's are wanted")
    parser.add_argument("--flow-steps", type=int, help="those of the flow, for images, where others are wanted")
    parser.add_argument("--batch-size", type=int, help="points in each, in the plane, where others are wanted")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the tables")
    parser.add_argument(
        "--methods", nargs="*", help="which; by default all. None, as in `--methods`, for the page alone"
    )
    parser.add_argument("--note", help="a sentence for the page: what its reader should know of this run")
    given = parser.parse_args()
    if given.full and given.task in ("cells", "gaussians"):
        parser.error(f"--full is a size of the checkerboard and of images, not of {given.task}")
    if given.batch_size and given.task not in ("checkerboard", "gaussians"):
        parser.error(f"--batch-size is for points in the plane, not for {given.task}")
    if given.flow_steps and given.task not in images.LOADERS:
        parser.error(f"--flow-steps is for images, not for {given.task}")
    given.results.mkdir(exist_ok=True, parents=True)
    return given


if __name__ == "__main__":
    main()
