"""Early stopping: when a field begins to learn what holds for the samples that it sees, and for no others."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

import torch
from torch import nn

from cellflow.batch import Batch
from cellflow.objectives import Objective
from cellflow.seeds import generator_at

HELD_OUT = "validation"
"""Name of the loss on held-out samples in a history."""
EVERY = 25
"""Steps between two measurements."""
PATIENCE = 6
"""Measurements without an improvement after which a training stops; half of those before the best one, if more."""


@dataclass(frozen=True, eq=False)
class EarlyStopping:
    """Held-out batches, and when a training stops since the loss on them falls no more.

    The loss is measured with averaged weights, always at the same points. The decision is a function of the history
    alone, so that a training that is resumed stops where it would have stopped.

    Parameters
    ----------
    batches
        Batches of samples that are not trained on.
    seed
        Seeds the noise and the times of the objective.

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

    def measure(self, field: nn.Module, objective: Objective) -> float:
        """Return the mean loss on the held-out batches."""
        weight = next(field.parameters())
        with torch.no_grad():
            losses = [
                objective(
                    field, batch.to(weight.device, weight.dtype), generator=generator_at(self.seed, k, weight.device)
                )["loss"]
                for k, batch in enumerate(self.batches)
            ]
        return float(torch.stack(losses).mean())

    def measures(self, step: int) -> bool:
        """Whether the loss is measured after a step, counted from 1."""
        return step % EVERY == 0

    def best(self, losses: Sequence[float]) -> int | None:
        """Return the step with the smallest loss, once a training should stop; ``None`` before.

        Parameters
        ----------
        losses
            The loss after every step, NaN where it was not measured.
        """
        measured = {step: loss for step, loss in enumerate(losses, start=1) if not isnan(loss)}
        if not measured:
            return None
        least = min(measured, key=measured.__getitem__)
        since = sum(step > least for step in measured)
        return least if since >= max(PATIENCE, least / EVERY / 2) else None
