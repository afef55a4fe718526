"""Velocity and score of a stochastic flow, and the growth of its population, learned together."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from cellflow.batch import Batch
from cellflow.fields import Field, VelocityOf, outputs
from cellflow.objectives.draw import ORDINARY, Unit, draw
from cellflow.objectives.growth import check_growth_weight, growth_error
from cellflow.objectives.matching import check_unit
from cellflow.paths import BrownianBridge, GaussianPath, TimeLaw, Uniform
from cellflow.shapes import per_sample
from cellflow.signature import checked


@checked
@dataclass(frozen=True)
class BridgeMatching:
    """Regress a velocity and a score on those of a Brownian bridge between paired points.

    With an optimal plan between the ends the trained process is a Schrödinger bridge: it can be run forward and
    backward, as a stochastic process or as its probability flow.

    The score is learned as a drift, ``sigma^2 / 2`` times the score, weighted so that its target is the unit noise of
    the path: where the noise is small the weight decreases as fast as the target grows, and both stay finite.

    The velocity of a pair is that of its mean plus a multiple of its noise, which is unbounded at the ends. The
    velocity of the flow depends on that noise only through its mean given the state, which is what the score learns; so
    the target of the velocity uses the noise that the score predicts instead of the drawn noise. For the true
    score the minimiser is the same, and the variance of the target is far smaller.

    With ``growth_weight`` a growth rate is learned too, from pairs that carry masses. All three are then those of the
    weighted population: particles that drift with velocity and score drift, diffuse, and whose log weight grows at the
    rate have the same weighted marginals as without noise, see `cellflow.objectives.growth`.

    Parameters
    ----------
    path
        Path between the points of a pair, with noise.
    times
        Distribution of the time within a pair.
    score_weight
        Weight of the error of the score relative to that of the velocity.
    unit
        Unit of length in the error of the velocity; that of the score has none.
    growth_weight
        Weight of an e-fold of mass relative to a displacement of one unit, both squared; ``None`` for no growth.

    Raises
    ------
    ValueError
        When the path has no noise, and hence no score. When called, if growth is learned from pairs without masses.

    Source
    ------
    Tong et al. 2024 (AISTATS), equations 9 and 10, and appendix C for the weight; the predicted noise in the target
    and growth beside the score are ours.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> field = cf.networks.Heads(cf.networks.MLP(dim=2, width=16, heads=2), score="shared")
    >>> batch = cf.Batch(torch.zeros(8, 2), torch.ones(8, 2))
    >>> sorted(BridgeMatching(cf.paths.BrownianBridge(0.5))(field, batch, generator=cf.generator(seed=0)))
    ['loss', 'score', 'velocity']
    """

    path: GaussianPath = BrownianBridge()
    times: TimeLaw = Uniform()
    score_weight: float = 1.0
    unit: Unit = 1.0
    growth_weight: float | None = None

    def __post_init__(self) -> None:
        check_unit(self.unit)
        if self.growth_weight is not None:
            check_growth_weight(self.growth_weight, without="leave it at None")
        if self.path.sigma == 0:
            raise ValueError(f"Expected a path with noise; found {self.path}. Use `cf.paths.BrownianBridge(sigma)`.")
        if not 0 < self.score_weight < float("inf"):
            raise ValueError(
                f"Expected score_weight > 0; found {self.score_weight}. Without a score, use `VelocityMatching`."
            )

    @property
    def heads(self) -> tuple[str, ...]:
        """What the field returns besides the velocity."""
        return ("score",) if self.growth_weight is None else ("score", "growth")

    @checked
    def __call__(self, field: Field, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the mean squared errors ``"velocity"``, ``"score"`` and ``"growth"``, and their sum ``"loss"``."""
        drawn = draw(batch, self.path, self.times, generator=generator)
        found = outputs(field(drawn.t, drawn.x, drawn.condition), score=True, growth="growth" in self.heads)
        point, drift = drawn.point, cast("Tensor", found.score_drift)
        missed = per_sample(self._per_drift(point.spread), drift) * drift + point.noise
        target = torch.addcmul(point.velocity, per_sample(point.spread_slope, missed), missed.detach(), value=-1)
        velocity = drawn.mean_square(drawn.missed(found.velocity, target), self.unit)
        score = drawn.mean(missed.square())
        terms = {"loss": velocity + self.score_weight * score, "velocity": velocity, "score": score}
        if self.growth_weight is not None:
            terms["growth"] = growth_error(drawn, found)
            terms["loss"] = terms["loss"] + self.growth_weight * terms["growth"]
        return terms

    def _per_drift(self, spread: Tensor) -> Tensor:
        """Return the unit noise that one score drift stands for, ``(n,)``, without squares of an extreme sigma."""
        sigma = self.path.sigma
        if ORDINARY[0] < sigma < ORDINARY[1]:
            return 2 / sigma**2 * spread
        return spread / sigma * (2 / sigma)

    @checked
    def velocity(self, field: Field) -> Field:
        """Return the velocity of the probability flow."""
        return VelocityOf(field)
