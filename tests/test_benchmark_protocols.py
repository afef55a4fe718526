"""Protocols of the trajectory benchmark to the letter, and no leak of a held-out cell."""

from dataclasses import replace

import numpy as np
import pytest
from benchmark_cases import TIMES, Drift, assignment, job, make_cells, measured, perturbed, quick_flow, quiet

from benchmarks.trajectory import scores
from benchmarks.trajectory.run import predict, run
from benchmarks.trajectory.tasks import PROTOCOLS, Leg, choose, prepare, shares

pytestmark = pytest.mark.usefixtures("global_state_is_untouched")


ALL_PROTOCOLS = list(PROTOCOLS)


@pytest.mark.parametrize("name", ALL_PROTOCOLS)
def test_every_protocol_runs_and_scores_every_target(name, tmp_path):
    protocol = PROTOCOLS[name]
    asked = job(tmp_path, name, make_cells())
    if protocol.split is not None:  # as it is, it wants 550 cells of each snapshot
        asked = replace(asked, protocol=replace(protocol, split={"test": 20, "validation": 5}))
    found = run(asked, quiet)
    folds = PROTOCOLS[name].folds_of(5, dataset="toy")
    assert {(row["run"], str(row["fold"])) for row in found} == {
        (name, fold.name) for fold in folds for name in ("baselines", "drift")
    }
    rows = measured(found)
    assert [(str(row["fold"]), row["target"]) for row in rows] == [
        (f.name, leg.target) for f in folds for leg in f.legs
    ]
    assert all(row["W1_low"] < row["W1"] < row["W1_high"] for row in rows)
    assert all(row["W1"] <= row["W2"] + 1e-9 for row in rows)
    assert all(row["plan_s"] == 0.5 for row in rows)
    assert all(row["peak_mb"] > 1 for row in rows)


@pytest.mark.parametrize(
    ("name", "held", "legs"),
    [
        ("A", [(1,), (2,), (3,)], [[(0, 1)], [(1, 2)], [(2, 3)]]),
        ("clean", [(1,), (2,), (3,)], [[(0, 1)], [(1, 2)], [(2, 3)]]),
        ("E", [(1, 3)], [[(0, 1), (0, 3)]]),
        ("B-own-split", [()], [[(0, 1), (1, 2), (2, 3), (3, 4)]]),
        ("new-cells", [()], [[(0, 1), (1, 2), (2, 3), (3, 4)]]),
        ("F", [()], [[(0, 1), (0, 2), (0, 3), (0, 4)]]),
        ("F-holdout", [(1,), (2,), (3,)], [[(0, 1)], [(0, 2)], [(0, 3)]]),
    ],
)
def test_folds_hold_out_and_start_where_the_protocol_says(name, held, legs):
    folds = choose(name).folds_of(5, dataset="toy")
    assert [fold.held for fold in folds] == held
    assert [[(leg.starts[0], leg.target) for leg in fold.legs] for fold in folds] == legs


def test_protocol_a_is_what_the_papers_do(tmp_path):
    """Whitening on all cells with ddof 0, index time, all cells of k-1 to all cells of k, exact W1; by hand."""
    cells = make_cells()
    everyone = np.concatenate(cells.clouds)
    white = [(cloud - everyone.mean(0)) / everyone.std(0) for cloud in cells.clouds]
    for k, row in zip((1, 2, 3), measured(run(job(tmp_path, cells=cells), quiet)), strict=True):
        step = (white[k + 1].mean(0) - white[k - 1].mean(0)) / 2  # half way in index time
        expected = assignment(white[k - 1] + step, white[k])
        assert row["W1"] == pytest.approx(expected, rel=1e-5)


def test_clean_scores_in_raw_units_and_real_time(tmp_path):
    cells = make_cells()
    for k, row in zip((1, 2, 3), measured(run(job(tmp_path, "clean", cells), quiet)), strict=True):
        before, after = cells.clouds[k - 1].mean(0), cells.clouds[k + 1].mean(0)
        passed = (TIMES[k] - TIMES[k - 1]) / (TIMES[k + 1] - TIMES[k - 1])
        expected = assignment(cells.clouds[k - 1] + passed * (after - before), cells.clouds[k])
        assert row["W1"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ALL_PROTOCOLS)
def test_more_than_five_dimensions_are_left_raw_where_published_so(name):
    cells = make_cells(n=560 if PROTOCOLS[name].split else 40, dim=6)
    task = prepare(cells, PROTOCOLS[name], PROTOCOLS[name].folds_of(5, dataset="toy")[0])
    one_scale = name in ("clean", "new-cells")
    assert (task.space.scale == task.space.scale[0]).all()
    assert (task.space.scale[0] != 1) == one_scale


def test_the_own_split_keeps_test_cells_from_training():
    cells = make_cells(n=560)
    protocol = choose("B-own-split")
    task = prepare(cells, protocol, protocol.folds_of(5, dataset="toy")[0])
    for k, (train, cloud) in enumerate(zip(task.training.clouds, cells.clouds, strict=True)):
        everyone = {tuple(row) for row in task.space.enter(cloud).astype(np.float32)}
        trained, tested = ({tuple(row) for row in x} for x in (train, task.observed[k]))
        assert (len(trained), len(tested)) == (10, 350)
        assert not trained & tested
        assert trained | tested <= everyone
    joined = np.concatenate(task.training.clouds)
    assert joined.mean(0) == pytest.approx(np.zeros(3), abs=1e-5)
    assert joined.std(0) == pytest.approx(np.ones(3), abs=1e-5)


def test_half_of_the_cells_are_kept_and_carried_beside_as_many_that_were_trained_on(tmp_path):
    """A method that moves all cells alike scores alike; the means of training cells are all that it knows."""
    cells = make_cells(n=60)
    protocol = choose("new-cells")
    task = prepare(cells, protocol, protocol.folds_of(5, dataset="toy")[0])
    for k, train in enumerate(task.training.clouds):
        assert (len(train), len(task.observed[k]), len(task.trained_on(k))) == (30, 30, 30)
        assert not {tuple(row) for row in train} & {tuple(row) for row in task.observed[k]}
        assert {tuple(row) for row in task.trained_on(k)} == {tuple(row) for row in train}
    rows = run(job(tmp_path, "new-cells", cells), quiet)
    for row in measured(rows):
        assert row["fitted_energy"] == pytest.approx(row["energy"], abs=0.4 * row["energy"] + 0.2)
        assert row["fitted_W1"] > 0
    assert {"common shift", "copy previous"} <= {row["method"] for row in rows}


def test_both_sides_are_mixed_by_nearness():
    cells, protocol = make_cells(), choose("A-both")
    task = prepare(cells, protocol, protocol.folds_of(5, dataset="toy")[0])
    found = predict(task, task.fold.legs[0], Drift().fit(task.training, seed=0))
    assert len(found.x) == 80
    assert found.share[:40].sum() == pytest.approx(0.5)  # index time
    assert shares(Leg((0, 2), 1), TIMES) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert found.x[:40].mean(0) == pytest.approx(found.x[40:].mean(0), abs=1e-5)


@pytest.mark.parametrize("make", [Drift, quick_flow], ids=["drift", "flow"])
@pytest.mark.parametrize("name", ["clean", "F-holdout"])
def test_held_out_cells_change_nothing_before_scoring(name, make):
    cells, protocol = make_cells(growing=True), choose(name)
    for fold in protocol.folds_of(5, dataset="toy"):
        target = fold.held[0]
        before, after = (prepare(x, protocol, fold) for x in (cells, perturbed(cells, target)))
        for x, y in zip(before.training.clouds, after.training.clouds, strict=True):
            assert (x == y).all()
        assert before.training.times == after.training.times
        assert (before.space.shift == after.space.shift).all()
        assert (before.space.scale == after.space.scale).all()
        assert set(before.observed) == set(after.observed) == set(range(5)) - {target}
        found = [predict(task, fold.legs[0], make().fit(task.training, seed=1)).x for task in (before, after)]
        assert (found[0] == found[1]).all()
        assert (
            scores.score(found[1], after.truth[target])["W1"] > 10 * scores.score(found[0], before.truth[target])["W1"]
        )


@pytest.mark.parametrize("name", ["A", "A-both", "E"])
def test_in_protocol_a_held_out_cells_change_only_the_whitening(name):
    cells, protocol = make_cells(), choose(name)
    for fold in protocol.folds_of(5, dataset="toy"):
        before, after = (prepare(x, protocol, fold) for x in (cells, perturbed(cells, fold.held[0])))
        assert not (before.training.clouds[0] == after.training.clouds[0]).all()  # as published
        for x, y in zip(before.training.clouds, after.training.clouds, strict=True):
            assert before.space.leave(x) == pytest.approx(after.space.leave(y), abs=1e-3)
        raw = [
            prepare(replace(x, standardize_up_to=0), protocol, fold) for x in (cells, perturbed(cells, fold.held[0]))
        ]
        for x, y in zip(raw[0].training.clouds, raw[1].training.clouds, strict=True):
            assert (x == y).all()
