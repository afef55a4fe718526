"""Terminal states: where carried cells settle in a snapshot, found without labels; backward, initial states."""

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellflow.cells.states import States
from cellflow.integrate import Solver
from cellflow.metrics import thinned
from cellflow.nearest import Nearest
from cellflow.seeds import generator, numpy_generator
from cellflow.tl.fate_ends import ends_of
from cellflow.tl.fate_table import column
from cellflow.tl.keys import STATE
from cellflow.tl.settling import LANDMARKS, SMALLEST, Settled, by_size, settle

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow

log = logging.getLogger(__name__)

AUTO = "auto"
"""The setting with which terminal states are found."""
CARRIED = 4 * LANDMARKS
"""Maximum number of cells that are carried to find them."""
RESTLESS = 1.0
"""Speed at the end, as a share of that of all cells on their way, from which a state is said to be moving still."""
SURE = 0.75
"""Stability below which it is said that halves do not always agree."""
TERMINAL = "terminal"


@dataclass(frozen=True, eq=False)
class TerminalStates:
    """States that were found in a snapshot.

    Parameters
    ----------
    names
        Their names ``(k,)``; the one with the most mass first.
    membership
        How much the measured cells of the snapshot belong to each ``(m, k)``; rows sum to 1.
    mass
        Share of the carried mass that ends in each ``(k,)``, by the measured cells around its end points.
    stability
        How far resampled halves of the end points agree on each ``(k,)``: 1 if they all do.
    speed
        Mean speed of the end points of each, as a share of the mean speed of all cells on their way ``(k,)``.
    """

    names: tuple[str, ...]
    membership: np.ndarray
    mass: np.ndarray
    stability: np.ndarray
    speed: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """The name of the state of each measured cell of the snapshot ``(m,)``."""
        return np.asarray(np.array(self.names, dtype=object)[self.membership.argmax(axis=1)])

    def note(self) -> dict[str, Any]:
        """Return what is kept of them in ``uns``: a table of the states."""
        columns = {"state": list(self.names), "mass": self.mass, "stability": self.stability, "speed": self.speed}
        return {"states": pd.DataFrame(columns, index=[str(k) for k in range(len(self.names))])}


def terminal_states(
    flow: "SnapshotFlow",
    carried: States,
    there: States,
    moment: float,
    solver: Solver,
    n_neighbors: int,
    *,
    labels: pd.Series | None,
    seed: int,
) -> TerminalStates:
    """Find the states of a snapshot in which carried cells settle.

    Parameters
    ----------
    flow
        A fitted flow.
    carried
        Cells at other times, all before the snapshot, or all after it: then the states are initial ones.
    there
        The measured cells of the snapshot.
    moment
        Its time, in the user's units.
    solver
        How cells are carried: once each, with noise if it has any.
    n_neighbors
        Number of measured cells that give the state of an end point.
    labels
        Labels of all cells, from which states are named; ``None`` for numbers.
    seed
        Seed of the noise and of the resampling.
    """
    rng, backward = generator(seed=seed), bool((carried.time > moment).all())
    some, _ = thinned(np.arange(len(carried)), carried.weight, CARRIED, generator=rng)
    chosen = carried.take(np.sort(some.numpy()))
    found = next(ends_of(flow, chosen, moment, solver, 1, seed))
    ends, weight = found.x[-1].numpy(), np.ones(len(chosen))
    if found.log_weight is not None and not backward:
        weight = np.exp((found.log_weight[-1] - found.log_weight[0]).double().numpy())
    kept, _ = thinned(np.arange(len(ends)), weight, LANDMARKS, generator=rng)
    rows = np.sort(kept.numpy())
    settled = settle(ends[rows].astype(np.float64), numpy_generator(seed))
    settled, mass = _in_cells(settled, there.x, n_neighbors)
    membership = settled.membership(there.x)
    word = "initial" if backward else TERMINAL
    named = None if labels is None else labels.iloc[there.rows].to_numpy()
    names = _names(word, membership.argmax(axis=1), settled.n_states, named)
    speed = _speed(flow, chosen.take(rows), ends[rows], moment)
    speeds = np.array([speed[settled.state == k].mean() for k in range(settled.n_states)])
    states = TerminalStates(names, membership, mass, settled.stability, speeds)
    _say(states, word, moment)
    return states


def write_states(adata: "AnnData", key: str, rows: np.ndarray, found: TerminalStates) -> None:
    """Write the state of each measured cell of the snapshot, how much it belongs to it, and the table of states."""
    states = np.full(adata.n_obs, None, dtype=object)
    states[rows] = found.labels
    adata.obs[f"{key}_{STATE}"] = pd.Categorical(states, categories=list(found.names))
    adata.obs[f"{key}_membership"] = column(adata, rows, found.membership.max(axis=1))
    adata.uns[key] |= found.note()


def _in_cells(settled: Settled, cells: np.ndarray, n_neighbors: int) -> tuple[Settled, np.ndarray]:
    """Return the states that measured cells tell apart, and their mass ``(k,)``, the largest first.

    End points are between cells: a state at the edge of a snapshot may have a few of these, around which as many of
    another state stand. What fates give it is its mass, and states with too little are joined to where that goes.
    """
    near = Nearest(cells, n_neighbors).rows(settled.landmarks)
    while True:
        state, n = settled.state, settled.n_states
        share = np.eye(n)[settled.membership(cells).argmax(axis=1)][near].mean(axis=1)
        mass = share.mean(axis=0)
        least = int(mass.argmin())
        if n == 1 or mass[least] >= SMALLEST:
            order = np.argsort(-mass, kind="stable")
            return replace(settled, state=order.argsort()[state]), mass[order]
        toward = share[state == least].mean(axis=0)
        toward[least] = -1
        settled = replace(settled, state=by_size(np.where(state == least, toward.argmax(), state)))


def _names(word: str, state: np.ndarray, n: int, labels: np.ndarray | None) -> tuple[str, ...]:
    """Name states by the commonest label of their cells, with numbers where several have the same, or by numbers."""
    found = [f"{word} {k + 1}" for k in range(n)]
    if labels is None:
        return tuple(found)
    for k in range(n):
        known = pd.Series(labels[state == k]).dropna()
        found[k] = str(known.mode().iloc[0]) if len(known) else found[k]
    return tuple(
        f"{name} {found[: k + 1].count(name)}" if found.count(name) > 1 else name for k, name in enumerate(found)
    )


def _speed(flow: "SnapshotFlow", cells: States, ends: np.ndarray, moment: float) -> np.ndarray:
    """Return the speed of end points, as a share of the mean speed of the cells where they were measured."""
    before = np.linalg.norm(flow.velocity(cells.x, cells.time, condition=cells.condition), axis=1).mean()
    after = np.linalg.norm(flow.velocity(ends, moment, condition=cells.condition), axis=1)
    return np.asarray(after / before if before > 0 else np.zeros_like(after))


def _say(states: TerminalStates, word: str, moment: float) -> None:
    """Say what was found, and where it cannot be told."""
    each = [*zip(states.names, states.mass, states.stability, states.speed, strict=True)]
    told = (
        f"{name!r}: {mass:.0%} of the mass, stability {sure:.2f}, speed {fast:.2f}" for name, mass, sure, fast in each
    )
    n = len(each)
    log.info("%d %s state%s at time %g: %s.", n, word, "s" if n > 1 else "", moment, "; ".join(told))
    if n == 1:
        log.warning(
            "All cells settle in one %s state at time %g, as far as these cells tell: every fate is 1. Give `groupby` "
            "without `terminal` for fates toward groups without a valley of density between them.", word, moment,
        )  # fmt: skip
    if shaky := [name for name, _, sure, _ in each if sure < SURE]:
        log.warning(
            "Resampled halves of the cells do not always agree on %s: stability below %g.",
            ", ".join(map(repr, shaky)), SURE,
        )  # fmt: skip
    if word == TERMINAL and (moving := [name for name, *_, fast in each if fast > RESTLESS]):
        log.warning(
            "Cells move faster in %s at time %g than all did on average: they may go on to other states after this "
            "snapshot, which nothing here can tell.", ", ".join(map(repr, moving)), moment,
        )  # fmt: skip
