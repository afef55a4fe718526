"""What a `SnapshotFlow` reads: cells with their times, weights and conditions, and states."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cellflow.cells.clock import TimeLike
from cellflow.cells.snapshots import read_states
from cellflow.cells.states import Cells, States, StatesLike, as_states, positions
from cellflow.cells.stores import Stored, as_adata
from cellflow.estimators.conditional import Condition, of_cells, seen
from cellflow.estimators.portions import Inputs
from cellflow.shapes import time_of
from cellflow.signature import checked, checked_but

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators.snapshots import SnapshotFlow


@checked_but("adata", "cells", "condition")
def read(
    self: "SnapshotFlow",
    adata: "AnnData | Stored",
    cells: Cells | None = None,
    *,
    condition: Condition | None = None,
    weights: bool = True,
) -> States:
    """Read the states and times of cells, under the keys of this flow.

    Parameters
    ----------
    adata
        Cells with the time and the representation of the fit, or their files.
    cells
        A mask over all cells, names, or rows of ``obs``; ``None`` for all.
    condition
        With a flow that has conditions: the condition of the cells, such as ``{"drug": "A", "dose": 3.0}``; ``None``
        for each cell's own. Categories and numbers that it leaves out are each cell's own.
    weights
        Whether to read the weights of cells, if the flow has a ``weight_key``: what depends on a single cell only, such
        as its velocity, needs none.

    Returns
    -------
    States
        States ``(n, d)``, times ``(n,)`` in the user's units, positions in ``adata`` ``(n,)``, weights if they are read
        and, with conditions, what the field sees of these ``(n, width)``.

    Raises
    ------
    NotFittedError
        Before ``fit``.
    KeyError, ValueError
        When the time, the representation, the weights, a column of the conditions or a cell are missing, or the
        width or loadings of the representation differ from ``fit``; when a condition is unknown.

    Warns
    -----
    UserWarning
        When the states of fitted cells differ from ``fit``, or cells are far from those fitted at their time.

    Examples
    --------
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching(seed=0)
    >>> flow = cf.SnapshotFlow(rep="X_latent", steps=20).fit(adata)
    >>> flow.read(adata, adata.obs["time"] == 4).x.shape
    (400, 2)
    """
    self._check_fitted()
    adata = as_adata(adata, rep=self.rep)
    weight_key = self.weight_key if weights else None
    states = read_states(adata, time_key=self.time_key, rep=self.rep, weight_key=weight_key, n_pcs=self.n_pcs)
    check_shape(self, states.x.shape)
    check_representation(self, adata, states.x, states.time)
    states = states if cells is None else states.take(positions(adata, cells))
    return replace(states, condition=of_cells(self, adata, states.rows, condition))


@checked
def check_representation(self: "SnapshotFlow", adata: "AnnData", x: np.ndarray, time: np.ndarray) -> None:
    """Refuse, or warn of, cells whose representation differs from the fit, see `cellflow.cells.fingerprint`.

    Raises
    ------
    ValueError
        When the loadings or the order of columns differ.

    Warns
    -----
    UserWarning
        When the states of fitted cells have changed, or cells are far from those fitted at their time.
    """
    known = getattr(self, "fingerprint_", None)  # models that were saved before there were any have none
    if known is not None:
        known.check(adata, self.rep, x, time)


def inputs_of(
    flow: "SnapshotFlow", x: StatesLike, times: Sequence[TimeLike], condition: Condition | None, *, extrapolate: bool
) -> Inputs:
    """Return states, their times and conditions as the field of a flow takes them, in portions.

    Raises
    ------
    NotFittedError
        Before ``fit``.
    KeyError, ValueError
        When states have another width than in ``fit``, or there is not one time and condition for all or for each.
    """
    flow._check_fitted()
    model = [flow.clock_.model_times(time, extrapolate=extrapolate) for time in times]
    states, like = as_states(x, what="`x`"), next(flow.field_.parameters())
    check_shape(flow, states.shape)
    each = tuple(time_of(time, like.new_empty((len(states), 0))) for time in model)
    return Inputs(states, like, each, seen(flow, condition, len(states)), flow.progress)


def check_shape(flow: "SnapshotFlow", shape: Sequence[int]) -> None:
    """Raise unless states have the shape ``(cells, d)`` of those of the fit."""
    if len(shape) != 2 or shape[1] != flow.n_features_in_:
        raise ValueError(
            f"Expected `x` of shape (cells, {flow.n_features_in_}), as `{flow.rep}` had in `fit`; found {tuple(shape)}."
        )
