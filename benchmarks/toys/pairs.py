"""The four pairs of clouds, as the published table has them (Tong et al. 2024, AISTATS, table 2, "runner")."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

import cellflow as cf

POINTS = 10_000
"""Training points, and as many test points."""


class Clouds(NamedTuple):
    """Source and target to learn from, and others to be judged by, each ``(n, 2)``."""

    x0: Tensor
    x1: Tensor
    test0: Tensor
    test1: Tensor


def clouds(pair: str, seed: int, *, points: int = POINTS) -> Clouds:
    """Draw a pair: training, validation (unused) and test points are drawn together and parted at random."""
    rng = cf.generator(seed=seed)
    source, target = (draw(3 * points, rng) for draw in PAIRS[pair])
    x0, test0, _ = source[torch.randperm(3 * points, generator=rng)].split(points)
    x1, test1, _ = target[torch.randperm(3 * points, generator=rng)].split(points)
    return Clouds(x0, x1, test0, test1)


def source_law(pair: str) -> tuple[Tensor, float]:
    """Return centres ``(k, 2)`` and standard deviation of the equal Gaussians that make up the source of a pair."""
    if pair.startswith("N->"):
        return torch.zeros(1, 2), 1.0
    angle = torch.arange(8) * torch.pi / 4
    return 12 * torch.stack([angle.cos(), angle.sin()], dim=1), 1.5


def _normal(n: int, rng: torch.Generator) -> Tensor:
    return torch.randn(n, 2, generator=rng)


def _eight(n: int, rng: torch.Generator) -> Tensor:
    return cf.datasets.eight_gaussians(n, radius=5.0, spread=1.0, generator=rng)


def _moons(n: int, rng: torch.Generator) -> Tensor:
    return 2 * cf.datasets.moons(n, noise=0.05, generator=rng) - torch.tensor([1.0, 0.0])


def _s_curve(n: int, rng: torch.Generator) -> Tensor:
    return 1.5 * cf.datasets.s_curve(n, noise=0.05, generator=rng)


def _wide_eight(n: int, rng: torch.Generator) -> Tensor:
    return 3 * cf.datasets.eight_gaussians(n, radius=4.0, spread=0.5, generator=rng, even=False)


def _wide_moons(n: int, rng: torch.Generator) -> Tensor:
    x = cf.datasets.moons(n, noise=0.1, generator=rng)
    return 7 * (x - x.mean()) / x.std()


PAIRS: dict[str, tuple[Callable[[int, torch.Generator], Tensor], Callable[[int, torch.Generator], Tensor]]] = {
    "N->8gaussians": (_normal, _eight),
    "N->moons": (_normal, _moons),
    "N->scurve": (_normal, _s_curve),
    "8gaussians->moons": (_wide_eight, _wide_moons),
}
"""Source and target of each pair."""
