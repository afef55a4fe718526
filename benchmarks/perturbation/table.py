"""The page: what was to be reached beside what was measured, then a table for each data set."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from benchmarks import page
from benchmarks.perturbation.baselines import BASELINES
from benchmarks.perturbation.scores import HALF
from benchmarks.perturbation.sets import STRENGTHS
from benchmarks.rows import Row

TEXT = Path(__file__).with_name("table.md")
COLUMNS = {
    "pearson": "Pearson of the change", "pearson_top": "of the top 50", "direction": "right direction",
    "energy": "energy distance", "MMD": "MMD", "W1": "W1", "rank": "rank along tracks", "seconds": "s",
}  # fmt: skip
HIGHER = ("pearson", "pearson_top", "rank")
TODAY, OURS = "DomainTranslator, 1500 steps", ("PerturbationFlow", "SnapshotFlow")


@dataclass(frozen=True)
class Target:
    """What was asked for: a score of a set, and how good it must be, given those of the baselines by name."""

    set: str
    score: str
    asked: str
    limit: Callable[[dict[str, float]], float]

    def reached(self, value: float, baselines: dict[str, float]) -> bool:
        """Return whether a score is as good as was asked."""
        limit = self.limit(baselines)
        return value >= limit if self.score in HIGHER else value <= limit


def _fixed(limit: float) -> Callable[[dict[str, float]], float]:
    return lambda baselines: limit


def _all(baselines: dict[str, float]) -> float:
    return min(baselines.values())


def _harmless(baselines: dict[str, float]) -> float:
    return 1.1 * min(baselines["no change"], baselines["mean shift"])


TARGETS = (
    Target("kang", "pearson", ">= .895", _fixed(0.895)),
    Target("kang", "energy", "<= .95", _fixed(0.95)),
    Target("norman", "pearson", ">= .875", _fixed(0.875)),
    Target("mcf10a dose", "W1", "<= 1.80", _fixed(1.80)),
    Target("mcf10a time, day 3", "energy", "below every baseline", _all),
    Target("mcf10a time, day 3", "W1", "below every baseline", _all),
    Target("nfkb", "W1", "below every baseline", _all),
    Target("null treatment", "energy", "<= 1.1 x no change", lambda baselines: 1.1 * baselines["no change"]),
    *(
        Target(f"kang, {strength:g} of the effect", "energy", "<= 1.1 x the better of no change and mean shift",
               _harmless)
        for strength in STRENGTHS
    ),
)  # fmt: skip


def text(rows: list[Row], command: str) -> list[str]:
    """Return the page: what is measured, what was to be reached, and the table of each set that has rows."""
    parts = page.fill(TEXT, made=page.made_by(command, "one thread"))
    lines, names = list(parts[0]), list(dict.fromkeys(row["set"] for row in rows))
    abouts = {part[0].removeprefix("## "): part[1:] for part in parts[1:]}
    if any(target.set in names for target in TARGETS):
        lines += ["", "## Targets", *abouts["Targets"], "", *_reached(rows)]
        lines += ["", "## What flows do here", *abouts["What flows do here"]]
    for about, sets in _sections(names).items():
        lines += ["", f"## {about}", *abouts.get(about, [])]
        for name in sets:
            title = [] if len(sets) == 1 else ["", f"### {name}"]
            lines += [*title, "", *_set([row for row in rows if row["set"] == name])]
    return lines


def means(rows: list[Row], column: str) -> list[float]:
    """Return the mean of a score over all questions, of each seed; nothing where one has none."""
    found = []
    for seed in sorted({row["seed"] for row in rows}):
        values = [row.get(column) for row in rows if row["seed"] == seed]
        known = [value for value in values if value is not None]
        if values and len(known) == len(values):
            found.append(mean(known))
    return found


def _sections(names: list[str]) -> dict[str, list[str]]:
    """Return the sets of every section, in their order."""
    found: dict[str, list[str]] = {}
    for name in names:
        about = "kang, parts of the effect" if name.endswith("of the effect") else name.removesuffix(", clean")
        about = "mcf10a time" if name.startswith("mcf10a time") else about
        found.setdefault("simulation" if name.startswith("simulation") else about, []).append(name)
    return found


def _reached(rows: list[Row]) -> list[str]:
    cells = []
    for target in TARGETS:
        some = [row for row in rows if row["set"] == target.set]
        found = {
            method: mean(values)
            for method in dict.fromkeys(row["method"] for row in some)
            if (values := means([row for row in some if row["method"] == method], target.score))
        }
        simple = {method: value for method, value in found.items() if method in BASELINES}
        if not simple:
            continue
        best = (max if target.score in HIGHER else min)(simple, key=lambda method: simple[method])
        flows = [method for method in found if method.startswith(OURS)]
        line = [target.set, COLUMNS[target.score], *(_number(found.get(name)) for name in ("no change", "mean shift"))]
        line += [f"{_number(simple[best])} ({best})", _number(found.get(TODAY))]
        line.append("; ".join(f"{_number(found[name])} ({name})" for name in flows))
        line += [_number(found.get(HALF)), target.asked]
        line.append("; ".join("yes" if target.reached(found[name], simple) else "no" for name in flows))
        cells.append(line)
    head = ["data", "score", "no change", "mean shift", "best simple", "DomainTranslator", "flows", HALF, "to reach"]
    return page.table([*head, "reached"], cells)


def _set(rows: list[Row]) -> list[str]:
    methods = dict.fromkeys(row["method"] for row in rows)
    cells = {}
    for method in methods:
        some = [row for row in rows if row["method"] == method]
        said = {row["failed"] for row in some if row.get("failed")}
        if said == {"no answer"}:
            continue
        cells[method] = [_cell(some, column) for column in COLUMNS] if not said else ["; ".join(map(str, said))]
    used = [k for k in range(len(COLUMNS)) if any(len(line) > k and line[k] for line in cells.values())]
    head = ["method", *(list(COLUMNS.values())[k] for k in used)]
    return page.table(head, ([method, *(line[k] if k < len(line) else "" for k in used)]
                             for method, line in cells.items()))  # fmt: skip


def _cell(rows: list[Row], column: str) -> str:
    if column == "direction":
        if any(row.get("changed") is None for row in rows) or not sum(row["changed"] for row in rows):
            return ""
        return f"{sum(row['right'] for row in rows):.0f} of {sum(row['changed'] for row in rows):.0f}"
    found = means(rows, column)
    return page.spread(found, ".3g") if found else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
