"""Flows learn the population, not its cells: early stopping, blurred paths, and where both switch themselves off."""

import math
from functools import partial
from itertools import pairwise

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

import cellflow as cf
from cellflow.errors import CheckpointError
from cellflow.metrics import energy_distance
from cellflow.pairing import aside
from cellflow.training import History
from cellflow.training.confirmed import Leg, confirmed_share, last_confirmed
from cellflow.training.search import Parts, fit_unmemorised
from cellflow.training.stopping import EVERY, PATIENCE, EarlyStopping

MANY = {"steps": 900, "batch_size": 64, "network": partial(cf.networks.MLP, width=64)}
"""Enough to memorise a few cells, and for a search."""


def cells(n=(80, 80), dims=20, seed=0):
    """Gaussian clouds that move by 2 in one dimension: nothing else is to be learned."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(sum(n), dims)).astype(np.float32)
    time = np.repeat(np.arange(len(n)), n)
    x[:, 0] += 2 * time
    return anndata.AnnData(obs=pd.DataFrame({"time": time.astype(float)}).rename(str), obsm={"X_pca": x})


def distance(flow, fresh):
    x0, x1 = (fresh.obsm["X_pca"][fresh.obs["time"] == time] for time in (0, 1))
    return energy_distance(flow.transport(x0, start=0, stop=1).x[-1], x1)


def test_new_cells_are_carried_better_than_by_a_flow_that_learned_its_cells():
    fresh = cells((500, 500), seed=1)
    x0, x1 = (fresh.obsm["X_pca"][fresh.obs["time"] == time] for time in (0, 1))
    shift = cells().obsm["X_pca"][80:].mean(axis=0) - cells().obsm["X_pca"][:80].mean(axis=0)
    shifted = energy_distance(x0 + shift, x1)
    learned = distance(cf.SnapshotFlow(**MANY, regularize=False).fit(cells()), fresh)
    flow = cf.SnapshotFlow(**MANY).fit(cells())
    assert learned > 1.5 * shifted
    assert distance(flow, fresh) < 0.6 * learned
    assert flow.blur_ > 0
    assert len(flow.history_) < 900
    losses = flow.search_history_["validation"]
    best = 1 + int(np.nanargmin(losses))
    assert len(flow.history_) == math.ceil(1.5 * best)
    assert len(losses) >= best + PATIENCE * EVERY


def test_vectors_of_two_domains_are_not_learned_by_heart_either():
    adata, fresh = cells(), cells((500, 500), seed=1)
    x, y = (adata.obsm["X_pca"][adata.obs["time"] == time] for time in (0, 1))
    x0, x1 = (fresh.obsm["X_pca"][fresh.obs["time"] == time] for time in (0, 1))
    found = {}
    for regularize in (False, "auto"):
        model = cf.DomainTranslator(**MANY, regularize=regularize).fit(x, y)
        found[regularize] = energy_distance(model.translate(x0), x1)
        assert (len(model.search_history_) > 0) == (regularize == "auto")
    assert found["auto"] < 0.6 * found[False]


def test_images_and_features_of_ones_own_are_fitted_as_they_are():
    digits = cf.datasets.digits()
    model = cf.DomainTranslator(steps=2, batch_size=4).fit(digits.only("2"), digits.only("3"))
    assert model.blur_ == 0
    x = torch.randn(20, 3, generator=cf.generator(seed=0))
    model = cf.DomainTranslator(steps=2, batch_size=4).fit(x, x + 1, features=(x, x))
    assert model.blur_ == 0


def test_many_cells_are_fitted_as_they_are(monkeypatch):
    monkeypatch.setattr(aside, "FEW", 100)
    settings = MANY | {"steps": 30}
    flows = [cf.SnapshotFlow(**settings, regularize=asked).fit(cells()) for asked in ("auto", False)]
    assert flows[0].blur_ == 0
    assert flows[0].history_.columns == flows[1].history_.columns


@pytest.mark.parametrize(
    "settings",
    [
        {"coupling": "independent"},
        {"coupling": cf.couplings.Sinkhorn(20.0), "path": cf.paths.BrownianBridge(1.0), "stochastic": True},
        {"coupling": cf.couplings.UnbalancedSinkhorn(2.0, 60.0), "growth": True},
        {"curve": "spline"},
        {"within": "donor"},
        {"ot_batch_size": 40},
        {"recipe": cf.training.Recipe(precision="64", warmup=20)},
    ],
    ids=str,
)
def test_every_kind_of_flow_can_be_stopped_early(settings):
    adata = cells((60, 60, 60), dims=5)
    adata.obs["donor"] = np.resize(["a", "b"], adata.n_obs)
    soon = {"recipe": cf.training.Recipe(warmup=20)}  # which is part of the fewest steps that are searched
    flow = cf.SnapshotFlow(**MANY | soon | settings | {"steps": 510, "batch_size": 16}).fit(adata)
    assert "validation" in flow.search_history_.columns
    assert len(flow.history_) <= 510
    assert (flow.blur_ > 0) == ("path" not in settings)
    assert np.isfinite(flow.velocity(adata.obsm["X_pca"][:3], 0.5)).all()


def test_too_few_steps_or_cells_are_not_searched():
    assert len(cf.SnapshotFlow(**MANY | {"steps": 40}).fit(cells()).search_history_) == 0
    few = cf.SnapshotFlow(**MANY | {"steps": 760, "batch_size": 4}).fit(cells((5, 40), dims=2))
    assert len(few.search_history_) == 0
    assert len(few.history_) == 760


def test_a_search_that_does_not_stop_leaves_the_training_as_planned():
    calm = EarlyStopping((), 0)
    falling = [1 / step for step in range(1, 300)]
    assert all(calm.best(falling[:n]) is None for n in range(300))
    flat = [1.0] * 40
    assert calm.best(flat) == 1  # measured at every step here, and never better than at first


@pytest.mark.parametrize("after", [60, 125, 300])
def test_an_interrupted_search_or_fit_goes_on_to_the_same_weights(tmp_path, after):
    """Ctrl-C in the search, and in the training after it."""

    class Stopping:
        steps = 0

        def __init__(self, objective):
            self.objective = objective

        def __call__(self, field, batch, *, generator):
            if torch.is_grad_enabled():
                Stopping.steps += 1
                if Stopping.steps == after:
                    raise RuntimeError("power cut")
            return self.objective(field, batch, generator=generator)

    objective = cf.objectives.VelocityMatching()
    x0, x1 = torch.randn(2, 40, 8, generator=cf.generator(seed=0))

    def train(objective, run):
        rng = cf.generator(seed=1)

        def pairs(*rows):
            return cf.pairing.paired_batches(x0[slice(*rows)], x1[slice(*rows)], batch_size=32, generator=rng)

        parts = Parts(pairs(0, 30), pairs(30, 40))
        with cf.seeds.seeded(rng):
            field = cf.networks.MLP(dim=8, width=32)
        found = fit_unmemorised(
            field, objective, pairs(0, 40), parts=lambda: parts, steps=900, generator=rng,
            searching=cf.generator(seed=2), run=run,
        )  # fmt: skip
        return field, *found

    whole, history, search = train(objective, cf.Run())
    assert 100 < len(search) < 300  # so that 300 is in the training
    with pytest.raises(RuntimeError, match="power cut"):
        train(Stopping(objective), cf.Run(tmp_path, save_every=5))
    field, again, searched = train(objective, cf.Run(tmp_path, resume=True))
    assert again.columns == history.columns
    np.testing.assert_equal(searched.columns, search.columns)
    for one, other in zip(field.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_a_fit_that_goes_on_has_the_same_regularisation(tmp_path):
    settings = MANY | {"steps": 20}
    cf.SnapshotFlow(**settings, regularize=False).fit(cells(), run=cf.Run(tmp_path))
    longer = settings | {"steps": 25}
    assert cf.SnapshotFlow(**longer).fit(cells(), run=cf.Run(tmp_path, resume=True)).blur_ == 0
    with pytest.raises(CheckpointError, match="trained with regularize=False"):
        cf.SnapshotFlow(**longer, regularize=True).fit(cells(), run=cf.Run(tmp_path, resume=True))


def test_what_was_decided_is_saved(tmp_path):
    flow = cf.SnapshotFlow(**MANY | {"steps": 20}).fit(cells())
    flow.search_history_ = History({"loss": [1.0, 0.5], "learning_rate": [0.1, 0.1], "validation": [math.nan, 2.0]})
    flow.save(tmp_path)
    again = cf.SnapshotFlow.load(tmp_path, network=MANY["network"])
    assert again.blur_ == flow.blur_
    np.testing.assert_equal(again.search_history_.columns, flow.search_history_.columns)


def test_blur_follows_the_distance_between_neighbours():
    cloud = torch.randn(300, 6, generator=cf.generator(seed=0))
    assert aside.blur([3 * cloud, 3 * cloud]) == pytest.approx(3 * aside.blur([cloud]))
    more = torch.randn(9000, 6, generator=cf.generator(seed=0))
    assert aside.blur([more]) < aside.blur([cloud])
    flat = [torch.randn(3000, dims, generator=cf.generator(seed=0)) for dims in (2, 10, 50)]
    assert all(aside.blur([a]) < aside.blur([b]) for a, b in pairwise(flat))
    assert aside.blur([torch.zeros(5, 2)]) == 0


def test_distances_to_neighbours_are_taken_in_parts(monkeypatch):
    cloud = torch.randn(1200, 6, generator=cf.generator(seed=0))
    whole = aside.blur([cloud])
    monkeypatch.setattr(aside, "MOST_BYTES", 8 * 1000 * 7)
    assert aside.blur([cloud]) == pytest.approx(whole, rel=1e-12)  # matrix products of other sizes round otherwise


def test_a_wrong_setting_is_named():
    with pytest.raises(ValueError, match="`regularize` to be 'auto', True or False"):
        cf.SnapshotFlow(regularize="yes").fit(cells())
    with pytest.raises(TypeError, match="`regularize` to be True or False or text; found None"):
        cf.DomainTranslator(regularize=None).fit(torch.zeros(3, 2), torch.ones(3, 2))


@pytest.mark.parametrize("kind", ["snapshots", "domains"])
def test_a_part_that_cannot_be_paired_is_said_and_all_cells_are_fitted(kind, caplog):
    def picky(x0, x1, a=None, b=None):
        if len(x0) < 60:
            raise ValueError("there are too few")
        return cf.couplings.Exact()(x0, x1, a, b)

    adata = cells()
    x, y = (adata.obsm["X_pca"][adata.obs["time"] == time] for time in (0, 1))
    settings = MANY | {"coupling": picky, "steps": 750}
    fits = {
        "snapshots": lambda: cf.SnapshotFlow(**settings).fit(adata),
        "domains": lambda: cf.DomainTranslator(**settings).fit(x, y),
    }
    model = fits[kind]()
    assert len(model.search_history_) == 0
    assert len(model.history_) == 750
    said = [record for record in caplog.records if record.levelname == "WARNING"]
    assert any("are held out, since some of them cannot be paired: there are too few" in r.getMessage() for r in said)


def growing(seed, rate, n=80, dims=20):
    """Two types far apart that stay where they are; the first is sampled more often at the later time."""
    rng = np.random.default_rng(seed)
    share = math.exp(rate) / (1 + math.exp(rate))
    kind = np.concatenate([rng.random(n) < 0.5, rng.random(n) < share])
    x = rng.normal(size=(2 * n, dims)).astype(np.float32)
    x[:, 0] += 12 * kind
    time = np.repeat([0.0, 1.0], n)
    return anndata.AnnData(obs=pd.DataFrame({"time": time, "kind": kind}).rename(str), obsm={"X_pca": x})


def spread_of_growth(flow, fresh):
    """Standard deviation of the growth of new cells: within a type, and between the types."""
    start = fresh[fresh.obs["time"] == 0]
    rate = pd.Series(flow.growth_rate(start.obsm["X_pca"], 0.5)).groupby(start.obs["kind"].to_numpy())
    return float(rate.std().mean()), float(abs(rate.mean().diff().iloc[-1]))


def test_growth_of_single_cells_is_learned_as_far_as_held_out_cells_confirm_it():
    fresh, found = growing(1, 0.0, n=600), {}
    for regularize in (False, "auto"):
        flow = cf.SnapshotFlow(**MANY, regularize=regularize).fit(growing(0, 0.0))
        found[regularize] = spread_of_growth(flow, fresh)[0]
    assert 0 <= flow.search_history_["confirmed growth"][EVERY - 1] <= 1
    assert math.isnan(flow.search_history_["confirmed growth"][0])
    assert found["auto"] < 0.7 * found[False]


def test_growth_of_types_is_confirmed():
    adata = growing(0, math.log(9), n=200)
    first, last = adata.obs.groupby("time")["kind"].mean()
    flow = cf.SnapshotFlow(**MANY).fit(adata)
    within, between = spread_of_growth(flow, growing(1, math.log(9), n=600))
    assert last_confirmed(flow.search_history_) > 0.6
    assert between == pytest.approx(math.log(last / (1 - last) / first * (1 - first)), rel=0.25)
    assert within < 0.25


class Known(torch.nn.Module):
    """A field that stays where it is, and grows with its first coordinate."""

    def __init__(self, factor):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor))

    def forward(self, t, x, condition=None):
        return cf.fields.Outputs(torch.zeros_like(x), growth=self.factor * x[:, 0])


@pytest.mark.parametrize("factor", [2.0, 0.25, -1.0])
def test_held_out_growth_counts_up_to_a_factor_of_at_most_one(rng, factor):
    x = torch.randn(500, 2, generator=rng)
    gains = x[:, 0] + torch.randn(500, generator=rng)
    batch = cf.Batch(x, x, log_mass0=torch.zeros(500), log_mass1=gains)
    for objective in (cf.objectives.GrowthMatching(), cf.objectives.GrowthMatching(growth_weight=7.0)):
        judge = EarlyStopping([batch], 0, [batch], [Leg(x, x, 0.0, 1.0)])
        drawn = cf.objectives.draw.draw(batch, objective.path, objective.times, generator=cf.seeds.generator_at(0, 0))
        root = drawn.mass.sqrt().numpy()
        best = np.linalg.lstsq((root * factor * x[:, 0].numpy())[:, None], root * gains.numpy(), rcond=None)[0][0]
        left = (drawn.mass * (gains - float(np.clip(best, 0, 1)) * factor * x[:, 0]).square()).mean()
        found = judge.measure(Known(factor), objective)
        assert found["validation"] == pytest.approx(float(left) * objective.growth_weight, rel=1e-3)


def test_growth_is_confirmed_by_the_composition_of_what_was_not_seen(rng):
    x0 = torch.randn(400, 3, generator=rng)
    chosen = torch.multinomial((1.5 * x0[:, 0]).exp(), 300, replacement=True, generator=rng)
    legs = [Leg(x0, x0[chosen], 0.0, 0.5)]  # growth acts over half of the time
    shares = [confirmed_share(Known(factor), legs) for factor in (3.0, 6.0, 30.0, -3.0)]
    assert shares[0] > 0.75
    assert shares[1] == pytest.approx(0.5, abs=0.12)
    assert shares[2] == pytest.approx(0.1, abs=0.051)
    assert shares[3] < 0.05
    ordered = [Leg(*(x[x[:, 0].argsort()] for x in (x0, x0[chosen])), 0.0, 0.5)]
    assert confirmed_share(Known(3.0), ordered) > 0.75  # whatever the order of the samples
    weighed = Leg(x0, x0, 0.0, 0.5, weights1=(1.5 * x0[:, 0]).exp())
    assert confirmed_share(Known(6.0), [weighed]) == pytest.approx(0.5, abs=0.12)
    both = weighed._replace(weights0=weighed.weights1)
    assert confirmed_share(Known(6.0), [both]) < 0.1


def test_a_share_of_growth_keeps_the_size_of_the_population(rng):
    x0, x1 = torch.randn(40, 2, generator=rng), torch.randn(60, 2, generator=rng) + 1
    x1[:50] *= 0.2
    for size in ("whole", 30):
        batches = cf.pairing.paired_batches(
            x0, x1, coupling="auto", masses=(1.0, 3.0), batch_size=2000, ot_batch_size=size, generator=rng
        )
        before = next(iter(batches))
        for share in (0.0, 0.3, 1.0):
            batch = next(iter(batches.shrunk(share)))
            assert torch.equal(batch.x0, before.x0)
            assert torch.equal(batch.log_mass0, before.log_mass0)
            gain, whole = (part.log_mass1 - part.log_mass0 for part in (batch, before))
            torch.testing.assert_close(gain.std(), share * whole.std(), rtol=1e-3, atol=1e-5)
            assert float(batch.log_mass1.exp().mean()) == pytest.approx(float(3**0.5), rel=0.05)
            assert float(batch.log_mass0.exp().mean()) == pytest.approx(float(3**-0.5), rel=0.05)


def test_a_search_that_began_before_growth_was_judged_goes_on_as_it_began(tmp_path, monkeypatch):
    settings, adata = MANY | {"steps": 750, "batch_size": 16}, growing(0, 0.0, n=40, dims=5)
    calls, loss = iter(range(10**6)), cf.objectives.GrowthMatching.__call__

    def failing(self, *given, **named):
        if next(calls) == 130:
            raise RuntimeError("power cut")
        return loss(self, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(EarlyStopping, "measured", lambda self, objective: ("validation",))
        patch.setattr(cf.objectives.GrowthMatching, "__call__", failing)
        with pytest.raises(RuntimeError, match="power cut"):
            cf.SnapshotFlow(**settings).fit(adata, run=cf.Run(tmp_path, save_every=10))
    flow = cf.SnapshotFlow(**settings).fit(adata, run=cf.Run(tmp_path, resume=True))
    assert "confirmed growth" not in flow.search_history_.columns
    assert len({len(column) for column in flow.search_history_.columns.values()}) == 1
    assert len(flow.search_history_) > 130
