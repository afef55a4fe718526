"""Where mass settles: groups of end points separated by valleys of density, and how certain these are.

End points are clustered many times, each time on one half of them, into more clusters than there can be states. Two
clusters are one state unless the other half, on which they were not chosen, shows a valley between them. The majority
of the halves decides, and the size of the majority is the stability. A continuum has no valleys, and is one state,
unless it is strongly bent.
"""

from dataclasses import dataclass

import numpy as np

from cellflow.nearest import Nearest

LANDMARKS = 1500
"""End points that are clustered: their shares are known to a few per cent."""
HALVES = 20
"""Times that a half is drawn."""
MOST_CLUSTERS = 20
"""Clusters of a half, of which states are made."""
LEAST = 25
"""End points of a half in a cluster on average: fewer show valleys by chance."""
VALLEY = 0.6
"""Density in a valley, as a share of the lower of both peaks: about that of two equal Gaussians which are 3.2 standard
deviations apart."""
SMALLEST = 0.02
"""Share of the mass of a state. Smaller ones are joined to the next."""
STABLE = 0.5
"""Stability of a state below which it is joined to the next: halves do not agree that there are two."""
AROUND = 10
"""Landmarks around a point, whose state it shares."""


@dataclass(frozen=True, eq=False)
class Settled:
    """States in which end points settle.

    Parameters
    ----------
    landmarks
        End points ``(n, d)``.
    state
        The number of the state of each ``(n,)``; the state with the most mass is 0.
    together
        How often two landmarks were in one state ``(n, n)``.
    """

    landmarks: np.ndarray
    state: np.ndarray
    together: np.ndarray

    @property
    def n_states(self) -> int:
        """Number of states."""
        return int(self.state.max()) + 1

    @property
    def mass(self) -> np.ndarray:
        """Share of the landmarks in each state ``(k,)``."""
        return np.bincount(self.state) / len(self.state)

    @property
    def stability(self) -> np.ndarray:
        """How often two end points of a state were in one state, less how often with those of others, ``(k,)``.

        1 where all halves agree; near 0 where they do not tell the state from the others.
        """
        return _stability(self.state, self.together)

    def membership(self, x: np.ndarray) -> np.ndarray:
        """Return how much points ``(m, d)`` belong to each state ``(m, k)``; rows sum to 1.

        It is how often the landmarks around a point were together with those of a state, in proportion.
        """
        member = np.eye(self.n_states)[self.state]
        with_state = self.together @ (member / member.sum(axis=0))
        search = Nearest(self.landmarks, min(AROUND, len(self.landmarks)))
        found = with_state[search.rows(x)].mean(axis=1)
        return np.asarray(found / found.sum(axis=1, keepdims=True))


def settle(x: np.ndarray, rng: np.random.Generator) -> Settled:
    """Return the states in which end points settle.

    Parameters
    ----------
    x
        End points ``(n, d)``, all of the same weight.
    rng
        Draws the halves.

    Source
    ------
    Monti et al. 2003 for the consensus over resampled points; Hennig 2010 for clusters that are merged where no valley
    of density divides them.

    Examples
    --------
    >>> draw = np.random.default_rng(0)
    >>> apart = np.concatenate([draw.normal(size=(200, 2)), draw.normal(size=(100, 2)) + [8, 0]])
    >>> settle(apart, draw).mass.round(2), settle(draw.random((300, 2)), draw).n_states
    (array([0.67, 0.33]), 1)
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    n, votes = len(x), []
    for _ in range(HALVES):
        half = rng.permutation(n) < n // 2
        votes.append(_states_of_half(x, half, int(rng.integers(2**31))))
    together = np.mean([vote[:, None] == vote[None, :] for vote in votes], axis=0)
    if n < 2 or (together > 0.5).all():
        return Settled(x, np.zeros(n, int), together)
    tree = linkage(squareform(1 - together, checks=False), "average")
    return Settled(x, by_size(_joined(fcluster(tree, 0.5, "distance"), together)), together)


def _states_of_half(x: np.ndarray, half: np.ndarray, seed: int) -> np.ndarray:
    """Return the states of all points ``(n,)``, by clusters of one half and the valleys of the other."""
    from sklearn.cluster import KMeans

    k = min(MOST_CLUSTERS, int(half.sum()) // LEAST)
    if k < 2:
        return np.zeros(len(x), int)
    state: np.ndarray = KMeans(k, n_init=1, random_state=seed).fit(x[half]).predict(x)
    between = np.full((k, k), -1.0)
    for a in range(k):
        for b in range(a):
            between[a, b] = between[b, a] = _valley(x, half, state == a, state == b)
    while between.max() >= VALLEY:  # the two between which there is the least of a valley become one
        a, b = divmod(int(between.argmax()), k)
        state[state == b] = a
        between[b], between[:, b] = -1.0, -1.0
        for c in set(np.unique(state)) - {a}:
            between[a, c] = between[c, a] = _valley(x, half, state == a, state == c)
    return state


def _valley(x: np.ndarray, half: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Return the density between two clusters, as a share of the lower of both peaks: 1 where there is no valley.

    Densities are those of the other half, along the line between the centres that the clusters have in this one: it
    was not chosen by these points, so that noise in many dimensions shows no valley.
    """
    start, stop = (x[half & side].mean(axis=0) if (half & side).any() else None for side in (a, b))
    if start is None or stop is None or not (start != stop).any():
        return 1.0
    way = stop - start
    sides = [(x[~half & side] - start) @ way / (way @ way) for side in (a, b)]
    if min(map(len, sides)) < 2:
        return 0.0
    along = np.concatenate(sides)
    # Silverman's rule on the spread within the clusters: of both together it would fill the valley.
    width = 1.06 * max(float(np.mean([side.std() for side in sides])), 1e-9) * len(along) ** -0.2
    grid = np.linspace(-0.25, 1.25, 76)
    density = np.exp(-0.5 * np.square((grid[:, None] - along) / width)).sum(axis=1)
    middle = len(grid) // 2
    left, right = int(density[: middle + 1].argmax()), middle + int(density[middle:].argmax())
    lower = min(density[left], density[right])
    return float(density[left : right + 1].min() / lower) if lower > 0 else 0.0


def _joined(state: np.ndarray, together: np.ndarray) -> np.ndarray:
    """Join states of little mass, and such on which halves do not agree, to those they were most often together with.

    The states are numbered again from 0.
    """
    while True:
        _, state, sizes = np.unique(state, return_inverse=True, return_counts=True)
        if len(sizes) == 1:
            return state
        small = sizes < max(SMALLEST * len(state), 2)
        poor = np.where(small, sizes / len(state) - 1, _stability(state, together))  # the smallest one first
        worst = int(poor.argmin())
        if poor[worst] >= STABLE:
            return state
        near = together[state == worst] @ np.eye(len(sizes))[state] / sizes
        near[:, worst] = -1
        state = np.where(state == worst, near.mean(axis=0).argmax(), state)


def _stability(state: np.ndarray, together: np.ndarray) -> np.ndarray:
    member = np.eye(int(state.max()) + 1)[state]
    sums, sizes = member.T @ together @ member, member.sum(axis=0)
    within, across = np.diag(sums) / sizes**2, sums.sum(axis=1) - np.diag(sums)
    return np.asarray(within - across / (sizes * np.maximum(len(state) - sizes, 1)))


def by_size(state: np.ndarray) -> np.ndarray:
    """Return states numbered from the one with the most points."""
    names, sizes = np.unique(state, return_counts=True)
    rank = {name: place for place, name in enumerate(names[np.argsort(-sizes, kind="stable")])}
    return np.array([rank[name] for name in state])
