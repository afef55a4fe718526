"""What a network can predict of a bridge between images, other than what cellflow has: for ``bridge_heads.py``."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

import cellflow as cf
from cellflow.fields import Field, Outputs
from cellflow.networks import EndGuess, GuessedVelocity, VelocityGuess
from cellflow.objectives import DampedVelocity
from cellflow.objectives.draw import draw
from cellflow.paths import BrownianBridge, Linear, TimeLaw, Uniform
from cellflow.shapes import per_sample

SOON = 0.02
"""Added to the time that remains where errors are divided by it."""


class Guess(NamedTuple):
    """Both ends as they are guessed, the standard deviations of what that misses, and a state of variance one."""

    x0: Tensor | float
    x1: Tensor | float
    missed0: Tensor
    missed1: Tensor
    seen: Tensor


class Pixels(nn.Module):
    """Guesses from pixels, all alike in a channel: multiples of the state, as in diffusion; or the mean alone."""

    mean: Tensor
    variance: Tensor

    def __init__(self, x0: Tensor, x1: Tensor, sigma: float, *, blind: bool) -> None:
        super().__init__()
        self.sigma, self.blind = sigma, blind
        for name, take in (("mean", Tensor.mean), ("variance", Tensor.var)):
            self.register_buffer(name, torch.stack([take(x, dim=(0, 2, 3))[:, None, None] for x in (x0, x1)]))

    def forward(self, t: Tensor, x: Tensor) -> Guess:
        age, (first, second), means = per_sample(t, x), self.variance, self.mean
        noise = self.sigma**2 * age * (1 - age)
        whole = (1 - age).square() * first + age.square() * second + noise
        off = x - torch.lerp(means[0], means[1], age)
        seen = off / whole.sqrt()
        if self.blind:
            return Guess(means[0], means[1], first.sqrt().expand_as(whole), second.sqrt().expand_as(whole), seen)
        missed0 = (first * (age.square() * second + noise) / whole).sqrt()
        missed1 = (second * ((1 - age).square() * first + noise) / whole).sqrt()
        x0, x1 = means[0] + (1 - age) * first / whole * off, means[1] + age * second / whole * off
        return Guess(x0, x1, missed0, missed1, seen)


class Nothing(nn.Module):
    """No guess: the network is asked for the ends themselves."""

    def forward(self, t: Tensor, x: Tensor) -> Guess:
        ones = torch.ones_like(per_sample(t, x))
        return Guess(0.0, 0.0, ones, ones, x)


class Ends(nn.Module):
    """Both ends from a guess and a network that corrects it; velocity and score from heads of their own, if asked."""

    def __init__(self, network: nn.Module, guess: nn.Module, *, beside: bool = False) -> None:
        super().__init__()
        self.network, self.guess, self.heads = network, guess, 4 if beside else 2

    def parts(self, t: Tensor, x: Tensor) -> tuple[tuple[Tensor, ...], Guess]:
        """Return source, target, and velocity and score where they are beside; and the guess."""
        t = t.clamp(BrownianBridge.margin, 1 - BrownianBridge.margin)
        guess: Guess = self.guess(t, x)
        first, second, *beside = self.network(t, guess.seen, None).chunk(self.heads, dim=1)
        return (guess.x0 + guess.missed0 * first, guess.x1 + guess.missed1 * second, *beside), guess

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Outputs:
        (x0, x1, *_), _ = self.parts(t, x)
        age = per_sample(t.clamp(BrownianBridge.margin, 1 - BrownianBridge.margin), x)
        onward, back = (x1 - x) / (1 - age), (x0 - x) / age
        return Outputs((onward - back) / 2, (onward + back) / 2)


class Beside(nn.Module):
    """The velocity that has a head of its own."""

    def __init__(self, field: Ends) -> None:
        super().__init__()
        self.field = field

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.field.parts(t, x)[0][2]


@dataclass(frozen=True)
class EndsMatching:
    """Regress both ends; ``weight`` says how squared errors count.

    ``"plain"``: as they are; ``"missed"``: in units of what the guess misses; ``"time"``: over the time that remains.
    """

    path: BrownianBridge
    times: TimeLaw = Uniform()
    weight: str = "plain"
    damping: float = 0.1
    heads: ClassVar[tuple[str, ...]] = ("score",)

    def __call__(self, field: Ends, batch: cf.Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        drawn = draw(batch, self.path, self.times, generator=generator)
        (x0, x1, *beside), guess = field.parts(drawn.t, drawn.x)
        weights: tuple[Tensor | float, ...] = (1.0, 1.0)
        if self.weight == "missed":
            weights = guess.missed0**-2, guess.missed1**-2
        elif self.weight == "time":
            weights = tuple(1 / per_sample(left + SOON, x0) for left in (drawn.t, 1 - drawn.t))
        loss = (weights[0] * (x0 - batch.x0).square() + weights[1] * (x1 - batch.x1).square()).mean()
        if beside:  # the errors of `cf.objectives.BridgeMatching`
            point, per_drift = drawn.point, 2 / self.path.sigma**2 * drawn.point.spread
            noise = per_sample(per_drift, drawn.x) * beside[1] + point.noise
            target = torch.addcmul(point.velocity, per_sample(point.spread_slope, noise), noise.detach(), value=-1)
            loss = loss + (beside[0] - target).square().mean() + noise.square().mean()
        return {"loss": loss}

    def velocity(self, field: Ends) -> Field:
        """Return the velocity of the flow without noise."""
        return Beside(field) if field.heads == 4 else DampedVelocity(field, self.damping)


class Target(nn.Module):
    """The velocity of a flow without noise from a network that predicts its end."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Tensor:
        left = per_sample(1 - t.clamp(max=1 - BrownianBridge.margin), x)
        velocity: Tensor = (self.network(t, x, condition) - x) / left
        return velocity


@dataclass(frozen=True)
class TargetMatching:
    """Regress the end of a flow without noise; squared errors count over the time that remains."""

    times: TimeLaw = Uniform()
    path: Linear = Linear()
    heads: ClassVar[tuple[str, ...]] = ()

    def __call__(self, field: Target, batch: cf.Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        drawn = draw(batch, self.path, self.times, generator=generator)
        missed = field.network(drawn.t, drawn.x, None) - batch.x1
        return {"loss": (missed.square() / per_sample(1 - drawn.t + SOON, missed)).mean()}

    def velocity(self, field: Target) -> Field:
        """Return the field: it is the velocity."""
        return field


def frequencies(x0: Tensor, x1: Tensor, sigma: float) -> EndGuess:
    """Return the guess that cellflow has."""
    return EndGuess(x0.shape[1:], sigma).measure(x0, x1)


def velocities(network: nn.Module, x0: Tensor, x1: Tensor) -> GuessedVelocity:
    """Return the field that corrects the guess that cellflow has of the velocity."""
    return GuessedVelocity(network, VelocityGuess(x0.shape[1:]).measure(x0, x1))
