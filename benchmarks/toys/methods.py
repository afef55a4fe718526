"""The four pairs of clouds, and the methods, each a row of parts: path, coupling, objective, loop."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import cellflow as cf
from benchmarks.toys.scores import assign
from cellflow.datasets import eight_gaussians, moons, s_curve
from cellflow.seeds import seeded

POINTS = 10_000
"""Training points, and as many test points."""


class Clouds(NamedTuple):
    """Source and target to learn from, and others to be judged by, each ``(n, 2)``."""

    x0: Tensor
    x1: Tensor
    test0: Tensor
    test1: Tensor


def clouds(pair: str, seed: int, *, points: int = POINTS) -> Clouds:
    """Draw a pair: training, validation (unused) and test points are drawn together and parted at random."""
    rng = cf.generator(seed=seed)
    source, target = (draw(3 * points, rng) for draw in PAIRS[pair])
    x0, test0, _ = source[torch.randperm(3 * points, generator=rng)].split(points)
    x1, test1, _ = target[torch.randperm(3 * points, generator=rng)].split(points)
    return Clouds(x0, x1, test0, test1)


def source_law(pair: str) -> tuple[Tensor, float]:
    """Return centres ``(k, 2)`` and standard deviation of the equal Gaussians that make up the source of a pair."""
    if pair.startswith("N->"):
        return torch.zeros(1, 2), 1.0
    angle = torch.arange(8) * torch.pi / 4
    return 12 * torch.stack([angle.cos(), angle.sin()], dim=1), 1.5


def _moons(n: int, rng: torch.Generator) -> Tensor:
    x = moons(n, noise=0.1, generator=rng)
    return 7 * (x - x.mean()) / x.std()


Draw = Callable[[int, torch.Generator], Tensor]
NORMAL: Draw = lambda n, rng: torch.randn(n, 2, generator=rng)  # noqa: E731
PAIRS: dict[str, tuple[Draw, Draw]] = {
    "N->8gaussians": (NORMAL, lambda n, rng: eight_gaussians(n, radius=5.0, spread=1.0, generator=rng)),
    "N->moons": (NORMAL, lambda n, rng: 2 * moons(n, noise=0.05, generator=rng) - torch.tensor([1.0, 0.0])),
    "N->scurve": (NORMAL, lambda n, rng: 1.5 * s_curve(n, noise=0.05, generator=rng)),
    "8gaussians->moons": (
        lambda n, rng: 3 * eight_gaussians(n, radius=4.0, spread=0.5, generator=rng, even=False), _moons,
    ),
}  # fmt: skip
"""Source and target of each pair."""
BATCH, WIDTH, DEPTH = 512, 64, 3
NEW_NOISE = 20
"""Draws of a Gaussian source for each target point where pairs are independent: the published batches draw it anew."""
RECIPE = cf.training.Recipe(learning_rate=4e-3, ema=0.998)


@dataclass(frozen=True)
class Method:
    """Path and coupling, whether a score is learned too, and how often the model pairs the points anew.

    ``sigma`` counts in units of the pair: it is multiplied by the pair's own scale.
    """

    coupling: str
    sigma: float = 0.0
    score: bool = False
    rounds: int = 0
    start: str | None = None

    def objective(self, scale: float) -> Any:
        """Return what is minimised on a pair with points ``scale`` apart."""
        path = cf.paths.BrownianBridge(self.sigma * scale) if self.sigma else cf.paths.Linear()
        matching: Any = cf.objectives.BridgeMatching if self.score else cf.objectives.VelocityMatching
        return matching(path, times=cf.paths.Stratified(), unit=scale)


METHODS = {
    "I-CFM": Method("independent"),
    "FM": Method("gaussian"),
    "OT-CFM": Method("exact"),
    "SB-CFM": Method("sinkhorn", sigma=0.4),
    "[SF]2M-Exact": Method("exact", sigma=0.1, score=True),
    "[SF]2M-I": Method("independent", sigma=0.4, score=True),
    "DSBM-IMF": Method("own", sigma=0.4, score=True, rounds=6, start="[SF]2M-I"),
    "RF": Method("own", rounds=3, start="I-CFM"),
}
"""The rows, by their published names."""


def field_of(data: Clouds, networks: Sequence[nn.Module]) -> nn.Module:
    """Return networks, one for the velocity and perhaps one for the score, in units of a pair."""
    scale = torch.full((2,), float(data.x1.std()))
    fields = [cf.networks.Standardized(net, shift=data.x1.mean(0), scale=scale, speed=scale) for net in networks]
    return fields[0] if len(fields) == 1 else cf.networks.Heads(fields[0], score=fields[1])


class Trainer:
    """Trains the methods on one pair; the exact plan, and models that others start from, are made once."""

    def __init__(self, data: Clouds, seed: int, steps: int) -> None:
        self.data, self.seed, self.steps, self.scale = data, seed, steps, float(data.x1.std())
        self._states: dict[str, dict[str, Any]] = {}

    def train(self, name: str) -> tuple[nn.Module, cf.objectives.Objective]:
        """Return the trained field of a method, and its objective."""
        method, rng = METHODS[name], cf.generator(seed=self.seed)
        objective = method.objective(self.scale)
        with seeded(rng):
            networks = [cf.networks.MLP(2, width=WIDTH, depth=DEPTH, harmonics=4) for _ in range(1 + method.score)]
        field = field_of(self.data, networks)
        if name in self._states:
            field.load_state_dict(self._states[name])
        elif method.start is None:
            batches = self._batches(method, rng)
            cf.training.fit(field, objective, batches, steps=self.steps, generator=rng, recipe=RECIPE)
        else:
            field.load_state_dict(self.train(method.start)[0].state_dict())
            self._refit(field, objective, method, rng)
        self._states[name] = field.state_dict()
        return field, objective

    def _batches(self, method: Method, rng: torch.Generator) -> cf.pairing.PairedBatches:
        x0, x1 = self.data.x0, self.data.x1
        coupling: Any = method.coupling
        if method.coupling == "gaussian":
            x0, coupling = torch.randn(NEW_NOISE * len(x1), 2, generator=rng), "independent"
        elif method.coupling == "exact":
            x1, coupling = x1[self.plan], "given"
        elif method.coupling == "sinkhorn":
            coupling = cf.couplings.Sinkhorn(2 * (method.sigma * self.scale) ** 2, tolerance=1e-3)
        size: int | str = BATCH if method.coupling == "sinkhorn" else "whole"
        return cf.pairing.paired_batches(x0, x1, coupling=coupling, batch_size=BATCH, generator=rng, ot_batch_size=size)

    @cached_property
    def plan(self) -> Tensor:
        """The partner of every source point ``(n,)`` in the exact plan of the training points."""
        return torch.as_tensor(assign(self.data.x0.double().numpy(), self.data.x1.double().numpy()).partner)

    def _refit(self, field: nn.Module, objective: Any, method: Method, rng: torch.Generator) -> None:
        markov = cf.training.MarkovianFitting(method.sigma * self.scale, solver=40) if method.sigma else None
        cf.training.refit(
            field, objective, self.data.x0, self.data.x1, coupling=markov or cf.training.Reflow(solver=50),
            steps=max(1, self.steps // (method.rounds if method.sigma else 2)), rounds=method.rounds, generator=rng,
            batch_size=BATCH, recipe=RECIPE,
        )  # fmt: skip
