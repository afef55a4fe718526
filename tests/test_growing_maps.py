"""Flow maps with growth against a closed form: objectives, jumps with weights, distilled flows."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from parts import FLOW_MAP_OBJECTIVES
from test_saved import SAVED
from torch import nn

import cellflow as cf
from cellflow.fields import Outputs
from cellflow.integrate import Fixed, Jumps, grow, jump
from cellflow.networks import MLP, FlowMap, Heads
from cellflow.objectives import (
    EulerianMatching,
    FlowMapMatching,
    LagrangianMatching,
    MeanVelocityMatching,
    SemigroupMatching,
    TrajectoryMatching,
)
from cellflow.training import trajectory_batches
from cellflow.training.distillation import OBJECTIVES

STRETCH, SLOPE, NOISE = 1.5, 0.8, 0.6
"""Pairs go from x0 to (1 + STRETCH) x0 and gain SLOPE x0 in log mass, give or take the NOISE."""
WITH_SPANS = [
    (objective, spans)
    for objective in (*FLOW_MAP_OBJECTIVES, LagrangianMatching(stop_gradient=False), SemigroupMatching(split="uniform"))
    for spans in objective.known_spans
]


def width(t):
    return 1 + STRETCH * t


class Exact(nn.Module):
    """The population's own map. Where pairs meet, heavier ones count more: a rate of NOISE^2 t beside the mean.

    ``bend`` makes the jumps of log weight wrong by so much.
    """

    growth = True

    def __init__(self, spans="both", bend=0.0):
        super().__init__()
        self.spans, self.bend = spans, nn.Parameter(torch.tensor(bend, dtype=torch.float64))

    def forward(self, t, x, condition=None):
        s, t = (t, t) if t.ndim == 1 else t.unbind(1)
        origin = x / width(s)[:, None]
        rate = SLOPE * origin[:, 0] + NOISE**2 * (s + t) / 2
        return Outputs(STRETCH * origin, growth=rate + self.bend * (t - s))


def pairs(n, rng, dtype=torch.float64):
    x0, noise = torch.randn(n, 1, generator=rng, dtype=dtype), NOISE * torch.randn(n, generator=rng, dtype=dtype)
    masses = {"log_mass0": torch.zeros(n, dtype=dtype), "log_mass1": SLOPE * x0[:, 0] + noise}
    return cf.Batch(x0, width(1) * x0, **masses)


def name(objective):
    return type(objective).__name__


@pytest.mark.parametrize(("objective", "spans"), WITH_SPANS, ids=repr)
def test_the_true_map_has_no_error_where_a_teacher_knows_the_rates(objective, spans, rng):
    taught = type(objective)(**{**vars(objective), "teacher": Exact()})
    terms = taught(Exact(spans), pairs(500, rng), generator=rng)
    assert max(terms["diagonal"], terms["jump"]) < 1e-20
    wrong = taught(Exact(spans, bend=0.5), pairs(500, rng), generator=rng)
    assert wrong["diagonal"] < 1e-20
    assert wrong["jump"] > 1e-3


@pytest.mark.parametrize("objective", [LagrangianMatching(), EulerianMatching(), SemigroupMatching()], ids=name)
def test_the_true_map_is_its_own_teacher(objective, rng):
    terms = objective(Exact("forward"), pairs(500, rng), generator=rng)
    assert terms["jump"] < 1e-20
    assert terms["diagonal"] > 0.1  # pairs that meet gain differently
    assert objective(Exact("forward", bend=0.5), pairs(500, rng), generator=rng)["jump"] > 1e-3


@pytest.mark.parametrize("objective", [MeanVelocityMatching, FlowMapMatching])
def test_pairs_alone_point_at_the_true_map(objective, rng):
    """From the noisy gains of pairs the gradient vanishes at the true map, and points towards it from both sides."""
    batch, slopes = pairs(200_000, rng), []
    for bend in (-0.3, 0.0, 0.3):
        field = Exact(objective.known_spans[-1], bend=bend)
        objective(diagonal=0.0, adaptive=0.0)(field, batch, generator=rng)["loss"].backward()
        slopes.append(field.bend.grad.item())
    assert slopes[0] < -0.02 < 0.02 < slopes[2]
    assert abs(slopes[1]) < 0.2 * min(-slopes[0], slopes[2])


@pytest.mark.parametrize("objective", FLOW_MAP_OBJECTIVES, ids=name)
def test_growth_within_a_short_interval_is_faster(objective, rng):
    """Cells that stay, and gain an e-fold in half of the time, grow at a rate of 2."""
    x, half = torch.randn(32, 2, generator=rng), torch.full((32,), 0.5)
    batch = cf.Batch(x, x, start=half, log_mass0=torch.zeros(32), log_mass1=torch.ones(32))

    class Still(nn.Module):
        spans, growth = objective.known_spans[-1], True

        def forward(self, t, x, condition=None):
            return Outputs(torch.zeros_like(x), growth=torch.full((len(x),), 2.0))

    assert objective(Still(), batch, generator=rng)["loss"] < 1e-10


def test_the_population_of_the_pairs_is_that_of_the_map(rng):
    """Its mass, its mean and its mean square at the end, carried by one jump and by the solver."""
    batch = pairs(400_000, rng)
    one, many = jump(Exact(), batch.x0), grow(Exact(), batch.x0, solver=10)
    weight = batch.log_mass1.exp()
    for found in (one, many):
        assert found.mass()[-1].item() == pytest.approx(weight.mean().item(), rel=0.02)
        for power in (1, 2):
            expected = ((weight * batch.x1[:, 0] ** power).sum() / weight.sum()).item()
            assert (found.shares()[-1] * found.x[-1, :, 0] ** power).sum().item() == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize(("start", "stop"), [(0.0, 1.0), (0.2, 0.7), (0.9, 0.1)])
def test_weights_of_jumps_add_up(steps, start, stop, rng):
    x = torch.randn(50, 1, generator=rng, dtype=torch.float64)
    found = jump(Exact(), x, steps=steps, start=start, stop=stop)
    for t, weight in zip(found.t, found.log_weight, strict=True):
        gain = SLOPE * x[:, 0] / width(start) * (t - start) + NOISE**2 * (t**2 - start**2) / 2
        assert torch.allclose(weight, gain - math.log(50), atol=1e-12)
    given = torch.randn(50, generator=rng, dtype=torch.float64)
    again = jump(Exact(), x, steps=steps, start=start, stop=stop, log_weight=given)
    assert torch.allclose(again.log_weight - given, found.log_weight + math.log(50))
    assert torch.allclose(jump(Exact(), x, steps=6, save=3).log_weight[-1], jump(Exact(), x).log_weight[-1])


def test_trajectories_carry_weights_that_the_true_map_explains(rng):
    known = {"batch_size": 400, "generator": rng, "growth": True}
    snapshots = [torch.randn(n, 1, generator=rng, dtype=torch.float64) for n in (30, 5, 20)]
    batch = next(iter(trajectory_batches(Exact(), snapshots, [0.0, 0.37, 1.0], **known)))
    assert (batch.start > batch.stop).any()
    gap = lambda bend: TrajectoryMatching()(Exact(bend=bend), batch, generator=rng)["loss"].item()  # noqa: E731
    assert gap(0.0) < 1e-8
    assert gap(0.5) > 1e-2
    shifted = batch._replace(log_mass0=batch.log_mass0 + 1, log_mass1=batch.log_mass1 + 1)
    assert TrajectoryMatching()(Exact(), shifted, generator=rng)["loss"] < 1e-8


@pytest.mark.parametrize("objective", [*FLOW_MAP_OBJECTIVES, TrajectoryMatching()], ids=name)
def test_growth_that_nobody_knows_is_refused(objective, rng):
    x, y = torch.randn(2, 8, 1, generator=rng, dtype=torch.float64)
    spans = getattr(objective, "known_spans", ("both",))[-1]
    with pytest.raises(ValueError, match="masses at both ends of its pairs; found none"):
        objective(Exact(spans), cf.Batch(x, y), generator=rng)
    if objective in FLOW_MAP_OBJECTIVES:
        still = type(objective)(teacher=lambda t, x, condition: torch.zeros_like(x))
        with pytest.raises(TypeError, match="returned no growth"):
            still(Exact(spans), pairs(8, rng), generator=rng)
    with pytest.raises(ValueError, match="leave out `log_weight`"):
        jump(lambda t, x, condition: x, x, log_weight=torch.zeros(8))
    with pytest.raises(TypeError, match="returned no growth"):
        FlowMap(MLP(dim=1, width=8, times=2), growth=True)(torch.zeros(8, 2), x.float())


@pytest.mark.parametrize("heads", ["shared", "separate"])
def test_a_map_made_of_a_field_takes_its_euler_steps_with_weights(heads, rng):
    network = partial(MLP, dim=2, width=8)
    field = Heads(network(heads=3), score="shared", growth="shared")
    if heads == "separate":
        field = Heads(network(), score=network(), growth=network())
    for weight in field.parameters():
        nn.init.normal_(weight, std=0.3, generator=rng)
    x, flow_map = torch.randn(6, 2, generator=rng), FlowMap.of(field, growth=True)
    once, euler = jump(flow_map, x), grow(field, x, solver=Fixed("euler", steps=1))
    assert torch.allclose(once.x[-1], euler.x[-1], atol=1e-5)
    assert torch.allclose(once.log_weight, euler.log_weight, atol=1e-5)
    assert flow_map(torch.zeros(6), x).score_drift is None


def test_no_time_changes_nothing(rng):
    flow_map = FlowMap(Heads(MLP(dim=2, width=8, heads=2, times=2), growth="shared"), growth=True)
    for weight in flow_map.parameters():
        nn.init.normal_(weight, std=0.3, generator=rng)
    x = torch.randn(6, 2, generator=rng)
    found = jump(flow_map, x, start=0.3, stop=0.3)
    assert torch.equal(found.x[0], found.x[1])
    assert torch.equal(found.log_weight[0], found.log_weight[1])


@pytest.fixture(scope="module")
def cells():
    return cf.datasets.branching((150, 150, 150), times=(0, 1, 4), seed=0)


def growing(cells, **settings):
    coupling = cf.couplings.UnbalancedSinkhorn(epsilon=0.1, relaxation=10.0)
    made = cf.SnapshotFlow(rep="X_latent", coupling=coupling, growth=True, batch_size=64, device="cpu", **settings)
    return made.fit(cells)


@pytest.fixture(scope="module")
def flow(cells):
    recipe = cf.training.Recipe(learning_rate=4e-3, warmup=20)
    return growing(cells, steps=200, recipe=recipe).distill(cells, steps=600)


@pytest.mark.parametrize(("start", "stop"), [(0, 4), (4, 0), (1, 4)])
@pytest.mark.parametrize("jumps", [1, 3])
def test_jumps_carry_the_weights_of_the_flow(flow, cells, start, stop, jumps):
    x = cells.obsm["X_latent"][cells.obs["time"] == start]
    true = flow.grow(x, start=start, stop=stop)
    found = flow.grow(x, start=start, stop=stop, solver=Jumps(jumps))
    moved = (found.x[-1] - true.x[-1]).norm() / (true.x[-1] - true.x[0]).norm()
    weight, expected = found.log_weight[-1], true.log_weight[-1]
    assert moved < 0.15
    assert (weight - expected).square().mean().sqrt() < 0.15 * expected.std() + 0.05
    assert found.mass()[-1].item() == pytest.approx(true.mass()[-1].item(), rel=0.1)


def test_every_tool_that_jumps_weighs(flow, cells):
    for solver in (Jumps(1), Jumps(2)):
        at = {"at": 4, "solver": solver}
        first = cells.obs["time"] == 0
        cf.tl.push(cells, flow, cells=first, groupby="fate", key_added="jumped", **at)
        cf.tl.push(cells, flow, cells=first, groupby="fate", at=4)
        jumped, pushed = (cells.uns[key]["groups"]["mass"] for key in ("jumped", "push"))
        assert np.abs(jumped - pushed).max() < 0.05
        cf.tl.fate(cells, flow, groupby="fate", cells=first, **at)
        assert cells.obs["fate_descendants"].dropna().std() > 0.1
    between, known = (cf.tl.interpolate(cells, flow, at=2, solver=solver) for solver in (Jumps(1), Fixed()))
    weights = [found.obs["weight"].to_numpy() for found in (between, known)]
    assert np.corrcoef(*weights)[0, 1] > 0.95


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("objective", ["trajectories", *OBJECTIVES])
@pytest.mark.parametrize("teacher", [False, True])
def test_all_objectives_distil_growth_and_maps_are_kept(cells, objective, teacher, stochastic, tmp_path):
    if objective == "trajectories" and not teacher:
        return
    path = cf.paths.BrownianBridge(0.5) if stochastic else "linear"
    made = growing(cells, steps=5, path=path, stochastic=stochastic, network=partial(MLP, width=16, depth=1))
    made.distill(cells, steps=5, objective=objective, teacher=teacher)
    x = cells.obsm["X_latent"][:4]
    found = made.transport(x, start=0, stop=4, solver=Jumps(2))
    assert torch.isfinite(found.log_weight).all()
    assert found.log_weight[-1].std() > 0
    made.save(tmp_path)
    again = cf.SnapshotFlow.load(tmp_path, device="cpu").transport(x, start=0, stop=4, solver=Jumps(2))
    assert torch.equal(again.log_weight, found.log_weight)
    assert torch.equal(again.x, found.x)


def test_maps_of_before_carry_states_and_are_refused_where_weights_matter():
    old = cf.SnapshotFlow.load(SAVED / "distilled_growth_two_networks", device="cpu")
    x = torch.zeros(2, 3)
    assert old.transport(x, start=0, stop=4, solver=Jumps(1)).log_weight is None
    with pytest.raises(ValueError, match="Call `distill` again"):
        old.grow(x, start=0, stop=4, solver=Jumps(1))
