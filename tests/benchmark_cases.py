"""Cells, methods and jobs that the tests of the trajectory benchmark share."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

import cellflow as cf
from benchmarks.trajectory.methods import Flow, Pace, Particles, RollOut
from benchmarks.trajectory.run import Job
from benchmarks.trajectory.sets import Cells
from benchmarks.trajectory.tasks import choose

TIMES = (0.0, 1.0, 3.0, 4.0, 8.0)


def make_cells(n=40, dim=3, times=TIMES, growing=False):
    """Snapshots that move at (2, 0, ..., 0) per unit of real time, stretched differently in every dimension."""
    draw = np.random.default_rng(0)
    sizes = [n + (10 * k if growing else 0) for k in range(len(times))]
    clouds = [draw.normal(size=(size, dim)) * np.arange(1, dim + 1) + 5 for size in sizes]
    for cloud, time in zip(clouds, times, strict=True):
        cloud[:, 0] += 2 * time
    return Cells("toy", tuple(clouds), times, standardize_up_to=5)


@dataclass(frozen=True)
class Drift:
    """Moves cells by the difference of mean states, which it interpolates between training snapshots."""

    growth: float = 0.0

    def fit(self, training, *, seed):
        means = np.array([cloud.mean(axis=0) for cloud in training.clouds])

        def mean(time):
            return np.array([np.interp(time, training.times, column) for column in means.T])

        def carry(x, start, stop):
            weight = np.full(len(x), np.exp(self.growth * (stop - start)) / len(x)) if self.growth else None
            return Particles(x + (mean(stop) - mean(start)), weight, 7)

        return RollOut(carry, {"plan_s": 0.5, "seed": seed})


@dataclass(frozen=True)
class Broken:
    """A method that must not be fitted."""

    def fit(self, training, *, seed):
        pytest.fail("this run is done already")


def job(tmp_path, protocol="A", cells=None, method=None, **options):
    given = {"name": "drift", "settings": {"speed": 1}, "seeds": 1, "out": tmp_path} | options
    return Job(choose(protocol), cells or make_cells(), method or Drift(), **given)


def measured(rows):
    """The rows of a method, without those of the baselines."""
    return [row for row in rows if row["kind"] == "measured"]


def quiet(_):
    """Say nothing."""


def assignment(x, y):
    """W1 between equally many points, by another solver."""
    costs = cdist(x, y)
    return costs[linear_sum_assignment(costs)].mean()


@dataclass(frozen=True)
class Shift:
    """Moves every cell at one velocity, and grows it at ``growth(x, time)``."""

    speed: float = 0.5
    growth: object = None

    def fit(self, training, *, seed):
        def carry(x, start, stop):
            return Particles(x + self.speed * (stop - start), None if self.growth is None else np.ones(len(x)))

        def rates(x, time):
            return Pace(np.full_like(x, self.speed), None if self.growth is None else self.growth(x, time))

        return RollOut(carry, rates=rates)


def perturbed(cells, k):
    """The same cells, those of one snapshot thrown far away."""
    clouds = list(cells.clouds)
    clouds[k] = clouds[k] * 3 + 100
    return replace(cells, clouds=tuple(clouds))


def quick_flow():
    solver = cf.integrate.Fixed("euler", steps=2)
    return Flow(partial(cf.SnapshotFlow, steps=3, batch_size=8, device="cpu"), solver=solver)
