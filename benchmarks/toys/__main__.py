"""Flows and Schrödinger bridges in the plane, beside published numbers: ``python -m benchmarks.toys``.

One pair and seed after the other: every method is trained and scored. Rows that are in the table already, with the same
settings, are not made again. The figure: ``python -m docs.figures.bridge``.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, variance

from benchmarks import page
from benchmarks.command import Several, Words, guarded, options
from benchmarks.rows import Row, Table, digest, rounded
from benchmarks.toys import methods
from benchmarks.toys.methods import METHODS, PAIRS, POINTS, Clouds, Method, Trainer, clouds, source_law
from benchmarks.toys.scores import gaussian_energy, independent_energy, squared_distance, travel
from cellflow import generator

BLUR = 0.1
"""Standard deviation around the line of a pair in the published runs; ours have none."""
FLOOR = "floor"
"""Rows of this name hold what sampling leaves of a perfect learner; their energy is that of independent pairs."""
BLURRED = {"published path, I-CFM": "I-CFM", "published path, FM": "FM"}
"""Rows of these names hold the energy of the exact field of the path of a method as it was published."""
PUBLISHED = Path(__file__).with_name("published.csv")
"""Mean and standard deviation over five seeds; FM and SB-CFM were not published on the last pair.

Source: Tong et al. 2024 (AISTATS), table 2."""
KEY = ("pair", "method", "seed")
HEAD = ("method", "seeds", "W2", "published", "", "NPE", "published", "")


def main(words: Words = None) -> None:
    """Measure, and write the page of what has been measured so far, that of the speed below it."""
    names = {"pairs": Several(PAIRS), "methods": Several(METHODS)}
    given = options("toys", __doc__, words, **names, seeds=(42, 43, 44, 45, 46), steps=1500, points=POINTS)
    table, speed = Table(given.out / "toys.csv", KEY), given.out / "toys_speed.md"
    for seed, pair in [(seed, pair) for seed in given.seeds for pair in given.pairs]:
        for row in run(table, pair, given.methods, seed, steps=given.steps, points=given.points):
            print(rounded(row), flush=True)
    lines = ["", *speed.read_text().splitlines()] if speed.is_file() else []
    page.write(given.out / "toys.md", [*text(table.read(), given.command), *lines])


def run(table: Table, pair: str, names: list[str], seed: int, *, steps: int, points: int = POINTS) -> Iterator[Row]:
    """Yield the rows of a pair and seed that are not in the table yet, and put each there."""
    about = {"pair": pair, "seed": seed}
    known = table.read(**about)
    done = {row["method"]: row for row in known if str(row["settings"]) == settings(row["method"], steps, points)}
    missing = [name for name in [FLOOR, *BLURRED, *names] if name not in done and not _impossible(pair, name)]
    if not missing:
        return
    data = clouds(pair, seed, points=points)
    trainer = Trainer(data, seed, steps)
    for name in missing:
        start = time.perf_counter()
        scores = scores_of(name, pair, data, trainer, done[FLOOR]["least"] if name != FLOOR else 0.0, seed)
        row = {"pair": pair, "method": name, "seed": seed, "settings": settings(name, steps, points)} | scores
        done[name] = row | {"seconds": time.perf_counter() - start}
        table.put(done[name])
        yield done[name]


def settings(name: str, steps: int, points: int) -> str:
    """Return a digest of everything that a row depends on: rows of other settings are made anew."""
    parts: list[object] = [points]
    method: Method | None = METHODS.get(name)
    while method is not None:
        parts += [method, steps, methods.WIDTH, methods.DEPTH, methods.BATCH, methods.NEW_NOISE, methods.RECIPE]
        method = METHODS[method.start] if method.start else None
    return digest(parts)


def _impossible(pair: str, name: str) -> bool:
    """Say whether a method needs a Gaussian source, and the pair has another."""
    return "FM" in (name, BLURRED.get(name)) and not pair.startswith("N->")


def scores_of(name: str, pair: str, data: Clouds, trainer: Trainer, least: float, seed: int) -> Row:
    """Return what sampling leaves of a perfect learner, the energy of a published path, or the scores of a method."""
    rng, w2 = generator(seed=seed), float("nan")
    if name == FLOOR:
        least = squared_distance(data.test0, data.test1)  # the least energy between the test points
        energy = independent_energy(data.x1, *source_law(pair), blur=0.0, rng=rng)
        spent = float((data.x0 - data.x1[trainer.plan]).double().square().sum(1).mean())
        w2 = squared_distance(data.x1, data.test1) ** 0.5
        return {"w2": w2, "npe": abs(spent / least - 1), "energy": energy, "least": least}
    if name in BLURRED:  # the exact field of the published path: nothing is learned
        gaussian = BLURRED[name] == "FM"
        law = (data.x1,) if gaussian else (data.x1, *source_law(pair))
        energy = (gaussian_energy if gaussian else independent_energy)(*law, blur=BLUR, rng=rng)
    else:
        field, objective = trainer.train(name)
        found, energy = travel(objective.velocity(field), data.test0)
        w2 = squared_distance(found, data.test1) ** 0.5
    return {"w2": w2, "npe": abs(energy / least - 1), "energy": energy, "least": least}


def text(rows: list[Row], command: str) -> list[str]:
    """Return the whole page."""
    (lines,) = page.fill(Path(__file__).with_name("page.md"), made=page.made_by(command, "one thread"))
    for pair in PAIRS:
        mine = [row for row in rows if row["pair"] == pair]
        theirs = {row["method"]: row for row in Table(PUBLISHED, ()).read(pair=pair)}
        lines += ["", *_section(pair, mine, theirs)] if mine else []
    return lines


def _section(pair: str, rows: list[Row], published: dict[str, dict[str, str]]) -> list[str]:
    runs = {name: [row for row in rows if row["method"] == name] for name in (*METHODS, FLOOR, *BLURRED)}
    floor, table, notes = runs[FLOOR], [], []
    for method in METHODS:
        if mine := runs[method]:
            blurred = next((runs[name] for name, of in BLURRED.items() if of == method), [])
            cells = []
            for name in ("w2", "npe"):
                theirs = published.get(method, {})
                value, sd = (float(theirs[key]) if key in theirs else None for key in (name, f"{name}_sd"))
                ours = mean(row[name] for row in mine)
                cells += [_spread(mine, name), "-" if value is None else f"{value:.3f} ({sd:.3f})"]
                cells.append("" if value is None else "yes" if ours <= value else "**above**")
                if value is not None and sd is not None and ours > value:
                    reason = _reason(method, name, mine, value, sd, floor, blurred)
                    notes.append(f"* {method}, {name.upper()}: {ours:.3f} against {value:.3f}. {reason}")
            table.append([method, len(mine), *cells])
    table.append([FLOOR, len(floor), _spread(floor, "w2"), "", "", _spread(floor, "npe"), "", ""])
    exact = [{"npe": abs(row["energy"] / row["least"] - 1)} for row in floor]
    for name, found in {"independent": exact, **{name: runs[name] for name in BLURRED}}.items():
        if found:
            table.append([f"exact field, {name}", len(found), "", "", "", _spread(found, "npe"), "", ""])
    lines = [f"## {pair}", "", *page.table(HEAD, table)]
    return [*lines, "", "Above the published value:", "", *notes] if notes else lines


def _reason(
    method: str, name: str, rows: list[Row], value: float, sd: float, floor: list[Row], blurred: list[Row]
) -> str:
    """Say which of the known limits explains a value above the published one; the first that applies."""
    ours, least = mean(row[name] for row in rows), mean(row[name] for row in floor)
    own = variance(row[name] for row in rows) if len(rows) > 1 else 0.0
    error = 2 * (own / len(rows) + sd**2 / 5) ** 0.5
    exact = mean(row["energy"] / row["least"] - 1 for row in floor)
    if least >= value:
        return f"The sampling floor of these points, {least:.3f}, is above the published value itself."
    if name == "npe" and exact >= value and METHODS[method].coupling in ("independent", "gaussian"):
        theirs = ""
        if blurred:
            theirs = f"; that of the published path, which is blurred, {mean(row['npe'] for row in blurred):.3f}"
        return f"A perfect fit is above too: the exact field has {exact:.3f}{theirs}."
    if ours - value <= error:
        return f"Within two standard errors of the difference ({error:.3f}): {len(rows)} seeds of ours, five of theirs."
    return f"Not explained by the floor ({least:.3f}) nor by the spread over seeds ({error:.3f}): a shortfall of ours."


def _spread(rows: list[Row], name: str) -> str:
    return page.spread((row[name] for row in rows), ".3f")


if __name__ == "__main__":
    guarded("toys", main)
