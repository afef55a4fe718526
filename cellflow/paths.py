"""Paths: how a pair ``(x0, x1)`` is joined; the distributions from which times are drawn are in `cellflow.time_laws`.

A path is three coefficients of time, ``x_t = a(t) x0 + b(t) x1 + c(t) z`` with Gaussian noise ``z``. Its velocity is
their derivative, taken by automatic differentiation: a path cannot disagree with its own velocity.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from math import pi
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from cellflow.batch import Batch
from cellflow.errors import unknown
from cellflow.shapes import per_sample
from cellflow.signature import checked
from cellflow.time_laws import LARGEST, LogitNormal, Stratified, TimeLaw, Uniform

__all__ = [
    "PATHS",
    "BrownianBridge",
    "GaussianPath",
    "Linear",
    "LogitNormal",
    "PathPoint",
    "Stratified",
    "TimeLaw",
    "Trigonometric",
    "Uniform",
    "VariancePreserving",
    "resolve",
]


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
    """A Gaussian distribution of the point at time ``t`` given both ends; subclasses implement ``coefficients``.

    Parameters
    ----------
    sigma
        Scale of the noise, in units of the state; 0 for a deterministic path.
    """

    sigma: float = 0.0
    margin: ClassVar[float] = 0.0
    """How close to 0 and 1 times may come; above 0 where the velocity is unbounded at the ends."""
    diffusive: ClassVar[bool] = False
    """Whether the noise accumulates over the span of a pair, as in a diffusion, or has the same scale for any span."""

    def __post_init__(self) -> None:
        if not 0 <= self.sigma <= LARGEST:
            raise ValueError(f"Expected a finite sigma >= 0, at most {LARGEST:g}; found {self.sigma}.")

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

    @checked
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
            Model time that each pair spans, ``(n,)``; ``None`` for 1. The noise of a diffusive path grows with its
            root.

        Examples
        --------
        >>> import torch, cellflow as cf
        >>> x0, x1, t = torch.zeros(3, 2), torch.ones(3, 2), torch.tensor([0.0, 0.5, 1.0])
        >>> cf.paths.Linear().sample(x0, x1, t, generator=cf.generator(seed=0)).x[:, 0]
        tensor([0.0000, 0.5000, 1.0000])
        """
        _check_pairs(x0, x1, t)
        if duration is not None and duration.shape != t.shape:
            raise ValueError(f"Expected a duration for each of {len(t)} pairs; found shape {tuple(duration.shape)}.")
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


def _check_pairs(x0: Tensor, x1: Tensor, t: Tensor) -> None:
    if not x0.is_floating_point() or not x1.is_floating_point() or x0.shape != x1.shape or not x0.ndim:
        raise ValueError(
            f"Expected `x0` and `x1` as floating-point states of one shape (n, ...); found {tuple(x0.shape)} of "
            f"{x0.dtype} and {tuple(x1.shape)} of {x1.dtype}."
        )
    if not t.is_floating_point() or t.shape != x0.shape[:1]:
        raise ValueError(
            f"Expected a time for each of {len(x0)} pairs, ({len(x0)},); found {tuple(t.shape)} of {t.dtype}."
        )


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


@checked
@dataclass(frozen=True)
class Linear(GaussianPath):
    """Straight lines at constant speed, with Gaussian noise of the same scale ``sigma`` at all times.

    Source
    ------
    Lipman et al. 2023, equation 22; Tong et al. 2024 (TMLR), equation 14.

    Examples
    --------
    >>> Linear(sigma=0.1)
    Linear(sigma=0.1)
    """

    def coefficients(self, t: Tensor) -> Weights:
        """Return ``1 - t, t, sigma``."""
        return 1 - t, t, torch.full_like(t, self.sigma)


@checked
@dataclass(frozen=True)
class Trigonometric(GaussianPath):
    """Quarter circles, which keep the variance of independent standardised ends.

    Source
    ------
    Albergo and Vanden-Eijnden 2023, equation 5.

    Examples
    --------
    >>> import torch
    >>> source, target, _ = Trigonometric().coefficients(torch.tensor([0.3]))
    >>> source**2 + target**2
    tensor([1.])
    """

    def coefficients(self, t: Tensor) -> Weights:
        """Return ``cos(pi t / 2), sin(pi t / 2), sigma``."""
        return torch.cos(pi / 2 * t), torch.sin(pi / 2 * t), torch.full_like(t, self.sigma)


@checked
@dataclass(frozen=True)
class VariancePreserving(GaussianPath):
    """The forward noising process of score-based diffusion, run from noise ``x0`` to data ``x1``.

    Parameters
    ----------
    beta_min, beta_max
        Noise rate at the data end and at the noise end, per unit of model time.

    Source
    ------
    Song et al. 2021, equation 32, with time reversed.

    Examples
    --------
    >>> import torch
    >>> VariancePreserving().coefficients(torch.tensor([0.0]))[0] > 0.999  # nothing but noise at t = 0
    tensor([True])
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    margin: ClassVar[float] = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.beta_min <= LARGEST or not 1 / LARGEST <= self.beta_max <= LARGEST:
            raise ValueError(
                f"Expected beta_min >= 0 and beta_max >= {1 / LARGEST:g}, at most {LARGEST:g}; found {self.beta_min} "
                f"and {self.beta_max}."
            )

    def coefficients(self, t: Tensor) -> Weights:
        """Return ``sqrt(1 - alpha^2), alpha, sigma``."""
        age = 1 - t
        log_alpha = -0.25 * age**2 * (self.beta_max - self.beta_min) - 0.5 * age * self.beta_min
        return torch.sqrt(-torch.expm1(2 * log_alpha)), torch.exp(log_alpha), torch.full_like(t, self.sigma)


@checked
@dataclass(frozen=True)
class BrownianBridge(GaussianPath):
    """Brownian motion, pinned at both ends of the pair.

    ``sigma`` is the standard deviation that free Brownian motion reaches over all of model time: over all snapshots
    where there are several, so that the diffusion is the same in long and in short intervals. The velocity is unbounded
    at the ends, hence the margin.

    Source
    ------
    Tong et al. 2024 (AISTATS), equation 8.

    Examples
    --------
    >>> import torch
    >>> BrownianBridge(sigma=2.0).coefficients(torch.tensor([0.5]))[2]
    tensor([1.])
    """

    sigma: float = 1.0
    margin: ClassVar[float] = 1e-3
    diffusive: ClassVar[bool] = True

    def coefficients(self, t: Tensor) -> Weights:
        """Return ``1 - t, t, sigma sqrt(t (1 - t))``."""
        return 1 - t, t, self.sigma * torch.sqrt(t * (1 - t))


PATHS = {"linear": Linear(), "trigonometric": Trigonometric(), "variance_preserving": VariancePreserving()}
"""Paths without required settings, by name; `BrownianBridge` requires a sigma."""


def resolve(path: GaussianPath | str) -> GaussianPath:
    """Return the path itself, or the path of that name in ``PATHS``.

    Raises
    ------
    ValueError
        When no path has that name.
    TypeError
        When it is not a path, for example a class instead of an instance.

    Examples
    --------
    >>> resolve("linear")
    Linear(sigma=0.0)
    """
    if isinstance(path, str):
        if path not in PATHS:
            raise ValueError(f"{unknown('path', path, PATHS)} Or pass one, such as `cf.paths.BrownianBridge(0.3)`.")
        return PATHS[path]
    if not isinstance(path, GaussianPath):
        raise TypeError(f"Expected a path such as `cf.paths.Linear()`, or the name of one; found {path!r}.")
    return path


def blurred(path: GaussianPath | str, sigma: float) -> GaussianPath:
    """Return a path with noise of scale ``sigma`` if it has no noise yet.

    Examples
    --------
    >>> blurred("linear", 0.1), blurred(Linear(0.3), 0.1)
    (Linear(sigma=0.1), Linear(sigma=0.3))
    """
    found = resolve(path)
    return found if found.sigma > 0 else replace(found, sigma=sigma)


def diffusion_of(path: GaussianPath | str | None) -> float:
    """Return the scale of the Brownian motion of which a path is a bridge, per square root of model time; 0 for none.

    Examples
    --------
    >>> diffusion_of(BrownianBridge(0.3)), diffusion_of(Linear(0.3)), diffusion_of(None)
    (0.3, 0.0, 0.0)
    """
    found = None if path is None else resolve(path)
    return found.sigma if found is not None and found.diffusive else 0.0
