"""How many points are matched at once, decided by their numbers: the same on every machine.

With ``ot_batch_size="auto"`` there is one plan over two whole sets as long as it takes little memory and a few minutes.
Beyond that, a coupling with a large-scale replacement, as `cellflow.couplings.Hierarchical` is for `Exact`, is replaced
by it: its time is linear in the points. Other couplings match random parts of both sets, super-batches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from cellflow.couplings import Coupling
from cellflow.couplings.coupling import of_points
from cellflow.machine import usable_memory

if TYPE_CHECKING:
    from cellflow.pairing.rows import RowMatching

WHOLE_MEMORY = 2_880_000_000
"""Most bytes for one plan over two whole sets."""
POINTS_MEMORY = 3 * WHOLE_MEMORY
"""The same by a coupling whose memory grows with the points alone, 4.5 million of both sets."""
WHOLE_PAIRS = 1_000_000_000
"""Most pairs of points among which one plan over two whole sets is solved, 31,000 with 31,000, a minute or two:
`Exact` takes 130 s for 50,000 with 55,000 points in 10 dimensions, 22 s for 16,000 with 17,600 in 50;
`UnbalancedSinkhorn` 26 s for 20,000 with 22,000 in 50, and twice that for each pair beyond 540 million."""
READ_LIMIT = 2**28
"""Most numbers that are read for one plan over two whole sets, such as pixels: 2 GB in the precision of the costs."""
LEAST_MATCHED = 512
"""Least points of each set in a super-batch: 20 ms to solve; twice the training batch where that is more."""
GROWING = 2048
"""The same where pairs carry masses. Of 5,000 with 5,500 points in 50 dimensions, whose log rates have a standard
deviation of .47, mean log rates over super-batches of 256 and of 512 differ from those of one plan by .30 and .21, and
costs by 13 and 7 %: both fall about as the root of the size grows. Solving one takes time by the square of its size,
and it serves steps by its size, so that far larger ones would keep the training waiting."""


@dataclass(frozen=True)
class Matched:
    """How two sets were matched, to be shown.

    Parameters
    ----------
    sizes
        Points of both sets.
    coupling
        The coupling, with its settings.
    at_once
        Points of each set in a super-batch; ``None`` for one plan over both whole sets.
    keeps_mass
        Whether every point keeps its weight, so that no point gains on another.
    instead_of
        The coupling that was requested, if another replaces it.

    Examples
    --------
    >>> print(Matched((30000, 40000), "Hierarchical()", None, True, "Exact()"))
    30,000 with 40,000 points: one plan (Hierarchical, instead of Exact)
    >>> print(Matched((30000, 40000), "UnbalancedSinkhorn()", 512, False))
    30,000 with 40,000 points: super-batches of 512 (UnbalancedSinkhorn)
    """

    sizes: tuple[int, int]
    coupling: str
    at_once: int | None
    keeps_mass: bool
    instead_of: str | None = None

    def __str__(self) -> str:
        n, m = self.sizes
        how = "one plan" if self.at_once is None else f"super-batches of {self.at_once:,}"
        name, asked = (text and text.partition("(")[0] for text in (self.coupling, self.instead_of))
        return f"{n:,} with {m:,} points: {how} ({name}{f', instead of {asked}' if asked else ''})"


def check_matched_at_once(ot_batch_size: int | str) -> None:
    """Raise unless it is ``"whole"``, ``"auto"``, or a number of points that can be matched.

    Examples
    --------
    >>> check_matched_at_once("all")
    Traceback (most recent call last):
    ValueError: Expected ot_batch_size to be 'auto', 'whole' or a number; found 'all'.
    """
    if isinstance(ot_batch_size, str):
        if ot_batch_size not in ("auto", "whole"):
            raise ValueError(f"Expected ot_batch_size to be 'auto', 'whole' or a number; found {ot_batch_size!r}.")
    elif ot_batch_size < 2:
        raise ValueError(f"Expected ot_batch_size >= 2; found {ot_batch_size}.")


def least_matched(points: int, *, grows: bool) -> int:
    """Return how many points of each set to match at once in super-batches, given how many a step uses.

    Examples
    --------
    >>> least_matched(100, grows=False), least_matched(100, grows=True)
    (512, 2048)
    """
    return max(GROWING if grows else LEAST_MATCHED, points)


class Choice(NamedTuple):
    """How two sets are matched: the matching, the points in a super-batch or ``None``, and the coupling asked for."""

    matching: "RowMatching"
    at_once: int | None
    asked: Coupling

    @property
    def matched(self) -> Matched:
        """What is shown of it."""
        coupling = self.matching.coupling
        kept = coupling.keeps_mass and self.matching.groups is None
        other = None if coupling is self.asked else repr(self.asked)
        return Matched(self.matching.sizes, repr(coupling), self.at_once, kept, other)


def choose(
    matchings: "Sequence[RowMatching]", ot_batch_size: int | str, sizes: Sequence[int], *, plans: int = 1
) -> list[Choice]:
    """Return for each of several pairs of sets how it is matched.

    Parameters
    ----------
    matchings
        How the sets are matched by default.
    ot_batch_size
        The setting: ``"whole"``, ``"auto"`` or a number.
    sizes
        Points in the super-batches of each, where they are chosen.
    plans
        All plans over whole sets together take no more than so many of the largest would; the smallest come first.

    Raises
    ------
    ValueError
        When a plan over whole sets is requested, or required by the coupling, but cannot fit into memory.
    """
    check_matched_at_once(ot_batch_size)
    found: dict[int, Choice] = {}
    memory, pairs = float(plans), plans * WHOLE_PAIRS
    for number in sorted(range(len(matchings)), key=lambda number: matchings[number].load):
        matching = matchings[number]
        asked = matching.coupling
        found[number] = Choice(matching, sizes[number] if isinstance(ot_batch_size, str) else ot_batch_size, asked)
        if ot_batch_size == "whole" or not asked.divisible:
            check_memory(matching)
            found[number] = Choice(matching, None, asked)
        elif ot_batch_size == "auto":
            for one in (matching, *matching.at_scale()):
                needed, among = one.load[0] / most_memory(one.coupling), one.load[1]
                if one.fits() and needed <= memory and among <= pairs:
                    memory, pairs = memory - needed, pairs - among
                    found[number] = Choice(one, None, asked)
                    break
    return [found[number] for number in range(len(matchings))]


def most_memory(coupling: Coupling) -> int:
    """Return the maximum number of bytes that one plan of a coupling may take.

    Examples
    --------
    >>> from cellflow.couplings import Exact, Hierarchical
    >>> most_memory(Hierarchical()) > most_memory(Exact())
    True
    """
    return POINTS_MEMORY if of_points(coupling) else WHOLE_MEMORY


def check_memory(matching: "RowMatching") -> None:
    """Raise if one plan over both whole sets cannot fit into the memory of this machine."""
    needed, there = matching.load[0] + 8 * matching.read, usable_memory()
    if needed > there:
        n, m = matching.sizes
        cure = "Set `ot_batch_size='auto'`."
        if not matching.coupling.divisible:
            cure = "It cannot be matched in parts: use fewer points."
        elif not of_points(matching.coupling):
            cure = (
                "Set `ot_batch_size='auto'`, or use `coupling=cf.couplings.Hierarchical()`, whose memory is linear in "
                "the number of points."
            )
        raise ValueError(
            f"One plan between {n:,} and {m:,} points by {matching.coupling} would take {needed / 1e9:,.1f} GB of "
            f"memory; this process may use {there / 1e9:,.1f} GB. {cure}"
        )
