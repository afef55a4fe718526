import math

import numpy as np
import ot
import pytest
import scipy.stats
import torch

from cellflow.metrics import distances as module
from cellflow.metrics import (
    energy_distance,
    maximum_mean_discrepancy,
    population_distance,
    sliced_wasserstein,
    split_half_floor,
    standard_error,
    thinned,
    wasserstein,
)
from cellflow.seeds import generator


def sliced(x, y, **options):
    return sliced_wasserstein(x, y, generator=generator(seed=0), **options)


ALL_DISTANCES = {
    "wasserstein 1": wasserstein,
    "wasserstein 2": lambda x, y, **options: wasserstein(x, y, order=2, **options),
    "sliced 1": lambda x, y, **options: sliced(x, y, order=1, **options),
    "sliced 2": sliced,
    "mmd": maximum_mean_discrepancy,
    "energy": energy_distance,
}
each_distance = pytest.mark.parametrize("distance", ALL_DISTANCES.values(), ids=ALL_DISTANCES)
each_order = pytest.mark.parametrize("order", [1, 2])


def cloud(n: int, d: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=generator(seed), dtype=torch.float64) * (1 + seed) + seed


def weights(n: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, generator=generator(seed), dtype=torch.float64) + 0.1


# ---- every distance ----


@each_distance
def test_a_cloud_is_at_distance_zero_from_itself_in_any_order(distance):
    x = cloud(40)
    assert distance(x, x[torch.randperm(40, generator=generator(3))]) == pytest.approx(0, abs=1e-12)


@each_distance
def test_a_distance_is_symmetric_and_grows_with_the_shift(distance):
    x, y = cloud(30), cloud(20, seed=1)
    assert distance(x, y) == pytest.approx(distance(y, x), rel=1e-9)
    near, far = distance(x, x + 0.1), distance(x, x + 1)
    assert 0 < near < far


@pytest.mark.parametrize("distance", [d for name, d in ALL_DISTANCES.items() if name != "mmd"])
def test_a_weight_of_two_is_a_point_given_twice(distance):
    """Not so for the discrepancy, whose bandwidth counts points."""
    x, y = cloud(10), cloud(7, seed=1)
    twice = torch.cat([x, x[:4]])
    weighted = distance(x, y, weights_x=torch.tensor([2.0] * 4 + [1.0] * 6), weights_y=3 * torch.ones(7))
    assert weighted == pytest.approx(distance(twice, y), rel=1e-9)


@each_distance
def test_numpy_and_float32_are_accepted_and_give_a_python_float(distance):
    x, y = cloud(12), cloud(9, seed=1)
    from_numpy = distance(x.numpy(), y.numpy(), weights_x=weights(12).numpy())
    assert type(from_numpy) is float
    assert from_numpy == distance(x, y, weights_x=weights(12))
    assert distance(x.float(), y.float()) == pytest.approx(distance(x, y), rel=1e-4)


@each_distance
def test_the_global_states_are_left_alone(distance):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    distance(cloud(12), cloud(9, seed=1))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


@each_distance
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(0, 2)}, "at least one point"),
        ({"x": torch.zeros(3)}, r"found|\(n, d\)"),
        ({"y": torch.zeros(3, 5)}, r"\(2,\) in x0 and \(5,\) in x1"),
        ({"x": torch.full((3, 2), torch.nan)}, "3 of 3"),
        ({"weights_y": torch.ones(9)}, "`weights_y` to hold 4"),
        ({"weights_x": torch.tensor([1, -1, 1.0])}, "`weights_x` finite, nonnegative"),
    ],
)
def test_bad_input_is_refused(distance, change, message):
    with pytest.raises(ValueError, match=message):
        distance(**{"x": torch.zeros(3, 2), "y": torch.ones(4, 2), **change})


# ---- each one ----


@each_order
def test_wasserstein_on_a_line_is_the_distance_between_sorted_values(order):
    x, y = cloud(60, 1), cloud(60, 1, seed=1)
    by_rank = ((x.sort(0).values - y.sort(0).values).abs() ** order).mean() ** (1 / order)
    assert wasserstein(x, y, order=order) == pytest.approx(float(by_rank))


def test_weighted_wasserstein_on_a_line_agrees_with_scipy():
    x, y, a, b = cloud(30, 1), cloud(50, 1, seed=1), weights(30), weights(50, 1)
    theirs = scipy.stats.wasserstein_distance(x.squeeze(), y.squeeze(), a, b)
    assert wasserstein(x, y, weights_x=a, weights_y=b) == pytest.approx(theirs)
    assert sliced(x, y, order=1, weights_x=a, weights_y=b) == pytest.approx(theirs)


@each_order
@pytest.mark.parametrize("weighted", [False, True])
def test_wasserstein_agrees_with_pot(order, weighted):
    x, y = cloud(25), cloud(31, seed=1)
    a, b = (weights(25), weights(31, 1)) if weighted else (torch.ones(25), torch.ones(31))
    costs = ot.dist(x, y, metric="euclidean" if order == 1 else "sqeuclidean")
    theirs = float(ot.emd2((a / a.sum()).double(), (b / b.sum()).double(), costs)) ** (1 / order)
    assert wasserstein(x, y, order=order, weights_x=a, weights_y=b) == pytest.approx(theirs)


def test_wasserstein_of_order_two_is_the_closed_form_for_a_scaled_and_shifted_cloud():
    """The map x -> s x + c is optimal, so the distance is known for the samples themselves."""
    x = cloud(50)
    y = 1.7 * x + torch.tensor([1.0, -2.0, 0.5])
    assert wasserstein(x, y, order=2) == pytest.approx(float((y - x).square().sum(1).mean().sqrt()))


@each_order
def test_sliced_wasserstein_on_a_line_is_wasserstein(order):
    x, y = cloud(30, 1), cloud(17, 1, seed=1)
    assert sliced(x, y, order=order, n_projections=3) == pytest.approx(wasserstein(x, y, order=order))


def test_sliced_wasserstein_of_a_shift_is_its_length_over_the_root_of_the_dimension():
    x, shift = cloud(20, 8), torch.full((8,), 2.0)
    expected = float(shift.norm()) / math.sqrt(8)
    # The squared cosine of a random direction in 8 dimensions has mean 1/8 and deviation 0.94/8: 2 % at n = 2000.
    assert sliced(x, x + shift, n_projections=2000) == pytest.approx(expected, rel=0.04)


def test_sliced_wasserstein_agrees_with_pot():
    x, y = cloud(40), cloud(40, seed=1)
    theirs = ot.sliced_wasserstein_distance(x.numpy(), y.numpy(), n_projections=4000, p=2, seed=0)
    assert sliced(x, y, n_projections=4000) == pytest.approx(theirs, rel=0.03)


def test_squared_discrepancy_agrees_with_a_sum_over_all_pairs():
    """Both clouds as one list, signed weights, distances from scipy: no formula in common."""
    x, y = cloud(14), cloud(9, seed=1)
    pooled = torch.cat([x, y]).numpy()
    squares = scipy.spatial.distance.squareform(scipy.spatial.distance.pdist(pooled, "sqeuclidean"))
    h = squares[np.triu_indices(23, 1)].mean() / 4
    sign = np.concatenate([np.full(14, 1 / 14), np.full(9, -1 / 9)])
    kernel = np.add.reduce([np.exp(-squares / (h * 2**i)) for i in range(5)])
    assert maximum_mean_discrepancy(x, y) == pytest.approx(sign @ kernel @ sign)


def test_discrepancy_weights_shift_it_to_zero_where_both_clouds_share_points():
    x = cloud(10)
    halves = torch.tensor([1.0] * 5 + [0.0] * 5)
    assert maximum_mean_discrepancy(x, x[:5]) > 0.01
    # The left-out points still set the bandwidth, and nothing else.
    assert maximum_mean_discrepancy(x, x[:5], weights_x=halves) == pytest.approx(0, abs=1e-12)


def test_discrepancy_of_clouds_that_are_one_point_is_zero():
    assert maximum_mean_discrepancy(torch.ones(3, 2), torch.ones(2, 2)) == 0


def test_energy_distance_on_a_line_is_the_square_of_scipys():
    x, y, a, b = cloud(30, 1), cloud(50, 1, seed=1), weights(30), weights(50, 1)
    theirs = scipy.stats.energy_distance(x.squeeze(), y.squeeze(), a, b) ** 2
    assert energy_distance(x, y, weights_x=a, weights_y=b) == pytest.approx(theirs)


@pytest.mark.parametrize("distance", [maximum_mean_discrepancy, energy_distance])
def test_large_clouds_are_taken_some_rows_at_a_time(distance, monkeypatch):
    x, y = cloud(101), cloud(67, seed=1)
    whole = distance(x, y)
    monkeypatch.setattr(module, "_PAIRS_AT_ONCE", 500)
    assert distance(x, y) == pytest.approx(whole)


@each_order
def test_the_floor_is_the_distance_between_halves(order):
    """Of two clusters of five, far apart: a half holds k of the left one, and |2 k - 5| of 5 points must cross."""
    x = torch.cat([torch.zeros(5, 1), torch.full((5, 1), 100.0)])
    floor = split_half_floor(x, generator=generator(0), order=order, repeats=1)
    possible = [(crossing / 5) ** (1 / order) * 100 for crossing in (1, 3, 5)]
    assert any(floor == pytest.approx(value) for value in possible)


def test_the_floor_shrinks_with_the_number_of_points_and_repeats_by_seed():
    small, large = (split_half_floor(cloud(n, 2), generator=generator(1)) for n in (40, 640))
    # Between samples in the plane W1 falls like sqrt(log n / n), nearly 4 from 20 points to 320.
    assert 2 < small / large < 5
    assert small == split_half_floor(cloud(40, 2), generator=generator(1))


@pytest.mark.parametrize(
    "call",
    [
        lambda: wasserstein(cloud(3), cloud(3), order=3),
        lambda: sliced(cloud(3), cloud(3), order=0),
        lambda: sliced(cloud(3), cloud(3), n_projections=0),
        lambda: split_half_floor(cloud(1), generator=generator()),
        lambda: split_half_floor(cloud(4), generator=generator(), repeats=0),
    ],
)
def test_bad_settings_are_refused(call):
    with pytest.raises(ValueError, match="Expected"):
        call()


@pytest.mark.parametrize("most", [1, 7, 50, 199])
def test_thinned_points_come_as_often_as_they_weigh(most, rng):
    weights = torch.rand(200, generator=rng).double() ** 4
    points, left = thinned(torch.arange(200), weights, most, generator=rng)
    expected = most * weights / weights.sum()
    found = torch.bincount(points, minlength=200)
    assert left is None
    assert len(points) == most
    assert ((found >= expected.floor()) & (found <= expected.ceil())).all()


def test_points_of_equal_weight_are_thinned_without_repetition_or_pattern(rng):
    points, _ = thinned(torch.arange(4000), most=2000, generator=rng)
    assert len(points.unique()) == 2000
    assert 900 < (points % 2 == 0).sum() < 1100  # every other row, taken in order, would be all or nothing


def test_small_populations_are_compared_whole_and_weighted(rng):
    x, y = torch.randn(2, 30, 2, generator=rng)
    weights = torch.rand(30, generator=rng)
    state = rng.get_state()
    found = population_distance(x, y, weights_x=weights, generator=rng)
    assert found == wasserstein(x, y, weights_x=weights)
    assert torch.equal(rng.get_state(), state)
    assert population_distance(x, y, weights_x=weights, most=10, generator=rng) != found
    with pytest.raises(ValueError, match="most >= 1"):
        thinned(x, most=0, generator=rng)


def test_a_thinned_population_is_near_the_whole(rng):
    x, weights = torch.randn(5000, 1, generator=rng), torch.rand(5000, generator=rng)
    points, _ = thinned(x, weights * (x[:, 0] > 0), 1000, generator=rng)
    assert wasserstein(points, x, weights_y=weights * (x[:, 0] > 0)) < 0.05


@pytest.mark.parametrize("n", [60, 400, 3000])
def test_the_standard_error_of_a_mean_is_known(n, rng):
    x = torch.randn(n, generator=rng, dtype=torch.float64)
    found = standard_error(lambda rows: x[rows].mean(), n, generator=rng, repeats=300)
    assert found == pytest.approx(float(x.std()) / math.sqrt(n), rel=0.15)


def test_the_standard_error_of_a_distance_is_its_spread_over_samples(rng):
    """Of W1, for which a bootstrap is biased; equal clouds and distant ones, of unequal sizes."""

    def between(x, y):
        return lambda i, j: wasserstein(x[i], y[j])

    for shift in (0.0, 3.0):
        values, errors = [], []
        for _ in range(30):
            x, y = torch.randn(80, 3, generator=rng), shift + torch.randn(50, 3, generator=rng)
            values.append(wasserstein(x, y))
        for _ in range(5):
            errors.append(standard_error(between(x, y), 80, 50, generator=rng))
        assert np.mean(errors) == pytest.approx(np.std(values), rel=0.45)


@pytest.mark.parametrize(("sizes", "settings"), [((), {}), ((1, 1), {}), ((5,), {"repeats": 1}), ((5,), {"most": 0})])
def test_what_has_no_standard_error_is_refused(sizes, settings, rng):
    with pytest.raises(ValueError, match="sample of two points or more"):
        standard_error(lambda *rows: 0.0, *sizes, generator=rng, **settings)


def test_the_floor_counts_by_weight(rng):
    x, weights = torch.tensor([[0.0], [0.0], [0.0], [50.0]]), torch.tensor([1.0, 1.0, 1.0, 0.0])
    assert split_half_floor(x, weights=weights, generator=rng) == 0
    assert split_half_floor(x, generator=rng) == 25
