"""No two results share a column: every tool that writes columns of cells refuses those of another result."""

import anndata
import numpy as np
import pandas as pd
import pytest

import cellflow as cf
from cellflow.cells.gene_sets import APOPTOSIS, CELL_CYCLE
from cellflow.tl.keys import columns_of_result
from conftest import make_cells

FIRST = {"day": 0.0}


@pytest.fixture(scope="module")
def fitted():
    adata = make_cells()
    adata.obs["kind"] = np.where(np.arange(adata.n_obs) % 2, "A", "B")
    genes = [
        *CELL_CYCLE[:40],
        *(gene for gene in APOPTOSIS[:60] if gene not in CELL_CYCLE),
        *(f"OTHER{k}" for k in range(400)),
    ]
    x = np.random.default_rng(0).gamma(2.0, 0.3, (adata.n_obs, len(genes))).astype(np.float32)
    adata = anndata.AnnData(x, obs=adata.obs, var=pd.DataFrame(index=genes), obsm=dict(adata.obsm))
    coupling = cf.couplings.UnbalancedSinkhorn(epsilon=0.1, relaxation=1.0)
    settings = {"coupling": coupling, "growth": True, "ensemble": 2, "steps": 2, "batch_size": 16, "device": "cpu"}
    return adata, cf.SnapshotFlow(time_key="day", **settings).fit(adata)


WRITERS = {
    "velocity": lambda adata, flow, key: cf.tl.velocity(adata, flow, key_added=key),
    "growth": lambda adata, flow, key: cf.tl.growth(adata, flow, sensitivity=False, key_added=key),
    "growth_prior": lambda adata, _, key: cf.tl.growth_prior(adata, unit="days", key_added=key),
    "push": lambda adata, flow, key: cf.tl.push(adata, flow, cells=adata.obs["day"] == 0, at=5, key_added=key),
    "pull": lambda adata, flow, key: cf.tl.pull(adata, flow, cells=adata.obs["day"] == 5, at=0, key_added=key),
    "fate": lambda adata, flow, key: cf.tl.fate(adata, flow, groupby="kind", key_added=key),
}
"""Every tool that writes columns of ``obs``, under a key."""


@pytest.mark.parametrize("name", WRITERS)
def test_what_a_tool_wrote_is_known_and_replaced_by_itself_alone(fitted, name):
    adata, flow = fitted[0].copy(), fitted[1]
    before = set(adata.obs)
    WRITERS[name](adata, flow, "a")
    own = set(adata.obs) - before
    assert own
    assert columns_of_result(adata, "a") == own
    WRITERS[name](adata, flow, "a")  # again, in its own place
    assert set(adata.obs) - before == own
    for column in own - {"a"}:
        with pytest.raises(ValueError, match="belongs to the result 'a'"):
            WRITERS["push"](adata, flow, column)
        assert columns_of_result(adata, "a") == own


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "fate"])
def test_fates_do_not_take_the_columns_of_others(fitted, name):
    """Fates of key "a" have the columns "a_A" and "a_spread", among others."""
    adata, flow = fitted[0].copy(), fitted[1]
    WRITERS[name](adata, flow, "a_A")
    columns = columns_of_result(adata, "a_A")
    if "a_A" in columns:
        with pytest.raises(ValueError, match="belongs to the result 'a_A'"):
            WRITERS["fate"](adata, flow, "a")
        assert "a" not in adata.obsm
        assert columns_of_result(adata, "a_A") == columns
    else:  # velocities have columns with endings of their own
        WRITERS["fate"](adata, flow, "a")
        assert len(columns_of_result(adata, "a")) >= 4


@pytest.mark.parametrize("name", WRITERS)
def test_no_tool_takes_the_columns_of_fates(fitted, name):
    adata, flow = fitted[0].copy(), fitted[1]
    adata.obs["kind"] = np.where(adata.obs["kind"] == "A", "x", "x_low")
    WRITERS["fate"](adata, flow, "a")  # "a_x" and "a_x_low"
    fates = adata.obs[sorted(columns_of_result(adata, "a"))].copy()
    if name == "fate":  # "a_x" and group "low"
        adata.obs["kind"] = np.where(np.arange(adata.n_obs) % 2, "low", "high")
    if name == "velocity":  # has neither "a_x" nor "a_x_low"
        WRITERS[name](adata, flow, "a_x")
    else:
        with pytest.raises(ValueError, match="belongs to the result 'a'"):
            WRITERS[name](adata, flow, "a_x")
    pd.testing.assert_frame_equal(adata.obs[fates.columns], fates)
