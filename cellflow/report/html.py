"""Text, tables and figures as HTML, and the page around them. Everything from outside is escaped here."""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, NamedTuple

from cellflow.files import committed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI, SCREEN_DPI = 160, 100


class Drawing(NamedTuple):
    """A figure, the section it belongs to, its file name, and its caption."""

    section: str
    name: str
    figure: "Figure"
    caption: str


def blank(width: float, height: float) -> "Figure":
    """Return an empty figure of a size in inches, without pyplot, so that none is left open."""
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
        contents="\n".join(f'<a href="#{name}">{titles[name]}</a>' for name in there),
        summary=summary,
        sections="\n".join(
            f'<section id="{name}">\n<h2>{titles[name]}</h2>\n{there[name]}\n</section>' for name in there
        ),
    )


def figure(drawing: Drawing, folder: Path) -> str:
    """Save a figure, and return it as HTML that holds the same picture."""
    path = folder / f"{drawing.name}.png"
    with committed(path) as partial:
        drawing.figure.savefig(partial, dpi=DPI)
    data, said = b64encode(path.read_bytes()).decode("ascii"), escape(drawing.caption)
    width = round(drawing.figure.get_figwidth() * SCREEN_DPI)
    image = f'<img width="{width}" src="data:image/png;base64,{data}" alt="{said}">'
    return f"<figure>{image}<figcaption>{said}</figcaption></figure>\n"


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
