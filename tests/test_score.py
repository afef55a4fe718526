"""What a flow predicts, and its score: closed forms, weights, times that were not fitted, and scikit-learn's search."""

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.model_selection import GridSearchCV, KFold

import cellflow as cf
from cellflow.errors import NotFittedError
from cellflow.integrate import Fixed, Trajectory
from cellflow.metrics import wasserstein
from cellflow.tl.fate_ends import wilson
from conftest import make_cells

pytestmark = pytest.mark.usefixtures("global_state_is_untouched")


class Drift(torch.nn.Module):
    """Moves every state at one velocity per unit of model time, and grows where it is above 0."""

    def __init__(self, velocity, growth=None):
        super().__init__()
        self.velocity, self.growth = torch.nn.Parameter(torch.tensor(velocity)), growth

    def forward(self, t, x, condition=None):
        growth = None if self.growth is None else self.growth * (x[:, -1] > 0)
        return cf.fields.Outputs(self.velocity.expand_as(x), growth=growth)


def known(adata, velocity, growth=None):
    """A flow whose field is known: cells of a day move by ``velocity`` (per day)."""
    coupling = cf.couplings.UnbalancedSinkhorn(1.0, 10.0)
    settings = {"growth": True, "coupling": coupling} if growth is not None else {"coupling": "exact"}
    flow = cf.SnapshotFlow(time_key="day", steps=1, device="cpu", **settings).fit(adata)
    span = flow.clock_.times[-1] - flow.clock_.times[0]
    rate = None if growth is None else growth * span
    flow.field_ = Drift([span * one for one in velocity], rate)
    return flow


def shifting(times=(0.0, 1.0, 4.0), n=30, seed=0):
    """The same cells at each time, moved by (2, 0) a day."""
    x = np.random.default_rng(seed).normal(size=(n, 2)).astype(np.float32)
    states = np.concatenate([x + np.array([2 * time, 0], np.float32) for time in times])
    obs = pd.DataFrame({"day": np.repeat(times, n)}, index=[f"cell{k}" for k in range(n * len(times))])
    return anndata.AnnData(np.zeros((len(states), 0), np.float32), obs=obs, obsm={"X_pca": states})


def test_the_score_is_how_far_cells_are_missed_on_average():
    """Too slow by 0.5 a day: missed by 0.5 after one day, by 1.5 after three."""
    adata = shifting()
    assert known(adata, (2.0, 0.0)).score(adata) == pytest.approx(0, abs=1e-5)
    assert known(adata, (1.5, 0.0)).score(adata) == pytest.approx(-(0.5 + 1.5) / 2, abs=1e-5)


def test_times_that_were_not_fitted_are_interpolated():
    """At day 2, cells of day 1 come 0.5 too late and cells of day 4 are 1 too far: the nearer side weighs the more."""
    adata = shifting(times=(0.0, 1.0, 2.0, 4.0))
    flow = known(adata[adata.obs["day"] != 2.0], (1.5, 0.0))
    middle = cf.tl.interpolate(adata, flow, at=2.0)
    missed = wasserstein(
        middle.obsm["X_pca"], adata[adata.obs["day"] == 2.0].obsm["X_pca"], weights_x=middle.obs["weight"].to_numpy()
    )
    assert flow.score(adata) == pytest.approx(-(0.5 + 1.5 + missed) / 3, abs=1e-5)
    assert 0.3 < missed < 0.7


def test_cells_count_as_often_as_they_have_descendants():
    """Upper cells triple: the score is perfect where they are three times as many, and only with growth."""
    adata = shifting(times=(0.0, 1.0))
    late, upper = adata.obs["day"] == 1.0, adata.obsm["X_pca"][:, 1] > 0
    rows = np.concatenate([np.arange(60), *[np.flatnonzero(late & upper)] * 2])
    grown = anndata.AnnData(
        np.zeros((len(rows), 0), np.float32),
        obs=pd.DataFrame({"day": adata.obs["day"].to_numpy()[rows]}, index=[f"cell{k}" for k in range(len(rows))]),
        obsm={"X_pca": adata.obsm["X_pca"][rows]},
    )
    assert known(grown, (2.0, 0.0), growth=np.log(3)).score(grown) == pytest.approx(0, abs=1e-4)
    assert known(grown, (2.0, 0.0)).score(grown) < -0.2


def test_what_cannot_be_scored_is_named():
    adata = shifting(times=(0.0, 1.0, 2.0, 4.0))
    flow = known(adata[adata.obs["day"] != 2.0], (2.0, 0.0))
    for days in ([1.0], [0.0, 4.0], [2.0], [1.0, 2.0]):
        with pytest.raises(ValueError, match="two fitted times that follow each other"):
            flow.score(adata[adata.obs["day"].isin(days)])
    assert flow.score(adata[adata.obs["day"].isin([1.0, 2.0, 4.0])]) == pytest.approx(0, abs=1e-5)
    with pytest.raises(NotFittedError):
        cf.SnapshotFlow(time_key="day").score(adata)


def test_large_populations_are_scored_by_a_part_and_the_same_each_time():
    adata = make_cells(sizes=(2500, 40, 60))
    flow = known(adata, (1.0, 0.0, 0.0))
    assert flow.score(adata) == flow.score(adata)


@pytest.mark.parametrize("cv", [2, KFold(3, shuffle=True, random_state=0)], ids=["in order", "shuffled"])
def test_scikit_learn_searches_settings(cv):
    cells = make_cells(sizes=(40, 50, 60))
    recipe = cf.training.Recipe(learning_rate=5e-3, warmup=10)
    flow = cf.SnapshotFlow(time_key="day", batch_size=64, recipe=recipe, device="cpu")
    search = GridSearchCV(flow, {"steps": [1, 60]}, cv=cv, error_score="raise").fit(cells)
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores).all()
    assert search.best_params_ == {"steps": 60}
    assert scores[1] > scores[0] + 1
    assert search.best_estimator_.score(cells) == pytest.approx(scores[1], abs=0.5)
    assert search.score(cells) == search.best_estimator_.score(cells)


def test_validation_compares_all_that_is_predicted_by_weight(moving):
    adata, _ = moving
    seen = adata[adata.obs["day"] != 1.0].copy()
    unseen = cf.SnapshotFlow(time_key="day", steps=20, device="cpu").fit(seen)
    found = cf.tl.validate(adata, unseen, copy=True).uns["validation"].set_index("method")["W1"]
    middle = cf.tl.interpolate(adata, unseen, at=1.0)
    true = adata[adata.obs["day"] == 1.0].obsm["X_pca"]
    weights = middle.obs["weight"].to_numpy()
    assert found["flow"] == pytest.approx(wasserstein(middle.obsm["X_pca"], true, weights_x=weights), rel=1e-5)
    ends = [seen[seen.obs["day"] == day].obsm["X_pca"] for day in (0.0, 5.0)]
    share = np.concatenate([np.full(len(x), part / len(x)) for x, part in zip(ends, (0.8, 0.2), strict=True)])
    both = wasserstein(np.concatenate(ends), true, weights_x=share)
    assert found["previous and next"] == pytest.approx(both, rel=1e-5)
    thin = cf.tl.validate(adata, unseen, max_cells=30, copy=True).uns["validation"]
    assert set(thin["n_cells"]) == {30}
    assert np.isfinite(thin["W1"]).all()


@pytest.fixture
def weighing():
    """Two founders that end at one of two places, and weigh three times as much at the upper one."""
    x = np.array([[0.0, 0.0]] * 4 + [[1.0, 5.0]] * 6 + [[1.0, -5.0]] * 6, np.float32)
    day = np.repeat([0.0, 1.0], [4, 12])
    kind = np.repeat(["start", "up", "down"], [4, 6, 6])
    obs = pd.DataFrame({"day": day, "kind": kind}, index=[f"cell{k}" for k in range(16)])
    adata = anndata.AnnData(np.zeros((16, 0), np.float32), obs=obs, obsm={"X_pca": x})
    path = cf.paths.BrownianBridge(1.0)
    coupling = cf.couplings.UnbalancedSinkhorn(1.0, 100.0)
    settings = {"path": path, "coupling": coupling, "stochastic": True, "growth": True, "steps": 1, "device": "cpu"}
    flow = cf.SnapshotFlow(time_key="day", **settings).fit(adata)
    turn = iter(range(1000))

    def simulate(x, *, start, stop, seed, **rest):
        up = next(turn) % 2 == 0
        place = {1.0: [1.0, 5.0 if up else -5.0], 0.0: [0.0, 0.0]}[stop]
        states = torch.stack([torch.as_tensor(x), torch.tensor(place).expand(len(x), 2)])
        gain = torch.full((len(x),), np.log(3.0) if up else 0.0)
        return Trajectory(torch.tensor([0.0, 1.0]), states, 1, torch.stack([torch.zeros(len(x)), gain]))

    flow.simulate = simulate
    return adata, flow


def test_fates_are_those_of_descendants(weighing):
    adata, flow = weighing
    cf.tl.fate(adata, flow, groupby="kind", n_samples=100, n_neighbors=3)
    start = (adata.obs["kind"] == "start").to_numpy()
    share = adata.obsm["fate"][start]
    assert share["up"].to_numpy() == pytest.approx(0.75)
    assert share["down"].to_numpy() == pytest.approx(0.25)
    effective = (50 * 3 + 50) ** 2 / (50 * 9 + 50)  # of 100 simulations, as far as they differ in weight
    low, high = wilson(np.array([0.75]), effective, 0.95)
    assert adata.obsm["fate_low"][start]["up"].to_numpy() == pytest.approx(low[0])
    assert adata.obsm["fate_high"][start]["up"].to_numpy() == pytest.approx(high[0])
    assert adata.obs["fate_spread"][start].to_numpy() == pytest.approx(10 * np.sqrt(0.75 * 0.25))


def test_origins_count_once_each(weighing):
    adata, flow = weighing
    cf.tl.fate(adata, flow, groupby="kind", at=0.0, n_samples=10, n_neighbors=3, key_added="origin")
    late = (adata.obs["kind"] != "start").to_numpy()
    assert (adata.obsm["origin"][late]["start"] == 1).all()
    low, _ = wilson(np.array([1.0]), 10, 0.95)
    assert adata.obsm["origin_low"][late]["start"].to_numpy() == pytest.approx(low[0])


def test_velocity_score_and_growth_are_learned_at_once(tmp_path):
    adata = make_cells(sizes=(60, 90, 120))
    flow = cf.SnapshotFlow(
        time_key="day",
        path=cf.paths.BrownianBridge(0.3),
        coupling=cf.couplings.UnbalancedSinkhorn(1.0, 50.0),
        stochastic=True,
        growth=True,
        masses="counts",
        steps=30,
        batch_size=32,
        device="cpu",
    ).fit(adata)
    assert set(flow.history_.columns) == {"loss", "velocity", "score", "growth", "learning_rate"}
    x = adata.obsm["X_pca"][:5]
    smooth, noisy = flow.transport(x, start=0, stop=5), flow.simulate(x, start=0, stop=5)
    assert torch.equal(smooth.log_weight, flow.grow(x, start=0, stop=5).log_weight)
    assert smooth.log_weight.shape == noisy.log_weight.shape == (2, 5)
    assert not torch.equal(smooth.log_weight, noisy.log_weight)
    flow.distill(adata, steps=3).save(tmp_path)
    back = cf.SnapshotFlow.load(tmp_path, device="cpu")
    assert torch.equal(back.simulate(x, start=0, stop=5).log_weight, noisy.log_weight)
    assert back.transport(x, start=0, stop=5, solver=cf.integrate.Jumps()).log_weight.shape == (2, 5)
    for heads in ("shared", "separate"):
        other = cf.SnapshotFlow(**flow.get_params() | {"heads": heads, "steps": 2}).fit(adata)
        assert other.growth_rate(x, 1.0).shape == (5,)


def test_only_a_flow_with_growth_weighs(moving):
    adata, flow = moving
    assert flow.transport(adata.obsm["X_pca"][:4], start=0, stop=1).log_weight.shape == (2, 4)
    flow = cf.SnapshotFlow(time_key="day", steps=1, coupling="exact", device="cpu").fit(adata)
    found = flow.transport(adata.obsm["X_pca"][:4], start=0, stop=1, solver=Fixed("euler", 2))
    assert found.log_weight is None
    assert torch.equal(found.shares(), torch.full((2, 4), 0.25, dtype=torch.float64))
