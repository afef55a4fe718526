"""Settings chosen by leaving out snapshots or cells, and how sure the choice is."""

import anndata
import numpy as np
import pandas as pd
import pytest

import cellflow as cf
from conftest import Known, make_cells

DRIFT = {10: 1.0, 20: 1.5, 30: 1.02}
"""What a fit of so many steps learns, per day: the truth is 1."""


@pytest.fixture
def learning(knowing, monkeypatch):
    """A flow whose velocity depends on its setting ``steps``, and by little on its seed."""
    flow = knowing(lambda states: None)
    plain = cf.SnapshotFlow.fit

    def fit(self, adata, *_, **__):
        plain(self, adata)
        span = self.clock_.times[-1] - self.clock_.times[0]
        self.field_ = Known([span * (DRIFT[self.steps] + 0.05 * (-1) ** self.seed), 0.0, 0.0])
        fits.append((self.steps, self.seed, self.clock_.times, adata.n_obs))
        return self

    fits = []
    monkeypatch.setattr(cf.SnapshotFlow, "fit", fit)
    return flow, fits


@pytest.fixture
def course():
    return make_cells(times=(0.0, 1.0, 2.0, 4.0), sizes=(60, 200, 90, 70))


def test_the_true_velocity_wins_and_the_verdict_says_from_what(learning, course):
    flow, fits = learning
    grid = {"steps": [20, 10, 30]}
    cf.tl.tune(course, flow, grid=grid)
    found = course.uns["tune"]
    table = found["settings"]
    assert table["steps"].iloc[-1] == "20"
    assert table["setting"].iloc[-1] == 0
    assert table["verdict"].tolist() == ["best", "not distinguishable", "worse"]
    assert (table["mean"].diff().dropna() >= 0).all()
    assert table["won"].iloc[0] == table["won"].iloc[-1] == 0
    assert table["low"].iloc[-1] > 0
    assert table["low"].iloc[1] <= 0
    assert "Some others are worse, but the choice is uncertain. Not distinguishable from it: steps=" in found["verdict"]
    assert found["score"] == "W1 at left-out times"
    assert len(found["folds"]) == 3 * 2 * 2
    assert set(found["folds"]["time"]) == {1.0, 2.0}
    assert sorted({(steps, seed) for steps, seed, *_ in fits}) == [(s, k) for s in (10, 20, 30) for k in (0, 1)]
    assert all(len(times) == 3 for *_, times, _ in fits)
    winner = cf.tl.tuned(course, flow, grid=grid)
    assert winner.steps == int(table["steps"].iloc[0])
    assert not hasattr(winner, "clock_")
    assert winner.get_params() == flow.get_params() | {"steps": winner.steps}


def test_means_and_paired_differences_are_those_of_the_folds(learning, course):
    flow, _ = learning
    found = cf.tl.tune(course, flow, grid={"steps": [20, 10]}, copy=True).uns["tune"]
    assert "tune" not in course.uns
    scores = found["folds"].pivot(index=["time", "seed"], columns="setting", values="score")
    table = found["settings"].set_index("setting")
    apart = np.log(scores[0] / scores[1])
    assert table["mean"].to_dict() == pytest.approx(np.exp(np.log(scores).mean()).to_dict())
    assert table["spread"].to_dict() == pytest.approx(scores.std().to_dict())
    assert table["difference"][0] == pytest.approx(np.exp(apart.mean()) - 1)
    half = 3.182446 * apart.std() / 2  # Student's t with 3 degrees of freedom, 95 %
    assert table["low"][0] == pytest.approx(np.exp(apart.mean() - half) - 1, rel=1e-5)
    assert table["high"][0] == pytest.approx(np.exp(apart.mean() + half) - 1, rel=1e-5)


def test_with_one_fold_and_seed_nothing_is_sure(learning, course):
    flow, _ = learning
    few = course[course.obs["day"] < 4].copy()
    cf.tl.tune(few, flow, grid={"steps": [20, 10]}, n_seeds=1)
    assert few.uns["tune"]["settings"]["verdict"].tolist() == ["best", "not distinguishable"]
    assert "The choice is uncertain" in few.uns["tune"]["verdict"]


def test_two_snapshots_are_tuned_by_new_cells(learning, course):
    flow, fits = learning
    two = course[course.obs["day"].isin([1.0, 2.0])].copy()
    cf.tl.tune(two, flow, grid={"steps": [20, 10]})
    found = two.uns["tune"]
    assert found["score"] == "energy distance of new cells"
    assert found["settings"]["steps"].tolist() == ["10", "20"]
    assert {n for *_, n in fits} == {100 + 45}  # half of each is kept aside
    with pytest.raises(ValueError, match='by="new cells"'):
        cf.tl.tune(two, flow, grid={"steps": [20, 10]}, by="times")
    cf.tl.validate(two, flow.set_params(steps=10))
    table = two.uns["validation_new_cells"].set_index(["method", "cells"])["ED"]
    score = found["folds"].set_index(["setting", "seed"])["score"]
    assert table["flow", "new"] == pytest.approx(score[1, 0])  # the same cells, the same number


def test_left_out_snapshots_of_a_fitted_flow_remain_a_test(learning, course):
    flow, fits = learning
    flow.set_params(steps=10).fit(course[course.obs["day"] != 2.0])
    cf.tl.tune(course, flow, grid={"steps": [20, 10]}, n_seeds=1)
    assert set(course.uns["tune"]["folds"]["time"]) == {1.0}
    assert all(2.0 not in times for _, _, times, _ in fits)


def test_settings_may_be_parts_and_lists_of_combinations(learning, course):
    flow, _ = learning
    parts = [cf.couplings.Exact(), cf.couplings.Independent()]
    grid = [{"steps": [10], "coupling": parts}, {"steps": [20]}]
    cf.tl.tune(course, flow, grid=grid, n_seeds=1)
    table = course.uns["tune"]["settings"]
    assert len(table) == 3
    assert set(table["coupling"]) == {*map(repr, parts), ""}
    winner = cf.tl.tuned(course, flow, grid=grid)
    assert winner.steps == 10
    assert winner.coupling in parts
    with pytest.raises(ValueError, match="another grid"):
        cf.tl.tuned(course, flow, grid={"steps": [20, 10, 30]})
    with pytest.raises(KeyError, match=r"cf\.tl\.tune"):
        cf.tl.tuned(course, flow, grid=grid, key="other")


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
def test_what_is_written_survives_h5ad_and_zarr(learning, course, tmp_path):
    flow, _ = learning
    cf.tl.tune(course, flow, grid={"steps": [20, 10]}, n_seeds=1)
    for kind in ("h5ad", "zarr"):
        getattr(course, f"write_{kind}")(tmp_path / f"cells.{kind}")
        back = getattr(anndata, f"read_{kind}")(tmp_path / f"cells.{kind}")
        assert back.uns["tune"]["verdict"] == course.uns["tune"]["verdict"]
        pd.testing.assert_frame_equal(back.uns["tune"]["folds"].reset_index(drop=True), course.uns["tune"]["folds"])
        assert cf.tl.tuned(back, flow, grid={"steps": [20, 10]}).steps == 10


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"grid": {"steps": [10]}}, "two settings or more"),
        ({"grid": {"steps": [10, 20]}, "n_seeds": 0}, "n_seeds >= 1"),
        ({"grid": {"stepps": [10, 20]}}, "stepps"),
        ({"grid": {"rep": ["X", "X_pca"]}}, "cannot be compared"),
        ({"grid": {"steps": [10, 20]}, "by": "time"}, "Choose from"),
    ],
)
def test_what_cannot_be_tuned_is_said(learning, course, settings, words):
    with pytest.raises(ValueError, match=words):
        cf.tl.tune(course, learning[0], **settings)


def test_real_fits_are_tuned():
    """No stubs: one step of training against two hundred."""
    cells = make_cells(sizes=(40, 50, 60))
    flow = cf.SnapshotFlow(time_key="day", batch_size=64, device="cpu", recipe=cf.training.Recipe(learning_rate=5e-3))
    cf.tl.tune(cells, flow, grid={"steps": [1, 60]}, n_seeds=2, by="new cells")
    assert cells.uns["tune"]["settings"]["steps"].iloc[0] == "60"
    assert np.isfinite(cells.uns["tune"]["folds"]["score"]).all()
