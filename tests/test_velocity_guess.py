"""Linear guesses of the velocity of flows between images, against Gaussians, where they are exact."""

from functools import partial

import pytest
import torch
from test_end_guess import PIXELS, SHAPE, Law

import cellflow as cf
from cellflow.estimators import guesses
from cellflow.integrate import Jumps, ode
from cellflow.networks import FlowMap, GuessedVelocity, UNet, VelocityGuess
from cellflow.objectives import VelocityMatching
from cellflow.paths import Linear

NOISE = 0.4
SMALL = partial(UNet, width=8, multipliers=(1, 2), blocks=1, attention=())
QUICK = {"network": SMALL, "steps": 3, "batch_size": 8, "device": "cpu"}


class Straight(Law):
    """Straight paths between independent Gaussian images, with noise."""

    def at(self, t):
        """Mean and covariance of a state, and covariances of the velocity with it and with itself."""
        v0, v1 = self.covariance
        mean, slope = torch.lerp(*self.mean, t).flatten(), (self.mean[1] - self.mean[0]).flatten()
        whole = (1 - t) ** 2 * v0 + t**2 * v1 + NOISE**2 * torch.eye(PIXELS, dtype=torch.float64)
        return mean, whole, slope, t * v1 - (1 - t) * v0, v0 + v1

    def guess(self, sigma=NOISE):
        guess = VelocityGuess(SHAPE, sigma).double()
        guess.mean.copy_(self.mean)
        guess.variance.copy_(self.variance)
        return guess

    def field(self, sigma=NOISE):
        """The field of a network that has learned nothing."""
        return GuessedVelocity(lambda t, x, condition: torch.zeros_like(x), self.guess(sigma))


@pytest.fixture
def gaussians(rng):
    return Straight(rng)


def pictures(n=24, seed=0):
    """Images with little in high frequencies."""
    coarse = torch.randint(256, (n, 1, 4, 4), generator=cf.generator(seed)).to(torch.uint8)
    return cf.images.ImageSet(coarse.repeat_interleave(2, 2).repeat_interleave(2, 3))


@pytest.mark.parametrize("t", [0.0, 0.3, 0.8, 1.0])
def test_the_guess_is_the_conditional_mean_and_knows_its_error(t, gaussians, rng):
    x = torch.randn(5, *SHAPE, generator=rng, dtype=torch.float64)
    found = gaussians.guess()(torch.full((5,), t, dtype=torch.float64), x)
    mean, whole, slope, shared, own = gaussians.at(t)
    off = torch.linalg.solve(whole, (x.flatten(1) - mean).T).T
    assert torch.allclose(found.velocity.flatten(1), slope + off @ shared, atol=1e-9)
    left = own - shared @ torch.linalg.solve(whole, shared)
    assert torch.allclose(found.missed[0, :, 0, 0], left.diagonal().view(SHAPE).mean((1, 2)).sqrt(), rtol=1e-6)


@pytest.mark.parametrize("backward", [False, True])
def test_an_untrained_field_carries_gaussians_into_each_other(backward, gaussians, rng):
    start, stop = (1.0, 0.0) if backward else (0.0, 1.0)
    x = gaussians.draw(int(backward), 2000, rng)
    reached = ode(gaussians.field(0.0), x, start=start, stop=stop, solver=30).x[-1].flatten(1)
    end = int(not backward)
    assert torch.allclose(reached.mean(0), gaussians.mean[end].flatten(), atol=0.15)
    apart = (torch.cov(reached.T) - gaussians.covariance[end]).norm() / gaussians.covariance[end].norm()
    assert apart < 0.15


def test_a_network_that_learned_nothing_leaves_the_error_that_the_guess_states(gaussians, rng):
    batch = cf.Batch(*(gaussians.draw(k, 20_000, rng) for k in (0, 1)))
    t = torch.linspace(0, 1, 2001, dtype=torch.float64)
    stated = gaussians.guess()(t, torch.zeros(2001, *SHAPE, dtype=torch.float64)).missed.square().mean().item()
    assert VelocityMatching(Linear(NOISE))(gaussians.field(), batch, generator=rng)["loss"].item() == pytest.approx(
        stated, rel=0.03
    )


def test_noise_as_source_is_known(rng):
    images = torch.randn(4, *SHAPE, generator=rng)
    guess = VelocityGuess(SHAPE).measure(images, images).measure(None, images)
    assert (guess.mean[0] == 0).all()
    assert (guess.variance[0] == 1).all()
    assert torch.allclose(guess.mean[1], images.mean(0))


def test_a_flow_map_of_it_begins_with_the_steps_of_the_flow(gaussians, rng):
    """And its derivative in time, which objectives of flow maps take, is that of the guess as well."""
    field = GuessedVelocity(UNet(2, width=8, multipliers=(1,)).double(), gaussians.guess())
    known, x = FlowMap.of(field), torch.randn(3, *SHAPE, generator=rng, dtype=torch.float64)
    s, t = (torch.full((3,), value, dtype=torch.float64) for value in (0.2, 0.9))
    assert torch.allclose(known.jump(s, t, x), x + 0.7 * field(s, x))
    _, slope = torch.func.jvp(lambda s: known.jump(s, t, x), (s,), (torch.ones_like(s),))
    step = 1e-6
    apart = (known.jump(s + step, t, x) - known.jump(s - step, t, x)) / (2 * step)
    assert torch.allclose(slope, apart, atol=1e-5)


def test_half_precision_of_a_network_does_not_round_the_guess(gaussians, rng):
    guess, x = gaussians.guess().float(), torch.randn(4, *SHAPE, generator=rng)
    t = torch.full((4,), 0.4)
    known = guess(t, x)
    with torch.autocast("cpu", torch.bfloat16):
        found = guess(t, x)
        assert GuessedVelocity(UNet(2, width=8, multipliers=(1,)), guess)(t, x).dtype == torch.float32
    assert all(torch.equal(one, other) for one, other in zip(found, known, strict=True))


@pytest.mark.parametrize("sigma", [-1.0, float("inf"), float("nan")])
def test_a_scale_that_cannot_be_is_refused(sigma):
    with pytest.raises(ValueError, match="finite sigma >= 0"):
        VelocityGuess(SHAPE, sigma)


# Estimators.


def translator(guess=True, **settings):
    return cf.DomainTranslator(guess=guess, **QUICK | settings).fit(pictures(), pictures(seed=1))


def generator(guess=True, **settings):
    return cf.ImageGenerator(guess=guess, **QUICK | settings).fit(pictures())


def use(model, **settings):
    if isinstance(model, cf.ImageGenerator):
        return model.generate(3, **{"solver": 2} | settings).images
    return model.translate(pictures(), **{"solver": 2} | settings).images


@pytest.mark.parametrize("make", [translator, generator])
def test_flows_of_images_can_correct_a_guess(make, tmp_path):
    model = make()
    guess = model.field_.guess
    assert isinstance(model.field_, GuessedVelocity)
    assert guess.variance[1, 0, 0, 0] > 100 * guess.variance[1, 0, -1, -1]  # pictures have little in high frequencies
    assert (make is generator) == bool((guess.variance[0] == 1).all())
    model.save(tmp_path)
    back = type(model).load(tmp_path, device="cpu")
    assert torch.equal(back.field_.guess.variance, guess.variance)
    assert use(back).equal(use(model))


@pytest.mark.parametrize("make", [translator, generator])
def test_without_it_the_field_is_the_network(make):
    model = make(guess=False)
    assert isinstance(model.field_, UNet)
    assert torch.isfinite(use(model).float()).all()


@pytest.mark.parametrize("make", [translator, generator])
def test_a_model_that_corrects_a_guess_is_refined_and_distilled(make):
    data = (pictures(), pictures(seed=1)) if make is translator else (pictures(),)
    model = make()
    model = model.refine(*data, rounds=1, steps=2).distill(*data, steps=2)
    assert use(model, solver=Jumps(1)).shape == (24 if make is translator else 3, 1, 8, 8)


@pytest.mark.parametrize("settings", [{"guess": True}, {"path": cf.paths.BrownianBridge(0.3), "stochastic": True}])
def test_guesses_train_in_half_precision(settings):
    model = translator(**{"guess": False} | settings, recipe=cf.training.Recipe(precision="bf16"))
    assert all(weight.dtype == torch.float32 for weight in model.field_.parameters())
    assert torch.isfinite(torch.tensor(model.history_["loss"])).all()


def test_a_guess_that_would_be_certain_is_warned_of():
    """A channel that is blank in the source: whatever is there later, the guess takes for known."""
    blank = pictures(seed=1).images
    source = cf.images.ImageSet(torch.cat([blank, torch.zeros_like(blank)], 1))
    target = cf.images.ImageSet(torch.cat([blank, blank], 1))
    with pytest.warns(UserWarning, match="50% of the variance of one side.*leave out `guess`"):
        cf.DomainTranslator(guess=True, **QUICK).fit(source, target)


def test_many_pixels_are_measured_on_fewer_images(monkeypatch):
    taken, take = [], guesses.some_of
    monkeypatch.setattr(guesses, "NUMBERS", 64 * 5)
    monkeypatch.setattr(guesses, "some_of", lambda domain, most: taken.append(most) or take(domain, most))
    translator()
    assert taken == [5, 5]


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: translator(path="trigonometric"), "straight paths; found path='trigonometric'"),
        (lambda: translator(path=cf.paths.BrownianBridge(0.3), stochastic=True), 'theirs in heads="ends"'),
        (
            lambda: cf.DomainTranslator(guess=True, steps=1).fit(torch.randn(9, 2), torch.randn(8, 2)),
            r"found samples of shape \(2,\)",
        ),
        (lambda: generator(path="trigonometric"), "straight paths"),
        (lambda: generator(path="variance_preserving", objective="noise"), 'objective="velocity"'),
    ],
)
def test_a_guess_that_cannot_be_is_refused(act, words):
    with pytest.raises(ValueError, match=words):
        act()


# Simulations.


@pytest.mark.parametrize("floats", [False, True])
def test_pairs_of_a_models_own_keep_no_noise(floats, monkeypatch):
    """Of images in bytes, and of those that are numbers."""
    seen, fitting = [], cf.training.MarkovianFitting.__call__

    def seeing(self, *given, **named):
        seen.append(self.solver)
        return fitting(self, *given, **named)

    monkeypatch.setattr(cf.training.MarkovianFitting, "__call__", seeing)
    data = [pictures(), pictures(seed=1)]
    data = [images.scaled() for images in data] if floats else data
    path = cf.paths.BrownianBridge(0.3)
    model = cf.DomainTranslator(path=path, stochastic=True, **QUICK).fit(*data)
    model.refine(*data, rounds=1, steps=2)
    assert set(seen) == {cf.integrate.Noisy(50, power=2.0, denoise=True)}
