"""Every run as CSV, the means as a table beside published values, and the figure of quality against steps."""

import csv
import fcntl
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.few_step.plane import JUMPS

RESULTS = Path(__file__).parents[1] / "results"
Row = dict[str, Any]
KINDS: dict[str, Callable[[str], Any]] = {"method": str, "seed": int, "size": str, "device": str}
"""What columns hold, where these are no numbers with a point."""
WIDE = 2
"""From this ratio of the ends on, the axis of errors is logarithmic."""


def keep(path: Path, row: Row) -> None:
    """Add a row to a CSV file, in place of an older one of the same method and seed; seeds may run side by side.

    The file is replaced at once: whoever reads it, or stops a run, finds the rows from before or those from after.
    """
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # until it is closed
        rows = [old for old in read(path) if (old["method"], old["seed"]) != (row["method"], row["seed"])]
        with path.with_suffix(".fresh").open("w", newline="") as file:
            table = csv.DictWriter(file, row, lineterminator="\n")
            table.writeheader()
            table.writerows([*rows, {k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()}])
        path.with_suffix(".fresh").replace(path)
    finally:
        os.close(folder)


def read(path: Path) -> list[Row]:
    """Return the rows of a CSV file, numbers as numbers."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [{k: KINDS.get(k, float)(v) for k, v in row.items()} for row in csv.DictReader(file)]


def write(
    path: Path,
    *,
    title: str,
    measure: str,
    about: list[str],
    published: Mapping[str, Sequence[float]],
    best: float | None,
    command: str,
) -> None:
    """Write the page and the figure of one task beside the CSV file with its rows.

    Published values are one for each number of steps; or one alone, of another protocol, which is not drawn.
    """
    rows = read(path)
    devices = "; ".join(dict.fromkeys(row["device"] for row in rows))
    lines = [
        f"# Few steps: {title}", "",
        f"Last made by `{command}` on {time.strftime('%Y-%m-%d')}. Run on: {devices}.",
        *about,
        "Mean (standard deviation) over seeds. Seconds, of the processor on a CPU and on the wall on a GPU, are those",
        "of all training, the teacher's included.",
        *([] if best is None else [f"Floor: {best:.4g}."]), "",
        f"![quality against steps]({path.stem}.png)", "",
        f"| method | seeds | {' | '.join(map(str, JUMPS))} | semigroup error | seconds |",
        f"|{'---|' * (len(JUMPS) + 4)}",
    ]  # fmt: skip
    for method in dict.fromkeys(row["method"] for row in rows):
        lines.append(_line(method, [row for row in rows if row["method"] == method]))
    lines += [_published_line(name, values) for name, values in published.items()]
    text = "\n".join(lines) + "\n"
    path.with_suffix(".md").write_text(text)
    draw(rows, path.with_suffix(".png"), title=title, measure=measure, best=best, published=published)
    print(text)


def _published_line(name: str, values: Sequence[float]) -> str:
    empty = [""] * (len(JUMPS) - len(values))
    return f"| published: {name} | | {' | '.join([*empty, *(f'{value:.4f}' for value in values)])} | | |"


def _line(method: str, rows: list[Row]) -> str:
    def cell(name: str) -> str:
        values = [row[name] for row in rows]
        return f"{mean(values):.4g}" + (f" ({stdev(values):.2g})" if len(values) > 1 else "")

    same = method.endswith("evaluations")
    jumps = " | ".join(cell(f"at_{k}") if not same or k == JUMPS[-1] else "" for k in JUMPS)
    semigroup = "" if rows[0]["semigroup"] != rows[0]["semigroup"] else cell("semigroup")
    return f"| {method} | {len(rows)} | {jumps} | {semigroup} | {mean(row['seconds'] for row in rows):.0f} |"


def draw(
    rows: list[Row],
    path: Path,
    *,
    title: str,
    measure: str,
    best: float | None,
    published: Mapping[str, Sequence[float]],
) -> None:
    """Draw the mean of every method against the number of steps."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator

    figure, axis = plt.subplots(figsize=(8.4, 4.4), layout="constrained")
    markers = "osD^vP*X<>hp"
    for k, method in enumerate(dict.fromkeys(row["method"] for row in rows)):
        mine = [row for row in rows if row["method"] == method]
        values = [mean(row[f"at_{n}"] for row in mine) for n in JUMPS]
        if method.endswith("evaluations"):
            axis.axhline(values[-1], ls="--", lw=1, color=f"C{k % 10}", label=method)
            continue
        again: dict[str, Any] = {"ls": "-.", "mfc": "white"} if k >= 10 else {}  # there are ten colours
        axis.plot(
            JUMPS, values, marker=markers[k % len(markers)], ms=4, lw=1.3, color=f"C{k % 10}", label=method, **again
        )
    for k, (name, known) in enumerate(published.items()):
        if len(known) == len(JUMPS):
            style: dict[str, Any] = {"color": "#777777", "mfc": "white", "lw": 0.8, "ms": 4, "ls": "--"}
            axis.plot(JUMPS, known, marker=markers[k % len(markers)], label=f"published: {name}", **style)
    if best:
        axis.axhline(best, ls=":", lw=1, color="#888888", label="floor")
    axis.set(xscale="log", xlabel="steps, one evaluation of the network each", ylabel=measure)
    axis.set_xticks(JUMPS, [str(k) for k in JUMPS])
    low, high = axis.get_ylim()
    if high > WIDE * low:
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
    axis.minorticks_off()
    axis.set_title(title, fontsize=10)
    figure.legend(loc="outside right center", fontsize=8, frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)
