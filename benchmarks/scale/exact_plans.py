"""Optimal transport without regularisation, between two clouds of other sizes: cellflow's columns beside POT's matrix.

Both start from the points; POT is given the matrix of costs that cellflow makes. ``above_proof`` is how much the plan
costs above what its prices prove to be needed, as a share of it.
"""

import numpy as np
import torch

import cellflow as cf
from benchmarks.rows import Row
from benchmarks.scale.case import Case, Watch


def clouds(n: int, m: int, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a normal cloud, and one that is wider and folded."""
    rng = cf.generator(seed=0)
    x0, x1, fold = (torch.randn(size, dim, generator=rng) for size in (n, m, m))
    return x0, 1.2 * x1 + 0.7 * torch.sin(3 * fold)


def plan(watch: Watch, *, n: int, m: int, dim: int) -> Row:
    """Solve by `Exact`."""
    x0, x1 = clouds(n, m, dim)
    with watch:
        found = cf.couplings.Exact()(x0, x1)
    row: Row = {"cost": found.cost, "pairs": len(found.pairs[0])}
    if found.cost is not None and found.potentials is not None:  # a small problem is solved as a matrix, without prices
        row["above_proof"] = 1 - float(sum(side.mean() for side in found.potentials)) / found.cost
    return row


def matrix(watch: Watch, *, n: int, m: int, dim: int) -> Row:
    """Solve by POT's network simplex on the matrix of all costs."""
    import ot

    x0, x1 = clouds(n, m, dim)
    with watch:
        costs = cf.couplings.SquaredEuclidean()(x0, x1).numpy()
        masses = ot.emd(np.full(n, 1 / n), np.full(m, 1 / m), costs, numItermax=10**9)
        cost = float(np.vdot(masses, costs))
    return {"cost": cost, "pairs": int(np.count_nonzero(masses))}


def _both(n: int, m: int, dim: int, reach: str = "") -> list[Case]:
    settings, problem = {"n": n, "m": m, "dim": dim}, f"{n:,} x {m:,}, {dim}-D"
    return [Case(plan, settings, problem, reach=reach), Case(matrix, settings, problem, "POT, matrix")]


LARGE = Case(
    plan,
    {"n": 50_000, "m": 55_000, "dim": 10},
    "50,000 x 55,000, 10-D",
    today="impossible: 110 GB",
    reach="20 minutes, 6 GB",
    threads=2,
)
CASES = {
    "small": [*_both(600, 700, 5), *_both(2_000, 2_400, 5)],
    "full": [
        *_both(4_000, 4_400, 5),
        *_both(3_000, 20_000, 5),
        *_both(16_000, 17_600, 5, "half of POT's time, 2 GB"),
        LARGE,
    ],
}
