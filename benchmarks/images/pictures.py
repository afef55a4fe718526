"""A few images of each method, kept until the picture of all is drawn."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import cellflow as cf
from benchmarks.page import save
from cellflow.report.grids import rows_figure

SAMPLES = Path("runs") / "bench" / "samples"
SHOWN = 12


def keep(folder: str, name: str, images: Tensor) -> None:
    """Keep the first images ``(n, c, h, w)`` from -1 to 1 under a name."""
    path = SAMPLES / folder / f"{name}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, cf.images.to_bytes(images[:SHOWN]).numpy())


def draw(folder: str, names: Iterable[str], path: Path, **titles: str) -> None:
    """Draw what is kept under these names, one below the other, as far as it is there; ``titles`` rename rows."""
    files = {name: SAMPLES / folder / f"{name}.npy" for name in names}
    rows = [(titles.get(n, n), torch.from_numpy(np.load(file))) for n, file in files.items() if file.is_file()]
    if rows:
        save(rows_figure(rows), path)
