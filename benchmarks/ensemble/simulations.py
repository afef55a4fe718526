"""Simulated snapshots whose velocities, growth, fates and means are known, and what a flow says of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import anndata
import numpy as np
import pandas as pd

import cellflow as cf
from cellflow.tl.intervals import t_interval, t_quantile

CELLS, MEMBERS, LEVEL = 300, 5, 0.9
"""Cells of a snapshot, members of an ensemble, and the coverage that intervals are made for."""
SAMPLES = 100
"""Simulations of each cell."""
QUICK: dict[str, Any] = {"rep": "X_latent", "steps": 750, "batch_size": 64, "device": "cpu"}


class Found(NamedTuple):
    """A quantity at some points of one simulation, ``(k,)`` each.

    ``error`` is what a flow says less what is true, ``deviation`` the standard deviation of what members say, and
    ``inside`` whether the truth is in the interval.
    """

    quantity: str
    error: np.ndarray
    deviation: np.ndarray
    inside: np.ndarray


@dataclass(frozen=True)
class Simulation:
    """Snapshots that are drawn from a known process.

    Parameters
    ----------
    draw
        From random numbers to cells.
    settings
        Those of the flow.
    look
        From cells and a flow to what it says, and what is true.
    """

    draw: Callable[[np.random.Generator], anndata.AnnData]
    look: Callable[[anndata.AnnData, cf.SnapshotFlow], Iterator[Found]]
    settings: dict[str, Any] = field(default_factory=dict)

    def run(self, seed: int) -> list[Found]:
        """Draw cells, fit an ensemble, and look at it."""
        adata = self.draw(np.random.default_rng(seed))
        flow = cf.SnapshotFlow(**QUICK | self.settings, ensemble=MEMBERS, seed=seed).fit(adata)
        return list(self.look(adata, flow))


def cells(x0: np.ndarray, x1: np.ndarray, labels: np.ndarray | None = None) -> anndata.AnnData:
    """Return two snapshots, at times 0 and 1."""
    obs = pd.DataFrame(
        {"time": np.repeat([0.0, 1.0], [len(x0), len(x1)])}, index=[str(k) for k in range(len(x0) + len(x1))]
    )
    if labels is not None:
        obs["group"] = [*["none"] * len(x0), *labels]
    return anndata.AnnData(obs=obs, obsm={"X_latent": np.concatenate([x0, x1]).astype(np.float32)})


def compared(quantity: str, truth: np.ndarray, value: np.ndarray, each: np.ndarray) -> Found:
    """Return a quantity with Student's interval over members."""
    low, high = t_interval(value, each, confidence=LEVEL)
    found = value - truth, np.std(each, axis=0, ddof=1), (low <= truth) & (truth <= high)
    return Found(quantity, *(values.ravel() for values in found))


def gaussians(dim: int) -> Simulation:
    """Move a normal distribution, and change its widths: the optimal map is linear.

    From ``x`` at time ``t`` the velocity is ``m + (a - 1) (x - t m) / (1 - t + t a)``.
    """
    mean, scale = np.eye(dim)[0] * 3 + 0.5, np.linspace(0.5, 1.5, dim)

    def draw(rng: np.random.Generator) -> anndata.AnnData:
        x = rng.normal(size=(2, CELLS, dim))
        return cells(x[0], mean + scale * x[1])

    def look(adata: anndata.AnnData, flow: cf.SnapshotFlow) -> Iterator[Found]:
        fixed = np.random.default_rng(0)
        t = fixed.uniform(0.1, 0.9, size=60)
        width = 1 - t[:, None] + t[:, None] * scale
        x = t[:, None] * mean + width * fixed.normal(size=(60, dim))
        truth = mean + (scale - 1) * (x - t[:, None] * mean) / width
        every = np.stack([one.velocity(x.astype(np.float32), t) for one in (flow, *flow.members)]).astype(float)
        yield compared("velocity, each component", truth, every[0], every[1:])
        points = cells(x[:0], x)
        points.obs["time"] = t
        cf.tl.velocity(points, flow, confidence=LEVEL)
        angle, *of_members = (np.arccos(np.clip(cosine(one, every[0]), -1, 1)) for one in (truth, *every[1:]))
        inside = np.rad2deg(angle) <= points.obs["velocity_spread"].to_numpy()
        yield Found("velocity, direction (rad)", angle, np.sqrt(np.square(of_members).mean(axis=0)), inside)
        yield from mean_at(adata, flow, mean / 2)

    return Simulation(draw, look, {"coupling": "exact"})


def cosine(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the cosine between vectors ``(n, d)``."""
    return np.asarray((x * y).sum(axis=1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1))


def mean_at(adata: anndata.AnnData, flow: cf.SnapshotFlow, truth: np.ndarray) -> Iterator[Found]:
    """Yield the mean half-way, as `cellflow.tl.interpolate` has it."""
    noted = cf.tl.interpolate(adata, flow, at=0.5, confidence=LEVEL).uns["interpolation"]
    value, low, high = (noted[name][0] for name in ("mean", "mean_low", "mean_high"))
    yield Found("mean half-way", value - truth, by_ends(low, high), (low <= truth) & (truth <= high))


def by_ends(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the standard deviation that the ends of an interval stand for."""
    return np.asarray((high - low) / 2 / t_quantile(MEMBERS, LEVEL))


def growing() -> Simulation:
    """Let two groups move alike, of which one grows from half of the population to seven tenths."""
    centres, before, after = np.array([[0.0, 4.0], [0.0, -4.0]]), np.array([0.5, 0.5]), np.array([0.7, 0.3])

    def draw(rng: np.random.Generator) -> anndata.AnnData:
        which = [rng.choice(2, CELLS, p=shares) for shares in (before, after)]
        x0, x1 = (centres[one] + rng.normal(size=(CELLS, 2)) for one in which)
        return cells(x0, x1 + np.array([2.0, 0.0]))

    def look(adata: anndata.AnnData, flow: cf.SnapshotFlow) -> Iterator[Found]:
        fixed = np.random.default_rng(0)
        which = np.repeat([0, 1], 20)
        x = (centres[which] + [1.0, 0.0] + fixed.normal(size=(40, 2))).astype(np.float32)
        truth = np.log(after / before)[which]
        every = np.stack([one.growth_rate(x, 0.5) for one in (flow, *flow.members)]).astype(float)
        yield compared("growth rate", truth, every[0], every[1:])
        # Half-way the shares have gone half of the way in log mass, and sum to one.
        half = np.sqrt(before * after) / np.sqrt(before * after).sum()
        yield from mean_at(adata, flow, np.array([1.0, half @ centres[:, 1]]))

    return Simulation(draw, look)


def branching() -> Simulation:
    """Divide one group into two, by a Schrödinger bridge with noise of 1: solved on a grid."""
    places, share, width = np.array([-2.0, 2.0]), np.array([0.6, 0.4]), 0.4

    def draw(rng: np.random.Generator) -> anndata.AnnData:
        which = rng.choice(2, CELLS, p=share)
        x0, x1 = rng.normal(size=(2, CELLS, 2))
        x1[:, 0] = places[which] + width * x1[:, 0]
        return cells(x0, x1, np.array(["left", "right"])[which])

    def look(adata: anndata.AnnData, flow: cf.SnapshotFlow) -> Iterator[Found]:
        at = np.linspace(-1.5, 1.5, 13)
        starts = np.stack([at, np.zeros(13)], axis=1)
        later = adata[adata.obs["time"] == 1]
        seen = cells(starts, later.obsm["X_latent"], later.obs["group"].to_numpy())
        cf.tl.fate(seen, flow, groupby="group", n_samples=SAMPLES, confidence=LEVEL)
        value, low, high = (seen.obsm[f"fate{end}"]["right"].to_numpy()[:13] for end in ("", "_low", "_high"))
        truth = to_the_right(at, places, share, width)
        yield Found("fate", value - truth, by_ends(low, high), (low <= truth) & (truth <= high))

    path = cf.paths.BrownianBridge(1.0)
    coupling = cf.couplings.Sinkhorn(epsilon="path")
    return Simulation(draw, look, {"path": path, "coupling": coupling, "stochastic": True})


def to_the_right(at: np.ndarray, places: np.ndarray, share: np.ndarray, width: float) -> np.ndarray:
    """Return the probability to end above 0, of the bridge with noise of 1 from a normal distribution to a mixture."""
    x = np.linspace(-6, 6, 1201)
    p = np.exp(-(x**2) / 2)
    q = (share * np.exp(-((x[:, None] - places) ** 2) / (2 * width**2))).sum(axis=1)
    p, q = p / p.sum(), q / q.sum()
    kernel = np.exp(-((x[:, None] - x) ** 2) / 2)
    b = np.ones_like(x)
    for _ in range(500):
        a = p / (kernel @ b)
        b = q / (kernel.T @ a)
    law = np.exp(-((at[:, None] - x) ** 2) / 2) * b
    return np.asarray(law[:, x > 0].sum(axis=1) / law.sum(axis=1))


SIMULATIONS = {
    "Gaussians, 2 dimensions": gaussians(2),
    "Gaussians, 10 dimensions": gaussians(10),
    "two groups that grow": growing(),
    "branching bridge": branching(),
}
