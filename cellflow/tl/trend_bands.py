"""Weighted means over courses for each fate and time, and the same for resampled cells."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cellflow.cells.decoders import Decoder
from cellflow.integrate import Solver
from cellflow.seeds import draw_seed, generator
from cellflow.tl.courses import Courses, Part
from cellflow.tl.genes import Loadings

if TYPE_CHECKING:
    from cellflow.estimators import SnapshotFlow


class Sums:
    """Sums of weighted values, and of weights, for each fate and time.

    Parameters
    ----------
    fates, times, width
        Numbers of fates, of times, and of values for each state.
    counts
        How often each cell counts in each resample, ``(resamples, n)`` for each snapshot: the first of all counts each
        cell once.
    values
        From states ``(n, d)`` to values ``(n, width)``.
    """

    def __init__(
        self,
        fates: int,
        times: int,
        width: int,
        counts: Sequence[np.ndarray],
        values: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        self.counts, self.values = counts, values
        self._sum = np.zeros((len(counts[0]), fates, times, width))
        self._weight = np.zeros((len(counts[0]), fates, times))
        self._cells = np.zeros((2, fates, times))

    def add(self, parts: Iterable[Part], chosen: np.ndarray) -> None:
        """Add courses to some of the resamples."""
        for part in parts:
            counts = self.counts[part.snapshot][chosen]
            # Each side has its share of the population, whichever of its cells are drawn.
            whole = np.maximum(counts @ part.weight, np.finfo(float).tiny)
            values = self.values(part.x)
            for fate, share in enumerate(part.fates.T):
                weight = part.weight * share
                sums = counts @ np.column_stack([weight[:, None] * values, weight])
                sums *= part.near / whole[:, None]
                self._sum[chosen, fate, part.place] += sums[:, :-1]
                self._weight[chosen, fate, part.place] += sums[:, -1]
                here = part.near * weight
                self._cells[:, fate, part.place] += here.sum(), np.square(here).sum()

    def means(self) -> np.ndarray:
        """Return the means ``(resamples, fates, times, width)``; NaN where nothing has a fate."""
        weight = self._weight[..., None]
        found: np.ndarray = np.where(weight > 0, self._sum / np.where(weight > 0, weight, 1), np.nan)
        return found

    def effective(self, turns: int) -> np.ndarray:
        """Return the effective number of cells behind the means, ``(fates, times)``, given the courses of each cell.

        Source
        ------
        Kish 1965, section 11.7, the effective number of weighted draws.
        """
        total, squares = self._cells
        return np.asarray(total**2 / np.where(squares > 0, squares, 1) / turns)


def resampled(sizes: Sequence[int], n: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return how often each cell counts: once, and in ``n`` draws with replacement; ``(n + 1, cells)`` for each."""
    return [
        np.concatenate([np.ones((1, size)), rng.multinomial(size, np.full(size, 1 / size), size=n)])
        if size
        else np.zeros((n + 1, 0))
        for size in sizes
    ]


def bands_of(
    courses: Courses,
    flow: "SnapshotFlow",
    solver: Solver,
    decoder: Loadings | Decoder,
    counts: Sequence[np.ndarray],
    turns: int,
    seed: int,
    confidence: float,
    bar: Any,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the means ``(fates, genes, times)``, the ends of their bands, and effective numbers of cells."""
    decode = (lambda x: x.astype(np.float64)) if decoder.linear else decoder.decode
    width = next(one.x.shape[1] for one in courses.snapshots if len(one)) if decoder.linear else len(decoder.names)
    sums = Sums(courses.fates[0].shape[1], len(courses.at), width, counts, decode)
    rng, resamples = generator(seed=seed), len(counts[0])
    for turn in range(turns):
        # Each resample has one course of each cell, so that it shows the noise too; the mean has all.
        chosen = np.unique([0, *range(1 + turn, resamples, turns)])
        sums.add(courses.carried(flow, solver, draw_seed(rng)), chosen)
        bar(turn + 1, None)
    means = sums.means()
    found = [_of_genes(means[:, fate], decoder, confidence) for fate in range(means.shape[1])]
    mean, low, high = (np.stack([one[part] for one in found]) for part in range(3))
    return mean, low, high, sums.effective(turns)


def _of_genes(
    means: np.ndarray, decoder: Loadings | Decoder, confidence: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean of each gene toward one fate ``(genes, times)``, and the ends of its band.

    ``means`` are those of all cells, and of resamples: ``(resamples, times, width)``.
    """
    resamples, times, _ = means.shape
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    found = np.empty((3, len(decoder.names), times))
    for place in range(times):
        values = means[:, place]
        if decoder.linear:
            known = np.isfinite(values).all(axis=1)
            values = np.full((resamples, len(decoder.names)), np.nan)
            values[known] = decoder.decode(means[known, place].astype(np.float32))
        found[0, :, place] = values[0]
        drawn = values[1:][np.isfinite(values[1:]).all(axis=1)]
        found[1:, :, place] = np.quantile(drawn, ends, axis=0) if len(drawn) else values[0]
    mean, low, high = found
    return mean, np.minimum(low, mean), np.maximum(high, mean)
