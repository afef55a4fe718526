"""`n_pcs`: a flow on the first columns of a representation, as if there were no others; and bars in a terminal."""

import anndata
import numpy as np
import pytest
import scanpy as sc

import cellflow as cf
from cellflow import tl
from cellflow.training.run import progress_bar

SETTINGS = {"time_key": "hours", "steps": 40, "batch_size": 64, "device": "cpu"}
K = 4


@pytest.fixture(scope="module")
def myoblasts():
    adata = cf.datasets.hsmm()
    sc.pp.pca(adata, n_comps=10)
    return adata


@pytest.fixture(scope="module")
def flow(myoblasts):
    return cf.SnapshotFlow(**SETTINGS, n_pcs=K).fit(myoblasts)


def test_the_other_columns_play_no_part(myoblasts, flow):
    narrow, spoilt = myoblasts.copy(), myoblasts.copy()
    narrow.obsm["X_pca"] = narrow.obsm["X_pca"][:, :K].copy()
    spoilt.obsm["X_pca"][:, K:] = np.nan
    x = narrow.obsm["X_pca"]
    for adata, n_pcs in ((narrow, None), (spoilt, K)):
        other = cf.SnapshotFlow(**SETTINGS, n_pcs=n_pcs).fit(adata)
        np.testing.assert_array_equal(other.velocity(x, 24.0), flow.velocity(x, 24.0))
    assert flow.n_features_in_ == flow.read(myoblasts).x.shape[1] == K


def test_results_have_the_columns_of_the_flow_and_can_be_drawn_over_all(myoblasts, flow, tmp_path):
    adata = myoblasts.copy()
    adata.obsm["X_umap"] = adata.obsm["X_pca"][:, [9, 8]]
    tl.velocity(adata, flow)
    tl.trajectories(adata, flow, n=5, n_times=4)
    tl.interpolate(adata, flow, at=36).write_h5ad(tmp_path / "predicted.h5ad")
    adata.write_h5ad(tmp_path / "cells.h5ad")
    adata, predicted = (anndata.read_h5ad(tmp_path / f"{name}.h5ad") for name in ("cells", "predicted"))
    assert adata.obsm["velocity"].shape[1] == predicted.obsm["X_pca"].shape[1] == K
    for basis in ("pca", "umap"):
        cf.pl.velocity(adata, basis=basis, kind="grid")
        cf.pl.trajectories(adata, basis=basis)
        cf.pl.interpolation(adata, predicted, basis=basis)
    with pytest.raises(ValueError, match="two different columns of 'X_pca', which has 4"):
        cf.pl.velocity(adata, basis="pca", components=(0, K))


def test_genes_are_decoded_from_these_columns_alone(myoblasts, flow):
    x, loadings = myoblasts.obsm["X_pca"][:, :K], myoblasts.varm["PCs"][:, :K]
    tl.velocity(adata := myoblasts.copy(), flow, genes=True)
    np.testing.assert_allclose(adata.layers["velocity"], adata.obsm["velocity"] @ loadings.T, atol=1e-5)
    there = tl.interpolate(myoblasts, flow, at=0, genes=True)  # at a fitted time these are the cells themselves
    mean = np.asarray(myoblasts.X.mean(axis=0)).ravel()
    seen = (loadings != 0).any(axis=1)
    expected = (there.obsm["X_pca"] - x.mean(axis=0)) @ loadings.T + mean
    np.testing.assert_allclose(there.X, expected[:, seen], atol=1e-4)


def test_a_saved_flow_keeps_the_number_and_knows_its_columns_again(myoblasts, flow, tmp_path):
    flow.save(tmp_path)
    loaded = cf.SnapshotFlow.load(tmp_path)
    assert loaded.n_pcs == K
    assert loaded.read(myoblasts).x.shape[1] == K
    unused, used = myoblasts.copy(), myoblasts.copy()
    for adata, column in ((unused, K), (used, K - 1)):
        adata.obsm["X_pca"][:, column] *= -1
        adata.varm["PCs"][:, column] *= -1
    loaded.read(unused)
    with pytest.raises(ValueError, match="another PCA"):
        loaded.read(used)


def test_a_fit_does_not_resume_with_another_number(myoblasts, tmp_path, monkeypatch):
    def stop(found):
        raise RuntimeError("stopped")

    run = cf.Run(tmp_path, save_every=10, watch=stop, watch_every=10)
    with pytest.raises(RuntimeError, match="stopped"):
        cf.SnapshotFlow(**SETTINGS, n_pcs=K).fit(myoblasts, run=run)
    with pytest.raises(cf.errors.CheckpointError, match="n_pcs"):
        cf.SnapshotFlow(**SETTINGS, n_pcs=K + 1).fit(myoblasts, run=cf.Run(tmp_path, resume=True))
    cf.SnapshotFlow(**SETTINGS, n_pcs=K).fit(myoblasts, run=cf.Run(tmp_path, resume=True))


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"n_pcs": 11}, ValueError, "from 1 to the 10 columns of 'X_pca'; found 11"),
        ({"n_pcs": 0}, ValueError, "found 0"),
        ({"n_pcs": 2.5}, TypeError, "whole number or None"),
        ({"n_pcs": 3, "rep": "X"}, ValueError, "genes of `X` have no such order"),
    ],
)
def test_numbers_that_cannot_be_are_refused(myoblasts, given, error, words):
    with pytest.raises(error, match=words):
        cf.SnapshotFlow(**SETTINGS | given).fit(myoblasts)


@pytest.mark.parametrize(("terminal", "shown", "seen"), [
    (True, None, True), (False, None, False), (True, False, False), (False, True, True),
])  # fmt: skip
def test_bars_are_shown_in_a_terminal_unless_something_else_is_said(monkeypatch, capsys, terminal, shown, seen):
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    with progress_bar(shown=shown, start=0, steps=3, what="counting") as bar:
        bar(3, None)
    out, err = capsys.readouterr()
    assert ("counting" in err) == seen
    assert out == ""


@pytest.mark.parametrize(("own", "runs", "shown"), [
    (None, None, None), (False, None, False), (True, False, True), (False, True, True), (None, False, False),
])  # fmt: skip
def test_a_flow_or_its_run_says_whether_there_is_a_bar(own, runs, shown):
    flow = cf.SnapshotFlow(progress=own)
    assert flow._run(cf.Run(progress=runs)).progress is shown
