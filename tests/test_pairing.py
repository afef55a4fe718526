"""Pairing: who is paired with whom, how often, in which units of time, and always the same."""

import logging

import pytest
import torch

import cellflow as cf
from cellflow.cells import Clock
from cellflow.pairing import batches as pairing_module
from cellflow.pairing import paired_batches, snapshot_batches

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
    drawn = take(batches, pairing_module.DRAWN_STEPS)
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
    block = take(batches, pairing_module.REUSE * 16 // 8)
    pairs, counts = torch.cat([torch.cat([b.x0, b.x1], dim=1) for b in block]).unique(dim=0, return_counts=True)
    assert len(pairs) == 16
    assert set(counts.tolist()) == {pairing_module.REUSE}
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


def test_choice_by_size_is_said_in_the_log(rng, caplog, monkeypatch):
    monkeypatch.setattr(pairing_module, "WHOLE_LIMIT", 40 * 40)
    caplog.set_level(logging.INFO, logger="cellflow")
    small, large = numbered(40), numbered(41)
    batches = snapshot_batches([small, small, large], [0, 0.5, 1], batch_size=4, generator=rng)
    assert [plan is None for plan in batches.plans] == [False, True]
    assert "40 with 40 points: one plan (Exact" in caplog.text
    assert "40 with 41 points: super-batches of 512, solved ahead" in caplog.text


def test_independent_pairs_never_need_super_batches(rng, monkeypatch):
    monkeypatch.setattr(pairing_module, "WHOLE_LIMIT", 10)
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


def test_given_pairs_are_kept_however_many_there_are(rng):
    """Above the limit for one dense plan too: there is nothing to solve, and parts would join strangers."""
    n = 8000
    assert n * n > pairing_module.WHOLE_LIMIT
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
