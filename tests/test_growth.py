"""Growing populations against closed forms: tilted Gaussians, known lineages, a law of growth, and the limits."""

import math
from functools import partial
from itertools import pairwise

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

import cellflow as cf
from cellflow.couplings import Exact, Given, Independent, Sinkhorn, SparsePlan, UnbalancedSinkhorn
from cellflow.errors import CheckpointError
from cellflow.fields import Outputs, outputs
from cellflow.integrate import TABLES, Fixed, Noisy, grow, ode, sde
from cellflow.networks import MLP, Heads
from cellflow.objectives import BridgeMatching, GrowthMatching, VelocityMatching
from cellflow.pairing import paired_batches, snapshot_batches
from cellflow.paths import BrownianBridge, Linear
from cellflow.seeds import seeded
from conftest import make_cells

pytestmark = pytest.mark.usefixtures("global_state_is_untouched")
ALL_BALANCED = [Exact(), Given(), Independent(), Sinkhorn(0.5, tolerance=1e-10)]
ALL_KINDS = ["separate", "shared"]
UNBALANCED = UnbalancedSinkhorn(epsilon=0.1, relaxation=1.0)
QUICK = {"time_key": "day", "steps": 20, "batch_size": 32, "device": "cpu"}


# Pairs (x0, x1) ~ Normal(MEAN, COVARIANCE) with log-masses P x0 and C + Q x1. At every s the weighted pairs are a
# tilted Gaussian: normal again, with another mean, so what GrowthMatching must find is linear in x.
MEAN = torch.tensor([0.0, 2.0], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.3], [0.3, 0.5]], dtype=torch.float64)
P, Q, C, SIGMA = 0.6, -0.8, 0.4, 0.7


def law(t, sigma=0.0):
    """Log of the mass, mean and variance of the population at time t."""
    tilt, at = torch.stack([(1 - t) * P, t * Q], dim=-1), torch.stack([1 - t, t], dim=-1)
    log_mass = t * C + tilt @ MEAN + (tilt @ COVARIANCE * tilt).sum(-1) / 2
    mean = (at * (MEAN + tilt @ COVARIANCE)).sum(-1)
    return log_mass, mean, (at @ COVARIANCE * at).sum(-1) + sigma**2 * t * (1 - t)


def exact(t, x, condition=None, sigma=0.0):
    """Velocity, score and growth of the population, by conditioning the tilted Gaussian on x."""
    t, y = t.double(), x.double()[:, 0]
    tilt, at = torch.stack([(1 - t) * P, t * Q], dim=-1), torch.stack([1 - t, t], dim=-1)
    centre = MEAN + tilt @ COVARIANCE
    _, mean, variance = law(t, sigma)
    move, change = (torch.tensor(row, dtype=torch.float64) for row in ([-1.0, 1.0], [-P, Q]))
    spreading = sigma**2 * (1 - 2 * t) / 2
    velocity = centre @ move + (at @ COVARIANCE @ move + spreading) / variance * (y - mean)
    growth = C + centre @ change + (at @ COVARIANCE @ change) / variance * (y - mean)
    score_drift = -(sigma**2) / 2 * (y - mean) / variance
    return Outputs(velocity[:, None].to(x), score_drift[:, None].to(x), growth.to(x))


def test_the_exact_field_carries_the_population_and_its_mass():
    """Weighted particles have the known mass, mean and variance at all times: the derivation holds."""
    log_mass, mean, variance = law(torch.tensor(0.0, dtype=torch.float64))
    x0 = torch.special.ndtri((torch.arange(4000, dtype=torch.float64) + 0.5) / 4000)[:, None] * variance.sqrt() + mean
    found = grow(exact, x0, solver=40, save=5)
    for t, x, log_weight, total in zip(found.t, found.x[..., 0], found.log_weight, found.mass(), strict=True):
        expected, mean, variance = law(t)
        weight = log_weight.softmax(0)
        assert total.log().item() == pytest.approx((expected - log_mass).item(), abs=2e-3)
        assert (weight @ x).item() == pytest.approx(mean.item(), abs=5e-3)
        assert (weight @ (x - weight @ x) ** 2).item() == pytest.approx(variance.item(), rel=0.01)
    assert abs(found.mass()[-1].item() - 1) > 0.3  # else nothing was tested


def population(t, sigma, n=40_000, rng=None):
    """States of the population at time t, each of the same weight: drawn, or at the quantiles."""
    _, mean, variance = law(torch.tensor(t, dtype=torch.float64), sigma)
    quantiles = torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)
    normal = quantiles if rng is None else torch.randn(n, generator=rng, dtype=torch.float64)
    return normal[:, None] * variance.sqrt() + mean


def check_population(found, sigma, *, rel):
    """Compare mass, mean and variance of weighted particles with the known ones, at all times."""
    first = law(found.t[0].double(), sigma)[0]
    for t, x, share, total in zip(
        found.t.double(), found.x[..., 0].double(), found.shares(), found.mass(), strict=True
    ):
        log_mass, mean, variance = law(t, sigma)
        assert total.log().item() == pytest.approx((log_mass - first).item(), abs=rel)
        assert (share @ x).item() == pytest.approx(mean.item(), abs=rel)
        assert (share @ (x - share @ x) ** 2).item() == pytest.approx(variance.item(), rel=2 * rel)
    assert abs(found.mass()[-1].item() - 1) > 0.3  # else nothing was tested


@pytest.mark.parametrize(("start", "stop"), [(0.0, 1.0), (1.0, 0.0)])
@pytest.mark.parametrize("method", ["heun", "euler_maruyama"])
def test_growing_gaussians_are_the_same_population_with_noise_and_without(start, stop, method, rng):
    """Velocity, score and growth at once: the weighted marginals of the SDE are those of the ODE, both ways in time."""
    field = partial(exact, sigma=SIGMA)
    settings = {"start": start, "stop": stop, "save": 5}
    smooth = grow(field, population(start, SIGMA), solver=40, **settings)
    check_population(smooth, SIGMA, rel=0.01)
    x0 = population(start, SIGMA, rng=rng)
    noisy = sde(field, x0, sigma=SIGMA, growth=True, solver=Noisy(80, method=method), generator=rng, **settings)
    check_population(noisy, SIGMA, rel=0.03)
    lone = x0[:1].expand(1000, 1)
    ends = sde(field, lone, sigma=SIGMA, growth=True, solver=20, generator=rng, start=start, stop=stop)
    assert ends.x[-1].std() > 0.2  # each state has many outcomes
    assert ends.log_weight[-1].std() > 0.02


def test_weights_change_nothing_in_a_simulation_but_themselves(rng):
    x0 = population(0.0, SIGMA, n=50)
    plain, weighted = (
        sde(partial(exact, sigma=SIGMA), x0, sigma=SIGMA, growth=growth, save=3, generator=cf.generator(1))
        for growth in (False, True)
    )
    assert torch.equal(plain.x, weighted.x)
    assert plain.log_weight is None
    with pytest.raises(ValueError, match="carry no weights"):
        plain.mass()
    given = torch.linspace(-3, 0, 50, dtype=torch.float64)
    other = sde(
        partial(exact, sigma=SIGMA), x0, sigma=SIGMA, growth=True, log_weight=given, save=3, generator=cf.generator(1)
    )
    gains = (one.log_weight[-1] - one.log_weight[0] for one in (weighted, other))
    assert torch.allclose(*gains)
    assert torch.equal(other.log_weight[0], given)
    with pytest.raises(ValueError, match="leave out `log_weight`, or set `growth=True`"):
        sde(partial(exact, sigma=SIGMA), x0, sigma=SIGMA, log_weight=given, generator=cf.generator(1))
    bridge = lambda t, x, c: Outputs(x, x)  # noqa: E731
    with pytest.raises(TypeError, match="a score and a growth; this one returned no growth"):
        sde(bridge, x0, sigma=1.0, growth=True, generator=rng)


def test_all_three_exact_outputs_minimise_bridge_matching(rng):
    batch, objective = tilted(200_000, rng), BridgeMatching(BrownianBridge(SIGMA), growth_weight=1.0)

    def losses(velocity=0.0, score=0.0, growth=0.0):
        def field(t, x, condition):
            found = exact(t, x, sigma=SIGMA)
            return Outputs(
                found.velocity + velocity * x, found.score_drift + score * x, found.growth + growth * x[:, 0]
            )

        return objective(field, batch, generator=cf.generator(5))

    best = losses()
    assert best["loss"].item() == pytest.approx((best["velocity"] + best["score"] + best["growth"]).item())
    for name in ("velocity", "score", "growth"):
        assert best[name] < min(losses(**{name: change})[name] for change in (-0.05, 0.05))


@pytest.mark.slow
def test_trained_growing_gaussians_have_the_known_marginals_with_noise_and_without(rng):
    batches = ([tilted(1024, cf.generator(seed))] for seed in range(1_000_000))
    with seeded(rng):
        field = Heads(MLP(1, width=64, heads=3), score="shared", growth="shared")
    objective = BridgeMatching(BrownianBridge(SIGMA), growth_weight=1.0)
    cf.training.fit(field, objective, (one for (one,) in batches), steps=2000, generator=rng)
    x0 = population(0.0, SIGMA, rng=rng).float()
    check_population(grow(field, x0, solver=40, save=3), SIGMA, rel=0.05)
    check_population(sde(field, x0, sigma=SIGMA, growth=True, save=3, generator=rng), SIGMA, rel=0.05)


def tilted(n, rng):
    """Pairs of the law above, with their masses."""
    pairs = MEAN + torch.randn(n, 2, generator=rng, dtype=torch.float64) @ torch.linalg.cholesky(COVARIANCE).T
    x0, x1 = pairs.float().unbind(1)
    return cf.Batch(x0[:, None], x1[:, None], log_mass0=P * x0, log_mass1=C + Q * x1)


@pytest.mark.parametrize("path", [Linear(), BrownianBridge(SIGMA)])
def test_the_exact_field_minimises_growth_matching(path, rng):
    batch, objective = tilted(200_000, rng), GrowthMatching(path)

    def losses(velocity=(0, 0), growth=(0, 0)):
        def field(t, x, condition):
            heads = exact(t, x, sigma=path.sigma)
            return Outputs(
                heads.velocity + velocity[0] + velocity[1] * x, growth=heads.growth + growth[0] + growth[1] * x[:, 0]
            )

        return objective(field, batch, generator=cf.generator(5))

    best = losses()
    for change in ((0.1, 0), (-0.1, 0), (0, 0.1), (0, -0.1)):
        assert best["velocity"] < losses(velocity=change)["velocity"]
        assert best["growth"] < losses(growth=change)["growth"]


@pytest.mark.parametrize("objective", [GrowthMatching(), BridgeMatching(growth_weight=1.0)])
def test_growth_within_a_short_interval_is_faster(objective, rng):
    """A gain of one e-fold within a quarter of the time is a rate of four."""
    x, gain = torch.zeros(40, 1), torch.ones(40)
    batch = cf.Batch(x, x, 0.5 * gain, 0.75 * gain, log_mass0=0 * gain, log_mass1=gain)

    def error(rate):
        field = lambda t, x, condition: Outputs(x, x, torch.full_like(t, rate))  # noqa: E731
        return objective(field, batch, generator=rng)["growth"].item()

    assert error(4.0) == pytest.approx(0, abs=1e-10)
    assert error(1.0) > 0.1


def test_masses_are_what_the_errors_are_weighted_by(rng):
    """Without masses the minimum is elsewhere: the mean slope of all pairs, not of the heavy ones."""
    batch = tilted(50_000, rng)
    field = lambda t, x, c: Outputs(exact(t, x).velocity, growth=exact(t, x).growth)  # noqa: E731
    plain = GrowthMatching()(field, batch, generator=cf.generator(1))
    scaled = batch._replace(log_mass0=batch.log_mass0 + 1, log_mass1=batch.log_mass1 + 1)
    heavier = GrowthMatching()(field, scaled, generator=cf.generator(1))
    assert heavier["loss"].item() == pytest.approx(math.e * plain["loss"].item(), rel=1e-4)
    weighted, unweighted = (
        VelocityMatching()(lambda t, x, c: exact(t, x).velocity, pairs, generator=cf.generator(1))["loss"].item()
        for pairs in (batch, batch._replace(log_mass0=None, log_mass1=None))
    )
    assert weighted == plain["velocity"].item()
    assert abs(unweighted - weighted) > 0.01


def test_units_and_weight_of_the_terms(rng):
    batch = tilted(64, rng)
    zero = lambda t, x, c: Outputs(torch.zeros_like(x), growth=torch.zeros_like(t))  # noqa: E731
    plain, other = (
        objective(zero, batch, generator=cf.generator(0))
        for objective in (GrowthMatching(), GrowthMatching(growth_weight=3.0, unit=2.0))
    )
    assert other["velocity"].item() == pytest.approx(plain["velocity"].item() / 4)
    assert other["loss"].item() == pytest.approx(plain["velocity"].item() / 4 + 3 * plain["growth"].item())


def take(batches, n):
    stream = batches.iterate(0)
    found = [next(stream) for _ in range(n)]
    stream.close()
    return found


def drawn(batches, n):
    """All pairs of n steps, as one batch."""
    return cf.Batch._make(None if part[0] is None else torch.cat(part) for part in zip(*take(batches, n), strict=True))


@pytest.mark.parametrize("ot_batch_size", ["whole", 20])
@pytest.mark.parametrize("masses", [(1.0, 1.0), (2.0, 6.0)])
def test_masses_of_the_pairs_add_up_to_both_snapshots(ot_batch_size, masses, rng):
    """Source points that the plan avoids still count in full at the beginning, and targets at the end."""
    x0, x1 = torch.randn(20, 1, generator=rng), 0.5 * torch.randn(20, 1, generator=rng) + 1
    batches = paired_batches(
        x0, x1, coupling=UNBALANCED, masses=masses, batch_size=400, ot_batch_size=ot_batch_size, generator=rng
    )
    pairs = drawn(batches, 64)
    ratio, n = masses[1] / masses[0], len(pairs.x0)
    for points, ends, log_mass, total in (
        (x0, pairs.x0, pairs.log_mass0, ratio**-0.5),
        (x1, pairs.x1, pairs.log_mass1, ratio**0.5),
    ):
        index = (ends == points.T).float().argmax(dim=1)
        found = torch.zeros(20).index_add_(0, index, log_mass.exp()) / n * 20
        assert torch.allclose(found, torch.full((20,), total), rtol=0.05)
        assert log_mass.exp().max() <= 2 * total * (1 + 1e-5)


def test_growth_of_a_pair_is_the_difference_of_the_potentials(rng):
    """By optimality the marginals are a exp(-f / relaxation) and b exp(-g / relaxation), whatever was drawn."""
    x0, x1 = torch.randn(30, 2, generator=rng), torch.randn(40, 2, generator=rng) + 1
    coupling = UnbalancedSinkhorn(epsilon=0.3, relaxation=(2.0, 5.0), tolerance=1e-10)
    batches = paired_batches(x0, x1, coupling=coupling, masses=(1.0, 1.0), batch_size=200, generator=rng)
    batch, (f, g) = next(iter(batches)), batches.plans[0].potentials
    i, j = ((side[:, None] == points).all(2).float().argmax(1) for side, points in ((batch.x0, x0), (batch.x1, x1)))
    assert torch.allclose(batch.log_mass1 - batch.log_mass0, (g[j] / 5 - f[i] / 2).float(), atol=1e-5)
    assert (batch.log_mass1 - batch.log_mass0).std() > 0.1


@pytest.mark.parametrize("coupling", ALL_BALANCED, ids=repr)
@pytest.mark.parametrize("ot_batch_size", ["whole", 16])
def test_a_balanced_plan_grows_by_the_ratio_of_the_masses(coupling, ot_batch_size, rng):
    x0, x1 = torch.randn(2, 24, 2, generator=rng)
    settings = {"coupling": coupling, "batch_size": 8, "ot_batch_size": ot_batch_size}
    still = paired_batches(x0, x1, masses=(5.0, 5.0), generator=cf.generator(2), **settings)
    plain = paired_batches(x0, x1, generator=cf.generator(2), **settings)
    for batch, usual in zip(take(still, 3), take(plain, 3), strict=True):
        assert torch.allclose(batch.log_mass0, torch.zeros(8), atol=1e-6)
        assert torch.allclose(batch.log_mass1, torch.zeros(8), atol=1e-6)
        assert usual.log_mass0 is None
        assert usual.log_mass1 is None
        if not isinstance(coupling, Sinkhorn):  # whose plan is drawn from anew, as its marginals are nearly exact
            assert torch.equal(batch.x0, usual.x0)
            assert torch.equal(batch.x1, usual.x1)
        weighted = GrowthMatching()(lambda t, x, c: Outputs(x, growth=0 * t), batch, generator=cf.generator(1))
        velocity = VelocityMatching()(lambda t, x, c: x, batch, generator=cf.generator(1))
        assert weighted["loss"].item() == pytest.approx(velocity["loss"].item(), rel=1e-5)
        assert weighted["growth"].item() == pytest.approx(0, abs=1e-10)
    if not isinstance(coupling, Given):  # whose pairs have one weight each
        batch = next(iter(paired_batches(x0, x1, masses=(1.0, 3.0), generator=rng, **settings)))
        assert torch.allclose(batch.log_mass1 - batch.log_mass0, torch.full((8,), math.log(3)), atol=1e-6)


def test_towards_infinite_relaxation_nobody_grows(rng):
    x0, x1 = torch.randn(40, 2, generator=rng), torch.randn(50, 2, generator=rng) + 1
    spread = []
    for relaxation in (1.0, 10.0, 1e5):
        coupling = UnbalancedSinkhorn(0.3, relaxation, tolerance=1e-8)
        batches = paired_batches(x0, x1, coupling=coupling, masses=(1.0, 1.0), batch_size=500, generator=rng)
        batch = next(iter(batches))
        spread.append((batch.log_mass1 - batch.log_mass0).abs().max().item())
    balanced = Sinkhorn(0.3, tolerance=1e-8)(x0, x1)
    assert spread[0] > spread[1] > spread[2]
    assert spread[2] < 1e-3
    assert torch.allclose(batches.plans[0].dense(), balanced.dense(), atol=1e-5)


def test_every_interval_counts_alike_and_units_of_mass_cancel(rng):
    clouds = [torch.randn(30, 1, generator=rng) + k for k in range(3)]
    found = [
        next(iter(snapshot_batches(
            clouds, [0.0, 0.5, 1.0], coupling=UNBALANCED, masses=[unit * m for m in (1.0, 10.0, 100.0)],
            batch_size=200, generator=cf.generator(3),
        )))
        for unit in (1.0, 1e6)
    ]  # fmt: skip
    assert torch.allclose(found[0].log_mass0, found[1].log_mass0, atol=1e-4)
    assert torch.allclose(found[0].log_mass1, found[1].log_mass1, atol=1e-4)
    for interval in range(2):
        part = slice(200 * interval, 200 * (interval + 1))
        assert found[0].log_mass0[part].exp().mean().item() == pytest.approx(10**-0.5, rel=0.1)
        assert found[0].log_mass1[part].exp().mean().item() == pytest.approx(10**0.5, rel=0.1)


class Lineage:
    """Cells below 0 have one daughter, those above have three; the daughters' numbers are known."""

    def __init__(self, parents):
        self.parents = parents

    def __call__(self, x0, x1, a=None, b=None):
        daughters, m = torch.arange(len(x1)), len(x1)
        return SparsePlan(self.parents, daughters, torch.full((m,), 1 / m), shape=(len(x0), m))


def lineage(rng):
    x0 = torch.cat([torch.rand(100, 1, generator=rng) - 2, torch.rand(100, 1, generator=rng) + 1])
    parents = torch.arange(200).repeat_interleave(torch.cat([torch.ones(100), torch.full((100,), 3)]).long())
    return x0, x0[parents] + 0.5, parents


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_trained_field_knows_the_number_of_daughters(kind, rng):
    x0, x1, parents = lineage(rng)
    batches = paired_batches(x0, x1, coupling=Lineage(parents), masses=(1.0, 2.0), batch_size=128, generator=rng)
    batch = next(iter(batches))
    assert torch.allclose(batch.log_mass1 - batch.log_mass0, torch.where(batch.x0 < 0, 0, math.log(3))[:, 0], atol=1e-5)
    make = partial(MLP, 1, width=32, depth=1)
    with seeded(rng):
        field = Heads(make(heads=2), growth="shared") if kind == "shared" else Heads(make(), growth=make())
    cf.training.fit(field, GrowthMatching(), batches, steps=500, generator=rng)
    found = grow(field, x0)
    growth = found.log_weight[-1] - found.log_weight[0]
    assert growth[:100].mean().item() == pytest.approx(0, abs=0.1)
    assert growth[100:].mean().item() == pytest.approx(math.log(3), abs=0.1)
    assert found.mass()[-1].item() == pytest.approx(2, rel=0.05)
    velocity = GrowthMatching().velocity(field)
    assert torch.allclose(ode(velocity, x0).x[-1], found.x[-1], atol=1e-6)
    assert torch.allclose(found.x[-1], x0 + 0.5, atol=0.15)


def seasonal(t, x, condition=None):
    """dx/dt = -x, d log w / dt = cos t + x: log w = sin t + x0 (1 - exp(-t))."""
    return Outputs(-x, growth=torch.cos(t) + x.flatten(1).sum(1))


@pytest.mark.parametrize("method", TABLES)
def test_weights_converge_with_the_order_of_the_method(method):
    x0 = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    truth = math.sin(1) + x0[:, 0] * (1 - math.exp(-1)) - math.log(5)
    errors = [
        (grow(seasonal, x0, solver=Fixed(method, steps=steps)).log_weight[-1] - truth).abs().max()
        for steps in (8, 16, 32)
    ]
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(TABLES[method].order, abs=0.35)


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_backward_in_time_growth_is_undone(method):
    x0, start = torch.randn(7, 2, generator=cf.generator(0), dtype=torch.float64), torch.linspace(0, 0.5, 7)
    log_weight = torch.linspace(-3, 2, 7, dtype=torch.float64)
    there = grow(seasonal, x0, start=start, stop=1.5, log_weight=log_weight, solver=method, save=4)
    back = grow(seasonal, there.x[-1], start=1.5, stop=start, log_weight=there.log_weight[-1], solver=method)
    assert there.t.shape == (4, 7)
    assert (there.log_weight[-1] - log_weight).abs().max() > 0.2
    assert torch.allclose(back.x[-1], x0, atol=1e-4)
    assert torch.allclose(back.log_weight[-1], log_weight, atol=1e-4)


@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 2, 5, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weighted_states_keep_shape_and_dtype(shape, dtype):
    field = lambda t, x, c: Outputs(torch.ones_like(x), growth=torch.full_like(t, 2.0))  # noqa: E731
    found = grow(field, torch.zeros(shape, dtype=dtype), solver=4, save=3)
    assert found.x.shape == (3, *shape)
    assert found.log_weight.shape == (3, 4)
    assert found.x.dtype == found.log_weight.dtype == dtype
    assert torch.allclose(found.x[-1], torch.ones(shape, dtype=dtype))
    assert found.mass().tolist() == pytest.approx([1, math.e, math.e**2], rel=1e-4)


BRANCHES = cf.datasets.simulated.Branching(speed=0.3, growth=(-0.3, 0.7))


def true_sizes(times):
    """Size of the branching population at each time, from its law and many founders."""
    founders = BRANCHES.spread * np.random.default_rng(0).normal(size=(200_000, 2))
    founders[:, 1] = np.tanh(founders[:, 1])
    return {time: float(np.exp(BRANCHES.log_weight(founders, time)).mean()) for time in times}


@pytest.fixture(scope="module", params=[pytest.param("separate", marks=pytest.mark.slow), "shared"])
def branches(request):
    """Branching cells, half as many at the end, and a flow that was told how large the population is."""
    adata = cf.datasets.branching((600, 400, 300), times=(0.0, 1.0, 2.0), law=BRANCHES, seed=1)
    flow = cf.SnapshotFlow(
        rep="X_latent",
        coupling=UnbalancedSinkhorn(0.02, 1.0),
        growth=True,
        heads=request.param,
        masses=true_sizes((0.0, 1.0, 2.0)),
        network=partial(MLP, width=64),
        steps=600,
        batch_size=128,
        device="cpu",
    )
    return adata, flow.fit(adata)


def at(adata, time, key="X_latent"):
    return adata.obsm[key][(adata.obs["time"] == time).to_numpy()]


def test_the_population_grows_as_it_was_said_to(branches):
    adata, flow = branches
    found = flow.grow(at(adata, 0.0), start=0, stop=2, save=3)
    assert found.t.tolist() == pytest.approx([0, 1, 2])
    assert found.mass().tolist() == pytest.approx(list(flow.masses_), rel=0.03)
    assert flow.masses_[-1] > 1.4


def test_branches_that_divide_faster_are_found(branches):
    adata, flow = branches
    cf.tl.growth(adata, flow, sensitivity=False)
    late = (adata.obs["time"] == 2).to_numpy()
    growth, truth = adata.obs["growth"][late], adata.obs["growth_rate"][late]
    assert np.corrcoef(growth, truth)[0, 1] > 0.6
    found, expected = (rate.groupby(adata.obs["fate"][late], observed=True).mean() for rate in (growth, truth))
    assert found["upper"] - found["lower"] == pytest.approx(expected["upper"] - expected["lower"], abs=0.25)
    assert growth.mean() == pytest.approx(truth.mean(), abs=0.15)


def test_weighted_particles_are_nearer_to_the_measured_cells(branches):
    adata, flow = branches
    found, end = flow.grow(at(adata, 0.0), start=0, stop=2), at(adata, 2.0)
    weighted = cf.metrics.wasserstein(found.x[-1], end, weights_x=found.log_weight[-1].exp())
    assert weighted < 0.5 * cf.metrics.wasserstein(found.x[-1], end)
    assert weighted < cf.metrics.split_half_floor(torch.from_numpy(end), generator=cf.generator(0))


def test_interpolated_cells_weigh_as_their_descendants_are_many(branches):
    adata, flow = branches
    for origin, start in (("before", 0.0), ("after", 1.0)):
        middle = cf.tl.interpolate(adata, flow, at=0.5, origin=origin)
        expected = flow.grow(at(adata, start), start=start, stop=0.5).log_weight[-1].exp().numpy()
        weight = middle.obs["weight"].to_numpy()
        assert weight == pytest.approx(expected / expected.sum(), rel=1e-4)
        assert weight.max() > 1.1 * weight.min()
    both = cf.tl.interpolate(adata, flow, at=[0.25, 1.0]).obs
    sides = both[both["time"] == 0.25].groupby("origin_time")["weight"].sum()
    assert sides.to_dict() == pytest.approx({0.0: 0.75, 1.0: 0.25})
    assert both[both["time"] == 1.0]["weight"].to_numpy() == pytest.approx(1 / 400)


def test_descendants_are_counted_and_ancestors_are_not(branches):
    """All founders together have the descendants that were measured: their fates, pushed, are those of the last day."""
    adata, flow = branches
    cf.tl.push(adata, flow, cells=adata.obs["time"] == 0, at=2, groupby="fate")
    pushed = adata.uns["push"]["groups"]
    assert pushed.loc["upper", "mass"] == pytest.approx(pushed.loc["upper", "share"], abs=0.06)
    assert pushed.loc["upper", "mass"] > 0.55  # the branch that divides faster; founders alone are half and half
    last = adata.obs["time"] == 2
    cf.tl.pull(adata, flow, cells=last, at=2 - 1, groupby="fate")
    pulled = adata.uns["pull"]["groups"]
    share = (adata.obs["fate"][last] == "upper").mean()
    assert pulled.loc["upper", "mass"] == pytest.approx(share, abs=0.08)  # one ancestor each


def test_growth_survives_a_file_and_leaves_velocities_alone(branches, tmp_path):
    adata, flow = branches
    copy = cf.tl.growth(adata, flow, key_added="rate", sensitivity=False, copy=True)
    assert "rate" not in adata.obs
    copy.write_h5ad(tmp_path / "cells.h5ad")
    back = anndata.read_h5ad(tmp_path / "cells.h5ad")
    expected = flow.growth_rate(adata.obsm["X_latent"], adata.obs["time"].to_numpy())
    assert (back.obs["rate"] == expected).all()
    assert back.uns["rate"] == {"rep": "X_latent", "time_key": "time", "unit": ""}
    x = at(adata, 1.0)[:20]
    step = flow.transport(x, start=1.0, stop=1.001).x[-1].numpy() - x
    assert flow.velocity(x, 1.0) == pytest.approx(step / 0.001, abs=0.02)
    assert torch.allclose(flow.transport(x, start=1, stop=2).x[-1], flow.grow(x, start=1, stop=2).x[-1], atol=1e-5)


def test_a_saved_flow_grows_the_same(branches, tmp_path):
    adata, flow = branches
    flow.save(tmp_path)
    back, x = cf.SnapshotFlow.load(tmp_path, device="cpu"), at(adata, 0.0)
    assert torch.equal(back.grow(x, start=0, stop=2).log_weight, flow.grow(x, start=0, stop=2).log_weight)
    assert (back.growth_rate(x, 0.0) == flow.growth_rate(x, 0.0)).all()
    assert back.masses == flow.masses
    assert back.masses_ == flow.masses_
    assert back.growth == flow.growth


def test_validation_knows_weighted_cells(cells):
    flow = cf.SnapshotFlow(**QUICK, coupling=UNBALANCED, growth=True, masses={0: 1.0, 1: 2.0, 5: 8.0})
    cf.tl.validate(cells, flow)
    assert np.isfinite(cells.uns["validation"]["W1"]).all()


@pytest.mark.parametrize("coupling", ["exact", UnbalancedSinkhorn(1.0, 100.0)], ids=repr)
def test_counts_are_sizes(coupling):
    adata = make_cells(sizes=(60, 90, 180))
    flow = cf.SnapshotFlow(
        **QUICK | {"steps": 400}, coupling=coupling, growth=True, masses="counts", network=partial(MLP, width=32)
    ).fit(adata)
    assert flow.masses_ == (1.0, 1.5, 3.0)
    first = adata.obsm["X_pca"][(adata.obs["day"] == 0).to_numpy()]
    for time, size in zip(flow.clock_.times, flow.masses_, strict=True):
        assert flow.grow(first, start=0, stop=time).mass()[-1].item() == pytest.approx(size, rel=0.05)


def test_rates_are_per_unit_of_the_users_time(cells):
    slow = cells.copy()
    slow.obs["day"] = 24 * cells.obs["day"]
    settings = QUICK | {"growth": True, "masses": "counts"}
    fast, slow = (cf.SnapshotFlow(**settings).fit(adata) for adata in (cells, slow))
    x = cells.obsm["X_pca"]
    assert slow.growth_rate(x, 24.0) * 24 == pytest.approx(fast.growth_rate(x, 1.0), rel=1e-4, abs=1e-6)


def test_lengths_of_time_name_the_sizes_too(cells, tmp_path):
    cells.obs["day"] = pd.to_timedelta(cells.obs["day"], unit="D")
    masses = {
        pd.Timedelta(days=0): 1.0,
        pd.Timedelta(days=1): 2.0,
        pd.Timedelta(days=5): 3.0,
        pd.Timedelta(days=9): 4.0,
    }
    flow = cf.SnapshotFlow(**QUICK, growth=True, masses=masses).fit(cells)
    flow.save(tmp_path)
    assert flow.masses_ == (1.0, 2.0, 3.0)
    assert cf.SnapshotFlow.load(tmp_path).masses == {0.0: 1.0, 1.0: 2.0, 5.0: 3.0, 9.0: 4.0}


def test_a_fit_resumes_only_with_the_same_masses(cells, tmp_path):
    settings = QUICK | {"growth": True, "masses": "counts"}
    cf.SnapshotFlow(**settings).fit(cells, run=cf.Run(tmp_path))
    with pytest.raises(CheckpointError, match="masses"):
        cf.SnapshotFlow(**settings | {"masses": {0: 1, 1: 2, 5: 3}}).fit(cells, run=cf.Run(tmp_path, resume=True))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"growth": True, "coupling": "exact"}, "Exact keeps the mass of every cell.*UnbalancedSinkhorn"),
        ({"growth": True, "coupling": "independent"}, "Independent keeps the mass"),
        ({"growth": True, "coupling": "exact", "masses": {0: 2, 1: 2, 5: 2}}, "growth is 0 everywhere"),
        ({"masses": "counts", "coupling": "exact"}, "Set `growth=True`"),
        ({"growth": True, "masses": {0: 1.0, 5: 2.0}}, "No size at time 1 in `masses`; it has 0, 5"),
        ({"growth": True, "masses": {0: 1.0, 1: -2.0, 5: 1.0}}, "finite sizes above 0"),
        ({"growth": True, "masses": "sizes"}, "None, 'counts' or a mapping from time to size; found 'sizes'"),
        ({"growth": True, "masses": [1, 2, 3]}, "a mapping from time to size"),
        ({"growth": True, "masses": {"early": 1.0}}, "`masses` holds 'early': not numbers"),
    ],
)
def test_impossible_settings_are_named(cells, changed, words):
    with pytest.raises(ValueError, match=words):
        cf.SnapshotFlow(**QUICK | changed).fit(cells)


def test_equal_counts_do_not_grow(cells):
    equal = make_cells(sizes=(40, 40, 40))
    with pytest.raises(ValueError, match="growth is 0 everywhere"):
        cf.SnapshotFlow(**QUICK, coupling="exact", growth=True, masses="counts").fit(equal)


def test_a_flow_without_growth_says_how_to_learn_it(cells):
    adata, flow = cells, cf.SnapshotFlow(**QUICK, coupling="exact").fit(cells)
    for ask in (
        lambda: flow.grow(adata.obsm["X_pca"], start=0, stop=5),
        lambda: flow.growth_rate(adata.obsm["X_pca"], 1.0),
        lambda: cf.tl.growth(adata, flow),
    ):
        with pytest.raises(TypeError, match="fitted without growth.*UnbalancedSinkhorn"):
            ask()


def test_points_that_nothing_is_matched_with_are_counted(rng):
    x0, x1 = torch.zeros(5, 1), torch.zeros(5, 1)
    x0[0] = 1000.0
    with pytest.raises(ValueError, match="1 source and 0 target points have no mass in the plan.*Raise `relaxation`"):
        paired_batches(x0, x1, coupling=UnbalancedSinkhorn(1.0, 1.0), masses=(1.0, 1.0), generator=rng)


@pytest.mark.parametrize("masses", [(1.0,), (1.0, 2.0, 3.0), (1.0, 0.0), (1.0, math.inf), (math.nan, 1.0)])
def test_masses_of_batches_are_checked(masses, rng):
    with pytest.raises(ValueError, match="finite size above 0 for each of 2 snapshots"):
        paired_batches(torch.zeros(3, 1), torch.zeros(3, 1), masses=masses, generator=rng)


def test_fields_and_batches_without_growth_are_named(rng):
    with seeded(rng):
        plain, double = MLP(2), MLP(2, heads=2)
    batch = cf.Batch(torch.zeros(4, 2), torch.ones(4, 2))
    whole = batch._replace(log_mass0=torch.zeros(4), log_mass1=torch.zeros(4))
    with pytest.raises(ValueError, match="masses at both ends.*masses="):
        GrowthMatching()(Heads(double, growth="shared"), batch, generator=rng)
    with pytest.raises(TypeError, match="velocity and a growth; this one returned no growth.*Heads.*GrowthMatching"):
        GrowthMatching()(plain, whole, generator=rng)
    with pytest.raises(TypeError, match='growth="shared"'):
        grow(plain, torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"\(4,\); found shape \(4, 1\)"):
        outputs(Outputs(torch.zeros(4, 2), growth=torch.zeros(4, 1)), growth=True)
    with pytest.raises(ValueError, match=r"2 heads, \(n, 4\); found one that returns \(4, 2\)"):
        Heads(plain, growth="shared")(torch.zeros(4), torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"one weight for each of 4 states; found shape \(3,\)"):
        grow(seasonal, torch.zeros(4, 2), log_weight=torch.zeros(3))
    for weight in (0.0, -1.0, math.inf):
        with pytest.raises(ValueError, match="growth_weight > 0"):
            GrowthMatching(growth_weight=weight)
    with pytest.raises(ValueError, match="unit > 0"):
        GrowthMatching(unit=0.0)
