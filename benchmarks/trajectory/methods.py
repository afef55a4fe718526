"""What a method is, and the flows of cellflow as methods.

This is the joint of the benchmark: whatever has ``fit(training, seed=...)`` and returns a `RollOut` takes part.
A method is a frozen dataclass; a YAML file in ``configs/method`` gives it a name and its settings, and
``method=<name>`` runs it.

* ``fit`` gets a `Training`: the clouds of the training snapshots in the scaled space of the protocol, float32, and
  their times on the protocol's clock. It never sees a held-out cell. To choose something it may leave training
  snapshots out itself: ``training.without(k)``.
* It returns a `RollOut`. Its ``carry(x, start, stop)`` takes cells ``(n, d)`` observed at ``start`` to ``stop``,
  which may lie before it, both on the same clock, and returns `Particles`: as many as it likes, with masses or without.
  Where one velocity moves the particles it may say so in ``rates``: the motion itself is scored then.
* Everything random comes from ``seed``; the global state of torch and NumPy stays as it was.

In most cases `Flow` is enough: any `cellflow.SnapshotFlow` that a YAML file can describe. What it cannot describe is a
new dataclass with the same ``fit``, such as one that fits several flows and mixes their particles.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

import cellflow as cf
from benchmarks.trajectory.plans import Remembered
from cellflow.cli.runs import Stopwatch
from cellflow.integrate import Fixed, Noisy

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class Training:
    """Everything that a method may see.

    Parameters
    ----------
    clouds
        Cells ``(n_k, d)`` of each training snapshot in the scaled space, float32.
    times
        Their times, increasing.

    Examples
    --------
    >>> training = Training((np.zeros((4, 2), np.float32), np.ones((3, 2), np.float32)), (0.0, 2.0))
    >>> training.adata().obs["time"].tolist()
    [0.0, 0.0, 0.0, 0.0, 2.0, 2.0, 2.0]
    """

    clouds: tuple[np.ndarray, ...]
    times: tuple[float, ...]

    def adata(self) -> "AnnData":
        """Return the cells as an AnnData: ``X``, and ``obs["time"]``."""
        import anndata
        import pandas as pd

        time = np.repeat(self.times, [len(cloud) for cloud in self.clouds])
        names = [f"cell{k}" for k in range(len(time))]
        return anndata.AnnData(np.concatenate(self.clouds), obs=pd.DataFrame({"time": time}, index=names))

    def without(self, k: int) -> "Training":
        """Return the same without snapshot ``k``, to choose a setting by leaving training snapshots out."""
        return Training(self.clouds[:k] + self.clouds[k + 1 :], self.times[:k] + self.times[k + 1 :])


class Particles(NamedTuple):
    """A prediction.

    Parameters
    ----------
    x
        Points ``(m, d)`` in the scaled space.
    weight
        Masses ``(m,)``, where all start cells together have mass 1; None where mass is kept and all weigh the same.
    evaluations
        Evaluations of the network for each particle.
    """

    x: np.ndarray
    weight: np.ndarray | None = None
    evaluations: int = 0


Carry = Callable[[np.ndarray, float, float], Particles]
"""From cells ``(n, d)``, the time at which they are, and the time to reach, to particles."""


class Pace(NamedTuple):
    """How cells move and grow where they are.

    Parameters
    ----------
    velocity
        Of each cell ``(n, d)`` in the scaled space, per unit of the protocol's clock.
    growth
        Rate at which the log of its mass grows ``(n,)``, per unit of the same clock; None where mass is kept.
    """

    velocity: np.ndarray
    growth: np.ndarray | None = None


Rates = Callable[[np.ndarray, float], Pace]
"""From cells ``(n, d)`` and the time at which they are to their pace."""


@dataclass(frozen=True)
class RollOut:
    """A fitted method.

    Parameters
    ----------
    carry
        Takes cells from one time to another.
    facts
        Anything to keep beside the scores, as JSON; ``"plan_s"`` is the time spent on transport plans, in seconds.
    rates
        Says how fast cells move and grow, for a method whose particles follow one field without noise; None for
        others. It is scored where the protocol has weighted particles.
    """

    carry: Carry
    facts: Mapping[str, Any] = field(default_factory=dict)
    rates: Rates | None = None


class Method(Protocol):
    """Anything that learns from training snapshots how cells move."""

    def fit(self, training: Training, *, seed: int) -> RollOut:
        """Learn."""
        ...


@dataclass(frozen=True)
class Flow:
    """A `cellflow.SnapshotFlow`, whatever its parts.

    Parameters
    ----------
    flow
        Makes the unfitted flow from ``time_key``, ``rep`` and ``seed``: in YAML a ``cellflow.estimators.SnapshotFlow``
        with ``_partial_: true`` and all other settings.
    solver
        How cells are carried from ``start`` to ``stop``: with noise (``Noisy``) by a flow with a score.

    A flow with growth returns weighted particles.

    Examples
    --------
    >>> from functools import partial
    >>> rng = np.random.default_rng(0)
    >>> clouds = tuple(rng.normal(size=(30, 2)).astype(np.float32) + k for k in range(3))
    >>> method = Flow(partial(cf.SnapshotFlow, steps=5))
    >>> found = method.fit(Training(clouds, (0.0, 1.0, 3.0)), seed=0).carry(clouds[0], 0.0, 2.0)
    >>> found.x.shape, found.evaluations
    ((30, 2), 100)
    """

    flow: Callable[..., cf.SnapshotFlow]
    solver: Any = Fixed("euler", steps=100)

    def fit(self, training: Training, *, seed: int) -> RollOut:
        """Fit the flow on all training cells."""
        flow = self.flow(time_key="time", rep="X", seed=seed)
        coupling = Remembered.of(flow.coupling)
        if not isinstance(coupling.coupling, cf.couplings.Independent):  # which needs no plan, and is known by its type
            flow.set_params(coupling=coupling)
        watch = Stopwatch()
        flow.fit(training.adata())
        facts = coupling.facts(watch.seconds()) | {"steps": flow.steps, "last_loss": flow.history_["loss"][-1]}

        def carry(x: np.ndarray, start: float, stop: float) -> Particles:
            if flow.growth:
                found = flow.grow(x, start=start, stop=stop, solver=self.solver)
            elif isinstance(self.solver, Noisy):
                found = flow.simulate(x, start=start, stop=stop, solver=self.solver, seed=seed)
            else:
                found = flow.transport(x, start=start, stop=stop, solver=self.solver)
            weight = None if found.log_weight is None else found.log_weight[-1].exp().numpy()
            return Particles(found.x[-1].numpy(), weight, found.evaluations)

        def rates(x: np.ndarray, time: float) -> Pace:
            return Pace(flow.velocity(x, time), flow.growth_rate(x, time) if flow.growth else None)

        return RollOut(carry, facts, None if isinstance(self.solver, Noisy) else rates)
