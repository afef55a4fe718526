"""What is published of the records: a tidy CSV, tables in Markdown, and figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from benchmarks import page
from benchmarks.trajectory.run import PRIVATE, clouds_of, table_of
from benchmarks.trajectory.tasks import PROTOCOLS, Protocol

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEXT, PUBLISHED = Path(__file__).with_name("table.md"), Path(__file__).with_name("published.csv")
OTHERS = ("A'", "A-otpfm", "B")
"""Published protocols that nobody ran here: listed apart, comparable with nothing above."""
SECTION = ["protocol", "dataset", "dims"]
FITTED = ["fitted_energy", "fitted_W1"]
CLOSE = ["W2", "MMD", "energy", "sliced_W"]
MOTION = {"growth_r": "growth correlation", "action": "path action"}
"""Scores of the motion, and what they are called where they were published."""
COSTS = ["NFE", "plan_s", "train_s", "peak_mb"]
Z = 1.96


def write(out: Path, *, results: Path, command: str, name: str = "trajectory") -> pd.DataFrame:
    """Write a CSV file and a page of that name from all records below a folder; return the rows."""
    rows = frame(out)
    results.mkdir(parents=True, exist_ok=True)
    rows.to_csv(results / f"{name}.csv", index=False, float_format="%.5g")
    (results / f"{name}.md").write_text(markdown(rows, command))
    return rows


def frame(out: Path) -> pd.DataFrame:
    """Return all rows below a folder, baselines included."""
    rows = table_of(out).read()
    if not rows:
        raise FileNotFoundError(f"No records below {out}. Run `python -m benchmarks.trajectory` first.")
    found = pd.DataFrame(rows).drop(columns=PRIVATE)
    return found.assign(trained_on=found["trained_on"].fillna(""))


def markdown(rows: pd.DataFrame, command: str) -> str:
    """Return the tables: one for each protocol, data set and number of dimensions."""
    published = pd.read_csv(PUBLISHED)
    preface, elsewhere, *_ = page.fill(TEXT, command=command, length="")
    lines = preface
    sections: Any = rows.groupby(SECTION)
    for (protocol, dataset, dims), part in sections:
        lines += ["", *_section(protocol, dataset, dims, part, published)]
    asked = published[published["protocol"].isin(OTHERS) & published["dataset"].isin(rows["dataset"])]
    asked = asked[~asked["metric"].str.contains("@")][[*SECTION, "method", "metric", "value", "source"]]
    if len(asked):
        head = [str(name).replace("dataset", "data set") for name in asked]
        lines += ["", *elsewhere, "", *page.table(head, asked.to_numpy().tolist())]
    return "\n".join(lines) + "\n"


def summary(part: pd.DataFrame, protocol: Protocol) -> pd.DataFrame:
    """Return one row for each method of one table, the best first: per target, mean, spread and costs.

    All means are over seeds first, then over targets: a target that more seeds have reached counts no more. ``mean`` is
    missing where a target is: means of other targets do not compare. ``sd`` is over the seeds that have reached every
    target, of the mean over targets; ``half`` is half the width of the 95 % interval of ``mean`` by resampling cells,
    targets taken as independent.
    """
    part = part.assign(score=ranked(part, protocol), score_sd=ranked(part, protocol, "_sd"))
    found = []
    for (kind, method), runs in part.groupby(["kind", "method"]):
        means = runs.groupby("target").mean(numeric_only=True)
        by_seed = runs.pivot_table(index="seed", columns="target", values="score").dropna().mean(axis=1)
        whole = len(means) == part["target"].nunique()
        half = float(Z * np.sqrt((means["score_sd"] ** 2).sum(min_count=1)) / len(means))  # NaN without an interval
        row = {"kind": kind, "method": method, "mean": means["score"].mean() if whole else np.nan}
        row |= {"seeds": runs["seed"].nunique(), "sd": by_seed.std() if whole and len(by_seed) > 1 else np.nan}
        row |= {"half": half if whole else np.nan, "trained_on": runs["trained_on"].iloc[0]}
        row |= {f"at {target}": value for target, value in means["score"].items()}
        names = [name for name in ["W1", *CLOSE, *FITTED, "weighted_W1", "RME", *MOTION, *COSTS] if name in means]
        found.append(row | {name: means[name].mean() for name in names if means[name].notna().any()})
    return pd.DataFrame(found).sort_values("mean", ignore_index=True)


def ranked(part: pd.DataFrame, protocol: Protocol, suffix: str = "") -> pd.Series:
    """Return the score that ranks: that of weighted particles where the protocol and the method have them."""
    plain = protocol.metric + suffix
    found = part[plain] if plain in part else pd.Series(np.nan, index=part.index)
    weighted = f"weighted_{plain}"
    return part[weighted].fillna(found) if protocol.weighted and weighted in part else found


def _section(protocol: str, dataset: str, dims: int, part: pd.DataFrame, published: pd.DataFrame) -> list[str]:
    """Return one table, with the published rows of the very same protocol, data set and dimensions."""
    rules = PROTOCOLS[protocol]
    found = summary(part, rules)
    targets = [f"at {target}" for target in sorted(part["target"].unique())]
    others = [n for n in [*FITTED, *CLOSE, "W1", "weighted_W1", "RME", *MOTION] if n in found and n != rules.metric]
    costs = [name for name in COSTS if name in found]
    columns = ["method", "", *targets, "mean", "95 % (cells)", "sd (seeds)", *others, *costs, "seeds"]
    same = published.query("protocol == @protocol and dataset == @dataset and dims == @dims")
    rows = [_cells(row, [*targets, "mean"], others, costs) for row in found.to_dict("records")]
    seeds = part.loc[part["kind"] == "measured", "seed"].nunique()
    about = f"Ranked by {rules.metric}; `at k` is the score at snapshot k, averaged over up to {seeds} seeds."
    lines = [f"## Protocol {protocol}: {dataset}, {dims} dimensions", "", f"{rules.about} {about}", ""]
    lines += page.table(columns, [*rows, *_published_cells(same, rules, columns)])
    return [*lines, *_footnotes(part, found, same)]


def _cells(row: Mapping[Any, Any], first: list[str], others: list[str], costs: list[str]) -> list[str]:
    mean, half = row["mean"], row["half"]
    cells = [row["method"], row["kind"], *(_number(row[name]) for name in first)]
    cells += ["" if np.isnan(half) else f"{mean - half:.3f} to {mean + half:.3f}", _number(row["sd"])]
    cells += [_number(row[name]) for name in others] + [_number(row[name], digits=0) for name in costs]
    return [*cells, str(row["seeds"]) if row["kind"] == "measured" else ""]


def _published_cells(same: pd.DataFrame, rules: Protocol, columns: list[str]) -> list[list[str]]:
    """Return a row for each method of each source: nothing but what was printed there, numbered by its source."""
    rows, sources = [], list(dict.fromkeys(same["source"]))
    names = {"mean": rules.metric, "RME": "RME", **MOTION} | {f"at {k}": f"{rules.metric}@t{k}" for k in range(10)}
    for source, method in dict.fromkeys(zip(same["source"], same["method"], strict=True)):
        values = same[(same["source"] == source) & (same["method"] == method)].drop_duplicates("metric", keep="last")
        known = values.set_index("metric")["value"]
        cells = {"method": method, "": f"published [{sources.index(source) + 1}]"}
        cells |= {column: _number(known.get(name)) for column, name in names.items()}
        cells["sd (seeds)"] = _number(values.set_index("metric")["sd"].get(rules.metric))
        rows.append([cells.get(name, "") for name in columns])
    return sorted(rows, key=lambda row: row[columns.index("mean")] or "~")


def _footnotes(part: pd.DataFrame, found: pd.DataFrame, same: pd.DataFrame) -> list[str]:
    """Return who trained on fewer cells, the sources, and what the scores of the motion are, where there are any."""
    partly = found[~found["trained_on"].isin(["", "all training cells"])]
    methods = ", ".join(f"{row['method']} ({row['trained_on']})" for row in partly.to_dict("records"))
    notes = [f"All other methods train on all training cells; on fewer: {methods}."] if methods else []
    notes += [f"[{number}] {source}" for number, source in enumerate(dict.fromkeys(same["source"]), start=1)]
    lengths = part["length"].dropna().tolist() if "length" in part else []
    *_, (growth,), (action,) = page.fill(TEXT, command="", length=f"{lengths[0]:g}" if lengths else "")
    notes += [growth] if "growth_r" in part and part["growth_r"].notna().any() else []
    notes += [action] if lengths and part["action"].notna().any() else []
    return [line for note in notes for line in ("", note)]


def _number(value: Any, digits: int = 3) -> str:
    return "" if value is None or value != value else f"{value:.{digits}f}"


COLOURS = {"measured": "#1f6fb4", "baseline": "#8a8a8a", "published": "#c4622d"}
TRUE, PREDICTED = "#b5b5b5", "#1f6fb4"
WIDE = 3
"""From this ratio of the worst score to the best on, the axis is logarithmic."""
SHOWN = 3
"""Methods whose predictions are drawn: the best ones."""


def draw(rows: pd.DataFrame, records: Path, results: Path) -> list[Path]:
    """Draw both figures of every table; return the files. Predicted cells are kept beside the records."""
    made, sections = [], cast("Any", rows.groupby(SECTION))
    for (protocol, dataset, dims), part in sections:
        name = f"trajectory-{protocol}-{dataset}-{dims}"
        made.append(page.save(ranking(part, protocol, dataset, dims), results / f"{name}-ranking.png"))
        predicted = predictions(part, clouds_of(records, protocol, dataset, dims, ""), protocol)
        if predicted is not None:
            made.append(page.save(predicted, results / f"{name}-predicted.png"))
    return made


def ranking(part: pd.DataFrame, protocol: str, dataset: str, dims: int) -> "Figure":
    """Draw the methods of one table in order, with intervals; the noise floor is a line."""
    rules = PROTOCOLS[protocol]
    same = pd.read_csv(PUBLISHED).query("protocol == @protocol and dataset == @dataset and dims == @dims")
    same = same[same["metric"] == rules.metric].assign(kind="published", mean=lambda rows: rows["value"], half=np.nan)
    columns = ["kind", "method", "mean", "half"]
    found = pd.concat([summary(part, rules)[columns], *([same[columns]] if len(same) else [])]).dropna(subset="mean")
    floor = found[found["kind"] == "floor"]["mean"]
    found = found[found["kind"] != "floor"].sort_values("mean", ascending=False, ignore_index=True)
    figure, ((axes,),) = page.figure(size=(8, 1.2 + 0.28 * len(found)))
    for kind, colour in COLOURS.items():
        chosen = found[found["kind"] == kind]
        style: dict[str, Any] = {"fmt": "o", "color": colour, "capsize": 2, "label": kind}
        style["mfc"] = "white" if kind == "published" else None
        if len(chosen):
            axes.errorbar(chosen["mean"], chosen.index, xerr=chosen["half"].fillna(0), **style)
    axes.set_yticks(range(len(found)), found["method"], fontsize=8)
    if len(floor):
        axes.axvline(floor.iloc[0], color="black", linestyle=":", linewidth=1, label="noise floor (halves)")
    n = part["target"].nunique()
    label = f"{rules.metric}, mean over {n} snapshot{'s' if n > 1 else ''}"
    axes.set(xlabel=label, title=f"Protocol {protocol}: {dataset}, {dims} dimensions")
    axes.grid(axis="x", alpha=0.3)
    if found["mean"].max() > WIDE * found["mean"].min():
        axes.set_xscale("log")
        page.log_numbers(axes.xaxis)
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


def _clouds(folder: Path) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Return true and predicted cells by target, of the first seed."""
    found = {}
    for file in sorted(folder.glob("fold-*.npz")):
        with np.load(file) as kept:
            for target in (name.removeprefix("true_") for name in kept.files if name.startswith("true_")):
                found[int(target)] = kept[f"true_{target}"], kept[f"predicted_{target}"]
    return found
