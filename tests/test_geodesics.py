"""Paths along geodesics of a learned metric: closed forms, flat and ring-shaped limits, and flows that follow them."""

import math

import pytest
import torch

import cellflow as cf
from cellflow.objectives import PathEnergy
from cellflow.pairing import rbf_metric
from cellflow.training import Geodesics, fit


def flat(x):
    return torch.ones(len(x), dtype=x.dtype)


def on_circle(angles, radius=1.0):
    angles = torch.as_tensor(angles)
    return radius * torch.stack([angles.cos(), angles.sin()], dim=1)


def ring(n=400, seed=1):
    rng = cf.generator(seed=seed)
    return on_circle(2 * math.pi * torch.rand(n, generator=rng), 1 + 0.05 * torch.randn(n, 1, generator=rng))


def pairs_across(angle, n=64):
    """The same pair many times: two points of the unit circle, ``angle`` apart."""
    ends = on_circle(torch.tensor([-angle / 2, angle / 2]))
    return cf.Batch(ends[:1].expand(n, 2), ends[1:].expand(n, 2))


def halfway(batch):
    s = torch.full((len(batch.x0),), 0.5)
    return cf.paths.Linear().between(batch, s, generator=cf.generator(seed=0)).x


# The energy


def test_the_energy_of_a_cubic_on_flat_ground_is_known(rng):
    """The square of the straight way, and of what bends: 2/15 of each bend and 2 times -1/30 of their product."""
    d, b0, b1 = torch.tensor([1.0, -2.0]), torch.tensor([3.0, 1.0]), torch.tensor([-1.0, 2.0])
    n = 20_000
    batch = cf.Batch(torch.zeros(n, 2), d.expand(n, 2))
    bends = torch.cat([b0, b1]).expand(n, 4)
    found = PathEnergy(flat, unit=2.0)(lambda t, x, condition: bends, batch, generator=rng)["loss"]
    expected = d @ d + 2 / 15 * (b0 @ b0 + b1 @ b1) - 2 / 30 * (b0 @ b1)
    assert found.item() == pytest.approx(expected.item() / 4, rel=1e-3)


@pytest.mark.parametrize("angle", [0.8, math.pi / 2])
def test_where_squared_steps_cost_by_distance_the_geodesic_is_an_arc(angle, rng):
    """With the factor 1 / |x|^2 the plane is a cylinder: its energy between two points of a circle is angle^2."""

    def cylinder(x):
        return 1 / x.square().sum(dim=1)

    batch, field = pairs_across(angle), cf.networks.MLP(dim=4, width=32)
    energy = PathEnergy(cylinder)
    straight = energy(field, batch, generator=rng)["loss"].item()
    fit(field, energy, [batch] * 300, steps=300, generator=rng)
    settled = PathEnergy(cylinder)
    many = cf.Batch(*(x[:1].expand(20_000, 2) for x in batch[:2]))
    found = settled(field, many, generator=rng)["loss"].item()
    assert found == pytest.approx(angle**2, rel=0.01)
    assert straight > 1.03 * angle**2
    bent = cf.objectives.energy.bend_pairs(field, batch)
    assert halfway(bent)[0].norm().item() == pytest.approx(1, abs=0.02)


def test_on_flat_ground_bends_vanish(rng):
    """From first weights that bend everything."""
    x0, x1 = torch.randn(256, 2, generator=rng), torch.randn(256, 2, generator=rng) + 3
    batch, field = cf.Batch(x0, x1), cf.networks.MLP(dim=4, width=32)
    torch.nn.init.normal_(field.last.weight, std=0.3)
    before = cf.objectives.energy.bend_pairs(field, batch).bend0.norm(dim=1).mean().item()
    fit(field, PathEnergy(flat), [batch] * 500, steps=500, generator=rng)
    after = cf.objectives.energy.bend_pairs(field, batch).bend0.norm(dim=1).mean().item()
    assert before > 0.5
    assert after < 0.1 * before


def test_bends_are_no_velocity():
    with pytest.raises(TypeError, match="no velocity"):
        PathEnergy(flat).velocity(None)


# The metric


def test_steps_cost_one_on_the_data_and_the_most_far_away(rng):
    points = torch.randn(1000, 2, generator=rng)
    metric = rbf_metric(points, centres=50, floor=0.01, generator=rng)
    assert metric(points).median().item() == pytest.approx(1, abs=0.2)
    assert metric(torch.tensor([[50.0, 50.0]])).item() == pytest.approx(100)
    assert (metric.weights >= 0).all()


def test_a_metric_moves_and_stretches_with_the_data():
    points, moved = ring(), 7 * ring() + 100
    here, there = (rbf_metric(x.double(), centres=30, generator=cf.generator(seed=0)) for x in (points, moved))
    asked = torch.randn(50, 2, generator=cf.generator(seed=2)).double()
    torch.testing.assert_close(here(asked), there(7 * asked + 100), rtol=1e-3, atol=1e-3)


def test_more_points_than_needed_are_drawn_from(monkeypatch, rng):
    monkeypatch.setattr("cellflow.pairing.metric.LEARNED_FROM", 100)
    assert len(rbf_metric(ring(400), centres=200, generator=rng).centres) == 100


@pytest.mark.parametrize(
    ("points", "settings", "message"),
    [
        (torch.zeros(5, 2), {}, "All points are the same"),
        (torch.zeros(5, 2, 2), {}, r"found shape \(5, 2, 2\)"),
        (torch.eye(3), {"centres": 0}, "centres >= 1"),
        (torch.eye(3), {"spread": 0.0}, "spread and floor > 0"),
        (torch.eye(3), {"floor": 0.0}, "spread and floor > 0"),
    ],
)
def test_impossible_metrics_are_refused(points, settings, message, rng):
    with pytest.raises(ValueError, match=message):
        rbf_metric(points, **settings, generator=rng)


# Geodesics between snapshots


def test_pairs_on_a_ring_of_data_stay_near_it(rng):
    clouds = [on_circle(2.0 * k + 0.2 * torch.randn(200, generator=rng)) for k in range(2)]
    straight = cf.pairing.snapshot_batches(clouds, [0.0, 1.0], batch_size=128, generator=rng)
    # The data lie on the whole ring, as those of a third snapshot would.
    bends = Geodesics(centres=40, steps=400).bends([*clouds, ring()], [0.0, 1.0], straight, generator=rng)
    bent, unbent = (halfway(next(iter(batches))).norm(dim=1) for batches in (straight.bent(bends), straight))
    assert unbent.mean().item() == pytest.approx(math.cos(1.0), abs=0.05)
    assert bent.mean().item() == pytest.approx(1, abs=0.1)
    assert bent.min().item() > 0.75


@pytest.mark.usefixtures("global_state_is_untouched")
def test_bent_pairs_keep_their_ends_and_their_partners(rng):
    clouds = [torch.randn(50, 2, generator=rng) + 3 * k for k in range(3)]
    before, after = (
        next(iter(cf.pairing.snapshot_batches(clouds, [0.0, 0.3, 1.0], batch_size=32, generator=rng, curve=curve)))
        for rng, curve in ((cf.generator(1), "straight"), (cf.generator(1), Geodesics(centres=10, steps=20)))
    )
    for x, y in zip(before[:4], after[:4], strict=True):
        assert x is y or torch.equal(x, y)
    for s, end in ((0.0, after.x0), (1.0, after.x1)):
        point = cf.paths.Linear().between(after, torch.full((64,), s), generator=rng)
        torch.testing.assert_close(point.x, end)
    assert after.bend0.abs().max() > 0
    assert not after.bend0.requires_grad


def cells_on_a_ring():
    import anndata
    import pandas as pd

    clouds = [on_circle(torch.linspace(-0.4, 0.4, 300)), on_circle(torch.linspace(0.6, 2.8, 600))]
    seen = torch.cat(clouds)
    obs = pd.DataFrame({"time": [0.0] * 300 + [1.0] * 600}, index=[f"cell{k}" for k in range(900)])
    return anndata.AnnData(obs=obs, obsm={"X_pca": seen.numpy()}), clouds


@pytest.mark.slow
def test_a_flow_learned_along_geodesics_goes_round_the_hole():
    """From one end of an arc to all the rest of it: straight lines cut the corner."""
    adata, clouds = cells_on_a_ring()
    radii = {}
    for curve in ("straight", Geodesics(centres=30, steps=250)):
        flow = cf.SnapshotFlow(curve=curve, steps=250, batch_size=128, device="cpu").fit(adata)
        radii[curve] = flow.transport(clouds[0], start=0, stop=0.5).x[-1].norm(dim=1).mean().item()
    straight, bent = radii.values()
    assert straight < 0.8
    assert bent > 0.9


@pytest.mark.usefixtures("global_state_is_untouched")
def test_the_same_seed_gives_the_same_bends_and_a_model_says_how_it_was_bent(tmp_path):
    adata, clouds = cells_on_a_ring()
    settings = {"curve": Geodesics(centres=10, steps=10), "steps": 5, "device": "cpu"}
    first, second = (cf.SnapshotFlow(seed=3, **settings).fit(adata) for _ in range(2))
    assert (first.velocity(clouds[0], 0.0) == second.velocity(clouds[0], 0.0)).all()
    first.save(tmp_path)
    loaded = cf.SnapshotFlow.load(tmp_path)
    assert loaded.curve == Geodesics(centres=10, steps=10)
    assert (loaded.velocity(clouds[0], 0.0) == first.velocity(clouds[0], 0.0)).all()


def test_growth_is_learned_along_bent_pairs():
    adata, clouds = cells_on_a_ring()
    coupling = cf.couplings.UnbalancedSinkhorn(0.1, 5.0)
    settings = {"coupling": coupling, "growth": True, "masses": "counts", "steps": 60, "device": "cpu"}
    bent, straight = (
        cf.SnapshotFlow(curve=c, **settings).fit(adata) for c in (Geodesics(centres=30, steps=100), "straight")
    )
    speeds = [flow.velocity(clouds[0], 0.0) for flow in (bent, straight)]
    assert abs(speeds[0] - speeds[1]).max() > 0.1
    assert bent.grow(clouds[0], start=0, stop=1, solver=10).mass()[-1].item() == pytest.approx(2, rel=0.2)
