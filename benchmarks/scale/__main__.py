"""The command line: ``python -m benchmarks.scale [subject ...] size=small|full``.

Without subjects all are measured but ``device``, which wants a GPU: ``make gpu`` measures it.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import torch

from benchmarks import machine, page
from benchmarks.command import Several, Words, guarded, options
from benchmarks.rows import Row, Table
from benchmarks.scale import __doc__ as about
from benchmarks.scale.case import Case
from benchmarks.scale.process import measured

KEY = ("subject", "problem", "method")
SUBJECTS = sorted(
    file.stem
    for file in Path(__file__).parent.glob("*.py")
    if file.stem not in ("__init__", "__main__", "case", "process")
)
HEAD = {
    "problem": "problem", "method": "by", "seconds": "seconds", "cpu_seconds": "CPU seconds", "peak_gib": "peak GiB",
    "above_gib": "GiB above data", "children_gib": "largest child, GiB", "device": "device", "device_gib": "its GiB",
    "threads": "threads", "load": "load before", "failed": "failed",
}  # fmt: skip
"""Columns of each table; those that a subject adds follow, those that are empty are left out."""
NUMBERS = ("seconds", "cpu_seconds", "peak_gib", "above_gib")
"""What is shown while it runs."""


def main(words: Words = None) -> None:
    """Measure what is not in the table yet, and write the page."""
    given = list(sys.argv[1:] if words is None else words)
    names = [word for word in given if word in SUBJECTS]
    rest = [word for word in given if word not in SUBJECTS]
    asked = options(
        "scale",
        about,
        [f"subjects={','.join(names)}"] * bool(names) + rest,
        subjects=Several(SUBJECTS, [name for name in SUBJECTS if name != "device"]),
        size=["small", "full"],
        title="scale",
        again=False,
    )
    table = Table(asked.out / f"{asked.title}.csv", KEY)
    table.refuse_others("size", asked.size)
    cases = [case for name in asked.subjects for case in cases_of(name, asked.size)]
    for case in cases:
        if asked.again or not table.read(**case.key, made=case.made, failed=None):
            print(f"--- {' | '.join(case.key.values())}", flush=True)
            row = measured(case)
            table.put({**row, "size": asked.size})
            numbers = [f"{HEAD[name]} {row[name]:.3g}" for name in NUMBERS if row.get(name) is not None]
            print("   ", ", ".join(numbers) or row["failed"], flush=True)
    chosen = "" if asked.title == "scale" else f" title={asked.title} subjects={','.join(asked.subjects)}"
    command = f"python -m benchmarks.scale size={asked.size}{chosen}{asked.tail}"
    page.write(asked.out / f"{asked.title}.md", text(table.read(), asked.size, command))


def cases_of(name: str, size: str) -> Sequence[Case]:
    """Return the cases of a subject."""
    found: Sequence[Case] = _module(name).CASES[size]
    return found


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"benchmarks.scale.{name}")


def text(rows: Sequence[Row], size: str, command: str) -> list[str]:
    """Return the page: a table for each subject, of whatever run."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    where = f"{os.cpu_count()} cores ({machine.processor()}), {memory:.0f} GiB, torch {torch.__version__}"
    (lines,) = page.fill(Path(__file__).with_name("scale.md"), made=page.made_by(command, where))
    for name in dict.fromkeys(row["subject"] for row in rows):
        goals = {(case.problem, case.method): case for case in (cases_of(name, size) if name in SUBJECTS else ())}
        lines += ["", f"## {name}", "", *(_module(name).__doc__ or "").strip().splitlines(), ""]
        lines += _table([row for row in rows if row["subject"] == name], goals)
    return lines


def _table(rows: Sequence[Row], goals: dict[tuple[str, str], Case]) -> list[str]:
    """Return a table of the columns that have something to say, and of the goals."""
    own = [name for name in rows[0] if name not in (*HEAD, *KEY, "size", "made")]
    shown = [name for name in (*HEAD, *own) if any(row.get(name) not in (None, 0, "CPU") for row in rows)]
    cases = [goals.get((row["problem"], row["method"])) for row in rows]
    cells = [
        [*(page.shown(row, name) if isinstance(row[name], float) else row[name] for name in shown),
         case.today if case else "", case.reach if case else ""]
        for row, case in zip(rows, cases, strict=True)
    ]  # fmt: skip
    return page.table([*(HEAD.get(name, name.replace("_", " ")) for name in shown), "before", "to reach"], cells)


if __name__ == "__main__":
    guarded("scale", main)
