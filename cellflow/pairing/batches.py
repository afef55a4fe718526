"""Batches of points: pairs of neighbouring snapshots for every step of a training."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import accumulate, islice, pairwise
from typing import Any, cast

import torch
from torch import Tensor

from cellflow.batch import Batch
from cellflow.couplings import CouplingLike, Plan, resolve
from cellflow.couplings.coupling import between, over
from cellflow.couplings.within import Labels
from cellflow.pairing import curves
from cellflow.pairing.choice import Matched
from cellflow.pairing.curves import Bends, Curve
from cellflow.pairing.given import clouds_of, groups_of, numbers_of, numbers_of_points
from cellflow.pairing.masses import Ends, WeighedPlan, relative
from cellflow.pairing.rows import Pairs, RowMatching, RowPairs, pair_rows
from cellflow.paths import GaussianPath, diffusion_of
from cellflow.renamed import renamed
from cellflow.shapes import StatesLike, as_states, finite
from cellflow.signature import checked, checked_but

_AT_ONCE = 2**22  # numbers: 32 MiB of float64


@checked_but("coupling", "path", "masses")
def paired_batches(
    x0: Tensor,
    x1: Tensor,
    *,
    coupling: CouplingLike = "exact",
    batch_size: int = 256,
    generator: torch.Generator,
    condition: Tensor | None = None,
    ot_batch_size: int | str = "auto",
    masses: tuple[float, float] | None = None,
    path: GaussianPath | str | None = None,
) -> "PairedBatches":
    """Pair two clouds of points, in an endless stream of batches.

    Parameters
    ----------
    x0, x1
        Source and target points, ``(n, ...)`` and ``(m, ...)``.
    coupling
        How they are matched: a coupling, a function of two clouds, or the name of a coupling.
    batch_size
        Pairs per batch.
    generator
        Seeds the pairing; advances by one number.
    condition
        Condition of each target point, ``(m, k)``.
    ot_batch_size
        Number of points of each cloud to match at once: ``"whole"`` for one plan over everything, a number for
        super-batches of that size, solved ahead by worker threads; ``"auto"`` chooses by the sizes, see
        `cellflow.pairing.choice`; the choice is logged, and in ``batches.matched``.
    masses
        Size of the population at source and target; pairs then carry masses, as `GrowthMatching` needs them.
    path
        Path that joins the pairs, for a coupling that depends on it: ``epsilon="path"`` of `Sinkhorn`.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> x0, x1 = torch.arange(4.0)[:, None], torch.arange(4.0)[:, None] + 10
    >>> batches = paired_batches(x0, x1, batch_size=4, generator=cf.generator(seed=0))
    >>> batch = next(iter(batches))
    >>> (batch.x1 - batch.x0).flatten()
    tensor([10., 10., 10., 10.])
    """
    batches = snapshot_batches(
        [x0, x1],
        [0.0, 1.0],
        coupling=coupling,
        batch_size=batch_size,
        generator=generator,
        ot_batch_size=ot_batch_size,
        masses=masses,
        path=path,
    )
    if condition is None:
        return batches
    condition = finite(as_states(condition, what="`condition`"), what="`condition`")
    if len(condition) != len(x1):
        raise ValueError(f"Expected one condition for each of {len(x1)} target points; found {len(condition)}.")
    return batches.with_condition(condition)


@checked_but("coupling", "path", "curve")
def snapshot_batches(
    snapshots: Sequence[Tensor],
    times: Sequence[float],
    *,
    coupling: CouplingLike = "exact",
    batch_size: int = 256,
    generator: torch.Generator,
    ot_batch_size: int | str = "auto",
    masses: Sequence[float] | None = None,
    weights: Sequence[StatesLike] | None = None,
    rates: Sequence[StatesLike] | None = None,
    path: GaussianPath | str | None = None,
    within: Sequence[Labels] | None = None,
    curve: Curve | str = "straight",
    **given: Any,
) -> "PairedBatches":
    """Pair each snapshot with the next: one batch holds ``batch_size`` pairs of every interval.

    Parameters
    ----------
    snapshots
        Clouds of points, ``(n_k, ...)`` each, of any sizes.
    times
        Model time of each snapshot, increasing.
    coupling, batch_size, generator, ot_batch_size
        As for `paired_batches`.
    masses
        Size of the population at each snapshot, in any unit; pairs then carry masses, as `GrowthMatching` needs them.
    weights
        Weight of each point of each snapshot in the population, ``(n_k,)`` each, in any unit: a point of weight 2
        stands for two. By default all weigh the same.
    rates
        Expected growth rate of the log mass of each point, ``(n_k,)`` each, per model time, up to a constant. Each
        snapshot is then matched with the next after its expected growth, and pairs grow by the expectation and by what
        the plan changes. Needs ``masses``.
    path
        As for `paired_batches`; each interval has a share of its noise in proportion to its model time.
    within
        The group of each point of each snapshot, such as a donor or a batch: names, or whole numbers, ``(n_k,)`` each.
        Pairs are then made within groups only; the fraction of pairs in each group is its fraction of the later
        snapshot. A group that one of two neighbouring snapshots lacks is left out between these two, with a warning.
    curve
        How the paths of pairs curve: `Straight`, `Mean`, `Spline`, `cellflow.training.Geodesics`, or the name of one.

    Raises
    ------
    ValueError
        When times do not increase, snapshots cannot be compared, two neighbouring snapshots have no group in common,
        the coupling depends on the noise of a path and there is none, pairs carry masses and a group is on one side
        only, so that its growth is unknown, or weights or rates are not one valid number for each point.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> clouds = [torch.full((5, 2), float(k)) for k in range(3)]
    >>> batches = snapshot_batches(clouds, [0.0, 0.2, 1.0], batch_size=4, generator=cf.generator(seed=0))
    >>> next(iter(batches)).span()[1]
    tensor([0.2000, 0.2000, 0.2000, 0.2000, 0.8000, 0.8000, 0.8000, 0.8000])
    """
    curve = curves.resolve(renamed("snapshot_batches", given, curves.FORMER).get("curve", curve))
    if len(snapshots) < 2:
        raise ValueError(f"Expected two or more snapshots; found {len(snapshots)}.")
    names = ("x0", "x1") if len(snapshots) == 2 else [f"snapshots[{k}]" for k in range(len(snapshots))]
    snapshots = clouds_of(snapshots, names=names)
    times = numbers_of(times, len(snapshots), name="times", of="snapshot")
    if any(later <= earlier for earlier, later in pairwise(times)):
        raise ValueError(f"Expected times that increase; found {times}. Sort the snapshots by time first.")
    if batch_size < 1:
        raise ValueError(f"Expected batch_size >= 1; found {batch_size}.")
    matchings, ends = intervals(snapshots, times, coupling, masses, weights, rates, path, within)
    sizes = [len(cloud) for cloud in snapshots]
    pairs = pair_rows(
        matchings,
        firsts=list(pairwise(accumulate(sizes[:-1], initial=0))),
        batch_size=batch_size,
        generator=generator,
        ot_batch_size=ot_batch_size,
        ends=ends,
    )
    batches = PairedBatches(pairs, torch.cat(snapshots), times)
    bends = curve.bends(snapshots, times, batches, generator=generator)
    return batches if bends is None else batches.bent(bends)


def intervals(
    snapshots: Sequence[Tensor],
    times: Sequence[float],
    coupling: CouplingLike,
    masses: Sequence[float] | None = None,
    weights: Sequence[StatesLike] | None = None,
    rates: Sequence[StatesLike] | None = None,
    path: GaussianPath | str | None = None,
    within: Sequence[Labels] | None = None,
) -> tuple[list[RowMatching], list[Ends]]:
    """Return how each snapshot is matched with the next, and the weights of both; see `snapshot_batches`.

    Examples
    --------
    >>> import torch
    >>> matchings, ends = intervals([torch.zeros(3, 1), torch.ones(4, 1)], [0, 1], "exact")
    >>> matchings[0].sizes, ends[0]
    ((3, 4), Ends(masses=None, source=None, target=None, gain=None, share=1.0))
    """
    coupling, sizes, device = resolve(coupling), [len(cloud) for cloud in snapshots], snapshots[0].device
    groups = [None] * len(sizes) if within is None else groups_of(within, sizes, weighed=masses is not None)
    matchings = [
        RowMatching(
            over(between(coupling, start, stop), stop - start, diffusion_of(path)),
            (len(x0), len(x1)),
            device,
            source=x0.__getitem__,
            target=x1.__getitem__,
            groups=None if before is None or after is None else (before.to(device), after.to(device)),
        )
        for (x0, x1), (before, after), (start, stop) in zip(*map(pairwise, (snapshots, groups, times)), strict=True)
    ]
    return matchings, _ends(masses, weights, rates, sizes, times)


@checked
class PairedBatches:
    """An endless stream of batches of pairs; the batch of a step is the same at every iteration.

    Made by `paired_batches` and `snapshot_batches`.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> batches = paired_batches(torch.zeros(5, 2), torch.ones(5, 2), batch_size=3, generator=cf.generator(seed=0))
    >>> batches.plans
    [SparsePlan(5 x 5, mass 1, one to one, cost 2)]
    """

    def __init__(
        self,
        pairs: RowPairs,
        points: Tensor,
        times: Sequence[float],
        condition: Tensor | None = None,
        bends: Bends | None = None,
    ) -> None:
        self._pairs, self._points, self._times = pairs, points, times
        self._condition, self._bends, self.batch_size = condition, bends, pairs.batch_size
        knots = points.new_tensor(times)
        self._start = knots[:-1].repeat_interleave(self.batch_size)
        self._stop = knots[1:].repeat_interleave(self.batch_size)

    @property
    def plans(self) -> list[Plan | None]:
        """The plan over whole snapshots of each interval, or ``None`` if super-batches are used."""
        return self._pairs.plans

    @property
    def matched(self) -> list[Matched]:
        """How the snapshots of each interval were matched: in one plan or in parts, and by which coupling.

        Examples
        --------
        >>> import torch, cellflow as cf
        >>> batches = paired_batches(torch.zeros(5, 1), torch.ones(4, 1), generator=cf.generator(seed=0))
        >>> print(*batches.matched)
        5 with 4 points: one plan (Exact)
        """
        return self._pairs.matched

    def __repr__(self) -> str:
        return f"PairedBatches({self.batch_size} pairs of {'; '.join(map(str, self.matched))})"

    def displacements(self) -> Tensor:
        """Return the mean displacement of the pairs of each interval, weighted by its plan: ``(k, ...)``, float64.

        If all points count equally, it is the difference of the snapshots' means. For super-batches that count points
        unequally, it is estimated from some thousands of pairs.

        Examples
        --------
        >>> import torch, cellflow as cf
        >>> batches = paired_batches(torch.zeros(5, 1), torch.ones(4, 1), generator=cf.generator(seed=0))
        >>> batches.displacements()
        tensor([[1.]], dtype=torch.float64)
        """
        found = [[mean_of(self._points, *side) for side in both] for both in self._pairs.weighted()]
        return torch.stack([after - before for before, after in found])

    @property
    def turnovers(self) -> list[float | None]:
        """The share of the population that growth replaces in each interval, see `WeighedPlan`, if known."""
        drawn = (getattr(interval, "drawn", None) for interval in self._pairs.intervals)
        return [plan.turnover if isinstance(plan, WeighedPlan) else None for plan in drawn]

    @checked
    def with_condition(self, condition: Tensor) -> "PairedBatches":
        """Return the same batches with the condition ``(m, k)`` of each target point; for two clouds."""
        unasked = condition.new_zeros(len(self._points) - len(condition), *condition.shape[1:])
        conditions = torch.cat([unasked, condition]).to(self._points)
        return PairedBatches(self._pairs, self._points, self._times, conditions, self._bends)

    @checked
    def bent(self, bends: Bends) -> "PairedBatches":
        """Return the same batches with bends.

        Parameters
        ----------
        bends
            Called with a batch of straight pairs and the rows of the points that they join, both ``(batch,)``,
            counted through all snapshots; returns the batch with bends.
        """
        return PairedBatches(self._pairs, self._points, self._times, self._condition, bends)

    def shrunk(self, share: float) -> "PairedBatches":
        """Return the same pairs with a share of their growth; the sizes of the population stay.

        Examples
        --------
        >>> import torch, cellflow as cf
        >>> x = torch.tensor([[0.0], [9.0]])
        >>> found = paired_batches(
        ...     x, x[[0, 1, 1, 1]], coupling="auto", masses=(1.0, 1.0), batch_size=100, generator=cf.generator(seed=0)
        ... )
        >>> for batches in (found, found.shrunk(0.5)):
        ...     batch = next(iter(batches))
        ...     gain, size = batch.log_mass1 - batch.log_mass0, batch.log_mass1.exp().mean()
        ...     print(f"{gain.max() - gain.min():.1f} {size:.1f}")
        1.1 1.0
        0.5 1.0
        """
        return PairedBatches(self._pairs.shrunk(share), self._points, self._times, self._condition, self._bends)

    def leaving(self, points: Tensor, *, batches: int) -> Batch:
        """Return the pairs of the first batches whose source is among some points.

        Parameters
        ----------
        points
            Whether each point is one of them, counted through all snapshots, ``(m,)``.
        batches
            How many batches to look through.

        Examples
        --------
        >>> import torch, cellflow as cf
        >>> pairs = paired_batches(torch.eye(5), torch.eye(5), batch_size=10, generator=cf.generator(seed=0))
        >>> pairs.leaving(torch.arange(10) < 1, batches=4).x0.unique(dim=0)
        tensor([[1., 0., 0., 0., 0.]])
        """
        found = []
        with closing(self._pairs.iterate(0)) as stream:
            for pairs in islice(stream, batches):
                chosen = points.to(pairs[0].device)[pairs[0]]
                found.append([None if values is None else values[chosen] for values in self._batch(pairs)])
        whole = [None if part[0] is None else torch.cat(part) for part in zip(*found, strict=True)]
        return Batch(*cast("list[Tensor]", whole))

    def __iter__(self) -> Iterator[Batch]:
        return self.iterate(0)

    @checked
    def iterate(self, start: int) -> Iterator[Batch]:
        """Yield the batches of steps ``start``, ``start + 1`` and so on; worker threads match ahead."""
        with closing(self._pairs.iterate(start)) as stream:
            for pairs in stream:
                yield self._batch(pairs)

    def _batch(self, pairs: Pairs) -> Batch:
        source, target, *masses = pairs
        x0, x1 = (self._points.index_select(0, rows) for rows in (source, target))
        condition = None if self._condition is None else self._condition[target]
        batch = Batch(x0, x1, self._start, self._stop, condition, *(mass.to(x0) for mass in masses))
        return batch if self._bends is None else self._bends(batch, source, target)


def _ends(
    masses: Sequence[float] | None,
    weights: Sequence[StatesLike] | None,
    rates: Sequence[StatesLike] | None,
    sizes: Sequence[int],
    times: Sequence[float],
) -> list[Ends]:
    """Return what the points of each interval weigh."""
    if rates is not None and masses is None:
        raise ValueError("`rates` are growth rates, which pairs without masses do not have. Pass `masses` as well.")
    shares = [None] * len(sizes) if weights is None else numbers_of_points(weights, sizes, "weights")
    for share in shares:
        if share is not None and ((share < 0).any() or share.sum() == 0):
            raise ValueError(
                "Expected `weights` that are not negative, and not all 0 in a snapshot; found weights from "
                f"{float(share.min()):g} to {float(share.max()):g}."
            )
    pace = [None] * len(sizes) if rates is None else numbers_of_points(rates, sizes, "rates")
    durations = [stop - start for start, stop in pairwise(times)]
    known = [None] * len(durations) if masses is None else relative(masses, len(times))
    return [
        Ends(both, source, target, None if rate is None else rate * duration)
        for both, (source, target), rate, duration in zip(known, pairwise(shares), pace, durations, strict=False)
    ]


def mean_of(points: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean of some points, in float64, without a copy of all."""
    total, most = points.new_zeros(points.shape[1:], dtype=torch.float64), max(1, _AT_ONCE // points[0].numel())
    for some, weight in zip(rows.split(most), weights.to(points.device).double().split(most), strict=True):
        total += torch.tensordot(weight, points[some].double(), dims=1)
    return total / weights.sum()
