"""The curve of a population's mean, which bends all pairs of an interval alike."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.interpolate import CubicSpline, PchipInterpolator
from torch import Tensor

from cellflow.batch import Batch
from cellflow.errors import unknown
from cellflow.signature import checked

if TYPE_CHECKING:
    from cellflow.pairing.batches import PairedBatches

log = logging.getLogger(__name__)

SPLINES: dict[str, Callable[..., Any]] = {
    "monotone": PchipInterpolator,
    "natural": lambda s, x: CubicSpline(s, x, bc_type="natural"),
}
"""Interpolating cubics by name."""
MARGIN = 0.5
"""The squared error of another curve must be less than this much of that of monotone cubics to be chosen instead."""
ROUNDING = 1e-9


@checked
@dataclass(frozen=True)
class Mean:
    r"""Paths that follow the curve of the population's mean through all snapshots.

    Let :math:`c_k` be the mean at time :math:`t_k`, and :math:`s_k = \sum_{i < k} |c_{i+1} - c_i|` the length of the
    way there. A cubic spline :math:`C(s)` runs through the means along this length, and a clock :math:`s(t)`, a
    monotone cubic (PCHIP), says when it is where. All pairs of an interval are displaced alike: by what the cubic with
    the positions and velocities of :math:`C(s(t))` at both snapshots deviates from even motion along its chord,

    .. math:: x_u = (1 - u) x_0 + u x_1 + u (1 - u)^2 b_0 - u^2 (1 - u) b_1, \quad
        b = (t_{k+1} - t_k) \, C'(s) \, s'(t) - (c_{k+1} - c_k)

    at the fraction u of the interval, with :math:`b_0` from its beginning and :math:`b_1` from its end. The mean of
    the population then has a continuous velocity. As the displacement is common to all pairs, paths that do not meet
    do not meet after it, and a Schrödinger bridge stays one, whose reference has the mean's deviation as its drift.

    Use it with three snapshots or more; with two it changes nothing. It needs no plan over whole snapshots, and takes
    no time. It helps if means turn, stop or speed up, and changes little if they wander
    (``benchmarks/results/curves.md``). If means move evenly along a line, all pairs stay straight.

    If cells count unequally, because pairs carry masses, have weights or stay within groups, :math:`c_{k+1} - c_k`
    is the mean displacement of the pairs, as the plan weighs them: growth moves the mean of the population, but no
    cell.

    Parameters
    ----------
    spline
        ``"monotone"`` for cubics that go beyond neighbouring means in no dimension (PCHIP); they depend on the axes of
        the representation. ``"natural"`` for the natural cubic spline, which turns farther and does not depend on axes:
        better on cycles and spirals, worse where means are noisy. ``"auto"`` for monotone cubics unless others win
        clearly: each inner snapshot is left out in turn, and its mean predicted from the other snapshots. Natural
        cubics, or no bends at all, are taken where their squared error, summed over the snapshots, is less than half of
        that of monotone cubics. The choice is logged.

    Raises
    ------
    ValueError
        For an unknown spline.

    Source
    ------
    Fritsch and Butland 1984, equation 5, for the slopes of monotone cubics, and Fritsch and Carlson 1980, section 4,
    for their limit; de Boor 1978, chapter IV, for natural splines.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> clouds = [torch.tensor([[x]]) for x in (0.0, 1.0, 4.0)]
    >>> rng = cf.generator(seed=0)
    >>> batches = cf.pairing.snapshot_batches(clouds, [0, 0.5, 1], curve=Mean(), batch_size=1, generator=rng)
    >>> next(iter(batches)).bend0
    tensor([[-1.0000],
            [-1.5000]])
    """

    spline: str = "auto"

    def __post_init__(self) -> None:
        if self.spline not in (*SPLINES, "auto"):
            raise ValueError(unknown("spline", self.spline, (*SPLINES, "auto")))

    @checked
    def bends(
        self,
        snapshots: Sequence[Tensor],
        times: Sequence[float],
        batches: "PairedBatches",
        *,
        generator: torch.Generator,
    ) -> "CommonBends | None":
        """Return the bends of each interval; ``None`` if there are none."""
        if len(times) < 3:
            return None
        steps = batches.displacements().flatten(1).cpu().numpy()
        bends = torch.from_numpy(
            mean_bends(steps, times, chosen(steps, times) if self.spline == "auto" else self.spline)
        )
        return CommonBends.of(bends.reshape(2, -1, *snapshots[0].shape[1:]), snapshots)


def mean_bends(steps: np.ndarray, times: Sequence[float], spline: str = "monotone") -> np.ndarray:
    """Return the bends at both ends of each interval, ``(2, k, d)``.

    Parameters
    ----------
    steps
        Mean displacement over each interval, ``(k, d)``.
    times
        Time of each snapshot, ``(k + 1,)``.
    spline
        ``"monotone"``, ``"natural"``, or ``"straight"`` for no bends.

    Examples
    --------
    >>> import numpy as np
    >>> mean_bends(np.array([[1.0], [3.0]]), [0, 1, 4])  # even motion along a line
    array([[[0.],
            [0.]],
    <BLANKLINE>
           [[0.],
            [0.]]])
    """
    lengths, durations = np.linalg.norm(steps, axis=1), np.diff(times)
    whole, bends = lengths.sum(), np.zeros((2, *steps.shape))
    moves = lengths > ROUNDING * whole  # where the mean rests, its curve has no length
    if spline == "straight" or not moves.any():
        return bends
    s = np.concatenate([[0.0], np.cumsum(np.where(moves, lengths, 0.0))])
    knots, points = (np.concatenate([x[:1] * 0, np.cumsum(x[moves], axis=0)]) for x in (lengths, steps))
    clock, curve = PchipInterpolator(times, s), SPLINES[spline](knots, points)
    slopes = curve(np.minimum(s, knots[-1]), 1) * clock(times, 1)[:, None]
    if spline == "monotone":  # both factors are within their limits; so must be their product
        secants = np.abs(steps / durations[:, None])
        limit = 3 * np.minimum(np.concatenate([secants[:1], secants]), np.concatenate([secants, secants[-1:]]))
        slopes = np.clip(slopes, -limit, limit)
    for end, slope in enumerate((slopes[:-1], slopes[1:])):
        bends[end] = durations[:, None] * slope - steps
    bends[np.abs(bends) <= ROUNDING * whole] = 0
    return bends


def errors_left_out(steps: np.ndarray, times: Sequence[float], spline: str) -> np.ndarray:
    """Return the squared error of the mean of each inner snapshot ``(k - 1,)``, predicted from the other snapshots.

    Examples
    --------
    >>> import numpy as np
    >>> errors_left_out(np.array([[1.0, 0.0], [1.0, 1.0]]), [0, 1, 2], "straight")
    array([0.25])
    """
    found = []
    for k in range(1, len(steps)):
        kept = np.concatenate([steps[: k - 1], steps[k - 1 : k] + steps[k], steps[k + 1 :]])
        others = [*times[:k], *times[k + 1 :]]
        bend0, bend1 = mean_bends(kept, others, spline)[:, k - 1]
        u = (times[k] - times[k - 1]) / (times[k + 1] - times[k - 1])
        predicted = u * kept[k - 1] + u * (1 - u) ** 2 * bend0 - u**2 * (1 - u) * bend1
        found.append(float(np.square(predicted - steps[k - 1]).sum()))
    return np.array(found)


def chosen(steps: np.ndarray, times: Sequence[float]) -> str:
    """Return the spline that predicts left-out means clearly better than monotone cubics, else these; see `Mean`.

    Examples
    --------
    >>> import numpy as np
    >>> angles = np.linspace(0, 4, 6)
    >>> chosen(np.diff(np.stack([np.cos(angles), np.sin(angles)], axis=1), axis=0), angles)
    'natural'
    """
    errors = {spline: errors_left_out(steps, times, spline).sum() for spline in ("straight", *SPLINES)}
    best = min(errors, key=lambda spline: errors[spline])
    best = best if errors[best] < MARGIN * errors["monotone"] else "monotone"
    log.info("the mean's curve: %s (snapshots left out in turn: %d)", best, len(steps) - 1)
    return best


@dataclass(frozen=True, eq=False)
class CommonBends:
    """Bends all pairs of an interval alike.

    Parameters
    ----------
    bend0, bend1
        The bends of each interval, ``(k, ...)``.
    last
        The number of the last row of each snapshot but the final one, counted through all of them, ``(k,)``.
    """

    bend0: Tensor
    bend1: Tensor
    last: Tensor

    @classmethod
    def of(cls, bends: Tensor, snapshots: Sequence[Tensor]) -> "CommonBends | None":
        """Return the bends ``(2, k, ...)``, in the precision of the snapshots; ``None`` where all are 0."""
        if not bends.any():
            return None
        bend0, bend1 = bends.to(snapshots[0])
        sizes = torch.tensor([len(cloud) for cloud in snapshots[:-1]])
        return cls(bend0, bend1, sizes.cumsum(0).to(bend0.device) - 1)

    def __call__(self, batch: Batch, source: Tensor, target: Tensor) -> Batch:
        """Return the batch with its bends; ``source`` ``(batch,)`` are the rows where pairs begin."""
        interval = torch.bucketize(source, self.last)
        return batch._replace(bend0=self.bend0[interval], bend1=self.bend1[interval])
