"""The page: one table for each task, baselines first, published rows beside."""

from itertools import groupby

from benchmarks.images.rows import shown
from benchmarks.translation.run import BASELINES
from benchmarks.translation.tasks import ABOUT

PUBLISHED = {
    "coloured": (
        ("ASBM, eps 1", 4, 2.7, 2.8), ("DSBM, eps 1", 100, 6.2, 5.3),
        ("ASBM, eps 10", 4, 4.3, 4.53), ("DSBM, eps 10", 100, 58.7, 59.9),
    ),
}  # fmt: skip
"""Method, evaluations, FID of 2 -> 3 and of 3 -> 2: Gushchin et al. 2024 (ASBM, NeurIPS), taken from a summary."""

PUBLISHED_ABOVE = (
    "Published, not run by us (quoted at second hand). These are FIDs, of Inception features and larger networks: not "
    "comparable with FD."
)

Text = dict[str, str]
HEAD = (
    "method", "sampler", "steps", "FD", "KID", "precision", "recall", "cost", "kept", "kept, shuffled", "right class",
    "training s", "sampling s",
)  # fmt: skip


def page(rows: list[Text]) -> str:
    """Return everything as Markdown."""
    lines = [
        "# Translating images, unpaired",
        "",
        "Square brackets: 95 % bootstrap intervals (of the floor: the least and largest of ten draws). Images drawn",
        "twice raise a distance, so its interval lies a little high and may leave out the value itself.",
        "",
        "- **FD**: Fréchet distance in the features of a small network of ours, named with each task. It is no FID and",
        "  comparable with nothing but the rows of the same task. KID and precision / recall use the same features.",
        "- **cost**: mean squared difference of input and output per pixel, in [-1, 1]^2.",
        "- **kept**: what an output kept of its input; beside it the same score with the inputs of others. A method",
        "  whose two numbers agree ignores its input, whatever its FD, and is marked \"ignores\"; \"worse\" than with",
        "  the inputs of others means that it turns the input round. Pixels pair bright with bright, so where the",
        "  object is bright in the source and dark in the target (stains), match its outlines instead of pixels.",
        "- **real against real**: the floor, two samples of real target images of the same size. **Do nothing**",
        "  returns the input, **ignore the input** a random real image of the target.",
        "- area, perimeter, circularity: energy distance of these three numbers, in units of their spread.",
        "- steps: Euler (ODE) or Euler-Maruyama (SDE, last step without noise), one evaluation of the network each.",
        "- DSBM fits half of its steps to independent pairs, the rest to pairs that it makes itself. What the first",
        "  half has not learned is missing from these pairs, and every round loses a little more: where half of a",
        "  small budget is not enough, it ends at returning its input, with a cost near 0 and the FD of doing nothing.",
        "  The published runs are 100 times as long.",
        "- one step of a bridge (SDE, 1) lands on the mean of all that could follow: blurred, and much the same for",
        "  every input.",
        "- pictures: with the most steps, and with noise where a method has it. Real targets are paired with nothing,",
        "  true partners with the source above them.",
        "- seconds are of one CPU core that other work shared: an order of magnitude, not a speed.",
        "",
    ]  # fmt: skip
    for task, about in ABOUT.items():
        lines += _task(task, about, [row for row in rows if row["task"] == task])
    return "\n".join(lines)


def picture(task: str, direction: int) -> str:
    """Return the file with samples of a task, in its first direction or its second.

    Examples
    --------
    >>> picture("masks", 1)
    'translation_masks_back.png'
    """
    return f"translation_{task}{'_back' if direction else ''}.png"


def _task(task: str, about: str, rows: list[Text]) -> list[str]:
    if not rows:
        return [f"## {task}", "", f"{about}", "", "Not run yet.", ""]
    lines = [f"## {task}", "", about, ""]
    n = max(int(row["n"]) for row in rows)
    budgets = {(row["size"], row["batch"], row["train_steps"]) for row in rows if row["train_steps"]}
    lines += [
        f"Made by `python -m benchmarks.translation task={task} method=all size={size} steps={steps} batch={batch}`:"
        f" {steps} optimiser steps of {batch} images for each method; {n} test images scored."
        for size, batch, steps in sorted(budgets)
    ]
    lines += [] if budgets else ["Baselines only: no method has been run yet."]
    ways = list(dict.fromkeys(row["direction"] for row in rows))
    lines += ["", *(f"![{way}]({picture(task, number)})" for number, way in enumerate(ways))] if budgets else []
    lines.append("")
    for direction, some in groupby(sorted(rows, key=_direction), key=_direction):
        lines += _direction_table(direction, list(some))
    if task in PUBLISHED:
        lines += [PUBLISHED_ABOVE, ""]
        lines += ["| method | evaluations | FID 2 -> 3 | FID 3 -> 2 |", "|---|---|---|---|"]
        lines += [f"| {name} | {nfe} | {there} | {back} |" for name, nfe, there, back in PUBLISHED[task]]
        lines.append("")
    return lines


def _direction(row: Text) -> str:
    return row["direction"]


def _direction_table(direction: str, rows: list[Text]) -> list[str]:
    partners, measured = (any(row[name] for row in rows) for name in ("partner_mse", "measured"))
    fid = any(row["fid"] for row in rows)
    network = f"FD-{rows[0]['network']}"
    kept = next(row["kept_by"] for row in rows if row["kept_by"])
    head = [*HEAD, *(["FID"] if fid else []), *(["area, perimeter, circularity"] if measured else [])]
    head += ["partner MSE", "partner SSIM", "partner Dice"] if partners else []
    head = [{"FD": network, "kept": f"kept ({kept})"}.get(name, name) for name in head]
    lines = [f"### {direction}", "", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [_line(row, fid=fid, measured=measured, partners=partners) for row in sorted(rows, key=_rank)]
    return [*lines, ""]


def _line(row: Text, *, fid: bool, measured: bool, partners: bool) -> str:
    shuffled = shown(row, "kept_shuffled") + _verdict(row)
    cells = [row["method"], row["sampler"], row["solver_steps"], shown(row, "fd"), shown(row, "kid")]
    cells += [shown(row, "precision", 2), shown(row, "recall", 2), shown(row, "cost"), shown(row, "kept"), shuffled]
    cells += [shown(row, "accuracy"), shown(row, "train_seconds"), shown(row, "sample_seconds")]
    cells += [shown(row, "fid")] if fid else []
    cells += [shown(row, "measured")] if measured else []
    cells += [shown(row, f"partner_{name}") for name in ("mse", "ssim", "dice")] if partners else []
    return f"| {' | '.join(cells)} |"


def _verdict(row: Text) -> str:
    """Say where an output goes no better with its own input than with others, or worse."""
    if row["ignores_input"] == "True":
        return ", ignores"
    return ", worse" if row["kept"] and float(row["kept_high"]) < float(row["kept_shuffled"]) else ""


def _rank(row: Text) -> tuple[int, str, str, int]:
    first = BASELINES.index(row["method"]) if row["method"] in BASELINES else len(BASELINES)
    return first, row["method"], row["sampler"], int(row["solver_steps"] or 0)
