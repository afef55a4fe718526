"""Reports on the command line: what they show is named in one word, and runs that fail leave nothing behind."""

import html

import pytest

from cellflow.cli import main
from conftest import make_cells

FAST = ["steps=5", "batch_size=8", "progress=false", "device=cpu", "network.width=8", "validate=false"]


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """A file of cells with groups, and principal components that genes can be decoded from."""
    import scanpy as sc

    adata = make_cells()
    adata.obs["kind"] = ["a", "b"] * (adata.n_obs // 2)
    if adata.X is None or adata.n_vars < 3:
        import anndata

        adata = anndata.AnnData(adata.obsm["X_pca"].copy(), obs=adata.obs)
        adata.var_names = [f"GENE{k}" for k in range(adata.n_vars)]
    sc.pp.pca(adata, n_comps=2)
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    adata.write_h5ad(path)
    return path, adata.var_names[0]


def fit(cells, out, *more):
    return main(["fit", f"data.path={cells[0]}", "data.time_key=day", f"out={out}", *FAST, *more])


@pytest.fixture(scope="module")
def run(cells, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    assert fit(cells, out, "groupby=kind", f"genes=[{cells[1]}]", "report=false") == 0
    return out


def test_a_fit_without_a_report_says_how_to_write_it(run, capsys):
    assert not (run / "report.html").exists()
    assert main(["report", f"model={run}"]) == 0
    page = html.unescape((run / "report.html").read_text())
    for title in ("The cells", "Where cells end", "Genes toward each fate", "Genes over time"):
        assert f"<h2>{title}</h2>" in page


def test_fates_that_were_made_later_are_in_the_next_report(cells, tmp_path):
    run = tmp_path / "run"
    assert fit(cells, run, "report=false") == 0
    assert main(["fate", f"model={run}", "groupby=kind", "progress=false"]) == 0
    assert main(["report", f"model={run}"]) == 0
    assert "<h2>Where cells end</h2>" in (run / "report.html").read_text()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("groupby=sort", "No `adata.obs['sort']`"),
        ("basis=umap", "X_umap"),
        ("genes=[NOTHING]", "NOTHING"),
        ("data.rep=X_nothing", "X_nothing"),
        ("n_pcs=9", "from 1 to the 2 columns"),
    ],
)
def test_what_is_not_there_is_said_before_the_fit_and_leaves_no_folder(cells, tmp_path, capsys, word, said):
    assert fit(cells, tmp_path / "run", word) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_what_was_in_a_folder_before_stays(cells, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert fit(cells, tmp_path, "groupby=sort") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
