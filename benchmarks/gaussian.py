"""The Schrödinger bridge between two Gaussians in closed form, for reference Brownian motion of scale sigma."""

from dataclasses import dataclass

import torch
from torch import Tensor

import cellflow as cf


@dataclass(frozen=True)
class GaussianBridge:
    """The bridge from N(mean0, cov0) to N(mean1, cov1); means ``(d,)``, covariances ``(d, d)``, all float64.

    Source: Janati et al. 2020, theorem 1, for the coupling of the ends; a Brownian bridge between them.

    Examples
    --------
    >>> eye = torch.eye(1, dtype=torch.float64)
    >>> bridge = GaussianBridge(-eye[0], eye, eye[0], eye, sigma=1.0)
    >>> round(bridge.cross().item(), 3)
    0.618
    """

    mean0: Tensor
    cov0: Tensor
    mean1: Tensor
    cov1: Tensor
    sigma: float

    def cross(self) -> Tensor:
        """Return the covariance of start and end, ``(d, d)``."""
        root, inverse = power(self.cov0, 0.5), power(self.cov0, -0.5)
        eye = torch.eye(len(self.cov0), dtype=torch.float64)
        middle = power(4 * root @ self.cov1 @ root + self.sigma**4 * eye, 0.5)
        return (root @ middle @ inverse - self.sigma**2 * eye) / 2

    def marginal(self, t: float) -> tuple[Tensor, Tensor]:
        """Return mean ``(d,)`` and covariance ``(d, d)`` at time ``t``."""
        cross, eye = self.cross(), torch.eye(len(self.cov0), dtype=torch.float64)
        mixed = t * (1 - t) * (cross + cross.T + self.sigma**2 * eye)
        return (1 - t) * self.mean0 + t * self.mean1, (1 - t) ** 2 * self.cov0 + t**2 * self.cov1 + mixed

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw ``n`` pairs of start and end, both ``(n, d)``, float32, from the coupling."""
        cross, dim = self.cross(), len(self.mean0)
        joint = torch.cat([torch.cat([self.cov0, cross], dim=1), torch.cat([cross.T, self.cov1], dim=1)])
        noise = torch.randn(n, 2 * dim, generator=generator, dtype=torch.float64)
        x = torch.cat([self.mean0, self.mean1]) + noise @ power(joint, 0.5)
        return x[:, :dim].float(), x[:, dim:].float()


def power(matrix: Tensor, exponent: float) -> Tensor:
    """Return a power of a symmetric positive matrix ``(d, d)``."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0) ** exponent) @ vectors.T


def standard(dim: int, *, shift: float = 0.1, sigma: float = 1.0) -> GaussianBridge:
    """Return the bridge N(-shift, I) to N(shift, I) of the published benchmark."""
    mean, eye = torch.full((dim,), shift, dtype=torch.float64), torch.eye(dim, dtype=torch.float64)
    return GaussianBridge(-mean, eye, mean, eye, sigma)


def general(dim: int, *, sigma: float, seed: int) -> GaussianBridge:
    """Return a bridge between Gaussians with variances from 0.25 to 4 along axes turned at random."""
    rng = cf.generator(seed=seed)
    variances = torch.logspace(-1, 1, dim, base=4, dtype=torch.float64)

    def turned() -> Tensor:
        basis = torch.linalg.qr(torch.randn(dim, dim, generator=rng, dtype=torch.float64)).Q
        return (basis * variances) @ basis.T

    means = torch.randn(2, dim, generator=rng, dtype=torch.float64)
    return GaussianBridge(means[0], turned(), means[1], turned(), sigma)


def divergence(x: Tensor, mean: Tensor, covariance: Tensor) -> float:
    """Return KL(Gaussian fitted to ``x`` ``(n, d)`` || N(mean, covariance))."""
    fitted, offset = torch.cov(x.double().T), x.double().mean(0) - mean
    inverse = torch.linalg.inv(covariance)
    trace, distance = (inverse @ fitted).trace(), offset @ inverse @ offset
    return ((trace + distance - len(mean) + torch.logdet(covariance) - torch.logdet(fitted)) / 2).item()
