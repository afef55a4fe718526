"""The mean of measured cells of each group at each snapshot, to be drawn beside a trend."""

from typing import TYPE_CHECKING, Any

import numpy as np

from cellflow.cells.decoders import Decoder
from cellflow.cells.expression import places_of, read_expression
from cellflow.cells.snapshots import read_rep
from cellflow.tl.genes import Loadings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow


def measured_means(
    adata: "AnnData",
    flow: "SnapshotFlow",
    decoder: Loadings | Decoder,
    groups: "Sequence[str]",
    labels: np.ndarray | None,
    where: dict[str, Any],
) -> dict[str, Any]:
    """Return the mean of genes over the measured cells of each group at each time, as `cellflow.tl.trends` writes it.

    With the loadings of a PCA it is that of the expression that the PCA was computed from; with another decoder, whose
    units are its own, that of the decoded states of these cells.

    Parameters
    ----------
    adata, flow
        The cells, at any time, and a fitted flow.
    decoder
        What decodes the genes.
    groups
        The groups.
    labels
        The group of each cell ``(n,)``; ``None`` where that is not known.
    where
        Where the expression is: ``"layer"`` and ``"use_raw"``.
    """
    cells = flow.read(adata)
    times = np.unique(cells.time)
    found = np.full((len(groups), len(decoder.names), len(times)), np.nan)
    counts = np.zeros((len(groups), len(times)))
    whole = isinstance(decoder, Loadings) or flow.rep == "X"
    expression = read_expression(adata, **where) if isinstance(decoder, Loadings) else None
    x = read_rep(adata, flow.rep, n_pcs=flow.n_pcs)
    for group, name in enumerate(groups):
        for place, time in enumerate(times):
            rows = np.flatnonzero((cells.time == time) & (labels == name)) if labels is not None else np.zeros(0, int)
            weight = np.ones(len(rows)) if cells.weight is None else cells.weight[rows]
            if not weight.sum() > 0:
                continue
            if expression is not None:
                columns = places_of(expression.names, list(decoder.names), where=expression.where)
                values = expression.dense(rows, columns)
            else:
                values = decoder.decode(x[rows]).astype(np.float64)
            found[group, :, place] = weight @ values / weight.sum()
            counts[group, place] = len(rows)
    return {
        "measured": found,
        "measured_time": times,
        "measured_cells": counts,
        "measured_as": "expression" if whole else "decoded",
    }
