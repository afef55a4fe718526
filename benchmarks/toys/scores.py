"""How far the generated points are from the test points, and how much further than necessary they travelled."""

import torch
from torch import Tensor

import cellflow as cf
from benchmarks.toys.assignment import assign
from cellflow.fields import Field
from cellflow.integrate import Fixed

STEPS = 100
"""Euler steps of the probability flow, as published."""


def squared_distance(x: Tensor, y: Tensor) -> float:
    """Return the squared W2 between two clouds ``(n, 2)`` of one size, exact to one part in 2,000."""
    return assign(x.double().numpy(), y.double().numpy()).cost


def travel(velocity: Field, x: Tensor) -> tuple[Tensor, float]:
    """Return where the probability flow takes ``x`` ``(n, 2)``, and the mean energy spent: the integral of |v|^2."""
    path = cf.integrate.ode(velocity, x, solver=Fixed("euler", steps=STEPS), save=STEPS + 1).x
    return path[-1], float((path.diff(dim=0).double() * STEPS).square().sum(-1).mean())


def path_energy(energy: float, least: float) -> float:
    """Return the normalised path energy: what was spent beside the least, which is the squared W2 of the ends."""
    return abs(energy - least) / least


def independent_energy(
    x1: Tensor,
    modes: Tensor,
    spread: float,
    *,
    generator: torch.Generator,
    blur: float = 0.0,
    points: int = 200,
    times: int = 40,
) -> float:
    """Return the path energy of the exact field that joins independent pairs, from equal Gaussians to points ``x1``.

    Given a point on the way, each pair of a Gaussian (about ``modes`` ``(k, 2)``, of standard deviation ``spread``) and
    a target has a known weight: the field is known, and no other has this path with less energy. ``blur`` is the
    standard deviation of noise around the straight line, which a field averages over.
    """
    total = 0.0
    for t in ((torch.arange(times) + 0.5) / times).tolist():
        rows, kinds = (torch.randint(len(side), (points,), generator=generator) for side in (x1, modes))
        x = t * x1[rows] + (1 - t) * (modes[kinds] + spread * _normal(points, generator))
        x = x + blur * _normal(points, generator) if blur else x
        own = ((1 - t) * spread) ** 2  # the variance that the source brings, of the variance around a pair's mean
        ends, starts = x1.repeat(len(modes), 1), modes.repeat_interleave(len(x1), dim=0)
        centres = t * ends + (1 - t) * starts
        weights = (-(torch.cdist(x, centres) ** 2) / (2 * (own + blur**2))).softmax(dim=1)
        start = weights @ starts + (1 - t) * spread**2 / (own + blur**2) * (x - weights @ centres)
        total += float((weights @ ends - start).square().sum(1).mean())
    return total / times


def gaussian_energy(
    x1: Tensor, *, generator: torch.Generator, blur: float, points: int = 200, times: int = 40
) -> float:
    """Return the path energy of the exact field of flow matching from a standard Gaussian to blurred points ``x1``.

    Source: Lipman et al. 2023, equation 20, with ``blur`` for their smallest standard deviation.
    """
    total = 0.0
    for t in ((torch.arange(times) + 0.5) / times).tolist():
        rows, sd = torch.randint(len(x1), (points,), generator=generator), 1 - (1 - blur) * t
        x = t * x1[rows] + sd * _normal(points, generator)
        weights = (-(torch.cdist(x, t * x1) ** 2) / (2 * sd**2)).softmax(dim=1)
        total += float(((weights @ x1 - (1 - blur) * x) / sd).square().sum(1).mean())
    return total / times


def _normal(n: int, rng: torch.Generator) -> Tensor:
    return torch.randn(n, 2, generator=rng)
