"""How far the generated points are from the test points, and how much further than necessary they travelled."""

import torch
from torch import Tensor

import cellflow as cf
from benchmarks.toys.assignment import assign
from cellflow.field import Field

STEPS = 100
"""Euler steps of the probability flow, as published."""


def squared_distance(x: Tensor, y: Tensor) -> float:
    """Return the squared W2 between two clouds ``(n, 2)`` of one size, exact to one part in 2,000."""
    return assign(x.double().numpy(), y.double().numpy()).cost


def travel(velocity: Field, x: Tensor) -> tuple[Tensor, float]:
    """Return where the probability flow takes ``x`` ``(n, 2)``, and the mean energy spent: the integral of |v|^2."""
    path = cf.integrate.ode(velocity, x, steps=STEPS, save=STEPS + 1, method="euler").x
    return path[-1], float((path.diff(dim=0).double() * STEPS).square().sum(-1).mean())


def path_energy(energy: float, least: float) -> float:
    """Return the normalised path energy: what was spent beside the least, which is the squared W2 of the ends."""
    return abs(energy - least) / least


def independent_energy(
    x1: Tensor, modes: Tensor, spread: float, *, generator: torch.Generator, points: int = 200, times: int = 40
) -> float:
    """Return the path energy of the exact field that joins independent pairs, from equal Gaussians to points ``x1``.

    Given a point on the way, each pair of a Gaussian (about ``modes`` ``(k, 2)``, of standard deviation ``spread``) and
    a target has a known weight: the field is known, and no other has this path with less energy.
    """
    total = 0.0
    for t in ((torch.arange(times) + 0.5) / times).tolist():
        rows, kinds = (torch.randint(len(side), (points,), generator=generator) for side in (x1, modes))
        x0 = modes[kinds] + spread * torch.randn(points, 2, generator=generator)
        x = t * x1[rows] + (1 - t) * x0
        centres = torch.cat([t * x1 + (1 - t) * mode for mode in modes])
        weights = (-(torch.cdist(x, centres) ** 2) / (2 * ((1 - t) * spread) ** 2)).softmax(dim=1)
        total += float(((weights @ x1.repeat(len(modes), 1) - x) / (1 - t)).square().sum(1).mean())
    return total / times
