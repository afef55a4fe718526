"""Text, tables and figures as HTML, and the page around them. Everything from outside is escaped here."""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cellflow.files import committed

if TYPE_CHECKING:
    from matplotlib.collections import Collection
    from matplotlib.figure import Figure

DPI, SCREEN_DPI = 160, 100
MOST_MARKS = 300
"""Marks of one kind that are drawn as such in an SVG; more are a picture in it, which opens at once."""


class Drawing(NamedTuple):
    """A figure, the section it belongs to, its file name, and its caption."""

    section: str
    name: str
    figure: "Figure"
    caption: str


def blank(width: float, height: float) -> "Figure":
    """Return an empty figure of a size in inches, without pyplot, so that no figure stays open."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def page(title: str, lead: str, summary: str, sections: Mapping[str, str], titles: Mapping[str, str]) -> str:
    """Return the page: its sections by name, under their titles; empty ones are left out.

    Examples
    --------
    >>> "<h2>Training</h2>" in page("Run", "What it is.", "", {"training": "<p>Fine.</p>"}, {"training": "Training"})
    True
    """
    there = {name: body for name, body in sections.items() if body}
    return Template(files("cellflow.report").joinpath("template.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        lead=escape(lead),
        contents="\n".join(f'<li><a href="#{name}">{titles[name]}</a></li>' for name in there),
        summary=summary,
        sections="\n".join(
            f'<section id="{name}">\n<h2>{titles[name]}</h2>\n{there[name]}\n</section>' for name in there
        ),
    )


def figure(drawing: Drawing, folder: Path) -> str:
    """Save a figure as PNG and as SVG, and return it as HTML that holds both: one to see, and one to keep."""
    path, vector = (folder / f"{drawing.name}.{kind}" for kind in ("png", "svg"))
    _place(drawing.figure)
    with committed(path) as partial:
        drawing.figure.savefig(partial, dpi=DPI)
    with committed(vector) as partial:
        save_vector(drawing.figure, partial)
    data, said = _base64(path), escape(drawing.caption)
    width = round(drawing.figure.get_figwidth() * SCREEN_DPI)
    image = f'<img width="{width}" src="data:image/png;base64,{data}" alt="{said}">'
    kept = f'<a download="{escape(vector.name)}" href="data:image/svg+xml;base64,{_base64(vector)}">Save as SVG</a>'
    return f"<figure>{image}<figcaption>{said} <span>{kept}</span></figcaption></figure>\n"


def _place(figure: "Figure") -> None:
    """Lay out the parts of a figure, once: each save would repeat the layout, and draw everything before it."""
    from matplotlib import rc_context

    figure.set_dpi(DPI)
    if (layout := figure.get_layout_engine()) is not None:
        layout.execute(figure)
    with rc_context({"figure.autolayout": False, "figure.constrained_layout.use": False}):
        figure.set_layout_engine(None)


def save_vector(figure: "Figure", partial: Path) -> None:
    """Save a figure as SVG with text that can be edited; what has many marks is a picture within it.

    Parameters
    ----------
    figure
        The figure; it stays as it is.
    partial
        The temporary name of the file, see `cellflow.files.committed`.
    """
    from matplotlib import rc_context
    from matplotlib.collections import Collection

    many = [mark for mark in figure.findobj(Collection) if _marks(mark) > MOST_MARKS]
    before = [mark.get_rasterized() for mark in many]
    for mark in many:
        mark.set_rasterized(True)
    try:
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": "cellflow"}):
            figure.savefig(partial, format="svg", dpi=DPI, metadata={"Date": None})
    finally:
        for mark, rastered in zip(many, before, strict=True):
            mark.set_rasterized(rastered)


def _marks(collection: "Collection") -> int:
    """Return how many points, lines or cells of a mesh a collection draws."""
    offsets, values = np.asarray(collection.get_offsets()), collection.get_array()
    return max(len(offsets), len(collection.get_paths()), 0 if values is None else values.size)


def _base64(path: Path) -> str:
    return b64encode(path.read_bytes()).decode("ascii")


def paragraph(text: str, *, style: str = "") -> str:
    """Return text as a paragraph.

    Examples
    --------
    >>> print(paragraph("1 < 2", style="note"))
    <p class="note">1 &lt; 2</p>
    <BLANKLINE>
    """
    return f'<p class="{style}">{escape(text)}</p>\n' if style else f"<p>{escape(text)}</p>\n"


def listing(code: str, *, style: str = "") -> str:
    """Return code as it is to be typed."""
    return f'<pre class="{style}">{escape(code)}</pre>' if style else f"<pre>{escape(code)}</pre>"


def bullets(sentences: Iterable[str]) -> str:
    """Return sentences as a list."""
    return f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>"


def table(header: Sequence[str] | None, rows: Iterable[Sequence[str]], *, numbers: Sequence[int] | range = ()) -> str:
    """Return a table; the first cell of a row is its heading, and text of several lines keeps them."""
    kind = ['class="number"' if k in numbers else "" for k in range(len(header or ()))]
    head = "".join(f"<th {kind[k]}>{escape(name)}</th>" for k, name in enumerate(header or ()))
    body = ""
    for first, *rest in rows:
        cells = "".join(
            f"<td {kind[k] if header else ''}>{_cell(str(value))}</td>" for k, value in enumerate(rest, start=1)
        )
        body += f"<tr><th>{escape(str(first))}</th>{cells}</tr>\n"
    thead = f"<thead><tr>{head}</tr></thead>" if header else ""
    return f'<div class="wide"><table>{thead}<tbody>{body}</tbody></table></div>\n' if body else ""


def _cell(text: str) -> str:
    return f"<pre>{escape(text)}</pre>" if "\n" in text else escape(text)
