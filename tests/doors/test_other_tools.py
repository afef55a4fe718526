"""Flows in CellRank and scVelo themselves: run by `make doors`, in an environment that has both."""

import inspect
import logging
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

import cellrank_stub
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse

import cellflow as cf
from benchmarks.cellrank_worker import fates_of_plans

cr = pytest.importorskip("cellrank")
scv = pytest.importorskip("scvelo")
mpl.use("Agg")

log = logging.getLogger(__name__)

FIGURES = Path("figures")
GROUPS = {"branching": "fate", "hsmm": "state_monocle", "hematopoiesis": "state"}


@cache
def branching():
    adata = cf.datasets.branching((80,) * 4, seed=0)
    return adata, cf.SnapshotFlow(rep="X_latent", steps=300).fit(adata)


@cache
def hsmm():
    adata = cf.datasets.hsmm()
    sc.pp.pca(adata, n_comps=5)
    return adata, cf.SnapshotFlow(time_key="hours", steps=150, batch_size=64).fit(adata)


@cache
def hematopoiesis():
    adata = cf.datasets.hematopoiesis()
    return adata, cf.SnapshotFlow(time_key="day", steps=150, batch_size=64).fit(adata)


@pytest.fixture(scope="module", params=[branching, hsmm], ids=lambda make: make.__name__)
def handed(request):
    adata, flow = request.param()
    return request.param.__name__, adata, flow, cf.doors.to_cellrank(adata, flow)


def fates(kernel, adata, groups, last):
    """Probabilities of CellRank of ending in each group of the last snapshot."""
    estimator = cr.estimators.GPCCA(kernel)
    estimator.set_terminal_states(pd.Series(groups.where(last), index=adata.obs_names, dtype="category"))
    estimator.compute_fate_probabilities(solver="direct", use_petsc=False, show_progress_bar=False)
    found = estimator.fate_probabilities
    return pd.DataFrame(np.asarray(found), index=adata.obs_names, columns=list(map(str, found.names)))


@pytest.mark.parametrize("kind", ["VelocityKernel", "RealTimeKernel"])
def test_the_stub_has_the_signatures_of_cellrank(kind):
    """By these the doors are tested where there is no CellRank."""
    for verb in ("__init__", "compute_transition_matrix"):
        theirs, ours = (inspect.signature(getattr(getattr(of, kind), verb)) for of in (cr.kernels, cellrank_stub))
        known = {name: parameter.default for name, parameter in theirs.parameters.items()}
        for name, parameter in ours.parameters.items():
            assert name in known
            assert str(known[name]) == str(parameter.default)


def test_transitions_are_sparse_and_rows_sum_to_one(handed):
    _, adata, _, kernels = handed
    for kernel in (kernels.velocity, kernels.real_time):
        matrix = kernel.transition_matrix
        assert sparse.issparse(matrix)
        assert matrix.shape == (adata.n_obs, adata.n_obs)
        assert np.allclose(matrix.sum(axis=1), 1)
        assert matrix.data.min() >= 0
    assert all(share < 0.011 for share in kernels.dropped.values())
    both = 0.5 * kernels.velocity + 0.5 * kernels.real_time
    assert np.allclose(both.transition_matrix.sum(axis=1), 1)


def test_the_real_time_kernel_leads_to_the_next_snapshot(handed):
    """Weights of neighbours aside, the block of two snapshots is our plan."""
    _, adata, flow, kernels = handed
    time = flow.read(adata).time
    times = np.unique(time)
    for k, (start, stop) in enumerate(pairwise(times)):
        block = kernels.real_time.transition_matrix[time == start][:, time == stop].toarray()
        plan = flow.plans_[k].dense().numpy()
        assert np.allclose(block.sum(axis=1), 0.8)
        assert np.abs(block / 0.8 - plan / plan.sum(axis=1, keepdims=True)).sum(axis=1).max() < 0.03


def test_macrostates_are_found(handed):
    _, _, _, kernels = handed
    estimator = cr.estimators.GPCCA(kernels.real_time)
    estimator.compute_schur(n_components=6)
    estimator.compute_macrostates(n_states=2)
    assert len(estimator.macrostates.cat.categories) == 2


def test_fates_agree_with_those_of_the_flow(handed):
    """Chains of plans and of velocities are other models: fates go together, and are not the same."""
    name, adata, flow, kernels = handed
    group, last = GROUPS[name], flow.read(adata).time == flow.clock_.times[-1]
    groups = adata.obs[group].astype(str)
    cf.tl.fate(adata, flow, groupby=group)
    ours = adata.obsm["fate"].loc[~last]
    largest = groups[last].value_counts().index[0]
    both = 0.5 * kernels.velocity + 0.5 * kernels.real_time  # where snapshots are apart, velocities alone lead nowhere
    for kind, kernel in (("plans", kernels.real_time), ("plans and velocities", both)):
        theirs = fates(kernel, adata, groups, last).loc[~last]
        assert np.allclose(theirs.sum(axis=1), 1, atol=1e-3)
        alike = np.corrcoef(ours[largest], theirs[largest])[0, 1]
        log.warning("%s, %s: correlation of fates toward %s: %.2f", name, kind, largest, alike)
        assert alike > 0.6


def test_plans_of_a_flow_and_one_of_another_tool():
    """Where the flow carries cells; and what is exported comes in again."""
    adata, flow = branching()
    kernels = cf.doors.to_cellrank(adata, flow, plans="flow")
    assert kernels.plans == "flow"
    assert np.allclose(kernels.real_time.transition_matrix.sum(axis=1), 1)
    times = flow.clock_.times
    exported = {pair: kernels.real_time.couplings[pair] for pair in pairwise(times)}
    again = cf.SnapshotFlow(rep="X_latent", coupling=cf.couplings.Given(exported), steps=5).fit(adata)
    assert again.plans_[0].shape == (80, 80)


def test_streams_and_embeddings_are_drawn():
    """To be looked at in figures/."""
    FIGURES.mkdir(exist_ok=True)
    for make in (branching, hsmm, hematopoiesis):
        adata, flow = make()
        found = cf.doors.to_scvelo(adata, flow)
        sc.tl.umap(found)
        name = make.__name__
        basis = {"branching": "latent", "hematopoiesis": "emb"}.get(name, "umap")
        colour = GROUPS[name]
        axes = scv.pl.velocity_embedding_stream(found, basis=basis, color=colour, show=False, title=name)
        axes.figure.savefig(FIGURES / f"doors-{name}-stream.png", dpi=90)
        axes = sc.pl.embedding(found, basis="flow", color=[colour, found.var_names[0]], wspace=0.4, show=False)
        axes[0].figure.savefig(FIGURES / f"doors-{name}-embedding.png", dpi=90)
        projected = found.obsm[f"velocity_{basis}"]
        assert np.isfinite(projected).all()
        assert np.abs(projected).max() > 0


def test_the_graph_is_drawn_from_as_that_of_scvelo():
    """Both graphs of one velocity, each projected by scVelo: arrows point the same way."""
    adata, flow = branching()
    found = cf.doors.to_scvelo(adata, flow)
    scv.tl.velocity_embedding(found, basis="latent", autoscale=False)
    ours = found.obsm["velocity_latent"].copy()
    expected = flow.velocity(adata.obsm["X_latent"], flow.read(adata).time)
    along = (ours * expected).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(expected, axis=1)
    assert np.median(along) > 0.9


def test_the_worker_of_benchmarks_computes_the_same_fates():
    adata, flow = branching()
    last = flow.read(adata).time == flow.clock_.times[-1]
    kernels = cf.doors.to_cellrank(adata, flow)
    expected = fates(kernels.real_time, adata, adata.obs["fate"].astype(str), last)
    plans = {pair: coupling.X for pair, coupling in kernels.real_time.couplings.items()}
    how = {"time_key": "time", "rep": "X_latent", "groupby": "fate", "python": Path(sys.executable)}
    found = fates_of_plans(adata, plans, **how)
    assert np.allclose(found[expected.columns], expected, atol=1e-6)
