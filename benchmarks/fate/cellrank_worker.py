"""Run by ``cellrank_rows.py`` in the environment of CellRank, which need not have this package."""

import sys
from pathlib import Path

import cellrank
import numpy as np
import pandas as pd
from anndata import AnnData


def main(folder: Path) -> None:
    """Read cells and plans, and write the probability of each group for every cell, ``fates.npy`` ``(n, k)``."""
    given = np.load(folder / "given.npz")
    time, names = given["time"], given["names"]
    obs = pd.DataFrame({"time": pd.Categorical(time)}, index=[f"cell{k}" for k in range(len(time))])
    x = given["x"].astype(np.float32)
    adata = AnnData(X=x, obs=obs, obsm={"X_rep": x})
    times = list(obs["time"].cat.categories)
    couplings = {}
    for k, pair in enumerate(zip(times[:-1], times[1:])):  # noqa: B905, RUF007  Python 3.9 of others
        sides = [obs[obs["time"] == t] for t in pair]
        couplings[pair] = AnnData(X=given[f"plan{k}"], obs=sides[0], var=sides[1])
    kernel = cellrank.kernels.RealTimeKernel(adata, time_key="time", couplings=couplings)
    # As in CellRank's tutorial on time: cells of each day walk among themselves for a fifth of their way.
    kernel.compute_transition_matrix(
        threshold="auto", self_transitions="all", conn_weight=0.2, conn_kwargs={"use_rep": "X_rep"}
    )
    estimator = cellrank.estimators.GPCCA(kernel)
    last = np.flatnonzero(time == time.max())
    states = {str(name): [f"cell{k}" for k in last[given["ends"] == name]] for name in names}
    estimator.set_terminal_states(states)
    estimator.compute_fate_probabilities(use_petsc=False, show_progress_bar=False)
    found = estimator.fate_probabilities
    order = [list(found.names).index(str(name)) for name in names]
    np.save(folder / "fates.npy", np.asarray(found.X)[:, order])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
