"""Stochastic flows against closed forms: Gaussian bridges are known, and so is every score in them."""

import math

import pytest
import torch

import cellflow as cf
from benchmarks.bridges import general, standard
from cellflow.fields import Outputs
from cellflow.integrate import Noisy, ode, sde
from cellflow.networks import MLP, Heads
from cellflow.objectives import BridgeMatching
from cellflow.paths import BrownianBridge, Linear

ALL_METHODS = ["euler_maruyama", "heun"]
SIGMA, MEAN, SPREAD = 0.8, 2.0, 0.5  # of N(0, 1) -> N(2, 0.25), independently paired


def law(t):
    """Mean and variance at time t, and their slopes, of the bridge between independent N(0, 1) and N(2, 0.25)."""
    mean, slope = t * MEAN, MEAN
    variance = (1 - t) ** 2 + (t * SPREAD) ** 2 + SIGMA**2 * t * (1 - t)
    return mean, slope, variance, (-2 * (1 - t) + 2 * t * SPREAD**2 + SIGMA**2 * (1 - 2 * t))


def exact(t, x, condition=None):
    """The two heads that BridgeMatching ought to learn."""
    mean, slope, variance, change = (torch.as_tensor(v).reshape(-1, *[1] * (x.ndim - 1)) for v in law(t))
    return Outputs(slope + change / (2 * variance) * (x - mean), -(SIGMA**2) / 2 * (x - mean) / variance)


@pytest.mark.parametrize("method", ALL_METHODS)
def test_diffusion_and_probability_flow_have_the_same_known_marginals(method, rng):
    x0 = torch.randn(40_000, 1, generator=rng, dtype=torch.float64)
    noisy = sde(exact, x0, sigma=SIGMA, solver=Noisy(100, method=method), save=5, generator=rng)
    smooth = ode(lambda t, x, c: exact(t, x).velocity, x0, solver=100, save=5)
    for t, x, y in zip(noisy.t.tolist(), noisy.x, smooth.x, strict=True):
        mean, _, variance, _ = law(t)
        for found in (x, y):
            assert found.mean().item() == pytest.approx(mean, abs=0.02)
            assert found.var().item() == pytest.approx(variance, rel=0.04)
    assert not torch.allclose(noisy.x[-1], smooth.x[-1], atol=0.1)  # the same law, another coupling


@pytest.mark.parametrize("method", ALL_METHODS)
def test_backward_in_time_the_source_comes_back(method, rng):
    x1 = MEAN + SPREAD * torch.randn(40_000, 1, generator=rng, dtype=torch.float64)
    back = sde(exact, x1, sigma=SIGMA, start=1.0, stop=0.0, solver=Noisy(100, method=method), save=3, generator=rng)
    for t, x in zip(back.t.tolist(), back.x, strict=True):
        mean, _, variance, _ = law(t)
        assert x.mean().item() == pytest.approx(mean, abs=0.02)
        assert x.var().item() == pytest.approx(variance, rel=0.04)


def test_forward_and_backward_are_one_process(rng):
    """The pairs (start, end) have the same covariance whichever end they are drawn from."""
    x0 = torch.randn(60_000, 1, generator=rng, dtype=torch.float64)
    x1 = MEAN + SPREAD * torch.randn(60_000, 1, generator=rng, dtype=torch.float64)
    ends = sde(exact, x0, sigma=SIGMA, solver=100, generator=rng).x[-1]
    starts = sde(exact, x1, sigma=SIGMA, start=1.0, stop=0.0, solver=100, generator=rng).x[-1]
    forward, backward = (torch.cov(torch.cat(pair, dim=1).T)[0, 1] for pair in ((x0, ends), (starts, x1)))
    assert forward.item() == pytest.approx(backward.item(), abs=0.02)
    assert forward > 0.1


@pytest.mark.parametrize(("method", "order"), [("euler_maruyama", 1), ("heun", 2)])
def test_order_of_convergence_in_law(method, order):
    """Ornstein-Uhlenbeck: after n steps the variance follows a linear recursion, whose error is of known order."""

    def restoring(t, x, condition=None):
        return Outputs(-2 * x, torch.zeros_like(x))

    errors, truth = [], 0.25 + (1 - 0.25) * math.exp(-4)
    for steps in (5, 10, 20, 40):
        x = torch.randn(400_000, 1, generator=cf.generator(0), dtype=torch.float64)
        x = (x - x.mean()) / x.std()
        found = sde(restoring, x, sigma=1.0, solver=Noisy(steps, method=method), generator=cf.generator(1)).x[-1]
        errors.append(abs(found.var().item() - truth))
    slope = math.log2(errors[0] / errors[1])
    assert slope == pytest.approx(order, abs=0.5)
    assert errors[-1] < errors[0] / 2**order


def test_the_exact_heads_minimise_bridge_matching(rng):
    x0 = torch.randn(200_000, 1, generator=rng)
    batch = cf.Batch(x0, MEAN + SPREAD * torch.randn(200_000, 1, generator=rng))
    objective = BridgeMatching(BrownianBridge(SIGMA))

    def losses(change_velocity, change_score):
        def field(t, x, condition):
            heads = exact(t, x)
            return Outputs(heads.velocity + change_velocity * x, heads.score_drift * (1 + change_score))

        return objective(field, batch, generator=cf.generator(5))

    best = losses(0, 0)
    assert best["velocity"] < min(losses(sign * 0.1, 0)["velocity"] for sign in (-1, 1))
    assert best["score"] < min(losses(0, sign * 0.1)["score"] for sign in (-1, 1))
    assert best["loss"] == best["velocity"] + best["score"]


def test_the_velocity_target_keeps_no_noise_but_that_of_the_ends(rng):
    """With the exact heads, what is left is the variance of x1 - x0 given the state: known, and bounded at the ends."""
    n = 400_000
    batch = cf.Batch(torch.randn(n, 1, generator=rng), MEAN + SPREAD * torch.randn(n, 1, generator=rng))
    found = BridgeMatching(BrownianBridge(SIGMA))(exact, batch, generator=rng)["velocity"].item()
    t = torch.linspace(0, 1, 2001, dtype=torch.float64)
    together = -(1 - t) + t * SPREAD**2  # covariance of x1 - x0 and the state
    left = 1 + SPREAD**2 - together**2 / law(t)[2]
    assert found == pytest.approx(torch.trapezoid(left, t).item(), rel=0.02)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_the_closed_form_agrees_with_the_published_one_and_keeps_the_ends(t):
    """`benchmarks.bridges` against Mallasto et al. 2020 in the isotropic case, and against its own ends."""
    mean, covariance = standard(3, shift=0.1, sigma=1.0).marginal(t)
    expected = (1 - t) ** 2 + t**2 + t * (1 - t) * math.sqrt(5)
    assert torch.allclose(covariance, expected * torch.eye(3, dtype=torch.float64))
    assert torch.allclose(mean, torch.full((3,), 0.2 * t - 0.1, dtype=torch.float64))
    bridge = general(3, sigma=0.7, seed=1)
    assert not torch.allclose(bridge.cov0 @ bridge.cov1, bridge.cov1 @ bridge.cov0, atol=0.1)
    assert torch.allclose(bridge.marginal(1.0)[1], bridge.cov1)


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 8.0])
def test_plans_between_gaussians_of_general_covariances_have_the_known_cross_covariance(epsilon, rng):
    bridge = general(2, sigma=math.sqrt(epsilon / 2), seed=0)
    x0, x1 = (cloud.double() for cloud in (bridge.draw(2500, rng)[0], bridge.draw(2500, rng)[1]))
    plan = cf.couplings.Sinkhorn(epsilon)(x0, x1).dense()
    found = (x0 - x0.mean(0)).T @ plan @ (x1 - x1.mean(0))
    assert ((found - bridge.cross()).norm() / bridge.cov1.norm()).item() < 0.06


@pytest.mark.slow
def test_a_trained_bridge_has_the_moments_of_general_gaussians(rng):
    """Means, covariances and cross-covariance of simulated points, within twice what two samples of this size leave."""
    bridge, n = general(2, sigma=1.0, seed=0), 3000
    (x0, _), (_, x1), (fresh, _) = (bridge.draw(n, rng) for _ in range(3))
    field = Heads(MLP(2, heads=2, width=64), score="shared")
    coupling = cf.couplings.Sinkhorn(2.0, tolerance=1e-3)
    batches = cf.pairing.paired_batches(x0, x1, coupling=coupling, batch_size=512, generator=rng)
    cf.training.fit(field, BridgeMatching(BrownianBridge(1.0)), batches, steps=1000, generator=rng)
    start, middle, end = (x.double() for x in sde(field, fresh, sigma=1.0, solver=40, save=3, generator=rng).x)
    cross = (start - start.mean(0)).T @ (end - end.mean(0)) / n
    scale = bridge.cov1.norm()
    assert ((end.mean(0) - bridge.mean1).norm() / bridge.cov1.trace().sqrt()).item() < 0.08
    assert ((torch.cov(middle.T) - bridge.marginal(0.5)[1]).norm() / scale).item() < 0.1
    assert ((torch.cov(end.T) - bridge.cov1).norm() / scale).item() < 0.1
    assert ((cross - bridge.cross()).norm() / scale).item() < 0.1
    assert (bridge.cross().norm() / scale).item() > 0.4  # independent ends would be far off


def test_the_weighted_score_target_has_unit_scale_and_is_finite_at_the_ends(rng):
    """A score head of zero leaves exactly the noise: its square is 1 on average, at any sigma and any duration."""
    for sigma in (0.01, 1.0, 100.0):
        x = torch.randn(50_000, 2, generator=rng)
        start = torch.zeros(50_000)
        for stop in (0.1, 1.0):
            batch = cf.Batch(x, x, start, torch.full_like(start, stop))
            nothing = lambda t, x, c: Outputs(torch.zeros_like(x), torch.zeros_like(x))  # noqa: E731
            found = BridgeMatching(BrownianBridge(sigma))(nothing, batch, generator=rng)
            assert found["score"].item() == pytest.approx(1, rel=0.02)
            assert torch.isfinite(found["velocity"])


def test_a_short_interval_holds_its_share_of_the_diffusion(rng):
    """Half of the time gathers half of the variance: sigma belongs to the whole of model time."""
    zeros, t = torch.zeros(100_000, 1), torch.full((100_000,), 0.5)
    whole, half = (
        BrownianBridge(2.0).sample(zeros, zeros, t, generator=rng, duration=torch.full_like(t, d)).x.var()
        for d in (1.0, 0.5)
    )
    assert whole.item() == pytest.approx(1.0, rel=0.02)
    assert half.item() == pytest.approx(0.5, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["shared", "separate"])
def test_a_trained_bridge_is_the_schroedinger_bridge_between_gaussians(kind, rng):
    """N(-0.1, I) -> N(0.1, I), sigma 1: variance and covariance of the ends are known (Mallasto et al. 2020)."""
    dim, sigma = 2, 1.0
    x0, x1 = (mean + torch.randn(1000, dim, generator=rng) for mean in (-0.1, 0.1))
    shared = kind == "shared"
    field = Heads(MLP(dim, heads=2, width=64), score="shared") if shared else Heads(MLP(dim), score=MLP(dim))
    coupling = cf.couplings.Sinkhorn(2 * sigma**2, tolerance=1e-3)
    batches = cf.pairing.paired_batches(x0, x1, coupling=coupling, batch_size=512, generator=rng)
    cf.training.fit(field, BridgeMatching(BrownianBridge(sigma)), batches, steps=1200, generator=rng)
    found = sde(field, x0.repeat(5, 1), sigma=sigma, solver=40, save=3, generator=rng)
    middle, end = found.x[1], found.x[2]
    sample = x1.var(dim=0).mean().item()
    expected = 0.25 * (x0.var(dim=0).mean().item() + sample) + 0.25 * math.sqrt(4 + sigma**4)
    assert middle.var(dim=0).mean().item() == pytest.approx(expected, rel=0.1)
    assert end.var(dim=0).mean().item() == pytest.approx(sample, rel=0.1)
    start = found.x[0]
    covariance = ((start - start.mean(0)) * (end - end.mean(0))).mean().item()
    assert covariance == pytest.approx((math.sqrt(4 + sigma**4) - sigma**2) / 2, abs=0.1)


def test_samples_have_their_own_clocks_and_are_seeded():
    x = torch.zeros(3, 2)
    start, stop = torch.tensor([0.0, 0.5, 1.0]), torch.tensor([1.0, 0.5, 0.0])
    once, again, other = (
        sde(exact, x, sigma=SIGMA, start=start, stop=stop, save=3, generator=cf.generator(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(once.x, again.x)
    assert not torch.equal(once.x, other.x)
    assert torch.equal(once.x[-1][1], x[1])  # no time passes: nothing moves
    assert once.t[:, 0].tolist() == [0, 0.5, 1]
    assert once.t[:, 2].tolist() == [1, 0.5, 0]


def test_images_and_saved_states(rng):
    x = torch.zeros(2, 1, 4, 4, dtype=torch.float64)
    found = sde(exact, x, sigma=SIGMA, solver=5, save=4, generator=rng)
    assert found.x.shape == (4, 2, 1, 4, 4)
    assert found.x.dtype == torch.float64
    assert found.evaluations == 12  # six steps of two: rounded up to a multiple of the saved stretches


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sigma": 0.0}, "sigma > 0.*integrate.ode"),
        ({"sigma": -1.0}, "sigma > 0"),
        ({"sigma": float("nan")}, "sigma > 0"),
        ({"solver": "milstein"}, "'heun', 'euler_maruyama'"),
        ({"solver": 0}, "`steps` to be a whole number >= 1"),
        ({"save": 1}, "`save` must be at least 2"),
    ],
)
def test_impossible_simulations_are_refused(rng, settings, words):
    with pytest.raises(ValueError, match=words):
        sde(exact, torch.zeros(2, 1), **{"sigma": 1.0, "generator": rng} | settings)


def test_one_head_where_two_are_needed_is_named(rng):
    batch = cf.Batch(torch.zeros(4, 2), torch.ones(4, 2))
    with pytest.raises(TypeError, match="returned no score.*Heads.*BridgeMatching"):
        BridgeMatching()(MLP(dim=2), batch, generator=rng)
    with pytest.raises(TypeError, match="no score"):
        sde(MLP(dim=2), torch.zeros(4, 2), sigma=1.0, generator=rng)
    with pytest.raises(ValueError, match=r"2 heads, \(n, 4\); found one that returns \(4, 2\)"):
        Heads(MLP(dim=2), score="shared")(torch.zeros(4), torch.zeros(4, 2))


@pytest.mark.parametrize("path", [Linear(), BrownianBridge(0.0)])
def test_a_bridge_without_noise_has_no_score(path):
    with pytest.raises(ValueError, match="path with noise"):
        BridgeMatching(path)
