"""One task: the baselines, then every method; each is trained once and scored at several numbers of steps."""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import cellflow as cf
from benchmarks.images.rows import RESULTS, Row, keep, read, written
from benchmarks.images.sizes import Size
from benchmarks.translation.methods import CYCLES, METHODS, SIGMA, SIMULATION_STEPS, Method, Model, train, translate
from benchmarks.translation.scores import Judge
from benchmarks.translation.task import Direction, Task

KEY = ("task", "direction", "method", "sampler", "solver_steps", "seed", "size")
COLUMNS = (
    *KEY, "n", "network", "fd", "fd_low", "fd_high", "fid", "kid", "precision", "recall", "coverage", "measured",
    "measured_low", "measured_high", "cost", "cost_low", "cost_high", "kept_by", "kept", "kept_low", "kept_high",
    "kept_shuffled", "ignores_input", "ssim", "accuracy", "accuracy_low", "accuracy_high", "partner_mse",
    "partner_ssim", "partner_dice", "batch", "train_steps", "train_seconds", "sample_seconds", "settings",
)  # fmt: skip
BASELINES = ("real against real", "do nothing", "ignore the input", "true partner")
SAMPLES = Path("runs") / "benchmarks" / "translation"
"""Where a few translations of each method are kept until the picture is drawn."""
SHOWN = 10


def settings(method: Method, size: Size, seed: int) -> str:
    """Return a digest of everything that a row depends on: rows of other settings are made anew."""
    parts = (method, SIGMA, CYCLES, SIMULATION_STEPS, replace(size, device="cpu"), seed)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:10]


def run(
    name: str, task: Task, methods: list[str], size: Size, *, size_name: str, seed: int, fid: bool, out: Path = RESULTS
) -> Iterator[list[Row]]:
    """Yield the rows of the baselines, then those of each method that the file lacks; write them there."""
    path = out / "translation.csv"
    about = {"task": name, "seed": seed, "size": size_name}
    judges = {way.name: Judge.of(task, way, size.images, seed) for way in task.directions}
    baselines = [about | row for row in _baselines(judges, name, seed)]
    keep(path, baselines, columns=COLUMNS, key=KEY)
    yield baselines
    for chosen in methods:
        method = METHODS[chosen]
        digest = settings(method, size, seed)
        if not method.suits(task) or _known(path, about | {"method": chosen, "settings": digest}):
            continue
        start = time.perf_counter()
        model = train(task, method, size, seed)
        spent = {"batch": size.batch, "train_steps": size.steps, "train_seconds": time.perf_counter() - start}
        rows = [
            about | spent | {"method": chosen, "settings": digest} | row
            for way, judge in judges.items()
            for row in _scored(model, judge, size, seed, fid, SAMPLES / name / way / f"{chosen}.npy")
        ]
        keep(path, rows, columns=COLUMNS, key=KEY)
        yield rows


def _known(path: Path, row: Row) -> bool:
    return any(all(old[column] == written(value) for column, value in row.items()) for old in read(path))


def _baselines(judges: dict[str, Judge], name: str, seed: int) -> Iterator[Row]:
    """Yield the floor, what doing nothing scores, what ignoring the input scores, and what the truth scores."""
    for way, judge in judges.items():
        found = {"do nothing": judge.inputs, "ignore the input": judge.others(len(judge.inputs), seed)}
        if judge.task.partnered:
            found["true partner"] = judge.real
        yield {"direction": way, "method": "real against real", **judge.floor(seed)}
        for method, outputs in found.items():
            yield {"direction": way, "method": method, **judge(outputs, seed)}
        _keep_samples(SAMPLES / name / way / "source.npy", judge.inputs)
        _keep_samples(SAMPLES / name / way / "target.npy", judge.real)


def _scored(model: Model, judge: Judge, size: Size, seed: int, fid: bool, path: Path) -> Iterator[Row]:
    """Yield the scores of a model at each number of steps; a bridge also by its probability flow."""
    way: Direction = judge.direction
    samplers = ["SDE", "ODE"] if model.sigma is not None else ["ODE"]
    for sampler in samplers:
        for steps in size.solver if sampler == samplers[0] else size.solver[-1:]:
            start = time.perf_counter()
            outputs = translate(
                model, judge.inputs.to(size.device), steps=steps, noisy=sampler == "SDE", backward=way.backward,
                generator=cf.generator(seed=seed),
            ).cpu()  # fmt: skip
            seconds = time.perf_counter() - start
            about = {"direction": way.name, "sampler": sampler, "solver_steps": steps, "sample_seconds": seconds}
            yield about | judge(outputs, seed) | ({"fid": _fid(outputs, judge)} if fid else {})
        if sampler == samplers[0]:
            _keep_samples(path, outputs)


def _fid(outputs: Tensor, judge: Judge) -> float:
    """Return the FID as published for this protocol: against all test images, however few."""
    end = judge.task.test[0 if judge.direction.backward else 1]
    weights = cf.datasets.inception_weights()
    return cf.metrics.fid(cf.images.to_bytes(outputs), end.images, weights=weights, reference=end.source).value


def _keep_samples(path: Path, images: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, cf.images.to_bytes(images[:SHOWN]).numpy())


def samples(name: str, direction: str) -> dict[str, Tensor]:
    """Return a few images of each method of a task, inputs first, the target last.

    In a task with partners the target images are the true partners; otherwise they are real images without any.
    """
    folder = SAMPLES / name / direction
    order = ["source", *METHODS, "target"]
    return {
        stem: cf.images.scaled(torch.from_numpy(np.load(folder / f"{stem}.npy")))
        for stem in order
        if (folder / f"{stem}.npy").is_file()
    }
