"""One arm of an experiment: what was measured, what chance alone gives, and what a flow predicts."""

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from cellflow.estimators.arms import Arm, Arms
from cellflow.estimators.mean_shift import mean_shift
from cellflow.estimators.perturbation_verbs import carried
from cellflow.metrics import energy_distance
from cellflow.tl.changes import Moments, apart, changed, moments
from cellflow.tl.genes import Loadings

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators import PerturbationFlow
    from cellflow.networks.treated import Treated


def measured(arms: Arms, arm: Arm, most: int, generator: torch.Generator) -> dict[str, Any]:
    """Return how far the treated cells of an arm are from their controls, beside the level of chance.

    Parameters
    ----------
    arms, arm
        The cells, and which of them.
    most
        Most cells of either side.
    generator
        Draws cells, and divides them.
    """
    found = apart(
        arms.x[some(arm.source, most, generator)], arms.x[some(arm.target, most, generator)], generator=generator
    )
    return {
        "treatment": arm.label,
        "group": arm.group,
        "cells": len(arm.target),
        "controls": len(arm.source),
        "energy_distance": found.distance,
        "energy_distance_floor": found.floor,
        "p": found.p,
    }


def measured_genes(
    adata: "AnnData", arm: Arm, control: Moments, generator: torch.Generator
) -> tuple[dict[str, Any], np.ndarray]:
    """Return how many genes change, beside the level of chance, and the mean change of each, ``(genes,)``."""
    order = arm.target[torch.randperm(len(arm.target), generator=generator).numpy()]
    halves = [moments(adata, half) for half in np.array_split(order, 2) if len(half)]
    treated = halves[0] if len(halves) == 1 else halves[0].joined(halves[1])
    row = {"changed_genes": int(changed(control, treated).sum()), "changed_genes_floor": 0, "ceiling": np.nan}
    if len(halves) == 2:
        row["changed_genes_floor"] = int(changed(*halves).sum())
        row["ceiling"] = correlation(*(half.mean - control.mean for half in halves))
    return row, treated.mean - control.mean


def predicted(
    flow: "PerturbationFlow", arms: Arms, arm: Arm, most: int, generator: torch.Generator
) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Return how far predicted cells are from the treated ones, and the changes of the mean ``(d,)`` of flow and shift.

    Parameters
    ----------
    flow
        A fitted flow.
    arms, arm, most, generator
        As for `measured`.
    """
    there, control = flow.arms_, arms.x[arm.source]
    vector = arms.table.vectors[arms.table.index[arm.target[0]]]
    shift = mean_shift(flow, arm.label, arm.group, vector[flow.conditions_.effect])
    kept = shares_of(flow, vector[flow.conditions_.effect])
    moved, treated = carried(flow, arms, arm), arms.x[some(arm.target, most, generator)]
    few = some(np.arange(len(moved)), most, generator)
    row = {
        "fitted": bool(((there["treatment"] == arm.label) & (there["group"] == arm.group)).any()),
        **kept,
        "energy_distance_flow": energy_distance(moved[few], treated),
        "energy_distance_shift": energy_distance((control[few] + shift).astype(np.float32), treated),
    }
    return row, moved.mean(axis=0, dtype=np.float64) - control.mean(axis=0, dtype=np.float64), shift


def shares_of(flow: "PerturbationFlow", effect: np.ndarray) -> dict[str, float]:
    """Return how much a flow keeps of a treatment's effect, and of its differences between cells.

    Parameters
    ----------
    flow
        A fitted flow.
    effect
        What a field sees of the treatment, ``(e,)``.
    """
    amounts = np.abs(effect).astype(np.float64)
    parts = amounts / max(amounts.sum(), np.finfo(float).tiny)
    field = cast("Treated", flow.field_)
    kept = field.shares(torch.from_numpy(effect[None]).to(field.share))
    names = ("share", "share_of_differences")
    return {name: float(parts @ each[0].cpu().double().numpy()) for name, each in zip(names, kept, strict=True)}


def decoded(change: np.ndarray, loadings: Loadings | None) -> np.ndarray:
    """Return the change of each gene ``(genes,)`` for a change of states ``(d,)``; NaN for unknown genes."""
    if loadings is None:  # the states are the genes
        return change
    found = np.full(len(loadings.seen), np.nan)
    found[loadings.seen] = loadings.decode_velocity(change[None])[0]
    return found


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Return the correlation of two changes over the genes that both know; NaN if one of them is zero.

    Examples
    --------
    >>> round(correlation(np.array([0.0, 1.0, np.nan]), np.array([0.0, 2.0, 5.0])), 6)
    1.0
    """
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    if len(x) < 2 or x.std() == 0 or y.std() == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def some(rows: np.ndarray, most: int, generator: torch.Generator) -> np.ndarray:
    """Return some rows at random, at most so many."""
    return rows if len(rows) <= most else rows[torch.randperm(len(rows), generator=generator)[:most].numpy()]
