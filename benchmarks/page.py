"""Pages in Markdown and their figures: tables, numbers as they are shown, and the command that made them."""

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from string import Template
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def made_by(command: str, where: str = "") -> str:
    """Return the sentence with the command, the day, and the machine where it is told."""
    return f"Made by `{command}` on {time.strftime('%Y-%m-%d')}{f': {where}' if where else ''}."


def fill(template: Path, **fields: object) -> list[list[str]]:
    """Return the parts of a text, which lines of ``---`` divide, as lines with the ``$names`` filled in."""
    parts = template.read_text().strip("\n").split("\n\n---\n\n")
    return [Template(part).substitute(fields).splitlines() for part in parts]


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a table."""
    lines = ["| " + " | ".join("" if cell is None else str(cell) for cell in cells) + " |" for cells in (head, *rows)]
    return [lines[0], "|" + "---|" * len(head), *lines[1:]]


def write(path: Path, lines: Iterable[str]) -> None:
    """Write a page, and show it."""
    text = "\n".join(lines).rstrip("\n") + "\n"
    path.write_text(text)
    print(text)


def shown(row: Mapping[str, Any], name: str, digits: int = 3) -> str:
    """Return a number of a row, with its interval in square brackets where it has one; nothing where it is missing."""
    found = [row.get(column) for column in (name, f"{name}_low", f"{name}_high")]
    value, *interval = [f"{number:.{digits}g}" for number in found if number is not None] or [""]
    return f"{value} [{', '.join(interval)}]" if interval else value


def spread(values: Iterable[float], form: str = ".4g", error: str | None = None) -> str:
    """Return the mean of some numbers, and their standard deviation in round brackets where there are several."""
    found = list(values)
    many = f" ({stdev(found):{error or form}})" if len(found) > 1 else ""
    return f"{mean(found):{form}}{many}"


def figure(rows: int = 1, columns: int = 1, *, size: tuple[float, float], **shared: Any) -> "tuple[Figure, Any]":
    """Return a figure that needs no window, and its axes ``(rows, columns)``."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=size, layout="constrained")
    return drawn, drawn.subplots(rows, columns, squeeze=False, **shared)


def save(drawn: "Figure", path: Path) -> Path:
    """Write a figure, and return its file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path, dpi=120)
    return path


def log_numbers(axis: Any) -> None:
    """Write plain numbers on a logarithmic axis, at 1, 2 and 5."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())
