"""Groups of cells that a neighbouring snapshot lacks: a flow, which reads no labels, carries them into other groups.

States alone do not tell these from cells that change: of blood progenitors (day 2 to 6), cells of a type that was taken
out of the next snapshot are 1.0 to 2.8 times as far from its nearest cells as others are, and those of types that did
arise in between 0.9 to 1.9 times. So labels are needed, and the user must decide between the two.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

NOTABLE = 0.05
"""Share of a snapshot from which a group is notable."""
EXPECTED = 5.0
"""Cells of a group that there would be at its share: none is then no chance (1 in 150)."""


def absent_groups(
    labels: pd.Series, time: np.ndarray, times: Sequence[float], *, weight: np.ndarray | None = None
) -> list[str]:
    """Describe the groups with a notable share that have no cells in the snapshot before or after.

    Parameters
    ----------
    labels
        The label of every cell ``(n,)``; missing for cells without one.
    time
        The time of every cell ``(n,)``.
    times
        The times that a flow was fitted on.
    weight
        The weight of every cell in its snapshot, ``(n,)``; ``None`` if all weigh the same.

    Returns
    -------
    list
        A sentence for each group and interval, the largest share first.

    Examples
    --------
    >>> labels, time = pd.Series(["a", "b"] * 20 + ["b"] * 40), np.repeat([0.0, 3.0], 40)
    >>> absent_groups(labels, time, (0.0, 3.0))[0][:57]
    "Group 'a' (50 % at time 0) has no cells at time 3: the fl"
    """
    weights = np.ones(len(time)) if weight is None else weight
    shares = {at: _shares(labels.to_numpy()[time == at], weights[time == at]) for at in times}
    counts = {at: labels[time == at].value_counts().to_dict() for at in times}
    found: list[tuple[float, str]] = []
    for before, after in pairwise(times):
        for here, there, what in ((before, after, _VANISHED), (after, before, _APPEARED)):
            for group, share in _absent(shares[here], counts[there]):
                said = f"Group {group!r} ({100 * share:.0f} % at time {here:g}) has no cells at time {there:g}: {what}"
                found.append((share, said))
    return [said for _, said in sorted(found, key=lambda one: -one[0])]


_VANISHED = (
    "the flow carries it into other groups. That is right if it became these; if it died, left, or was not sampled, "
    "its fates and velocities are artefacts: leave it out before the fit."
)
_APPEARED = (
    "the flow makes it from other groups. That is right if it arose from these; if it immigrated, or was not sampled "
    "before, its origins are artefacts: leave it out before the fit."
)


def _shares(labels: np.ndarray, weight: np.ndarray) -> dict[str, float]:
    """Return the share of each group of a snapshot; cells without a label count as others."""
    masses = pd.Series(weight).groupby(labels).sum()
    return {str(group): float(mass) for group, mass in (masses / max(weight.sum(), np.finfo(float).tiny)).items()}


def _absent(shares: dict[str, float], counts: dict[str, int]) -> Iterator[tuple[str, float]]:
    """Yield the groups of one snapshot that another, of which the numbers of cells are given, lacks beyond chance."""
    known = sum(counts.values())
    for group, share in shares.items():
        if share >= NOTABLE and share * known >= EXPECTED and not counts.get(group, 0):
            yield group, share
