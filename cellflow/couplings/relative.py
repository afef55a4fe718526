"""Numbers in units of the data's costs, so that the same setting means the same on any data."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cellflow.couplings.cost import Cost
from cellflow.couplings.exact import Exact
from cellflow.couplings.problem import cost_matrix
from cellflow.signature import checked

SAMPLE = 1000
"""Points of each cloud from which the unit is found: medians and means of costs are then known to a few per cent."""
DEAREST = 0.01
"""Share of the mass whose travel counts as that which bounds it."""


@checked
@dataclass(frozen=True)
class Relative:
    """A number in units of the costs between two clouds.

    For an ``epsilon`` the unit is the median cost of all pairs; for a ``relaxation`` it is the mean cost of the exact
    plan, with the costliest 1 % capped; for the squared distance that is the mean squared travel of a point. Both are
    computed for each interval, on at most 1000 points of each cloud.

    Parameters
    ----------
    factor
        How many units.
    least
        Lower limit of the number, in units of the cost.

    Raises
    ------
    ValueError
        Unless the factor is finite and above 0, and ``least`` finite and not below 0.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> x = torch.tensor([[0.0], [1.0]])
    >>> for unit in (1.0, 100.0):
    ...     cf.couplings.Sinkhorn(cf.couplings.Relative(0.5))(unit * x, unit * x).dense()[0]
    tensor([0.4910, 0.0090], dtype=torch.float64)
    tensor([0.4910, 0.0090], dtype=torch.float64)
    """

    factor: float
    least: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.factor < math.inf or not 0 <= self.least < math.inf:
            raise ValueError(f"Expected a finite factor above 0, and a finite least of 0 or more; found {self}.")

    @checked
    def of(self, unit: float) -> float:
        """Return the number, in units of the cost.

        Examples
        --------
        >>> Relative(0.02).of(50.0)
        1.0
        """
        return float(max(self.factor * unit, self.least))


def sampled(weights: Tensor, most: int = SAMPLE) -> Tensor:
    """Return at most so many rows of a cloud, evenly spaced: couplings use no randomness.

    Parameters
    ----------
    weights
        Weights of its points ``(n,)``; points with weight 0 are left out.
    most
        Maximum number of rows.

    Examples
    --------
    >>> import torch
    >>> sampled(torch.tensor([1.0, 0.0, 1.0]))
    tensor([0, 2])
    """
    rows = weights.nonzero().squeeze(1)
    if len(rows) <= most:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, most, dtype=torch.float64, device=rows.device).round().long()]


def median_cost(cost: Cost, x0: Tensor, x1: Tensor, a: Tensor, b: Tensor) -> float:
    """Return the weighted median cost of joining a point of one cloud with one of the other.

    If it is 0, the mean is returned instead; if all points are the same, 1, as nothing depends on it then.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> weights = torch.ones(3, dtype=torch.float64)
    >>> median_cost(cf.couplings.SquaredEuclidean(), torch.zeros(3, 1), torch.full((3, 1), 2.0), weights, weights)
    4.0
    """
    rows, columns = sampled(a), sampled(b)
    costs = cost_matrix(cost, x0[rows], x1[columns]).flatten()
    weights = torch.outer(a[rows], b[columns]).flatten()
    ordered, order = costs.sort()
    reached = weights[order].cumsum(dim=0)
    median = ordered[torch.searchsorted(reached, reached[-1] / 2)]
    return float(median) or float(weights @ costs / weights.sum()) or 1.0


def mean_travel(cost: Cost, x0: Tensor, x1: Tensor, a: Tensor, b: Tensor) -> float:
    """Return the mean cost of the exact plan between two weighted clouds: the mean squared travel of a point.

    The costliest 1 % of the mass is capped at the cost that bounds it: one outlying cell says nothing about the others.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> x, weights = torch.tensor([[0.0], [9.0]]), torch.ones(2, dtype=torch.float64)
    >>> mean_travel(cf.couplings.SquaredEuclidean(), x, x + 2, weights, weights)
    4.0
    """
    rows, columns = sampled(a), sampled(b)
    x0, x1 = x0[rows], x1[columns]
    i, j, masses = Exact(cost)(x0, x1, a[rows], b[columns]).pairs
    costs = cost_matrix(cost, x0, x1)[i, j]
    ordered, order = costs.sort()
    reached = masses[order].cumsum(dim=0)
    most = ordered[torch.searchsorted(reached, (1 - DEAREST) * reached[-1]).clamp(max=len(ordered) - 1)]
    return float(masses @ costs.clamp(max=most) / masses.sum())
