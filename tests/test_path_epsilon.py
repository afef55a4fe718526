"""The entropic regularisation of a bridge: 2 sigma^2 d in each interval, whatever its length d."""

import math

import pytest
import torch
from parts import ALL_COUPLINGS, ALL_PATHS, TIGHT

import cellflow as cf
from cellflow.couplings import Custom, Euclidean, Sinkhorn, UnbalancedSinkhorn, Within
from cellflow.couplings.coupling import over
from cellflow.errors import CheckpointError
from cellflow.images import ImageSet
from cellflow.pairing import image_batches, paired_batches, snapshot_batches
from cellflow.paths import BrownianBridge
from conftest import make_cells

TIMES = [0.0, 0.1, 1.0]
OF_THE_PATH = {
    "balanced": Sinkhorn("path"),
    "unbalanced, nothing relaxed": UnbalancedSinkhorn("path", math.inf),
    "unbalanced, barely relaxed": UnbalancedSinkhorn("path", 1e7),
    "function": Custom(Sinkhorn("path")),
}
QUICK = {"time_key": "day", "steps": 3, "batch_size": 8, "device": "cpu"}
BRIDGE = BrownianBridge(0.5)
each_of_the_path = pytest.mark.parametrize("coupling", OF_THE_PATH.values(), ids=OF_THE_PATH)


def brownian(sigma, n=400):
    """Brownian motion that starts from N(0, 1), at three uneven times: the quantiles of its law."""
    standard = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(n, dtype=torch.float64) + 0.5) / n)[:, None]
    return [standard * math.sqrt(1 + sigma**2 * t) for t in TIMES]


def squared_displacement(before, after, gathered):
    """That of the bridge between Gaussians of two variances whose Brownian motion gathers a variance."""
    return before + after - (math.sqrt(gathered**2 + 4 * before * after) - gathered)


def displacements(coupling, sigma, **given):
    rng = cf.generator(seed=0)
    batches = snapshot_batches(brownian(sigma), TIMES, coupling=coupling, batch_size=4, generator=rng, **given)
    return [plan.cost / plan.mass for plan in batches.plans]


@each_of_the_path
@pytest.mark.parametrize("sigma", [0.5, 1.0])
def test_cells_travel_as_far_as_brownian_motion_does_in_short_and_long_intervals(coupling, sigma):
    found = displacements(coupling, sigma, path=BrownianBridge(sigma))
    assert found == pytest.approx([0.1 * sigma**2, 0.9 * sigma**2], rel=0.02)


@pytest.mark.parametrize("coupling", [Sinkhorn(2.0), UnbalancedSinkhorn(2.0, math.inf)], ids=repr)
def test_a_number_is_that_of_every_interval(coupling):
    """With sigma 1 it is that of a whole unit of time: cells travel 0.78 in the short one, in place of 0.1."""
    expected = [squared_displacement(1 + a, 1 + b, 1.0) for a, b in ((0.0, 0.1), (0.1, 1.0))]
    assert expected[0] == pytest.approx(0.776, abs=1e-3)
    assert displacements(coupling, 1.0, path=BrownianBridge(1.0)) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("coupling", [c for name, c in ALL_COUPLINGS.items() if name != "auto"], ids=repr)
def test_couplings_with_numbers_are_the_same_in_every_interval(coupling):
    assert over(coupling, 0.1, 2.0) == coupling
    assert over(coupling, 0.1, 0.0) == coupling


@pytest.mark.parametrize("coupling", [Sinkhorn("path"), UnbalancedSinkhorn("path", 3.0)], ids=repr)
def test_what_holds_a_coupling_hands_the_interval_on(coupling):
    known = over(coupling, 0.1, 2.0)
    assert known.epsilon == pytest.approx(0.8)
    assert over(Custom(coupling), 0.1, 2.0).match == known
    assert over(Within(coupling, [0, 1], [0, 1]), 0.1, 2.0).coupling == known


def test_within_groups_each_has_the_epsilon_of_its_interval(rng):
    clouds, labels = brownian(1.0, 60), [[k % 2 for k in range(60)]] * 3
    path = {"coupling": Sinkhorn("path", tolerance=TIGHT), "path": BrownianBridge(1.0)}
    found = snapshot_batches(clouds, TIMES, within=labels, batch_size=4, generator=rng, **path).plans
    for k, (plan, epsilon) in enumerate(zip(found, (0.2, 1.8), strict=True)):
        alone = Within(Sinkhorn(epsilon, tolerance=TIGHT), labels[k], labels[k + 1])(clouds[k], clouds[k + 1])
        assert torch.allclose(plan.dense(), alone.dense(), atol=1e-10)


@each_of_the_path
@pytest.mark.parametrize("path", [path for path in ALL_PATHS if not path.diffusive], ids=repr)
def test_a_path_that_is_no_bridge_has_no_epsilon(coupling, path, rng):
    x = torch.zeros(3, 2)
    images = ImageSet(torch.randint(0, 255, (4, 1, 8, 8), generator=rng).to(torch.uint8))
    for pair in (
        lambda: paired_batches(x, x + 1, coupling=coupling, path=path, generator=rng),
        lambda: image_batches(None, images, coupling=coupling, path=path, generator=rng),
        lambda: cf.SnapshotFlow(**QUICK, coupling=coupling, path=path).fit(make_cells()),
        lambda: cf.DomainTranslator(steps=2, coupling=coupling, path=path).fit(x, x + 1),
    ):
        with pytest.raises(ValueError, match=r"cf\.paths\.BrownianBridge\(sigma\)"):
            pair()


@each_of_the_path
def test_without_an_interval_it_says_where_to_give_it(coupling, rng):
    x = torch.zeros(3, 2)
    with pytest.raises(ValueError, match="no interval is known here"):
        coupling(x, x + 1)
    with pytest.raises(ValueError, match="BrownianBridge"):
        paired_batches(x, x + 1, coupling=coupling, generator=rng)


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="or 'path'; found 'pth'"):
        Sinkhorn("pth")
    with pytest.raises(ValueError, match="or 'path'; found 'own'"):
        UnbalancedSinkhorn("own", 1.0)
    with pytest.raises(ValueError, match="squared distance"):
        Sinkhorn("path", cost=Euclidean())


@pytest.mark.parametrize("coupling", [Sinkhorn("path"), UnbalancedSinkhorn("path", 5.0)], ids=repr)
def test_a_flow_keeps_the_word_and_pairs_by_the_numbers(coupling, tmp_path):
    """Cells at 0, 1 and 5: the intervals are a fifth and four fifths of model time."""
    cells = make_cells()
    run = cf.Run(folder=tmp_path / "run")
    flow = cf.SnapshotFlow(**QUICK, coupling=coupling, path=BRIDGE, stochastic=True).fit(cells, run=run)
    clouds = [torch.from_numpy(cells.obsm["X_pca"][cells.obs["day"] == day]) for day in (0.0, 1.0, 5.0)]
    for plan, x0, x1, duration in zip(flow.plans_, clouds, clouds[1:], (0.2, 0.8), strict=False):
        expected = over(coupling, duration, 0.5)
        assert expected.epsilon == pytest.approx(0.5 * duration)
        assert torch.allclose(plan.dense(), expected(x0, x1).dense())
    assert "epsilon='path'" in repr(flow)
    flow.save(tmp_path / "model")
    assert cf.SnapshotFlow.load(tmp_path / "model").coupling == coupling
    flow.set_params(steps=4).fit(cells, run=cf.Run(folder=tmp_path / "run", resume=True))
    other = cf.SnapshotFlow(**QUICK, coupling=over(coupling, 1.0, 0.5), path=BRIDGE, stochastic=True)
    with pytest.raises(CheckpointError, match="coupling"):
        other.fit(cells, run=cf.Run(folder=tmp_path / "run", resume=True))
    flow.distill(cells, steps=2, teacher=False, objective="mean_velocity")


def test_between_two_domains_the_interval_is_all_of_model_time(rng):
    x0, x1 = (torch.randn(30, 2, generator=rng) + shift for shift in (0, 1))
    digits = cf.datasets.digits()
    two, three = digits.only("2"), digits.only("3")
    given = {"coupling": Sinkhorn("path"), "path": BRIDGE, "batch_size": 4}
    known = Sinkhorn(0.5)(x0, x1).dense()
    assert torch.allclose(paired_batches(x0, x1, generator=rng, **given).plans[0].dense(), known)
    assert cf.DomainTranslator(**given, steps=2, stochastic=True).fit(x0, x1).translate(x0).shape == (30, 2)
    assert image_batches(two, three, generator=rng, features=5, **given).plans[0] is not None
    with pytest.raises(ValueError, match="in pixels: leave out `features`"):
        image_batches(two, three, generator=rng, features=lambda images: images.flatten(1), **given)
