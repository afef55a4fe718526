"""Trajectories of single cells."""

from typing import TYPE_CHECKING, Any

import torch

from cellflow.cells.clock import TimeLike, one_time
from cellflow.cells.snapshots import time_labels_of
from cellflow.cells.states import Cells, States, positions
from cellflow.estimators.conditional import Condition
from cellflow.integrate import Fixed, Noisy, Solver, resolve
from cellflow.metrics import thinned
from cellflow.renamed import renamed
from cellflow.seeds import generator
from cellflow.signature import checked_but
from cellflow.tl.cells import about_states, check_key, target
from cellflow.tl.files import on_files

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow


@on_files
@checked_but("cells", "solver", "condition")
def trajectories(
    adata: "AnnData",
    flow: "SnapshotFlow",
    *,
    cells: Cells | None = None,
    condition: Condition | None = None,
    n: int = 200,
    stop: TimeLike | None = None,
    n_times: int = 50,
    solver: Solver | str | int = Fixed(),
    seed: int = 0,
    extrapolate: bool = False,
    key_added: str = "trajectories",
    copy: bool = False,
    **old: Any,
) -> "AnnData | None":
    """Follow cells through time.

    Parameters
    ----------
    adata
        Cells with the time and the representation that the flow was fitted on.
    flow
        A fitted flow.
    cells
        Cells to follow, each from its own time: a mask or names; ``None`` for a random ``n`` of the first snapshot.
    condition
        With a flow that has conditions: what the cells are to be under, such as ``{"drug": "A", "dose": 3.0}``;
        ``None`` for each cell's own; for untreated cells that were measured only once, no motion is learned.
    n
        Number of cells to draw if ``cells`` is not given.
    stop
        Time at which to stop; before the cells' own time it gives their past; ``None`` for the last fitted time.
    n_times
        Number of equally spaced times to keep.
    solver
        As for `SnapshotFlow.transport`; or, for one random trajectory of each cell, `cellflow.integrate.Noisy`, if the
        flow was fitted with a score.
    seed
        Seed of the draw of cells, and of the noise.
    extrapolate
        Whether times outside the fitted range are allowed.
    key_added
        Name of the result, without "/".
    copy
        Whether to return a copy instead of writing into ``adata``.

    Writes
    ------
    ``uns[key_added]``
        ``"x"``, states ``(n_times, cells, d)``; ``"time"``, times ``(n_times, cells)``; ``"origin"``, names of the
        cells; ``"rep"``, ``"time_key"`` and ``"unit"`` of time; ``"fingerprint"``, by which plots notice another
        representation.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> flow = cf.SnapshotFlow(rep="X_latent", steps=20).fit(adata)
    >>> cf.tl.trajectories(adata, flow, n=5, n_times=10)
    >>> adata.uns["trajectories"]["x"].shape
    (10, 5, 2)
    """
    check_key(key_added)
    if old:
        rules = {"stochastic": lambda noisy: {"solver": Noisy() if noisy else Fixed()}}
        solver = renamed("tl.trajectories", old, rules)["solver"]
    chosen: Solver = resolve(solver, default=Fixed(), verb="tl.trajectories")
    states = flow.read(adata, condition=condition, weights=cells is None)  # by which cells are drawn
    followed = _first_cells(flow, states, n, seed) if cells is None else states.take(positions(adata, cells))
    like = time_labels_of(adata, flow.time_key)
    end = flow.clock_.times[-1] if stop is None else one_time(stop, what="`stop`", like=like)
    course: dict[str, Any] = {"start": followed.time, "stop": end, "save": n_times, "extrapolate": extrapolate}
    course["condition"] = followed.condition
    if isinstance(chosen, Noisy):
        found = flow.simulate(followed.x, solver=chosen, seed=seed, **course)
    else:
        found = flow.transport(followed.x, solver=chosen, **course)
    written = target(adata, copy=copy)
    written.uns[key_added] = {
        "x": found.x.numpy(),
        "time": found.t.numpy(),
        "origin": adata.obs_names[followed.rows].to_numpy(dtype=str),
        **about_states(adata, flow),
    }
    return written if copy else None


def _first_cells(flow: "SnapshotFlow", states: States, n: int, seed: int) -> States:
    """Draw cells of the first fitted snapshot; those that weigh the same without repetition."""
    if n < 1:
        raise ValueError(f"Expected n >= 1 cells to follow; found {n}.")
    there = states.at(flow.clock_.times[0])
    if not len(there):
        raise ValueError(f"No cells at the first fitted time {flow.clock_.times[0]:g}. Name cells with `cells`.")
    rng = generator(seed=seed)
    if there.weight is None:
        return there.take(torch.randperm(len(there), generator=rng)[:n].sort().values.numpy())
    rows, _ = thinned(torch.arange(len(there)), there.weight, n, generator=rng)
    return there.take(rows.sort().values.numpy())
