"""`DomainTranslator`: known maps are found, whatever the data come as; files and interruptions lose nothing."""

import json
from functools import partial

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone

import cellflow as cf
from cellflow.estimators.fields import network_for
from cellflow.integrate import Fixed
from cellflow.training.checkpoint import load_tensors
from conftest import make_cells

SMALL = partial(cf.networks.UNet, width=8, multipliers=(1, 2), blocks=1)
SHIFT = torch.tensor([6.0, -2.0])


def blobs(n=300, seed=0):
    return torch.randn(n, 2, generator=cf.generator(seed=seed))


def grey(level, n=24, size=8, seed=0):
    """Images of one level each, which differs a little from image to image."""
    levels = torch.randint(level - 10, level + 10, (n, 1, 1, 1), generator=cf.generator(seed=seed))
    return cf.images.ImageSet(levels.expand(n, 1, size, size).to(torch.uint8).contiguous(), names=names(n))


def names(n):
    return tuple(f"cell-{k:02d}.png" for k in range(n))


def vectors(**settings):
    return cf.DomainTranslator(**{"steps": 400, "batch_size": 64, "device": "cpu"} | settings)


def images(**settings):
    return cf.DomainTranslator(**{"steps": 150, "batch_size": 16, "device": "cpu", "network": SMALL} | settings)


@pytest.fixture(scope="module")
def shifted():
    x = blobs()
    return x, vectors().fit(x, blobs(seed=1) + SHIFT)


@pytest.fixture(scope="module")
def brightened():
    """Dark images become bright ones."""
    dark, bright = grey(60), grey(190, seed=1)
    return dark, bright, images(steps=200, recipe=cf.training.Recipe(ema=0.98, learning_rate=4e-3)).fit(dark, bright)


def test_a_known_shift_of_vectors_is_found(shifted):
    """The optimal map between two Gaussians that differ in their mean is the shift."""
    x, model = shifted
    moved = model.translate(x) - x
    assert (moved.mean(dim=0) - SHIFT).abs().max() < 0.25
    assert (moved - SHIFT).abs().mean() < 0.4


def test_reverse_is_the_inverse(shifted):
    x, model = shifted
    there = model.translate(x, solver=Fixed("rk4", steps=50))
    assert torch.allclose(model.translate(there, reverse=True, solver=Fixed("rk4", steps=50)), x, atol=1e-3)


def test_images_of_one_level_become_images_of_another(brightened):
    dark, bright, model = brightened
    found = model.translate(dark)
    assert found.images.dtype == torch.uint8
    assert abs(found.images.float().mean() - bright.images.float().mean()) < 12
    back = model.translate(found, reverse=True)
    assert (back.images.float() - dark.images.float()).abs().mean() < 6


def test_levels_keep_their_order(brightened):
    """The optimal map of one-level images is the monotone one: the darkest stays the darkest."""
    dark, _, model = brightened
    before = dark.images.float().mean(dim=(1, 2, 3))
    after = model.translate(dark).images.float().mean(dim=(1, 2, 3))
    assert torch.corrcoef(torch.stack([before, after]))[0, 1] > 0.9


def test_every_form_comes_back_as_it_went_in(brightened):
    dark, _, model = brightened
    found = model.translate(dark)
    assert found.names == dark.names
    array = model.translate(dark.images.numpy())
    tensor = model.translate(dark.images)
    assert isinstance(array, np.ndarray)
    assert array.dtype == np.uint8
    assert torch.equal(tensor, found.images)
    assert (array == found.images.numpy()).all()


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_vectors_keep_their_precision(shifted, kind):
    x, model = shifted
    assert model.translate(x.to(kind)).dtype == kind
    assert model.translate(x.to(kind).numpy()).dtype == x.to(kind).numpy().dtype


def test_streams_are_translated_like_images_in_memory(brightened, tmp_path):
    from PIL import Image

    dark, _, model = brightened
    for name, image in zip(dark.names, dark.images, strict=True):
        Image.fromarray(image[0].numpy()).save(tmp_path / name)
    stream = cf.images.stream_images(tmp_path, size=8, channels=1)
    found = model.translate(stream)
    assert torch.equal(found.images, model.translate(dark).images)
    assert found.names == dark.names


def test_the_batch_size_makes_no_difference(brightened):
    dark, _, model = brightened
    gap = model.translate(dark, batch_size=5).images.int() - model.translate(dark).images.int()
    assert gap.abs().max() <= 1  # rounding of a sum in another order


def test_a_trajectory_starts_at_the_input_and_ends_at_the_translation(brightened):
    dark, _, model = brightened
    course = model.trajectory(dark, save=5, solver=20)
    assert course.x.shape == (5, *dark.images.shape)
    assert torch.equal(course.x[0], dark.scaled())
    assert torch.equal(cf.images.to_bytes(course.x[-1]), model.translate(dark).images)


def cells(shift=0.0, seed=0, n=120):
    draw = np.random.default_rng(seed)
    obs = pd.DataFrame({"kind": ["a", "b"] * (n // 2)}, index=[f"cell{seed}-{k}" for k in range(n)])
    x = draw.normal(size=(n, 3)).astype(np.float32)
    x[1::2, 0] += 8  # the two kinds are far apart
    x[:, 2] += shift
    return anndata.AnnData(X=np.zeros((n, 0), np.float32), obs=obs, obsm={"X_pca": x})


def without_kind():
    adata = cells(seed=1)
    adata.obs.iloc[3, 0] = np.nan
    return adata


def test_treated_cells_are_predicted_from_control_cells():
    control, treated = cells(), cells(shift=5.0, seed=1)
    both = anndata.concat([control, treated], keys=["control", "treated"], label="condition")
    before = both.obsm["X_pca"].copy()
    model = vectors(within_labels="kind", steps=300)
    model.fit(both[both.obs["condition"] == "control"], both[both.obs["condition"] == "treated"])
    found = model.translate(control)
    moved = found.obsm["X_pca"] - control.obsm["X_pca"]
    assert abs(moved[:, 2].mean() - 5) < 0.5
    assert np.abs(moved[:, 0]).mean() < 1.5  # nobody changes kind
    assert list(found.obs_names) == list(control.obs_names)
    assert list(found.obs["kind"]) == list(control.obs["kind"])
    assert (both.obsm["X_pca"] == before).all()
    assert list(both.obsm) == ["X_pca"]


CORNERS = {"a": ((0, 0), (4, 1)), "b": ((4, -3), (0, -1))}
"""Where the kinds begin and end; each begins next to where the other one ends."""


def kinds(end, seed):
    draw, n = np.random.default_rng(seed), 60
    kind = np.repeat(["a", "b"], n)
    x = np.concatenate([draw.normal(CORNERS[name][end], 0.3, size=(n, 2)) for name in "ab"])
    return anndata.AnnData(obs=pd.DataFrame({"kind": kind}, index=[str(k) for k in range(2 * n)]), obsm={"X_pca": x})


@pytest.mark.parametrize("within", ["kind", False])
def test_kinds_are_kept_apart_where_that_is_asked_for(within):
    """The nearest way changes the kind: so it is taken without classes, and not with them."""
    control, treated = kinds(0, seed=0), kinds(1, seed=1)
    found = vectors(within_labels=within, steps=300).fit(control, treated).translate(control)
    middle = found.obsm["X_pca"][(found.obs["kind"] == "a").to_numpy()].mean(axis=0)
    assert np.abs(middle - CORNERS["a" if within else "b"][1]).max() < 0.5


def test_labels_of_images_are_kept_where_they_hold():
    labels = torch.arange(24) % 2
    dark, bright = (cf.images.ImageSet(side.images, labels) for side in (grey(60), grey(190)))
    assert torch.equal(images(steps=2, within_labels=True).fit(dark, bright).translate(dark).labels, labels)
    assert images(steps=2).fit(dark, bright).translate(dark).labels is None


@pytest.fixture(scope="module")
def bridge():
    x = blobs()
    path = cf.paths.BrownianBridge(1.0)
    return x, vectors(path=path, stochastic=True, steps=500).fit(x, blobs(seed=1) + SHIFT)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_bridge_can_be_simulated_both_ways(bridge, reverse):
    x, model = bridge
    start, stop = (x + SHIFT, torch.zeros(2)) if reverse else (x, SHIFT)
    found = model.simulate(start, reverse=reverse)
    assert (found.mean(dim=0) - stop).abs().max() < 0.35
    assert (found.std(dim=0) - 1).abs().max() < 0.3
    assert torch.equal(found, model.simulate(start, reverse=reverse))
    assert (found - model.simulate(start, reverse=reverse, seed=1)).abs().mean() > 0.1


def test_without_a_score_there_is_no_simulation(shifted):
    x, model = shifted
    with pytest.raises(TypeError, match="fitted without a score"):
        model.simulate(x)
    with pytest.raises(TypeError, match="fitted without a score"):
        model.trajectory(x, solver=cf.integrate.Noisy(24))


@pytest.mark.parametrize("heads", ["shared", "separate"])
def test_images_can_have_a_bridge(heads):
    settings = {"path": cf.paths.BrownianBridge(0.3), "stochastic": True, "heads": heads, "steps": 10}
    model = images(**settings).fit(grey(60), grey(190, seed=1))
    found = model.simulate(grey(60), solver=4)
    assert found.images.shape == (24, 1, 8, 8)
    assert list(model.history_.columns) == ["loss", "velocity", "score", "learning_rate"]


def test_images_can_have_a_bridge_by_its_ends(tmp_path):
    """It is simulated, carried both ways, distilled, saved and loaded, and refined, as any other."""
    settings = {"path": cf.paths.BrownianBridge(0.3), "stochastic": True, "heads": "ends", "steps": 10}
    x, y = grey(60), grey(190, seed=1)
    model = images(**settings).fit(x, y).distill(x, y, steps=2)
    assert list(model.history_.columns) == ["loss", "source", "target", "learning_rate"]
    assert model.translate(model.translate(x, solver=4), solver=4, reverse=True).images.shape == (24, 1, 8, 8)
    model.save(tmp_path)
    back = cf.DomainTranslator.load(tmp_path, device="cpu")
    for use in (
        lambda flow: flow.simulate(x, solver=4),
        lambda flow: flow.simulate(y, solver=4, reverse=True),
        lambda flow: flow.translate(x, solver=4),
        lambda flow: flow.translate(x, solver=cf.integrate.Jumps(1)),
    ):
        assert torch.equal(use(model).images, use(back).images)
    assert len(back.refine(x, y, rounds=1, steps=2).history_) == 12


@pytest.mark.parametrize(
    ("flow", "path", "found"),
    [
        ("images", cf.paths.BrownianBridge(0.3), cf.networks.EndPoints),
        ("images", cf.paths.Linear(0.3), cf.networks.Heads),
        ("vectors", cf.paths.BrownianBridge(0.3), cf.networks.Heads),
    ],
)
def test_heads_follow_from_the_samples_and_the_path(flow, path, found):
    x, y = (grey(60), grey(190, seed=1)) if flow == "images" else (blobs(), blobs(seed=1))
    model = {"images": images, "vectors": vectors}[flow](path=path, stochastic=True, steps=1).fit(x, y)
    assert type(model.field_) is found


def test_the_guess_of_the_ends_is_that_of_both_domains():
    x, y = grey(60), grey(190, seed=1)
    model = images(path=cf.paths.BrownianBridge(0.3), stochastic=True, steps=1).fit(x, y)
    guess = model.field_.guess
    assert guess.sigma == 0.3
    assert 0.3 < model.history_["loss"][0] < 6  # in units of what the guess misses, not of images
    for mean, variance, domain in zip(guess.mean, guess.variance, (x, y), strict=True):
        assert torch.allclose(mean, domain.scaled().mean(0), atol=1e-6)
        deviations = domain.scaled() - domain.scaled().mean(0)
        assert variance.sum().item() == pytest.approx(deviations.square().sum().item() / len(deviations), rel=1e-4)


def test_an_interrupted_bridge_by_its_ends_goes_on_as_if_it_had_not_been(tmp_path):
    settings = {"path": cf.paths.BrownianBridge(0.3), "stochastic": True, "heads": "ends"}
    x, y = grey(60), grey(190, seed=1)
    whole = images(**settings, steps=6).fit(x, y)
    images(**settings, steps=3).fit(x, y, run=cf.training.Run(tmp_path))
    again = images(**settings, steps=6).fit(x, y, run=cf.training.Run(tmp_path, resume=True))
    for one, other in zip(whole.field_.parameters(), again.field_.parameters(), strict=True):
        assert torch.equal(one, other)


def test_ends_are_those_of_brownian_bridges_between_images():
    settings = {"path": cf.paths.BrownianBridge(0.3), "stochastic": True, "heads": "ends"}
    with pytest.raises(ValueError, match="Brownian bridge; found path=Linear"):
        images(**settings | {"path": cf.paths.Linear(0.3)}).fit(grey(60), grey(190, seed=1))
    with pytest.raises(ValueError, match="for images.*found vectors"):
        vectors(**settings).fit(blobs(), blobs(seed=1))
    with pytest.raises(ValueError, match="Unknown heads 'ends'"):
        cf.SnapshotFlow(time_key="day", stochastic=True, heads="ends", path=settings["path"], steps=1).fit(make_cells())


@pytest.mark.slow
def test_reflow_makes_paths_straight():
    """After independent pairs paths bend; after a round of reflow one solver step says nearly what fifty do."""
    x, y = blobs(), torch.cat([blobs(150, seed=1) + 5, blobs(150, seed=2) - 5])
    model = vectors(coupling="independent", steps=600).fit(x, y)
    before = bend(model, x)
    model.refine(x, y, rounds=1, steps=400, coupling=cf.training.Reflow(solver=20))
    assert bend(model, x) < 0.5 * before
    assert len(model.history_) == 1000


def bend(model, x):
    return (model.translate(x, solver=Fixed("euler", steps=1)) - model.translate(x, solver=50)).norm(dim=1).mean()


@pytest.mark.slow
def test_a_bridge_is_refined_by_its_own_diffusion(bridge):
    """A round forward and one backward keep both ends where they are."""
    x, _ = bridge
    again = vectors(path=cf.paths.BrownianBridge(1.0), stochastic=True, steps=300, coupling="independent")
    ways = cf.training.MarkovianFitting(sigma=1.0, solver=20)
    again.fit(x, x + SHIFT).refine(x, x + SHIFT, rounds=2, steps=150, coupling=ways)
    assert (again.simulate(x).mean(dim=0) - SHIFT).abs().max() < 0.4


def test_images_are_refined_some_at_a_time():
    dark, bright = grey(60), grey(190, n=30, seed=1)
    ways = cf.training.Reflow(solver=2)
    model = images(steps=5).fit(dark, bright).refine(dark, bright, rounds=2, steps=3, coupling=ways)
    assert len(model.history_) == 11


def test_saved_and_loaded_is_the_same_to_the_bit(brightened, shifted, tmp_path):
    dark, _, model = brightened
    model.save(tmp_path / "images")
    again = cf.DomainTranslator.load(tmp_path / "images", device="cpu")
    assert torch.equal(again.translate(dark).images, model.translate(dark).images)
    assert again.get_params()["network"].keywords == SMALL.keywords
    x, other = shifted
    other.save(tmp_path / "vectors")
    loaded = cf.DomainTranslator.load(tmp_path / "vectors", device="cpu")
    assert torch.equal(loaded.translate(x), other.translate(x))
    assert loaded.history_.columns == other.history_.columns


def test_a_loaded_bridge_can_be_refined(bridge, tmp_path):
    x, model = bridge
    model.save(tmp_path)
    loaded = cf.DomainTranslator.load(tmp_path, device="cpu")
    assert torch.equal(loaded.simulate(x), model.simulate(x))
    loaded.refine(x, x + SHIFT, rounds=1, steps=5)


def test_the_default_network_is_built_again_from_the_shape(tmp_path):
    dark, bright = grey(60, n=4), grey(190, n=4, seed=1)
    model = cf.DomainTranslator(steps=2, batch_size=2, device="cpu").fit(dark, bright)
    model.save(tmp_path)
    again = cf.DomainTranslator.load(tmp_path, device="cpu")
    assert torch.equal(again.translate(dark, solver=1).images, model.translate(dark, solver=1).images)


@pytest.mark.parametrize(
    ("shape", "levels", "attention"),
    [
        ((1, 8, 8), 2, (1,)),
        ((3, 32, 32), 4, (1, 2, 3)),
        ((1, 28, 28), 3, (1, 2)),
        ((1, 64, 64), 4, (2, 3)),
        ((1, 33, 17), 3, (2,)),
    ],
)
def test_the_default_network_suits_the_size(shape, levels, attention):
    chosen = network_for(None, shape)
    assert len(chosen.keywords["multipliers"]) == levels
    assert chosen.keywords["attention"] == attention
    x = torch.zeros(1, *shape)
    assert chosen(shape[0])(torch.zeros(1), x).shape == x.shape


def test_resumed_is_the_same_to_the_bit(tmp_path):
    dark, bright = grey(60), grey(190, seed=1)
    recipe = cf.training.Recipe(schedule="constant")
    whole = images(steps=20, recipe=recipe).fit(dark, bright)
    images(steps=12, recipe=recipe).fit(dark, bright, run=cf.Run(tmp_path))
    resumed = images(steps=20, recipe=recipe).fit(dark, bright, run=cf.Run(tmp_path, resume=True))
    assert torch.equal(resumed.translate(dark).images, whole.translate(dark).images)
    assert resumed.history_["loss"] == whole.history_["loss"]


def test_looks_in_between_change_nothing(tmp_path):
    dark, bright = grey(60), grey(190, seed=1)
    seen = []
    watched = images(steps=20).fit(
        dark,
        bright,
        run=cf.Run(
            tmp_path,
            watch_every=8,
            watch=lambda model: seen.append(model.translate(dark).images.float().mean().item()),
        ),
    )
    plain = images(steps=20).fit(dark, bright)
    assert len(seen) == 3
    assert seen[0] != seen[1] != seen[2]
    assert torch.equal(watched.translate(dark).images, plain.translate(dark).images)
    assert load_tensors(tmp_path / "training.safetensors")[1]["step"] == 20


def test_other_images_cannot_resume(tmp_path):
    images(steps=3).fit(grey(60), grey(190), run=cf.Run(tmp_path))
    with pytest.raises(cf.errors.CheckpointError, match="target"):
        images(steps=6).fit(grey(60), grey(120), run=cf.Run(tmp_path, resume=True))


@pytest.mark.parametrize("features", [2, lambda images: images.mean(dim=(2, 3))])
def test_images_are_paired_in_other_spaces(features):
    dark, bright = grey(60), grey(190, seed=1)
    own = {} if isinstance(features, int) else {"features": features}
    model = images(steps=3, features=features if isinstance(features, int) else None).fit(dark, bright, **own)
    assert len(model.history_) == 3


def test_a_shipped_network_gives_features():
    cells = cf.datasets.cell_silhouettes()
    some = [cf.images.read_images(cells.only(name).take(range(6)), size=32) for name in ("control", "cytd")]
    assert len(images(steps=1, batch_size=4, features="silhouettes").fit(*some).history_) == 1
    with pytest.raises(ValueError, match="are for images"):
        vectors(features="silhouettes").fit(blobs(), blobs(seed=1))


def test_settings_are_kept_untouched_and_cloned():
    model = images(features=3, within_labels=True, path="trigonometric")
    kept, given = clone(model).get_params(), model.get_params()
    assert kept.pop("network").keywords == given.pop("network").keywords
    assert kept == given
    assert "DomainTranslator(" in repr(model)


@pytest.mark.usefixtures("global_state_is_untouched")
def test_the_same_seed_gives_the_same_flow():
    x, y = blobs(60), blobs(60, seed=1) + SHIFT
    a, b, c = (vectors(steps=20, seed=seed).fit(x, y).translate(x) for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


DARK = grey(60)
NOISY = cf.paths.BrownianBridge(0.5)


@pytest.mark.parametrize(
    ("settings", "source", "target", "error", "words"),
    [
        ({}, DARK, DARK, ValueError, "the same images"),
        ({}, blobs(), blobs(), ValueError, "the same samples"),
        ({}, DARK.take([0]), DARK, ValueError, "at least two source samples; found 1"),
        ({}, DARK, torch.zeros(4, 3, 8, 8, dtype=torch.uint8), ValueError, "of one shape"),
        ({}, DARK, torch.zeros(4, 1, 8, 8), ValueError, "one of each"),
        ({}, blobs(), torch.zeros(5, 3), ValueError, "of one shape in both domains"),
        ({}, "folder", DARK, TypeError, "read_images"),
        ({}, torch.zeros(4, 8, 8), DARK, ValueError, "takes other forms"),
        ({}, torch.zeros(4, 1, 8, 8, dtype=torch.int64), DARK, TypeError, "bytes"),
        ({}, torch.full((4, 2), torch.nan), blobs(), ValueError, "NaN"),
        ({"heads": "three", "stochastic": True, "path": NOISY}, blobs(), blobs(seed=1), ValueError, "Unknown heads"),
        ({"stochastic": True}, blobs(), blobs(seed=1), ValueError, "path with noise"),
        ({"steps": 0}, blobs(), blobs(seed=1), ValueError, "`steps`"),
        ({"batch_size": 2.5}, blobs(), blobs(seed=1), ValueError, "`batch_size`"),
        ({"recipe": "fast"}, blobs(), blobs(seed=1), TypeError, "Recipe"),
        ({"network": "resnet"}, blobs(), blobs(seed=1), ValueError, "Unknown network"),
        ({"within_labels": True}, DARK, grey(190), ValueError, "labels on both sides"),
        ({"within_labels": "cell_type"}, cells(), cells(seed=1), KeyError, "Available: ['kind']"),
        ({"within_labels": "kind"}, cells(), without_kind(), ValueError, "1 of 120 cells have no group"),
        ({"rep": "X_umap"}, cells(), cells(seed=1), KeyError, "X_umap"),
        ({"features": "faces"}, DARK, grey(190), ValueError, "Unknown feature network"),
        ({"features": "mnist"}, blobs(), blobs(seed=1), ValueError, "are for images"),
        ({}, torch.zeros(4, 1, 8, 1032), torch.ones(4, 1, 8, 1032), ValueError, "size=128"),
    ],
)
def test_what_cannot_be_is_refused(settings, source, target, error, words):
    with pytest.raises(error, match=words.replace("[", r"\[").replace("(", r"\(")):
        cf.DomainTranslator(**{"steps": 2, "batch_size": 2, "device": "cpu"} | settings).fit(source, target)


def test_a_fitted_flow_knows_what_it_was_fitted_on(brightened):
    dark, _, model = brightened
    with pytest.raises(ValueError, match="shape .1, 8, 8., as in `fit`"):
        model.translate(grey(60, size=16))
    with pytest.raises(ValueError, match="Expected images as bytes"):
        model.translate(dark.scaled())
    with pytest.raises(ValueError, match="batch_size"):
        model.translate(dark, batch_size=0)
    with pytest.raises(cf.errors.NotFittedError):
        images().translate(dark)


def test_weights_of_another_architecture_are_refused(brightened, tmp_path):
    _, _, model = brightened
    model.save(tmp_path)
    wider = partial(SMALL, width=16)
    with pytest.raises(cf.errors.CheckpointError, match="do not fit this model"):
        cf.DomainTranslator.load(tmp_path, network=wider, device="cpu")
    about = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(about | {"estimator": "SnapshotFlow"}))
    with pytest.raises(cf.errors.CheckpointError, match="holds a SnapshotFlow"):
        cf.DomainTranslator.load(tmp_path)


tiny = partial(cf.networks.UNet, width=8, multipliers=(1, 2), blocks=1)


def drawing(n=6, side=8, seed=0):
    return cf.images.ImageSet((torch.rand(n, 1, side, side, generator=cf.generator(seed=seed)) > 0.7).byte() * 255)


def micrograph(n=6, side=8, seed=0):
    return cf.images.ImageSet((torch.rand(n, 1, side, side, generator=cf.generator(seed=seed)) * 255).byte())


def test_a_network_of_vectors_is_refused_for_images():
    with pytest.raises(ValueError, match="network='mlp' is for vectors; found images"):
        cf.DomainTranslator(network="mlp", steps=1, batch_size=2).fit(drawing(), micrograph())


def test_pairs_of_another_bridge_are_refused():
    flow = cf.DomainTranslator(network=tiny, steps=1, batch_size=2, progress=False).fit(drawing(), micrograph())
    with pytest.raises(ValueError, match="is for bridges. Fit with stochastic=True"):
        flow.refine(drawing(), micrograph(), rounds=1, steps=1, coupling=cf.training.MarkovianFitting(0.3))
    bridge = cf.DomainTranslator(
        path=cf.paths.BrownianBridge(0.3), stochastic=True, network=tiny, steps=1, batch_size=2, progress=False
    ).fit(drawing(), micrograph())
    with pytest.raises(ValueError, match=r"the noise of the path, sigma=0.3"):
        bridge.refine(drawing(), micrograph(), rounds=1, steps=1, coupling=cf.training.MarkovianFitting(0.9))
