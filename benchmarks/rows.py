"""Rows of a result as CSV: read, put in place of older ones, resumed, and refused where two settings would be mixed."""

import csv
import fcntl
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
"""The committed tables and figures; written with ``--commit-table`` alone."""
NUMBER = re.compile(r"-?(\d+\.\d*([eE][+-]?\d+)?|\d[eE][+-]\d+|0|[1-9]\d*|inf)|nan")

Row = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """A CSV file of rows, each named by the columns in ``key``; columns appear in the order in which rows bring them.

    Several processes may add rows at once. The file is replaced whole: whoever reads it, or stops a run, finds the
    rows from before or those from after.
    """

    path: Path
    key: tuple[str, ...]
    columns: tuple[str, ...] = ()
    form: str = ".5g"  # of numbers

    def read(self, **about: object) -> list[Row]:
        """Return the rows with these values: whole numbers, numbers and truths as such, None where a cell is empty."""
        texts = {name: text_of(value) for name, value in about.items()}
        found = [row for row in self._texts() if texts.items() <= row.items()]
        return [{k: v if v and k == DIGEST else value_of(v) for k, v in row.items()} for row in found]

    def put(self, *fresh: Mapping[str, Any], whole: bool = False) -> None:
        """Add rows; one with the key of an older row takes its place. ``whole``: all older ones go."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)  # until it is closed
            old = [] if whole else self._texts()
            new = [{name: text_of(value, self.form) for name, value in row.items()} for row in fresh]
            columns = list(dict.fromkeys([*self.columns, *(name for row in [*old, *new] for name in row)]))
            rows = {tuple(row.get(name, "") for name in self.key): row for row in [*old, *new]}
            with self.path.with_suffix(".fresh").open("w", newline="") as file:
                table = csv.DictWriter(file, columns, lineterminator="\n", restval="")
                table.writeheader()
                table.writerows(rows.values())
            self.path.with_suffix(".fresh").replace(self.path)
        finally:
            os.close(folder)

    def refuse_others(self, column: str, value: object) -> None:
        """Raise when there are rows with another value in this column: two sizes do not belong in one table."""
        others = sorted({row.get(column, "") for row in self._texts()} - {text_of(value)})
        if others:
            raise ValueError(
                f"{self.path} holds rows of {' and of '.join(others)}; asked for {value}. Rows of two sizes do not "
                "belong in one table: choose another folder, `--out`, or remove the file."
            )

    def _texts(self) -> list[dict[str, str]]:
        if not self.path.is_file():
            return []
        with self.path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        if any(None in row.values() for row in rows):
            raise ValueError(f"{self.path} is damaged: a row is cut off. Remove it to make it again.")
        return rows


def text_of(value: object, form: str = ".5g") -> str:
    """Return a value as the file has it: five digits unless told otherwise, nothing for ``None``."""
    if value is None:
        return ""
    return f"{value:{form}}" if isinstance(value, float) else str(value)


def value_of(text: str) -> Any:
    """Return what a text of the file stands for."""
    if text in ("", "True", "False"):
        return {"True": True, "False": False}.get(text)
    if not NUMBER.fullmatch(text):
        return text
    return int(text) if text.lstrip("-").isdigit() else float(text)


DIGEST = "settings"
"""The column of what `digest` returns, which remains a text where all its letters happen to be digits."""


def digest(parts: Sequence[object]) -> str:
    """Return a few letters that are others wherever a part is: of all that a row depends on."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:10]


def rounded(row: Mapping[str, Any]) -> Row:
    """Return a row for the terminal."""
    return {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in row.items()}
