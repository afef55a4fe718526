"""Seconds until a target is reached: ours trained anew for every number of steps, torchcfm looked at on its way.

Ours always ends at a learning rate of zero, so the seconds are those of that whole training, plans included. torchcfm
has a constant rate: it is stopped at its checkpoints, scored, and goes on. Seconds are those of the processor, which do
not depend on what else the machine does; scoring is never counted.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from benchmarks.peers import Loop, global_seed
from benchmarks.rows import Row, rounded

Checkpoint = tuple[int, float, Any]
"""Steps taken, seconds of training so far, and the model as it is."""


class Run(NamedTuple):
    """One training of a contender: what names it, its checkpoints, one for each budget, and the score of a model."""

    about: Row
    checkpoints: Iterator[Checkpoint]
    score: Callable[[Any], float]


def from_scratch(train: Callable[[int], Any], budgets: Sequence[int]) -> Iterator[Checkpoint]:
    """Train for each budget anew."""
    for steps in budgets:
        start = time.process_time()
        model = train(steps)
        yield steps, time.process_time() - start, model


def onwards(make: Callable[[], Loop], seed: int, budgets: Sequence[int]) -> Iterator[Checkpoint]:
    """Train torchcfm from one checkpoint to the next."""
    with global_seed(seed):
        loop = make()
    done, seconds = 0, 0.0
    for steps in budgets:
        with global_seed(1000 * steps + seed):  # whoever else runs in between
            start = time.process_time()
            loop.train(steps - done)
            seconds, done = seconds + time.process_time() - start, steps
        yield steps, seconds, loop.field


def race(runs: Sequence[Run], metric: str, there: Callable[[list[Row]], bool]) -> list[Row]:
    """Score all trainings of one contender budget by budget, until the rows say that it is there."""
    rows: list[Row] = []
    for found in zip(*(run.checkpoints for run in runs), strict=True):
        for run, (steps, seconds, model) in zip(runs, found, strict=True):
            rows.append(run.about | {"steps": steps, "seconds": seconds, metric: run.score(model)})
            print("  ", rounded(rows[-1]), flush=True)
        if there(rows):
            break
    return rows
