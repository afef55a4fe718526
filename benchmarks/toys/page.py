"""The page: rows set beside the published numbers, with a reason where they are above."""

from pathlib import Path
from statistics import mean, stdev

from benchmarks import page
from benchmarks.rows import Row, Table
from benchmarks.toys.methods import METHODS, PAIRS

FLOOR = "floor"
"""Rows of this name hold what sampling leaves of a perfect learner; their energy is that of independent pairs."""
BLURRED = {"published path, I-CFM": "I-CFM", "published path, FM": "FM"}
"""Rows of these names hold the energy of the exact field of the path of a method as it was published."""
PUBLISHED = Path(__file__).with_name("published.csv")
"""Mean and standard deviation over five seeds; FM and SB-CFM were not published on the last pair.

Source: Tong et al. 2024 (AISTATS), table 2."""
HEAD = ("method", "seeds", "W2", "published", "", "NPE", "published", "")


def text(rows: list[Row], command: str) -> list[str]:
    """Return the whole page."""
    (lines,) = page.fill(Path(__file__).with_name("page.md"), made=page.made_by(command, "one thread"))
    for pair in PAIRS:
        mine = [row for row in rows if row["pair"] == pair]
        theirs = {row["method"]: row for row in Table(PUBLISHED, ()).read(pair=pair)}
        lines += ["", *_section(pair, mine, theirs)] if mine else []
    return lines


def _section(pair: str, rows: list[Row], published: dict[str, dict[str, str]]) -> list[str]:
    runs = {name: [row for row in rows if row["method"] == name] for name in (*METHODS, FLOOR, *BLURRED)}
    floor, table, notes = runs[FLOOR], [], []
    for method in METHODS:
        if mine := runs[method]:
            blurred = next((runs[name] for name, of in BLURRED.items() if of == method), [])
            cells = []
            for name in ("w2", "npe"):
                theirs = published.get(method, {})
                value, sd = (float(theirs[key]) if key in theirs else None for key in (name, f"{name}_sd"))
                ours = mean(row[name] for row in mine)
                cells += [_spread(mine, name), "-" if value is None else f"{value:.3f} ({sd:.3f})"]
                cells.append("" if value is None else "yes" if ours <= value else "**above**")
                if value is not None and sd is not None and ours > value:
                    reason = _reason(method, name, mine, value, sd, floor, blurred)
                    notes.append(f"* {method}, {name.upper()}: {ours:.3f} against {value:.3f}. {reason}")
            table.append([method, len(mine), *cells])
    table.append([FLOOR, len(floor), _spread(floor, "w2"), "", "", _spread(floor, "npe"), "", ""])
    exact = [{"npe": abs(row["energy"] / row["least"] - 1)} for row in floor]
    for name, found in {"independent": exact, **{name: runs[name] for name in BLURRED}}.items():
        if found:
            table.append([f"exact field, {name}", len(found), "", "", "", _spread(found, "npe"), "", ""])
    lines = [f"## {pair}", "", *page.table(HEAD, table)]
    return [*lines, "", "Above the published value:", "", *notes] if notes else lines


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
