"""The energy of curved paths under a metric, which geodesics between pairs minimise."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from cellflow.batch import Batch
from cellflow.fields import Field
from cellflow.objectives.draw import draw, refuse
from cellflow.objectives.matching import check_unit
from cellflow.paths import GaussianPath, Linear, Stratified, TimeLaw
from cellflow.signature import checked

Metric = Callable[[Tensor], Tensor]
"""From states ``(n, d)`` to the factor ``(n,)`` of the squared length of a step: a conformal metric."""


@checked
@dataclass(frozen=True)
class PathEnergy:
    r"""Learn geodesics between pairs: the mean energy of their paths under a metric.

    The path of a pair is that of ``path``, plus :math:`s (1 - s) [(1 - s) b_0 - s b_1]`, and its energy

    .. math:: \int_0^1 c(x_s) \, |\dot x_s|^2 \, ds

    with the factor :math:`c` of the metric. The minimiser approximates a geodesic of constant speed by a cubic. The
    field takes both ends side by side, ``(n, 2 d)``, and returns both bends :math:`b_0, b_1` side by side.

    Parameters
    ----------
    metric
        The factor of the squared length of a step, by state.
    path
        The path that is bent.
    times
        Distribution of the time within a pair, with a uniform marginal: one time for each pair and step.
    unit
        Unit of length.

    Source
    ------
    Kapusniak et al. 2024, equations 6 and 7; their correction ``t (1 - t) phi(t)`` is taken linear in ``t``.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> batch = cf.Batch(torch.zeros(8, 2), torch.ones(8, 2))
    >>> everywhere_alike = PathEnergy(lambda x: torch.ones(len(x)))
    >>> everywhere_alike(lambda t, x, condition: torch.zeros_like(x), batch, generator=cf.generator(seed=0))["loss"]
    tensor(2.)
    """

    metric: Metric
    path: GaussianPath = Linear()
    times: TimeLaw = Stratified()
    unit: float = 1.0
    heads: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        check_unit(self.unit)

    @checked
    def __call__(self, field: Field, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Return ``{"loss": mean energy}``."""
        refuse(batch, self, bends="It learns the bends itself: pass straight pairs.")
        drawn = draw(bend_pairs(field, batch), self.path, self.times, generator=generator)
        factor = self.metric(drawn.x)
        if not isinstance(factor, Tensor) or factor.shape not in ((), (len(drawn.x),)):
            shown = tuple(factor.shape) if isinstance(factor, Tensor) else type(factor).__name__
            raise TypeError(f"Expected `metric` to return one number for each of {len(drawn.x)} states; found {shown}.")
        return {"loss": drawn.mean(factor * drawn.point.velocity.square().sum(dim=1)) / self.unit**2}

    @checked
    def velocity(self, field: Any) -> Field:
        """Raise: bends are not a velocity.

        Raises
        ------
        TypeError
            Always.
        """
        raise TypeError("A field of bends has no velocity. Train another one by `VelocityMatching` on bent pairs.")


def bend_pairs(field: Field, batch: Batch) -> Batch:
    """Return a batch of vectors with the bends that a field predicts.

    The field sees where each pair begins, both its ends and its condition.

    Examples
    --------
    >>> import torch
    >>> batch = bend_pairs(lambda t, x, condition: x, Batch(torch.zeros(1, 2), torch.ones(1, 2)))
    >>> batch.bend0, batch.bend1
    (tensor([[0., 0.]]), tensor([[1., 1.]]))
    """
    start, _ = batch.span()
    ends = torch.cat([batch.x0, batch.x1], dim=1)
    found = field(start, ends, batch.condition)
    if not isinstance(found, Tensor) or found.shape != ends.shape:
        shape = getattr(found, "shape", type(found).__name__)
        raise ValueError(f"Expected a field that returns both bends of each pair, {tuple(ends.shape)}; found {shape}.")
    bend0, bend1 = found.chunk(2, dim=1)
    return batch._replace(bend0=bend0, bend1=bend1)
