"""Against memorising points: which of them are held out, and how far paths are blurred."""

import logging
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from cellflow.couplings.problem import MOST_BYTES
from cellflow.errors import ConvergenceError

log = logging.getLogger(__name__)
T = TypeVar("T")

FEW = 10_000
"""Number of points from which a network of the usual size does not memorise them in the usual number of steps."""
TENTH, LEAST, THIRD = 0.1, 10, 1 / 3
"""Share of each snapshot that is held out; at least so many points, but at most that share."""
FEWEST = 6
"""Points of a group of which some are held out: of fewer, too little would be left on either side."""
NEAR = 0.5
"""How far paths are blurred, in distances to the nearest neighbour."""
COMPARED = 1000
"""Points of each snapshot whose nearest neighbour is looked for."""


def is_few(regularize: bool | str, n: int) -> bool:
    """Return whether ``n`` points are few enough to be memorised, unless a setting decides.

    Raises
    ------
    ValueError
        When the setting is neither ``"auto"``, nor True, nor False.

    Examples
    --------
    >>> is_few("auto", 800), is_few("auto", 80_000), is_few(True, 80_000)
    (True, False, True)
    """
    if regularize != "auto" and not isinstance(regularize, bool):
        raise ValueError(f"Expected `regularize` to be 'auto', True or False; found {regularize!r}.")
    return n < FEW if isinstance(regularize, str) else regularize


def held_out(groups: Sequence[np.ndarray], *, generator: torch.Generator) -> list[np.ndarray] | None:
    """Choose random points of each snapshot to hold out: a tenth, or up to a third if points are few.

    Parameters
    ----------
    groups
        The group of each point of each snapshot, ``(n_k,)`` each: the same fraction of each is held out.
    generator
        Chooses.

    Returns
    -------
    masks
        Whether each point is held out, ``(n_k,)`` each; ``None`` where a group has fewer than six points in a snapshot,
        so that too little would be left on either side.

    Examples
    --------
    >>> import cellflow as cf
    >>> masks = held_out([np.zeros(200), np.zeros(30), np.zeros(15)], generator=cf.generator(seed=0))
    >>> [int(mask.sum()) for mask in masks]
    [20, 10, 5]
    """
    masks = []
    for names in groups:
        mask, (found, counts) = np.zeros(len(names), dtype=bool), np.unique(names, return_counts=True)
        if counts.min() < FEWEST:
            return None
        share = min(max(TENTH, LEAST / len(names)), THIRD)
        for name, count in zip(found, counts, strict=True):
            chosen = torch.randperm(int(count), generator=generator)[: max(2, round(share * count))]
            mask[np.flatnonzero(names == name)[chosen.numpy()]] = True
        masks.append(mask)
    return masks


def divided(make: Callable[[], T], *, what: str) -> T | None:
    """Return the pairs of both parts, or ``None``, with a logged warning, if a part cannot be paired.

    Parameters
    ----------
    make
        Pairs both parts.
    what
        What is held out, as a plural noun.

    Examples
    --------
    >>> divided(lambda: "batches", what="cells")
    'batches'
    """
    try:
        return make()
    except (ConvergenceError, ValueError) as error:
        log.warning("No %s are held out, since some of them cannot be paired: %s", what, error)
        return None


def blur(clouds: Sequence[Tensor]) -> float:
    """Return the standard deviation, per dimension, by which the paths of few points are blurred.

    Points are moved by about half of the typical distance to their nearest neighbour in the same snapshot: paths are
    blurred if points are sparse, as in many dimensions, and hardly if they are dense.

    Parameters
    ----------
    clouds
        Points of each snapshot, ``(n_k, d)`` each.

    Examples
    --------
    >>> blur([torch.arange(9.0)[:, None], torch.arange(9.0)[:, None]])
    0.5
    """
    found = []
    for cloud in clouds:
        points = cloud.flatten(1)
        some = torch.linspace(
            0, len(points) - 1, min(len(points), COMPARED), dtype=torch.float32, device=points.device
        ).long()
        found.append(_to_the_nearest(points, some))
    return NEAR * float(torch.cat(found).median()) / math.sqrt(clouds[0].flatten(1).shape[1])


def _to_the_nearest(points: Tensor, some: Tensor) -> Tensor:
    """Return the distance from some of the points ``(k,)``, by row, to the nearest other one, ``(k,)``."""
    here, rows = points[some].double(), max(1, MOST_BYTES // (8 * len(some)))
    nearest = torch.full((len(some),), torch.inf, dtype=torch.float64, device=points.device)
    for start in range(0, len(points), rows):
        apart = torch.cdist(here, points[start : start + rows].double())
        own = some - start
        inside = torch.nonzero((own >= 0) & (own < apart.shape[1])).flatten()
        apart[inside, own[inside]] = torch.inf
        nearest = torch.minimum(nearest, apart.min(dim=1).values)
    return nearest
