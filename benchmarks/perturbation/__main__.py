"""What a treatment does to cells that were not seen with it: ``python -m benchmarks.perturbation``.

Every method beside no change, mean shift and other simple ones, half against half, and what was to be reached. Rows
that are there already are not measured again: ``--again`` does so, and ``--set`` and ``--method`` choose some. A file
of yours: ``path=cells.h5ad split=context treatment=drug control=DMSO context=cell_line dose=dose time=day``.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import page
from benchmarks.command import Several, Words, guarded, options
from benchmarks.perturbation import sets
from benchmarks.perturbation.baselines import BASELINES
from benchmarks.perturbation.folds import Fold, folds_of
from benchmarks.perturbation.methods import METHODS
from benchmarks.perturbation.scores import HALF, halves, score
from benchmarks.perturbation.table import text
from benchmarks.rows import Row, Table, digest, rounded
from cellflow.errors import ConvergenceError, MissingDependencyError

KEY = ("set", "fold", "ask", "method", "seed")


def main(words: Words = None) -> None:
    """Score every method on every set, and write ``perturbation.csv`` and ``perturbation.md``."""
    given = options(
        "perturbation", __doc__, words, set=Several(sets.SETS), method=Several(METHODS), seeds=1, again=False,
        path="", split=list(sets.SPLITS), treatment="", control=sets.CONTROL, context="", dose="", time="", dims=50,
        genes=2000, least=40,
    )  # fmt: skip
    name = Path(given.path).stem if given.path else "perturbation"
    table = Table(given.out / f"{name}.csv", KEY)
    if given.path:
        columns = {column: getattr(given, column) for column in sets.COLUMNS}
        whole = sets.of_user(
            Path(given.path), given.split, control=given.control, dims=given.dims, genes=given.genes,
            least=given.least, **columns,
        )  # fmt: skip
        chosen = iter([whole])
    else:
        chosen = map(sets.load, given.set)
    for cells in chosen:
        for fold in folds_of(cells):
            for row in rows_of(table, cells.name, fold, given.method, given.seeds, again=given.again):
                print(rounded({k: v for k, v in row.items() if v is not None}), flush=True)
    command = given.command if given.path else "python -m benchmarks.perturbation" + given.tail
    page.write(given.out / f"{name}.md", text(table.read(), command))


def rows_of(
    table: Table, name: str, fold: Fold, methods: list[str], seeds: int, *, again: bool = False
) -> Iterator[Row]:
    """Yield the rows of a fold that were not there, half against half always among them; they are then in the table."""
    for method in dict.fromkeys([HALF, *methods]):
        for seed in range(seeds if method not in BASELINES and method != HALF else 1):
            about = {"set": name, "fold": fold.name, "method": method, "seed": seed}
            settings = digest([METHODS.get(method, HALF) if method not in BASELINES else method])
            if again or not table.read(**about, settings=settings):
                found = [about | row | {"settings": settings} for row in _measured(fold, method, seed)]
                table.put(*found)
                yield from found


def _measured(fold: Fold, method: str, seed: int) -> list[Row]:
    """Return a row for each question of a fold."""
    if method == HALF:
        return [
            {"ask": ask.name} | halves(truth, fold.space) for ask, truth in zip(fold.asks, fold.truths, strict=True)
        ]
    start = time.perf_counter()
    try:
        answers = METHODS[method](fold.seen.copy(), fold.asks, seed=seed)
    except MissingDependencyError as error:
        print(f"skipped {method}: {error}")
        return []
    except ConvergenceError as error:
        return [{"ask": ask.name, "failed": str(error).partition(":")[0]} for ask in fold.asks]
    seconds = time.perf_counter() - start
    return [
        {"ask": ask.name} | score(answer, truth, fold.space) | {"seconds": seconds}
        if answer is not None
        else {"ask": ask.name, "failed": "no answer"}
        for ask, answer, truth in zip(fold.asks, answers, fold.truths, strict=True)
    ]


if __name__ == "__main__":
    guarded("perturbation", main)
