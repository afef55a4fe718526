"""The objectives for flow maps: five conditions for jumps to follow the velocity."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from cellflow.errors import unknown
from cellflow.objectives.flow_map import DrawnJumps, FlowMapObjective, joined, moved, taught
from cellflow.paths import Uniform
from cellflow.signature import checked

SPLITS = ("middle", "uniform")
"""Where a jump is split in two."""
_FORWARD_MODE = threading.RLock()
"""Held while a derivative is taken in forward mode: torch has one level of it for all threads."""


@checked
@dataclass(frozen=True)
class LagrangianMatching(FlowMapObjective):
    """The end of a jump moves with the velocity found there: ``dX(s, t, x) / dt = v(t, X(s, t, x))``.

    Parameters
    ----------
    path, times, teacher, diagonal, adaptive, unit
        As for every objective for flow maps, see `FlowMapObjective`.
    stop_gradient
        Whether the velocity at the end of the jump is a fixed target.

    Notes
    -----
    Differentiates in forward mode. Layers without it (fused attention), and fields that are wrapped for training on
    several devices, do not support this; `SemigroupMatching` does not need it. Threads wait for each other.

    Source
    ------
    Boffi, Albergo and Vanden-Eijnden 2025 (Lagrangian self-distillation), and 2024 with a teacher.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> flow_map = cf.networks.FlowMap(cf.networks.MLP(dim=2, width=16, times=2))
    >>> batch = cf.Batch(torch.zeros(8, 2), torch.ones(8, 2))
    >>> sorted(LagrangianMatching()(flow_map, batch, generator=cf.generator(seed=0)))
    ['diagonal', 'jump', 'loss']
    """

    stop_gradient: bool = True
    known_spans: ClassVar[tuple[str, ...]] = ("forward", "both")

    @checked
    def residual(self, field: Any, jumps: DrawnJumps, *, generator: torch.Generator) -> Tensor:
        """Return the difference between the velocity of the end point and the field there."""
        mean, slope = _along(_mean_to(field, jumps), (jumps.t, torch.ones_like(jumps.t)))
        end = moved(jumps.x, jumps.over(jumps.length, mean))
        teacher, growth = field if self.teacher is None else self.teacher, jumps.growth is not None
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.stop_gradient):
            there = end.detach() if self.stop_gradient else end
            rates = joined(taught(teacher, jumps.t, there, jumps.condition, growth=growth), growth=growth)
        return mean + jumps.over(jumps.length, slope) - rates


@checked
@dataclass(frozen=True)
class EulerianMatching(FlowMapObjective):
    """Jumps from any point of a trajectory to time ``t`` end at the same point: ``dX/ds + v(s, x) . grad X = 0``.

    With a map of ``spans="end"`` this is consistency training in continuous time, with ``spans="forward"`` that of
    consistency trajectory models.

    Parameters
    ----------
    path, times, teacher, diagonal, adaptive, unit
        As for every objective for flow maps, see `FlowMapObjective`.
    stop_gradient
        Whether the derivative of the map is part of a fixed target. It saves memory for large networks; but errors can
        then amplify where the map changes quickly in time, and training can diverge: use few ``harmonics`` and a low
        learning rate.

    Notes
    -----
    Differentiates in forward mode, see `LagrangianMatching`.

    Source
    ------
    Boffi, Albergo and Vanden-Eijnden 2025 (Eulerian self-distillation), and 2024 with a teacher; Song et al.
    2023 and Kim et al. 2024 for the special cases.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> consistency = cf.networks.FlowMap(cf.networks.MLP(dim=2, width=16, times=2), spans="end")
    >>> batch = cf.Batch(torch.zeros(8, 2), torch.ones(8, 2))
    >>> sorted(EulerianMatching()(consistency, batch, generator=cf.generator(seed=0)))
    ['diagonal', 'jump', 'loss']
    """

    stop_gradient: bool = False

    @checked
    def residual(self, field: Any, jumps: DrawnJumps, *, generator: torch.Generator) -> Tensor:
        """Return the difference between the mean velocity and that of the Eulerian equation."""
        rates = jumps.rates
        if self.teacher is None:
            with torch.no_grad():
                rates = jumps.at(field, jumps.s, jumps.x)
        return _eulerian(field, jumps, rates, fixed=self.stop_gradient)


@checked
@dataclass(frozen=True)
class MeanVelocityMatching(FlowMapObjective):
    """The mean velocity of a jump, learned from the velocity of the path at its start (mean flows).

    As `EulerianMatching`, with the velocity of each pair in place of the map's own: jumps do not depend on a learned
    diagonal, at the price of more variance. The gradient of the target is always stopped, which its mean requires.
    Errors can therefore amplify: ``adaptive`` downweights them, and few ``harmonics`` of the network help.

    Parameters
    ----------
    path, times, teacher, diagonal, adaptive, unit
        As for every objective for flow maps, see `FlowMapObjective`.

    Notes
    -----
    Differentiates in forward mode, see `LagrangianMatching`.

    Source
    ------
    Geng et al. 2025 (mean flows for one-step generative modeling).

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> flow_map = cf.networks.FlowMap(cf.networks.MLP(dim=2, width=16, times=2))
    >>> batch = cf.Batch(torch.zeros(8, 2), torch.ones(8, 2))
    >>> sorted(MeanVelocityMatching()(flow_map, batch, generator=cf.generator(seed=0)))
    ['diagonal', 'jump', 'loss']
    """

    adaptive: float = 0.5

    @checked
    def residual(self, field: Any, jumps: DrawnJumps, *, generator: torch.Generator) -> Tensor:
        """Return the difference between the mean velocity and that of the path."""
        return _eulerian(field, jumps, jumps.rates, fixed=True)


@checked
@dataclass(frozen=True)
class SemigroupMatching(FlowMapObjective):
    """One jump equals two jumps: ``X(s, t) = X(u, t) o X(s, u)`` with a time ``u`` in between (progressive).

    The default objective for flow maps: it needs no derivatives, so it works with any network, thread, device and
    compiler.

    Parameters
    ----------
    path, times, teacher, diagonal, adaptive, unit
        As for every objective for flow maps, see `FlowMapObjective`.
    split
        The time in between: ``"middle"``, or ``"uniform"``.
    stop_gradient
        Whether the two jumps are a fixed target of the one.

    Source
    ------
    Boffi, Albergo and Vanden-Eijnden 2025 (progressive self-distillation); Salimans and Ho 2022 for the idea.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> flow_map = cf.networks.FlowMap(cf.networks.MLP(dim=2, width=16, times=2))
    >>> batch = cf.Batch(torch.zeros(8, 2), torch.ones(8, 2))
    >>> sorted(SemigroupMatching()(flow_map, batch, generator=cf.generator(seed=0)))
    ['diagonal', 'jump', 'loss']
    """

    split: str = "uniform"
    stop_gradient: bool = True
    known_spans: ClassVar[tuple[str, ...]] = ("forward", "both")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.split not in SPLITS:
            raise ValueError(unknown("split", self.split, SPLITS))

    @checked
    def residual(self, field: Any, jumps: DrawnJumps, *, generator: torch.Generator) -> Tensor:
        """Return the mean velocity of the one jump minus that of the two."""
        share = torch.full_like(jumps.s, 0.5)
        if self.split == "uniform":
            share = Uniform().sample(len(jumps.s), generator=generator, like=jumps.s)
        stop = torch.lerp(jumps.s, jumps.t, share)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.stop_gradient):
            first = jumps.mean(field, jumps.s, stop, jumps.x)
            there = moved(jumps.x, jumps.over(stop - jumps.s, first))
            second = jumps.mean(field, stop, jumps.t, there)
            two = second + jumps.over(share, first - second)
        return jumps.mean(field, jumps.s, jumps.t, jumps.x) - two


@checked
@dataclass(frozen=True)
class FlowMapMatching(FlowMapObjective):
    """A jump forth and back is the identity, and its end moves with the velocity of the pair (direct, from pairs).

    The map is not part of its own target: a plain regression on pairs. The map must have jumps in both directions,
    ``spans="both"``.

    Parameters
    ----------
    path, times, teacher, diagonal, adaptive, unit
        As for every objective for flow maps, see `FlowMapObjective`.

    Notes
    -----
    Differentiates in forward mode, see `LagrangianMatching`.

    Source
    ------
    Boffi, Albergo and Vanden-Eijnden 2024 (flow map matching: the direct loss).

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> flow_map = cf.networks.FlowMap(cf.networks.MLP(dim=2, width=16, times=2), spans="both")
    >>> batch = cf.Batch(torch.zeros(8, 2), torch.ones(8, 2))
    >>> sorted(FlowMapMatching()(flow_map, batch, generator=cf.generator(seed=0)))
    ['diagonal', 'jump', 'loss']
    """

    known_spans: ClassVar[tuple[str, ...]] = ("both",)

    @checked
    def residual(self, field: Any, jumps: DrawnJumps, *, generator: torch.Generator) -> Tensor:
        """Return the errors of velocity and of position of the jump back, ``(n, 2, ...)``."""
        there = jumps.over(jumps.length, jumps.mean(field, jumps.s, jumps.t, jumps.x))
        back = jumps._replace(s=jumps.t, t=jumps.s, x=moved(jumps.x, there))
        mean, slope = _along(_mean_to(field, back), (back.t, torch.ones_like(back.t)))
        speed = mean + back.over(back.length, slope) - jumps.rates
        return torch.stack([speed, there + back.over(back.length, mean)], dim=1)


def _mean_to(field: Any, jumps: DrawnJumps) -> Callable[[Tensor], Tensor]:
    """Return the mean rates of the jumps as a function of their end times."""
    return lambda t: jumps.mean(field, jumps.s, t, jumps.x)


def _eulerian(field: Any, jumps: DrawnJumps, rates: Tensor, *, fixed: bool) -> Tensor:
    """Return the mean rates minus those of the Eulerian equation, where the start moves and grows with ``rates``."""

    def mean_from(s: Tensor, x: Tensor) -> Tensor:
        return jumps.mean(field, s, jumps.t, x)

    tangent = moved(torch.zeros_like(jumps.x), rates)
    mean, slope = _along(mean_from, (jumps.s, torch.ones_like(jumps.s)), (jumps.x, tangent))
    target = rates + jumps.over(jumps.length, slope)
    return mean - (target.detach() if fixed else target)


def _along(function: Callable[..., Tensor], *points_and_directions: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the value of a function and its derivative, where each argument moves along its own direction.

    Raises
    ------
    NotImplementedError
        When a layer has no forward mode, such as fused attention; the message names the switch.
    """
    points, directions = zip(*points_and_directions, strict=True)
    try:
        with _FORWARD_MODE:
            value, slope = torch.func.jvp(function, points, directions)[:2]
    except NotImplementedError as error:
        raise NotImplementedError(
            f"A layer of this network has no derivative in forward mode ({str(error).splitlines()[0]}). Train with "
            "`cf.objectives.SemigroupMatching`, which needs none; or use `cf.networks.UNet`, which has one; or, if "
            "the layer is fused attention, switch to the plain one: train under `with "
            "torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):`."
        ) from error
    return value, slope
