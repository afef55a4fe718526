"""All methods, by name: one line each."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

import cellflow as cf
from benchmarks.couplings.course import REP, TIME, Coupled, Course, Fitted, Landed, Method, Motion, Scattered
from benchmarks.couplings.plans import FromLibrary, Matched, Matching
from cellflow.couplings import Plan
from cellflow.integrate import Trajectory
from cellflow.tl.fate import STEPS


@dataclass(frozen=True)
class Still:
    """Cells stay where they are: the nearest later cells, without any motion."""

    def fit(self, course: Course, *, seed: int) -> Fitted:
        return _Stays(course)


@dataclass(frozen=True)
class Static:
    """A plan between neighbouring snapshots, and nothing that is learned."""

    matching: Matching
    way: float = 1.0  # part of the way that cells go

    def fit(self, course: Course, *, seed: int) -> Fitted:
        return _Plans(course, self.matching, self.way)


@dataclass(frozen=True)
class Flow:
    """A `cellflow.SnapshotFlow`: cells are carried by the field that it has learned, and by nothing else.

    ``samples``: with noise of the suggested size, so many simulations of each cell.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    samples: int = 0

    def fit(self, course: Course, *, seed: int) -> Fitted:
        adata, flow = course.adata(), self._flow().set_params(seed=seed)
        if self.samples:
            flow.set_params(path=cf.paths.BrownianBridge(flow.suggest_sigma(adata)), stochastic=True)
        return Carried(course, flow.fit(adata), self.samples)

    def _flow(self) -> cf.SnapshotFlow:
        return cf.SnapshotFlow(time_key=TIME, rep=REP, **self.settings)

    def __repr__(self) -> str:
        """Name every setting, so that other defaults are other rows."""
        return repr([*sorted(self._flow().get_params().items()), self.samples])


SAMPLES = 30
EPSILON = 0.02
"""Of all entropic plans, in units of the median cost."""

PLANS: dict[str, Method] = {
    "not moving": Still(),
    "independent plan": Static(FromLibrary("independent")),
    "exact plan": Static(Matched()),
    "Sinkhorn plan": Static(Matched(epsilon=EPSILON)),
    "unbalanced plan, 0.5 x travel": Static(Matched(epsilon=EPSILON, relaxation=0.5)),
    "unbalanced plan, 1 x travel": Static(Matched(epsilon=EPSILON, relaxation=1.0)),
    "unbalanced plan, 2 x travel": Static(Matched(epsilon=EPSILON, relaxation=2.0)),
    "auto plan": Static(FromLibrary("auto")),
}
SHRUNKEN: dict[str, Method] = {
    f"{name}, {way:g} of the way": Static(matching, way)
    for name, matching in (("exact", Matched()), ("unbalanced, 1 x", Matched(epsilon=EPSILON, relaxation=1.0)))
    for way in (0.25, 0.5, 0.75)
}
"""Less motion scores better where labels persist, and is no cure: to be read beside everything else."""
UNBALANCED = Matched(epsilon=EPSILON, relaxation=1.0)
ABLATIONS: dict[str, Method] = {
    f"{cost}, {name}": Static(replace(matching, cost=cost))
    for cost in ("geodesic", "whitened", "label-aware")
    for name, matching in (("exact", Matched()), ("unbalanced, 1 x", UNBALANCED))
}
ABLATIONS |= {f"partial, {mass:g} of the mass": Static(Matched(partial=mass)) for mass in (0.5, 0.8)}
FLOWS: dict[str, Method] = {
    "flow": Flow(),
    "flow, with noise": Flow(samples=SAMPLES),
    "flow, exact": Flow({"coupling": "exact"}),
    "flow, not regularized": Flow({"regularize": False}),
}
METHODS: dict[str, Method] = PLANS | SHRUNKEN | ABLATIONS | FLOWS


class _Stays:
    def __init__(self, course: Course) -> None:
        self._course = course

    def motion(self, first: int, last: int) -> Motion:
        return Landed(self._course.clouds[first], self._course.clouds[last])


class _Plans:
    def __init__(self, course: Course, matching: Matching, way: float) -> None:
        self._course, self._matching, self._way = course, matching, way

    def motion(self, first: int, last: int) -> Motion:
        plans = [_plan(self._course, self._matching, k) for k in range(first, last)]
        return Coupled(plans, self._course.clouds[first], self._course.clouds[last], self._way)


@lru_cache(maxsize=4)
def _plan(course: Course, matching: Matching, k: int) -> Plan:
    return matching(course, k)


class Carried:
    """A fitted flow, which carries cells."""

    def __init__(self, course: Course, flow: cf.SnapshotFlow, samples: int = 0) -> None:
        self.course, self.flow, self.samples = course, flow, samples

    def motion(self, first: int, last: int) -> Motion:
        """Integrate the field from one snapshot to the other; with the weights of the cells where growth is known."""
        start, stop = self.course.times[first], self.course.times[last]
        x, later = self.course.clouds[first].astype(np.float32), self.course.clouds[last]
        if not self.samples:
            return _landed(self.flow.transport(x, start=start, stop=stop), later)
        way: dict[str, Any] = {"start": start, "stop": stop, "solver": STEPS}
        return Scattered([_landed(self.flow.simulate(x, seed=k, **way), later) for k in range(self.samples)])


def _landed(found: Trajectory, later: np.ndarray) -> Landed:
    grown = found.log_weight
    mass = None if grown is None else (grown[-1] - grown[0]).double().exp().numpy()
    return Landed(found.x[-1].numpy(), later, mass)
