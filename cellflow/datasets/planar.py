"""Toy distributions in the plane: eight Gaussians on a circle, two moons, an S."""

import math

import torch
from torch import Tensor

from cellflow.signature import checked
from cellflow.time_laws import LARGEST


@checked
def eight_gaussians(n: int, *, radius: float, spread: float, generator: torch.Generator, even: bool = True) -> Tensor:
    """Draw ``(n, 2)`` points from eight equal Gaussians on a circle about the origin, one of them at angle 0.

    Parameters
    ----------
    n
        The number of points.
    radius
        Radius of the circle.
    spread
        Standard deviation of each Gaussian, in each coordinate.
    generator
        Draws the points.
    even
        Whether each Gaussian gets exactly an eighth of the points; otherwise each point draws its Gaussian, which makes
        two samples considerably more distant from each other.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> x = eight_gaussians(800, radius=5.0, spread=0.1, generator=cf.generator(seed=0))
    >>> bool(((x.norm(dim=1) - 5).abs() < 0.6).all())
    True
    """
    _check(n, radius=radius, spread=spread)
    places = torch.randperm(n, generator=generator) if even else torch.randint(8 * n, (n,), generator=generator)
    angle = (places % 8) * (math.pi / 4)
    return radius * _at(angle) + spread * torch.randn(n, 2, generator=generator, dtype=torch.float32)


@checked
def moons(n: int, *, noise: float, generator: torch.Generator) -> Tensor:
    """Draw ``(n, 2)`` points from two interleaving half circles of radius 1.

    The upper one is about (0, 0), the lower one about (1, 0.5); each has half of the points, evenly spaced before the
    noise. The order is random.

    Parameters
    ----------
    n
        The number of points; of an odd number the lower moon has one more.
    noise
        Standard deviation of the Gaussian noise in each coordinate.
    generator
        Draws the noise and the order.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> x = moons(100, noise=0.0, generator=cf.generator(seed=0))
    >>> x.amin(dim=0).round(decimals=1), x.amax(dim=0).round(decimals=1)
    (tensor([-1.0000, -0.5000]), tensor([2., 1.]))
    """
    _check(n, noise=noise)
    upper = _at(torch.linspace(0, math.pi, n // 2, dtype=torch.float32))
    lower = torch.tensor([1.0, 0.5], dtype=torch.float32) - _at(
        torch.linspace(0, math.pi, n - n // 2, dtype=torch.float32)
    )
    points = torch.cat([upper, lower])[torch.randperm(n, generator=generator)]
    return points + noise * torch.randn(n, 2, generator=generator, dtype=torch.float32)


@checked
def s_curve(n: int, *, noise: float, generator: torch.Generator) -> Tensor:
    """Draw ``(n, 2)`` points from an S made of two three-quarter circles of radius 1 that meet at the origin.

    Parameters
    ----------
    n
        The number of points, uniform along the curve.
    noise
        Standard deviation of the Gaussian noise in each coordinate.
    generator
        Draws the points.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> x = s_curve(1000, noise=0.0, generator=cf.generator(seed=0))
    >>> x.amin(dim=0).round(), x.amax(dim=0).round()
    (tensor([-1., -2.]), tensor([1., 2.]))
    """
    _check(n, noise=noise)
    angle = 3 * math.pi * (torch.rand(n, generator=generator, dtype=torch.float32) - 0.5)
    curve = torch.stack([angle.sin(), angle.sign() * (angle.cos() - 1)], dim=1)
    return curve + noise * torch.randn(n, 2, generator=generator, dtype=torch.float32)


def _at(angle: Tensor) -> Tensor:
    """Return the points of the unit circle at ``(n,)`` angles."""
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def _check(n: int, **lengths: float) -> None:
    if n < 1:
        raise ValueError(f"Expected n >= 1 points; found {n}.")
    for name, length in lengths.items():
        if not 0 <= length <= LARGEST:
            raise ValueError(f"Expected a finite {name} >= 0, at most {LARGEST:g}; found {length}.")
