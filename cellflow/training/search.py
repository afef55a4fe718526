"""For how many steps to train: until a part of the samples that is held out says that the others are memorised."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from itertools import islice
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import nn

from cellflow.batch import Batch
from cellflow.objectives import Objective
from cellflow.seeds import draw_seed
from cellflow.signature import checked
from cellflow.training.checkpoint import STATE, refuse_existing
from cellflow.training.confirmed import CONFIRMED, Leg, last_confirmed
from cellflow.training.history import History
from cellflow.training.loop import fit
from cellflow.training.recipe import Recipe
from cellflow.training.reconstruction import FOLDER as AUTOENCODER
from cellflow.training.resumption import read_stated
from cellflow.training.run import Run
from cellflow.training.stopping import EVERY, HELD_OUT, PATIENCE, EarlyStopping

if TYPE_CHECKING:
    from cellflow.pairing import PairedBatches

log = logging.getLogger(__name__)


class Parts(NamedTuple):
    """What a search sees, and what it does not.

    Attributes
    ----------
    seen, held
        Batches of the training samples, and of the held-out samples.
    leaving, legs
        What growth is judged by, see `EarlyStopping`; empty without growth.
    """

    seen: Iterable[Batch]
    held: Iterable[Batch]
    leaving: Sequence[Batch] = ()
    legs: Sequence[Leg] = ()


FOLDER = "search"
"""Folder of the search within that of its run."""
BATCHES = 4
"""Batches of held-out samples on which the loss is measured, always the same."""
PART = 3
"""One in how many of the steps are searched: what has not begun to be memorised by then is trained as planned."""
LONGER = 1.5
"""By how much a training takes longer whose learning rate decays to zero by its end."""


@checked
def fit_unmemorised(
    field: nn.Module,
    objective: Objective,
    batches: Iterable[Batch],
    *,
    parts: Callable[[], Parts | None],
    steps: int,
    generator: torch.Generator,
    searching: torch.Generator,
    recipe: Recipe | None = None,
    run: Run | None = None,
    about: Mapping[str, Any] | None = None,
) -> tuple[History, History]:
    """Train a field on all samples, for as many steps as held-out samples benefit from.

    First a copy is trained on some of the samples, for at most a third of ``steps``, while the loss on the others is
    measured (see `EarlyStopping`). If that loss stops falling, the field is trained on all samples for 1.5 times the
    steps up to the minimum, with a warm-up of at most a third of them; otherwise for all ``steps``.

    Parameters
    ----------
    field
        The module to train, in place.
    objective
        The loss to minimise.
    batches
        Batches of all samples.
    parts
        Splits the samples into those that the search sees and those that it does not; ``None`` if none can be held out.
        Not called if ``steps`` are too few for a search, or the search is already over.
    steps
        The most steps.
    generator
        Seeds the training; used as by `fit`.
    searching
        Seeds the search.
    recipe, run, about
        As for `fit`. The search has its own folder within that of the run, and is not watched.

    Returns
    -------
    histories
        Those of the training and of the search; the latter has the held-out loss as ``"validation"``, and is empty
        without a search; with growth also ``"confirmed growth"``.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> rng = cf.generator(seed=0)
    >>> x0, x1 = torch.randn(2, 40, 8, generator=rng)
    >>> def pairs(*rows):
    ...     return cf.pairing.paired_batches(x0[slice(*rows)], x1[slice(*rows)], batch_size=32, generator=rng)
    >>> history, search = fit_unmemorised(
    ...     cf.networks.MLP(dim=8), cf.objectives.VelocityMatching(), pairs(0, 40),
    ...     parts=lambda: Parts(pairs(0, 30), pairs(30, 40)), steps=900, generator=rng, searching=cf.generator(seed=1),
    ... )
    >>> len(history) < 900, len(search) <= 300
    (True, True)
    """
    run, recipe = run or Run(), recipe or Recipe()
    with run.locked():
        here = run if run.folder is None else replace(run, folder=Path(run.folder) / FOLDER)
        trained, searched = _exists(run), _exists(here)
        if trained and not run.resume:
            refuse_existing(Path(run.folder or "") / STATE)
        found = History()
        if trained and searched:
            found = History(read_stated(Path(here.folder or "") / STATE)["history"])
        elif not trained and steps // PART >= recipe.warmup_steps(steps) + PATIENCE * EVERY:
            found = _search(
                field, objective, parts(), steps=steps, generator=searching, recipe=recipe, about=about,
                run=replace(here, resume=searched and run.resume, watch=None),
            )  # fmt: skip
        best, share = EarlyStopping((), 0).best(found.columns.get(HELD_OUT, [])), last_confirmed(found)
        if best is not None:
            steps = min(steps, ceil(LONGER * best))
            recipe = replace(recipe, warmup=min(recipe.warmup_steps(steps), steps // 3))
            log.info("held-out samples improve for %d steps: training on all for %d", best, steps)
        if share is not None:
            batches = cast("PairedBatches", batches).shrunk(share)
            log.info("held-out samples confirm %.0f %% of the growth of pairs: this share is learned", 100 * share)
        run = replace(run, resume=run.resume and (trained or not searched))
        history = fit(field, objective, batches, steps=steps, generator=generator, recipe=recipe, run=run, about=about)
    return history, found


def _search(
    field: nn.Module,
    objective: Objective,
    parts: Parts | None,
    *,
    steps: int,
    generator: torch.Generator,
    recipe: Recipe,
    run: Run,
    about: Mapping[str, Any] | None,
) -> History:
    """Train a copy of a field on some samples, until the loss on the others says that they are memorised."""
    if parts is None:
        return History()
    if run.resume and CONFIRMED not in read_stated(Path(run.folder or "") / STATE)["history"]:
        parts = parts._replace(legs=())  # begun before growth was judged apart: it goes on as it began
    held = list(islice(iter(parts.held), BATCHES))
    return fit(
        deepcopy(field),
        objective,
        parts.seen,
        steps=steps,
        until=steps // PART,
        generator=generator,
        recipe=recipe,
        run=run,
        about=about,
        stopping=EarlyStopping(held, draw_seed(generator), parts.leaving, parts.legs),
    )


def begun(folder: str | Path) -> bool:
    """Return whether a training, its search or its autoencoder was begun in a folder, so that it can be resumed.

    Examples
    --------
    >>> begun("runs/of-nobody")
    False
    """
    return any((Path(folder) / part / STATE).exists() for part in ("", FOLDER, AUTOENCODER))


def _exists(run: Run) -> bool:
    return run.folder is not None and (Path(run.folder) / STATE).exists()
