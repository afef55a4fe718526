"""What `cellflow.doors` calls of CellRank, with the signatures of 2.0.7 and 2.3, and what these ask of it.

``tests/doors`` compares the signatures with those of CellRank where it is installed.
"""

from types import MappingProxyType, ModuleType

import numpy as np
import pandas as pd
from scipy import sparse


class VelocityKernel:
    def __init__(self, adata, backward=False, attr="layers", xkey="Ms", vkey="velocity", **kwargs):
        self.adata, self.backward = adata, backward
        self.x, self.v = (np.asarray(getattr(adata, attr)[key]) for key in (xkey, vkey))
        assert self.x.shape == self.v.shape
        assert np.isfinite(self.v).all()
        self.connectivities = adata.obsp["connectivities"]
        assert "params" in adata.uns["neighbors"]

    def compute_transition_matrix(
        self,
        model="deterministic",
        backward_mode="transpose",
        similarity="correlation",
        softmax_scale=None,
        n_samples=1000,
        seed=None,
        **kwargs,
    ):
        assert set(kwargs) <= {"n_jobs", "backend", "show_progress_bar"}
        self.transition_matrix = sparse.csr_matrix(self.connectivities.multiply(1 / self.connectivities.sum(axis=1)))
        return self


class RealTimeKernel:
    def __init__(self, adata, time_key, couplings=None, policy="sequential", **kwargs):
        self.adata, self.couplings = adata, dict(couplings)
        self.time = adata.obs[time_key]
        assert isinstance(self.time.dtype, pd.CategoricalDtype)
        assert {time for pair in couplings for time in pair} <= set(self.time.cat.categories)

    def compute_transition_matrix(
        self,
        threshold="auto",
        self_transitions="connectivities",
        conn_weight=None,
        conn_kwargs=MappingProxyType({}),
        **kwargs,
    ):
        assert not kwargs
        if not isinstance(self_transitions, str):
            assert 0 < conn_weight < 1
        self.asked = {"self_transitions": self_transitions, **conn_kwargs}
        names, n = self.adata.obs_names, self.adata.n_obs
        whole = sparse.lil_matrix((n, n))
        for (start, stop), coupling in self.couplings.items():
            assert sparse.isspmatrix_csr(coupling.X)
            assert sorted(coupling.obs_names) == sorted(names[self.time == start])
            assert sorted(coupling.var_names) == sorted(names[self.time == stop])
            assert (coupling.X.sum(axis=1) > 0).all()
            rows, columns = (names.get_indexer(side) for side in (coupling.obs_names, coupling.var_names))
            whole[np.ix_(rows, columns)] = coupling.X
        last = np.flatnonzero(self.time == self.time.cat.categories[-1])
        whole[last, last] = 1
        self.transition_matrix = sparse.csr_matrix(whole)
        return self


def modules():
    """What is imported as ``cellrank``."""
    found = {name: ModuleType(name) for name in ("cellrank", "cellrank.kernels")}
    found["cellrank.kernels"].VelocityKernel = VelocityKernel
    found["cellrank.kernels"].RealTimeKernel = RealTimeKernel
    found["cellrank"].kernels = found["cellrank.kernels"]
    return found
