"""What a method is, and the flows of cellflow as methods.

This is the joint of the benchmark: whatever has ``fit(training, seed=...)`` and returns a `RollOut` takes part.
A method is a frozen dataclass; a YAML file in ``configs/method`` gives it a name and its settings, and
``method=<name>`` runs it. ``fit`` never sees a held-out cell; to choose something it may leave training snapshots out
itself, by ``training.without(k)``. Everything random comes from ``seed``; the global state of torch and NumPy stays as
it was. In most cases `Flow` is enough: any `cellflow.SnapshotFlow` that a YAML file can describe.
"""

import pickle
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

import anndata
import numpy as np
import pandas as pd
import torch
from torch import Tensor

import cellflow as cf
from cellflow import couplings
from cellflow.cli.runs import Stopwatch
from cellflow.couplings import Coupling, Plan
from cellflow.couplings.coupling import over
from cellflow.integrate import Fixed, Noisy

AT_MOST = 6
"""Plans that are remembered: those of a fold with some to spare. A dense one of 4000 x 4000 cells holds 128 MB."""
PLANS: "OrderedDict[str, tuple[Plan, float]]" = OrderedDict()
"""The latest plans of this process, each with the seconds that it took."""
LOCK = threading.Lock()


@dataclass
class Remembered:
    """A coupling that remembers its plans and counts its time."""

    coupling: Coupling
    calls: list[tuple[float, float, float]] = field(default_factory=list, repr=False)
    """Of each call: when it began, when it ended, and the seconds that solving took when it was really done."""

    def over(self, duration: float, sigma: float) -> "Remembered":
        """Return the coupling as it is over one interval; its time is counted here too."""
        return Remembered(over(self.coupling, duration, sigma), self.calls)

    def __call__(self, x0: Tensor, x1: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Plan:
        """Couple two clouds, or return what was found for the very same clouds before."""
        start = time.perf_counter()
        given = [None if tensor is None else tensor.cpu().numpy() for tensor in (x0, x1, a, b)]
        key = sha256(pickle.dumps([repr(self.coupling), *given])).hexdigest()
        with LOCK:
            known = PLANS.get(key)
        if known is None:
            plan = self.coupling(x0, x1, a, b)
            known = plan, time.perf_counter() - start
            with LOCK:
                PLANS[key] = known
                while len(PLANS) > AT_MOST:
                    PLANS.popitem(last=False)
        self.calls.append((start, time.perf_counter(), known[1]))
        return known[0]

    def facts(self, seconds: float) -> dict[str, float]:
        """Divide the seconds of a fit into those of solving plans, each on one core, and all others."""
        covered, end = 0.0, -float("inf")  # the seconds in which at least one call was under way
        for start, stop, _ in sorted(self.calls):
            covered += max(0.0, stop - max(start, end))
            end = max(end, stop)
        return {"plan_s": sum(call[2] for call in self.calls), "train_s": seconds - covered}


@dataclass(frozen=True)
class Training:
    """Everything that a method may see: cells ``(n_k, d)`` of each training snapshot, scaled, float32, and times."""

    clouds: tuple[np.ndarray, ...]
    times: tuple[float, ...]

    def adata(self) -> anndata.AnnData:
        """Return the cells as an AnnData: ``X``, and ``obs["time"]``."""
        time = np.repeat(self.times, [len(cloud) for cloud in self.clouds])
        names = [f"cell{k}" for k in range(len(time))]
        return anndata.AnnData(np.concatenate(self.clouds), obs=pd.DataFrame({"time": time}, index=names))

    def without(self, k: int) -> "Training":
        """Return the same without snapshot ``k``, to choose a setting by leaving training snapshots out."""
        return Training(self.clouds[:k] + self.clouds[k + 1 :], self.times[:k] + self.times[k + 1 :])


class Particles(NamedTuple):
    """A prediction: points ``(m, d)`` in the scaled space.

    ``weight`` ``(m,)`` are masses, where all start cells together have mass 1; ``None`` where mass is kept and all
    weigh the same. ``evaluations`` are those of the network for each particle.
    """

    x: np.ndarray
    weight: np.ndarray | None = None
    evaluations: int = 0


Carry = Callable[[np.ndarray, float, float], Particles]
"""From cells ``(n, d)``, the time at which they are, and the time to reach, which may lie before, to particles."""


class Pace(NamedTuple):
    """Velocity ``(n, d)`` of cells in the scaled space, and the rate ``(n,)`` at which the log of their mass grows.

    Both per unit of the protocol's clock; ``growth`` is ``None`` where mass is kept.
    """

    velocity: np.ndarray
    growth: np.ndarray | None = None


Rates = Callable[[np.ndarray, float], Pace]
"""From cells ``(n, d)`` and the time at which they are to their pace."""


@dataclass(frozen=True)
class RollOut:
    """A fitted method: it carries cells from one time to another.

    ``facts`` are kept beside the scores; ``"plan_s"`` is the time spent on transport plans, in seconds. ``rates`` say
    how fast cells move and grow, where particles follow one field without noise: the motion itself is scored then.
    """

    carry: Carry
    facts: Mapping[str, Any] = field(default_factory=dict)
    rates: Rates | None = None


class Method(Protocol):
    """Anything that learns from training snapshots how cells move."""

    def fit(self, training: Training, *, seed: int) -> RollOut: ...


@dataclass(frozen=True)
class Flow:
    """A `cellflow.SnapshotFlow`, whatever its parts; one with growth returns weighted particles.

    ``flow`` makes the unfitted flow from ``time_key``, ``rep`` and ``seed``; ``solver`` says how cells are carried:
    with noise (``Noisy``) by a flow with a score.
    """

    flow: Callable[..., cf.SnapshotFlow]
    solver: Any = Fixed("euler", steps=100)

    def fit(self, training: Training, *, seed: int) -> RollOut:
        flow = self.flow(time_key="time", rep="X", seed=seed)
        coupling = Remembered(couplings.resolve(flow.coupling))
        if coupling.coupling.uses_states:  # otherwise nothing is solved
            growth = coupling.coupling == couplings.COUPLINGS["auto"] if flow.growth == "auto" else flow.growth
            flow.set_params(coupling=coupling, growth=growth)
        watch = Stopwatch()
        flow.fit(training.adata())
        facts = coupling.facts(watch.seconds()) | {"steps": flow.steps, "last_loss": flow.history_["loss"][-1]}
        noisy = isinstance(self.solver, Noisy)
        move: Any = partial(flow.simulate, seed=seed) if noisy else flow.transport

        def carry(x: np.ndarray, start: float, stop: float) -> Particles:
            found = move(x, start=start, stop=stop, solver=self.solver)
            weight = None if found.log_weight is None else found.log_weight[-1].exp().numpy()
            return Particles(found.x[-1].numpy(), weight, found.evaluations)

        def rates(x: np.ndarray, time: float) -> Pace:
            return Pace(flow.velocity(x, time), flow.growth_rate(x, time) if flow.growth_ else None)

        return RollOut(carry, facts, None if noisy else rates)


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
        found, coupling = self.method.fit(training, seed=seed), Remembered(self.coupling)

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
        found = self.method.fit(training, seed=seed)

        def carry(x: np.ndarray, start: float, stop: float) -> Particles:
            particles = found.carry(x, start, stop)
            return drawn_by_mass(particles, len(particles.x), seed=seed)

        return RollOut(carry, found.facts, found.rates)


def drawn_by_mass(particles: Particles, n: int, *, seed: int) -> Particles:
    """Return ``n`` particles by systematic resampling: each as often as its share of the mass says, but for rounding.

    Source: Kitagawa 1996.
    """
    share = _masses(particles) / _masses(particles).sum()
    at = (np.random.default_rng(seed).random() + np.arange(n)) / n
    rows = np.minimum(share.cumsum().searchsorted(at), len(share) - 1)
    return Particles(particles.x[rows], evaluations=particles.evaluations)


def _masses(particles: Particles) -> np.ndarray:
    n = len(particles.x)
    return np.full(n, 1 / n) if particles.weight is None else np.asarray(particles.weight)
