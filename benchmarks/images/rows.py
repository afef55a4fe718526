"""Rows of scores in a CSV file: read, added to, and replaced where the same thing was measured again."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"

Row = dict[str, Any]


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows that are there already, as text."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def keep(path: Path, fresh: Iterable[Row], *, columns: Sequence[str], key: Sequence[str]) -> None:
    """Add rows; old ones with the same ``key`` give way."""
    new = [{name: written(row.get(name)) for name in columns} for row in fresh]
    taken = {tuple(row[name] for name in key) for row in new}
    old = [row for row in read(path) if tuple(row.get(name, "") for name in key) not in taken]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(sorted(old + new, key=lambda row: [row[name] for name in key[:1]]))


def written(value: object) -> str:
    """Return a value as the file has it: five digits, nothing for None.

    Examples
    --------
    >>> written(0.123456), written(None), written(True), written(12)
    ('0.12346', '', 'True', '12')
    """
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def shown(row: dict[str, str], name: str, digits: int = 3) -> str:
    """Return a number for a table, with its interval in square brackets where the row has one.

    Examples
    --------
    >>> shown({"fd": "12.345", "fd_low": "11", "fd_high": "14.2"}, "fd"), shown({"fd": ""}, "fd")
    ('12.3 [11, 14.2]', '')
    """
    if not row.get(name):
        return ""
    ends = [row.get(f"{name}_{end}") for end in ("low", "high")]
    texts = [f"{float(text):.{digits}g}" for text in (row[name], *ends) if text]
    return texts[0] if len(texts) == 1 else f"{texts[0]} [{texts[1]}, {texts[2]}]"
