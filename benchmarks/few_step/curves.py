"""Scores after 1 to 16 steps: every run as CSV, the means as a table beside published values, and their figure."""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

import torch

from benchmarks import machine, page
from benchmarks.few_step.bench import JUMPS, rows
from benchmarks.rows import Row, Table, rounded

SECONDS = """Mean (standard deviation) over seeds. Seconds, of the processor on a CPU and on the wall on a GPU, are
those of all training, the teacher's included."""
WIDE = 2
"""From this ratio of the ends on, the axis of errors is logarithmic."""


@dataclass(frozen=True)
class Curve:
    """One table, its page and its figure.

    Published values are one for each number of steps; or one alone, of another protocol, which is not drawn.
    """

    name: str  # of its files
    title: str
    measure: str
    size: str  # in words: rows of two sizes are not mixed
    about: list[str]
    best: float | None = None
    published: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def record(
        self, given: argparse.Namespace, make: Callable[[int], Any], methods: Sequence[str], device: torch.device
    ) -> None:
        """Measure the methods that the table lacks, from every seed, and write page and figure."""
        table = Table(given.out / f"{self.name}.csv", ("method", "seed"), ("method", "seed"))
        table.refuse_others("size", self.size)
        about = {"size": self.size, "device": machine.name(device)}
        for seed in range(given.first, given.first + given.seeds):
            there = [row["method"] for row in table.read(seed=seed)] if not given.again else []
            missing = [name for name in methods if not any(f"{old},".startswith(f"{name},") for old in there)]
            for row in rows(make(seed), missing, machine.clock(device)) if missing else ():
                table.put(row | {"seed": seed} | about)
                print(rounded(row | {"seed": seed}), flush=True)
                self._write(given, table.read())  # now: the run may be stopped
        self._write(given, table.read())

    def _write(self, given: argparse.Namespace, found: list[Row]) -> None:
        page.save(self.draw(found), given.out / f"{self.name}.png")
        (given.out / f"{self.name}.md").write_text("\n".join(self.text(found, given.command, given.note)) + "\n")

    def text(self, found: list[Row], command: str, note: str = "") -> list[str]:
        """Return the page."""
        devices = "; ".join(dict.fromkeys(row["device"] for row in found))
        published = [
            [f"published: {name}", "", *[""] * (len(JUMPS) - len(values)), *(f"{v:.4f}" for v in values), "", ""]
            for name, values in self.published.items()
        ]
        methods = dict.fromkeys(row["method"] for row in found)
        return [
            f"# Few steps: {self.title}", "",
            f"Last made by `{command}` on {time.strftime('%Y-%m-%d')}. Run on: {devices}.",
            *self.about, *([note] if note else []),
            SECONDS, *([] if self.best is None else [f"Floor: {self.best:.4g}."]), "",
            f"![quality against steps]({self.name}.png)", "",
            *page.table(
                ["method", "seeds", *JUMPS, "semigroup error", "seconds"],
                [*(_cells([row for row in found if row["method"] == name]) for name in methods), *published],
            ),
        ]  # fmt: skip

    def draw(self, found: list[Row]) -> Any:
        """Draw the mean of every method against the number of steps."""
        from matplotlib.ticker import LogLocator

        drawn, ((axis,),) = page.figure(size=(8.4, 4.4))
        markers = "osD^vP*X<>hp"
        for k, method in enumerate(dict.fromkeys(row["method"] for row in found)):
            mine = [row for row in found if row["method"] == method]
            values = [mean(row[f"at_{n}"] for row in mine) for n in JUMPS]
            if method.endswith("evaluations"):
                axis.axhline(values[-1], ls="--", lw=1, color=f"C{k % 10}", label=method)
                continue
            style: dict[str, Any] = {"marker": markers[k % len(markers)], "ms": 4, "lw": 1.3, "color": f"C{k % 10}"}
            again = {"ls": "-.", "mfc": "white"} if k >= 10 else {}  # there are ten colours
            axis.plot(JUMPS, values, label=method, **style, **again)
        for k, (name, known) in enumerate(self.published.items()):
            if len(known) == len(JUMPS):
                style = {"color": "#777777", "mfc": "white", "lw": 0.8, "ms": 4, "ls": "--"}
                axis.plot(JUMPS, known, marker=markers[k % len(markers)], label=f"published: {name}", **style)
        if self.best:
            axis.axhline(self.best, ls=":", lw=1, color="#888888", label="floor")
        axis.set(xscale="log", xlabel="steps, one evaluation of the network each", ylabel=self.measure)
        axis.set_xticks(JUMPS, [str(k) for k in JUMPS])
        low, high = axis.get_ylim()
        if high > WIDE * low:
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter("{x:g}")
        axis.minorticks_off()
        axis.set_title(self.title, fontsize=10)
        drawn.legend(loc="outside right center", fontsize=8, frameon=False)
        return drawn


def _cells(found: list[Row]) -> list[object]:
    shown = [JUMPS[-1]] if found[0]["method"].endswith("evaluations") else JUMPS  # the same for all
    jumps = [page.spread((row[f"at_{k}"] for row in found), error=".2g") if k in shown else "" for k in JUMPS]
    known = [row["semigroup"] for row in found if row["semigroup"] == row["semigroup"]]
    semigroup = page.spread(known, error=".2g") if known else ""
    return [found[0]["method"], len(found), *jumps, semigroup, f"{mean(row['seconds'] for row in found):.0f}"]


def arguments(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add what all curves take."""
    made.add_argument("--seeds", type=int, default=3, help="how many seeds")
    made.add_argument("--first", type=int, default=0, help="the first of them: seeds may run side by side")
    made.add_argument("--again", action="store_true", help="measure again what is in the table already")
    return made
