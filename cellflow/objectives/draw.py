"""Draws of points for all objectives, from every field of a batch; a field that an objective cannot use is refused."""

import math
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from cellflow.batch import Batch
from cellflow.paths import GaussianPath, PathPoint, TimeLaw
from cellflow.shapes import per_sample

Unit: TypeAlias = float | tuple[float, ...]
"""Unit of length of errors: one, or one for each dimension of a state ``(n, d)``."""
ORDINARY = (1e-12, 1e12)
"""Lengths whose squares and their inverses are far from the ends of single precision."""


class Drawn(NamedTuple):
    """One point on the path of each pair of a batch.

    Attributes
    ----------
    t
        Model times, ``(n,)``.
    point
        The point, and its velocity per unit of the pair's own time.
    duration
        Model time that each pair spans, ``(n,)``.
    condition
        Condition of the field, ``(n, k)``, or ``None``.
    mass
        Mass that each pair carries at its point, ``(n,)``; ``None`` if all carry the same.
    log_gain
        Growth of a pair's log mass over its span, ``(n,)``; ``None`` without masses.
    """

    t: Tensor
    point: PathPoint
    duration: Tensor
    condition: Tensor | None
    mass: Tensor | None
    log_gain: Tensor | None

    @property
    def x(self) -> Tensor:
        """The states, ``(n, ...)``."""
        return self.point.x

    def missed(self, velocity: Tensor, target: Tensor | None = None) -> Tensor:
        """Return the error of a velocity, as displacement over the span of each pair, ``(n, ...)``.

        Parameters
        ----------
        velocity
            Velocities at the points, per unit of model time, ``(n, ...)``.
        target
            Displacements; ``None`` for those of the path.
        """
        target = self.point.velocity if target is None else target
        return torch.addcmul(target, per_sample(self.duration, velocity), velocity, value=-1)

    def mean_square(self, missed: Tensor, unit: Unit) -> Tensor:
        """Return the mean square of errors ``(n, ...)``, in units of length: one, or one per dimension.

        Where squares of the unit are near the ends of single precision, a power of two is taken out before, which
        rounds nothing.
        """
        if isinstance(unit, tuple):
            return self.mean((missed / missed.new_tensor(unit)).square())
        power = 1.0 if ORDINARY[0] < unit < ORDINARY[1] else 2.0 ** round(math.log2(unit))
        squares = (missed if power == 1 else missed / power).square()
        return self.mean(squares) / (unit / power) ** 2

    def mean(self, squares: Tensor) -> Tensor:
        """Return the mean of squared errors ``(n, ...)``, each weighted by the mass of its pair."""
        return weighted_mean(squares, self.mass)


def draw(batch: Batch, path: GaussianPath, times: TimeLaw, *, generator: torch.Generator) -> Drawn:
    """Draw a point on the path of each pair of a batch, with the bends, spans and masses of the batch.

    Parameters
    ----------
    batch
        The pairs.
    path
        Path between the points of a pair.
    times
        Distribution of the time within a pair.
    generator
        Draws the times, and the noise of the path.

    Raises
    ------
    ValueError
        When the batch has masses at only one end of its pairs.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> batch = cf.Batch(torch.zeros(1, 1), torch.ones(1, 1), start=torch.tensor([0.5]))
    >>> drawn = draw(batch, cf.paths.Linear(), cf.paths.Uniform(), generator=cf.generator(seed=0))
    >>> (drawn.t == 0.5 + drawn.x[:, 0] / 2).all(), drawn.mass
    (tensor(True), None)
    """
    start, duration = batch.span()
    s = path.inside(times.sample(len(batch.x0), generator=generator, like=batch.x0))
    point = path.between(batch, s, generator=generator)
    mass = gain = None
    if batch.log_mass0 is not None and batch.log_mass1 is not None:
        before, after = batch.log_mass0.to(s), batch.log_mass1.to(s)
        mass, gain = torch.lerp(before, after, s).exp(), after - before
    elif batch.log_mass0 is not None or batch.log_mass1 is not None:
        raise ValueError("Expected masses at both ends of the pairs, or at none; found them at one. Set both.")
    return Drawn(start + s * duration, point, duration, batch.condition, mass, gain)


def known_gain(log_gain: Tensor | None) -> Tensor:
    """Return the growth of log mass over the span of each pair, ``(n,)``.

    Raises
    ------
    ValueError
        When the pairs carry no masses.

    Examples
    --------
    >>> known_gain(torch.ones(1))
    tensor([1.])
    """
    if log_gain is None:
        raise ValueError(
            "Expected a batch with masses at both ends of its pairs; found none. Pass `masses=` to "
            "`cf.pairing.paired_batches` or `cf.pairing.snapshot_batches`, or set `log_mass0` and `log_mass1`."
        )
    return log_gain


def weighted_mean(squares: Tensor, mass: Tensor | None) -> Tensor:
    """Return the mean of squared errors ``(n, ...)``, weighted by masses ``(n,)`` where there are any.

    Examples
    --------
    >>> weighted_mean(torch.tensor([[1.0], [4.0]]), torch.tensor([2.0, 1.0]))
    tensor(3.)
    """
    return squares.mean() if mass is None else (per_sample(mass, squares) * squares).mean()


def refuse(batch: Batch, owner: object, *, masses: str = "", bends: str = "") -> None:
    """Raise for fields of a batch that an objective cannot use.

    Parameters
    ----------
    batch
        The pairs.
    owner
        The objective.
    masses, bends
        Why pairs must not have masses, or bends, and what to do; empty if they may.

    Raises
    ------
    ValueError
        When the batch has a field that is not allowed.

    Examples
    --------
    >>> bent = Batch(torch.zeros(1, 1), torch.ones(1, 1), bend0=torch.ones(1, 1))
    >>> refuse(bent, Batch, bends="Leave them straight.")
    Traceback (most recent call last):
        ...
    ValueError: Batch takes no pairs with bends. Leave them straight.
    """
    for name, why, held in (
        ("masses", masses, (batch.log_mass0, batch.log_mass1)),
        ("bends", bends, (batch.bend0, batch.bend1)),
    ):
        if why and any(part is not None for part in held):
            kind = owner if isinstance(owner, type) else type(owner)
            raise ValueError(f"{kind.__name__} takes no pairs with {name}. {why}")
