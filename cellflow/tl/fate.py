"""Fates of cells: the probability of each group among their simulated end points, with intervals."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cellflow.cells.clock import TimeLike, one_time
from cellflow.cells.states import Cells, States, positions
from cellflow.integrate import Noisy, resolve
from cellflow.seeds import draw_seed, generator
from cellflow.tl.cells import about, target
from cellflow.tl.descendants import NEIGHBORS, snapshot_at

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow


def fate(
    adata: "AnnData",
    flow: "SnapshotFlow",
    *,
    groupby: str,
    at: TimeLike | None = None,
    cells: Cells | None = None,
    n_samples: int = 100,
    solver: Noisy | str | int = Noisy(),
    n_neighbors: int = NEIGHBORS,
    confidence: float = 0.95,
    seed: int = 0,
    key_added: str = "fate",
    copy: bool = False,
) -> "AnnData | None":
    """Simulate each cell many times, and count in which group it ends.

    An end point is assigned to the groups of its nearest measured cells. With a flow that has learned growth it is
    weighted by the descendants of the simulated cell there: the probability is that of a descendant. The interval
    accounts for the number of simulations only, not for errors of the model.

    Parameters
    ----------
    adata
        Cells with the time and the representation that the flow was fitted on.
    flow
        A flow that was fitted with a score.
    groupby
        Column of ``obs`` with the groups; cells without one count as ``"none"``.
    at
        Time of a snapshot in ``adata``; ``None`` for the last fitted one. Times before the cells' own give their
        origins.
    cells
        The cells: a mask or names; ``None`` for all cells at other times within the fitted range.
    n_samples
        Simulations of each cell.
    solver
        As for `SnapshotFlow.simulate`.
    n_neighbors
        Measured cells that an end point is compared with.
    confidence
        Coverage of the interval.
    seed
        Seed of the noise.
    key_added
        Name of what is written.
    copy
        Whether to return a copy instead of writing into ``adata``.

    Writes
    ------
    ``obsm[key_added]``, ``obsm[f"{key_added}_low"]``, ``obsm[f"{key_added}_high"]``
        Tables of cells by groups: probability, and the ends of its interval; missing for all other cells.
    ``obs[f"{key_added}_spread"]``
        Root mean squared distance of a cell's end points from their mean, in units of the representation.
    ``uns[key_added]``
        ``"at"``, ``"groupby"``, ``"n_samples"``, ``"confidence"``, ``"rep"``, ``"time_key"`` and ``"unit"`` of time.

    Raises
    ------
    TypeError
        When the flow was fitted without a score, or for a solver without noise.

    Source
    ------
    Wilson 1927 for the interval; Kish 1965 for the effective number of weighted simulations.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> path = cf.paths.BrownianBridge(0.5)
    >>> flow = cf.SnapshotFlow(rep="X_latent", path=path, stochastic=True, steps=20).fit(adata)
    >>> first = adata.obs["time"] == 0
    >>> cf.tl.fate(adata, flow, groupby="fate", cells=first, n_samples=5)
    >>> adata.obsm["fate"][first.to_numpy()].sum(axis=1).round(6).unique()
    array([1.])
    """
    chosen = resolve(solver, default=Noisy(), verb="tl.fate", smooth="tl.push")
    states = flow.read(adata)
    if groupby not in adata.obs:
        raise KeyError(f"No `adata.obs[{groupby!r}]`. Available: {list(adata.obs.columns)}.")
    if n_samples < 2 or not 0 < confidence < 1:
        raise ValueError(f"Expected n_samples >= 2 and 0 < confidence < 1; found {n_samples} and {confidence}.")
    moment = flow.clock_.times[-1] if at is None else one_time(at, what="`at`")
    there = snapshot_at(states, moment, n_neighbors)
    asked = _all_but(flow, states, moment) if cells is None else states.take(positions(adata, cells))
    votes = _Votes(there.x, adata.obs[groupby].iloc[there.rows], n_neighbors)
    share, spread, effective = _simulate(flow, asked, moment, votes, n_samples, chosen, seed)
    low, high = wilson(share, effective, confidence)
    written = target(adata, copy=copy)
    for name, values in ((key_added, share), (f"{key_added}_low", low), (f"{key_added}_high", high)):
        written.obsm[name] = _table(adata, asked.rows, values, votes.groups)
    written.obs[f"{key_added}_spread"] = _column(adata, asked.rows, spread)
    written.uns[key_added] = {
        "at": moment,
        "groupby": groupby,
        "n_samples": n_samples,
        "confidence": confidence,
        **about(adata, flow),
    }
    return written if copy else None


def wilson(share: np.ndarray, n: int | np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of Wilson's interval for shares among ``n`` draws, or an effective number of weighted ones.

    Examples
    --------
    >>> low, high = wilson(np.array([0.5]), 100, 0.95)
    >>> low.round(3), high.round(3)
    (array([0.404]), array([0.596]))
    """
    from scipy.stats import norm

    z = norm.ppf((1 + confidence) / 2)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    # At shares of 0 and 1 the ends meet the share: rounding must not put them on its wrong side.
    return np.clip(centre - half, 0, share), np.clip(centre + half, share, 1)


class _Votes:
    """The groups of the nearest measured cells."""

    def __init__(self, cells: np.ndarray, groups: pd.Series, n_neighbors: int) -> None:
        from sklearn.neighbors import NearestNeighbors

        labels = groups.astype(object).where(groups.notna(), "none").astype(str)
        codes, names = pd.factorize(labels, sort=True)
        self.groups = [str(name) for name in names]
        self._member = np.eye(len(names))[codes]
        self._nearest = NearestNeighbors(n_neighbors=n_neighbors).fit(cells)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the share of each group around states ``(n, d)``, ``(n, groups)``."""
        return np.asarray(self._member[self._nearest.kneighbors(x, return_distance=False)].mean(axis=1))


def _simulate(
    flow: "SnapshotFlow", cells: States, moment: float, votes: _Votes, n_samples: int, solver: Noisy, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean vote ``(n, groups)`` of the end points of each cell, their spread ``(n,)``, and their number.

    The effective number of end points with weights is ``(sum w)^2 / sum w^2``, ``(n, 1)`` (Kish 1965).
    """
    x, rng = cells.x, generator(seed=seed)
    # Forward in time an end point stands for all descendants there. Backward each cell has one origin: growth weighs
    # populations, but cancels from the law of a line of descent.
    grows = np.where(cells.time < moment, 1.0, 0.0)
    share, total, squares = np.zeros((len(x), len(votes.groups))), np.zeros(x.shape), np.zeros(len(x))
    mass, mass_squared = np.zeros(len(x)), np.zeros(len(x))
    for _ in range(n_samples):
        found = flow.simulate(x, start=cells.time, stop=moment, solver=solver, seed=draw_seed(rng))
        end, weight = found.x[-1].numpy(), np.ones(len(x))
        if found.log_weight is not None:
            weight = np.exp(grows * (found.log_weight[-1] - found.log_weight[0]).double().numpy())
        share += weight[:, None] * votes(end)
        total += weight[:, None] * (end - x)
        squares += weight * np.square(end - x).sum(axis=1)
        mass += weight
        mass_squared += weight**2
    # Divided once, at the end: a share that is always 1 is exactly 1.
    mean = total / mass[:, None]
    spread = np.sqrt(np.maximum(squares / mass - np.square(mean).sum(axis=1), 0))
    return share / mass[:, None], spread, (mass**2 / mass_squared)[:, None]


def _all_but(flow: "SnapshotFlow", cells: States, moment: float) -> States:
    """Return the cells at other times that the flow covers."""
    time, first, last = cells.time, flow.clock_.times[0], flow.clock_.times[-1]
    others = cells.take((time != moment) & (time >= first) & (time <= last))
    if not len(others):
        raise ValueError(f"All cells are at time {moment:g}; there is none to simulate. Choose another `at`.")
    return others


def _table(adata: "AnnData", rows: np.ndarray, values: np.ndarray, groups: list[str]) -> pd.DataFrame:
    table = np.full((adata.n_obs, len(groups)), np.nan)
    table[rows] = values
    return pd.DataFrame(table, index=adata.obs_names, columns=groups)


def _column(adata: "AnnData", rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    column = np.full(adata.n_obs, np.nan)
    column[rows] = values
    return column
