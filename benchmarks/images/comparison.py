"""What differs between methods over several seeds: means of rows, and differences of scores with their intervals."""

import math
from collections.abc import Collection, Iterator, Sequence
from statistics import mean, variance

from scipy.stats import t as student

from benchmarks import page
from benchmarks.images import from_noise
from benchmarks.images.judge import FLOOR
from benchmarks.rows import Row
from cellflow.metrics import blind_to

PAIRS = (
    ("I-CFM", from_noise.NAME), ("OT-CFM", from_noise.NAME), ("OT-CFM", "I-CFM"), ("OT-CFM in classes", "I-CFM"),
    ("OT-CFM in classes", "OT-CFM"), ("OT-CFM from a guess", "OT-CFM"),
)  # fmt: skip
"""What is compared with what: from the source or from noise; coupled or not; within classes or not."""
SCORES = {"fd": "FD-{network}", "fd_pca": "FD-PCA", "fd_effnet": "FD-EffNetLite0", "measured": "{described_by}",
          "accuracy": "right class", "kept": "{kept_by}"}  # fmt: skip
MORE_IS_BETTER = ("accuracy", "kept")
RIGHT, MEAN_IMAGE = "accuracy", "mean image"
CONTROLS = ("noise of 5 grey levels", "noise of 10 grey levels", "noise of 20 grey levels", "blurred")
DISTANCES = ("fd", "fd_pca", "fd_effnet")
NORMAL = 1.96
ABOUT = (
    "Differences at the most steps of the flow, first minus second, with 95 % intervals as if both had been scored on "
    "different images: {how}. Bold where 0 is outside. Less is better but for right class and what is kept."
)
NOT_JUDGED = " Not judged, as said above: {names}."
ONE = "from the bootstrap of both scores, of one seed, so without what another training would change"
SEVERAL = "from the bootstrap of both scores and the spread over {n} seeds, by Student's t, as there are few"


def over_seeds(rows: Sequence[Row], baselines: Collection[str]) -> list[Row]:
    """Return one row for each method, sampler and number of steps: the mean, between the least low and largest high.

    Of baselines, which are real images or simple answers, the row of the first seed.
    """
    groups: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["sampler"], row["solver_steps"]), []).append(row)
    return [found[0] if len(found) == 1 or name in baselines else _mean(found) for (name, *_), found in groups.items()]


def fooled(rows: Sequence[Row]) -> tuple[Row, Row] | None:
    """Return the rows of the mean image and of real ones where the former is more often of the right class.

    That is, beyond the interval of real images: the score then says how typical an image is, not how real.
    """
    found = {row["method"]: row for row in rows if row["method"] in (MEAN_IMAGE, FLOOR)}
    if len(found) < 2 or any(row.get(RIGHT) is None for row in found.values()):
        return None
    mean_image, real = found[MEAN_IMAGE], found[FLOOR]
    return (mean_image, real) if mean_image[RIGHT] > real[f"{RIGHT}_high"] else None


def blind_spots(rows: Sequence[Row]) -> dict[str, tuple[str, ...]]:
    """Return what each distance puts no farther from real images than real ones: what is spoiled, or the inputs.

    Distances that were not measured, or without all controls, are left out.
    """
    scores = {row["method"]: row for row in rows if row["method"] in (FLOOR, *CONTROLS, "do nothing")}
    spots = {}
    for name in DISTANCES:
        found = {method: row[name] for method, row in scores.items() if row.get(name) is not None}
        if {FLOOR, *CONTROLS} <= set(found):
            spots[name] = blind_to(found.pop(FLOOR), found)
    return spots


def text(rows: Sequence[Row]) -> list[str]:
    """Return the table of differences, and what it says; nothing where there are no two methods to compare."""
    last = _last(rows)
    pairs = [(a, b) for a, b in PAIRS if last.get(a, {}).keys() & last.get(b, {}).keys()]
    if not pairs:
        return []
    some = next(iter(last[pairs[0][0]].values()))
    n = min(len(last[a].keys() & last[b].keys()) for a, b in pairs)
    every = [row for pair in pairs for name in pair for row in last[name].values()]
    measured = [name for name in SCORES if all(row.get(name) is not None for row in every)]
    titles = {name: SCORES[name].format(**some) for name in measured}
    dismissed = [name for name, spots in blind_spots(rows).items() if spots] + [RIGHT] * bool(fooled(rows))
    dismissed = [name for name in dismissed if name in titles]
    table, verdicts = [], []
    for a, b in pairs:
        shared = sorted(last[a].keys() & last[b].keys())
        found = {name: difference([(last[a][seed], last[b][seed]) for seed in shared], name) for name in titles}
        table.append([f"{a} - {b}", *(_cell(*one, bold=name not in dismissed) for name, one in found.items())])
        judged = {name: one for name, one in found.items() if name not in dismissed}
        verdicts.append(f"- {a} against {b}: {'; '.join(_verdict(judged, titles)) or 'not judged'}.")
    head = ["difference", *titles.values()]
    about = ABOUT.format(how=ONE if n == 1 else SEVERAL.format(n=n))
    about += NOT_JUDGED.format(names=", ".join(titles[name] for name in dismissed)) if dismissed else ""
    return ["", about, "", *page.table(head, table), "", *verdicts]


def difference(pairs: Sequence[tuple[Row, Row]], name: str) -> tuple[float, float]:
    """Return the mean difference of a score over seeds, and half of its 95 % interval."""
    apart = [a[name] - b[name] for a, b in pairs]
    within = mean(
        sum(((row[f"{name}_high"] - row[f"{name}_low"]) / (2 * NORMAL)) ** 2 for row in pair) for pair in pairs
    )
    between = variance(apart) / len(apart) if len(apart) > 1 else 0.0
    # Welch and Satterthwaite: only the spread over seeds has few degrees of freedom.
    freedom = (len(apart) - 1) * ((within + between) / between) ** 2 if between else math.inf
    return mean(apart), float(student.ppf(0.975, freedom)) * math.sqrt(within + between)


def _last(rows: Sequence[Row]) -> dict[str, dict[int, Row]]:
    """Return the rows with the most steps of the flow, by method and seed."""
    flows = [row for row in rows if row["sampler"] == "ODE"]
    most = max((row["solver_steps"] for row in flows), default=0)
    found: dict[str, dict[int, Row]] = {}
    for row in flows:
        if row["solver_steps"] == most:
            found.setdefault(row["method"], {})[row["seed"]] = row
    return found


def _mean(rows: Sequence[Row]) -> Row:
    found = dict(rows[0])
    for name, first in rows[0].items():
        values = [row[name] for row in rows if row[name] is not None]
        if isinstance(first, bool):
            found[name] = all(values)
        elif isinstance(first, int | float) and name not in ("solver_steps", "n"):
            found[name] = (min if name.endswith("_low") else max if name.endswith("_high") else mean)(values)
    return found | {"method": f"{rows[0]['method']}, {len(rows)} seeds"}


def _cell(apart: float, half: float, *, bold: bool = True) -> str:
    shown = f"{apart:.3g} [{apart - half:.3g}, {apart + half:.3g}]"
    return f"**{shown}**" if bold and abs(apart) > half else shown


def _verdict(found: dict[str, tuple[float, float]], titles: dict[str, str]) -> Iterator[str]:
    better = {name: (apart > 0) == (name in MORE_IS_BETTER) for name, (apart, _) in found.items()}
    shown = {name for name, (apart, half) in found.items() if abs(apart) > half}
    for said, names in (
        ("better", [name for name in found if name in shown and better[name]]),
        ("worse", [name for name in found if name in shown and not better[name]]),
        ("no difference shown", [name for name in found if name not in shown]),
    ):
        if names:
            yield f"{said} in {', '.join(titles[name] for name in names)}"
