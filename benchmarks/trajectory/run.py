"""The loop: every fold and seed of one method, and the baselines beside it; rows that refuse to be mixed."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import peak_megabytes, reset_peak
from benchmarks.rows import Row, Table, digest
from benchmarks.trajectory import baselines
from benchmarks.trajectory.methods import Method, RollOut
from benchmarks.trajectory.scores import of_motion, score
from benchmarks.trajectory.sets import Cells
from benchmarks.trajectory.tasks import Fold, Leg, Protocol, Task, choose_folds, prepare, shares
from cellflow.cli.runs import Stopwatch, versions

FIRST_SEED = 42
KEPT = 1500
"""Predicted cells that are kept for figures, of the first seed."""
BASELINES = "baselines"
"""The run that all methods share."""
KEY = ("protocol", "dataset", "dims", "run", "method", "fold", "seed", "target")
FITTED = ("energy", "W1")
"""Scores that cells which were trained on get too, where others are kept from training."""
PRIVATE = ["run", "facts", "settings"]
"""Columns that are not published."""
Say = Callable[[str], None]


def table_of(out: Path) -> Table:
    """Return the rows below a folder, with all their digits: equal runs are equal."""
    return Table(out / "rows.csv", KEY, ("kind", *KEY), form=".17g")


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

    def config(self, settings: Mapping[str, Any]) -> str:
        """Return what all rows of a run must share, as JSON."""
        rules: Row = {k: v for k, v in asdict(self.protocol).items() if k not in ("about", "held", "start")}
        shared: Row = {"protocol": rules, "cells": self.cells.digest(), "method": dict(settings)}
        length = self.cells.truths.length if self.protocol.weighted else None
        shared |= {} if length is None else {"length": length}
        return json.dumps(shared, sort_keys=True, default=str)

    def about(self, fold: Fold, seed: int, run: str) -> Row:
        """Return what names a run."""
        where: Row = {"protocol": self.protocol.name, "dataset": self.cells.name, "dims": self.cells.dims}
        return where | {"run": run, "fold": fold.name, "seed": seed}

    def rows(self, about: Row) -> list[Row]:
        """Return the rows of a run as they are kept, without empty cells."""
        return [{k: v for k, v in row.items() if v is not None} for row in table_of(self.out).read(**about)]

    def known(self, about: Row, config: str) -> list[Row]:
        """Return the rows of a finished run that need not be done again; those of another configuration are refused."""
        found = [] if self.again else self.rows(about)
        for row in found:
            if str(row["settings"]) != digest([config]):
                changes = "; ".join(_differences(_settings(self.out, row["settings"]), json.loads(config)))
                name = " ".join(f"{column}-{value}" for column, value in about.items())
                raise ValueError(
                    f"{name} in {self.out} was run with another configuration: {changes}. Give the changed method its "
                    "own name with `name=...`, repeat it with `again=true`, or restore the old settings."
                )
        return found

    def keep(self, about: Row, config: str, rows: list[Row]) -> list[Row]:
        """Keep the rows of a run, and return them as they are kept."""
        settings = self.out / "settings" / f"{digest([config])}.json"
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(json.dumps({"config": json.loads(config), "versions": versions()}, indent=1))
        table_of(self.out).put(*({**about, **row, "settings": settings.stem} for row in rows))
        return self.rows(about)


def _settings(out: Path, name: str) -> Any:
    path = out / "settings" / f"{name}.json"
    try:
        return json.loads(path.read_text())["config"]
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}). Do the run again with `again=true`.") from error


def _differences(then: Any, now: Any, name: str = "") -> Iterator[str]:
    """Yield each setting that changed, then and now."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted({*then, *now}):
            yield from _differences(then.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif then != now:
        yield f"{name}: {then} became {now}"


def run(job: Job, say: Say = print) -> list[Row]:
    """Run a job, skipping what is done, and return the rows: the baselines of each fold, then its seeds."""
    if job.seeds < 0:
        raise ValueError(f"Expected seeds >= 0; found {job.seeds}.")
    if job.name == BASELINES:
        raise ValueError(f"A method cannot be called {BASELINES!r}. Choose another `name=`.")
    folds = choose_folds(job.protocol.folds_of(len(job.cells.times), dataset=job.cells.name), job.folds)
    seeds = range(FIRST_SEED, FIRST_SEED + job.seeds)
    for fold in folds:  # changed settings are refused before the first run is started
        for seed in seeds:
            job.known(job.about(fold, seed, job.name), job.config(job.settings))
    rows = []
    for fold in folds:
        task = prepare(job.cells, job.protocol, fold)
        rows += _baselines(job, task, say)
        for seed in seeds:
            rows += _one(job, task, seed, say)
    return rows


def _one(job: Job, task: Task, seed: int, say: Say) -> list[Row]:
    about, config = job.about(task.fold, seed, job.name), job.config(job.settings)
    rows, how = job.known(about, config), "there already"
    if not rows:
        found, kept = measure(job.method, task, seed=seed)
        rows, how = job.keep(about, config, [row | {"method": job.name} for row in found]), "done"
        if seed == FIRST_SEED:
            path = clouds_of(job.out, job.protocol.name, job.cells.name, job.cells.dims, job.name)
            path.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(path / f"fold-{task.fold.name}.npz", allow_pickle=False, **kept)
    metric = task.protocol.metric
    ranks = f"weighted_{metric}" if task.protocol.weighted and f"weighted_{metric}" in rows[0] else metric
    scores = ", ".join(f"{row[ranks]:.3f}" for row in rows)
    seconds = sum(rows[0][f"{name}_s"] for name in ("plan", "train", "roll_out", "score"))
    where = f"{job.protocol.name} {job.cells.name}-{job.cells.dims} {job.name} fold {task.fold.name} seed {seed}"
    say(f"{time.strftime('%H:%M:%S')} {where}: {metric} {scores} ({seconds:.0f} s, {how})")
    return rows


def clouds_of(out: Path, protocol: str, dataset: str, dims: int, method: str) -> Path:
    """Return the folder of the predicted cells that are kept for figures."""
    return out / protocol / f"{dataset}-{dims}" / method


def _baselines(job: Job, task: Task, say: Say) -> list[Row]:
    """Score the baselines of a fold, once for all methods."""
    about, config = job.about(task.fold, FIRST_SEED, BASELINES), job.config(baselines.settings())
    rows = job.known(about, config) or job.keep(about, config, list(_scored_baselines(task)))
    for row in rows:
        say(f"    {row['method']:<38} snapshot {row['target']}: W1 {row['W1']:.3f}, W2 {row['W2']:.3f}")
    return rows


def _scored_baselines(task: Task) -> Iterator[Row]:
    for target in (leg.target for leg in task.fold.legs):
        at = {"target": target, "time": task.real[target]}
        for name, points in baselines.baselines(task, target, seed=FIRST_SEED):
            x = task.scored(np.asarray(points.x, np.float64))
            yield {"kind": "baseline", "method": name, **at, **score(x, task.truth[target], weights=points.weight)}
        yield {"kind": "floor", "method": baselines.FLOOR, **at, **baselines.floor(task, target, seed=FIRST_SEED)}


def measure(method: Method, task: Task, *, seed: int) -> tuple[list[Row], dict[str, np.ndarray]]:
    """Fit a method on one fold and score it; return a row, and some predicted and true cells, of each target."""
    reset_peak()
    watch = Stopwatch()
    fitted = method.fit(task.training, seed=seed)
    fit_seconds, peak = watch.seconds(), peak_megabytes()
    rows, roll_out, scoring = [], 0.0, 0.0
    kept: dict[str, np.ndarray] = {}
    for leg in task.fold.legs:
        watch = Stopwatch()
        prediction = predict(task, leg, fitted)
        roll_out += watch.seconds()
        watch = Stopwatch()
        rows.append(_row(task, leg, prediction, seed))
        if task.protocol.split is not None:
            again = _row(task, leg, predict(task, leg, fitted, new=False), seed)
            rows[-1] |= {f"fitted_{name}": again[name] for name in FITTED}
        scoring += watch.seconds()
        rng, true = np.random.default_rng(seed), task.truth[leg.target]
        chances = prediction.share if prediction.weight is None else prediction.weight
        some = prediction.x[rng.choice(len(prediction.x), KEPT, p=chances / chances.sum())]
        few = true[np.random.default_rng(seed).permutation(len(true))[:KEPT]]
        kept |= {f"predicted_{leg.target}": some.astype(np.float32), f"true_{leg.target}": few.astype(np.float32)}
    watch = Stopwatch()
    facts, motion = dict(fitted.facts), of_motion(task, fitted)  # one for a fit: the same in the row of every target
    plan, train = facts.pop("plan_s", 0.0), facts.pop("train_s", None)
    costs = {"plan_s": plan, "train_s": fit_seconds - plan if train is None else train, "roll_out_s": roll_out}
    costs |= {"score_s": scoring + watch.seconds(), "peak_mb": peak}
    costs |= {"trained_on": facts.pop("cells", "all training cells"), "facts": json.dumps(facts)}
    return [{"kind": "measured", **row, **motion, **costs} for row in rows], kept


@dataclass(frozen=True)
class Prediction:
    """Predicted cells ``(m, d)`` of one target, in the units of the score."""

    x: np.ndarray
    share: np.ndarray  # how much each counts where mass is kept, summing to 1
    weight: np.ndarray | None  # mass of each, the start cells having 1 together; None where the method keeps mass
    evaluations: int  # of the network, for each particle


def predict(task: Task, leg: Leg, fitted: RollOut, *, new: bool = True) -> Prediction:
    """Carry the start cells of a leg to its target, or in their place as many that were trained on."""
    starts = {k: task.observed[k] if new else task.trained_on(k) for k in leg.starts}
    parts = [fitted.carry(x, task.times[k], task.times[leg.target]) for k, x in starts.items()]
    portions = shares(leg, task.times)
    share = [np.full(len(part.x), s / len(part.x)) for part, s in zip(parts, portions, strict=True)]
    mass = [u if part.weight is None else s * part.weight for part, u, s in zip(parts, share, portions, strict=True)]
    x = np.concatenate([np.asarray(part.x, np.float64) for part in parts])
    if not np.isfinite(x).all():
        raise FloatingPointError(f"The method predicted NaN or infinite states at snapshot {leg.target}.")
    weight = np.concatenate(mass) if any(part.weight is not None for part in parts) else None
    return Prediction(task.scored(x), np.concatenate(share), weight, max(part.evaluations for part in parts))


def _row(task: Task, leg: Leg, prediction: Prediction, seed: int) -> Row:
    """Return all scores at one target; those of weighted particles under names of their own."""
    true = task.truth[leg.target]
    row: Row = {"target": leg.target, "time": task.real[leg.target], "NFE": prediction.evaluations}
    row |= score(prediction.x, true, weights=prediction.share, seed=seed)
    if prediction.weight is not None:
        found = score(prediction.x, true, weights=prediction.weight, seed=seed)
        row |= {f"weighted_{name}": value for name, value in found.items()}
    if task.protocol.weighted:
        true_mass = task.sizes[leg.target] / task.sizes[leg.starts[0]]
        mass = 1.0 if prediction.weight is None else float(prediction.weight.sum())
        # The relative mass error of WFR-FM's evaluation code, which calls it TMV; its text and VGFM call it RME.
        row |= {"mass": mass, "true_mass": true_mass, "RME": abs(mass - true_mass) / true_mass}
    return row
