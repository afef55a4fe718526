"""The paths there are."""

from dataclasses import dataclass
from math import pi
from typing import ClassVar

import torch
from torch import Tensor

from cellflow.paths.path import GaussianPath, Weights


@dataclass(frozen=True)
class Linear(GaussianPath):
    """Straight lines at constant speed, blurred by ``sigma`` everywhere.

    Source: Lipman et al. 2023, equation 22; Tong et al. 2024 (TMLR), equation 14.

    Examples
    --------
    >>> Linear(sigma=0.1)
    Linear(sigma=0.1)
    """

    def coefficients(self, t: Tensor) -> Weights:
        """Return ``1 - t, t, sigma``."""
        return 1 - t, t, torch.full_like(t, self.sigma)


@dataclass(frozen=True)
class Trigonometric(GaussianPath):
    """Quarter circles, which keep the variance of independent standardised ends.

    Source: Albergo and Vanden-Eijnden 2023, equation 5.

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


@dataclass(frozen=True)
class VariancePreserving(GaussianPath):
    """The forward noising process of score-based diffusion, run from noise ``x0`` to data ``x1``.

    Parameters
    ----------
    beta_min, beta_max
        Noise rate at the data end and at the noise end, per unit of model time.

    Source: Song et al. 2021, equation 32, with time reversed.

    Examples
    --------
    >>> import torch
    >>> VariancePreserving().coefficients(torch.tensor([0.0]))[0] > 0.999  # nothing but noise at t = 0
    tensor([True])
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    margin: ClassVar[float] = 1e-3

    def coefficients(self, t: Tensor) -> Weights:
        """Return ``sqrt(1 - alpha^2), alpha, sigma``."""
        age = 1 - t
        log_alpha = -0.25 * age**2 * (self.beta_max - self.beta_min) - 0.5 * age * self.beta_min
        return torch.sqrt(-torch.expm1(2 * log_alpha)), torch.exp(log_alpha), torch.full_like(t, self.sigma)


@dataclass(frozen=True)
class BrownianBridge(GaussianPath):
    """Brownian motion, pinned at both ends of the pair.

    ``sigma`` is the spread that free Brownian motion gathers over the whole of model time: over all snapshots where
    there are several, so that the diffusion is the same in long and in short intervals. The velocity is unbounded at
    the ends, hence the margin.

    Source: Tong et al. 2024 (AISTATS), equation 8.

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
