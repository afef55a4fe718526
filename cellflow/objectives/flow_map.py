"""Flow maps: jumps over any interval of time, learned together with the velocity or from a teacher.

On the diagonal, where a jump has no length, a map is trained on the velocity. Off the diagonal, each objective has its
own condition that jumps follow that velocity.

Where a map has growth, the log of the weight is one more coordinate of the state, which moves with the growth rate as
the others do with the velocity: ``d (x, log w) / dt = (v, g)(t, x)``. Neither depends on the weight, so a jump is ``(x,
log w) + (t - s) (v, g)(s, t, x)``, and every condition on jumps of ``x`` is one on those of ``(x, log w)``, with the
same derivation. The change ``l`` of log weight therefore obeys the same equations, each with its own source:

* Lagrangian: ``d l(s, t, x) / dt = g(t, X(s, t, x))``,
* Eulerian: ``dl/ds + v(s, x) . grad l + g(s, x) = 0``,
* semigroup: ``l(s, t, x) = l(s, u, x) + l(u, t, X(s, u, x))``,
* there and back: ``l(s, t, x) + l(t, s, X(s, t, x)) = 0``.

Where pairs of the data are the source, each has its own velocity and growth rate; their means at a point, weighted by
the masses of the pairs, are those of the population (see `cellflow.objectives.growth`), and the conditions that pairs
stand in for are linear in both.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor

from cellflow.batch import Batch
from cellflow.fields import Field, Outputs, outputs
from cellflow.objectives.draw import draw, known_gain, weighted_mean
from cellflow.objectives.matching import check_unit
from cellflow.paths import GaussianPath, Linear, TimeLaw, Uniform
from cellflow.shapes import per_sample
from cellflow.signature import checked

MOST_ADAPTIVE = 10
"""Largest power of the adaptive weight: beyond, it is 0 or infinite."""


class DrawnJumps(NamedTuple):
    """Jumps from times ``s`` to times ``t``, both ``(n,)``, that start at states ``x`` ``(n, ...)``.

    ``velocity`` is that of the path of the pair, or of the teacher, at ``x``; ``duration`` ``(n,)`` is the time that
    the pair spans, ``mass`` ``(n,)`` its mass at ``x``, or ``None`` if all are equal. ``growth`` ``(n,)`` is the
    growth rate of the pair, or of the teacher, for a map that has one; otherwise ``None``.
    """

    s: Tensor
    t: Tensor
    x: Tensor
    velocity: Tensor
    duration: Tensor
    condition: Tensor | None
    mass: Tensor | None = None
    growth: Tensor | None = None

    @property
    def length(self) -> Tensor:
        """Length of each jump in time, ``(n,)``."""
        return self.t - self.s

    @property
    def rates(self) -> Tensor:
        """Velocity and growth rate at ``x``, see `joined`."""
        return joined(Outputs(self.velocity, growth=self.growth), growth=self.growth is not None)

    def mean(self, field: Any, s: Tensor, t: Tensor, x: Tensor) -> Tensor:
        """Return the mean rates of a map from times ``s`` to times ``t``, see `joined`."""
        return joined(field(torch.stack([s, t], dim=1), x, self.condition), growth=self.growth is not None)

    def at(self, field: Any, t: Tensor, x: Tensor) -> Tensor:
        """Return the rates of a field at times ``t``, see `joined`."""
        return joined(field(t, x, self.condition), growth=self.growth is not None)

    def over(self, share: Tensor, rates: Tensor) -> Tensor:
        """Return the changes that rates cause over times ``(n,)``."""
        return per_sample(share, rates) * rates

    def split(self, at: int) -> tuple["DrawnJumps", "DrawnJumps"]:
        """Return the first ``at`` jumps, and the rest."""
        parts = [(None, None) if part is None else part.tensor_split([at]) for part in self]
        first, rest = zip(*parts, strict=True)
        return DrawnJumps(*first), DrawnJumps(*rest)


@dataclass(frozen=True)
class FlowMapObjective(ABC):
    """Base of the objectives for flow maps; subclasses implement ``residual``.

    The field they train is a `cellflow.networks.FlowMap`. The fraction ``diagonal`` of each batch trains its velocity,
    the rest its jumps. Where the map has growth, both train its growth rate too; an e-fold of mass counts as much as a
    displacement of one unit. Times are uniform over all pairs ``s < t`` (or all pairs, or ``t = 1``, by the map's
    ``spans``); where a batch holds pairs of several intervals, a jump begins in its own interval and ends at any later
    time.

    Parameters
    ----------
    path
        Path between the points of a pair.
    times
        Distribution of the time within a pair.
    teacher
        A fitted velocity field of the same space, for distillation: the map learns its flow. ``None`` for a map that
        learns velocity and jumps together.
    diagonal
        Fraction of the batch that trains the velocity.
    adaptive
        Power by which large errors of single samples are downweighted: squared errors are multiplied by ``(error +
        1e-3) ** -adaptive``; 0 for the plain mean of squares.
    unit
        Unit of length, which makes the loss independent of the units of the data.

    Source
    ------
    Boffi, Albergo and Vanden-Eijnden 2025, section 3; Geng et al. 2025 for the adaptive weight.
    """

    path: GaussianPath = Linear()
    times: TimeLaw = Uniform()
    teacher: Field | None = None
    diagonal: float = 0.75
    adaptive: float = 0.0
    unit: float = 1.0
    known_spans: ClassVar[tuple[str, ...]] = ("forward", "both", "end")
    heads: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        check_unit(self.unit)
        if not 0 <= self.diagonal < 1 or not 0 <= self.adaptive <= MOST_ADAPTIVE:
            raise ValueError(
                f"Expected 0 <= diagonal < 1 and 0 <= adaptive <= {MOST_ADAPTIVE}; "
                f"found {self.diagonal} and {self.adaptive}. For only the velocity, use "
                "`cf.objectives.VelocityMatching`."
            )

    @abstractmethod
    def residual(self, field: Any, jumps: DrawnJumps, *, generator: torch.Generator) -> Tensor:
        """Return the error of the mean rates of each jump: shaped as states, or as `joined` rates with growth."""

    @checked
    def __call__(self, field: Field, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the mean squared errors ``"diagonal"`` and ``"jump"``, and the ``"loss"``."""
        batch.check()
        still = min(round(self.diagonal * len(batch.x0)), len(batch.x0) - 1)
        drawn = self._draw(batch, still, self._spans(field), generator, growth=bool(getattr(field, "growth", False)))
        resting, moving = drawn.split(still)
        jump = self._squares(self.residual(field, moving, generator=generator), moving)
        squares, masses = {"jump": jump}, {"jump": moving.mass}
        if still:
            error = resting.at(field, resting.s, resting.x) - resting.rates
            squares["diagonal"], masses["diagonal"] = self._squares(error, resting), resting.mass
        every = torch.cat(list(squares.values()))
        weight = (every.detach() + 1e-3) ** -self.adaptive if self.adaptive else 1.0
        weighed = torch.where(every.isfinite(), weight * every, every)  # infinite errors have the weight 0, not none
        mass = None if moving.mass is None else torch.cat([part for part in masses.values() if part is not None])
        terms = {name: weighted_mean(each.detach(), masses[name]) for name, each in squares.items()}
        return {"loss": weighted_mean(weighed, mass)} | terms

    @checked
    def velocity(self, field: Any) -> Field:
        """Return ``field``: called with one time for each sample, a flow map returns the velocity."""
        return cast("Field", field)

    def _spans(self, field: Any) -> str:
        spans = getattr(field, "spans", "forward")
        if spans not in self.known_spans:
            raise ValueError(
                f"{type(self).__name__} needs a flow map with spans among {self.known_spans}; found {spans!r}. See "
                "`cf.networks.FlowMap(network, spans=...)`."
            )
        return spans

    def _draw(self, batch: Batch, still: int, spans: str, generator: torch.Generator, *, growth: bool) -> DrawnJumps:
        """Draw a start in each pair, and an end for each start; the first ``still`` jumps have no length."""
        drawn = draw(batch, self.path, _Starts(self.times, still, spans), generator=generator)
        s, x = drawn.t, drawn.x
        share = Uniform().sample(len(s), generator=generator, like=s)
        t = {"forward": torch.lerp(s, torch.ones_like(s), share), "both": share, "end": torch.ones_like(s)}[spans]
        if self.teacher is not None:
            with torch.no_grad():
                velocity, _, rate = taught(self.teacher, s, x, drawn.condition, growth=growth)
        else:
            velocity = drawn.point.velocity / per_sample(drawn.duration, x)
            rate = known_gain(drawn.log_gain) / drawn.duration if growth else None
        ends = torch.cat([s[:still], t[still:]])
        given = (velocity, drawn.duration, drawn.condition, drawn.mass, rate if growth else None)
        return DrawnJumps(s, ends, x, *given)

    def _squares(self, error: Tensor, jumps: DrawnJumps) -> Tensor:
        """Return the mean square of each sample's error ``(n,)``, as displacement over the span of its pair.

        With growth, that of the change of log weight is added.
        """
        error = jumps.over(jumps.duration, error)
        displaced, grown = (error, None) if jumps.growth is None else (error[..., :-1], error[..., -1:])
        squares = (displaced / self.unit).square().flatten(1).mean(dim=1)
        return squares if grown is None else squares + grown.square().flatten(1).mean(dim=1)


@dataclass(frozen=True)
class _Starts(TimeLaw):
    """Where each jump starts within its pair: the first ``still`` ones are drawn from ``times``."""

    times: TimeLaw
    still: int
    spans: str

    def sample(self, n: int, *, generator: torch.Generator, like: Tensor) -> Tensor:
        at = self.times.sample(n, generator=generator, like=like)
        if self.spans != "forward":
            return at
        # The earlier of two, with an even end after it: every pair s < t is drawn alike.
        earlier = torch.minimum(at, self.times.sample(n, generator=generator, like=like))
        return torch.cat([at[: self.still], earlier[self.still :]])


def joined(found: object, *, growth: bool) -> Tensor:
    """Return the velocity that a field returned; with growth as vectors, and the growth rate as one more column.

    Raises
    ------
    TypeError
        When there is no growth rate where one is needed.

    Examples
    --------
    >>> joined(Outputs(torch.zeros(1, 2), growth=torch.ones(1)), growth=True)
    tensor([[0., 0., 1.]])
    """
    known = outputs(found, growth=growth)
    if not growth:
        return known.velocity
    return torch.cat([known.velocity.flatten(1), cast("Tensor", known.growth)[:, None]], dim=1)


def moved(x: Tensor, by: Tensor) -> Tensor:
    """Return states ``(n, ...)`` displaced by `joined` rates; growth moves nothing.

    Examples
    --------
    >>> moved(torch.zeros(1, 2), torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([[1., 2.]])
    """
    return x + (by if by.shape == x.shape else by[:, : x[0].numel()].reshape(x.shape))


def taught(teacher: Field, t: Tensor, x: Tensor, condition: Tensor | None, *, growth: bool = False) -> Outputs:
    """Return the output of a teacher, with a growth rate if that is learned.

    Raises
    ------
    ValueError
        When its velocity is not shaped as the states.
    TypeError
        When it has no growth rate where one is needed.
    """
    found = outputs(teacher(t, x, condition))
    if found.velocity.shape != x.shape:
        raise ValueError(
            f"Expected a teacher whose velocities are shaped as the states, {tuple(x.shape)}; found "
            f"{tuple(found.velocity.shape)}. A teacher must have been fitted in the same space as the map."
        )
    return outputs(found, growth=growth)
