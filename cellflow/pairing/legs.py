"""Batches of the pairs of legs: each of one condition, and of one group within it, over one stretch of time."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor

from cellflow.batch import Batch
from cellflow.couplings import CouplingLike, Plan, resolve
from cellflow.couplings.coupling import between, over
from cellflow.pairing.batches import mean_of
from cellflow.pairing.choice import Matched
from cellflow.pairing.condition_legs import ConditionLeg, balanced, called, check_legs
from cellflow.pairing.given import clouds_of, numbers_of_points
from cellflow.pairing.leg_pairs import LegPairs, matched
from cellflow.pairing.masses import Ends, Masses, WeighedPlan, relative
from cellflow.pairing.rows import RowMatching
from cellflow.paths import GaussianPath, diffusion_of
from cellflow.seeds import draw_seed
from cellflow.shapes import StatesLike, as_states, finite
from cellflow.signature import checked, checked_but

log = logging.getLogger(__name__)


@checked_but("coupling", "path")
def leg_batches(
    points: Tensor,
    legs: Sequence[ConditionLeg],
    conditions: Tensor | None = None,
    *,
    coupling: CouplingLike = "exact",
    batch_size: int = 256,
    generator: torch.Generator,
    ot_batch_size: int | str = "auto",
    masses: Sequence[tuple[float, float]] | None = None,
    weights: StatesLike | None = None,
    rates: StatesLike | None = None,
    path: GaussianPath | str | None = None,
    shares: Sequence[float] | None = None,
) -> "LegBatches":
    """Pair the points of each leg, in an endless stream of batches that hold pairs of all legs.

    Each leg has its own plan; plans are solved in parallel. Points that several legs share are not copied.

    Parameters
    ----------
    points
        All points, ``(p, ...)``.
    legs
        Which of them are paired, each leg with its own name.
    conditions
        What a field sees of each condition, ``(k, width)``; ``None`` for nothing.
    coupling, path
        As for `paired_batches`; each leg has a share of the path's noise in proportion to its model time.
    batch_size
        Pairs in a batch, of all legs together.
    generator
        Seeds the pairing; advances by one number for each leg, and one.
    ot_batch_size
        Number of points of each side to match at once, as for `paired_batches`. With ``"auto"`` the plans of all legs
        must fit into memory together; otherwise the largest legs take super-batches.
    masses
        Size of the population at the beginning and at the end of each leg, in any unit; pairs then carry masses.
    weights
        Weight of each point, ``(p,)``; by default all weigh the same.
    rates
        Expected growth rate of the log mass of each point, ``(p,)``, per model time. Needs ``masses``.
    shares
        Share of each leg in the pairs, in any unit; by default `balanced` over conditions.

    Raises
    ------
    ValueError
        When a leg has no points on a side, does not go forward in time, or shares its name with another; when a number
        is not usable.
    ConvergenceError
        When the plan of a leg is not found; a note names the leg.

    Examples
    --------
    Two drugs, which move the same controls in opposite directions:

    >>> import torch, cellflow as cf
    >>> points = torch.tensor([[0.0], [0.1], [1.0], [1.1], [-1.0], [-0.9]])
    >>> control, first, second = torch.arange(6).split(2)
    >>> legs = [ConditionLeg("A", control, first, condition=0), ConditionLeg("B", control, second, condition=1)]
    >>> batches = leg_batches(points, legs, torch.eye(2), batch_size=4, generator=cf.generator(seed=0))
    >>> batch = next(iter(batches))
    >>> (batch.x1 - batch.x0).flatten(), batch.condition[:, 0]
    (tensor([ 1.,  1., -1., -1.]), tensor([1., 1., 0., 0.]))
    """
    points, _ = clouds_of([points, points], names=["points", "points"])
    if conditions is not None:
        conditions = finite(as_states(conditions, what="`conditions`"), what="`conditions`")
    check_legs(legs, points=len(points), conditions=None if conditions is None else len(conditions))
    if batch_size < 1:
        raise ValueError(f"Expected batch_size >= 1; found {batch_size}.")
    sizes = [len(points)]
    weight = None if weights is None else numbers_of_points([weights], sizes, "weights")[0]
    rate = None if rates is None else numbers_of_points([rates], sizes, "rates")[0]
    if rate is not None and masses is None:
        raise ValueError("`rates` are growth rates, which pairs without masses do not have. Pass `masses` as well.")
    if masses is not None and len(masses) != len(legs):
        raise ValueError(f"Expected `masses` as two sizes for each of {len(legs)} legs; found {len(masses)}.")
    known = [None] * len(legs) if masses is None else [relative(both, 2)[0] for both in masses]
    legs = [replace(leg, source=leg.source.to(points.device), target=leg.target.to(points.device)) for leg in legs]
    ends = [_ends(leg, both, weight, rate) for leg, both in zip(legs, known, strict=True)]
    chosen, diffusion = resolve(coupling), diffusion_of(path)
    conditioned = len({leg.condition for leg in legs})
    log.info("pairing %d legs of %d conditions%s", len(legs), conditioned, "" if shares else ", balanced over these")
    matchings = [
        RowMatching(
            over(between(chosen, leg.start, leg.stop, leg.source, leg.target), leg.stop - leg.start, diffusion),
            (len(leg.source), len(leg.target)),
            points.device,
            source=lambda i, leg=leg: points[leg.source[i]],  # type: ignore[misc]
            target=lambda j, leg=leg: points[leg.target[j]],  # type: ignore[misc]
        )
        for leg in legs
    ]
    parts = torch.tensor(balanced(legs) if shares is None else [*shares], dtype=torch.float64)
    if parts.shape != (len(legs),) or not bool((parts > 0).all() & torch.isfinite(parts).all()):
        raise ValueError(f"Expected a finite share above 0 for each of {len(legs)} legs in `shares`; found {shares}.")
    pairs = LegPairs(
        matched(
            matchings,
            [leg.name for leg in legs],
            batch_size=batch_size,
            generator=generator,
            ot_batch_size=ot_batch_size,
            ends=ends,
        ),
        [(leg.source, leg.target) for leg in legs],
        parts / parts.sum(),
        batch_size,
        draw_seed(generator),
    )
    return LegBatches(pairs, points, legs, conditions)


@checked_but("legs")
class LegBatches:
    """An endless stream of batches of the pairs of legs; the batch of a step is the same at every iteration.

    Made by `leg_batches`.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> legs = [ConditionLeg("A", torch.arange(3), torch.arange(3, 6))]
    >>> leg_batches(torch.eye(6), legs, batch_size=3, generator=cf.generator(seed=0)).plans
    {'A': SparsePlan(3 x 3, mass 1, one to one, cost 2)}
    """

    def __init__(
        self,
        pairs: LegPairs,
        points: Tensor,
        legs: Sequence[ConditionLeg],
        conditions: Tensor | None = None,
        bends: Tensor | None = None,
    ) -> None:
        self._pairs, self._points, self._bends = pairs, points, bends
        self.legs, self.batch_size = list(legs), pairs.batch_size
        self._conditions = conditions
        self._seen = None
        if conditions is not None:
            rows = torch.tensor([leg.condition for leg in legs], device=conditions.device)
            self._seen = conditions[rows].to(points)
        self._start, self._stop = (points.new_tensor(times) for times in _times(legs))

    @property
    def plans(self) -> dict[Any, Plan | None]:
        """The plan over all points of each leg, by its name, or ``None`` if super-batches are used."""
        return {leg.name: plan for leg, plan in zip(self.legs, self._pairs.plans, strict=True)}

    @property
    def matched(self) -> dict[Any, Matched]:
        """How both sides of each leg were matched, by its name: in one plan or in parts, and by which coupling."""
        return {leg.name: found for leg, found in zip(self.legs, self._pairs.matched, strict=True)}

    @property
    def turnovers(self) -> dict[Any, float | None]:
        """The share of the population that growth replaces in each leg, see `WeighedPlan`, if known."""
        drawn = (getattr(leg, "drawn", None) for leg in self._pairs.legs)
        found = (plan.turnover if isinstance(plan, WeighedPlan) else None for plan in drawn)
        return {leg.name: turnover for leg, turnover in zip(self.legs, found, strict=True)}

    def displacements(self) -> Tensor:
        """Return the mean displacement of the pairs of each leg, as its plan weighs them: ``(k, ...)``, float64.

        Examples
        --------
        >>> import torch, cellflow as cf
        >>> points = torch.tensor([[0.0], [1.0], [5.0]])
        >>> legs = [ConditionLeg("A", torch.tensor([0, 1]), torch.tensor([2]))]
        >>> leg_batches(points, legs, generator=cf.generator(seed=0)).displacements()
        tensor([[4.5000]], dtype=torch.float64)
        """
        sides = (self._pairs.weighted(number) for number in range(len(self.legs)))
        return torch.stack([mean_of(self._points, *after) - mean_of(self._points, *before) for before, after in sides])

    @checked
    def bent(self, bends: Tensor) -> "LegBatches":
        """Return the same batches with bends at the beginning and at the end of all pairs of a leg, ``(2, k, ...)``."""
        return LegBatches(self._pairs, self._points, self.legs, self._conditions, bends.to(self._points))

    def shrunk(self, share: float) -> "LegBatches":
        """Return the same pairs with a share of their growth; the sizes of the population stay."""
        return LegBatches(self._pairs.shrunk(share), self._points, self.legs, self._conditions, self._bends)

    def only(self, chosen: Sequence[bool]) -> "LegBatches":
        """Return the pairs of some legs only, from the same plans; they divide the batch as before.

        Examples
        --------
        >>> import torch, cellflow as cf
        >>> points, one = torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([1])
        >>> legs = [ConditionLeg(name, torch.tensor([0]), one + k) for k, name in enumerate("AB")]
        >>> batches = leg_batches(points, legs, batch_size=2, generator=cf.generator(seed=0))
        >>> next(iter(batches.only([False, True]))).x1.flatten()
        tensor([5., 5.])
        """
        pairs = self._pairs.only(chosen)
        legs = [leg for leg, taken in zip(self.legs, chosen, strict=True) if taken]
        bends = None if self._bends is None else self._bends[:, torch.tensor(chosen)]
        return LegBatches(pairs, self._points, legs, self._conditions, bends)

    def leaving(self, points: Tensor, *, batches: int) -> Batch:
        """Return those pairs of the first batches whose source is among some points, a mask over all ``(p,)``."""
        found = []
        with closing(self._pairs.iterate(0)) as stream:
            for pairs in islice(stream, batches):
                chosen = points.to(pairs[0].device)[pairs[0]]
                found.append([None if values is None else values[chosen] for values in self._batch(*pairs)])
        whole = [None if part[0] is None else torch.cat(part) for part in zip(*found, strict=True)]
        return Batch(*cast("list[Tensor]", whole))

    def __iter__(self) -> Iterator[Batch]:
        return self.iterate(0)

    @checked
    def iterate(self, start: int) -> Iterator[Batch]:
        """Yield the batches of steps ``start``, ``start + 1`` and so on; threads draw and match ahead."""
        with closing(self._pairs.iterate(start)) as stream:
            for pairs in stream:
                yield self._batch(*pairs)

    def _batch(self, source: Tensor, target: Tensor, leg: Tensor, *masses: Tensor) -> Batch:
        x0, x1 = (self._points.index_select(0, rows) for rows in (source, target))
        condition = None if self._seen is None else self._seen[leg]
        batch = Batch(x0, x1, self._start[leg], self._stop[leg], condition, *(mass.to(x0) for mass in masses))
        return batch if self._bends is None else batch._replace(bend0=self._bends[0, leg], bend1=self._bends[1, leg])


def _times(legs: Sequence[ConditionLeg]) -> tuple[list[float], list[float]]:
    return [leg.start for leg in legs], [leg.stop for leg in legs]


def _ends(leg: ConditionLeg, masses: Masses | None, weight: Tensor | None, rate: Tensor | None) -> Ends:
    """Return what the points of a leg weigh."""
    source, target = (None if weight is None else weight[rows.to(weight.device)] for rows in (leg.source, leg.target))
    for share in (source, target):
        if share is not None and ((share < 0).any() or share.sum() == 0):
            found = float(share.min()), float(share.max())
            raise ValueError(
                f"Expected `weights` that are not negative, and not all 0 on a side of leg {called(leg.name)}; found "
                f"{'only weights of 0' if found == (0, 0) else 'weights from {:g} to {:g}'.format(*found)}."
            )
    gain = None if rate is None else rate[leg.source.to(rate.device)] * (leg.stop - leg.start)
    return Ends(masses, source, target, gain)
