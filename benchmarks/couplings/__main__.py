"""Whether cells go where they really go: ``python -m benchmarks.couplings``.

Clones, tracked cells and closed forms, beside not moving, static plans and less motion. Rows that are there already are
not measured again: ``--again`` does so, and ``--set`` and ``--method`` choose some.
"""

import math
import time

from benchmarks import page
from benchmarks.command import Several, Words, guarded, options
from benchmarks.couplings.methods import ABLATIONS, FLOWS, METHODS
from benchmarks.couplings.sets import SETS
from benchmarks.couplings.table import text
from benchmarks.rows import Row, Table, digest, rounded
from cellflow.errors import ConvergenceError

UNSEEN = ("nfkb", "dyngen", "gene circuit")
"""Sets whose cells have no labels that a cost may see, or too many cells for a solver: no ablations."""


def main(words: Words = None) -> None:
    """Score every method on every set, and write ``couplings.csv`` and ``couplings.md``."""
    some = Several(SETS), Several(METHODS)
    given = options("couplings", __doc__, words, set=some[0], method=some[1], seeds=1, again=False)
    table = Table(given.out / "couplings.csv", ("set", "method", "seed"))
    for name in given.set:
        for method in given.method:
            for seed in range(given.seeds if method in FLOWS else 1):
                if applies(name, method):
                    row = once(table, name, method, seed, again=given.again)
                    print(rounded({k: v for k, v in row.items() if v is not None}), flush=True)
    page.write(given.out / "couplings.md", text(table.read(), "python -m benchmarks.couplings" + given.tail))


def applies(name: str, method: str) -> bool:
    """Return whether a method is measured on a set."""
    return not (method in ABLATIONS and (name in UNSEEN or (name == "larry" and method.startswith("partial"))))


def once(table: Table, name: str, method: str, seed: int, *, again: bool) -> Row:
    """Return the row of a method, measured unless it is there with the same settings."""
    about = {"set": name, "method": method, "seed": seed}
    settings = digest([METHODS[method]])
    known = table.read(**about, settings=settings)
    if known and not again:
        return known[0]
    start = time.perf_counter()
    try:
        scores = SETS[name](METHODS[method], seed)
        found = {name: _plain(value) for name, value in scores.items()}
    except ConvergenceError as error:
        found = {"failed": str(error).partition(":")[0]}
    row = about | found | {"seconds": time.perf_counter() - start, "settings": settings}
    table.put(row)
    return row


def _plain(score: float | str | None) -> float | str | None:
    """Return a score without rounding errors around 0; nothing for what is not defined."""
    if not isinstance(score, float):
        return score
    return None if math.isnan(score) else 0.0 if abs(score) < 1e-12 else score


if __name__ == "__main__":
    guarded("couplings", main)
