"""Static plans between two snapshots: costs, and settings in units of them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import cellflow as cf
from benchmarks.couplings.course import Course
from cellflow.couplings import DensePlan, Plan, Sinkhorn, SparsePlan, SquaredEuclidean, UnbalancedSinkhorn

Matching = Callable[[Course, int], Plan]
"""From snapshots, and the number of one of them, to a plan from it to the next one."""
MOST = 2000
"""Cells of each snapshot on which the travel of the exact plan is estimated."""
GRAPH = 10
"""Neighbours of each cell in the graph of all snapshots."""


@dataclass(frozen=True)
class Matched:
    """A plan of one kind, with settings in units of the costs of its interval.

    ``epsilon`` is in units of the median cost, ``None`` for an exact plan; ``relaxation`` in units of the mean cost of
    the exact plan, ``None`` for a balanced one. ``partial`` is the share of the mass that is moved at all.
    """

    cost: str = "squared distance"
    epsilon: float | None = None
    relaxation: float | None = None
    partial: float | None = None

    def __call__(self, course: Course, k: int) -> Plan:
        """Match snapshot ``k`` with the next one."""
        x0, x1, costs = course.tensor(k), course.tensor(k + 1), COSTS[self.cost](course, k)
        given = _Known(costs)
        if self.partial is not None:
            import ot

            even = (np.full(n, 1 / n) for n in costs.shape)
            moved = ot.partial.partial_wasserstein(*even, costs.numpy(), m=self.partial)
            return DensePlan(torch.from_numpy(np.maximum(moved, 0)))
        if self.epsilon is None:
            return _exact(costs)
        epsilon = self.epsilon * float(costs.median())
        if self.relaxation is None:
            return Sinkhorn(epsilon, cost=given)(x0, x1)
        return UnbalancedSinkhorn(epsilon, self.relaxation * travel(x0, x1, costs), cost=given)(x0, x1)


@dataclass(frozen=True)
class FromLibrary:
    """A coupling of cellflow as it is, on the states."""

    coupling: cf.couplings.CouplingLike

    def __call__(self, course: Course, k: int) -> Plan:
        """Match snapshot ``k`` with the next one."""
        return cf.couplings.resolve(self.coupling)(course.tensor(k), course.tensor(k + 1))


@dataclass(frozen=True, eq=False)
class _Known:
    """Costs that are known already."""

    costs: Tensor

    def __call__(self, x0: Tensor, x1: Tensor) -> Tensor:
        return self.costs


def travel(x0: Tensor, x1: Tensor, costs: Tensor) -> float:
    """Return the mean cost of the exact plan between at most ``MOST`` cells of either side."""
    rng = cf.generator(seed=0)
    i, j = (torch.randperm(len(x), generator=rng)[:MOST] for x in (x0, x1))
    return float(_exact(costs[i][:, j]).cost or 0.0)


def _exact(costs: Tensor) -> Plan:
    """Return the exact plan by the network simplex, which on thousands of points in the plane takes seconds."""
    import ot

    n, m = costs.shape
    even = np.full(n, 1 / n), np.full(m, 1 / m)
    found = torch.from_numpy(ot.emd(*even, (costs / costs.max()).numpy(), numItermax=10_000_000))
    i, j = found.nonzero(as_tuple=True)
    return SparsePlan(i, j, found[i, j], shape=(n, m), cost=float(found[i, j] @ costs[i, j]))


def squared(course: Course, k: int) -> Tensor:
    """Return squared distances."""
    return SquaredEuclidean()(course.tensor(k), course.tensor(k + 1))


def whitened(course: Course, k: int) -> Tensor:
    """Return squared distances after all cells of all snapshots were given unit covariance."""
    pooled = np.concatenate(course.clouds)
    values, vectors = np.linalg.eigh(np.cov(pooled.T).reshape(pooled.shape[1], -1))
    turn = torch.from_numpy(vectors / np.sqrt(np.maximum(values, values.max() * 1e-9)))
    return SquaredEuclidean()(course.tensor(k) @ turn, course.tensor(k + 1) @ turn)


def geodesic(course: Course, k: int) -> Tensor:
    """Return squared shortest paths in the graph of nearest neighbours of all cells.

    Between cells that no path joins it is the longest one that there is, and the distance besides.
    """
    from scipy.sparse.csgraph import dijkstra
    from sklearn.neighbors import kneighbors_graph

    pooled = np.concatenate(course.clouds)
    graph = kneighbors_graph(pooled, GRAPH, mode="distance")
    starts = np.cumsum([0, *map(len, course.clouds)])
    here, there = np.arange(starts[k], starts[k + 1]), slice(starts[k + 1], starts[k + 2])
    parts = np.array_split(here, max(1, len(here) // 500))
    paths = np.concatenate([dijkstra(graph, directed=False, indices=part)[:, there] for part in parts])
    apart, straight = ~np.isfinite(paths), squared(course, k).sqrt().numpy()
    paths[apart] = paths[~apart].max(initial=0.0) + straight[apart]
    return torch.from_numpy(paths).square()


def label_aware(course: Course, k: int) -> Tensor:
    """Return squared distances, and the mean cost of the exact plan besides where labels differ."""
    if course.labels is None:
        raise ValueError(f"{course.name} has no labels that a cost may see.")
    costs = squared(course, k)
    differ = torch.from_numpy(course.labels[k][:, None] != course.labels[k + 1][None, :])
    return costs + travel(course.tensor(k), course.tensor(k + 1), costs) * differ


COSTS: dict[str, Callable[[Course, int], Tensor]] = {
    "squared distance": squared,
    "whitened": whitened,
    "geodesic": geodesic,
    "label-aware": label_aware,
}
