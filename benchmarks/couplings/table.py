"""The page: a table for each data set, the truth in its head, every method a row."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import page
from benchmarks.couplings.methods import ABLATIONS, METHODS
from benchmarks.rows import Row

COLUMNS: dict[str, dict[str, str]] = {
    "hematopoiesis": {
        "own_state": "own state",
        "own_state_by_mass": "own state, by mass",
        "clones": "own clone is nearer",
        "fates": "fates of clones",
        "W1": "W1 on day 6",
        "travel": "mean travel",
    },
    "larry": {"r": "r", "auc": "AUROC", "W1": "W1 on day 6", "travel": "mean travel"},
    "gaussians": {},
    "branching": {"auc": "AUROC of fates", "own_fate": "own fate", "growth_r": "r of growth", "W1": "W1"},
    "dyngen": {"auc_2": "AUROC from time 2", "auc_3": "AUROC from time 3", "W1": "W1"},
    "gene circuit": {"growth_r": "r of growth", "W1": "W1"},
    "nfkb": {f"{kind}_{dose}": f"{word}, {dose} ng/ml" for dose in (0, 1, 100) for kind, word in
             (("kept", "keeps rank"), ("own", "own future"))},
}  # fmt: skip
GAUSSIANS: dict[str, tuple[str, Callable[[Sequence[float]], float]]] = {
    "crossed": ("crossing, worst", max),
    "log_rate_error": ("log-rate, largest error", lambda errors: max(errors, key=abs)),
}
"""What is shown of the twelve cases, by how far the groups are apart; all of them are in the CSV."""


def text(rows: list[Row], command: str) -> list[str]:
    """Return the page: what is measured, and the table of each set that has rows."""
    parts = page.fill(Path(__file__).with_name("table.md"), made=page.made_by(command, "one thread"))
    lines = list(parts[0])
    *abouts, last = parts[1:]
    for name, about in zip(COLUMNS, abouts, strict=True):
        some = [row for row in rows if str(row["set"]).startswith(name)]
        if some:
            shown = _gaussians(some) if name == "gaussians" else _set(some, COLUMNS[name])
            lines += ["", *about, "", *shown]
    return [*lines, "", *last] if any(row["method"] in ABLATIONS for row in rows) else lines


def _set(rows: list[Row], columns: dict[str, str]) -> list[str]:
    cells = []
    for method, some in _by_method(rows):
        found = [_cell(some, column) for column in columns]
        if "failed" in some[0] and some[0]["failed"]:
            found = [str(some[0]["failed"]), *[""] * (len(columns) - 1)]
        cells.append([method, *found])
    return page.table(["method", *columns.values()], cells)


def _gaussians(rows: list[Row]) -> list[str]:
    apart = sorted({row["apart"] for row in rows if row.get("apart") is not None}, reverse=True)
    head = [f"{word}, {distance} apart" for word, _ in GAUSSIANS.values() for distance in apart]
    cells = []
    for method, some in _by_method(rows):
        found = []
        for column, (_, worst) in GAUSSIANS.items():
            for distance in apart:
                values = [row.get(column) for row in some if row.get("apart") == distance]
                known = [value for value in values if value is not None and not math.isnan(value)]
                found.append(f"{worst(known):.3f}" if values and len(known) == len(values) else "undefined")
        cells.append([method, *found])
    return page.table(["method", *head], cells)


def _by_method(rows: list[Row]) -> list[tuple[str, list[Row]]]:
    """Return the rows of each method in the order of the list, ablations last and slanted."""
    found = []
    for method in sorted(METHODS, key=lambda name: name in ABLATIONS):
        some = [row for row in rows if row["method"] == method]
        if some:
            found.append((f"_{method}_" if method in ABLATIONS else method, some))
    return found


def _cell(rows: list[Row], column: str) -> str:
    if len(rows) == 1:
        return page.shown(rows[0], column)
    values = [row[column] for row in rows if row.get(column) is not None]
    return page.spread(values, ".3g") if values else ""
