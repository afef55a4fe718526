"""Validation on cells that were not fitted, and by where cells go: closed forms."""

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

import cellflow as cf
from cellflow.cells.snapshots import read_snapshots
from cellflow.integrate import Fixed, Jumps
from cellflow.tl.new_cells import generalisation, kept_aside
from conftest import Known

COLUMNS = {
    "validation": ["time", "method", "W1", "W1_low", "W1_high", "n_cells"],
    "validation_new_cells": [
        "start", "time", "method", "cells", "ED", "ED_low", "ED_high", "W1", "W1_low", "W1_high", "p", "n_cells",
    ],
    "validation_couplings": ["start", "time", "score", "method", "cells", "value", "low", "high", "n"],
}  # fmt: skip


def shifting(sizes=(300, 900), shift=4.0, seed=0):
    """The same Gaussian at each day, in snapshots of very unequal sizes, moved by (shift, 0) a day."""
    draw = np.random.default_rng(seed)
    day = np.repeat(np.arange(len(sizes), dtype=float), sizes)
    x = draw.normal(size=(len(day), 2)).astype(np.float32)
    x[:, 0] += shift * day
    order = draw.permutation(len(day))
    obs = pd.DataFrame({"day": day[order]}, index=[f"cell{k}" for k in range(len(day))])
    return anndata.AnnData(np.zeros((len(day), 0), np.float32), obs=obs, obsm={"X_pca": x[order]})


def by_key(table):
    return table.set_index(["method", "cells"]).sort_index()


def by_heart(states):
    """A field that sends the cells that it was fitted on to places of the next snapshot, and others astray."""
    x0, x1 = (torch.from_numpy(cloud) for cloud in states.clouds())
    ends = x1[torch.arange(len(x0)) % len(x1)]

    def velocity(x):
        distance, nearest = torch.cdist(x.double(), x0.double()).min(dim=1)
        known = distance < 1e-3
        return torch.where(known[:, None], ends[nearest] - x0[nearest], torch.tensor([0.0, 9.0]))

    return Known(velocity)


def test_a_population_that_only_shifts_is_carried_alike_fitted_or_not(knowing):
    flow, outcomes = knowing(lambda states: Known([4.0, 0.0])), []
    for seed in range(6):
        adata = shifting(sizes=(1500, 4500), seed=seed)
        cf.tl.validate(adata, flow, max_cells=300)
        outcomes += generalisation(adata.uns["validation_new_cells"]).values()
    assert outcomes.count("as well") >= 4
    assert set(outcomes) <= {"as well", "unsure"}  # chance alone parts two equal samples
    assert "validation" not in adata.uns  # nothing lies between two snapshots
    table = adata.uns["validation_new_cells"]
    assert list(table.columns) == COLUMNS["validation_new_cells"]
    assert set(table["n_cells"]) == {300}
    for name in ("ED", "W1"):
        score = by_key(table)[name]
        assert score["not moving", "new"] > 5 * score["floor", "fitted"]
        for method, cells in [("flow", "new"), ("flow", "fitted"), ("common shift", "new")]:
            assert score[method, cells] == pytest.approx(score["floor", "fitted"], rel=0.3, abs=0.015), method


def test_equally_many_cells_are_compared_whatever_the_sizes(knowing):
    """W1 and ED of few points are larger: fitted cells, of which there are more, are drawn as few as new ones."""
    flow = knowing(lambda states: Known([4.0, 0.0]))
    ratios = []
    for seed in range(6):
        adata = shifting(sizes=(120, 2000), seed=seed)
        cf.tl.validate(adata, flow, max_cells=300)
        score = by_key(adata.uns["validation_new_cells"])["W1"]
        ratios.append(score["flow", "new"] / score["floor", "fitted"])
    assert np.mean(ratios) == pytest.approx(1, abs=0.08)


@pytest.fixture
def one_step(monkeypatch):
    """The field of `by_heart` knows cells only where they start: one Euler step."""
    return {"solver": Fixed("euler", 1)}


def test_a_flow_that_knows_its_cells_by_heart_is_found_out(knowing, one_step, caplog):
    adata = shifting()
    with caplog.at_level("WARNING", logger="cellflow"):
        cf.tl.validate(adata, knowing(by_heart), **one_step)
    table = adata.uns["validation_new_cells"]
    score = by_key(table)["ED"]
    assert score["flow", "fitted"] == pytest.approx(score["floor", "fitted"], abs=0.04)
    assert score["flow", "new"] > 5 * score["flow", "fitted"]
    assert by_key(table).loc[("flow", "new"), "p"] == pytest.approx(1 / 200)
    assert generalisation(table) == {1.0: "no better"}
    assert "New cells are carried no better" in caplog.text


def test_chance_alone_is_no_warning(knowing):
    """A flow that treats all cells alike is called worse on new ones about once in a hundred intervals."""
    flow = knowing(lambda states: Known([3.0, 1.0]))
    outcomes = []
    for seed in range(20):
        adata = shifting(sizes=(80, 90), seed=seed)
        cf.tl.validate(adata, flow)
        outcomes += generalisation(adata.uns["validation_new_cells"]).values()
    assert outcomes.count("as well") + outcomes.count("unsure") >= 19


def test_growth_weighs_new_cells_too(knowing):
    """Upper cells triple: with their weights new cells meet the next snapshot, without they would miss it."""
    draw = np.random.default_rng(0)
    upper = np.repeat([True, False, True, False], [200, 200, 450, 150])
    x = draw.normal(size=(1000, 2)).astype(np.float32) + np.where(upper, 10, -10)[:, None].astype(np.float32)
    obs = pd.DataFrame({"day": np.repeat([0.0, 1.0], [400, 600]), "side": np.where(upper, "up", "down")})
    obs.index = obs.index.map("cell{}".format)
    adata = anndata.AnnData(np.zeros((1000, 0), np.float32), obs=obs, obsm={"X_pca": x})
    grows = knowing(lambda states: Known([0.0, 0.0], lambda x: torch.where(x[:, 0] > 0, np.log(3.0), 0.0)), growth=True)
    cf.tl.validate(adata, grows, groupby="side")
    score = by_key(adata.uns["validation_new_cells"])["ED"]
    for cells in ("new", "fitted"):
        assert score["flow", cells] < score["floor", "fitted"] + 0.3
    assert score["not moving", "new"] > 1
    landing = adata.uns["validation_couplings"].set_index(["method", "cells"])["value"]
    assert landing["flow", "new"] == pytest.approx(1)
    assert landing["not moving", "new"] == pytest.approx(1)
    assert landing["exact plan", "fitted"] == pytest.approx(0.75, abs=0.06)  # a quarter crosses: .5 became .75


def test_labels_that_never_change_are_kept_by_all_but_the_balanced_plan(knowing):
    """Nobody moves; the smaller type triples beside the other. What a balanced plan carries across is known."""
    draw = np.random.default_rng(1)
    kind = np.repeat(["a", "b", "a", "b"], [60, 60, 900, 300])
    x = draw.normal(size=(1320, 2)).astype(np.float32) + np.where(kind == "a", 50, 0)[:, None].astype(np.float32)
    obs = pd.DataFrame({"day": np.repeat([0.0, 1.0], [120, 1200]), "kind": pd.Categorical(kind)})
    obs.index = obs.index.map("cell{}".format)
    adata = anndata.AnnData(np.zeros((1320, 0), np.float32), obs=obs, obsm={"X_pca": x})
    flow = knowing(lambda states: Known([0.0, 0.0]))
    flow.set_params(coupling=cf.couplings.UnbalancedSinkhorn(5.0, 10.0))
    cf.tl.validate(adata, flow.fit(adata), groupby="kind")
    table = adata.uns["validation_couplings"]
    assert list(table.columns) == COLUMNS["validation_couplings"]
    value = by_key(table)["value"]
    assert value["flow", "fitted"] == pytest.approx(1)
    assert value["not moving", "fitted"] == pytest.approx(1)
    assert value["plan of the flow", "fitted"] > 0.999
    assert value["exact plan", "fitted"] == pytest.approx(0.75, abs=1e-6)
    assert (
        by_key(table).loc[("exact plan", "fitted"), "low"] < 0.75 < by_key(table).loc[("exact plan", "fitted"), "high"]
    )


def test_clones_are_found_by_the_flow_that_moves_them(knowing):
    """Each clone moves on by 3 in its own place; a flow that knows it meets its sisters, not moving does less."""
    draw = np.random.default_rng(2)
    place = draw.normal(size=(25, 2)) * 4
    clone, day = np.tile(np.arange(25), 8), np.repeat([0.0, 1.0], 100)
    x = (place[clone] + 0.1 * draw.normal(size=(200, 2)) + 3 * day[:, None] * [1, 0]).astype(np.float32)
    obs = pd.DataFrame({"day": day, "clone": pd.Series(clone).where(clone < 20)}).set_index(
        pd.Index([f"cell{k}" for k in range(200)])
    )
    adata = anndata.AnnData(np.zeros((200, 0), np.float32), obs=obs, obsm={"X_pca": x})
    flow = knowing(lambda states: Known([3.0, 0.0])).fit(adata)
    cf.tl.validate(adata, flow, lineage_key="clone", keep_aside=False)
    assert "validation_new_cells" not in adata.uns
    table = by_key(adata.uns["validation_couplings"])
    assert set(table["n"]) == {20}
    assert table.loc[("flow", "fitted"), "value"] > 0.99
    assert table.loc[("flow", "fitted"), "value"] > table.loc[("not moving", "fitted"), "high"]
    cf.tl.validate(adata, flow, lineage_key="clone", keep_aside=False, max_cells=60)
    thin = by_key(adata.uns["validation_couplings"])
    assert (thin["n"] < 20).all()
    assert thin.loc[("flow", "fitted"), "value"] > 0.98


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({"groupby": "nobody"}, KeyError, "nobody"),
        ({"lineage_key": "alone"}, ValueError, "share a clone"),
        ({"groupby": "alone"}, ValueError, "share a label"),
        ({"keep_aside": False}, ValueError, "keep_aside=True"),
        ({"n_seeds": 0}, ValueError, "n_seeds >= 1"),
        ({"times": [0.5]}, ValueError, "snapshot on each side"),
    ],
)
def test_what_cannot_be_compared_is_said(knowing, settings, kind, words):
    adata = shifting(sizes=(20, 30))
    adata.obs["alone"] = adata.obs_names
    with pytest.raises(kind, match=words):
        cf.tl.validate(adata, knowing(lambda states: Known([4.0, 0.0])), **settings)


def test_cells_are_kept_aside_evenly_in_groups_and_the_same_each_time():
    adata = shifting(sizes=(30, 1000))
    adata.obs["donor"] = np.tile(["x", "y"], 515)
    snapshots = read_snapshots(adata, time_key="day", rep="X_pca", within="donor")
    masks = [kept_aside(snapshots, (0.0, 1.0), generator=cf.generator(seed=0)) for _ in range(2)]
    assert (masks[0] == masks[1]).all()
    share = pd.Series(masks[0]).groupby([snapshots.time, snapshots.groups]).mean()
    assert share.loc[0.0].between(0.4, 0.5).all()
    assert share.loc[1.0].between(0.19, 0.2).all()


def test_tiny_snapshots_keep_no_cells_aside(knowing, caplog):
    adata = shifting(sizes=(3, 200, 50))
    with caplog.at_level("WARNING", logger="cellflow"):
        cf.tl.validate(adata, knowing(lambda states: Known([4.0, 0.0])))
    assert "No cells are held out" in caplog.text
    assert "validation_new_cells" not in adata.uns
    assert len(adata.uns["validation"]) == 6


@pytest.mark.usefixtures("all_parts")
def test_several_seeds_give_their_mean_and_a_wider_interval(knowing):
    """Fits that differ by seed alone: 4 +- 1 a day."""
    drift = {0: 4.0, 1: 5.0, 2: 3.0}
    flow = knowing(lambda states: None)

    def fit(self, adata, *_, _fit=cf.SnapshotFlow.fit, **__):
        _fit(self, adata).field_ = Known([2 * drift[self.seed], 0.0])
        return self

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cf.SnapshotFlow, "fit", fit)
        adata = shifting(sizes=(100, 150, 120))
        one, several = (cf.tl.validate(adata, flow, n_seeds=n, copy=True) for n in (1, 3))
    a, b = (x.uns["validation"].set_index("method") for x in (one, several))
    assert b["W1"]["flow"] > a["W1"]["flow"] + 0.1
    assert b["W1_high"]["flow"] - b["W1"]["flow"] > 1.5 * (a["W1_high"]["flow"] - a["W1"]["flow"])
    assert a.drop("flow").equals(b.drop("flow"))
    new, alone = (x.uns["validation_new_cells"].groupby(["method", "cells"])["ED"].mean() for x in (several, one))
    assert new["flow", "new"] > alone["flow", "new"] + 0.1


@pytest.mark.usefixtures("all_parts")
def test_intervals_hold_what_other_cells_would_have_given(knowing):
    """Of the scores of other samples of the same populations about 95 % lie in the interval of one of them."""
    flow = knowing(lambda states: Known([4.5, 0.0]))
    tables = []
    for seed in range(25):
        adata = shifting(sizes=(60, 40, 80), seed=seed)
        cf.tl.validate(adata, flow, keep_aside=False)
        tables.append(adata.uns["validation"].set_index("method").loc["flow"])
    scores = pd.DataFrame(tables)
    width = (scores["W1_high"] - scores["W1_low"]) / 2 / 1.96
    assert width.median() == pytest.approx(scores["W1"].std(), rel=0.5)
    held = ((scores["W1_low"] < scores["W1"].mean()) & (scores["W1"].mean() < scores["W1_high"])).mean()
    assert held > 0.8


def test_jumps_keep_no_cells_aside(cells):
    flow = cf.SnapshotFlow(time_key="day", steps=5, device="cpu").fit(cells[cells.obs["day"] != 1])
    flow.distill(cells[cells.obs["day"] != 1], steps=2)
    cf.tl.validate(cells, flow, solver=Jumps())
    assert "validation" in cells.uns
    assert "validation_new_cells" not in cells.uns


def test_jumps_to_a_time_that_was_fitted_are_refused_in_words(cells):
    flow = cf.SnapshotFlow(time_key="day", steps=5, device="cpu").fit(cells).distill(cells, steps=2)
    with pytest.raises(ValueError, match="To leave out 1 the settings are fitted again.*solver=Fixed"):
        cf.tl.validate(cells, flow, solver=Jumps())


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
def test_all_tables_survive_h5ad_and_zarr_and_an_older_one_does_not_stay(cells, tmp_path):
    cells.obs["kind"] = pd.Categorical(np.where(np.arange(150) % 2, "a", "b"))
    cells.obs["clone"] = pd.Categorical(np.where(np.arange(150) % 3, (np.arange(150) % 7).astype(str), None))
    flow = cf.SnapshotFlow(time_key="day", steps=5, device="cpu", coupling="independent")
    cf.tl.validate(cells, flow, groupby="kind", lineage_key="clone", key_added="validation")
    for kind in ("h5ad", "zarr"):
        getattr(cells, f"write_{kind}")(tmp_path / f"cells.{kind}")
        back = getattr(anndata, f"read_{kind}")(tmp_path / f"cells.{kind}")
        for key, columns in COLUMNS.items():
            assert list(cells.uns[key].columns) == columns
            pd.testing.assert_frame_equal(back.uns[key].reset_index(drop=True), cells.uns[key], check_dtype=False)
    assert set(cells.uns["validation_couplings"]["method"]) == {"flow", "not moving", "exact plan", "plan of the flow"}
    cf.tl.validate(cells, flow, keep_aside=False)
    assert set(cells.uns) == {"validation", "validation_about"}


def test_cells_count_by_their_weights_on_both_sides(knowing):
    """Of two places the upper is sampled three times too rarely; weights put it right, in every score and baseline."""
    draw = np.random.default_rng(3)
    day = np.repeat([0.0, 1.0, 2.0], [80, 400, 200])
    upper = np.concatenate([np.arange(n) % 4 == 0 for n in (80, 400, 200)])
    x = np.stack([4 * day + 0.1 * draw.normal(size=680), np.where(upper, 20, -20)], axis=1).astype(np.float32)
    obs = pd.DataFrame({"day": day, "weight": np.where(upper, 3.0, 1.0), "side": np.where(upper, "up", "down")})
    obs.index = obs.index.map("cell{}".format)
    adata = anndata.AnnData(np.zeros((680, 0), np.float32), obs=obs, obsm={"X_pca": x})
    flow = knowing(lambda states: Known([8.0, 0.0])).set_params(weight_key="weight")
    cf.tl.validate(adata, flow.fit(adata), groupby="side")
    score = adata.uns["validation"].set_index("method")["W1"]
    assert score["flow"] < 0.2
    assert score["linear transport"] < 0.2
    assert score["previous snapshot"] == pytest.approx(4, abs=0.1)
    landing = adata.uns["validation_couplings"].query("cells == 'fitted'")
    assert landing["value"].to_numpy() == pytest.approx(1, abs=0.02)
    # the same places, half and half before, a quarter and three quarters afterwards: half of the mass would cross
    adata.obs.loc[adata.obs["day"] > 0, "weight"] = 1.0
    cf.tl.validate(adata, flow, groupby="side")
    crossing = by_key(adata.uns["validation_couplings"].query("start == 0"))["value"]
    assert crossing["exact plan", "fitted"] == pytest.approx(0.75, abs=0.02)
    assert crossing["flow", "fitted"] == pytest.approx(1)
