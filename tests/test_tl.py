"""Tools: what they write, that it is right on cells whose motion is known, and that it survives h5ad and zarr."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse

import cellflow as cf
from cellflow import tl
from conftest import make_cells

pytestmark = pytest.mark.usefixtures("global_state_is_untouched")


@pytest.fixture(scope="module")
def genes_and_flow():
    """A sparse expression matrix with its PCA, and a flow on it."""
    draw = np.random.default_rng(0)
    cells = make_cells(sizes=(60, 80, 70))
    patterns = draw.normal(size=(3, 12))
    expression = np.maximum(cells.obsm["X_pca"] @ patterns + 3 + 0.1 * draw.normal(size=(210, 12)), 0)
    adata = anndata.AnnData(sparse.csr_matrix(expression.astype(np.float32)), obs=cells.obs)
    adata.var_names = [f"gene{k}" for k in range(12)]
    sc.pp.pca(adata, n_comps=5)
    return adata, cf.SnapshotFlow(time_key="day", steps=200, device="cpu").fit(adata)


def test_interpolated_cells_lie_where_moving_cells_must_be(moving):
    adata, flow = moving
    found = tl.interpolate(adata, flow, at=3.0)
    weight = found.obs["weight"].to_numpy()
    mean = (found.obsm["X_pca"] * weight[:, None]).sum(0)
    assert mean == pytest.approx([3, 0, 0], abs=0.15)
    assert weight.sum() == pytest.approx(1)


def test_origins_and_weights_say_where_cells_come_from(moving):
    adata, flow = moving
    found = tl.interpolate(adata, flow, at=2.0)
    assert found.n_obs == 250 + 200
    assert set(found.obs["origin"]) == set(adata.obs_names[adata.obs["day"] > 0])
    assert (adata.obs.loc[found.obs["origin"], "day"].to_numpy() == found.obs["origin_time"].to_numpy()).all()
    shares = found.obs.groupby("origin_time")["weight"].sum()
    assert shares.to_dict() == pytest.approx({1.0: 0.75, 5.0: 0.25})
    assert (found.obs["day"] == 2.0).all()
    assert found.obs_names.is_unique


def test_one_side_alone_can_be_carried(moving):
    adata, flow = moving
    before, after = (tl.interpolate(adata, flow, at=2.0, origin=side) for side in ("before", "after"))
    assert (set(before.obs["origin_time"]), set(after.obs["origin_time"])) == ({1.0}, {5.0})
    assert before.obs["weight"].sum() == pytest.approx(1)


def test_at_a_fitted_time_the_cells_come_back_unmoved(moving):
    adata, flow = moving
    found = tl.interpolate(adata, flow, at=1.0)
    original = adata[found.obs["origin"].to_numpy()].obsm["X_pca"]
    assert np.allclose(found.obsm["X_pca"], original, atol=1e-6)
    assert found.n_obs == 250


def test_several_times_at_once_are_the_single_ones_stacked(moving):
    adata, flow = moving
    both = tl.interpolate(adata, flow, at=[0.5, 2.0])
    single = tl.interpolate(adata, flow, at=2.0)
    assert (both[both.obs["day"] == 2.0].obsm["X_pca"] == single.obsm["X_pca"]).all()
    assert both.obs.groupby("day")["weight"].sum().to_list() == pytest.approx([1, 1])


def test_cells_of_times_the_flow_has_not_seen_are_not_used(cells):
    flow = cf.SnapshotFlow(time_key="day", steps=20, device="cpu").fit(cells[cells.obs["day"] != 1])
    found = tl.interpolate(cells, flow, at=1.0)
    assert set(found.obs["origin_time"]) == {0.0, 5.0}
    spoilt = cells.copy()
    spoilt.obsm["X_pca"][(cells.obs["day"] == 1).to_numpy()] += 100
    assert (tl.interpolate(spoilt, flow, at=1.0).obsm["X_pca"] == found.obsm["X_pca"]).all()


def test_extrapolation_is_an_error_unless_asked_for(moving):
    adata, flow = moving
    with pytest.raises(ValueError, match="extrapolate=True"):
        tl.interpolate(adata, flow, at=6.0)
    found = tl.interpolate(adata, flow, at=[-1.0, 6.0], extrapolate=True)
    assert found.obs.groupby("day")["origin_time"].unique().apply(list).to_dict() == {-1.0: [0.0], 6.0: [5.0]}


def test_timedelta_times_are_days(cells):
    cells.obs["day"] = pd.to_timedelta(cells.obs["day"], unit="D")
    flow = cf.SnapshotFlow(time_key="day", steps=20, device="cpu").fit(cells)
    found = tl.interpolate(cells, flow, at=pd.Timedelta(hours=36))
    assert (found.obs["day"] == 1.5).all()


def test_genes_are_decoded_through_the_loadings(genes_and_flow):
    """At a fitted time nothing moves, so decoding must give back what the components keep of the expression."""
    adata, flow = genes_and_flow
    found = tl.interpolate(adata, flow, at=1.0)
    measured = adata[found.obs["origin"].to_numpy()].X.toarray()
    assert list(found.var_names) == list(adata.var_names)
    assert np.abs(found.X - measured).mean() < 0.06
    full = adata.X.toarray()
    rebuilt = (adata.obsm["X_pca"] @ adata.varm["PCs"].T + full.mean(0))[(adata.obs["day"] == 1).to_numpy()]
    assert np.allclose(found.X, rebuilt, atol=1e-4)


def test_genes_of_a_part_of_the_cells_are_decoded_too(genes_and_flow):
    """Components of a part do not have mean zero: what is added back is what they leave over, and no more."""
    adata, flow = genes_and_flow
    part = adata[adata.obs["day"] > 0].copy()
    assert np.abs(part.obsm["X_pca"].mean(0)).max() > 0.1
    found = tl.interpolate(part, flow, at=1.0)
    measured = part[found.obs["origin"].to_numpy()].X.toarray()
    assert np.abs(found.X - measured).mean() < 0.06


def test_genes_that_the_pca_did_not_see_are_not_invented(genes_and_flow):
    adata = genes_and_flow[0].copy()
    adata.var["highly_variable"] = [k % 2 == 0 for k in range(12)]
    sc.pp.pca(adata, n_comps=4)
    flow = cf.SnapshotFlow(time_key="day", steps=20, device="cpu").fit(adata)
    assert list(tl.interpolate(adata, flow, at=2.0).var_names) == [f"gene{k}" for k in range(0, 12, 2)]
    tl.velocity(adata, flow, genes=True)
    assert not adata.layers["velocity"][:, 1::2].any()
    assert adata.layers["velocity"][:, ::2].all()


def test_loadings_that_do_not_fit_the_expression_are_refused(genes_and_flow, caplog):
    adata, flow = genes_and_flow[0].copy(), genes_and_flow[1]
    adata.X = adata.X.power(2)
    with pytest.raises(ValueError, match="changed after the PCA"):
        tl.interpolate(adata, flow, at=2.0, genes=True)
    assert tl.interpolate(adata, flow, at=2.0).n_vars == 0
    assert "genes are not decoded" in caplog.text
    assert "changed after the PCA" in caplog.text
    assert tl.interpolate(adata, flow, at=2.0, genes=False).n_vars == 0


def test_cells_late_in_the_file_are_looked_at_too(genes_and_flow):
    adata, flow = genes_and_flow[0].copy(), genes_and_flow[1]
    adata = anndata.concat([adata, adata, adata], merge="first", index_unique="-")
    late = adata.n_obs * 2 // 3
    adata.X = np.vstack([adata.X[:late].toarray(), adata.X[late:].toarray() ** 2])
    with pytest.raises(ValueError, match="changed after the PCA"):
        tl.interpolate(adata, flow, at=2.0, genes=True)


def test_asking_for_genes_without_loadings_is_an_error(moving):
    adata, flow = moving
    with pytest.raises(KeyError, match="Run `sc.pp.pca"):
        tl.interpolate(adata, flow, at=2.0, genes=True)
    with pytest.raises(ValueError, match="value of `genes`"):
        tl.interpolate(adata, flow, at=2.0, genes="yes")


def test_views_and_backed_files_give_the_same_cells(genes_and_flow, tmp_path):
    adata, flow = genes_and_flow
    adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    expected = tl.interpolate(adata, flow, at=2.0)
    for form in (adata[:], backed):
        found = tl.interpolate(form, flow, at=2.0)
        assert (found.obsm["X_pca"] == expected.obsm["X_pca"]).all()
        assert np.allclose(found.X, expected.X, atol=1e-5)
    backed.file.close()


def test_x_as_the_representation_comes_back_as_x(cells):
    adata = anndata.AnnData(cells.obsm["X_pca"], obs=cells.obs)
    flow = cf.SnapshotFlow(time_key="day", rep="X", steps=20, device="cpu").fit(adata)
    found = tl.interpolate(adata, flow, at=2.0)
    assert found.shape == (110, 3)
    assert list(found.var_names) == list(adata.var_names)


def test_velocity_is_per_unit_of_the_users_time(moving):
    adata, flow = moving
    assert tl.velocity(adata, flow) is None
    assert adata.obsm["velocity"].mean(0) == pytest.approx([1, 0, 0], abs=0.1)
    copied = tl.velocity(adata, flow, key_added="v", copy=True)
    assert "v" not in adata.obsm
    assert (copied.obsm["v"] == adata.obsm["velocity"]).all()


def test_gene_velocity_is_the_change_of_decoded_genes(genes_and_flow):
    adata, flow = genes_and_flow
    adata = adata.copy()
    tl.velocity(adata, flow, genes=True)
    rows = np.flatnonzero(adata.obs["day"] == 1)
    step = 1e-2
    x = adata.obsm["X_pca"][rows]
    later = flow.transport(x, start=1.0, stop=1.0 + step).x[-1].numpy()
    change = (later - x) @ adata.varm["PCs"].T / step
    assert np.allclose(adata.layers["velocity"][rows], change, atol=0.02)


def test_trajectories_start_at_their_cells_and_keep_their_time(moving):
    adata, flow = moving
    tl.trajectories(adata, flow, n=10, n_times=6)
    found = adata.uns["trajectories"]
    assert found["x"].shape == (6, 10, 3)
    assert (found["x"][0] == adata[found["origin"]].obsm["X_pca"]).all()
    assert np.allclose(found["time"], [[t] * 10 for t in range(6)], atol=1e-5)
    assert found["x"][-1].mean(0) == pytest.approx([5, 0, 0], abs=0.3)


def test_trajectories_of_chosen_cells_run_from_their_own_time_or_back(moving):
    adata, flow = moving
    chosen = adata.obs_names[adata.obs["day"] == 5][:4]
    tl.trajectories(adata, flow, cells=chosen, stop=0.0, n_times=3, key_added="past")
    found = adata.uns["past"]
    assert list(found["origin"]) == list(chosen)
    assert found["time"][:, 0] == pytest.approx([5, 2.5, 0])
    assert found["x"][-1][:, 0] == pytest.approx([0] * 4, abs=1.0)


@pytest.fixture(scope="module")
def fitted_branches():
    """Two groups of cells that move apart: A up, B down."""
    draw = np.random.default_rng(0)
    side = np.tile([1.0, -1.0], 100)
    time = np.repeat([0.0, 1.0], 100)
    x = draw.normal(size=(200, 2)) * 0.1
    x[:, 1] += side * (1 + 2 * time)
    adata = anndata.AnnData(np.zeros((200, 0), np.float32), obsm={"X_pca": x.astype(np.float32)})
    adata.obs["time"], adata.obs["branch"] = time, pd.Categorical(np.where(side > 0, "A", "B"))
    return adata, cf.SnapshotFlow(steps=200, device="cpu").fit(adata)


@pytest.fixture
def two_branches(fitted_branches):
    return fitted_branches[0].copy(), fitted_branches[1]


def test_descendants_and_ancestors_stay_on_their_branch(two_branches):
    adata, flow = two_branches
    upper = (adata.obs["branch"] == "A") & (adata.obs["time"] == 0)
    tl.push(adata, flow, cells=upper, at=1.0, groupby="branch")
    assert adata.obs["push"].sum() == pytest.approx(1)
    assert adata.obs.loc[adata.obs["time"] == 0, "push"].eq(0).all()
    table = adata.uns["push"]["groups"]
    assert table.loc["A", "mass"] == pytest.approx(1)
    assert table["share"].to_dict() == pytest.approx({"A": 0.5, "B": 0.5})
    later = adata.obs_names[(adata.obs["branch"] == "B") & (adata.obs["time"] == 1)]
    tl.pull(adata, flow, cells=later, at=0.0, groupby="branch")
    assert adata.uns["pull"]["groups"].loc["B", "mass"] == pytest.approx(1)
    assert adata.uns["pull"]["n_cells"] == 50


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({"at": 0.5}, ValueError, "No cells at time 0.5 to carry cells to. Choose one of: 0, 1"),
        ({"groupby": "fate"}, KeyError, r"No `adata.obs\['fate'\]`. Available"),
        ({"n_neighbors": 101}, ValueError, "n_neighbors <= 100"),
        ({"cells": ["nobody"]}, KeyError, "No cells 'nobody'"),
        ({"cells": np.zeros(200, bool)}, ValueError, "No cells were chosen"),
        ({"cells": np.ones(3, bool)}, ValueError, "mask over 200 cells; found one over 3"),
        ({"at": 0.0}, ValueError, "chosen cells are after time 0. Use `tl.pull`"),
    ],
)
def test_impossible_pushes_are_named(two_branches, settings, kind, words):
    adata, flow = two_branches
    chosen = {"cells": (adata.obs["time"] == 1).to_numpy(), "at": 1.0} | settings
    with pytest.raises(kind, match=words):
        tl.push(adata, flow, **chosen)


def test_a_mask_is_read_by_name_whatever_its_order(two_branches):
    adata, flow = two_branches
    upper = (adata.obs["branch"] == "A") & (adata.obs["time"] == 0)
    tl.push(adata, flow, cells=upper, at=1.0)
    straight = adata.obs["push"].copy()
    tl.push(adata, flow, cells=upper.sample(frac=1, random_state=0), at=1.0)
    assert adata.obs["push"].equals(straight)
    with pytest.raises(ValueError, match="one over other cells"):
        tl.push(adata, flow, cells=upper.add_prefix("x"), at=1.0)
    with pytest.raises(TypeError, match="found numbers"):
        tl.push(adata, flow, cells=[0, 1], at=1.0)


def test_timedelta_is_understood_everywhere(cells):
    cells.obs["day"] = pd.to_timedelta(cells.obs["day"], unit="D")
    flow = cf.SnapshotFlow(time_key="day", steps=20, device="cpu").fit(cells)
    day = pd.Timedelta(days=1)
    tl.trajectories(cells, flow, n=3, stop=day)
    assert cells.uns["trajectories"]["time"][-1] == pytest.approx([1, 1, 1])
    tl.push(cells, flow, cells=cells.obs["day"] == pd.Timedelta(0), at=day)
    tl.validate(cells, flow, times=[day])
    moved = flow.transport(cells.obsm["X_pca"][:2], start=pd.Timedelta(0), stop=day)
    assert moved.t.tolist() == pytest.approx([0, 1])


def test_views_of_files_are_refused_with_the_cure(cells, tmp_path):
    flow = cf.SnapshotFlow(time_key="day", steps=5, device="cpu").fit(cells)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    for call in (
        lambda: tl.velocity(backed[::2], flow),
        lambda: tl.velocity(backed, flow, copy=True),
        lambda: tl.validate(backed[::2], flow),
    ):
        with pytest.raises(ValueError, match="to_memory"):
            call()
    tl.velocity(backed, flow)
    assert backed.obsm["velocity"].shape == (150, 3)
    backed.file.close()


def test_edges_the_flow_has_not_seen_can_be_reached_when_asked_for(cells):
    flow = cf.SnapshotFlow(time_key="day", steps=20, device="cpu").fit(cells[cells.obs["day"] < 5])
    first = cells.obs["day"] == 0
    with pytest.raises(ValueError, match="extrapolate=True"):
        tl.push(cells, flow, cells=first, at=5.0)
    tl.push(cells, flow, cells=first, at=5.0, extrapolate=True)
    assert cells.obs["push"].sum() == pytest.approx(1)


def test_validation_scores_a_moving_population_near_the_floor(moving):
    adata, flow = moving
    tl.validate(adata, flow, max_cells=150)
    table = adata.uns["validation"].set_index("method")["W1"]
    assert set(adata.uns["validation"]["time"]) == {1.0}
    assert table["previous snapshot"] == pytest.approx(1.0, abs=0.1)  # the population moved by exactly 1
    assert table["next snapshot"] == pytest.approx(4.0, abs=0.1)
    assert table["flow"] < 1.5 * table["half against half"] + 0.1
    assert table["linear transport"] < 1.5 * table["half against half"] + 0.1


def test_validation_refits_without_the_time_unless_the_flow_has_not_seen_it(cells):
    """The score may not depend on what the left-out cells look like, only on how far they are."""
    settings = cf.SnapshotFlow(time_key="day", steps=20, device="cpu")
    fitted = cf.SnapshotFlow(time_key="day", steps=20, device="cpu").fit(cells[cells.obs["day"] != 1])
    tables = []
    for flow in (settings, fitted):
        tl.validate(cells, flow)
        tables.append(cells.uns["validation"])
    assert tables[0].equals(tables[1])
    with pytest.raises(ValueError, match=r"snapshot on each side, of \[1.0\]; found \[5.0\]"):
        tl.validate(cells, settings, times=[5.0])


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
def test_everything_written_survives_h5ad_and_zarr(genes_and_flow, tmp_path):
    adata, flow = genes_and_flow
    adata = adata.copy()
    adata.obs["kind"] = pd.Categorical(["a", "b"] * 105)
    tl.velocity(adata, flow, genes=True)
    tl.trajectories(adata, flow, n=5, n_times=4)
    tl.push(adata, flow, cells=adata.obs["day"] == 0, at=5.0, groupby="kind")
    tl.validate(adata, flow, max_cells=30)
    for kind in ("h5ad", "zarr"):
        getattr(adata, f"write_{kind}")(tmp_path / f"cells.{kind}")
        back = getattr(anndata, f"read_{kind}")(tmp_path / f"cells.{kind}")
        assert (back.obsm["velocity"] == adata.obsm["velocity"]).all()
        assert (back.uns["trajectories"]["x"] == adata.uns["trajectories"]["x"]).all()
        assert (back.uns["trajectories"]["origin"] == adata.uns["trajectories"]["origin"]).all()
        assert back.uns["validation"]["W1"].to_list() == adata.uns["validation"]["W1"].to_list()
        assert back.uns["push"]["groups"]["mass"].to_dict() == adata.uns["push"]["groups"]["mass"].to_dict()
        found = tl.interpolate(adata, flow, at=2.0)
        getattr(found, f"write_{kind}")(tmp_path / f"found.{kind}")
        assert (getattr(anndata, f"read_{kind}")(tmp_path / f"found.{kind}").X == found.X).all()
