"""Translate images without pairs, and score it: ``python -m benchmarks.images translation task=shapes method=all``.

Rows that are in the table already, with the same settings, are not made again. ``size=gpu`` has a table of its own.
Needs the image sets in ``$CELLFLOW_DATA`` (all but ``shapes``, whose cells are in the package).
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

import cellflow as cf
from benchmarks import machine
from benchmarks.command import Words
from benchmarks.images import from_noise, methods, wortmannin
from benchmarks.images.from_noise import METHODS
from benchmarks.images.judge import COMPONENTS_OF, Translated
from benchmarks.images.methods import CPU, GPU, Method, Model, Size, arguments, ending, within
from benchmarks.images.tasks import TASKS as OTHERS
from benchmarks.images.tasks import Task
from benchmarks.images.translation_page import picture, text
from benchmarks.images.underway import NOWHERE, Underway
from benchmarks.rows import Row, Table, digest, rounded
from cellflow.report.grids import nearest

SIZES = {"cpu": CPU, "gpu": GPU}
TASKS = OTHERS | {"wortmannin": wortmannin.task}
Answer = Callable[..., Tensor]
"""From images, a sampler, a number of steps and whether it is the way back, to what a method makes of them."""
KEY = ("task", "direction", "method", "sampler", "solver_steps", "seed", "size")
COLUMNS = (
    *KEY, "n", "network", "fd", "fd_low", "fd_high", "fid", "kid", "precision", "recall", "coverage", "fd_pca",
    "fd_pca_low", "fd_pca_high", "fd_effnet", "fd_effnet_low", "fd_effnet_high", "high_frequency",
    "high_frequency_low", "high_frequency_high", "measured", "measured_low", "measured_high", "described_by", "cost",
    "cost_low", "cost_high", "kept_by", "kept", "kept_low", "kept_high", "kept_shuffled", "ignores_input", "ssim",
    "accuracy", "accuracy_low", "accuracy_high", "partner_mse", "partner_ssim", "partner_dice", "batch", "train_steps",
    "train_seconds", "sample_seconds",
    "settings", "device",
)  # fmt: skip


def main(words: Words = None) -> None:
    """Run the tasks that are named; write rows, pictures and the page."""
    more = {"seed": 0, "seeds": 1, "fid": False, "encoder": False}
    given = arguments("translation", __doc__, list(TASKS), METHODS, SIZES, words, **more)
    end = ending(given.size)
    table = Table(given.out / f"translation{end}.csv", KEY, COLUMNS)
    table.refuse_others("size", given.size)
    for name in given.task:
        task, about = TASKS[name](), {"task": name, "size": given.size}
        last, seeds = "true partner" if task.partnered else "real target", range(given.seed, given.seed + given.seeds)
        for rows in run(table, about, task, given.method, given.sized, seeds, fid=given.fid, encoder=given.encoder):
            print(*map(rounded, rows), sep="\n", flush=True)
            (given.out / f"translation{end}.md").write_text(text(table.read(), given.tail))
            there = {row["method"] for row in table.read(task=name, seed=given.seed) if row["train_steps"]}
            names = ["source", *(method for method in METHODS if method in there), "target"]
            for number, way in enumerate(task.directions):
                folder, file = samples_of(name, given.seed, given.size), given.out / picture(name, number, end)
                methods.draw_samples(f"{folder}/{way.name}", names, file, target=last)


def samples_of(task: str, seed: int, size: str) -> str:
    """Return the folder of the samples of a task: those of one seed show the same inputs."""
    return f"translation{ending(size)}/{task}/seed {seed}"


def run(
    table: Table, about: Row, task: Task, chosen: list[str], size: Size, seeds: Sequence[int], *,
    fid: bool = False, encoder: bool = False,
) -> Iterator[list[Row]]:  # fmt: skip
    """Yield rows of the baselines, from the first seed, then of each method and seed that the table lacks; put them."""
    for seed in seeds:
        judges = {way.name: Translated.of(task, way, size.images, seed, encoder=encoder) for way in task.directions}
        folder = samples_of(about["task"], seed, about["size"])
        if seed == seeds[0]:
            baselines = [about | {"seed": seed} | row for row in _baselines(judges, folder, seed)]
            table.put(*baselines)
            yield baselines
        for name in chosen:
            learned = METHODS[name], methods.SIGMA, methods.CYCLES, methods.SIMULATION
            settings = digest((*learned, replace(size, device="cpu"), seed))
            known = about | {"seed": seed, "method": name, "settings": settings}
            if suits(METHODS[name], task) and not table.read(**known):
                place = Underway.of((about, settings, name))
                found = _trained(name, task, judges, size, seed, folder, place, fid=fid)
                rows = [known | row for row in found]
                table.put(*rows)
                place.forget()
                yield rows


def _trained(
    name: str, task: Task, judges: dict[str, Translated], size: Size, seed: int, folder: str, place: Underway, *,
    fid: bool,
) -> Iterator[Row]:  # fmt: skip
    """Yield the scores of a method, which is trained once for all directions."""
    if name == from_noise.NAME:
        generator, seconds = from_noise.train(task, size, seed, place)
        answer: Answer = partial(from_noise.generate, generator, seed=seed)
    else:
        model = train(task, METHODS[name], size, seed, place)
        answer, seconds = partial(translate, model, seed=seed), model.seconds
    spent: Row = {"batch": size.batch, "train_steps": size.steps, "train_seconds": seconds}
    spent["device"] = machine.name(torch.device(size.device))
    for way, judge in judges.items():
        for row in _scored(answer, METHODS[name].samplers, judge, size, seed, (f"{folder}/{way}", name), fid=fid):
            yield spent | row


def suits(method: Method, task: Task) -> bool:
    """Say whether the task has the features or the classes that the method needs."""
    classes = task.directions[0].same_class or task.classes
    return (task.features is not None or not method.on_features) and (classes or not method.within_labels)


def train(task: Task, method: Method, size: Size, seed: int, place: Underway = NOWHERE) -> Model:
    """Return a model of the task; with a place, a training that was stopped goes on."""
    rng, start = cf.generator(seed=seed), time.perf_counter()
    source, target = (end.to(size.device) for end in task.train)
    features = None
    if method.on_features and task.features is not None:
        features = task.features[0](source.scaled()).flatten(1), task.features[1](target.scaled()).flatten(1)
    model, batches = methods.prepare(
        source, target, method, size, rng, flip=task.flip, features=features, within_labels=method.within_labels
    )
    prepared = time.perf_counter() - start
    first = max(1, size.steps // 2 if method.cycles else size.steps)
    _, seconds = place.timed("training", first, lambda run: cf.training.fit(
        model.field, model.objective, batches, steps=first, generator=rng, recipe=within(size.recipe, first), run=run,
    ))  # fmt: skip
    for cycle in range(method.cycles):
        seconds += methods.fit_own_pairs(model, (source, target), method, size, rng, place, f"cycle {cycle}")
    model.field.eval()
    return model._replace(steps=size.steps, seconds=prepared + seconds)


def _baselines(judges: dict[str, Translated], folder: str, seed: int) -> Iterator[Row]:
    """Yield the floor and its controls, and what doing nothing, simple answers, and the truth score."""
    for way, judge in judges.items():
        found = {"do nothing": judge.inputs, "ignore the input": judge.others(len(judge.inputs), seed)} | simple(judge)
        if judge.task.partnered:
            found["true partner"] = judge.real
        yield from ({"direction": way, **row} for row in judge.controls(seed))
        yield from ({"direction": way, "method": method, **judge(x, seed)} for method, x in found.items())
        for end, images in (("source", judge.inputs), ("target", judge.real)):
            methods.keep_samples(f"{folder}/{way}", end, images)


def simple(judge: Translated) -> dict[str, Tensor]:
    """Return answers that nothing was trained for, from at most 2000 images of each side that one may train on."""
    source, target = judge.train_images(0), judge.others(COMPONENTS_OF, 0)
    mean, moved = target.mean(0, keepdim=True), target.mean(0) - source.mean(0)
    return {
        "nearest real target": nearest(judge.inputs, target),
        "mean image": mean.expand_as(judge.inputs).clone(),
        "mean shift": (judge.inputs + moved).clamp(-1, 1),
    }


def translate(model: Model, inputs: Tensor, *, sampler: str, steps: int, backward: bool, seed: int) -> Tensor:
    """Return translations of images, as bytes would have them."""
    rng = cf.generator(seed=seed)
    return methods.sample(model, inputs, sampler=sampler, steps=steps, backward=backward, generator=rng)


def _scored(
    answer: Answer, samplers: Sequence[str], judge: Translated, size: Size, seed: int, kept: tuple[str, str], *,
    fid: bool,
) -> Iterator[Row]:  # fmt: skip
    """Yield the scores of answers at each number of steps; of a bridge also by its probability flow."""
    way, (first, *others) = judge.direction, samplers
    for sampler, steps in [*((first, steps) for steps in size.solver), *((other, size.solver[-1]) for other in others)]:
        start = time.perf_counter()
        outputs = answer(judge.inputs.to(size.device), sampler=sampler, steps=steps, backward=way.backward)
        seconds = time.perf_counter() - start
        about = {"direction": way.name, "sampler": sampler, "solver_steps": steps, "sample_seconds": seconds}
        yield about | judge(outputs, seed) | ({"fid": judge.fid(outputs)} if fid else {})
        if sampler == first:
            methods.keep_samples(*kept, outputs)
