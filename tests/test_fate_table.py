"""Names of groups in files: any character, no two alike, and read back as they were."""

import anndata
import numpy as np
import pandas as pd
import pytest

import cellflow as cf
from cellflow.tl.fate_table import columns_of, read_fate

HARD = [
    "Ery/Mega", "Ery_Mega", "", ".", "..", ".zarray", "_index", "zarr.json", "spread", "descendants", "a b", "Ära µ",
    "ära µ", "x" * 400, "😀" * 90, "low", "back\\slash", "line\nbreak", "0",
]  # fmt: skip


@pytest.fixture(scope="module")
def named():
    """Cells in groups with names of every kind, and a flow through them."""
    draw, n = np.random.default_rng(0), len(HARD)
    place = np.tile(np.repeat(np.arange(n), 4), 2)
    x = np.stack([3.0 * place, np.repeat([0.0, 1.0], 4 * n)], axis=1) + 0.1 * draw.normal(size=(8 * n, 2))
    obs = pd.DataFrame({"day": np.repeat([0, 2], 4 * n)}, index=[f"cell{k}" for k in range(8 * n)])
    adata = anndata.AnnData(obs=obs, obsm={"X_pca": x.astype(np.float32)})
    adata.obs["kind"] = pd.Categorical([HARD[k] for k in place])
    return adata, cf.SnapshotFlow(time_key="day", steps=2, device="cpu").fit(adata)


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data")
@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_any_name_survives_a_file(named, form, tmp_path):
    adata, flow = named
    found = cf.tl.fate(adata, flow, groupby="kind", n_neighbors=4, copy=True)
    before = read_fate(found)
    assert sorted(before.groups) == sorted(HARD)
    assert all(f"fate_{name}" in found.obs for name in before.columns)
    getattr(found, f"write_{form}")(tmp_path / f"fates.{form}")
    back = getattr(anndata, f"read_{form}")(tmp_path / f"fates.{form}")
    after = read_fate(back)
    assert (after.groups, after.columns, after.at) == (before.groups, before.columns, 2.0)
    np.testing.assert_array_equal(after.shares, before.shares)
    for k, name in enumerate(after.columns):
        np.testing.assert_array_equal(back.obs[f"fate_{name}"], before.shares[:, k])


def test_names_stay_as_they_are_where_files_can_hold_them():
    assert columns_of(["B cell", "CD4+ (naïve)", "Ery:1"]) == ["B cell", "CD4+ (naïve)", "Ery:1"]
    found = columns_of(HARD)
    assert len({name.casefold() for name in found}) == len(HARD)
    assert found[HARD.index("Ery_Mega")] == "Ery_Mega"
    assert found[HARD.index("Ery/Mega")] == "Ery_Mega_2"


def test_another_run_leaves_no_columns_of_the_one_before(named):
    adata, flow = named[0].copy(), named[1]
    adata.obs["half"] = np.where(adata.obsm["X_pca"][:, 0] > 20, "right", "left")
    cf.tl.fate(adata, flow, groupby="kind", n_neighbors=4)
    part = adata[: 6 * len(HARD)].copy()
    cf.tl.fate(adata, flow, groupby="half")
    assert {name for name in adata.obs if name.startswith("fate_")} == {
        "fate_left", "fate_right", "fate_spread", "fate_descendants",
    }  # fmt: skip
    assert len(read_fate(part).groups) == len(HARD)


def test_what_was_read_is_not_written_over(named):
    adata, flow = named[0].copy(), named[1]
    adata.obs["fate_type"] = np.where(adata.obsm["X_pca"][:, 0] > 20, "type", "other")
    with pytest.raises(ValueError, match="Choose another `key_added`"):
        cf.tl.fate(adata, flow, groupby="fate_type")
    assert set(adata.obs["fate_type"]) == {"type", "other"}


def test_a_missing_fate_is_named(named):
    adata, flow = named[0].copy(), named[1]
    with pytest.raises(KeyError, match=r"Run `cf\.tl\.fate"):
        read_fate(adata)
    adata.obs["half"] = np.where(adata.obsm["X_pca"][:, 0] > 20, "right", "left")
    cf.tl.fate(adata, flow, groupby="half", key_added="ends")
    with pytest.raises(KeyError, match=r"There are fates in \['ends'\]"):
        read_fate(adata)
    table = read_fate(adata, "ends")
    with pytest.raises(KeyError, match="Did you mean 'right'"):
        table.share("rigt")
    assert table.known.sum() == (adata.obs["day"] == 0).sum()


def test_origins_are_called_so(named):
    adata, flow = named[0].copy(), named[1]
    cf.tl.fate(adata, flow, groupby="kind", at=0, n_neighbors=4)
    assert read_fate(adata).backward
    assert not read_fate(cf.tl.fate(adata, flow, groupby="kind", n_neighbors=4, copy=True)).backward


def test_hundreds_of_groups_are_as_many_columns(named):
    adata, flow = named[0].copy(), named[1]
    adata.obs["each"] = [f"kind {k % 150}" for k in range(adata.n_obs)]
    cf.tl.fate(adata, flow, groupby="each")
    found = read_fate(adata)
    assert sum(f"fate_{name}" in adata.obs for name in found.columns) == len(found.groups) > 70
