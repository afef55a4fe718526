"""`ImageGenerator`: flow and diffusion reach the images, classes can be asked for, resumption loses nothing."""

from functools import partial

import pytest
import torch
from sklearn.base import clone

import cellflow as cf
from cellflow.estimators.guidance import ConditionDropout, Guided, one_hot
from cellflow.integrate import Fixed

SMALL = partial(cf.networks.UNet, width=8, multipliers=(1,), blocks=1)
LEVELS = {"dark": 40, "bright": 210}


def flat(n=32, size=4):
    """Images of one level each: half of them dark, half bright."""
    labels = torch.arange(n) % 2
    levels = torch.tensor(list(LEVELS.values()))[labels] + torch.randint(-8, 9, (n,), generator=cf.generator(seed=0))
    images = levels[:, None, None, None].expand(n, 1, size, size).to(torch.uint8).contiguous()
    return cf.images.ImageSet(images, labels, classes=tuple(LEVELS))


def make(**settings):
    quick = cf.training.Recipe(ema=0.98, learning_rate=5e-3)
    base = {"steps": 200, "batch_size": 32, "device": "cpu", "network": SMALL, "recipe": quick}
    return cf.ImageGenerator(**base | settings)


METHODS = {
    "flow": {},
    "ot": {"coupling": "exact"},
    "diffusion": {"path": "variance_preserving", "objective": "noise", "steps": 400},
}


@pytest.fixture(
    scope="module", params=["flow", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ot", "diffusion"))]
)
def fitted(request):
    return make(conditional=True, condition_dropout=0.3, **METHODS[request.param]).fit(flat())


@pytest.mark.parametrize("name", LEVELS)
def test_the_class_that_is_asked_for_comes_out(fitted, name):
    found = fitted.generate(20, label=name, solver=20)
    level = found.images.float().mean(dim=(1, 2, 3))
    assert (level - LEVELS[name]).abs().median() < 30
    assert found.classes == ("dark", "bright")
    assert set(found.labels.tolist()) == {list(LEVELS).index(name)}


def test_without_a_class_both_come_out(fitted):
    level = fitted.generate(40, solver=20).images.float().mean(dim=(1, 2, 3))
    share = (level > 125).float().mean()
    assert 0.15 < share < 0.85


def test_an_image_is_of_one_level(fitted):
    """The images vary between each other, not within."""
    found = fitted.generate(20, label="bright", solver=20).images.float()
    assert found.std(dim=(1, 2, 3)).median() < 25


@pytest.mark.slow
def test_refining_makes_few_steps_do():
    """Dark or bright: after independent pairs one step ends between the two, after reflow nearer to where many do."""
    images = flat()
    model = make().fit(images)
    before = bend(model)
    model.refine(images, rounds=1, steps=300, coupling=cf.training.Reflow(solver=10, both_ends=True))
    assert bend(model) < 0.6 * before
    assert len(model.history_) == 500


def bend(model):
    """How far one step ends from many: 0 on straight paths."""
    one, many = (model.generate(40, solver=Fixed("euler", steps=steps)).scaled() for steps in (1, 40))
    return (one - many).abs().mean()


class Recording:
    """Pairs noise with the image of the same number, and notes what it was given."""

    def __init__(self):
        self.real, self.classes = [], []

    def __call__(self, field, objective, x0, x1, *, turn, generator, condition=None):
        self.real.append(x1)
        self.classes.append(condition)
        return x0, x1


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_refining_knows_the_class_of_each_image(dropout):
    images, seen = flat(), Recording()
    model = make(conditional=True, condition_dropout=dropout, steps=1, batch_size=10).fit(images)
    model.refine(images, rounds=1, steps=1, coupling=seen)
    real, classes = torch.cat(seen.real), torch.cat(seen.classes)
    known = classes.sum(dim=1) > 0
    assert known.all() == (dropout == 0)
    assert known.float().mean() > 0.4
    bright = real.mean(dim=(1, 2, 3)) > 0
    assert torch.equal(classes.argmax(dim=1)[known] == 1, bright[known])


def test_refining_mirrors_images_where_the_fit_does():
    half = flat()
    half.images[..., :2] = 0  # the left half is black: or the right one, of a mirrored image
    for flip, both in ((False, False), (True, True)):
        seen = Recording()
        make(flip=flip, steps=1).fit(half).refine(half, rounds=1, steps=1, coupling=seen)
        left = torch.cat(seen.real)[..., 0].eq(-1).flatten(1).all(dim=1)
        assert left.any()
        assert (~left).any() == both


def test_refining_takes_the_images_of_the_fit(fitted):
    with pytest.raises(ValueError, match="the images of the fit"):
        fitted.refine(flat(size=8), rounds=1)
    with pytest.raises(cf.errors.NotFittedError):
        make().refine(flat(), rounds=1)
    with pytest.raises(ValueError, match="steps"):
        fitted.refine(flat(), rounds=1, steps=0)
    with pytest.raises(ValueError, match=r"whole number of rounds >= 1; found 1\.5"):
        fitted.refine(flat(), rounds=1.5, steps=1)
    with pytest.raises(TypeError, match="a coupling made by the model"):
        fitted.refine(flat(), rounds=1, steps=1, coupling="reflow")


def test_guidance_of_one_is_none_and_more_changes_the_images(fitted):
    plain = fitted.generate(6, label="dark", solver=5)
    assert torch.equal(fitted.generate(6, label="dark", guidance=1.0, solver=5).images, plain.images)
    assert not torch.equal(fitted.generate(6, label="dark", guidance=3.0, solver=5).images, plain.images)


def test_guidance_is_a_line_from_no_class_through_the_class():
    def field(t, x, condition):
        return 1.0 + condition

    condition, t, x = torch.tensor([[1.0, 0.0]]), torch.zeros(1), torch.zeros(1, 2)
    assert torch.equal(Guided(field, 0.0)(t, x, condition), torch.tensor([[1.0, 1.0]]))
    assert torch.equal(Guided(field, 2.5)(t, x, condition), torch.tensor([[3.5, 1.0]]))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_as_many_classes_are_forgotten_as_said(share):
    seen = []

    def field(t, x, condition):
        seen.append(condition)
        return x

    batch = cf.Batch(torch.zeros(4000, 2), torch.ones(4000, 2), condition=one_hot("b", 4000, ("a", "b")))
    ConditionDropout(cf.objectives.VelocityMatching(), share)(field, batch, generator=cf.generator(seed=0))
    forgotten = (seen[0].sum(dim=1) == 0).float().mean().item()
    assert abs(forgotten - share) < 4 * (share * (1 - share) / 4000) ** 0.5 + 1e-9


def test_diffusion_and_flow_sample_from_the_same_interface(fitted):
    course = fitted.trajectory(4, save=4, label="bright", solver=6)
    assert course.x.shape == (4, 4, 1, 4, 4)
    assert torch.allclose(course.t, torch.linspace(0, 1, 4))
    assert course.x[0].std() > 0.7  # noise
    assert torch.equal(cf.images.to_bytes(course.x[-1]), fitted.generate(4, label="bright", solver=6).images)


def test_the_batch_size_makes_no_difference(fitted):
    one, all_ = (fitted.generate(7, label="dark", solver=4, batch_size=size).images.int() for size in (3, 7))
    assert (one - all_).abs().max() <= 1


def test_saved_and_loaded_is_the_same_to_the_bit(fitted, tmp_path):
    fitted.save(tmp_path)
    again = cf.ImageGenerator.load(tmp_path, device="cpu")
    options = {"label": ["dark", 1, "dark"], "guidance": 2.0, "solver": 3}
    assert torch.equal(again.generate(3, **options).images, fitted.generate(3, **options).images)
    with pytest.raises(cf.errors.CheckpointError, match="do not fit this model"):
        cf.ImageGenerator.load(tmp_path, network=partial(SMALL, width=16))
    with pytest.raises(cf.errors.CheckpointError, match="holds a ImageGenerator"):
        cf.DomainTranslator.load(tmp_path)


def test_resumed_and_watched_are_the_same_to_the_bit(tmp_path):
    constant = cf.training.Recipe(schedule="constant")
    whole = make(steps=12, recipe=constant).fit(flat())
    make(steps=7, recipe=constant).fit(flat(), run=cf.Run(tmp_path))
    seen = []
    resumed = make(steps=12, recipe=constant)
    watch = lambda model: seen.append(len(model.history_))  # noqa: E731
    resumed.fit(flat(), run=cf.Run(tmp_path, resume=True, watch_every=5, watch=watch))
    assert torch.equal(resumed.generate(3, solver=2).images, whole.generate(3, solver=2).images)
    assert resumed.history_["loss"] == whole.history_["loss"]
    assert len(seen) == 2  # after steps 10 and 12


def test_a_plain_model_knows_no_classes():
    model = make(steps=2).fit(flat())
    assert model.classes_ is None
    assert model.generate(2, solver=1).labels is None
    with pytest.raises(ValueError, match="learned no classes"):
        model.generate(2, label="dark")


@pytest.mark.usefixtures("global_state_is_untouched")
def test_the_seed_decides_everything():
    a, b, c = (make(steps=4, seed=seed).fit(flat()).generate(2, solver=2).images for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    model = make(steps=2).fit(flat())
    assert not torch.equal(model.generate(2, solver=1).images, model.generate(2, solver=1, seed=1).images)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"label": "grey"}, "Unknown class 'grey'. Choose from: 'dark', 'bright'"),
        ({"label": 2}, "from 0 to 1; found 2"),
        ({"label": [0, 1, 0]}, "one for each of 2"),
        ({"guidance": 2.0}, "needs a class"),
        ({"label": 0, "batch_size": 0}, "batch_size"),
    ],
)
def test_what_cannot_be_generated_is_refused(fitted, options, words):
    with pytest.raises(ValueError, match=words):
        fitted.generate(2, **{"solver": 1} | options)
    with pytest.raises(ValueError, match="number of images >= 1"):
        fitted.generate(0)


def test_a_model_without_condition_dropout_needs_a_class():
    model = make(conditional=True, condition_dropout=0.0, steps=1).fit(flat())
    with pytest.raises(ValueError, match="Give a `label`"):
        model.generate(2)


@pytest.mark.parametrize(
    ("settings", "images", "error", "words"),
    [
        ({}, "folder", TypeError, "Expected images; found str"),
        ({}, torch.zeros(4, 1, 8, 8, dtype=torch.uint8), TypeError, "read_images"),
        ({}, flat().take([0]), ValueError, "at least two target images"),
        ({"conditional": True}, cf.images.ImageSet(flat().images), ValueError, "no labels"),
        ({"objective": "score"}, flat(), ValueError, "Unknown objective"),
        ({"objective": "noise"}, flat(), ValueError, "VariancePreserving"),
        ({"condition_dropout": 1.5}, flat(), ValueError, "from 0 to 1"),
        ({"steps": "many"}, flat(), ValueError, "`steps`"),
    ],
)
def test_what_cannot_be_fitted_is_refused(settings, images, error, words):
    with pytest.raises(error, match=words):
        make(**{"steps": 1} | settings).fit(images)


def test_generating_before_fitting_is_refused():
    with pytest.raises(cf.errors.NotFittedError):
        make().generate(1)


def test_settings_are_kept_untouched_and_cloned():
    model = make(conditional=True, objective="noise", network=None)
    assert clone(model).get_params() == model.get_params()
