"""Bridges from predicted ends against closed forms: what both ends are on average is known between Gaussians."""

import math

import pytest
import torch
from test_bridges import MEAN, SIGMA, SPREAD, exact, law

import cellflow as cf
from cellflow.fields import Outputs, VelocityOf, outputs
from cellflow.integrate import Noisy, ode, sde
from cellflow.networks import MLP, EndPoints, FlowMap, Heads
from cellflow.objectives import BridgeMatching, DampedVelocity, EndPointMatching
from cellflow.paths import BrownianBridge, Linear

TIMES = torch.tensor([0.001, 0.1, 0.5, 0.8, 0.999], dtype=torch.float64)


class KnownEnds(torch.nn.Module):
    """Both ends of the pairs of independent N(0, 1) and N(2, 0.25) that pass a state, on average."""

    def __init__(self, spread=SPREAD):
        super().__init__()
        self.spread = spread

    def forward(self, t, x, condition=None):
        age = t.reshape(-1, *[1] * (x.ndim - 1))
        variance = (1 - age) ** 2 + (age * self.spread) ** 2 + SIGMA**2 * age * (1 - age)
        off = (x - age * MEAN) / variance
        return torch.cat([(1 - age) * off, MEAN + age * self.spread**2 * off], dim=1)


def test_the_known_ends_give_the_known_velocity_and_score_drift(rng):
    x = torch.randn(5, 1, generator=rng, dtype=torch.float64)
    found, known = EndPoints(KnownEnds())(TIMES, x), exact(TIMES, x)
    assert torch.allclose(found.velocity, known.velocity, atol=1e-9)
    assert torch.allclose(found.score_drift, known.score_drift, atol=1e-9)


def test_at_both_ends_of_time_all_is_finite(rng):
    x, field = torch.randn(2, 1, generator=rng), EndPoints(KnownEnds())
    for velocity in (VelocityOf(field), DampedVelocity(field, 0.1)):
        assert torch.isfinite(velocity(torch.tensor([0.0, 1.0]), x)).all()
    assert torch.isfinite(field(torch.tensor([0.0, 1.0]), x).score_drift).all()


def test_the_last_step_lands_on_the_predicted_end_without_the_noise_of_the_state(rng):
    """Forward on the target, backward on the source, whatever the state was."""
    apart = EndPoints(lambda t, x, condition: torch.cat([torch.full_like(x, -3.0), torch.full_like(x, 7.0)], dim=1))
    x = torch.randn(100, 4, generator=rng)
    for start, sign, end in ((0.9, 1, 7.0), (0.1, -1, -3.0)):
        found = apart(torch.full((100,), start), x)
        landed = x + 0.1 * (sign * found.velocity + found.score_drift)
        assert torch.allclose(landed, torch.full_like(x, end), atol=1e-4)


@pytest.mark.parametrize("backward", [False, True])
def test_simulations_from_the_known_ends_have_the_known_marginals(backward, rng):
    x = torch.randn(40_000, 1, generator=rng, dtype=torch.float64)
    start, stop, x = (1.0, 0.0, MEAN + SPREAD * x) if backward else (0.0, 1.0, x)
    solver = Noisy(100, method="euler_maruyama")
    found = sde(EndPoints(KnownEnds()), x, sigma=SIGMA, start=start, stop=stop, solver=solver, save=5, generator=rng)
    for t, some in zip(found.t.tolist(), found.x, strict=True):
        mean, _, variance, _ = law(t)
        assert some.mean().item() == pytest.approx(mean, abs=0.02)
        assert some.var().item() == pytest.approx(variance, rel=0.05)


def test_the_loss_of_the_known_ends_is_the_variance_that_is_left_and_none_is_smaller(rng):
    n = 400_000
    batch = cf.Batch(torch.randn(n, 1, generator=rng), MEAN + SPREAD * torch.randn(n, 1, generator=rng))
    objective = EndPointMatching(BrownianBridge(SIGMA))

    def terms(source=0.0, target=0.0):
        changed = lambda t, x, c: KnownEnds()(t, x) + torch.cat([source * x, target * x], dim=1)  # noqa: E731
        return objective(EndPoints(changed), batch, generator=cf.generator(5))

    t = torch.linspace(0, 1, 2001, dtype=torch.float64)
    variance, best = law(t)[2], terms()
    for name, prior, share in (("source", 1.0, 1 - t), ("target", SPREAD**2, t)):
        left = torch.trapezoid(prior - (share * prior) ** 2 / variance, t).item()
        assert best[name].item() == pytest.approx(left, rel=0.02)
        assert best[name] < min(terms(**{name: sign * 0.1})[name] for sign in (-1, 1))
    assert best["loss"] == best["source"] + best["target"]


def test_it_has_the_minimiser_of_bridge_matching_for_any_field_and_span(rng):
    """Heads that are exact have the errors of exact ends, and a pair in a part of the time those of its own ends."""
    n = 1000
    batch = cf.Batch(torch.randn(n, 1, generator=rng), MEAN + SPREAD * torch.randn(n, 1, generator=rng))
    objective = EndPointMatching(BrownianBridge(SIGMA))
    losses = [objective(field, batch, generator=cf.generator(5))["loss"] for field in (exact, EndPoints(KnownEnds()))]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-4)

    def within(t, x, condition):
        """The drifts of a pair from 0 to 1 that lasts from 0.2 to 0.7."""
        age = (t - 0.2).reshape(-1, 1)
        onward, back = (1 - x) / (0.5 - age), (0 - x) / age
        return Outputs((onward - back) / 2, (onward + back) / 2)

    span = {"start": torch.full((n,), 0.2), "stop": torch.full((n,), 0.7)}
    pairs = cf.Batch(torch.zeros(n, 1), torch.ones(n, 1), **span)
    assert objective(within, pairs, generator=rng)["loss"].item() == pytest.approx(0, abs=1e-8)


def test_the_damped_velocity_is_between_the_exact_one_and_the_difference_of_the_ends(rng):
    x = torch.randn(5, 1, generator=rng, dtype=torch.float64)
    field = EndPoints(KnownEnds())
    source, target = KnownEnds()(TIMES, x).chunk(2, dim=1)
    assert torch.allclose(DampedVelocity(field, 0.0)(TIMES, x), field(TIMES, x).velocity)
    assert torch.allclose(DampedVelocity(field, 1e12)(TIMES, x), target - source, atol=1e-6)
    weight, noise = TIMES * (1 - TIMES), x[:, 0] - (1 - TIMES) * source[:, 0] - TIMES * target[:, 0]
    # c'/c of the scale c = sqrt(t (1 - t) + 0.1), by differences
    scale = lambda t: torch.sqrt(t * (1 - t) + 0.1)  # noqa: E731
    rate = (scale(TIMES + 1e-6) - scale(TIMES - 1e-6)) / 2e-6 / scale(TIMES)
    expected = (target - source)[:, 0] + rate * noise
    assert torch.allclose(DampedVelocity(field, 0.1)(TIMES, x)[:, 0], expected, atol=1e-6)
    assert (weight > 0).all()


@pytest.mark.parametrize("damping", [0.0, 0.1, 10.0])
def test_between_equal_spreads_the_damped_flow_still_arrives_where_it_should(damping, rng):
    """N(0, 1) to N(2, 1): what the first half adds too little of, the second takes away too little of."""
    velocity = EndPointMatching(BrownianBridge(SIGMA), damping=damping).velocity(EndPoints(KnownEnds(spread=1.0)))
    x0 = torch.randn(40_000, 1, generator=rng, dtype=torch.float64)
    found = ode(velocity, x0, solver=400).x[-1]
    assert found.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert found.std().item() == pytest.approx(x0.std().item(), rel=0.01)


def test_a_flow_map_starts_from_the_damped_velocity(rng):
    field = EndPoints(MLP(dim=2, width=8, heads=2))
    velocity = DampedVelocity(field, 0.1)
    x, s, t = torch.randn(5, 2, generator=rng), torch.full((5,), 0.2), torch.full((5,), 0.7)
    expected = x + 0.5 * velocity(s, x)
    assert torch.allclose(FlowMap.of(velocity).jump(s, t, x), expected, atol=1e-5)


def test_a_young_network_that_predicts_ends_leaves_less_noise_than_one_that_has_to_find_it(rng):
    """Sixteen numbers that are equal: what differs between them after a simulation is the noise that was left."""
    x0 = (torch.randn(512, 1, generator=rng)).expand(-1, 16).contiguous()
    left = []
    for kind in (lambda net: Heads(net, score="shared"), EndPoints):
        torch.manual_seed(0)
        field = kind(MLP(16, width=32, heads=2))
        matching = EndPointMatching if kind is EndPoints else BridgeMatching
        batches = cf.pairing.paired_batches(x0, x0 + 2, coupling="independent", batch_size=128, generator=rng)
        cf.training.fit(field, matching(BrownianBridge(0.3)), batches, steps=200, generator=rng)
        x = sde(field, x0, sigma=0.3, stop=15 / 16, solver=Noisy(15, method="euler_maruyama"), generator=rng).x[-1]
        found = outputs(field(torch.full((512,), 15 / 16), x), score=True)
        landed = x + (found.velocity + found.score_drift) / 16
        left.append(landed.std(dim=1).mean().item())
    assert left[1] < left[0] / 2


def test_wrong_parts_are_refused(rng):
    with pytest.raises(ValueError, match=r"both ends, \(n, 4\); found one that returns \(3, 2\).*heads=2"):
        EndPoints(MLP(dim=2))(torch.zeros(3), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="with noise"):
        EndPointMatching(BrownianBridge(0.0))
    with pytest.raises(TypeError, match="`path`"):
        EndPointMatching(Linear(0.3))
    for damping in (-0.1, math.inf, math.nan):
        with pytest.raises(ValueError, match="damping >= 0"):
            EndPointMatching(damping=damping)
        with pytest.raises(ValueError, match="damping >= 0"):
            DampedVelocity(EndPoints(MLP(dim=2, heads=2)), damping)
    with pytest.raises(TypeError, match="no score"):
        EndPointMatching()(MLP(dim=2), cf.Batch(torch.zeros(4, 2), torch.ones(4, 2)), generator=rng)
