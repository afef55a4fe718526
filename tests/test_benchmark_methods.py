"""Methods of the trajectory benchmark: our flows, the published recipe, other packages."""

from functools import partial

import numpy as np
import pytest
import torch
from benchmark_cases import quick_flow
from hydra.utils import instantiate
from omegaconf import OmegaConf

import cellflow as cf
from benchmarks import peers
from benchmarks.trajectory import others
from benchmarks.trajectory.methods import Flow, Remembered, Training
from benchmarks.trajectory.settings import CONFIGS
from cellflow.errors import MissingDependencyError
from cellflow.integrate import Fixed

pytestmark = pytest.mark.usefixtures("global_state_is_untouched")


def test_a_flow_learns_from_training_cells_alone_and_is_the_same_again():
    clouds = tuple(np.random.default_rng(k).normal(size=(30, 2)).astype(np.float32) + k for k in range(3))
    training = Training(clouds, (0.0, 1.0, 3.0))
    first, second, other = (quick_flow().fit(training, seed=seed).carry(clouds[0], 0.0, 2.0) for seed in (0, 0, 1))
    assert (first.x == second.x).all()
    assert not (first.x == other.x).all()
    assert first.evaluations == 2
    assert training.without(1).times == (0.0, 3.0)
    assert training.adata().n_obs == 90


def test_a_flow_with_growth_returns_masses():
    draw = np.random.default_rng(0)
    clouds = tuple(draw.normal(size=(n, 2)).astype(np.float32) for n in (40, 80))
    coupling = cf.couplings.UnbalancedSinkhorn(0.5, 5.0)
    learned = {"growth": True, "heads": "separate", "masses": "counts", "steps": 100, "batch_size": 64, "device": "cpu"}
    grown = partial(cf.SnapshotFlow, coupling=coupling, **learned)
    method = Flow(grown, solver=Fixed("euler", steps=20))
    found = method.fit(Training(clouds, (0.0, 1.0)), seed=0).carry(clouds[0], 0.0, 1.0)
    assert found.weight.sum() == pytest.approx(2.0, rel=0.2)


def test_plans_are_solved_once_and_their_seconds_counted_again():
    draw = torch.Generator().manual_seed(3)
    x0, x1 = torch.randn(50, 2, generator=draw), torch.randn(40, 2, generator=draw)
    first, second = (Remembered(cf.couplings.Exact()) for _ in range(2))
    assert first(x0, x1) is second(x0, x1)
    assert first.facts(9.0)["plan_s"] == second.facts(9.0)["plan_s"] > 0
    assert second.facts(9.0)["train_s"] == pytest.approx(9.0, abs=0.5)
    assert second(x0, x1 + 1) is not first(x0, x1)


def test_the_published_split_is_the_same_for_every_seed():
    training = Training(tuple(np.random.default_rng(k).normal(size=(50, 2)).astype(np.float32) for k in (0, 1)), (0, 1))
    first, second = others.published_split(training), others.published_split(training)
    for x, y, cloud in zip(first, second, training.clouds, strict=True):
        assert torch.equal(x, y)
        assert len({tuple(row) for row in x.tolist()} & {tuple(row) for row in cloud.tolist()}) == 40


def test_published_batches_take_one_interval_a_sample_and_every_cell_once_an_epoch():
    clouds = tuple(torch.arange(40.0).reshape(40, 1) + 100 * k for k in range(3))
    stream = others.epochs(clouds, 10, seed=0)
    epoch = torch.cat([next(stream)[1] for _ in range(4)])
    assert torch.equal(epoch.flatten().sort().values, clouds[1].flatten())
    with pytest.raises(ValueError, match="batches of 41 cells; a snapshot has 40"):
        next(others.epochs(clouds, 41, seed=0))
    made = others.Recipe(cf.couplings.Independent(), sigma=0.0, batch_size=10)
    with peers.global_seed(0):
        t, x, velocity = made.loop(clouds, (0.0, 1.0, 3.0), seed=0).draw()
    second = t >= 1
    assert len(t) == 10
    assert second.any()
    assert not second.all()
    assert ((velocity[:, 0] * torch.where(second, 2.0, 1.0) - 100).abs() < 40).all()
    starts = x[:, 0] - (t - second.float()) * velocity[:, 0]
    assert torch.equal((starts + 1e-3) // 100, second.float())
    assert (starts % 1 - 0.5).abs() == pytest.approx(np.full(10, 0.5), abs=1e-3)  # cells, which are whole numbers


def test_the_published_loss_is_the_error_of_the_velocity():
    with peers.global_seed(0):
        loop = peers.Loop(2, lambda: (torch.zeros(6), torch.zeros(6, 2), torch.full((6, 2), 2.0)))
    guess = torch.zeros(1, requires_grad=True)
    loop.field.forward = lambda t, x: guess.expand_as(x)
    for value, expected in ((2.0, 0.0), (0.0, 4.0)):
        guess.data.fill_(value)
        loop.train(1)
        assert loop.loss.item() == pytest.approx(expected)


@pytest.mark.parametrize("coupling", [cf.couplings.Exact(), None], ids=["ours", "torchcfm"])
def test_the_published_recipe_learns_a_shift(coupling):
    if coupling is None:
        pytest.importorskip("torchcfm.conditional_flow_matching")
    draw = np.random.default_rng(0)
    cloud = draw.normal(size=(60, 2)).astype(np.float32) * 0.3
    training = Training((cloud, cloud + 1, cloud + 3), (0.0, 1.0, 3.0))
    fitted = others.Recipe(coupling, steps=250, batch_size=32).fit(training, seed=0)
    found = fitted.carry(cloud, 0.0, 2.0)
    assert found.evaluations == 100
    assert fitted.facts["last_loss"] < 1
    assert found.x.mean(0) - cloud.mean(0) == pytest.approx([2.0, 2.0], abs=0.25)


def test_chains_follow_the_exact_plans():
    draw = np.random.default_rng(0)
    first = draw.normal(size=(20, 2)).astype(np.float32)
    clouds = (first, first[::-1] + 10, first + 20)
    chains = others.chains_along_plans(Training(tuple(c.copy() for c in clouds), (0, 1, 2)), 30, seed=0)
    assert chains[:, 1] - chains[:, 0] == pytest.approx(np.full((30, 2), 10), abs=1e-4)
    assert chains[:, 2] - chains[:, 1] == pytest.approx(np.full((30, 2), 10), abs=1e-4)


def test_a_peer_that_is_not_there_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv(others.PYTHON, str(tmp_path / "python"))
    with pytest.raises(MissingDependencyError, match="make peers"):
        others.Otpfm().fit(Training((np.zeros((3, 2)), np.ones((3, 2))), (0, 1)), seed=0)


@pytest.mark.parametrize("path", sorted((CONFIGS / "method").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_method_file_makes_a_method(path):
    assert callable(instantiate(OmegaConf.load(path), _convert_="all").fit)


@pytest.mark.parametrize("path", sorted((CONFIGS / "dataset").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_data_set_file_makes_a_data_set(path):
    settings = OmegaConf.load(path)
    for key in OmegaConf.missing_keys(settings):
        settings[key] = "there.h5ad"
    assert instantiate(settings).label == ("there" if path.stem == "file" else path.stem)
