"""Legs: pairs of many conditions in one stream, each from a plan of its own, in equal parts, always the same."""

import logging
from itertools import pairwise

import pytest
import torch
from parts import ALL_COUPLINGS

import cellflow as cf
from cellflow.couplings import Euclidean, Exact
from cellflow.pairing import choice, leg_pairs
from cellflow.pairing.condition_legs import ConditionLeg, balanced
from cellflow.pairing.legs import leg_batches
from cellflow.pairing.masses import Ends, match

pytestmark = pytest.mark.usefixtures("global_state_is_untouched")


def take(batches, n, start=0):
    stream = batches.iterate(start)
    found = [next(stream) for _ in range(n)]
    stream.close()
    return found


def apart(sizes, *, controls=50, dim=2, seed=0):
    """Controls, and a cloud of each size about a mean of its own; a leg from the controls to each."""
    rng = cf.generator(seed)
    clouds = [torch.randn(controls, dim, generator=rng)]
    clouds += [torch.randn(size, dim, generator=rng) + 10 * (k + 1) for k, size in enumerate(sizes)]
    ends = torch.tensor([0, *(len(cloud) for cloud in clouds)]).cumsum(0).tolist()
    rows = [torch.arange(*both) for both in pairwise(ends)]
    legs = [ConditionLeg(f"drug {k}", rows[0], target, condition=k) for k, target in enumerate(rows[1:])]
    return torch.cat(clouds), legs


def test_every_condition_has_its_share_of_every_step():
    """However many cells it has: of 30 pairs in a step, 10 of each of three conditions."""
    points, legs = apart([3, 40, 700])
    batches = leg_batches(points, legs, torch.eye(3), batch_size=30, generator=cf.generator(0))
    for batch in take(batches, 5):
        assert batch.condition.sum(dim=0).tolist() == [10.0, 10.0, 10.0]
        assert torch.equal(batch.x1.mean(dim=1).div(10).round().clamp(1, 3).long() - 1, batch.condition.argmax(dim=1))


def test_shares_that_are_no_whole_numbers_are_kept_over_steps():
    points, legs = apart([20] * 7)
    batches = leg_batches(points, legs, torch.eye(7), batch_size=10, generator=cf.generator(0))
    counts = torch.stack([batch.condition.sum(dim=0) for batch in take(batches, 64)])
    assert counts.min() >= 1
    assert counts.max() <= 2
    assert (counts.sum(dim=0) - 640 / 7).abs().max() <= 1


def test_conditions_share_alike_then_their_stretches_and_then_their_groups():
    rows = torch.arange(12)
    legs = [
        ConditionLeg("A early, donor 1", rows, rows[:3], 0.0, 0.5, 0),
        ConditionLeg("A early, donor 2", rows, rows[:9], 0.0, 0.5, 0),
        ConditionLeg("A late", rows, rows, 0.5, 1.0, 0),
        ConditionLeg("B", rows, rows[:1], 0.0, 1.0, 1),
    ]
    assert balanced(legs) == [1 / 16, 3 / 16, 1 / 4, 1 / 2]


@pytest.mark.parametrize("name", ALL_COUPLINGS)
def test_the_plan_of_each_leg_is_that_of_the_coupling_between_its_points(name):
    points, legs = apart([9, 14])
    batches = leg_batches(points, legs, torch.eye(2), coupling=ALL_COUPLINGS[name], generator=cf.generator(0))
    for leg in legs:
        alone = ALL_COUPLINGS[name](points[leg.source], points[leg.target])
        assert torch.equal(batches.plans[leg.name].dense(), alone.dense())


def test_only_points_of_the_same_leg_are_paired_by_its_plan():
    points, legs = apart([8, 8], controls=8)
    batches = leg_batches(points, legs, torch.eye(2), batch_size=16, generator=cf.generator(0))
    for batch in take(batches, 20):
        for leg, plan in zip(legs, batches.plans.values(), strict=True):
            mine = batch.condition[:, leg.condition] == 1
            i, j = ((x[mine][:, None] == points[rows]).all(dim=2).int().argmax(dim=1)
                    for x, rows in ((batch.x0, leg.source), (batch.x1, leg.target)))  # fmt: skip
            assert torch.equal(plan.permutation[i], j)


@pytest.mark.parametrize("ot_batch_size", ["whole", 8])
def test_any_step_can_be_asked_for_and_is_the_same(ot_batch_size):
    points, legs = apart([5, 40, 200])

    def made(seed):
        rng = cf.generator(seed)
        return leg_batches(points, legs, torch.eye(3), batch_size=12, generator=rng, ot_batch_size=ot_batch_size)

    straight = take(made(5), 200)
    for start in (0, 1, 63, 64, 130, 190):
        for step, batch in enumerate(take(made(5), 5, start=start)):
            assert all(torch.equal(a, b) for a, b in zip(batch, straight[start + step], strict=True) if a is not None)
    assert not torch.equal(take(made(6), 1)[0].x0, straight[0].x0)


def test_times_and_conditions_are_those_of_the_leg():
    points, legs = apart([5, 5])
    legs = [legs[0], ConditionLeg("late", legs[1].source, legs[1].target, 0.25, 0.75, condition=0)]
    batch = take(leg_batches(points, legs, torch.tensor([[7.0, 8.0]]), batch_size=4, generator=cf.generator(0)), 1)[0]
    assert batch.condition.tolist() == [[7.0, 8.0]] * 4
    assert sorted(zip(batch.start.tolist(), batch.stop.tolist(), strict=True)) == [(0.0, 1.0)] * 2 + [(0.25, 0.75)] * 2


def test_noise_of_the_path_follows_the_length_of_the_leg():
    points, legs = apart([6, 6])
    legs[1] = ConditionLeg("short", legs[0].source, legs[0].target, 0.0, 0.25, condition=1)
    path, coupling = cf.paths.BrownianBridge(2.0), cf.couplings.Sinkhorn("path")
    plans = leg_batches(points, legs, coupling=coupling, path=path, generator=cf.generator(0)).plans
    for leg in legs:
        alone = cf.couplings.Sinkhorn(2 * 2.0**2 * (leg.stop - leg.start))(points[leg.source], points[leg.target])
        assert torch.allclose(plans[leg.name].dense(), alone.dense())


def test_displacements_are_those_of_the_plans():
    points, legs = apart([5, 40], controls=20)
    for coupling in (cf.couplings.Exact(), cf.couplings.UnbalancedSinkhorn()):
        batches = leg_batches(points, legs, coupling=coupling, generator=cf.generator(0))
        for found, leg in zip(batches.displacements(), legs, strict=True):
            a, b = batches.plans[leg.name].marginals()
            known = b / b.sum() @ points[leg.target].double() - a / a.sum() @ points[leg.source].double()
            assert torch.allclose(found, known)


def test_displacements_of_super_batches_are_about_those_of_one_plan():
    points, legs = apart([300, 400], controls=500)
    coupling = cf.couplings.UnbalancedSinkhorn()
    whole, parts = (
        leg_batches(points, legs, coupling=coupling, ot_batch_size=size, generator=cf.generator(0)).displacements()
        for size in ("whole", 64)
    )
    assert not torch.equal(whole, parts)
    assert (whole - parts).abs().max() < 0.3


def test_weights_count():
    points = torch.tensor([[0.0], [1.0], [2.0], [5.0]])
    legs = [ConditionLeg("A", torch.tensor([0, 1]), torch.tensor([2, 3]))]
    batches = leg_batches(points, legs, weights=[1.0, 3.0, 1.0, 0.0], generator=cf.generator(0))
    assert batches.displacements().item() == pytest.approx(2 - 0.75)


def test_growth_is_of_each_leg():
    """Of two kinds the second doubles under one drug, and the first under the other."""
    control = torch.arange(40)[:, None] % 2 * 50.0
    first, second = torch.tensor([0.0, 50.0, 50.0] * 10)[:, None], torch.tensor([0.0, 0.0, 50.0] * 10)[:, None]
    points = torch.cat([control, first, second])
    rows = torch.arange(100).split([40, 30, 30])
    legs = [ConditionLeg(name, rows[0], rows[k], condition=k - 1) for k, name in ((1, "A"), (2, "B"))]
    masses = [(1.0, 1.0), (1.0, 3.0)]
    batches = leg_batches(
        points, legs, torch.eye(2), coupling="auto", masses=masses, batch_size=60, generator=cf.generator(0)
    )
    batch, drug = take(batches, 1)[0], torch.cat([b.condition[:, 1] for b in take(batches, 64)])
    gain = batch.log_mass1 - batch.log_mass0
    far, other = batch.x0[:, 0] > 25, batch.condition[:, 1] == 1
    ratio = [float(gain[which & far].mean() - gain[which & ~far].mean()) for which in (~other, other)]
    assert ratio[0] == pytest.approx(0.69, abs=0.1)
    assert ratio[1] == pytest.approx(-0.69, abs=0.1)
    assert drug.mean() == pytest.approx(0.5, abs=0.01)
    assert set(batches.turnovers) == {"A", "B"}
    for leg, both in zip(legs, masses, strict=True):
        ends = Ends(cf.pairing.masses.relative(both, 2)[0])
        alone = match(cf.couplings.resolve("auto"), points[leg.source], points[leg.target], ends)[1]
        assert batches.turnovers[leg.name] == alone.turnover
    half = take(batches.shrunk(0.5), 1)[0]
    assert (half.log_mass1 - half.log_mass0).std() < gain.std()


def test_pairs_that_leave_some_points():
    points, legs = apart([6, 6])
    batches = leg_batches(points, legs, torch.eye(2), batch_size=20, generator=cf.generator(0))
    chosen = torch.arange(len(points)) < 5
    left = batches.leaving(chosen, batches=10)
    assert len(left.x0) > 0
    assert (left.x0[:, None] == points[:5]).all(dim=2).any(dim=1).all()


def test_legs_of_some_points_only():
    points, legs = apart([6])
    part = legs[0].of(torch.arange(len(points)) % 2 == 0)
    assert (len(part.source), len(part.target)) == (25, 3)
    assert set(part.source.tolist()) <= set(legs[0].source.tolist())


@pytest.mark.parametrize(("legs", "coupling"), [(1, "auto"), (30, "auto"), (1000, "exact")])
def test_one_to_a_thousand_conditions_of_three_to_thousands_of_cells(legs, coupling):
    sizes = [3 + 5 * (k % 4) for k in range(legs - 1)] + [2000]
    points, found = apart(sizes, controls=30)
    batches = leg_batches(
        points,
        found,
        torch.eye(legs),
        coupling=coupling,
        batch_size=50,
        generator=cf.generator(0),
        ot_batch_size="auto",
    )
    seen = torch.stack([batch.condition.sum(dim=0) for batch in take(batches, 64)]).sum(dim=0)
    assert (seen - 64 * 50 / legs).abs().max() <= max(8, 0.15 * 64 * 50 / legs)
    assert len(batches.plans) == legs


def test_a_leg_of_few_pairs_keeps_its_super_batch(monkeypatch):
    """Ten legs of three pairs in a step each use a super-batch for REUSE of its size, not for one block."""
    points, legs = apart([100] * 10, controls=100)
    solved = []
    made = leg_pairs.Renewed.solve
    monkeypatch.setattr(
        leg_pairs.Renewed, "solve", lambda self, index: solved.append((self.number, index)) or made(self, index)
    )
    batches = leg_batches(points, legs, batch_size=30, generator=cf.generator(0), ot_batch_size=64)
    take(batches, 64 * 8)
    assert len(solved) == len(set(solved))
    # 192 pairs in a block of 64 steps; 24 * 64 = 1536 of a super-batch last for 8 blocks.
    assert len(solved) <= 10 * 3


def test_a_leg_of_many_pairs_has_several_super_batches_in_a_block():
    points, legs = apart([100], controls=100)
    batches = leg_batches(points, legs, batch_size=30, generator=cf.generator(0), ot_batch_size=8)
    block = take(batches, 64)  # 1920 pairs, of which 24 * 8 come from a super-batch
    pairs = torch.cat([torch.cat([batch.x0, batch.x1], dim=1) for batch in block]).unique(dim=0)
    assert len(pairs) > 60


def test_plans_that_do_not_fit_together_are_made_of_parts(monkeypatch, caplog):
    points, legs = apart([4, 50, 60], controls=10)
    monkeypatch.setattr(choice, "WHOLE_PAIRS", 600)
    monkeypatch.setattr(leg_pairs, "PLANS", 1)
    with caplog.at_level(logging.INFO, logger="cellflow"):
        plans = leg_batches(points, legs, coupling=Exact(Euclidean()), generator=cf.generator(0)).plans
    assert [plan is None for plan in plans.values()] == [False, False, True]
    assert "2 legs have one plan each, 1 take super-batches" in caplog.text
    assert "balanced" in caplog.text


def test_a_plan_that_is_not_found_says_of_which_leg():
    points, legs = apart([5, 6])
    with pytest.raises(cf.errors.ConvergenceError) as caught:
        leg_batches(points, legs, coupling=cf.couplings.Sinkhorn(1e-3, max_iterations=1), generator=cf.generator(0))
    assert "drug 0" in caught.value.__notes__[0]


def test_legs_are_called_by_their_words():
    """Also where they are found by a condition, times and a group."""
    points, rows = torch.zeros(4, 2), torch.arange(4).split(2)
    leg = ConditionLeg(("A", 0.0, 3.5, "donor 1"), *rows)
    with pytest.raises(ValueError, match="of leg 'A, 0, 3.5, donor 1'; found only weights of 0"):
        leg_batches(points, [leg], weights=torch.zeros(4), generator=cf.generator(0))
    with pytest.raises(TypeError, match="name of a leg as text or a tuple; found list"):
        ConditionLeg(["A"], *rows)
    assert leg_batches is cf.pairing.leg_batches


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"legs": []}, "one or more legs"),
        ({"legs": [ConditionLeg("A", torch.arange(2), torch.arange(2))] * 2}, "its own name"),
        ({"legs": [ConditionLeg("A", torch.arange(0), torch.arange(2))]}, "`source` of leg 'A'"),
        ({"legs": [ConditionLeg("A", torch.arange(2), torch.arange(2) + 99)]}, "rows of 55 points"),
        ({"legs": [ConditionLeg("A", torch.arange(2), torch.arange(2), 1.0, 0.0)]}, "forward in time"),
        ({"legs": [ConditionLeg("A", torch.arange(2), torch.arange(2), condition=9)]}, "rows of `conditions`"),
        ({"batch_size": 0}, "batch_size >= 1"),
        ({"ot_batch_size": "half"}, "'auto', 'whole' or a number"),
        ({"ot_batch_size": 1}, "ot_batch_size >= 2"),
        ({"weights": torch.zeros(55)}, "not all 0"),
        ({"rates": torch.zeros(55)}, "Pass `masses`"),
        ({"shares": [0.0]}, "share above 0"),
        ({"points": torch.full((55, 2), torch.nan)}, "finite states"),
    ],
)
def test_bad_input_is_refused(change, message):
    points, legs = apart([5])
    given = {"points": points, "legs": legs, "conditions": torch.eye(1), "generator": cf.generator(0)} | change
    with pytest.raises(ValueError, match=message):
        leg_batches(**given)
