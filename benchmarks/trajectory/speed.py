"""Seconds of training until W1 <= 0.80 on embryoid bodies: ``python -m benchmarks.trajectory.speed``.

Protocol A, five dimensions; on the first fold, and as the mean over all folds. Ours and torchcfm with the published
settings run in one process on one core, fold by fold in turn. Ours is trained from scratch for every budget of steps,
so that its learning rate always ends at zero, and the seconds are those of that whole training, plans included.
torchcfm has a constant rate: it is stopped at its checkpoints, scored, and goes on. Scoring is never counted.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from omegaconf import OmegaConf

from benchmarks.trajectory.methods import Method, RollOut
from benchmarks.trajectory.peers import Torchcfm, euler, global_seed
from benchmarks.trajectory.protocols import choose
from benchmarks.trajectory.recipe import published_split
from benchmarks.trajectory.run import predict
from benchmarks.trajectory.scores import transport
from benchmarks.trajectory.sets import Cells
from benchmarks.trajectory.table import RESULTS
from benchmarks.trajectory.tasks import Task, prepare
from cellflow.errors import MissingDependencyError, unknown
from cellflow.runs import Stopwatch

CONFIGS = Path(__file__).parent / "configs"
TARGET = 0.80
OURS = (50, 100, 200, 300, 500, 800, 1200, 2000, 3000)
THEIRS = (250, 500, 750, 1000, 1500, 2000, 3000, 4000, 6000, 8000, 10_000, 12_000, 14_000)
SEED = 42

Checkpoint = tuple[int, float, RollOut]
"""Steps taken, seconds of training so far, and the method as it is."""


@dataclass
class Race:
    """One contender on all folds.

    Parameters
    ----------
    name
        What it is called.
    budgets
        Steps at which it is scored.
    streams
        Of each fold: checkpoints, one for each budget.
    rows
        What was found.
    """

    name: str
    budgets: tuple[int, ...]
    streams: list[Iterator[Checkpoint]]
    rows: list[dict[str, object]] = field(default_factory=list)

    def run(self, tasks: list[Task]) -> None:
        """Go on until the first fold and the mean over folds have reached the target, or the budgets end."""
        reached_first = reached_mean = False
        for _ in self.budgets:
            scores = []
            for task, stream in zip(tasks, self.streams, strict=True):
                steps, seconds, fitted = next(stream)
                value = w1(task, fitted)
                scores.append(value)
                row = {"method": self.name, "fold": task.fold.name, "steps": steps, "seconds": seconds, "W1": value}
                self.rows.append(row)
                print(
                    f"  {self.name}, fold {task.fold.name}, {steps} steps: {seconds:.1f} s, W1 {value:.3f}", flush=True
                )
            reached_first |= scores[0] <= TARGET
            reached_mean |= float(np.mean(scores)) <= TARGET
            if reached_first and reached_mean:
                return


def w1(task: Task, fitted: RollOut) -> float:
    """Return the exact W1 of the one prediction of a fold."""
    leg = task.fold.legs[0]
    prediction, true = predict(task, leg, fitted), task.truth[leg.target]
    return transport(prediction.x, true, prediction.share, np.ones(len(true))).value


def from_scratch(make: Callable[[int], Method], task: Task, budgets: tuple[int, ...]) -> Iterator[Checkpoint]:
    """Train for each budget anew."""
    for steps in budgets:
        watch = Stopwatch()
        fitted = make(steps).fit(task.training, seed=SEED)
        seconds = watch.seconds()
        if {"plan_s", "train_s"} <= set(fitted.facts):
            seconds = fitted.facts["plan_s"] + fitted.facts["train_s"]
        yield steps, seconds, fitted


def onwards(peer: Torchcfm, task: Task, budgets: tuple[int, ...]) -> Iterator[Checkpoint]:
    """Train torchcfm from one checkpoint to the next."""
    clouds = published_split(task.training)
    loop = peer.loop(clouds, task.training.times, seed=SEED)
    done, seconds = 0, 0.0
    for steps in budgets:
        watch = Stopwatch()
        loop.train(steps - done)
        seconds, done = seconds + watch.seconds(), steps
        yield steps, seconds, RollOut(euler(loop.field))


def method_of(name: str) -> Callable[[int], Method]:
    """Return a function from a number of steps to the method of that name, whose flows all take so many.

    Raises
    ------
    ValueError
        When there is no such method.
    """
    from hydra.utils import instantiate

    file = CONFIGS / "method" / f"{name}.yaml"
    if not file.is_file():
        raise ValueError(unknown("method", name, sorted(path.stem for path in file.parent.glob("*.yaml"))))

    def make(steps: int) -> Method:
        return instantiate(_with_steps(OmegaConf.to_container(OmegaConf.load(file)), steps), _convert_="all")

    return make


def _with_steps(settings: Any, steps: int) -> Any:
    """Return settings with every ``steps`` in them replaced."""
    if isinstance(settings, list):
        return [_with_steps(item, steps) for item in settings]
    if isinstance(settings, dict):
        return {key: steps if key == "steps" else _with_steps(item, steps) for key, item in settings.items()}
    return settings


def verdict(rows: pd.DataFrame) -> pd.DataFrame:
    """Return for each method the seconds until the target on the first fold, and until the mean over folds is there.

    The seconds of the mean are those of one fold, averaged. NaN where the target was not reached.
    """
    found = []
    for name, part in rows.groupby("method", sort=False):
        first = part[part["fold"] == part["fold"].iloc[0]]
        mean = part.groupby("steps")[["W1", "seconds"]].mean()
        found.append(
            {
                "method": name,
                "first fold": _soonest(first),
                "mean of folds": _soonest(mean),
                "trained at most": mean["seconds"].max(),
                "best on first fold": first["W1"].min(),
                "best mean": mean["W1"].min(),
            }
        )
    return pd.DataFrame(found)


def _soonest(checkpoints: pd.DataFrame) -> float:
    """Return the fewest seconds after which the target is reached."""
    return float(checkpoints.loc[checkpoints["W1"] <= TARGET, "seconds"].min())


def race(cells: Cells, names: list[str], ours: tuple[int, ...], theirs: tuple[int, ...]) -> pd.DataFrame:
    """Run every contender on all folds; torchcfm is skipped by name where it is not installed."""
    protocol = choose("A")
    folds = protocol.folds_of(len(cells.times), dataset=cells.name)
    tasks = [prepare(cells, protocol, fold) for fold in folds]
    rows = []
    for name in names:
        contender = Race(name, ours, [from_scratch(method_of(name), task, ours) for task in tasks])
        contender.run(tasks)
        rows += contender.rows
    peer = Race("torchcfm (published settings)", theirs, [onwards(Torchcfm(), task, theirs) for task in tasks])
    try:
        with ExitStack() as stack:
            stack.enter_context(global_seed(SEED))
            peer.run(tasks)
    except MissingDependencyError as error:
        print(f"skipped torchcfm: {error}")
    return pd.DataFrame(rows + peer.rows)


def write(rows: pd.DataFrame, command: str, results: Path = RESULTS) -> None:
    """Write all checkpoints as CSV, and the verdict as a table."""
    rows.to_csv(results / "trajectory_speed.csv", index=False, float_format="%.4g")
    found = verdict(rows)
    lines = [
        "# Seconds of training until W1 <= 0.80",
        "",
        f"Made by `{command}` on {time.strftime('%Y-%m-%d')} ({os.cpu_count()} cores, one used). Embryoid bodies,",
        "5 dimensions, protocol A, seed 42. Plans are counted, scoring is not; ours is trained from scratch for every",
        "number of steps; torchcfm is scored on its way to 14,000 steps. `mean of folds`: seconds of one fold, once",
        "the mean W1 over folds is there.",
        "",
        f"| {' | '.join(map(str, found.columns))} |",
        f"|{'---|' * found.shape[1]}",
    ]
    for name, *numbers in found.to_numpy().tolist():
        cells = [name, *("not reached" if value != value else f"{value:.3g}" for value in numbers)]
        lines.append(f"| {' | '.join(cells)} |")
    (results / "trajectory_speed.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def main() -> None:
    """Measure, and write ``results/trajectory_speed``."""
    from hydra.utils import instantiate

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", default="otcfm", help="names of files in configs/method, with commas between")
    given = parser.parse_args()
    torch.set_num_threads(1)
    cells = instantiate(OmegaConf.load(CONFIGS / "dataset" / "eb.yaml")).load(5)
    rows = race(cells, given.methods.split(","), OURS, THEIRS)
    write(rows, f"python -m benchmarks.trajectory.speed --methods {given.methods}")


if __name__ == "__main__":
    main()
