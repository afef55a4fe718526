"""Distances between two clouds of points, estimated from samples.

Clouds are ``(n, d)`` and ``(m, d)``, in any form of `cellflow.cells.as_states`; weights, where taken, are one
nonnegative number a point and are scaled to sum to 1. Everything is computed in float64.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from cellflow.cells.states import StatesLike, as_states
from cellflow.couplings import Euclidean, Exact, SquaredEuclidean
from cellflow.couplings.draws import systematic
from cellflow.couplings.problem import check_clouds, weights_of
from cellflow.seeds import precise_device
from cellflow.shapes import finite
from cellflow.signature import checked

_PAIRS_AT_ONCE = 2**22  # 32 MiB of float64

Cloud = StatesLike


@checked
def wasserstein(
    x: Cloud, y: Cloud, *, order: int = 1, weights_x: Cloud | None = None, weights_y: Cloud | None = None
) -> float:
    """Return the exact Wasserstein distance, of ``order`` 1 or 2, with the Euclidean distance as ground cost.

    Parameters
    ----------
    x, y
        The clouds ``(n, d)`` and ``(m, d)``, of any size: exact by `cellflow.couplings.Exact`, whose memory grows with
        the points. Seconds at 4000 points each, minutes at 20,000.
    order
        1 for the mean distance travelled, 2 for the root of the mean squared distance.
    weights_x, weights_y
        Weights ``(n,)`` and ``(m,)``; equal weights if not given.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    >>> wasserstein(x, x + torch.tensor([3.0, 4.0]))
    5.0
    """
    _check_order(order)
    (x, a), (y, b) = _measures(x, y, weights_x, weights_y)
    i, j, masses = Exact(Euclidean() if order == 1 else SquaredEuclidean())(x, y, a, b).pairs
    # Summed over the pairs themselves, which the product form of squared distances rounds.
    return math.pow(float(masses @ (x[i] - y[j]).norm(dim=1) ** order), 1 / order)


@checked
def population_distance(
    x: Cloud,
    y: Cloud,
    *,
    weights_x: Cloud | None = None,
    weights_y: Cloud | None = None,
    most: int = 2000,
    generator: torch.Generator,
) -> float:
    """Return the exact W1 between two weighted populations, each thinned evenly if it is large.

    `cellflow.tl.validate` and the ``score`` of estimators compare predictions with measured cells in this way. W1
    depends on the number of points: compare like with like.

    Parameters
    ----------
    x, y
        The populations ``(n, d)`` and ``(m, d)``.
    weights_x, weights_y
        Weights ``(n,)`` and ``(m,)``; equal weights if not given.
    most
        Maximum number of points of either to compare: exact transport between 2000 and 2000 takes about a second.
    generator
        Draws the points of a larger population, see `thinned`.

    Examples
    --------
    >>> import torch
    >>> from cellflow.seeds import generator
    >>> x, weights = torch.tensor([[0.0], [1.0]]), torch.tensor([3.0, 1.0])
    >>> round(population_distance(x, torch.zeros(5000, 1), weights_x=weights, generator=generator(seed=0)), 6)
    0.25
    """
    (x, a), (y, b) = (
        thinned(points, weights, most, generator=generator) for points, weights in ((x, weights_x), (y, weights_y))
    )
    return wasserstein(x, y, weights_x=a, weights_y=b)


@checked
def thinned(
    x: Cloud, weights: Cloud | None = None, most: int = 2000, *, generator: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """Return a weighted population as it is or, if it is larger, ``most`` points of equal weight that represent it.

    Each point is drawn in proportion to its weight, rounded up or down; points of equal weight at most once.

    Parameters
    ----------
    x
        Points ``(n, ...)``.
    weights
        Weights ``(n,)``; equal weights if not given.
    most
        Maximum number of points to return.
    generator
        Draws the points.

    Returns
    -------
    Tensor, Tensor or ``None``
        Points ``(k, ...)``, and their weights ``(k,)``, ``None`` if all are equal.

    Source
    ------
    Madow and Madow 1944 (systematic sampling), in random order.

    Examples
    --------
    >>> import torch
    >>> from cellflow.seeds import generator
    >>> thinned(torch.arange(4.0), torch.tensor([1.0, 0.0, 0.0, 1.0]), 2, generator=generator(seed=0))[0].sort().values
    tensor([0., 3.])
    """
    if most < 1:
        raise ValueError(f"Expected most >= 1 points; found {most}.")
    points = finite(as_states(x, what="`x`"), what="`x`")
    known = weights_of(None if weights is None else as_states(weights, what="`weights`"), points, name="weights")
    if len(points) <= most:
        return points, None if weights is None else known
    order = torch.randperm(len(points), generator=generator, device=generator.device).to(points.device)
    return points[order[systematic(known[order].cumsum(0), most, generator=generator)]], None


@checked
def sliced_wasserstein(
    x: Cloud,
    y: Cloud,
    *,
    generator: torch.Generator,
    n_projections: int = 50,
    order: int = 2,
    weights_x: Cloud | None = None,
    weights_y: Cloud | None = None,
) -> float:
    """Return the Wasserstein distance of random one-dimensional projections, averaged as ``mean(W^order)^(1/order)``.

    Parameters
    ----------
    x, y
        The clouds ``(n, d)`` and ``(m, d)``.
    generator
        Draws the directions.
    n_projections
        The number of directions.
    order
        1 or 2, as in `wasserstein`.
    weights_x, weights_y
        Weights ``(n,)`` and ``(m,)``; equal weights if not given.

    Source
    ------
    Bonneel et al. 2015, "Sliced and Radon Wasserstein barycenters of measures".

    Examples
    --------
    >>> import torch
    >>> from cellflow.seeds import generator
    >>> x = torch.tensor([[0.0], [1.0]])  # on a line every projection is the line
    >>> sliced_wasserstein(x, x + 3, generator=generator(seed=0))
    3.0
    """
    _check_order(order)
    if n_projections < 1:
        raise ValueError(f"Expected at least one projection; found n_projections={n_projections}.")
    (x, a), (y, b) = _measures(x, y, weights_x, weights_y)
    # One direction at a time: sorting dominates, and memory stays that of one column.
    powers = [_on_a_line(x @ line, y @ line, a, b, order) for line in _directions(x, n_projections, generator)]
    return math.pow(float(torch.stack(powers).mean()), 1 / order)


@checked
def maximum_mean_discrepancy(
    x: Cloud, y: Cloud, *, weights_x: Cloud | None = None, weights_y: Cloud | None = None
) -> float:
    """Return the squared maximum mean discrepancy under a sum of five Gaussian kernels ``exp(-d^2 / h_i)``.

    The bandwidths are ``h 2^i``, ``i = 0..4``, where ``h`` is a quarter of the mean squared distance between two
    different points of the pooled clouds, whatever their weights. The estimate is the biased one, which includes each
    point paired with itself: never negative, and zero only between equal clouds.

    Source
    ------
    Gretton et al. 2012, "A kernel two-sample test", equation 5.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    >>> maximum_mean_discrepancy(x, x), round(maximum_mean_discrepancy(x, x + 5), 3)
    (0.0, 6.861)
    """
    (x, a), (y, b) = _measures(x, y, weights_x, weights_y)
    # The mean squared distance between different points is twice the total variance.
    bandwidth = float(2 * torch.cat([x, y]).var(dim=0).sum() / 4)
    if bandwidth == 0:
        return 0.0  # all points are one

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        widest = torch.exp(SquaredEuclidean()(x, y) / (-16 * bandwidth))
        return sum((widest ** (2**i) for i in range(1, 5)), start=widest)

    return max(0.0, _mean(kernel, x, x, a, a) + _mean(kernel, y, y, b, b) - 2 * _mean(kernel, x, y, a, b))


@checked
def energy_distance(x: Cloud, y: Cloud, *, weights_x: Cloud | None = None, weights_y: Cloud | None = None) -> float:
    """Return ``2 E|x - y| - E|x - x'| - E|y - y'|``, in units of the data: the square of scipy's energy distance.

    Source
    ------
    Székely and Rizzo 2013, "Energy statistics: a class of statistics based on distances", equation 2.

    Examples
    --------
    >>> import torch
    >>> energy_distance(torch.tensor([[0.0]]), torch.tensor([[3.0]]))
    6.0
    """
    (x, a), (y, b) = _measures(x, y, weights_x, weights_y)
    distance = Euclidean()
    return 2 * _mean(distance, x, y, a, b) - _mean(distance, x, x, a, a) - _mean(distance, y, y, b, b)


@checked
def split_half_floor(
    x: Cloud, *, generator: torch.Generator, order: int = 1, repeats: int = 5, weights: Cloud | None = None
) -> float:
    """Return the Wasserstein distance that sampling alone causes: between random halves of one cloud, averaged.

    A prediction at about this distance from ``n / 2`` observed points is indistinguishable from them. ``weights``
    ``(n,)`` are equal if not given.

    Examples
    --------
    >>> import torch
    >>> from cellflow.seeds import generator
    >>> x = torch.randn(100, 2, generator=generator(seed=0))
    >>> 0.1 < split_half_floor(x, generator=generator(seed=0)) < 0.6
    True
    """
    x = as_states(x, what="`x`")
    known = weights_of(None if weights is None else as_states(weights, what="`weights`"), x, name="weights")
    half = x.shape[0] // 2
    if half < 1 or repeats < 1:
        raise ValueError(f"Expected two points or more and repeats >= 1; found {x.shape[0]} and {repeats}.")
    distances = []
    for _ in range(repeats):
        order_of_draw = torch.randperm(x.shape[0], generator=generator, device=generator.device).to(x.device)
        first, second = order_of_draw[:half], order_of_draw[half : 2 * half]
        a, b = known[first], known[second]
        distances.append(wasserstein(x[first], x[second], order=order, weights_x=a, weights_y=b))
    return sum(distances) / repeats


def _check_order(order: int) -> None:
    if order not in (1, 2):
        raise ValueError(f"Expected order 1 or 2; found {order!r}.")


def _measures(
    x: Cloud, y: Cloud, weights_x: Cloud | None, weights_y: Cloud | None
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    x, y = as_states(x, what="`x`"), as_states(y, what="`y`")
    x, y = x.to(precise_device(x.device)), y.to(precise_device(y.device))
    check_clouds(x, y)
    if x.ndim != 2:
        raise ValueError(f"Expected clouds (n, d); found shape {tuple(x.shape)}. A line of points is (n, 1).")
    given_x, given_y = (w if w is None else as_states(w, what="the weights") for w in (weights_x, weights_y))
    a, b = weights_of(given_x, x, name="weights_x"), weights_of(given_y, y, name="weights_y")
    return (x.detach().double(), a / a.sum()), (y.detach().double(), b / b.sum())


def _directions(x: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Return ``(n, d)`` unit vectors, uniform on the sphere."""
    normals = torch.randn(n, x.shape[1], generator=generator, device=generator.device, dtype=x.dtype)
    return torch.nn.functional.normalize(normals, dim=1).to(x.device)


def _on_a_line(x: Tensor, y: Tensor, a: Tensor, b: Tensor, order: int) -> Tensor:
    """Return ``W^order`` of two weighted samples on a line: the integral over the difference of their quantiles."""
    (x, rank_x), (y, rank_y) = x.sort(), y.sort()
    until_x, until_y = a[rank_x].cumsum(0), b[rank_y].cumsum(0)
    levels = torch.cat([until_x, until_y]).sort().values
    middles = levels - levels.diff(prepend=levels.new_zeros(1)) / 2
    quantile_x = x[torch.searchsorted(until_x, middles).clamp(max=len(x) - 1)]
    quantile_y = y[torch.searchsorted(until_y, middles).clamp(max=len(y) - 1)]
    return ((quantile_x - quantile_y).abs() ** order) @ levels.diff(prepend=levels.new_zeros(1))


def _mean(function: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> float:
    """Return the weighted mean of ``function`` over all pairs, some rows at a time."""
    rows = max(1, _PAIRS_AT_ONCE // len(y))
    parts = [part @ (function(some, y) @ b) for some, part in zip(x.split(rows), a.split(rows), strict=True)]
    return float(torch.stack([part.squeeze() for part in parts]).sum())
