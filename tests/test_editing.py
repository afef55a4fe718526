"""Images changed by partial noise: what is left of them, what stays, and where the ends of `strength` are."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from PIL import Image

import cellflow as cf
from cellflow.cli import main

SMALL = partial(cf.networks.UNet, width=8, multipliers=(1, 2), blocks=1)
DIGITS = cf.datasets.digits()


@pytest.fixture(scope="module")
def model():
    settings = {"network": SMALL, "steps": 30, "batch_size": 16, "device": "cpu"}
    return cf.ImageGenerator(conditional=True, **settings).fit(DIGITS.take(range(200)))


@pytest.fixture(scope="module")
def still():
    """A model whose velocity is zero: what it makes is where it began."""
    found = cf.ImageGenerator(network=SMALL, steps=1, batch_size=4, device="cpu").fit(DIGITS.take(range(20)))
    for weight in found.field_.parameters():
        torch.nn.init.zeros_(weight)
    return found


def test_it_starts_on_the_path_of_the_model(still):
    images = DIGITS.take(range(5))
    made = still.translate(images, strength=0.3, solver=2, seed=4).scaled()
    noise = torch.randn(5, 1, 8, 8, generator=cf.generator(seed=4))
    assert torch.allclose(made, (0.3 * noise + 0.7 * images.scaled()).clamp(-1, 1), atol=1 / 127)


def test_at_strength_one_nothing_is_left_and_near_zero_everything(model):
    images = DIGITS.take(range(6))
    fresh = model.generate(6, label="3", solver=4, seed=1)
    assert torch.equal(model.translate(images, strength=1.0, label="3", solver=4, seed=1).images, fresh.images)
    moved = [
        float((model.translate(images, strength=strength, solver=8).scaled() - images.scaled()).abs().mean())
        for strength in (0.01, 0.2, 0.9)
    ]
    assert moved[0] < 0.02
    assert moved == sorted(moved)


@pytest.mark.parametrize("many", [False, True])
def test_what_is_kept_is_kept_to_the_bit_and_the_rest_is_not(model, many):
    images = DIGITS.take(range(3))
    keep = torch.zeros(3, 8, 8, dtype=torch.bool)
    keep[:, :, :4] = True
    made = model.translate(images, strength=0.8, keep=keep if many else keep[0], solver=4)
    assert torch.equal(made.images[..., :4], images.images[..., :4])
    assert (made.images[..., 4:] != images.images[..., 4:]).float().mean() > 0.3


def test_parts_have_the_noise_of_the_whole_and_names_stay(model):
    images = replace(DIGITS.take(range(5)), names=tuple("abcde"))
    whole, parts = (model.translate(images, label="1", guidance=2.0, solver=2, batch_size=n) for n in (5, 2))
    assert torch.equal(whole.images, parts.images)
    assert (whole.names, whole.labels.tolist()) == (images.names, [1] * 5)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"strength": 0.0}, ValueError, "above 0"),
        ({"strength": 1.5}, ValueError, "at most 1; found 1.5"),
        ({"strength": float("nan")}, ValueError, "at most 1"),
        ({"keep": torch.ones(8, 8)}, ValueError, "truth values"),
        ({"keep": torch.ones(3, 8, dtype=torch.bool)}, ValueError, "truth values"),
        ({"keep": torch.ones(8, 8, dtype=torch.bool), "solver": cf.integrate.Adaptive()}, ValueError, "`keep` needs"),
        ({"solver": cf.integrate.Noisy()}, TypeError, "simulate"),
        ({"solver": cf.integrate.Jumps(1)}, cf.errors.NotFittedError, "flow map"),
        ({"label": "11"}, ValueError, "11"),
        ({"guidance": 2.0}, ValueError, "needs a class"),
        ({"batch_size": 0}, ValueError, "batch_size"),
    ],
)
def test_what_cannot_be_changed_is_refused(model, given, error, words):
    with pytest.raises(error, match=words):
        model.translate(DIGITS.take([0, 1]), **given)


def test_images_of_another_shape_and_models_without_a_fit_are_refused(model):
    with pytest.raises(ValueError, match=r"shape .1, 8, 8., as in `fit`"):
        model.translate(cf.images.read_images(DIGITS.take([0]), size=16))
    with pytest.raises(cf.errors.NotFittedError):
        cf.ImageGenerator().translate(DIGITS.take([0]))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_a_bridge_starts_with_its_own_noise(strength, reverse):
    """Where nothing pulls, variances add up: that of the bridge at the start, and that of the way which is left."""
    x = torch.zeros(20_000, 1)
    flow = cf.DomainTranslator(path=cf.paths.BrownianBridge(0.5), stochastic=True, steps=1, batch_size=4, device="cpu")
    flow.fit(torch.randn(9, 1, generator=cf.generator(1)), torch.randn(9, 1, generator=cf.generator(2)))
    for weight in flow.field_.parameters():
        torch.nn.init.zeros_(weight)
    made = flow.simulate(x, strength=strength, solver=10, reverse=reverse)
    assert float(made.var()) == pytest.approx(0.25 * (strength * (1 - strength) + strength), rel=0.05)
    with pytest.raises(ValueError, match="strength"):
        flow.simulate(x, strength=0.0)


def test_on_the_command_line(tmp_path, capsys):
    for name, digit in (("ones", "1"), ("sevens", "7")):
        (tmp_path / name).mkdir()
        for number, image in enumerate(DIGITS.only(digit).take(range(8)).images):
            Image.fromarray(image[0].numpy()).save(tmp_path / name / f"{number}.png")
    fast = [
        "network=unet", "network.width=8", "network.multipliers=[1]", "network.blocks=1", "steps=2", "batch_size=4",
        "holdout=0.4", "device=cpu", "solver.steps=2",
    ]  # fmt: skip
    run, out = f"{tmp_path / 'run'}", tmp_path / "out"
    assert main(["generate", f"data={tmp_path / 'ones'}", f"out={run}", *fast]) == 0
    assert main(["generate", f"model={run}", f"input={tmp_path / 'sevens'}", "strength=0.2", f"out={out}"]) == 0
    assert sorted(path.name for path in out.glob("*.png")) == [f"{number}.png" for number in range(8)]
    flow = f"{tmp_path / 'flow'}"
    both = [f"source={tmp_path / 'ones'}", f"target={tmp_path / 'sevens'}"]
    assert main(["translate", *both, f"out={flow}", *fast]) == 0
    capsys.readouterr()
    assert main(["generate", f"model={run}", "n=2", "strength=0.2", f"out={out}2"]) == 1
    assert "Give `model=` and `input=`" in capsys.readouterr().err
    assert main(["translate", f"model={flow}", f"input={tmp_path / 'ones'}", "strength=0.5", f"out={out}2"]) == 1
    assert "`strength` needs a bridge with noise" in capsys.readouterr().err
