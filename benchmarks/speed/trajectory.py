"""Seconds of training until W1 <= 0.80 on embryoid bodies: ``python -m benchmarks.speed trajectory``.

Protocol A, five dimensions; on the first fold, and as the mean over all folds, each averaged over seeds. Ours and
torchcfm with the published settings run in one process on one core. What only the first fit of a process costs is not
counted: everybody takes a step on a few cells beforehand.
"""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import page, peers
from benchmarks.command import Words, options
from benchmarks.rows import Row, Table
from benchmarks.speed.race import Run, from_scratch, onwards, race
from benchmarks.trajectory.methods import PLANS, RollOut, Training
from benchmarks.trajectory.others import Recipe, euler, published_split
from benchmarks.trajectory.run import predict
from benchmarks.trajectory.scores import transport
from benchmarks.trajectory.sets import Cells
from benchmarks.trajectory.settings import load
from benchmarks.trajectory.tasks import Task, choose, tasks_of

TARGET = 0.80
OURS = (100, 200, 300, 500, 800, 1200, 2000, 3000)
QUICK = (20, 30, 40, 50, 70, *OURS)
THEIRS = (50, 100, 150, 200, 250, 300, 400, 500, 600, 750, 1000, 1500, 2000, 3000, 4000, 6000, 8000, 11_000, 14_000)
SEEDS = (42, 43, 44)
PEER = "torchcfm (published settings)"
WARMING = 200
"""Cells of each snapshot that the step beforehand sees."""


def main(words: Words = None) -> None:
    """Measure, and write ``trajectory_speed``."""
    given = options("speed trajectory", __doc__, words, methods="otcfm_quick,otcfm", steps=THEIRS[-1])
    few = partial(filter, lambda steps: steps <= given.steps)
    budgets = {name: tuple(few(QUICK if name == "otcfm_quick" else OURS)) for name in given.methods.split(",")}
    rows = measure(load("dataset", "eb").load(5), budgets, tuple(few(THEIRS)))
    Table(given.out / "trajectory_speed.csv", ("method", "fold", "seed", "steps")).put(*rows, whole=True)
    page.write(given.out / "trajectory_speed.md", text(pd.DataFrame(rows), given.command))


def measure(cells: Cells, ours: Mapping[str, tuple[int, ...]], theirs: tuple[int, ...]) -> list[Row]:
    """Run every contender on all folds, each at its numbers of steps; torchcfm is skipped where it is missing."""
    tasks = tasks_of(cells, choose("A"))
    few = Training(tuple(cloud[:WARMING] for cloud in tasks[0].training.clouds), tasks[0].training.times)

    def raced(name: str, checkpoints: Callable[[Training, int], Any]) -> list[Row]:
        runs = [
            Run({"method": name, "fold": t.fold.name, "seed": seed}, checkpoints(t.training, seed), partial(w1, t))
            for t in tasks for seed in SEEDS
        ]  # fmt: skip
        return race(runs, "W1", there)

    def train(name: str, training: Training, seed: int, steps: int) -> Any:
        PLANS.clear()  # plans that this process remembers are solved again
        return load("method", name, steps=steps).fit(training, seed=seed)

    def onwards_(training: Training, seed: int) -> Any:
        make = partial(Recipe().loop, published_split(training), training.times, seed=seed)
        return ((steps, seconds, RollOut(euler(field))) for steps, seconds, field in onwards(make, seed, theirs))

    rows: list[Row] = []
    for name, budgets in ours.items():
        train(name, few, SEEDS[0], 1)
        rows += raced(name, lambda some, seed, n=name, b=budgets: from_scratch(partial(train, n, some, seed), b))  # type: ignore[misc]
    if peers.is_there():
        Recipe(steps=1).fit(few, seed=SEEDS[0])
        rows += raced(PEER, onwards_)
    return rows


def there(rows: list[Row]) -> bool:
    """Say whether the first fold and the mean over folds have reached the target."""
    return bool(verdict(pd.DataFrame(rows))[["first fold", "mean of folds"]].notna().all(axis=None))


def w1(task: Task, fitted: RollOut) -> float:
    """Return the exact W1 of the one prediction of a fold."""
    leg = task.fold.legs[0]
    prediction, true = predict(task, leg, fitted), task.truth[leg.target]
    return transport(prediction.x, true, prediction.share, np.ones(len(true))).value


def verdict(rows: pd.DataFrame) -> pd.DataFrame:
    """Return for each method the seconds until the target on the first fold, and until the mean over folds is there.

    Both averaged over seeds. The seconds of the mean are those of one training, averaged. NaN where the target was
    not reached.
    """
    found = []
    for name, part in rows.groupby("method", sort=False):
        first = part[part["fold"] == part["fold"].iloc[0]].groupby("steps")[["W1", "seconds"]].mean()
        mean = part.groupby("steps")[["W1", "seconds"]].mean()
        soonest = [float(some.loc[some["W1"] <= TARGET, "seconds"].min()) for some in (first, mean)]
        values = [name, *soonest, mean["seconds"].max(), first["W1"].min(), mean["W1"].min()]
        names = ["method", "first fold", "mean of folds", "trained at most", "best on first fold", "best mean"]
        found.append(dict(zip(names, values, strict=True)))
    return pd.DataFrame(found)


def sooner(found: pd.DataFrame) -> list[str]:
    """Return a sentence for each of our methods that is there: how many times as fast as torchcfm.

    Where torchcfm never reaches the target, the ratio is more than that to the whole of its training.
    """
    rows: dict[str, dict[str, float]] = found.set_index("method").to_dict("index")  # type: ignore[assignment]
    peer, sentences = rows.pop(PEER, {}), []
    for name, mine in rows.items() if peer else ():
        parts = []
        for where in ("first fold", "mean of folds"):
            reached = peer[where] == peer[where]
            ratio = (peer[where] if reached else peer["trained at most"]) / mine[where]
            if ratio == ratio:
                parts.append(f"{'' if reached else 'more than '}{ratio:.3g} times as fast as torchcfm on the {where}")
        sentences += [f"{name}: {', '.join(parts)}."] if parts else []
    return sentences


def text(rows: pd.DataFrame, command: str) -> list[str]:
    """Return the page."""
    found = verdict(rows)
    made = page.made_by(command, f"{os.cpu_count()} cores, one used")
    head, choice = page.fill(Path(__file__).with_name("trajectory.md"), made=made, seeds=", ".join(map(str, SEEDS)))
    numbers = found.drop(columns="method").map(lambda value: "not reached" if value != value else f"{value:.3g}")
    table = page.table(list(found.columns), np.column_stack([found["method"], numbers]).tolist())
    lines = [*head, "", *table, "", *sooner(found)]
    return [*lines, "", *choice] if "otcfm_quick" in set(found["method"]) else lines
