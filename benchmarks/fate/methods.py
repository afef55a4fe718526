"""All methods, by name: how each finds what the asked cells become."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch

import cellflow as cf
from benchmarks.couplings.course import REP, TIME, Coupled, Landed, Motion
from benchmarks.fate.cellrank_rows import CellRank
from benchmarks.fate.sets import Case
from cellflow.couplings import Coupling, Exact, Plan, Relative, Sinkhorn, UnbalancedSinkhorn
from cellflow.tl.fate_table import read_fate

SAMPLES = 100


class Method(Protocol):
    """A way to find out what cells become."""

    def shares(self, case: Case, *, seed: int) -> np.ndarray:
        """Return the share of each group in what the asked cells become, ``(n, k)``."""


@dataclass(frozen=True)
class Still:
    """Cells stay where they are: the groups of the nearest later cells."""

    def shares(self, case: Case, *, seed: int) -> np.ndarray:
        later = case.course.clouds[-1]
        return _read(case, [Landed(cloud, later) for cloud in case.course.clouds[:-1]])


@dataclass(frozen=True)
class Static:
    """Plans between neighbouring snapshots, one after the other, and nothing that is learned."""

    coupling: Coupling

    def shares(self, case: Case, *, seed: int) -> np.ndarray:
        plans, clouds = plans_of(case, self.coupling), case.course.clouds
        return _read(case, [Coupled(plans[k:], clouds[k], clouds[-1]) for k in range(len(plans))])


@dataclass(frozen=True)
class Flow:
    """`cellflow.tl.fate` of a `cellflow.SnapshotFlow`; ``bridge``: with a score, and noise of the suggested size."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    bridge: bool = False

    def shares(self, case: Case, *, seed: int) -> np.ndarray:
        adata, flow = case.course.adata(), cf.SnapshotFlow(time_key=TIME, rep=REP, seed=seed, **self.settings)
        sizes = [len(cloud) for cloud in case.course.clouds]
        adata.obs["group"] = np.concatenate([np.full(sum(sizes[:-1]), None), case.ends])
        if self.bridge:
            flow.set_params(path=cf.paths.BrownianBridge(flow.suggest_sigma(adata)), stochastic=True)
        starts = np.cumsum([0, *sizes[:-1]])
        rows = np.concatenate([start + asked for start, asked in zip(starts, case.asked, strict=False)])
        cells = np.isin(np.arange(adata.n_obs), rows)
        cf.tl.fate(adata, flow.fit(adata), groupby="group", cells=cells, n_samples=SAMPLES, seed=seed)
        found = read_fate(adata)
        return np.stack([found.share(name)[cells] for name in case.names], axis=1)


def plans_of(case: Case, coupling: Coupling) -> list[Plan]:
    """Return the plans between neighbouring snapshots."""
    return [coupling(*map(torch.from_numpy, pair)) for pair in pairwise(case.course.clouds)]


def _read(case: Case, motions: list[Motion]) -> np.ndarray:
    found = [motion.mean(case.member)[asked] for motion, asked in zip(motions, case.asked, strict=True) if len(asked)]
    return np.concatenate(found)


SINKHORN = Sinkhorn(Relative(0.02))
UNBALANCED = UnbalancedSinkhorn(Relative(0.02), Relative(2.0))
AUTO = UnbalancedSinkhorn()
MOSCOT = UnbalancedSinkhorn(Relative(0.01), (Relative(1.0), float("inf")))
"""As moscot is used for time: the source relaxed, the target kept, and little entropy."""

STATIC: dict[str, Method] = {
    "not moving": Still(),
    "exact plan": Static(Exact()),
    "Sinkhorn plan": Static(SINKHORN),
    "unbalanced plan, 2 x travel": Static(UNBALANCED),
    "moscot-like plan": Static(MOSCOT),
    "auto plan": Static(AUTO),
}
CELLRANK: dict[str, Method] = {
    "CellRank, auto plan": CellRank(AUTO),
    "CellRank, Sinkhorn plan": CellRank(SINKHORN),
    "CellRank, moscot-like plan": CellRank(MOSCOT),
}
FLOWS: dict[str, Method] = {
    "flow": Flow(),
    "flow, exact": Flow({"coupling": "exact"}),
    "flow, Sinkhorn": Flow({"coupling": SINKHORN}),
    "flow, unbalanced, 2 x travel": Flow({"coupling": UNBALANCED, "growth": True}),
    "bridge": Flow(bridge=True),
    "bridge, Sinkhorn": Flow({"coupling": Sinkhorn("path")}, bridge=True),
    "bridge, unbalanced, 2 x travel": Flow({"coupling": UNBALANCED, "growth": True}, bridge=True),
    "bridge, moscot-like": Flow({"coupling": MOSCOT, "growth": True}, bridge=True),
    "bridge, not regularized": Flow({"regularize": False}, bridge=True),
}
METHODS: dict[str, Method] = STATIC | CELLRANK | FLOWS
