"""Where cells end, and which groups are there: shares of groups among end points, and their intervals."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellflow.cells.states import States
from cellflow.estimators.portions import rows_of
from cellflow.integrate import Noisy, Solver, Trajectory
from cellflow.nearest import Nearest
from cellflow.seeds import draw_seed, generator
from cellflow.tl.fate_table import WITHOUT
from cellflow.tl.intervals import for_members, t_half_width

if TYPE_CHECKING:
    from cellflow.estimators import SnapshotFlow


def wilson(share: np.ndarray, n: int | np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Return Wilson's interval for shares among ``n`` draws, or an effective number of weighted draws.

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


def bounds(
    share: np.ndarray,
    effective: np.ndarray | None,
    members: np.ndarray | None,
    confidence: float,
    *,
    n_neighbors: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the intervals of shares ``(n, k)``; NaN if their errors are unknown.

    Parameters
    ----------
    share
        The shares.
    effective
        The effective number of simulations ``(n, 1)``; ``None`` without noise.
    members
        The shares by each member of an ensemble ``(m, n, k)``, from as many simulations; ``None`` without one. These
        vary by their simulations too, so that the wider of both intervals accounts for both.
    confidence
        Coverage of the interval.
    n_neighbors
        Measured cells that an end point is compared with. Without noise shares are multiples of one over it, and
        members that agree do so but for half of that.

    Examples
    --------
    >>> members = np.array([[0.4], [0.5], [0.6]])
    >>> [end.round(2) for end in bounds(np.array([0.5]), None, members, 0.9, n_neighbors=10)]
    [array([0.21]), array([0.79])]
    """
    if effective is None and members is None:
        return np.full_like(share, np.nan), np.full_like(share, np.nan)
    low, high = (share, share) if effective is None else wilson(share, effective, confidence)
    if members is not None:
        half = np.maximum(t_half_width(members, confidence=confidence), 0.5 / n_neighbors if effective is None else 0)
        low, high = np.minimum(low, share - half), np.maximum(high, share + half)
    return np.clip(low, 0, share), np.clip(high, share, 1)


class Votes:
    """The groups of the nearest measured cells."""

    def __init__(self, cells: np.ndarray, groups: pd.Series, n_neighbors: int) -> None:
        codes, names = pd.factorize(groups.fillna(WITHOUT), sort=True)
        self.groups = [str(name) for name in names]
        self._group, self._nearest = np.asarray(codes), Nearest(cells, n_neighbors)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the share of each group around states ``(n, d)``, ``(n, groups)``."""
        share, rows = np.zeros((len(x), len(self.groups))), np.arange(len(x))
        near = self._group[self._nearest.rows(x)]
        for group in near.T:
            share[rows, group] += 1
        return np.asarray(share / near.shape[1])


def ends_of(
    flow: "SnapshotFlow", cells: States, moment: float, solver: Solver, turns: int, seed: int
) -> Iterator[Trajectory]:
    """Carry all cells to a time, once for each repeat; with its own noise if the solver has any."""
    rng = generator(seed=seed)
    span: dict[str, Any] = {"start": cells.time, "stop": moment, "condition": cells.condition}
    for _ in range(turns):
        if isinstance(solver, Noisy):
            yield flow.simulate(cells.x, **span, solver=solver, seed=draw_seed(rng))
        else:
            yield flow.transport(cells.x, **span, solver=solver)


def count_ends(
    cells: States, moment: float, votes: Votes, ends: Iterator[Trajectory], bar: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean vote ``(n, groups)`` of the end points of each cell, their spread, mass and number.

    Spread and mass are ``(n,)``. The effective number of end points with weights is ``(sum w)^2 / sum w^2``, ``(n, 1)``
    (Kish 1965).
    """
    x = cells.x
    # Forward in time an end point stands for all descendants there. Backward each cell has one origin: growth weighs
    # populations, but cancels from the law of a line of descent.
    grows = np.where(cells.time < moment, 1.0, 0.0)
    share, total, squares = np.zeros((len(x), len(votes.groups))), np.zeros(x.shape), np.zeros(len(x))
    mass, mass_squared = np.zeros(len(x)), np.zeros(len(x))
    for turn, found in enumerate(ends):
        end, weight = found.x[-1].numpy(), np.ones(len(x))
        if found.log_weight is not None:
            weight = np.exp(grows * (found.log_weight[-1] - found.log_weight[0]).double().numpy())
        for some in rows_of(*x.shape):  # what is in work between is as large as a portion of them
            moved = end[some] - x[some]
            share[some] += weight[some, None] * votes(end[some])
            total[some] += weight[some, None] * moved
            squares[some] += weight[some] * np.square(moved).sum(axis=1)
        mass += weight
        mass_squared += weight**2
        bar(turn + 1, None)
    # Divided once, at the end: a share that is always 1 is exactly 1.
    total /= mass[:, None]
    share /= mass[:, None]
    for some in rows_of(*x.shape):
        squares[some] = squares[some] / mass[some] - np.square(total[some]).sum(axis=1)
    spread = np.sqrt(np.maximum(squares, 0))
    return share, spread, mass, (mass**2 / mass_squared)[:, None]


def member_shares(
    flow: "SnapshotFlow",
    cells: States,
    moment: float,
    votes: Votes,
    solver: Solver,
    turns: int,
    seed: int,
    bar: Any,
) -> np.ndarray | None:
    """Return the shares by each member of an ensemble ``(m, n, k)``, with noise of its own; ``None`` without one."""
    found = []
    for number, member in enumerate(flow.members):

        def moved(turn: int, _: None, done: int = number * turns) -> None:
            bar(done + turn, None)

        ends = ends_of(member, cells, moment, for_members(solver), turns, seed + number + 1)
        found.append(count_ends(cells, moment, votes, ends, moved)[0])
    return np.stack(found) if found else None
