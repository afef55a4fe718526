"""Translate images without pairs, and score it: ``python -m benchmarks.images translation task=shapes method=all``.

Rows that are in the table already, with the same settings, are not made again. Needs the image sets in
``$CELLFLOW_DATA`` (all but ``shapes``, whose cells are in the package).
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

import cellflow as cf
from benchmarks import machine, page
from benchmarks.command import Words
from benchmarks.images import comparison, from_noise, methods, wortmannin
from benchmarks.images.judge import COMPONENTS_OF, FLOOR, Translated
from benchmarks.images.methods import CPU, GPU, TRANSLATORS, Method, Model, Size, arguments
from benchmarks.images.tasks import TASKS as OTHERS
from benchmarks.images.tasks import Task
from benchmarks.page import shown
from benchmarks.rows import Row, Table, digest, rounded
from cellflow.metrics import blind_to
from cellflow.report.grids import nearest

SIZES = {"cpu": CPU, "gpu": GPU}
TASKS = OTHERS | {"wortmannin": wortmannin.task}
METHODS = TRANSLATORS | {from_noise.NAME: from_noise.METHOD}
KEY = ("task", "direction", "method", "sampler", "solver_steps", "seed", "size")
COLUMNS = (
    *KEY, "n", "network", "fd", "fd_low", "fd_high", "fid", "kid", "precision", "recall", "coverage", "fd_pca",
    "fd_pca_low", "fd_pca_high", "fd_effnet", "fd_effnet_low", "fd_effnet_high", "high_frequency", "measured",
    "measured_low", "measured_high", "described_by", "cost", "cost_low", "cost_high", "kept_by", "kept",
    "kept_low", "kept_high", "kept_shuffled", "ignores_input", "ssim", "accuracy", "accuracy_low", "accuracy_high",
    "partner_mse", "partner_ssim", "partner_dice", "batch", "train_steps", "train_seconds", "sample_seconds",
    "settings", "device",
)  # fmt: skip
CONTROLS = ("noise of 5 grey levels", "noise of 10 grey levels", "noise of 20 grey levels", "blurred")
BASELINES = (
    FLOOR, *CONTROLS, "do nothing", "ignore the input", "nearest real target", "mean image", "mean shift",
    "true partner",
)  # fmt: skip
HEAD = (
    "method", "sampler", "steps", "FD", "high frequencies", "KID", "precision", "recall", "cost", "kept",
    "kept, shuffled", "right class", "training s", "sampling s",
)  # fmt: skip
JUDGES = {"fd": "FD-{network}", "fd_pca": "FD-PCA", "fd_effnet": "FD-EffNetLite0"}
SOME = {
    "fid": "FID", "fd_pca": JUDGES["fd_pca"], "fd_effnet": JUDGES["fd_effnet"], "measured": "measured",
    "partner_mse": "partner MSE", "partner_ssim": "partner SSIM", "partner_dice": "partner Dice",
}  # fmt: skip
"""Columns of some tasks alone."""
TEXT, PUBLISHED = Path(__file__).with_name("translation.md"), Path(__file__).with_name("translation.csv")
"""What the page says beside its tables, a section about each task; Gushchin et al. 2024 (ASBM), from a summary."""
PUBLISHED_ABOVE = (
    "Published, not run by us (quoted at second hand). These are FIDs, of Inception features and larger networks: not "
    "comparable with FD."
)


def main(words: Words = None) -> None:
    """Run the tasks that are named; write rows, pictures and the page."""
    given = arguments("translation", __doc__, list(TASKS), METHODS, SIZES, words, seed=0, fid=False, encoder=False)
    table = Table(given.out / "translation.csv", KEY, COLUMNS)
    for name in given.task:
        task, about = TASKS[name](), {"task": name, "seed": given.seed, "size": given.size}
        last = "true partner" if task.partnered else "real target"
        for rows in run(table, about, task, given.method, given.sized, fid=given.fid, encoder=given.encoder):
            print(*map(rounded, rows), sep="\n", flush=True)
            (given.out / "translation.md").write_text(text(table.read(), given.tail))
            for number, way in enumerate(task.directions):
                names, file = ["source", *METHODS, "target"], given.out / picture(name, number)
                methods.draw_samples(f"translation/{name}/{way.name}", names, file, target=last)


def run(
    table: Table, about: Row, task: Task, chosen: list[str], size: Size, *, fid: bool = False, encoder: bool = False
) -> Iterator[list[Row]]:
    """Yield the rows of the baselines, then those of each method that the table lacks; put them there."""
    seed, where = about["seed"], {"device": machine.name(torch.device(size.device))}
    judges = {way.name: Translated.of(task, way, size.images, seed, encoder=encoder) for way in task.directions}
    baselines = [about | row for row in _baselines(judges, about["task"], seed)]
    table.put(*baselines)
    yield baselines
    for name in chosen:
        method = METHODS[name]
        parts = (method, methods.SIGMA, methods.CYCLES, methods.SIMULATION_STEPS, replace(size, device="cpu"), seed)
        known = about | {"method": name, "settings": digest(parts)}
        if not suits(method, task) or table.read(**known):
            continue
        noise = name == from_noise.NAME
        model = from_noise.train(task, size, seed) if noise else train(task, method, size, seed)
        spent = known | where | {"batch": size.batch, "train_steps": model.steps, "train_seconds": model.seconds}
        rows = []
        for way, judge in judges.items():
            kept = f"translation/{about['task']}/{way}", name
            rows += [
                spent | row for row in _scored(model, method.samplers, judge, size, seed, kept, fid=fid, noise=noise)
            ]
        table.put(*rows)
        yield rows


def suits(method: Method, task: Task) -> bool:
    """Say whether the task has the features or the classes that the method needs."""
    classes = task.directions[0].same_class or task.classes
    return (task.features is not None or not method.on_features) and (classes or not method.within_labels)


def train(task: Task, method: Method, size: Size, seed: int) -> Model:
    """Return a model of the task."""
    start, rng = time.perf_counter(), cf.generator(seed=seed)
    source, target = (end.to(size.device) for end in task.train)
    features = None
    if method.on_features and task.features is not None:
        features = task.features[0](source.scaled()).flatten(1), task.features[1](target.scaled()).flatten(1)
    model, batches = methods.prepare(
        source, target, method, size, rng, flip=task.flip, features=features, within_labels=method.within_labels
    )
    first = max(1, size.steps // 2 if method.cycles else size.steps)
    cf.training.fit(model.field, model.objective, batches, steps=first, generator=rng, recipe=size.recipe)
    for _ in range(method.cycles):
        methods.fit_own_pairs(model, (source, target), method, size, rng)
    model.field.eval()
    return model._replace(steps=size.steps, seconds=time.perf_counter() - start)


def _baselines(judges: dict[str, Translated], name: str, seed: int) -> Iterator[Row]:
    """Yield the floor and its controls, and what doing nothing, simple answers, and the truth score."""
    for way, judge in judges.items():
        found = {"do nothing": judge.inputs, "ignore the input": judge.others(len(judge.inputs), seed)} | simple(judge)
        if judge.task.partnered:
            found["true partner"] = judge.real
        yield from ({"direction": way, **row} for row in judge.controls(seed))
        yield from ({"direction": way, "method": method, **judge(x, seed)} for method, x in found.items())
        for end, images in (("source", judge.inputs), ("target", judge.real)):
            methods.keep_samples(f"translation/{name}/{way}", end, images)


def simple(judge: Translated) -> dict[str, Tensor]:
    """Return answers that nothing was trained for, from at most 2000 images of each side that one may train on."""
    source, target = judge.train_images(0), judge.others(COMPONENTS_OF, 0)
    mean, moved = target.mean(0, keepdim=True), target.mean(0) - source.mean(0)
    return {
        "nearest real target": nearest(judge.inputs, target),
        "mean image": mean.expand_as(judge.inputs).clone(),
        "mean shift": (judge.inputs + moved).clamp(-1, 1),
    }


def _scored(
    model: Model, samplers: Sequence[str], judge: Translated, size: Size, seed: int, kept: tuple[str, str], *,
    fid: bool, noise: bool,
) -> Iterator[Row]:  # fmt: skip
    """Yield the scores of a model at each number of steps; a bridge also by its probability flow."""
    way, (first, *others) = judge.direction, samplers
    for sampler, steps in [*((first, steps) for steps in size.solver), *((other, size.solver[-1]) for other in others)]:
        start = time.perf_counter()
        inputs = judge.inputs.to(size.device)
        if noise:
            outputs = from_noise.generate(model, inputs, steps=steps, backward=way.backward, seed=seed)
        else:
            outputs = methods.sample(
                model, inputs, sampler=sampler, steps=steps, backward=way.backward, generator=cf.generator(seed=seed)
            )
        seconds = time.perf_counter() - start
        about = {"direction": way.name, "sampler": sampler, "solver_steps": steps, "sample_seconds": seconds}
        yield about | judge(outputs, seed) | ({"fid": judge.fid(outputs)} if fid else {})
        if sampler == first:
            methods.keep_samples(*kept, outputs)


def picture(task: str, direction: int) -> str:
    """Return the file with samples of a task, in its first direction or its second."""
    return f"translation_{task}{'_back' if direction else ''}.png"


def text(rows: list[Row], tail: str = "") -> str:
    """Return the page: one table for each task and direction, baselines first, published rows beside."""
    preface, *sections = TEXT.read_text().split("\n## ")
    lines = preface.splitlines()
    for section in sections:
        task, about = section.split("\n", 1)
        lines += ["", f"## {task}", "", *about.strip().splitlines(), ""]
        lines += _task(task, [row for row in rows if row["task"] == task], tail)
    return "\n".join(lines) + "\n"


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
    for way in sorted(ways):
        mine = comparison.over_seeds(sorted((row for row in rows if row["direction"] == way), key=_rank), BASELINES)
        titles = SOME | {"measured": next((row["described_by"] for row in mine if row["described_by"]), "measured")}
        some = {name: title for name, title in titles.items() if any(row.get(name) is not None for row in mine)}
        kept = next(row["kept_by"] for row in mine if row["kept_by"])
        names = {"FD": f"FD-{mine[0]['network']}", "kept": f"kept ({kept})"}
        head = [*(names.get(name, name) for name in HEAD), *some.values()]
        lines += ["", f"### {way}", "", *page.table(head, (_cells(row, list(some)) for row in mine))]
        lines += ["", *_seen(mine), *comparison.text([row for row in rows if row["direction"] == way])]
    if published := Table(PUBLISHED, ()).read(task=task):
        lines += ["", PUBLISHED_ABOVE, ""]
        lines += page.table(list(published[0])[1:], ([*row.values()][1:] for row in published))
    return lines


def _seen(rows: list[Row]) -> list[str]:
    """Say which distances put a control no farther from real images than real ones, and which rows are older."""
    scores = {row["method"]: row for row in rows if row["method"] in BASELINES}
    lines = []
    for name, title in JUDGES.items():
        found = {method: row[name] for method, row in scores.items() if row.get(name) is not None}
        if FLOOR not in found or not set(CONTROLS) <= set(found):
            continue
        spots = blind_to(found[FLOOR], {how: found[how] for how in (*CONTROLS, "do nothing") if how in found})
        judge = title.format(network=scores[FLOOR]["network"])
        said = f"is blind to: {', '.join(spots)}. Do not rank by it" if spots else "sees every control"
        lines.append(f"- {judge} {said}.")
    if old := sorted({row["method"] for row in rows if row["high_frequency"] is None}):
        lines.append(f"- Made before high frequencies and other distances were measured: {', '.join(old)}.")
    return lines


def _cells(row: Row, some: list[str]) -> list[object]:
    # Where an output goes no better with its own input than with others, or worse.
    worse = row["kept"] is not None and row["kept_high"] < row["kept_shuffled"]
    own = ", ignores" if row["ignores_input"] else ", worse" * worse
    cells = [row["method"], row["sampler"], row["solver_steps"], shown(row, "fd")]
    cells += [shown(row, "high_frequency"), shown(row, "kid")]
    cells += [shown(row, "precision", 2), shown(row, "recall", 2), shown(row, "cost"), shown(row, "kept")]
    rest = ("accuracy", "train_seconds", "sample_seconds", *some)
    return [*cells, shown(row, "kept_shuffled") + own, *(shown(row, name) for name in rest)]


def _rank(row: Row) -> tuple[int, str, str, int]:
    first = BASELINES.index(row["method"]) if row["method"] in BASELINES else len(BASELINES)
    return first, row["method"], row["sampler"] or "", row["solver_steps"] or 0
