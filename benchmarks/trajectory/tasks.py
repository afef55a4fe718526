"""A protocol on a data set: what a method may see, where it starts, and what is kept from it.

Each protocol is a set of choices under which scores may be compared; ``protocols.yaml`` has them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from benchmarks.trajectory.methods import Training
from benchmarks.trajectory.sets import Cells, Truths
from cellflow.errors import unknown

SPLIT_SEED = 42  # of every run


@dataclass(frozen=True)
class Leg:
    """One prediction: snapshots ``starts`` are carried to the time of snapshot ``target``, and mixed."""

    starts: tuple[int, ...]
    target: int


@dataclass(frozen=True)
class Fold:
    """One training: the snapshots that are kept from the method, and what is then predicted."""

    name: str
    held: tuple[int, ...]
    legs: tuple[Leg, ...]


@dataclass(frozen=True)
class Protocol:
    """A set of choices under which scores may be compared."""

    name: str
    about: str  # what a reader must know
    held: str  # which inner snapshots are left out: "each" in turn, the "odd" ones at once, or "none"
    start: str  # which snapshots are carried: the "previous" one, "both" neighbours, or the "first" of all
    least: int  # fewest snapshots
    # Each dimension standardised on "all cells", the held-out ones included, where the data set is low-dimensional, as
    # published, or on the "training split"; "one scale" and centre for all dimensions, from training cells; "none".
    scaling: str
    clock: str = "index"  # snapshot k is at time k; "real": the times of the data
    raw: bool = False  # whether scores are in the units of the representation, or in those that the method sees
    metric: str = "W1"  # the score that ranks
    weighted: bool = False  # whether particles carry masses: the metric is then that of the weighted particles
    # Cells of every snapshot that are kept from training: "test", that are scored, and "validation", that nobody uses;
    # numbers, or fractions below 1.
    split: Mapping[str, float] | None = None

    def folds_of(self, n_times: int, *, dataset: str) -> tuple[Fold, ...]:
        """Return the folds for so many snapshots."""
        if n_times < self.least:
            raise ValueError(
                f"Protocol {self.name} needs at least {self.least} snapshots; {dataset} has {n_times}. Choose another "
                "protocol or data set."
            )
        inner = range(1, n_times - 1)
        if self.held == "each":
            return tuple(Fold(str(k), (k,), self._legs((k,))) for k in inner)
        if self.held == "odd":
            return (Fold("odd", tuple(inner[::2]), self._legs(inner[::2])),)
        return (Fold("none", (), self._legs(range(1, n_times))),)

    def _legs(self, targets: range | tuple[int, ...]) -> tuple[Leg, ...]:
        return tuple(Leg({"previous": (k - 1,), "both": (k - 1, k + 1), "first": (0,)}[self.start], k) for k in targets)


def choose(name: str) -> Protocol:
    """Return the protocol of that name."""
    if str(name) not in PROTOCOLS:
        raise ValueError(unknown("protocol", name, PROTOCOLS))
    return PROTOCOLS[str(name)]


def choose_folds(folds: tuple[Fold, ...], asked: object) -> tuple[Fold, ...]:
    """Return the folds asked for: ``"all"``, the name of one, or a list of names."""
    if asked == "all":
        return folds
    known = {fold.name: fold for fold in folds}
    names = [str(name) for name in (asked if isinstance(asked, list | tuple) else [asked])]
    for name in names:
        if name not in known:
            raise ValueError(unknown("fold", name, ["all", *known]))
    return tuple(known[name] for name in names)


PROTOCOLS: dict[str, Protocol] = {
    name: Protocol(name, **settings)
    for name, settings in yaml.safe_load(Path(__file__).with_name("protocols.yaml").read_text()).items()
}


@dataclass(frozen=True)
class Space:
    """The scaled space in which a method works: ``(x - shift) / scale``, both ``(d,)``."""

    shift: np.ndarray
    scale: np.ndarray

    def enter(self, x: np.ndarray) -> np.ndarray:
        return np.asarray((x - self.shift) / self.scale)

    def leave(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(x * self.scale + self.shift)


@dataclass(frozen=True)
class Task:
    """One fold. Snapshots go by their position; no method sees more than ``training``."""

    training: Training
    observed: dict[int, np.ndarray]  # the cells that may be carried from each snapshot that is not held out, scaled
    truth: dict[int, np.ndarray]  # the cells to compare with, in the units of the score
    times: tuple[float, ...]  # of all snapshots, on the clock of the protocol
    real: tuple[float, ...]  # their real times
    space: Space
    sizes: tuple[int, ...]  # cells of every snapshot
    truths: Truths
    protocol: Protocol
    fold: Fold

    def trained_on(self, k: int) -> np.ndarray:
        """Return as many cells of a snapshot that were trained on as are carried from it, in random order."""
        seen = [number for number in range(len(self.times)) if number not in self.fold.held]
        cloud = self.training.clouds[seen.index(k)]
        return cloud[np.random.default_rng([SPLIT_SEED, k]).permutation(len(cloud))[: len(self.observed[k])]]

    def scored(self, x: np.ndarray) -> np.ndarray:
        """Return states of the scaled space in the units of the score."""
        return self.space.leave(x) if self.protocol.raw else x

    def neighbours(self, target: int) -> tuple[int | None, int | None]:
        """Return the nearest snapshots before and after a target that a method has seen, itself aside."""
        seen = [k for k in range(len(self.times)) if k not in self.fold.held and k != target]
        return max((k for k in seen if k < target), default=None), min((k for k in seen if k > target), default=None)


def prepare(cells: Cells, protocol: Protocol, fold: Fold) -> Task:
    """Return the task of one fold."""
    train, test = _divide(cells, protocol)
    seen = [k for k in range(len(cells.times)) if k not in fold.held]
    space = _space(cells, protocol, np.concatenate([train[k] for k in seen]))
    times = tuple(map(float, range(len(cells.times)))) if protocol.clock == "index" else cells.times
    scaled = tuple(space.enter(train[k]).astype(np.float32) for k in seen)
    training = Training(scaled, tuple(times[k] for k in seen))
    observed = {k: space.enter(test[k]).astype(np.float32) for k in seen}
    truth = {k: test[k] if protocol.raw else space.enter(test[k]) for k in {leg.target for leg in fold.legs}}
    sizes = tuple(map(len, cells.clouds))
    return Task(training, observed, truth, times, cells.times, space, sizes, cells.truths, protocol, fold)


def tasks_of(cells: Cells, protocol: Protocol) -> list[Task]:
    """Return the tasks of all folds."""
    return [prepare(cells, protocol, fold) for fold in protocol.folds_of(len(cells.times), dataset=cells.name)]


def shares(leg: Leg, times: tuple[float, ...]) -> tuple[float, ...]:
    """Return how much each start of a leg counts in the mixture: the more, the nearer it is."""
    if len(leg.starts) == 1:
        return (1.0,)
    before, after = (times[k] for k in leg.starts)
    fraction = (times[leg.target] - before) / (after - before)
    return 1 - fraction, fraction


def _divide(cells: Cells, protocol: Protocol) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the training cells and the scored cells of every snapshot: all of them, unless there is a split."""
    if protocol.split is None:
        return list(cells.clouds), list(cells.clouds)
    asked, train, test = (protocol.split["test"], protocol.split["validation"]), [], []
    for k, cloud in enumerate(cells.clouds):
        scored, spare = (int(part * len(cloud) if part < 1 else part) for part in asked)
        if len(cloud) < scored + spare + 2 or not scored:
            raise ValueError(
                f"Protocol {protocol.name} keeps {asked[0]} + {asked[1]} cells of each snapshot; {cells.name} has one "
                f"of {len(cloud)}. Choose another protocol or data set."
            )
        order = np.random.default_rng([SPLIT_SEED, k]).permutation(len(cloud))
        train.append(cloud[np.sort(order[scored + spare :])])
        test.append(cloud[order[:scored]])
    return train, test


def _space(cells: Cells, protocol: Protocol, seen: np.ndarray) -> Space:
    """Return the scaled space of a protocol; ``seen`` are the training cells."""
    few = cells.dims <= cells.standardize_up_to
    if protocol.scaling == "none" or not (few or protocol.scaling == "one scale"):
        return Space(np.zeros(cells.dims), np.ones(cells.dims))
    x = np.concatenate(cells.clouds) if protocol.scaling == "all cells" else seen
    scale = np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0)
    if protocol.scaling == "one scale":
        scale = np.full(cells.dims, np.sqrt(np.mean(scale**2)))
    return Space(x.mean(axis=0), scale)
