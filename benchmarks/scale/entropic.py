"""Entropic plans: no array of all pairs is made, and what is kept of the kernel is a choice.

Five clusters in 50 dimensions, of which one triples; the default coupling, with one plan over all points.
"""

from unittest import mock

import torch

import cellflow as cf
from benchmarks.rows import Row
from benchmarks.scale.case import Case, Watch
from cellflow.couplings import sinkhorn
from cellflow.couplings.plan import Plan
from cellflow.couplings.problem import MOST_BYTES
from cellflow.couplings.streamed import KERNEL_BYTES
from cellflow.doors.plans import _rows_of

WHOLE = 2**40
"""Bytes that stand for storing all pairs, as it was done before."""


def clouds(n: int, m: int, dim: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two snapshots of five clusters, ``(n, dim)`` and ``(m, dim)``."""
    rng = cf.generator(seed=0)
    centres = 3 * torch.randn(5, dim, generator=rng)
    shares = torch.tensor([1.0, 1.0, 1.0, 1.0, 3.0])
    before = torch.randint(5, (n,), generator=rng)
    after = torch.multinomial(shares, m, replacement=True, generator=rng)
    spread = torch.linspace(2, 0.2, dim)  # as principal components have it
    x0, x1 = (centres[of] + spread * torch.randn(len(of), dim, generator=rng) for of in (before, after))
    return x0, x1 + 0.5


def unbalanced(watch: Watch, *, n: int, m: int, kernel_bytes: int, most: int = MOST_BYTES) -> Row:
    """Solve for the plan of the default coupling, and draw a batch of pairs."""
    x0, x1 = clouds(n, m)
    with watch, mock.patch.object(sinkhorn, "MOST_BYTES", most):
        plan = cf.couplings.UnbalancedSinkhorn(kernel_bytes=kernel_bytes)(x0, x1)
        plan.sample(1024, generator=cf.generator(seed=0))
    return told(plan) | {
        "declared_gib": cf.couplings.UnbalancedSinkhorn(kernel_bytes=kernel_bytes).memory(n, m) / 2**30
    }


def exported(watch: Watch, *, n: int) -> Row:
    """Hand a plan over as a sparse matrix, as to CellRank."""
    x0, x1 = clouds(n, n)
    plan = cf.couplings.Sinkhorn(cf.couplings.Relative(0.02), kernel_bytes=0)(x0, x1)
    with watch:
        leading = _rows_of(plan, 0.99)
    return told(plan) | {"pairs": int(leading.masses.nnz), "dropped": leading.dropped}


def told(plan: Plan) -> Row:
    """Return what a row says of a plan."""
    return {"cost": plan.cost, "mass": plan.mass, "iterations": getattr(plan, "iterations", None)}


def _case(n: int, m: int, method: str, *, reach: str = "", **settings: int) -> Case:
    problem = f"unbalanced plan, {n:,} x {m:,}, 50-D"
    return Case(unbalanced, {"n": n, "m": m, **settings}, problem, method, reach=reach)


KEPT, ANEW = KERNEL_BYTES, 0
CASES = {
    "small": [
        _case(1_000, 1_100, "cellflow", most=8, kernel_bytes=KEPT),
        _case(1_000, 1_100, "cellflow, nothing kept", most=8, kernel_bytes=ANEW),
        _case(1_000, 1_100, "all pairs stored", most=WHOLE, kernel_bytes=KEPT),
        Case(exported, {"n": 1_000}, "export of a plan, 1,000 x 1,000"),
    ],
    "full": [
        _case(8_000, 8_800, "cellflow", kernel_bytes=KEPT),
        _case(8_000, 8_800, "cellflow, nothing kept", kernel_bytes=ANEW),
        _case(8_000, 8_800, "all pairs stored", most=WHOLE, kernel_bytes=KEPT),
        _case(20_000, 22_000, "cellflow", reach="2.5 GiB, the time of before", kernel_bytes=KEPT),
        _case(20_000, 22_000, "cellflow, nothing kept", reach="1 GiB, 5 times that", kernel_bytes=ANEW),
        _case(20_000, 22_000, "all pairs stored", most=WHOLE, kernel_bytes=KEPT),
        Case(exported, {"n": 23_000}, "export of a plan, 23,000 x 23,000", today="moscot: 17.8 GB", reach="1 GB"),
    ],
}
