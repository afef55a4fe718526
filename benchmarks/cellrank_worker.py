"""Fates by CellRank's kernel of real time on given plans, in the environment of `make doors`.

Called from this environment as `fates_of_plans`; run as a script by the Python of the other one, which needs neither
this package nor ``cellflow`` there.
"""

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from anndata import AnnData

PYTHON = Path(".venv-doors/bin/python")
"""The Python that has CellRank."""
TIME, GROUP, REP = "time", "group", "X_rep"
NEIGHBORS = 30


def fates_of_plans(
    adata: "AnnData",
    plans: Mapping[tuple[float, float], Any],
    *,
    time_key: str,
    rep: str,
    groupby: str,
    conn_weight: float = 0.2,
    python: Path = PYTHON,
    timeout: float = 3600,
) -> pd.DataFrame:
    """Return for each cell the probability of ending in each group of the last snapshot, ``(cells, groups)``.

    Parameters
    ----------
    adata
        The cells, with times that are numbers.
    plans
        For each two snapshots that follow each other the masses between their cells, sparse, in the order of ``adata``.
    time_key, rep, groupby
        Keys of times, of the representation in which cells of one snapshot are neighbours, and of groups; cells without
        a group end in none.
    conn_weight
        Weight of neighbours of the same snapshot.
    python
        The Python of an environment with CellRank; see `make doors`.
    timeout
        Most seconds.
    """
    from anndata import AnnData
    from scipy.sparse import csr_matrix

    groups = adata.obs[groupby].astype(object).where(adata.obs[groupby].notna(), "").astype(str)
    obs = pd.DataFrame({TIME: adata.obs[time_key].astype(float), GROUP: groups}, index=adata.obs_names)
    with tempfile.TemporaryDirectory() as folder:
        cells, masses, found = (Path(folder, name) for name in ("cells.h5ad", "plans.npz", "fates.csv"))
        nothing = csr_matrix((adata.n_obs, 1), dtype=np.float32)  # an estimator asks for the type of `X`
        AnnData(nothing, obs=obs, obsm={REP: np.asarray(adata.obsm[rep], dtype=np.float64)}).write_h5ad(cells)
        save_plans(masses, plans)
        command = [str(python), __file__, str(cells), str(masses), str(found), str(conn_weight)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        if done.returncode:
            raise RuntimeError(f"CellRank failed in {python}; `make doors` makes it. It said: {done.stderr[-2000:]}")
        return pd.read_csv(found, index_col=0).set_axis(adata.obs_names, axis=0)


def save_plans(path: Path, plans: Mapping[tuple[float, float], Any]) -> None:
    """Write plans to one file."""
    from scipy.sparse import csr_matrix

    parts: dict[str, Any] = {"times": np.array(list(plans), dtype=float)}
    for k, plan in enumerate(plans.values()):
        matrix = csr_matrix(plan)
        parts |= {f"{name}_{k}": getattr(matrix, name) for name in ("data", "indices", "indptr", "shape")}
    np.savez(path, **parts)


def load_plans(path: Path) -> dict[tuple[float, float], Any]:
    """Read what `save_plans` wrote."""
    from scipy.sparse import csr_matrix

    with np.load(path) as parts:
        return {
            (float(start), float(stop)): csr_matrix(
                (parts[f"data_{k}"], parts[f"indices_{k}"], parts[f"indptr_{k}"]), shape=tuple(parts[f"shape_{k}"])
            )
            for k, (start, stop) in enumerate(parts["times"])
        }


def compute(cells: Path, plans: Path, found: Path, conn_weight: float) -> None:
    """Compute fates with CellRank, and write them as a table."""
    import anndata
    from cellrank.estimators import GPCCA
    from cellrank.kernels import RealTimeKernel

    adata = anndata.read_h5ad(cells)
    times = np.unique(adata.obs[TIME])
    adata.obs[TIME] = pd.Categorical(adata.obs[TIME], categories=times)
    kernel = RealTimeKernel(adata, time_key=TIME, couplings=load_plans(plans))
    smallest = int(adata.obs[TIME].value_counts().min())
    kernel.compute_transition_matrix(
        threshold=None,
        self_transitions="all",
        conn_weight=conn_weight,
        conn_kwargs={"n_neighbors": min(NEIGHBORS, smallest - 1), "use_rep": REP},
    )
    last = (adata.obs[TIME] == times[-1]).to_numpy() & (adata.obs[GROUP].astype(str) != "").to_numpy()
    estimator = GPCCA(kernel)
    estimator.set_terminal_states(adata.obs[GROUP].astype(object).where(last).astype("category"))
    # Without PETSc the iterative solver of SciPy does not converge on such chains.
    estimator.compute_fate_probabilities(solver="direct", use_petsc=False, show_progress_bar=False)
    fates = estimator.fate_probabilities
    table = pd.DataFrame(np.asarray(fates), index=adata.obs_names, columns=list(map(str, fates.names)))
    table.to_csv(found)


if __name__ == "__main__":
    compute(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]))
