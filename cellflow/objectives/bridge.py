"""Velocity and score of a stochastic flow, learned together."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cellflow.batch import Batch
from cellflow.fields import BridgeField, Field, two_heads
from cellflow.objectives.matching import check_unit
from cellflow.paths import BrownianBridge, GaussianPath, TimeLaw, Uniform
from cellflow.shapes import per_sample


@dataclass(frozen=True)
class BridgeMatching:
    """Regress a velocity and a score on those of a Brownian bridge between paired points.

    With an optimal plan between the ends the trained process is a Schrödinger bridge: it can be run forward and
    backward, as a stochastic process or as its probability flow.

    The score is learned as a drift, ``sigma^2 / 2`` times the score, weighted so that its target is the unit noise of
    the path: large where the noise is small, the weight falls there as fast as the target grows, and both stay finite.

    The velocity of a pair is that of its mean plus a multiple of its noise, without bound at the ends. All that the
    velocity of the flow keeps of that noise is its mean given the state, which is what the score learns; so the target
    of the velocity takes the noise that the score predicts in place of the noise that was drawn. Where the score is
    right the best velocity is the same, and the target varies far less.

    Parameters
    ----------
    path
        How each pair is joined; a path with noise.
    times
        Law of the time within a pair.
    score_weight
        How much the score counts beside the velocity.
    unit
        Length that counts as 1 in the error of the velocity; that of the score has no unit.

    Raises
    ------
    ValueError
        When the path has no noise: then there is no score.

    Source: Tong et al. 2024 (AISTATS), equations 9 and 10, and appendix C for the weight; the predicted noise in the
    target is ours.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> field = cf.networks.TwoHeads(cf.networks.MLP(dim=2, width=16, heads=2))
    >>> batch = cf.Batch(torch.zeros(8, 2), torch.ones(8, 2))
    >>> sorted(BridgeMatching(cf.paths.BrownianBridge(0.5))(field, batch, generator=cf.generator(seed=0)))
    ['loss', 'score', 'velocity']
    """

    path: GaussianPath = BrownianBridge()
    times: TimeLaw = Uniform()
    score_weight: float = 1.0
    unit: float = 1.0

    def __post_init__(self) -> None:
        check_unit(self.unit)
        if self.path.sigma == 0:
            raise ValueError(f"Expected a path with noise; found {self.path}. Use `cf.paths.BrownianBridge(sigma)`.")
        if self.score_weight <= 0:
            raise ValueError(
                f"Expected score_weight > 0; found {self.score_weight}. Without a score, `VelocityMatching`."
            )

    def __call__(self, field: BridgeField, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the mean squared errors ``"velocity"`` and ``"score"``, and their weighted sum ``"loss"``."""
        s = self.path.inside(self.times.sample(len(batch.x0), generator=generator, like=batch.x0))
        start, duration = batch.span()
        point = self.path.between(batch, s, generator=generator)
        heads = two_heads(field(start + s * duration, point.x, batch.condition))
        noise = per_sample(2 / self.path.sigma**2 * point.spread, heads.score_drift) * heads.score_drift
        missed = noise + point.noise
        target = torch.addcmul(point.velocity, per_sample(point.spread_slope, missed), missed.detach(), value=-1)
        error = torch.addcmul(target, per_sample(duration, heads.velocity), heads.velocity, value=-1)
        velocity = error.square().mean() / self.unit**2
        score = missed.square().mean()
        return {"loss": velocity + self.score_weight * score, "velocity": velocity, "score": score}

    def velocity(self, field: BridgeField) -> Field:
        """Return the velocity of the probability flow."""
        return VelocityHead(field)


class VelocityHead(nn.Module):
    """The velocity of a field with two heads, as a field of its own.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> field = cf.networks.TwoHeads(cf.networks.MLP(dim=2, width=16, heads=2))
    >>> VelocityHead(field)(torch.zeros(1), torch.zeros(1, 2), None).shape
    torch.Size([1, 2])
    """

    def __init__(self, field: BridgeField) -> None:
        super().__init__()
        self.field = field

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the velocity at times ``t`` ``(n,)`` and states ``x``, shaped as ``x``."""
        return two_heads(self.field(t, x, condition)).velocity
