"""Protocols by name: what is left out, what is scaled on what, where predictions start, what is scored.

Numbers of two protocols never share a table.
"""

from collections.abc import Callable
from dataclasses import dataclass

from cellflow.errors import unknown


@dataclass(frozen=True)
class Leg:
    """One prediction: from the cells of some snapshots to the time of another.

    Parameters
    ----------
    starts
        Positions of the snapshots that are carried; the prediction is their mixture.
    target
        Position of the snapshot that is predicted.
    """

    starts: tuple[int, ...]
    target: int


@dataclass(frozen=True)
class Fold:
    """One training: what is kept from the method, and what is then predicted."""

    name: str
    held: tuple[int, ...]
    legs: tuple[Leg, ...]


@dataclass(frozen=True)
class Split:
    """Cells of every snapshot that are kept from training and scored, by a fixed seed.

    Parameters
    ----------
    test, validation
        Cells of each snapshot that are scored, and that nobody uses.
    seed
        Seed of the split: the same for every run.
    """

    test: int
    validation: int
    seed: int = 42


@dataclass(frozen=True)
class Protocol:
    """A set of choices under which scores may be compared.

    Parameters
    ----------
    name
        What tables call it.
    about
        What a reader must know, in a sentence or two.
    folds
        From the number of snapshots to the folds.
    least
        Fewest snapshots.
    scaling
        ``"all cells"``: each dimension standardised on every cell, the held-out ones included, where the data set
        is low-dimensional, as published; ``"one scale"``: centre and one scale for all dimensions, from
        training cells alone; ``"training split"``: each dimension standardised on the training split; ``"none"``.
    clock
        ``"index"``: snapshot k is at time k; ``"real"``: the times of the data.
    raw
        Whether scores are in the units of the representation, or in those that the method sees.
    metric
        The score that ranks.
    weighted
        Whether particles carry masses: the metric is then that of the weighted particles.
    split
        Cells kept from training within snapshots.
    """

    name: str
    about: str
    folds: Callable[[int], tuple[Fold, ...]]
    least: int
    scaling: str
    clock: str = "index"
    raw: bool = False
    metric: str = "W1"
    weighted: bool = False
    split: Split | None = None

    def folds_of(self, n_times: int, *, dataset: str) -> tuple[Fold, ...]:
        """Return the folds for so many snapshots.

        Raises
        ------
        ValueError
            When there are too few.
        """
        if n_times < self.least:
            raise ValueError(
                f"Protocol {self.name} needs at least {self.least} snapshots; {dataset} has {n_times}. Choose another "
                "protocol or data set."
            )
        return self.folds(n_times)


def choose(name: str) -> Protocol:
    """Return the protocol of that name.

    Raises
    ------
    ValueError
        With the names, when there is none.

    Examples
    --------
    >>> choose("A").metric
    'W1'
    """
    if str(name) not in PROTOCOLS:
        raise ValueError(unknown("protocol", name, PROTOCOLS))
    return PROTOCOLS[str(name)]


def choose_folds(folds: tuple[Fold, ...], asked: object) -> tuple[Fold, ...]:
    """Return the folds asked for: ``"all"``, the name of one, or a list of names.

    Raises
    ------
    ValueError
        With the names, when there is no such fold.

    Examples
    --------
    >>> [fold.name for fold in choose_folds(_leave_one_out(5), [1, 3])]
    ['1', '3']
    """
    if asked == "all":
        return folds
    known = {fold.name: fold for fold in folds}
    names = [str(name) for name in (asked if isinstance(asked, list | tuple) else [asked])]
    for name in names:
        if name not in known:
            raise ValueError(unknown("fold", name, ["all", *known]))
    return tuple(known[name] for name in names)


def _leave_one_out(n: int) -> tuple[Fold, ...]:
    return tuple(Fold(str(k), (k,), (Leg((k - 1,), k),)) for k in range(1, n - 1))


def _leave_one_out_from_both_sides(n: int) -> tuple[Fold, ...]:
    return tuple(Fold(str(k), (k,), (Leg((k - 1, k + 1), k),)) for k in range(1, n - 1))


def _leave_one_out_from_the_first(n: int) -> tuple[Fold, ...]:
    return tuple(Fold(str(k), (k,), (Leg((0,), k),)) for k in range(1, n - 1))


def _every_other(n: int) -> tuple[Fold, ...]:
    held = tuple(range(1, n - 1, 2))
    return (Fold("odd", held, tuple(Leg((0,), k) for k in held)),)


def _nothing_left_out_one_step(n: int) -> tuple[Fold, ...]:
    return (Fold("none", (), tuple(Leg((k - 1,), k) for k in range(1, n))),)


def _nothing_left_out_from_the_first(n: int) -> tuple[Fold, ...]:
    return (Fold("none", (), tuple(Leg((0,), k) for k in range(1, n))),)


_ALL = (
    Protocol(
        "A",
        "Leave one snapshot out; each dimension standardised on all cells, the held-out ones included, where published "
        "so (5 components; more are left raw); time is the index of the snapshot. All observed cells of the snapshot "
        "before are carried to the held-out one; W1 to all its cells. Source: Tong et al. 2024 (TMLR; AISTATS).",
        _leave_one_out,
        least=3,
        scaling="all cells",
    ),
    Protocol(
        "A-both",
        "Protocol A with another roll-out, which is ours: the snapshot before is carried forward and the one after "
        "backward, and both are mixed, each weighing the more the nearer it is (half and half in index time).",
        _leave_one_out_from_both_sides,
        least=3,
        scaling="all cells",
    ),
    Protocol(
        "clean",
        "Ours, recommended: leave one snapshot out; one centre and one scale, from the training cells alone; real "
        "times; all observed cells of the snapshot before are carried forward; scores in the units of the "
        "representation. Components of a PCA that came with the data have seen all cells.",
        _leave_one_out,
        least=3,
        scaling="one scale",
        clock="real",
        raw=True,
    ),
    Protocol(
        "E",
        "Leave every other snapshot out, and carry the first one through all of them; scaling and time as in A; W2. "
        "Source: the stitching experiment of iJKOnet and OTP-FM.",
        _every_other,
        least=5,
        scaling="all cells",
        metric="W2",
    ),
    Protocol(
        "B-own-split",
        "Nothing left out but cells: 350 test and 200 validation cells of each snapshot, drawn with a seed of our own, "
        "as the published split (NLSB) is not here; standardised on the training split; the test cells of each "
        "snapshot are carried to the next and compared with its test cells. Measures fit and sampling noise.",
        _nothing_left_out_one_step,
        least=2,
        scaling="training split",
        split=Split(test=350, validation=200),
    ),
    Protocol(
        "F",
        "In-sample: all snapshots are seen, and all cells of the first one are carried to each as weighted particles, "
        "each of mass one over their number; W1 of the particles by weight, and the relative error of their mass "
        "against the ratio of cell counts. Real times, raw units. In-sample scores do not rank methods. Source: "
        "the evaluations of TIGON and DeepRUOT.",
        _nothing_left_out_from_the_first,
        least=2,
        scaling="none",
        clock="real",
        raw=True,
        weighted=True,
    ),
    Protocol(
        "F-holdout",
        "As F, with one inner snapshot left out and scored.",
        _leave_one_out_from_the_first,
        least=3,
        scaling="none",
        clock="real",
        raw=True,
        weighted=True,
    ),
)
PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in _ALL}
"""Every protocol, by name."""
