"""What every path is: three coefficients of time.

A path is three coefficients of time, ``x_t = a(t) x0 + b(t) x1 + c(t) z`` with Gaussian noise ``z``. Its velocity is
their derivative, taken by automatic differentiation: a path cannot disagree with its own velocity.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from cellflow.batch import Batch
from cellflow.shapes import per_sample

Weights = tuple[Tensor, Tensor, Tensor]
"""Weights of source, target and noise, each ``(n,)``."""


class PathPoint(NamedTuple):
    """A point of a path: state, velocity and noise ``(n, ...)``; time, scale of the noise and its slope ``(n,)``.

    The state is its mean plus ``spread`` times ``noise``, the velocity that of the mean plus ``spread_slope`` times
    ``noise``, per unit of the pair's own time; on a path without noise all three are 0.
    """

    t: Tensor
    x: Tensor
    velocity: Tensor
    noise: Tensor
    spread: Tensor
    spread_slope: Tensor


@dataclass(frozen=True)
class GaussianPath(ABC):
    """A Gaussian law for the point at time ``t`` given its ends; subclasses write ``coefficients``.

    Parameters
    ----------
    sigma
        Scale of the noise, in units of the state; 0 joins each pair by one curve.
    """

    sigma: float = 0.0
    margin: ClassVar[float] = 0.0
    """How close to 0 and 1 times may come; above 0 where the velocity is unbounded at the ends."""
    diffusive: ClassVar[bool] = False
    """Whether the noise gathers over the time that a pair spans, or is a blur of the same size everywhere."""

    def __post_init__(self) -> None:
        if not 0 <= self.sigma < float("inf"):
            raise ValueError(f"Expected a finite sigma >= 0; found {self.sigma}.")

    @abstractmethod
    def coefficients(self, t: Tensor) -> Weights:
        """Return the weights of source, target and noise at times ``t``, each shaped as ``t``."""

    def coefficients_and_slopes(self, t: Tensor) -> tuple[Weights, Weights]:
        """Return the coefficients at times ``t``, and their derivatives in time."""
        # Backward mode: unlike forward mode it may run in several threads at once. Each coefficient depends on its own
        # sample's time alone, so the gradient of their sum holds every slope.
        with torch.enable_grad():
            variable = t.detach().requires_grad_()
            found = self.coefficients(variable)
            source, target, noise = (_slope(c, variable) for c in found)
        return (found[0].detach(), found[1].detach(), found[2].detach()), (source, target, noise)

    def sample(
        self, x0: Tensor, x1: Tensor, t: Tensor, *, generator: torch.Generator, duration: Tensor | None = None
    ) -> PathPoint:
        """Draw a point of the path, and its velocity per unit of the pair's own time, for each pair.

        Parameters
        ----------
        x0, x1
            Ends of the pairs, both ``(n, ...)``.
        t
            Time of each pair, ``(n,)``, in [0, 1].
        generator
            Used only when ``sigma`` is above 0.
        duration
            Model time that each pair spans, ``(n,)``; None for 1. The noise of a diffusive path grows with its root.

        Examples
        --------
        >>> import torch, cellflow as cf
        >>> x0, x1, t = torch.zeros(3, 2), torch.ones(3, 2), torch.tensor([0.0, 0.5, 1.0])
        >>> cf.paths.Linear().sample(x0, x1, t, generator=cf.generator(seed=0)).x[:, 0]
        tensor([0.0000, 0.5000, 1.0000])
        """
        value, slope = self.coefficients_and_slopes(t)
        if self.sigma == 0:
            nothing = t.new_zeros(()).expand_as(t)
            unmoved = x0.new_zeros(()).expand_as(x0)
            return PathPoint(t, _combine(value, x0, x1), _combine(slope, x0, x1), unmoved, nothing, nothing)
        if self.diffusive and duration is not None:
            value, slope = ((a, b, c * duration.sqrt()) for a, b, c in (value, slope))
        noise = torch.randn(x0.shape, generator=generator, dtype=x0.dtype, device=generator.device).to(x0.device)
        x, velocity = _combine(value, x0, x1, noise), _combine(slope, x0, x1, noise)
        return PathPoint(t, x, velocity, noise, value[2], slope[2])

    def between(self, batch: Batch, s: Tensor, *, generator: torch.Generator) -> PathPoint:
        """Draw a point of the path for each pair of a batch, bent where the batch says so.

        Parameters
        ----------
        batch
            The pairs.
        s
            Time of each pair within its own span, ``(n,)``, in [0, 1].
        generator
            Used only when ``sigma`` is above 0.

        Examples
        --------
        >>> import torch, cellflow as cf
        >>> batch = cf.Batch(torch.zeros(1, 1), torch.ones(1, 1), bend0=torch.full((1, 1), 8.0))
        >>> cf.paths.Linear().between(batch, torch.tensor([0.5]), generator=cf.generator(seed=0)).x
        tensor([[1.5000]])
        """
        point = self.sample(batch.x0, batch.x1, s, generator=generator, duration=batch.span()[1])
        x, velocity = point.x, point.velocity
        # Cubic Hermite: zero at both ends, with the slope of its own bend at one of them.
        for bend, u, sign in ((batch.bend0, 1 - s, 1.0), (batch.bend1, s, -1.0)):
            if bend is not None:
                x = torch.addcmul(x, per_sample(sign * (1 - u) * u**2, bend), bend)
                velocity = torch.addcmul(velocity, per_sample(u * (3 * u - 2), bend), bend)
        return point._replace(x=x, velocity=velocity)

    def inside(self, t: Tensor) -> Tensor:
        """Squeeze times from [0, 1] into ``[margin, 1 - margin]``, where the velocity is finite."""
        return t if self.margin == 0 else self.margin + (1 - 2 * self.margin) * t


def _slope(coefficient: Tensor, t: Tensor) -> Tensor:
    if not coefficient.requires_grad:
        return torch.zeros_like(t)
    return torch.autograd.grad(coefficient.sum(), t, retain_graph=True)[0]  # they share intermediate values


def _combine(coefficients: tuple[Tensor, ...], *states: Tensor) -> Tensor:
    """Sum the states (source, target and, for a random path, noise), each with its coefficient."""
    total = per_sample(coefficients[0], states[0]) * states[0]
    for coefficient, state in zip(coefficients[1:], states[1:], strict=False):
        total = torch.addcmul(total, per_sample(coefficient, state), state)
    return total
