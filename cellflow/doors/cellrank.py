"""To CellRank: a kernel of velocities, and a kernel of real time."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from cellflow.doors import plans as plans_between
from cellflow.doors.handed_over import BASIS, FEWEST, HandedOver, hand_over, lowered
from cellflow.errors import optional, unknown
from cellflow.estimators.conditional import Condition
from cellflow.signature import checked_but

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.doors.plans import Leading
    from cellflow.estimators import SnapshotFlow

log = logging.getLogger(__name__)

INSTALL = "pip install 'cellflow-torch[cellrank]'"
TIME = "real_time"
"""Column with the times as the categories that a `RealTimeKernel` wants."""
PLANS = ("auto", "coupling", "flow")


class CellRankKernels(NamedTuple):
    """What `to_cellrank` returns.

    Parameters
    ----------
    velocity
        ``cellrank.kernels.VelocityKernel``, with its transition matrix.
    real_time
        ``cellrank.kernels.RealTimeKernel``, with its transition matrix.
    adata
        The cells of both: with ``obsm["X_flow"]``, ``obsm["velocity_flow"]`` and a graph of neighbours.
    plans
        Source of the plans of the real-time kernel: ``"coupling"`` or ``"flow"``.
    dropped
        For each pair of times the share of the plan that was dropped.
    """

    velocity: Any
    real_time: Any
    adata: "AnnData"
    plans: str
    dropped: Mapping[tuple[float, float], float]


@checked_but("condition")
def to_cellrank(
    adata: "AnnData",
    flow: "SnapshotFlow",
    *,
    condition: Condition | None = None,
    plans: str = "auto",
    keep: float = 0.99,
    n_neighbors: int = 30,
    conn_weight: float = 0.2,
    n_samples: int = 20,
    seed: int = 0,
) -> CellRankKernels:
    """Hand a flow to CellRank, as a kernel of its velocities and a kernel of its plans.

    The velocity kernel compares the velocity of each cell with the direction to its neighbours, in the representation
    of the flow; neighbours come from all times, and if snapshots are far apart it does not lead from one to the next:
    combine it with the other. The real-time kernel leads from each snapshot to the next and, inside a snapshot, to
    neighbours. All matrices are sparse. Both take their cells from a new AnnData: ``adata`` is not changed, and
    CellRank's results are in ``kernels.adata``.

    Parameters
    ----------
    adata
        Cells with the time and the representation that the flow was fitted on.
    flow
        A fitted flow.
    condition
        With a flow that has conditions: which one, such as ``{"drug": "A", "dose": 3.0}``. Only its cells and those
        that lead to it are handed over.
    plans
        ``"coupling"`` for the plans to which the flow was fitted, which a loaded flow does not have; ``"flow"`` for
        where the flow carries each cell, in equal parts among ten cells there; ``"auto"`` for the first if available.
    keep
        Share of each row of a plan to keep, in its largest masses; rows are then scaled to sum to 1. The dropped share
        is in ``dropped``. For plans of more than 256 MiB, which are not stored, 100 pairs for each cell are drawn.
    n_neighbors
        Number of neighbours of a cell in graphs; fewer if there are not enough cells.
    conn_weight
        Weight of neighbours of the same snapshot in the real-time kernel, between 0 and 1.
    n_samples
        With ``plans="flow"`` and a score: how often each cell is simulated.
    seed
        Seed of the simulations.

    Returns
    -------
    CellRankKernels
        ``velocity``, ``real_time``, their ``adata``, and the source of ``plans`` with the share ``dropped``.

    Raises
    ------
    MissingDependencyError
        Without CellRank. On Python 3.11 it is version 2.0.7, which needs NumPy below 2.
    NotFittedError
        Before ``fit``.
    ValueError
        When the flow has conditions and none is given, ``plans="coupling"`` is not there for these cells, or a number
        is not usable.

    Examples
    --------
    >>> import pytest, cellflow as cf
    >>> cr = pytest.importorskip("cellrank")
    >>> adata = cf.datasets.branching(seed=0)
    >>> flow = cf.SnapshotFlow(rep="X_latent", steps=20).fit(adata)
    >>> kernels = cf.doors.to_cellrank(adata, flow)
    >>> kernels.real_time.transition_matrix.shape == (adata.n_obs, adata.n_obs)
    True
    >>> estimator = cr.estimators.GPCCA(0.5 * kernels.velocity + 0.5 * kernels.real_time)
    """
    if plans not in PLANS:
        raise ValueError(unknown("value of `plans`", plans, PLANS))
    if not (0 < keep <= 1 and 0 < conn_weight < 1) or n_samples < 1:
        raise ValueError(
            f"Expected 0 < keep <= 1, 0 < conn_weight < 1 and n_samples >= 1; found {keep}, {conn_weight}, {n_samples}."
        )
    flow._check_fitted()
    kernels = optional("cellrank.kernels", install=INSTALL)
    handed = hand_over(adata, flow, condition, n_neighbors, chain=True)
    times = np.unique(handed.states.time)
    if len(times) < 2:
        raise ValueError(f"Expected cells of two times or more; found only time {times[0]:g}.")
    taken, leading = _leading(adata, flow, handed, times, plans, keep, n_samples, seed)
    velocity = kernels.VelocityKernel(handed.adata, attr="obsm", xkey=f"X_{BASIS}", vkey=f"velocity_{BASIS}")
    velocity.compute_transition_matrix(backend="threading", show_progress_bar=False)
    real_time = _real_time(kernels, handed, times, leading, n_neighbors, conn_weight)
    pairs = list(zip(times.tolist(), times[1:].tolist(), strict=False))
    dropped = {pair: found.dropped for pair, found in zip(pairs, leading, strict=True)}
    return CellRankKernels(velocity, real_time, handed.adata, taken, dropped)


def _leading(
    adata: "AnnData",
    flow: "SnapshotFlow",
    handed: HandedOver,
    times: np.ndarray,
    plans: str,
    keep: float,
    n_samples: int,
    seed: int,
) -> "tuple[str, list[Leading]]":
    """Return the plans between cells, and where they are from."""
    if plans != "flow":
        found = plans_between.of_coupling(flow, adata, handed.states, keep=keep)
        if not isinstance(found, str):
            return "coupling", found
        if plans == "coupling":
            raise ValueError(f"There are no plans of the coupling to hand over: {found}. Take `plans='flow'`.")
        log.info("plans come from where the flow carries cells, as those of the coupling are not available: %s", found)
    how: dict[str, Any] = {"n_neighbors": 10, "n_samples": n_samples, "seed": seed}
    return "flow", plans_between.of_flow(flow, handed.states, times, **how)


def _real_time(
    kernels: Any,
    handed: HandedOver,
    times: np.ndarray,
    leading: "list[Leading]",
    n_neighbors: int,
    conn_weight: float,
) -> Any:
    """Return the kernel of real time, with its transition matrix."""
    from anndata import AnnData

    cells, time = handed.adata, handed.states.time
    cells.obs[TIME] = pd.Categorical(time, categories=times)
    couplings = {}
    for start, stop, found in zip(times.tolist(), times[1:].tolist(), leading, strict=False):
        names = (pd.DataFrame(index=cells.obs_names[time == t]) for t in (start, stop))
        couplings[start, stop] = AnnData(found.masses, obs=next(names), var=next(names))
    kernel = kernels.RealTimeKernel(cells, time_key=TIME, couplings=couplings)
    sizes = np.array([(time == t).sum() for t in times])
    few = sizes < FEWEST
    if few[-1]:
        log.warning("the last snapshot has %d cells: each stays where it is", sizes[-1])
        return kernel.compute_transition_matrix(threshold=None, self_transitions="diagonal")
    nearest = lowered(n_neighbors, int(sizes[~few].min()) - 1, "cells of the smallest snapshot")
    within = [t for t, small in zip(times[:-1].tolist(), few[:-1], strict=True) if not small]
    return kernel.compute_transition_matrix(
        threshold=None,
        self_transitions=within,
        conn_weight=conn_weight,
        conn_kwargs={"n_neighbors": nearest, "use_rep": f"X_{BASIS}"},
    )
