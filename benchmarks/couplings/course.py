"""What methods see of a data set, and how they say where its cells go."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from anndata import AnnData

from cellflow.couplings import Plan
from cellflow.metrics.persistence import NEIGHBORS

REP, TIME = "X_rep", "time"


@dataclass(frozen=True, eq=False)
class Course:
    """Snapshots: cells ``(n_k, d)``, float64, of each time; and labels of cells, which label-aware costs may see."""

    name: str
    clouds: tuple[np.ndarray, ...]
    times: tuple[float, ...]
    labels: tuple[np.ndarray, ...] | None = None

    @classmethod
    def of(cls, adata: AnnData, name: str, *, time_key: str, rep: str, label: str | None = None) -> "Course":
        """Read cells by time."""
        time = adata.obs[time_key].to_numpy(dtype=float)
        x = np.asarray(adata.X if rep == "X" else adata.obsm[rep], dtype=np.float64).reshape(len(time), -1)
        times = np.unique(time)
        labels = None if label is None else adata.obs[label].astype(str).to_numpy()
        return cls(
            name,
            tuple(x[time == t] for t in times),
            tuple(times.tolist()),
            None if labels is None else tuple(labels[time == t] for t in times),
        )

    def tensor(self, k: int) -> torch.Tensor:
        """Return the cells of a snapshot."""
        return torch.from_numpy(self.clouds[k])

    def adata(self) -> AnnData:
        """Return the cells as a user has them, without labels."""
        import pandas as pd

        time = np.repeat(self.times, [len(cloud) for cloud in self.clouds])
        obs = pd.DataFrame({TIME: time}, index=[f"cell{k}" for k in range(len(time))])
        return AnnData(obs=obs, obsm={REP: np.concatenate(self.clouds).astype(np.float32)})


class Motion(ABC):
    """Where the cells of one snapshot are in a later one, and how many each of them has become."""

    @abstractmethod
    def descendants(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of ``values`` ``(m, k)`` of the later cells over the descendants of each cell, ``(n, k)``.

        In units of the cell itself: of ones it is the number of descendants, up to a factor that all cells share.
        """

    @cached_property
    @abstractmethod
    def landing(self) -> np.ndarray:
        """The mean state of the descendants of each cell ``(n, d)``; its own state where it has none."""

    @cached_property
    @abstractmethod
    def mass(self) -> np.ndarray:
        """The number of descendants of each cell ``(n,)``."""

    @property
    def example(self) -> np.ndarray:
        """One of the descendants of each cell ``(n, d)``; the mean, where there is no noise."""
        return self.landing

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Return the mean of ``values`` ``(m, k)`` over the descendants of each cell; 0 where it has none."""
        found = self.descendants(values)
        mean = np.divide(found, self.mass[:, None], out=np.zeros_like(found), where=self.mass[:, None] > 0)
        return np.asarray(mean)


class Landed(Motion):
    """Each cell moves to one point; what is there is read from the nearest cells of the later snapshot."""

    def __init__(self, landing: np.ndarray, later: np.ndarray, mass: np.ndarray | None = None) -> None:
        self._landing, self._later = np.asarray(landing, np.float64), later
        self._mass = np.ones(len(landing)) if mass is None else np.asarray(mass, np.float64)

    def descendants(self, values: np.ndarray) -> np.ndarray:
        return np.asarray(self.mass[:, None] * smooth(values, self._later, self.landing))

    @cached_property
    def landing(self) -> np.ndarray:
        return self._landing

    @cached_property
    def mass(self) -> np.ndarray:
        return self._mass


class Scattered(Motion):
    """Each cell has many ends, each with its number of descendants."""

    def __init__(self, ends: Sequence[Landed]) -> None:
        self._ends = list(ends)

    def descendants(self, values: np.ndarray) -> np.ndarray:
        return np.asarray(np.mean([end.descendants(values) for end in self._ends], axis=0))

    @cached_property
    def landing(self) -> np.ndarray:
        weighed = np.mean([end.mass[:, None] * end.landing for end in self._ends], axis=0)
        return np.asarray(weighed / self.mass[:, None])

    @cached_property
    def mass(self) -> np.ndarray:
        return np.asarray(np.mean([end.mass for end in self._ends], axis=0))

    @property
    def example(self) -> np.ndarray:
        return self._ends[0].landing


class Coupled(Motion):
    """Plans between neighbouring snapshots, one after the other; what is at a target is read as for `Landed`.

    A pair weighs what its plan and the source give it where it begins, and what its plan and the target give it where
    it ends, as in training: cells grow where both differ. ``way`` is the part of the way to the mean of the descendants
    that each cell goes: less than 1 shrinks the motion.
    """

    def __init__(self, plans: Sequence[Plan], first: np.ndarray, later: np.ndarray, way: float = 1.0) -> None:
        self._plans, self._first, self._later, self._way = list(plans), first, later, way

    def descendants(self, values: np.ndarray) -> np.ndarray:
        if self._way < 1:
            return Landed(self.landing, self._later, self.mass).descendants(values)
        return self._back(smooth(values, self._later, self._later), grow=True)

    @cached_property
    def landing(self) -> np.ndarray:
        mean, alone = self._back(self._later, grow=False), self.mass == 0
        mean[alone] = self._first[alone]
        return np.asarray(self._first + self._way * (mean - self._first))

    @cached_property
    def mass(self) -> np.ndarray:
        return self._back(np.ones((len(self._later), 1)), grow=True)[:, 0]

    def _back(self, values: np.ndarray, *, grow: bool) -> np.ndarray:
        """Return the mean of values of the last snapshot over where each cell is sent; their sum if cells grow."""
        found = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64))
        for plan in reversed(self._plans):
            if grow:
                rows, columns = (side.cpu()[:, None] for side in plan.marginals())
                found = torch.where(columns > 0, found / (len(columns) * columns), 0.0)
                found = plan.barycentric(found, alone=0.0) * rows * len(rows)
            else:
                found = plan.barycentric(found, alone=0.0)
        return np.asarray(found)


def smooth(values: np.ndarray, cells: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the mean of ``values`` ``(m, k)`` over the cells nearest to each point, ``(n, k)``."""
    from sklearn.neighbors import NearestNeighbors

    nearest = NearestNeighbors(n_neighbors=min(NEIGHBORS, len(cells))).fit(cells)
    return np.asarray(values[nearest.kneighbors(points, return_distance=False)].mean(axis=1))


class Fitted(Protocol):
    """A method that has seen the snapshots."""

    def motion(self, first: int, last: int) -> Motion:
        """Return where the cells of snapshot ``first`` are in snapshot ``last``."""


class Method(Protocol):
    """A way to find out where cells go."""

    def fit(self, course: Course, *, seed: int) -> Fitted:
        """Look at the snapshots."""
