"""The pairs of many legs, drawn for a block of steps at once, so that a step costs the same for one leg and for many.

For a leg with few pairs in a step, all blocks draw from one plan over both its sides, or from one super-batch until its
pairs are used up. In each step, a leg has its share, rounded up or down.
"""

import logging
import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor

from cellflow.couplings import Plan
from cellflow.couplings.draws import systematic
from cellflow.errors import ConvergenceError
from cellflow.machine import usable_cores
from cellflow.pairing import choice
from cellflow.pairing.choice import Matched
from cellflow.pairing.condition_legs import called
from cellflow.pairing.masses import Ends, match
from cellflow.pairing.rows import (
    DRAWN_STEPS,
    REUSE,
    WHOLE_AT_ONCE,
    Pairs,
    RowMatching,
    SuperBatches,
    Weighted,
    WholePlan,
    ahead,
    solved_once,
)
from cellflow.seeds import draw_seed, generator_at

log = logging.getLogger(__name__)

PLANS = 2
"""The whole plans of all legs take no more together than so many of the largest would: other legs are matched in
linear time, or in super-batches."""
LEGS_AT_ONCE = 128
"""Legs for each `DRAWN_STEPS` of a block: with more, blocks are longer, as each leg is drawn from once in a block."""
COUNTED_BLOCKS, COUNTED_PAIRS = 2, 2048
"""Super-batches of a leg, and pairs of each, that are counted for its mean displacement."""

Solved = dict[tuple[int, int], Future[Pairs]]
"""The pairs of super-batches by leg and number."""


@dataclass(frozen=True, eq=False)
class Renewed:
    """The super-batches of one leg: each serves as many blocks as its pairs last, or a block has several.

    Parameters
    ----------
    pairs
        Where the pairs come from.
    most
        Most pairs in a block.
    number
        The number of the leg: legs take their new super-batches in different blocks.
    """

    pairs: SuperBatches
    most: int
    number: int

    @property
    def several(self) -> int:
        """Super-batches in a block."""
        return math.ceil(self.most / (REUSE * self.pairs.size))

    @property
    def lasts(self) -> int:
        """Blocks that a super-batch serves."""
        return max(1, REUSE * self.pairs.size // self.most)

    def needed(self, block: int) -> range:
        """Return the numbers of the super-batches that a block takes its pairs from."""
        first = (block + self.number) // self.lasts * self.several
        return range(first, first + self.several)

    def solve(self, index: int) -> Pairs:
        """Match a super-batch, and draw all its pairs."""
        return replace(self.pairs, steps_per_block=self.lasts).block(index, math.ceil(self.most / self.several))

    def draw(self, block: int, n: int, solved: Sequence[Pairs]) -> Pairs:
        """Return ``n`` pairs of those that are kept for a block."""
        first = (block + self.number) % self.lasts * self.most
        return tuple(torch.cat(side)[first : first + n] for side in zip(*solved, strict=True))


@dataclass(frozen=True, eq=False)
class LegPairs:
    """An endless stream of the paired rows of legs; those of a step are the same at every iteration.

    Parameters
    ----------
    legs
        Source of the pairs of each leg.
    rows
        The rows of the points of each leg at its beginning ``(n,)`` and at its end ``(m,)``.
    shares
        The share of each leg in all pairs, ``(k,)``, float64.
    batch_size
        Pairs in a step, of all legs together.
    seed
        Seed of the drawing.
    """

    legs: Sequence[WholePlan | SuperBatches]
    rows: Sequence[tuple[Tensor, Tensor]]
    shares: Tensor
    batch_size: int
    seed: int

    @property
    def steps_per_block(self) -> int:
        """Steps whose pairs are drawn at once."""
        return DRAWN_STEPS * math.ceil(len(self.legs) / LEGS_AT_ONCE)

    @property
    def plans(self) -> list[Plan | None]:
        """The plan over whole sides of each leg, or ``None`` if super-batches are used."""
        return [leg.plan for leg in self.legs]

    @property
    def matched(self) -> list[Matched]:
        """How both sides of each leg are matched."""
        return [leg.matched for leg in self.legs]

    def shrunk(self, share: float) -> "LegPairs":
        """Return the same pairs with a share of their growth."""
        return replace(self, legs=[leg.shrunk(share) for leg in self.legs])

    def only(self, chosen: Sequence[bool]) -> "LegPairs":
        """Return the pairs of some legs only."""
        kept = [number for number, taken in enumerate(chosen) if taken]
        shares = self.shares[kept]
        legs, rows = [self.legs[number] for number in kept], [self.rows[number] for number in kept]
        return replace(self, legs=legs, rows=rows, shares=shares / shares.sum())

    def weighted(self, number: int) -> tuple[Weighted, Weighted]:
        """Return the rows where the pairs of a leg begin and where they end, each with its weight."""
        leg, (source, target) = self.legs[number], self.rows[number]
        if isinstance(leg, SuperBatches):
            (i, before), (j, after) = replace(leg, steps_per_block=1).weighted(COUNTED_PAIRS, blocks=COUNTED_BLOCKS)
        else:
            (i, before), (j, after) = leg.weighted(COUNTED_PAIRS)
        return (source[i], before), (target[j], after)

    def iterate(self, start: int) -> Generator[Pairs]:
        """Yield source rows, target rows, numbers of legs and masses of the steps from ``start`` on, ``(n,)`` each."""
        first, skipped = divmod(start, self.steps_per_block)
        drawing, solving = ThreadPoolExecutor(1), ThreadPoolExecutor(max(1, usable_cores() - 1))
        try:
            for block in self._blocks(first, drawing, solving):
                yield from list(zip(*(side.unbind(0) for side in block), strict=True))[skipped:]
                skipped = 0
        finally:
            for pool in (drawing, solving):
                pool.shutdown(cancel_futures=True)

    def _blocks(self, first: int, drawing: Executor, solving: Executor) -> Iterator[Pairs]:
        renewed = {
            number: Renewed(leg, math.ceil(self._per_block * float(self.shares[number])), number)
            for number, leg in enumerate(self.legs)
            if isinstance(leg, SuperBatches)
        }
        solved: Solved = {}  # touched by the one thread that draws

        def drawn(block: int) -> Pairs:
            wanted = [(leg, k) for at in (block, block + 1) for leg in renewed for k in renewed[leg].needed(at)]
            for leg, k in wanted:
                if (leg, k) not in solved:
                    solved[leg, k] = solving.submit(renewed[leg].solve, k)
            for old in solved.keys() - {*wanted}:
                del solved[old]
            return self._block(block, renewed, solved)

        return ahead((partial(drawn, block) for block in count(first)), drawing, spare=1)

    def _block(self, block: int, renewed: Mapping[int, Renewed], solved: Solved) -> Pairs:
        """Return the pairs of a block, ``(steps, batch)`` each."""
        generator = generator_at(self.seed, block)
        drawn = systematic(self.shares.cumsum(0), self._per_block, generator=generator)
        parts = []
        for number, n in zip(*(side.tolist() for side in drawn.unique_consecutive(return_counts=True)), strict=True):
            leg, (source, target) = self.legs[number], self.rows[number]
            if isinstance(leg, SuperBatches):
                ready = [solved[number, k].result() for k in renewed[number].needed(block)]
                i, j, *masses = renewed[number].draw(block, n, ready)
            else:
                i, j, *masses = leg.drawn.sample(n, generator=generator, replace=False)
            parts.append((source[i], target[j], torch.full_like(i, number), *masses))
        whole = [torch.cat(side) for side in zip(*parts, strict=True)]
        # Pairs are in the order of their legs, those of a leg in random order: dealt out in turn, every step has its
        # share of each leg.
        turns = torch.randperm(self.steps_per_block, generator=generator).to(whole[0].device)
        return tuple(side.reshape(self.batch_size, -1)[:, turns].T.contiguous() for side in whole)

    @property
    def _per_block(self) -> int:
        return self.steps_per_block * self.batch_size


def matched(
    matchings: Sequence[RowMatching],
    names: Sequence[Any],
    *,
    batch_size: int,
    generator: torch.Generator,
    ot_batch_size: int | str,
    ends: Sequence[Ends],
) -> list[WholePlan | SuperBatches]:
    """Decide for each leg how it is matched, and match those that take one plan, in parallel.

    Parameters
    ----------
    matchings, names
        Matching of each leg, and what it is called.
    batch_size
        Pairs in a step, of all legs together.
    generator
        Seeds the pairing; advances by one number for each leg.
    ot_batch_size
        Number of points of each side to match at once: ``"whole"``, a number, or ``"auto"``, which makes whole plans
        for as many legs as fit into memory together, the smallest first.
    ends
        Weights of the points of each leg.

    Raises
    ------
    ValueError
        For another ``ot_batch_size``.
    ConvergenceError
        When a plan is not found; a note names the leg.
    """
    each = 2 * math.ceil(batch_size / len(matchings))
    sizes = [choice.least_matched(each, grows=one.masses is not None) for one in ends]
    chosen = choice.choose(matchings, ot_batch_size, sizes, plans=PLANS)
    seeds = [draw_seed(generator) for _ in matchings]
    _say(chosen)
    memory = [one.matching.load[0] for one in chosen if one.at_once is None]
    threads = min(usable_cores(), max(1, int(WHOLE_AT_ONCE * choice.WHOLE_MEMORY // max([1, *memory]))))

    def prepared(number: int) -> WholePlan | SuperBatches:
        (matching, size, _), seed, found = chosen[number], seeds[number], chosen[number].matched
        if size is not None:
            return SuperBatches(matching, size, seed, 1, ends[number], found)
        try:
            return WholePlan(*match(matching, *matching.rows(), ends[number]), seed, DRAWN_STEPS, found)
        except (ConvergenceError, ValueError) as error:
            error.add_note(f"This was found between {matching.sizes} points, of {called(names[number])}.")
            raise

    def solved() -> list[WholePlan | SuperBatches]:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(prepared, range(len(matchings))))

    return solved_once(solved, matchings)


def _say(chosen: Sequence[choice.Choice]) -> None:
    parts = [one.at_once for one in chosen if one.at_once is not None]
    sizes = f" of {max(parts):,}" if parts else ""
    log.info("%d legs have one plan each, %d take super-batches%s", len(chosen) - len(parts), len(parts), sizes)
    for one in chosen:
        if one.matching.coupling is not one.asked:
            log.info("pairing %s", one.matched)
