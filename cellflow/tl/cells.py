"""Shared by all tools: the solver, the AnnData to write into, and the time column and unit of every result."""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cellflow.cells.absent import absent_groups
from cellflow.cells.snapshots import time_unit
from cellflow.cells.states import States
from cellflow.estimators.chains import under
from cellflow.estimators.conditional import Condition, of_cells
from cellflow.estimators.snapshot_verbs import check_weighs
from cellflow.integrate import Adaptive, Fixed, Jumps, Solver, resolve

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow

log = logging.getLogger(__name__)


def about(adata: "AnnData", flow: "SnapshotFlow") -> dict[str, Any]:
    """Return what is stored with every result: the representation, the time column, and the unit of time.

    With them goes the number of columns of the representation, where the flow uses the first ones only.
    """
    found = {"rep": flow.rep, "time_key": flow.time_key, "unit": time_unit(adata, flow.time_key)}
    return found | ({} if flow.n_pcs is None else {"n_pcs": flow.n_features_in_})


def about_states(adata: "AnnData", flow: "SnapshotFlow") -> dict[str, Any]:
    """Return what is stored with states and velocities: also the fingerprint of their representation."""
    known = getattr(flow, "fingerprint_", None)
    return about(adata, flow) | ({} if known is None else {"fingerprint": known.note()})


def target(adata: "AnnData", *, copy: bool) -> "AnnData":
    """Return the AnnData to write into: the one given, or a copy.

    Raises
    ------
    ValueError
        When a backed file would have to be copied.
    """
    if adata.isbacked and (copy or adata.is_view):
        raise ValueError("A file, or a view of one, cannot be copied in place. Take `adata.to_memory()` first.")
    return adata.copy() if copy else adata


def check_key(key_added: str) -> None:
    """Refuse a name for a result that cannot be stored in a file.

    Raises
    ------
    ValueError
        When it contains "/", at which files split names.

    Examples
    --------
    >>> check_key("run/1")
    Traceback (most recent call last):
    ValueError: Expected `key_added` without '/', at which files split names; found 'run/1'. Take 'run_1'.
    """
    if "/" in key_added:
        raise ValueError(
            f"Expected `key_added` without '/', at which files split names; found {key_added!r}. Take "
            f"{key_added.replace('/', '_')!r}."
        )


def asked_under(adata: "AnnData", flow: "SnapshotFlow", chosen: States, condition: Condition | None) -> States:
    """Return the chosen cells under a given condition, or each under its own.

    Raises
    ------
    ValueError
        When a flow without conditions is given one.
    """
    return chosen if condition is None else under(chosen, of_cells(flow, adata, chosen.rows, condition))


def note_absent(labels: "pd.Series", time: np.ndarray, times: Sequence[float], weight: np.ndarray | None) -> None:
    """Log a warning for groups of cells that one fitted snapshot has and its neighbour lacks."""
    for said in absent_groups(labels, time, times, weight=weight):
        log.warning(said)


def note_no_members(flow: "SnapshotFlow", verb: str) -> None:
    """Log that new fits are made without the flow's ensemble, if it has one."""
    if flow.ensemble is not None:
        log.warning(
            "%s fits without an ensemble: scores are those of the flow itself, and %d members would take several "
            "times as long.",
            verb,
            flow.ensemble,
        )


def solver_of(
    flow: "SnapshotFlow", solver: Solver | str | int, *, verb: str, old: Mapping[str, Any], weighs: bool = True
) -> Fixed | Adaptive | Jumps:
    """Return the solver that carries cells without noise.

    Raises
    ------
    TypeError
        For a solver with noise, or something that is not a solver.
    ValueError
        For jumps of a flow with growth, whose map was distilled before maps had growth too.
    """
    chosen = resolve(solver, default=Fixed(), verb=verb, noisy="SnapshotFlow.simulate", old=old)
    if isinstance(chosen, Jumps) and weighs and hasattr(flow, "growth_"):
        check_weighs(flow)
    found: Fixed | Adaptive | Jumps = chosen
    return found
