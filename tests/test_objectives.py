"""Objectives against closed forms: the best field for Gaussians is known."""

import pytest
import torch
from torch import nn

import cellflow as cf
from cellflow.objectives import NoiseMatching, VelocityMatching
from cellflow.paths import BrownianBridge, Linear, Trigonometric, VariancePreserving

ALL_OBJECTIVES = [VelocityMatching(), VelocityMatching(BrownianBridge(0.5)), NoiseMatching()]


def gaussian_velocity(path, m0, s0, m1, s1):
    """The velocity for independent Gaussians, E[x'_t | x_t], by Gaussian conditioning."""

    def field(t, x, condition=None):
        one = torch.ones_like(t)
        (a, b, c), (da, db, dc) = torch.func.jvp(path.coefficients, (t,), (one,))
        a, b, c, da, db, dc = (k[:, None] for k in (a, b, c, da, db, dc))
        mean, slope = a * m0 + b * m1, da * m0 + db * m1
        variance = (a * s0) ** 2 + (b * s1) ** 2 + c**2
        covariance = da * a * s0**2 + db * b * s1**2 + dc * c
        return slope + covariance / variance * (x - mean)

    return field


@pytest.mark.parametrize("path", [Linear(), Linear(0.3), Trigonometric(), BrownianBridge(0.5)], ids=repr)
def test_the_gaussian_velocity_minimises_the_loss(path, rng):
    """No other affine field does better than the known one: the loss grows in every direction."""
    x0 = torch.randn(200_000, 1, generator=rng)
    x1 = 2 + 0.5 * torch.randn(200_000, 1, generator=rng)
    batch, best = cf.Batch(x0, x1), gaussian_velocity(path, 0.0, 1.0, 2.0, 0.5)

    def loss(field):
        return VelocityMatching(path)(field, batch, generator=cf.generator(5))["loss"].item()

    floor = loss(best)
    for change in (lambda t, x: 0.1 * torch.ones_like(x), lambda t, x: 0.1 * x, lambda t, x: 0.1 * t[:, None]):
        for sign in (-1, 1):
            worse = loss(lambda t, x, c, change=change, sign=sign: best(t, x) + sign * change(t, x))
            assert worse > floor


def test_the_gaussian_velocity_carries_the_source_onto_the_target(rng):
    path = Linear()
    x0 = torch.randn(4000, 1, generator=rng)
    moved = cf.integrate.ode(gaussian_velocity(path, 0.0, 1.0, 2.0, 0.5), x0, steps=40).x[-1]
    assert torch.allclose(moved, 2 + 0.5 * x0, atol=1e-3)  # in one dimension the flow is the monotone map


def test_noise_of_the_path_turns_into_the_velocity():
    """The best noise of Gaussian data gives the velocity that Gaussian conditioning gives."""
    path, spread = VariancePreserving(), 0.5
    t, x = torch.linspace(0.05, 0.95, 19), torch.linspace(-2, 2, 19)[:, None]

    def best_noise(t, x, condition=None):
        a, b, _ = path.coefficients(t)
        return (a / (a**2 + (b * spread) ** 2))[:, None] * x

    found = NoiseMatching(path).velocity(best_noise)(t, x)
    assert torch.allclose(found, gaussian_velocity(path, 0.0, 1.0, 0.0, spread)(t, x), atol=1e-4)


def test_the_best_noise_minimises_noise_matching(rng):
    path, spread = VariancePreserving(), 0.5
    noise = torch.randn(100_000, 1, generator=rng)
    batch = cf.Batch(noise, spread * torch.randn(100_000, 1, generator=rng))

    def loss(factor):
        def field(t, x, condition):
            a, b, _ = path.coefficients(t)
            return factor * (a / (a**2 + (b * spread) ** 2))[:, None] * x

        return NoiseMatching(path)(field, batch, generator=cf.generator(5))["loss"].item()

    assert loss(1.0) < min(loss(0.95), loss(1.05))


def test_diffusion_samples_have_the_spread_of_the_data(rng):
    """Noise runs to data along the probability flow of the exact noise predictor."""
    path, spread = VariancePreserving(), 0.5

    def best_noise(t, x, condition=None):
        a, b, _ = path.coefficients(t)
        return (a / (a**2 + (b * spread) ** 2))[:, None] * x

    start = torch.randn(5000, 1, generator=rng)
    found = cf.integrate.ode(NoiseMatching(path).velocity(best_noise), start, steps=200).x[-1]
    assert torch.allclose(found / start, torch.full_like(start, spread), atol=0.02)


def test_a_long_interval_asks_for_a_slow_field_and_counts_as_much():
    """The same pairs over a quarter of the time: the best velocity is four times as large, the loss the same."""
    x0, x1 = torch.zeros(64, 2), torch.ones(64, 2)
    start, stop = torch.full((64,), 0.5), torch.full((64,), 0.75)
    objective, late = VelocityMatching(), cf.Batch(x0, x1, start, stop)

    def seen(t, x, condition):
        assert ((t >= 0.5) & (t <= 0.75)).all()
        return 4 * torch.ones_like(x)

    assert objective(seen, late, generator=cf.generator(0))["loss"] == 0
    still = [objective(lambda t, x, c: 0 * x, b, generator=cf.generator(0))["loss"] for b in (late, cf.Batch(x0, x1))]
    assert still[0] == still[1] > 0


def test_the_unit_makes_the_loss_the_same_for_data_of_any_scale():
    losses = []
    for unit in (1.0, 1e-4):
        x0, x1 = torch.randn(2, 500, 2, generator=cf.generator(0), dtype=torch.float64) * unit
        batch = cf.Batch(x0, x1)
        found = VelocityMatching(unit=unit)(lambda t, x, c: torch.zeros_like(x), batch, generator=cf.generator(1))
        losses.append(found["loss"].item())
    assert losses[0] == pytest.approx(losses[1])
    with pytest.raises(ValueError, match="unit > 0"):
        VelocityMatching(unit=0.0)


@pytest.mark.parametrize("objective", ALL_OBJECTIVES, ids=repr)
def test_the_loss_reaches_every_weight_and_passes_the_condition(objective, rng):
    net = cf.networks.MLP(dim=2, width=16, condition_dim=3)
    nn.init.normal_(net.last.weight, generator=rng)  # it starts at zero, which stops gradients
    batch = cf.Batch(torch.randn(32, 2, generator=rng), torch.ones(32, 2), condition=torch.eye(3)[torch.arange(32) % 3])
    objective(net, batch, generator=rng)["loss"].backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in net.parameters())


@pytest.mark.parametrize("path", [Linear(), Trigonometric(), BrownianBridge(1.0)], ids=repr)
def test_noise_matching_refuses_paths_without_a_way_back(path):
    with pytest.raises(ValueError, match="VariancePreserving"):
        NoiseMatching(path)
