"""What a training step of the default network spends its time on, on one core: CPU seconds of its parts, in turns.

Each is the median over rounds of the mean of some repetitions; parts take turns, so that their ratios hold where the
machine's own speed drifts. ``matrix products`` are those of forward and backward alone, at the speed of this machine
for a product of this network's width: what is above them in ``forward and backward`` are operations on elements.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

import cellflow as cf
from benchmarks.rows import Row
from benchmarks.scale.case import Case, Watch

REPEATS = 5


def parts(watch: Watch, *, pairs: int, dim: int, rounds: int, cells: int = 10_000) -> Row:
    """Take the parts of a step in turns."""
    rng = cf.generator(seed=0)
    clouds = [torch.randn(cells, dim, generator=rng) + k / 2 for k in range(2)]
    stream = iter(cf.pairing.paired_batches(*clouds, coupling="independent", batch_size=pairs, generator=rng))
    field, objective, recipe = cf.networks.MLP(dim=dim), cf.objectives.VelocityMatching(), cf.training.Recipe()
    batch = next(stream)
    weights: list[torch.Tensor] = list(field.parameters())
    plain = torch.optim.AdamW(weights, lr=1e-5)
    fused = recipe.optimizer(field)
    average = [weight.detach().clone() for weight in weights]
    t, width = torch.rand(pairs, generator=rng), field.first.out_features
    hidden, square = torch.randn(pairs, width, generator=rng), torch.randn(width, width, generator=rng)
    share = 6 * pairs * sum(weight.numel() for weight in weights if weight.ndim == 2) / (2 * pairs * width**2)

    def backward() -> None:
        for weight in weights:
            weight.grad = None
        objective(field, batch, generator=rng)["loss"].backward()

    acts: dict[str, Callable[[], Any]] = {
        "forward and backward": backward,
        "forward": lambda: field(t, batch.x0),
        "one matrix product": lambda: hidden @ square,
        "fused optimiser": fused.step,
        "plain optimiser": plain.step,
        "clipping": lambda: torch.nn.utils.clip_grad_norm_(weights, 1.0),
        "average of weights": lambda: recipe.update_average(average, weights, step=100),
        "batch": lambda: next(stream),
    }
    spent: dict[str, list[float]] = {name: [] for name in acts}
    with watch:
        for turn in range(rounds + 1):
            for name, act in acts.items():
                start = time.process_time()
                for _ in range(REPEATS):
                    act()
                spent[name] += [1000 * (time.process_time() - start) / REPEATS] * bool(turn)  # the first one warms up
    found = {f"{name}, ms": median(values) for name, values in spent.items()}
    return {"matrix products, ms": share * found.pop("one matrix product, ms"), **found}


CASES = {
    "small": [Case(parts, {"pairs": 16, "dim": 2, "rounds": 1, "cells": 50}, "a step of 16 pairs x 2")],
    "full": [
        Case(parts, {"pairs": 1024, "dim": dim, "rounds": 30}, f"a step of 1,024 pairs x {dim}") for dim in (5, 50)
    ],
}
