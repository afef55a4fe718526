"""The members of an ensemble: flows like another, of other seeds and resampled cells, trained in one loop."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from torch import nn

from cellflow import training
from cellflow.cells.resampling import read_donors, resampled
from cellflow.cells.snapshots import Snapshots
from cellflow.couplings import Coupling
from cellflow.estimators.fields import Scales
from cellflow.estimators.serialize import modernise_training
from cellflow.objectives import Objective
from cellflow.pairing.batches import PairedBatches
from cellflow.seeds import draw_seed, generator_at, seeded
from cellflow.training import History, Run
from cellflow.training.checkpoint import STATE
from cellflow.training.confirmed import last_confirmed
from cellflow.training.ensembles import Ensemble, EnsembleBatches, shared_recipe
from cellflow.training.recipe import Recipe

if TYPE_CHECKING:
    from anndata import AnnData

    from cellflow.estimators.snapshots import SnapshotFlow

log = logging.getLogger(__name__)

STREAM = 4
"""Stream of random numbers of a seed for members; see `cellflow.estimators.base`."""
FOLDER = "members"
"""Folder of the training of the members within that of the run."""
CELLS, WEIGHTS, PAIRS = 0, 1, 2
"""Streams of random numbers of a member's seed."""
_OF_ITS_OWN = {"flow_map_", "map_history_", "members_", "plans_", "field_", "history_"}
"""What a member does not have from the flow."""


def check_settings(ensemble: object, replicate_key: str | None) -> None:
    """Raise for settings of an ensemble that `fit` would refuse whatever the data are.

    Raises
    ------
    ValueError, TypeError
        When the number of members is no whole number of at least 2, or donors are named without members.

    Examples
    --------
    >>> check_settings(1, None)
    Traceback (most recent call last):
    ValueError: Expected `ensemble` of 2 members or more, or None; found 1. Five are a good beginning.
    """
    if ensemble is None:
        if replicate_key is not None:
            raise ValueError("`replicate_key` is used with an ensemble only. Set `ensemble=5`.")
        return
    if isinstance(ensemble, bool | np.bool_) or not isinstance(ensemble, Integral):
        raise TypeError(f"Expected `ensemble` as the number of members, such as 5, or None; found {ensemble!r}.")
    if ensemble < 2:
        raise ValueError(
            f"Expected `ensemble` of 2 members or more, or None; found {ensemble}. Five are a good beginning."
        )


def donors(flow: "SnapshotFlow", adata: "AnnData", snapshots: Snapshots) -> np.ndarray | None:
    """Return the donors that members resample, ``(n,)``, if any; raise where cells cannot be resampled."""
    return None if flow.ensemble is None else read_donors(adata, flow.replicate_key, snapshots)


def fit_members(
    flow: "SnapshotFlow",
    snapshots: Snapshots,
    of_donors: np.ndarray | None,
    coupling: Coupling,
    objective: Objective,
    scales: Scales,
    run: Run,
) -> "tuple[SnapshotFlow, ...]":
    """Train the members of a fitted flow; none without an ensemble.

    Each has weights, cells and pairs of its own; the number of steps, the blur of paths and the share of growth are
    those that were found for the flow.
    """
    if flow.ensemble is None:
        return ()
    rng = generator_at(int(flow.seed), STREAM)
    seeds = [draw_seed(rng) for _ in range(flow.ensemble)]
    device, share = next(flow.field_.parameters()).device, last_confirmed(flow.search_history_)
    fields, streams = [], []
    for seed in seeds:
        with seeded(generator_at(seed, WEIGHTS)):
            fields.append(flow._field(scales).to(device))
        cells = snapshots.take(resampled(snapshots, of_donors, generator=generator_at(seed, CELLS)))
        pairs = flow._pair(cells, coupling, generator_at(seed, PAIRS), flow.masses_, device)
        streams.append(pairs if share is None else cast("PairedBatches", pairs).shrunk(share))
    steps, recipe = len(flow.history_), flow.recipe or Recipe()
    if steps < flow.steps:  # a search has said so, as in `training.fit_unmemorised`
        recipe = replace(recipe, warmup=min(recipe.warmup_steps(steps), steps // 3))
    known = "" if of_donors is None else hashlib.sha256(of_donors.tobytes()).hexdigest()
    log.info("training %d members on resampled %s", len(seeds), "cells" if of_donors is None else "donors")
    history = training.fit(
        Ensemble(fields),
        objective,
        EnsembleBatches(streams),
        steps=steps,
        generator=rng,
        recipe=shared_recipe(recipe, len(seeds)),
        run=_run(flow, run),
        about=flow._about(snapshots.about() | {"donors": known}),
    )
    return members_of(flow, fields, seeds, history)


def members_of(
    flow: "SnapshotFlow", fields: Sequence[nn.Module], seeds: Sequence[int], history: History
) -> "tuple[SnapshotFlow, ...]":
    """Return the members of a fitted flow: flows of their own fields, which share everything else that was learned."""
    found = []
    for field, seed in zip(fields, seeds, strict=True):
        member = flow._unfitted().set_params(seed=seed, ensemble=None, replicate_key=None)
        shared = {name: value for name, value in vars(flow).items() if name.endswith("_") and name not in _OF_ITS_OWN}
        vars(member).update(shared, field_=field, history_=history, members_=())
        found.append(member)
    return tuple(found)


def counts(flow: "SnapshotFlow", adata: "AnnData", cells: np.ndarray) -> np.ndarray:
    """Return how often each member has drawn each cell, ``(members, n)``.

    For the cells of the fit, in their order, these are the samples on which members were trained. Of other cells, new
    samples are drawn.

    Parameters
    ----------
    flow
        A flow with members.
    adata
        The cells.
    cells
        Positions of those at fitted times, ``(k,)``, ascending; others count 1.
    """
    part = adata[cells]
    snapshots = flow._snapshots(part)
    of_donors = read_donors(part, flow.replicate_key, snapshots)
    found = np.ones((len(flow.members), adata.n_obs))
    for row, member in zip(found, flow.members, strict=True):
        rows = resampled(snapshots, of_donors, generator=generator_at(int(member.seed), CELLS))
        row[cells] = np.bincount(rows, minlength=len(cells))
    return found


def _run(flow: "SnapshotFlow", run: Run) -> Run:
    """Return the run of the members: in a folder of its own, not watched, and resumed where it was begun."""
    if run.folder is None:
        return replace(run, watch=None)
    folder = Path(run.folder) / FOLDER
    resume = run.resume and (folder / STATE).exists()
    if resume and run.leads:
        modernise_training(type(flow), folder)
    return replace(run, folder=folder, resume=resume, watch=None)
