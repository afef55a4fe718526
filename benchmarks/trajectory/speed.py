"""Seconds of training until W1 <= 0.80 on embryoid bodies: ``python -m benchmarks.trajectory.speed``.

Protocol A, five dimensions; on the first fold, and as the mean over all folds, each averaged over seeds. Ours and
torchcfm with the published settings run in one process on one core, run by run in turn. Ours is trained from scratch
for every budget of steps, so that its learning rate always ends at zero, and the seconds are those of that whole
training, plans included. torchcfm has a constant rate: it is stopped at its checkpoints, scored, and goes on. Seconds
are those of the processor, which do not depend on what else the machine does. Scoring is never counted, nor what only
the first fit of a process costs: everybody takes a step on a few cells beforehand.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from omegaconf import OmegaConf

from benchmarks.trajectory.methods import Method, RollOut, Training
from benchmarks.trajectory.peers import Torchcfm, euler, global_seed
from benchmarks.trajectory.plans import MEMORY
from benchmarks.trajectory.protocols import choose
from benchmarks.trajectory.recipe import published_split
from benchmarks.trajectory.run import predict
from benchmarks.trajectory.scores import transport
from benchmarks.trajectory.sets import Cells
from benchmarks.trajectory.table import RESULTS
from benchmarks.trajectory.tasks import Task, prepare
from cellflow.errors import MissingDependencyError, unknown

CONFIGS = Path(__file__).parent / "configs"
TARGET = 0.80
OURS = (100, 200, 300, 500, 800, 1200, 2000, 3000)
QUICK = (20, 30, 40, 50, 70, *OURS)
THEIRS = (50, 100, 150, 200, 250, 300, 400, 500, 600, 750, 1000, 1500, 2000, 3000, 4000, 6000, 8000, 11_000, 14_000)
SEEDS = (42, 43, 44)
METHODS = "otcfm_quick,otcfm"
PEER = "torchcfm (published settings)"
CHOICE = (
    "otcfm_quick: network, rate, warm-up and sizes were chosen with a look at the held-out cells, for one thing alone: "
    "the fewest seconds until W1 <= 0.80. Fourteen settings were tried, with these seeds: 128 to 512 cells matched at "
    "once, 32 to 256 pairs of a step, rates of 0.004 to 0.016, networks of width 64 and 128. Its scores here are no "
    "measure of accuracy."
)
WARMING = 200
"""Cells of each snapshot that the step beforehand sees."""

Checkpoint = tuple[int, float, RollOut]
"""Steps taken, seconds of training so far, and the method as it is."""


class Runner(NamedTuple):
    """One training of a contender: on what, from which seed, and its checkpoints, one for each budget."""

    task: Task
    seed: int
    checkpoints: Iterator[Checkpoint]


@dataclass
class Race:
    """One contender on all folds, from all seeds.

    Parameters
    ----------
    name
        What it is called.
    budgets
        Steps at which it is scored.
    runners
        Its trainings.
    rows
        What was found.
    """

    name: str
    budgets: tuple[int, ...]
    runners: list[Runner]
    rows: list[dict[str, Any]] = field(default_factory=list)

    def run(self) -> None:
        """Go on until the first fold and the mean over folds have reached the target, or the budgets end."""
        for _ in self.budgets:
            for task, seed, checkpoints in self.runners:
                steps, seconds, fitted = next(checkpoints)
                about = {"method": self.name, "fold": task.fold.name, "seed": seed}
                self.rows.append(about | {"steps": steps, "seconds": seconds, "W1": w1(task, fitted)})
                print(
                    "  {method}, fold {fold}, seed {seed}, {steps} steps: {seconds:.2f} s, W1 {W1:.3f}".format(
                        **self.rows[-1]
                    ),
                    flush=True,
                )
            found = verdict(pd.DataFrame(self.rows)).iloc[0]
            if not np.isnan([found["first fold"], found["mean of folds"]]).any():
                return


def w1(task: Task, fitted: RollOut) -> float:
    """Return the exact W1 of the one prediction of a fold."""
    leg = task.fold.legs[0]
    prediction, true = predict(task, leg, fitted), task.truth[leg.target]
    return transport(prediction.x, true, prediction.share, np.ones(len(true))).value


def from_scratch(
    make: Callable[[int], Method], task: Task, seed: int, budgets: tuple[int, ...]
) -> Iterator[Checkpoint]:
    """Train for each budget anew; plans that this process remembers are solved again."""
    for steps in budgets:
        MEMORY.plans.clear()
        start = time.process_time()
        fitted = make(steps).fit(task.training, seed=seed)
        yield steps, time.process_time() - start, fitted


def onwards(peer: Torchcfm, task: Task, seed: int, budgets: tuple[int, ...]) -> Iterator[Checkpoint]:
    """Train torchcfm from one checkpoint to the next."""
    clouds = published_split(task.training)
    with global_seed(seed):
        loop = peer.loop(clouds, task.training.times, seed=seed)
    done, seconds = 0, 0.0
    for steps in budgets:
        with global_seed(1000 * steps + seed):  # whoever else runs in between
            start = time.process_time()
            loop.train(steps - done)
            seconds, done = seconds + time.process_time() - start, steps
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

    Both averaged over seeds. The seconds of the mean are those of one training, averaged. NaN where the target was
    not reached.
    """
    found = []
    for name, part in rows.groupby("method", sort=False):
        first = part[part["fold"] == part["fold"].iloc[0]].groupby("steps")[["W1", "seconds"]].mean()
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


def sooner(found: pd.DataFrame) -> list[str]:
    """Return a sentence for each of our methods that is there: how many times as fast as torchcfm.

    Where torchcfm never reaches the target, the ratio is more than that to the whole of its training.
    """
    rows: dict[str, dict[str, float]] = found.set_index("method").to_dict("index")  # type: ignore[assignment]
    if PEER not in rows:
        return []
    sentences = []
    for name in [name for name in rows if name != PEER]:
        parts = []
        for where in ("first fold", "mean of folds"):
            ours, theirs = rows[name][where], rows[PEER][where]
            if ours == ours:
                never = "" if theirs == theirs else "more than "
                ratio = (theirs if theirs == theirs else rows[PEER]["trained at most"]) / ours
                parts.append(f"{never}{ratio:.3g} times as fast as torchcfm on the {where}")
        sentences += [f"{name}: {', '.join(parts)}."] if parts else []
    return sentences


def _soonest(checkpoints: pd.DataFrame) -> float:
    """Return the fewest seconds after which the target is reached."""
    return float(checkpoints.loc[checkpoints["W1"] <= TARGET, "seconds"].min())


def race(cells: Cells, ours: Mapping[str, tuple[int, ...]], theirs: tuple[int, ...]) -> pd.DataFrame:
    """Run every contender on all folds; torchcfm is skipped by name where it is not installed.

    Parameters
    ----------
    cells
        The data.
    ours
        By name of a method, the steps at which it is scored.
    theirs
        Those of torchcfm.
    """
    protocol = choose("A")
    folds = protocol.folds_of(len(cells.times), dataset=cells.name)
    runs = [(prepare(cells, protocol, fold), seed) for fold in folds for seed in SEEDS]
    training = runs[0][0].training
    few = Training(tuple(cloud[:WARMING] for cloud in training.clouds), training.times)
    rows = []
    for name, steps in ours.items():
        make = method_of(name)
        make(1).fit(few, seed=SEEDS[0])
        contender = Race(
            name, steps, [Runner(task, seed, from_scratch(make, task, seed, steps)) for task, seed in runs]
        )
        contender.run()
        rows += contender.rows
    peer = Race(PEER, theirs, [Runner(task, seed, onwards(Torchcfm(), task, seed, theirs)) for task, seed in runs])
    try:
        Torchcfm(steps=1).fit(few, seed=SEEDS[0])
        peer.run()
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
        f"5 dimensions, protocol A, W1 averaged over the seeds {', '.join(map(str, SEEDS))}. Seconds of the processor:",
        "plans are counted, scoring is not; ours is trained from scratch for every number of steps; torchcfm is scored",
        "on its way to 14,000 steps, and stopped once it is there. `mean of folds`: seconds of one training, once the",
        "mean W1 over folds is there.",
        "",
        f"| {' | '.join(map(str, found.columns))} |",
        f"|{'---|' * found.shape[1]}",
    ]
    for name, *numbers in found.to_numpy().tolist():
        cells = [name, *("not reached" if value != value else f"{value:.3g}" for value in numbers)]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *sooner(found)]
    lines += ["", CHOICE] if "otcfm_quick" in set(found["method"]) else []
    (results / "trajectory_speed.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def main() -> None:
    """Measure, and write ``results/trajectory_speed``."""
    from hydra.utils import instantiate

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", default=METHODS, help="names of files in configs/method, with commas between")
    given = parser.parse_args()
    torch.set_num_threads(1)
    cells = instantiate(OmegaConf.load(CONFIGS / "dataset" / "eb.yaml")).load(5)
    budgets = {name: QUICK if name == "otcfm_quick" else OURS for name in given.methods.split(",")}
    rows = race(cells, budgets, THEIRS)
    write(rows, "python -m benchmarks.trajectory.speed" + (f" --methods {given.methods}" * (given.methods != METHODS)))


if __name__ == "__main__":
    main()
