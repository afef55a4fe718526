"""The loop: every fold and seed of one method, the baselines beside it, and one JSON file for each run."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import peak_megabytes, reset_peak
from benchmarks.trajectory import baselines
from benchmarks.trajectory.methods import Method, RollOut
from benchmarks.trajectory.scores import mass_error, of_motion, score
from benchmarks.trajectory.sets import Cells
from benchmarks.trajectory.tasks import Fold, Leg, Protocol, Task, choose_folds, prepare, shares
from cellflow.cli.runs import Stopwatch, versions

BASELINES = "baselines"
"""Name of the folder that a method's would have."""


@dataclass(frozen=True)
class Key:
    """What names a run."""

    protocol: str
    dataset: str
    dims: int
    method: str
    fold: str
    seed: int

    def path(self, out: Path) -> Path:
        """Return its file."""
        folder = out / self.protocol / f"{self.dataset}-{self.dims}" / self.method
        return folder / f"fold-{self.fold}-seed-{self.seed}.json"


def known_record(path: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the record of a finished run, or ``None``; one of another configuration, or a damaged one, is refused."""
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text())
        then = found["config"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}). Remove it, and the run is done again.") from error
    if found["digest"] != _digest(config):
        changes = "; ".join(_differences(then, json.loads(_plain(config))))
        raise ValueError(
            f"{path} was run with another configuration: {changes}. Give the changed method a name of its own with "
            "`name=...`, do the run again with `again=true`, or go back to the old settings."
        )
    return found


def write_record(path: Path, key: Key, config: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Write a record, whole or not at all, and return it."""
    record = {
        **asdict(key), **found, "digest": _digest(config), "config": json.loads(_plain(config)),
        "versions": versions(), "finished": f"{datetime.now():%Y-%m-%d %H:%M:%S}",
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(record, indent=1))
    temporary.replace(path)
    return record


def every(out: Path) -> list[dict[str, Any]]:
    """Return all records below a folder."""
    found = [json.loads(path.read_text()) for path in sorted(out.rglob("fold-*.json"))]
    if not found:
        raise FileNotFoundError(f"No records below {out}. Run `python -m benchmarks.trajectory` first.")
    return found


def _plain(config: Mapping[str, Any]) -> str:
    return json.dumps(config, sort_keys=True, default=str)


def _digest(config: Mapping[str, Any]) -> str:
    return hashlib.sha256(_plain(config).encode()).hexdigest()[:16]


def _differences(then: Any, now: Any, name: str = "") -> Iterator[str]:
    """Yield each setting that changed, then and now."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted({*then, *now}):
            yield from _differences(then.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif then != now:
        yield f"{name}: {then} became {now}"


FIRST_SEED = 42
KEPT = 1500
"""Predicted cells that are kept for figures, of the first seed."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """Everything that one command runs."""

    protocol: Protocol
    cells: Cells
    method: Method
    name: str  # of the method in the table
    settings: Mapping[str, Any]  # what it was made from: others under the same name are refused
    folds: Any = "all"  # or names of folds
    seeds: int = 5  # how many: 42, 43 and so on; 0 for the baselines alone
    out: Path = Path("runs/trajectory")
    again: bool = False  # whether to do finished runs again

    def config(self) -> dict[str, Any]:
        """Return what a record must share with another of the same name."""
        rules = {k: v for k, v in asdict(self.protocol).items() if k not in ("about", "held", "start")}
        shared = {"protocol": rules, "cells": self.cells.digest(), "method": dict(self.settings)}
        length = self.cells.truths.length if self.protocol.weighted else None
        return shared if length is None else shared | {"length": length}

    def key(self, fold: Fold, seed: int, method: str | None = None) -> Key:
        """Return the name of a run."""
        return Key(self.protocol.name, self.cells.name, self.cells.dims, method or self.name, fold.name, seed)

    def known(self, key: Key, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the record of a finished run that need not be done again."""
        return None if self.again else known_record(key.path(self.out), config)


def run(job: Job, say: Say = print) -> list[dict[str, Any]]:
    """Run a job, skipping what is done, and return the records: the baselines of each fold, then its seeds."""
    if job.seeds < 0:
        raise ValueError(f"Expected seeds >= 0; found {job.seeds}.")
    if job.name == BASELINES:
        raise ValueError(f"A method cannot be called {BASELINES!r}. Choose another `name=`.")
    folds = choose_folds(job.protocol.folds_of(len(job.cells.times), dataset=job.cells.name), job.folds)
    seeds = range(FIRST_SEED, FIRST_SEED + job.seeds)
    for fold in folds:  # changed settings are refused before the first run is started
        for seed in seeds:
            job.known(job.key(fold, seed), job.config())
    found = []
    for fold in folds:
        task = prepare(job.cells, job.protocol, fold)
        found.append(_baselines(job, task, say))
        found += [_one(job, task, seed, say) for seed in seeds]
    return found


def measure(method: Method, task: Task, *, seed: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Fit a method on one fold and score it; return the findings, and some predicted and true cells of each target."""
    reset_peak()
    watch = Stopwatch()
    fitted = method.fit(task.training, seed=seed)
    fit_seconds, peak = watch.seconds(), peak_megabytes()
    rows, kept, roll_out, scoring = [], {}, 0.0, 0.0
    for leg in task.fold.legs:
        watch = Stopwatch()
        prediction = predict(task, leg, fitted)
        roll_out += watch.seconds()
        watch = Stopwatch()
        rows.append(_row(task, leg, prediction, seed))
        scoring += watch.seconds()
        kept[f"predicted_{leg.target}"] = _some(prediction, seed)
        kept[f"true_{leg.target}"] = _few(task.truth[leg.target], seed)
    watch = Stopwatch()
    motion = of_motion(task, fitted)
    facts = dict(fitted.facts)
    plan, train = facts.pop("plan_s", 0.0), facts.pop("train_s", None)
    seconds = {"plan": plan, "train": fit_seconds - plan if train is None else train, "roll_out": roll_out}
    seconds["score"] = scoring + watch.seconds()
    return {"scores": rows, "motion": motion, "seconds": seconds, "peak_mb": peak, "facts": facts}, kept


@dataclass(frozen=True)
class Prediction:
    """Predicted cells ``(m, d)`` of one target, in the units of the score."""

    x: np.ndarray
    share: np.ndarray  # how much each counts where mass is kept, summing to 1
    weight: np.ndarray | None  # mass of each, the start cells having 1 together; None where the method keeps mass
    evaluations: int  # of the network, for each particle


def predict(task: Task, leg: Leg, fitted: RollOut) -> Prediction:
    """Carry the start cells of a leg to its target."""
    parts = [fitted.carry(task.observed[k], task.times[k], task.times[leg.target]) for k in leg.starts]
    portions = shares(leg, task.times)
    share = [np.full(len(part.x), s / len(part.x)) for part, s in zip(parts, portions, strict=True)]
    mass = [u if part.weight is None else s * part.weight for part, u, s in zip(parts, share, portions, strict=True)]
    x = np.concatenate([np.asarray(part.x, np.float64) for part in parts])
    if not np.isfinite(x).all():
        raise FloatingPointError(f"The method predicted NaN or infinite states at snapshot {leg.target}.")
    weight = np.concatenate(mass) if any(part.weight is not None for part in parts) else None
    return Prediction(task.scored(x), np.concatenate(share), weight, max(part.evaluations for part in parts))


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
    return x[np.random.default_rng(seed).permutation(len(x))[:KEPT]].astype(np.float32)


def _one(job: Job, task: Task, seed: int, say: Say) -> dict[str, Any]:
    key = job.key(task.fold, seed)
    done, how = job.known(key, job.config()), "there already"
    if done is None:
        found, kept = measure(job.method, task, seed=seed)
        done, how = write_record(key.path(job.out), key, job.config(), found), "done"
        if seed == FIRST_SEED:
            np.savez_compressed(key.path(job.out).with_suffix(".npz"), allow_pickle=False, **kept)
    say(_line(done, task, how))
    return done


def _baselines(job: Job, task: Task, say: Say) -> dict[str, Any]:
    """Score the baselines of a fold, once for all methods."""
    key, config = job.key(task.fold, FIRST_SEED, BASELINES), job.config() | {"method": baselines.settings()}
    done = job.known(key, config)
    if done is None:
        watch = Stopwatch()
        rows = [row for leg in task.fold.legs for row in _scored_baselines(task, leg.target)]
        done = write_record(key.path(job.out), key, config, {"scores": rows, "seconds": {"score": watch.seconds()}})
    for row in done["scores"]:
        say(f"    {row['method']:<38} snapshot {row['target']}: W1 {row['W1']:.3f}, W2 {row['W2']:.3f}")
    return done


def _scored_baselines(task: Task, target: int) -> Iterator[dict[str, Any]]:
    about = {"target": target, "time": task.real[target]}
    for name, points in baselines.baselines(task, target, seed=FIRST_SEED):
        x = task.scored(np.asarray(points.x, np.float64))
        yield {"method": name, **about, **score(x, task.truth[target], weights=points.weights)}
    yield {"method": baselines.FLOOR, **about, **baselines.floor(task, target, seed=FIRST_SEED)}


def _line(record: Mapping[str, Any], task: Task, how: str) -> str:
    metric = task.protocol.metric
    ranks = f"weighted_{metric}" if task.protocol.weighted else metric
    scores = ", ".join(f"{row.get(ranks, row[metric]):.3f}" for row in record["scores"])
    name = f"{record['protocol']} {record['dataset']}-{record['dims']} {record['method']}"
    where, seconds = f"fold {record['fold']} seed {record['seed']}", sum(record["seconds"].values())
    return f"{time.strftime('%H:%M:%S')} {name} {where}: {metric} {scores} ({seconds:.0f} s, {how})"
