"""The page of the translations: a table for each task and direction, what its distances do not see, published rows."""

import shlex
from pathlib import Path

from benchmarks import page
from benchmarks.images import comparison
from benchmarks.images.comparison import CONTROLS
from benchmarks.images.from_noise import METHODS
from benchmarks.images.judge import FLOOR
from benchmarks.images.methods import ending
from benchmarks.page import shown
from benchmarks.rows import Row, Table

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


def picture(task: str, direction: int, end: str = "") -> str:
    """Return the file with samples of a task, in its first direction or its second; ``end`` as the table's."""
    return f"translation{end}_{task}{'_back' if direction else ''}.png"


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
    lines = _made_by(task, rows, n, tail) or ["Baselines only: no method has been run yet."]
    budgets = any(row["train_steps"] for row in rows)
    ways = list(dict.fromkeys(row["direction"] for row in rows))
    files = [picture(task, number, ending(rows[0]["size"])) for number, _ in enumerate(ways)]
    lines += ["", *(f"![{way}]({file})" for way, file in zip(ways, files, strict=True))] if budgets else []
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


def _made_by(task: str, rows: list[Row], n: int, tail: str) -> list[str]:
    """Say with which command the rows of trained methods were made."""
    groups: dict[tuple[str, int, int], list[Row]] = {}
    for row in rows:
        if row["train_steps"]:
            groups.setdefault((row["size"], row["batch"], row["train_steps"]), []).append(row)
    lines = []
    for (size, batch, steps), found in sorted(groups.items()):
        names = ",".join(name for name in METHODS if any(row["method"] == name for row in found))
        words = [f"task={task}", f"method={names}", f"size={size}", f"steps={steps}", f"batch={batch}"]
        seeds = len({row["seed"] for row in found})
        words += [f"seeds={seeds}"] * (seeds > 1)
        words += ["--encoder"] * any(row.get("fd_effnet") is not None for row in found)
        command = shlex.join(["python", "-m", "benchmarks.images", "translation", *words]) + tail
        lines.append(
            f"Made by `{command}`: {steps} training steps of {batch} images for each method; {n} test images scored."
        )
    return lines


def _seen(rows: list[Row]) -> list[str]:
    """Say which distances put a control no farther from real images than real ones, and what else is not to rank by."""
    scores = {row["method"]: row for row in rows if row["method"] in BASELINES}
    lines = []
    for name, spots in comparison.blind_spots(rows).items():
        judge, floor = JUDGES[name].format(network=scores[FLOOR]["network"]), scores[FLOOR]
        within = floor.get(f"{name}_high", floor[name])
        faint = [how for how in CONTROLS if how not in spots and scores[how][name] <= within]
        said = f"is blind to: {', '.join(spots)}. Do not rank by it" if spots else "sees every control"
        said += f"; within the spread of the floor: {', '.join(faint)}" * bool(faint)
        lines.append(f"- {judge} {said}.")
    if fooled := comparison.fooled(rows):
        mean_image, real = (shown(row, comparison.RIGHT) for row in fooled)
        lines.append(
            f"- Right class does not tell real images from others: {mean_image} of the mean image, {real} of real "
            "ones. Do not rank by it."
        )
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
