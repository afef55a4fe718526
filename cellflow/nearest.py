"""Nearest neighbours: the one neighbour search of the package."""

from typing import Any

import numpy as np

EXACT = 50_000
"""Points up to which the search is exact, as it is in up to `FEW` dimensions, where a tree is quick for any number."""
FEW = 3
WIDER = 0.3
"""How much farther than the last neighbour found the graph is followed, as a share of that distance."""


class Nearest:
    """Nearest neighbours among some points: exact for up to 50,000 points, approximate by a neighbour graph above.

    The approximate search (Dong, Moses and Li 2011, by pynndescent, with a fixed seed) finds nearly all true
    neighbours; the others are hardly farther; see ``benchmarks/results/scale.md`` for its recall.

    Parameters
    ----------
    points
        The points ``(n, d)``, finite.
    n_neighbors
        How many neighbours to find, from 1 to ``n``.

    Source
    ------
    Dong, Moses and Li 2011, "Efficient k-nearest neighbor graph construction for generic similarity measures".

    Examples
    --------
    >>> import numpy as np
    >>> Nearest(np.array([[0.0], [1.0], [5.0]]), 2).rows(np.array([[0.9], [4.0]])).tolist()
    [[1, 0], [2, 1]]
    """

    def __init__(self, points: np.ndarray, n_neighbors: int) -> None:
        self.n_neighbors = n_neighbors
        self._graph: Any = None
        if len(points) > EXACT and points.shape[1] > FEW:
            from pynndescent import NNDescent

            self._graph = NNDescent(np.asarray(points, dtype=np.float32), random_state=0)
        else:
            from sklearn.neighbors import NearestNeighbors

            self._exact: Any = NearestNeighbors(n_neighbors=n_neighbors).fit(points)

    def rows(self, x: np.ndarray) -> np.ndarray:
        """Return the positions of the nearest points to others ``(m, d)``, the nearest first, ``(m, n_neighbors)``."""
        if self._graph is None:
            return np.asarray(self._exact.kneighbors(x, return_distance=False))
        return self.search(x)[1]

    def search(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the distances to the nearest points, and their positions, ``(m, n_neighbors)`` each."""
        if self._graph is None:
            distance, rows = self._exact.kneighbors(x)
        else:
            rows, distance = self._graph.query(np.asarray(x, dtype=np.float32), k=self.n_neighbors, epsilon=WIDER)
        return np.asarray(distance), np.asarray(rows)
