"""New cells in the components of a reference: the PCA's own, whatever the order of genes, and taken by every tool."""

import logging

import anndata
import numpy as np
import pytest
import scanpy as sc
from scipy import sparse

import cellflow as cf
from conftest import make_cells

pytestmark = pytest.mark.usefixtures("global_state_is_untouched")


def cells(seed):
    draw = np.random.default_rng(seed)
    moving = make_cells(sizes=(40, 50, 45), seed=seed)
    patterns = np.random.default_rng(9).normal(size=(3, 20))
    x = np.maximum(moving.obsm["X_pca"] @ patterns + 3 + 0.2 * draw.normal(size=(135, 20)), 0)
    adata = anndata.AnnData(sparse.csr_matrix(x.astype(np.float32)), obs=moving.obs)
    adata.obs_names = [f"cell{seed}_{k}" for k in range(135)]
    adata.var_names = [f"gene{k}" for k in range(20)]
    return adata


@pytest.fixture
def reference():
    adata = cells(0)
    sc.pp.pca(adata, n_comps=5)
    return adata


def expected(reference, new):
    """The components by the formula of the PCA itself."""
    return (new.X.toarray() - reference.X.toarray().mean(axis=0)) @ reference.varm["PCs"]


def test_the_reference_itself_keeps_its_components(reference):
    for change in ({}, {"zero_center": False}, {"mask_var": np.arange(20) % 3 > 0}):
        adata = reference.copy()
        sc.pp.pca(adata, n_comps=5, **change)
        found = cf.pp.project(adata[:, ::-1].copy(), adata, copy=True)
        np.testing.assert_allclose(found.obsm["X_pca"], adata.obsm["X_pca"], atol=1e-3)
        np.testing.assert_allclose(found.varm["PCs"], adata.varm["PCs"][::-1])


def test_new_cells_are_where_the_pca_would_put_them(reference):
    new = cells(1)
    new.obsm["X_pca"] = np.zeros((135, 2), np.float32)
    assert cf.pp.project(new, reference[reference.obs["day"] > 0].copy()) is None  # a part of it does as well
    np.testing.assert_allclose(new.obsm["X_pca"], expected(reference, new), atol=1e-3)
    assert new.uns["projection"]["missing_weight"] == 0
    assert new.uns["projection"]["n_genes"] == 20


def test_layers_raw_and_dense_expression_are_read(reference):
    new = cells(1)
    plain = expected(reference, new)
    for adata in (reference, new):
        adata.layers["log"] = adata.X.toarray()
        adata.raw = adata[:, ::-1].copy()
        adata.X = adata.X.power(2)
    for where in ({"layer": "log"}, {"use_raw": True}):
        found = cf.pp.project(new, reference, copy=True, **where)
        np.testing.assert_allclose(found.obsm["X_pca"], plain, atol=1e-3)
    with pytest.raises(ValueError, match="pass `layer='log'`"):
        cf.pp.project(new, reference)


def test_missing_genes_have_their_mean_and_are_told_of(reference, caplog):
    new = cells(1)
    cf.pp.project(lacking := new[:, 3:].copy(), reference)
    full = new.X.toarray()
    full[:, :3] = reference.X.toarray().mean(axis=0)[:3]
    new.X = sparse.csr_matrix(full)
    np.testing.assert_allclose(lacking.obsm["X_pca"], expected(reference, new), atol=1e-3)
    assert lacking.uns["projection"]["missing"].tolist() == ["gene0", "gene1", "gene2"]
    assert "3 of 20 genes of the PCA are missing" in caplog.text
    with pytest.raises(ValueError, match=r"8 of 20 genes of the PCA \(40%\) are missing"):
        cf.pp.project(cells(1)[:, 8:].copy(), reference)
    cf.pp.project(cells(1)[:, 8:].copy(), reference, max_missing=0.5)


def test_names_that_do_not_match_are_told_of(reference):
    new = cells(1)
    new.var_names = new.var_names.str.upper()
    with pytest.raises(ValueError, match="Regardless of case 20 are there"):
        cf.pp.project(new, reference)
    new.var_names = [f"ENSG{k}" for k in range(20)]
    with pytest.raises(ValueError, match="'gene0', 'gene1', 'gene2' there, and 'ENSG0'"):
        cf.pp.project(new, reference)
    new.var_names = ["gene1", *(f"gene{k}" for k in range(1, 20))]
    with pytest.raises(ValueError, match="called 'gene1'"):
        cf.pp.project(new, reference)


def test_other_units_and_missing_numbers_are_told_of(reference):
    new = cells(1)
    new.X = new.X * 100
    with pytest.warns(UserWarning, match="other units"):
        cf.pp.project(new, reference)
    new.X = new.X.toarray() * np.nan
    with pytest.raises(ValueError, match="NaN or infinity, first in the gene 'gene0'"):
        cf.pp.project(new, reference)
    with pytest.raises(ValueError, match="max_missing"):
        cf.pp.project(new, reference, max_missing=1.0)
    with pytest.raises(KeyError, match=r"sc\.pp\.pca"):
        cf.pp.project(cells(1), cells(2))


@pytest.mark.parametrize("some", [slice(None), slice(2, None)], ids=["all genes", "some genes"])
def test_every_tool_takes_new_cells(reference, tmp_path, some, caplog):
    """No tool warns of another representation; warnings are errors here."""
    flow = cf.SnapshotFlow(time_key="day", steps=10, device="cpu").fit(reference)
    new = cells(1)[:, some].copy()
    new.obs["kind"] = np.where(np.arange(135) % 2, "a", "b")
    sc.pp.pca(new, n_comps=5)  # of its own, which is replaced
    cf.pp.project(new, reference)
    new.write_h5ad(tmp_path / "new.h5ad")
    new = anndata.read_h5ad(tmp_path / "new.h5ad")
    with caplog.at_level(logging.WARNING):
        caplog.clear()
        cf.tl.velocity(new, flow, genes=True)
        cf.tl.fate(new, flow, groupby="kind", n_neighbors=3)
        cf.tl.trends(new, flow, genes=["gene4"], n_times=4, n_bootstrap=4)
        cf.tl.trajectories(new, flow, n=3, n_times=3)
        cf.tl.push(new, flow, cells=new.obs["day"] == 0, at=5.0)
        cf.tl.growth(new, flow, sensitivity=False)
        assert cf.tl.interpolate(new, flow, at=2.0).n_vars == new.n_vars
        assert flow.score(new) < 0
    assert "decoded" not in caplog.text
    np.testing.assert_allclose(new.obsm["velocity"], flow.velocity(new.obsm["X_pca"], new.obs["day"]), atol=1e-5)
