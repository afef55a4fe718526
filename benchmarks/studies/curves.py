"""Which curve interpolates best, without any training: ``python -m benchmarks.studies.curves``.

Each inner snapshot is left out in turn. Pairs are drawn from the exact plan between its neighbours, a fixed random part
of each, joined along each curve, and compared with the cells of the snapshot by W1, as a ratio to straight paths. A
second table has laws of time: what fraction of its way a pair has gone.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import anndata
import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from torch import Tensor

import cellflow as cf
from benchmarks import page
from benchmarks.command import Several, Words, options
from benchmarks.trajectory.sets import DataSet
from benchmarks.trajectory.settings import load
from cellflow.couplings import Plan
from cellflow.pairing.curves import Bent, tangents
from cellflow.pairing.mean_curve import chosen, mean_bends

Snapshots = tuple[list[np.ndarray], list[float]]
CURVES = ("mean", "monotone", "natural", "spline, bend 0.5", "spline, bend 1")
LAWS = ("even", "cells too", "by travel", "by growth", "by component", "own time")
LIMITS = ("best fraction", "true mean")
SMALL = {"hsmm": 10, "dyngen": 5, "gene_circuit": 2}
REAL = ("eb 5", "eb 50", "eb 100", "cite 5", "cite 50", "cite 100", "hsmm 10")


def real(_: np.random.Generator, *, name: str, dims: int) -> Snapshots:
    """Return snapshots of a data set of the trajectory benchmark, in the units of its representation."""
    cells = load("dataset", name).load(dims)
    return list(cells.clouds), list(cells.times)


def nfkb(_: np.random.Generator, *, dose: float) -> Snapshots:
    """Return tracked cells under one dose of TNF, one number for each, at uneven times."""
    file = "perturbation/nfkb_tnf_dose_time_tracks.h5ad"
    adata = anndata.read_h5ad(DataSet("nfkb", file, "minutes", "X").locate())
    adata = adata[adata.obs["dose_ng_ml"].astype(float) == dose]
    minutes, x = adata.obs["minutes"].to_numpy(float), np.asarray(adata.X, float)
    times = np.unique(minutes)
    return [x[minutes == time] for time in times], times.tolist()


def circle(rng: np.random.Generator) -> Snapshots:
    """Return cells of a cycle, scattered in phase and radius, at uneven times."""
    times, clouds = [0.0, 1.0, 2.0, 3.5, 4.5, 5.5, 7.0, 8.0], []
    for time in times:
        phase, radius = rng.normal(2 * np.pi * time / 8, 0.25, 800), rng.normal(1, 0.15, 800)
        clouds.append(np.stack([radius * np.cos(phase), radius * np.sin(phase)], axis=1))
    return clouds, times


def spiral(rng: np.random.Generator) -> Snapshots:
    """Return cells that turn in two dimensions and go on in a third, turned into ten."""
    times, turn, clouds = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], np.linalg.qr(rng.normal(size=(10, 10)))[0], []
    for time in times:
        age, x = rng.normal(time, 0.2, 800), rng.normal(0, 0.3, (800, 10))
        x[:, :3] += np.stack([2 * np.cos(age), 2 * np.sin(age), age / 2], axis=1)
        clouds.append(x @ turn)
    return clouds, times


def repressilator(rng: np.random.Generator) -> Snapshots:
    """Return cells in which three genes inhibit each other in a ring, each at a rate of its own, with noise."""
    times, step, x = [float(t) for t in range(8)], 0.02, np.abs(rng.normal(1, 0.2, (6400, 3))) * [2.0, 0.5, 0.2]
    rate, clouds, now = rng.lognormal(0, 0.1, (6400, 1)), [], 0
    for k, time in enumerate(times):
        for _ in range(round(time / step) - now):
            drift = rate * (6 / (1 + np.roll(x, 1, axis=1) ** 4) - x)
            x = np.maximum(x + step * drift + step**0.5 * 0.1 * rng.normal(size=x.shape), 0)
        now = round(time / step)
        clouds.append(x[k::8].copy())
    return clouds, times


def drift(rng: np.random.Generator, speed: float = 1.0) -> Snapshots:
    """Return cells that move straight on, evenly, or not at all."""
    times = [0.0, 1.0, 2.0, 3.0, 4.0]
    return [rng.normal(0, 1, (300, 5)) + speed * time * np.eye(5)[0] for time in times], times


SETS: dict[str, Callable[[np.random.Generator], Snapshots]] = {
    **{f"{name} {dims}": partial(real, name=name, dims=dims) for name in ("eb", "cite") for dims in (5, 50, 100)},
    **{f"{name} {dims}": partial(real, name=name, dims=dims) for name, dims in SMALL.items()},
    **{f"nfkb {dose:g} ng/ml": partial(nfkb, dose=dose) for dose in (0.1, 8.0, 100.0)},
    "circle": circle,
    "spiral": spiral,
    "repressilator": repressilator,
    "straight drift": drift,
    "no motion": partial(drift, speed=0.0),
}


def main(words: Words = None) -> None:
    """Compute and write ``curves.md``."""
    given = options("studies.curves", __doc__, words, cells=1000, sets=Several(SETS))
    found: dict[str, list[dict[str, float]]] = {}
    picked: dict[str, set[str]] = {}
    for name in given.sets:
        rng = np.random.default_rng(0)
        clouds, times = SETS[name](rng)
        parts = [torch.from_numpy(cloud[rng.permutation(len(cloud))[: given.cells]]) for cloud in clouds]
        for held in range(1, len(parts) - 1):
            fold, spline = scores(parts, times, held, [len(cloud) for cloud in clouds])
            found.setdefault(name, []).append(fold)
            picked.setdefault(name, set()).add(spline)
            print(
                name, held, spline, {key: round(value / fold["straight"], 3) for key, value in fold.items()}, flush=True
            )
    page.write(given.out / "curves.md", text(found, picked, given.cells, given.command))


def scores(clouds: list[Tensor], times: list[float], held: int, sizes: list[int]) -> tuple[dict[str, float], str]:
    """Return W1 to a snapshot that is left out, by curve and by law of time, and the spline that was chosen.

    ``sizes`` are the numbers of all cells of each snapshot.
    """
    kept, k = [j for j in range(len(clouds)) if j != held], held - 1
    parts, known = [clouds[j] for j in kept], [times[j] for j in kept]
    u = (times[held] - known[k]) / (known[k + 1] - known[k])
    plans: list[Plan] = [cf.couplings.Exact()(x0, x1) for x0, x1 in pairwise(parts)]
    rows = plans[k].sample(max(len(parts[k]), len(parts[k + 1])), generator=cf.generator(seed=0))
    x0, x1 = parts[k][rows[0]], parts[k + 1][rows[1]]
    steps = np.stack([(after.mean(0) - before.mean(0)).numpy() for before, after in pairwise(parts)])
    way = np.concatenate([0 * steps[:1], steps.cumsum(axis=0)])
    lengths = np.concatenate([[0.0], np.linalg.norm(steps, axis=1).cumsum()])
    spline = chosen(steps, known)

    def bend(bends: np.ndarray, at: float | np.ndarray) -> Tensor:
        at = np.asarray(at)[..., None]
        return torch.from_numpy(at * (1 - at) ** 2 * bends[0, k] - at**2 * (1 - at) * bends[1, k])

    def gone(fraction: float) -> Tensor:
        return (1 - fraction) * x0 + fraction * x1

    along = {name: mean_bends(steps, known, name) for name in ("straight", "monotone", "natural")}
    even = mean_bends(steps, lengths.tolist(), spline)  # the length itself is the time
    pieces = zip(plans, pairwise(parts), strict=True)
    travel = [float((plan.dense() * torch.cdist(*two).square()).sum()) ** 0.5 for plan, two in pieces]

    def clock(hand: np.ndarray) -> float:
        return float((PchipInterpolator(known, hand)(times[held]) - hand[k]) / (hand[k + 1] - hand[k]))

    smooth, by_travel = clock(lengths), clock(np.concatenate([[0.0], np.cumsum(travel)]))
    grown = sizes[held + 1] / sizes[held - 1]
    by_growth = u if grown == 1 else (grown**u - 1) / (grown - 1)
    components = PchipInterpolator(known, way)(times[held]) - (1 - u) * way[k] - u * way[k + 1]
    own = np.random.default_rng(0).beta(4 * u, 4 * (1 - u), len(x0))
    points = {
        "straight": gone(u),
        "mean": gone(u) + bend(along[spline], u),
        "monotone": gone(u) + bend(along["monotone"], u),
        "natural": gone(u) + bend(along["natural"], u),
        **{f"spline, bend {b:g}": splined(parts, known, plans, k, rows, u, b) for b in (0.5, 1.0)},
        "even": gone(u) + bend(even, u),
        "cells too": gone(smooth) + bend(even, smooth),
        "by travel": gone(by_travel) + bend(even, by_travel),
        "by growth": gone(by_growth) + bend(even, by_growth),
        "by component": gone(u) + torch.from_numpy(components),
        "own time": x0 + torch.from_numpy(own)[:, None] * (x1 - x0) + bend(along[spline], own),
        "true mean": gone(u) - gone(u).mean(0) + clouds[held].mean(0),
    }
    found = {name: cf.metrics.wasserstein(x, clouds[held]) for name, x in points.items()}
    others = (gone(f) + bend(even, f) for f in (0.2, 0.35, 0.5, 0.65, 0.8))
    found["best fraction"] = min(found["mean"], *(cf.metrics.wasserstein(x, clouds[held]) for x in others))
    return found, spline


def splined(
    parts: list[Tensor], times: list[float], plans: list[Plan], k: int, rows: tuple[Tensor, ...], u: float,
    bend: float,
) -> Tensor:  # fmt: skip
    """Return the points of pairs on a spline each, at a fraction of interval ``k``."""
    i, j = rows
    duration = torch.full((len(i),), times[k + 1] - times[k], dtype=torch.float64)
    offsets = np.cumsum([0, *map(len, parts)]).tolist()
    batch = cf.Batch(parts[k][i], parts[k + 1][j], torch.zeros_like(duration), duration)
    batch = Bent.of(tangents(parts, times, plans), parts, bend)(batch, i + offsets[k], j + offsets[k + 1])
    return cf.paths.Linear().between(batch, torch.full_like(duration, u), generator=cf.generator(seed=0)).x


def ratio(folds: list[dict[str, float]], name: str) -> float:
    """Return the mean W1 of some folds, as a ratio to straight paths."""
    return sum(fold[name] for fold in folds) / sum(fold["straight"] for fold in folds)


def text(found: dict[str, list[dict[str, float]]], picked: dict[str, set[str]], cells: int, command: str) -> list[str]:
    """Return the page."""
    some = {"seven real sets": [s for s in REAL if s in found], "three cycles": ["circle", "spiral", "repressilator"]}

    def lines(names: tuple[str, ...]) -> Iterator[list[str]]:
        for name, folds in found.items():
            yield [name, f"{np.mean([f['straight'] for f in folds]):.3f}", *(f"{ratio(folds, c):.3f}" for c in names)]
        for label, group in some.items():
            for which, of in (("mean", np.mean), ("worst", np.max)):
                if set(group) <= set(found) and group:
                    each = (of([ratio(found[s], c) for s in group]) for c in names)
                    yield [f"_{label}, {which}_", "", *(f"**{value:.3f}**" for value in each)]

    natural = [name for name, splines in picked.items() if "natural" in splines]
    best, limit = (np.mean([ratio(found[s], name) for s in REAL if s in found] or [np.nan]) for name in LIMITS)
    first, second, last = page.fill(
        Path(__file__).with_suffix(".md"), made=page.made_by(command), cells=cells,
        turned=", ".join(natural) or "nowhere", fraction=f"{best:.3f}", limit=f"{limit:.3f}",
    )  # fmt: skip
    laws = ("mean", *LAWS, *LIMITS)
    return [
        *first, "", *page.table(["set", "straight, W1", *CURVES], lines(CURVES)), "",
        *second, "", *page.table(["set", "straight, W1", *laws], lines(laws)), "", *last,
    ]  # fmt: skip


if __name__ == "__main__":
    main()
