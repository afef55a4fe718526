"""All methods, by name.

This is the joint of the benchmark: whatever is called with the cells that it may see, the questions and a ``seed``, and
returns a `Predicted` for each question (``None`` where it has no answer), takes part: add a line to `METHODS`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

import cellflow as cf
from benchmarks.perturbation.baselines import BASELINES, Answer, Method
from benchmarks.perturbation.folds import REP, Ask
from benchmarks.perturbation.others import OTHERS
from benchmarks.perturbation.scores import Predicted
from benchmarks.perturbation.sets import CONTROL


@dataclass(frozen=True)
class Translated:
    """A `cellflow.DomainTranslator` from untreated to treated cells, paired within contexts: one for each condition."""

    settings: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, seen: AnnData, asks: Sequence[Ask], *, seed: int) -> list[Answer]:
        found: list[Answer] = []
        for ask in asks:
            source, target = self._domains(seen, ask)
            if not target.n_obs:
                found.append(None)
                continue
            model = self._made(paired="context" in seen.obs, seed=seed).fit(source, target)
            found.append(Predicted(np.asarray(model.translate(ask.start).obsm[REP])))
        return found

    def _domains(self, seen: AnnData, ask: Ask) -> tuple[AnnData, AnnData]:
        """Return untreated and treated cells of the contexts that have both."""
        obs = seen.obs
        source, target = obs["treatment"] == CONTROL, obs["treatment"] == ask.treatment
        for name in ("dose", "time"):
            if name in obs:
                target &= obs[name] == getattr(ask, name)
        if "time" in obs:
            source &= obs["time"] == obs["time"].min()
        if "context" in obs:
            both = set(obs.loc[source, "context"]) & set(obs.loc[target, "context"])
            source, target = source & obs["context"].isin(both), target & obs["context"].isin(both)
        return seen[source.to_numpy()].copy(), seen[target.to_numpy()].copy()

    def _made(self, *, paired: bool, seed: int) -> cf.DomainTranslator:
        return cf.DomainTranslator(rep=REP, within_labels="context" if paired else False, seed=seed, **self.settings)

    def __repr__(self) -> str:
        """Name every setting, so that other defaults are other rows."""
        return repr(sorted(self._made(paired=False, seed=0).get_params().items()))


@dataclass(frozen=True)
class Flow:
    """A `cellflow.PerturbationFlow`, over time a `cellflow.SnapshotFlow`, with all that the set tells of its cells."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    timed: bool = False
    noisy: bool = False  # of the suggested size

    def __call__(self, seen: AnnData, asks: Sequence[Ask], *, seed: int) -> list[Answer]:
        if self.timed != ("time" in seen.obs):
            return [None] * len(asks)
        flow: Any = self._made(seen.obs, seed)
        if self.noisy:
            flow.set_params(path=cf.paths.BrownianBridge(flow.suggest_sigma(seen)), stochastic=True)
        flow.fit(seen)
        found: list[Answer] = []
        for ask in asks:
            x = np.asarray(ask.start.obsm[REP], dtype=np.float32)
            asked = {"treatment": ask.treatment} | ({} if ask.dose is None else {"dose": ask.dose})
            # Times beyond the last one that was seen are asked for too, and reported as such.
            way: dict[str, Any] = {}
            if ask.time is not None:
                way = {"start": float(ask.start.obs["time"].iloc[0]), "stop": ask.time, "extrapolate": True}
            move = partial(flow.simulate, seed=seed) if self.noisy else flow.transport
            moved = move(x, condition=asked, **way)
            weight = None if moved.log_weight is None else moved.log_weight[-1].double().exp().numpy()
            found.append(Predicted(moved.x[-1].numpy(), weight=weight))
        return found

    def _made(self, obs: pd.DataFrame, seed: int) -> Any:
        dosed = "dose" in obs and obs.loc[obs["treatment"] != CONTROL, "dose"].notna().all()
        conditions = cf.Conditions(treatment="treatment", dose="dose" if dosed else None, control=CONTROL)
        given: dict[str, Any] = {
            "conditions": conditions,
            "within": "context" if "context" in obs else None,
            "rep": REP,
            "seed": seed,
        }
        if self.timed:
            return cf.SnapshotFlow(time_key="time", **given, **self.settings)
        return cf.PerturbationFlow(**given, **self.settings)

    def __repr__(self) -> str:
        """Name every setting, so that other defaults are other rows."""
        obs = pd.DataFrame({"treatment": [CONTROL]})
        return repr([*sorted(self._made(obs, 0).get_params().items()), self.timed, self.noisy])


FLOWS: dict[str, Method] = {
    "DomainTranslator, 1500 steps": Translated({"steps": 1500}),
    "DomainTranslator, not regularized": Translated({"steps": 1500, "regularize": False}),
    "PerturbationFlow": Flow(),
    "SnapshotFlow": Flow(timed=True),
    "SnapshotFlow, with noise": Flow({"steps": 1000}, timed=True, noisy=True),
}
METHODS: dict[str, Method] = BASELINES | FLOWS | OTHERS
