"""Flows in latents: what an autoencoder of our own, or of diffusers, does to fits, verbs, files and runs."""

import json
import shutil
from functools import partial

import pytest
import torch

import cellflow as cf
from cellflow.cli import main
from cellflow.errors import CheckpointError
from cellflow.estimators import latents
from cellflow.estimators.latents import autoencoder_of, encoded
from cellflow.networks.autoencoder import Autoencoder, of_record
from cellflow.networks.stages import Downsample
from cellflow.training.checkpoint import STATE, load_tensors
from cellflow.training.reconstruction import Reconstruction

TINY = partial(cf.networks.UNet, width=8, multipliers=(1,), blocks=1)
TOY = {"network": TINY, "batch_size": 8, "device": "cpu", "autoencoder": "train"}


def blobs(shade, n=12, seed=0, channels=1, side=16):
    """Smooth images: a bright disc somewhere."""
    rng = cf.generator(seed=seed)
    rows = torch.arange(side).float()
    middle = torch.rand(n, 2, generator=rng) * side / 2 + side / 4
    squares = (rows[:, None] - middle[:, 0, None, None]) ** 2 + (rows - middle[:, 1, None, None]) ** 2
    images = (shade * torch.exp(-squares / side)).byte()
    return cf.images.ImageSet(
        images[:, None].expand(-1, channels, -1, -1).contiguous(), names=tuple(map(str, range(n)))
    )


DARK, BRIGHT = blobs(120), blobs(250, seed=1)


@pytest.fixture(scope="module")
def translator():
    return cf.DomainTranslator(**TOY, steps=80).fit(DARK, BRIGHT)


@pytest.fixture(scope="module")
def generator():
    labels = torch.arange(12) % 2
    images = cf.images.ImageSet(BRIGHT.images, labels=labels, classes=("a", "b"))
    return cf.ImageGenerator(**TOY, steps=30, conditional=True).fit(images)


def test_it_learns_to_return_images():
    rng, images = cf.generator(seed=0), DARK.scaled()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Autoencoder(1, halvings=1, width=8)
    batches = cf.pairing.image_batches(None, DARK, coupling="independent", batch_size=8, generator=rng)
    recipe = cf.training.Recipe(warmup=0.1)
    history = cf.training.fit(net, Reconstruction(both=False), batches, steps=150, generator=rng, recipe=recipe)
    assert history["loss"][-1] < 0.05 * float(images.var())
    net.requires_grad_(False)
    assert float((net.decode(net.encode(images)) - images).square().mean()) < 0.05 * float(images.var())


def test_latents_of_the_fit_are_standardised_and_their_noise_cannot_be_outgrown(translator):
    z = torch.cat([encoded(translator.autoencoder_, side).x for side in (DARK, BRIGHT)])
    assert z.shape == (24, 8, 8, 8)
    assert torch.allclose(z.mean(dim=(0, 2, 3)), torch.zeros(8), atol=1e-4)
    assert torch.allclose(z.std(dim=(0, 2, 3), correction=0), torch.ones(8), atol=1e-4)
    assert translator.autoencoder_.bounded(1e6 * DARK.scaled()).abs().max() <= 3


def test_images_are_carried_through_latents_and_come_back_as_images(translator):
    made = translator.translate(DARK, solver=4)
    assert (made.shape, made.names) == (DARK.shape, DARK.names)
    assert made.scaled().mean() > DARK.scaled().mean()
    found = translator.trajectory(DARK, save=3, solver=4)
    assert found.x.shape == (3, 12, 1, 16, 16)
    near = float((found.x[0] - DARK.scaled()).square().mean() / DARK.scaled().var())
    assert near < 0.2  # it begins with the images, as the autoencoder returns them
    assert torch.equal(made.images, cf.images.pixels.to_bytes(found.x[-1]))


def test_images_are_encoded_and_decoded_a_few_at_a_time(translator, monkeypatch):
    """Memory is that of a few images, whatever their size; the latents are those of all at once."""
    encode, decode, seen = Autoencoder.encode, Autoencoder.decode, []
    monkeypatch.setattr(Autoencoder, "encode", lambda self, x: (seen.append(len(x)), encode(self, x))[1])
    monkeypatch.setattr(Autoencoder, "decode", lambda self, z: (seen.append(len(z)), decode(self, z))[1])
    x = torch.rand(7, *translator.shape_, generator=cf.generator(seed=0))
    whole = latents.latents(translator.autoencoder_, x)
    back = latents.pixels(translator.autoencoder_, whole)
    assert seen == [7, 7]
    monkeypatch.setattr("cellflow.estimators.portions.PIXELS_IN_A_CACHE", 3 * x[0, 0].numel())
    assert torch.allclose(latents.latents(translator.autoencoder_, x), whole, atol=1e-5)
    assert torch.allclose(latents.pixels(translator.autoencoder_, whole), back, atol=1e-5)
    assert seen[2:] == [3, 3, 1] * 2


def test_images_are_generated_and_changed(generator):
    assert generator.generate(3, label="b", solver=2).shape == (1, 16, 16)
    assert generator.trajectory(3, save=3, solver=2).x.shape == (3, 3, 1, 16, 16)
    near = generator.translate(BRIGHT, strength=0.02, solver=4).scaled() - BRIGHT.scaled()
    far = generator.translate(BRIGHT, strength=1.0, solver=4).scaled() - BRIGHT.scaled()
    assert near.abs().mean() < far.abs().mean()
    with pytest.raises(ValueError, match="no single pixels"):
        generator.translate(BRIGHT, keep=torch.ones(16, 16, dtype=torch.bool))


@pytest.mark.parametrize("name", ["translator", "generator"])
def test_a_saved_model_makes_the_same(name, request, tmp_path):
    model = request.getfixturevalue(name)
    model.save(tmp_path)
    assert (tmp_path / "autoencoder.safetensors").is_file()
    again = type(model).load(tmp_path, device="cpu")
    made = [
        (one.translate(DARK, solver=2) if name == "translator" else one.generate(2, label="a", solver=2)).images
        for one in (model, again)
    ]
    assert torch.equal(*made)


def test_refining_and_distilling_are_in_latents(translator):
    again = cf.DomainTranslator(**TOY, steps=3).fit(DARK, BRIGHT)
    again.refine(DARK, BRIGHT, rounds=1, steps=2).distill(DARK, BRIGHT, steps=2)
    assert again.translate(DARK, solver=cf.integrate.Jumps(1)).shape == DARK.shape
    model = cf.ImageGenerator(**TOY, steps=3).fit(BRIGHT)
    model.refine(BRIGHT, rounds=1, steps=2).distill(BRIGHT, steps=2)
    assert model.generate(2, solver=cf.integrate.Jumps(1)).shape == DARK.shape


def test_an_interrupted_training_goes_on_to_the_bit(tmp_path):
    def fit(run):
        return cf.DomainTranslator(**TOY, steps=12).fit(DARK, BRIGHT, run=run).translate(DARK, solver=1).images

    whole = fit(cf.Run(tmp_path / "whole"))
    calls = []

    def stops(steps):
        def look(_):
            calls.append(steps)
            raise RuntimeError("stopped")

        return look

    with pytest.raises(RuntimeError, match="stopped"):
        fit(cf.Run(tmp_path / "part", watch=stops(5), watch_every=5, save_every=5))
    assert (tmp_path / "part" / "autoencoder" / STATE).is_file()
    assert torch.equal(fit(cf.Run(tmp_path / "part", resume=True)), whole)
    (tmp_path / "part" / STATE).unlink()  # as if it had been stopped before the flow
    assert torch.equal(fit(cf.Run(tmp_path / "part", resume=True)), whole)
    with pytest.raises(FileExistsError):
        fit(cf.Run(tmp_path / "part"))


@pytest.mark.parametrize(
    ("given", "source", "words"),
    [
        ({"flip": True}, DARK, "cannot be mirrored"),
        ({"features": "mnist"}, DARK, "not of latents"),
        ({}, DARK.scaled(), "needs images"),
        ({}, blobs(90, side=17), "divisible by 2"),
        ({"autoencoder": "nowhere"}, DARK, "No autoencoder in nowhere"),
    ],
)
def test_what_has_no_latents_is_refused(given, source, words):
    other = source + 0.1 if isinstance(source, torch.Tensor) else blobs(200, side=source.shape[2], seed=2)
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        cf.DomainTranslator(**TOY | {"steps": 1} | given).fit(source, other)
    with pytest.raises(TypeError, match="`autoencoder` to be text, a Path or None"):
        cf.ImageGenerator(**TOY | {"steps": 1, "autoencoder": 3}).fit(DARK)


def test_descriptions_that_do_not_fit_are_refused(translator, tmp_path):
    translator.save(tmp_path)
    kept = json.loads((tmp_path / "model.json").read_text())
    for wrong, words in [
        ({"kind": "own", "sizes": {"channels": 3, "halvings": 1}}, "do not fit"),
        ({"kind": "own", "sizes": {"channels": 1, "halvings": 50}}, "halvings"),
        ({"kind": "other", "sizes": {}}, "autoencoder.kind"),
        ({"kind": "own", "sizes": {"channels": 1, "halvings": 1, "width": 10**9}}, "do not fit"),
        (None, "do not go together"),
    ]:
        (tmp_path / "model.json").write_text(json.dumps(kept | {"autoencoder": wrong}))
        with pytest.raises(CheckpointError, match=words):
            cf.DomainTranslator.load(tmp_path, device="cpu")
    without = kept | {"autoencoder": None, "settings": kept["settings"] | {"autoencoder": None}}
    (tmp_path / "model.json").write_text(json.dumps(without))
    with pytest.raises(CheckpointError, match="digests"):
        cf.DomainTranslator.load(tmp_path, device="cpu")
    (tmp_path / "model.json").write_text(json.dumps(kept))
    (tmp_path / "autoencoder.safetensors").unlink()
    with pytest.raises(CheckpointError, match="autoencoder"):
        cf.DomainTranslator.load(tmp_path, device="cpu")


def test_an_autoencoder_of_diffusers_is_taken_from_its_folder(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        blocks = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
        net = diffusers.AutoencoderKL(
            in_channels=1, out_channels=1, block_out_channels=[8, 8], latent_channels=4, norm_num_groups=4, **blocks
        )
    net.save_pretrained(tmp_path / "vae")
    settings = TOY | {"autoencoder": tmp_path / "vae", "steps": 2}
    model = cf.ImageGenerator(**settings).fit(DARK)
    model.save(tmp_path / "model")
    shutil.rmtree(tmp_path / "vae")  # the model has it
    again = cf.ImageGenerator.load(tmp_path / "model", device="cpu")
    assert torch.equal(model.generate(2, solver=1).images, again.generate(2, solver=1).images)
    net.save_pretrained(tmp_path / "vae")
    with pytest.raises(ValueError, match=r"of images of 1 channels; these have 3"):
        cf.ImageGenerator(**settings).fit(blobs(90, channels=3))


@pytest.mark.parametrize("patch", [1, 2, 4, 8])
def test_records_are_what_they_are_made_again_from(patch):
    net = Autoencoder(2, halvings=3, latents=3, width=4, patch=patch)
    again = of_record(json.loads(json.dumps(net.record())))
    again.load_state_dict(net.state_dict())
    x = torch.rand(1, 2, 8, 16, generator=cf.generator(seed=0))
    assert net.encode(x).shape == (1, 3, 1, 2)
    assert net.decode(net.encode(x)).shape == x.shape
    assert torch.equal(net.decode(net.encode(x)), again.decode(again.encode(x)))


def test_models_from_before_patches_see_every_pixel():
    record = {"kind": "own", "sizes": {"channels": 1, "halvings": 2, "latents": 3, "width": 4}}
    old = of_record(record)
    assert old.patch == 1
    assert old.encoder[0].in_channels == 1
    assert len([part for part in old.encoder if isinstance(part, Downsample)]) == 2


def test_a_run_that_was_begun_before_patches_goes_on(tmp_path, monkeypatch):
    """Its autoencoder saw every pixel, and as many images of each set in a step as the flow."""
    seen, fit = [], latents.fit_autoencoder

    def twice_as_large(*sides, batch_size, **given):
        return cf.pairing.image_batches(*sides, batch_size=2 * batch_size, **given)

    def spy(network, batches, **given):
        seen.append((network.patch, network.halvings, len(next(iter(batches)).x1)))
        return fit(network, batches, **given)

    monkeypatch.setattr(latents, "fit_autoencoder", spy)
    former = Autoencoder(1, halvings=1)
    with monkeypatch.context() as then:
        then.setattr(latents, "default_autoencoder", lambda shape: former)
        then.setattr(latents, "image_batches", twice_as_large)
        cf.DomainTranslator(**TOY, steps=2).fit(DARK, BRIGHT, run=cf.Run(tmp_path / "old"))
    state = tmp_path / "old" / "autoencoder" / STATE
    before = load_tensors(state)[0]["field.encoder.0.weight"]
    found = latents._begun_before_patches(cf.Run(tmp_path / "old", resume=True), DARK.shape)
    assert (found.patch, found.halvings) == (1, 1)
    assert found.encoder[0].weight.shape == before.shape
    assert latents._begun_before_patches(cf.Run(tmp_path / "old"), DARK.shape) is None
    cf.DomainTranslator(**TOY, steps=2).fit(DARK, BRIGHT, run=cf.Run(tmp_path / "new"))
    assert latents._begun_before_patches(cf.Run(tmp_path / "new", resume=True), DARK.shape) is None
    model = cf.DomainTranslator(**TOY, steps=2).fit(DARK, BRIGHT, run=cf.Run(tmp_path / "old", resume=True))
    assert [one for one in seen if one[0] == 1] == [(1, 1, 8), (1, 1, 8)]
    assert model.autoencoder_.patch == 1


@pytest.mark.parametrize("patch", [0, 3, 8, -2])
def test_patches_that_no_halvings_make_are_refused(patch):
    with pytest.raises(ValueError, match=f"a patch of 1, 2, 4 ... up to 4, all halvings; found {patch}"):
        Autoencoder(1, halvings=2, patch=patch)


@pytest.mark.parametrize(("sides", "batch"), [((DARK, BRIGHT), 3), ((DARK,), 6)])
def test_a_step_sees_as_many_images_as_one_of_the_flow(sides, batch, monkeypatch):
    seen = []

    def spy(network, batches, *, both, **_):
        one = next(iter(batches))
        seen.append((len(one.x1), both))

    monkeypatch.setattr(latents, "fit_autoencoder", spy)
    autoencoder_of("train", sides, steps=1, batch_size=6, recipe=None, seed=0, run=cf.Run())
    assert seen == [(batch, len(sides) == 2)]


def test_on_the_command_line(tmp_path, capfd):
    from PIL import Image

    for name, images in (("dark", DARK), ("bright", BRIGHT)):
        (tmp_path / name).mkdir()
        for number, image in enumerate(images.images):
            Image.fromarray(image[0].numpy()).save(tmp_path / name / f"{number}.png")
    fast = ["steps=3", "batch_size=4", "holdout=0.4", "device=cpu", "solver.steps=1", "autoencoder=train"]
    both = [f"source={tmp_path / 'dark'}", f"target={tmp_path / 'bright'}"]
    assert main(["translate", *both, f"out={tmp_path / 'run'}", *fast]) == 0
    said = capfd.readouterr().err
    assert "training an autoencoder of 16 x 16 pixels first" in said
    assert "the first one after at most 1 min of the flow, once the autoencoder is trained" in said
    assert (
        main(["translate", f"model={tmp_path / 'run'}", both[0].replace("source", "input"), f"out={tmp_path / 'o'}"])
        == 0
    )
    assert len(list((tmp_path / "o").glob("*.png"))) == 12
