"""Objectives against closed forms: the best field for Gaussians is known."""

from dataclasses import replace

import pytest
import torch
from parts import ALL_OBJECTIVES, FLOW_MAP_OBJECTIVES
from torch import nn

import cellflow as cf
from cellflow.fields import VelocityOf
from cellflow.networks import MLP, FlowMap, Heads
from cellflow.objectives import (
    EndPointMatching,
    FlowMapObjective,
    NoiseMatching,
    PathEnergy,
    TrajectoryMatching,
    VelocityMatching,
)
from cellflow.paths import BrownianBridge, Linear, Trigonometric, VariancePreserving

OPTIONAL = [name for name in cf.Batch._fields if name not in ("x0", "x1")]
REFUSED = {
    (TrajectoryMatching, "log_mass0"), (TrajectoryMatching, "log_mass1"), (TrajectoryMatching, "bend0"),
    (TrajectoryMatching, "bend1"), (NoiseMatching, "bend0"), (NoiseMatching, "bend1"), (PathEnergy, "bend0"),
    (PathEnergy, "bend1"), (EndPointMatching, "bend0"), (EndPointMatching, "bend1"),
}  # fmt: skip
"""What an objective has no use for; everything else must matter to it."""
EQUAL = {(PathEnergy, "stop")}
"""A geodesic is the same, however long it takes."""


def field_for(objective, rng):
    """A network that an objective can train, with a condition of width 3; none of its weights is zero."""
    dim = 4 if isinstance(objective, PathEnergy) else 2
    two_times = isinstance(objective, FlowMapObjective | TrajectoryMatching)
    net = MLP(dim, width=16, condition_dim=3, heads=1 + len(objective.heads), times=1 + two_times)
    for weight in net.parameters():
        nn.init.normal_(weight, std=0.3, generator=rng)
    if two_times:
        return FlowMap(net, spans=getattr(objective, "known_spans", ("both",))[-1])
    return Heads(net, **dict.fromkeys(objective.heads, "shared")) if objective.heads else net


def pairs_for(objective, rng, n=32):
    """Pairs in a part of the time, with conditions, and with masses where they are needed."""
    x0, x1 = torch.randn(2, n, 2, generator=rng)
    span = {
        "start": torch.full((n,), 0.2),
        "stop": torch.full((n,), 0.7),
        "condition": torch.eye(3)[torch.arange(n) % 3],
    }
    masses = {"log_mass0": torch.zeros(n), "log_mass1": torch.zeros(n)} if "growth" in objective.heads else {}
    return cf.Batch(x0, x1, **span, **masses)


@pytest.mark.parametrize("name", OPTIONAL)
@pytest.mark.parametrize("objective", ALL_OBJECTIVES, ids=lambda objective: type(objective).__name__)
def test_every_field_of_a_batch_matters_or_is_refused(objective, name, rng):
    field, batch, n = field_for(objective, rng), pairs_for(objective, rng), 32
    other = {
        "start": batch.start - 0.1,
        "stop": batch.stop + 0.2,
        "condition": batch.condition.roll(1, dims=1),
        "log_mass0": torch.randn(n, generator=rng),
        "log_mass1": torch.randn(n, generator=rng),
        "bend0": torch.randn(n, 2, generator=rng),
        "bend1": torch.randn(n, 2, generator=rng),
    }[name]
    changed = batch._replace(**{name: other})
    if name.startswith("log_mass"):  # masses come in twos
        nothing = {"log_mass0": torch.zeros(n), "log_mass1": torch.zeros(n)}
        changed = batch._replace(**nothing | {name: other})
    loss = lambda pairs: objective(field, pairs, generator=cf.generator(7))["loss"].item()  # noqa: E731
    assert loss(batch) == loss(batch)
    if (type(objective), name) in REFUSED:
        with pytest.raises(ValueError, match=f"{type(objective).__name__} takes no pairs with"):
            loss(changed)
    else:
        assert (loss(changed) == loss(batch)) == ((type(objective), name) in EQUAL)


@pytest.mark.parametrize("objective", [VelocityMatching(), *FLOW_MAP_OBJECTIVES], ids=lambda one: type(one).__name__)
def test_a_field_that_returns_more_than_a_velocity_is_learned_and_learned_from(objective, rng):
    """As the field of velocity matching, and as the teacher of a map, only its velocity counts."""
    batch = pairs_for(objective, rng)
    more = Heads(MLP(2, width=16, condition_dim=3, heads=3), score="shared", growth="shared")
    for weight in more.parameters():
        nn.init.normal_(weight, std=0.3, generator=rng)
    losses = []
    for given in (more, VelocityOf(more)):
        taught = isinstance(objective, FlowMapObjective)
        chosen, field = (replace(objective, teacher=given), field_for(objective, cf.generator(3))) if taught else (
            objective, given
        )  # fmt: skip
        losses.append(chosen(field, batch, generator=cf.generator(7))["loss"])
    assert torch.equal(*losses)


WEIGHED = [objective for objective in ALL_OBJECTIVES if (type(objective), "log_mass0") not in REFUSED]


@pytest.mark.parametrize("objective", WEIGHED, ids=lambda objective: type(objective).__name__)
def test_errors_are_weighted_by_the_mass_of_their_pairs(objective, rng):
    """Twice the mass is twice the error, and pairs without mass say nothing."""
    field, batch = field_for(objective, rng), pairs_for(objective, rng)
    loss = lambda pairs: objective(field, pairs, generator=cf.generator(7))["loss"].item()  # noqa: E731
    plain, two = torch.zeros(32), torch.full((32,), 2.0).log()
    single, double = (loss(batch._replace(log_mass0=mass, log_mass1=mass)) for mass in (plain, two))
    assert double == pytest.approx(2 * single, rel=1e-5)
    if "growth" not in objective.heads:
        assert single == pytest.approx(loss(batch), rel=1e-6)
    half = torch.where(torch.arange(32) % 2 == 0, 0.0, -100.0)
    some = batch._replace(log_mass0=half, log_mass1=half)
    elsewhere = torch.where((half < 0)[:, None], batch.x1 + 5, batch.x1)
    assert loss(some) == pytest.approx(loss(some._replace(x1=elsewhere)), rel=1e-6)
    assert loss(some) < 0.9 * single


@pytest.mark.parametrize("objective", WEIGHED, ids=lambda objective: type(objective).__name__)
def test_masses_at_one_end_are_refused(objective, rng):
    batch = pairs_for(objective, rng)._replace(log_mass0=torch.zeros(32), log_mass1=None)
    with pytest.raises(ValueError, match="at both ends"):
        objective(field_for(objective, rng), batch, generator=rng)


@pytest.mark.parametrize("objective", FLOW_MAP_OBJECTIVES, ids=lambda objective: type(objective).__name__)
def test_the_jumps_of_a_bent_path_are_those_of_its_spline(objective, rng):
    """All cells go one way, p(t) = t + 3 t (1 - t)^2: the jump from s to t is p(t) - p(s), and no straight one is."""
    n = 256
    batch = cf.Batch(torch.zeros(n, 1), torch.ones(n, 1), bend0=torch.full((n, 1), 3.0))
    objective = replace(objective, diagonal=0.5)

    def loss(bend):
        def field(t, x, condition=None):
            s, t = t.unbind(1) if t.ndim == 2 else (t, t)
            # (p(t) - p(s)) / (t - s), written without the division
            mean = 1 + bend * (1 - 2 * (s + t) + (s**2 + s * t + t**2))
            return mean[:, None] + 0 * x

        field.spans = objective.known_spans[-1]
        return objective(field, batch, generator=cf.generator(0))["loss"].item()

    assert loss(3.0) < 1e-10
    assert loss(0.0) > 0.1


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
    moved = cf.integrate.ode(gaussian_velocity(path, 0.0, 1.0, 2.0, 0.5), x0, solver=40).x[-1]
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
    found = cf.integrate.ode(NoiseMatching(path).velocity(best_noise), start, solver=200).x[-1]
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


@pytest.mark.parametrize("objective", ALL_OBJECTIVES, ids=lambda objective: type(objective).__name__)
def test_the_loss_reaches_every_weight_and_passes_the_condition(objective, rng):
    field = field_for(objective, rng)
    objective(field, pairs_for(objective, rng), generator=rng)["loss"].backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in field.parameters())


@pytest.mark.parametrize("path", [Linear(), Trigonometric(), BrownianBridge(1.0)], ids=repr)
def test_noise_matching_refuses_paths_without_a_way_back(path):
    with pytest.raises(ValueError, match="VariancePreserving"):
        NoiseMatching(path)
