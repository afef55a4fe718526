"""Baselines of the trajectory benchmark, and records that refuse to be mixed."""

import json

import numpy as np
import pytest
from benchmark_cases import TIMES, Broken, job, make_cells, measured, perturbed, quiet

from benchmarks.trajectory import baselines, scores
from benchmarks.trajectory.run import FIRST_SEED, run
from benchmarks.trajectory.sets import Cells, DataSet
from benchmarks.trajectory.tasks import choose, prepare

pytestmark = pytest.mark.usefixtures("global_state_is_untouched")


def test_the_midpoint_of_a_steady_shift_is_exact_in_real_time():
    """The same cloud, shifted in proportion to real time: every plan's lines pass through the truth."""
    cloud = np.random.default_rng(0).normal(size=(50, 2))
    cells = Cells("shift", tuple(cloud + 3 * time for time in TIMES), TIMES)
    for name in ("A", "clean"):
        protocol = choose(name)
        for fold in protocol.folds_of(5, dataset="shift"):
            task, target = prepare(cells, protocol, fold), fold.held[0]
            found = dict(baselines.baselines(task, target, seed=0))
            assert set(found) == set(baselines.NAMES)
            exact = found["exact OT midpoint, pairs by mass"]
            assert scores.score(task.scored(exact.x), task.truth[target], weights=exact.weight)["W1"] < 1e-4
            far = scores.score(task.scored(found["copy previous"].x), task.truth[target])["W1"]
            assert far == pytest.approx(3 * np.sqrt(2) * (TIMES[target] - TIMES[target - 1]), rel=1e-3)


def test_both_mixed_weighs_the_nearer_snapshot_more():
    cells, protocol = make_cells(), choose("A")
    task = prepare(cells, protocol, protocol.folds_of(5, dataset="toy")[0])
    mixed = dict(baselines.baselines(task, 1, seed=0))["both mixed"]
    assert mixed.weight[:40].sum() == pytest.approx(2 / 3)  # real times 0, 1, 3


def test_baselines_of_a_stitched_fold_see_training_snapshots_only():
    cells, protocol = make_cells(), choose("E")
    task = prepare(cells, protocol, protocol.folds_of(5, dataset="toy")[0])
    assert task.neighbours(1) == (0, 2)
    assert task.neighbours(3) == (2, 4)
    assert [name for name, _ in baselines.baselines(task, 1, seed=0)] == list(baselines.NAMES)


def test_the_last_snapshot_in_sample_has_no_next_one(tmp_path):
    rows = run(job(tmp_path, "F"), quiet)
    last = [row["method"] for row in rows if row["target"] == 4 and row["kind"] != "measured"]
    assert last == ["copy previous", baselines.FLOOR]


def test_known_numbers_on_embryoid_bodies(data_folder, monkeypatch):
    monkeypatch.setenv("CELLFLOW_DATA", str(data_folder))
    cells = DataSet("eb", "eb.h5ad", "day", "X_pca", standardize_up_to=5).load(5)
    protocol = choose("A")
    task = prepare(cells, protocol, protocol.folds_of(5, dataset="eb")[2])
    copied = task.observed[2].astype(float)
    ones = [np.ones(len(cloud)) for cloud in (copied, task.truth[3])]
    assert scores.transport(copied, task.truth[3], *ones).value == pytest.approx(0.759, abs=1e-3)
    assert baselines.floor(task, 3, seed=0)["W1"] == pytest.approx(0.479, abs=0.02)


@pytest.mark.slow
def test_known_midpoints_on_embryoid_bodies(data_folder, monkeypatch):
    monkeypatch.setenv("CELLFLOW_DATA", str(data_folder))
    cells = DataSet("eb", "eb.h5ad", "day", "X_pca", standardize_up_to=5).load(5)
    protocol, published, by_mass = choose("A"), (0.746, 0.737, 0.772), (0.718, 0.728, 0.766)
    for fold, drawn, weighed in zip(protocol.folds_of(5, dataset="eb"), published, by_mass, strict=True):
        task, target = prepare(cells, protocol, fold), fold.held[0]
        found = dict(baselines.baselines(task, target, seed=FIRST_SEED))
        for name, expected in (("pairs drawn", drawn), ("pairs by mass", weighed)):
            points = found[f"exact OT midpoint, {name}"]
            assert scores.score(points.x, task.truth[target], weights=points.weight)["W1"] == pytest.approx(
                expected, abs=0.03
            )


def test_finished_runs_are_not_done_again(tmp_path):
    first = run(job(tmp_path), quiet)
    assert run(job(tmp_path, method=Broken()), quiet) == first
    assert len({(row["run"], row["fold"]) for row in first}) == 6
    again = run(job(tmp_path, seeds=2), quiet)
    assert [row for row in again if row["seed"] == FIRST_SEED] == first
    assert {row["seed"] for row in again} == {FIRST_SEED, FIRST_SEED + 1}


def test_another_configuration_under_the_same_name_is_refused_before_anything_runs(tmp_path):
    run(job(tmp_path, folds=3), quiet)
    with pytest.raises(ValueError, match=r"method\.speed: 1 became 2.*name=") as caught:
        run(job(tmp_path, method=Broken(), settings={"speed": 2}), quiet)
    assert "fold-3" in str(caught.value)
    with pytest.raises(ValueError, match="cells: "):
        run(job(tmp_path, cells=perturbed(make_cells(), 1)), quiet)
    row = measured(run(job(tmp_path, folds=3, settings={"speed": 2}, again=True), quiet))[0]
    settings = json.loads((tmp_path / "settings" / f"{row['settings']}.json").read_text())
    assert settings["config"]["method"] == {"speed": 2}
    assert "torch" in settings["versions"]


def test_damaged_records_are_named(tmp_path):
    row = measured(run(job(tmp_path, folds=1), quiet))[0]
    path = tmp_path / "settings" / f"{row['settings']}.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match="damaged"):
        run(job(tmp_path, folds=1, settings={"speed": 2}), quiet)
    path = tmp_path / "rows.csv"
    path.write_text(path.read_text()[:-30])
    with pytest.raises(ValueError, match="damaged"):
        run(job(tmp_path, folds=1), quiet)


def test_seeds_are_those_of_the_papers(tmp_path):
    found = run(job(tmp_path, folds=2, seeds=5), quiet)
    assert [json.loads(row["facts"])["seed"] for row in measured(found)] == [42, 43, 44, 45, 46]
