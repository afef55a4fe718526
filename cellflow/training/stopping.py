"""Early stopping: when a field begins to learn what holds for the samples that it sees, and for no others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import isnan
from typing import Any, cast

import torch
from torch import Tensor, nn

from cellflow.batch import Batch
from cellflow.objectives import Objective
from cellflow.objectives.growth import agreement
from cellflow.seeds import generator_at
from cellflow.signature import checked
from cellflow.training.confirmed import CONFIRMED, Leg, confirmed_share

HELD_OUT = "validation"
"""Name of the loss on held-out samples in a history."""
EVERY = 25
"""Steps between two measurements."""
PATIENCE = 6
"""Measurements without an improvement after which a training stops; half of those before the best one, if more."""


@checked
@dataclass(frozen=True, eq=False)
class EarlyStopping:
    """Held-out batches, and when a training stops since the loss on them falls no more.

    The loss is measured with averaged weights, always at the same points. The decision depends only on the history, so
    that a resumed training stops where it would have stopped.

    Growth has its own measures. Its error is measured on pairs of the plan of all samples that start from held-out
    samples, as the plan of few samples says little about it, and up to a factor: noise asks for a smaller one. How much
    of it holds for an unseen population is measured separately, see `confirmed_share`.

    Parameters
    ----------
    batches
        Batches of held-out samples.
    seed
        Seeds the noise and the times of the objective.
    leaving
        Batches of pairs whose source is held out, from the plan of all samples. Not needed without growth.
    legs
        The held-out samples. Not needed without growth.
    judge
        A function of the field to measure instead of all this, see `cellflow.training.effects`.

    Examples
    --------
    >>> import math
    >>> stopping = EarlyStopping([], seed=0)
    >>> nothing = [math.nan] * 24
    >>> losses = [loss for one in (1.0, 0.5, 0.52, 0.53, 0.6, 0.6, 0.6, 0.6) for loss in (*nothing, one)]
    >>> stopping.best(losses[:-25]), stopping.best(losses)
    (None, 50)
    """

    batches: Sequence[Batch]
    seed: int
    leaving: Sequence[Batch] = ()
    legs: Sequence[Leg] = ()
    judge: Callable[[nn.Module], float] | None = None

    def __post_init__(self) -> None:
        if self.judge is not None and (isinstance(self.judge, type) or not callable(self.judge)):
            raise TypeError(f"Expected `judge` as a function of the field; found {self.judge!r:.60}.")
        for name, kind in (("batches", Batch), ("leaving", Batch), ("legs", Leg)):
            found = getattr(self, name)
            listed = isinstance(found, list | tuple) and not isinstance(found, kind)
            strange = [one for one in found if not isinstance(one, kind)] if listed else [found]
            if strange:
                shown = type(strange[0]).__name__
                raise TypeError(f"Expected `{name}` as a list of `{kind.__name__}`; found {shown}.")

    def measured(self, objective: Objective) -> tuple[str, ...]:
        """Return the names of the measures: the loss and, with growth, its confirmed share."""
        growing = self.legs and getattr(objective, "growth_weight", None) is not None
        return (HELD_OUT, CONFIRMED) if growing else (HELD_OUT,)

    @checked
    def measure(self, field: nn.Module, objective: Objective) -> dict[str, float]:
        """Return the mean loss on the held-out batches and, with growth, its confirmed share.

        Raises
        ------
        ValueError
            When there are no batches.
        """
        if self.judge is not None:
            return {HELD_OUT: self.judge(field)}
        if not self.batches:
            raise ValueError("Expected `batches` of held-out samples to measure on; found none.")
        like = next(field.parameters())
        terms = self._mean(partial(objective, field), self.batches, like=like)
        if CONFIRMED not in self.measured(objective):
            return {HELD_OUT: float(terms["loss"])}
        found = self._mean(partial(agreement, field, objective), self.leaving, like=like)
        known, product, square = (float(found[name]) for name in ("known", "product", "predicted"))
        factor = min(max(product / square, 0.0), 1.0) if square > 0 else 0.0
        missed = known - 2 * factor * product + factor**2 * square - float(terms["growth"])
        loss = float(terms["loss"]) + cast("Any", objective).growth_weight * missed
        return {HELD_OUT: loss, CONFIRMED: confirmed_share(field, self.legs)}

    def _mean(
        self, measure: Callable[..., dict[str, Tensor]], batches: Sequence[Batch], *, like: Tensor
    ) -> dict[str, Tensor]:
        """Return the mean over batches of each term, always with the same random numbers."""
        with torch.no_grad():
            found = [
                measure(batch.to(like.device, like.dtype), generator=generator_at(self.seed, k, like.device))
                for k, batch in enumerate(batches)
            ]
        return {name: torch.stack([terms[name] for terms in found]).mean() for name in found[0]}

    @checked
    def measures(self, step: int) -> bool:
        """Whether the loss is measured after a step, counted from 1."""
        return step % EVERY == 0

    @checked
    def best(self, losses: Sequence[float]) -> int | None:
        """Return the step with the smallest loss, once the training should stop; ``None`` before.

        Parameters
        ----------
        losses
            The loss after every step, NaN if not measured.
        """
        measured = {step: loss for step, loss in enumerate(losses, start=1) if not isnan(loss)}
        if not measured:
            return None
        least = min(measured, key=measured.__getitem__)
        since = sum(step > least for step in measured)
        return least if since >= max(PATIENCE, least / EVERY / 2) else None
