"""Plans that were computed elsewhere, brought to the cells, the order and the model times of a fit."""

import logging
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from cellflow.cells.clock import one_time
from cellflow.cells.snapshots import Snapshots
from cellflow.couplings import Coupling, Given
from cellflow.couplings.pair_masses import PairMasses
from cellflow.estimators.chains import legs_of

if TYPE_CHECKING:
    from scipy.sparse import csr_array

log = logging.getLogger(__name__)

SHOWN = 3
"""Names of cells that a message lists."""
NOTED = 1e-3
"""Share of the mass that is left out before it is said."""


def placed(coupling: Coupling, snapshots: Snapshots, *, growing: bool) -> Coupling:
    """Return a coupling with its plans, if it has any, between the cells of snapshots, by their model times.

    Without conditions a plan is between the cells of two snapshots, in their order; with conditions its rows and
    columns are all cells.

    Parameters
    ----------
    coupling
        Any coupling.
    snapshots
        The cells.
    growing
        Whether growth is learned: then every cell with weight must have mass at both ends.

    Raises
    ------
    ValueError
        When a plan of two neighbouring snapshots is missing, is between other cells, or leaves cells without mass
        whose growth is to be learned.

    Examples
    --------
    >>> from cellflow.cells.snapshots import read_snapshots
    >>> import cellflow as cf
    >>> cells = cf.datasets.branching((20, 30), times=(0, 2))
    >>> found = placed(Given({(0, 2): np.ones((20, 30))}), read_snapshots(cells, time_key="time", rep="X_latent"),
    ...                growing=False)
    >>> found.between(0.0, 1.0)
    Given(20 x 30)
    """
    if not isinstance(coupling, Given) or coupling.by_row:
        return coupling
    if snapshots.rates is not None:
        raise ValueError("With given plans growth is the sum of their rows: leave out `prior_key`, which is not used.")
    by_time = _by_time(coupling, snapshots)
    _check_complete(by_time, snapshots)
    found = {}
    for (start, stop), plan in by_time.items():
        rows, columns = snapshots.at(start), snapshots.at(stop)
        masses = _between(plan, snapshots.names, rows, columns, f"The plan from time {start:g} to {stop:g}")
        _note_crossing(masses, snapshots.groups, rows, columns, (start, stop))
        if growing and snapshots.conditions is None:
            _check_all_grow(masses, snapshots, rows, columns, (start, stop))
        if snapshots.conditions is not None:
            masses = _among_all(masses, rows, columns, len(snapshots.x))
        found[snapshots.clock.model(start), snapshots.clock.model(stop)] = PairMasses(masses)
    return Given(found)


def _by_time(coupling: Given, snapshots: Snapshots) -> dict[tuple[float, float], PairMasses]:
    """Return the plans whose times are both among those of snapshots, by these."""
    known = np.array(snapshots.clock.times)
    found = {}
    for key, plan in coupling._known().items():
        asked = [one_time(time, what="the times of `Given`", like=snapshots.labels) for time in key]
        if asked[0] >= asked[1]:
            raise ValueError(f"Expected a plan from an earlier to a later time; found the key {key!r}.")
        near = [known[np.isclose(known, time, rtol=1e-9, atol=1e-9)] for time in asked]
        if all(len(some) for some in near):
            found[float(near[0][0]), float(near[1][0])] = plan
        else:
            log.info("The plan of %s is not used: there are no cells at one of its times.", key)
    return found


def _check_complete(plans: dict[tuple[float, float], PairMasses], snapshots: Snapshots) -> None:
    """Refuse plans that lack one of two snapshots that follow each other, in a condition where there are any."""
    times = snapshots.clock.times
    needed = list(pairwise(times))
    if snapshots.conditions is not None:
        needed = sorted({(leg.name[1], leg.name[2]) for leg in legs_of(snapshots)})
    lacking = [pair for pair in needed if pair not in plans]
    if lacking:
        shown, there = (", ".join(f"({a:g}, {b:g})" for a, b in some) for some in (lacking, plans))
        raise ValueError(
            f"No plan of the times {shown} in `Given`. There are: {there or 'none of the times of these cells'}. Give "
            "one for each pair of consecutive snapshots."
        )


def _between(
    plan: PairMasses, names: np.ndarray | None, rows: np.ndarray, columns: np.ndarray, what: str
) -> "csr_array":
    """Return the masses between the cells of two snapshots, in their order."""
    masses, order = plan.masses, []
    for axis, (listed, cells) in enumerate(((plan.source, rows), (plan.target, columns))):
        side = ("rows", "columns")[axis]
        if listed is None or names is None:
            if masses.shape[axis] != len(cells):
                raise ValueError(
                    f"{what} has {masses.shape[axis]} {side} without names, and there are {len(cells)} cells at that "
                    "time. Compute it for these cells, or give it with names of cells: a DataFrame or an AnnData."
                )
            order.append(np.arange(len(cells)))
            continue
        place = {name: k for k, name in enumerate(listed.tolist())}
        found = np.array([place.get(str(name), -1) for name in names[cells]])
        lacking = names[cells][found < 0]
        if len(lacking):
            raise ValueError(
                f"{what} lacks {len(lacking)} of {len(cells)} cells in its {side}, such as "
                f"{', '.join(map(str, lacking[:SHOWN]))}. Leave these cells out, or compute the plan with them."
            )
        order.append(found)
    kept = masses[order[0]][:, order[1]]
    lost = 1 - float(kept.sum() / masses.sum())
    if not kept.nnz:
        raise ValueError(f"{what} has no mass between the cells that are there.")
    if lost > NOTED:
        log.warning("%s names cells that are not there: %.1f %% of its mass is left out.", what, 100 * lost)
    return kept.tocsr()


def _check_all_grow(
    masses: "csr_array", snapshots: Snapshots, rows: np.ndarray, columns: np.ndarray, pair: tuple[float, float]
) -> None:
    """Refuse to learn the growth of cells that have no mass in a plan."""
    for axis, cells, time in ((1, rows, pair[0]), (0, columns, pair[1])):
        empty = np.asarray(masses.sum(axis=axis)).ravel() == 0
        if snapshots.weights is not None:
            empty &= snapshots.weights[cells] > 0
        if empty.any():
            raise ValueError(
                f"{int(empty.sum())} of {len(cells)} cells at time {time:g} have no mass in the plan from {pair[0]:g} "
                f"to {pair[1]:g}, so their growth is unknown. Leave these cells out, give them mass, or set "
                "`growth=False`: they are then not drawn."
            )


def _note_crossing(
    masses: "csr_array", groups: np.ndarray | None, rows: np.ndarray, columns: np.ndarray, pair: tuple[float, float]
) -> None:
    """Say in the log how much of a plan is between groups that may not be crossed."""
    if groups is None:
        return
    found: Any = masses.tocoo()
    crossing = float(found.data[groups[rows[found.row]] != groups[columns[found.col]]].sum() / found.data.sum())
    if crossing > NOTED:
        log.warning(
            "%.1f %% of the plan from time %g to %g is between groups of `within`, and is left out.",
            100 * crossing,
            *pair,
        )


def _among_all(masses: "csr_array", rows: np.ndarray, columns: np.ndarray, n: int) -> "csr_array":
    """Return masses between all ``n`` cells."""
    from scipy.sparse import coo_array, csr_array

    found: Any = masses.tocoo()
    return csr_array(coo_array((found.data, (rows[found.row], columns[found.col])), shape=(n, n)))
