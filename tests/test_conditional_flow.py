"""`SnapshotFlow(conditions=...)`: time and treatment in one field, each condition along a chain of its snapshots."""

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

import cellflow as cf
from cellflow.cells.snapshots import Snapshots
from cellflow.cli import main
from cellflow.estimators.chains import legs_of

pytestmark = pytest.mark.usefixtures("global_state_is_untouched")

TIMES = (0.0, 1.0, 4.0)
DRIFTS = {"A": (2.0, 0.0), "B": (0.0, -1.5)}


def cells(parts, *, n=60, seed=0, **columns):
    """Gaussian clouds: of each part its drug, its time and its mean."""
    rng = np.random.default_rng(seed)
    x = np.concatenate([0.3 * rng.normal(size=(n, 2)) + mean for _, _, mean in parts])
    obs = pd.DataFrame({"drug": np.repeat([p[0] for p in parts], n), "time": np.repeat([p[1] for p in parts], n)})
    obs = obs.assign(**columns)
    obs.index = [f"cell {k}" for k in range(len(obs))]
    return anndata.AnnData(obs=obs, obsm={"X_pca": x.astype("float32")})


def drifting(*left_out, n=60):
    """Two drugs that drift apart from the same first snapshot, over uneven times."""
    later = [(drug, time) for drug in DRIFTS for time in TIMES[1:] if (drug, time) not in left_out]
    return cells([("control", 0.0, (0, 0)), *((d, t, np.multiply(t, DRIFTS[d])) for d, t in later)], n=n)


def flow_of(**settings):
    given = {"conditions": "drug", "batch_size": 64, "steps": 3, "recipe": cf.training.Recipe(warmup=1)}
    return cf.SnapshotFlow(**given | settings)


FAST = {"steps": 500, "coupling": "exact", "regularize": False, "recipe": cf.training.Recipe(learning_rate=5e-3)}


@pytest.fixture(scope="module")
def fitted():
    adata = drifting()
    return flow_of(**FAST).fit(adata), adata


@pytest.fixture(scope="module")
def growing():
    adata = drifting(n=20)
    return flow_of(coupling="auto").fit(adata), adata


def test_two_drugs_are_carried_from_a_shared_snapshot_over_uneven_times(fitted):
    flow, adata = fitted
    start = adata.obsm["X_pca"][:60]
    for drug, drift in DRIFTS.items():
        for stop in TIMES[1:]:
            landed = flow.transport(start, start=0, stop=stop, condition={"drug": drug}).x[-1].numpy()
            assert np.abs(landed.mean(axis=0) - np.multiply(stop, drift)).max() < 0.25
            assert landed.std(axis=0) == pytest.approx(0.3, abs=0.12)
        velocity = flow.velocity(np.multiply(2.0, drift)[None], 2.0, condition={"drug": drug})
        assert velocity[0] == pytest.approx(drift, abs=0.4)


def test_a_time_of_a_treatment_that_was_left_out_is_predicted_from_its_neighbours():
    whole, seen = drifting(), drifting(("A", 1.0))
    flow = flow_of(**FAST).fit(seen)
    assert ("A", 0.0, 4.0) in flow.plans_
    found = cf.tl.interpolate(seen, flow, at=1.0, condition={"drug": "A"})
    true = whole[(whole.obs["drug"] == "A") & (whole.obs["time"] == 1.0)].obsm["X_pca"]
    assert np.average(found.obsm["X_pca"], axis=0, weights=found.obs["weight"]) == pytest.approx(
        true.mean(axis=0), abs=0.4
    )
    assert set(found.obs["origin_time"]) == {0.0, 4.0}
    assert found.obs["weight"].sum() == pytest.approx(1)


def test_each_leg_has_its_plan(fitted):
    flow, adata = fitted
    assert list(flow.plans_) == [(d, *both) for d in "AB" for both in ((0.0, 1.0), (1.0, 4.0))]
    x, obs = torch.from_numpy(adata.obsm["X_pca"]), adata.obs
    first, late = (torch.from_numpy(((obs["drug"] == d) & (obs["time"] == t)).to_numpy()) for d, t in
                   (("control", 0.0), ("B", 1.0)))  # fmt: skip
    assert torch.equal(flow.plans_["B", 0.0, 1.0].dense(), cf.couplings.Exact()(x[first], x[late]).dense())


def chain(parts, within=None, **given):
    adata = cells(parts, n=2, **({} if within is None else {"donor": np.repeat(within, 2)}))
    fitted = cf.Conditions("drug", **given).fit(adata.obs)
    time = adata.obs["time"].to_numpy()
    groups = None if within is None else adata.obs["donor"].to_numpy().astype(str)
    clock = cf.cells.Clock(tuple(np.unique(time)))
    return [leg.name for leg in legs_of(Snapshots(adata.obsm["X_pca"], time, clock, groups, None, None,
                                                  fitted.read(adata.obs)))]  # fmt: skip


ZERO = (0, 0)


def test_a_late_treatment_begins_at_the_closest_earlier_controls():
    parts = [("control", 0, ZERO), ("control", 1, ZERO), ("control", 5, ZERO), ("A", 3, ZERO), ("A", 9, ZERO)]
    assert [name for name in chain(parts) if name[0] == "A"] == [("A", 1, 3), ("A", 3, 9)]


def test_missing_snapshots_are_skipped_and_an_own_first_snapshot_is_used():
    parts = [("control", 0, ZERO), ("control", 1, ZERO), ("control", 2, ZERO), ("A", 0, ZERO), ("A", 2, ZERO)]
    assert chain(parts) == [("control", 0, 1), ("control", 1, 2), ("A", 0, 2)]


def test_groups_have_chains_of_their_own():
    parts = [("control", 0, ZERO)] * 2 + [("A", 1, ZERO), ("A", 2, ZERO), ("A", 2, ZERO)]
    assert chain(parts, within=["d1", "d2", "d1", "d1", "d2"]) == [
        ("A", 0, 1, "d1"), ("A", 1, 2, "d1"), ("A", 0, 2, "d2"),
    ]  # fmt: skip


def test_a_group_without_untreated_cells_is_refused():
    parts = [("control", 0, ZERO), ("A", 1, ZERO), ("A", 1, ZERO)]
    with pytest.raises(ValueError, match=r"No untreated cells lead to A in d2 \(from 1\)"):
        chain(parts, within=["d1", "d1", "d2"])
    with pytest.raises(ValueError, match="No untreated cells lead to B"):
        chain([("A", 0, ZERO), ("A", 1, ZERO), ("B", 1, ZERO)])
    with pytest.raises(ValueError, match="at one time only"):
        chain([("control", 0, ZERO), ("control", 1, ZERO)], within=["d1", "d2"])


def test_cells_are_paired_inside_condition_and_group_only():
    parts = [("control", 0.0, (0, 0)), ("control", 0.0, (50, 0)), ("A", 1.0, (50, 9)), ("A", 1.0, (0, 9))]
    adata = cells(parts, n=20, donor=np.repeat(["d1", "d2", "d1", "d2"], 20))
    flow = flow_of(within="donor", coupling="exact").fit(adata)
    assert set(flow.plans_) == {("A", 0.0, 1.0, "d1"), ("A", 0.0, 1.0, "d2")}
    assert all(plan.cost > 50**2 for plan in flow.plans_.values())


def test_conditions_are_read_given_in_words_or_as_what_the_field_sees(fitted):
    flow, adata = fitted
    states = flow.read(adata, adata.obs["drug"] == "A")
    assert states.condition.tolist() == [[1.0, 0.0]] * 120
    other = flow.read(adata, adata.obs["drug"] == "A", condition={"drug": "B"})
    assert other.condition.tolist() == [[0.0, 1.0]] * 120
    x = states.x[:3]
    by_word = flow.velocity(x, 2.0, condition={"drug": "A"})
    assert np.array_equal(by_word, flow.velocity(x, 2.0, condition=states.condition[:3]))
    assert np.array_equal(by_word, flow.velocity(x, 2.0, condition={"drug": ["A"] * 3}))
    assert not np.array_equal(by_word, flow.velocity(x, 2.0, condition={"drug": "B"}))


def test_what_is_not_known_of_conditions_is_refused(fitted):
    flow, adata = fitted
    x = adata.obsm["X_pca"][:3]
    with pytest.raises(ValueError, match="fitted with conditions, which states alone"):
        flow.transport(x, start=0, stop=1)
    with pytest.raises(ValueError, match="unknown|not in training|'C'"):
        flow.transport(x, start=0, stop=1, condition={"drug": "C"})
    with pytest.raises(ValueError, match=r"finite numbers of shape \(3, 2\)"):
        flow.velocity(x, 0.0, condition=np.ones((3, 5)))
    with pytest.raises(KeyError, match="'dose' is not one of the columns"):
        flow.velocity(x, 0.0, condition={"drug": "A", "dose": 3.0})
    with pytest.raises(ValueError, match="does not support conditions yet"):
        cf.tl.validate(adata, flow)
    with pytest.raises(ValueError, match="does not support conditions yet"):
        cf.tl.tune(adata, flow, grid={"steps": [1, 2]})
    plain = cf.SnapshotFlow(steps=1, recipe=cf.training.Recipe(warmup=1)).fit(adata)
    with pytest.raises(ValueError, match="fitted without conditions"):
        plain.transport(x, start=0, stop=1, condition={"drug": "A"})
    with pytest.raises(ValueError, match="straight or follow the mean"):
        flow_of(curve="spline").fit(adata)
    with pytest.raises(TypeError, match="condition_dim"):
        flow_of(network=plain_network).fit(adata)
    with pytest.raises(ValueError, match="not population sizes"):
        flow_of(masses="counts").fit(adata)


def test_tools_take_each_cell_under_its_own_condition_or_another(fitted):
    flow, adata = fitted
    adata = adata.copy()
    cf.tl.velocity(adata, flow)
    mine = adata.obs["drug"].to_numpy() == "A"
    drift = adata.obsm["velocity"][mine].mean(axis=0)
    assert drift == pytest.approx(DRIFTS["A"], abs=0.4)
    cf.tl.velocity(adata, flow, condition={"drug": "B"}, key_added="other")
    assert not np.allclose(adata.obsm["other"][mine], adata.obsm["velocity"][mine])
    first = adata.obs["time"] == 0
    for drug in DRIFTS:
        cf.tl.push(adata, flow, cells=first, at=4, condition={"drug": drug}, groupby="drug")
        assert adata.uns["push"]["groups"]["mass"].to_dict() == {drug: pytest.approx(1.0)}
        cf.tl.trajectories(adata, flow, n=4, n_times=3, condition={"drug": drug})
        assert adata.uns["trajectories"]["x"][-1].mean(axis=0) == pytest.approx(np.multiply(4, DRIFTS[drug]), abs=0.6)
        late = (adata.obs["time"] == 4) & (adata.obs["drug"] == drug)
        cf.tl.pull(adata, flow, cells=late, at=1)
        assert adata.obs["pull"][adata.obs["drug"] == drug].sum() == pytest.approx(1)
    cf.tl.fate(adata, flow, groupby="drug", cells=first, condition={"drug": "B"})
    assert adata.obsm["fate"].columns.tolist() == ["B"]
    with pytest.raises(ValueError, match="under a condition of the chosen ones"):
        cf.tl.push(adata, flow, cells=first, at=4)
    assert flow.score(adata) > -0.4


def test_treated_cells_are_pulled_to_the_untreated_ones_that_they_began_as(fitted):
    flow, adata = fitted
    adata = adata.copy()
    first = adata.obs["time"] == 0
    late = (adata.obs["time"] == 4) & (adata.obs["drug"] == "A")
    x = adata.obsm["X_pca"][late.to_numpy()]
    for name, given in (("own", {}), ("said", {"condition": {"drug": "A"}})):
        cf.tl.pull(adata, flow, cells=late, at=0, n_neighbors=1, groupby="drug", key_added=name, **given)
        assert adata.uns[name]["groups"]["mass"].to_dict() == {"control": pytest.approx(1)}
    landed = flow.transport(x, start=4, stop=0, condition={"drug": "A"}).x[-1].numpy()
    there = adata.obsm["X_pca"][first.to_numpy()]
    nearest = np.linalg.norm(landed[:, None] - there[None], axis=2).argmin(axis=1)
    expected = np.bincount(nearest, minlength=len(there)) / len(landed)
    np.testing.assert_allclose(adata.obs["own"][first], expected, atol=1e-9)
    cf.tl.fate(adata, flow, groupby="drug", cells=late, at=0)
    assert adata.obsm["fate"].columns.tolist() == ["control"]


def test_a_late_treatment_is_pulled_to_the_controls_of_its_beginning_only():
    parts = [("control", 0.0, (0, 0)), ("control", 1.0, (1, 0)), ("A", 2.0, (2, 0)), ("B", 1.0, (0, 1))]
    adata = cells(parts, n=20)
    flow = flow_of().fit(adata)
    cf.tl.pull(adata, flow, cells=adata.obs["drug"] == "A", at=1, groupby="drug")
    assert adata.uns["pull"]["groups"]["mass"].to_dict() == {"control": pytest.approx(1)}
    with pytest.raises(ValueError, match="or lead to it"):
        cf.tl.pull(adata, flow, cells=adata.obs["drug"] == "A", at=0)


def test_interpolated_cells_say_what_they_are_under(fitted):
    flow, adata = fitted
    asked = cf.tl.interpolate(adata, flow, at=2.0, condition={"drug": "A"})
    assert asked.obs["drug"].tolist() == ["A"] * 120
    late = cf.tl.interpolate(adata, flow, at=0.5, origin="before", condition={"drug": "B"})
    assert late.obs["drug"].tolist() == ["B"] * 60
    own = cf.tl.interpolate(adata, flow, at=2.0)
    assert own.obs["drug"].tolist() == adata.obs.loc[own.obs["origin"], "drug"].tolist()
    encoded = flow.conditions_.encode({"drug": "A"}, adata.n_obs)
    assert "drug" not in cf.tl.interpolate(adata, flow, at=2.0, condition=encoded).obs


def test_columns_of_the_user_are_kept_in_what_is_interpolated():
    adata = drifting(n=20)
    adata.obs["weight"] = np.arange(adata.n_obs) % 2 / 2
    adata.obs["origin"] = "here"
    flow = flow_of(conditions=cf.Conditions("drug", numbers=("weight",), categories=("origin",))).fit(adata)
    found = cf.tl.interpolate(adata, flow, at=2.0)
    assert set(found.obs["origin"]) == {"here"}
    assert found.obs["weight"].tolist() == adata.obs.loc[found.obs["predicted_origin"], "weight"].tolist()
    assert found.obs["predicted_weight"].sum() == pytest.approx(1)
    cf.pl.interpolation(adata, found, basis="X_pca")


def test_treatments_without_controls_are_noted(caplog):
    parts = [(drug, time, ZERO) for drug in "AB" for time in (0.0, 1.0)]
    flow_of().fit(cells(parts, n=10))
    assert "No cells are controls ('control' in 'drug')" in caplog.text
    caplog.clear()
    flow_of().fit(cells([*parts, ("control", 0.0, ZERO)], n=10))
    assert "No cells are controls" not in caplog.text


def test_names_that_files_divide_are_refused(fitted):
    flow, adata = fitted
    adata, late = adata.copy(), adata.obs["time"] == 4
    for call in (
        lambda key: cf.tl.velocity(adata, flow, key_added=key),
        lambda key: cf.tl.pull(adata, flow, cells=late, at=1, key_added=key),
        lambda key: cf.tl.fate(adata, flow, groupby="drug", key_added=key),
        lambda key: cf.tl.trajectories(adata, flow, key_added=key),
    ):
        with pytest.raises(ValueError, match=r"without '/', .* Take 'run_1'"):
            call("run/1")


def test_growth_score_distillation_and_a_saved_model(growing, tmp_path):
    flow, adata = growing
    assert flow.growth_
    assert set(flow.turnover_) == set(flow.plans_)
    cf.tl.growth(adata, flow, sensitivity=False)
    x, given = adata.obsm["X_pca"][:5], {"condition": {"drug": "A"}}
    assert flow.grow(x, start=0, stop=4, **given).log_weight.shape == (2, 5)
    mapped = flow.distill(adata, steps=2)
    jumped = mapped.transport(x, start=0, stop=4, solver=cf.integrate.Jumps(1), **given)
    flow.save(tmp_path / "model")
    again = cf.SnapshotFlow.load(tmp_path / "model")
    assert again.conditions_.names == ("A", "B")
    assert torch.equal(again.transport(x, start=0, stop=4, solver=cf.integrate.Jumps(1), **given).x, jumped.x)
    assert np.array_equal(again.velocity(x, 1.0, **given), flow.velocity(x, 1.0, **given))
    assert again.score(adata) == flow.score(adata)


def test_with_noise(tmp_path):
    adata = drifting(n=15)
    flow = flow_of(path=cf.paths.BrownianBridge(0.2), stochastic=True).fit(adata)
    found = flow.simulate(adata.obsm["X_pca"][:4], start=0, stop=4, condition={"drug": "B"})
    assert found.x.shape == (2, 4, 2)
    cf.tl.fate(adata, flow, groupby="drug", cells=adata.obs["time"] == 1, n_samples=2)


def test_an_interrupted_fit_goes_on_as_it_would_have(tmp_path):
    adata, settings = drifting(n=20), {"steps": 30, "regularize": False}
    whole = flow_of(**settings).fit(adata)

    def stop(flow):
        if len(flow.history_) >= 12:
            raise RuntimeError("the power failed")

    run = cf.training.Run(tmp_path / "run", watch=stop, watch_every=4, save_every=4)
    with pytest.raises(RuntimeError, match="the power failed"):
        flow_of(**settings).fit(adata, run=run)
    again = flow_of(**settings).fit(adata, run=cf.training.Run(tmp_path / "run", resume=True))
    x = adata.obsm["X_pca"][:4]
    given = {"condition": {"drug": "A"}}
    assert np.array_equal(whole.velocity(x, 1.0, **given), again.velocity(x, 1.0, **given))
    other = adata.copy()
    other.obs["drug"] = other.obs["drug"].replace({"A": "B", "B": "A"}).to_numpy()
    with pytest.raises(cf.errors.CheckpointError):
        flow_of(**settings).fit(other, run=cf.training.Run(tmp_path / "run", resume=True))


def test_a_search_holds_out_cells_of_each_condition(monkeypatch):
    adata = drifting(n=40)
    flow = flow_of(steps=1200, batch_size=8, recipe=cf.training.Recipe(warmup=10), network=small).fit(adata)
    assert len(flow.search_history_) > 0
    assert "validation" in flow.search_history_.columns
    assert "confirmed growth" in flow.search_history_.columns


def plain_network(dim):
    return cf.networks.MLP(dim)


def small(dim, **given):
    return cf.networks.MLP(dim, width=8, depth=1, **given)


def test_means_of_conditions_bend_their_pairs():
    """A drug whose cells speed up is not straight; one that moves evenly is."""
    parts = [("control", 0.0, (0, 0)), ("A", 1.0, (1, 0)), ("A", 2.0, (9, 0)), ("B", 1.0, (0, 1)), ("B", 2.0, (0, 2))]
    adata = cells(parts, n=30)
    flow = flow_of(curve=cf.pairing.Mean("monotone"), coupling="exact").fit(adata)
    rng = cf.generator(0)
    batches = flow._pair(flow._snapshots(adata), cf.couplings.Exact(), rng, None, torch.device("cpu"))
    batch = next(iter(batches))
    mine = batch.condition[:, 0] == 1
    assert batch.bend0[mine].abs().max() > 1
    assert batch.bend0[~mine].abs().max() < 0.5


def test_the_report_says_which_conditions_were_fitted(tmp_path):
    adata = drifting(n=15)
    flow = flow_of(coupling="auto").fit(adata).distill(adata, steps=1)
    page = cf.report.write(tmp_path, adata, flow, title="Drugs", details={}, groupby="drug").read_text()
    assert "Which conditions were fitted" in page
    assert page.count("control at 0") == 2
    with pytest.raises(ValueError, match="does not support conditions yet"):
        cf.report.write(tmp_path, adata, flow, title="Drugs", details={}, groupby="drug", lineage_key="drug")


def test_the_command_line_fits_time_and_treatment_together(tmp_path):
    drifting(n=12).write_h5ad(tmp_path / "cells.h5ad")
    given = [f"data.path={tmp_path / 'cells.h5ad'}", "data.time_key=time", "conditions.treatment=drug", "steps=2"]
    fast = ["recipe.warmup=1", "progress=false", "batch_size=8"]
    assert main(["fit", *given, *fast, f"out={tmp_path / 'run'}"]) in (0, None)
    assert cf.SnapshotFlow.load(tmp_path / "run").conditions_.names == ("A", "B")
    assert (tmp_path / "run" / "report.html").exists()


def test_donors_without_treatments_share_a_field():
    adata = cells([("none", t, (t, 0)) for t in (0.0, 1.0, 2.0)] * 2, n=20, donor=np.repeat(["d1", "d2"], 60))
    flow = flow_of(conditions=cf.Conditions(categories=("donor",)), coupling="exact").fit(adata)
    assert len(flow.plans_) == 4
    assert flow.velocity(adata.obsm["X_pca"], adata.obs["time"], condition=flow.read(adata).condition).shape == (120, 2)
