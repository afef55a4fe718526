"""How many steps fates take: ``python -m benchmarks.studies.fate``.

EB in 50 components, a flow with a score, five groups of the last day by k-means. Fates of cells of the earlier days by
numbers of steps, against those of 100 Heun steps: how many shares lie within their Wilson interval (another seed of the
same 100 steps is the floor: 83 in 100 for normal errors), and how far the mean share of a group is off.
"""

import time
from collections.abc import Iterator

import numpy as np
import pandas as pd
from anndata import AnnData
from sklearn.cluster import KMeans

import cellflow as cf
from benchmarks import page
from benchmarks.command import Words, options
from benchmarks.trajectory.settings import load

REFERENCE = cf.integrate.Noisy(100)
ASKED = [
    *(cf.integrate.Noisy(steps) for steps in (100, 50, 20, 10, 5, 2)),
    *(cf.integrate.Noisy(steps, "euler_maruyama") for steps in (100, 40, 20)),
]


def main(words: Words = None) -> None:
    """Compute and write ``fate.md``; with ``whole`` time the default on all cells too."""
    given = options("studies.fate", __doc__, words, cells=500, steps=3000, whole=False)
    adata, flow = fitted(given.steps)
    early = np.flatnonzero(adata.obs["day"] < adata.obs["day"].max())
    chosen = np.isin(np.arange(adata.n_obs), np.random.default_rng(0).choice(early, given.cells, replace=False))
    table = []
    for row in rows(adata, flow, chosen):
        table.append(row)
        print(*row, flush=True)
    notes = []
    if given.whole:
        start = time.process_time()
        cf.tl.fate(adata, flow, groupby="group", progress=True)
        minutes, n = (time.process_time() - start) / 60, len(early)
        notes = ["", f"The default, {n:,} cells, 100 samples: {minutes:.1f} minutes of one core."]
    head = ["solver", "within the interval", "mean difference", "largest difference of a group", "seconds of one core"]
    title = f"# Steps of fates: EB, 50 components, {given.cells} cells, 100 samples"
    about = (
        "Shares of groups among simulations with another seed, beside those of `Noisy(100)`: how many lie in the "
        "Wilson intervals of that run, and how far off they and the mean share of a group are. The first row is the "
        "floor."
    )
    lines = [title, "", page.made_by(given.command), about, "", *page.table(head, table), *notes]
    page.write(given.out / "fate.md", lines)


def fitted(steps: int) -> tuple[AnnData, cf.SnapshotFlow]:
    """Return the cells, those of the last day in groups, and a flow with a score."""
    known = load("dataset", "eb").load(50)
    day = np.repeat(known.times, [len(cloud) for cloud in known.clouds])
    found = KMeans(5, random_state=0, n_init=3).fit_predict(known.clouds[-1])
    group = ["earlier"] * (len(day) - len(found)) + ["group " + str(k) for k in found.tolist()]
    x = np.concatenate(known.clouds).astype(np.float32)
    obs = pd.DataFrame({"day": day, "group": group}, index=[f"cell{k}" for k in range(len(day))])
    adata = AnnData(obs=obs, obsm={"X_pca": x})
    flow = cf.SnapshotFlow(time_key="day", stochastic=True, steps=steps, device="cpu")
    flow.set_params(path=cf.paths.BrownianBridge(flow.suggest_sigma(adata)))
    return adata, flow.fit(adata)


def rows(adata: AnnData, flow: cf.SnapshotFlow, chosen: np.ndarray) -> Iterator[list[str]]:
    """Yield a row for each solver."""
    share, low, high = fates(adata, flow, chosen, REFERENCE, seed=0)
    for solver in ASKED:
        start = time.process_time()
        other, *_ = fates(adata, flow, chosen, solver, seed=1)
        seconds = time.process_time() - start
        within = ((low <= other) & (other <= high)).mean()
        apart, group = np.abs(other - share).mean(), np.abs(other.mean(axis=0) - share.mean(axis=0)).max()
        yield [repr(solver), f"{within:.3f}", f"{apart:.4f}", f"{group:.4f}", f"{seconds:.1f}"]


def fates(
    adata: AnnData, flow: cf.SnapshotFlow, chosen: np.ndarray, solver: cf.integrate.Noisy, *, seed: int
) -> list[np.ndarray]:
    """Return the shares of the chosen cells, and the ends of their intervals."""
    cf.tl.fate(adata, flow, groupby="group", cells=chosen, solver=solver, seed=seed)
    return [adata.obsm[name][chosen].to_numpy() for name in ("fate", "fate_low", "fate_high")]


if __name__ == "__main__":
    main()
