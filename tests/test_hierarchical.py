"""Transport of large clouds by parts: what it must keep at any size, and how near it comes to the exact plan."""

import pytest
import torch

import cellflow as cf
from cellflow.couplings import Euclidean, Exact, Hierarchical, SparsePlan, SquaredEuclidean, Within
from cellflow.couplings.halving import blocks_of

SMALL = Hierarchical(block=50)


def clusters(n, dim, *, seed, spread=3.0, shares=(0.6, 0.3, 0.08, 0.02)):
    """Clusters of very unequal sizes, around places that are the same for all seeds."""
    rng = cf.generator(seed)
    places = spread * torch.randn(len(shares), dim, generator=cf.generator(99), dtype=torch.float64)
    kinds = torch.multinomial(torch.tensor(shares), n, replacement=True, generator=rng)
    return places[kinds] + torch.randn(n, dim, generator=rng, dtype=torch.float64) * torch.linspace(2, 0.2, dim)


CLOUDS = {
    "clusters": (clusters(300, 10, seed=0), clusters(300, 10, seed=1, shares=(0.3, 0.4, 0.1, 0.2)) + 1),
    "unequal": (clusters(250, 5, seed=0), clusters(215, 5, seed=1)),
    "lopsided": (clusters(7, 3, seed=0), clusters(400, 3, seed=1)),
    "line": (clusters(300, 1, seed=0), clusters(300, 1, seed=1)),
    "duplicates": (clusters(300, 3, seed=0).round(), clusters(300, 3, seed=1).round()),
}


@pytest.mark.parametrize("kind", CLOUDS)
@pytest.mark.parametrize("weighted", [False, True])
def test_masses_are_kept_and_the_cost_is_near_the_least(kind, weighted):
    x0, x1 = CLOUDS[kind]
    a, b = (torch.rand(len(x), generator=cf.generator(k), dtype=torch.float64) + 0.1 for k, x in enumerate((x0, x1)))
    given = (a, b) if weighted else ()
    plan, best = SMALL(x0, x1, *given), Exact()(x0, x1, *given)
    for found, wanted in zip(plan.marginals(), best.marginals(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=0)
    i, j, masses = plan.pairs
    assert float(masses @ (x0[i] - x1[j]).square().sum(dim=1)) == pytest.approx(plan.cost)
    slack = 1.1 if kind == "duplicates" else 1.05  # ties are broken by rounding, which differs between processors
    assert best.cost * (1 - 1e-9) <= plan.cost <= slack * best.cost
    if len(x0) == len(x1) and not weighted:
        assert plan.permutation is not None
    else:
        assert len(masses) < 3 * (len(x0) + len(x1))


@pytest.mark.parametrize("cost", [SquaredEuclidean(), Euclidean()], ids=repr)
def test_clouds_of_one_block_are_matched_exactly(cost):
    x0, x1 = clusters(40, 2, seed=0), clusters(50, 2, seed=1)
    assert Hierarchical(block=50, cost=cost)(x0, x1).cost == pytest.approx(Exact(cost)(x0, x1).cost, rel=1e-12)


def test_a_map_with_a_convex_potential_is_found():
    """The gradient of a convex function is the best map of any cloud: its cost is known without a solver."""
    x = clusters(1500, 20, seed=0)
    half = torch.randn(20, 20, generator=cf.generator(1), dtype=torch.float64) / 20**0.5
    y = x @ (0.2 * torch.eye(20, dtype=torch.float64) + half @ half.T) + 5
    plan = Hierarchical(block=128)(x, y[torch.randperm(1500, generator=cf.generator(2))])
    least = float((x - y).square().sum(dim=1).mean())
    assert least <= plan.cost < 1.02 * least


def test_other_states_alike_and_any_shape():
    """Moved, scaled and turned into images, points have the same partners; so they have a second time."""
    x0, x1 = CLOUDS["clusters"]
    x0, x1 = x0[:, :9], x1[:, :9]
    found = SMALL(x0, x1).permutation
    assert torch.equal(found, SMALL(x0, x1).permutation)
    assert torch.equal(found, SMALL((4 * x0).reshape(-1, 3, 3), (4 * x1).reshape(-1, 3, 3)).permutation)


def test_points_without_weight_have_no_partners():
    x0, x1 = CLOUDS["unequal"]
    a, b = torch.ones(len(x0)), torch.ones(len(x1))
    a[::7], b[:30] = 0, 0
    plan = SMALL(x0, x1, a, b)
    rest = SMALL(x0[a > 0], x1[b > 0])
    assert plan.cost == pytest.approx(rest.cost)
    assert [int((side == 0).sum()) for side in plan.marginals()] == [int((a == 0).sum()), 30]


@pytest.mark.parametrize("least", [1e-12, 1e-17, 1e-300])
def test_one_point_that_weighs_nearly_all(least):
    x0, x1 = CLOUDS["unequal"]
    a, b = (torch.full((len(x),), least, dtype=torch.float64) for x in (x0, x1))
    a[3], b[-1] = 1, 1
    for weights in ((a, b), (a, None), (None, b)):
        plan, best = SMALL(x0, x1, *weights), Exact()(x0, x1, *weights)
        for found, wanted in zip(plan.marginals(), best.marginals(), strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-14)
        assert plan.cost == pytest.approx(best.cost, rel=0.01)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 400), (400, 1), (2, 300)])
def test_few_points(n, m):
    plan = Hierarchical(block=4)(clusters(n, 2, seed=0), clusters(m, 2, seed=1))
    assert isinstance(plan, SparsePlan)
    torch.testing.assert_close(plan.marginals()[1], torch.full((m,), 1 / m, dtype=torch.float64))


def test_clouds_of_one_place():
    plan = SMALL(torch.zeros(300, 2), torch.ones(300, 2))
    assert plan.permutation is not None
    assert plan.cost == pytest.approx(2)


def test_halves_have_equal_masses_and_whole_source_points():
    x0, x1 = CLOUDS["unequal"]
    a, b = torch.full((250,), 43.0, dtype=torch.float64), torch.full((215,), 50.0, dtype=torch.float64)
    blocks = list(blocks_of(x0, x1, a, b, 32))
    assert all(float(block.a.sum()) == float(block.b.sum()) for block in blocks)
    assert torch.equal(torch.cat([block.i for block in blocks]).sort().values, torch.arange(250))
    parts = torch.zeros_like(b).index_add_(0, torch.cat([k.j for k in blocks]), torch.cat([k.b for k in blocks]))
    assert torch.equal(parts, b)


def test_groups_are_matched_in_parts_too():
    x0, x1 = CLOUDS["clusters"]
    labels = torch.arange(300) % 2
    plan = Within(SMALL, labels, labels)(x0, x1)
    assert torch.equal(labels[plan.permutation], labels)
    assert plan.cost == pytest.approx(sum(SMALL(x0[labels == k], x1[labels == k]).cost for k in range(2)) / 2)


def test_memory_grows_with_the_points():
    one, ten = (Hierarchical().memory(k, k) for k in (10**6, 10**7))
    assert one < 4e9
    assert ten < 10 * one
    assert Hierarchical().memory(10, 10) < Hierarchical().memory(10**4, 10**4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"block": 1}, "at least 2 points"),
        ({"tolerance": -1.0}, "from 0 to below 1"),
        ({"passes": -1}, "0 or more"),
        ({"cost": torch.cdist}, "found by distances"),
    ],
)
def test_unusable_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Hierarchical(**settings)
