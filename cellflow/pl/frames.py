"""The frames of an animation, and their files."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellflow.errors import MissingDependencyError
from cellflow.pl.basis import Basis
from cellflow.pl.canvas import PREDICTED, dot_size, literal
from cellflow.pl.coloring import Coloring, colors_of
from cellflow.pl.labels import time_label
from cellflow.pl.look import Look
from cellflow.pl.marks import add_bar, add_legend
from cellflow.pl.moving import Moving

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import LineCollection, PathCollection
    from matplotlib.figure import Figure
    from PIL.Image import Image

TAIL = 6
"""Frames over which a moving cell leaves a line behind it."""
COLORS = 128
"""Colours of a GIF, which all frames share."""
SCALE = 48
"""Colours of a scale that are kept as they are."""
SMALLEST = 14.0
"""Area of a moving cell, at least, in square points."""
LAST = 12
"""Times as long as another that the last frame stays."""


@dataclass(frozen=True)
class Frames:
    """What is drawn on a figure, frame by frame.

    Parameters
    ----------
    figure
        The figure.
    picture
        The basis.
    moving
        Cells at each time.
    coloring
        What their colour shows; ``None`` for one colour.
    look
        How they look.
    unit
        Unit of time.
    """

    figure: "Figure"
    picture: Basis
    moving: Moving
    coloring: Coloring | None
    look: Look
    unit: str

    def draw(self) -> Iterator[None]:
        """Draw one frame after the other; the axes and all around them stay as they are in the first."""
        from matplotlib.collections import LineCollection

        ax, moving = self.figure.subplots(), self.moving
        _background(ax, self.picture.xy, self.coloring, self.look)
        self.picture.dress(ax)
        ax.update_datalim(np.concatenate(moving.places))
        ax.autoscale_view()
        if self.look.frameon is False:
            ax.set_axis_off()
        area = self.look.size or max(1.6 * dot_size(len(self.picture.xy)), SMALLEST)
        tails = LineCollection([], linewidths=0.8, alpha=0.5, zorder=2)
        ax.add_collection(tails)
        dots = ax.scatter([], [], s=area, linewidths=0.3, edgecolors="white", zorder=3)
        before = self.look.title_of(0, None)
        title = ax.set_title(self._title(before, 0))
        self.figure.draw_without_rendering()
        ax.set_autoscale_on(False)
        engine = self.figure.get_layout_engine()
        self.figure.set_layout_engine("none")
        for frame in range(len(moving.times)):
            title.set_text(self._title(before, frame))
            self._place(frame, dots, tails, area)
            yield
        self.figure.set_layout_engine(engine)

    def shades(self) -> np.ndarray:
        """Return the colours that cells may have, ``(k, 3)``, from 0 to 255: of categories, or a few of a scale."""
        from matplotlib.colors import to_rgb

        if self.coloring is None:
            found = [to_rgb(PREDICTED)]
        elif self.coloring.categorical:
            found = [to_rgb(self.coloring.mark(k)[0]) for k in range(len(self.coloring.categories))]
        else:
            found = [tuple(color[:3]) for color in colors_of(self.look)(np.linspace(0, 1, SCALE))]
        return np.unique(np.round(255 * np.array(found)), axis=0)

    def _title(self, before: str | None, frame: int) -> str:
        span = float(np.ptp(self.moving.times))
        digits = max(0, 2 - int(np.floor(np.log10(span)))) if span > 0 else 0
        label = time_label(round(float(self.moving.times[frame]), digits), self.unit)
        return literal(label if before is None else f"{before}, {label}")

    def _place(self, frame: int, dots: "PathCollection", tails: "LineCollection", area: float) -> None:
        moving = self.moving
        places, colors = moving.places[frame], self._colors(moving.origin[frame])
        dots.set_offsets(places)
        dots.set_sizes(area * moving.weight[frame])
        dots.set_facecolor(colors)
        if moving.same and frame:
            tails.set_segments(list(np.stack(moving.places[max(0, frame - TAIL) : frame + 1], axis=1)))
            tails.set_color(colors)

    def _colors(self, origin: np.ndarray) -> Any:
        from matplotlib.colors import Normalize, to_rgba, to_rgba_array

        missing = to_rgba(self.look.na_color)
        if self.coloring is None:
            return [to_rgba(PREDICTED)] * len(origin)
        if self.coloring.categorical:
            codes = self.coloring.values.cat.codes.to_numpy()
            known = [self.coloring.mark(k)[0] for k in range(len(self.coloring.categories))]
            table = np.concatenate([to_rgba_array(known), [missing]])
            return table[np.where(origin >= 0, codes[origin], -1)]
        values = self.coloring.numbers()
        scaled = Normalize(*self.look.limits(values))(np.clip(values, *self.look.limits(values)))
        found = colors_of(self.look)(np.ma.masked_invalid(scaled[origin]).filled(0))
        found[(origin < 0) | np.isnan(values[origin])] = missing
        return found


def _background(ax: "Axes", xy: np.ndarray, coloring: Coloring | None, look: Look) -> None:
    """Draw the measured cells in grey, and the bar or legend of the moving ones."""
    alpha = 0.35 if look.alpha is None else look.alpha
    style: dict[str, Any] = {"s": 0.7 * dot_size(len(xy)), "alpha": alpha, "linewidths": 0, "zorder": 1}
    ax.scatter(*xy.T, color=look.na_color, **style)
    if coloring is None or coloring.categorical:
        if coloring is not None and look.legend_loc not in (None, "none"):
            add_legend(ax, coloring, look)
        return
    add_bar([ax], coloring, look)


def write_gif(frames: Frames, partial: Path, fps: float) -> None:
    """Write a GIF with one table of colours, under the temporary name of the file."""
    images = list(_images(frames))
    drawn = list(_few_colors(images, frames.shades()))
    pause = round(1000 / fps)
    drawn[0].save(
        partial, format="GIF", save_all=True, append_images=drawn[1:], loop=0, optimize=False,
        duration=[pause] * (len(drawn) - 1) + [LAST * pause],
    )  # fmt: skip


def _few_colors(images: "list[Image]", kept: np.ndarray) -> "Iterator[Image]":
    """Return images with one table of colours, in which the background and colours to keep ``(k, 3)`` are as they were.

    A table made from the image alone would merge the colours of few cells, so that groups could not be distinguished.
    """
    from PIL import Image

    back = np.array(images[0].getpixel((0, 0)))
    table = np.array(images[len(images) // 2].quantize(COLORS - 1).getpalette()).reshape(-1, 3)[: COLORS - 1]
    table = np.concatenate([table, kept, back[None]])
    middles = 8 * np.stack(np.meshgrid(*[np.arange(32)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) + 4
    near = np.square(middles[:, None] - table[None]).sum(axis=2).argmin(axis=1).astype(np.uint8)
    for image in images:
        pixels = np.asarray(image).astype(np.int64)
        red, green, blue = np.moveaxis(pixels >> 3, -1, 0)
        places = near[(red << 10) + (green << 5) + blue]
        places[(pixels == back).all(axis=-1)] = len(table) - 1
        found = Image.fromarray(places, mode="P")
        found.putpalette(table.astype(int).ravel().tolist())
        yield found


def _images(frames: Frames) -> "Iterator[Image]":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas, given = FigureCanvasAgg(frames.figure), frames.figure.canvas
    for _ in frames.draw():
        canvas.draw()  # type: ignore[no-untyped-call]
        pixels: Any = canvas.buffer_rgba()  # type: ignore[no-untyped-call]
        yield Image.fromarray(np.asarray(pixels)[..., :3].copy())
    frames.figure.set_canvas(given)


def write_mp4(frames: Frames, path: Path, fps: float) -> None:
    """Write an MP4 by ffmpeg, with an even number of pixels, as players require."""
    from matplotlib.animation import FFMpegWriter

    even = ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p"]
    writer = FFMpegWriter(fps=fps, extra_args=even)  # type: ignore[arg-type]
    with writer.saving(frames.figure, str(path), frames.figure.dpi):
        for _ in frames.draw():
            writer.grab_frame()


def need_ffmpeg() -> None:
    """Raise unless ffmpeg is installed.

    Raises
    ------
    MissingDependencyError
        When it is not.
    """
    from matplotlib.animation import FFMpegWriter

    if not FFMpegWriter.isAvailable():
        raise MissingDependencyError(
            "An .mp4 is written by ffmpeg, which was not found. Install it, for example with `conda install ffmpeg` or "
            "`apt install ffmpeg`, or write a .gif."
        )


WRITERS: dict[str, Callable[[Frames, Path, float], None]] = {".gif": write_gif, ".mp4": write_mp4}
"""How files are written, by how their names end."""
