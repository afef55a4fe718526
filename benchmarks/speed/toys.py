"""Seconds of training to a published W2 in the plane, beside torchcfm: ``python -m benchmarks.speed toys``."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

import cellflow as cf
from benchmarks import page, peers
from benchmarks.command import Words, options
from benchmarks.rows import Row, Table
from benchmarks.speed.race import Run, from_scratch, onwards, race
from benchmarks.toys.methods import BATCH, DEPTH, METHODS, RECIPE, WIDTH, Clouds, Method, clouds, field_of
from benchmarks.toys.scores import squared_distance, travel
from cellflow.fields import Field
from cellflow.seeds import seeded

PAIR, GOAL = "8gaussians->moons", 0.601
CHECKPOINTS = (50, 100, 200, 400, 800, 1600, 3200, 6400)
"""Steps at which every method is looked at; the last is the cap."""
SB = replace(METHODS["SB-CFM"], sigma=0.15)
"""For either package: the wider noise of the table, though sooner learned, stays above the goal."""
SHORT = replace(RECIPE, warmup=20)


def main(words: Words = None) -> None:
    """Measure, and write ``toys_speed``."""
    given = options("speed toys", __doc__, words, seeds=3, steps=CHECKPOINTS[-1])
    budgets = [steps for steps in CHECKPOINTS if steps <= given.steps]
    data = {seed: clouds(PAIR, seed) for seed in range(42, 42 + given.seeds)}
    methods: dict[str, Callable[[Clouds, int], Any]] = {
        "cellflow OT-CFM": partial(_ours, METHODS["OT-CFM"], budgets), "cellflow SB-CFM": partial(_ours, SB, budgets)
    }  # fmt: skip
    if peers.is_there():
        methods["torchcfm OT-CFM"] = partial(_theirs, "exact", budgets)
        methods["torchcfm SB-CFM"] = partial(_theirs, "bridge", budgets)

    def w2(some: Clouds, velocity: Field) -> float:
        return float(squared_distance(travel(velocity, some.test0)[0], some.test1) ** 0.5)

    rows: list[Row] = []
    for name, train in methods.items():
        runs = [Run({"method": name, "seed": k}, train(some, k), partial(w2, some)) for k, some in data.items()]
        rows += race(runs, "W2", lambda found: len(_first(found)) == given.seeds)
        Table(given.out / "toys_speed.csv", ("method", "seed", "steps")).put(*rows, whole=True)
    page.write(given.out / "toys_speed.md", text(rows, budgets, given.seeds))


def _ours(method: Method, budgets: Sequence[int], data: Clouds, seed: int) -> Any:
    scale = float(data.x1.std())
    objective = method.objective(scale)
    coupling: Any = cf.couplings.Sinkhorn(2 * (method.sigma * scale) ** 2, tolerance=1e-3) if method.sigma else "exact"

    def train(steps: int) -> Any:
        rng = cf.generator(seed=seed)
        batches = cf.pairing.paired_batches(
            data.x0, data.x1, coupling=coupling, batch_size=BATCH, generator=rng,
            ot_batch_size=BATCH if method.sigma else 2 * BATCH,
        )  # fmt: skip
        with seeded(rng):
            field = field_of(data, [cf.networks.MLP(2, width=WIDTH, depth=DEPTH)])
        cf.training.fit(field, objective, batches, steps=steps, generator=rng, recipe=SHORT)
        return objective.velocity(field)

    return from_scratch(train, budgets)


def _theirs(kind: str, budgets: Sequence[int], data: Clouds, seed: int) -> Any:
    """Return torchcfm's training as published: its batches, its network and optimiser; SB-CFM at our sigma."""
    matcher = peers.matcher(kind, SB.sigma * float(data.x1.std()) if kind == "bridge" else 0.1)

    def draw() -> Any:
        x0, x1 = (x[torch.randint(len(x), (BATCH,))] for x in (data.x0, data.x1))
        return matcher.sample_location_and_conditional_flow(x0, x1)

    return onwards(partial(peers.Loop, 2, draw), seed, budgets)


def _first(rows: list[Row]) -> list[Row]:
    """Return the first checkpoint of each seed that reaches the goal."""
    there = [row for row in sorted(rows, key=lambda row: row["steps"]) if row["W2"] <= GOAL]
    return list({row["seed"]: row for row in reversed(there)}.values())


def text(rows: list[Row], budgets: Sequence[int], seeds: int) -> list[str]:
    """Return a section for the page of the toys."""
    template, steps_ = Path(__file__).with_name("toys.md"), ", ".join(map(str, budgets))
    (about,) = page.fill(template, pair=PAIR, goal=GOAL, batch=BATCH, seeds=seeds, budgets=steps_)
    ends: dict[str, list[Row]] = {}  # of each seed: where it first reaches the goal, or the last one
    for name in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == name]
        ends[name] = list({row["seed"]: row for row in [*mine, *_first(mine)]}.values())
    table = []
    for name, mine in ends.items():
        reached = all(row["W2"] <= GOAL for row in mine)
        steps, seconds, w2 = (median(row[column] for row in mine) for column in ("steps", "seconds", "W2"))
        rival = ends.get(name.replace("cellflow", "torchcfm"), []) if name.startswith("cellflow") else []
        ratio = f"{median(row['seconds'] for row in rival) / seconds:.1f}" if rival else ""
        ratio = f"more than {ratio}" if any(row["W2"] > GOAL for row in rival) else ratio
        table.append([name, f"{steps:.0f}{'' if reached else ' (not reached)'}", f"{seconds:.1f}", f"{w2:.3f}", ratio])
    return [*about, "", *page.table(("method", "steps", "seconds (median)", "W2 there", "torchcfm / ours"), table)]
