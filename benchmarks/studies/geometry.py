"""Which geometry interpolates best, without any training: ``python -m benchmarks.studies.geometry``.

EB in five whitened components, a fixed random part of each snapshot. Pairs are drawn from a plan between the snapshots
on both sides of the one that is left out, and joined by a straight or a bent path; W1 of the points half-way. Beside
the score on the snapshot that is left out stands the mean score of an inner leave-one-out over the training snapshots
alone: what an honest choice would look at.
"""

from itertools import pairwise, product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import cellflow as cf
from benchmarks import page
from benchmarks.command import Words, options
from cellflow.couplings import Coupling, Exact, UnbalancedSinkhorn
from cellflow.pairing.curves import Bent, tangents

INFINITE = float("inf")
COUPLINGS: dict[str, Coupling] = {
    "exact": Exact(),
    **{f"unbalanced, relaxation {r:g}": UnbalancedSinkhorn(0.1, r) for r in (1.0, 3.0, 10.0)},
    "source kept, relaxation 3": UnbalancedSinkhorn(0.1, (INFINITE, 3.0)),
    "target kept, relaxation 3": UnbalancedSinkhorn(0.1, (3.0, INFINITE)),
}
BENDS = (0.0, 0.5, 1.0)


def main(words: Words = None) -> None:
    """Compute and write ``trajectory_geometry.md``."""
    given = options("studies.geometry", __doc__, words, cells=1000)
    adata, rng = cf.datasets.embryoid_body(), np.random.default_rng(0)
    x = np.asarray(adata.obsm["X_pca"][:, :5], np.float64)
    x, day = (x - x.mean(0)) / x.std(0), adata.obs["day"].to_numpy()
    parts = [x[rng.permutation(np.flatnonzero(day == d))[: given.cells]] for d in np.unique(day)]
    clouds = [torch.from_numpy(part) for part in parts]
    folds = [(held, [k for k in range(len(clouds)) if k != held]) for held in range(1, len(clouds) - 1)]
    found: dict[str, list[tuple[float, float]]] = {}  # the score of a geometry in each fold, and its inner score
    for (name, coupling), bend in product(COUPLINGS.items(), BENDS):
        for held, kept in folds:
            inner = [score(clouds, [k for k in kept if k != q], q, coupling, bend) for q in kept[1:-1]]
            outer = score(clouds, kept, held, coupling, bend)
            found.setdefault(f"{name} | {bend:g}", []).append((outer, float(np.mean(inner))))
        print(name, bend, found[f"{name} | {bend:g}"], flush=True)
    limit = []  # straight midpoints moved to the true mean, which nobody can know: what is left is shape
    for held, kept in folds:
        points = halfway(clouds, kept, held, Exact(), 0.0)
        limit.append(cf.metrics.wasserstein(points - points.mean(0) + clouds[held].mean(0), clouds[held]))
    page.write(given.out / "trajectory_geometry.md", text(found, limit, given.cells, given.command))


def halfway(clouds: list[Tensor], kept: list[int], held: int, coupling: Coupling, bend: float) -> Tensor:
    """Return points at the time of snapshot ``held``, from the snapshots ``kept``."""
    parts, times = [clouds[k] for k in kept], [float(k) for k in kept]
    plans = [coupling(x0, x1) for x0, x1 in pairwise(parts)]
    k = max(j for j, time in enumerate(times) if time < held)
    i, j = plans[k].sample(len(clouds[held]), generator=cf.generator(seed=0))
    span = times[k + 1] - times[k]
    duration, offsets = torch.full((len(i),), span, dtype=torch.float64), np.cumsum([0, *map(len, parts)]).tolist()
    batch = cf.Batch(parts[k][i], parts[k + 1][j], torch.zeros_like(duration), duration)
    batch = Bent.of(tangents(parts, times, plans), parts, bend)(batch, i + offsets[k], j + offsets[k + 1])
    return cf.paths.Linear().between(batch, duration * 0 + (held - times[k]) / span, generator=cf.generator(seed=0)).x


def score(clouds: list[Tensor], kept: list[int], held: int, coupling: Coupling, bend: float) -> float:
    """Return W1 of the points half-way to the cells of snapshot ``held``."""
    return cf.metrics.wasserstein(halfway(clouds, kept, held, coupling, bend), clouds[held])


def text(found: dict[str, list[tuple[float, float]]], limit: list[float], cells: int, command: str) -> list[str]:
    """Return the page."""
    names, folds = list(found), range(len(limit))
    chosen = [min(names, key=lambda name: found[name][k][1]) for k in folds]
    best = [min(names, key=lambda name: found[name][k][0]) for k in folds]
    table = []
    for name in names:
        marked = []
        for k, (outer, inner) in enumerate(found[name]):
            shown = f"_{outer:.3f}_" if name == best[k] else f"{outer:.3f}"
            marked.append(f"{f'**{shown}**' if name == chosen[k] else shown} ({inner:.3f})")
        table.append([*name.split(" | "), *marked, f"{np.mean([outer for outer, _ in found[name]]):.3f}"])
    picked, ideal = (float(np.mean([found[name][k][0] for k, name in enumerate(some)])) for some in (chosen, best))
    right = sum(a == b for a, b in zip(chosen, best, strict=True))
    first, last = page.fill(
        Path(__file__).with_suffix(".md"), made=page.made_by(command), cells=cells, picked=f"{picked:.3f}",
        ideal=f"{ideal:.3f}", right=right, folds=len(limit), limit=" / ".join(f"{w:.3f}" for w in limit),
        mean=f"{np.mean(limit):.3f}",
    )  # fmt: skip
    return [*first, "", *page.table(["plan", "bend", *(f"fold {k + 1}" for k in folds), "mean"], table), "", *last]


if __name__ == "__main__":
    main()
