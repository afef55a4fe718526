import pytest
import torch

from cellflow.couplings import DensePlan, Plan, PotentialsPlan, ProductPlan, SparsePlan, potentials_plan
from cellflow.couplings.draws import AliasTable, systematic
from cellflow.couplings.pair_masses import read_masses
from cellflow.couplings.within import GroupPlan
from cellflow.doors import plans as doors
from cellflow.seeds import generator


def masses(n: int, m: int, seed: int = 0) -> torch.Tensor:
    """A plan with holes: one empty row, one empty column, uneven elsewhere."""
    matrix = torch.rand(n, m, generator=generator(seed), dtype=torch.float64) ** 3
    matrix[torch.rand(n, m, generator=generator(seed + 1)) < 0.4] = 0
    matrix[1], matrix[:, 2] = 0, 0
    return matrix / matrix.sum() * 1.7


def sparse(matrix: torch.Tensor) -> SparsePlan:
    i, j = matrix.nonzero().unbind(dim=1)
    back = torch.arange(len(i)).flip(0)  # the order of the pairs must not matter
    return SparsePlan(i[back], j[back], matrix[i, j][back], shape=tuple(matrix.shape))


def potentials() -> tuple[PotentialsPlan, torch.Tensor]:
    """Potentials of no problem, and the masses that they stand for, by distances taken apart from the product form."""
    x0, x1 = (torch.rand(n, 2, generator=generator(n), dtype=torch.float64) for n in (4, 5))
    f, g = (torch.rand(n, generator=generator(10 + n), dtype=torch.float64) for n in (4, 5))
    costs = (x0[:, None] - x1).square().sum(dim=2)
    matrix = A[:, None] * B * ((f[:, None] + g - costs) / 0.3).exp()
    return PotentialsPlan(x0, x1, (f, g), A, B, epsilon=0.3), matrix


def grouped(plan: Plan, matrix: torch.Tensor) -> tuple[GroupPlan, torch.Tensor]:
    """The plan for the even source and the last target points, beside a pair of its own."""
    whole = torch.zeros(6, 7, dtype=torch.float64)
    rows, columns = torch.tensor([0, 2, 3, 5]), torch.tensor([0, 1, 3, 4, 6])
    whole[rows[:, None], columns] = 0.5 * matrix
    whole[4, 5] = 0.7
    pair = (torch.tensor([4]), torch.tensor([5]), 0.7, DensePlan(torch.ones(1, 1)))
    return GroupPlan([(rows, columns, 0.5, plan), pair], shape=(6, 7)), whole


def rescaled(plan: Plan, matrix: torch.Tensor) -> tuple[Plan, torch.Tensor]:
    source, target = (torch.rand(n, generator=generator(n + 30), dtype=torch.float64) for n in matrix.shape)
    return plan.rescaled(source, target), matrix * source[:, None] + matrix * target


A, B = torch.tensor([0.1, 0.0, 0.5, 0.4]).double(), torch.tensor([0.3, 0.2, 0.0, 0.25, 0.25]).double()
ALL_PLANS = {
    "dense": (DensePlan(masses(4, 5)), masses(4, 5)),
    "sparse": (sparse(masses(5, 4)), masses(5, 4)),
    "product": (ProductPlan(A, 2 * B), 2 * A[:, None] * B),
    "potentials": potentials(),
    "potentials, rescaled": rescaled(*potentials()),
}
each_plan = pytest.mark.parametrize(("plan", "matrix"), ALL_PLANS.values(), ids=ALL_PLANS)


@each_plan
def test_a_plan_agrees_with_its_matrix(plan: Plan, matrix):
    assert plan.shape == tuple(matrix.shape)
    assert plan.mass == pytest.approx(float(matrix.sum()))
    torch.testing.assert_close(plan.dense(), matrix)
    torch.testing.assert_close(plan.marginals(), (matrix.sum(1), matrix.sum(0)))
    assert plan.permutation is None
    assert f"{matrix.shape[0]} x {matrix.shape[1]}" in repr(plan)


@each_plan
def test_rows_of_a_plan_are_walked_in_blocks(plan: Plan, matrix):
    blocks = list(plan.blocks(most=2 * 8 * matrix.shape[1]))
    assert [rows.stop - rows.start for rows, _ in blocks] == [2] * (len(matrix) // 2) + [1] * (len(matrix) % 2)
    torch.testing.assert_close(torch.cat([masses for _, masses in blocks]), matrix)


@each_plan
def test_each_mass_is_rescaled_by_a_rate_of_both_its_points(plan: Plan, matrix, monkeypatch):
    found, expected = rescaled(plan, matrix)
    torch.testing.assert_close(found.dense(), expected)
    if matrix.shape == (4, 5):
        monkeypatch.setattr("cellflow.couplings.within.MOST_BYTES", 8)  # each group by itself
        found, expected = rescaled(*grouped(plan, matrix))
        assert isinstance(found, GroupPlan)
        torch.testing.assert_close(found.dense(), expected)
    source = torch.arange(len(matrix), dtype=torch.float64)  # of rates that are all the same a product stays one
    alike = plan.rescaled(source, torch.full(matrix.shape[1:], 0.5, dtype=torch.float64))
    torch.testing.assert_close(alike.dense(), matrix * (source[:, None] + 0.5))


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("make", [potentials, lambda: rescaled(*potentials())], ids=["as it is", "rescaled"])
def test_pairs_drawn_from_potentials_are_those_of_the_same_dense_plan(make, replace, monkeypatch):
    monkeypatch.setattr(potentials_plan, "AT_ONCE", 48)
    plan, matrix = make()
    drawn, expected = (one.sample(500, generator=generator(4), replace=replace) for one in (plan, DensePlan(matrix)))
    assert torch.equal(torch.stack(drawn), torch.stack(expected))


def test_plans_of_potentials_are_handed_over_as_dense_ones_are(monkeypatch):
    plan, matrix = potentials()
    torch.testing.assert_close(torch.from_numpy(read_masses(plan, what="the plan").masses.toarray()), matrix)
    monkeypatch.setattr(doors, "MOST_PAIRS", 8)  # two of each row
    found, rows = doors._rows_of(plan, 1.0), matrix.topk(2, dim=1).values.sum(dim=1)
    assert found.masses.nnz == 6  # a row is empty
    assert found.dropped == pytest.approx(float(1 - rows.sum() / matrix.sum()))
    largest = matrix.argmax(dim=1)[[0, 2, 3]]
    assert (found.masses.argmax(axis=1).ravel()[:, [0, 2, 3]] == largest.numpy()).all()


def test_a_plan_of_too_many_pairs_is_not_made_dense():
    plan = ProductPlan(torch.ones(10_000), torch.ones(20_000))
    with pytest.raises(ValueError, match=r"10000 x 20000 masses take 1.5 GiB.*`push`.*`pull`.*`sample`.*`blocks`"):
        plan.dense()
    assert float(next(plan.blocks())[1][0, 0]) == 1.0


@each_plan
def test_push_and_pull_are_conditional_matrix_products(plan: Plan, matrix):
    n, m = matrix.shape
    forward = torch.nan_to_num(matrix / matrix.sum(1, keepdim=True))
    backward = torch.nan_to_num(matrix / matrix.sum(0, keepdim=True))
    for shape in ((), (3,)):
        source = torch.rand(n, *shape, generator=generator(3), dtype=torch.float64)
        target = torch.rand(m, *shape, generator=generator(4), dtype=torch.float64)
        torch.testing.assert_close(plan.push(source), forward.T @ source)
        torch.testing.assert_close(plan.pull(target), backward @ target)


@each_plan
def test_pushing_the_source_marginal_gives_the_target_marginal_and_back(plan: Plan, matrix):
    a, b = plan.marginals()
    torch.testing.assert_close(plan.push(a), b)
    torch.testing.assert_close(plan.pull(b), a)


def test_push_keeps_the_dtype_of_what_is_pushed_unless_it_is_whole_numbers():
    plan = ALL_PLANS["sparse"][0]
    assert plan.push(torch.ones(5)).dtype == torch.float32
    assert plan.push(torch.ones(5, dtype=torch.bool)).dtype == torch.float64


@each_plan
def test_independent_draws_follow_the_masses(plan: Plan, matrix):
    n = 200_000
    i, j = plan.sample(n, generator=generator(5))
    counts = torch.zeros_like(matrix).index_put_((i, j), torch.ones(n).double(), accumulate=True)
    expected = n * matrix / matrix.sum()
    assert (counts[expected == 0] == 0).all()
    some = expected > 0
    chi_square = float(((counts - expected)[some] ** 2 / expected[some]).sum())
    freedom = int(some.sum()) - 1
    # Chi-square has mean `freedom` and variance twice that: four deviations either way.
    assert abs(chi_square - freedom) < 4 * (2 * freedom) ** 0.5


@each_plan
@pytest.mark.parametrize("n", [1, 7, 64, 1000])
def test_even_draws_give_every_row_its_share_rounded_up_or_down(plan: Plan, matrix, n):
    i, j = plan.sample(n, generator=generator(6), replace=False)
    assert len(i) == len(j) == n
    share = n * matrix.sum(1) / matrix.sum()
    assert ((i.bincount(minlength=len(matrix)) - share).abs() < 1).all()
    assert (matrix[i, j] > 0).all()


def test_even_draws_of_a_product_plan_give_every_column_its_share_too():
    plan, matrix = ALL_PLANS["product"]
    _, j = plan.sample(97, generator=generator(7), replace=False)
    assert ((j.bincount(minlength=5) - 97 * matrix.sum(0) / matrix.sum()).abs() < 1).all()


@each_plan
def test_even_draws_have_the_expected_counts_of_the_plan(plan: Plan, matrix):
    g, repeats, n = generator(8), 4000, 3
    counts = torch.zeros_like(matrix)
    for _ in range(repeats):
        counts.index_put_(plan.sample(n, generator=g, replace=False), torch.ones(n).double(), accumulate=True)
    expected = n * matrix / matrix.sum()
    # A count is 0 to n times in each repeat: its variance is at most that of n independent draws, n^2 p(1 - p).
    bound = 4 * (n * expected / repeats).sqrt()
    assert ((counts / repeats - expected).abs() <= bound).all()


def shuffle_plans() -> dict[str, Plan]:
    order = torch.randperm(12, generator=generator(9))
    matrix = torch.zeros(12, 12).index_put_((torch.arange(12), order), torch.tensor(1 / 12))
    return {"dense": DensePlan(matrix), "sparse": sparse(matrix)}


@pytest.mark.parametrize("plan", shuffle_plans().values(), ids=shuffle_plans())
def test_a_one_to_one_plan_is_a_permutation_and_drawn_once_each(plan: Plan):
    order = torch.randperm(12, generator=generator(9))
    assert torch.equal(plan.permutation, order)
    orders = set()
    for seed in range(20):
        i, j = plan.sample(12, generator=generator(seed), replace=False)
        assert torch.equal(i.sort().values, torch.arange(12))
        assert torch.equal(order[i], j)
        orders.add(tuple(i.tolist()))
    assert len(orders) == 20  # in random order


def test_two_to_one_and_uneven_plans_are_no_permutations():
    pairs = torch.tensor([0, 1])
    assert SparsePlan(pairs, torch.tensor([0, 0]), torch.ones(2), shape=(2, 2)).permutation is None
    assert SparsePlan(pairs, pairs, torch.tensor([0.4, 0.6]), shape=(2, 2)).permutation is None
    assert SparsePlan(pairs, pairs, torch.ones(2), shape=(2, 3)).permutation is None


def test_uniform_product_without_replacement_is_a_random_permutation():
    plan = ProductPlan(torch.ones(50), torch.ones(50))
    i, j = plan.sample(50, generator=generator(1), replace=False)
    assert torch.equal(i.sort().values, torch.arange(50))
    assert torch.equal(j.sort().values, torch.arange(50))
    assert (i == j).sum() < 10  # independent: one match expected


@each_plan
def test_the_barycentric_mean_is_that_of_a_rows_own_draws(plan: Plan, matrix):
    x1 = torch.rand(matrix.shape[1], 2, 3, generator=generator(2))
    with pytest.raises(ValueError, match=rf"1 of {matrix.shape[0]} have no mass"):
        plan.barycentric(x1)
    full = torch.cat([matrix[:1], matrix[2:]])
    expected = torch.stack([(row[:, None, None] * x1).sum(0) / row.sum() for row in full]).float()
    for filled in (DensePlan(full), sparse(full)):
        torch.testing.assert_close(filled.barycentric(x1), expected)


@each_plan
def test_origins_are_the_barycentric_means_of_the_plan_reversed(plan: Plan, matrix):
    x0 = torch.rand(matrix.shape[0], 2, generator=generator(2))
    filled = matrix + 0.01
    torch.testing.assert_close(DensePlan(filled).origins(x0), DensePlan(filled.T.contiguous()).barycentric(x0))
    reached = plan.marginals()[1] > 0
    if reached.all():
        torch.testing.assert_close(plan.origins(x0), ((matrix.T @ x0.double()) / matrix.sum(0)[:, None]).float())
    else:
        with pytest.raises(ValueError, match="have no mass"):
            plan.origins(x0)


@pytest.mark.parametrize("replace", [True, False])
@each_plan
def test_draws_repeat_by_seed_and_leave_the_global_state_alone(plan: Plan, matrix, replace):
    before = torch.get_rng_state()
    first, again, other = (torch.stack(plan.sample(40, generator=generator(s), replace=replace)) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "weights",
    [[1.0], [1, 1, 1], [0, 0, 3], [3, 0, 0, 1], [0.1] * 7, [1, 2, 3, 4, 5, 0], [1e-300, 1.0], [0.5, 2, 0.5, 1, 1]],
    ids=str,
)
def test_an_alias_table_holds_exactly_the_weights(weights):
    weights = torch.tensor(weights).double()
    table = AliasTable(weights)
    held = table._share.clone().index_add_(0, table._alias, 1 - table._share)
    torch.testing.assert_close(held / len(weights), weights / weights.sum(), atol=1e-15, rtol=1e-12)


def test_a_large_random_alias_table_holds_exactly_the_weights():
    weights = torch.rand(5000, generator=generator(0), dtype=torch.float64) ** 8
    table = AliasTable(weights)
    held = table._share.clone().index_add_(0, table._alias, 1 - table._share)
    torch.testing.assert_close(held / 5000, weights / weights.sum(), atol=1e-14, rtol=1e-9)


def test_equal_masses_are_drawn_once_each_however_their_sum_is_rounded():
    for n in (3, 49, 1000, 4999):
        cumulative = torch.full((n,), 1 / n, dtype=torch.float64).cumsum(0)
        for seed in range(20):
            assert torch.equal(systematic(cumulative, n, generator=generator(seed)), torch.arange(n))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DensePlan(torch.zeros(2, 2)), "carries mass"),
        (lambda: DensePlan(torch.ones(0, 2)), "carries mass"),
        (lambda: DensePlan(torch.tensor([[1.0, -0.1]])), "1 of 2 are not"),
        (lambda: DensePlan(torch.tensor([[1.0, torch.nan]])), "finite"),
        (lambda: PotentialsPlan(*[torch.zeros(2, 1)] * 2, [torch.zeros(3)] * 2, epsilon=1.0), "each of 2 points"),
        (lambda: PotentialsPlan(*[torch.zeros(2, 1)] * 2, [torch.full((2,), 1e9)] * 2, epsilon=1.0), "finite mass"),
        (lambda: PotentialsPlan(*[torch.zeros(2, 1)] * 2, [torch.full((2,), -1e9)] * 2, epsilon=1.0), "finite mass"),
        (lambda: DensePlan(torch.ones(3)), r"matrix of masses \(n, m\)"),
        (lambda: ProductPlan(torch.ones(2), torch.tensor([torch.inf])), "finite"),
        (lambda: ProductPlan(torch.ones(2, 2), torch.ones(2)), r"weights \(n,\) and \(m,\)"),
        (lambda: SparsePlan(torch.tensor([0]), torch.tensor([3]), torch.ones(1), shape=(2, 2)), "within"),
        (lambda: SparsePlan(torch.tensor([0]), torch.tensor([0, 1]), torch.ones(1), shape=(2, 2)), "one length"),
        (lambda: ALL_PLANS["dense"][0].sample(0, generator=generator()), "n=0"),
        (lambda: ALL_PLANS["dense"][0].push(torch.ones(9)), "4 source points"),
        (lambda: ALL_PLANS["dense"][0].pull(torch.ones(9)), "5 target points"),
        (lambda: DensePlan(torch.ones(2, 2)).barycentric(torch.ones(3, 1)), "Expected 2 target points"),
    ],
)
def test_bad_input_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
