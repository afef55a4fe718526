"""Pictures of images: rows of samples with a name before each."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor


def draw(rows: Mapping[str, Tensor], path: Path, *, title: str) -> None:
    """Draw rows of images ``(k, c, h, w)`` from -1 to 1, one below the other."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    count = max(len(images) for images in rows.values())
    figure, axes = plt.subplots(
        len(rows), 1, figsize=(2.2 + 0.8 * count, 0.4 + 0.82 * len(rows)), squeeze=False, layout="constrained"
    )
    for axis, (name, images) in zip(axes[:, 0], rows.items(), strict=True):
        axis.imshow(strip(images).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
    figure.suptitle(title, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def strip(images: Tensor) -> Tensor:
    """Return images ``(k, c, h, w)`` from -1 to 1 side by side, as ``(h, w')`` grey or ``(h, w', 3)`` from 0 to 1.

    Examples
    --------
    >>> strip(torch.zeros(3, 1, 4, 4)).shape, strip(torch.zeros(2, 3, 4, 4)).shape
    (torch.Size([4, 14]), torch.Size([4, 9, 3]))
    """
    levels = ((images.detach().cpu().float() + 1) / 2).clamp(0, 1)
    gap = torch.ones(*levels.shape[1:3], 1)
    parts = [part for image in levels for part in (image, gap)][:-1]
    joined = torch.cat(parts, dim=2)
    return joined[0] if len(joined) == 1 else joined.permute(1, 2, 0)
