"""The population at each snapshot: its size, and which of its cells are held out."""

import warnings
from collections.abc import Callable, Mapping
from itertools import pairwise
from numbers import Real

import numpy as np
import pandas as pd
import torch

from cellflow.cells.clock import distinct_times
from cellflow.cells.snapshots import Snapshots
from cellflow.couplings import COUPLINGS, Coupling
from cellflow.pairing import PairedBatches, aside
from cellflow.training.confirmed import Leg
from cellflow.training.search import Parts

AUTO = "auto"
"""The setting by which growth is learned where the coupling is the one of this name."""
COUNTS = "counts"
"""Name of the masses that are the numbers of cells."""

LOOKED_THROUGH = 40
"""Batches of all cells; growth is compared with those pairs in them that leave held-out cells, about a tenth."""

Sizes = tuple[float, ...]


def population_sizes(masses: str | Mapping[float, float] | pd.Series | None, snapshots: Snapshots) -> Sizes:
    """Return the size of the population at each snapshot, relative to the first.

    Parameters
    ----------
    masses
        ``None`` for equal sizes, ``"counts"`` for the numbers of cells or the sums of their weights, or a mapping from
        time to size; a Series indexed by time works too, such as ``adata.obs["day"].value_counts()``.
    snapshots
        The cells.

    Raises
    ------
    ValueError
        When ``masses`` is of another form, a time has no size, or a size is not finite and above 0.

    Examples
    --------
    >>> from cellflow.cells.snapshots import read_snapshots
    >>> import cellflow as cf
    >>> adata = cf.datasets.branching((100, 250), times=(0, 2))
    >>> population_sizes("counts", read_snapshots(adata, time_key="time", rep="X_latent"))
    (1.0, 2.5)
    """
    times = snapshots.clock.times
    if masses is None:
        return (1.0,) * len(times)
    counted = isinstance(masses, str) and masses == COUNTS
    if counted and snapshots.conditions is not None:
        raise ValueError(
            "With `conditions`, numbers of cells are not population sizes: untreated cells are shared by many "
            "conditions. Give "
            "`masses` as a mapping from time to size, or leave it out."
        )
    sizes = _counts(snapshots) if counted else _given(masses, snapshots)
    if not all(0 < size < np.inf for size in sizes):
        raise ValueError(f"Expected finite sizes above 0 in `masses`; found {sizes}.")
    return tuple(size / sizes[0] for size in sizes)


def learns_growth(setting: bool | str, coupling: Coupling, snapshots: Snapshots) -> bool:
    """Return whether growth is learned.

    Parameters
    ----------
    setting
        Whether to learn it, or ``"auto"``: with the coupling ``"auto"``, if it is known for all cells. A group of cells
        that a neighbouring snapshot lacks has none.
    coupling
        How cells are matched.
    snapshots
        The cells.

    Examples
    --------
    >>> from cellflow.cells.snapshots import read_snapshots
    >>> import cellflow as cf
    >>> snapshots = read_snapshots(cf.datasets.branching(), time_key="time", rep="X_latent")
    >>> [learns_growth("auto", cf.couplings.resolve(name), snapshots) for name in ("auto", "exact")]
    [True, False]
    """
    if setting != AUTO:
        return bool(setting)
    if snapshots.conditions is not None:  # whose groups have growth of their own
        return coupling == COUPLINGS[AUTO]
    groups = [] if snapshots.groups is None else [set(values) for values in snapshots.each(snapshots.groups)]
    return coupling == COUPLINGS[AUTO] and all(before == after for before, after in pairwise(groups))


def hold_out(
    snapshots: Snapshots,
    pair: Callable[[Snapshots], PairedBatches],
    *,
    generator: torch.Generator,
    whole: PairedBatches | None = None,
) -> Parts | None:
    """Split the cells of every snapshot and group into those that a search sees and those that it does not.

    Parameters
    ----------
    snapshots
        All cells.
    pair
        Pairs the cells of one part.
    generator
        Chooses the cells.
    whole
        Pairs of all cells, if they grow.

    Returns
    -------
    parts
        Batches of either part, and the measure of growth; ``None`` if there are too few cells, see
        `cellflow.pairing.aside.held_out`, or a part has no plan.

    Examples
    --------
    >>> from cellflow.cells.snapshots import read_snapshots
    >>> import cellflow as cf
    >>> snapshots = read_snapshots(cf.datasets.hsmm(), time_key="hours", rep="X")
    >>> hold_out(snapshots, lambda part: len(part.x), generator=cf.generator(seed=0))
    Parts(seen=231, held=40, leaving=(), legs=())
    """
    groups = np.zeros(len(snapshots.x)) if snapshots.groups is None else snapshots.groups
    masks = aside.held_out(snapshots.each(groups), generator=generator)
    if masks is None:
        return None
    held = np.zeros(len(snapshots.x), dtype=bool)
    for time, mask in zip(snapshots.clock.times, masks, strict=True):
        held[snapshots.at(time)] = mask
    with warnings.catch_warnings():  # the fit itself has warned of groups that a snapshot lacks
        warnings.simplefilter("ignore")
        parts = aside.divided(lambda: Parts(pair(snapshots.take(~held)), pair(snapshots.take(held))), what="cells")
    if parts is None or whole is None:
        return parts
    leaving = whole.leaving(torch.from_numpy(np.concatenate(masks)), batches=LOOKED_THROUGH)
    return parts._replace(leaving=[leaving], legs=_legs(snapshots.take(held)))


def check_growing(coupling: Coupling, sizes: Sizes) -> None:
    """Refuse to learn a growth that is 0 everywhere.

    Raises
    ------
    ValueError
        When the coupling keeps the mass of every cell, and sizes are equal.
    """
    if coupling.keeps_mass and len(set(sizes)) == 1:
        raise ValueError(
            f"{type(coupling).__name__} keeps the mass of every cell and `masses` are equal: growth is 0 everywhere. "
            "Take `coupling=cf.couplings.UnbalancedSinkhorn()`, give the population size at each time by `masses`, or "
            "the dividing cells by `prior_key`, or leave `growth` out."
        )


def _legs(cells: Snapshots) -> list[Leg]:
    """Return the cells of each two neighbouring snapshots."""
    times = [cells.clock.model(time) for time in cells.clock.times]
    clouds = [torch.from_numpy(cloud) for cloud in cells.clouds()]
    known = [None] * len(times) if cells.weights is None else [*map(torch.as_tensor, cells.each(cells.weights))]
    return [Leg(*pairs) for pairs in zip(clouds, clouds[1:], times, times[1:], known, known[1:], strict=False)]


def _counts(snapshots: Snapshots) -> list[float]:
    weights = np.ones(len(snapshots.x)) if snapshots.weights is None else snapshots.weights
    return [float(part.sum()) for part in snapshots.each(weights)]


def _given(masses: object, snapshots: Snapshots) -> list[float]:
    times = snapshots.clock.times
    if isinstance(masses, pd.Series):  # by its index, in any order, which may name a time twice
        keys, sizes = list(masses.index), list(masses)
    elif isinstance(masses, Mapping):
        keys, sizes = list(masses), list(masses.values())
    else:
        found = repr(masses) if isinstance(masses, str) else type(masses).__name__
        raise ValueError(
            f"Expected `masses` to be None, {COUNTS!r} or a mapping from time to size; found {found}. "
            f"Give one such as {{{times[0]:g}: 1.0, {times[1]:g}: 1.5}}."
        )
    known_times = distinct_times(keys, what="`masses`", none=True, like=snapshots.labels)
    known = dict(zip(known_times.tolist(), sizes, strict=True))
    missing = [time for time in times if time not in known]
    if missing:
        raise ValueError(
            f"No size at time {', '.join(f'{time:g}' for time in missing)} in `masses`; it has "
            f"{', '.join(f'{time:g}' for time in known)}. Give one for every snapshot."
        )
    strange = [known[time] for time in times if not isinstance(known[time], Real | np.number)]
    if strange:
        raise ValueError(f"Expected numbers as sizes in `masses`; found {strange[0]!r}.")
    return [float(known[time]) for time in times]
