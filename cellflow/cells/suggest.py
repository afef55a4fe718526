"""A noise scale for Brownian bridges, and a cost of growth for unbalanced plans, suggested from the data."""

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

import torch
from torch import Tensor

from cellflow.couplings.cost import SquaredEuclidean
from cellflow.couplings.problem import check_clouds
from cellflow.couplings.relative import mean_travel
from cellflow.couplings.unbalanced import RELAXATION
from cellflow.signature import checked

SHARE = 0.05
"""Entropic regularisation as a fraction of the typical cost: the default of Waddington-OT."""
SAMPLE = 1000
"""Points of each snapshot that are compared: their median squared distance is known to a few per cent."""


@checked
def suggest_sigma(
    snapshots: Sequence[Tensor], times: Sequence[float], *, share: float = SHARE, generator: torch.Generator
) -> float:
    """Suggest the sigma of a `cellflow.paths.BrownianBridge` through snapshots, in units of their states.

    The rule: the noise over an interval should correspond to the entropic regularisation that is usual for cells, a
    twentieth of the typical cost. Over an interval of model time ``d`` a bridge of scale sigma has ``epsilon = 2
    sigma^2 d`` in units of the squared distance, so ``sigma = sqrt(share * cost / (2 d))``, with the median squared
    distance between the points of both snapshots as the cost; the median over all intervals is suggested. The result
    scales with the data and does not depend on the unit of time. It is a starting point: snapshots alone do not
    determine how noisy single trajectories are. With less noise trajectories follow the flow, with more fates become
    less certain.

    Parameters
    ----------
    snapshots
        Clouds of points, ``(n_k, ...)`` each.
    times
        Time of each snapshot, increasing, in any unit.
    share
        Entropic regularisation as a fraction of the cost.
    generator
        Draws the points that are compared, of large snapshots.

    Raises
    ------
    ValueError
        When there are fewer than two snapshots, times do not increase, the share is not above 0, or all points of
        every interval coincide.

    Source
    ------
    Schiebinger et al. 2019 (Waddington-OT) for the share of 0.05.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> clouds = [torch.zeros(5, 1), torch.full((5, 1), 2.0)]
    >>> round(suggest_sigma(clouds, [0.0, 24.0], generator=cf.generator(seed=0)), 4)  # sqrt(0.05 * 4 / 2)
    0.3162
    """
    snapshots = list(snapshots)
    if len(snapshots) != len(times) or len(snapshots) < 2:
        raise ValueError(f"Expected two or more snapshots with a time each; found {len(snapshots)} and {len(times)}.")
    for cloud in snapshots:
        check_clouds(cloud, snapshots[0])
    if not all(math.isfinite(time) for time in times) or any(later <= earlier for earlier, later in pairwise(times)):
        raise ValueError(f"Expected times that increase; found {list(times)}.")
    if not 0 < share < math.inf:
        raise ValueError(f"Expected a finite share > 0; found {share}.")
    whole = times[-1] - times[0]
    some = [_some(cloud, generator) for cloud in snapshots]
    found = [
        math.sqrt(share * _cost(x0, x1) * whole / (2 * (stop - start)))
        for (x0, x1), (start, stop) in zip(pairwise(some), pairwise(times), strict=True)
    ]
    if median(found) == 0:
        raise ValueError("Expected points that differ; found snapshots that all lie on one point: there is no noise.")
    return median(found)


@checked
def suggest_relaxation(snapshots: Sequence[Tensor], *, factor: float = RELAXATION.factor) -> list[float]:
    """Suggest what a change of mass costs in each interval: a share of the mean squared travel of the exact plan.

    It is the number that ``relaxation="auto"`` of `cellflow.couplings.UnbalancedSinkhorn` finds for the source, where
    moreover the motion that neighbours share is free. Where it is not, take a ``factor`` of 1 to 2: below, travel is
    taken for death and birth. To have it found in every interval, give the coupling ``Relative(factor)``.

    Parameters
    ----------
    snapshots
        Clouds of points, ``(n_k, ...)`` each; at most 1000 of each are compared.
    factor
        Share of the mean squared travel.

    Returns
    -------
    list
        One number for each interval, in squared units of the points.

    Raises
    ------
    ValueError
        When there are fewer than two snapshots.

    Source
    ------
    Measured on closed forms and real cells, see `cellflow.couplings.unbalanced`.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> cloud = torch.tensor([[0.0], [9.0]])
    >>> suggest_relaxation([cloud, cloud + 2, cloud + 3], factor=1.0)
    [4.0, 1.0]
    """
    snapshots = list(snapshots)
    if len(snapshots) < 2:
        raise ValueError(f"Expected two or more snapshots; found {len(snapshots)}.")
    if not 0 < factor < math.inf:
        raise ValueError(f"Expected a finite factor > 0; found {factor}.")
    for cloud in snapshots:
        check_clouds(cloud, snapshots[0])
    weights = [torch.full((len(cloud),), 1 / len(cloud), dtype=torch.float64) for cloud in snapshots]
    return [
        factor * mean_travel(SquaredEuclidean(), x0, x1, a, b)
        for (x0, x1), (a, b) in zip(pairwise(snapshots), pairwise(weights), strict=True)
    ]


@checked
def median_costs(snapshots: Sequence[Tensor], *, generator: torch.Generator) -> list[float]:
    """Return the median squared distance between the points of neighbouring snapshots, of at most 1000 each.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> median_costs([torch.zeros(5, 1), torch.full((5, 1), 2.0)], generator=cf.generator(seed=0))
    [4.0]
    """
    some = [_some(cloud, generator) for cloud in snapshots]
    return [_cost(x0, x1) for x0, x1 in pairwise(some)]


def _some(cloud: Tensor, generator: torch.Generator) -> Tensor:
    rows = torch.randperm(len(cloud), generator=generator)[:SAMPLE]
    return cloud[rows.to(cloud.device)].reshape(len(rows), -1).double()


def _cost(x0: Tensor, x1: Tensor) -> float:
    """Return the median squared distance between the points of two clouds."""
    return torch.cdist(x0, x1).square().median().item()
