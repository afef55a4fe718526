"""The suggested sigma: against the plan that it stands for, and what it may not depend on."""

import math

import pytest
import torch

import cellflow as cf
from cellflow.cells import suggest_sigma

TIMES = [0.0, 1.0, 4.0]


@pytest.fixture
def clouds(rng):
    return [torch.randn(n, 3, generator=rng) + k for k, n in enumerate((300, 200, 400))]


def suggested(clouds, times=TIMES, **settings):
    return suggest_sigma(clouds, times, generator=cf.generator(seed=0), **settings)


def test_the_bridge_of_an_interval_has_a_twentieth_of_the_typical_cost_as_entropy(clouds):
    """Two snapshots: epsilon of the suggested bridge, over the median of all squared distances, is the share."""
    costs = (clouds[0][:, None] - clouds[1][None]).square().sum(-1)
    sigma = suggested(clouds[:2], TIMES[:2])
    assert 2 * sigma**2 / costs.median().item() == pytest.approx(0.05, rel=1e-3)
    assert suggested(clouds[:2], TIMES[:2], share=0.2) == pytest.approx(2 * sigma)


def test_it_scales_with_the_data_and_does_not_know_the_unit_of_time(clouds):
    sigma = suggested(clouds)
    assert suggested([7 * cloud + 3 for cloud in clouds]) == pytest.approx(7 * sigma, rel=1e-4)
    assert suggested(clouds, [24 * t + 5 for t in TIMES]) == pytest.approx(sigma)


def test_brownian_motion_seen_at_uneven_times_gets_the_same_sigma_in_each_interval(rng):
    """Squared steps grow with time: long and short intervals must suggest alike."""
    x = torch.zeros(1000, 20)
    steps = [x + math.sqrt(t) * torch.randn(1000, 20, generator=rng) for t in (1.0, 4.0)]
    short, long = (suggest_sigma([x, y], [0.0, 1.0], generator=rng) for y in steps)
    assert long / short == pytest.approx(2, rel=0.1)
    both = suggest_sigma([x, steps[0], x, steps[1]], [0.0, 1.0, 2.0, 6.0], generator=rng)
    assert both == pytest.approx(short * math.sqrt(6), rel=0.1)


def test_the_estimator_suggests_from_cells(cells):
    flow = cf.SnapshotFlow(time_key="day")
    sigma = flow.suggest_sigma(cells)
    assert sigma == flow.suggest_sigma(cells)
    assert 0.1 < sigma < 5  # cells move by 5 in all
    cells.obsm["X_pca"] = 10 * cells.obsm["X_pca"]
    assert flow.suggest_sigma(cells) == pytest.approx(10 * sigma, rel=1e-4)


@pytest.mark.parametrize(
    ("times", "settings", "words"),
    [
        ([0.0, 2.0, 1.0], {}, "increase"),
        ([0.0, 1.0], {}, "found 3 and 2"),
        (TIMES, {"share": 0.0}, "share > 0"),
    ],
)
def test_impossible_questions_are_refused(clouds, times, settings, words):
    with pytest.raises(ValueError, match=words):
        suggested(clouds, times, **settings)
    with pytest.raises(ValueError, match="one point"):
        suggested([torch.zeros(4, 2)] * 2, [0.0, 1.0])
