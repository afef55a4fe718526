r"""Velocity and growth rate of a population that gains and loses mass on its way.

A plan P between two snapshots with masses a and b that may create and destroy mass has marginals other than a and b.
What is missing is growth. Let the pair (i, j) carry the mass

.. math:: m_{ij}(s) = P_{ij} \, e^{(1-s) \alpha_i + s \beta_j}, \qquad
    \alpha_i = \log \frac{a_i}{\sum_j P_{ij}}, \quad \beta_j = \log \frac{b_j}{\sum_i P_{ij}}

at its own time s: the pairs add up to a at s = 0 and to b at s = 1, and each grows at a steady rate
:math:`\beta_j - \alpha_i` in between. Let :math:`p_{ij}(s, x)` be the density of the path that joins the pair and
:math:`u_{ij}` its velocity. By the continuity equation of the path, the population
:math:`\rho = \sum_{ij} m_{ij} p_{ij}` satisfies

.. math:: \partial_s \rho = \sum_{ij} (\beta_j - \alpha_i) m_{ij} p_{ij} - \nabla \cdot \sum_{ij} m_{ij} p_{ij} u_{ij}
    = g \rho - \nabla \cdot (\rho v),

where v and g are the means of :math:`u_{ij}` and :math:`\beta_j - \alpha_i` over the pairs at (s, x), weighted by
:math:`m_{ij} p_{ij}`. Weighted squared errors have weighted means as their minimisers, so with pairs drawn from any
plan Q that reaches them, and the weight :math:`w_{ij}(s) = m_{ij}(s) / Q_{ij}`, regression finds both. A factor that
depends on s alone changes nothing. Particles with dx/ds = v and d log w / ds = g therefore carry a to b.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cellflow.batch import Batch
from cellflow.fields import Field, GrowthField, growth_heads
from cellflow.objectives.matching import check_unit
from cellflow.paths import GaussianPath, Linear, TimeLaw, Uniform
from cellflow.shapes import per_sample


@dataclass(frozen=True)
class GrowthMatching:
    """Regress a velocity and a growth rate on those of pairs whose mass changes on the way.

    Both errors are measured over a pair's own stretch of time, in displacement and in log of mass, and weighted by the
    mass that the pair carries there.

    Parameters
    ----------
    path
        How each pair is joined.
    times
        Law of the time within a pair.
    growth_weight
        How much an e-fold of mass counts beside a displacement of one unit, both squared.
    unit
        Length that counts as 1 in the error of the velocity.

    Raises
    ------
    ValueError
        When the weight or the unit is not above 0.

    Source: derivation in the module's docstring; the plans are those of Chizat et al. 2018.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> field = cf.networks.GrowthHead(cf.networks.MLP(dim=2, width=16, heads=2))
    >>> masses = {"log_mass0": torch.zeros(8), "log_mass1": torch.full((8,), 2.0)}
    >>> batch = cf.Batch(torch.zeros(8, 2), torch.zeros(8, 2), **masses)
    >>> sorted(GrowthMatching()(field, batch, generator=cf.generator(seed=0)))
    ['growth', 'loss', 'velocity']
    """

    path: GaussianPath = Linear()
    times: TimeLaw = Uniform()
    growth_weight: float = 1.0
    unit: float = 1.0

    def __post_init__(self) -> None:
        check_unit(self.unit)
        if not 0 < self.growth_weight < float("inf"):
            raise ValueError(
                f"Expected a finite growth_weight > 0; found {self.growth_weight}. Without growth, `VelocityMatching`."
            )

    def __call__(self, field: GrowthField, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the weighted mean squared errors ``"velocity"`` and ``"growth"``, and their sum ``"loss"``."""
        log_mass0, log_mass1 = _log_masses(batch)
        s = self.path.inside(self.times.sample(len(batch.x0), generator=generator, like=batch.x0))
        start, duration = batch.span()
        point = self.path.between(batch, s, generator=generator)
        heads = growth_heads(field(start + s * duration, point.x, batch.condition))
        mass = torch.lerp(log_mass0, log_mass1, s).exp()
        error = torch.addcmul(point.velocity, per_sample(duration, heads.velocity), heads.velocity, value=-1)
        velocity = (per_sample(mass, error) * error.square()).mean() / self.unit**2
        growth = (mass * (log_mass1 - log_mass0 - duration * heads.growth).square()).mean()
        return {"loss": velocity + self.growth_weight * growth, "velocity": velocity, "growth": growth}

    def velocity(self, field: GrowthField) -> Field:
        """Return the velocity alone."""
        return VelocityOfGrowth(field)


class VelocityOfGrowth(nn.Module):
    """The velocity of a field with a growth rate, as a field of its own.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> field = cf.networks.GrowthHead(cf.networks.MLP(dim=2, width=16, heads=2))
    >>> VelocityOfGrowth(field)(torch.zeros(1), torch.zeros(1, 2), None).shape
    torch.Size([1, 2])
    """

    def __init__(self, field: GrowthField) -> None:
        super().__init__()
        self.field = field

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the velocity at times ``t`` ``(n,)`` and states ``x``, shaped as ``x``."""
        return growth_heads(self.field(t, x, condition)).velocity


def _log_masses(batch: Batch) -> tuple[Tensor, Tensor]:
    if batch.log_mass0 is None or batch.log_mass1 is None:
        raise ValueError(
            "Expected a batch with masses at both ends of its pairs; found none. Pass `masses=` to "
            "`cf.pairing.paired_batches` or `cf.pairing.snapshot_batches`, or set `log_mass0` and `log_mass1`."
        )
    return batch.log_mass0, batch.log_mass1
