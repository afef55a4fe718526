"""Protocols by name: each is a set of choices under which scores may be compared; ``protocols.yaml`` has them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cellflow.errors import unknown


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
class Split:
    """Cells of every snapshot that are kept from training: those that are scored, and those that nobody uses."""

    test: int
    validation: int
    seed: int = 42  # the same for every run


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
    split: Split | None = None

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


def _made(name: str, settings: Mapping[str, Any]) -> Protocol:
    split = Split(**settings["split"]) if "split" in settings else None
    return Protocol(**{**settings, "name": name, "split": split})


PROTOCOLS: dict[str, Protocol] = {
    name: _made(name, settings)
    for name, settings in yaml.safe_load(Path(__file__).with_name("protocols.yaml").read_text()).items()
}
"""Every protocol, by name."""
