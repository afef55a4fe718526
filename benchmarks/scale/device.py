"""Cells on the fastest device: steps of training by how they are asked for, draws from a plan, entropic plans.

Points, plans and row numbers of pairs are all on it. A step has 256 pairs of each of four intervals; the
first seconds, of compiling among others, are beside it and not in it. A draw is that of the pairs of 64 steps of one
interval.
"""

import time
from typing import Any

import torch

import cellflow as cf
from benchmarks import machine
from benchmarks.rows import Row
from benchmarks.scale.case import Case, Watch

SNAPSHOTS, DIM, BATCH, DRAWN = 5, 50, 256, 64 * 256
WAYS: dict[str, dict[str, Any]] = {
    "step by step": {},
    "graphs": {"compile": "graphs"},
    "compiled": {"compile": True},
    "step by step, bf16": {"precision": "bf16"},
}
"""How steps are asked for, as settings of the recipe."""


def steps(watch: Watch, *, points: int, count: int, way: str) -> Row:
    """Train the default network on independent pairs."""
    device = machine.fastest()
    rng = cf.generator(seed=0, device=device)
    clouds = [torch.randn(points // SNAPSHOTS, DIM, generator=rng, device=device) + k / 2 for k in range(SNAPSHOTS)]
    times, pairs = [k / (SNAPSHOTS - 1) for k in range(SNAPSHOTS)], cf.generator(seed=1)
    batches = cf.pairing.snapshot_batches(clouds, times, coupling="independent", batch_size=BATCH, generator=pairs)
    field = cf.networks.MLP(dim=DIM).to(device)
    ticks: list[float] = []
    run = cf.training.Run(
        progress=False, watch=lambda history: ticks.append(time.perf_counter()), watch_every=count // 4
    )
    with watch:
        start = time.perf_counter()
        history = cf.training.fit(
            field, cf.objectives.VelocityMatching(), batches, steps=count, generator=cf.generator(seed=2), run=run,
            recipe=cf.training.Recipe(warmup=10, **WAYS[way]),
        )  # fmt: skip
    last = history["loss"][-count // 4 :]
    each = (ticks[-1] - ticks[0]) / (count - count // 4)
    first = ticks[0] - start - each * (count // 4)
    return {"ms_a_step": 1000 * each, "first_s": first, "loss": sum(last) / len(last)}


def draws(watch: Watch, *, pairs: int, times: int) -> Row:
    """Draw pairs evenly from a plan that is one to one."""
    device = machine.fastest()
    rows = torch.arange(pairs, device=device)
    order = torch.randperm(pairs, generator=cf.generator(seed=0, device=device), device=device)
    plan = cf.couplings.SparsePlan(
        rows, order, torch.full_like(rows, 1 / pairs, dtype=torch.float64), shape=(pairs,) * 2
    )
    rng = cf.generator(seed=1)
    plan.sample(DRAWN, generator=rng, replace=False)
    with watch:
        for _ in range(times):
            plan.sample(DRAWN, generator=rng, replace=False)
    return {"ms_a_draw": 1000 * watch.row["seconds"] / times}


def entropic(watch: Watch, *, n: int, m: int) -> Row:
    """Solve an entropic plan; costs are about 100."""
    device = machine.fastest()
    rng = cf.generator(seed=0, device=device)
    x0, x1 = (torch.randn(k, DIM, generator=rng, device=device) for k in (n, m))
    with watch:
        plan = cf.couplings.Sinkhorn(epsilon=5.0)(x0, x1 + 0.5)
    found = cf.couplings.flash.usable(x0, cf.couplings.SquaredEuclidean())
    return {"cost": plan.cost, "kernels": "flash-sinkhorn" if found else "torch"}


def _cases(points: int, count: int, pairs: int, side: int, ways: tuple[str, ...]) -> list[Case]:
    made: dict[str, Any] = {"points": points, "count": count}
    return [
        *(Case(steps, {**made, "way": way}, f"training, {points:,} x {DIM}", way, limit=120) for way in ways),
        Case(draws, {"pairs": pairs, "times": 20}, f"draws from {pairs:,} pairs", limit=60),
        Case(
            entropic, {"n": side, "m": side + side // 10}, f"entropic plan, {side:,} x {side + side // 10:,}", limit=60
        ),
    ]


CASES = {
    "small": _cases(100, 8, 100, 50, ("step by step",)),
    "full": _cases(10_000_000, 2000, 2_000_000, 20_000, tuple(WAYS)),
}
