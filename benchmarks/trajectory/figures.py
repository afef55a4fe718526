"""Figures of the records: predicted cells over true ones, and the methods in order with their intervals."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks import page
from benchmarks.trajectory.run import FIRST_SEED
from benchmarks.trajectory.table import PUBLISHED, SECTION, named, ranked, summary
from benchmarks.trajectory.tasks import PROTOCOLS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {"measured": "#1f6fb4", "baseline": "#8a8a8a", "published": "#c4622d"}
TRUE, PREDICTED = "#b5b5b5", "#1f6fb4"
WIDE = 3
"""From this ratio of the worst score to the best on, the axis is logarithmic."""
SHOWN = 3
"""Methods whose predictions are drawn: the best ones."""


def draw(rows: pd.DataFrame, records: Path, results: Path) -> list[Path]:
    """Draw both figures of every table; return the files. Predicted cells are kept beside the records."""
    made = []
    for key, part in rows.groupby(SECTION):
        protocol, dataset, dims = named(key)
        name = f"trajectory-{protocol}-{dataset}-{dims}"
        made.append(page.save(ranking(part, protocol, dataset, dims), results / f"{name}-ranking.png"))
        predicted = predictions(part, records / protocol / f"{dataset}-{dims}", protocol)
        if predicted is not None:
            made.append(page.save(predicted, results / f"{name}-predicted.png"))
    return made


def ranking(part: pd.DataFrame, protocol: str, dataset: str, dims: int) -> "Figure":
    """Draw the methods of one table in order, with intervals; the noise floor is a line."""
    rules = PROTOCOLS[protocol]
    found = _with_published(summary(part, rules), protocol, dataset, dims)
    found = found[found["mean"].notna()]
    floor = found[found["kind"] == "floor"]["mean"]
    found = found[found["kind"] != "floor"].sort_values("mean", ascending=False, ignore_index=True)
    figure, ((axes,),) = page.figure(size=(8, 1.2 + 0.28 * len(found)))
    for kind, colour in COLOURS.items():
        chosen = found[found["kind"] == kind]
        style: dict[str, Any] = {"fmt": "o", "color": colour, "capsize": 2, "label": kind}
        style |= {"mfc": "white"} if kind == "published" else {}
        if len(chosen):
            axes.errorbar(chosen["mean"], chosen.index, xerr=chosen["half"].fillna(0), **style)
    axes.set_yticks(range(len(found)), found["method"], fontsize=8)
    if len(floor):
        axes.axvline(floor.iloc[0], color="black", linestyle=":", linewidth=1, label="noise floor (halves)")
    n = part["target"].nunique()
    axes.set_xlabel(f"{rules.metric}, mean over {n} snapshot{'s' if n > 1 else ''}")
    axes.set_title(f"Protocol {protocol}: {dataset}, {dims} dimensions")
    axes.grid(axis="x", alpha=0.3)
    if found["mean"].max() > WIDE * found["mean"].min():
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
        axes.tick_params(axis="x", which="both", labelsize=8)
    axes.legend(fontsize=8, loc="upper right", framealpha=1)
    return figure


def predictions(part: pd.DataFrame, folder: Path, protocol: str) -> "Figure | None":
    """Draw predicted cells over true ones: a row for each target, a column for each of the best methods.

    ``None`` where no method has predicted every target.
    """
    rules = PROTOCOLS[protocol]
    found = summary(part, rules)
    whole = found[(found["kind"] == "measured") & found["mean"].notna()]["method"]
    targets = sorted(part["target"].unique())
    kept = [(name, _clouds(folder / name)) for name in whole]
    columns = [(name, clouds) for name, clouds in kept if set(targets) <= set(clouds)][:SHOWN]
    if not columns:
        return None
    size = (3.2 * len(columns) + 0.6, 2.9 * len(targets) + 0.4)
    figure, grid = page.figure(len(targets), len(columns), size=size, sharex="row", sharey="row")
    scores = part.assign(score=ranked(part, rules)).groupby(["method", "target"])["score"].mean()
    for row, target in zip(grid, targets, strict=True):
        for axes, (name, clouds) in zip(row, columns, strict=True):
            for x, colour, label in zip(clouds[target], (TRUE, PREDICTED), ("true", "predicted"), strict=True):
                second = x[:, 1] if x.shape[1] > 1 else np.zeros(len(x))
                axes.plot(x[:, 0], second, ".", color=colour, markersize=2, alpha=0.6, label=label, rasterized=True)
            axes.set_title(f"{name}, snapshot {target}: {rules.metric} {scores[name, target]:.3f}", fontsize=9)
        row[0].set_ylabel("dimension 2")
    for axes in grid[-1]:
        axes.set_xlabel("dimension 1")
    grid[0, 0].legend(fontsize=8, markerscale=4, loc="best")
    return figure


def _with_published(found: pd.DataFrame, protocol: str, dataset: str, dims: int) -> pd.DataFrame:
    published = pd.read_csv(PUBLISHED).query("protocol == @protocol and dataset == @dataset and dims == @dims")
    published = published[published["metric"] == PROTOCOLS[protocol].metric]
    rows = published[["method"]].assign(kind="published", mean=published["value"], half=np.nan)
    return pd.concat([found[["kind", "method", "mean", "half"]], rows]) if len(rows) else found


def _clouds(folder: Path) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Return true and predicted cells by target, of the first seed."""
    found = {}
    for file in sorted(folder.glob(f"fold-*-seed-{FIRST_SEED}.npz")):
        with np.load(file) as kept:
            for name in kept.files:
                if name.startswith("true_"):
                    found[int(name.removeprefix("true_"))] = kept[name], kept[name.replace("true", "predicted")]
    return found
