"""What is published of the records: a tidy CSV and a Markdown table, every number marked measured or published."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.trajectory.baselines import FLOOR
from benchmarks.trajectory.protocols import PROTOCOLS, Protocol
from benchmarks.trajectory.records import BASELINES, every

RESULTS = Path(__file__).parents[1] / "results"
PUBLISHED = Path(__file__).with_name("published.csv")
OTHERS = ("A'", "A-otpfm", "B")
"""Published protocols that nobody ran here: listed apart, comparable with nothing above."""
SECTION = ["protocol", "dataset", "dims"]
CLOSE = ["W2", "MMD", "energy", "sliced_W"]
MOTION = {"growth_r": "growth correlation", "action": "path action"}
"""Scores of the motion, and what they are called where they were published."""
Z = 1.96
EXPLORED = (
    "How far `spline` bends, and what `hedge` and `hedge_resampled` mix, was chosen with the held-out scores of EB in "
    "sight: an inner leave-one-out over the training snapshots says little, see "
    "[trajectory_geometry.md](trajectory_geometry.md), and whose masses half-way cells have decides a fold, see "
    "[trajectory_masses.md](trajectory_masses.md). Read their rows on EB as exploratory; on other data sets "
    "nothing was chosen. `hedge`: a balanced and an unbalanced flow, both bent, half of the mass each; "
    "`hedge_resampled`: cells are drawn as often as the unbalanced plan uses them."
)


def write(out: Path, *, results: Path = RESULTS, command: str) -> pd.DataFrame:
    """Write ``trajectory.csv`` and ``trajectory.md`` from all records below a folder; return the rows.

    Raises
    ------
    FileNotFoundError
        When there are no records.
    """
    rows = frame(every(out))
    results.mkdir(parents=True, exist_ok=True)
    rows.to_csv(results / "trajectory.csv", index=False, float_format="%.5g")
    (results / "trajectory.md").write_text(markdown(rows, command))
    return rows


def frame(records: list[dict[str, Any]]) -> pd.DataFrame:
    """Return one row for each score of each run, baselines included."""
    return pd.DataFrame([row for record in records for row in _rows(record)])


def _rows(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    baseline = record["method"] == BASELINES
    seconds = {f"{name}_s": value for name, value in record["seconds"].items() if not baseline}
    about = {name: record[name] for name in ("protocol", "dataset", "dims", "method", "fold", "seed")}
    for score in record["scores"]:
        kind = ("floor" if score["method"] == FLOOR else "baseline") if baseline else "measured"
        costs = seconds if baseline else seconds | {"peak_mb": record["peak_mb"]}
        cells = record.get("facts", {}).get("cells", "all training cells")
        motion = record.get("motion", {})  # one for a fit: the same in the row of every target
        yield {"kind": kind, **about, **score, **motion, **costs, "trained_on": "" if baseline else cells}


def markdown(rows: pd.DataFrame, command: str) -> str:
    """Return the tables: one for each protocol, data set and number of dimensions."""
    published = pd.read_csv(PUBLISHED)
    parts = [_preface(command)]
    for key, part in rows.groupby(SECTION, sort=True):
        parts.append(_section(*named(key), part, published))
    parts.append(_elsewhere(published, rows))
    return "\n\n".join(part for part in parts if part) + "\n"


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
        by_target = runs.groupby("target")["score"].mean()
        by_seed = runs.pivot_table(index="seed", columns="target", values="score").dropna().mean(axis=1)
        whole = len(by_target) == part["target"].nunique()
        row = {
            "kind": kind,
            "method": method,
            "mean": by_target.mean() if whole else np.nan,
            "seeds": runs["seed"].nunique(),
        }
        row |= {"sd": by_seed.std() if whole and len(by_seed) > 1 else np.nan, "half": _half(runs) if whole else np.nan}
        row |= {f"at {target}": value for target, value in by_target.items()}
        row |= {name: runs.groupby("target")[name].mean().mean() for name in _averaged(runs)}
        row["trained_on"] = runs["trained_on"].iloc[0]
        found.append(row)
    return pd.DataFrame(found).sort_values("mean", ignore_index=True)


def ranked(part: pd.DataFrame, protocol: Protocol, suffix: str = "") -> pd.Series:
    """Return the score that ranks: that of weighted particles where the protocol and the method have them."""
    plain = protocol.metric + suffix
    found = part[plain] if plain in part else pd.Series(np.nan, index=part.index)
    weighted = f"weighted_{plain}"
    return part[weighted].fillna(found) if protocol.weighted and weighted in part else found


def _half(runs: pd.DataFrame) -> float:
    """Return half the interval of the mean over targets; NaN for a score without one."""
    each = runs.groupby("target")["score_sd"].mean()
    return float(Z * np.sqrt((each**2).sum(min_count=1)) / len(each))


def _averaged(runs: pd.DataFrame) -> list[str]:
    names = ["W1", *CLOSE, "weighted_W1", "RME", *MOTION, "NFE", "plan_s", "train_s", "peak_mb"]
    return [name for name in names if name in runs and runs[name].notna().any()]


def _section(protocol: str, dataset: str, dims: int, part: pd.DataFrame, published: pd.DataFrame) -> str:
    """Return one table, with the published rows of the very same protocol, data set and dimensions."""
    rules = PROTOCOLS[protocol]
    found = summary(part, rules)
    targets = [str(name) for name in found if str(name).startswith("at ")]
    others = [n for n in [*CLOSE, "W1", "weighted_W1", "RME", *MOTION] if n in found and n != rules.metric]
    costs = [n for n in ("NFE", "plan_s", "train_s", "peak_mb") if n in found]
    columns = ["method", "", *targets, "mean", "95 % (cells)", "sd (seeds)", *others, *costs, "seeds"]
    same = published.query("protocol == @protocol and dataset == @dataset and dims == @dims")
    rows = [_cells(row, targets, others, costs) for row in _records(found)]
    rows += _published_cells(same, rules, columns)
    lines = [f"## Protocol {protocol}: {dataset}, {dims} dimensions", "", _about(rules, part), "", _line(columns)]
    lines.append(f"|{'---|' * len(columns)}")
    return "\n".join([*lines, *map(_line, rows), *_footnotes(found, same), *_about_motion(part)])


def _cells(row: Mapping[str, Any], targets: list[str], others: list[str], costs: list[str]) -> list[str]:
    numbers = [_number(row[name]) for name in [*targets, "mean"]]
    mean, half = row["mean"], row["half"]
    interval = "" if np.isnan(half) else f"{mean - half:.3f} to {mean + half:.3f}"
    tail = [_number(row.get(name)) for name in others] + [_number(row.get(name), digits=0) for name in costs]
    seeds = str(row["seeds"]) if row["kind"] == "measured" else ""
    return [row["method"], row["kind"], *numbers, interval, _number(row["sd"]), *tail, seeds]


def _published_cells(same: pd.DataFrame, rules: Protocol, columns: list[str]) -> list[list[str]]:
    """Return a row for each method of each source: nothing but what was printed there, numbered by its source."""
    rows, sources = [], list(dict.fromkeys(same["source"]))
    for source, method in dict.fromkeys(zip(same["source"], same["method"], strict=True)):
        values = same[(same["source"] == source) & (same["method"] == method)]
        known = dict(zip(values["metric"], values["value"], strict=True))
        sd = values.loc[values["metric"] == rules.metric, "sd"]
        cells = {"method": method, "": f"published [{sources.index(source) + 1}]"}
        cells |= {"mean": _number(known.get(rules.metric)), "RME": _number(known.get("RME"))}
        cells |= {name: _number(known.get(label)) for name, label in MOTION.items()}
        cells |= {"sd (seeds)": _number(sd.iloc[0]) if len(sd) else ""}
        cells |= {f"at {k}": _number(known.get(f"{rules.metric}@t{k}")) for k in range(10)}
        rows.append([cells.get(name, "") for name in columns])
    return sorted(rows, key=lambda row: row[columns.index("mean")] or "~")


def _about(rules: Protocol, part: pd.DataFrame) -> str:
    seeds = part.loc[part["kind"] == "measured", "seed"].nunique()
    return (
        f"{rules.about} Ranked by {rules.metric}; `at k` is the score at snapshot k, averaged over up to {seeds} seeds."
    )


def _footnotes(found: pd.DataFrame, same: pd.DataFrame) -> list[str]:
    partly = found[~found["trained_on"].isin(["", "all training cells"])]
    methods = ", ".join(f"{row['method']} ({row['trained_on']})" for row in partly.to_dict("records"))
    notes = [f"All other methods train on all training cells; on fewer: {methods}."] if methods else []
    sources = dict.fromkeys(same["source"])
    notes += [f"[{number}] {source}" for number, source in enumerate(sources, start=1)]
    return [line for note in notes for line in ("", note)]


def _about_motion(part: pd.DataFrame) -> list[str]:
    """Say what the scores of the motion are, where there are any."""
    notes = []
    if "growth_r" in part and part["growth_r"].notna().any():
        notes.append(
            "growth_r: Pearson correlation of the predicted and the true growth rate over all observed cells, each at "
            "its own time; higher is better."
        )
    if "action" in part and part["length"].notna().any():
        length = part["length"].dropna().iloc[0]
        notes.append(
            "action: path action from the first snapshot to the last, the integral over time of the weighted sum of "
            f"(velocity² + {length:g}² growth²) / 2, cells of the first snapshot weighing 1 together; the kinetic part "
            "alone where mass is kept. The static reference, where one is published, is the least of a motion that "
            "reaches every snapshot: less means that some are missed."
        )
    return [line for note in notes for line in ("", note)]


def _elsewhere(published: pd.DataFrame, rows: pd.DataFrame) -> str:
    """List what is published on these data sets under protocols that were not run here."""
    asked = published[published["protocol"].isin(OTHERS) & published["dataset"].isin(rows["dataset"])]
    asked = asked[~asked["metric"].str.contains("@")]
    if asked.empty:
        return ""
    lines = [
        "## Published under other protocols",
        "",
        "Listed for orientation; comparable with nothing above. A': another file, all cells trained on, scored by an "
        "adaptive solver. A-otpfm: rolled out from the first snapshot, 2000 cells, the best checkpoint by the held-out "
        "score. B: cells of a published split left out, no snapshot.",
        "",
        _line(["protocol", "data set", "dims", "method", "metric", "value", "source"]),
        f"|{'---|' * 7}",
    ]
    columns = ["protocol", "dataset", "dims", "method", "metric", "value", "source"]
    return "\n".join([*lines, *(_line([str(row[c]) for c in columns]) for row in asked.to_dict("records"))])


def _preface(command: str) -> str:
    return "\n".join(
        [
            "# Held-out snapshots, by protocol",
            "",
            f"Made by `{command}`. *measured*: run here; *baseline* and *floor*: computed here, nothing is learned; "
            "*published*: as printed by others, not",
            "run here. Lower is better. W1 and W2 are exact, on all cells. The interval resamples cells, predicted and "
            "true, by the dual potentials of the transport",
            "problem; it holds the seed fixed. `plan_s` and `train_s` are seconds on one core for transport plans and "
            "for all else of a fit, peak_mb the most memory of the process.",
            "",
            EXPLORED,
        ]
    )


def _records(found: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in found.to_dict("records")]


def named(key: Any) -> tuple[str, str, int]:
    """Return protocol, data set and dimensions of a table, from the key that pandas groups by."""
    protocol, dataset, dims = key
    return str(protocol), str(dataset), int(dims)


def _number(value: Any, digits: int = 3) -> str:
    return "" if value is None or value != value else f"{value:.{digits}f}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
