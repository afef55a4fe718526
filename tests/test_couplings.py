import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import ot
import pytest
import scipy.stats
import torch
from parts import ALL_COSTS, ALL_COUPLINGS, TIGHT
from scipy.optimize import linprog

from cellflow.couplings import (
    COUPLINGS,
    DensePlan,
    Euclidean,
    Exact,
    Given,
    Independent,
    PotentialsPlan,
    ProductPlan,
    Sinkhorn,
    SquaredEuclidean,
    UnbalancedSinkhorn,
    Within,
    kernel,
    potentials_plan,
    resolve,
    sinkhorn,
    streamed,
)
from cellflow.couplings.coupling import of_points
from cellflow.couplings.potentials import Relaxed, advance
from cellflow.errors import ConvergenceError
from cellflow.seeds import generator

BALANCED = {name: coupling for name, coupling in ALL_COUPLINGS.items() if coupling.keeps_mass}
each_coupling = pytest.mark.parametrize("coupling", ALL_COUPLINGS.values(), ids=ALL_COUPLINGS)
each_balanced = pytest.mark.parametrize("coupling", BALANCED.values(), ids=BALANCED)
each_cost = pytest.mark.parametrize("cost", ALL_COSTS, ids=repr)


def clouds(n: int, m: int, d: int = 2, dtype: torch.dtype = torch.float64):
    g = generator(seed=n * m)
    x0, x1 = torch.randn(n, d, generator=g, dtype=dtype), torch.randn(m, d, generator=g, dtype=dtype) + 1
    return x0, x1


def weights(n: int, seed: int = 0) -> torch.Tensor:
    w = torch.rand(n, generator=generator(seed), dtype=torch.float64) + 0.1
    return w / w.sum()


# ---- every coupling ----


@each_balanced
@pytest.mark.parametrize("weighted", [False, True])
def test_marginals_are_the_weights(coupling, weighted):
    x0, x1 = clouds(13, 9)
    a, b = (weights(13), weights(9, 1)) if weighted else (torch.full((13,), 1 / 13), torch.full((9,), 1 / 9))
    plan = coupling(x0, x1, a, b) if weighted else coupling(x0, x1)
    torch.testing.assert_close(plan.marginals(), (a.double(), b.double()), atol=1e-8, rtol=0)


@pytest.mark.parametrize("name", [name for name in ALL_COUPLINGS if name != "auto"])  # its motion is of the source
def test_swapping_the_clouds_transposes_the_plan(name):
    coupling = ALL_COUPLINGS[name]
    sides = getattr(coupling, "relaxation", None)
    swapped = replace(coupling, relaxation=sides[::-1]) if isinstance(sides, tuple) else coupling
    x0, x1 = clouds(11, 7)
    a, b = weights(11), weights(7, 1)
    there, back = coupling(x0, x1, a, b), swapped(x1, x0, b, a)
    torch.testing.assert_close(there.dense(), back.dense().T, atol=1e-9, rtol=0)


@each_coupling
def test_a_point_without_weight_is_a_point_left_out(coupling):
    x0, x1 = clouds(8, 6)
    a = weights(8)
    a[3] = 0
    a /= a.sum()  # so that a balanced coupling can use the masses as they are
    kept = torch.arange(8) != 3
    whole, less = coupling(x0, x1, a).dense(), coupling(x0[kept], x1, a[kept]).dense()
    assert (whole[3] == 0).all()
    torch.testing.assert_close(whole[kept], less, atol=1e-9, rtol=0)


@each_coupling
def test_states_of_any_shape_are_flattened(coupling):
    x0, x1 = clouds(6, 5, d=12)
    images = coupling(x0.reshape(6, 3, 2, 2), x1.reshape(5, 3, 2, 2))
    torch.testing.assert_close(images.dense(), coupling(x0, x1).dense())


@each_coupling
def test_solving_is_deterministic_and_leaves_both_global_states_alone(coupling):
    x0, x1 = clouds(10, 10, dtype=torch.float32)
    x0.requires_grad_()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, again = coupling(x0, x1).dense(), coupling(x0, x1).dense()
    assert torch.equal(first, again)
    assert first.dtype == torch.float64
    assert not first.requires_grad
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


@each_coupling
@pytest.mark.parametrize("m", [7, 9])
def test_the_cost_of_a_plan_is_what_its_pairs_cost(coupling, m):
    x0, x1 = clouds(9, m)
    plan = coupling(x0, x1)
    if isinstance(plan, ProductPlan):
        assert plan.cost is None
    else:
        assert plan.cost == pytest.approx(float((plan.dense() * coupling.cost(x0, x1)).sum()))


@each_coupling
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x0": torch.zeros(0, 2)}, ValueError, "at least one point"),
        ({"x1": torch.tensor(1.0)}, ValueError, "at least one point"),
        ({"x1": torch.zeros(5, 3)}, ValueError, r"\(2,\) in x0 and \(3,\) in x1"),
        ({"x0": torch.tensor([[0.0, torch.nan], [1.0, 1.0]])}, ValueError, "1 of 2 points in `x0`"),
        ({"x1": torch.full((4, 2), torch.inf)}, ValueError, "4 of 4 points in `x1`"),
        ({"x0": np.zeros((3, 2))}, TypeError, "ndarray"),
        ({"a": torch.ones(3)}, ValueError, r"`a` to hold 4 weights.*\(3,\)"),
        ({"b": torch.tensor([1, 1, 1, 1, -1.0])}, ValueError, "`b` finite, nonnegative"),
        ({"b": torch.zeros(5)}, ValueError, "not all zero"),
        ({"a": torch.tensor([1, 1, 1, torch.nan])}, ValueError, "`a` finite"),
    ],
)
def test_bad_input_is_refused(coupling, change, error, message):
    x0, x1 = clouds(4, 5)
    with pytest.raises(error, match=message):
        coupling(**{"x0": x0, "x1": x1, **change})


# ---- costs ----


@each_cost
def test_costs_agree_with_pot(cost):
    x0, x1 = clouds(8, 5, d=3)
    metric = "sqeuclidean" if isinstance(cost, SquaredEuclidean) else "euclidean"
    np.testing.assert_allclose(cost(x0, x1).numpy(), ot.dist(x0.numpy(), x1.numpy(), metric=metric), rtol=1e-10)


@each_cost
def test_costs_far_from_the_origin_keep_their_digits(cost):
    x0, x1 = clouds(8, 5, d=3)
    torch.testing.assert_close(cost(x0 + 1e6, x1 + 1e6), cost(x0, x1), rtol=1e-7, atol=1e-7)


WITHOUT_COST = ("independent", "auto", "hierarchical")
"""Couplings without a cost, or whose cost is a distance."""


@pytest.mark.parametrize(
    "coupling",
    [c for name, c in ALL_COUPLINGS.items() if name not in WITHOUT_COST],
    ids=repr,
)
@pytest.mark.parametrize(
    ("cost", "message"),
    [
        (lambda x0, x1: torch.zeros(len(x0)), r"shape \(4, 5\); found \(4,\)"),
        (lambda x0, x1: torch.full((len(x0), len(x1)), torch.nan), "finite costs"),
    ],
)
def test_a_cost_of_ones_own_is_checked(coupling, cost, message):
    own = type(coupling)(**{**vars(coupling), "cost": cost})
    with pytest.raises(ValueError, match=message):
        own(*clouds(4, 5))


# ---- exact ----


def test_exact_between_equal_clouds_is_the_cheapest_of_all_permutations():
    from itertools import permutations

    x0, x1 = clouds(6, 6)
    plan = Exact()(x0, x1)
    costs = ((x0[:, None] - x1) ** 2).sum(-1)
    cheapest = min(permutations(range(6)), key=lambda order: float(costs[range(6), order].sum()))
    assert plan.permutation.tolist() == list(cheapest)


@each_cost
@pytest.mark.parametrize(("n", "m"), [(20, 20), (20, 13), (1, 5), (7, 1)])
def test_exact_agrees_with_pot_and_with_linear_programming(n, m, cost):
    x0, x1 = clouds(n, m)
    a, b = weights(n), weights(m, 1)
    costs = cost(x0, x1).numpy()
    for given, used in (((None, None), (np.full(n, 1 / n), np.full(m, 1 / m))), ((a, b), (a.numpy(), b.numpy()))):
        plan = Exact(cost=cost)(x0, x1, *given)
        rows = [np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))]
        program = linprog(costs.ravel(), A_eq=np.concatenate(rows), b_eq=np.concatenate(used))
        assert plan.cost == pytest.approx(ot.emd2(*used, costs), rel=1e-9)
        assert plan.cost == pytest.approx(program.fun, rel=1e-7)
        assert plan.pairs[0].numel() <= n + m - 1


def test_exact_weights_that_are_all_the_same_count_as_none():
    x0, x1 = clouds(10, 10)
    assert torch.equal(Exact()(x0, x1, 3 * torch.ones(10)).permutation, Exact()(x0, x1).permutation)


def test_exact_in_one_dimension_joins_the_ranks():
    x0, x1 = clouds(50, 50, d=1)
    assert torch.equal(x1[Exact()(x0, x1).permutation][x0.argsort(0).squeeze()], x1.sort(0).values)


@pytest.mark.filterwarnings("ignore:numItermax")
def test_exact_says_when_it_did_not_converge():
    x0, x1 = clouds(40, 30)
    with pytest.raises(ConvergenceError, match=r"within 3 iterations.*Raise max_iterations"):
        Exact(max_iterations=3)(x0, x1)


# ---- sinkhorn ----


@pytest.mark.parametrize("epsilon", [0.05, 0.5, 5.0])
def test_sinkhorn_agrees_with_pot(epsilon):
    x0, x1 = clouds(15, 11)
    a, b = weights(15), weights(11, 1)
    plan = Sinkhorn(epsilon, tolerance=1e-10)(x0, x1, 3 * a, 7 * b)
    costs = SquaredEuclidean()(x0, x1).numpy()
    theirs = ot.sinkhorn(a.numpy(), b.numpy(), costs, epsilon, method="sinkhorn_log", stopThr=1e-12, numItermax=10**5)
    np.testing.assert_allclose(plan.dense().numpy(), theirs, atol=1e-8)


@pytest.mark.parametrize("relaxation", [0.3, 3.0, (0.5, 5.0), (math.inf, 1.0), [2.0, 1.0]], ids=str)
@pytest.mark.parametrize("epsilon", [0.2, 2.0])
def test_unbalanced_agrees_with_pot(epsilon, relaxation):
    x0, x1 = clouds(12, 10)
    a, b = 3 * weights(12), 1.5 * weights(10, 1)
    plan = UnbalancedSinkhorn(epsilon, relaxation, tolerance=1e-11)(x0, x1, a, b)
    costs = SquaredEuclidean()(x0, x1).numpy()
    theirs = ot.unbalanced.sinkhorn_unbalanced(
        a.numpy(), b.numpy(), costs, epsilon, relaxation, reg_type="kl", stopThr=1e-14, numItermax=10**5
    )
    np.testing.assert_allclose(plan.dense().numpy(), theirs, atol=1e-8)


def test_unbalanced_minimises_its_objective_however_the_plan_is_disturbed():
    x0, x1 = clouds(6, 5)
    a, b = 2 * weights(6), weights(5, 1)
    epsilon, relaxations = 0.7, (1.5, 0.4)
    best = UnbalancedSinkhorn(epsilon, relaxations, tolerance=TIGHT)(x0, x1, a, b).dense()

    def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        return (p * (p / q).log() - p + q).sum()

    def objective(matrix: torch.Tensor) -> float:
        rows, columns = kl(matrix.sum(1), a), kl(matrix.sum(0), b)
        transport = (matrix * SquaredEuclidean()(x0, x1)).sum()
        return float(
            transport + epsilon * kl(matrix, torch.outer(a, b)) + relaxations[0] * rows + relaxations[1] * columns
        )

    for seed in range(30):
        noise = torch.randn(6, 5, generator=generator(seed), dtype=torch.float64)
        for size in (1e-3, 0.1):
            assert objective(best * (size * noise).exp()) > objective(best)


def test_sinkhorn_on_two_points_is_the_solution_by_hand():
    """P = [[p, 1/2 - p], [1/2 - p, p]] and p / (1/2 - p) = exp(c / epsilon) for points at squared distance c."""
    x, c = torch.tensor([[0.0], [3.0]]), 9.0
    for epsilon in (0.5, 2.0, 20.0):
        p = 0.5 / (1 + math.exp(-c / epsilon))
        expected = torch.tensor([[p, 0.5 - p], [0.5 - p, p]]).double()
        torch.testing.assert_close(Sinkhorn(epsilon, tolerance=TIGHT)(x, x).dense(), expected, rtol=1e-5, atol=1e-12)


def test_unbalanced_between_two_single_points_is_the_solution_by_hand():
    """The derivative of p c + epsilon KL(p | a b) + r KL(p | a) + s KL(p | b) vanishes at this p."""
    a, b, c, epsilon, r, s = 3.0, 0.5, 4.0, 0.7, 2.0, 5.0
    coupling = UnbalancedSinkhorn(epsilon, (r, s), tolerance=TIGHT)
    plan = coupling(torch.zeros(1, 1), torch.full((1, 1), 2.0), torch.tensor([a]), torch.tensor([b]))
    total = epsilon + r + s
    by_hand = math.exp(((epsilon + r) * math.log(a) + (epsilon + s) * math.log(b) - c) / total)
    assert plan.mass == pytest.approx(by_hand)


def test_sinkhorn_between_gaussian_grids_is_the_gaussian_entropic_plan():
    """N(0, s^2) to N(0, u^2): the covariance is sqrt(s^2 u^2 + e^2 / 16) - e / 4, e = epsilon.

    Source: Janati et al. 2020, "Entropic optimal transport between unbalanced Gaussian measures has a closed
    form", theorem 1, with cost |x - y|^2 and epsilon = 2 sigma^2 of theirs. A grid integrates a Gaussian to
    rounding error, so nothing here is random.
    """
    grid = torch.linspace(-9, 9, 181, dtype=torch.float64)[:, None]
    s, u, epsilon = 1.0, 1.5, 1.2
    a, b = (torch.exp(-(grid**2) / (2 * scale**2)).squeeze() for scale in (s, u))
    plan = Sinkhorn(epsilon, tolerance=1e-10)(grid, grid, a, b)
    covariance = float(grid.squeeze() @ plan.dense() @ grid.squeeze())
    assert covariance == pytest.approx(math.sqrt(s**2 * u**2 + epsilon**2 / 16) - epsilon / 4, abs=1e-6)


@pytest.mark.parametrize("epsilon", [1.0, 0.1, 0.03])
def test_sinkhorn_tends_to_exact_at_the_known_rate(epsilon):
    """Against a permutation of n points the entropic plan saves entropy log(n) at most, and pays for it in cost."""
    x0, x1 = clouds(12, 12)
    exact, smoothed = Exact()(x0, x1).cost, Sinkhorn(epsilon)(x0, x1).cost
    misplaced = 1e-4 * float(SquaredEuclidean()(x0, x1).max())
    assert exact - misplaced < smoothed < exact + epsilon * math.log(12) + misplaced


def test_sinkhorn_tends_to_independent_at_first_order():
    x0, x1 = clouds(12, 12)
    independent = Independent()(x0, x1).dense()
    gaps = [float((Sinkhorn(e, tolerance=TIGHT)(x0, x1).dense() - independent).abs().sum()) for e in (100, 1000)]
    assert gaps[0] / gaps[1] == pytest.approx(10, rel=0.1)


def test_unbalanced_tends_to_balanced_at_first_order():
    x0, x1 = clouds(20, 15)
    balanced = Sinkhorn(0.3, tolerance=TIGHT)(x0, x1).dense()
    gaps = [
        float((UnbalancedSinkhorn(0.3, r, tolerance=TIGHT)(x0, x1).dense() - balanced).abs().sum())
        for r in (1e2, 1e3, 1e4)
    ]
    assert gaps[0] / gaps[1] == pytest.approx(10, rel=0.1)
    assert gaps[1] / gaps[2] == pytest.approx(10, rel=0.1)


def test_an_outlier_loses_its_mass_instead_of_being_carried():
    x0, x1 = clouds(10, 10)
    x1[0] = 1e4  # 1e8 in units of the cost: far below what exp can tell from zero
    plan = UnbalancedSinkhorn(0.5, 1.0, tolerance=1e-9)(x0, x1)
    without = UnbalancedSinkhorn(0.5, 1.0, tolerance=1e-9)(x0, x1[1:], None, torch.full((9,), 0.1))
    assert float(plan.marginals()[1][0]) < 1e-100
    torch.testing.assert_close(plan.dense()[:, 1:], without.dense(), atol=1e-8, rtol=0)


def test_costs_of_ten_thousand_epsilon_stay_finite():
    x0, _ = clouds(10, 10)
    plan = Sinkhorn(1e-4)(x0, x0 + 0.01)
    assert SquaredEuclidean()(x0, x0).max() > 1e4 * 1e-4
    torch.testing.assert_close(plan.dense(), torch.eye(10).double() / 10, atol=1e-6, rtol=0)


# ---- without an array of all pairs ----


@pytest.fixture
def in_blocks(monkeypatch):
    """Nothing of the size of all pairs: two blocks for 40 points, that begin with the potentials of ten."""
    monkeypatch.setattr(sinkhorn, "MOST_BYTES", 8)
    monkeypatch.setattr(streamed, "SUBSAMPLE", 10)
    for room in (kernel, potentials_plan):
        monkeypatch.setattr(room, "AT_ONCE", 2**13)


STREAMED = {
    "balanced": Sinkhorn(0.7, tolerance=1e-10),
    "a cost without factors": Sinkhorn(0.7, Euclidean(), tolerance=1e-10),
    "nothing kept": Sinkhorn(0.7, tolerance=1e-10, kernel_bytes=0),
    "relaxed": UnbalancedSinkhorn(0.7, 3.0, tolerance=1e-10),
    "targets keep their masses": UnbalancedSinkhorn(0.7, (3.0, math.inf), tolerance=1e-10),
    "motion is free": UnbalancedSinkhorn(0.7, (3.0, math.inf), tolerance=1e-10, free_motion=True),
}


@pytest.mark.parametrize("coupling", STREAMED.values(), ids=STREAMED)
def test_plans_of_potentials_are_the_dense_ones(coupling, request):
    (x0, x1), a, b = clouds(40, 30), weights(40), weights(30, 1)
    a[3], b[5] = 0, 0
    x1[0] = 30.0  # far from all others: single precision has no number for it
    dense = coupling(x0, x1, a, b)
    request.getfixturevalue("in_blocks")
    found = coupling(x0, x1, a, b)
    assert (type(dense), type(found)) == (DensePlan, PotentialsPlan)
    torch.testing.assert_close(found.dense(), dense.dense(), atol=1e-8 * float(dense.dense().max()), rtol=1e-6)
    assert found.cost == pytest.approx(dense.cost, rel=1e-7)
    assert repr(found).split("converged")[0] == repr(dense).replace("Dense", "Potentials").split("converged")[0]
    if not getattr(coupling, "free_motion", False):  # of points without weight too
        (f, g), (other_f, other_g) = found.potentials, dense.potentials
        torch.testing.assert_close(f[:, None] + g, other_f[:, None] + other_g, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("in_blocks")
def test_streamed_sinkhorn_agrees_with_pot():
    x0, x1 = clouds(40, 30)
    expected = ot.sinkhorn(
        *(np.full(n, 1 / n) for n in (40, 30)), SquaredEuclidean()(x0, x1).numpy(), 1.0, stopThr=1e-12
    )
    np.testing.assert_allclose(Sinkhorn(1.0, tolerance=1e-12)(x0, x1).dense().numpy(), expected, rtol=1e-8)


@pytest.mark.usefixtures("in_blocks")
def test_double_precision_judges_what_single_precision_has_found():
    """Costs of up to two thousand epsilon: exponents that single precision rounds by a ten-thousandth."""
    x0, x1 = clouds(40, 30)
    epsilon = float(SquaredEuclidean()(x0, x1).max()) / 1000
    plan = Sinkhorn(epsilon, tolerance=1e-3)(x0, x1)
    assert plan.error <= 1e-3
    assert float((plan.marginals()[1] - 1 / 30).abs().sum()) == pytest.approx(plan.error, rel=1e-6)


def test_memory_of_large_clouds_grows_with_points():
    assert Sinkhorn(1.0).memory(20_000, 22_000) < 2.3 * 2**30
    small, large = (Sinkhorn(1.0, kernel_bytes=0).memory(n, n) for n in (10**5, 10**6))
    assert small < 2**30
    assert large < 10 * small


class Hopeless:
    """Potentials of which nothing comes: an error in each iteration, and a plan of some mass."""

    epsilon, weights, relaxed = 1.0, (torch.ones(1), torch.ones(1)), Relaxed(1.0, (math.inf, math.inf))

    def __init__(self, error: float) -> None:
        self.error, self.updates = error, 0

    def update_source(self) -> float:
        self.updates += 1
        return self.error

    def update_target(self) -> None: ...

    def mean_cost(self) -> float:
        return 1e16

    def plan(self, least: float, *, iterations: int, error: float) -> DensePlan:
        return DensePlan(torch.full((1, 1), 2.68))


def test_numbers_beyond_double_precision_stop_at_once():
    hopeless = Hopeless(math.nan)
    with pytest.raises(ConvergenceError, match="exceeded double precision in iteration 1 .*Rescale the states"):
        advance(hopeless, 1e-4, 10_000)
    assert hopeless.updates == 1


def test_a_plan_of_another_mass_is_not_returned(monkeypatch):
    monkeypatch.setattr(sinkhorn, "Potentials", lambda *_: Hopeless(0.0))
    with pytest.raises(ConvergenceError, match="a plan of mass 2.68 instead of 1.*larger epsilon"):
        Sinkhorn(1.0)(torch.zeros(1, 1), torch.ones(1, 1))


def test_sinkhorn_reports_how_it_went():
    x0, x1 = clouds(10, 8)
    plan = Sinkhorn(0.5, tolerance=1e-9)(x0, x1)
    f, g = plan.potentials
    rebuilt = torch.exp((f[:, None] + g - SquaredEuclidean()(x0, x1)) / 0.5) / 80
    torch.testing.assert_close(plan.dense(), rebuilt)
    misplaced = float((plan.marginals()[1] - 1 / 8).abs().sum())
    assert plan.error == pytest.approx(misplaced, rel=1e-5)
    assert 0 < plan.error <= 1e-9
    assert plan.iterations > 1
    assert plan.converged
    assert f"converged in {plan.iterations}" in repr(plan)


@pytest.mark.parametrize(
    "coupling", [Sinkhorn(1e-2, max_iterations=5), UnbalancedSinkhorn(1e-2, 100, max_iterations=5)]
)
def test_sinkhorn_says_when_it_did_not_converge(coupling):
    with pytest.raises(ConvergenceError, match=r"in 5 iterations.*larger epsilon \(now 0.01.*raise max_iterations"):
        coupling(*clouds(30, 30))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Sinkhorn(0.0), "epsilon above 0"),
        (lambda: Sinkhorn(math.inf), "epsilon above 0 and finite"),
        (lambda: Sinkhorn(math.nan), "epsilon above 0"),
        (lambda: Sinkhorn(1.0, tolerance=0.0), "tolerance above 0"),
        (lambda: Sinkhorn(1.0, max_iterations=0), "max_iterations above 0"),
        (lambda: UnbalancedSinkhorn(-1.0, 1.0), "epsilon above 0"),
        (lambda: UnbalancedSinkhorn(1.0, 0.0), "relaxation above 0"),
        (lambda: UnbalancedSinkhorn(1.0, (1.0, -1.0)), "relaxation above 0"),
        (lambda: UnbalancedSinkhorn(1.0, math.nan), "relaxation above 0"),
        (lambda: UnbalancedSinkhorn(1.0, (1.0, 1.0, 1.0)), "a pair"),
        (lambda: Exact(max_iterations=0), "at least 1"),
        (lambda: resolve("exakt"), "Unknown coupling 'exakt'. Choose from: 'auto', 'exact', 'independent'"),
    ],
)
def test_bad_settings_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_masses_that_cannot_change_must_agree():
    x0, x1 = clouds(3, 3)
    with pytest.raises(ValueError, match="equal total masses"):
        UnbalancedSinkhorn(1.0, math.inf)(x0, x1, torch.ones(3), 2 * torch.ones(3))


# ---- what a coupling declares ----


def crossed(x0, x1):
    """A function of two clouds: the last with the first."""
    return Exact()(x0.flip(0), x1)


DECLARED = {
    **ALL_COUPLINGS,
    "given": Given(),
    "within": Within("exact", torch.arange(12) % 3, torch.arange(12) % 2),
    "within, evenly": Within(Sinkhorn(0.5, tolerance=TIGHT), torch.arange(12) % 3, (torch.arange(12) + 1) % 3),
    "function": resolve(crossed),
}
each_declared = pytest.mark.parametrize("coupling", DECLARED.values(), ids=DECLARED)


@each_declared
def test_what_keeps_mass_gives_every_point_its_share(coupling):
    """Measured on weights far from equal; one that does not declare it may, and must not be trusted to."""
    x0, x1 = clouds(12, 12)
    a = weights(12)
    b = a if coupling == Given() else weights(12, 1)
    plan = coupling(x0, x1, a, b) if coupling != DECLARED["function"] else coupling(x0, x1)
    shares = [side / side.sum() for side in plan.marginals()]
    kept = all(torch.allclose(found, side / side.sum(), atol=1e-6) for found, side in zip(shares, (a, b), strict=True))
    assert kept or not coupling.keeps_mass
    assert kept == coupling.keeps_mass or coupling in (DECLARED["function"],)


@each_declared
def test_memory_grows_with_pairs_where_a_matrix_is_solved_and_with_points_elsewhere(coupling):
    if isinstance(coupling, Within):
        assert coupling.memory(12, 12) == sum(
            resolve(coupling.coupling).memory(int((coupling.source == k).sum()), int((coupling.target == k).sum()))
            for k in set(coupling.source.tolist()) & set(coupling.target.tolist())
        )
        return
    growth = coupling.memory(2000, 2000) / coupling.memory(1000, 1000)
    assert growth <= 2 if of_points(coupling) else growth == 4
    assert coupling.memory(100, 300) == coupling.memory(300, 100) > 0


@pytest.mark.slow
@pytest.mark.parametrize("coupling", ["Exact()", "Sinkhorn(5.0)", "UnbalancedSinkhorn(5.0, 30.0)", "Independent()"])
def test_declared_memory_is_what_a_process_grows_by(coupling):
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("the peak of a process's own memory is read from /proc")
    # Not by getrusage: its peak starts at that of the process that made this one.
    code = f"""
import torch
from pathlib import Path
from cellflow.couplings import *
def peak():
    lines = Path("{status}").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
coupling = {coupling}
coupling(torch.randn(20, 10), torch.randn(19, 10))  # what it imports is there before
before = peak()
x0, x1 = torch.randn(2050, 10), torch.randn(2000, 10)
coupling(x0, x1)
print(peak() - before, coupling.memory(2050, 2000))
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    grown, declared = map(int, shown.split())
    assert grown < 1.2 * declared + 2**23
    assert declared < 1.6 * grown + 2**23


@each_declared
def test_what_does_not_use_states_gives_the_same_plan_anywhere(coupling):
    x0, x1 = clouds(12, 12)
    same = torch.equal(coupling(x0, x1).dense(), coupling(x0.flip(0), x1).dense())
    assert same != coupling.uses_states


def test_a_function_is_asked_what_it_declares():
    def loud(x0, x1):
        return crossed(x0, x1)

    loud.keeps_mass, loud.memory = True, lambda n, m: 7
    assert (resolve(loud).keeps_mass, resolve(loud).memory(3, 4), resolve(loud).divisible) == (True, 7, True)
    assert repr(resolve(crossed)) == "crossed"
    assert resolve(resolve(crossed)) == resolve(crossed)


def test_groups_are_matched_by_themselves():
    x0, x1 = clouds(6, 5)
    left, right = ["a", "b", "a", "b", "c", "a"], np.array(["b", "a", "b", "a", "d"])
    dense = Within("exact", left, right)(x0, x1).dense()
    crossing = torch.tensor([[one != other for other in right] for one in left])
    assert (dense[crossing] == 0).all()
    assert (dense.sum(dim=1) > 0).tolist() == [True, True, True, True, False, True]
    inside = Exact()(x0[[1, 3]], x1[[0, 2]]).dense()
    torch.testing.assert_close(dense[[1, 3]][:, [0, 2]], 2 / 5 * inside)
    with pytest.raises(ValueError, match="a group for each of 6 source and 5 target points; found 6 and 4"):
        Within("exact", left, right[:4])(x0, x1)
    with pytest.raises(ValueError, match="none in common"):
        Within("exact", ["a"] * 6, ["b"] * 5)(x0, x1)


def test_a_group_whose_points_weigh_nothing_on_one_side_is_left_out():
    x0, x1 = clouds(6, 5)
    a = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0, 1.0])
    found = Within("exact", ["a", "b", "a", "b", "a", "a"], ["b", "a", "b", "a", "a"])(x0, x1, a)
    inside = Exact()(x0[[0, 2, 4, 5]], x1[[1, 3, 4]])
    torch.testing.assert_close(found.dense()[[0, 2, 4, 5]][:, [1, 3, 4]], 3 / 5 * inside.dense())
    assert found.mass == pytest.approx(3 / 5)


def test_the_exact_plan_does_not_depend_on_where_costs_are_zero():
    x0, x1 = clouds(12, 17)
    near, far = (Exact(lambda x, y, least=least: torch.cdist(x.double(), y.double()) + least) for least in (0, -50))
    torch.testing.assert_close(far(x0, x1).dense(), near(x0, x1).dense())
    assert far(x0, x1).cost == pytest.approx(near(x0, x1).cost - 50)


def test_groups_that_change_mass_have_the_plans_of_their_own_masses():
    x0, x1 = clouds(6, 8)
    a, b = (torch.rand(n, generator=generator(n), dtype=torch.float64) for n in (6, 8))
    left, right = torch.arange(6) % 2, torch.arange(8) % 2
    coupling = UnbalancedSinkhorn(epsilon=0.5, relaxation=2.0, tolerance=1e-10)
    found = Within(coupling, left, right)(x0, x1, a, b)
    for group in (0, 1):
        i, j = left == group, right == group
        torch.testing.assert_close(found.dense()[i][:, j], coupling(x0[i], x1[j], a[i], b[j]).dense())
    one = Within(coupling, torch.zeros(6), torch.zeros(8))(x0, x1, a, b)
    torch.testing.assert_close(one.dense(), coupling(x0, x1, a, b).dense())


# ---- names ----


@pytest.mark.parametrize("name", COUPLINGS)
def test_a_name_resolves_to_its_coupling_and_a_coupling_to_itself(name):
    coupling = resolve(name)
    assert coupling == UnbalancedSinkhorn() if name == "auto" else type(coupling).__name__.lower() == name
    assert resolve(coupling) is coupling


@pytest.mark.parametrize("thing", [Exact, 3, None])
def test_what_is_no_coupling_is_refused(thing):
    with pytest.raises(TypeError, match="Expected a coupling such as"):
        resolve(thing)


def test_exact_gaussian_clouds_cost_the_closed_form():
    """Quantiles of N(0, 1) and N(2, 3^2) are joined by the increasing map, at cost (2^2 + (3 - 1)^2) in the limit."""
    quantiles = torch.as_tensor(scipy.stats.norm.ppf((np.arange(1500) + 0.5) / 1500))[:, None]
    # The tails cut off hold 9e-4 of the variance here; times (3 - 1)^2 that is the tolerance.
    assert Exact()(quantiles, 2 + 3 * quantiles).cost == pytest.approx(8.0, abs=4e-3)


def test_given_pairs_stay_as_they_are():
    x0, x1 = torch.randn(2, 6, 3, generator=generator(seed=0))
    weights = torch.tensor([1.0, 2.0, 3.0, 0.0, 1.0, 1.0])
    assert torch.equal(Given()(x0, x1).permutation, torch.arange(6))
    plan = Given()(x0, x1, weights, weights)
    torch.testing.assert_close(plan.dense(), torch.diag(weights.double() / 8))
    with pytest.raises(ValueError, match="as many target points as source points; found 6 and 5"):
        Given()(x0, x1[:5])
    with pytest.raises(ValueError, match="same weight at both ends"):
        Given()(x0, x1, weights, weights.flip(0))


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_exact_plans_do_not_depend_on_the_unit(scale):
    x0, x1 = torch.randn(30, 3, generator=generator(seed=0)), torch.randn(41, 3, generator=generator(seed=1))
    plan, scaled = Exact()(x0, x1), Exact()(x0.double() * scale, x1.double() * scale)
    assert scaled.cost == pytest.approx(plan.cost * scale**2, rel=1e-5)
    torch.testing.assert_close(scaled.dense(), plan.dense())
