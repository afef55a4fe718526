"""annbatch itself, where it is installed: what it writes and what it fetches are the cells that they are in memory."""

import anndata
import numpy as np
import pytest
import zarr
from scipy import sparse

from cellflow.cells.store_rows import Rows
from cellflow.cells.stores import read_stores

annbatch = pytest.importorskip("annbatch", reason="annbatch needs Python 3.12")


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix])
def test_rows_come_in_order(kind, tmp_path):
    x = kind(np.random.default_rng(0).poisson(1.0, (1500, 4)).astype("float32"))
    anndata.AnnData(x).write_zarr(tmp_path / "a.zarr")
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")["X"]
    values = anndata.io.sparse_dataset(group) if sparse.issparse(x) else group
    found = [block.toarray() if sparse.issparse(block) else block for block in Rows(values, tmp_path).blocks(1024)]
    assert np.array_equal(np.concatenate(found), x.toarray() if sparse.issparse(x) else x)


def test_a_collection_is_read_as_a_whole(tmp_path):
    adata = anndata.AnnData(sparse.random(300, 5, 0.5, format="csr", dtype="float32", random_state=0))
    adata.obsm["X_pca"] = np.random.default_rng(0).normal(size=(300, 3)).astype("float32")
    adata.write_h5ad(tmp_path / "a.h5ad")
    annbatch.DatasetCollection(tmp_path / "all.zarr").add_adatas([tmp_path / "a.h5ad"])
    found = read_stores(tmp_path / "all.zarr")
    assert np.allclose(np.sort(found.obsm["X_pca"], axis=0), np.sort(adata.obsm["X_pca"], axis=0))
