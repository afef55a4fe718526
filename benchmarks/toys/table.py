"""The rows of the table: where they are kept, how they are set beside the published numbers."""

import csv
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.toys.methods import METHODS
from benchmarks.toys.pairs import PAIRS
from benchmarks.toys.published import PUBLISHED

RESULTS = Path(__file__).parents[1] / "results"
COLUMNS = ("pair", "method", "seed", "settings", "w2", "npe", "energy", "least", "seconds")
FLOOR = "floor"
"""Rows of this name hold what sampling leaves of a perfect learner; their energy is that of independent pairs."""
BLURRED = {"published path, I-CFM": "I-CFM", "published path, FM": "FM"}
"""Rows of these names hold the energy of the exact field of the path of a method as it was published."""

Row = dict[str, Any]


def read(path: Path) -> list[Row]:
    """Return the rows that are there already."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [{k: _number(k, v) for k, v in row.items()} for row in csv.DictReader(file)]


def _number(column: str, text: str) -> Any:
    if column in ("pair", "method", "settings"):
        return text
    return int(text) if column == "seed" else float(text)


def append(path: Path, row: Row) -> None:
    """Add a row; a row of the same pair, method and seed, but of other settings, gives way."""
    key = ("pair", "method", "seed")
    rows = [old for old in read(path) if any(old[k] != row[k] for k in key)] + [row]
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(rows)


def page(rows: list[Row], command: str) -> str:
    """Return the whole table in Markdown."""
    lines = [
        "# Flows and bridges in the plane",
        "",
        f"Made by `{command}` on {time.strftime('%Y-%m-%d')}, one thread. 10,000 training and 10,000 test",
        "points; mean (standard deviation) over seeds. W2 from the test source, pushed along the probability flow",
        "(ODE) by 100 Euler steps, to the test target; NPE = |path energy - W2^2| / W2^2 of the test clouds, 0 for",
        "optimal transport. Stochastic methods are scored by their ODE too, since NPE is, and every method has one.",
        "Published: Tong et al. 2024 (AISTATS), table 2. W2 is exact to a proved 0.05 % of its square.",
        "",
        "The floor is what sampling leaves of a perfect learner: W2 of the training target from the test target, and",
        "the NPE of the exact plan between the training points. 'Exact field' is the NPE of the field that joins",
        "independent pairs along straight lines, from its closed form at 8,000 random points: some 2 % of noise. The",
        "published runs blur these lines (sigma 0.1; FM: Lipman's path, which ends at that sigma), and a field that",
        "averages over a blur spends less: the exact fields of those paths stand beside it.",
        "",
    ]
    for pair in PAIRS:
        lines += _section(pair, [row for row in rows if row["pair"] == pair])
    return "\n".join(lines)


def _section(pair: str, rows: list[Row]) -> list[str]:
    if not rows:
        return []
    floor = [row for row in rows if row["method"] == FLOOR]
    lines = [
        f"## {pair}",
        "",
        "| method | seeds | W2 | published | | NPE | published | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    notes = []
    for method in METHODS:
        mine = [row for row in rows if row["method"] == method]
        if mine:
            blurred = [row for row in rows if BLURRED.get(row["method"]) == method]
            cells = [_cell(pair, method, name, mine, floor, blurred) for name in ("w2", "npe")]
            lines.append(f"| {method} | {len(mine)} | " + " | ".join(text for text, _ in cells) + " |")
            notes += [note for _, note in cells if note]
    lines.append(f"| floor | {len(floor)} | {_spread(floor, 'w2')} | | | {_spread(floor, 'npe')} | | |")
    energies = [{"npe": abs(row["energy"] / row["least"] - 1)} for row in floor]
    lines.append(f"| exact field, independent | {len(energies)} | | | | {_spread(energies, 'npe')} | | |")
    for name in BLURRED:
        exact = [row for row in rows if row["method"] == name]
        lines += [f"| exact field, {name} | {len(exact)} | | | | {_spread(exact, 'npe')} | | |"] if exact else []
    return [*lines, "", *(["Above the published value:", "", *notes, ""] if notes else [])]


def _cell(pair: str, method: str, name: str, rows: list[Row], floor: list[Row], blurred: list[Row]) -> tuple[str, str]:
    """Return ours, published and the verdict, and a note where ours is above."""
    published = PUBLISHED[name].get((pair, method))
    if published is None:
        return f"{_spread(rows, name)} | - | ", ""
    value, sd = published
    ours = mean(row[name] for row in rows)
    text = f"{_spread(rows, name)} | {value:.3f} ({sd:.3f}) | {'yes' if ours <= value else '**above**'}"
    reason = _reason(method, name, rows, value, sd, floor, blurred)
    return text, "" if ours <= value else f"* {method}, {name.upper()}: {ours:.3f} against {value:.3f}. {reason}"


def _reason(
    method: str, name: str, rows: list[Row], value: float, sd: float, floor: list[Row], blurred: list[Row]
) -> str:
    """Say which of the known limits explains a value above the published one; the first that applies."""
    ours, least = mean(row[name] for row in rows), mean(row[name] for row in floor)
    error = 2 * (_sd(rows, name) ** 2 / len(rows) + sd**2 / 5) ** 0.5
    exact = mean(row["energy"] / row["least"] - 1 for row in floor)
    if least >= value:
        return f"The sampling floor of these points, {least:.3f}, is above the published value itself."
    if name == "npe" and exact >= value and METHODS[method].coupling in ("independent", "gaussian"):
        theirs = ""
        if blurred:
            theirs = f"; that of the published path, which is blurred, {mean(row['npe'] for row in blurred):.3f}"
        return f"A perfect fit is above too: the exact field has {exact:.3f}{theirs}."
    if ours - value <= error:
        return f"Within two standard errors of the difference ({error:.3f}): {len(rows)} seeds of ours, five of theirs."
    return f"Not explained by the floor ({least:.3f}) nor by the spread over seeds ({error:.3f}): a shortfall of ours."


def _sd(rows: list[Row], name: str) -> float:
    return stdev(row[name] for row in rows) if len(rows) > 1 else 0.0


def _spread(rows: list[Row], name: str) -> str:
    return f"{mean(row[name] for row in rows):.3f} ({_sd(rows, name):.3f})"
