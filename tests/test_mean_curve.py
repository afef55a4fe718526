"""The curve of the population's mean: closed forms, scipy's splines by another route, invariances, and the choice."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from scipy.interpolate import PchipInterpolator

import cellflow as cf
from cellflow.cli import configs_folder
from cellflow.pairing import Mean
from cellflow.pairing.curves import resolve
from cellflow.pairing.mean_curve import MARGIN, chosen, errors_left_out, mean_bends
from cellflow.paths import BrownianBridge, Linear
from conftest import make_cells

SPLINES = ["monotone", "natural"]
SHAPE = torch.randn(30, 3, generator=cf.generator(seed=0), dtype=torch.float64)
SHAPE -= SHAPE.mean(dim=0)
TIMES = [0.0, 0.2, 0.5, 1.0]
MEANS = torch.tensor([[0, 0, 0], [2, 1, 0], [3, 3, 1], [3, 6, -1]], dtype=torch.float64)


def clouds_at(means):
    """One shape, carried rigidly: who goes where is certain."""
    return [SHAPE + mean for mean in torch.as_tensor(means, dtype=torch.float64)]


def batches_of(clouds, times=TIMES, curve="mean", **settings):
    return cf.pairing.snapshot_batches(
        clouds, list(times), curve=curve, batch_size=16, generator=cf.generator(seed=0), **settings
    )


def mean_at(batch, s, size=16):
    """Mean position and velocity in model time of the pairs of each interval, at a fraction of it."""
    point = Linear().between(batch, torch.full_like(batch.span()[1], s), generator=cf.generator(seed=0))
    duration = batch.span()[1][:, None]
    cells = point.x - batch.x0 - s * (batch.x1 - batch.x0), (point.velocity - (batch.x1 - batch.x0)) / duration
    return [values.reshape(-1, size, values.shape[1]) for values in cells]


@pytest.mark.parametrize("spline", SPLINES)
def test_all_pairs_of_an_interval_are_displaced_alike_and_end_where_they_did(spline):
    batch = next(iter(batches_of(clouds_at(MEANS), curve=Mean(spline))))
    for s in (0.0, 0.3, 1.0):
        displaced, _ = mean_at(batch, s)
        torch.testing.assert_close(displaced, displaced[:, :1].expand_as(displaced), rtol=0, atol=1e-12)
        assert (displaced.abs().amax(dim=(1, 2)) > 1e-3).all() == (s == 0.3)


@pytest.mark.parametrize("spline", SPLINES)
def test_the_velocity_of_the_mean_is_continuous_in_time(spline):
    steps = MEANS.diff(dim=0).numpy()
    bends, durations = mean_bends(steps, TIMES, spline), np.diff(TIMES)[:, None]
    begin, end = ((steps + bend) / durations for bend in bends)
    np.testing.assert_allclose(begin[1:], end[:-1], atol=1e-12)
    assert np.abs(begin[1:] - (steps / durations)[1:]).max() > 0.1


def test_means_that_move_evenly_along_a_line_leave_pairs_exactly_straight():
    along = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    means = torch.tensor(TIMES, dtype=torch.float64)[:, None] * along
    for curve in (Mean(), *map(Mean, SPLINES)):
        assert next(iter(batches_of(clouds_at(means), curve=curve))).bend0 is None


@pytest.mark.parametrize("spline", SPLINES)
def test_along_a_line_the_mean_follows_a_monotone_cubic_in_time(spline):
    """Its curve is the line, whatever the spline; what is left is the clock."""
    along, way = np.array([3.0, -4.0, 0.0]) / 5, np.array([0.0, 1.0, 4.0, 4.5])
    steps = np.diff(way)[:, None] * along
    expected = PchipInterpolator(TIMES, way).derivative()(TIMES)
    for end, bend in enumerate(mean_bends(steps, TIMES, spline)):
        velocity = (steps + bend) / np.diff(TIMES)[:, None]
        np.testing.assert_allclose(velocity @ along, expected[end : len(steps) + end], atol=1e-12)
        np.testing.assert_allclose(velocity - np.outer(velocity @ along, along), 0, atol=1e-12)


def test_the_curve_converges_to_that_of_the_population():
    """A mean on a cubic, ever more snapshots: half-way errors fall with the square of their distance, or its fourth."""
    way = lambda t: np.stack([t, 4 * t**3 - 2 * t], axis=1)  # noqa: E731
    errors = {}
    for n in (17, 33):
        times = np.linspace(0, 1, n)
        steps, inner = np.diff(way(times), axis=0), slice(n // 4, -n // 4)
        for spline in ("straight", *SPLINES):
            bend0, bend1 = mean_bends(steps, times, spline)
            middle = way(times)[:-1] + steps / 2 + (bend0 - bend1) / 8
            missed = np.linalg.norm(middle - way((times[:-1] + times[1:]) / 2), axis=1)
            errors.setdefault(spline, []).append(missed[inner].mean())
    gained = {spline: coarse / fine for spline, (coarse, fine) in errors.items()}
    assert gained["straight"] == pytest.approx(4, rel=0.1)
    assert gained["natural"] > 6
    assert errors["natural"][1] < errors["monotone"][1] < errors["straight"][1] / 4


def test_monotone_cubics_go_beyond_neighbouring_means_in_no_dimension():
    rng = np.random.default_rng(0)
    u = np.linspace(0, 1, 101)[:, None]
    beyond = dict.fromkeys(SPLINES, 0.0)
    for _ in range(50):
        times = np.cumsum(rng.lognormal(0, 2, size=6))
        steps = rng.lognormal(0, 2, size=(5, 4)) * rng.choice([-1, 1], size=(5, 4))
        for spline in SPLINES:
            for step, bend0, bend1 in zip(steps, *mean_bends(steps, times, spline), strict=True):
                way = u * step + u * (1 - u) ** 2 * bend0 - u**2 * (1 - u) * bend1
                far = np.maximum(way - np.maximum(step, 0), np.minimum(step, 0) - way) / np.abs(step)
                beyond[spline] = max(beyond[spline], far.max())
    assert beyond["monotone"] < 1e-9
    assert beyond["natural"] > 0.1


@pytest.mark.parametrize("spline", SPLINES)
def test_units_of_time_and_state_and_the_origin_do_not_matter(spline):
    steps = MEANS.diff(dim=0).numpy()
    bends = mean_bends(steps, TIMES, spline)
    assert np.abs(bends).max() > 0.1
    np.testing.assert_allclose(mean_bends(1e6 * steps, TIMES, spline), 1e6 * bends, rtol=1e-9)
    np.testing.assert_allclose(mean_bends(steps, 24 * np.array(TIMES) + 100, spline), bends, rtol=1e-9, atol=1e-12)
    order = [2, 0, 1]
    np.testing.assert_allclose(mean_bends(steps[:, order], TIMES, spline), bends[..., order], atol=1e-12)
    np.testing.assert_allclose(mean_bends(-steps, TIMES, spline), -bends, atol=1e-12)


@pytest.mark.parametrize("spline", SPLINES)
def test_time_reversed_the_curve_is_the_same(spline):
    steps, times = MEANS.diff(dim=0).numpy(), np.array(TIMES)
    forth, back = mean_bends(steps, times, spline), mean_bends(-steps[::-1], 1 - times[::-1], spline)
    np.testing.assert_allclose(back[::-1, ::-1], -forth, atol=1e-12)


def test_natural_cubics_do_not_depend_on_axes():
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    steps = MEANS.diff(dim=0).numpy()
    turned = mean_bends(steps @ turn, TIMES, "natural")
    np.testing.assert_allclose(turned, mean_bends(steps, TIMES, "natural") @ turn, atol=1e-12)


@pytest.mark.parametrize("spline", SPLINES)
@pytest.mark.parametrize(
    "steps", [[[0, 0], [0, 0]], [[1, 0], [0, 0], [0, 2]], [[0, 0], [1, 1], [1e-13, 0]], [[1, 0], [-1, 0], [1, 0]]]
)
def test_means_that_rest_or_turn_back_are_no_trouble(steps, spline):
    steps = np.array(steps, dtype=float)
    bends = mean_bends(steps, np.arange(len(steps) + 1), spline)
    assert np.isfinite(bends).all()
    rests = np.linalg.norm(steps, axis=1) < 1e-9
    assert (bends[:, rests] == 0).all()
    assert np.abs(bends).max() <= 3 * np.abs(steps).max()


@pytest.mark.parametrize("curve", [Mean(), *map(Mean, SPLINES)], ids=repr)
def test_with_two_snapshots_nothing_changes(curve):
    clouds = clouds_at(MEANS[:2])
    bent, straight = (next(iter(batches_of(clouds, [0.0, 1.0], c))) for c in (curve, "straight"))
    assert all((a is None and b is None) or torch.equal(a, b) for a, b in zip(bent, straight, strict=True))


def test_images_bend_as_their_pixels_do():
    clouds = [cloud.reshape(30, 1, 1, 3) for cloud in clouds_at(MEANS)]
    batch, flat = next(iter(batches_of(clouds))), next(iter(batches_of(clouds_at(MEANS))))
    assert torch.equal(batch.bend0, flat.bend0.reshape(-1, 1, 1, 3))


def test_super_batches_bend_as_whole_plans_do():
    clouds = clouds_at(MEANS)
    whole, parts = batches_of(clouds), batches_of(clouds, ot_batch_size=8)
    assert parts.plans == [None] * 3
    torch.testing.assert_close(parts.displacements(), whole.displacements())
    torch.testing.assert_close(next(iter(parts)).bend1, next(iter(whole)).bend1)


@pytest.mark.parametrize("ot_batch_size", ["whole", 60])
def test_growth_moves_the_mean_but_no_cell(ot_batch_size):
    """Two groups that stay where they are; one becomes three times as large, then twice."""
    rng = torch.Generator().manual_seed(0)
    groups = torch.tensor([[0.0, 0.0], [30.0, 0.0]])
    clouds = [
        torch.cat([torch.randn(n, 2, generator=rng) + mean for n, mean in zip(sizes, groups, strict=True)])
        for sizes in ((60, 20), (60, 60), (60, 120))
    ]
    settings = {"coupling": cf.couplings.UnbalancedSinkhorn(1.0, 5.0), "ot_batch_size": ot_batch_size}
    growing = batches_of(clouds, TIMES[:3], masses=(80, 120, 180), **settings)
    apparent = batches_of(clouds, TIMES[:3]).displacements()
    assert apparent.norm(dim=1).min() > 4
    assert growing.displacements().norm(dim=1).max() < 1
    within = batches_of(clouds, TIMES[:3], within=[["a"] * 60 + ["b"] * (len(cloud) - 60) for cloud in clouds])
    assert within.displacements().norm(dim=1).max() < 1


@pytest.mark.parametrize("ot_batch_size", ["whole", 8])
def test_cells_with_weights_count_by_them(ot_batch_size):
    """A cell of weight k counts as k cells."""
    clouds = [torch.randn(n, 2, generator=cf.generator(seed=n)) for n in (12, 16, 20)]
    weights = [torch.arange(1, len(cloud) + 1) for cloud in clouds]
    repeated = [cloud.repeat_interleave(weight, dim=0) for cloud, weight in zip(clouds, weights, strict=True)]
    found = batches_of(clouds, TIMES[:3], weights=weights, ot_batch_size=ot_batch_size).displacements()
    expected = torch.stack([cloud.double().mean(dim=0) for cloud in repeated]).diff(dim=0)
    torch.testing.assert_close(found, expected)


def test_displacements_are_those_of_the_pairs():
    clouds = [torch.randn(n, 2, generator=cf.generator(seed=n)) for n in (20, 30, 10)]
    for coupling in ("exact", "independent", cf.couplings.Sinkhorn(0.5), cf.couplings.UnbalancedSinkhorn(0.5, 1.0)):
        batches = batches_of(clouds, TIMES[:3], coupling=coupling, ot_batch_size="whole")
        for k, (x0, x1) in enumerate(pairwise(clouds)):
            mass = batches.plans[k].dense().double()
            moved = (mass[..., None] * (x1[None] - x0[:, None]).double()).sum(dim=(0, 1)) / mass.sum()
            torch.testing.assert_close(batches.displacements()[k], moved, rtol=1e-4, atol=1e-6)


def test_a_bridge_stays_one_about_the_mean():
    """What is common to all pairs is added to position and velocity alike, with the same noise."""
    batch = next(iter(batches_of(clouds_at(MEANS))))
    s = torch.rand(len(batch.x0), generator=cf.generator(seed=1), dtype=torch.float64)
    bent, straight = (
        BrownianBridge(0.5).between(b, s, generator=cf.generator(seed=2))
        for b in (batch, batch._replace(bend0=None, bend1=None))
    )
    assert torch.equal(bent.noise, straight.noise)
    assert torch.equal(bent.spread, straight.spread)
    for added in ((bent.x - straight.x), (bent.velocity - straight.velocity)):
        assert added.norm(dim=1).min() > 0


def turning(n=6, radius=1.0, noise=0.0, seed=0):
    angles = np.linspace(0, 4, n)
    means = radius * np.stack([np.cos(angles), np.sin(angles), np.zeros(n)], axis=1)
    return means + noise * np.random.default_rng(seed).normal(size=means.shape), angles


def test_where_means_turn_the_natural_spline_is_chosen():
    for means, times in (turning(noise=0.02, seed=k) for k in range(20)):
        assert chosen(np.diff(means, axis=0), times) == "natural"


def test_where_means_drift_with_noise_the_usual_one_stays():
    rng, kept = np.random.default_rng(0), 0
    for _ in range(100):
        means = np.arange(6)[:, None] * np.array([1.0, 0.5, 0.0]) + 0.2 * rng.normal(size=(6, 3))
        kept += chosen(np.diff(means, axis=0), np.arange(6)) == "monotone"
    assert kept >= 97


def test_where_means_jump_to_and_fro_pairs_stay_straight_or_monotone():
    means = np.array([[0.0], [1.0], [0.0], [1.0], [0.0]])
    assert chosen(np.diff(means, axis=0), np.arange(5)) != "natural"


def test_the_choice_is_by_the_rule_that_is_documented():
    rng = np.random.default_rng(0)
    for _ in range(100):
        steps, times = rng.normal(size=(4, 2)), np.cumsum(rng.lognormal(size=5))
        errors = {s: errors_left_out(steps, times, s).sum() for s in ("monotone", "straight", "natural")}
        wins = [s for s in errors if errors[s] < MARGIN * errors["monotone"]]
        assert chosen(steps, times) == min(wins, key=lambda s: errors[s], default="monotone")


def test_with_three_snapshots_nothing_can_be_left_out_but_one():
    """Its neighbours alone say nothing about how the mean turns."""
    assert chosen(MEANS[:3].diff(dim=0).numpy(), TIMES[:3]) == "monotone"


def test_the_choice_is_logged(caplog):
    means, times = turning()
    with caplog.at_level("INFO", logger="cellflow"):
        batches_of(clouds_at(means), times / 4)
    assert "the mean's curve: natural" in caplog.text


def test_an_unknown_spline_is_refused():
    with pytest.raises(ValueError, match="Unknown spline 'cubic'. Choose from: 'monotone', 'natural', 'auto'"):
        Mean("cubic")


@pytest.mark.parametrize("settings", [{}, {"ot_batch_size": 8}, {"stochastic": True, "path": BrownianBridge(0.3)}])
def test_a_flow_is_fitted_saved_and_loaded(settings, tmp_path):
    cells, quick = make_cells(sizes=(20, 25, 30)), {"steps": 5, "batch_size": 8, "device": "cpu"}
    flow = cf.SnapshotFlow(time_key="day", curve=Mean("natural"), **quick, **settings).fit(cells)
    flow.save(tmp_path)
    loaded = cf.SnapshotFlow.load(tmp_path)
    assert loaded.curve == Mean("natural")
    x = cells.obsm["X_pca"][:4]
    np.testing.assert_array_equal(loaded.velocity(x, 1.0), flow.velocity(x, 1.0))


def test_it_is_the_default_in_code_and_configuration():
    assert cf.SnapshotFlow().curve == "mean"
    assert resolve("mean") == Mean() == instantiate(OmegaConf.load(configs_folder() / "curve" / "mean.yaml"))
    assert {"curve": "mean"} in OmegaConf.load(configs_folder() / "flow.yaml").defaults


@pytest.mark.slow
def test_a_flow_follows_the_mean_through_a_turn(rng):
    """Rigid clouds on a circle: half-way between snapshots straight lines are inside of it."""
    means, times = turning()
    clouds = [0.1 * SHAPE.float() + torch.from_numpy(mean).float() for mean in means]
    start, radius = means.shape[0] // 2 - 1, {}
    for curve in ("straight", "mean"):
        batches = batches_of(clouds, times / 4, curve)
        field = cf.networks.MLP(dim=3, width=64)
        cf.training.fit(field, cf.objectives.VelocityMatching(), batches, steps=800, generator=rng)
        begin, end = times[start] / 4, (times[start] + times[start + 1]) / 8
        moved = cf.integrate.ode(field, clouds[start], start=begin, stop=end, solver=20).x[-1]
        radius[curve] = moved.mean(dim=0).norm().item()
    assert radius["mean"] == pytest.approx(1.0, abs=0.03)
    assert radius["straight"] == pytest.approx(np.cos(0.4), abs=0.03)
