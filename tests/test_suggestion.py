"""`SnapshotFlow.suggest`: components above noise, and what follows from distances between snapshots."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

import cellflow as cf
from cellflow.cells.components import components_above_noise, edge


def planted(rank, *, cells=400, genes=300, strength=6.0, seed=0):
    """Cells with a few directions of variance above noise whose size differs between genes."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(cells, genes)) * rng.lognormal(0, 0.5, genes)
    signal = strength * rng.normal(size=(cells, rank)) @ rng.normal(size=(rank, genes)) / np.sqrt(genes)
    obs = pd.DataFrame({"day": np.repeat([0.0, 1.0], cells // 2)}, index=[f"c{k}" for k in range(cells)])
    adata = anndata.AnnData((noise + 3 * signal).astype(np.float32), obs=obs)
    sc.pp.pca(adata, n_comps=20)
    return adata


@pytest.mark.parametrize("rank", [1, 4, 9])
def test_planted_components_are_counted(rank):
    assert components_above_noise(planted(rank), "X_pca").n_pcs == rank


def test_noise_alone_has_none_to_speak_of():
    found = components_above_noise(planted(1, strength=0.0), "X_pca")
    assert found.n_pcs == 1  # a flow needs one
    assert "none" in found.why


def test_the_edge_is_that_of_permuted_genes():
    rng = np.random.default_rng(0)
    scales = rng.lognormal(0, 0.3, 500)
    x = rng.normal(size=(250, 500)) * scales
    x -= x.mean(axis=0)
    permuted = max(np.linalg.svd(rng.permuted(x, axis=0), compute_uv=False)[0] ** 2 / 250 for _ in range(5))
    assert edge(x.var(axis=0), 250) == pytest.approx(permuted, rel=0.1)


@pytest.mark.parametrize("spoil", ["no loadings", "another X", "no X"])
def test_without_the_genes_nothing_is_concluded(spoil):
    adata = planted(3)
    if spoil == "no loadings":
        del adata.varm["PCs"]
    elif spoil == "another X":
        adata.X = np.exp(adata.X / 10)
    else:
        adata.X = None
    found = components_above_noise(adata, "X_pca")
    assert found.n_pcs is None
    assert ("loadings" if spoil == "no loadings" else "X is no longer") in found.why


def test_layers_that_the_pca_was_computed_from_are_read():
    adata = planted(3)
    adata.layers["log"], adata.X = adata.X.copy(), np.zeros(adata.shape, dtype=np.float32)
    sc.pp.pca(adata, n_comps=20, layer="log")
    assert components_above_noise(adata, "X_pca").n_pcs == 3


def test_what_is_suggested_is_printed_with_its_reasons_and_can_be_set(capsys):
    adata = planted(3)
    flow = cf.SnapshotFlow(time_key="day", device="cpu", batch_size=16)
    found = flow.suggest(adata)
    said = capsys.readouterr().out
    for words in ("400 cells of 2 snapshots", "n_pcs", "sigma", "epsilon", "relaxation", "steps", "time", "set_params"):
        assert words in said
    assert found.settings == {"n_pcs": 3, "steps": 3000}
    assert found.sigma == pytest.approx(flow.set_params(n_pcs=3).suggest_sigma(adata))
    assert found.epsilon[0] == pytest.approx(0.8 * found.sigma**2, rel=0.1)  # 2 % of a cost of 2 sigma^2 / 5 %
    assert found.seconds > 0
    assert not hasattr(flow, "field_")
    assert "as it is set, of 20; by the rule: 3" in str(flow.suggest(adata))


def test_a_bridge_gets_its_noise(capsys):
    adata = planted(3)
    flow = cf.SnapshotFlow(
        time_key="day", device="cpu", batch_size=16, stochastic=True, path=cf.paths.BrownianBridge(1.0)
    )
    found = flow.suggest(adata)
    assert found.settings["path"].sigma == pytest.approx(found.sigma, rel=1e-3)
    assert "path=cf.paths.BrownianBridge(sigma=" in capsys.readouterr().out


def test_all_columns_are_said_where_nobody_has_chosen(caplog):
    adata = planted(3)
    caplog.set_level("INFO", logger="cellflow")
    settings = {"time_key": "day", "steps": 2, "batch_size": 8, "device": "cpu", "regularize": False}
    cf.SnapshotFlow(**settings, n_pcs=3).fit(adata)
    assert "columns of" not in caplog.text
    cf.SnapshotFlow(**settings).fit(adata)
    assert "all 20 columns of 'X_pca' are used" in caplog.text


def test_an_ensemble_that_cannot_be_fitted_is_not_suggested():
    adata = planted(3)[195:].copy()
    adata.obs["day"] = ["day 0"] * 4 + ["day 2"] * (adata.n_obs - 4)
    flow = cf.SnapshotFlow(time_key="day", device="cpu", batch_size=16, ensemble=2)
    for verb in (flow.suggest, flow.fit):
        with pytest.raises(ValueError, match="expected 5 or more; found 4 at 'day 0'"):
            verb(adata)


def test_the_time_is_a_range_where_the_number_of_steps_is_searched(capsys):
    adata = planted(3)
    settings = {"time_key": "day", "device": "cpu", "batch_size": 16}
    found = cf.SnapshotFlow(**settings).suggest(adata)
    assert any(choice.name == "time" and " to " in choice.value for choice in found.choices)
    found = cf.SnapshotFlow(**settings, regularize=False).suggest(adata)
    assert any(choice.name == "time" and choice.value.startswith("about") for choice in found.choices)
