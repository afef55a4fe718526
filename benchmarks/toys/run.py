"""One pair and seed after the other: train every method, score it, keep the row."""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.toys.methods import BATCH, DEPTH, METHODS, NEW_NOISE, RECIPE, WIDTH, Method, Trainer
from benchmarks.toys.pairs import POINTS, Clouds, clouds, source_law
from benchmarks.toys.scores import gaussian_energy, independent_energy, path_energy, squared_distance, travel
from benchmarks.toys.table import BLURRED, FLOOR, Row, append, read
from cellflow import generator

BLUR = 0.1
"""Standard deviation around the line of a pair in the published runs; ours have none."""


def settings(name: str, steps: int, points: int) -> str:
    """Return a digest of everything that a row depends on: rows of other settings are made anew."""
    parts: list[object] = [points]
    method: Method | None = METHODS.get(name)
    while method is not None:
        parts += [method, steps, WIDTH, DEPTH, BATCH, NEW_NOISE, RECIPE]
        method = METHODS[method.start] if method.start else None
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:10]


def run(pair: str, names: list[str], seed: int, *, steps: int, path: Path, points: int = POINTS) -> Iterator[Row]:
    """Yield the rows of a pair and seed that are not in the file yet, and write each there."""
    known = [row for row in read(path) if (row["pair"], row["seed"]) == (pair, seed)]
    done = {row["method"]: row for row in known if row["settings"] == settings(row["method"], steps, points)}
    missing = [name for name in [FLOOR, *BLURRED, *names] if name not in done and not _impossible(pair, name)]
    if not missing:
        return
    data = clouds(pair, seed, points=points)
    trainer = Trainer(data, seed, steps)
    for name in missing:
        start = time.perf_counter()
        if name == FLOOR:
            scores = floor(pair, data, trainer, seed)
        elif name in BLURRED:
            scores = blurred(pair, data, BLURRED[name], done[FLOOR]["least"], seed)
        else:
            scores = score(name, data, trainer, done[FLOOR]["least"])
        about = {"pair": pair, "method": name, "seed": seed, "settings": settings(name, steps, points)}
        row = about | scores | {"seconds": round(time.perf_counter() - start, 1)}
        append(path, row)
        done[name] = row
        yield row


def _impossible(pair: str, name: str) -> bool:
    """Say whether a method needs a Gaussian source, and the pair has another."""
    return "FM" in (name, BLURRED.get(name)) and not pair.startswith("N->")


def floor(pair: str, data: Clouds, trainer: Trainer, seed: int) -> Row:
    """Return what sampling leaves of a perfect learner, and the least energy between the test points."""
    least = squared_distance(data.test0, data.test1)
    learned = float((data.x0 - data.x1[trainer.plan()]).double().square().sum(1).mean())
    energy = independent_energy(data.x1, *source_law(pair), generator=generator(seed=seed))
    w2 = squared_distance(data.x1, data.test1) ** 0.5
    return {"w2": w2, "npe": path_energy(learned, least), "energy": energy, "least": least}


def blurred(pair: str, data: Clouds, method: str, least: float, seed: int) -> Row:
    """Return the path energy of the exact field of the published path, which has a blur; nothing is learned."""
    rng = generator(seed=seed)
    if method == "FM":
        energy = gaussian_energy(data.x1, blur=BLUR, generator=rng)
    else:
        energy = independent_energy(data.x1, *source_law(pair), blur=BLUR, generator=rng)
    return {"w2": float("nan"), "npe": path_energy(energy, least), "energy": energy, "least": least}


def score(name: str, data: Clouds, trainer: Trainer, least: float) -> Row:
    """Train a method and return its scores."""
    field, objective = trainer.train(name)
    found, energy = travel(objective.velocity(field), data.test0)
    w2 = squared_distance(found, data.test1) ** 0.5
    return {"w2": w2, "npe": path_energy(energy, least), "energy": energy, "least": least}
