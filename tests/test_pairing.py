"""Pairing: who is paired with whom, how often, in which units of time, and always the same."""

import logging

import numpy as np
import pytest
import torch

import cellflow as cf
from cellflow.cells import Clock
from cellflow.couplings import Euclidean, Exact, Sinkhorn, Within
from cellflow.errors import ConvergenceError
from cellflow.pairing import choice, paired_batches, rows, snapshot_batches
from cellflow.pairing.condition_legs import ConditionLeg
from cellflow.pairing.legs import leg_batches

EUCLIDEAN = Exact(Euclidean())
"""A coupling that no other stands for."""

pytestmark = pytest.mark.usefixtures("global_state_is_untouched")


def take(batches, n, start=0):
    stream = batches.iterate(start)
    found = [next(stream) for _ in range(n)]
    stream.close()
    return found


def numbered(n, shift=0.0):
    """Points on a line whose value is their own number."""
    return torch.arange(n, dtype=torch.float32)[:, None] + shift


def test_exact_pairs_on_a_line_are_the_sorted_pairs(rng):
    x1 = numbered(50, 1000.0)[torch.randperm(50, generator=rng)]
    for batch in take(paired_batches(numbered(50), x1, batch_size=16, generator=rng), 5):
        assert torch.equal(batch.x1 - batch.x0, torch.full((16, 1), 1000.0))


def test_every_cell_is_drawn_equally_often_whatever_the_sizes(rng):
    """Snapshots of 30 and 300 cells: within a block of steps all counts differ by at most one."""
    batches = paired_batches(numbered(30), numbered(300), batch_size=30, generator=rng)
    drawn = take(batches, rows.DRAWN_STEPS)
    sources = torch.cat([batch.x0 for batch in drawn]).long().flatten().bincount(minlength=30)
    targets = torch.cat([batch.x1 for batch in drawn]).long().flatten().bincount(minlength=300)
    assert sources.max() - sources.min() <= 1
    assert targets.min() > 0


@pytest.mark.parametrize("ot_batch_size", ["whole", 16])
def test_any_step_can_be_asked_for_and_is_the_same(rng, ot_batch_size):
    x0, x1 = torch.randn(2, 100, 2, generator=rng)
    batches = paired_batches(x0, x1, batch_size=8, ot_batch_size=ot_batch_size, generator=cf.generator(5))
    again = paired_batches(x0, x1, batch_size=8, ot_batch_size=ot_batch_size, generator=cf.generator(5))
    other = paired_batches(x0, x1, batch_size=8, ot_batch_size=ot_batch_size, generator=cf.generator(6))
    straight = take(batches, 150)
    for start in (0, 1, 63, 64, 140):
        for step, batch in enumerate(take(again, 5, start=start)):
            assert torch.equal(batch.x0, straight[start + step].x0)
            assert torch.equal(batch.x1, straight[start + step].x1)
    assert not torch.equal(take(other, 1)[0].x0, straight[0].x0)


def test_super_batches_pair_within_their_part_and_use_every_pair_alike(rng):
    """Equal parts give permutations: in a block each of its 16 pairs comes REUSE times."""
    x0, x1 = torch.randn(2, 200, 2, generator=rng)
    batches = paired_batches(x0, x1, batch_size=8, ot_batch_size=16, generator=rng)
    block = take(batches, rows.REUSE * 16 // 8)
    pairs, counts = torch.cat([torch.cat([b.x0, b.x1], dim=1) for b in block]).unique(dim=0, return_counts=True)
    assert len(pairs) == 16
    assert set(counts.tolist()) == {rows.REUSE}
    following = take(batches, 1, start=len(block))[0]
    assert not (following.x0[:, None] == pairs[None, :, :2]).all(dim=2).all()


def test_super_batches_larger_than_a_snapshot_take_all_of_it(rng):
    batches = paired_batches(numbered(5), numbered(40), batch_size=10, ot_batch_size=20, generator=rng)
    drawn = torch.cat([batch.x0 for batch in take(batches, 16)]).flatten()
    assert set(drawn.tolist()) == {0.0, 1.0, 2.0, 3.0, 4.0}


def test_larger_ot_batches_find_shorter_pairs(rng):
    x0, x1 = torch.randn(2, 400, 2, generator=rng)
    lengths = []
    for size in (8, 64, "whole"):
        drawn = take(paired_batches(x0, x1, batch_size=64, ot_batch_size=size, generator=cf.generator(1)), 64)
        lengths.append(torch.cat([(b.x1 - b.x0).square().sum(1) for b in drawn]).mean().item())
    assert lengths[0] > lengths[1] > lengths[2]


def test_choice_by_size_is_said_in_the_log_and_kept(rng, caplog, monkeypatch):
    monkeypatch.setattr(choice, "WHOLE_PAIRS", 40 * 40)
    caplog.set_level(logging.INFO, logger="cellflow")
    small, large = numbered(40), numbered(41)
    batches = snapshot_batches([small, small, large], [0, 0.5, 1], coupling=EUCLIDEAN, batch_size=4, generator=rng)
    assert [plan is None for plan in batches.plans] == [False, True]
    said = ["40 with 40 points: one plan (Exact)", "40 with 41 points: super-batches of 512 (Exact)"]
    assert [str(one) for one in batches.matched] == said
    assert all(f"pairing {text}" in caplog.text and text in repr(batches) for text in said)
    assert [one.at_once for one in batches.matched] == [None, 512]


def test_a_coupling_of_linear_time_stands_for_the_exact_one_where_sets_are_large(rng, caplog, monkeypatch):
    monkeypatch.setattr(choice, "WHOLE_PAIRS", 40 * 40)
    caplog.set_level(logging.INFO, logger="cellflow")
    batches = paired_batches(numbered(41), numbered(41), batch_size=4, generator=rng)
    assert torch.equal(batches.plans[0].permutation, torch.arange(41))
    assert batches.matched[0].keeps_mass
    assert str(batches.matched[0]) in caplog.text
    assert "one plan (Hierarchical, instead of Exact)" in caplog.text
    legs = [
        ConditionLeg("A", torch.arange(41), torch.arange(41, 82)),
        ConditionLeg("B", torch.arange(2), torch.tensor([9])),
    ]
    both = leg_batches(numbered(82), legs, batch_size=4, generator=rng).matched
    assert [one.coupling.split("(")[0] for one in both.values()] == ["Hierarchical", "Exact"]


@pytest.mark.parametrize(
    ("whole", "cure"),
    [
        ({"ot_batch_size": "whole"}, "or use `coupling=cf.couplings.Hierarchical"),
        ({"ot_batch_size": "whole", "coupling": "hierarchical"}, "GB. Set `ot_batch_size='auto'`.$"),
        ({"coupling": Within("exact", [0] * 40, [0] * 40)}, "use fewer points"),
    ],
)
def test_a_plan_that_cannot_fit_into_memory_is_refused_before_it_starts(whole, cure, rng, monkeypatch):
    monkeypatch.setattr(choice, "usable_memory", lambda: 1000.0)
    with pytest.raises(ValueError, match=rf"between 40 and 40 points .* GB of memory; .*{cure}"):
        paired_batches(numbered(40), numbered(40), generator=rng, **whole)


def test_a_plan_that_is_not_found_is_told_by_the_sizes_of_its_snapshots(rng):
    clouds, coupling = [numbered(1), numbered(3), numbered(9) ** 2], Sinkhorn(1e-3, max_iterations=1)
    with pytest.raises(ConvergenceError) as caught:
        snapshot_batches(clouds, [0.0, 0.5, 1.0], coupling=coupling, generator=rng)
    assert "between 3 and 9 points" in caught.value.__notes__[0]


def test_super_batches_are_larger_where_growth_is_learned_from_them(rng, monkeypatch):
    monkeypatch.setattr(choice, "WHOLE_PAIRS", 0)
    batches = paired_batches(numbered(40), numbered(40), coupling="auto", masses=(1.0, 2.0), generator=rng)
    assert batches.matched[0].at_once == choice.GROWING > choice.LEAST_MATCHED
    assert not batches.matched[0].keeps_mass


def test_independent_pairs_never_need_super_batches(rng, monkeypatch):
    monkeypatch.setattr(choice, "WHOLE_PAIRS", 20 * 20)
    batches = paired_batches(numbered(40), numbered(40), coupling="independent", generator=rng)
    assert batches.plans[0] is not None


def test_each_interval_keeps_its_own_cells_and_its_own_time(rng):
    clouds = [numbered(9, 100.0 * k) for k in range(4)]
    batch = take(snapshot_batches(clouds, [0.0, 0.2, 0.4, 1.0], batch_size=5, generator=rng), 1)[0]
    for k, part in enumerate(batch.x0.split(5)):
        assert ((part >= 100 * k) & (part < 100 * k + 9)).all()
    assert torch.equal(batch.x1 - batch.x0, torch.full((15, 1), 100.0))
    start, duration = batch.span()
    assert start.unique().tolist() == pytest.approx([0.0, 0.2, 0.4])
    assert duration.unique().tolist() == pytest.approx([0.2, 0.6])


def test_conditions_follow_their_targets(rng):
    x1 = numbered(20)
    batches = paired_batches(numbered(30), x1, batch_size=16, condition=2 * x1, generator=rng)
    for batch in take(batches, 3):
        assert torch.equal(batch.condition, 2 * batch.x1)


def test_images_are_paired_too(rng):
    batch = take(paired_batches(torch.zeros(6, 1, 4, 4), torch.ones(6, 1, 4, 4), batch_size=3, generator=rng), 1)[0]
    assert batch.x0.shape == (3, 1, 4, 4)


def test_closing_the_stream_ends_its_threads(rng):
    import threading

    before = threading.active_count()
    take(paired_batches(numbered(50), numbered(50), batch_size=4, ot_batch_size=10, generator=rng), 3)
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch_size": 0}, "batch_size >= 1"),
        ({"ot_batch_size": 1}, "ot_batch_size >= 2"),
        ({"ot_batch_size": "all"}, "'auto', 'whole' or a number"),
        ({"coupling": "exakt"}, "'exact', 'independent'"),
        ({"condition": torch.zeros(3, 1)}, "each of 9 target points; found 3"),
    ],
)
def test_impossible_settings_are_named(rng, settings, words):
    with pytest.raises(ValueError, match=words):
        paired_batches(numbered(9), numbered(9), generator=rng, **settings)


def test_one_snapshot_is_refused(rng):
    with pytest.raises(ValueError, match="two or more snapshots"):
        snapshot_batches([numbered(3)], [0.0], generator=rng)


def test_the_clock_keeps_real_spacing_and_goes_back():
    clock = Clock((2.0, 3.0, 4.0, 7.0))
    assert [clock.model(time) for time in clock.times] == pytest.approx([0, 0.2, 0.4, 1])
    assert clock.time(clock.model(5.5)) == pytest.approx(5.5)
    assert clock.around(3.5) == (1, 2)
    assert clock.around(4.0) == (2, 2)
    assert clock.around(8.0) == (2, 3)


@pytest.mark.parametrize(
    ("times", "words"), [((1.0,), "at least two"), ((1.0, 1.0), "increase"), ((2.0, 1.0), "increase")]
)
def test_impossible_clocks_are_refused(times, words):
    with pytest.raises(ValueError, match=words):
        Clock(times)


def test_times_outside_the_clock_are_an_error_unless_asked_for():
    clock = Clock((0.0, 24.0))
    with pytest.raises(ValueError, match="30 is outside the fitted range 0 to 24.*extrapolate=True"):
        clock.check(30, extrapolate=False)
    clock.check(30, extrapolate=True)
    with pytest.raises(ValueError, match="finite time"):
        clock.check(float("nan"), extrapolate=True)


def test_given_pairs_are_kept_however_many_there_are(rng, monkeypatch):
    """Above the limit for one plan too: there is nothing to solve, and parts would join strangers."""
    n = 80
    monkeypatch.setattr(choice, "WHOLE_PAIRS", 0)
    x = torch.randn(n, 1, generator=rng)
    batch = next(iter(cf.pairing.paired_batches(x, x + 1, coupling="given", batch_size=64, generator=rng)))
    torch.testing.assert_close(batch.x1 - batch.x0, torch.ones(64, 1))


def test_given_pairs_are_never_matched_in_parts(rng):
    x = torch.randn(20, 1, generator=rng)
    batch = next(iter(cf.pairing.paired_batches(x, x, coupling="given", ot_batch_size=5, batch_size=9, generator=rng)))
    assert torch.equal(batch.x0, batch.x1)


def test_times_out_of_order_are_refused(rng):
    clouds = [torch.randn(5, 1, generator=rng) for _ in range(3)]
    with pytest.raises(ValueError, match="increase"):
        cf.pairing.snapshot_batches(clouds, [0.0, 1.0, 0.5], generator=rng)


# --- inside groups ---


def donors(sizes=(40, 60, 30), names=("a", "b", "c"), seed=3):
    """The donor of each point of each snapshot; all of them everywhere."""
    draw = np.random.default_rng(seed)
    return [draw.permutation(np.resize(np.array(names), n)) for n in sizes]


def with_donor(labels):
    """Points that know their donor: its number is the first column."""
    draw = cf.generator(seed=5)
    columns = [torch.tensor([["abcd".index(name)] for name in some], dtype=torch.float32) for some in labels]
    return [torch.cat([one, torch.randn(len(one), 2, generator=draw)], dim=1) for one in columns]


AS_LABELS = {
    "names": lambda labels: labels,
    "lists": lambda labels: [some.tolist() for some in labels],
    "numbers": lambda labels: [torch.tensor(["abcd".index(name) for name in some]) for some in labels],
}


@pytest.mark.parametrize("kind", AS_LABELS)
@pytest.mark.parametrize("ot_batch_size", ["auto", 24])
@pytest.mark.parametrize("coupling", ["exact", "independent", cf.couplings.Sinkhorn(5.0)], ids=str)
def test_no_pair_crosses_groups_and_each_has_the_share_of_its_targets(coupling, ot_batch_size, kind, rng):
    labels = donors()
    settings = {"coupling": coupling, "ot_batch_size": ot_batch_size, "within": AS_LABELS[kind](labels)}
    batches = snapshot_batches(with_donor(labels), [0.0, 0.5, 1.0], batch_size=12, generator=rng, **settings)
    drawn = take(batches, 64)
    for batch in drawn:
        assert torch.equal(batch.x0[:, 0], batch.x1[:, 0])
    assert [plan is None for plan in batches.plans] == [ot_batch_size == 24] * 2
    for k, later in enumerate(labels[1:]):
        found = torch.cat([batch.x1[12 * k : 12 * (k + 1), 0] for batch in drawn])
        expected = [(later == name).mean() for name in "abc"]
        tolerance = 0.01 if ot_batch_size == "auto" else 0.1
        np.testing.assert_allclose([(found == k).float().mean() for k in range(3)], expected, atol=tolerance)


def test_pairs_inside_groups_are_the_same_from_any_step(rng):
    labels = donors()
    for size in ("whole", 24):
        batches = snapshot_batches(
            with_donor(labels), [0, 0.5, 1], batch_size=8, within=labels, ot_batch_size=size, generator=rng
        )
        straight = take(batches, 70)
        for start in (0, 3, 65):
            again = take(batches, 1, start)[0]
            assert torch.equal(again.x0, straight[start].x0)
            assert torch.equal(again.x1, straight[start].x1)


def test_groups_divide_the_problem_and_its_memory(rng, monkeypatch):
    """Three groups of a third take a third of the memory: what is too large as one may fit inside groups."""
    labels = donors((60, 60))
    monkeypatch.setattr(choice, "WHOLE_PAIRS", 60 * 60 // 2)
    clouds = with_donor(labels)
    found = [
        snapshot_batches(clouds, [0, 1], coupling=EUCLIDEAN, within=w, generator=rng).plans[0] for w in (None, labels)
    ]
    assert [plan is None for plan in found] == [True, False]
    monkeypatch.setattr(choice, "WHOLE_MEMORY", 1)
    monkeypatch.setattr(choice, "POINTS_MEMORY", 1)
    parts = snapshot_batches(clouds, [0, 1], within=labels, generator=rng)
    assert parts._pairs.intervals[0].size == 3 * choice.LEAST_MATCHED


def test_a_group_that_a_neighbour_lacks_is_left_out_there_and_said(rng):
    labels = [np.array(list("aabb") * 5), np.array(list("aabc") * 5), np.array(list("abcc") * 5)]
    with pytest.warns(UserWarning, match=r"Of 3 snapshots.*c in 1 \(before 2\).*left out"):
        batches = snapshot_batches(
            with_donor(labels), [0, 0.5, 1], batch_size=20, within=labels, curve="spline", generator=rng
        )
    drawn = take(batches, 20)
    first = torch.cat([batch.x1[:20, 0] for batch in drawn])
    second = torch.cat([batch.x1[20:, 0] for batch in drawn])
    assert set(first.tolist()) == {0.0, 1.0}
    assert set(second.tolist()) == {0.0, 1.0, 2.0}
    # A cell without a partner before it has no slope: its path leaves it freely, as at the first snapshot.
    for batch in drawn:
        lone = torch.cat([torch.zeros(20, dtype=torch.bool), batch.x0[20:, 0] == 2])
        assert torch.isfinite(batch.bend0).all()
        assert (batch.bend0[lone] == 0).all()
        assert (batch.bend1[:20].abs().sum(dim=1) > 0).all()


@pytest.mark.filterwarnings("error")
def test_impossible_groups_are_refused(rng):
    clouds = [numbered(4), numbered(5), numbered(6)]

    def pair(*within, **settings):
        snapshot_batches(clouds, [0, 0.5, 1], within=list(map(list, within)), generator=rng, **settings)

    with pytest.raises(ValueError, match=r"each point, \[4, 5, 6\]; found \[4, 4, 6\]"):
        pair("aabb", "aabb", "aaabbb")
    with pytest.raises(ValueError, match="Snapshots 2 and 3 have no group in common"):
        pair("aabb", "aabbb", "cccddd")
    with pytest.raises(ValueError, match="b in 3 .after 2.*growth is unknown"):
        pair("aabb", "aabbb", "aaaaaa", masses=(1.0, 2.0, 4.0))


def test_groups_that_grow_gain_on_the_others(rng):
    """Of 20 and 20 cells come 30 and 10: with equal masses the one group grows by log(3/2), the other by log(1/2)."""
    labels = [np.array(["a"] * 20 + ["b"] * 20), np.array(["a"] * 30 + ["b"] * 10)]
    batches = snapshot_batches(
        with_donor(labels), [0, 1], within=labels, masses=(1.0, 1.0), batch_size=40, generator=rng
    )
    for batch in take(batches, 3):
        grown = batch.log_mass1 - batch.log_mass0
        expected = torch.where(batch.x0[:, 0] == 0, np.log(1.5), np.log(0.5))
        torch.testing.assert_close(grown, expected.to(grown))


def test_rare_groups_grow_in_super_batches_too(rng):
    """A part of few cells may have a group on one side only: its growth is learned from other parts."""
    labels = [np.array(["a"] * 100 + ["b"] * 3), np.array(["a"] * 90 + ["b"] * 13)]
    batches = snapshot_batches(
        with_donor(labels), [0, 1], within=labels, masses=(1.0, 2.0), batch_size=10, ot_batch_size=16, generator=rng
    )
    drawn = take(batches, 400)
    assert {1.0} < set(torch.cat([batch.x0[:, 0] for batch in drawn]).tolist())
    assert all(torch.isfinite(batch.log_mass1).all() for batch in drawn)


# --- a function as coupling, everywhere ---


def backwards(x0, x1, a=None, b=None):
    """The last with the first."""
    n = len(x0)
    masses = torch.full((n,), 1 / n, dtype=torch.float64) if a is None else a / a.sum()
    order = torch.arange(n)
    return cf.couplings.SparsePlan(order, order.flip(0), masses, shape=(n, n))


def test_a_function_pairs_snapshots(rng):
    clouds = [numbered(8, 100.0 * k) for k in range(3)]
    for settings in ({}, {"masses": (1.0, 2.0, 3.0)}, {"curve": "spline"}, {"within": [["a"] * 8] * 3}):
        batches = snapshot_batches(clouds, [0, 0.5, 1], coupling=backwards, batch_size=8, generator=rng, **settings)
        batch = take(batches, 1)[0]
        assert torch.equal(batch.x0 % 100 + batch.x1 % 100, torch.full((16, 1), 7.0)), settings
    batches = paired_batches(numbered(40), numbered(40), coupling=backwards, ot_batch_size=10, generator=rng)
    assert len(take(batches, 2)) == 2


def test_a_function_pairs_images_and_noise(rng):
    digits = cf.datasets.digits()
    one, two = digits.take(range(8)), digits.take(range(8, 16))
    for settings in ({}, {"features": 2}, {"ot_batch_size": 4}):
        batches = cf.pairing.image_batches(one, two, coupling=backwards, batch_size=4, generator=rng, **settings)
        assert len(take(batches, 2)) == 2
    batch = take(cf.pairing.image_batches(None, two, coupling=backwards, batch_size=4, generator=rng), 1)[0]
    assert batch.x0.shape == (4, 1, 8, 8)


def test_a_function_pairs_for_every_estimator(tmp_path, cells):
    small = {"steps": 2, "batch_size": 4, "device": "cpu"}
    even = cells[np.sort(np.concatenate([np.flatnonzero(cells.obs["day"] == t)[:40] for t in (0, 1, 5)]))].copy()
    flow = cf.SnapshotFlow(time_key="day", coupling=backwards, growth=True, **small).fit(even)
    x = even.obsm["X_pca"]
    cf.DomainTranslator(coupling=backwards, **small).fit(x[:60], x[60:])
    cf.ImageGenerator(coupling=backwards, **small).fit(cf.datasets.digits().take(range(8)))
    flow.save(tmp_path)
    with pytest.raises(cf.errors.CheckpointError, match="coupling"):
        cf.SnapshotFlow.load(tmp_path)
    assert cf.SnapshotFlow.load(tmp_path, coupling=backwards).coupling is backwards
