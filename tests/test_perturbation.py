"""From controls to treated cells: what is learned, who is paired, what is refused, and what is kept."""

import json

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

import cellflow as cf
from cellflow.errors import NotFittedError
from cellflow.estimators.arms import group_names
from cellflow.estimators.conditional_groups import groups_of
from cellflow.estimators.mean_shift import mean_shift
from cellflow.estimators.perturbation_verbs import WAY
from cellflow.integrate import Jumps
from cellflow.pairing.legs import LegBatches
from conftest import make_treated

pytestmark = pytest.mark.usefixtures("global_state_is_untouched")
QUICK = {"steps": 3, "batch_size": 16, "device": "cpu"}


@pytest.fixture(scope="module")
def known():
    """Cells, and a flow that was fitted well enough to know what the drugs do."""
    adata = make_treated(sizes=(150, 120, 120))
    return adata, cf.PerturbationFlow(conditions="drug", steps=400, batch_size=128, device="cpu").fit(adata)


def controls(adata):
    return adata.obsm["X_pca"][(adata.obs["drug"] == "control").to_numpy()]


def shift(adata, flow, drug):
    x = controls(adata)
    return (flow.transport(x, condition={"drug": drug}).x[-1].numpy() - x).mean(axis=0)


@pytest.mark.parametrize(("drug", "expected"), [("A", [3, 0, 0]), ("B", [0, 2, 0])])
def test_controls_become_what_treated_cells_are(known, drug, expected):
    np.testing.assert_allclose(shift(*known, drug), expected, atol=0.3)


def test_what_is_carried_back_is_what_it_was(known):
    adata, flow = known
    x = controls(adata)[:20]
    there = flow.transport(x, condition={"drug": "A"}, save=3)
    assert there.t.tolist() == [0.0, 0.5, 1.0]
    back = flow.transport(there.x[-1], condition={"drug": "A"}, reverse=True)
    np.testing.assert_allclose(back.x[-1].numpy(), x, atol=1e-3)
    assert back.t.tolist() == [1.0, 0.0]


def test_the_velocity_is_that_of_the_way(known):
    adata, flow = known
    x, step = controls(adata)[:5], 1e-3
    moved = flow.transport(x, condition={"drug": "B"}, solver=cf.integrate.Fixed(steps=1000), save=1001).x
    found = flow.velocity(x, condition={"drug": "B"})
    np.testing.assert_allclose(found, (moved[1] - moved[0]).numpy() / step, atol=0.05)
    with pytest.raises(ValueError, match="from 0"):
        flow.velocity(x, condition={"drug": "B"}, t=1.5)


def test_every_form_of_a_condition_is_the_same(known):
    adata, flow = known
    x = controls(adata)[:4]
    expected = flow.transport(x, condition={"drug": "A"}).x
    rows = flow.conditions_.encode({"drug": "A"}, 4)
    for form in ({"drug": ["A"] * 4}, pd.DataFrame({"drug": ["A"] * 4}), rows, torch.from_numpy(rows)):
        assert torch.equal(flow.transport(x, condition=form).x, expected)
    both = flow.transport(x, condition={"drug": ["A", "B", "A", "B"]}).x
    assert torch.allclose(both[:, ::2], expected[:, ::2])
    with pytest.raises(ValueError, match=r"rows \(4, 2\)"):
        flow.transport(x, condition=rows[:2])
    with pytest.raises(KeyError, match="'dose' is not one of the columns"):
        flow.transport(x, condition={"drug": "A", "dose": 3})
    with pytest.raises(ValueError, match="No 'C' in 'drug'"):
        flow.transport(x, condition={"drug": "C"})


def test_cells_have_their_own_condition_unless_another_is_asked_for(known):
    adata, flow = known
    states = flow.read(adata)
    assert (states.condition == flow.conditions_.encode({"drug": adata.obs["drug"].tolist()}, adata.n_obs)).all()
    some = flow.read(adata, adata.obs["drug"] == "A", {"drug": "B"})
    assert (some.condition == [[0, 1]]).all()
    assert (adata.obs["drug"].to_numpy()[some.rows] == "A").all()


def pairs_of(flow, adata, monkeypatch, n=20):
    """The pairs that a fit is given, as rows of the cells."""
    seen, iterate = [], LegBatches.iterate

    def watched(self, start):
        for batch in iterate(self, start):
            seen.append(batch)
            yield batch

    monkeypatch.setattr(LegBatches, "iterate", watched)
    flow.fit(adata)
    x = adata.obsm["X_pca"]
    index = {row.tobytes(): k for k, row in enumerate(x)}
    ends = [torch.cat([getattr(batch, side) for batch in seen]).numpy() for side in ("x0", "x1")]
    rows = [[index[row.tobytes()] for row in side] for side in ends]
    return adata.obs.iloc[rows[0]], adata.obs.iloc[rows[1]], torch.cat([batch.condition for batch in seen]).numpy()


@pytest.mark.parametrize("how", ["within", "categories"])
def test_cells_are_paired_with_controls_of_their_group(how, monkeypatch):
    adata = make_treated()
    conditions = cf.Conditions(treatment="drug", categories=("donor",)) if how == "categories" else "drug"
    flow = cf.PerturbationFlow(conditions=conditions, within="donor" if how == "within" else None, **QUICK)
    before, after, _ = pairs_of(flow, adata, monkeypatch)
    assert (before["drug"] == "control").all()
    assert (after["drug"] != "control").all()
    assert (before["donor"].to_numpy() == after["donor"].to_numpy()).all()
    assert set(flow.arms_["group"]) == {"x", "y"}


def test_treatments_count_the_same_whatever_their_cells(monkeypatch):
    adata = make_treated(sizes=(40, 200, 10))
    flow = cf.PerturbationFlow(conditions="drug", device="cpu", steps=20, batch_size=64, regularize=False)
    _, after, condition = pairs_of(flow, adata, monkeypatch)
    assert abs((after["drug"] == "A").mean() - 0.5) < 0.02
    assert (condition == np.stack([after["drug"] == "A", after["drug"] == "B"], axis=1)).all()


def test_controls_have_any_name():
    adata = make_treated()
    adata.obs["drug"] = adata.obs["drug"].replace("control", "DMSO")
    flow = cf.PerturbationFlow(conditions="drug", control="DMSO", **QUICK).fit(adata)
    assert flow.conditions_.names == ("A", "B")
    other = cf.PerturbationFlow(conditions=cf.Conditions("drug", control="DMSO"), **QUICK).fit(adata)
    assert torch.equal(*(one.transport(adata.obsm["X_pca"], condition={"drug": "A"}).x for one in (flow, other)))


def spoilt(change):
    adata = make_treated()
    change(adata)
    return adata


def only(drug, donor):
    """Leave out cells of a drug that are of a donor."""

    def change(adata):
        kept = ~((adata.obs["drug"] == drug) & (adata.obs["donor"] == donor))
        adata._inplace_subset_obs(kept.to_numpy())

    return change


@pytest.mark.parametrize(
    ("settings", "change", "error", "words"),
    [
        ({"conditions": "drugs"}, lambda a: None, KeyError, "No column 'drugs'"),
        ({"conditions": None}, lambda a: None, TypeError, "`conditions`"),
        ({"within": "donor"}, only("control", "x"), ValueError, r"obs\['donor'\].*no controls: 'x'"),
        ({"within": "batch"}, lambda a: None, KeyError, "batch"),
        ({}, lambda a: a.obs.drop(columns="drug", inplace=True), KeyError, "No column 'drug'"),
        ({}, lambda a: a.obs.__setitem__("drug", "control"), ValueError, "All cells are controls"),
        ({}, lambda a: a.obsm.pop("X_pca"), KeyError, "X_pca"),
        ({"stochastic": 1}, lambda a: None, TypeError, "`stochastic`"),
        ({"stochastic": True}, lambda a: None, ValueError, "path with noise"),
    ],
)
def test_what_cannot_be_fitted_is_refused_and_nothing_is_lost(settings, change, error, words):
    flow = cf.PerturbationFlow(conditions="drug", **QUICK).fit(make_treated())
    before = flow.field_
    flow.set_params(**settings)
    with pytest.raises(error, match=words):
        flow.fit(spoilt(change))
    assert flow.field_ is before


@pytest.mark.filterwarnings("ignore:No cell has the control 'DMSO'")
def test_a_control_that_is_not_there_is_refused():
    adata = make_treated()
    with pytest.raises(ValueError, match="No control: expected cells with 'DMSO' in 'drug'; found 'A', 'B', 'control'"):
        cf.PerturbationFlow(conditions="drug", control="DMSO", **QUICK).fit(adata)
    with pytest.raises(ValueError, match="No control: expected cells with 'DMSO'"):
        cf.tl.response(adata, conditions="drug", control="DMSO")


def test_the_groups_of_several_columns_are_told_apart():
    obs = pd.DataFrame({"a": ["x", "x", "y"], "b": ["1", "2", "1"]}, index=list("pqr"))
    assert group_names(anndata.AnnData(obs=obs), ["a", "b"]).tolist() == ["x, 1", "x, 2", "y, 1"]


@pytest.mark.parametrize("names", [("a, b", "c", "a", "b, c"), ("'a, b'", "c", "a, b", "c"), ("a", "'b", "a", "b")])
def test_groups_are_apart_whatever_their_names_hold(names):
    first, second, other, last = names
    obs = pd.DataFrame({"g": [first, other], "h": [second, last]}, index=list("pq"))
    cells = anndata.AnnData(np.zeros((2, 1), "float32"), obs=obs)
    assert len(set(group_names(cells, ["g", "h"]))) == len(set(groups_of(cells, ["g", "h"], what="it"))) == 2


@pytest.mark.parametrize("kind", ["int64", "float64", "Int64", "category", "str"])
def test_whole_numbers_are_the_same_groups_in_every_form(kind):
    donors = pd.Series([1, 2, 10, 1] * 3, index=list("pqrstuvwxyz_")).astype(kind)
    cells = anndata.AnnData(np.zeros((12, 1), "float32"), obs=pd.DataFrame({"donor": donors}))
    expected = ["1", "2", "10", "1"] * 3
    assert group_names(cells, ["donor"]).tolist() == groups_of(cells, "donor", what="it").tolist() == expected


def test_fits_know_their_groups_in_every_form():
    adata = make_treated()
    adata.obs["donor"] = np.arange(adata.n_obs) % 2
    flow = cf.PerturbationFlow(conditions="drug", within="donor", **QUICK).fit(adata)
    adata.obs["donor"] = adata.obs["donor"].astype(float)
    cf.tl.response(adata, flow)
    assert adata.uns["response"]["fitted"].all()


def test_doses_that_look_alike_are_saved_and_asked_for(tmp_path):
    adata = make_treated()
    doses = np.array([1000001.0, 1000002.0, 0.3, 0.1 + 0.2])[np.arange(adata.n_obs) % 4]
    adata.obs["dose"] = np.where(adata.obs["drug"] == "control", 0.0, doses)
    flow = cf.PerturbationFlow(conditions=cf.Conditions("drug", "dose"), **QUICK).fit(adata)
    assert len(flow.treatments_) == 6
    flow.save(tmp_path)
    back = cf.PerturbationFlow.load(tmp_path, device="cpu")
    found = cf.tl.perturb(adata, back).obs["condition"].unique()
    assert [*found] == list(dict.fromkeys(flow.arms_["treatment"]))
    adata.obs["dose"] = adata.obs["dose"].astype("float32")
    assert len(cf.PerturbationFlow(conditions=cf.Conditions("drug", "dose"), **QUICK).fit(adata).treatments_) == 6


def test_a_saved_flow_is_the_same(known, tmp_path):
    adata, flow = known
    flow.save(tmp_path)
    json.loads((tmp_path / "model.json").read_text())
    back = cf.PerturbationFlow.load(tmp_path, device="cpu")
    x = controls(adata)
    for drug in ("A", "A+B", "control"):
        assert torch.equal(*(one.transport(x, condition={"drug": drug}).x for one in (flow, back)))
    pd.testing.assert_frame_equal(back.arms_, flow.arms_)
    assert back.treatments_ == flow.treatments_ == ({"drug": "A"}, {"drug": "B"})
    assert (back.shifts_ == flow.shifts_).all()
    assert back.get_params() == flow.get_params() | {"device": "cpu"}


def test_treatments_of_every_form_are_kept(tmp_path):
    """A saved flow still asks for what it was fitted on: doses, and a second drug that is missing."""
    adata = make_treated()
    treated = (adata.obs["drug"] != "control").to_numpy()
    adata.obs["second"] = pd.Series(np.where(np.arange(adata.n_obs) % 2 == 0, "C", None), index=adata.obs_names)
    adata.obs.loc[~treated, "second"] = None
    adata.obs["dose"] = pd.array(np.where(treated, 3, 0), dtype="Int64")
    conditions = cf.Conditions(treatment=("drug", "second"), dose="dose")
    flow = cf.PerturbationFlow(conditions=conditions, **QUICK).fit(adata)
    assert {"drug": "A", "second": None, "dose": 3.0} in flow.treatments_
    assert len(flow.treatments_) == 4
    flow.save(tmp_path)
    back = cf.PerturbationFlow.load(tmp_path, device="cpu")
    assert back.get_params()["conditions"] == conditions
    assert [*cf.tl.perturb(adata, back).obs["condition"].unique()] == list(dict.fromkeys(flow.arms_["treatment"]))


def test_the_same_seed_gives_the_same_weights_and_a_resumed_run_too(tmp_path):
    adata = make_treated()
    make = lambda steps: cf.PerturbationFlow(conditions="drug", **QUICK | {"steps": steps})  # noqa: E731
    whole = make(6).fit(adata)
    make(6).fit(adata, run=cf.Run(tmp_path, save_every=3))
    again = make(6).fit(adata, run=cf.Run(tmp_path, resume=True))
    for one, other in zip(whole.field_.parameters(), again.field_.parameters(), strict=True):
        assert torch.equal(one, other)
    adata.obs["drug"] = adata.obs["drug"].replace("A", "C")
    with pytest.raises(cf.errors.CheckpointError):
        cf.PerturbationFlow(conditions="drug", within="donor", **QUICK).fit(adata, run=cf.Run(tmp_path, resume=True))


def test_a_better_flow_scores_higher(known):
    adata, flow = known
    unfitted = cf.PerturbationFlow(conditions="drug", device="cpu", steps=1).fit(adata)
    assert unfitted.score(adata) < flow.score(adata) < 0
    alone = adata[adata.obs["drug"] == "control"].copy()
    with pytest.raises(ValueError, match="controls and treated cells"):
        flow.score(alone)


def test_few_cells_are_not_learned_by_heart_also_while_they_are_watched(tmp_path):
    """What is saved or asked on the way has the shares of the end: a treatment that does nothing does nothing there."""
    adata, moved = make_treated(sizes=(120, 60, 60), dim=10), []
    inert = np.flatnonzero(adata.obs["drug"] == "control")[::2]
    adata.obs.iloc[inert, adata.obs.columns.get_loc("drug")] = "C"
    x = controls(adata)[:9]

    def watch(watched):
        watched.save(tmp_path, overwrite=True)
        moved.append(watched.transport(x, condition={"drug": "C"}).x.diff(dim=0).norm().item())

    run = cf.Run(watch=watch, watch_every=10)
    flow = cf.PerturbationFlow(conditions="drug", steps=900, batch_size=32, device="cpu").fit(adata, run=run)
    assert len(flow.search_history_)
    assert flow.blur_ > 0
    saved = cf.PerturbationFlow.load(tmp_path, device="cpu")
    assert flow.field_.share.min() < 0.5 < flow.field_.share.max()
    for name, value in flow.field_.state_dict().items():
        assert torch.equal(saved.field_.state_dict()[name], value), name
    assert max(moved) < 0.5
    assert len(moved) > 2
    plain = cf.PerturbationFlow(conditions="drug", regularize=False, **QUICK).fit(adata)
    assert not len(plain.search_history_)
    assert plain.blur_ == 0


def test_one_jump_is_the_way_that_a_distilled_flow_goes(tmp_path):
    """Under every treatment, and back; one that does nothing moves no cell, and other cells are refused."""
    adata = make_treated(sizes=(120, 80, 80))
    inert = np.flatnonzero(adata.obs["drug"] == "control")[::2]
    adata.obs.iloc[inert, adata.obs.columns.get_loc("drug")] = "C"
    flow = cf.PerturbationFlow(conditions="drug", steps=500, batch_size=64, device="cpu").fit(adata)
    x = torch.from_numpy(controls(adata))
    with pytest.raises(NotFittedError, match="Call `distill` first"):
        flow.transport(x, condition={"drug": "A"}, solver=Jumps(1))
    with pytest.raises(ValueError, match="Leave out held-out cells"):
        flow.distill(adata[::2].copy(), steps=1)
    flow.distill(adata, steps=200)
    flow.save(tmp_path)
    saved = cf.PerturbationFlow.load(tmp_path, device="cpu")
    for drug in ("A", "B"):
        way, jump = (flow.transport(x, condition={"drug": drug}, solver=s).x[-1] for s in (WAY, Jumps(1)))
        assert (way - jump).norm(dim=1).mean() < 0.1
        back = flow.transport(jump, condition={"drug": drug}, solver=Jumps(1), reverse=True).x[-1]
        assert (back - x).norm(dim=1).mean() < 0.15
        assert torch.equal(saved.transport(x, condition={"drug": drug}, solver=Jumps(1)).x[-1], jump)
    still = flow.transport(x, condition={"drug": "C"}, solver=Jumps(1)).x[-1]
    assert (still - x).norm(dim=1).max() < 0.05
    found = cf.tl.perturb(adata, flow, condition={"drug": "A"}, solver=Jumps(1))
    assert np.allclose(found.obsm["X_pca"].mean(axis=0), [3, 0, 0], atol=0.5)


def test_other_cells_than_those_of_the_fit_are_noticed(known):
    adata, flow = known
    other = adata.copy()
    other.obsm["X_pca"] = -other.obsm["X_pca"]
    with pytest.warns(UserWarning, match="another representation"):
        flow.read(other)
    with pytest.warns(UserWarning, match="another representation"):
        cf.tl.perturb(other, flow)
    other.obsm["X_pca"] = other.obsm["X_pca"][:, :2]
    with pytest.raises(ValueError, match=r"\(cells, 3\)"):
        cf.tl.perturb(other, flow)


def test_noise_has_many_outcomes():
    adata = make_treated()
    path = cf.paths.BrownianBridge(0.5)
    flow = cf.PerturbationFlow(conditions="drug", path=path, stochastic=True, **QUICK).fit(adata)
    x = controls(adata)[:5]
    one, other, again = (flow.simulate(x, condition={"drug": "A"}, seed=seed).x for seed in (0, 1, 0))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    back = flow.simulate(x, condition={"drug": "A"}, reverse=True)
    assert back.t.tolist() == [1.0, 0.0]
    with pytest.raises(TypeError, match="fitted without a score"):
        cf.PerturbationFlow(conditions="drug", **QUICK).fit(adata).simulate(x, condition={"drug": "A"})


def test_the_mean_shift_is_the_nearest_that_is_known():
    adata = make_treated(sizes=(60, 60, 60))
    adata = adata[~((adata.obs["drug"] == "A") & (adata.obs["donor"] == "y"))].copy()
    flow = cf.PerturbationFlow(conditions="drug", within="donor", **QUICK).fit(adata)
    x, drug, donor = adata.obsm["X_pca"], adata.obs["drug"], adata.obs["donor"]

    def mean(name, group):
        return x[((drug == name) & (donor == group)).to_numpy()].mean(axis=0)

    a, b = np.eye(2)
    moved = {
        (name, group): mean(name, group) - mean("control", group)
        for name, group in (("A", "x"), ("B", "x"), ("B", "y"))
    }
    np.testing.assert_allclose(mean_shift(flow, "A", "x", a), moved["A", "x"], atol=1e-5)
    np.testing.assert_allclose(mean_shift(flow, "A", "y", a), moved["A", "x"], atol=1e-5)
    np.testing.assert_allclose(mean_shift(flow, "B", "y", b), moved["B", "y"], atol=1e-5)
    both = moved["A", "x"] + (moved["B", "x"] + moved["B", "y"]) / 2
    np.testing.assert_allclose(mean_shift(flow, "A+B", "y", a + b), both, atol=1e-5)
