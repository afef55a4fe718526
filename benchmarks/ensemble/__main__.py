"""Do the intervals of an ensemble hold what is true: ``python -m benchmarks.ensemble``.

Simulations are drawn anew 20 times and fitted with five members. At fixed points: the bias of the flow, how it varies
over simulations, how members vary, and how often the truth is in the interval of 90 %.
"""

import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

import cellflow as cf
from benchmarks import page
from benchmarks.command import Several, Words, guarded, options
from benchmarks.ensemble.simulations import LEVEL, QUICK, SIMULATIONS, Found, Simulation

COVERS = (0.85, 0.95)
"""Coverage between which an interval of 90 % is called one."""


def main(words: Words = None) -> None:
    """Compute and write ``ensemble.csv`` and ``ensemble.md``."""
    given = options("ensemble", __doc__, words, draws=20, simulations=Several(SIMULATIONS))
    rows: list[dict[str, object]] = []
    for name in given.simulations:
        found = []
        for seed in range(given.draws):
            found.append(SIMULATIONS[name].run(seed))
            print(name, seed, *(f"{one.quantity}: {one.inside.mean():.2f}" for one in found[-1]), flush=True)
        rows += [{"simulation": name, **row(several)} for several in zip(*found, strict=True)]
    table = pd.DataFrame(rows)
    table.to_csv(given.out / "ensemble.csv", index=False, float_format="%.4g")
    cost = ratio(SIMULATIONS[given.simulations[0]])
    page.write(given.out / "ensemble.md", text(table, cost, given.command))


def row(several: Iterable[Found]) -> dict[str, object]:
    """Return bias, deviations and coverage of one quantity over simulations."""
    known = list(several)
    error, deviation, inside = (np.stack([getattr(one, name) for one in known]) for name in Found._fields[1:])
    coverage = inside.mean(axis=1)
    return {
        "quantity": known[0].quantity,
        "draws": len(known),
        "bias": np.sqrt(np.square(error.mean(axis=0)).mean()),
        "deviation": np.sqrt(error.var(axis=0, ddof=1).mean()),
        "deviation_of_members": np.sqrt(np.square(deviation).mean()),
        "coverage": coverage.mean(),
        "coverage_error": coverage.std(ddof=1) / np.sqrt(len(known)),
    }


def ratio(simulation: Simulation) -> float:
    """Return how much longer a fit takes with an ensemble, in processor time."""
    adata, seconds = simulation.draw(np.random.default_rng(0)), []
    for ensemble in (None, 5):
        began = time.process_time()
        cf.SnapshotFlow(**QUICK | simulation.settings, ensemble=ensemble).fit(adata)
        seconds.append(time.process_time() - began)
    return seconds[1] / seconds[0]


def called(coverage: float) -> str:
    """Return what an interval of 90 % is, by how much it covers."""
    if coverage < COVERS[0]:
        return "a spread"
    return "an interval" if coverage <= COVERS[1] else "wider than an interval"


def text(table: pd.DataFrame, cost: float, command: str) -> list[str]:
    """Return the page."""
    lines = [
        [
            one["simulation"],
            one["quantity"],
            one["draws"],
            *(f"{one[name]:.3f}" for name in ("bias", "deviation", "deviation_of_members")),
            f"{one['coverage']:.2f} ({one['coverage_error']:.2f})",
            called(one["coverage"]),
        ]
        for one in table.to_dict("records")
    ]
    head = [
        "simulation",
        "quantity",
        "draws",
        "bias",
        "deviation",
        "of members",
        f"coverage of {100 * LEVEL:.0f} %",
        "it is",
    ]
    filled = {"made": page.made_by(command), "cost": f"{cost:.1f}"}
    first, last = page.fill(Path(__file__).with_name("page.md"), **filled)
    return [*first, "", *page.table(head, lines), "", *last]


if __name__ == "__main__":
    guarded("ensemble", main)
