"""Exact plans by column generation: POT's optimum, with a proof, without an array of all pairs."""

import ot
import pytest
import torch

from cellflow.couplings import Euclidean, Exact, SquaredEuclidean, columns, exact, pricing
from cellflow.couplings.simplex import whole_units
from cellflow.errors import ConvergenceError

NORMAL = torch.Generator().manual_seed(0)


def normal(n, d=3):
    return torch.randn(n, d, generator=NORMAL)


def manhattan(x0, x1):
    return torch.cdist(x0.double(), x1.double(), p=1)


LATTICE = torch.randint(0, 4, (300, 2), generator=NORMAL)
HALF = torch.arange(150) % 2
PROBLEMS = {
    "other sizes": (normal(120), normal(170) + 1),
    "lopsided": (normal(8), normal(400)),
    "one point": (normal(1), normal(50)),
    "a line": (normal(150, 1), normal(150, 1) * 2),
    "weights": (normal(100), normal(130), torch.rand(100, generator=NORMAL) ** 8, torch.rand(130, generator=NORMAL)),
    "without some": (normal(150), normal(150), HALF, 1 - HALF),
    "copies": (LATTICE[:160].float(), LATTICE[160:].float()),
    "all the same": (torch.ones(90, 2), torch.ones(120, 2)),
    "one cloud": (LATTICE.float(), LATTICE.float()),
    "two islands": (torch.cat([normal(90), normal(90) + 1e4]), torch.cat([normal(70), normal(110) + 1e4])),
    "far out": (torch.cat([normal(100), torch.full((1, 3), 1e5)]), normal(120)),
    "tiny": (1e-20 * normal(90).double(), 1e-20 * normal(100).double()),
}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Problems of some hundred points take the way of large ones: columns, first prices from a part, many blocks."""
    monkeypatch.setattr(exact, "DENSE_PAIRS", 0)
    monkeypatch.setattr(columns, "_FEW", 60)
    monkeypatch.setattr(pricing, "BLOCK", 2**14)


@pytest.mark.parametrize("cost", [SquaredEuclidean(), Euclidean(), manhattan], ids=["squared", "plain", "manhattan"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_plan_costs_as_much_as_that_of_pot_and_its_prices_prove_it(name, cost):
    x0, x1, *weights = PROBLEMS[name]
    plan, costs = Exact(cost)(x0, x1, *weights), cost(x0, x1)
    a, b = (w.double() / w.double().sum() for w in weights or (torch.ones(len(x0)), torch.ones(len(x1))))
    largest = float(costs.max()) or 1.0
    expected = ot.emd2(a.numpy(), b.numpy(), (costs / largest).numpy(), numItermax=10**7) * largest
    rounding = 1e-13 * largest
    assert plan.cost == pytest.approx(expected, rel=1e-9, abs=rounding)
    for found, given in zip(plan.marginals(), (a, b), strict=True):
        assert torch.allclose(found, given, rtol=0, atol=1e-14)
    u, v = plan.potentials
    assert float((costs - u[:, None] - v).min()) > -rounding
    assert float(a @ u + b @ v) == pytest.approx(plan.cost, rel=1e-9, abs=10 * rounding)
    assert plan.pairs[0].numel() <= len(x0) + len(x1) - 1


@pytest.mark.parametrize("x", [normal(200, 5), LATTICE[:200].float()], ids=["normal", "copies"])
def test_between_equally_many_points_it_is_a_permutation_of_equal_masses(x):
    plan = Exact()(x, x.flip(0) + 0.1)
    assert plan.permutation is not None
    assert (plan.pairs[2] == 1 / 200).all()


def test_it_is_the_plan_of_the_matrix_where_there_is_one(monkeypatch):
    x0, x1 = normal(150), normal(150)
    plan = Exact()(x0, x1)
    monkeypatch.setattr(exact, "DENSE_PAIRS", 10**6)
    assert torch.equal(plan.permutation, Exact()(x0, x1).permutation)


def test_no_array_holds_all_pairs():
    most = []

    def watched(x0, x1):
        most.append(len(x0) * len(x1))
        return manhattan(x0, x1)

    Exact(watched)(normal(300), normal(400))
    assert max(most) <= max(2**14 / 8, 64 * 64) < 300 * 400 / 20


def test_memory_is_that_of_points(monkeypatch):
    monkeypatch.setattr(exact, "DENSE_PAIRS", 2**22)
    assert Exact().memory(2000, 2000) == 4 * Exact().memory(1000, 1000)
    one, two = Exact().memory(100_000, 100_000), Exact().memory(200_000, 200_000)
    assert one < two < 2 * one < 2**32


def test_more_points_than_memory_holds_are_refused_at_once(monkeypatch):
    monkeypatch.setattr(exact, "usable_memory", lambda: 2.0**20)
    with pytest.raises(ValueError, match=r"between 150 and 200 points would take .* GB .* couple fewer points"):
        Exact()(normal(150), normal(200))


def test_a_cost_that_depends_on_other_points_is_refused():
    with pytest.raises(ValueError, match="depend on its two points only"):
        Exact(lambda x0, x1: manhattan(x0, x1) / manhattan(x0, x1).max())(normal(150), normal(200))


@pytest.mark.parametrize(("what", "value"), [("pivots", 3), ("rounds", 1)])
def test_it_says_when_it_did_not_converge(what, value, monkeypatch):
    if what == "rounds":
        monkeypatch.setattr(columns, "_ROUNDS", value)
    with pytest.raises(ConvergenceError, match="ouple fewer points at a time"):
        Exact(max_iterations=value if what == "pivots" else 10**6)(normal(150), normal(200))


def test_weights_become_whole_numbers_of_one_sum():
    a, b = whole_units(torch.rand(1000, generator=NORMAL), torch.rand(7, generator=NORMAL) ** 20)
    assert a.sum() == b.sum() == 2**50
    assert (a == a.round()).all()
    assert (b == b.round()).all()
    a, b = whole_units(torch.tensor([0.3, 0.0, 0.3]), torch.full((6,), 0.1))
    assert a.tolist() == [3, 0, 3]
    assert b.tolist() == [1] * 6
