"""Flow matching beside diffusion on images: ``python -m benchmarks.images generation task=mnist method=all``.

Every method is trained once and scored on its way, and at its end with every number of evaluations. ``task=cifar10
size=cifar10`` is the full published recipe (35.7 million parameters, 400,000 steps, 50,000 images for the FID): it
wants a GPU, the official archive and the Inception weights, and says so before it starts.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

import cellflow as cf
from benchmarks import machine, page
from benchmarks.command import Words
from benchmarks.images import methods
from benchmarks.images.judge import FLOOR, Generated
from benchmarks.images.methods import CPU, GENERATORS, GPU, Model, Size, arguments, ending, within
from benchmarks.images.tasks import DATASETS
from benchmarks.images.underway import Underway
from benchmarks.page import shown
from benchmarks.rows import Row, Table, digest, rounded
from cellflow.images import ImageSet
from cellflow.metrics import blind_to

SIZES = {
    "cpu": replace(CPU, recipe=replace(CPU.recipe, schedule="constant")),
    "gpu": replace(GPU, images=10_000),
    "cifar10": replace(GPU, images=50_000, steps=400_001, recipe=replace(GPU.recipe, warmup=5000)),
}
"""With a constant learning rate: every checkpoint is then worth as much as the last. Each size has a table of its own.
"""
KEY = ("dataset", "method", "sampler", "evaluations", "train_steps", "seed", "size")
COLUMNS = (
    *KEY, "distance", "n", "fd", "fd_low", "fd_high", "kid", "precision", "recall", "high_frequency", "batch",
    "train_seconds", "sample_seconds", "settings", "device",
)  # fmt: skip
EVALUATIONS, ON_THE_WAY = (2, 4, 8, 16, 32), 16
"""Of the network for each image: of a trained model, and of one in training."""
SHARES = (0.0625, 0.125, 0.25, 0.5, 1.0)
"""Parts of the training after which a model is scored."""
DRAWS = 10
"""The floor is the mean of so many samples of real images, and each control of as many of them spoiled."""
COLOURS = {"FM": "#4269d0", "OT-CFM": "#3ca951", "diffusion": "#ff725c"}
TEXT, PUBLISHED = Path(__file__).with_name("generation.md"), Path(__file__).with_name("generation.csv")


def main(words: Words = None) -> None:
    """Run the data sets that are named; write rows, figures and the page."""
    names = list(DATASETS)
    given = arguments("generation", __doc__, names, GENERATORS, SIZES, words, seed=0)
    file = f"generation{ending(given.size)}"
    table = Table(given.out / f"{file}.csv", KEY, COLUMNS)
    table.refuse_others("size", given.size)
    for name in given.task:
        about = {"dataset": name, "seed": given.seed, "size": given.size}
        for rows in run(table, about, given.method, given.sized):
            print(*map(rounded, rows), sep="\n", flush=True)
            (given.out / f"{file}.md").write_text(text(table.read(), given.tail))
            drawn = draw(table.read(dataset=name), title=f"{name}: distance to real test images")
            page.save(drawn, given.out / f"{file}_{name}.png")
            there = {row["method"] for row in table.read(dataset=name, seed=given.seed)}
            names = [*(method for method in GENERATORS if method in there), "real"]
            picture = given.out / f"{file}_{name}_samples.png"
            methods.draw_samples(samples_of(name, given.seed, given.size), names, picture)


def samples_of(dataset: str, seed: int, size: str) -> str:
    """Return the folder of the samples of a data set and a seed."""
    return f"generation{ending(size)}/{dataset}/seed {seed}"


def run(table: Table, about: Row, names: list[str], size: Size) -> Iterator[list[Row]]:
    """Yield the rows of the floor and its controls, then those of each method that the table lacks; put them there."""
    name, seed, where = about["dataset"], about["seed"], {"device": machine.name(torch.device(size.device))}
    images = DATASETS[name].load("train")
    judge, rng = Generated(DATASETS[name], images), cf.generator(seed=seed)
    some = [images.scaled(torch.randperm(len(images), generator=rng)[: size.images]) for _ in range(DRAWS)]
    folder = samples_of(name, seed, about["size"])
    methods.keep_samples(folder, "real", some[0])
    rows = [about | row for row in judge.baselines(some)]
    table.put(*rows)
    yield rows
    for chosen in names:
        parts = (GENERATORS[chosen], replace(size, device="cpu"), SHARES, seed)
        known = about | {"method": chosen, "settings": digest(parts)}
        if not table.read(**known):
            place = Underway.of((known, size.device))
            rows = [known | where | row for row in _scored(chosen, folder, images, judge, size, seed, place)]
            table.put(*rows)
            place.forget()
            yield rows


def _scored(
    chosen: str, folder: str, images: ImageSet, judge: Generated, size: Size, seed: int, place: Underway
) -> Iterator[Row]:
    """Train once, and yield the scores: with one sampler on the way, with every number of evaluations at the end."""
    method, rng, images = GENERATORS[chosen], cf.generator(seed=seed + 1), images.to(size.device)
    noise = torch.randn((size.images, *images.shape), generator=rng).to(size.device)
    flip = images.shape[0] == 3
    model, batches = methods.prepare(None, images, method, size, cf.generator(seed=seed), flip=flip)
    marks = sorted({max(1, round(share * size.steps)) for share in SHARES})
    seconds = 0.0

    def trained(mark: int, done: int) -> Model:
        watch = place.watch(f"after {mark} steps", mark - done)
        cf.training.fit(
            model.field, model.objective, batches, steps=marks[-1], until=mark, run=watch.on(place.run()),
            recipe=within(size.recipe, marks[-1]), generator=cf.generator(seed=seed),
        )  # fmt: skip
        model.field.eval()
        return model._replace(steps=mark, seconds=seconds + watch.seconds())

    def rows(mark: int, done: int) -> Iterator[Row]:
        now, last = trained(mark, done), mark == marks[-1]
        ends = [(sampler, evaluations) for sampler in method.samplers for evaluations in EVALUATIONS]
        for sampler, evaluations in ends if last else [(method.samplers[0], ON_THE_WAY)]:
            start = time.perf_counter()
            found = methods.sample(now, noise, sampler=sampler, steps=evaluations, generator=rng)
            about = {"sampler": sampler, "evaluations": evaluations, "train_steps": mark, "batch": size.batch}
            spent = {"sample_seconds": time.perf_counter() - start, "train_seconds": now.seconds}
            yield about | spent | judge(found)
            if last and (sampler, evaluations) == (method.samplers[0], EVALUATIONS[-1]):
                methods.keep_samples(folder, chosen, found)

    for done, mark in pairwise((0, *marks)):
        found = place.rows(f"after {mark} steps", lambda mark=mark, done=done: rows(mark, done))  # type: ignore[misc]
        seconds = found[-1]["train_seconds"]
        yield from found


def text(rows: list[Row], tail: str = "") -> str:
    """Return the page."""
    (lines,) = page.fill(TEXT, day=time.strftime("%Y-%m-%d"))
    measured = {row["dataset"] for row in rows}
    for name in [name for name in DATASETS if name in measured or name != "cifar10_jpeg"]:
        mine = [row for row in rows if row["dataset"] == name]
        lines += ["", f"## {name}", "", *(_dataset(name, mine, tail) if mine else ["Not run yet."])]
        if published := Table(PUBLISHED, ()).read(dataset=name):
            lines += ["", "Published, not run by us (`size=cifar10` is that recipe, for a GPU):", ""]
            lines += page.table(list(published[0])[1:], ([*row.values()][1:] for row in published))
    return "\n".join(lines) + "\n"


def _dataset(name: str, rows: list[Row], tail: str) -> list[str]:
    trained, distance = [row for row in rows if row["method"] in GENERATORS], rows[0]["distance"]
    most = max((row["train_steps"] for row in trained), default=0)
    lines = [
        f"Made by `python -m benchmarks.images generation task={name} method=all size={size} steps={most} "
        f"batch={batch} images={n}{tail}`: {most} training steps of {batch} images for each method, {n} images "
        "generated.\n"
        for size, batch, n in sorted({(row["size"], row["batch"], row["n"]) for row in trained})
    ]
    courses = {method: _course(rows, method) for method in GENERATORS}
    way = [
        [method, row["train_steps"], f"{row['train_seconds']:.0f}", shown(row, "fd"), shown(row, "precision", 2),
         shown(row, "recall", 2), shown(row, "high_frequency")]
        for method, course in courses.items() for row in course
    ]  # fmt: skip
    file = f"generation{ending(rows[0]['size'])}_{name}"
    return [
        *lines, *_answer(courses), *_controls(rows, distance), f"![distance]({file}.png)", "",
        f"![samples]({file}_samples.png)", "",
        f"{distance} against evaluations of the network:", "", *_by_evaluations(rows, "fd"), "",
        "High frequencies against evaluations:", "", *_by_evaluations(rows, "high_frequency"), "",
        f"{distance} on the way, with {ON_THE_WAY} evaluations:", "",
        *page.table(
            ("method", "training steps", "seconds", "distance", "precision", "recall", "high frequencies"), way
        ),
    ]  # fmt: skip


def _controls(rows: list[Row], distance: str) -> list[str]:
    """Return the table of real images and of spoiled ones, and what the distance does not see."""
    found = {row["method"]: row for row in rows if row["method"] not in GENERATORS}
    if len(found) < 2:
        return []
    names = ("fd", "kid", "precision", "recall", "high_frequency")
    table = [[method, *(shown(row, name) for name in names)] for method, row in found.items()]
    spots = blind_to(found[FLOOR]["fd"], {method: row["fd"] for method, row in found.items() if method != FLOOR})
    said = f"is blind to: {', '.join(spots)}. Do not rank by it" if spots else "sees every control"
    head = ("real images", distance, "KID", "precision", "recall", "high frequencies")
    return [*page.table(head, table), "", f"{distance} {said}.", ""]


def _answer(courses: dict[str, list[Row]]) -> list[str]:
    """Say where every method ends, and after how many steps the flows are where diffusion ends."""
    if not courses["diffusion"]:
        return []
    end, flows = courses["diffusion"][-1], [name for name in courses if name != "diffusion" and courses[name]]
    lasts = ", ".join(f"{name} {shown(courses[name][-1], 'fd')}" for name in (*flows, "diffusion"))
    steps = {name: [row["train_steps"] for row in courses[name] if row["fd"] <= end["fd"]] for name in flows}
    firsts = ", ".join(f"{name} {f'after {found[0]}' if found else 'never'}" for name, found in steps.items())
    return [
        f"Which trains faster? After {end['train_steps']} steps, sampled with {ON_THE_WAY} evaluations: {lasts}. Where "
        f"diffusion ends, or below, are first, of the moments that were scored: {firsts}. One seed.\n"
    ]


def _by_evaluations(rows: list[Row], score: str) -> list[str]:
    """Return the table of a score of the trained models, one column for each number of evaluations."""
    ends = _ends(rows)
    numbers = sorted({row["evaluations"] for row in [row for found in ends.values() for row in found]})
    table = []
    for (method, sampler), mine in ends.items():
        found = {row["evaluations"]: shown(row, score) for row in mine}
        table.append([method, sampler, *(found.get(n, "") for n in numbers)])
    floors = [[FLOOR, "", shown(row, score), *[""] * (len(numbers) - 1)] for row in rows if row["method"] == FLOOR]
    return page.table(["method", "sampler", *numbers], [*table, *floors[:1]])


def _course(rows: list[Row], method: str) -> list[Row]:
    """Return the course of a method's training."""
    about = (method, GENERATORS[method].samplers[0], ON_THE_WAY)
    some = [row for row in rows if (row["method"], row["sampler"], row["evaluations"]) == about]
    return sorted(some, key=lambda row: row["train_steps"])


def _ends(rows: list[Row]) -> dict[tuple[str, str], list[Row]]:
    """Return the rows of trained models, by method and sampler."""
    trained = sorted((row for row in rows if row["method"] in GENERATORS), key=lambda row: row["train_steps"])
    last = {row["method"]: row["train_steps"] for row in trained}
    ends = [row for row in trained if row["train_steps"] == last[row["method"]]]
    names = sorted({(row["method"], row["sampler"]) for row in ends})
    return {name: [row for row in ends if (row["method"], row["sampler"]) == name] for name in names}


def draw(rows: list[Row], *, title: str) -> Any:
    """Draw the distance against evaluations, and against the length of the training, on logarithmic axes.

    In steps: the seconds of a shared machine say as much about the others on it.
    """
    drawn, (axes,) = page.figure(1, 2, size=(10, 4), sharey=True)
    courses = {(name, GENERATORS[name].samplers[0]): _course(rows, name) for name in GENERATORS}
    floor = next((row["fd"] for row in rows if row["method"] == FLOOR), None)
    for axis, lines, x in zip(axes, (_ends(rows), courses), ("evaluations", "train_steps"), strict=True):
        for (method, sampler), mine in lines.items():
            points = sorted((row[x], row["fd"]) for row in mine)
            style: dict[str, Any] = {"ls": "--", "marker": "s"} if sampler == "ddim" else {"ls": "-", "marker": "o"}
            style |= {"alpha": 0.45 if (method, sampler) == ("diffusion", "euler") else 1, "color": COLOURS[method]}
            if points:
                axis.plot(*zip(*points, strict=True), ms=4, lw=1.5, label=f"{method}, {sampler}", **style)
        axis.set(xscale="log", yscale="log")
        page.log_numbers(axis.xaxis)
        if floor:
            axis.axhline(floor, color="#888888", lw=1, ls=":", label=FLOOR)
        axis.legend(fontsize=8, frameon=False)
    axes[0].set(xlabel="evaluations of the network", ylabel=rows[0]["distance"])
    axes[1].set(xlabel="training steps")
    drawn.suptitle(title, fontsize=10)
    return drawn
