"""Pairing: which point goes with which, for every step of a training."""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from itertools import count, pairwise

import torch
from torch import Tensor

from cellflow.batch import Batch
from cellflow.couplings import Coupling, Given, Independent, Plan, resolve
from cellflow.pairing.blocks import Pairs, Super, Whole
from cellflow.pairing.curves import Bent, tangents
from cellflow.pairing.masses import Masses, match, relative
from cellflow.seeds import draw_seed

log = logging.getLogger(__name__)

Bends = Callable[[Batch, Tensor, Tensor], Batch]
"""From a batch of straight pairs, and the numbers ``(batch,)`` of the points where they begin and end, to bent ones."""

WHOLE_LIMIT = 60_000_000
"""Largest n x m for which one plan covers two whole snapshots: 8000 x 7500 cells take half a minute and 3 GB."""
WHOLE_AT_ONCE = 2
"""Most plans over whole snapshots that are solved side by side, for the sake of memory."""
OT_BATCH_SIZE = 512
"""Least points a side of a super-batch: 20 ms to solve; twice the training batch where that is more."""
REUSE = 24
"""How often each pair of a super-batch is used, each time at another point of its path: often enough for one worker
to solve the next four super-batches of 512 while a small network trains on these (``benchmarks/results/speed.md``)."""
DRAWN_STEPS = 64
"""Steps for which pairs are drawn at once from a plan over whole snapshots."""


def paired_batches(
    x0: Tensor,
    x1: Tensor,
    *,
    coupling: Coupling | str = "exact",
    batch_size: int = 256,
    generator: torch.Generator,
    condition: Tensor | None = None,
    ot_batch_size: int | str = "auto",
    masses: tuple[float, float] | None = None,
) -> "PairedBatches":
    """Pair two clouds of points, for as many batches as anybody asks for.

    Parameters
    ----------
    x0, x1
        Source and target points, ``(n, ...)`` and ``(m, ...)``.
    coupling
        How they are matched: a coupling, or the name of one.
    batch_size
        Pairs per batch.
    generator
        Seeds the pairing; advances by one number.
    condition
        What belongs to each target point, ``(m, k)``.
    ot_batch_size
        Points a side that are matched at once: ``"whole"`` for one plan over everything, a number for
        super-batches of that size, solved ahead by worker threads; ``"auto"`` chooses by size, and logs it.
    masses
        Size of the population at source and target; pairs then carry masses, as `GrowthMatching` needs them.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> x0, x1 = torch.arange(4.0)[:, None], torch.arange(4.0)[:, None] + 10
    >>> batches = paired_batches(x0, x1, batch_size=4, generator=cf.generator(seed=0))
    >>> batch = next(iter(batches))
    >>> (batch.x1 - batch.x0).flatten()
    tensor([10., 10., 10., 10.])
    """
    batches = snapshot_batches(
        [x0, x1],
        [0.0, 1.0],
        coupling=coupling,
        batch_size=batch_size,
        generator=generator,
        ot_batch_size=ot_batch_size,
        masses=masses,
    )
    if condition is None:
        return batches
    if len(condition) != len(x1):
        raise ValueError(f"Expected one condition for each of {len(x1)} target points; found {len(condition)}.")
    return batches.with_condition(condition)


def snapshot_batches(
    snapshots: Sequence[Tensor],
    times: Sequence[float],
    *,
    coupling: Coupling | str = "exact",
    batch_size: int = 256,
    generator: torch.Generator,
    ot_batch_size: int | str = "auto",
    masses: Sequence[float] | None = None,
    bend: float = 0.0,
) -> "PairedBatches":
    """Pair each snapshot with the next: one batch holds ``batch_size`` pairs of every interval.

    Parameters
    ----------
    snapshots
        Clouds of points, ``(n_k, ...)`` each, of any sizes.
    times
        Model time of each snapshot, increasing.
    coupling, batch_size, generator, ot_batch_size
        As for `paired_batches`.
    masses
        Size of the population at each snapshot, in any unit; pairs then carry masses, as `GrowthMatching` needs them.
    bend
        How far pairs bend towards one smooth curve through all snapshots: 0 for straight pairs, 1 for a cubic spline.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> clouds = [torch.full((5, 2), float(k)) for k in range(3)]
    >>> batches = snapshot_batches(clouds, [0.0, 0.2, 1.0], batch_size=4, generator=cf.generator(seed=0))
    >>> next(iter(batches)).span()[1]
    tensor([0.2000, 0.2000, 0.2000, 0.2000, 0.8000, 0.8000, 0.8000, 0.8000])
    """
    if len(snapshots) != len(times) or len(snapshots) < 2:
        raise ValueError(f"Expected two or more snapshots with a time each; found {len(snapshots)} and {len(times)}.")
    if any(later <= earlier for earlier, later in pairwise(times)):
        raise ValueError(f"Expected times that increase; found {list(times)}. Sort the snapshots by time first.")
    if batch_size < 1:
        raise ValueError(f"Expected batch_size >= 1; found {batch_size}.")
    if not 0 <= bend <= 1:
        raise ValueError(f"Expected 0 <= bend <= 1; found {bend}.")
    ends: Sequence[Masses | None] = [None] * (len(times) - 1) if masses is None else relative(masses, len(times))
    coupling = resolve(coupling)
    sizes = [len(cloud) for cloud in snapshots]
    with ThreadPoolExecutor(min(_workers(), WHOLE_AT_ONCE)) as pool:
        intervals = [
            pool.submit(_interval, x0, x1, coupling, batch_size, draw_seed(generator), ot_batch_size, two)
            for (x0, x1), two in zip(pairwise(snapshots), ends, strict=True)
        ]
        sources = [interval.result() for interval in intervals]
    offsets = [sum(sizes[:k]) for k in range(len(sizes))]
    batches = PairedBatches(torch.cat(list(snapshots)), offsets, list(times), sources, batch_size)
    return batches if bend == 0 else batches.smoothed(tangents(snapshots, times, batches.plans), bend)


class PairedBatches:
    """Batches of pairs without end; the batch of a step is the same at every iteration.

    Made by `paired_batches` and `snapshot_batches`.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> batches = paired_batches(torch.zeros(5, 2), torch.ones(5, 2), batch_size=3, generator=cf.generator(seed=0))
    >>> batches.plans
    [SparsePlan(5 x 5, mass 1, one to one, cost 2)]
    """

    def __init__(
        self,
        points: Tensor,
        offsets: Sequence[int],
        times: Sequence[float],
        intervals: Sequence[Whole | Super],
        batch_size: int,
        condition: Tensor | None = None,
        bends: Bends | None = None,
    ) -> None:
        self._points, self._offsets, self._times, self._bends = points, offsets, times, bends
        self._intervals, self.batch_size, self._condition = intervals, batch_size, condition
        knots = points.new_tensor(list(times)) if points.is_floating_point() else torch.tensor(list(times))
        self._start = knots[:-1].repeat_interleave(batch_size)
        self._stop = knots[1:].repeat_interleave(batch_size)

    @property
    def plans(self) -> list[Plan | None]:
        """The plan over whole snapshots of each interval, or None where super-batches are used."""
        return [interval.plan if isinstance(interval, Whole) else None for interval in self._intervals]

    def with_condition(self, condition: Tensor) -> "PairedBatches":
        """Return the same batches with the condition ``(m, k)`` of each target point; for two clouds."""
        unasked = condition.new_zeros(len(self._points) - len(condition), *condition.shape[1:])
        everyone = torch.cat([unasked, condition]).to(self._points)
        return PairedBatches(
            self._points, self._offsets, self._times, self._intervals, self.batch_size, everyone, self._bends
        )

    def bent(self, bends: Bends) -> "PairedBatches":
        """Return the same batches, their pairs bent.

        Parameters
        ----------
        bends
            Called with a batch of straight pairs and the numbers of the points that they join, both ``(batch,)``,
            counted through all snapshots; returns the batch with bends.
        """
        return PairedBatches(
            self._points, self._offsets, self._times, self._intervals, self.batch_size, self._condition, bends
        )

    def smoothed(self, slopes: Sequence[Tensor | None], bend: float) -> "PairedBatches":
        """Return the same batches with pairs bent by a share ``bend`` towards the velocity at their ends.

        Parameters
        ----------
        slopes
            Velocity of each point of each snapshot, ``(n_k, ...)``, see `cellflow.pairing.curves.tangents`.
        bend
            From 0 for straight to 1.
        """
        return self.bent(Bent.of(slopes, self._points, self._offsets, self._stop - self._start, bend))

    def __iter__(self) -> Iterator[Batch]:
        return self.iterate(0)

    def iterate(self, start: int) -> Iterator[Batch]:
        """Yield the batches of steps ``start``, ``start + 1`` and so on; worker threads match ahead."""
        pool = ThreadPoolExecutor(_workers())
        try:
            blocks = [
                partial(_numbered_block, interval, first, second, self.batch_size)
                for interval, (first, second) in zip(self._intervals, pairwise(self._offsets), strict=True)
            ]
            streams = [
                _stream(block, interval.steps_per_block, self.batch_size, start, pool)
                for block, interval in zip(blocks, self._intervals, strict=True)
            ]
            for pairs in zip(*streams, strict=True):
                yield self._batch(pairs)
        finally:
            pool.shutdown(cancel_futures=True)

    def _batch(self, pairs: tuple[Pairs, ...]) -> Batch:
        source, target, *masses = (torch.cat(side) for side in zip(*pairs, strict=True))
        x0, x1 = (self._points.index_select(0, rows) for rows in (source, target))
        condition = None if self._condition is None else self._condition[target]
        batch = Batch(x0, x1, self._start, self._stop, condition, *(mass.to(x0) for mass in masses))
        return batch if self._bends is None else self._bends(batch, source, target)


def _interval(
    x0: Tensor,
    x1: Tensor,
    coupling: Coupling,
    batch_size: int,
    seed: int,
    ot_batch_size: int | str,
    masses: Masses | None,
) -> Whole | Super:
    """Decide how an interval is matched and, for one plan over everything, match it."""
    size = _matched_at_once(x0, x1, coupling, batch_size, ot_batch_size)
    if size is None:
        if not isinstance(coupling, Independent):  # which solves nothing that would take time
            log.info("pairing %d with %d points: one plan (%s)", len(x0), len(x1), coupling)
        return Whole(*match(coupling, x0, x1, masses), seed, DRAWN_STEPS)
    log.info("pairing %d with %d points: super-batches of %d, solved ahead (%s)", len(x0), len(x1), size, coupling)
    return Super(x0, x1, coupling, size, seed, max(1, REUSE * size // batch_size), masses)


def _matched_at_once(
    x0: Tensor, x1: Tensor, coupling: Coupling, batch_size: int, ot_batch_size: int | str
) -> int | None:
    """Return the points a side of a super-batch, or None for one plan over everything."""
    if isinstance(coupling, Given) and ot_batch_size != "auto":
        ot_batch_size = "whole"  # pairs that are given hold for whole clouds: random parts would join strangers
    if isinstance(ot_batch_size, str):
        if ot_batch_size not in ("auto", "whole"):
            raise ValueError(f"Expected ot_batch_size to be 'auto', 'whole' or a number; found {ot_batch_size!r}.")
        fits = isinstance(coupling, Independent | Given) or len(x0) * len(x1) <= WHOLE_LIMIT
        return None if ot_batch_size == "whole" or fits else max(OT_BATCH_SIZE, 2 * batch_size)
    if ot_batch_size < 2:
        raise ValueError(f"Expected ot_batch_size >= 2; found {ot_batch_size}.")
    return ot_batch_size


def _numbered_block(interval: Whole | Super, first: int, second: int, batch_size: int, index: int) -> Pairs:
    """Return a block of pairs, numbered among the points of all snapshots."""
    i, j, *masses = interval.block(index, batch_size)
    return i + first, j + second, *masses


def _stream(
    block: Callable[[int], Pairs], steps_per_block: int, batch_size: int, start: int, pool: Executor
) -> Iterator[Pairs]:
    """Return the pairs of each step from ``start`` on; the first block is under way on return."""
    first, skipped = divmod(start, steps_per_block)
    return _steps(_ahead(block, first, pool), batch_size, range(skipped, steps_per_block), range(steps_per_block))


def _steps(blocks: Iterator[Pairs], batch_size: int, of_first: range, of_others: range) -> Iterator[Pairs]:
    """Yield the pairs of each step of each block."""
    steps = of_first
    for block in blocks:
        for step in steps:
            part = slice(step * batch_size, (step + 1) * batch_size)
            yield tuple(values[part] for values in block)
        steps = of_others


def _ahead(block: Callable[[int], Pairs], first: int, pool: Executor) -> Iterator[Pairs]:
    """Return blocks in order, with one more under way than there are workers; the first is submitted at once."""
    waiting: deque[Future[Pairs]] = deque([pool.submit(block, first)])

    def blocks() -> Iterator[Pairs]:
        for index in count(first + 1):
            waiting.append(pool.submit(block, index))
            if len(waiting) > _workers():
                yield waiting.popleft().result()

    return blocks()


def _workers() -> int:
    """Threads that match: every core but the one that trains."""
    return max(1, (os.cpu_count() or 2) - 1)
