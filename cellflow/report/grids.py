"""Images side by side: a plain grid as a file, and labelled figures of a report."""

from collections.abc import Sequence
from colorsys import hsv_to_rgb
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cellflow.files import committed
from cellflow.images import to_bytes
from cellflow.integrate import Trajectory
from cellflow.report.html import blank

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Rows = Sequence[tuple[str, Tensor]]
"""What each row shows, and its images ``(n, c, h, w)``: bytes, or numbers from -1 to 1."""

GAP = 2
"""White pixels between two images."""
LABEL = 9
"""Size of the names of rows, in points."""
_MAGENTA = 5 / 6  # as a hue
_WHEEL = ["red", "orange", "yellow", "lime", "green", "mint", "cyan", "azure", "blue", "violet", "magenta", "rose"]
_LEAST = 48  # pixels a side that an image is enlarged to in a plain grid


def tile(rows: Sequence[Tensor]) -> np.ndarray:
    """Return images ``(n, c, h, w)`` of each row as one picture ``(height, width, 3)`` of bytes.

    Channels other than one (grey) or three (colour) are mixed, each in its own colour, see `legend`.

    Examples
    --------
    >>> tile([torch.zeros(4, 1, 8, 8), torch.zeros(4, 1, 8, 8)]).shape
    (18, 38, 3)
    """
    pictures = [_joined([_padded(image, axis=1) for image in _bytes(row)], axis=1) for row in rows]
    return _joined([_padded(picture, axis=0) for picture in pictures], axis=0)


def legend(channels: int, names: Sequence[str] | None = None) -> str:
    """Say in which colour each channel is shown; empty for grey and colour images.

    Examples
    --------
    >>> legend(2, ("DAPI", "GFP"))
    'Channels are shown as the sum of their colours: DAPI magenta, GFP green.'
    >>> legend(3)
    ''
    """
    if channels in (1, 3):
        return ""
    words = [_WHEEL[round(hue * len(_WHEEL)) % len(_WHEEL)] for hue in _hues(channels)]
    known = names or [f"channel {k}" for k in range(channels)]
    said = ", ".join(f"{name} {word}" for name, word in zip(known, words, strict=True))
    return f"Channels are shown as the sum of their colours: {said}."


def save_grid(path: Path, rows: Sequence[Tensor]) -> None:
    """Write rows of images as one PNG, small ones enlarged so that they can be seen.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "grid.png"
    >>> save_grid(path, [torch.zeros(4, 1, 8, 8)])
    >>> path.exists()
    True
    """
    from PIL import Image

    factor = max(1, _LEAST // rows[0].shape[-1])
    picture = tile(rows).repeat(factor, axis=0).repeat(factor, axis=1)
    with committed(path) as partial:
        Image.fromarray(picture).save(partial)


def rows_figure(rows: Rows) -> "Figure":
    """Return a figure with one labelled row for each entry; images of one column belong together.

    All images have the size that the longest row leaves them; shorter rows end in white.
    """
    from matplotlib.figure import Figure
    from matplotlib.textpath import TextPath

    most = max(len(images) for _, images in rows)
    pictures = [_lengthened(tile([images]), len(images), most) for _, images in rows]
    longest = max(TextPath((0, 0), name, size=LABEL).get_extents().width for name, _ in rows) / 72
    width, margin = 9.0, max(1.1, longest + 0.2)  # inches; the margin holds the labels
    heights = [(width - margin) * picture.shape[0] / picture.shape[1] for picture in pictures]
    figure = Figure(figsize=(width, sum(heights) * 1.06))  # an automatic layout would cut off the labels
    figure.subplots_adjust(left=margin / width, right=1, bottom=0, top=1, hspace=0.06)
    axes = np.atleast_1d(figure.subplots(len(rows), 1, gridspec_kw={"height_ratios": heights}))
    for ax, picture, (name, _) in zip(axes, pictures, rows, strict=True):
        ax.imshow(picture, interpolation="nearest", aspect="equal")
        ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=LABEL)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    return figure


def trajectory_figure(trajectory: Trajectory) -> "Figure":
    """Return a figure with a row for each sample ``(save, n, c, h, w)`` and a column for each time."""
    n_times, n = trajectory.x.shape[:2]
    picture = tile([trajectory.x[:, k] for k in range(n)])
    width = 9.0
    figure = blank(width, width * picture.shape[0] / picture.shape[1] + 0.5)
    ax = figure.subplots()
    ax.imshow(picture, interpolation="nearest")
    side = trajectory.x.shape[-1]
    ax.set_xticks([(side + GAP) * k + side / 2 for k in range(n_times)], [f"{float(t):.3g}" for t in trajectory.t])
    ax.set(yticks=[], xlabel="model time t")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return figure


def nearest(images: Tensor, among: Tensor) -> Tensor:
    """Return, for each image, the one nearest to it in squared distance of pixels, from -1 to 1.

    Examples
    --------
    >>> float(nearest(torch.zeros(1, 1, 1, 1), torch.tensor([[[[0.9]]], [[[-0.2]]]])))
    -0.2...
    """
    return among[torch.cdist(images.flatten(1), among.flatten(1)).argmin(dim=1)]


def _bytes(images: Tensor) -> np.ndarray:
    """Return images as bytes ``(n, h, w, 3)``."""
    values = images if images.dtype == torch.uint8 else to_bytes(images)
    channels = values.shape[1]
    shown = values.expand(-1, 3, -1, -1) if channels == 1 else values if channels == 3 else _mixed(values)
    return shown.permute(0, 2, 3, 1).cpu().numpy()


def _hues(channels: int) -> list[float]:
    """Return evenly spaced hues, from 0 to 1, from magenta on: two are magenta and green."""
    return [(_MAGENTA + k / channels) % 1 for k in range(channels)]


def _mixed(values: Tensor) -> Tensor:
    """Return bytes of many channels as the sum of their colours."""
    colours = torch.tensor([hsv_to_rgb(hue, 1, 1) for hue in _hues(values.shape[1])], device=values.device)
    return torch.einsum("nchw,ck->nkhw", values.float(), colours).round().clamp(max=255).to(torch.uint8)


def _lengthened(picture: np.ndarray, n: int, most: int) -> np.ndarray:
    """Return a row of ``n`` images as wide as one of ``most``."""
    side = (picture.shape[1] + GAP) // n
    return np.pad(picture, [(0, 0), (0, (most - n) * side), (0, 0)], constant_values=255)


def _padded(picture: np.ndarray, *, axis: int) -> np.ndarray:
    widths = [(0, GAP if k == axis else 0) for k in range(3)]
    return np.pad(picture, widths, constant_values=255)


def _joined(pictures: Sequence[np.ndarray], *, axis: int) -> np.ndarray:
    """Join padded pictures, without the gap after the last one."""
    joined = np.concatenate(pictures, axis=axis)
    return np.take(joined, np.arange(joined.shape[axis] - GAP), axis=axis)
