"""Which cells follow which, for each condition: its own snapshots, and before the first of them untreated cells."""

import logging
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch

from cellflow.cells.condition_rows import ConditionTable
from cellflow.cells.snapshots import Snapshots
from cellflow.cells.states import States
from cellflow.pairing.condition_legs import ConditionLeg

log = logging.getLogger(__name__)

SHOWN = 5
"""Names that a message lists."""


def legs_of(snapshots: Snapshots) -> list[ConditionLeg]:
    """Return the legs of every condition, and of every group within it, in order of conditions, groups and times.

    Each leads from a snapshot of the condition to its next one. A treatment that begins later than the first snapshot
    is reached from the untreated cells of the closest earlier time, with the same group and categories. A condition
    with a single snapshot that nothing leads to has no leg.

    Parameters
    ----------
    snapshots
        The cells, with their conditions; their groups are those of ``within``.

    Raises
    ------
    ValueError
        When no untreated cells lead to a treatment, or nothing leads anywhere.

    Examples
    --------
    >>> import pandas as pd, cellflow as cf
    >>> from cellflow.cells.clock import Clock
    >>> table = cf.Conditions("drug").fit(obs := pd.DataFrame({"drug": ["control"] * 4 + ["A"] * 4})).read(obs)
    >>> time = np.array([0.0, 0.0, 3.0, 3.0, 3.0, 3.0, 7.0, 7.0])
    >>> cells = Snapshots(np.zeros((8, 1), "float32"), time, Clock((0.0, 3.0, 7.0)), conditions=table)
    >>> [leg.name for leg in legs_of(cells)]
    [('control', 0.0, 3.0), ('A', 0.0, 3.0), ('A', 3.0, 7.0)]
    """
    table = cast("ConditionTable", snapshots.conditions)
    groups = np.full(len(snapshots.time), "") if snapshots.groups is None else snapshots.groups
    places: dict[tuple[int, str], dict[float, np.ndarray]] = {}
    for condition in range(len(table)):
        mine = table.rows(condition)
        for group in sorted(set(groups[mine].tolist())):
            rows = mine[groups[mine] == group]
            times = snapshots.time[rows]
            places[condition, group] = {float(t): rows[times == t] for t in np.unique(times)}
    legs, unled, alone = [], [], []
    for (condition, group), known in places.items():
        first, label = min(known), table.labels[condition]
        chain = dict(known)
        if first > snapshots.clock.times[0] and not table.is_control[condition]:
            before = _untreated(places, table, condition, group, first)
            if before is None:
                unled.append(f"{label}{f' in {group}' if group else ''} (from {first:g})")
                continue
            chain = {before[0]: before[1]} | chain
        if len(chain) == 1:
            alone.append(f"{label}{f' in {group}' if group else ''} (at {first:g})")
        for start, stop in pairwise(sorted(chain)):
            name = (label, start, stop, group) if group else (label, start, stop)
            source, target = (torch.from_numpy(chain[time]) for time in (start, stop))
            begin, end = (snapshots.clock.model(time) for time in (start, stop))
            legs.append(ConditionLeg(name, source, target, begin, end, condition))
    if unled:
        raise ValueError(
            f"No untreated cells lead to {_listed(unled)}: a treatment that begins later than the first snapshot needs "
            "controls at an earlier time, in the same group of `within` and with the same categories. Add these, name "
            "the control in `Conditions(control=...)`, or leave these cells out."
        )
    if not legs:
        raise ValueError(f"Each condition has cells at one time only: {_listed(alone)}. A flow needs two or more.")
    if alone:
        log.warning(
            "no motion is learned for conditions with one snapshot; theirs is extrapolated from others: %s",
            _listed(alone),
        )
    return legs


def chain_of(states: States, condition: np.ndarray, effect: slice) -> States:
    """Return the cells that lead to a condition and those that have it, set to it: see `legs_of`, without groups.

    Parameters
    ----------
    states
        Cells, each with its own condition.
    condition
        The requested condition, a row for each cell ``(n, width)``: categories may be the cell's own.
    effect
        Which part of it belongs to the treatments.

    Returns
    -------
    States
        Cells of the condition at their times. For a treatment, also the untreated cells of the closest time before the
        first of these; or, if the treatment was never measured, of the first time with untreated cells.

    Examples
    --------
    >>> seen = np.array([[0.0], [0.0], [1.0]], "float32")
    >>> states = States(np.zeros((3, 2), "float32"), np.array([0.0, 5.0, 5.0]), np.arange(3), seen)
    >>> chain_of(states, np.ones((3, 1), "float32"), slice(0, 1)).rows
    array([0, 2])
    """
    own = np.asarray(states.condition)
    mine = (own == condition).all(axis=1)
    rest = np.ones(own.shape[1], dtype=bool)
    rest[effect] = False
    untreated = (own[:, effect] == 0).all(axis=1) & (own[:, rest] == condition[:, rest]).all(axis=1)
    chosen = mine.copy()
    if not mine.all() and (condition[:, effect] != 0).any() and (untreated & ~mine).any():
        first = states.time[mine].min() if mine.any() else np.inf
        earlier = states.time[untreated & (states.time < first)]
        if len(earlier):
            chosen |= untreated & (states.time == (earlier.max() if mine.any() else earlier.min()))
    return under(states, condition).take(np.flatnonzero(chosen))


def under(states: States, condition: np.ndarray | None) -> States:
    """Return the same cells under a condition, ``(n, width)``."""
    return States(states.x, states.time, states.rows, condition, states.weight)


def among(states: States, asked: States, *, at: float, effect: slice) -> States:
    """Return the cells at a time with which to compare others: of the same conditions, or leading to these.

    Parameters
    ----------
    states
        Cells, each with its own condition.
    asked
        Those others, with the conditions under which they are carried.
    at
        The time.
    effect
        Which part of a condition belongs to the treatments.

    Returns
    -------
    States
        Cells of these conditions. For a condition without any at this time, the untreated ones with which its chain
        begins, see `chain_of`, if they are from this time.

    Examples
    --------
    >>> seen = np.array([[0.0], [0.0], [1.0]], "float32")
    >>> states = States(np.zeros((3, 2), "float32"), np.array([0.0, 5.0, 5.0]), np.arange(3), seen)
    >>> among(states, states.take(np.array([2])), at=0.0, effect=slice(0, 1)).rows
    array([0])
    """
    there = states.at(at)
    if there.condition is None or asked.condition is None:
        return there
    own = [row.tobytes() for row in np.ascontiguousarray(there.condition)]
    wanted = {row.tobytes(): row for row in np.unique(asked.condition, axis=0)}
    chosen = np.array([row in wanted for row in own], dtype=bool)
    for row in wanted.keys() - set(own):
        chain = chain_of(states, np.tile(wanted[row], (len(states), 1)), effect)
        chosen |= np.isin(there.rows, chain.rows)
    return there.take(np.flatnonzero(chosen))


def _untreated(
    places: dict[tuple[int, str], dict[float, np.ndarray]],
    table: ConditionTable,
    condition: int,
    group: str,
    first: float,
) -> tuple[float, np.ndarray] | None:
    """Return the closest time before one at which there are controls of a condition, and which cells these are."""
    found: dict[float, np.ndarray] = {}
    for control in np.flatnonzero(table.is_control & (table.context == table.context[condition])):
        found |= {time: rows for time, rows in places.get((int(control), group), {}).items() if time < first}
    return (max(found), found[max(found)]) if found else None


def _listed(names: list[Any]) -> str:
    return ", ".join(map(str, names[:SHOWN])) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
