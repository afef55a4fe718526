"""Ensembles: members of other seeds and resampled cells, saved, loaded, resumed; what tools make of them."""

import copy
import json

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

import cellflow as cf
from benchmarks.ensemble import simulations
from benchmarks.ensemble.__main__ import row, text
from benchmarks.ensemble.simulations import QUICK as QUICK_FIT
from benchmarks.ensemble.simulations import SIMULATIONS, Found, to_the_right
from cellflow.cells.resampling import read_donors, resampled
from cellflow.cells.snapshots import read_snapshots
from cellflow.errors import CheckpointError
from cellflow.estimators.snapshot_members import counts
from cellflow.tl.intervals import agreement, t_interval
from cellflow.training.ensembles import Ensemble, EnsembleBatches
from conftest import make_cells, make_treated

QUICK = {"time_key": "day", "steps": 12, "batch_size": 8, "device": "cpu"}
KINDS = {
    "plain": {"coupling": "exact"},
    "growing": {"coupling": "auto"},
    "stochastic": {"coupling": "exact", "stochastic": True, "path": cf.paths.BrownianBridge(0.3)},
}


def told_cells(**given):
    adata = make_cells(**given)
    adata.obs["donor"] = np.random.default_rng(3).choice(["x", "y", "z"], adata.n_obs)
    adata.obs["kind"] = np.where(adata.obsm["X_pca"][:, 1] > 0, "up", "down")
    return adata


@pytest.fixture(scope="module", params=KINDS)
def fitted(request):
    adata, settings = told_cells(), QUICK | KINDS[request.param]
    return adata, settings, cf.SnapshotFlow(**settings, ensemble=2).fit(adata)


def velocities(flow, adata):
    return np.stack([one.velocity(adata.obsm["X_pca"], adata.obs["day"]) for one in (flow, *flow.members)])


def test_the_flow_is_the_same_with_and_without_an_ensemble(fitted):
    adata, settings, flow = fitted
    alone = cf.SnapshotFlow(**settings).fit(adata)
    assert alone.members == ()
    assert np.array_equal(velocities(alone, adata)[0], velocities(flow, adata)[0])
    assert flow.history_.columns == alone.history_.columns


def test_members_are_flows_that_differ(fitted):
    adata, _, flow = fitted
    found = velocities(flow, adata)
    assert len(flow.members) == 2
    assert not any(np.array_equal(a, b) for a, b in zip(found, np.roll(found, 1, axis=0), strict=True))
    for member in flow.members:
        assert (member.clock_, member.n_cells_, member.growth_) == (flow.clock_, flow.n_cells_, flow.growth_)
        assert member.fingerprint_ is flow.fingerprint_
        assert torch.equal(scales(member), scales(flow))
        assert member.members == ()
        assert len(member.history_) == len(flow.history_)


def scales(flow):
    return next(part.scale for part in flow.field_.modules() if hasattr(part, "scale"))


def test_members_are_saved_and_loaded(fitted, tmp_path):
    adata, _, flow = fitted
    flow.save(tmp_path)
    back = cf.SnapshotFlow.load(tmp_path, device="cpu")
    assert np.array_equal(velocities(back, adata), velocities(flow, adata))
    assert back.members[0].history_.columns == flow.members[0].history_.columns
    cf.tl.velocity(adata, back)
    alone = cf.SnapshotFlow(**QUICK, coupling="exact").fit(adata)
    alone.save(tmp_path, overwrite=True)
    assert not (tmp_path / "members.safetensors").exists()
    assert cf.SnapshotFlow.load(tmp_path, device="cpu").members == ()


def test_a_model_whose_members_do_not_fit_is_refused(tmp_path):
    adata = told_cells()
    cf.SnapshotFlow(**QUICK, coupling="exact", ensemble=2).fit(adata).save(tmp_path)
    about = json.loads((tmp_path / "model.json").read_text())
    known = about["members"]
    wrong = [{}, known | {"seeds": [1]}, known | {"seeds": "ab"}, known | {"seeds": [1.5, 2]}, known | {"more": 1}]
    for found in (*wrong, known | {"seeds": [1, 2, 3]}, known | {"seeds": [7] * 100_000}, None, 5):
        (tmp_path / "model.json").write_text(json.dumps(about | {"members": found}))
        with pytest.raises(CheckpointError, match="members"):
            cf.SnapshotFlow.load(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps(about))
    assert len(cf.SnapshotFlow.load(tmp_path).members) == 2
    (tmp_path / "members.safetensors").unlink()
    with pytest.raises(CheckpointError, match="members"):
        cf.SnapshotFlow.load(tmp_path)


class Told(Exception):
    """Stops a training."""


@pytest.mark.parametrize("stop", [8, 12 + 5], ids=["in the flow", "in the members"])
def test_an_interrupted_fit_is_resumed_exactly(stop, tmp_path, monkeypatch):
    adata, settings = told_cells(), QUICK | {"coupling": "exact", "ensemble": 2}
    whole = cf.SnapshotFlow(**settings).fit(adata)
    steps = iter(range(1, 1000))
    average = cf.training.Recipe.update_average

    def counted(self, *given, **more):
        average(self, *given, **more)
        if next(steps) == stop:
            raise Told

    monkeypatch.setattr(cf.training.Recipe, "update_average", counted)
    with pytest.raises(Told):
        cf.SnapshotFlow(**settings).fit(adata, run=cf.Run(tmp_path, save_every=2))
    monkeypatch.undo()
    assert (tmp_path / "members").exists() == (stop > 12)
    again = cf.SnapshotFlow(**settings).fit(adata, run=cf.Run(tmp_path, resume=True))
    assert np.array_equal(velocities(again, adata), velocities(whole, adata))
    for other in ({"ensemble": 3}, {"ensemble": None}, {"replicate_key": "donor"}):
        with pytest.raises(CheckpointError, match=next(iter(other))):
            cf.SnapshotFlow(**settings | other).fit(adata, run=cf.Run(tmp_path, resume=True))


def test_the_gradient_of_a_member_is_that_of_its_own_pairs():
    fields = [cf.networks.MLP(dim=2, width=8) for _ in range(2)]
    for number, field in enumerate(fields):
        torch.nn.init.normal_(field.last.weight, generator=cf.generator(seed=number))
    x = torch.randn(4, 30, 2, generator=cf.generator(seed=9))
    streams = [cf.pairing.paired_batches(x[k], x[k + 2], batch_size=16, generator=cf.generator(seed=k)) for k in (0, 1)]
    batch, ensemble = next(iter(EnsembleBatches(streams))), Ensemble(fields)

    def displacement(field, batch):
        t = torch.full((len(batch.x0),), 0.5)
        return cf.fields.outputs(field(t, batch.x0, None)).velocity - (batch.x1 - batch.x0)

    together = displacement(ensemble, batch).square().mean()
    pairs = zip(fields, streams, strict=True)
    apart = [displacement(field, next(iter(stream))).square().mean() for field, stream in pairs]
    assert together.item() == pytest.approx(sum(apart).item() / 2, rel=1e-6)
    gradient = torch.autograd.grad(together, fields[1].first.weight)[0]
    alone = torch.autograd.grad(apart[1], fields[1].first.weight)[0]
    assert torch.allclose(2 * gradient, alone, rtol=1e-5, atol=1e-8)


def test_cells_are_resampled_within_snapshots_conditions_and_groups():
    adata = told_cells()
    snapshots = read_snapshots(adata, time_key="day", rep="X_pca", within="kind")
    rows = resampled(snapshots, generator=cf.generator(seed=0))
    strata = adata.obs["day"].astype(str) + adata.obs["kind"]
    assert strata.iloc[rows].value_counts().to_dict() == strata.value_counts().to_dict()
    assert len(np.unique(rows)) < len(rows)
    assert (np.diff(rows) >= 0).all()


def test_whole_donors_are_resampled():
    adata = told_cells()
    snapshots = read_snapshots(adata, time_key="day", rep="X_pca")
    donors = read_donors(adata, "donor", snapshots)
    seen = set()
    for seed in range(20):
        rows = resampled(snapshots, donors, generator=cf.generator(seed=seed))
        counts = np.bincount(rows, minlength=adata.n_obs)
        each = [set(counts[donors == donor]) for donor in range(3)]
        assert all(len(one) == 1 for one in each)
        assert sum(one.pop() for one in each) == 2  # one fewer than there are
        seen.add(tuple(np.unique(adata.obs["donor"].iloc[rows])))
    assert len(seen) > 3


def test_donors_of_their_own_snapshots_are_drawn_in_each():
    """Three mice at each of three times: the variance of a mean over mice is that of the mice over three."""
    adata = told_cells(sizes=(30, 30, 30))
    adata.obs["mouse"] = adata.obs["day"].astype(str) + "-" + np.resize(["1", "2", "3"], adata.n_obs).astype(object)
    snapshots = read_snapshots(adata, time_key="day", rep="X_pca")
    donors = read_donors(adata, "mouse", snapshots)
    names = np.sort(adata.obs["mouse"].unique())
    values = np.random.default_rng(0).normal(size=9)
    means = []
    for seed in range(400):
        rows = resampled(snapshots, donors, generator=cf.generator(seed=seed))
        drawn = np.bincount(donors[rows], minlength=9) / np.bincount(donors)
        first = [number for number, name in enumerate(names) if name.startswith("0.0")]
        assert drawn[first].sum() == pytest.approx(2)
        means.append((drawn * values)[first].sum() / 2)
    assert np.var(means) == pytest.approx(np.var(values[first], ddof=1) / 3, rel=0.3)


def test_a_group_is_drawn_on_both_sides_or_on_none():
    adata = told_cells()
    flow = cf.SnapshotFlow(**QUICK, within="donor", replicate_key="donor", ensemble=2).fit(adata)
    assert len(flow.members) == 2


def test_flows_of_conditions_have_members():
    adata = make_treated()
    adata.obs["day"] = np.where(adata.obs["drug"] == "control", 0.0, 1.0)
    settings = QUICK | {"coupling": "exact", "conditions": cf.Conditions("drug", control="control")}
    flow = cf.SnapshotFlow(**settings, ensemble=2).fit(adata)
    states = flow.read(adata)
    found = [one.velocity(states.x, states.time, condition=states.condition) for one in (flow, *flow.members)]
    assert not np.array_equal(found[1], found[2])


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"ensemble": 1}, ValueError, "Expected `ensemble` of 2 members or more, or None; found 1"),
        ({"ensemble": 0}, ValueError, "found 0"),
        ({"ensemble": -3}, ValueError, "found -3"),
        ({"ensemble": True}, TypeError, "found True"),
        ({"ensemble": 2.5}, TypeError, "found 2.5"),
        ({"replicate_key": "donor"}, ValueError, "used with an ensemble only. Set `ensemble=5`"),
        ({"ensemble": 2, "replicate_key": "donors"}, KeyError, "donor.*Set `replicate_key`"),
        ({"ensemble": 2, "replicate_key": "lonely"}, ValueError, "single donor at time 5"),
        ({"ensemble": 2, "replicate_key": "partly"}, ValueError, "7 of 150 cells have no group"),
    ],
    ids=str,
)
def test_unusable_settings_are_refused_before_anything_is_trained(wrong, error, said):
    adata = told_cells()
    adata.obs["lonely"] = np.where(adata.obs["day"] == 5, "x", adata.obs["donor"])
    adata.obs["partly"] = adata.obs["donor"].astype(object)
    adata.obs.loc[adata.obs_names[:7], "partly"] = np.nan
    with pytest.raises(error, match=said):
        cf.SnapshotFlow(**QUICK, **wrong).fit(adata)


def test_snapshots_of_few_cells_are_refused():
    with pytest.raises(ValueError, match="expected 5 or more; found 3 at time 1. Leave"):
        cf.SnapshotFlow(**QUICK, coupling="exact", ensemble=2).fit(make_cells(sizes=(20, 3, 20)))


@pytest.fixture(scope="module")
def growing():
    adata = told_cells()
    draw = np.random.default_rng(1).normal(size=(adata.n_obs, 6)).astype(np.float32)
    adata = anndata.AnnData(draw, obs=adata.obs, obsm=dict(adata.obsm))
    flow = cf.SnapshotFlow(**QUICK, ensemble=3).fit(adata)
    return adata, flow


def test_velocities_say_how_far_members_agree(growing):
    adata, flow = growing[0].copy(), growing[1]
    cf.tl.velocity(adata, flow)
    own, *others = velocities(flow, adata)
    expected = np.mean([cosine(own, other) for other in others], axis=0)
    assert adata.obs["velocity_confidence"].to_numpy() == pytest.approx(expected, abs=1e-5)
    assert (adata.uns["velocity"]["members"], adata.uns["velocity"]["confidence"]) == (3, 0.9)
    wide = cf.tl.velocity(adata, flow, confidence=0.99, copy=True).obs["velocity_spread"]
    assert (wide >= adata.obs["velocity_spread"]).all()
    alone = cf.SnapshotFlow(**QUICK).fit(adata)
    cf.tl.velocity(adata, alone)
    assert not [name for name in adata.obs if name.startswith("velocity")]
    assert "members" not in adata.uns["velocity"]


def cosine(x, y):
    return (x * y).sum(axis=1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)


@pytest.mark.parametrize("dim", [2, 3, 12])
def test_the_angle_holds_directions_that_deviate_as_members_do(dim):
    draw = np.random.default_rng(dim)
    truth = np.tile(10 * np.eye(dim)[0], (2000, 1))
    found, *errors = draw.normal(size=(6, 2000, dim)) * np.linspace(0.5, 1, dim)
    _, within = agreement(truth + found, truth + found + errors)
    held = np.rad2deg(np.arccos(cosine(truth, truth + found))) <= within
    assert 0.85 < held.mean() < 0.95


def test_the_interval_of_t_holds_what_deviates_as_members_do():
    draw = np.random.default_rng(0)
    value, members = draw.normal(size=20000), draw.normal(size=(5, 20000)) + 7
    low, high = t_interval(value, members)
    assert np.mean((low <= 0) & (high >= 0)) == pytest.approx(0.9, abs=0.01)
    for wrong in ({"members": members[:1]}, {"confidence": 1.0}):
        with pytest.raises(ValueError, match="Expected"):
            t_interval(value, **{"members": members, "confidence": 0.9} | wrong)


def test_growth_has_ends(growing):
    adata, flow = growing[0].copy(), growing[1]
    cf.tl.growth(adata, flow, sensitivity=False)
    rates = [one.growth_rate(adata.obsm["X_pca"], adata.obs["day"]) for one in flow.members]
    half = (adata.obs["growth_high"] - adata.obs["growth_low"]) / 2
    assert half.to_numpy() == pytest.approx(2.92 * np.std(rates, axis=0, ddof=1), rel=1e-3, abs=1e-6)
    assert (adata.obs["growth_low"] <= adata.obs["growth"]).all()


@pytest.mark.parametrize("origin", ["both", "before"])
def test_means_of_interpolated_cells_have_ends_per_component_and_gene(growing, origin):
    adata, flow = growing
    loadings = np.random.default_rng(2).normal(size=(3, 6)).astype(np.float32)
    middle = cf.tl.interpolate(adata, flow, at=[0.5, 1], decode=lambda x: x @ loadings, origin=origin)
    noted = middle.uns["interpolation"]
    here = middle.obs["day"] == 0.5
    mean = middle.obs["weight"][here].to_numpy() @ middle.obsm["X_pca"][here]
    assert noted["mean"][0] == pytest.approx(mean, abs=1e-5)
    assert noted["at"].tolist() == [0.5, 1]
    assert (noted["mean_low"] < noted["mean"]).all()
    assert middle.varm["mean"] == pytest.approx((noted["mean"] @ loadings).T, abs=1e-4)
    # The mean of a snapshot itself varies with the cells alone, by the standard error of a mean.
    spread = (noted["mean_high"] - noted["mean_low"])[1] / 2 / 2.92
    error = adata.obsm["X_pca"][adata.obs["day"] == 1].std(axis=0) / np.sqrt(60)
    assert (spread < 3 * error).all()
    assert (middle.obs["spread"][middle.obs["day"] == 1] == 0).all()
    assert (middle.obs["spread"][here] > 0).all()


def test_fates_have_ends(growing):
    """Without noise a share has an interval from members alone; with, it is wider than that of simulations."""
    adata, flow = growing[0].copy(), growing[1]
    path = cf.paths.BrownianBridge(0.3)
    noisy = cf.SnapshotFlow(**QUICK, coupling="exact", stochastic=True, path=path, ensemble=2).fit(adata)
    for one, least in ((flow, 0.0), (noisy, 1e-3)):
        cf.tl.fate(adata, one, groupby="kind", n_samples=5, n_neighbors=5)
        known = adata.obsm["fate"].notna().all(axis=1)
        share, low, high = (adata.obsm[f"fate{end}"][known].to_numpy() for end in ("", "_low", "_high"))
        assert ((low >= 0) & (low <= share + 1e-9) & (share <= high + 1e-9) & (high <= 1)).all()
        assert (high - low > least).any()
        if one is flow:  # shares are fifths: members that agree do so but for rounding
            assert (high - low >= 0.1 - 1e-9).all()
    alone = copy.copy(noisy)
    alone.members_ = ()
    cf.tl.fate(adata, alone, groupby="kind", n_samples=5, n_neighbors=5)
    assert np.array_equal(adata.obsm["fate"][known], share)
    assert (adata.obsm["fate_low"][known].to_numpy() >= low - 1e-9).all()


def test_results_with_members_survive_files(growing, tmp_path):
    adata, flow = growing[0].copy(), growing[1]
    cf.tl.velocity(adata, flow)
    cf.tl.growth(adata, flow, sensitivity=False)
    middle = cf.tl.interpolate(adata, flow, at=0.5)
    for written in (adata, middle):
        written.write_h5ad(tmp_path / "file.h5ad")
        back = anndata.read_h5ad(tmp_path / "file.h5ad")
        assert list(back.obs) == list(written.obs)
    assert back.uns["interpolation"]["mean_low"] == pytest.approx(middle.uns["interpolation"]["mean_low"])


def test_samples_of_the_fit_are_found_again(growing):
    """Also where cells of other times are among those of the fit."""
    adata, flow = growing
    fitted = np.flatnonzero(np.isin(adata.obs["day"], (0, 1, 5)))
    snapshots = read_snapshots(adata, time_key="day", rep="X_pca")
    drawn = counts(flow, adata, fitted)
    for times, member in zip(drawn, flow.members, strict=True):
        rows = resampled(snapshots, generator=cf.seeds.generator_at(member.seed, 0))
        assert np.array_equal(times, np.bincount(rows, minlength=adata.n_obs))


def test_members_of_a_distilled_flow_are_followed_by_steps(growing):
    adata, flow = growing
    flow.distill(adata, steps=3)
    jumped = cf.tl.interpolate(adata, flow, at=0.5, solver=cf.integrate.Jumps(1))
    assert np.isfinite(jumped.uns["interpolation"]["mean_low"]).all()
    assert len(flow.members) == 3


def test_validation_says_that_it_fits_without_members(caplog):
    adata = told_cells(sizes=(20, 20, 20))
    flow = cf.SnapshotFlow(**QUICK | {"steps": 2}, coupling="exact", ensemble=2)
    cf.tl.validate(adata, flow, keep_aside=False, max_cells=20)
    assert "tl.validate fits without an ensemble" in caplog.text
    with pytest.raises(ValueError, match="ensemble"):
        cf.tl.tune(adata, flow, grid={"ensemble": [None, 5]})


def test_the_truth_of_the_simulated_bridge_keeps_shares():
    """Averaged over where cells begin, as many end on each side as are there; with equal shares the middle is even."""
    places = np.array([-2.0, 2.0])
    x = np.linspace(-5, 5, 401)
    density = np.exp(-(x**2) / 2) / np.exp(-(x**2) / 2).sum()
    assert density @ to_the_right(x, places, np.array([0.6, 0.4]), 0.4) == pytest.approx(0.4, abs=1e-3)
    assert to_the_right(np.zeros(1), places, np.array([0.5, 0.5]), 0.4) == pytest.approx(0.5, abs=0.01)


def test_a_row_of_the_benchmark_tells_bias_from_variance():
    draw = np.random.default_rng(0)
    error = draw.normal(size=(200, 30)) + 2
    found = row([Found("rate", one, np.ones(30), np.abs(one) < 1.7) for one in error])
    assert (found["bias"], found["deviation"], found["deviation_of_members"]) == pytest.approx((2, 1, 1), abs=0.05)
    assert found["coverage"] == pytest.approx(0.38, abs=0.03)
    page = "\n".join(text(pd.DataFrame([{"simulation": "one", **found}]), 3.0, "python -m benchmarks.ensemble"))
    assert "| one | rate | 200 | 2.0" in page
    assert "a spread" in page
    assert "3.0 times" in page


@pytest.mark.slow
@pytest.mark.parametrize("name", SIMULATIONS)
def test_every_simulation_runs(name, monkeypatch):
    monkeypatch.setitem(QUICK_FIT, "steps", 20)
    monkeypatch.setattr(simulations, "SAMPLES", 3)
    for found in SIMULATIONS[name].run(0):
        assert found.error.shape == found.deviation.shape == found.inside.shape
        assert np.isfinite(found.error).all()
