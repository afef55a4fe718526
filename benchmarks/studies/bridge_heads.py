"""What should the network of a bridge between images predict: ``python -m benchmarks.studies.bridge_heads``.

Every kind of field is trained on the same pairs for as many steps, few as they are, and sampled with noise and without.
Rows that are in the table already are not made again. Needs the nuclei in ``$CELLFLOW_DATA``.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import mean
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

import cellflow as cf
from benchmarks import page
from benchmarks.command import Several, Words, options
from benchmarks.images.judge import Translated, spoiled
from benchmarks.images.methods import CPU, SIGMA, TIMES, VELOCITY, Model, Size, fit_own_pairs, sample
from benchmarks.images.methods import TRANSLATORS as METHODS
from benchmarks.images.tasks import TASKS, Sets, Task
from benchmarks.rows import Row, Table, rounded
from benchmarks.studies.bridge_fields import (
    Ends,
    EndsMatching,
    Nothing,
    Pixels,
    Target,
    TargetMatching,
    frequencies,
    velocities,
)
from cellflow.metrics import blind_to, features_of, frechet_distance, high_frequency_ratio
from cellflow.metrics.features import Features
from cellflow.networks import EndPoints, Heads
from cellflow.objectives import BridgeMatching, EndPointMatching, Objective
from cellflow.paths import BrownianBridge
from cellflow.report.image_scores import features_for

PATH, ALMOST_NONE = BrownianBridge(SIGMA), BrownianBridge(0.02)
REAL, STEPS, SAMPLED = "real", 16, 500
"""Other real images; steps of the solver; images of a side whose variances and principal components are taken."""
Made = tuple[nn.Module, Objective]


@dataclass(frozen=True)
class Kind:
    """What a network predicts: how many outputs side by side, and the field that is made of it and of both sides."""

    make: Callable[[nn.Module, tuple[Tensor, Tensor]], Made]
    heads: int = 2
    dampings: tuple[float, ...] = ()  # of the flow without noise, beside that of the objective
    samplers: tuple[str, ...] = ("SDE", "SDE, equal steps", "ODE")
    smooth: str = "ODE"  # the sampler with these dampings
    own_pairs: bool = False  # whether pairs are independent at first, and then the model's own


def both(network: nn.Module, sides: tuple[Tensor, Tensor]) -> Made:
    """Return velocity and score."""
    return Heads(network, score="shared"), BridgeMatching(PATH, times=TIMES)


def guessed(network: nn.Module, sides: tuple[Tensor, Tensor], path: BrownianBridge = PATH) -> Made:
    """Return ends that are guessed from frequencies."""
    guess = frequencies(*sides, path.sigma)
    return EndPoints(network, guess), EndPointMatching(path, times=TIMES, damping=0.1)


def ends(
    guess: Callable[[Tensor, Tensor], nn.Module], weight: str = "plain", *, beside: bool = False
) -> Callable[[nn.Module, tuple[Tensor, Tensor]], Made]:
    """Return how ends are made with another guess or weight."""

    def make(network: nn.Module, sides: tuple[Tensor, Tensor]) -> Made:
        return Ends(network, guess(*sides), beside=beside), EndsMatching(PATH, TIMES, weight)

    return make


def filtered(x0: Tensor, x1: Tensor) -> nn.Module:
    """Return the guess from frequencies."""
    return frequencies(x0, x1, SIGMA)


MIDPOINT = (0.0, 0.001, 0.01, 0.1)
KINDS = {
    "velocity and score": Kind(both),
    "ends, from frequencies": Kind(guessed, dampings=(0.003, 0.01, 0.03, 1.0)),
    "ends, from frequencies, midpoint steps": Kind(
        guessed, dampings=MIDPOINT, samplers=("SDE", "SDE, equal steps"), smooth="ODE, midpoint"
    ),
    "the same, errors over time left": Kind(ends(filtered, "time"), dampings=(1.0,)),
    "the same, all errors alike": Kind(ends(filtered), dampings=(1.0,)),
    "ends, from pixels": Kind(ends(lambda x0, x1: Pixels(x0, x1, SIGMA, blind=False), "missed"), dampings=(1.0,)),
    "ends, standardised": Kind(ends(lambda x0, x1: Pixels(x0, x1, SIGMA, blind=True)), dampings=(1.0,)),
    "ends": Kind(ends(lambda x0, x1: Nothing()), dampings=(1.0,)),
    "ends, beside velocity and score": Kind(ends(lambda x0, x1: Nothing(), beside=True), heads=4),
    "DSBM, velocity and score": Kind(both, own_pairs=True),
    "DSBM, ends, from frequencies": Kind(guessed, own_pairs=True),
    "flow, velocity": Kind(lambda network, _: (network, VELOCITY), heads=1, samplers=("ODE",)),
    "flow, target": Kind(lambda network, _: (Target(network), TargetMatching(TIMES)), heads=1, samplers=("ODE",)),
    "flow, from a guess": Kind(lambda net, x: (velocities(net, *x), VELOCITY), heads=1, samplers=("ODE",)),
    "flow, ends, from frequencies": Kind(lambda net, x: guessed(net, x, ALMOST_NONE), samplers=("ODE",)),
}


def main(words: Words = None) -> None:
    """Train what the table lacks, and write the page."""
    given = options(
        "studies.bridge_heads", __doc__, words, task=Several(TASKS, ["masks", "stains"]), kind=Several(KINDS),
        seeds=(0,), steps=200, images=128, batch=16,
    )  # fmt: skip
    table = Table(given.out / "bridge_heads.csv", ("task", "kind", "seed", "steps", "sampler"))
    size = replace(CPU, steps=given.steps, images=given.images, batch=given.batch, simulated=128)
    for name in given.task:
        for seed in map(int, given.seeds):
            about: Row = {"task": name, "seed": seed, "steps": size.steps}
            left = [kind for kind in given.kind if not table.read(**about, kind=kind)]
            case = Case(TASKS[name](), size, seed) if left else None
            for kind in left if case else ():
                rows = [about | {"kind": kind} | row for row in cast("Case", case).rows(kind)]
                table.put(*rows)
                print(*map(rounded, rows), sep="\n", flush=True)
            if case and not table.read(**about, kind=REAL):
                table.put(*(about | row for row in case.controls()))
    page.write(given.out / "bridge_heads.md", text(table.read(), given.command, size))


def grain(images: Tensor) -> float:
    """Return the mean distance of pixels from the median of the 3 x 3 around them, in grey levels."""
    around = pad(images, (1, 1, 1, 1), mode="reflect").unfold(2, 3, 1).unfold(3, 3, 1)
    return float((images - around.flatten(4).median(-1).values).abs().mean() * 127.5)


class Case:
    """A task with a seed: pairs to train on, in the order of the steps, and what translations are compared with."""

    def __init__(self, task: Task, size: Size, seed: int) -> None:
        self.task, self.size, self.seed = task, size, seed
        rng = cf.generator(seed=seed)
        self.batches = list(islice(self._stream("exact", rng), size.steps))
        sides = [side.scaled(torch.randperm(len(side), generator=rng)[:SAMPLED]) for side in task.train]
        self.sides = sides[0], sides[1]
        self.judge = Translated.of(task, task.directions[0], size.images, seed)
        shown: dict[str, Features] = {"fd_pca": features_for(None, sides[1]).features, "fd": self.judge.features["fd"]}
        self.features = shown
        self.real = {name: features_of(self.judge.real, function) for name, function in shown.items()}

    def _stream(self, coupling: str, rng: torch.Generator) -> Iterator[cf.Batch]:
        stream = cf.pairing.image_batches(
            *self.task.train, coupling=coupling, batch_size=self.size.batch, generator=rng, flip=self.task.flip
        )
        return iter(stream)

    def scores(self, images: Tensor) -> Row:
        """Return how far translations are from real images, and what they have kept."""
        found = {k: frechet_distance(features_of(images, f), self.real[k]) for k, f in self.features.items()}
        sharp = {"high_frequency": high_frequency_ratio(images, self.judge.real), "grain": grain(images)}
        return found | sharp | {"kept": float(self.judge.direction.kept(self.judge.inputs, images).mean())}

    def controls(self) -> list[Row]:
        """Return the scores of other real images, of these made worse, and of doing nothing."""
        real = self.judge.others(len(self.judge.real), self.seed)
        found = {REAL: real, **spoiled(real, self.seed), "do nothing": self.judge.inputs}
        return [{"kind": name, "sampler": "", **self.scores(images)} for name, images in found.items()]

    def rows(self, name: str) -> list[Row]:
        """Train a kind, and return its scores by every sampler."""
        kind, rng = KINDS[name], cf.generator(seed=self.seed)
        network = self.size.network(self.task.train[1].shape, heads=kind.heads, generator=rng)
        field, objective = kind.make(network, self.sides)
        start = time.process_time()
        self._train(kind, field, objective)
        seconds, rows = time.process_time() - start, []
        field.eval()
        damped: dict[str, Any] = {f"{kind.smooth}, damping {damping:g}": damping for damping in kind.dampings}
        for sampler in (*kind.samplers, *damped):
            chosen = replace(cast("Any", objective), damping=damped[sampler]) if sampler in damped else objective
            noise, how = cf.generator(seed=self.seed), kind.smooth if sampler in damped else sampler
            images = sample(Model(field, chosen), self.judge.inputs, sampler=how, steps=STEPS, generator=noise)
            rows.append({"sampler": sampler, "seconds": seconds, **self.scores(images)})
        return rows

    def _train(self, kind: Kind, field: nn.Module, objective: Objective) -> None:
        rng, batches, steps = cf.generator(seed=self.seed), self.batches, self.size.steps
        if kind.own_pairs:
            batches, steps = list(islice(self._stream("independent", rng), steps // 2)), steps // 2
        cf.training.fit(field, objective, batches, steps=steps, generator=rng, recipe=self.size.recipe)
        method = METHODS["DSBM"]
        for _ in range(method.cycles if kind.own_pairs else 0):
            fit_own_pairs(Model(field, objective), Sets(*self.task.train), method, self.size, rng)


HEAD = ("kind", "sampler", "seeds", "FD-PCA40", "FD of the network", "high frequencies", "grain", "kept", "s")


def text(rows: list[Row], command: str, size: Size) -> list[str]:
    """Return the page: a table for each task."""
    first, last = page.fill(
        Path(__file__).with_suffix(".md"), made=page.made_by(command), steps=size.steps, batch=size.batch, n=size.images
    )
    lines = [*first, ""]
    for task in dict.fromkeys(row["task"] for row in rows):
        lines += [f"## {task.capitalize()}", "", *page.table(HEAD, list(_lines(rows, task))), ""]
        lines += [*_seen(rows, task), ""]
    return [*lines, *last]


def _seen(rows: list[Row], task: str) -> Iterator[str]:
    """Say which distance puts what is made worse, or the inputs, no farther from real images than real ones."""
    mine = [row for row in rows if row["task"] == task and row["kind"] not in KINDS]
    for name, title in {"fd_pca": HEAD[3], "fd": HEAD[4]}.items():
        kinds = dict.fromkeys(row["kind"] for row in mine)
        found = {kind: mean(row[name] for row in mine if row["kind"] == kind) for kind in kinds}
        spots = blind_to(found.pop(REAL), found)
        said = f"is blind to: {', '.join(spots)}. Do not rank by it" if spots else "sees every control"
        yield f"- {title} {said}."


def _lines(rows: list[Row], task: str) -> Iterator[list[object]]:
    mine = [row for row in rows if row["task"] == task]
    known = list(dict.fromkeys(row["kind"] for row in mine))
    order = [kind for kind in known if kind not in KINDS] + [kind for kind in KINDS if kind in known]
    for kind in order:
        for sampler in dict.fromkeys(row["sampler"] for row in mine if row["kind"] == kind):
            some = [row for row in mine if (row["kind"], row["sampler"]) == (kind, sampler)]
            columns = ("fd_pca", "fd", "high_frequency", "grain", "kept")
            cells = [page.spread((row[name] for row in some), ".3g", ".2g") for name in columns]
            seconds = [row["seconds"] for row in some if row.get("seconds")]
            yield [kind, sampler, len(some), *cells, f"{mean(seconds):.0f}" if seconds else ""]


if __name__ == "__main__":
    main()
