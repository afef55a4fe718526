"""Paths against finite differences, their ends, and closed-form moments; time laws against their distribution."""

import pytest
import torch
from parts import ALL_PATHS, ALL_TIME_LAWS

import cellflow as cf
from cellflow.paths import BrownianBridge, Linear, LogitNormal, Stratified, Uniform, VariancePreserving


@pytest.mark.parametrize("path", ALL_PATHS, ids=repr)
def test_velocity_is_the_slope_of_the_state(path):
    """Between two times a hair apart, with the same noise, the state moves by the velocity."""
    x0, x1 = torch.randn(2, 50, 3, generator=cf.generator(1), dtype=torch.float64)
    t, step = torch.linspace(0.05, 0.95, 50, dtype=torch.float64), 1e-6
    before, point, after = (path.sample(x0, x1, t + shift, generator=cf.generator(2)) for shift in (-step, 0.0, step))
    assert torch.allclose((after.x - before.x) / (2 * step), point.velocity, atol=1e-6)


@pytest.mark.parametrize("path", ALL_PATHS, ids=repr)
def test_path_starts_at_the_source_and_ends_at_the_target(path):
    x0, x1 = torch.randn(2, 4000, 1, generator=cf.generator(1), dtype=torch.float64)
    blur = 0 if isinstance(path, BrownianBridge) else path.sigma
    for t, end in ((0.0, x0), (1.0, x1)):
        found = path.sample(x0, x1, torch.full((4000,), t, dtype=torch.float64), generator=cf.generator(2)).x
        trace = 0.01 if isinstance(path, VariancePreserving) else 0  # noise keeps a trace of the data
        assert ((found - end).std() - blur).abs() <= 0.03 * blur + trace + 1e-12


def test_brownian_bridge_has_the_variance_of_pinned_brownian_motion(rng):
    zeros, t = torch.zeros(200_000, 1), 0.3
    found = BrownianBridge(2.0).sample(zeros, zeros, torch.full((200_000,), t), generator=rng).x.var()
    assert found.item() == pytest.approx(4 * t * (1 - t), rel=0.02)


def test_variance_preserving_keeps_unit_variance(rng):
    x0, x1 = torch.randn(2, 100_000, 1, generator=rng)
    for t in (0.1, 0.5, 0.9):
        found = VariancePreserving().sample(x0, x1, torch.full((100_000,), t), generator=rng).x.var()
        assert found.item() == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("path", ALL_PATHS, ids=repr)
def test_velocity_is_finite_at_the_ends_that_an_objective_visits(path, rng):
    x = torch.ones(2, 3)
    t = path.inside(torch.tensor([0.0, 1.0]))
    assert torch.isfinite(path.sample(x, x, t, generator=rng).velocity).all()


def test_images_go_through_as_vectors_do(rng):
    x0, x1, t = torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4), torch.tensor([0.25, 0.5])
    point = Linear().sample(x0, x1, t, generator=rng)
    assert torch.equal(point.x[:, 0, 0, 0], t)
    assert torch.equal(point.velocity, torch.ones_like(x0))


@pytest.mark.parametrize("sigma", [-1.0, float("nan"), float("inf")])
def test_impossible_sigma_is_refused(sigma):
    with pytest.raises(ValueError, match="sigma >= 0"):
        Linear(sigma)


def test_unknown_path_lists_the_choices():
    with pytest.raises(ValueError, match="'linear', 'trigonometric'"):
        cf.paths.resolve("straight")


@pytest.mark.parametrize("law", ALL_TIME_LAWS, ids=repr)
def test_times_are_inside_reproducible_and_centred(law):
    first, again = (law.sample(20_000, generator=cf.generator(3), like=torch.zeros(1)) for _ in range(2))
    assert torch.equal(first, again)
    assert 0 <= first.min() < first.max() <= 1
    assert first.mean().item() == pytest.approx(0.5, abs=0.01)


def test_uniform_laws_are_uniform_and_the_logit_normal_is_not():
    like = torch.zeros(1)
    spread = {type(law): law.sample(20_000, generator=cf.generator(3), like=like).var().item() for law in ALL_TIME_LAWS}
    assert spread[Uniform] == pytest.approx(1 / 12, rel=0.03)
    assert spread[Stratified] == pytest.approx(1 / 12, rel=0.001)
    assert spread[LogitNormal] < 0.05


def test_stratified_times_fill_every_stratum():
    t = Stratified().sample(1000, generator=cf.generator(0), like=torch.zeros(1, dtype=torch.float64))
    assert torch.equal((t * 1000).floor().sort().values, torch.arange(1000.0, dtype=torch.float64))
