"""Linear guesses of the ends of bridges between images, against Gaussians, where they are exact."""

import pytest
import torch
from scipy.fft import dctn

import cellflow as cf
from cellflow.integrate import Noisy, ode, sde
from cellflow.networks import EndGuess, EndPoints, UNet
from cellflow.networks.frequencies import cosines
from cellflow.objectives import EndPointMatching
from cellflow.paths import BrownianBridge

SHAPE, SIGMA = (2, 3, 4), 0.6
PIXELS = 24
TIMES = [0.001, 0.3, 0.8, 0.999]


class Law:
    """Independent Gaussian images, whose frequencies are independent: means and covariances of all pixels."""

    def __init__(self, rng):
        self.mean = torch.randn(2, *SHAPE, generator=rng, dtype=torch.float64)
        self.variance = torch.rand(2, *SHAPE, generator=rng, dtype=torch.float64).mul(4).sub(3).exp()
        each = torch.eye(PIXELS, dtype=torch.float64).view(-1, *SHAPE).numpy()
        self.waves = torch.from_numpy(dctn(each, axes=(2, 3), norm="ortho")).flatten(1)  # those of another library
        self.covariance = [self.waves @ torch.diag(v.flatten()) @ self.waves.T for v in self.variance]

    def draw(self, k, n, rng):
        waves = torch.randn(n, *SHAPE, generator=rng, dtype=torch.float64) * self.variance[k].sqrt()
        return (waves.flatten(1) @ self.waves.T).view(-1, *SHAPE) + self.mean[k]

    def at(self, t):
        """Mean and covariance of the bridge at a time, and its slopes."""
        noise = SIGMA**2 * torch.eye(PIXELS, dtype=torch.float64)
        mean, slope = torch.lerp(*self.mean, t).flatten(), (self.mean[1] - self.mean[0]).flatten()
        whole = (1 - t) ** 2 * self.covariance[0] + t**2 * self.covariance[1] + t * (1 - t) * noise
        change = -2 * (1 - t) * self.covariance[0] + 2 * t * self.covariance[1] + (1 - 2 * t) * noise
        return mean, whole, slope, change

    def guess(self):
        guess = EndGuess(SHAPE, SIGMA).double()
        guess.mean.copy_(self.mean)
        guess.variance.copy_(self.variance)
        return guess

    def field(self):
        """The field of a network that has learned nothing."""
        return EndPoints(lambda t, x, condition: torch.zeros_like(torch.cat([x, x], dim=1)), self.guess())


@pytest.fixture
def gaussians(rng):
    return Law(rng)


@pytest.mark.parametrize("t", TIMES)
def test_the_guess_is_the_conditional_mean_and_knows_its_error(t, gaussians, rng):
    x = torch.randn(5, *SHAPE, generator=rng, dtype=torch.float64)
    found = gaussians.guess()(torch.full((5,), t, dtype=torch.float64), x)
    mean, whole, *_ = gaussians.at(t)
    off = torch.linalg.solve(whole, (x.flatten(1) - mean).T).T
    ends = zip((1 - t, t), (found.x0, found.x1), (found.missed0, found.missed1), strict=True)
    for k, (share, end, missed) in enumerate(ends):
        covariance = gaussians.covariance[k]
        assert torch.allclose(end.flatten(1), gaussians.mean[k].flatten() + share * off @ covariance, atol=1e-9)
        left = covariance - share**2 * covariance @ torch.linalg.solve(whole, covariance)
        expected = left.diagonal().view(SHAPE).mean((1, 2)).sqrt()
        assert torch.allclose(missed[0, :, 0, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("t", TIMES)
def test_an_untrained_field_has_the_velocity_and_the_score_of_gaussians(t, gaussians, rng):
    x = torch.randn(5, *SHAPE, generator=rng, dtype=torch.float64)
    found = gaussians.field()(torch.full((5,), t, dtype=torch.float64), x)
    mean, whole, slope, change = gaussians.at(t)
    off = torch.linalg.solve(whole, (x.flatten(1) - mean).T).T
    assert torch.allclose(found.velocity.flatten(1), slope + off @ change / 2, atol=1e-7)
    assert torch.allclose(found.score_drift.flatten(1), -(SIGMA**2) / 2 * off, atol=1e-7)


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("noise", [False, True])
def test_untrained_fields_carry_gaussians_into_each_other(noise, backward, gaussians, rng):
    start, stop = (1.0, 0.0) if backward else (0.0, 1.0)
    x, field = gaussians.draw(int(backward), 2000, rng), gaussians.field()
    if noise:
        found = sde(field, x, sigma=SIGMA, start=start, stop=stop, solver=Noisy(40, method="heun"), generator=rng)
    else:
        found = ode(lambda t, x, condition: field(t, x).velocity, x, start=start, stop=stop, solver=30)
    end = int(not backward)
    reached = found.x[-1].flatten(1)
    assert torch.allclose(reached.mean(0), gaussians.mean[end].flatten(), atol=0.15)
    apart = (torch.cov(reached.T) - gaussians.covariance[end]).norm() / gaussians.covariance[end].norm()
    assert apart < 0.15


def test_errors_are_in_units_of_what_the_guess_misses(gaussians, rng):
    """At all times, and of both ends: whatever their variances are, nothing learned is an error of one."""
    batch = cf.Batch(*(gaussians.draw(k, 20_000, rng) for k in (0, 1)))
    found = EndPointMatching(BrownianBridge(SIGMA))(gaussians.field(), batch, generator=rng)
    assert [found[end].item() for end in ("source", "target")] == pytest.approx([1, 1], rel=0.03)


def test_means_and_variances_come_from_images(gaussians, rng):
    guess = EndGuess(SHAPE, SIGMA).double()
    assert guess.measure(*(gaussians.draw(k, 20_000, rng) for k in (0, 1))) is guess
    assert torch.allclose(guess.mean, gaussians.mean, atol=0.1)
    assert torch.allclose(guess.variance, gaussians.variance, rtol=0.06)


def test_images_that_are_all_alike_are_guessed_exactly():
    """Where nothing varies all of a deviation is noise."""
    even = [torch.full((3, *SHAPE), value) for value in (-1.0, 0.5)]
    guess = EndGuess(SHAPE, SIGMA).measure(*even)
    found = guess(torch.tensor([0.5, 0.9, 0.1]), torch.randn(3, *SHAPE))
    for end, known in zip(found[:2], even, strict=True):
        assert torch.allclose(end, known, atol=1e-4)
    assert all(torch.isfinite(part).all() for part in found)


def test_half_precision_of_a_network_does_not_round_the_guess(gaussians, rng):
    guess, x = gaussians.guess().float(), torch.randn(4, *SHAPE, generator=rng)
    t = torch.full((4,), 0.4)
    known = guess(t, x)
    with torch.autocast("cpu", torch.bfloat16):
        found = guess(t, x)
    assert all(torch.equal(one, other) for one, other in zip(found, known, strict=True))


def test_what_was_measured_is_saved_with_the_weights(gaussians):
    field, blank = (
        EndPoints(UNet(2, width=8, multipliers=(1,), heads=2).double(), guess)
        for guess in (gaussians.guess(), EndGuess(SHAPE, SIGMA).double())
    )
    blank.load_state_dict(field.state_dict())
    assert torch.equal(blank.guess.variance, gaussians.variance)


def test_waves_are_those_of_a_cosine_transform_at_any_size():
    for side in (1, 7, 2000):
        basis = cosines(side, like=torch.zeros(1))
        known = torch.from_numpy(dctn(torch.eye(side, dtype=torch.float64).numpy(), axes=0, norm="ortho"))
        assert torch.allclose(basis.double(), known, atol=1e-6)


def test_what_a_guess_cannot_be_of_is_said():
    with pytest.raises(ValueError, match=r"shape of an image.*found \(3,\)"):
        EndGuess((3,), 0.3)
    for sigma in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="finite sigma > 0"):
            EndGuess(SHAPE, sigma)
    for other in (torch.zeros(4, 2, 3, 5), torch.zeros(0, *SHAPE), torch.zeros(3), torch.full((4, *SHAPE), torch.nan)):
        with pytest.raises(ValueError, match=r"images \(n, 2, 3, 4\) of finite numbers, at least one"):
            EndGuess(SHAPE, 0.3).measure(torch.zeros(4, *SHAPE), other)
