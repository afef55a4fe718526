"""How far from 0 a correlation is by chance if both quantities follow the state of cells: a rotation test."""

from itertools import combinations_with_replacement
from math import comb
from typing import NamedTuple

import numpy as np

BAND = 10
"""Components among which directions are exchanged: those of like variance, about so many at a time."""
DEGREES = (2, 3, 4, 5)
"""Of products of components, each a band."""
MOST = 15
"""Products of one degree, of as many of the first components as have no more."""
_LEVEL = 0.01
"""Of the test whether a band is followed at all."""
_FEWEST = 3
"""Cells for each component that is looked at."""
_CONSTANT = 1e-6
"""Standard deviation of a component, relative to the largest, below which it does not vary."""


class Chance(NamedTuple):
    """The distribution of a correlation by chance, ``(genes,)`` each.

    Attributes
    ----------
    p_value
        Two-sided.
    variance
        Of the correlation, where there is no association.
    """

    p_value: np.ndarray
    variance: np.ndarray


def components(x: np.ndarray, root: np.ndarray, basis: np.ndarray) -> list[np.ndarray]:
    """Return bands of orthonormal quantities ``(n, m)`` that follow the state: its components, and their products.

    Components have a basis taken out, and come by their variance; products those of lower degree. There are no more
    than a third as many as cells.

    Parameters
    ----------
    x
        States ``(n, d)``.
    root
        Square roots of the weights of cells ``(n,)``.
    basis
        What is accounted for, orthonormal ``(n, r)``.

    Examples
    --------
    >>> x, root = np.random.default_rng(0).normal(size=(100, 3)), np.full(100, 0.1)
    >>> found = components(x, root, root[:, None])
    >>> [band.shape for band in found]
    [(100, 3), (100, 6), (100, 10), (100, 6)]
    """
    room = (len(x) - basis.shape[1]) // _FEWEST
    linear = _orthonormal(root[:, None] * (x - x.mean(axis=0)).astype(np.float64), basis)[:, : max(1, room)]
    found = [
        linear[:, band] for band in np.array_split(np.arange(linear.shape[1]), max(1, round(linear.shape[1] / BAND)))
    ]
    scaled, before = linear / np.maximum(root, 1e-12)[:, None], np.concatenate([basis, linear], axis=1)
    for degree in DEGREES:
        k = max(k for k in range(1, MOST + 1) if comb(k + degree - 1, degree) <= MOST)
        of = list(combinations_with_replacement(range(min(k, linear.shape[1])), degree))
        products = np.stack([root * scaled[:, one].prod(axis=1) for one in of], axis=1)
        products = _orthonormal(products / np.linalg.norm(products, axis=0), before)
        if before.shape[1] + products.shape[1] <= room:
            found.append(products)
            before = np.concatenate([before, products], axis=1)
    return found


def followed(y: np.ndarray, bands: list[np.ndarray], n: float) -> list[np.ndarray]:
    """Return the bands that a quantity ``(n,)`` follows more than one of so many independent cells would by chance."""
    from scipy.stats import f

    y = y / max(float(np.linalg.norm(y)), 1e-300)
    share = np.array([np.square(band.T @ y).sum() for band in bands])
    size = np.array([band.shape[1] for band in bands])
    free, rest = max(n - size.sum(), 1.0), max(1 - share.sum(), 1e-12)
    chosen = f.sf(share / np.maximum(size, 1) / rest * free, np.maximum(size, 1), free) < _LEVEL
    return [band for band, one in zip(bands, chosen, strict=True) if one]


def _orthonormal(values: np.ndarray, basis: np.ndarray) -> np.ndarray:
    left = values - basis @ (basis.T @ values)
    left -= basis @ (basis.T @ left)
    u, size, _ = np.linalg.svd(left, full_matrices=False)
    return np.asarray(u[:, size > _CONSTANT * max(float(np.linalg.norm(values)), 1e-300)])


def rotation_test(
    correlation: np.ndarray, along: list[np.ndarray], own: list[np.ndarray], n_rest: np.ndarray
) -> Chance:
    """Test correlations of genes with a quantity against those with a random one that follows the state as much.

    Under the null hypothesis the direction of the quantity among the components of each band is random (uniform), and
    how much of its variance lies in each band is as it is; what does not follow the components is as many independent
    cells as are given. Over all rotations the cosine of both directions in a band follows Student's t, so that none
    need be drawn; its normal scores are added, each with the share of the quantity that the band has.

    Parameters
    ----------
    correlation
        Of each gene with the quantity ``(genes,)``.
    along
        Correlations of genes with the components of each band ``(genes, m)``.
    own
        Correlations of the quantity with these ``(m,)``.
    n_rest
        Degrees of freedom of what does not follow the components ``(genes,)``.

    Source
    ------
    Langsrud 2005 for rotation tests; Stouffer and others 1949 for the weighted sum of scores.

    Examples
    --------
    >>> along, own = np.array([[0.6, 0.0, 0.1], [0.3, 0.3, 0.3]]), np.array([1.0, 0.0, 0.0])
    >>> found = rotation_test(np.array([0.6, 0.3]), [along], [own], np.full(2, 100.0))
    >>> found.p_value.round(2)
    array([0.01, 0.42])
    """
    from scipy.stats import norm

    score, explained = np.zeros(len(correlation)), np.zeros(len(correlation))
    variance, far, rest = np.zeros(len(correlation)), np.ones(len(correlation)), 1.0
    for gene, quantity in zip(along, own, strict=True):
        inside, size, share = gene @ quantity, (gene**2).sum(axis=1), float(quantity @ quantity)
        score += np.sqrt(share) * _normal(inside, size * share, len(quantity) - 1)
        variance, explained = variance + size * share / len(quantity), explained + inside
        far, rest = far - size, rest - share
    both = np.maximum(far, 0.0) * max(rest, 0.0)
    score += np.sqrt(max(rest, 0.0)) * _normal(correlation - explained, both, n_rest)
    return Chance(np.asarray(2.0 * norm.sf(np.abs(score))), np.asarray(variance + both / n_rest))


def _normal(inner: np.ndarray, both: np.ndarray, free: np.ndarray | int) -> np.ndarray:
    """Return the normal score of a cosine whose direction is random, in one dimension more than ``free``."""
    from scipy.stats import norm, t

    if np.ndim(free) == 0 and not free:
        return np.zeros_like(inner)
    cosine = np.abs(inner) / np.sqrt(np.maximum(both, 1e-300))
    # beyond 1 by rounding, or because what is left over is a difference
    tail = t.sf(np.sqrt(free) * cosine / np.sqrt(np.maximum(1 - cosine**2, 1e-12)), free)
    return np.asarray(np.sign(inner) * norm.isf(np.maximum(tail, 1e-300)))
