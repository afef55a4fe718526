"""Regression of jumps on known trajectories."""

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from cellflow.batch import Batch
from cellflow.fields import Field, outputs
from cellflow.objectives.draw import known_gain, refuse
from cellflow.objectives.matching import check_unit
from cellflow.shapes import per_sample
from cellflow.signature import checked


@checked
@dataclass(frozen=True)
class TrajectoryMatching:
    """Regress a jump from the start of a pair on its end.

    Pairs must lie on the trajectories of one flow, as those of `cellflow.training.trajectory_batches` do; on pairs of
    data, whose paths cross, a map would learn the mean of all ends. The map is not part of its own target, so training
    is as stable as any regression, and needs no derivatives.

    The squared error of a jump's end is divided by the length of the jump in time. The errors of many short jumps
    accumulate; independent ones then add up to that of one long jump, so that a map can be used in few jumps or in
    many. Without this weight the errors of short jumps would hardly count. A jump of no length contributes nothing.

    A map with growth learns the change of log weight in the same way, from the masses of the pairs: those of a particle
    where the pair begins and where it ends, of which only the ratio counts. An e-fold counts as much as one unit.

    Parameters
    ----------
    unit
        Unit of length, which makes the loss independent of the units of the data.

    Source
    ------
    Luhman and Luhman 2021 (knowledge distillation), for jumps between any two times.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> flow_map = cf.networks.FlowMap(cf.networks.MLP(dim=2, width=16, times=2))
    >>> batch = cf.Batch(torch.zeros(8, 2), torch.ones(8, 2), torch.full((8,), 0.25), torch.full((8,), 0.5))
    >>> sorted(TrajectoryMatching()(flow_map, batch, generator=cf.generator(seed=0)))
    ['loss']
    """

    unit: float = 1.0
    heads: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        check_unit(self.unit)

    @checked
    def __call__(self, field: Field, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Return ``{"loss": mean squared error of the end, per unit of time}``, without random numbers."""
        why = "Its pairs lie on the trajectories of a flow, see `cf.training.trajectory_batches`."
        growth = bool(getattr(field, "growth", False))
        refuse(batch, self, masses="" if growth else why, bends=why)
        start, duration = batch.span()
        times = torch.stack([start, start + duration], dim=1)
        velocity, _, rate = outputs(field(times, batch.x0, batch.condition), growth=growth)
        length = per_sample(duration, velocity)
        error = length * velocity - (batch.x1 - batch.x0)
        # Where nothing moves in no time, nothing is missed.
        span = length.abs().clamp(min=torch.finfo(length.dtype).tiny)
        loss = ((error / self.unit).square() / span).mean()
        if growth:
            begin, end = batch.log_mass0, batch.log_mass1
            gain = known_gain(None if begin is None or end is None else end - begin)
            missed = duration * cast("Tensor", rate) - gain
            loss = loss + (missed.square() / span.flatten()).mean()
        return {"loss": loss}

    @checked
    def velocity(self, field: Any) -> Field:
        """Return ``field``: called with one time for each sample, a flow map returns the velocity."""
        return cast("Field", field)
