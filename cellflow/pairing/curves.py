"""Curved pairs: paths through several snapshots whose velocity is continuous where they meet."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor

from cellflow.batch import Batch
from cellflow.couplings import Plan
from cellflow.shapes import per_sample


def tangents(snapshots: Sequence[Tensor], times: Sequence[float], plans: Sequence[Plan | None]) -> list[Tensor | None]:
    """Return a velocity for each point of each inner snapshot, ``(n_k, ...)`` per unit of model time; None at the ends.

    It is the slope of the parabola through where a point comes from, where it is and where it goes, on average over
    the plans of both intervals.

    Raises
    ------
    ValueError
        When an interval has no plan over whole snapshots: a point would have no fixed partners.

    Source: Rohbeck et al. 2025 for flow matching along splines through several marginals; the slopes are those of
    Bessel's parabola (de Boor 1978, chapter IV).

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> clouds = [torch.tensor([[x]]) for x in (0.0, 1.0, 4.0)]
    >>> plans = [cf.couplings.Exact()(a, b) for a, b in zip(clouds, clouds[1:])]
    >>> tangents(clouds, [0.0, 1.0, 2.0], plans)[1]
    tensor([[2.]])
    """
    whole = [plan for plan in plans if plan is not None]
    if len(whole) < len(plans):
        raise ValueError(
            "Expected one plan over whole snapshots for each interval, to bend pairs; found super-batches. Pass "
            "`ot_batch_size='whole'`, take fewer cells, or leave `bend` at 0."
        )
    durations = [stop - start for start, stop in pairwise(times)]
    inner = [
        _slope(snapshots[k - 1 : k + 2], durations[k - 1 : k + 1], whole[k - 1 : k + 1])
        for k in range(1, len(snapshots) - 1)
    ]
    return [None, *inner, None]


@dataclass(frozen=True)
class Bent:
    """Bends pairs towards the velocities at their ends.

    An end without a velocity is free: the path leaves it without curvature, as a natural spline does.

    Parameters
    ----------
    slopes
        Velocity at each point of all snapshots, ``(n, ...)``; 0 where there is none.
    known
        Whether there is one, ``(n,)``.
    duration
        Model time that each pair of a batch spans, ``(batch,)``.
    bend
        From 0 for straight pairs to 1.
    """

    slopes: Tensor
    known: Tensor
    duration: Tensor
    bend: float

    @classmethod
    def of(
        cls, slopes: Sequence[Tensor | None], points: Tensor, offsets: Sequence[int], duration: Tensor, bend: float
    ) -> Self:
        """Gather the velocities of all snapshots, which begin at ``offsets`` among ``points``."""
        every, known = torch.zeros_like(points), torch.zeros(len(points), dtype=torch.bool, device=points.device)
        for first, slope in zip(offsets, slopes, strict=True):
            if slope is not None:
                every[first : first + len(slope)] = slope
                known[first : first + len(slope)] = True
        return cls(every, known, duration, bend)

    def __call__(self, batch: Batch, source: Tensor, target: Tensor) -> Batch:
        """Return the batch with its bends; ``source`` and ``target`` ``(batch,)`` number its points.

        Examples
        --------
        >>> import torch, cellflow as cf
        >>> points = torch.tensor([[0.0], [1.0]])
        >>> bent = Bent(torch.tensor([[0.0], [2.0]]), torch.tensor([False, True]), torch.ones(1), bend=1.0)
        >>> batch = bent(cf.Batch(points[:1], points[1:]), torch.tensor([0]), torch.tensor([1]))
        >>> batch.bend0, batch.bend1
        (tensor([[-0.5000]]), tensor([[1.]]))
        """
        straight, duration = batch.x1 - batch.x0, per_sample(self.duration, batch.x0)
        bend0, bend1 = (self.bend * (duration * self.slopes[rows] - straight) for rows in (source, target))
        free0, free1 = (per_sample(~self.known[rows], straight) for rows in (source, target))
        # Where both ends are free, so are their bends: there is nothing but a straight line.
        begin = torch.where(free0, torch.where(free1, 0.0, -bend1 / 2), bend0)
        end = torch.where(free1, torch.where(free0, 0.0, -bend0 / 2), bend1)
        return batch._replace(bend0=begin, bend1=end)


def _slope(clouds: Sequence[Tensor], durations: Sequence[float], plans: Sequence[Plan]) -> Tensor:
    """Return the velocity at the middle one of three snapshots: each side's mean, the shorter one counting more."""
    before, here, after = clouds
    arriving = (here - plans[0].origins(before)) / durations[0]
    leaving = (plans[1].barycentric(after) - here) / durations[1]
    return (arriving * durations[1] + leaving * durations[0]) / sum(durations)
