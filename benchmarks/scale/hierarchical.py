"""Plans of large clouds by parts: what they cost beside exact plans and super-batches, in which time and memory.

The clouds are mixtures of twenty Gaussians, whose spread falls from component to component as that of cells in
principal components does; the later cloud has other shares of each, and each has moved by less than its width.
"""

import torch
from torch import Tensor

import cellflow as cf
from benchmarks.rows import Row
from benchmarks.scale.case import Case, Watch

GROUPS = 20
PARTS = 50
"""Super-batches whose mean cost is told."""


def clouds(n: int, m: int, dim: int) -> tuple[Tensor, Tensor]:
    """Return two snapshots of one population, float32."""
    rng = cf.generator(seed=0)
    spread = 3 * torch.exp(-torch.arange(dim) / 10) + 0.3
    places = 2 * spread * torch.randn(GROUPS, dim, generator=rng)
    moved = places + 0.7 * spread * torch.randn(GROUPS, dim, generator=rng)
    found = []
    for size, centres in ((n, places), (m, moved)):
        shares = torch.rand(GROUPS, generator=rng) + 0.1
        kinds = torch.multinomial(shares, size, replacement=True, generator=rng)
        found.append(centres[kinds] + spread * torch.randn(size, dim, generator=rng))
    return found[0], found[1]


def plan(watch: Watch, *, coupling: str, n: int, m: int, dim: int = 50) -> Row:
    """Match both clouds at once."""
    x0, x1 = clouds(n, m, dim)
    with watch:
        found = cf.couplings.resolve(coupling)(x0, x1)
    return {"cost": found.cost}


def parts(watch: Watch, *, size: int, n: int, m: int, dim: int = 50) -> Row:
    """Match random parts of both, as super-batches do."""
    x0, x1 = clouds(n, m, dim)
    rng, plans = cf.generator(seed=1), []
    with watch:
        for _ in range(PARTS):
            rows, columns = (torch.randperm(k, generator=rng)[:size] for k in (n, m))
            plans.append(cf.couplings.Exact()(x0[rows], x1[columns]))
    return {"cost": torch.tensor([found.cost for found in plans]).mean().item()}


def growth(watch: Watch, *, size: int, n: int, m: int, dim: int = 50) -> Row:
    """Match parts by the default of snapshots; tell what growth rates of points, means of all parts, differ by."""
    x0, x1 = clouds(n, m, dim)
    coupling, rng = cf.couplings.UnbalancedSinkhorn(), cf.generator(seed=1)
    whole = (n * coupling(x0, x1).marginals()[0]).log()
    sums, counts = torch.zeros_like(whole), torch.zeros_like(whole)
    with watch:
        for _ in range(3 * n // size):
            rows, columns = (torch.randperm(k, generator=rng)[:size] for k in (n, m))
            sums[rows] += (size * coupling(x0[rows], x1[columns]).marginals()[0]).log()
            counts[rows] += 1
    seen = counts > 0
    wrong = sums[seen] / counts[seen] - whole[seen]
    return {"rate_error": float(wrong.square().mean().sqrt()), "rate_spread": float(whole.std())}


def _beside(n: int, m: int, *couplings: str, reach: str = "") -> list[Case]:
    problem, sizes = f"{n:,} x {m:,}, 50-D", {"n": n, "m": m}
    whole = [
        Case(plan, {"coupling": one, **sizes}, problem, one, reach=reach if one == "hierarchical" else "")
        for one in couplings
    ]
    return [*whole, Case(parts, {"size": 512, **sizes}, problem, "super-batches of 512")]


def _growth(n: int, m: int, *sizes: int) -> list[Case]:
    problem = f"growth, {n:,} x {m:,}, 50-D"
    return [Case(growth, {"size": k, "n": n, "m": m}, problem, f"super-batches of {k:,}") for k in sizes]


CASES = {
    "small": [*_beside(1000, 1100, "hierarchical", "exact"), *_growth(300, 350, 100)],
    "full": [
        *_beside(16_000, 16_000, "hierarchical", "exact", reach="a cost within 5 % of exact"),
        *_beside(16_000, 17_600, "hierarchical", "exact", reach="a cost within 5 % of exact"),
        *_beside(100_000, 100_000, "hierarchical"),
        *_beside(100_000, 110_000, "hierarchical"),
        *_beside(1_000_000, 1_000_000, "hierarchical", reach="tens of minutes"),
        *_growth(5_000, 5_500, 512, 1024, 2048),
    ],
}
