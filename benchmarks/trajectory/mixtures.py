"""Methods made of methods: flows side by side, cells that weigh as much as a plan uses them, cells drawn by mass."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.trajectory.methods import Method, Particles, Remembered, RollOut, Training
from cellflow.couplings import Coupling


@dataclass(frozen=True)
class Mixture:
    """Several methods, each with an equal share of the predicted mass; one that stands here twice has two seeds.

    W1 to the truth is convex in the prediction: a mixture is never worse than its parts on average, and better where
    they err in different directions.
    """

    methods: Sequence[Method]

    def fit(self, training: Training, *, seed: int) -> RollOut:
        """Fit every part, from seeds that differ between parts and between runs."""
        parts = [method.fit(training, seed=1000 * k + seed) for k, method in enumerate(self.methods)]
        facts = {name: sum(part.facts.get(name, 0.0) for part in parts) for name in ("plan_s", "train_s")}

        def carry(x: np.ndarray, start: float, stop: float) -> Particles:
            found = [part.carry(x, start, stop) for part in parts]
            masses = [_masses(particles) for particles in found]
            total = float(np.mean([mass.sum() for mass in masses]))
            weight = np.concatenate([mass / mass.sum() * total / len(found) for mass in masses])
            x = np.concatenate([particles.x for particles in found])
            return Particles(x, weight, sum(particles.evaluations for particles in found))

        return RollOut(carry, facts)


@dataclass(frozen=True)
class PlanWeighted:
    """Cells weigh as much as the plan to the next training snapshot uses them.

    A flow trained along an unbalanced plan knows where its mass goes, but pushes every start cell alike; here those
    that the plan hardly uses hardly count. The start cells must be those of a training snapshot.
    """

    method: Method
    coupling: Coupling

    def fit(self, training: Training, *, seed: int) -> RollOut:
        """Fit the method; plans are solved once, when cells are carried."""
        found, coupling = self.method.fit(training, seed=seed), Remembered.of(self.coupling)

        def carry(x: np.ndarray, start: float, stop: float) -> Particles:
            particles = found.carry(x, start, stop)
            k = training.times.index(start)
            if not np.array_equal(training.clouds[k], x):
                raise ValueError(f"Expected the training cells of time {start:g}, whose weights are known.")
            forward = stop > start
            x0, x1 = (torch.from_numpy(training.clouds[j]) for j in ((k, k + 1) if forward else (k - 1, k)))
            weight = coupling(x0, x1).marginals()[0 if forward else 1].numpy()
            return particles._replace(weight=_masses(particles) * weight / weight.mean())

        return RollOut(carry, found.facts)


@dataclass(frozen=True)
class Resampled:
    """Particles drawn in proportion to their masses, so that each counts alike.

    What the masses say of where cells will be then shows in every score, not only in those of weighted particles. How
    much mass there is in all is lost.
    """

    method: Method

    def fit(self, training: Training, *, seed: int) -> RollOut:
        """Fit the method."""
        found = self.method.fit(training, seed=seed)

        def carry(x: np.ndarray, start: float, stop: float) -> Particles:
            particles = found.carry(x, start, stop)
            return drawn_by_mass(particles, len(particles.x), seed=seed)

        return RollOut(carry, found.facts, found.rates)


def drawn_by_mass(particles: Particles, n: int, *, seed: int) -> Particles:
    """Return ``n`` particles by systematic resampling: each as often as its share of the mass says, but for rounding.

    Source
    ------
    Kitagawa 1996.
    """
    share = _masses(particles) / _masses(particles).sum()
    at = (np.random.default_rng(seed).random() + np.arange(n)) / n
    rows = np.minimum(share.cumsum().searchsorted(at), len(share) - 1)
    return Particles(particles.x[rows], evaluations=particles.evaluations)


def _masses(particles: Particles) -> np.ndarray:
    n = len(particles.x)
    return np.full(n, 1 / n) if particles.weight is None else np.asarray(particles.weight)
