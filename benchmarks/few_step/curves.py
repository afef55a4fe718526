"""Flow maps and reflow start from one flow: scores after 1 to 16 steps as rows, a table and a figure."""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from statistics import mean
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import cellflow as cf
from benchmarks import machine, page
from benchmarks.images.methods import within
from benchmarks.images.underway import NOWHERE, Clock, Underway
from benchmarks.rows import Row, Table, digest, rounded
from cellflow.integrate import Fixed
from cellflow.metrics import blind_to
from cellflow.objectives import TrajectoryMatching, VelocityMatching
from cellflow.training import Recipe, Reflow, refit

JUMPS = (1, 2, 4, 8, 16)
Scores = dict[str, float]
"""What is measured after some steps, by the part of its columns' names before the steps; `SCORE` is what is drawn."""
SCORE = "at"


@dataclass
class Bench:
    """One data set and seed. Whatever is random takes a generator that starts from the seed."""

    seed: int
    x0: Tensor  # what is carried, `at_once` of it
    scores: Mapping[str, Callable[[Tensor], float]]  # of where it is carried; one of them is `SCORE`
    network: Callable[..., nn.Module]  # from a generator and the number of times that it takes
    pairs: Callable[[torch.Generator], Any]  # batches
    ends: Callable[[torch.Generator], tuple[Tensor, Tensor]]  # points whose trajectories are followed, or paired anew
    objectives: Mapping[str, Callable[[nn.Module], Any]]  # of the maps, from the flow
    trajectories: str  # name of the map that learns from trajectories
    batch: int
    steps: int  # of every map, and of every round of reflow
    flow_steps: int
    recipe: Recipe
    best: Fixed  # how the flow is solved at its best, with so many evaluations:
    many: int
    reflows: tuple[str, ...]  # names of the rounds
    reflow_steps: int  # of the solver
    scratch: Sequence[str] = ()  # maps that do not start from the flow: its seconds are not counted then
    slow: Recipe | None = None  # of maps that learn from no trajectories
    moments: int = 33  # at which trajectories are seen
    at_once: int = 10**9
    semigroup: Callable[[Any], float] = lambda flow_map: float("nan")  # how far one jump is from two
    fits: int = 0  # added to the seed where a field is fitted
    place: Underway = NOWHERE  # where all is trained, so that it goes on where it was stopped
    trainings = 1  # that seconds are averaged over

    def velocity(self, clock: Clock) -> tuple[Any, float]:
        """Return the trained flow, and its seconds: those of all its steps, also where some were taken before."""
        rng = cf.generator(self.seed)
        flow, pairs = self.network(rng, 1), self.pairs(rng)
        return self._fit("flow", clock, flow, VelocityMatching(), pairs, self.flow_steps, self.recipe)

    def solved(self, flow: Any, steps: int | None) -> Scores:
        """Return the scores after so many Euler steps; ``None``: of the flow at its best."""
        solver = self.best if steps is None else Fixed("euler", steps=steps)
        return self._scores(lambda x: cf.integrate.ode(flow, x, solver=solver))

    def reflowed(self, flow: Any, clock: Clock) -> Iterator[tuple[Any, float]]:
        """Yield the flow after each round of reflow, real points kept in play, and the seconds of the round."""
        straight, rng = deepcopy(flow), cf.generator(self.seed)
        settings: dict[str, Any] = {
            "coupling": Reflow(solver=self.reflow_steps, both_ends=True), "rounds": 1, "steps": self.steps,
            "batch_size": self.batch, "recipe": within(self.recipe, self.steps),
        }  # fmt: skip
        for name in self.reflows:
            x0, x1 = self.ends(rng)
            train = partial(refit, straight, VelocityMatching(), x0, x1, generator=rng, **settings)
            _, seconds = self.place.timed(self._part(name), self.steps, train, clock)
            yield straight, seconds

    def distilled(self, flow: Any, method: str, clock: Clock) -> tuple[Any, float]:
        """Return the flow map of a method, and the seconds of its training."""
        rng, part, start = cf.generator(self.seed), self._part(method), clock()
        if method == self.trajectories:
            batches = cf.training.trajectory_batches(
                flow, self.ends(rng), (0.0, 1.0), batch_size=self.batch, generator=rng, both=False, n_times=self.moments
            )
            followed, flow_map = clock() - start, cf.networks.FlowMap.of(flow)
            made, seconds = self._fit(part, clock, flow_map, TrajectoryMatching(), batches, self.steps, self.recipe)
            return made, followed + seconds
        objective = self.objectives[method](flow.eval())
        spans, make = getattr(objective, "known_spans", ("forward",))[0], cf.networks.FlowMap
        flow_map = make(self.network(rng, 2), spans=spans) if method in self.scratch else make.of(flow, spans=spans)
        return self._fit(part, clock, flow_map, objective, self.pairs(rng), self.steps, self.slow or self.recipe)

    def jumped(self, flow_map: Any, steps: int) -> Scores:
        """Return the scores after so many jumps."""
        return self._scores(lambda x: cf.integrate.jump(flow_map, x, steps=steps))

    def _fit(
        self, part: str, clock: Clock, field: Any, objective: Any, batches: Any, steps: int, recipe: Recipe
    ) -> tuple[Any, float]:
        """Return a trained field, and the seconds of its training."""
        rng = cf.generator(self.seed + self.fits)
        settings: dict[str, Any] = {"steps": steps, "generator": rng, "recipe": within(recipe, steps)}
        train = partial(cf.training.fit, field, objective, batches, **settings)
        _, seconds = self.place.timed(part, steps, train, clock)
        return field.eval(), seconds

    def _part(self, method: str) -> str:
        """Return what the training of a method is called: by all that makes it, but for the flow, whose `place` is."""
        return f"{method}, {digest((self.steps, self.recipe, self.slow, self.reflow_steps, self.moments))}"

    def _scores(self, push: Callable[[Tensor], cf.integrate.Trajectory]) -> Scores:
        found = torch.cat([push(x).x[-1] for x in self.x0.split(self.at_once)])
        return {name: score(found) for name, score in self.scores.items()}


def rows(bench: Any, methods: Sequence[str], clock: Clock) -> Iterator[Row]:
    """Yield a row for the flow and for each method of a `Bench`; ``seconds`` are those of all training."""

    def after(method: str, seconds: float, scored: Callable[[int], Scores], semigroup: float = float("nan")) -> Row:
        about = {"method": method, "seconds": seconds / bench.trainings, "semigroup": semigroup}
        found = {k: scored(k) for k in JUMPS}
        return about | {f"{name}_{k}": found[k][name] for name in found[JUMPS[0]] for k in JUMPS}

    def solved(name: str, seconds: float, flow: Any) -> Iterator[Row]:
        yield after(f"{name}, Euler steps", seconds, lambda k: bench.solved(flow, k))
        best = bench.solved(flow, None)
        yield after(f"{name}, {bench.many} evaluations", seconds, lambda k: best)

    flow, seconds = bench.velocity(clock)
    took = seconds
    yield from solved("velocity", seconds, flow)
    last = max((k for k, name in enumerate(bench.reflows, start=1) if name in methods), default=0)
    rounds = bench.reflowed(flow, clock) if last else iter(())
    for name, (straight, spent) in zip(bench.reflows[:last], rounds, strict=False):
        took += spent
        yield from solved(name, took, straight)
    for name in (name for name in methods if name not in bench.reflows):
        flow_map, spent = bench.distilled(flow, name, clock)
        own = spent + (0.0 if name in bench.scratch else seconds)
        yield after(name, own, lambda k, of=flow_map: bench.jumped(of, k), bench.semigroup(flow_map))  # type: ignore[misc]


SECONDS = """Mean (standard deviation) over seeds. Seconds, of the processor on a CPU and on the wall on a GPU, are
those of all training, the teacher's included."""
WIDE = 2
"""From this ratio of the ends on, the axis of errors is logarithmic."""


class Other(NamedTuple):
    """What is measured beside the score: it gets a table below."""

    title: str
    about: str
    controls: Mapping[str, float]  # of real images, as they are and made worse


@dataclass(frozen=True)
class Curve:
    """One table, its page and its figure.

    Published values are one for each number of steps; or one alone, of another protocol, which is not drawn.
    """

    name: str  # of its files
    title: str
    measure: str
    size: str  # in words: rows of two sizes are not mixed
    about: list[str]
    best: float | None = None
    controls: Mapping[str, float] = field(default_factory=dict)  # real images made worse, beside the floor
    others: Mapping[str, "Other"] = field(default_factory=dict)  # what was measured besides, by the name of its score
    published: Mapping[str, Sequence[float]] = field(default_factory=dict)
    known: Sequence[str] = ()  # all methods there are; once each has its rows, what was kept of the flow goes

    def record(
        self, given: argparse.Namespace, make: Callable[[int], Any], methods: Sequence[str], device: torch.device
    ) -> None:
        """Measure the methods that the table lacks, from every seed, and write page and figure."""
        table = Table(given.out / f"{self.name}.csv", ("method", "seed"), ("method", "seed"))
        table.refuse_others("size", self.size)
        about = {"size": self.size, "device": machine.name(device)}
        for seed in range(given.first, given.first + given.seeds):
            there = [row["method"] for row in table.read(seed=seed)] if not given.again else []
            missing = [name for name in methods if not _there(name, there)]
            if missing:
                self._measure(given, make(seed), missing, table, {"seed": seed} | about, machine.clock(device))
        self._write(given, table.read())

    def _measure(
        self, given: argparse.Namespace, bench: Any, methods: Sequence[str], table: Table, about: Row,
        clock: Clock,
    ) -> None:  # fmt: skip
        """Put the rows of one seed into the table as they come."""
        place = getattr(bench, "place", NOWHERE)
        if given.again:
            place.forget()
        for row in rows(bench, methods, clock):
            table.put(row | about)
            print(rounded(row | {"seed": about["seed"]}), flush=True)
            self._write(given, table.read())  # now: the run may be stopped
        made = [row["method"] for row in table.read(seed=about["seed"])]
        if all(_there(name, made) for name in self.known):
            place.forget()

    def _write(self, given: argparse.Namespace, found: list[Row]) -> None:
        page.save(self.draw(found), given.out / f"{self.name}.png")
        (given.out / f"{self.name}.md").write_text("\n".join(self.text(found, given.command, given.note)) + "\n")

    def text(self, found: list[Row], command: str, note: str = "") -> list[str]:
        """Return the page."""
        devices = "; ".join(dict.fromkeys(row["device"] for row in found))
        published = [
            [f"published: {name}", "", *[""] * (len(JUMPS) - len(values)), *(f"{v:.4f}" for v in values), "", ""]
            for name, values in self.published.items()
        ]
        methods = dict.fromkeys(row["method"] for row in found)
        return [
            f"# Few steps: {self.title}", "",
            f"Last made by `{command}` on {time.strftime('%Y-%m-%d')}. Run on: {devices}.",
            *self.about, *([note] if note else []),
            SECONDS, *([] if self.best is None else [f"Floor: {self.best:.4g}.", *self._seen(self.best)]), "",
            f"![quality against steps]({self.name}.png)", "",
            *page.table(
                ["method", "seeds", *JUMPS, "semigroup error", "seconds"],
                [*(_cells([row for row in found if row["method"] == name]) for name in methods), *published],
            ),
            *self._others(found),
        ]  # fmt: skip

    def _others(self, found: list[Row]) -> Iterator[str]:
        """Give the tables of what was measured beside the score; rows from before it was measured have none."""
        for name, (title, about, controls) in self.others.items():
            measured = [row for row in found if row.get(f"{name}_{JUMPS[0]}") is not None]
            if not measured:
                continue
            shown = ", ".join(f"{control} {value:.3g}" for control, value in controls.items())
            yield from ["", f"## {title}", "", f"{about} {shown}.", ""]
            methods = dict.fromkeys(row["method"] for row in measured)
            mine = ([row for row in measured if row["method"] == method] for method in methods)
            yield from page.table(["method", "seeds", *JUMPS], [_jumps(some, name, ".3g") for some in mine])

    def _seen(self, best: float) -> Iterator[str]:
        """Say what the distance of real images becomes when they are made worse, and whether that is seen."""
        if self.controls:
            shown = (f"{name} {value:.4g}" for name, value in self.controls.items())
            blind = blind_to(best, self.controls)
            yield f"Real images made worse: {', '.join(shown)}."
            yield f"{self.measure} is blind to: {', '.join(blind)}." if blind else f"{self.measure} sees every control."

    def draw(self, found: list[Row]) -> Any:
        """Draw the mean of every method against the number of steps."""
        drawn, ((axis,),) = page.figure(size=(8.4, 4.4))
        markers = "osD^vP*X<>hp"
        for k, method in enumerate(dict.fromkeys(row["method"] for row in found)):
            mine = [row for row in found if row["method"] == method]
            values = [mean(row[f"at_{n}"] for row in mine) for n in JUMPS]
            if method.endswith("evaluations"):
                axis.axhline(values[-1], ls="--", lw=1, color=f"C{k % 10}", label=method)
                continue
            style: dict[str, Any] = {"marker": markers[k % len(markers)], "ms": 4, "lw": 1.3, "color": f"C{k % 10}"}
            again = {"ls": "-.", "mfc": "white"} if k >= 10 else {}  # there are ten colours
            axis.plot(JUMPS, values, label=method, **style, **again)
        for k, (name, known) in enumerate(self.published.items()):
            if len(known) == len(JUMPS):
                style = {"color": "#777777", "mfc": "white", "lw": 0.8, "ms": 4, "ls": "--"}
                axis.plot(JUMPS, known, marker=markers[k % len(markers)], label=f"published: {name}", **style)
        if self.best:
            axis.axhline(self.best, ls=":", lw=1, color="#888888", label="floor")
        axis.set(xscale="log", xlabel="steps, one evaluation of the network each", ylabel=self.measure)
        axis.set_xticks(JUMPS, [str(k) for k in JUMPS])
        low, high = axis.get_ylim()
        if high > WIDE * low:
            axis.set_yscale("log")
            page.log_numbers(axis.yaxis)
        axis.minorticks_off()
        axis.set_title(self.title, fontsize=10)
        drawn.legend(loc="outside right center", fontsize=8, frameon=False)
        return drawn


def _there(method: str, rows: Sequence[str]) -> bool:
    """Say whether a method is among those that have rows; of a flow these also say how it was solved."""
    solved = [row for row in rows if row.startswith(f"{method}, ") and row.endswith(("Euler steps", "evaluations"))]
    return method in rows or len(solved) > 1  # after few steps, and at its best


def _jumps(found: list[Row], name: str = SCORE, form: str = ".4g") -> list[object]:
    """Return the method, its seeds and the means of a score; of a flow at its best there is one."""
    shown = [JUMPS[-1]] if found[0]["method"].endswith("evaluations") else JUMPS
    means = [page.spread((row[f"{name}_{k}"] for row in found), form, ".2g") if k in shown else "" for k in JUMPS]
    return [found[0]["method"], len(found), *means]


def _cells(found: list[Row]) -> list[object]:
    known = [row["semigroup"] for row in found if row["semigroup"] == row["semigroup"]]
    semigroup = page.spread(known, error=".2g") if known else ""
    return [*_jumps(found), semigroup, f"{mean(row['seconds'] for row in found):.0f}"]
