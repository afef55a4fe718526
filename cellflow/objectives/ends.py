"""Regression on both ends of the pairs of a bridge, and the velocity of its flow for few steps."""

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from cellflow.batch import Batch
from cellflow.fields import Field, VelocityOf, outputs
from cellflow.networks.end_guess import EndGuess
from cellflow.objectives.draw import Unit, draw, refuse
from cellflow.objectives.matching import check_unit
from cellflow.paths import BrownianBridge, TimeLaw, Uniform
from cellflow.shapes import per_sample
from cellflow.signature import checked
from cellflow.time_laws import LARGEST


@checked
@dataclass(frozen=True)
class EndPointMatching:
    """Regress where a velocity and a score lead, forward and backward, on the ends of the pairs of a Brownian bridge.

    The minimiser is that of `BridgeMatching`, the bridge of the pairs. The errors have other weights: here they are the
    distances between the predicted and the true ends. It takes any field that returns a velocity and a score;
    `cellflow.networks.EndPoints` predicts the ends directly. Where that corrects a guess, errors are in units of what
    the guess misses at their time, so that all times and both ends count alike.

    Parameters
    ----------
    path
        The Brownian bridge between the points of a pair.
    times
        Distribution of the time within a pair.
    unit
        Unit of length of the errors.
    damping
        Time by which the velocity of the flow without noise is damped near both ends, see `DampedVelocity`; 0 for the
        exact one. For fields that were trained on pairs that span all of model time.

    Raises
    ------
    ValueError
        When the path has no noise, or the damping is below 0. When called, if pairs have bends.

    Source
    ------
    Shi et al. 2023, equation 7, for the forward end alone, and Karras et al. 2022, section 5, for the units; both ends
    together, and the damping, are ours.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> field = cf.networks.EndPoints(cf.networks.MLP(dim=2, width=16, heads=2))
    >>> batch = cf.Batch(torch.zeros(8, 2), torch.ones(8, 2))
    >>> sorted(EndPointMatching(cf.paths.BrownianBridge(0.5))(field, batch, generator=cf.generator(seed=0)))
    ['loss', 'source', 'target']
    """

    path: BrownianBridge = BrownianBridge()
    times: TimeLaw = Uniform()
    unit: Unit = 1.0
    damping: float = 0.0
    heads: ClassVar[tuple[str, ...]] = ("score",)

    def __post_init__(self) -> None:
        check_unit(self.unit)
        _check_damping(self.damping)
        if self.path.sigma == 0:
            raise ValueError(f"Expected a path with noise; found {self.path}. Use `cf.paths.BrownianBridge(sigma)`.")

    @checked
    def __call__(self, field: Field, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the mean squared errors of both ends, ``"source"`` and ``"target"``, and their sum ``"loss"``."""
        refuse(batch, self, bends="They do not go straight to their ends: use `BridgeMatching`.")
        drawn = draw(batch, self.path, self.times, generator=generator)
        found = outputs(field(drawn.t, drawn.x, drawn.condition), score=True)
        drift = cast("Tensor", found.score_drift)
        start, duration = batch.span()
        gone, left = (per_sample(time, drawn.x) for time in (drawn.t - start, start + duration - drawn.t))
        first = drawn.x - gone * (found.velocity - drift) - batch.x0
        second = drawn.x + left * (found.velocity + drift) - batch.x1
        guess = getattr(field, "guess", None)
        if isinstance(guess, EndGuess):
            missed0, missed1 = guess.missed(drawn.t)
            first, second = first / missed0, second / missed1
        source, target = (drawn.mean_square(missed, self.unit) for missed in (first, second))
        return {"loss": source + target, "source": source, "target": target}

    @checked
    def velocity(self, field: Field) -> Field:
        """Return the velocity of the probability flow, damped."""
        return DampedVelocity(field, self.damping) if self.damping else VelocityOf(field)


@checked
class DampedVelocity(nn.Module):
    """The velocity of a bridge's flow without noise, in which few steps do not blow up what was learned imperfectly.

    The exact flow carries the noise of the bridge along: ``c(t)`` being its scale, the velocity holds ``c' / c`` times
    the noise that is found in a state, which is unbounded at both ends. There a state has no noise, so this is a small
    error divided by a small number, and the first step of a coarse solver makes halos and grain of it. Here ``c`` is
    ``sigma sqrt(t (1 - t) + damping)`` in that factor, which is bounded. The mean motion remains as it is; with
    ``damping`` to 0 the velocity is the exact one, with it to infinity the mean difference of both ends.

    Parameters
    ----------
    field
        A field that returns velocity and score drift, trained on Brownian bridges that span all of model time.
    damping
        The added time, of the order of a solver's first step.

    Raises
    ------
    ValueError
        When the damping is below 0.

    Source
    ------
    Albergo, Boffi and Vanden-Eijnden 2023, theorem 2.6, for the velocity of a path with noise of any scale; the
    damping is ours.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> field = cf.networks.EndPoints(cf.networks.MLP(dim=2, width=16, heads=2))
    >>> DampedVelocity(field, 0.1)(torch.zeros(1), torch.zeros(1, 2)).shape
    torch.Size([1, 2])
    """

    def __init__(self, field: Field, damping: float) -> None:
        super().__init__()
        _check_damping(damping)
        self.field, self.damping = field, damping

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the velocity at times ``t`` ``(n,)`` (a flow map's: ``(n, 2)``) and states ``x``, shaped as ``x``."""
        found = outputs(self.field(t, x, condition), score=True)
        margin = BrownianBridge.margin
        age = (t if t.ndim == 1 else t[:, 0]).clamp(margin, 1 - margin)
        # The noise found in a state is -2 t (1 - t) times the score drift.
        share = self.damping / (age * (1 - age) + self.damping)
        weight = per_sample((1 - 2 * age) * share, x).to(x)
        return torch.addcmul(found.velocity, weight, cast("Tensor", found.score_drift))


def _check_damping(damping: float) -> None:
    if not 0 <= damping <= LARGEST:
        raise ValueError(f"Expected a finite damping >= 0, at most {LARGEST:g}; found {damping}.")
