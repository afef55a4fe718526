"""What is handed to other tools: by a stub of CellRank, and against what scVelo reads."""

import logging
import sys
from itertools import pairwise

import anndata
import cellrank_stub
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import torch
from scipy import sparse

import cellflow as cf
from benchmarks.cellrank_worker import load_plans, save_plans
from cellflow.couplings import DensePlan, Independent, Within
from cellflow.doors import plans as plans_between
from cellflow.doors import scvelo as to_scvelo_file
from cellflow.doors.plans import _largest, _rows_of
from cellflow.errors import MissingDependencyError, NotFittedError


@pytest.fixture
def cellrank(monkeypatch):
    for name, module in cellrank_stub.modules().items():
        monkeypatch.setitem(sys.modules, name, module)


def cells(sizes=(30, 24, 20), times=(0, 1, 3)):
    return cf.datasets.branching(sizes, times=times, seed=0)


def fitted(adata, **settings):
    return cf.SnapshotFlow(**{"rep": "X_latent", "steps": 5} | settings).fit(adata)


@pytest.fixture(scope="module")
def flow():
    return fitted(cells())


@pytest.fixture(scope="module")
def genes():
    adata = cf.datasets.hsmm()
    sc.pp.pca(adata, n_comps=5)
    return adata, fitted(adata, time_key="hours", rep="X_pca")


@pytest.fixture(scope="module")
def treated():
    adata = cells((30, 40), (0, 2))
    early = adata.obs["time"].astype(float) == 0
    adata.obs["drug"] = np.where(early, "control", np.where(np.arange(70) % 2, "A", "B"))
    return adata, fitted(adata, conditions=cf.Conditions("drug"))


def blocks(kernels, time):
    times = np.unique(time)
    for start, stop in pairwise(times):
        yield kernels.real_time.transition_matrix[time == start][:, time == stop].toarray()


# ---- to CellRank ----


@pytest.mark.usefixtures("cellrank")
@pytest.mark.parametrize("plans", ["coupling", "flow", "auto"])
def test_transitions_are_sparse_and_rows_sum_to_one(flow, plans):
    adata = cells()
    before = adata.copy()
    kernels = cf.doors.to_cellrank(adata, flow, plans=plans)
    assert kernels.plans == ("flow" if plans == "flow" else "coupling")
    for kernel in kernels[:2]:
        assert sparse.issparse(kernel.transition_matrix)
        assert kernel.adata is kernels.adata
        assert np.allclose(kernel.transition_matrix.sum(axis=1), 1)
    assert list(kernels.dropped) == [(0.0, 1.0), (1.0, 3.0)]
    assert np.allclose(
        kernels.adata.obsm["velocity_flow"], flow.velocity(adata.obsm["X_latent"], flow.read(adata).time)
    )
    assert list(adata.obs.columns) == list(before.obs.columns)  # nothing is written into it
    assert not adata.uns.get("neighbors")
    assert set(adata.obsm) == set(before.obsm)


@pytest.mark.usefixtures("cellrank")
def test_the_whole_plan_is_handed_over_where_all_of_it_is_kept(flow):
    adata = cells()
    kernels = cf.doors.to_cellrank(adata, flow, keep=1.0)
    for block, plan in zip(blocks(kernels, flow.read(adata).time), flow.plans_, strict=True):
        dense = plan.dense().numpy()
        assert np.allclose(block, dense / dense.sum(axis=1, keepdims=True))
    assert set(kernels.dropped.values()) == {0.0}


@pytest.mark.usefixtures("cellrank")
def test_a_flow_leads_to_the_nearest_cells_of_where_it_carries(flow):
    adata = cells()
    kernels = cf.doors.to_cellrank(adata, flow, plans="flow")
    time, x = flow.read(adata).time, adata.obsm["X_latent"]
    carried = flow.transport(x[time == 0], start=0, stop=1).x[-1].numpy()
    far = np.linalg.norm(carried[:, None] - x[time == 1], axis=2)
    block = next(blocks(kernels, time))
    assert np.allclose(np.sort(block, axis=1)[:, -10:], 0.1)
    assert ((block > 0) == (far.argsort(axis=1).argsort(axis=1) < 10)).all()


@pytest.mark.usefixtures("cellrank")
def test_plans_of_other_cells_are_not_taken(flow, tmp_path, caplog):
    adata = cells()
    order = np.random.default_rng(0).permutation(adata.n_obs)
    for other in (adata[order].copy(), adata[:-1].copy()):
        with pytest.raises(ValueError, match="not the cells of the fit, in their order. Take `plans='flow'`"):
            cf.doors.to_cellrank(other, flow, plans="coupling")
    with caplog.at_level(logging.INFO):
        assert cf.doors.to_cellrank(adata[order].copy(), flow).plans == "flow"
    assert "those of the coupling are not available" in caplog.text
    flow.save(tmp_path / "model")
    loaded = cf.SnapshotFlow.load(tmp_path / "model")
    with pytest.raises(ValueError, match="not saved with a flow"):
        cf.doors.to_cellrank(adata, loaded, plans="coupling")
    assert cf.doors.to_cellrank(adata, loaded).plans == "flow"


@pytest.mark.usefixtures("cellrank")
def test_super_batches_have_no_plans():
    adata = cells()
    with pytest.raises(ValueError, match="matched in parts"):
        cf.doors.to_cellrank(adata, fitted(adata, ot_batch_size=10), plans="coupling")


@pytest.mark.usefixtures("cellrank")
def test_a_stochastic_flow_is_simulated():
    adata = cells()
    flow = fitted(adata, path=cf.paths.BrownianBridge(1.0), stochastic=True)
    once, often = (cf.doors.to_cellrank(adata, flow, plans="flow", n_samples=n) for n in (1, 8))
    first, second = (next(blocks(kernels, flow.read(adata).time)) for kernels in (once, often))
    assert ((first > 0).sum(axis=1) == 10).all()
    assert ((second > 0).sum(axis=1) > 10).all()
    assert np.allclose(second.sum(axis=1), 1)


@pytest.mark.usefixtures("cellrank")
def test_with_conditions_the_chain_of_one_is_handed_over(flow, treated):
    plain, (adata, flow) = flow, treated
    with pytest.raises(ValueError, match=r"Pass one with `condition=\{'drug': \.\.\.\}`"):
        cf.doors.to_cellrank(adata, flow)
    kernels = cf.doors.to_cellrank(adata, flow, condition={"drug": "A"})
    assert set(kernels.adata.obs["drug"]) == {"control", "A"}
    assert kernels.adata.n_obs == 50
    found = flow.velocity(
        kernels.adata.obsm["X_flow"], kernels.adata.obs["real_time"].astype(float), condition={"drug": "A"}
    )
    assert np.allclose(kernels.adata.obsm["velocity_flow"], found)
    with pytest.raises(ValueError, match="fitted without conditions"):
        cf.doors.to_cellrank(cells(), plain, condition={"drug": "A"})


@pytest.mark.usefixtures("cellrank")
@pytest.mark.parametrize("sizes", [(30, 3, 20), (3, 30, 20), (30, 20, 3), (30, 20, 2)])
def test_snapshots_of_three_cells_lower_the_neighbours_and_it_is_said(sizes, caplog):
    adata = cells(sizes)
    flow = fitted(adata)
    with caplog.at_level(logging.WARNING):
        kernels = cf.doors.to_cellrank(adata, flow, plans="flow")
    assert "n_neighbors is lowered" in caplog.text
    assert np.allclose(kernels.real_time.transition_matrix.sum(axis=1), 1)
    assert kernels.real_time.asked["self_transitions"] == ("diagonal" if sizes[-1] == 2 else [0.0, 1.0])


@pytest.mark.usefixtures("cellrank")
def test_cells_without_mass_are_carried_by_the_flow(caplog):
    adata = cells((30, 24), (0, 2))
    dense = np.random.default_rng(0).uniform(size=(30, 24))
    dense[4] = 0
    flow = fitted(adata, coupling=cf.couplings.Given({(0, 2): dense}))
    with caplog.at_level(logging.WARNING):
        kernels = cf.doors.to_cellrank(adata, flow)
    assert "1 cells at time 0 have no mass" in caplog.text
    assert np.allclose(kernels.real_time.transition_matrix.sum(axis=1), 1)


@pytest.mark.usefixtures("cellrank")
def test_bad_input_of_cellrank_is_refused(flow):
    adata = cells()
    with pytest.raises(NotFittedError):
        cf.doors.to_cellrank(adata, cf.SnapshotFlow(rep="X_latent"))
    for settings, said in (
        ({"plans": "ours"}, "Unknown value of `plans`"),
        ({"keep": 0.0}, "0 < keep <= 1"),
        ({"conn_weight": 1.0}, "0 < conn_weight < 1"),
        ({"n_neighbors": 1}, "n_neighbors >= 2"),
        ({"n_samples": 0}, "n_samples >= 1"),
    ):
        with pytest.raises(ValueError, match=said):
            cf.doors.to_cellrank(adata, flow, **settings)
    with pytest.raises(ValueError, match="only time 3"):
        cf.doors.to_cellrank(adata[-20:].copy(), flow)


@pytest.mark.parametrize("hand_over", [cf.doors.to_scvelo, cf.doors.to_cellrank], ids=lambda door: door.__name__)
@pytest.mark.usefixtures("cellrank")
def test_bad_cells_are_refused(flow, hand_over):
    adata = cells()
    for change, error, said in (
        (lambda a: a.obsm["X_latent"].__setitem__(3, np.nan), ValueError, "NaN"),
        (lambda a: setattr(a, "obs_names", ["a"] * a.n_obs), ValueError, "duplicates"),
        (lambda a: a.obsm.__delitem__("X_latent"), KeyError, "X_latent"),
        (lambda a: a.obs.__delitem__("time"), KeyError, "time"),
        (lambda a: a.obsm.__setitem__("X_latent", a.obsm["X_latent"][:, :1]), ValueError, "shape"),
    ):
        bad = adata.copy()
        change(bad)
        with pytest.raises(error, match=said):
            hand_over(bad, flow)
    other = adata.copy()
    other.obsm["X_latent"] = other.obsm["X_latent"][::-1].copy()
    with pytest.warns(UserWarning, match=r"\w"):
        hand_over(other, flow)


def test_without_cellrank_it_says_how_to_install_it(flow, monkeypatch):
    monkeypatch.setitem(sys.modules, "cellrank", None)
    monkeypatch.setitem(sys.modules, "cellrank.kernels", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'cellflow-torch\[cellrank\]'"):
        cf.doors.to_cellrank(cells(), flow)


# ---- plans as sparse matrices ----


def test_the_largest_masses_of_a_row_are_kept():
    dense = np.random.default_rng(0).uniform(size=(40, 30)) ** 4
    found = _largest(sparse.csr_matrix(dense), 0.9)
    kept = found.masses.toarray() > 0
    assert np.allclose(found.masses.sum(axis=1), 1)
    shares = np.where(kept, dense, 0).sum(axis=1) / dense.sum(axis=1)
    assert (shares >= 0.9).all()
    smallest = np.where(kept, dense, np.inf).min(axis=1)
    assert (shares - smallest / dense.sum(axis=1) < 0.9).all()  # not one more than it takes
    assert (smallest >= np.where(kept, 0, dense).max(axis=1)).all()
    assert found.dropped == pytest.approx(1 - np.where(kept, dense, 0).sum() / dense.sum())


def test_a_dense_plan_is_read_in_parts(monkeypatch):
    plan = DensePlan(torch.rand(50, 40, generator=cf.generator(0)))
    whole = _rows_of(plan, 0.8)
    monkeypatch.setattr(plans_between, "AT_ONCE", 130)
    parts = _rows_of(plan, 0.8)
    assert np.allclose(whole.masses.toarray(), parts.masses.toarray())
    assert whole.dropped == pytest.approx(parts.dropped)


@pytest.mark.parametrize(
    "coupling", [Independent(), Within(Independent(), [0, 1] * 30, [0, 1] * 20)], ids=["product", "groups"]
)
def test_pairs_are_drawn_of_a_large_plan_that_is_not_stored(coupling, monkeypatch):
    plan = coupling(torch.zeros(60, 1), torch.zeros(40, 1))
    monkeypatch.setattr(plans_between, "MOST_NUMBERS", 10)
    monkeypatch.setattr(type(plan), "dense", None)
    found = _rows_of(plan, 0.9)
    assert np.allclose(found.masses.sum(axis=1), 1)
    assert found.masses.nnz <= 100 * 60
    assert (np.diff(found.masses.indptr) >= 10).all()


def test_plans_are_written_and_read(tmp_path):
    plans = {(0.0, 1.5): sparse.csr_matrix(np.eye(3)), (1.5, 4.0): sparse.random(3, 5, 0.5, format="csr", rng=0)}
    save_plans(tmp_path / "plans.npz", plans)
    found = load_plans(tmp_path / "plans.npz")
    assert list(found) == list(plans)
    assert all((found[pair] != plans[pair]).nnz == 0 for pair in plans)


# ---- to scVelo ----


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
def test_what_scvelo_reads_is_there(genes, tmp_path):
    adata, flow = genes[0].copy(), genes[1]
    adata.uns["state_monocle_colors"] = np.array(["#000000", "#ffffff"])
    found = cf.doors.to_scvelo(adata, flow)
    cf.tl.velocity(adata, flow, genes=True)
    names = found.var_names
    assert np.allclose(found.layers["velocity"], adata[:, names].layers["velocity"], atol=1e-5)
    assert np.abs(found.layers["Ms"] - adata[:, names].X.toarray()).mean() < np.abs(adata[:, names].X.toarray()).mean()
    assert np.allclose(found.layers["spliced"].toarray(), adata[:, names].X.toarray())
    assert {"velocity_graph", "velocity_graph_neg", "velocity_params", "neighbors", "state_monocle_colors"} <= set(
        found.uns
    )
    assert {"distances", "connectivities"} <= set(found.obsp)
    assert found.uns["velocity_graph"].min() >= 0
    assert found.uns["velocity_graph_neg"].max() <= 0
    for name in ("found.h5ad", "found.zarr"):
        written = found.copy()
        (written.write_h5ad if name.endswith("h5ad") else written.write_zarr)(tmp_path / name)
        again = (anndata.read_h5ad if name.endswith("h5ad") else anndata.read_zarr)(tmp_path / name)
        assert (again.uns["velocity_graph"] != found.uns["velocity_graph"]).nnz == 0
        assert np.allclose(again.layers["velocity"], found.layers["velocity"])


def test_the_graph_holds_cosines(flow):
    adata = cells()
    found = cf.doors.to_scvelo(adata, flow)
    x, v = found.obsm["X_flow"].astype(float), found.obsm["velocity_flow"].astype(float)
    graph = (found.uns["velocity_graph"] + found.uns["velocity_graph_neg"]).tocoo()
    for i, j, value in list(zip(graph.row, graph.col, graph.data, strict=True))[::37]:
        way = x[j] - x[i]
        assert value == pytest.approx(way @ v[i] / np.linalg.norm(way) / np.linalg.norm(v[i]), abs=1e-4)
        assert found.obsp["connectivities"][i, j] > 0


def test_without_loadings_variables_are_dimensions(flow):
    found = cf.doors.to_scvelo(cells(), flow)
    assert list(found.var_names) == ["latent_1", "latent_2"]
    assert np.allclose(found.layers["velocity"], found.obsm["velocity_flow"])
    assert np.allclose(found.X, found.obsm["X_flow"])


def test_a_flow_of_genes_has_their_velocities():
    adata = cf.datasets.hsmm()[:, :20].copy()
    flow = fitted(adata, time_key="hours", rep="X")
    found = cf.doors.to_scvelo(adata, flow)
    assert list(found.var_names) == list(adata.var_names)
    assert np.allclose(found.layers["velocity"], found.obsm["velocity_flow"])


def test_genes_that_change_most_are_handed_over_where_there_is_no_room_for_all(genes, monkeypatch, caplog):
    adata, flow = genes
    whole = cf.doors.to_scvelo(adata, flow)
    monkeypatch.setattr(to_scvelo_file, "MOST_BYTES", 4 * adata.n_obs * 50)
    with caplog.at_level(logging.WARNING):
        found = cf.doors.to_scvelo(adata, flow)
    assert found.n_vars == 50
    assert "the 50 that change most" in caplog.text
    speed = pd.Series(np.abs(whole.layers["velocity"]).mean(axis=0), index=whole.var_names)
    assert set(found.var_names) == set(speed.nlargest(50).index)


def test_few_components_have_their_own_states(genes):
    adata = genes[0]
    flow = fitted(adata, time_key="hours", rep="X_pca", n_pcs=3)
    found = cf.doors.to_scvelo(adata, flow)
    assert found.obsm["X_flow"].shape[1] == found.obsm["velocity_flow"].shape[1] == 3
    assert found.obsm["X_pca"].shape[1] == 5


def test_conditions_are_each_cells_own_or_one_that_is_given(treated):
    adata, flow = treated
    own, given = cf.doors.to_scvelo(adata, flow), cf.doors.to_scvelo(adata, flow, condition={"drug": "A"})
    assert own.n_obs == given.n_obs == 70
    of_a = (adata.obs["drug"] == "A").to_numpy()
    assert np.allclose(own.obsm["velocity_flow"][of_a], given.obsm["velocity_flow"][of_a])
    assert not np.allclose(own.obsm["velocity_flow"][~of_a], given.obsm["velocity_flow"][~of_a])


def test_fewer_than_three_cells_are_refused(flow):
    with pytest.raises(ValueError, match="at least 3 cells"):
        cf.doors.to_scvelo(cells()[:2].copy(), flow)


def test_a_backed_file_is_handed_over(genes, tmp_path):
    adata, flow = genes
    adata.write_h5ad(tmp_path / "cells.h5ad")
    expected = cf.doors.to_scvelo(adata, flow)
    found = cf.doors.to_scvelo(anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r"), flow)
    assert np.allclose(found.layers["velocity"], expected.layers["velocity"])


@pytest.mark.usefixtures("cellrank")
@pytest.mark.parametrize("where", ["file", "nowhere"])
def test_without_expression_cells_have_an_empty_one(flow, where, tmp_path):
    """Estimators of CellRank ask for the type of `X`."""
    adata = cells()
    adata.write_h5ad(tmp_path / "cells.h5ad")
    bare = anndata.AnnData(obs=adata.obs, obsm={"X_latent": adata.obsm["X_latent"]})
    given = bare if where == "nowhere" else anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    handed = cf.doors.to_cellrank(given, flow).adata
    assert handed.X.dtype == np.float32
    assert handed.X.shape == handed.shape
    assert handed.X.nnz == 0
    handed.write_h5ad(tmp_path / "handed.h5ad")
    assert anndata.read_h5ad(tmp_path / "handed.h5ad").shape == handed.shape
