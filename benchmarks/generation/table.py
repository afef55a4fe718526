"""The page, and the figure of the distance against evaluations and against the length of the training."""

import time
from pathlib import Path
from typing import Any

from benchmarks.generation.methods import METHODS
from benchmarks.generation.run import DATASETS, FLOOR, ON_THE_WAY
from benchmarks.images.rows import shown

Text = dict[str, str]
COLOURS = {"FM": "#4269d0", "OT-CFM": "#3ca951", "diffusion": "#ff725c"}
STYLES = {"euler": "-", "ddim": "--"}
PUBLISHED = (
    ("OT-CFM, 400k steps, EMA", "dopri5", "3.5", "torchcfm README"),
    ("FM", "Euler 100", "4.640", "Tong et al. 2024, recalled"),
    ("I-CFM", "Euler 100", "4.461", "Tong et al. 2024, recalled"),
    ("OT-CFM", "Euler 100", "4.443", "Tong et al. 2024, recalled"),
    ("DDPM", "dopri5, 274 evaluations", "7.48", "Lipman et al. 2023, recalled"),
    ("FM with OT path", "dopri5, 142 evaluations", "6.35", "Lipman et al. 2023, recalled"),
)


def page(rows: list[Text]) -> str:
    """Return everything as Markdown."""
    lines = [
        "# From noise to images: flow matching beside diffusion",
        "",
        f"Last made on {time.strftime('%Y-%m-%d')}. One network, one budget, the same batches of images for every",
        "method.",
        "",
        "- **FD**: Fréchet distance to all test images in the features of a small network of ours. It is no FID, and",
        "  comparable with nothing but the rows of the same data set.",
        "- Square brackets: 95 % bootstrap intervals. Images drawn twice raise a distance, so they lie a bit high and",
        "  may leave out the value itself.",
        "- **real against real**: the floor, as many real training images; the mean of ten draws, from the least to",
        "  the largest.",
        "- Samplers: Euler along the probability flow, with equal steps of time; and DDIM, the customary one of",
        "  diffusion, with the predicted image kept within [-1, 1] and the noise taken anew.",
        "- Seconds are of one CPU core that other work shared, at some times more than at others. A step costs FM and",
        "  diffusion the same, and OT-CFM matches a batch besides: compare optimiser steps.",
        "",
    ]
    for name in DATASETS:
        lines += _dataset(name, [row for row in rows if row["dataset"] == name])
    return "\n".join(lines)


def _dataset(name: str, rows: list[Text]) -> list[str]:
    lines = [f"## {name}", ""]
    if not rows:
        lines += ["Not run yet.", ""]
    else:
        trained = [row for row in rows if row["method"] != FLOOR]
        lines += [
            *_budget(name, trained), *_answer(rows), f"![distance](generation_{name}.png)", "",
            f"![samples](generation_{name}_samples.png)", "", *_by_evaluations(rows), "", *_by_training(rows), "",
        ]  # fmt: skip
    if name == "cifar10":
        lines += ["Published, not run by us (`size=cifar10` is that recipe, for a GPU):", ""]
        lines += ["| method | sampler | FID | from |", "|---|---|---|---|"]
        lines += [f"| {' | '.join(row)} |" for row in PUBLISHED] + [""]
    return lines


def _budget(name: str, trained: list[Text]) -> list[str]:
    found = {(row["size"], row["batch"], row["n"]) for row in trained}
    most = max((int(row["train_steps"]) for row in trained), default=0)
    return [
        f"Made by `python -m benchmarks.generation dataset={name} method=all size={size} steps={most} batch={batch} "
        f"images={n}`: {most} optimiser steps of {batch} images for each method, {n} images generated.\n"
        for size, batch, n in sorted(found)
    ]


def _answer(rows: list[Text]) -> list[str]:
    """Say where every method ends, and after how many steps the flows are where diffusion ends."""
    courses = {name: [row for row in _on_the_way(rows) if row["method"] == name] for name in METHODS}
    if not courses["diffusion"]:
        return []
    end = courses["diffusion"][-1]
    flows = [name for name in courses if name != "diffusion" and courses[name]]
    firsts = {name: _first(courses[name], float(end["fd"])) for name in flows}
    lasts = ", ".join(f"{name} {shown(courses[name][-1], 'fd')}" for name in (*flows, "diffusion"))
    return [
        f"Which trains faster? After {end['train_steps']} steps, sampled with {ON_THE_WAY} evaluations: {lasts}. Where "
        f"diffusion ends, or below, are first, of the moments that were scored: "
        f"{', '.join(f'{name} {first}' for name, first in firsts.items())}. One seed.\n"
    ]


def _first(course: list[Text], level: float) -> str:
    """Say after how many steps a course is at a level."""
    return next((f"after {row['train_steps']}" for row in course if float(row["fd"]) <= level), "never")


def _by_evaluations(rows: list[Text]) -> list[str]:
    """Return the table of the trained models, one column for each number of evaluations."""
    ends = [row for row in rows if row["method"] == FLOOR or row["train_steps"] == _last(rows, row["method"])]
    numbers = sorted({int(row["evaluations"]) for row in ends if row["evaluations"]})
    name = rows[0]["distance"]
    lines = [f"{name} against evaluations of the network:", ""]
    lines += ["| method | sampler | " + " | ".join(str(n) for n in numbers) + " |", "|---" * (len(numbers) + 2) + "|"]
    for method, sampler in _lines_of(ends):
        cells = {int(row["evaluations"]): shown(row, "fd") for row in ends if _is(row, method, sampler)}
        lines.append(f"| {method} | {sampler} | " + " | ".join(cells.get(n, "") for n in numbers) + " |")
    floor = next((row for row in ends if row["method"] == FLOOR), None)
    return [*lines, *([f"| {FLOOR} | | {shown(floor, 'fd')} |" + " |" * (len(numbers) - 1)] if floor else [])]


def _by_training(rows: list[Text]) -> list[str]:
    lines = [f"{rows[0]['distance']} on the way, with {ON_THE_WAY} evaluations:", ""]
    lines += ["| method | optimiser steps | seconds | distance | precision | recall |", "|---|---|---|---|---|---|"]
    for row in _on_the_way(rows):
        cells = [row["method"], row["train_steps"], f"{float(row['train_seconds']):.0f}", shown(row, "fd")]
        lines.append(f"| {' | '.join([*cells, shown(row, 'precision', 2), shown(row, 'recall', 2)])} |")
    return lines


def _on_the_way(rows: list[Text]) -> list[Text]:
    some = [
        row for row in rows
        if row["method"] in METHODS and row["evaluations"] == str(ON_THE_WAY)
        and row["sampler"] == METHODS[row["method"]].samplers[0]
    ]  # fmt: skip
    return sorted(some, key=lambda row: (list(METHODS).index(row["method"]), int(row["train_steps"])))


def _last(rows: list[Text], method: str) -> str:
    return str(
        max((int(row["train_steps"]) for row in rows if row["method"] == method and row["train_steps"]), default=0)
    )


def _lines_of(rows: list[Text]) -> list[tuple[str, str]]:
    return sorted({(row["method"], row["sampler"]) for row in rows if row["method"] != FLOOR})


def _is(row: Text, method: str, sampler: str) -> bool:
    return (row["method"], row["sampler"]) == (method, sampler)


def draw(rows: list[Text], path: Path, *, title: str) -> None:
    """Draw the distance against evaluations, and against the length of the training, on logarithmic axes.

    In steps: the seconds of a shared machine say as much about the others on it.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", sharey=True)
    ends = [row for row in rows if row["method"] != FLOOR and row["train_steps"] == _last(rows, row["method"])]
    for method, sampler in _lines_of(ends):
        _line(axes[0], [row for row in ends if _is(row, method, sampler)], "evaluations", method, sampler)
    for method in METHODS:
        mine = [row for row in _on_the_way(rows) if row["method"] == method]
        _line(axes[1], mine, "train_steps", method, METHODS[method].samplers[0])
    floor = next((float(row["fd"]) for row in rows if row["method"] == FLOOR), None)
    for axis, label in zip(axes, ("evaluations of the network", "optimiser steps"), strict=True):
        axis.set(xscale="log", yscale="log", xlabel=label)
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
        if floor:
            axis.axhline(floor, color="#888888", lw=1, ls=":", label=FLOOR)
        axis.legend(fontsize=8, frameon=False)
    axes[0].set_ylabel(rows[0]["distance"])
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _line(axis: Any, rows: list[Text], x: str, method: str, sampler: str) -> None:
    points = sorted((float(row[x]), float(row["fd"])) for row in rows)
    if points:
        marker = {"ddim": "s"}.get(sampler, "o")
        axis.plot(
            *zip(*points, strict=True), STYLES[sampler], marker=marker, ms=4, lw=1.5, color=COLOURS[method],
            alpha=0.45 if (method, sampler) == ("diffusion", "euler") else 1.0, label=f"{method}, {sampler}",
        )  # fmt: skip
