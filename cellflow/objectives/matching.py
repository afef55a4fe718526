"""Regression on the velocity of a path (flow matching), or on its noise (diffusion)."""

from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from cellflow.batch import Batch
from cellflow.fields import Field, outputs
from cellflow.objectives.draw import Unit, draw, refuse
from cellflow.paths import GaussianPath, Linear, TimeLaw, Uniform, VariancePreserving
from cellflow.shapes import per_sample
from cellflow.signature import checked


class Objective(Protocol):
    """A loss that training minimises.

    ``heads`` lists what the field must return besides the velocity: ``"score"``, ``"growth"``, both or none.
    """

    @property
    def heads(self) -> tuple[str, ...]:
        """What the field returns besides the velocity."""
        ...

    def __call__(self, field: Any, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Return named terms, each one number; ``"loss"`` is the one to minimise."""
        ...

    def velocity(self, field: Any) -> Field:
        """Return the velocity field that a field trained on this objective represents."""
        ...


UNITS = (1e-30, 1e30)
"""Units of length between which errors are measured: beyond, single precision ends."""


@checked
@dataclass(frozen=True)
class VelocityMatching:
    """Regress the field on the velocity of a path between paired points (flow matching).

    The error is measured as displacement over the span of a pair, so that long and short intervals between snapshots
    count equally, and weighted by the mass of the pair there, if it has one.

    Parameters
    ----------
    path
        Path between the points of a pair.
    times
        Distribution of the time within a pair.
    unit
        Unit of length, which makes the loss independent of the units of the data; or one for each dimension.

    Source
    ------
    Tong et al. 2024 (TMLR), equation 10.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> batch = cf.Batch(torch.zeros(8, 2), torch.ones(8, 2))
    >>> objective = VelocityMatching(cf.paths.Linear())
    >>> objective(lambda t, x, condition: torch.ones_like(x), batch, generator=cf.generator(seed=0))["loss"]
    tensor(0.)
    """

    path: GaussianPath = Linear()
    times: TimeLaw = Uniform()
    unit: Unit = 1.0
    heads: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        check_unit(self.unit)

    @checked
    def __call__(self, field: Field, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Return ``{"loss": mean squared error of the displacement}``."""
        drawn = draw(batch, self.path, self.times, generator=generator)
        velocity = outputs(field(drawn.t, drawn.x, drawn.condition)).velocity
        return {"loss": drawn.mean_square(drawn.missed(velocity), self.unit)}

    @checked
    def velocity(self, field: Field) -> Field:
        """Return ``field``: it is the velocity."""
        return field


@checked
@dataclass(frozen=True)
class NoiseMatching:
    """Regress the field on the Gaussian source of each pair (score-based diffusion).

    Parameters
    ----------
    path
        Path from noise ``x0`` to data ``x1``, with some data left at time 0, as `VariancePreserving` has.
    times
        Distribution of the time within a pair.

    Raises
    ------
    ValueError
        When the path adds noise, or has no data left at time 0: the noise does not determine the velocity
        there. When called, if pairs have bends, for the same reason.

    Source
    ------
    Ho et al. 2020, equation 14.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> batch = cf.Batch(torch.randn(8, 2, generator=cf.generator(seed=1)), torch.ones(8, 2))
    >>> sorted(NoiseMatching()(lambda t, x, condition: x, batch, generator=cf.generator(seed=0)))
    ['loss']
    """

    path: GaussianPath = VariancePreserving()
    times: TimeLaw = Uniform()
    heads: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        trace = self.path.coefficients(torch.zeros(1, dtype=torch.float32))[1].item()
        if self.path.sigma > 0 or abs(trace) < 1e-4:
            raise ValueError(
                f"Expected a path without added noise that keeps some data at time 0; found {self.path}. "
                "Use `cf.paths.VariancePreserving()`, or `VelocityMatching` for this path."
            )

    @checked
    def __call__(self, field: Field, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Return ``{"loss": mean squared error of the noise}``."""
        refuse(
            batch, self, bends="The noise does not determine the velocity of a pair with bends: use `VelocityMatching`."
        )
        drawn = draw(batch, self.path, self.times, generator=generator)
        noise = outputs(field(drawn.t, drawn.x, drawn.condition)).velocity
        return {"loss": drawn.mean((noise - batch.x0).square())}

    @checked
    def velocity(self, field: Field) -> Field:
        """Return the velocity of the probability flow given by the predicted noise."""
        return VelocityFromNoise(field, self.path)


@checked
class VelocityFromNoise(nn.Module):
    """The velocity along a path, from a field that predicts the noise it started from.

    With ``x = a e + b x1`` the data are ``x1 = (x - a e) / b``, and the velocity is ``a' e + b' x1``.

    Source
    ------
    Song et al. 2021, equation 13.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> field = VelocityFromNoise(lambda t, x, condition: torch.zeros_like(x), cf.paths.VariancePreserving())
    >>> field(torch.tensor([0.5]), torch.ones(1, 2)).shape
    torch.Size([1, 2])
    """

    def __init__(self, field: Field, path: GaussianPath) -> None:
        super().__init__()
        self.field, self.path = field, path

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the velocity at times ``t`` of shape ``(n,)`` and states ``x``, shaped as ``x``."""
        t = t.clamp(self.path.margin, 1 - self.path.margin)
        value, slope = self.path.coefficients_and_slopes(t)
        (a, b), (a_slope, b_slope) = ([per_sample(c, x) for c in pair[:2]] for pair in (value, slope))
        noise = outputs(self.field(t, x, condition)).velocity
        found: Tensor = a_slope * noise + b_slope * (x - a * noise) / b
        return found


def check_unit(unit: Unit) -> None:
    """Raise unless a unit is valid; there may be one for each dimension.

    Raises
    ------
    ValueError
        When it is not above 0, or too small or large for its square in single precision.
    """
    least, most = UNITS
    each = unit if isinstance(unit, tuple) else (unit,)
    if any(not isinstance(one, Real) for one in each):
        raise TypeError(f"Expected `unit` as a number, or a tuple of one for each dimension; found {unit!r}.")
    if not all(least <= one <= most for one in each):
        raise ValueError(f"Expected a finite unit > 0, from {least:g} to {most:g}; found {unit}. Rescale the data.")
