"""Translate images without pairs, and score it: ``python -m benchmarks.images translation task=shapes method=all``.

Rows that are in the table already, with the same settings, are not made again. Needs the image sets in
``$CELLFLOW_DATA`` (all but ``shapes``, whose cells are in the package).
"""

import csv
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import torch

import cellflow as cf
from benchmarks import machine, page
from benchmarks.images import pictures
from benchmarks.images.judge import Translated
from benchmarks.images.methods import (
    CYCLES,
    SIGMA,
    SIMULATION_STEPS,
    TRANSLATORS,
    Method,
    Model,
    fit_own_pairs,
    prepare,
    sample,
)
from benchmarks.images.sizes import CPU, GPU, Size, arguments
from benchmarks.images.tasks import TASKS, Task
from benchmarks.page import shown
from benchmarks.rows import Row, Table, digest, rounded

SIZES = {"cpu": CPU, "gpu": GPU}
KEY = ("task", "direction", "method", "sampler", "solver_steps", "seed", "size")
COLUMNS = (
    *KEY, "n", "network", "fd", "fd_low", "fd_high", "fid", "kid", "precision", "recall", "coverage", "measured",
    "measured_low", "measured_high", "cost", "cost_low", "cost_high", "kept_by", "kept", "kept_low", "kept_high",
    "kept_shuffled", "ignores_input", "ssim", "accuracy", "accuracy_low", "accuracy_high", "partner_mse",
    "partner_ssim", "partner_dice", "batch", "train_steps", "train_seconds", "sample_seconds", "settings", "device",
)  # fmt: skip
BASELINES = ("real against real", "do nothing", "ignore the input", "true partner")
HEAD = (
    "method", "sampler", "steps", "FD", "KID", "precision", "recall", "cost", "kept", "kept, shuffled", "right class",
    "training s", "sampling s",
)  # fmt: skip
TEXT = Path(__file__).with_name("translation.md")
"""What the page says beside its tables; a section about each task."""
PUBLISHED = Path(__file__).with_name("translation.csv")
"""Gushchin et al. 2024 (ASBM, NeurIPS), taken from a summary."""
PUBLISHED_ABOVE = (
    "Published, not run by us (quoted at second hand). These are FIDs, of Inception features and larger networks: not "
    "comparable with FD."
)


def main(words: Sequence[str] | None = None) -> None:
    """Run the tasks that are named; write rows, pictures and the page."""
    given = arguments(
        "translation", __doc__, list(TASKS), TRANSLATORS, SIZES, words, seed=(0, "of everything"),
        fid=("no", "yes: the FID too, which needs the Inception weights"),
    )  # fmt: skip
    table = Table(given.out / "translation.csv", KEY, COLUMNS)
    for name in given.task:
        task = TASKS[name]()
        about = {"task": name, "seed": given.seed, "size": given.size}
        for rows in run(table, about, task, given.method, given.sized, fid=given.fid == "yes"):
            print(*map(rounded, rows), sep="\n", flush=True)
            (given.out / "translation.md").write_text(text(table.read(), given.tail))
            for number, way in enumerate(task.directions):
                last = "true partner" if task.partnered else "real target"
                order = ["source", *TRANSLATORS, "target"]
                pictures.draw(f"translation/{name}/{way.name}", order, given.out / picture(name, number), target=last)


def run(
    table: Table, about: Row, task: Task, methods: list[str], size: Size, *, fid: bool = False
) -> Iterator[list[Row]]:
    """Yield the rows of the baselines, then those of each method that the table lacks; put them there."""
    seed = about["seed"]
    judges = {way.name: Translated.of(task, way, size.images, seed) for way in task.directions}
    baselines = [about | row for row in _baselines(judges, about["task"], seed)]
    table.put(*baselines)
    yield baselines
    for chosen in methods:
        method = TRANSLATORS[chosen]
        parts = (method, SIGMA, CYCLES, SIMULATION_STEPS, replace(size, device="cpu"), seed)
        known = about | {"method": chosen, "settings": digest(parts)}
        if not suits(method, task) or table.read(**known):
            continue
        model = train(task, method, size, seed)
        where = {"device": machine.name(torch.device(size.device))}
        spent = where | {"batch": size.batch, "train_steps": model.steps, "train_seconds": model.seconds}
        rows = []
        for judge in judges.values():
            rows += [known | spent | row for row in _scored(model, chosen, judge, about["task"], size, seed, fid=fid)]
        table.put(*rows)
        yield rows


def suits(method: Method, task: Task) -> bool:
    """Say whether the task has the features or the classes that the method needs."""
    classes = task.directions[0].same_class
    return (task.features is not None or not method.on_features) and (classes or not method.within_labels)


def train(task: Task, method: Method, size: Size, seed: int) -> Model:
    """Return a model of the task."""
    start, rng = time.perf_counter(), cf.generator(seed=seed)
    source, target = (end.to(size.device) for end in task.train)
    features = None
    if method.on_features and task.features is not None:
        features = task.features[0](source.scaled()).flatten(1), task.features[1](target.scaled()).flatten(1)
    model, batches = prepare(
        source, target, method, size, rng, flip=task.flip, features=features, within_labels=method.within_labels
    )
    first = max(1, size.steps // 2 if method.cycles else size.steps)
    cf.training.fit(model.field, model.objective, batches, steps=first, generator=rng, recipe=size.recipe)
    for _ in range(method.cycles):
        fit_own_pairs(model, (source, target), method, size, rng)
    model.field.eval()
    return model._replace(steps=size.steps, seconds=time.perf_counter() - start)


def _baselines(judges: dict[str, Translated], name: str, seed: int) -> Iterator[Row]:
    """Yield the floor, what doing nothing scores, what ignoring the input scores, and what the truth scores."""
    for way, judge in judges.items():
        found = {"do nothing": judge.inputs, "ignore the input": judge.others(len(judge.inputs), seed)}
        if judge.task.partnered:
            found["true partner"] = judge.real
        yield {"direction": way, "method": "real against real", **judge.floor(seed)}
        for method, outputs in found.items():
            yield {"direction": way, "method": method, **judge(outputs, seed)}
        pictures.keep(f"translation/{name}/{way}", "source", judge.inputs)
        pictures.keep(f"translation/{name}/{way}", "target", judge.real)


def _scored(
    model: Model, chosen: str, judge: Translated, name: str, size: Size, seed: int, *, fid: bool
) -> Iterator[Row]:
    """Yield the scores of a model at each number of steps; a bridge also by its probability flow."""
    way, (first, *others) = judge.direction, TRANSLATORS[chosen].samplers
    for sampler, steps in [*((first, steps) for steps in size.solver), *((other, size.solver[-1]) for other in others)]:
        start = time.perf_counter()
        outputs = sample(
            model, judge.inputs.to(size.device), sampler=sampler, steps=steps, backward=way.backward,
            generator=cf.generator(seed=seed),
        )  # fmt: skip
        seconds = time.perf_counter() - start
        about = {"direction": way.name, "sampler": sampler, "solver_steps": steps, "sample_seconds": seconds}
        yield about | judge(outputs, seed) | ({"fid": judge.fid(outputs)} if fid else {})
        if sampler == first:
            pictures.keep(f"translation/{name}/{way.name}", chosen, outputs)


def text(rows: list[Row], tail: str = "") -> str:
    """Return the page: one table for each task, baselines first, published rows beside."""
    preface, *sections = TEXT.read_text().split("\n## ")
    lines = preface.splitlines()
    for section in sections:
        task, about = section.split("\n", 1)
        lines += ["", f"## {task}", "", *about.strip().splitlines(), ""]
        lines += _task(task, [row for row in rows if row["task"] == task], tail)
    return "\n".join(lines) + "\n"


def picture(task: str, direction: int) -> str:
    """Return the file with samples of a task, in its first direction or its second."""
    return f"translation_{task}{'_back' if direction else ''}.png"


def _task(task: str, rows: list[Row], tail: str) -> list[str]:
    if not rows:
        return ["Not run yet."]
    n = max(row["n"] for row in rows)
    budgets = sorted({(row["size"], row["batch"], row["train_steps"]) for row in rows if row["train_steps"]})
    lines = [
        f"Made by `python -m benchmarks.images translation task={task} method=all size={size} steps={steps} "
        f"batch={batch}{tail}`: {steps} optimiser steps of {batch} images for each method; {n} test images scored."
        for size, batch, steps in budgets
    ] or ["Baselines only: no method has been run yet."]
    ways = list(dict.fromkeys(row["direction"] for row in rows))
    lines += ["", *(f"![{way}]({picture(task, number)})" for number, way in enumerate(ways))] if budgets else []
    for direction, some in groupby(sorted(rows, key=_direction), key=_direction):
        lines += ["", f"### {direction}", "", *_direction_table(list(some))]
    with PUBLISHED.open() as file:
        published = [list(row.values())[1:] for row in csv.DictReader(file) if row["task"] == task]
    if published:
        lines += ["", PUBLISHED_ABOVE, ""]
        lines += page.table(("method", "evaluations", "FID 2 -> 3", "FID 3 -> 2"), published)
    return lines


def _direction(row: Row) -> str:
    return row["direction"]


def _direction_table(rows: list[Row]) -> list[str]:
    kept = next(row["kept_by"] for row in rows if row["kept_by"])
    names = {"FD": f"FD-{rows[0]['network']}", "kept": f"kept ({kept})"}
    extra = {"fid": "FID", "measured": "area, perimeter, circularity"}
    extra |= {"partner_mse": "partner MSE", "partner_ssim": "partner SSIM", "partner_dice": "partner Dice"}
    extra = {name: title for name, title in extra.items() if any(row.get(name) is not None for row in rows)}
    head = [*(names.get(name, name) for name in HEAD), *extra.values()]
    return page.table(head, (_cells(row, list(extra)) for row in sorted(rows, key=_rank)))


def _cells(row: Row, extra: list[str]) -> list[object]:
    shuffled = shown(row, "kept_shuffled") + _verdict(row)
    cells = [row["method"], row["sampler"], row["solver_steps"], shown(row, "fd"), shown(row, "kid")]
    cells += [shown(row, "precision", 2), shown(row, "recall", 2), shown(row, "cost"), shown(row, "kept"), shuffled]
    return [*cells, *(shown(row, name) for name in ("accuracy", "train_seconds", "sample_seconds", *extra))]


def _verdict(row: Row) -> str:
    """Say where an output goes no better with its own input than with others, or worse."""
    if row["ignores_input"]:
        return ", ignores"
    return ", worse" if row["kept"] is not None and row["kept_high"] < row["kept_shuffled"] else ""


def _rank(row: Row) -> tuple[int, str, str, int]:
    first = BASELINES.index(row["method"]) if row["method"] in BASELINES else len(BASELINES)
    return first, row["method"], row["sampler"] or "", row["solver_steps"] or 0
