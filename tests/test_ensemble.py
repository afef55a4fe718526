"""Ensembles: members of other seeds and resampled cells, saved, loaded, resumed; what tools make of them."""

import numpy as np
import pytest
import torch

import cellflow as cf
from cellflow.cells.resampling import read_donors, resampled
from cellflow.cells.snapshots import read_snapshots
from cellflow.errors import CheckpointError
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


def test_a_model_without_the_file_of_its_members_is_refused(tmp_path):
    adata = told_cells()
    cf.SnapshotFlow(**QUICK, coupling="exact", ensemble=2).fit(adata).save(tmp_path)
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
