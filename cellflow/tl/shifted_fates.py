"""Fates of cells after shifts of their states, many shifts in one run of the flow."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cellflow.cells.states import States
from cellflow.integrate import Noisy, Solver
from cellflow.tl.fate_ends import Votes, count_ends, ends_of

if TYPE_CHECKING:
    from cellflow.estimators import SnapshotFlow

AT_ONCE = 5000
"""Cells that are carried together, about."""


def chunks(n_shifts: int, n_cells: int) -> Iterator[slice]:
    """Yield which shifts are made together.

    Examples
    --------
    >>> list(chunks(5, 2000))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    step = max(1, AT_ONCE // n_cells)
    for start in range(0, n_shifts, step):
        yield slice(start, min(start + step, n_shifts))


def of_shifts(
    flow: "SnapshotFlow",
    cells: States,
    shifts: Sequence[np.ndarray | float],
    moment: float,
    votes: Votes,
    solver: Solver,
    turns: int,
    seed: int,
) -> np.ndarray:
    """Return the shares of groups where cells end after each shift, ``(shifts, n, groups)``.

    Where the solver has noise, cells are carried one shift after the other, so that all have the same noise.
    """
    if isinstance(solver, Noisy) and len(shifts) > 1:
        each = [of_shifts(flow, cells, [shift], moment, votes, solver, turns, seed) for shift in shifts]
        return np.concatenate(each)
    n = len(cells)
    every = cells.take(np.tile(np.arange(n), len(shifts)))
    x = np.concatenate([(cells.x + shift).astype(np.float32) for shift in shifts])
    moved = States(x, every.time, every.rows, every.condition, every.weight)
    found = count_ends(moved, moment, votes, ends_of(flow, moved, moment, solver, turns, seed), lambda *_: None)[0]
    return np.asarray(found.reshape(len(shifts), n, -1))
