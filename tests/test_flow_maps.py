"""Flow maps against the closed form for Gaussians: networks, objectives, jumps."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import cellflow as cf
from cellflow.fields import VelocityOf
from cellflow.integrate import jump, ode
from cellflow.networks import MLP, FlowMap, Heads, Standardized, UNet
from cellflow.objectives import (
    EulerianMatching,
    FlowMapMatching,
    LagrangianMatching,
    MeanVelocityMatching,
    SemigroupMatching,
    VelocityMatching,
)

ALL_OBJECTIVES = [
    LagrangianMatching(),
    LagrangianMatching(stop_gradient=False),
    EulerianMatching(),
    EulerianMatching(stop_gradient=True),
    MeanVelocityMatching(),
    SemigroupMatching(),
    SemigroupMatching(split="middle"),
    SemigroupMatching(stop_gradient=False),
    FlowMapMatching(),
]
WITH_SPANS = [(objective, spans) for objective in ALL_OBJECTIVES for spans in objective.known_spans]
ONE_EACH = [LagrangianMatching(), EulerianMatching(), MeanVelocityMatching(), SemigroupMatching(), FlowMapMatching()]
SEMIGROUP_AND_SLOW = [
    objective if isinstance(objective, SemigroupMatching) else pytest.param(objective, marks=pytest.mark.slow)
    for objective in ONE_EACH
]
"""For trainings: the targets of all objectives are held by closed forms besides."""
NETWORKS = {"mlp": lambda: MLP(dim=2, width=16, times=2), "unet": lambda: UNet(2, width=8, multipliers=(1, 2), times=2)}
STATES = {"mlp": (6, 2), "unet": (6, 2, 4, 4)}

M0, S0, M1, S1 = 0.0, 1.0, 2.0, 0.5


def centre(t):
    return M0 + t * (M1 - M0)


def spread(t):
    return ((1 - t) ** 2 * S0**2 + t**2 * S1**2).sqrt()


class Exact(nn.Module):
    """The flow map of independent Gaussians on straight lines; ``bend`` makes it wrong by so much."""

    def __init__(self, spans="forward", bend=0.0, shape=(-1, 1)):
        super().__init__()
        self.spans, self.shape = spans, shape
        self.bend = nn.Parameter(torch.tensor(bend, dtype=torch.float64))

    def forward(self, t, x, condition=None):
        s, t = (t, t) if t.ndim == 1 else t.unbind(1)
        s, t = s.reshape(self.shape), t.reshape(self.shape)
        # (X - x) / (t - s) with the difference of the spreads divided out
        slope = (S0**2 * (t + s - 2) + S1**2 * (t + s)) / ((spread(t) + spread(s)) * spread(s))
        return M1 - M0 + slope * (x - centre(s)) + self.bend * (t - s)


def transport(s, t, x):
    """In one dimension the flow keeps the order: every quantile goes to its own."""
    return centre(t) + spread(t) / spread(s) * (x - centre(s))


class Affine(nn.Module):
    """``a + b x`` with coefficients read off both times: enough for Gaussians, and quickly trained."""

    times = 2

    def __init__(self):
        super().__init__()
        self.read = nn.Sequential(cf.networks.TimeEmbedding(16, times=2, harmonics=1), nn.SiLU(), nn.Linear(16, 2))

    def forward(self, t, x, condition=None):
        a, b = self.read(t).chunk(2, dim=1)
        return a + b * x


def gaussians(n, rng, dtype=torch.float64):
    x0, x1 = torch.randn(2, n, 1, generator=rng, dtype=dtype)
    return cf.Batch(M0 + S0 * x0, M1 + S1 * x1)


def drawn(module, rng):
    """Give every weight a value: last layers start at zero."""
    for weight in module.parameters():
        nn.init.normal_(weight, std=0.3, generator=rng)
    return module


def train(objective, flow_map, batch, *, steps, rate=1e-2, seed=0, rows_each=128):
    """Train with Adam on fresh draws from one large batch; return the loss of every step."""
    rng, losses = cf.generator(seed), []
    optimizer = torch.optim.Adam(flow_map.parameters(), lr=rate)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        rows = torch.randint(len(batch.x0), (rows_each,), generator=rng)
        loss = objective(flow_map, cf.Batch(batch.x0[rows], batch.x1[rows]), generator=rng)["loss"]
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(flow_map.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


# Networks


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("spans", ["forward", "both", "end"])
def test_a_map_is_the_identity_on_the_diagonal_and_its_velocity_is_a_field(kind, spans, rng):
    flow_map = drawn(FlowMap(NETWORKS[kind](), spans=spans), rng)
    x, t = torch.randn(STATES[kind], generator=rng), torch.rand(6, generator=rng)
    assert torch.equal(flow_map.jump(t, t, x), x)
    assert not torch.allclose(flow_map.jump(t, t + 0.1, x), x, atol=1e-3)
    assert torch.equal(flow_map(t, x), flow_map(torch.stack([t, t], dim=1), x))
    assert ode(flow_map, x, solver=3).x[-1].shape == x.shape


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_map_leaves_with_its_velocity(kind, rng):
    """The tangent condition: the end of a jump without length moves with the velocity."""
    flow_map = drawn(FlowMap(NETWORKS[kind]()), rng).double()
    x, s = torch.randn(STATES[kind], generator=rng).double(), torch.rand(6, generator=rng).double()
    step = 1e-6
    assert torch.allclose((flow_map.jump(s, s + step, x) - x) / step, flow_map(s, x), atol=1e-4)


def test_a_map_sees_when_a_jump_begins_and_how_long_it_is(rng):
    flow_map, x = drawn(FlowMap(MLP(dim=2, width=16, times=2, condition_dim=1)), rng), torch.ones(1, 2)
    base = flow_map(torch.tensor([[0.2, 0.6]]), x, torch.zeros(1, 1))
    for times, condition in (([0.2, 0.7], 0.0), ([0.3, 0.6], 0.0), ([0.3, 0.7], 0.0), ([0.2, 0.6], 1.0)):
        found = flow_map(torch.tensor([times]), x, torch.full((1, 1), condition))
        assert not torch.allclose(found, base, atol=1e-3)


def fields(rng):
    standard = {name: torch.tensor([2.0, 3.0]) for name in ("shift", "scale", "speed")}
    yield MLP(dim=2, width=16), (6, 2)
    yield Standardized(MLP(dim=2, width=16), **standard), (6, 2)
    yield VelocityOf(Heads(MLP(dim=2, width=16, heads=2), score="shared")), (6, 2)
    yield UNet(1, width=8, multipliers=(1, 2)), (6, 1, 4, 4)


@pytest.mark.parametrize("which", range(4))
def test_a_map_made_of_a_field_takes_its_euler_steps(which, rng):
    field, shape = list(fields(rng))[which]
    drawn(field, rng)
    before = {name: weight.clone() for name, weight in field.state_dict().items()}
    x, s, t = torch.randn(shape, generator=rng), torch.rand(6, generator=rng), torch.rand(6, generator=rng)
    flow_map = FlowMap.of(field)
    span = (t - s).reshape(-1, *(1,) * (x.ndim - 1))
    assert torch.allclose(flow_map.jump(s, t, x), x + span * field(s, x), atol=1e-4)
    assert torch.allclose(flow_map(s, x), field(s, x), atol=1e-4)
    drawn(flow_map, rng)
    assert all(torch.equal(weight, before[name]) for name, weight in field.state_dict().items())


def test_networks_without_a_second_time_are_refused():
    with pytest.raises(ValueError, match=r"MLP sees one.*times=2.*FlowMap\.of"):
        FlowMap(MLP(dim=2))
    with pytest.raises(ValueError, match="no `TimeEmbedding` in Linear"):
        FlowMap.of(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="one time; found one of 2"):
        FlowMap.of(FlowMap(MLP(dim=2, times=2)))
    with pytest.raises(ValueError, match="Unknown spans 'back'"):
        FlowMap(MLP(dim=2, times=2), spans="back")


# Objectives


@pytest.mark.parametrize(("objective", "spans"), WITH_SPANS, ids=repr)
def test_the_true_map_has_no_error_where_a_teacher_knows_the_velocity(objective, spans, rng):
    taught = type(objective)(**{**vars(objective), "teacher": Exact()})
    terms = taught(Exact(spans), gaussians(500, rng), generator=rng)
    assert terms["diagonal"] < 1e-20
    assert terms["jump"] < 1e-20
    wrong = taught(Exact(spans, bend=0.5), gaussians(500, rng), generator=rng)
    assert wrong["diagonal"] < 1e-20
    assert wrong["jump"] > 1e-3


@pytest.mark.parametrize(
    "objective", [o for o in ALL_OBJECTIVES if type(o) not in (MeanVelocityMatching, FlowMapMatching)]
)
def test_the_true_map_is_its_own_teacher(objective, rng):
    terms = objective(Exact(), gaussians(500, rng), generator=rng)
    assert terms["jump"] < 1e-20
    assert terms["diagonal"] > 0.1  # pairs cross, so single velocities are noisy
    assert objective(Exact(bend=0.5), gaussians(500, rng), generator=rng)["jump"] > 1e-3


@pytest.mark.parametrize(("objective", "spans"), [(MeanVelocityMatching, "forward"), (FlowMapMatching, "both")])
def test_pairs_alone_point_at_the_true_map(objective, spans, rng):
    """From noisy velocities of pairs the gradient vanishes at the true map, and points towards it from both sides."""
    batch, slopes = gaussians(100_000, rng), []
    for bend in (-0.3, 0.0, 0.3):
        field = Exact(spans, bend=bend)
        objective(diagonal=0.0, adaptive=0.0)(field, batch, generator=rng)["loss"].backward()
        slopes.append(field.bend.grad.item())
    assert slopes[0] < -0.02 < 0.02 < slopes[2]
    assert abs(slopes[1]) < 0.2 * min(-slopes[0], slopes[2])


@pytest.mark.parametrize("taught", [False, True])
@pytest.mark.parametrize("objective", SEMIGROUP_AND_SLOW, ids=lambda objective: type(objective).__name__)
def test_a_trained_map_is_the_known_transport(objective, taught, rng):
    """Identity, semigroup and tangent condition, and where every jump should land."""
    spans = objective.known_spans[0]
    flow_map = FlowMap(Affine(), spans=spans)
    trained = type(objective)(teacher=Exact().float() if taught else None, diagonal=0.5)
    train(trained, flow_map, gaussians(20_000, rng, torch.float32), steps=300, rate=3e-2)
    s = torch.rand(2000, generator=rng) / 5
    u, t = s + (1 - s) / 2, torch.ones(2000)
    x = (centre(s) + spread(s) * torch.randn(2000, generator=rng))[:, None]
    with torch.no_grad():
        end, velocity, truth = flow_map.jump(s, t, x), flow_map(s, x), Exact()(s, x)
        two = flow_map.jump(u, t, flow_map.jump(s, u, x))
    target = transport(s[:, None], t[:, None], x)
    off = [(found - target).square().mean().sqrt().item() for found in (x + (t - s)[:, None] * truth, end, two)]
    assert off[0] > 0.35  # one step along the true velocity
    assert max(off[1:]) < 0.25
    assert (end - two).square().mean().sqrt() < 0.25
    assert (velocity - truth).square().mean().sqrt() < 0.25


@pytest.mark.parametrize("objective", SEMIGROUP_AND_SLOW, ids=lambda objective: type(objective).__name__)
def test_image_maps_train_with_every_objective(objective, rng):
    """Every image brightens at the left and darkens at the right: all jumps do so in proportion to their length."""
    way = torch.cat([torch.ones(1, 4, 2), -torch.ones(1, 4, 2)], dim=2)
    x0 = 0.1 * torch.randn(256, 1, 4, 4, generator=rng)
    flow_map = FlowMap(UNet(1, width=8, multipliers=(1,), blocks=1, times=2), spans=objective.known_spans[0])
    train(objective, flow_map, cf.Batch(x0, x0 + way), steps=50, rate=2e-2, rows_each=24)
    s, t = torch.full((256,), 0.2), torch.full((256,), 0.7)
    with torch.no_grad():
        moved = flow_map.jump(s, t, x0 + 0.2 * way) - x0
    assert torch.equal(flow_map.jump(s, s, x0), x0)
    assert (moved - 0.7 * way).abs().mean() < 0.1


@pytest.mark.parametrize("objective", SEMIGROUP_AND_SLOW, ids=lambda objective: type(objective).__name__)
def test_ten_seeds_stay_finite_and_learn(objective, rng):
    batch = gaussians(2000, rng, torch.float32)
    for seed in range(10):
        torch.manual_seed(seed)
        flow_map = FlowMap(MLP(dim=1, width=16, depth=1, times=2), spans=objective.known_spans[0])
        losses = train(objective, flow_map, batch, steps=20, rate=2e-2, seed=seed, rows_each=64)
        assert all(loss < float("inf") for loss in losses)
        assert sum(losses[-5:]) / 5 < 0.7 * losses[0]


@pytest.mark.parametrize("kind", NETWORKS)
def test_training_in_threads_is_training_alone(kind):
    """torch has one level of forward mode for all threads, which some objectives enter and attention asks about."""

    def learn(objective):
        rng = cf.generator(0)
        flow_map = drawn(FlowMap(NETWORKS[kind](), spans=objective.known_spans[0]), rng)
        x = torch.randn(STATES[kind], generator=rng)
        train(objective, flow_map, cf.Batch(x, x + 1), steps=2, rows_each=4)
        return torch.cat([weight.detach().flatten() for weight in flow_map.parameters()])

    alone = [learn(objective) for objective in ONE_EACH]
    with ThreadPoolExecutor(8) as pool:
        for expected, found in zip(alone * 2, pool.map(learn, ONE_EACH * 2), strict=True):
            assert torch.equal(expected, found)


def test_the_loop_distils_a_fitted_field(rng):
    """From a fitted field to a map that starts from it: one jump does what twenty steps of four evaluations did."""
    x0, x1 = gaussians(2000, rng, torch.float32)[:2]
    batches = cf.pairing.paired_batches(x0, x1, coupling="independent", batch_size=128, generator=rng)
    recipe = cf.training.Recipe(learning_rate=1e-2, warmup=10, ema=0.9)
    teacher = MLP(dim=1, width=32, depth=1)
    cf.training.fit(teacher, VelocityMatching(), batches, steps=150, generator=rng, recipe=recipe)
    flow_map, whole = FlowMap.of(teacher), ode(teacher, x0).x[-1]
    before = (jump(flow_map, x0).x[-1] - whole).square().mean().sqrt()
    cf.training.fit(flow_map, LagrangianMatching(teacher=teacher), batches, steps=150, generator=rng, recipe=recipe)
    after = (jump(flow_map, x0).x[-1] - whole).square().mean().sqrt()
    assert after < 0.1 < 0.4 < before
    assert all(weight.grad is None for weight in teacher.parameters())


@pytest.mark.parametrize("objective", ONE_EACH, ids=lambda objective: type(objective).__name__)
def test_image_maps_train_in_mixed_precision(objective, rng):
    """Layers that compute in bf16 have derivatives in forward mode too, and about the same loss."""
    x = torch.randn(8, 1, 4, 4, generator=rng)
    flow_map = drawn(FlowMap(UNet(1, width=8, multipliers=(1, 2), times=2), spans=objective.known_spans[0]), rng)
    whole = objective(flow_map, cf.Batch(x, x + 1), generator=cf.generator(1))["loss"]
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        mixed = objective(flow_map, cf.Batch(x, x + 1), generator=cf.generator(1))["loss"]
    mixed.backward()
    assert mixed.item() == pytest.approx(whole.item(), rel=0.2)
    assert all(torch.isfinite(weight.grad).all() for weight in flow_map.parameters())


class Recording(nn.Module):
    """Stands still, and keeps the times with which it is called."""

    def __init__(self, spans):
        super().__init__()
        self.spans, self.seen = spans, []

    def forward(self, t, x, condition=None):
        if t.ndim == 2:
            self.seen.append(t)
        return torch.zeros_like(x)


@pytest.mark.parametrize(
    ("spans", "corners"),
    [("forward", {(0, 0): 1, (0, 1): 2, (1, 1): 1}), ("both", {(0, 0): 1, (0, 1): 1, (1, 0): 1, (1, 1): 1})],
)
def test_all_pairs_of_times_are_drawn_alike(spans, corners, rng):
    """Quarters of the square of (s, t) get jumps in proportion to their allowed area."""
    field, n = Recording(spans), 40_000
    batch = cf.Batch(torch.zeros(n, 1), torch.zeros(n, 1))
    LagrangianMatching(diagonal=0.0)(field, batch, generator=rng)
    assert len(field.seen) == 1
    quarter, total = (field.seen[0] > 0.5).long(), sum(corners.values())
    for i in (0, 1):
        for j in (0, 1):
            share = ((quarter[:, 0] == i) & (quarter[:, 1] == j)).double().mean().item()
            assert share == pytest.approx(corners.get((i, j), 0) / total, abs=0.01)


def test_consistency_jumps_all_end_at_one(rng):
    field = Recording("end")
    EulerianMatching(diagonal=0.0)(field, cf.Batch(torch.zeros(99, 1), torch.zeros(99, 1)), generator=rng)
    assert all((times[:, 1] == 1).all() for times in field.seen)


def test_jumps_begin_in_their_own_interval_and_end_anywhere_later(rng):
    """Pairs of the third quarter of model time: four times as fast, and no error for the map that knows."""
    n = 2000
    start, stop = torch.full((n,), 0.5), torch.full((n,), 0.75)
    batch = cf.Batch(torch.zeros(n, 1), torch.ones(n, 1), start, stop)
    for objective in ONE_EACH:
        field = Recording(objective.known_spans[0])
        objective(field, batch, generator=rng)
        times = field.seen[0]
        if objective.known_spans[0] == "forward":
            assert ((times[:, 0] >= 0.5) & (times[:, 0] <= 0.75) & (times[:, 1] >= times[:, 0])).all()
            assert times[:, 1].max() > 0.95

        def fast(t, x, condition):
            return torch.full_like(x, 4.0)

        fast.spans = objective.known_spans[0]
        assert objective(fast, batch, generator=rng)["loss"] < 1e-10


@pytest.mark.parametrize("objective", ALL_OBJECTIVES, ids=repr)
def test_the_loss_reaches_every_weight_and_passes_the_condition(objective, rng):
    flow_map = FlowMap(drawn(MLP(dim=2, width=16, condition_dim=3, times=2), rng), spans=objective.known_spans[0])
    batch = cf.Batch(torch.randn(32, 2, generator=rng), torch.ones(32, 2), condition=torch.eye(3)[torch.arange(32) % 3])
    objective(flow_map, batch, generator=rng)["loss"].backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in flow_map.parameters())


@pytest.mark.parametrize("objective", ALL_OBJECTIVES, ids=repr)
def test_the_share_on_the_diagonal_and_the_unit(objective, rng):
    field = Exact(objective.known_spans[0], bend=0.5)
    made = {share: type(objective)(**{**vars(objective), "diagonal": share, "adaptive": 0.0}) for share in (0.0, 0.5)}
    batch = gaussians(1000, rng)
    only, half = (made[share](field, batch, generator=cf.generator(1)) for share in (0.0, 0.5))
    assert "diagonal" not in only
    assert only["loss"] == only["jump"]
    assert half["loss"].item() == pytest.approx((half["diagonal"] + half["jump"]).item() / 2)
    tenth = type(objective)(**{**vars(objective), "diagonal": 0.5, "adaptive": 0.0, "unit": 10.0})
    assert tenth(field, batch, generator=cf.generator(1))["loss"].item() == pytest.approx(half["loss"].item() / 100)


def test_the_adaptive_weight_holds_large_errors_down(rng):
    """With power 1 every sample counts nearly 1, whatever its error; the gradient keeps its direction."""
    field = Exact(bend=0.5)
    terms = SemigroupMatching(adaptive=1.0)(field, gaussians(1000, rng), generator=rng)
    assert 0.8 < terms["loss"].item() < 1
    terms["loss"].backward()
    assert field.bend.grad > 0


@pytest.mark.usefixtures("global_state_is_untouched")
def test_the_seed_decides_everything():
    batch = gaussians(100, cf.generator(3))
    for objective in ONE_EACH:
        field = Exact(objective.known_spans[0], bend=0.5)
        first, again, other = (objective(field, batch, generator=cf.generator(k))["loss"] for k in (1, 1, 2))
        assert first == again != other


def test_wrong_settings_are_refused(rng):
    batch = gaussians(8, rng, torch.float32)
    for settings in ({"diagonal": 1.0}, {"diagonal": -0.1}, {"adaptive": -1.0}, {"unit": 0.0}):
        with pytest.raises(ValueError, match="Expected"):
            SemigroupMatching(**settings)
    with pytest.raises(ValueError, match="Unknown split 'thirds'"):
        SemigroupMatching(split="thirds")
    with pytest.raises(ValueError, match=r"FlowMapMatching needs .*'both'.*found 'forward'"):
        FlowMapMatching()(Exact(), batch, generator=rng)
    with pytest.raises(ValueError, match=r"SemigroupMatching needs .*found 'end'"):
        SemigroupMatching()(Exact("end"), batch, generator=rng)
    with pytest.raises(ValueError, match="same space"):
        SemigroupMatching(teacher=lambda t, x, condition: torch.zeros(len(x), 3))(Exact(), batch, generator=rng)
    with pytest.raises(ValueError, match="times=2"):
        SemigroupMatching()(MLP(dim=1), batch, generator=rng)


class Attending(nn.Module):
    """A network of two times with torch's fused attention."""

    spans = "forward"

    def forward(self, t, x, condition=None):
        tokens = (x[:, None, :, None] + t.sum(dim=-1).reshape(-1, 1, 1, 1)).repeat(1, 1, 1, 4)
        return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens).mean(dim=(1, 3))


def test_attention_without_forward_mode_names_the_switch(rng):
    x = torch.randn(8, 3, generator=rng)
    batch = cf.Batch(x, x + 1)
    for objective in (LagrangianMatching(), EulerianMatching(), MeanVelocityMatching()):
        with pytest.raises(NotImplementedError, match=r"forward mode.*SemigroupMatching.*SDPBackend\.MATH"):
            objective(Attending(), batch, generator=rng)
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            assert torch.isfinite(objective(Attending(), batch, generator=rng)["loss"])
    assert torch.isfinite(SemigroupMatching()(Attending(), batch, generator=rng)["loss"])


# Jumps


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize(("start", "stop"), [(0.0, 1.0), (0.2, 0.7), (0.9, 0.1)])
def test_jumps_of_the_true_map_land_where_they_should(steps, start, stop, rng):
    x = torch.randn(50, 1, generator=rng, dtype=torch.float64)
    found = jump(Exact("both"), x, steps=steps, start=start, stop=stop)
    assert found.evaluations == steps
    assert found.t.tolist() == pytest.approx(torch.linspace(start, stop, steps + 1).tolist())
    for t, state in zip(found.t, found.x, strict=True):
        assert torch.allclose(state, transport(torch.tensor(start, dtype=torch.float64), t, x), atol=1e-12)


def test_every_sample_may_have_its_own_times(rng):
    x, start, stop = (torch.rand(5, *size, generator=rng).double() for size in ((1,), (), ()))
    found = jump(Exact("both"), x, steps=3, start=start, stop=stop)
    assert found.t.shape == (4, 5)
    assert torch.allclose(found.x[-1], transport(start[:, None], stop[:, None], x), atol=1e-12)
    assert not found.x.requires_grad


def test_jumps_that_were_not_learned_are_refused():
    x = torch.zeros(3, 1)
    with pytest.raises(ValueError, match=r"whole number >= 1; found 0"):
        jump(Exact(), x, steps=0)
    with pytest.raises(ValueError, match="spans='both'"):
        jump(Exact(), x, start=1.0, stop=0.5)
    with pytest.raises(ValueError, match="spans='both'"):
        jump(Exact(), x, start=0.5, stop=torch.tensor([0.6, 0.4, 0.5]))
    with pytest.raises(ValueError, match="jumps to time 1"):
        jump(Exact("end"), x, stop=0.5)
    with pytest.raises(ValueError, match="jumps to time 1"):
        jump(Exact("end"), x, steps=2)
    assert jump(Exact("end"), x, start=0.4).x.shape == (2, 3, 1)
    with pytest.raises(ValueError, match="MLP, which may see only one time"):
        jump(MLP(dim=1), x)
    with pytest.raises(ValueError, match="shape"):
        jump(lambda t, x, condition: x[:1], x)
    with pytest.raises(cf.errors.ConvergenceError, match="NaN or infinity"):
        jump(lambda t, x, condition: x / 0, x)
