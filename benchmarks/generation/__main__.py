"""Flow matching beside diffusion on images: ``python -m benchmarks.generation dataset=mnist method=all size=cpu``.

``dataset=cifar10 size=cifar10`` is the full published recipe (35.7 million parameters, 400,000 steps, 50,000 images for
the FID): it wants a GPU, the official archive and the Inception weights, and says so before it starts.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.generation.methods import METHODS
from benchmarks.generation.run import DATASETS, run, samples
from benchmarks.generation.table import draw, page
from benchmarks.images.grid import draw as draw_samples
from benchmarks.images.rows import RESULTS, read
from benchmarks.images.sizes import SIZES, Size
from benchmarks.images.words import dashed, several

SCALES = {
    "cpu": replace(SIZES["cpu"], images=256, recipe=replace(SIZES["cpu"].recipe, schedule="constant")),
    "gpu": replace(SIZES["gpu"], images=10_000),
    "cifar10": replace(SIZES["gpu"], images=50_000, steps=400_001),
}
"""Sizes of network and training, with a constant learning rate: every checkpoint is then worth as much as the last."""


def main(words: Sequence[str] | None = None) -> None:
    """Run the data sets that are named; write rows, figures and the page."""
    given = _arguments(sys.argv[1:] if words is None else words)
    torch.set_num_threads(given.threads)
    for name in given.dataset:
        for rows in run(name, given.method, _size(given), size_name=given.size, seed=given.seed, out=given.out):
            for row in rows:
                print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
            _write(given, name)


def _write(given: argparse.Namespace, name: str) -> None:
    rows = read(given.out / "generation.csv")
    (given.out / "generation.md").write_text(page(rows))
    mine = [row for row in rows if row["dataset"] == name]
    draw(mine, given.out / f"generation_{name}.png", title=f"{name}: distance to real test images")
    draw_samples(
        samples(name), given.out / f"generation_{name}_samples.png", title=f"{name}: generated from the same noise"
    )


def _size(given: argparse.Namespace) -> Size:
    changes = {"steps": given.steps, "batch": given.batch, "images": given.images, "device": given.device}
    return replace(SCALES[given.size], **{key: value for key, value in changes.items() if value})


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generation", description=__doc__)
    parser.add_argument("--dataset", type=several(DATASETS), default=["mnist"], help=f"{', '.join(DATASETS)}, or all")
    parser.add_argument("--method", type=several(METHODS), default=list(METHODS), help="names with commas, or all")
    parser.add_argument("--size", choices=list(SCALES), default="cpu")
    parser.add_argument("--steps", type=int, help="optimiser steps, instead of those of the size")
    parser.add_argument("--batch", type=int, help="images in a batch, instead of those of the size")
    parser.add_argument("--images", type=int, help="images that are generated for the scores")
    parser.add_argument("--device", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the table")
    return parser.parse_args(dashed(words))


if __name__ == "__main__":
    main()
