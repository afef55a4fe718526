"""How much of the growth that a field has learned holds for samples that it has not seen."""

import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from cellflow.integrate import Fixed, grow
from cellflow.training.history import History

CONFIRMED = "confirmed growth"
"""Name of the share in a history."""
SHARES = torch.linspace(0, 1, 21, dtype=torch.float64)
"""Shares that are tried."""
MOST = 500
"""Samples of each snapshot that are looked at."""
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
        What each weighs in its snapshot, ``(n,)`` and ``(m,)``; ``None`` for equal weights.
    """

    x0: Tensor
    x1: Tensor
    start: float
    stop: float
    weights0: Tensor | None = None
    weights1: Tensor | None = None


def confirmed_share(field: nn.Module, legs: Sequence[Leg]) -> float:
    """Return the share of a field's growth with which it carries new samples closest to the next snapshot.

    Samples are carried with their weights over each interval, and their energy distance to the samples at its end is
    taken, with growth multiplied by each of `SHARES`; the share with the smallest mean is returned. Growth that brings
    a snapshot to the shares of the next one, as a population's does, has a share of 1, and growth that follows the
    accidents of few samples has one of 0.

    Parameters
    ----------
    field
        A field with growth.
    legs
        Samples that it has not seen.

    Examples
    --------
    Of two kinds the second is sampled twice as often later. A field that says so, and one that says four times:

    >>> import torch, cellflow as cf
    >>> class Grows(torch.nn.Linear):
    ...     def forward(self, t, x, condition=None):
    ...         return cf.fields.Outputs(torch.zeros_like(x), growth=super().forward(x).flatten())
    >>> x0, x1 = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [1.0], [1.0]])
    >>> field = Grows(1, 1).requires_grad_(False)
    >>> for factor in (2.0, 4.0):
    ...     _ = field.weight.fill_(factor).log_()
    ...     print(f"{confirmed_share(field, [Leg(x0, x1, 0.0, 1.0)]):.2f}")
    1.00
    0.50
    """
    found = torch.stack([_distances(field, leg) for leg in legs]).mean(dim=0)
    return float(SHARES[found.argmin()])


def last_confirmed(history: History) -> float | None:
    """Return the share that was measured last in a history; ``None`` where none was.

    Examples
    --------
    >>> last_confirmed(History({CONFIRMED: [math.nan, 0.4, 0.3, math.nan]}))
    0.3
    """
    measured = [share for share in history.columns.get(CONFIRMED, ()) if not math.isnan(share)]
    return measured[-1] if measured else None


def _distances(field: nn.Module, leg: Leg) -> Tensor:
    """Return the energy distance for each share, but for a constant."""
    like = next(field.parameters())
    x0, x1 = (x[:MOST].to(like.device, like.dtype) for x in (leg.x0, leg.x1))
    with torch.no_grad():
        carried = grow(field, x0, start=leg.start, stop=leg.stop, solver=SOLVER)
    z, y = carried.x[-1].flatten(1).double(), x1.flatten(1).double()
    log_weight = cast("Tensor", carried.log_weight)
    gain = (log_weight[-1] - log_weight[0]).double()
    a, b = (_weights(given, x) for given, x in ((leg.weights0, z), (leg.weights1, y)))
    weights = torch.softmax(a.log() + SHARES.to(gain)[:, None] * gain, dim=1)
    across, within = torch.cdist(z, y) @ b, torch.cdist(z, z)
    return (2 * weights @ across - ((weights @ within) * weights).sum(dim=1)).cpu()


def _weights(given: Tensor | None, x: Tensor) -> Tensor:
    whole = torch.ones(len(x)) if given is None else given[:MOST]
    return (whole / whole.sum()).to(x)
