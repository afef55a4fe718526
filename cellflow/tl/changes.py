"""Statistics of a change between two sets of cells: of every gene, and of the population as a whole."""

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cellflow.tl.genes import CHUNK

if TYPE_CHECKING:
    from anndata import AnnData

LEVEL = 0.05
"""False discovery rate among genes, and among conditions."""
PERMUTATIONS = 199
"""Random splits of the cells of both sets with which a distance is compared."""
HALVES = 5
"""Splits into halves over which the floor of a distance is averaged."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and variance of the genes over some cells.

    Parameters
    ----------
    n
        Number of cells.
    mean, variance
        Mean and variance of each gene over them, ``(genes,)``.
    """

    n: int
    mean: np.ndarray
    variance: np.ndarray

    def joined(self, other: "Moments") -> "Moments":
        """Return the moments of both sets of cells together.

        Examples
        --------
        >>> one, two = (Moments(1, np.array([value]), np.zeros(1)) for value in (0.0, 2.0))
        >>> one.joined(two)
        Moments(n=2, mean=array([1.]), variance=array([2.]))
        """
        n = self.n + other.n
        share, apart = other.n / n, other.mean - self.mean
        squares = (self.n - 1) * self.variance + (other.n - 1) * other.variance + self.n * share * apart**2
        return Moments(n, self.mean + share * apart, squares / max(n - 1, 1))


def moments(adata: "AnnData", rows: np.ndarray) -> Moments:
    """Return the moments of all genes over some cells, at least one; cells are read in chunks.

    Parameters
    ----------
    adata
        With expression in ``X``, dense, sparse or on disk.
    rows
        Positions of the cells.

    Examples
    --------
    >>> import cellflow as cf
    >>> moments(cf.datasets.hsmm(), np.arange(5)).mean.shape
    (2002,)
    """
    rows = np.sort(rows)  # as files are read
    return reduce(Moments.joined, (_of(adata.X[rows[at : at + CHUNK]]) for at in range(0, len(rows), CHUNK)))


def _of(expression: Any) -> Moments:
    n = expression.shape[0]
    if hasattr(expression, "multiply"):
        expression = expression.astype(np.float64)  # squares of small integers overflow
        both = expression, expression.multiply(expression)
        mean, square = (np.asarray(part.mean(axis=0)).ravel() for part in both)
        return Moments(n, mean, np.maximum(square - mean**2, 0) * n / max(n - 1, 1))
    dense = np.asarray(expression, dtype=np.float64)
    return Moments(n, dense.mean(axis=0), dense.var(axis=0) * n / max(n - 1, 1))


def changed(control: Moments, treated: Moments, *, level: float = LEVEL) -> np.ndarray:
    """Return which genes differ in their mean, ``(genes,)``, at a false discovery rate.

    Source
    ------
    Welch 1947, for the test; Benjamini and Hochberg 1995, for the rate.

    Examples
    --------
    >>> still = Moments(50, np.zeros(2), np.ones(2))
    >>> changed(still, Moments(50, np.array([0.0, 3.0]), np.ones(2)))
    array([False,  True])
    """
    from scipy import stats

    if min(control.n, treated.n) < 2:
        return np.zeros(len(control.mean), dtype=bool)
    errors = control.variance / control.n, treated.variance / treated.n
    error = np.sqrt(errors[0] + errors[1])
    there = error > 0
    p = np.ones(len(error))
    freedom = (errors[0] + errors[1])[there] ** 2 / (
        errors[0][there] ** 2 / (control.n - 1) + errors[1][there] ** 2 / (treated.n - 1)
    )
    p[there] = 2 * stats.t.sf(np.abs(treated.mean - control.mean)[there] / error[there], freedom)
    return discovered(p, level=level)


def discovered(p: np.ndarray, *, level: float = LEVEL) -> np.ndarray:
    """Return which of many tests hold at a false discovery rate, ``(k,)``.

    Source
    ------
    Benjamini and Hochberg 1995, equation 1.

    Examples
    --------
    >>> discovered(np.array([0.001, 0.04, 0.6]))
    array([ True, False, False])
    """
    order = np.argsort(p)
    below = np.flatnonzero(p[order] <= level * np.arange(1, len(p) + 1) / max(len(p), 1))
    found = np.zeros(len(p), dtype=bool)
    if len(below):
        found[order[: below[-1] + 1]] = True
    return found


class Apart(NamedTuple):
    """The distance between two sets of cells.

    Attributes
    ----------
    distance
        Energy distance, in units of the representation.
    floor
        The same between two halves of the second set, averaged over some divisions.
    p
        How often a random split of all cells gives as large a distance.
    """

    distance: float
    floor: float
    p: float


def apart(x: np.ndarray, y: np.ndarray, *, generator: torch.Generator) -> Apart:
    """Compare two sets of cells as a whole.

    If no random split gives as large a distance, the probability comes from a Pearson type III distribution with the
    moments of those splits, so that it can be small enough for many conditions.

    Parameters
    ----------
    x, y
        States ``(n, d)`` and ``(m, d)``.
    generator
        Divides the cells.

    Source
    ------
    Székely and Rizzo 2013, section 6, for the test.

    Examples
    --------
    >>> import cellflow as cf
    >>> x = np.random.default_rng(0).normal(size=(60, 3))
    >>> found = apart(x[:30], x[30:] + 2, generator=cf.generator(seed=0))
    >>> found.p < 0.001, found.floor < found.distance
    (True, True)
    """
    from scipy import stats

    n, m = len(x), len(y)
    both = torch.from_numpy(np.concatenate([x, y])).double()
    distances = torch.cdist(both, both)
    weights = torch.cat([torch.full((n,), 1 / n), torch.full((m,), -1 / m)]).double()
    orders = torch.stack([torch.randperm(n + m, generator=generator) for _ in range(PERMUTATIONS)])
    distance = float(_energy(weights[None], distances))
    chance = _energy(weights[orders], distances).numpy()
    p = (1 + int((chance >= distance).sum())) / (1 + PERMUTATIONS)
    if p <= 1 / (1 + PERMUTATIONS) and chance.std() > 0:
        p = min(p, float(stats.pearson3.sf(distance, stats.skew(chance), chance.mean(), chance.std())))
    return Apart(distance, _floor(distances[n:, n:], generator), p)


def _floor(distances: Tensor, generator: torch.Generator) -> float:
    """Return the energy distance between halves of some cells; NaN for a single one."""
    m = len(distances)
    if m < 2:
        return float("nan")
    weights = torch.cat([torch.full((m // 2,), 1 / (m // 2)), torch.full((m - m // 2,), -1 / (m - m // 2))]).double()
    orders = torch.stack([torch.randperm(m, generator=generator) for _ in range(HALVES)])
    return float(_energy(weights[orders], distances).mean())


def _energy(weights: Tensor, distances: Tensor) -> Tensor:
    """Return energy distances ``(k,)`` between sets of cells that weigh more than 0, and less, ``(k, n)``."""
    return -((weights @ distances) * weights).sum(dim=1)
