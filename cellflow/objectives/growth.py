r"""Velocity and growth rate of a population that gains and loses mass.

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

Where the path has noise of scale :math:`\sigma`, the score of the population is the weighted mean of the pairs' scores
in the same way. As :math:`\nabla \cdot (\rho \nabla \log \rho) = \Delta \rho`,

.. math:: \partial_s \rho = g \rho
    - \nabla \cdot \big(\rho (v + \tfrac{\sigma^2}{2} \nabla \log \rho)\big) + \tfrac{\sigma^2}{2} \Delta \rho

is the same population: particles that drift with :math:`v + \frac{\sigma^2}{2} \nabla \log \rho`, diffuse, and weigh
d log w / ds = g on their way have the same weighted marginals.

What is identified: with any plan, a and b are reached, so g follows from the plan, not from the data alone. An
unbalanced plan weighs the cost of motion against that of a change of mass: by its optimality :math:`\alpha_i = f_i / r`
for a potential f, in units of the cost, and a relaxation r. Where shares of states far apart must change, f grows with
r, and growth does not depend on it. Where they need not, f is the cost of a point's motion relative to that of others,
and growth is travel in units of r. Sizes of a and b add a constant in each interval, and have to be known from
elsewhere.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from cellflow.batch import Batch
from cellflow.fields import Field, Outputs, VelocityOf, outputs
from cellflow.objectives.draw import Drawn, Unit, draw, known_gain
from cellflow.objectives.matching import check_unit
from cellflow.paths import GaussianPath, Linear, TimeLaw, Uniform
from cellflow.signature import checked


@checked
@dataclass(frozen=True)
class GrowthMatching:
    """Regress a velocity and a growth rate on those of pairs whose mass changes in time.

    Both errors are measured over the span of a pair, as displacement and as change of log mass, and weighted by the
    mass of the pair there.

    Parameters
    ----------
    path
        Path between the points of a pair.
    times
        Distribution of the time within a pair.
    growth_weight
        Weight of an e-fold of mass relative to a displacement of one unit, both squared.
    unit
        Unit of length in the error of the velocity.

    Raises
    ------
    ValueError
        When the weight or the unit is not above 0.

    Source
    ------
    Derivation in the module's docstring; the plans are those of Chizat et al. 2018.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> field = cf.networks.Heads(cf.networks.MLP(dim=2, width=16, heads=2), growth="shared")
    >>> masses = {"log_mass0": torch.zeros(8), "log_mass1": torch.full((8,), 2.0)}
    >>> batch = cf.Batch(torch.zeros(8, 2), torch.zeros(8, 2), **masses)
    >>> sorted(GrowthMatching()(field, batch, generator=cf.generator(seed=0)))
    ['growth', 'loss', 'velocity']
    """

    path: GaussianPath = Linear()
    times: TimeLaw = Uniform()
    growth_weight: float = 1.0
    unit: Unit = 1.0
    heads: ClassVar[tuple[str, ...]] = ("growth",)

    def __post_init__(self) -> None:
        check_unit(self.unit)
        check_growth_weight(self.growth_weight, without="use `VelocityMatching`")

    @checked
    def __call__(self, field: Field, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the weighted mean squared errors ``"velocity"`` and ``"growth"``, and their sum ``"loss"``."""
        drawn = draw(batch, self.path, self.times, generator=generator)
        found = outputs(field(drawn.t, drawn.x, drawn.condition), growth=True)
        velocity = drawn.mean_square(drawn.missed(found.velocity), self.unit)
        growth = growth_error(drawn, found)
        return {"loss": velocity + self.growth_weight * growth, "velocity": velocity, "growth": growth}

    @checked
    def velocity(self, field: Field) -> Field:
        """Return the velocity alone."""
        return VelocityOf(field)


def growth_error(drawn: Drawn, found: Outputs) -> Tensor:
    """Return the mean squared error of the change of log mass over each span, weighted by mass.

    Raises
    ------
    ValueError
        When the pairs carry no masses.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> masses = {"log_mass0": torch.zeros(2), "log_mass1": torch.ones(2)}
    >>> batch = cf.Batch(torch.zeros(2, 1), torch.zeros(2, 1), **masses)
    >>> drawn = draw(batch, Linear(), Uniform(), generator=cf.generator(seed=0))
    >>> growth_error(drawn, Outputs(torch.zeros(2, 1), growth=torch.ones(2)))
    tensor(0.)
    """
    return drawn.mean((known_gain(drawn.log_gain) - drawn.duration * cast("Tensor", found.growth)).square())


def agreement(field: Field, objective: Any, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
    """Return how the growth that a field predicts agrees with that of pairs.

    Parameters
    ----------
    field
        A field with growth.
    objective
        Its path and its times are used.
    batch
        Pairs with masses.
    generator
        Draws a point on the path of each pair.

    Returns
    -------
    moments
        Means, weighted by mass: of the squared growth of the pairs, ``"known"``, of that as predicted, ``"predicted"``,
        and of their ``"product"``.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> field = cf.networks.Heads(cf.networks.MLP(dim=2, width=16, heads=2), growth="shared")
    >>> batch = cf.Batch(*torch.zeros(2, 8, 2), log_mass0=torch.zeros(8), log_mass1=torch.ones(8))
    >>> sorted(agreement(field, GrowthMatching(), batch, generator=cf.generator(seed=0)))
    ['known', 'predicted', 'product']
    """
    drawn = draw(batch, objective.path, objective.times, generator=generator)
    found = outputs(field(drawn.t, drawn.x, drawn.condition), growth=True)
    known, predicted = known_gain(drawn.log_gain), drawn.duration * cast("Tensor", found.growth)
    squares = {"known": known.square(), "predicted": predicted.square(), "product": known * predicted}
    return {name: drawn.mean(values) for name, values in squares.items()}


def check_growth_weight(weight: float, *, without: str) -> None:
    """Raise unless a weight is valid.

    Raises
    ------
    ValueError
        When it is not finite, or not above 0.
    """
    if not 0 < weight < float("inf"):
        raise ValueError(f"Expected a finite growth_weight > 0; found {weight}. Without growth, {without}.")
