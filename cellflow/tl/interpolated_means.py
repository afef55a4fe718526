"""Intervals of interpolated cells: of the mean at each time, per component and gene, and of each cell's position."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cellflow.cells.decoders import Decoder
from cellflow.cells.loadings import Loadings
from cellflow.cells.states import States
from cellflow.estimators.prediction import Carried, predict
from cellflow.estimators.snapshot_members import counts
from cellflow.tl.intervals import for_members, t_interval

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import SnapshotFlow


def member_predictions(
    adata: "AnnData", flow: "SnapshotFlow", cells: States, times: Sequence[float], given: dict[str, Any]
) -> list[list[Carried]]:
    """Return each member's predictions at all times: the same cells, weighted by how often the member drew them."""
    given = given | {"solver": for_members(given["solver"])}
    fitted = np.flatnonzero(np.isin(cells.time, flow.clock_.times))
    drawn = counts(flow, adata, np.unique(cells.rows[fitted]))
    weight = np.ones(len(cells)) if cells.weight is None else cells.weight
    found = []
    for member, times_drawn in zip(flow.members, drawn, strict=True):
        own = replace(cells, weight=weight * times_drawn[cells.rows])
        found.append([part for at in times for part in predict(member, own, at, **given)])
    return found


def cell_spread(carried: Sequence[Carried], members: Sequence[Sequence[Carried]]) -> np.ndarray:
    """Return the root mean squared distance from where a flow carries each cell to where members do, ``(n,)``.

    Examples
    --------
    >>> states = States(np.zeros((1, 1), "float32"), np.zeros(1), np.arange(1))
    >>> at = lambda x: [Carried(states, np.array([[x]]), np.ones(1), 1.0)]
    >>> cell_spread(at(0.0), [at(3.0), at(-3.0)])
    array([3.])
    """
    apart = [
        np.square(np.concatenate([part.x for part in own]) - np.concatenate([part.x for part in carried])).sum(axis=1)
        for own in members
    ]
    return np.asarray(np.sqrt(np.mean(apart, axis=0)))


def means(
    carried: Sequence[Carried], members: Sequence[Sequence[Carried]], times: Sequence[float], confidence: float
) -> dict[str, Any]:
    """Return the mean state at each time with the ends of its spread, ``(times, d)`` each.

    Examples
    --------
    >>> states = States(np.zeros((1, 1), "float32"), np.zeros(1), np.arange(1))
    >>> at = lambda x: [Carried(states, np.array([[x]]), np.ones(1), 1.0)]
    >>> means(at(0.0), [at(1.0), at(0.0), at(-1.0)], [1.0], 0.9)["mean_high"].round(2)
    array([[2.92]])
    """
    value, each = _means(carried, times), np.stack([_means(own, times) for own in members])
    low, high = t_interval(value, each, confidence=confidence)
    noted = {"confidence": confidence, "members": len(members), "at": np.asarray(times, dtype=np.float64)}
    return {**noted, "mean": value, "mean_low": low, "mean_high": high}


def gene_means(
    carried: Sequence[Carried],
    members: Sequence[Sequence[Carried]],
    times: Sequence[float],
    confidence: float,
    decoder: Loadings | Decoder,
) -> dict[str, np.ndarray]:
    """Return the mean expression of each gene with the ends of its spread, ``(genes, times)`` each."""

    def decoded(parts: Sequence[Carried]) -> np.ndarray:
        if isinstance(decoder, Loadings):  # of a linear map, the mean goes to the mean
            return decoder.decode(_means(parts, times)).T
        return np.stack([sum(p.weight @ decoder.decode(p.x) for p in parts if p.time == at) for at in times], axis=1)

    value = decoded(carried).astype(np.float64)
    low, high = t_interval(value, np.stack([decoded(own) for own in members]), confidence=confidence)
    return {"mean": value, "mean_low": low, "mean_high": high}


def _means(parts: Sequence[Carried], times: Sequence[float]) -> np.ndarray:
    return np.stack([sum(p.weight @ p.x.astype(np.float64) for p in parts if p.time == at) for at in times])
