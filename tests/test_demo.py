"""The main job on the real myoblasts: what biology knows must come out."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

import cellflow as cf
from cellflow.cli import main


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    run = tmp_path_factory.mktemp("demo") / "run"
    assert main(["demo", f"out={run}", "steps=300", "progress=false", "device=cpu"]) == 0
    return run


@pytest.mark.slow
def test_the_demo_predicts_the_left_out_hours_better_than_the_cells_before_them(demo):
    table = pd.read_csv(demo / "validation.csv").set_index("method")
    assert set(table["time"]) == {24.0}
    assert table.loc["flow", "W1"] < table.loc["previous snapshot", "W1"]
    assert table.loc["flow", "W1"] > table.loc["half against half", "W1"]


@pytest.mark.slow
def test_marker_genes_follow_the_known_course(demo):
    """Along the predicted course MYOG and MYH3 rise and CDK1 and ID1 fall, with 24 hours never seen."""
    adata, flow = anndata.read_h5ad(demo / "cells.h5ad"), cf.SnapshotFlow.load(demo)
    assert flow.clock_.times == (0.0, 48.0, 72.0)
    course = cf.tl.interpolate(adata, flow, at=[0, 24, 48, 72])
    mean = {
        gene: [np.average(part[:, gene].X[:, 0], weights=part.obs["weight"]) for part in by_time(course)]
        for gene in ("MYOG", "MYH3", "CDK1", "ID1")
    }
    for gene in ("MYOG", "MYH3"):
        assert mean[gene][0] < mean[gene][1] < mean[gene][2], gene
    for gene in ("CDK1", "ID1"):
        assert mean[gene][0] > mean[gene][1] > mean[gene][2], gene


def by_time(adata):
    return [adata[adata.obs["hours"] == time] for time in (0, 24, 48, 72)]


@pytest.mark.slow
def test_the_demo_writes_its_prediction_figures_and_report(demo):
    predicted = anndata.read_h5ad(demo / "predicted.h5ad")
    assert predicted.n_vars > 1900
    assert set(predicted.obs["origin_time"]) == {0.0, 48.0}
    names = {path.stem for path in (demo / "figures").glob("*.png")}
    assert {"genes", "loss", "predicted", "trajectories", "validation", "velocity"} <= names
    page = (demo / "report.html").read_text()
    assert "24 hours" in page
    assert "Genes over time" in page


@pytest.mark.slow
def test_the_commands_that_the_report_names_work_on_the_demo(demo):
    assert main(["interpolate", f"model={demo}", "at=[36]"]) == 0
    assert main(["velocity", f"model={demo}"]) == 0
    assert anndata.read_h5ad(demo / "interpolated-36.h5ad").n_obs == 69 + 79


@pytest.fixture(scope="module")
def blood(tmp_path_factory):
    run = tmp_path_factory.mktemp("demo") / "blood"
    small = ["steps=200", "validate=false", "progress=false", "device=cpu"]
    assert main(["demo", "task=hematopoiesis", f"out={run}", *small]) == 0
    return run


@pytest.mark.slow
def test_the_second_demo_opens_with_where_blood_cells_go_and_compares_them_with_clones(blood):
    page = (blood / "report.html").read_text()
    assert page.index("Where cells go") < page.index("Beside real clones") < page.index("What was fitted")
    assert "real clones that had changed by day 6" in page
    names = {path.stem for path in (blood / "figures").glob("*.png")}
    assert {"velocity", "clones", "fates", "loss"} <= names
    assert main(["report", f"model={blood}"]) == 0
    assert "real clones that had changed by day 6" in (blood / "report.html").read_text()


def test_six_lines_are_enough():
    adata = cf.datasets.hsmm()
    sc.pp.pca(adata)
    flow = cf.SnapshotFlow(time_key="hours", steps=100).fit(adata)
    middle = cf.tl.interpolate(adata, flow, at=36)
    cf.tl.velocity(adata, flow)
    assert middle.n_obs == 74 + 79
    assert np.isfinite(middle.X).all()
    assert adata.obsm["velocity"].shape == (271, 50)
