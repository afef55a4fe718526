"""How much of the growth that a field has learned holds for samples that it has not seen."""

import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from cellflow.integrate import Fixed, grow
from cellflow.metrics.distances import energy_distance
from cellflow.seeds import generator
from cellflow.training.history import History

CONFIRMED = "confirmed growth"
"""Name of the share in a history."""
SHARES = torch.linspace(0, 1, 21, dtype=torch.float64)
"""Shares that are tried."""
MOST = 200
"""Samples of each snapshot that are looked at."""
RESAMPLED = 50
"""How often they are resampled."""
CLOSE = 0.01
"""By how much a distance may be larger, as a part of that between the snapshots, so that more growth is preferred."""
SOLVER = Fixed("midpoint", steps=10)
"""How they are carried: to a fraction of the distance between them."""


class Leg(NamedTuple):
    """Samples of two neighbouring snapshots that are not trained on.

    Attributes
    ----------
    x0, x1
        Samples of the earlier snapshot ``(n, ...)``, and of the later one ``(m, ...)``.
    start, stop
        Model times of the snapshots.
    weights0, weights1
        Weights in the snapshots, ``(n,)`` and ``(m,)``; ``None`` for equal weights.
    condition
        The condition that the field sees, ``(k,)``; ``None`` for none.
    """

    x0: Tensor
    x1: Tensor
    start: float
    stop: float
    weights0: Tensor | None = None
    weights1: Tensor | None = None
    condition: Tensor | None = None


def confirmed_share(field: nn.Module, legs: Sequence[Leg]) -> float:
    """Return the share of a field's growth with which it carries new samples closest to the next snapshot.

    Samples are carried with their weights over each interval, and their energy distance to the samples at its end is
    taken, with growth multiplied by each of `SHARES`. Growth that brings a snapshot to the composition of the next one,
    as that of a population does, has a share of 1, and growth that follows chance in few samples has a share of 0. The
    share with the smallest mean distance is found for bootstrap samples of both sides, and averaged: if samples are too
    few to tell, it lies in between. If all shares bring samples about equally close, to 1 % of the distance between the
    snapshots, there is no reason to doubt growth: the largest of these is returned, if it is larger.

    Parameters
    ----------
    field
        A field with growth.
    legs
        Samples that it has not seen.

    Examples
    --------
    The second of two kinds is sampled twice as often later. A field that predicts this, and one that predicts four
    times:

    >>> import torch, cellflow as cf
    >>> class Grows(torch.nn.Linear):
    ...     def forward(self, t, x, condition=None):
    ...         return cf.fields.Outputs(torch.zeros_like(x), growth=super().forward(x).flatten())
    >>> x0, x1 = torch.arange(200)[:, None] % 2.0, torch.arange(200)[:, None] % 3.0 > 0
    >>> field = Grows(1, 1).requires_grad_(False)
    >>> for factor in (2.0, 4.0):
    ...     _ = field.weight.fill_(factor).log_()
    ...     print(f"{confirmed_share(field, [Leg(x0, x1, 0.0, 1.0)]):.1f}")
    1.0
    0.5
    """
    rng = generator(seed=0)  # the same samples at every step of a training
    found = torch.stack([_distances(field, leg, rng) for leg in legs]).mean(dim=0)
    apart = [energy_distance(leg.x0, leg.x1, weights_x=leg.weights0, weights_y=leg.weights1) for leg in legs]
    mean = found.mean(dim=0)
    close = SHARES[mean <= mean.min() + CLOSE * sum(apart) / len(apart)].max()
    return max(float(SHARES[found.argmin(dim=1)].mean()), float(close))


def last_confirmed(history: History) -> float | None:
    """Return the share that was measured last in a history; ``None`` if none was.

    Examples
    --------
    >>> last_confirmed(History({CONFIRMED: [math.nan, 0.4, 0.3, math.nan]}))
    0.3
    """
    measured = [share for share in history.columns.get(CONFIRMED, ()) if not math.isnan(share)]
    return measured[-1] if measured else None


def _distances(field: nn.Module, leg: Leg, rng: torch.Generator) -> Tensor:
    """Return the energy distance of each bootstrap sample for each share, but for a constant, ``(RESAMPLED, 21)``."""
    like = next(field.parameters())
    i, j = (torch.randperm(len(x), generator=rng)[:MOST] for x in (leg.x0, leg.x1))
    x0, x1 = (x[rows].to(like.device, like.dtype) for x, rows in ((leg.x0, i), (leg.x1, j)))
    seen = None if leg.condition is None else leg.condition.to(like.device, like.dtype).expand(len(x0), -1)
    with torch.no_grad():
        carried = grow(field, x0, start=leg.start, stop=leg.stop, solver=SOLVER, condition=seen)
    log_weight = cast("Tensor", carried.log_weight)
    gain = (log_weight[-1] - log_weight[0]).cpu().double()
    z, y = (x.flatten(1).cpu().double() for x in (carried.x[-1], x1))
    a, b = (_resampled(given, rows, rng) for given, rows in ((leg.weights0, i), (leg.weights1, j)))
    weights = torch.softmax(a.log()[:, None] + SHARES[:, None] * gain, dim=2)
    across, within = torch.cdist(z, y) @ b.T, torch.cdist(z, z)
    return 2 * torch.einsum("rsn,nr->rs", weights, across) - ((weights @ within) * weights).sum(dim=2)


def _resampled(given: Tensor | None, rows: Tensor, rng: torch.Generator) -> Tensor:
    """Return what samples weigh in each bootstrap sample, ``(RESAMPLED, n)``; each row sums to 1."""
    drawn = torch.randint(len(rows), (RESAMPLED, len(rows)), generator=rng)
    counts = torch.zeros(drawn.shape, dtype=torch.float64)
    counts.scatter_add_(1, drawn, torch.ones_like(counts))
    weights = counts if given is None else counts * given.cpu().double()[rows]
    return weights / weights.sum(dim=1, keepdim=True)
