"""Curves: how the paths of pairs curve between several snapshots.

* `Straight`: straight between neighbouring snapshots.
* `Mean`: along the curve of the population's mean.
* `Spline`: towards one smooth curve through all snapshots, whose velocity is continuous where they meet.
* `cellflow.training.Geodesics`: towards the data, along geodesics of a learned metric.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol, Self

import torch
from torch import Tensor

from cellflow.batch import Batch
from cellflow.couplings import Plan
from cellflow.errors import unknown
from cellflow.pairing.mean_curve import Mean
from cellflow.shapes import per_sample
from cellflow.signature import checked

if TYPE_CHECKING:
    from cellflow.pairing.batches import PairedBatches

Bends = Callable[[Batch, Tensor, Tensor], Batch]
"""From a batch of straight pairs, and the rows ``(batch,)`` of the points where they begin and end, to bent ones."""


class Curve(Protocol):
    """How the paths of pairs curve."""

    def bends(
        self,
        snapshots: Sequence[Tensor],
        times: Sequence[float],
        batches: "PairedBatches",
        *,
        generator: torch.Generator,
    ) -> Bends | None:
        """Return the function that adds bends to the pairs of ``batches``; ``None`` for straight pairs."""


@checked
@dataclass(frozen=True)
class Straight:
    """Paths that are straight between neighbouring snapshots.

    Examples
    --------
    >>> import cellflow as cf
    >>> cf.SnapshotFlow(curve=Straight()).curve
    Straight()
    """

    @checked
    def bends(
        self,
        snapshots: Sequence[Tensor],
        times: Sequence[float],
        batches: "PairedBatches",
        *,
        generator: torch.Generator,
    ) -> Bends | None:
        """Return ``None``: there are no bends."""
        return None


@checked
@dataclass(frozen=True)
class Spline:
    """Paths that follow one smooth curve through all snapshots.

    Use it if cells keep their direction from one snapshot to the next; with two snapshots it changes nothing.

    Parameters
    ----------
    bend
        From 0 for straight paths to 1 for cubic splines, whose velocity is continuous.

    Raises
    ------
    ValueError
        For a bend outside [0, 1].

    Source
    ------
    Rohbeck et al. 2025, for flow matching along splines through several marginals; de Boor 1978, chapter IV, for the
    slopes (Bessel's parabola).

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> clouds = [torch.tensor([[x]]) for x in (0.0, 1.0, 4.0)]
    >>> rng = cf.generator(seed=0)
    >>> batches = cf.pairing.snapshot_batches(clouds, [0, 0.5, 1], curve=Spline(), batch_size=1, generator=rng)
    >>> next(iter(batches)).bend0
    tensor([[-0.5000],
            [-1.0000]])
    """

    bend: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.bend <= 1:
            raise ValueError(f"Expected 0 <= bend <= 1; found {self.bend}.")

    @checked
    def bends(
        self,
        snapshots: Sequence[Tensor],
        times: Sequence[float],
        batches: "PairedBatches",
        *,
        generator: torch.Generator,
    ) -> Bends | None:
        """Return bends towards the mean slope of every point.

        Raises
        ------
        ValueError
            When an interval has no plan over whole snapshots, which fixed partners require.
        """
        return None if self.bend == 0 else Bent.of(tangents(snapshots, times, batches.plans), snapshots, self.bend)


CURVES: dict[str, Curve] = {"straight": Straight(), "mean": Mean(), "spline": Spline()}
"""Curves by name."""


def _former(bend: float | Curve) -> dict[str, Curve]:
    """Return the curve for a former ``bend``: a number, or geodesics."""
    return {"curve": (Spline(bend) if bend else Straight()) if isinstance(bend, int | float) else bend}


FORMER: dict[str | tuple[str, ...], Callable[..., dict[str, Curve]]] = {"bend": _former}
"""The former keyword, see `cellflow.renamed`."""


def resolve(curve: Curve | str) -> Curve:
    """Return the curve with this name, or the curve itself.

    Examples
    --------
    >>> resolve("spline")
    Spline(bend=1.0)
    """
    if isinstance(curve, str):
        if curve not in CURVES:
            raise ValueError(unknown("curve", curve, CURVES))
        return CURVES[curve]
    if isinstance(curve, type) or not hasattr(curve, "bends"):
        raise TypeError(f"Expected a curve such as Spline() or one of {sorted(CURVES)}; found {curve!r}.")
    return curve


def tangents(snapshots: Sequence[Tensor], times: Sequence[float], plans: Sequence[Plan | None]) -> list[Tensor | None]:
    """Return a velocity for each point of the inner snapshots, ``(n_k, ...)`` per model time; ``None`` at the ends.

    It is the slope of the parabola through the mean source of a point, the point, and its mean target, by the plans of
    both intervals; NaN for a point without a partner on either side.

    Raises
    ------
    ValueError
        When an interval has no plan over whole snapshots, which fixed partners require.

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
            "Expected one plan over whole snapshots for each interval, to bend pairs along a spline; found "
            "super-batches. Pass `ot_batch_size='whole'`, take fewer cells, or choose `curve='straight'`."
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
    bend
        From 0 for straight pairs to 1.
    """

    slopes: Tensor
    known: Tensor
    bend: float

    @classmethod
    def of(cls, slopes: Sequence[Tensor | None], snapshots: Sequence[Tensor], bend: float) -> Self:
        """Gather the velocities at the points of all snapshots."""
        missing = (torch.full_like(cloud, torch.nan) for cloud in snapshots)
        every = torch.cat([nan if slope is None else slope for slope, nan in zip(slopes, missing, strict=True)])
        known = torch.isfinite(every.flatten(1)).all(dim=1)
        return cls(torch.where(per_sample(known, every), every, 0.0), known, bend)

    def __call__(self, batch: Batch, source: Tensor, target: Tensor) -> Batch:
        """Return the batch with its bends; ``source`` and ``target`` ``(batch,)`` are the rows of its points.

        Examples
        --------
        >>> import torch, cellflow as cf
        >>> points = torch.tensor([[0.0], [1.0]])
        >>> bent = Bent(torch.tensor([[0.0], [2.0]]), torch.tensor([False, True]), bend=1.0)
        >>> batch = bent(cf.Batch(points[:1], points[1:]), torch.tensor([0]), torch.tensor([1]))
        >>> batch.bend0, batch.bend1
        (tensor([[-0.5000]]), tensor([[1.]]))
        """
        straight, duration = batch.x1 - batch.x0, per_sample(batch.span()[1], batch.x0)
        bend0, bend1 = (self.bend * (duration * self.slopes[rows] - straight) for rows in (source, target))
        free0, free1 = (per_sample(~self.known[rows], straight) for rows in (source, target))
        # Where both ends are free, so are their bends: there is nothing but a straight line.
        begin = torch.where(free0, torch.where(free1, 0.0, -bend1 / 2), bend0)
        end = torch.where(free1, torch.where(free0, 0.0, -bend0 / 2), bend1)
        return batch._replace(bend0=begin, bend1=end)


def _slope(clouds: Sequence[Tensor], durations: Sequence[float], plans: Sequence[Plan]) -> Tensor:
    """Return the velocity at the middle one of three snapshots: each side's mean, the shorter one counting more."""
    before, here, after = clouds
    arriving = (here - plans[0].origins(before, alone=torch.nan)) / durations[0]
    leaving = (plans[1].barycentric(after, alone=torch.nan) - here) / durations[1]
    return (arriving * durations[1] + leaving * durations[0]) / sum(durations)
