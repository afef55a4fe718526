"""Fates beside those of clones: ``python -m benchmarks.fate``.

Early cells of LARRY and of its blood progenitors: what each becomes, by flows of every kind, static plans, CellRank on
these plans, and not moving; beside what its clone became. Rows that are there already are not measured again:
``--again`` does so, and ``--set`` and ``--method`` choose some. CellRank runs in an environment of its own (``make
doors``); where there is none, its rows are skipped by name.
"""

import time
from pathlib import Path

from benchmarks import page
from benchmarks.command import Several, Words, guarded, options
from benchmarks.fate.methods import FLOWS, METHODS
from benchmarks.fate.sets import SETS
from benchmarks.rows import Row, Table, digest, rounded
from cellflow.errors import ConvergenceError, MissingDependencyError

CELLS = 3000
"""Cells of each day of LARRY: all that are asked, and others drawn once for all methods."""
COLUMNS = {
    "larry": {"r": "r", "auc": "AUROC"},
    "clones": {"overlap": "overlap"},
}


def main(words: Words = None) -> None:
    """Score every method on every set, and write ``fates.csv`` and ``fates.md``."""
    some = Several(SETS), Several(METHODS)
    given = options("fate", __doc__, words, set=some[0], method=some[1], seeds=1, cells=CELLS, again=False)
    table = Table(given.out / "fates.csv", ("set", "method", "seed"))
    for name in given.set:
        for method in given.method:
            for seed in range(given.seeds if method in FLOWS else 1):
                row = once(table, name, method, seed, given.cells, again=given.again)
                print(rounded({k: v for k, v in row.items() if v is not None}), flush=True)
    page.write(given.out / "fates.md", text(table.read(), "python -m benchmarks.fate" + given.tail))


def once(table: Table, name: str, method: str, seed: int, cells: int, *, again: bool) -> Row:
    """Return the row of a method, measured unless it is there with the same settings; not kept if it is skipped."""
    about = {"set": name, "method": method, "seed": seed}
    settings = digest([METHODS[method], cells if name == "larry" else None])
    known = table.read(**about, settings=settings)
    if known and not again:
        return known[0]
    case, start = SETS[name](cells), time.perf_counter()
    try:
        found = case.score(METHODS[method].shares(case, seed=seed))
    except MissingDependencyError as error:
        return about | {"skipped": str(error)}
    except ConvergenceError as error:
        found = {"failed": str(error).partition(":")[0]}
    row = about | found | {"seconds": time.perf_counter() - start, "settings": settings}
    table.put(row)
    return row


def text(rows: list[Row], command: str) -> list[str]:
    """Return the page: what is measured, and the table of each set that has rows."""
    lines, *abouts, said = page.fill(Path(__file__).with_name("table.md"), made=page.made_by(command, "one thread"))
    for (name, columns), about in zip(COLUMNS.items(), abouts, strict=True):
        some = [row for row in rows if row["set"] == name]
        if some:
            lines = [*lines, "", *about, "", *_table(some, columns)]
    return [*lines, "", *said]


def _table(rows: list[Row], columns: dict[str, str]) -> list[str]:
    cells = []
    for method in METHODS:
        some = [row for row in rows if row["method"] == method]
        if some and some[0].get("failed"):
            cells.append([method, str(some[0]["failed"]), *[""] * (len(columns) - 1)])
        elif some:
            cells.append([method, *(_cell(some, column) for column in columns)])
    return page.table(["method", *columns.values()], cells)


def _cell(rows: list[Row], column: str) -> str:
    return page.shown(rows[0], column) if len(rows) == 1 else page.spread([row[column] for row in rows], ".3g")


if __name__ == "__main__":
    guarded("fate", main)
