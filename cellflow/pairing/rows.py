"""The pairing of rows for every step of a training, for cells and images alike.

Row numbers are paired; states, groups, masses and everything else in a batch are looked up by row.
"""

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import ClassVar, TypeVar, cast

import torch
from torch import Tensor

from cellflow.couplings import Coupling, Plan, Within
from cellflow.couplings.coupling import at_scale, of_points
from cellflow.errors import ConvergenceError
from cellflow.machine import usable_cores
from cellflow.pairing import choice
from cellflow.pairing.choice import Matched
from cellflow.pairing.masses import Ends, WeighedPlan, match
from cellflow.seeds import draw_seed, generator_at
from cellflow.together import once

log = logging.getLogger(__name__)

Lookup = Callable[[Tensor], Tensor]
"""Row numbers ``(n,)`` to states ``(n, ...)``."""
Pairs = tuple[Tensor, ...]
"""Source and target rows, and their log masses at both ends where pairs carry masses."""
Weighted = tuple[Tensor, Tensor]
"""Rows, and how much each of them counts."""
T = TypeVar("T")

WHOLE_AT_ONCE = 2
"""Most plans over whole sets that are solved at the same time, to limit memory."""
REUSE = 24
"""How often each pair of a super-batch is used, each time at another point of its path: often enough for one worker
to solve the next four super-batches of 512 while a small network trains on these (``benchmarks/results/speed.md``)."""
DRAWN_STEPS = 64
"""Steps for which pairs are drawn at once from a plan over whole sets."""
COUNTED_BLOCKS = 8
"""Super-batches of which the pairs are counted for their mean displacement: some thousands of points."""


def as_points(rows: Tensor) -> Tensor:
    """Return row numbers as states of one dimension, for a coupling that does not look at states."""
    return rows[:, None]


@dataclass(frozen=True, eq=False)
class RowMatching:
    """Two sets of points known by their rows, and how they are matched.

    Parameters
    ----------
    coupling
        Matches states.
    sizes
        Numbers of rows.
    device
        Device of the row numbers.
    source, target
        Functions that look up states by row.
    groups
        The group of every row of either side, as numbers ``(n,)`` and ``(m,)``, where pairs are made within groups
        only.
    read
        Numbers that looking up all states reads into memory, where they are not there yet.
    """

    coupling: Coupling
    sizes: tuple[int, int]
    device: torch.device
    source: Lookup = as_points
    target: Lookup = as_points
    groups: tuple[Tensor, Tensor] | None = None
    read: int = 0

    def __call__(self, i: Tensor, j: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Plan:
        """Match rows ``(k,)`` with rows ``(l,)``, weighted by ``a`` and ``b``."""
        x0, x1 = (self.source(i), self.target(j)) if self.coupling.uses_states else (as_points(i), as_points(j))
        return self._over(i, j)(x0, x1, a, b)

    def rows(self) -> tuple[Tensor, Tensor]:
        """Return all row numbers of both sides."""
        source, target = (torch.arange(size, device=self.device) for size in self.sizes)
        return source, target

    def fits(self) -> bool:
        """Whether matching everything at once takes little memory, with the states to be read, and a few minutes."""
        memory, pairs = self.load
        return memory <= choice.most_memory(self.coupling) and pairs <= choice.WHOLE_PAIRS and not self.reads_much

    @property
    def load(self) -> tuple[int, int]:
        """The bytes that matching everything at once takes, and the pairs of points among which it is solved."""
        return self._over(*self.rows()).memory(*self.sizes), 0 if of_points(self.coupling) else self._possible()

    def at_scale(self) -> "Sequence[RowMatching]":
        """Return the matching by the coupling that stands for its own where sets are large, if there is one."""
        other = at_scale(self.coupling)
        return [] if other is None else [replace(self, coupling=other)]

    @property
    def reads_much(self) -> bool:
        """Whether looking up all states would fill the memory."""
        return self.read > choice.READ_LIMIT

    def problems(self) -> int:
        """Return the number of separate problems into which groups divide the matching."""
        if self.groups is None:
            return 1
        source, target = self.groups
        return len(torch.unique(target[torch.isin(target, source)]))

    def partnered(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        """Return for some rows of either side whether their group is on both, ``(k,)`` and ``(l,)``."""
        if self.groups is None:
            return torch.ones_like(i, dtype=torch.bool), torch.ones_like(j, dtype=torch.bool)
        source, target = self.groups[0][i], self.groups[1][j]
        return torch.isin(source, target), torch.isin(target, source)

    def _possible(self) -> int:
        """Return how many pairs of points there are, within groups."""
        if self.groups is None:
            return self.sizes[0] * self.sizes[1]
        most = 1 + int(max(side.max() for side in self.groups))
        before, after = (torch.bincount(side, minlength=most) for side in self.groups)
        return int(before @ after)

    def _over(self, i: Tensor, j: Tensor) -> Coupling:
        if self.groups is None:
            return self.coupling
        source, target = self.groups
        return Within(self.coupling, source[i], target[j])


def match_some(
    matching: RowMatching, ends: Ends, most: int, *, generator: torch.Generator
) -> tuple[Tensor, Tensor, Plan, Plan | WeighedPlan]:
    """Match random parts of two sets.

    Parameters
    ----------
    matching, ends
        How the sets are matched, and what their points weigh.
    most
        Most rows of each.
    generator
        Draws them.

    Returns
    -------
    The rows ``(k,)`` and ``(l,)``, the coupling's plan between them, and the plan to draw pairs from.
    """
    rows, columns, ends = ends.part(matching.sizes, most, generator=generator)
    rows, columns = rows.to(matching.device), columns.to(matching.device)
    if ends.masses is not None:  # a rare group may be in one part only, where its growth is unknown
        there = matching.partnered(rows, columns)
        rows, columns, ends = rows[there[0]], columns[there[1]], ends.only(*there)
    return rows, columns, *match(matching, rows, columns, ends)


@dataclass(frozen=True)
class WholePlan:
    """Pairs drawn from one plan over two whole sets.

    Blocks of pairs serve many steps each, and any block can be made without those before it.
    """

    plan: Plan
    drawn: Plan | WeighedPlan
    seed: int
    steps_per_block: int
    matched: Matched

    def shrunk(self, share: float) -> "WholePlan":
        """Return the same pairs with a share of their growth, if they grow."""
        weighed = isinstance(self.drawn, WeighedPlan)
        return replace(self, drawn=cast("WeighedPlan", self.drawn).shrunk(self.plan, share)) if weighed else self

    def block(self, index: int, batch_size: int) -> Pairs:
        """Draw the pairs of ``steps_per_block`` batches: every row about equally often."""
        return self.drawn.sample(
            self.steps_per_block * batch_size, generator=generator_at(self.seed, index), replace=False
        )

    def weighted(self, batch_size: int) -> tuple[Weighted, Weighted]:
        """Return all rows of both sides, each with its mass in the plan."""
        before, after = ((torch.arange(len(mass), device=mass.device), mass) for mass in self.plan.marginals())
        return before, after


@dataclass(frozen=True)
class SuperBatches:
    """Pairs of two sets, each block of steps from a plan between new random parts of them."""

    plan: ClassVar[None] = None

    matching: RowMatching
    size: int
    seed: int
    steps_per_block: int
    ends: Ends
    matched: Matched

    def shrunk(self, share: float) -> "SuperBatches":
        """Return the same pairs with a share of their growth."""
        return replace(self, ends=replace(self.ends, share=share))

    def block(self, index: int, batch_size: int) -> Pairs:
        """Match two random parts, and draw the pairs of ``steps_per_block`` batches."""
        generator = generator_at(self.seed, index)
        rows, columns, _, drawn = match_some(self.matching, self.ends, self.size, generator=generator)
        i, j, *masses = drawn.sample(self.steps_per_block * batch_size, generator=generator, replace=False)
        return rows[i], columns[j], *masses

    def weighted(self, batch_size: int, *, blocks: int = COUNTED_BLOCKS) -> tuple[Weighted, Weighted]:
        """Return the rows of both sides with their shares, or, where a plan changes them, those of the first blocks."""
        ends = self.ends
        if self.matching.coupling.keeps_mass and self.matching.groups is None and ends.gain is None:
            sides = zip(self.matching.rows(), (ends.source, ends.target), strict=True)
            before, after = ((rows, torch.ones_like(rows) if share is None else share) for rows, share in sides)
            return before, after
        drawn = [self.block(index, batch_size) for index in range(blocks)]
        i, j, *masses = (torch.cat(side) for side in zip(*drawn, strict=True))
        weights = (sum(masses, start=torch.zeros_like(i)) / 2).exp()  # half-way, the log has changed by half
        return (i, weights), (j, weights)


@dataclass(frozen=True, eq=False)
class RowPairs:
    """An endless stream of paired rows; those of a step are the same at every iteration.

    Made by `pair_rows`.

    Parameters
    ----------
    intervals
        Source of the pairs of each interval.
    firsts
        The number of the first source row and of the first target row of each interval.
    batch_size
        Pairs of each interval in a step.
    """

    intervals: Sequence[WholePlan | SuperBatches]
    firsts: Sequence[tuple[int, int]]
    batch_size: int

    @property
    def plans(self) -> list[Plan | None]:
        """The plan over whole sets of each interval, or ``None`` where super-batches are used."""
        return [interval.plan for interval in self.intervals]

    @property
    def matched(self) -> list[Matched]:
        """How the sets of each interval are matched."""
        return [interval.matched for interval in self.intervals]

    def shrunk(self, share: float) -> "RowPairs":
        """Return the same pairs with a share of their growth."""
        return replace(self, intervals=[interval.shrunk(share) for interval in self.intervals])

    def weighted(self) -> list[tuple[Weighted, Weighted]]:
        """Return for each interval the rows where its pairs begin, and where they end, by how much they count."""
        found = (interval.weighted(self.batch_size) for interval in self.intervals)
        return [
            ((i + first, a), (j + second, b))
            for ((i, a), (j, b)), (first, second) in zip(found, self.firsts, strict=True)
        ]

    def iterate(self, start: int) -> Generator[Pairs]:
        """Yield the pairs of steps ``start``, ``start + 1`` and so on; worker threads match ahead."""
        pool = ThreadPoolExecutor(_workers())
        try:
            streams = [
                self._stream(interval, firsts, start, pool)
                for interval, firsts in zip(self.intervals, self.firsts, strict=True)
            ]
            for parts in zip(*streams, strict=True):
                yield tuple(torch.cat(side) for side in zip(*parts, strict=True))
        finally:
            pool.shutdown(cancel_futures=True)

    def _stream(
        self, interval: WholePlan | SuperBatches, firsts: tuple[int, int], start: int, pool: Executor
    ) -> Iterator[Pairs]:
        """Return the pairs of each step from ``start`` on; the first block is submitted at once."""
        first, skipped = divmod(start, interval.steps_per_block)
        blocks = ahead(
            (partial(_numbered, interval, index, self.batch_size, firsts) for index in count(first)),
            pool,
            spare=_workers(),
        )
        return self._steps(blocks, range(skipped, interval.steps_per_block), range(interval.steps_per_block))

    def _steps(self, blocks: Iterator[Pairs], of_first: range, of_others: range) -> Iterator[Pairs]:
        steps = of_first
        for block in blocks:
            for step in steps:
                part = slice(step * self.batch_size, (step + 1) * self.batch_size)
                yield tuple(values[part] for values in block)
            steps = of_others


def pair_rows(
    matchings: Sequence[RowMatching],
    *,
    firsts: Sequence[tuple[int, int]],
    batch_size: int,
    generator: torch.Generator,
    ot_batch_size: int | str,
    ends: Sequence[Ends],
) -> RowPairs:
    """Decide for each interval how it is matched, and match those that take one plan.

    Parameters
    ----------
    matchings
        Matching of each interval.
    firsts, batch_size
        See `RowPairs`.
    generator
        Seeds the pairing; advances by one number for each interval.
    ot_batch_size
        Rows of each set that are matched at once: ``"whole"``, a number, or ``"auto"`` to choose by memory.
    ends
        What the points of each interval weigh.
    """
    seeds = [draw_seed(generator) for _ in matchings]

    def solved() -> list[WholePlan | SuperBatches]:
        with ThreadPoolExecutor(min(_workers(), WHOLE_AT_ONCE)) as pool:
            prepared = [
                pool.submit(_prepared, matching, batch_size, seed, ot_batch_size, weighed)
                for matching, seed, weighed in zip(matchings, seeds, ends, strict=True)
            ]
            return [interval.result() for interval in prepared]

    return RowPairs(solved_once(solved, matchings), firsts, batch_size)


def solved_once(
    solve: Callable[[], list[WholePlan | SuperBatches]], matchings: Sequence[RowMatching]
) -> list[WholePlan | SuperBatches]:
    """Return what the first of several processes solves: plans are sent to the others, points are not."""

    def apart() -> list[WholePlan | SuperBatches]:
        nothing = cast("RowMatching", None)
        return [replace(one, matching=nothing) if isinstance(one, SuperBatches) else one for one in solve()]

    return [
        replace(one, matching=matching) if isinstance(one, SuperBatches) else one
        for one, matching in zip(once(apart), matchings, strict=True)
    ]


def ahead(tasks: Iterator[Callable[[], T]], pool: Executor, *, spare: int) -> Iterator[T]:
    """Yield the results of an endless stream of tasks, in order, while ``spare`` more run; the first starts at once."""
    waiting: deque[Future[T]] = deque([pool.submit(next(tasks))])

    def results() -> Iterator[T]:
        for task in tasks:
            waiting.append(pool.submit(task))
            if len(waiting) > spare:
                yield waiting.popleft().result()

    return results()


def _prepared(
    matching: RowMatching, batch_size: int, seed: int, ot_batch_size: int | str, ends: Ends
) -> WholePlan | SuperBatches:
    least = choice.least_matched(2 * batch_size, grows=ends.masses is not None) * matching.problems()
    (chosen,) = choice.choose([matching], ot_batch_size, [least])
    matching, size, _ = chosen
    if matching.coupling.uses_states:  # otherwise nothing is solved that would take time
        log.info("pairing %s", chosen.matched)
    if size is not None:
        return SuperBatches(matching, size, seed, max(1, REUSE * size // batch_size), ends, chosen.matched)
    try:
        plan, drawn = match(matching, *matching.rows(), ends)
    except (ConvergenceError, ValueError) as error:
        error.add_note("This was found between {:,} and {:,} points.".format(*matching.sizes))
        raise
    if isinstance(drawn, WeighedPlan):
        found = ", ".join(f"{name} {value:.3g}" for name, value in getattr(plan, "settings", {}).items())
        log.info("growth replaces %.0f %% of the population%s", 100 * drawn.turnover, f" ({found})" if found else "")
    return WholePlan(plan, drawn, seed, DRAWN_STEPS, chosen.matched)


def _numbered(interval: WholePlan | SuperBatches, index: int, batch_size: int, firsts: tuple[int, int]) -> Pairs:
    """Return a block of pairs, numbered among the rows of all intervals."""
    i, j, *masses = interval.block(index, batch_size)
    return i + firsts[0], j + firsts[1], *masses


def _workers() -> int:
    """Return the number of threads that match: all cores but the one that trains."""
    return max(1, usable_cores() - 1)
