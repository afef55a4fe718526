"""The coupling that needs no settings: composition, motion and growth of known populations."""

import logging
import math
import re

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

import cellflow as cf
from cellflow.couplings import Euclidean, Exact, Relative, Sinkhorn, UnbalancedSinkhorn
from cellflow.couplings.motion import common_motion
from cellflow.couplings.relative import mean_travel, median_cost
from cellflow.pairing import snapshot_batches
from cellflow.pairing.masses import Ends, match
from cellflow.report.growth import text
from cellflow.seeds import generator
from conftest import make_cells

N, D = 300, 5
AUTO = UnbalancedSinkhorn()


def two_populations(*, apart, move, growth, spread, seed=0, n=N):
    """Cells that stay and grow, and cells that move sideways: both snapshots, and who of them stays."""
    rng = generator(seed)
    before, after = (spread * torch.randn(k, D, generator=rng) for k in (2 * n, (growth + 1) * n))
    stays, stayed = torch.arange(2 * n) < n, torch.arange(len(after)) < growth * n
    before[~stays, 0] += apart
    after[~stayed, 0] += apart
    after[~stayed, 1] += move * spread
    return before.double(), after.double(), stays, stayed


def grown(x0, x1):
    """Return the plan, and the growth of each source cell between both snapshots."""
    plan, weighed = match(AUTO, x0, x1, Ends((1.0, 1.0)))
    masses = plan.dense()
    rate = (masses * (weighed.target - weighed.source[:, None])).sum(1) / masses.sum(1)
    return masses, rate


@pytest.mark.parametrize("growth", [1, 3])
@pytest.mark.parametrize("move", [2, 6, 10])
@pytest.mark.parametrize(("apart", "spread", "most"), [(14, 1.0, 0.15), (4, 0.3, 0.35)])
def test_nobody_crosses_and_travel_is_not_death(apart, spread, most, move, growth):
    x0, x1, stays, stayed = two_populations(apart=apart, move=move, growth=growth, spread=spread, n=120)
    plan, rate = grown(x0, x1)
    crossing = plan[~stays][:, stayed].sum() / plan[~stays].sum()
    assert crossing <= 0.05
    assert float(rate[stays].mean() - rate[~stays].mean()) == pytest.approx(math.log(growth), abs=most)
    if growth > 1:  # a balanced plan has to bring them over
        balanced = Exact()(x0, x1).dense()
        assert balanced[~stays][:, stayed].sum() / balanced[~stays].sum() > 0.4


@pytest.mark.parametrize("seed", range(3))
def test_where_composition_does_not_change_masses_hardly_do(seed):
    """Three clusters that move, each its own way, in samples of unequal sizes."""
    rng = generator(seed)
    centres, motion = 8 * torch.randn(3, D, generator=rng), 3 * torch.randn(3, D, generator=rng)
    of = [torch.arange(n) % 3 for n in (300, 600)]
    x0, x1 = (torch.randn(len(k), D, generator=rng) + centres[k] for k in of)
    x1 = x1 + motion[of[1]]
    plan, rate = grown(x0.double(), x1.double())
    assert float(plan[of[0][:, None] != of[1]].sum()) < 0.01
    for cluster in range(3):
        assert float(rate[of[0] == cluster].mean()) == pytest.approx(0, abs=0.1)


def test_a_motion_that_all_share_is_free():
    x0 = torch.randn(100, 3, generator=generator(0), dtype=torch.float64)
    plan, rate = grown(x0, x0 + torch.tensor([5.0, 0.0, 0.0]))
    assert float(rate.abs().max()) < 0.2
    still = UnbalancedSinkhorn(relaxation=(Relative(0.25), math.inf))(x0, x0 + torch.tensor([5.0, 0.0, 0.0]))
    assert float((still.marginals()[0] * 100).log().abs().max()) > 1  # without, those in front seem to grow
    assert plan.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("coupling", [AUTO, UnbalancedSinkhorn(Relative(0.1), Relative(1.0)), Sinkhorn(Relative(0.1))])
def test_plans_depend_on_no_unit(coupling, scale):
    x0, x1, *_ = two_populations(apart=3, move=2, growth=1, spread=1.0)
    x0, x1 = x0[::10], x1[::12]
    assert torch.allclose(coupling(scale * x0, scale * x1).dense(), coupling(x0, x1).dense(), atol=1e-9)


def test_the_units_are_those_of_the_clouds():
    x, weights = torch.tensor([[0.0], [1.0], [5.0]]).double(), torch.full((3,), 1 / 3, dtype=torch.float64)
    assert mean_travel(Exact().cost, x, x + 3, weights, weights) == pytest.approx(9)
    costs = Exact().cost(x, x + 3).flatten()
    assert median_cost(Exact().cost, x, x + 3, weights, weights) == float(costs.median())
    large = torch.randn(2500, 2, generator=generator(0), dtype=torch.float64)
    equal = torch.full((2500,), 1 / 2500, dtype=torch.float64)
    assert mean_travel(Exact().cost, large, large + 3, equal, equal) == pytest.approx(18, rel=0.02)


def test_motion_of_many_cells_is_found_on_some():
    x = torch.randn(2200, 2, generator=generator(0), dtype=torch.float64)
    weights = torch.full((2200,), 1 / 2200, dtype=torch.float64)
    motion = common_motion(x, x + 3, weights, weights, solve=UnbalancedSinkhorn(0.05, (5.0, math.inf)))
    assert motion.shape == x.shape
    assert float((motion - 3).abs().median()) < 0.1


def test_a_cell_without_partner_keeps_a_hundredth():
    x0 = torch.cat([torch.randn(50, 2, generator=generator(0)), torch.tensor([[400.0, 0.0]])]).double()
    x1 = torch.randn(60, 2, generator=generator(1)).double()
    plan, rate = grown(x0, x1)
    assert float(plan[-1].sum() * 51) == pytest.approx(0.01, rel=0.02)
    assert torch.isfinite(rate).all()


@pytest.mark.parametrize(("distance", "shares"), [(30, (30, 60)), (1000, (30, 60)), (300, (0, 15))])
def test_distant_groups_that_change_in_size_are_matched(distance, shares):
    rng = generator(0)
    x0, x1 = torch.randn(2, 300, 2, generator=rng, dtype=torch.float64)
    for x, share in zip((x0, x1), shares, strict=True):
        x[:share, 0] += distance
    plan = AUTO(x0, x1).dense()
    if shares[0]:
        assert float(plan[shares[0] :, : shares[1]].sum()) < 1e-3
        assert float(plan[: shares[0]].sum()) == pytest.approx(0.2, abs=1e-3)


@pytest.mark.parametrize("far", [300.0, 1000.0])
def test_one_cell_far_out_says_nothing_about_the_others(far):
    rng = generator(0)
    x0, x1 = torch.randn(2, 300, 2, generator=rng, dtype=torch.float64)
    x0[:150, 0] += 10
    x1[:225, 0] += 10
    x0[-1] = far
    plan = AUTO(x0, x1).dense()
    assert float(plan[:150].sum()) == pytest.approx(0.75, abs=0.01)
    assert float(plan[150:, :225].sum()) < 1e-3


@pytest.mark.parametrize(("x0", "x1"), [(torch.zeros(4, 2), torch.zeros(3, 2)), (torch.ones(1, 2), torch.zeros(5, 2))])
def test_clouds_without_extent_are_matched(x0, x1):
    plan = AUTO(x0.double(), x1.double())
    assert torch.allclose(plan.dense(), torch.full((len(x0), len(x1)), 1 / (len(x0) * len(x1)), dtype=torch.float64))


def test_a_plan_says_what_was_found(caplog):
    x0, x1, *_ = two_populations(apart=3, move=2, growth=1, spread=1.0)
    with caplog.at_level(logging.INFO, "cellflow"):
        snapshot_batches([x0[::10], x1[::12]], [0, 1], coupling=AUTO, masses=(1, 1), generator=generator(0))
    plan = AUTO(x0[::10], x1[::12])
    assert re.search(f"of the population .*relaxation {plan.settings['relaxation']:.3g}", caplog.text)
    assert f"relaxation {plan.settings['relaxation']:.3g}" in repr(plan)


def test_a_bridge_blurs_at_least_as_much_as_its_path():
    assert AUTO.over(0.5, 0.0).epsilon == Relative(0.02)
    assert AUTO.over(0.5, 3.0).epsilon == Relative(0.02, least=9.0)


def test_scaling_keeps_all_but_the_relaxation():
    half = AUTO.scaled(0.5)
    assert half.relaxation == (Relative(0.125), math.inf)
    assert half.free_motion
    assert UnbalancedSinkhorn(1.0, 4.0).scaled(0.5).relaxation == (2.0, 2.0)
    x0, x1, *_ = two_populations(apart=3, move=2, growth=1, spread=1.0)
    assert torch.equal(AUTO.scaled(1.0)(x0[::10], x1[::12]).dense(), AUTO(x0[::10], x1[::12]).dense())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: UnbalancedSinkhorn(relaxation="own"), "or 'auto'; found 'own'"),
        (lambda: UnbalancedSinkhorn(cost=Euclidean()), "squared distances only"),
        (lambda: Relative(0.0), "factor above 0"),
        (lambda: Relative(1.0, least=-1.0), "least of 0 or more"),
    ],
)
def test_settings_that_mean_nothing_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


# ---- in a flow ----


QUICK = {"time_key": "day", "steps": 2, "batch_size": 16, "device": "cpu"}


def test_by_default_a_flow_learns_growth_and_says_how_much(tmp_path):
    """Half of the cells triple: at the later time there are a quarter more of them, and as many fewer of the others."""
    x0, x1, *_ = two_populations(apart=14, move=2, growth=3, spread=1.0)
    states = torch.cat([x0[::5], x1[::5]]).float().numpy()
    obs = pd.DataFrame({"day": np.repeat([0.0, 1.0], [len(x0[::5]), len(x1[::5])])})
    obs.index = [f"cell{k}" for k in range(len(obs))]
    adata = anndata.AnnData(np.zeros((len(obs), 0), np.float32), obs=obs, obsm={"X_pca": states})
    flow = cf.SnapshotFlow(**QUICK).fit(adata)
    assert flow.growth_
    assert flow.turnover_ == pytest.approx([0.25], abs=0.01)
    assert "growth replaces this share of the population: 25% from 0 days to 1 day (relaxation" in text(
        adata, flow, unit="days"
    )
    flow.save(tmp_path)
    again = cf.SnapshotFlow.load(tmp_path)
    assert (again.growth_, again.turnover_) == (True, flow.turnover_)
    assert "25% from 0 days to 1 day." in text(adata, again, unit="days")
    assert cf.SnapshotFlow(**QUICK, growth=False).fit(adata).turnover_ == [None]
    assert not cf.SnapshotFlow(**QUICK, coupling="exact").fit(adata).growth_


def test_groups_that_a_snapshot_lacks_are_left_out_without_growth():
    adata = make_cells(sizes=(30, 30, 30))
    adata.obs["donor"] = np.where(adata.obs["day"] == 0, "one", "two")
    adata.obs.loc[adata.obs.index[::2], "donor"] = "both"
    with pytest.warns(UserWarning, match="left out"):
        flow = cf.SnapshotFlow(**QUICK, within="donor").fit(adata)
    assert not flow.growth_
    with pytest.raises(ValueError, match="`masses` is used with growth only"):
        cf.SnapshotFlow(**QUICK, within="donor", masses="counts").fit(adata)


def test_the_coupling_may_be_given_as_an_object_or_by_name():
    adata = make_cells(sizes=(30, 40, 60))
    flows = [cf.SnapshotFlow(**QUICK, coupling=given, masses="counts").fit(adata) for given in ("auto", AUTO)]
    assert flows[0].growth_
    assert flows[0].masses_ == flows[1].masses_ == (1, 4 / 3, 2)


def test_a_network_of_one_output_gets_another_for_growth(tmp_path):
    adata = make_cells(sizes=(30, 30, 30))
    flow = cf.SnapshotFlow(**QUICK, network=lambda dim: cf.networks.MLP(dim, width=8)).fit(adata)
    assert flow.growth_
    assert flow.growth_rate(adata.obsm["X_pca"], 1.0).shape == (90,)
    with pytest.raises(TypeError, match="heads"):
        cf.SnapshotFlow(**QUICK, network=lambda dim: cf.networks.MLP(dim, width=8), growth=True).fit(adata)


def test_the_suggested_relaxation_is_what_the_coupling_finds():
    x0, x1, *_ = two_populations(apart=3, move=2, growth=1, spread=1.0)
    x0, x1 = x0[::10], x1[::12]
    found = cf.cells.suggest_relaxation([x0, x1, x0])
    assert found[0] == pytest.approx(AUTO(x0, x1).settings["relaxation"])
    assert found[0] == pytest.approx(found[1])
    assert cf.cells.suggest_relaxation([10 * x0, 10 * x1], factor=0.5) == pytest.approx([200 * found[0]])
    with pytest.raises(ValueError, match="two or more snapshots"):
        cf.cells.suggest_relaxation([x0])
