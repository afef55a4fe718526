"""Correlations of many genes with one quantity, given others, and their significance when neighbours are alike."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from cellflow.cells.expression import AT_ONCE, Expression
from cellflow.tl.rotations import components, followed, rotation_test

SAMPLE = 1000
"""Cells whose likeness with their neighbours is looked at."""
NEAREST = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Shares of the pairs of cells, the nearest first, that bound the classes of distance."""
_CONSTANT = 1e-10
"""Variance, relative to the mean square, below which a gene or the quantity does not vary but for rounding."""


class Association(NamedTuple):
    """Statistics of each gene, ``(genes,)`` each; missing (NaN) for genes that do not vary.

    Attributes
    ----------
    correlation
        With the quantity.
    partial
        The same, given the covariates.
    n_effective
        How many independent cells would have correlations as large by chance.
    p_value, q_value
        Of a partial correlation no larger than with a random quantity that follows the state as much: two-sided, and
        the false discovery rate (Benjamini and Hochberg).
    """

    correlation: np.ndarray
    partial: np.ndarray
    n_effective: np.ndarray
    p_value: np.ndarray
    q_value: np.ndarray


def associate(
    genes: Expression,
    rows: np.ndarray,
    y: np.ndarray,
    given: np.ndarray,
    x: np.ndarray,
    *,
    weight: np.ndarray,
    rng: np.random.Generator,
) -> Association:
    """Correlate genes with a quantity of cells.

    Parameters
    ----------
    genes
        Expression of all cells.
    rows
        The cells, positions ``(n,)``.
    y
        The quantity ``(n,)``.
    given
        Covariates that are regressed out, ``(n, k)``; without a constant.
    x
        States of the cells ``(n, d)``: cells with near states are not independent.
    weight
        Weight of each cell ``(n,)``.
    rng
        Draws the cells that are compared with their neighbours.

    Raises
    ------
    ValueError
        When expression is not finite.

    Source
    ------
    Clifford, Richardson and Hemon 1989, equation 2.1, for the effective number of cells; Langsrud 2005 for rotation
    tests; Benjamini and Hochberg 1995.

    Examples
    --------
    >>> import pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> y, noise = rng.normal(size=(2, 500))
    >>> genes = Expression(np.stack([y + noise, noise, 0 * y], axis=1), pd.Index(["a", "b", "c"]), "adata.X")
    >>> cells = np.arange(500)
    >>> found = associate(genes, cells, y, np.zeros((500, 0)), noise[:, None], weight=np.ones(500), rng=rng)
    >>> found.partial.round(1).tolist(), found.q_value.round(1).tolist()
    ([0.7, 0.0, nan], [0.0, 0.9, nan])
    """
    from scipy.stats import false_discovery_control, norm

    root = np.sqrt(weight / weight.sum())
    basis = _basis(root, given)
    alone, left = (_residual(root * y, part) for part in (basis[:, :1], basis))
    n = 1 / float(np.sum((root**2) ** 2))  # Kish 1965
    bands = followed(left, components(x, root, basis), n - basis.shape[1])
    whole = np.concatenate([basis, *bands], axis=1)
    sums, squares, each = _moments(genes, rows, np.stack([alone, left], axis=1) * root[:, None], whole * root[:, None])
    inner, parts = each[:, : basis.shape[1]], each[:, basis.shape[1] :]
    correlation = _ratio(sums[:, 0], squares - inner[:, 0] ** 2, alone @ alone, squares)
    partial = _ratio(sums[:, 1], squares - (inner**2).sum(axis=1), left @ left, squares)
    some = np.sort(rng.permutation(len(rows))[:SAMPLE])
    n = 1 / float(np.sum((root**2) ** 2))  # Kish 1965
    near = _effective(genes, rows[some], y[some], given[some], x[some], n)
    free = np.maximum(near - basis.shape[1] - 1, 1.0)
    vary = np.sqrt(np.where(np.isnan(partial), np.nan, squares - (inner**2).sum(axis=1)))[:, None]
    own = left / max(float(np.linalg.norm(left)), 1e-300)
    ends = np.cumsum([0, *(band.shape[1] for band in bands)])
    along = [parts[:, start:stop] / vary for start, stop in pairwise(ends)]
    by_chance = rotation_test(partial, along, [band.T @ own for band in bands], free)
    score = np.abs(np.arctanh(np.clip(partial, -1, 1) * (1 - 1e-12))) * np.sqrt(np.maximum(free - 1, 1e-9))
    p_value = np.maximum(by_chance.p_value, 2.0 * norm.sf(score))  # both null hypotheses are to be rejected
    effective = np.minimum(basis.shape[1] + 1 + 1 / np.maximum(by_chance.variance, 1 / n), near)
    p_value[np.isnan(partial)] = effective[np.isnan(partial)] = np.nan
    q_value, known = np.full(len(partial), np.nan), np.isfinite(p_value)
    if known.any():
        q_value[known] = false_discovery_control(p_value[known])
    return Association(correlation, partial, effective, p_value, q_value)


def _basis(root: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis ``(n, r)`` of a constant and what is given, weighted; the constant first."""
    columns = [root / np.linalg.norm(root)]
    for column in given.T:
        left = root * (column - column.mean())
        size = np.linalg.norm(left)
        for _ in range(2):
            for other in columns:
                left = left - (left @ other) * other
        if float(np.linalg.norm(left)) > 1e-8 * max(float(size), 1e-300):
            columns.append(left / np.linalg.norm(left))
    return np.stack(columns, axis=1)


def _residual(y: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Return what is left of a quantity, exactly 0 where that is rounding."""
    left = np.asarray(y - basis @ (basis.T @ y))
    return left if left @ left > _CONSTANT * (y @ y) else np.zeros_like(left)


def _moments(
    genes: Expression, rows: np.ndarray, left: np.ndarray, basis: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return sums of genes times quantities ``(genes, 2)``, of their squares ``(genes,)``, and times a basis."""
    sums, squares = np.zeros((len(genes.names), left.shape[1])), np.zeros(len(genes.names))
    inner = np.zeros((len(genes.names), basis.shape[1]))
    for some, values in genes.parts(rows):
        square = values.multiply(values) if hasattr(values, "multiply") else values**2
        sums += values.T @ left[some]
        squares += square.T @ basis[some, 0]  # which are the weights
        inner += values.T @ basis[some]
    broken = ~np.isfinite(squares)
    if broken.any():
        raise ValueError(
            f"Expected finite expression in `{genes.where}`; found NaN or infinity in {broken.sum()} genes, such as "
            f"{str(genes.names[np.flatnonzero(broken)[0]])!r}. Remove these genes, or impute."
        )
    return sums, squares, inner


def _ratio(sums: np.ndarray, variance: np.ndarray, of_y: float, squares: np.ndarray) -> np.ndarray:
    """Return correlations, missing where a gene or the quantity does not vary."""
    vary = (variance > _CONSTANT * squares) & (of_y > 0)
    found = np.full(len(sums), np.nan)
    found[vary] = np.clip(sums[vary] / np.sqrt(variance[vary] * of_y), -1.0, 1.0)
    return found


def _effective(
    genes: Expression, rows: np.ndarray, y: np.ndarray, given: np.ndarray, x: np.ndarray, n: float
) -> np.ndarray:
    """Return how many independent cells a correlation is worth for each gene, at most ``n``.

    The variance of a correlation of two quantities that both resemble themselves in neighbours is the mean over pairs
    of cells of the product of their autocorrelations, which depend on the distance. The part of a gene that goes with
    the quantity is left out first: alike in near cells is then what else it follows.
    """
    own = _unit(_residual(y, _basis(np.ones(len(rows)), given))[:, None])
    basis = _basis(np.ones(len(rows)), np.column_stack([given, y]))
    classes = _classes(x)
    of_y = [float((own.T @ (near @ own)).item()) for near, _ in classes]
    found = np.full(len(genes.names), float(n))
    step = max(1, AT_ONCE // max(len(rows), 1) // 4)
    for start in range(0, len(found), step):
        columns = slice(start, start + step)
        values = genes.dense(rows, columns)
        values = _unit(values - basis @ (basis.T @ values)).astype(np.float32)
        variance = np.full(values.shape[1], 1 / n)
        for (near, pairs), alike in zip(classes, of_y, strict=True):
            itself = np.einsum("ij,ij->j", values, near @ values)
            # Autocorrelations are m / pairs times these sums, and a class holds pairs / m^2 of all pairs.
            variance += itself * alike / pairs
        found[columns] = 1 + 1 / np.maximum(variance, 1 / n)
    return np.asarray(np.minimum(found, n))


def _classes(x: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """Return for each class of distance which pairs of cells are in it ``(m, m)``, and how many."""
    from scipy.spatial.distance import pdist, squareform

    apart = pdist(np.asarray(x, dtype=np.float64))
    found, low = [], -1.0
    whole = squareform(apart)
    np.fill_diagonal(whole, np.inf)
    for high in np.quantile(apart, NEAREST) if len(apart) else ():
        near = ((whole > low) & (whole <= high)).astype(np.float32)
        if pairs := int(near.sum()):
            found.append((near, pairs))
        low = high
    return found


def _unit(values: np.ndarray) -> np.ndarray:
    """Return columns of length 1; those without length stay 0."""
    size = np.linalg.norm(values, axis=0)
    return np.asarray(values / np.where(size > 0, size, 1.0))
