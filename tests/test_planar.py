"""Shapes in the plane: the laws of scikit-learn's generators, and of eight Gaussians by their moments."""

import math

import pytest
import torch
from sklearn import datasets as reference

import cellflow as cf
from cellflow.datasets.planar import eight_gaussians, moons, s_curve

SHAPES = {
    "eight": lambda n, rng: eight_gaussians(n, radius=5.0, spread=0.5, generator=rng),
    "uneven": lambda n, rng: eight_gaussians(n, radius=5.0, spread=0.5, generator=rng, even=False),
    "moons": lambda n, rng: moons(n, noise=0.1, generator=rng),
    "s_curve": lambda n, rng: s_curve(n, noise=0.1, generator=rng),
}
N = 2000


@pytest.fixture(params=SHAPES)
def shape(request):
    return SHAPES[request.param]


@pytest.mark.parametrize("n", [1, 7, 64])
def test_a_shape_has_the_asked_number_of_points(shape, n, rng):
    x = shape(n, rng)
    assert x.shape == (n, 2)
    assert x.dtype == torch.float32


def test_a_seed_gives_the_same_points_and_another_others(shape, global_state_is_untouched):
    one, two, three = (shape(50, cf.generator(seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, three)


def test_the_order_of_points_is_random(shape, rng):
    x = shape(N, rng)
    assert (x[: N // 2].mean(dim=0) - x[N // 2 :].mean(dim=0)).abs().max() < 0.6


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (moons, lambda n, noise: reference.make_moons(n, noise=noise, random_state=0)[0]),
        (s_curve, lambda n, noise: reference.make_s_curve(n, noise=noise, random_state=0)[0][:, [0, 2]]),
    ],
    ids=["moons", "s_curve"],
)
def test_scikit_learn_draws_from_the_same_law(ours, theirs, noise, rng):
    """Two samples of one law are as near each other as two of scikit-learn's: far nearer than another noise is."""
    x, y = ours(N, noise=noise, generator=rng), torch.as_tensor(theirs(N, noise))
    assert cf.metrics.energy_distance(x, y) < 4e-3
    assert cf.metrics.energy_distance(x + torch.tensor([0.2, 0.0]), y) > 1e-2


def test_eight_gaussians_lie_evenly_on_their_circle(rng):
    x = eight_gaussians(80_000, radius=5.0, spread=0.3, generator=rng)
    modes = 5 * torch.stack([torch.tensor([math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)]) for k in range(8)])
    nearest = torch.cdist(x, modes).argmin(dim=1)
    assert nearest.bincount().tolist() == pytest.approx([10_000] * 8, abs=20)
    for k in range(8):
        assert torch.allclose(x[nearest == k].mean(dim=0), modes[k], atol=0.02)
        assert torch.allclose(x[nearest == k].T.cov(), 0.09 * torch.eye(2), atol=0.005)


def test_uneven_gaussians_are_chosen_point_by_point(rng):
    """Counts vary as those of independent choices do: variance n p (1 - p), over many small samples."""
    counts = []
    for _ in range(400):
        x = eight_gaussians(80, radius=9.0, spread=0.1, generator=rng, even=False)
        counts.append(float((x[:, 0] > 8).sum()))
    assert torch.tensor(counts).mean() == pytest.approx(10, abs=0.7)
    assert torch.tensor(counts).var() == pytest.approx(80 * 7 / 64, rel=0.3)


@pytest.mark.parametrize("wrong", [0, -3])
def test_no_points_are_refused(wrong, rng):
    with pytest.raises(ValueError, match="n >= 1"):
        moons(wrong, noise=0.1, generator=rng)


@pytest.mark.parametrize("noise", [-0.1, math.inf, math.nan])
def test_an_impossible_noise_is_refused(noise, rng):
    for draw in (moons, s_curve):
        with pytest.raises(ValueError, match="finite noise >= 0"):
            draw(10, noise=noise, generator=rng)
    with pytest.raises(ValueError, match="finite spread >= 0"):
        eight_gaussians(10, radius=1.0, spread=noise, generator=rng)
