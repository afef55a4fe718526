"""A Riemannian metric learned from points, by radial basis functions: steps are short near them, long elsewhere."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cellflow.seeds import draw_seed
from cellflow.shapes import as_states, check_points, finite
from cellflow.signature import checked
from cellflow.time_laws import LARGEST

LEARNED_FROM = 20_000
"""Most points from which a metric is learned; drawn at random where there are more."""


@checked
@dataclass(frozen=True, eq=False)
class RBFMetric:
    r"""A Riemannian metric, a sum of radial basis functions: steps are short near the data and long elsewhere.

    The squared length of a step is multiplied by :math:`1 / (h(x) + \epsilon)`, where the sum of Gaussian bumps
    :math:`h(x) = \sum_k w_k \exp(-|x - c_k|^2 / 2 r_k^2)` is near 1 on the data and 0 far away.

    Parameters
    ----------
    centres
        Centres of the bumps, ``(k, d)``.
    radii, weights
        Their standard deviations and heights, both ``(k,)``.
    floor
        The number epsilon: far from the data, squared lengths are multiplied by ``1 / floor``.

    Source
    ------
    Kapusniak et al. 2024, section 4.2 (RBF); Arvanitidis et al. 2021.

    Examples
    --------
    >>> import torch
    >>> metric = RBFMetric(torch.zeros(1, 2), torch.ones(1), torch.ones(1), floor=0.25)
    >>> metric(torch.tensor([[0.0, 0.0], [90.0, 0.0]]))
    tensor([0.8000, 4.0000])
    """

    centres: Tensor
    radii: Tensor
    weights: Tensor
    floor: float

    def __post_init__(self) -> None:
        for name, part, axes in (("centres", self.centres, 2), ("radii", self.radii, 1), ("weights", self.weights, 1)):
            check_points(part, name=name, axes=axes)
        if not len(self.centres) == len(self.radii) == len(self.weights) or not 0 < self.floor < float("inf"):
            raise ValueError(
                f"Expected a radius and a weight for each centre, and a finite floor > 0; found {len(self.centres)}, "
                f"{len(self.radii)} and {len(self.weights)} of them, and {self.floor}."
            )
        if bool((self.radii <= 0).any()) or bool((self.weights < 0).any()):
            raise ValueError("Expected `radii` above 0 and `weights` of 0 or more; found others.")

    def __call__(self, x: Tensor) -> Tensor:
        """Return the factor ``(n,)`` of squared lengths at states ``(n, d)``."""
        check_points(x, name="x", axes=2)
        if x.shape[1] != self.centres.shape[1] or x.dtype != self.centres.dtype:
            raise ValueError(
                f"Expected states (n, {self.centres.shape[1]}) of {self.centres.dtype}, as the centres are; found "
                f"{tuple(x.shape)} of {x.dtype}."
            )
        return 1 / (_bumps(x, self.centres, self.radii) @ self.weights + float(self.floor))


@checked
def rbf_metric(
    points: Tensor, *, centres: int = 100, spread: float = 1.0, floor: float = 1e-2, generator: torch.Generator
) -> RBFMetric:
    """Learn a metric from points.

    The centres are those of k-means, the radii are proportional to the scatter of each cluster, and the heights are the
    nonnegative least-squares fit of 1 on the points.

    Parameters
    ----------
    points
        States ``(n, d)``.
    centres
        Number of bumps, at most the number of points.
    spread
        Radius of a bump, in units of the root mean squared distance between the points of its cluster and the centre.
    floor
        See `RBFMetric`.
    generator
        Draws points if there are more than 20,000, and seeds k-means.

    Raises
    ------
    ValueError
        When points are not vectors or all the same, or a number is out of its range.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> ring = torch.linspace(0, 6.28, 200)
    >>> points = torch.stack([ring.cos(), ring.sin()], dim=1)
    >>> metric = rbf_metric(points, centres=20, generator=cf.generator(seed=0))
    >>> hole, ground = metric(torch.tensor([[0.0, 0.0], [0.0, 1.0]]))
    >>> bool(hole > 20 * ground)
    True
    """
    from scipy.optimize import nnls
    from sklearn.cluster import KMeans

    points = finite(as_states(points, what="`points`"), what="`points`")
    points = points if points.dtype in (torch.float32, torch.float64) else points.float()
    _check(points, centres, spread, floor)
    if len(points) > LEARNED_FROM:
        points = points[torch.randperm(len(points), generator=generator)[:LEARNED_FROM].to(points.device)]
    x = points.detach().cpu().numpy().astype(np.float64)
    found = KMeans(min(centres, len(x)), n_init=1, random_state=draw_seed(generator) % 2**32).fit(x)
    squared = np.square(x - found.cluster_centers_[found.labels_]).sum(axis=1)
    scatter = np.sqrt(squared.mean())
    if scatter == 0:
        scatter = 1.0  # every point is a centre: any radius will do
    counts = np.bincount(found.labels_, minlength=len(found.cluster_centers_))
    radii = np.sqrt(np.bincount(found.labels_, squared, minlength=len(counts)) / counts)
    radii = spread * np.maximum(radii, scatter / 2)  # a cluster of one point has no scatter
    if not (np.square(radii) > 0).all():
        raise ValueError(f"Expected radii that numbers can tell from 0; spread={spread} makes them too small.")
    middle, radius = torch.from_numpy(found.cluster_centers_), torch.from_numpy(radii)
    heights, _ = nnls(_bumps(torch.from_numpy(x), middle, radius).numpy(), np.ones(len(x)))
    weights = torch.from_numpy(heights)
    return RBFMetric(middle.to(points), radius.to(points), weights.to(points), floor)


def _bumps(x: Tensor, centres: Tensor, radii: Tensor) -> Tensor:
    """Return each bump at each state, ``(n, k)``."""
    return torch.exp(-torch.cdist(x, centres).square() / (2 * radii.square()))


def _check(points: Tensor, centres: int, spread: float, floor: float) -> None:
    check_points(points, name="points", axes=2)
    if float(points.abs().max()) > LARGEST:
        raise ValueError(f"Expected points within {LARGEST:g} of zero, whose squares are numbers. Rescale them first.")
    if bool((points == points[:1]).all()):
        raise ValueError("All points are the same: there is no metric to learn. Choose `curve='straight'`.")
    if centres < 1 or not 0 < spread < float("inf") or not 0 < floor < float("inf"):
        raise ValueError(
            f"Expected centres >= 1, and finite spread and floor > 0; found {centres}, {spread} and {floor}."
        )
