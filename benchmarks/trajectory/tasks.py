"""A protocol on a data set: what a method may see, where it starts, and what is kept from it."""

from dataclasses import dataclass

import numpy as np

from benchmarks.trajectory.methods import Training
from benchmarks.trajectory.protocols import Fold, Leg, Protocol
from benchmarks.trajectory.sets import Cells, Truths


@dataclass(frozen=True)
class Space:
    """The scaled space in which a method works: ``(x - shift) / scale``, both ``(d,)``."""

    shift: np.ndarray
    scale: np.ndarray

    def enter(self, x: np.ndarray) -> np.ndarray:
        """Return raw states in the scaled space."""
        return (x - self.shift) / self.scale

    def leave(self, x: np.ndarray) -> np.ndarray:
        """Return scaled states in the units of the representation."""
        return x * self.scale + self.shift


@dataclass(frozen=True)
class Task:
    """One fold.

    Parameters
    ----------
    training
        Everything that a method may see.
    observed
        By position of the snapshot, the held-out ones missing: the cells that may be carried from it, in the scaled
        space; its test cells where the protocol splits snapshots.
    truth
        By position of the snapshot: the cells to compare with, in the units of the score. No method sees them.
    times
        Time of every snapshot on the clock of the protocol.
    real
        Real time of every snapshot.
    space
        The scaled space.
    sizes
        Number of cells of every snapshot.
    truths
        What is known of the motion, in the units of the representation. No method sees it.
    protocol, fold
        What it is a task of.
    """

    training: Training
    observed: dict[int, np.ndarray]
    truth: dict[int, np.ndarray]
    times: tuple[float, ...]
    real: tuple[float, ...]
    space: Space
    sizes: tuple[int, ...]
    truths: Truths
    protocol: Protocol
    fold: Fold

    def scored(self, x: np.ndarray) -> np.ndarray:
        """Return states of the scaled space in the units of the score."""
        return self.space.leave(x) if self.protocol.raw else x

    def neighbours(self, target: int) -> tuple[int | None, int | None]:
        """Return the nearest snapshots before and after a target that a method has seen, itself aside."""
        seen = [k for k in range(len(self.times)) if k not in self.fold.held and k != target]
        before, after = [k for k in seen if k < target], [k for k in seen if k > target]
        return (before[-1] if before else None), (after[0] if after else None)


def prepare(cells: Cells, protocol: Protocol, fold: Fold) -> Task:
    """Return the task of one fold.

    Raises
    ------
    ValueError
        When a snapshot has fewer cells than the split of the protocol takes.
    """
    train, test = _divide(cells, protocol)
    seen = [k for k in range(len(cells.times)) if k not in fold.held]
    space = _space(cells, protocol, [train[k] for k in seen])
    times = tuple(map(float, range(len(cells.times)))) if protocol.clock == "index" else cells.times
    scaled = [space.enter(cloud).astype(np.float32) for cloud in train]
    training = Training(tuple(scaled[k] for k in seen), tuple(times[k] for k in seen))
    compared = {leg.target for leg in fold.legs}
    return Task(
        training=training,
        observed={k: space.enter(test[k]).astype(np.float32) for k in seen},
        truth={k: test[k] if protocol.raw else space.enter(test[k]) for k in compared},
        times=times,
        real=cells.times,
        space=space,
        sizes=tuple(map(len, cells.clouds)),
        truths=cells.truths,
        protocol=protocol,
        fold=fold,
    )


def shares(leg: Leg, times: tuple[float, ...]) -> tuple[float, ...]:
    """Return how much each start of a leg counts in the mixture: the more, the nearer it is.

    Examples
    --------
    >>> shares(Leg((0, 2), 1), (0.0, 1.0, 4.0))
    (0.75, 0.25)
    """
    if len(leg.starts) == 1:
        return (1.0,)
    before, after = (times[k] for k in leg.starts)
    fraction = (times[leg.target] - before) / (after - before)
    return 1 - fraction, fraction


def _divide(cells: Cells, protocol: Protocol) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the training cells and the scored cells of every snapshot: all of them, unless there is a split."""
    if protocol.split is None:
        return list(cells.clouds), list(cells.clouds)
    split = protocol.split
    few = min(len(cloud) for cloud in cells.clouds)
    if few < split.test + split.validation + 2:
        raise ValueError(
            f"Protocol {protocol.name} keeps {split.test} + {split.validation} cells of each snapshot; {cells.name} "
            f"has one of {few}. Choose another protocol or data set."
        )
    train, test = [], []
    for k, cloud in enumerate(cells.clouds):
        order = np.random.default_rng([split.seed, k]).permutation(len(cloud))
        test.append(cloud[order[: split.test]])
        train.append(cloud[np.sort(order[split.test + split.validation :])])
    return train, test


def _space(cells: Cells, protocol: Protocol, seen: list[np.ndarray]) -> Space:
    """Return the scaled space of a protocol; ``seen`` are the training cells."""
    width = cells.dims
    if protocol.scaling == "all cells" and width <= cells.standardize_up_to:
        return _standardised(np.concatenate(cells.clouds))
    if protocol.scaling == "training split" and width <= cells.standardize_up_to:
        return _standardised(np.concatenate(seen))
    if protocol.scaling == "one scale":
        each = _standardised(np.concatenate(seen))
        return Space(each.shift, np.full(width, np.sqrt(np.mean(each.scale**2))))
    return Space(np.zeros(width), np.ones(width))


def _standardised(x: np.ndarray) -> Space:
    spread = x.std(axis=0)
    return Space(x.mean(axis=0), np.where(spread > 0, spread, 1.0))
