"""Flows and Schrödinger bridges in the plane, beside published numbers: ``python -m benchmarks.toys``.

One pair and seed after the other: every method is trained and scored. Rows that are in the table already, with the same
settings, are not made again. The figure: ``python -m docs.figures.bridge``.
"""

import time
from collections.abc import Iterator, Sequence

from benchmarks.command import Several, options
from benchmarks.page import write
from benchmarks.rows import Row, Table, digest, rounded
from benchmarks.toys import methods
from benchmarks.toys.methods import METHODS, PAIRS, POINTS, Clouds, Method, Trainer, clouds, source_law
from benchmarks.toys.page import BLURRED, FLOOR, text
from benchmarks.toys.scores import gaussian_energy, independent_energy, path_energy, squared_distance, travel
from cellflow import generator

BLUR = 0.1
"""Standard deviation around the line of a pair in the published runs; ours have none."""
KEY = ("pair", "method", "seed")


def main(words: Sequence[str] | None = None) -> None:
    """Measure, and write the page of what has been measured so far, that of the speed below it."""
    names = {"pairs": Several(PAIRS), "methods": Several(METHODS)}
    given = options("toys", __doc__, words, **names, seeds=(42, 43, 44, 45, 46), steps=1500, points=POINTS)
    table, speed = Table(given.out / "toys.csv", KEY), given.out / "toys_speed.md"
    for seed, pair in [(seed, pair) for seed in given.seeds for pair in given.pairs]:
        for row in run(table, pair, given.methods, seed, steps=given.steps, points=given.points):
            print(rounded(row), flush=True)
    lines = ["", *speed.read_text().splitlines()] if speed.is_file() else []
    write(given.out / "toys.md", [*text(table.read(), given.command), *lines])


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
        energy = independent_energy(data.x1, *source_law(pair), generator=rng)
        spent = float((data.x0 - data.x1[trainer.plan()]).double().square().sum(1).mean())
        w2 = squared_distance(data.x1, data.test1) ** 0.5
        return {"w2": w2, "npe": path_energy(spent, least), "energy": energy, "least": least}
    if name in BLURRED:  # the exact field of the published path: nothing is learned
        gaussian = BLURRED[name] == "FM"
        law = (data.x1,) if gaussian else (data.x1, *source_law(pair))
        energy = (gaussian_energy if gaussian else independent_energy)(*law, blur=BLUR, generator=rng)
    else:
        field, objective = trainer.train(name)
        found, energy = travel(objective.velocity(field), data.test0)
        w2 = squared_distance(found, data.test1) ** 0.5
    return {"w2": w2, "npe": path_energy(energy, least), "energy": energy, "least": least}


if __name__ == "__main__":
    main()
