"""Models and trainings that earlier versions saved: they load, go on, and answer what they answered then."""

import shutil
from functools import partial
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

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
    flow.fit(make_cells(sizes=(20, 25, 30)), run=cf.Run(tmp_path / "state", resume=True))
    check(expected, answers(flow, expected))


@pytest.mark.parametrize("name", ["plain", "score_two_networks"])
def test_distillations_of_format_1_go_on(name, tmp_path):
    """A state after three steps, resumed to six."""
    shutil.copytree(SAVED / "training" / f"distilled_{name}", tmp_path / "state")
    expected = np.load(SAVED / "training" / f"distilled_{name}" / "expected.npz")
    flow, cells = cf.SnapshotFlow.load(SAVED / name, device="cpu"), make_cells(sizes=(20, 25, 30))
    flow.distill(cells, steps=6, run=cf.Run(tmp_path / "state", resume=True))
    check(expected, answers(flow, expected))


def test_a_training_of_a_translator_of_format_1_goes_on(tmp_path):
    name = "translator_score_two_heads"
    shutil.copytree(SAVED / "training" / name, tmp_path / "state")
    source, target = torch.randn(2, 30, 3, generator=cf.generator(seed=0))
    model = cf.DomainTranslator.load(SAVED / name, device="cpu").set_params(steps=8)
    model.fit(source, target + 2, run=cf.Run(tmp_path / "state", resume=True))
    expected = np.load(SAVED / "training" / name / "expected.npz")
    check(expected, {"translated": model.translate(source[:4])})


CONSTANT = cf.training.Recipe(schedule="constant", warmup=2, ema=0.9)
QUICK = {"recipe": CONSTANT, "batch_size": 8, "device": "cpu"}
SMALL = partial(cf.networks.MLP, width=4, depth=1)
UNET = partial(cf.networks.UNet, width=4, multipliers=(1,), blocks=1)
DRAW = np.random.default_rng(0)
POINTS = (DRAW.integers(-8, 9, size=(36, 3)) / 8).astype(np.float32)  # the same bits everywhere
DAY = np.repeat([0.0, 1.0, 3.0], 12)
POINTS[:, 0] += DAY.astype(np.float32)
CELLS = anndata.AnnData(
    X=np.zeros((36, 0), np.float32),
    obs=pd.DataFrame({"day": DAY}, index=[f"cell{k}" for k in range(36)]),
    obsm={"X_pca": POINTS},
)
SOURCE, TARGET = torch.from_numpy(POINTS[:20]), torch.from_numpy(POINTS[16:])
PIXELS = np.random.default_rng(0).integers(0, 256, size=(12, 1, 4, 4)).astype(np.uint8)
IMAGES = cf.images.ImageSet(torch.from_numpy(PIXELS), torch.arange(12) % 2, classes=("dark", "bright"))
BRIDGE = cf.paths.BrownianBridge(0.5)
UNBALANCED = cf.couplings.UnbalancedSinkhorn(0.5, 5.0)
GROWING = {"coupling": UNBALANCED, "growth": True, "masses": "counts", "curve": "spline"}


def flow_of(steps, **settings):
    then = {"curve": "straight", "coupling": "exact", "regularize": False}  # what was the default
    return cf.SnapshotFlow(**QUICK, time_key="day", network=SMALL, steps=steps, **then | settings)


def translator_of(steps):
    return cf.DomainTranslator(**QUICK, network=SMALL, steps=steps, path=BRIDGE, stochastic=True, heads="separate")


def generator_of(steps):
    return cf.ImageGenerator(**QUICK, network=UNET, steps=steps, conditional=True, condition_dropout=0.3)


def map_of(model, *data, **settings):
    return model.fit(*data).distill(*data, **settings).flow_map_


INTERRUPTED = {
    "flow": lambda steps, run: flow_of(steps).fit(CELLS, run=run).field_,
    "bridge": lambda steps, run: flow_of(steps, path=BRIDGE, stochastic=True).fit(CELLS, run=run).field_,
    "growth": lambda steps, run: flow_of(steps, **GROWING).fit(CELLS, run=run).field_,
    "translator": lambda steps, run: translator_of(steps).fit(SOURCE, TARGET, run=run).field_,
    "generator": lambda steps, run: generator_of(steps).fit(IMAGES, run=run).field_,
    "flow_map": lambda steps, run: map_of(flow_of(2), CELLS, steps=steps, run=run),
    "learned_map": lambda steps, run: map_of(
        flow_of(2), CELLS, steps=steps, objective="semigroup", teacher=False, recipe=CONSTANT, run=run
    ),
    "translator_map": lambda steps, run: map_of(translator_of(2), SOURCE, TARGET, steps=steps, run=run),
    "generator_map": lambda steps, run: map_of(generator_of(2), IMAGES, steps=steps, guidance=2.0, run=run),
}
"""How trainings were begun that format 1 interrupted after five steps: the field or the flow map after so many."""


@pytest.mark.parametrize("name", INTERRUPTED)
def test_interrupted_trainings_of_format_1_go_on_to_the_same_weights(name, tmp_path):
    """Bit for bit, where this machine rounds as the one that wrote the state."""
    learn, state = INTERRUPTED[name], tmp_path / "then" / "training.safetensors"
    state.parent.mkdir()
    shutil.copy(SAVED / "interrupted" / f"{name}.safetensors", state)
    resumed = learn(9, cf.Run(state.parent, resume=True)).state_dict()
    whole = learn(9, None).state_dict()
    learn(5, cf.Run(tmp_path / "now"))
    states = SAVED / "interrupted" / f"{name}.safetensors", tmp_path / "now" / "training.safetensors"
    then, now = (sorted(tensor.numpy().tobytes() for tensor in load_file(path).values()) for path in states)
    for weight, value in whole.items():
        torch.testing.assert_close(resumed[weight], value, rtol=0, atol=0 if then == now else 1e-5)
