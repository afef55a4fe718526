"""The loop: every fold and seed of one method under one protocol, and the baselines beside it."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.trajectory import baselines, records
from benchmarks.trajectory.dynamics import of_motion
from benchmarks.trajectory.methods import Method, RollOut
from benchmarks.trajectory.peak import peak_megabytes, reset_peak
from benchmarks.trajectory.protocols import Fold, Leg, Protocol, choose_folds
from benchmarks.trajectory.records import BASELINES, Key
from benchmarks.trajectory.scores import mass_error, score
from benchmarks.trajectory.sets import Cells
from benchmarks.trajectory.tasks import Task, prepare, shares
from cellflow.cli.runs import Stopwatch

FIRST_SEED = 42
KEPT = 1500
"""Predicted cells that are kept for figures, of the first seed."""


@dataclass(frozen=True)
class Job:
    """Everything that one command runs.

    Parameters
    ----------
    protocol, cells
        Under what, and on what.
    method
        The method.
    name
        Its name in the table.
    settings
        What it was made from, as plain values: other settings under the same name are refused.
    folds
        ``"all"``, or names of folds.
    seeds
        How many seeds: 42, 43 and so on; 0 for the baselines alone.
    out
        Folder of the records.
    again
        Whether to do finished runs again.
    """

    protocol: Protocol
    cells: Cells
    method: Method
    name: str
    settings: Mapping[str, Any]
    folds: Any = "all"
    seeds: int = 5
    out: Path = Path("runs/trajectory")
    again: bool = False

    def config(self) -> dict[str, Any]:
        """Return what a record must share with another of the same name."""
        about = {k: v for k, v in asdict(self.protocol).items() if k not in ("about", "folds")}
        shared = {"protocol": about, "cells": self.cells.digest(), "method": dict(self.settings)}
        length = self.cells.truths.length if self.protocol.weighted else None
        return shared if length is None else shared | {"length": length}


def run(job: Job, say: Callable[[str], None] = print) -> list[dict[str, Any]]:
    """Run a job, skipping what is done, and return the records: the baselines of each fold, then its seeds.

    Raises
    ------
    ValueError
        For an unknown fold, too few snapshots, or a finished run of another configuration.
    """
    if job.seeds < 0:
        raise ValueError(f"Expected seeds >= 0; found {job.seeds}.")
    if job.name == BASELINES:
        raise ValueError(f"A method cannot be called {BASELINES!r}. Choose another `name=`.")
    folds = choose_folds(job.protocol.folds_of(len(job.cells.times), dataset=job.cells.name), job.folds)
    _refuse_changes(job, folds)
    found = []
    for fold in folds:
        task = prepare(job.cells, job.protocol, fold)
        found.append(_baselines(job, task, say))
        for seed in range(FIRST_SEED, FIRST_SEED + job.seeds):
            found.append(_one(job, task, seed, say))
    return found


def measure(method: Method, task: Task, *, seed: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Fit a method on one fold and score it; return the findings, and some predicted and true cells of each target."""
    reset_peak()
    watch = Stopwatch()
    fitted = method.fit(task.training, seed=seed)
    fit_seconds, peak = watch.seconds(), peak_megabytes()
    rows, kept, seconds = [], {}, {"roll_out": 0.0, "score": 0.0}
    for leg in task.fold.legs:
        watch = Stopwatch()
        prediction = predict(task, leg, fitted)
        seconds["roll_out"] += watch.seconds()
        watch = Stopwatch()
        rows.append(_row(task, leg, prediction, seed))
        seconds["score"] += watch.seconds()
        kept[f"predicted_{leg.target}"] = _some(prediction, seed)
        kept[f"true_{leg.target}"] = _few(task.truth[leg.target], seed)
    watch = Stopwatch()
    motion = of_motion(task, fitted)
    seconds["score"] += watch.seconds()
    facts = dict(fitted.facts)
    plan, train = facts.pop("plan_s", 0.0), facts.pop("train_s", None)
    seconds = {"plan": plan, "train": fit_seconds - plan if train is None else train, **seconds}
    return {"scores": rows, "motion": motion, "seconds": seconds, "peak_mb": peak, "facts": facts}, kept


@dataclass(frozen=True)
class Prediction:
    """Predicted cells of one target, in the units of the score.

    Parameters
    ----------
    x
        Points ``(m, d)``.
    share
        How much each counts where mass is kept ``(m,)``, summing to 1.
    weight
        Mass of each ``(m,)``, the start cells having 1 together; None where the method keeps mass.
    evaluations
        Of the network, for each particle.
    """

    x: np.ndarray
    share: np.ndarray
    weight: np.ndarray | None
    evaluations: int


def predict(task: Task, leg: Leg, fitted: RollOut) -> Prediction:
    """Carry the start cells of a leg to its target."""
    parts = [fitted.carry(task.observed[k], task.times[k], task.times[leg.target]) for k in leg.starts]
    portions = shares(leg, task.times)
    weighted = any(part.weight is not None for part in parts)
    share = [np.full(len(part.x), s / len(part.x)) for part, s in zip(parts, portions, strict=True)]
    mass = [u if part.weight is None else s * part.weight for part, u, s in zip(parts, share, portions, strict=True)]
    x = np.concatenate([np.asarray(part.x, np.float64) for part in parts])
    if not np.isfinite(x).all():
        raise FloatingPointError(f"The method predicted NaN or infinite states at snapshot {leg.target}.")
    return Prediction(
        x=task.scored(x),
        share=np.concatenate(share),
        weight=np.concatenate(mass) if weighted else None,
        evaluations=max(part.evaluations for part in parts),
    )


def _row(task: Task, leg: Leg, prediction: Prediction, seed: int) -> dict[str, Any]:
    """Return all scores at one target; those of weighted particles under names of their own."""
    true = task.truth[leg.target]
    row: dict[str, Any] = {"target": leg.target, "time": task.real[leg.target], "NFE": prediction.evaluations}
    row |= score(prediction.x, true, weights=prediction.share, seed=seed)
    if prediction.weight is not None:
        found = score(prediction.x, true, weights=prediction.weight, seed=seed)
        row |= {f"weighted_{name}": value for name, value in found.items()}
    if task.protocol.weighted:
        true_mass = task.sizes[leg.target] / task.sizes[leg.starts[0]]
        mass = 1.0 if prediction.weight is None else float(prediction.weight.sum())
        row |= {"mass": mass, "true_mass": true_mass, "RME": mass_error(mass, true_mass)}
    return row


def _some(prediction: Prediction, seed: int) -> np.ndarray:
    """Draw cells for figures, by weight."""
    chances = prediction.share if prediction.weight is None else prediction.weight
    rows = np.random.default_rng(seed).choice(len(prediction.x), KEPT, p=chances / chances.sum())
    return prediction.x[rows].astype(np.float32)


def _few(x: np.ndarray, seed: int) -> np.ndarray:
    """Draw cells for figures."""
    rows = np.random.default_rng(seed).permutation(len(x))[:KEPT]
    return x[rows].astype(np.float32)


def _keep(path: Path, clouds: Mapping[str, np.ndarray]) -> None:
    np.savez_compressed(path, allow_pickle=False, **clouds)


def _refuse_changes(job: Job, folds: tuple[Fold, ...]) -> None:
    """Look at every finished run before the first is started."""
    if job.again:
        return
    for fold in folds:
        for seed in range(FIRST_SEED, FIRST_SEED + job.seeds):
            records.known(_key(job, fold, seed).path(job.out), job.config())


def _key(job: Job, fold: Fold, seed: int, method: str | None = None) -> Key:
    return Key(job.protocol.name, job.cells.name, job.cells.dims, method or job.name, fold.name, seed)


def _one(job: Job, task: Task, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    key = _key(job, task.fold, seed)
    path = key.path(job.out)
    done = None if job.again else records.known(path, job.config())
    if done is None:
        found, kept = measure(job.method, task, seed=seed)
        done = records.write(path, key, job.config(), found)
        if seed == FIRST_SEED:
            _keep(path.with_suffix(".npz"), kept)
        say(_line(done, task, "done"))
    else:
        say(_line(done, task, "there already"))
    return done


def _baselines(job: Job, task: Task, say: Callable[[str], None]) -> dict[str, Any]:
    """Score the baselines of a fold, once for all methods."""
    key = _key(job, task.fold, FIRST_SEED, BASELINES)
    config = job.config() | {"method": baselines.settings()}
    path = key.path(job.out)
    done = None if job.again else records.known(path, config)
    if done is None:
        watch = Stopwatch()
        rows = [row for leg in task.fold.legs for row in _scored_baselines(task, leg.target)]
        done = records.write(path, key, config, {"scores": rows, "seconds": {"score": watch.seconds()}})
    for row in done["scores"]:
        say(f"    {row['method']:<38} snapshot {row['target']}: W1 {row['W1']:.3f}, W2 {row['W2']:.3f}")
    return done


def _scored_baselines(task: Task, target: int) -> Iterator[dict[str, Any]]:
    about = {"target": target, "time": task.real[target]}
    for name, points in baselines.baselines(task, target, seed=FIRST_SEED):
        x = task.scored(np.asarray(points.x, np.float64))
        yield {"method": name, **about, **score(x, task.truth[target], weights=points.weights)}
    yield {"method": baselines.FLOOR, **about, **baselines.floor(task, target, seed=FIRST_SEED)}


def headline(protocol: Protocol, row: Mapping[str, Any]) -> float:
    """Return the score of a row that ranks: that of the weighted particles where the protocol has them."""
    weighted = f"weighted_{protocol.metric}"
    return row[weighted] if protocol.weighted and weighted in row else row[protocol.metric]


def _line(record: Mapping[str, Any], task: Task, how: str) -> str:
    scores = ", ".join(f"{headline(task.protocol, row):.3f}" for row in record["scores"])
    seconds = sum(record["seconds"].values())
    name = f"{record['protocol']} {record['dataset']}-{record['dims']} {record['method']}"
    where = f"fold {record['fold']} seed {record['seed']}"
    return f"{time.strftime('%H:%M:%S')} {name} {where}: {task.protocol.metric} {scores} ({seconds:.0f} s, {how})"
