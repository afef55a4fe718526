"""Several fields trained as one module, in one loop: an ensemble whose members each see their own pairs.

On a CPU, members one after the other took 0.9 to 0.6 of the time of stacked weights under ``torch.func.vmap``, for the
usual network, and any network can be a member.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from cellflow.batch import Batch
from cellflow.fields import Outputs, outputs
from cellflow.training.recipe import Recipe


class Ensemble(nn.ModuleList):
    """Several fields as one: states come in as many equal parts as there are members, a part for each.

    Their loss is the mean of the members' losses.

    Parameters
    ----------
    members
        The fields.

    Examples
    --------
    >>> import cellflow as cf
    >>> ensemble = Ensemble([cf.networks.MLP(dim=2, width=8) for _ in range(3)])
    >>> ensemble(torch.zeros(6), torch.zeros(6, 2)).velocity.shape
    torch.Size([6, 2])
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__(members)

    def forward(self, t: Tensor, x: Tensor, condition: Tensor | None = None) -> Outputs:
        """Return the outputs of each member for its part of the times ``(n,)`` and states ``(n, ...)``."""
        seen = [None] * len(self) if condition is None else condition.chunk(len(self))
        parts = zip(self, t.chunk(len(self)), x.chunk(len(self)), seen, strict=True)
        found = [outputs(member(*part)) for member, *part in parts]
        return Outputs._make(None if part[0] is None else torch.cat(part) for part in zip(*found, strict=True))


class EnsembleBatches:
    """Batches of several streams, one after the other in one batch, as `Ensemble` divides it.

    Parameters
    ----------
    streams
        Batches of each member, of one size, such as those of `cellflow.pairing.snapshot_batches`.

    Examples
    --------
    >>> import cellflow as cf
    >>> rng = cf.generator(seed=0)
    >>> streams = [cf.pairing.paired_batches(x, x + 1, batch_size=2, generator=rng) for x in torch.eye(2)[:, :, None]]
    >>> next(iter(EnsembleBatches(streams))).x0.shape
    torch.Size([4, 1])
    """

    def __init__(self, streams: Sequence[Any]) -> None:
        self._streams = list(streams)

    def __iter__(self) -> Iterator[Batch]:
        return self.iterate(0)

    def iterate(self, start: int) -> Iterator[Batch]:
        """Yield the batches of steps ``start``, ``start + 1`` and so on."""
        with ExitStack() as stack:
            opened = [stack.enter_context(closing(stream.iterate(start))) for stream in self._streams]
            for batches in zip(*opened, strict=True):
                parts = zip(*batches, strict=True)
                yield Batch(*cast("Any", (None if part[0] is None else torch.cat(part) for part in parts)))


def shared_recipe(recipe: Recipe, members: int) -> Recipe:
    """Return the recipe of an ensemble: its gradient, the mean of the members', is clipped as each would be.

    Examples
    --------
    >>> shared_recipe(Recipe(), 4).clip
    0.5
    """
    return recipe if recipe.clip is None else replace(recipe, clip=recipe.clip / math.sqrt(members))
