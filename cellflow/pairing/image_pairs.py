"""Pairs of images for every step of a training: read where they lie, mirrored, matched with fresh noise."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cellflow.couplings import Coupling, Independent
from cellflow.images.sets import Images, ImageSet
from cellflow.pairing.batches import PairedBatches
from cellflow.seeds import generator_at

Loaded = tuple[Tensor, Tensor, Tensor]
"""Source images, target images, and the row numbers of the latter."""

_AHEAD = 2  # blocks that are loaded or matched while others are trained on


@dataclass(frozen=True, eq=False)
class FromImages:
    """Pairs of images."""

    source: Images
    target: Images
    paired: PairedBatches
    seed: int
    flip: bool

    def iterate(self, start: int) -> Iterator[Loaded]:
        """Yield the pairs of steps ``start``, ``start + 1`` and so on."""
        in_memory = isinstance(self.source, ImageSet) and isinstance(self.target, ImageSet)
        stream = enumerate(self.paired.iterate(start), start)
        numbered = ((step, batch.x0[:, 0], batch.x1[:, 0]) for step, batch in stream)
        if in_memory:
            yield from (self._load(*pairs) for pairs in numbered)
        else:
            yield from _ahead(partial(self._load, *pairs) for pairs in numbered)

    def _load(self, step: int, i: Tensor, j: Tensor) -> Loaded:
        x0, x1 = self.source.scaled(i), self.target.scaled(j)
        if self.flip:
            generator = generator_at(self.seed, step)
            mirrored = _coins(len(i), generator, x0)
            x0, x1 = (torch.where(mirrored, x.flip(-1), x) for x in (x0, x1))
        return x0, x1, j


@dataclass(frozen=True, eq=False)
class FromNoise:
    """Pairs of fresh noise and images, matched some batches at a time."""

    target: Images
    coupling: Coupling
    rows: PairedBatches
    batch_size: int
    seed: int
    flip: bool

    def iterate(self, start: int) -> Iterator[Loaded]:
        """Yield the pairs of steps ``start``, ``start + 1`` and so on."""
        first, skipped = divmod(start, self.rows.batch_size // self.batch_size)
        stream = enumerate(self.rows.iterate(first), first)
        for x0, x1, j in _ahead(partial(self._match, block, batch.x1[:, 0]) for block, batch in stream):
            parts = list(zip(*(side.split(self.batch_size) for side in (x0, x1, j)), strict=True))
            yield from parts[skipped:]
            skipped = 0

    def _match(self, block: int, j: Tensor) -> Loaded:
        x1 = self.target.scaled(j)
        generator = generator_at(self.seed, block, device=x1.device)
        if self.flip:
            x1 = torch.where(_coins(len(j), generator, x1), x1.flip(-1), x1)
        noise = torch.randn(x1.shape, generator=generator, device=x1.device)
        if isinstance(self.coupling, Independent):
            return noise, x1, j
        plan = self.coupling(noise.flatten(1), x1.flatten(1))
        left, right = plan.sample(len(j), generator=generator, replace=False)
        return noise[left], x1[right], j[right.to(j.device)]


def _coins(n: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """Return ``(n, 1, 1, 1)`` truth values, true every other time."""
    return (torch.rand(n, generator=generator, device=generator.device) < 0.5).to(like.device)[:, None, None, None]


def _ahead(tasks: Iterator[Callable[[], Loaded]]) -> Iterator[Loaded]:
    """Yield what the tasks return, in order, while threads work on the next ones."""
    pool = ThreadPoolExecutor(_AHEAD)
    waiting: deque[Future[Loaded]] = deque()
    try:
        while True:
            while len(waiting) <= _AHEAD:
                waiting.append(pool.submit(next(tasks)))
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
