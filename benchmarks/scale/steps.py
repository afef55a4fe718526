"""A training step does not know how many points there are: batches are gathered by row number."""

import torch

import cellflow as cf
from benchmarks.rows import Row
from benchmarks.scale.case import Case, Watch


def steps(watch: Watch, *, points: int, dim: int = 50, count: int = 200, batch: int = 256) -> Row:
    """Train the default network on five snapshots, paired independently: what remains is the loop."""
    rng = cf.generator(seed=0)
    clouds = [torch.randn(points // 5, dim, generator=rng) + k / 2 for k in range(5)]
    field = cf.networks.MLP(dim=dim)
    batches = cf.pairing.snapshot_batches(
        clouds, [0.0, 0.25, 0.5, 0.75, 1.0], coupling="independent", batch_size=batch, generator=rng
    )
    objective = cf.objectives.VelocityMatching()
    cf.training.fit(field, objective, batches, steps=5, generator=rng)
    with watch:
        cf.training.fit(field, objective, batches, steps=count, generator=rng)
    return {"ms_a_step": 1000 * watch.row["seconds"] / count}


CASES = {
    "small": [Case(steps, {"points": n, "count": 20}, f"{n:,} x 50") for n in (1_000, 10_000)],
    "full": [
        Case(steps, {"points": n}, f"{n:,} x 50", reach="within 10 % of 100,000" if n > 100_000 else "")
        for n in (100_000, 1_000_000, 10_000_000)
    ],
}
