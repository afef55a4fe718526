"""Outer loops: reflow straightens paths, Markovian fitting finds the Schrödinger bridge, both keep the marginals."""

import math
from dataclasses import replace

import pytest
import torch

import cellflow as cf
from cellflow.errors import CheckpointError
from cellflow.integrate import Fixed
from cellflow.networks import MLP, Heads
from cellflow.objectives import BridgeMatching, VelocityMatching
from cellflow.paths import BrownianBridge
from cellflow.training import MarkovianFitting, Recipe, Reflow, fit, refit
from cellflow.training.refit import model_pairs

QUICK = Recipe(learning_rate=2e-3)


def two_clouds(rng, n=1000):
    """A Gaussian, and two clumps apart from it."""
    x0 = torch.randn(n, 2, generator=rng)
    side = (torch.arange(n) % 2 * 2 - 1.0)[:, None]
    return x0, 0.3 * torch.randn(n, 2, generator=rng) + torch.cat([4 + 0 * side, 3 * side], dim=1)


def bend(field, x0):
    """How far one step ends from many: 0 on straight paths."""
    one, many = (cf.integrate.ode(field, x0, solver=Fixed("euler", steps=steps)).x[-1] for steps in (1, 100))
    return (one - many).norm(dim=1).mean().item()


@pytest.mark.slow
def test_reflow_straightens_paths_and_keeps_the_target(rng):
    x0, x1 = two_clouds(rng)
    field, objective = MLP(dim=2, width=64), VelocityMatching()
    batches = cf.pairing.paired_batches(x0, x1, coupling="independent", generator=rng)
    fit(field, objective, batches, steps=1000, generator=rng, recipe=QUICK)
    before = bend(field, x0)
    histories = refit(field, objective, x0, x1, coupling=Reflow(), rounds=1, steps=1000, generator=rng, recipe=QUICK)
    assert bend(field, x0) < 0.3 * before
    assert cf.metrics.wasserstein(cf.integrate.ode(field, x0, solver=20).x[-1], x1) < 0.4
    assert len(histories) == 1


def test_reflow_pairs_each_point_with_the_end_of_its_path(rng):
    x0 = torch.randn(20, 2, generator=rng)
    shifted = lambda t, x, condition: torch.full_like(x, 3.0)  # noqa: E731
    y0, y1 = Reflow(solver=4)(shifted, VelocityMatching(), x0, x0, turn=0, generator=rng)
    assert torch.equal(y0, x0)
    assert torch.allclose(y1, x0 + 3)


@pytest.mark.slow
def test_markovian_fitting_finds_the_schroedinger_bridge_from_independent_pairs(rng):
    """Between two unit Gaussians at sigma 1 the ends must come to covary by (sqrt(5) - 1) / 2; at first they do not."""
    x0, x1 = torch.randn(2, 2000, 2, generator=rng)
    field, objective = Heads(MLP(2, heads=2, width=64), score="shared"), BridgeMatching(BrownianBridge(1.0))
    batches = cf.pairing.paired_batches(x0, x1, coupling="independent", generator=rng)
    fit(field, objective, batches, steps=800, generator=rng, recipe=QUICK)
    refit(
        field, objective, x0, x1, coupling=MarkovianFitting(1.0, solver=30), rounds=6, steps=300, generator=rng,
        recipe=QUICK,
    )  # fmt: skip
    ends = cf.integrate.sde(field, x0.repeat(3, 1), sigma=1.0, solver=40, generator=rng)
    start, end = ends.x
    assert end.var(dim=0).mean().item() == pytest.approx(1, abs=0.12)
    assert (start * end).mean().item() == pytest.approx((math.sqrt(5) - 1) / 2, abs=0.1)


def test_markovian_fitting_alternates_between_the_ends(rng):
    x0, x1 = torch.zeros(10, 2), torch.ones(10, 2)
    field, objective = Heads(MLP(2, heads=2, width=16), score="shared"), BridgeMatching()
    forward = MarkovianFitting(1.0, solver=2)(field, objective, x0, x1, turn=0, generator=rng)
    backward = MarkovianFitting(1.0, solver=2)(field, objective, x0, x1, turn=1, generator=rng)
    assert torch.equal(forward[0], x0)
    assert torch.equal(backward[1], x1)
    assert not torch.equal(forward[1], x1)
    assert not torch.equal(backward[0], x0)


def test_images_are_refitted_as_vectors_are(rng):
    field = torch.nn.Module()
    field.weight = torch.nn.Parameter(torch.ones(()))
    field.forward = lambda t, x, condition: field.weight * x
    x = torch.rand(8, 1, 4, 4, generator=rng)
    found = refit(field, VelocityMatching(), x, x, coupling=Reflow(solver=2), rounds=2, steps=3, generator=rng)
    assert [len(history) for history in found] == [3, 3]


class Shifting(torch.nn.Module):
    """Moves each state by what its condition says."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, t, x, condition):
        return condition * self.weight


@pytest.mark.parametrize("size", [64, 4])
def test_each_pair_keeps_the_condition_that_made_it(rng, size):
    """Points of source and target move by their condition, so that every pair differs by it: also made in parts."""
    condition = torch.randint(1, 9, (10, 1), generator=rng).float()
    x0, x1 = torch.zeros(10, 1), torch.full((10, 1), 100.0)
    settings = {"coupling": Reflow(solver=1, both_ends=True), "condition": condition, "at_once": size}
    y0, y1 = model_pairs(Shifting(), VelocityMatching(), x0, x1, turn=0, generator=rng, **settings)
    assert torch.equal(y1 - y0, condition.repeat(2, 1))
    assert torch.equal(y0[:10], x0)
    assert torch.equal(y1[10:], x1)
    settings |= {"rounds": 1, "steps": 4, "batch_size": 16, "recipe": Recipe(learning_rate=1e-9)}
    (history,) = refit(Shifting(), VelocityMatching(), x0, x1, generator=rng, **settings)
    assert max(history["loss"]) < 1e-6  # the velocity of each pair is its condition


def test_impossible_settings_are_refused(rng):
    x = torch.zeros(4, 2)
    with pytest.raises(ValueError, match="a condition for each; found 4, 4 and 3"):
        refit(MLP(2), VelocityMatching(), x, x, coupling=Reflow(), rounds=1, steps=1, generator=rng, condition=x[:3])
    with pytest.raises(ValueError, match="sigma > 0"):
        MarkovianFitting(0.0)
    with pytest.raises(ValueError, match="rounds >= 1"):
        refit(MLP(2), VelocityMatching(), x, x, coupling=Reflow(), rounds=0, steps=3, generator=rng)
    with pytest.raises(TypeError, match="returned no score"):
        refit(MLP(2), VelocityMatching(), x, x, coupling=MarkovianFitting(1.0), rounds=1, steps=3, generator=rng)


@pytest.mark.parametrize("coupling", [Reflow(solver=3), MarkovianFitting(0.5, solver=3)], ids=["reflow", "markovian"])
@pytest.mark.parametrize("last", [3, 6, 7, 12])
def test_rounds_resume_to_the_bit(coupling, last, tmp_path):
    """Stopped in any round, or as one begins: what was finished is neither paired nor trained again."""
    x = torch.randn(20, 2, generator=cf.generator(1))
    bridge = BrownianBridge(0.5)

    def field():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return MLP(2, width=8) if isinstance(coupling, Reflow) else Heads(MLP(2, heads=2, width=8), score="shared")

    class Stopped(VelocityMatching if isinstance(coupling, Reflow) else BridgeMatching):
        calls = 0

        def __call__(self, field, batch, *, generator):
            type(self).calls += 1
            if type(self).calls == last:
                raise RuntimeError("no power left")
            return super().__call__(field, batch, generator=generator)

    class Plain(Stopped):
        calls = 100

    def rounds(objective, run):
        learned = field()
        settings = {"coupling": coupling, "rounds": 3, "steps": 5, "batch_size": 8, "recipe": QUICK, "run": run}
        path = cf.paths.Linear() if isinstance(coupling, Reflow) else bridge
        histories = refit(learned, objective(path), x, x + 3, generator=cf.generator(2), **settings)
        return torch.cat([weight.flatten() for weight in learned.parameters()]), [one.columns for one in histories]

    whole, told = rounds(Plain, None)
    with pytest.raises(RuntimeError, match="no power"):
        rounds(Stopped, cf.Run(tmp_path, save_every=1))
    begun = Plain.calls
    parts, resumed = rounds(Plain, cf.Run(tmp_path, resume=True))
    assert torch.equal(whole, parts)
    assert told == resumed
    assert Plain.calls - begun == 15 - (last - 1)
    with pytest.raises(FileExistsError, match="resume=True"):
        rounds(Plain, cf.Run(tmp_path))
    coupling = replace(coupling, solver=4)
    with pytest.raises(CheckpointError, match=r"coupling .*steps=3.* not .*steps=4"):
        rounds(Plain, cf.Run(tmp_path, resume=True))


def test_rounds_are_watched_with_all_that_happened(rng, tmp_path):
    seen, x = [], torch.zeros(4, 2)
    run = cf.Run(watch=lambda history: seen.append(len(history)), watch_every=2)
    refit(MLP(2), VelocityMatching(), x, x, coupling=Reflow(solver=1), rounds=2, steps=3, generator=rng, run=run)
    assert seen == [2, 3, 5, 6]
    again = cf.Run(tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="No file"):
        refit(MLP(2), VelocityMatching(), x, x, coupling=Reflow(), rounds=1, steps=3, generator=rng, run=again)
    with pytest.raises(TypeError, match="a coupling made by the model"):
        refit(MLP(2), VelocityMatching(), x, x, coupling=3, rounds=1, steps=3, generator=rng)
