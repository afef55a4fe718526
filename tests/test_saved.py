"""Models and trainings that earlier versions saved: they load, go on, and answer what they answered then."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import cellflow as cf
from cellflow.integrate import Jumps
from conftest import make_cells

SAVED = Path(__file__).parent / "saved"
FLOWS = [
    "plain", "score_two_heads", "score_two_networks", "growth_two_heads", "growth_two_networks", "geodesics",
    "distilled_plain", "distilled_score_two_heads", "distilled_growth_two_networks",
]  # fmt: skip
TRANSLATORS = ["translator_score_two_heads", "translator_score_two_networks"]


def check(expected, said):
    assert set(expected) == set(said)
    for name, value in said.items():
        np.testing.assert_allclose(np.asarray(value), expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


def answers(flow, expected):
    """What a flow says today to the questions that were asked then."""
    x = make_cells(sizes=(20, 25, 30)).obsm["X_pca"][:4]
    span = {"start": 0.0, "stop": 4.0}
    ask = {
        "velocity": lambda: np.stack([flow.velocity(x, time) for time in (0.0, 1.5, 5.0)]),
        "transported": lambda: flow.transport(x, **span).x[-1],
        "simulated": lambda: flow.simulate(x, seed=3, **span).x[-1],
        "growth": lambda: flow.growth_rate(x, 1.5),
        "log_weight": lambda: flow.grow(x, **span).log_weight[-1],
        "jumped": lambda: flow.transport(x, solver=Jumps(2), **span).x[-1],
    }
    return {name: ask[name]() for name in expected}


@pytest.mark.parametrize("name", FLOWS)
def test_flows_of_format_1_answer_the_same(name, tmp_path):
    flow, expected = cf.SnapshotFlow.load(SAVED / name, device="cpu"), np.load(SAVED / name / "expected.npz")
    check(expected, answers(flow, expected))
    flow.save(tmp_path)
    check(expected, answers(cf.SnapshotFlow.load(tmp_path, device="cpu"), expected))


@pytest.mark.parametrize("name", TRANSLATORS)
def test_translators_of_format_1_answer_the_same(name):
    model, expected = cf.DomainTranslator.load(SAVED / name, device="cpu"), np.load(SAVED / name / "expected.npz")
    x = torch.randn(2, 30, 3, generator=cf.generator(seed=0))[0, :4]
    said = {
        "translated": model.translate(x),
        "back": model.translate(x + 2, reverse=True),
        "simulated": model.simulate(x, seed=3),
    }
    check(expected, said)


def test_a_generator_of_format_1_makes_the_same_images():
    model, expected = cf.ImageGenerator.load(SAVED / "generator", device="cpu"), SAVED / "generator" / "expected.npz"
    made = {
        "generated": model.generate(2, label="7", guidance=2.0, solver=3),
        "jumped": model.generate(2, label="7", solver=Jumps(1)),
    }
    for name, value in np.load(expected).items():
        assert np.abs(made[name].images.numpy().astype(int) - value).max() <= 1


@pytest.mark.parametrize(
    "name", ["plain", "score_two_heads", "score_two_networks", "growth_two_heads", "growth_two_networks"]
)
def test_trainings_of_format_1_go_on(name, tmp_path):
    """A state after four steps, resumed to eight, under the settings of the model that it began with."""
    shutil.copytree(SAVED / "training" / name, tmp_path / "state")
    expected = np.load(SAVED / "training" / name / "expected.npz")
    flow = cf.SnapshotFlow.load(SAVED / name, device="cpu").set_params(steps=8)
    flow.fit(make_cells(sizes=(20, 25, 30)), folder=tmp_path / "state", resume=True)
    check(expected, answers(flow, expected))


def test_a_training_of_a_translator_of_format_1_goes_on(tmp_path):
    name = "translator_score_two_heads"
    shutil.copytree(SAVED / "training" / name, tmp_path / "state")
    source, target = torch.randn(2, 30, 3, generator=cf.generator(seed=0))
    model = cf.DomainTranslator.load(SAVED / name, device="cpu").set_params(steps=8)
    model.fit(source, target + 2, folder=tmp_path / "state", resume=True)
    expected = np.load(SAVED / "training" / name / "expected.npz")
    check(expected, {"translated": model.translate(source[:4])})
