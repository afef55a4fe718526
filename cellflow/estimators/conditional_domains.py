"""Target samples by condition, and the source samples that each of them is paired with."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cellflow.cells.condition_rows import ConditionTable
from cellflow.cells.conditions import Conditions
from cellflow.cells.fitted_conditions import FittedConditions
from cellflow.cells.name_vectors import listed
from cellflow.estimators.conditional_groups import Groups, table_of
from cellflow.estimators.domains import Samples
from cellflow.pairing import ImageBatches, aside
from cellflow.pairing.condition_legs import ConditionLeg
from cellflow.training.search import Parts

FEWEST = 6
"""Fewest samples on either side of a leg of which some are held out, see `cellflow.pairing.aside.held_out`."""


@dataclass(frozen=True, eq=False)
class Conditioned:
    """Target samples by condition.

    Parameters
    ----------
    conditions
        How their columns are read.
    table
        Their conditions.
    legs
        Rows of the source and target samples that are paired with each other.
    dropped
        Whether conditions are dropped at random: a field then also sees whether there is a condition.
    """

    conditions: FittedConditions
    table: ConditionTable
    legs: tuple[ConditionLeg, ...]
    dropped: bool = False

    @property
    def seen(self) -> Tensor:
        """What a field sees of each condition, ``(k, width)``."""
        return seen(self.table.vectors, dropped=self.dropped)

    @property
    def controls(self) -> bool:
        """Whether controls are among the target samples."""
        return bool(self.table.is_control.any())

    @property
    def digest(self) -> dict[str, str]:
        """A fingerprint of the conditions of all samples, and of the groups in which they are paired."""
        found = hashlib.sha256("\n".join(leg.name for leg in self.legs).encode())
        found.update(np.ascontiguousarray(self.table.vectors).tobytes() + self.table.index.tobytes())
        for leg in self.legs:
            found.update(leg.source.numpy().tobytes() + leg.target.numpy().tobytes())
        return {"conditions_seen": found.hexdigest()[:16]}

    def of(self, rows: Tensor) -> Tensor:
        """Return what a field sees of some target samples, ``(n, width)``."""
        return self.seen[torch.from_numpy(self.table.index)[rows.cpu()]]


def seen(vectors: np.ndarray, *, dropped: bool) -> Tensor:
    """Return what a field sees of conditions: their numbers, after a 1 if conditions are dropped in training.

    The control is all zeros, and so is a dropped condition: the 1 tells them apart.

    Examples
    --------
    >>> seen(np.array([[0.0, 2.0]], dtype=np.float32), dropped=True)
    tensor([[1., 0., 2.]])
    """
    rows = torch.from_numpy(vectors)
    return torch.cat([torch.ones_like(rows[:, :1]), rows], dim=1) if dropped else rows


def width(conditions: FittedConditions | None, *, dropped: bool) -> int:
    """Return how many numbers a field sees of a condition; 0 without conditions."""
    return 0 if conditions is None else conditions.width + dropped


def conditioned(
    conditions: Conditions | FittedConditions,
    target: Samples,
    *,
    sources: int,
    groups: Groups | None = None,
    dropped: bool = False,
) -> Conditioned:
    """Read the conditions of target samples, and find the source samples with which each is paired.

    Parameters
    ----------
    conditions
        How the columns of ``obs`` are read: a setting, which is fitted here, or one already fitted.
    target
        Cells or images with ``obs``.
    sources
        Number of source samples.
    groups
        Groups within which samples are paired.
    dropped
        See `Conditioned`.

    Raises
    ------
    KeyError, ValueError
        When there is no ``obs``, a column is missing or cannot be used, or a group has target samples and no source
        samples.

    Examples
    --------
    >>> import anndata, pandas as pd, cellflow as cf
    >>> obs = pd.DataFrame({"drug": ["A", "B"] * 2}, index=list("abcd"))
    >>> found = conditioned(cf.Conditions("drug"), anndata.AnnData(np.zeros((4, 2)), obs=obs), sources=3)
    >>> [(leg.name, leg.target.tolist()) for leg in found.legs]
    [('A', [0, 2]), ('B', [1, 3])]
    """
    obs = table_of(target, what="`target`")
    fitted = conditions.fit(obs, getattr(target, "uns", None)) if isinstance(conditions, Conditions) else conditions
    table = fitted.read(obs)
    return Conditioned(fitted, table, tuple(_legs(table, sources, groups)), dropped)


def conditional(make: Callable[..., nn.Module], conditions: int) -> Callable[..., nn.Module]:
    """Return a factory of networks that see conditions of a width; 0 for none.

    Raises
    ------
    TypeError
        When called, if networks cannot be made with ``condition_dim=``.

    Examples
    --------
    >>> import cellflow as cf
    >>> conditional(cf.networks.MLP, 3)(2, width=8).condition_dim
    3
    """
    if not conditions:
        return make

    def made(dim: int, **settings: Any) -> nn.Module:
        try:
            return make(dim, condition_dim=conditions, **settings)
        except TypeError as error:
            raise TypeError(
                f"Expected a network that can be made with `condition_dim={conditions}`; making one failed: {error}. "
                "Let it take `condition_dim`, as `cf.networks.MLP` does."
            ) from error

    return made


def hold_out_legs(
    known: Conditioned,
    sizes: tuple[int, int],
    pair: Callable[[Conditioned], ImageBatches],
    generator: torch.Generator,
) -> Parts | None:
    """Split the samples of each leg into those that a search sees and those that it does not.

    Legs with few samples are seen whole. Returns ``None`` if all are, or a part has no plan.
    """
    large = [leg for leg in known.legs if min(len(leg.source), len(leg.target)) >= FEWEST]
    if not large:
        return None
    masks = []
    for side, size in zip(("source", "target"), sizes, strict=True):
        number = np.full(size, -1)
        for k, leg in enumerate(large):
            number[getattr(leg, side).numpy()] = k  # legs of one group share all their source samples
        rows = np.flatnonzero(number >= 0)
        chosen = aside.held_out([number[rows]], generator=generator)
        if chosen is None:
            return None
        mask = np.zeros(size, dtype=bool)
        mask[rows] = chosen[0]
        masks.append(torch.from_numpy(mask))
    seen, held = _only(known, known.legs, ~masks[0], ~masks[1]), _only(known, large, *masks)
    return aside.divided(lambda: Parts(pair(seen), pair(held)), what="samples")


def both_ends(batches: ImageBatches, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return at least ``n`` pairs, in whole batches: both ends, and what a field sees of their conditions."""
    found, stream = [], iter(batches)
    for _ in range(-(-n // batches.batch_size)):
        batch = next(stream)
        found.append((batch.x0, batch.x1, batch.condition))
    x0, x1, condition = (torch.cat(side) for side in zip(*found, strict=True))
    return x0, x1, condition


def _only(known: Conditioned, legs: Sequence[ConditionLeg], source: Tensor, target: Tensor) -> Conditioned:
    """Return legs of some samples only, a mask over all of either side."""
    some = (replace(leg, source=leg.source[source[leg.source]], target=leg.target[target[leg.target]]) for leg in legs)
    return replace(known, legs=tuple(some))


def _legs(table: ConditionTable, sources: int, groups: Groups | None) -> list[ConditionLeg]:
    found, without, everything = [], [], torch.arange(sources)
    for k, label in enumerate(table.labels):
        rows = table.rows(k)
        if groups is None:
            found.append(ConditionLeg(label, everything, torch.from_numpy(rows), condition=k))
            continue
        for group in np.unique(groups[1][rows]):
            source = torch.from_numpy(np.flatnonzero(groups[0] == group))
            target = torch.from_numpy(rows[groups[1][rows] == group])
            found.append(ConditionLeg(f"{label}, {group}", source, target, condition=k))
            without += [] if len(source) else [str(group)]
    if without:
        raise ValueError(
            f"Groups with target samples and no source samples: {listed(list(dict.fromkeys(without)))}. Samples are "
            "paired within their group. Leave these out of `target`, or choose other groups, `within`."
        )
    return found
