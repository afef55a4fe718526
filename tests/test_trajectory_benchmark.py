"""The trajectory benchmark: protocols to the letter, no leak, honest intervals, records that refuse to be mixed."""

import importlib.util
import json
import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

import cellflow as cf
from benchmarks.trajectory import baselines, dynamics, figures, masses, peers, recipe, scores, speed, sweep, table
from benchmarks.trajectory.__main__ import CONFIGS, main
from benchmarks.trajectory.methods import Flow, Pace, Particles, RollOut, Training
from benchmarks.trajectory.mixtures import drawn_by_mass
from benchmarks.trajectory.plans import Remembered
from benchmarks.trajectory.protocols import PROTOCOLS, Leg, Split, choose, choose_folds
from benchmarks.trajectory.run import FIRST_SEED, Job, predict, run
from benchmarks.trajectory.sets import Cells, DataSet, Truths
from benchmarks.trajectory.tasks import prepare, shares
from cellflow.errors import MissingDependencyError

pytestmark = pytest.mark.usefixtures("global_state_is_untouched")

TIMES = (0.0, 1.0, 3.0, 4.0, 8.0)
ALL_PROTOCOLS = list(PROTOCOLS)


def make_cells(n=40, dim=3, times=TIMES, growing=False):
    """Snapshots that move at (2, 0, ..., 0) per unit of real time, stretched differently in every dimension."""
    draw = np.random.default_rng(0)
    sizes = [n + (10 * k if growing else 0) for k in range(len(times))]
    clouds = [draw.normal(size=(size, dim)) * np.arange(1, dim + 1) + 5 for size in sizes]
    for cloud, time in zip(clouds, times, strict=True):
        cloud[:, 0] += 2 * time
    return Cells("toy", tuple(clouds), times, standardize_up_to=5)


@dataclass(frozen=True)
class Drift:
    """Moves cells by the difference of mean states, which it interpolates between training snapshots."""

    growth: float = 0.0

    def fit(self, training, *, seed):
        means = np.array([cloud.mean(axis=0) for cloud in training.clouds])

        def mean(time):
            return np.array([np.interp(time, training.times, column) for column in means.T])

        def carry(x, start, stop):
            weight = np.full(len(x), np.exp(self.growth * (stop - start)) / len(x)) if self.growth else None
            return Particles(x + (mean(stop) - mean(start)), weight, 7)

        return RollOut(carry, {"plan_s": 0.5, "seed": seed})


@dataclass(frozen=True)
class Broken:
    """A method that must not be fitted."""

    def fit(self, training, *, seed):
        pytest.fail("this run is done already")


def job(tmp_path, protocol="A", cells=None, method=None, **options):
    given = {"name": "drift", "settings": {"speed": 1}, "seeds": 1, "out": tmp_path} | options
    return Job(choose(protocol), cells or make_cells(), method or Drift(), **given)


def quiet(_):
    """Say nothing."""


def assignment(x, y):
    """W1 between equally many points, by another solver."""
    costs = cdist(x, y)
    return costs[linear_sum_assignment(costs)].mean()


# Protocols


@pytest.mark.parametrize("name", ALL_PROTOCOLS)
def test_every_protocol_runs_and_scores_every_target(name, tmp_path):
    protocol = PROTOCOLS[name]
    asked = job(tmp_path, name, make_cells())
    if protocol.split is not None:  # as it is, it wants 550 cells of each snapshot
        asked = replace(asked, protocol=replace(protocol, split=Split(test=20, validation=5)))
    found = run(asked, quiet)
    folds = PROTOCOLS[name].folds_of(5, dataset="toy")
    assert len(found) == 2 * len(folds)  # baselines and one seed
    for record, fold in zip(found[1::2], folds, strict=True):
        assert [row["target"] for row in record["scores"]] == [leg.target for leg in fold.legs]
        assert all(row["W1_low"] < row["W1"] < row["W1_high"] for row in record["scores"])
        assert all(row["W1"] <= row["W2"] + 1e-9 for row in record["scores"])
        assert record["seconds"]["plan"] == 0.5
        assert record["peak_mb"] > 1


@pytest.mark.parametrize(
    ("name", "held", "legs"),
    [
        ("A", [(1,), (2,), (3,)], [[(0, 1)], [(1, 2)], [(2, 3)]]),
        ("clean", [(1,), (2,), (3,)], [[(0, 1)], [(1, 2)], [(2, 3)]]),
        ("E", [(1, 3)], [[(0, 1), (0, 3)]]),
        ("B-own-split", [()], [[(0, 1), (1, 2), (2, 3), (3, 4)]]),
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
    for k, record in zip((1, 2, 3), run(job(tmp_path, cells=cells), quiet)[1::2], strict=True):
        step = (white[k + 1].mean(0) - white[k - 1].mean(0)) / 2  # half way in index time
        expected = assignment(white[k - 1] + step, white[k])
        assert record["scores"][0]["W1"] == pytest.approx(expected, rel=1e-5)


def test_clean_scores_in_raw_units_and_real_time(tmp_path):
    cells = make_cells()
    for k, record in zip((1, 2, 3), run(job(tmp_path, "clean", cells), quiet)[1::2], strict=True):
        before, after = cells.clouds[k - 1].mean(0), cells.clouds[k + 1].mean(0)
        passed = (TIMES[k] - TIMES[k - 1]) / (TIMES[k + 1] - TIMES[k - 1])
        expected = assignment(cells.clouds[k - 1] + passed * (after - before), cells.clouds[k])
        assert record["scores"][0]["W1"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ALL_PROTOCOLS)
def test_more_than_five_dimensions_are_left_raw_where_published_so(name):
    cells = make_cells(n=560 if PROTOCOLS[name].split else 40, dim=6)
    task = prepare(cells, PROTOCOLS[name], PROTOCOLS[name].folds_of(5, dataset="toy")[0])
    one_scale = name == "clean"
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


def test_both_sides_are_mixed_by_nearness():
    cells, protocol = make_cells(), choose("A-both")
    task = prepare(cells, protocol, protocol.folds_of(5, dataset="toy")[0])
    found = predict(task, task.fold.legs[0], Drift().fit(task.training, seed=0))
    assert len(found.x) == 80
    assert found.share[:40].sum() == pytest.approx(0.5)  # index time
    assert shares(Leg((0, 2), 1), TIMES) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert found.x[:40].mean(0) == pytest.approx(found.x[40:].mean(0), abs=1e-5)


# Leaks


def perturbed(cells, k):
    """The same cells, those of one snapshot thrown far away."""
    clouds = list(cells.clouds)
    clouds[k] = clouds[k] * 3 + 100
    return replace(cells, clouds=tuple(clouds))


def quick_flow():
    return Flow(partial(cf.SnapshotFlow, steps=3, batch_size=8, device="cpu"), solver_steps=2)


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


# Scores


def test_scores_agree_with_those_of_the_package():
    draw = np.random.default_rng(0)
    x, y, weights = draw.normal(size=(60, 2)), draw.normal(size=(50, 2)) + 1, draw.random(60)
    found = scores.score(x, y, weights=weights)
    for order in (1, 2):
        expected = cf.metrics.wasserstein(x, y, order=order, weights_x=weights)
        assert found[f"W{order}"] == pytest.approx(expected, rel=1e-9)
    assert scores.score(x, y, weights=np.full(60, 3.0))["W1"] == pytest.approx(scores.score(x, y)["W1"])


def test_the_interval_of_far_clouds_on_a_line_is_that_of_a_difference_of_means():
    """Far apart on a line W1 is the difference of the means, whose standard error is known."""
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(400, 1)), 2 * draw.normal(size=(300, 1)) + 50
    found = scores.score(x, y)
    expected = np.sqrt(x.var() / 400 + y.var() / 300)
    assert found["W1"] == pytest.approx(y.mean() - x.mean())
    assert found["W1_sd"] == pytest.approx(expected, rel=0.1)
    assert found["W1_high"] - found["W1_low"] == pytest.approx(2 * 1.96 * expected, rel=0.1)


def test_the_interval_agrees_with_resampling_and_solving_again():
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(80, 2)), draw.normal(size=(70, 2)) + 0.7
    again = [cf.metrics.wasserstein(x[draw.integers(80, size=80)], y[draw.integers(70, size=70)]) for _ in range(150)]
    assert scores.score(x, y)["W1_sd"] == pytest.approx(np.std(again), rel=0.3)


def test_weighted_particles_are_scored_under_names_of_their_own(tmp_path):
    cells = make_cells(growing=True)
    record = run(job(tmp_path, "A", cells, Drift(growth=0.1)), quiet)[1]
    row = record["scores"][0]
    assert row["weighted_W1"] == pytest.approx(row["W1"])  # every particle weighs the same
    assert "RME" not in row


def test_mass_errors_are_relative_to_the_true_growth(tmp_path):
    cells = make_cells(n=40, growing=True)
    rows = run(job(tmp_path, "F", cells, Drift(growth=0.1)), quiet)[1]["scores"]
    for k, row in enumerate(rows, start=1):
        assert row["true_mass"] == pytest.approx((40 + 10 * k) / 40)
        assert row["mass"] == pytest.approx(np.exp(0.1 * TIMES[k]))
        assert row["RME"] == pytest.approx(abs(row["mass"] - row["true_mass"]) / row["true_mass"])
    kept = run(job(tmp_path, "F", cells, Drift(), name="mass kept"), quiet)[1]["scores"]
    assert [row["mass"] for row in kept] == [1.0] * 4


def test_states_that_are_not_finite_are_refused(tmp_path):
    @dataclass(frozen=True)
    class Lost:
        def fit(self, training, *, seed):
            return RollOut(lambda x, start, stop: Particles(x * np.nan))

    with pytest.raises(FloatingPointError, match="snapshot 1"):
        run(job(tmp_path, method=Lost()), quiet)


# Scores of the motion


@pytest.mark.parametrize("growth", [0.0, 0.4, -0.7])
def test_the_action_of_steady_motion_and_growth_is_known(growth):
    """Half of (speed^2 + length^2 growth^2), times the integral of exp(growth t) over the time."""
    speed, start, stop, length = 3.0, 1.0, 3.0, 1.5

    def rates(x, time):
        return Pace(np.tile([speed, 0.0], (len(x), 1)), np.full(len(x), growth))

    mass = stop - start if growth == 0 else (np.exp(growth * (stop - start)) - 1) / growth
    found = dynamics.path_action(rates, np.zeros((7, 2)), start, stop, length=length)
    assert found == pytest.approx((speed**2 + (length * growth) ** 2) / 2 * mass, rel=1e-6)


def test_the_action_follows_the_particles_and_their_weights():
    """Each particle runs away from 0 at a speed equal to its place; those at 2 also multiply, evenly in time."""
    x = np.array([[1.0], [2.0]])
    found = dynamics.path_action(lambda x, time: Pace(x), x, 0.0, 1.0, length=1.0)
    assert found == pytest.approx((1 + 4) / 2 * (np.exp(2) - 1) / 4, rel=1e-6)

    def still(x, time):
        return Pace(np.zeros_like(x), np.where(x[:, 0] > 1.5, 2 * time, 0.0))

    # Weight exp(t^2) / 2, growth 2 t: the integral of exp(t^2) t^2, by quadrature.
    t = np.linspace(0, 1, 20001)
    expected = np.trapezoid(np.exp(t**2) * t**2, t)
    assert dynamics.path_action(still, x, 0.0, 1.0, length=1.0) == pytest.approx(expected, rel=1e-6)


@dataclass(frozen=True)
class Shift:
    """Moves every cell at one velocity, and grows it at ``growth(x, time)``."""

    speed: float = 0.5
    growth: object = None

    def fit(self, training, *, seed):
        def carry(x, start, stop):
            return Particles(x + self.speed * (stop - start), None if self.growth is None else np.ones(len(x)))

        def rates(x, time):
            return Pace(np.full_like(x, self.speed), None if self.growth is None else self.growth(x, time))

        return RollOut(carry, rates=rates)


def test_motion_is_scored_where_the_protocol_has_weights_and_the_data_a_truth(tmp_path):
    cells = replace(make_cells(dim=2), truths=Truths(growth=lambda x: x[:, 1], length=2.0))
    method = Shift(growth=lambda x, time: 3 * x[:, 1] - 1)
    motion = {name: run(job(tmp_path, name, cells, method), quiet)[1]["motion"] for name in ("A", "F", "F-holdout")}
    assert motion["A"] == {}
    assert [motion[name]["growth_r"] for name in ("F", "F-holdout")] == pytest.approx([1.0, 1.0])
    kept = run(job(tmp_path, "F", cells, Shift(), name="kept"), quiet)[1]["motion"]
    assert kept == {"action": pytest.approx(2 * 0.5**2 / 2 * TIMES[-1]), "length": 2.0}
    unknown = run(job(tmp_path, "F", make_cells(dim=2), method, out=tmp_path / "unknown"), quiet)[1]["motion"]
    assert unknown == {}
    other = run(job(tmp_path, "F", cells, name="no rates"), quiet)[1]["motion"]
    assert other == {}


def test_a_growth_correlation_takes_every_cell_at_its_own_time(tmp_path):
    """Growth that is right at one time and wrong at the others is no more than partly right."""
    cells = replace(make_cells(dim=2), truths=Truths(growth=lambda x: x[:, 1]))
    once = Shift(growth=lambda x, time: x[:, 1] * (1 if time == TIMES[0] else -1))
    found = run(job(tmp_path, "F", cells, once), quiet)[1]["motion"]["growth_r"]
    second = [cloud[:, 1] for cloud in cells.clouds]
    signed = np.concatenate([second[0], *(-x for x in second[1:])])
    assert found == pytest.approx(np.corrcoef(signed, np.concatenate(second))[0, 1], rel=1e-4)
    assert found < 0.5


def test_another_length_under_the_same_name_is_refused(tmp_path):
    cells = replace(make_cells(dim=2), truths=Truths(length=2.0))
    run(job(tmp_path, "F", cells, Shift()), quiet)
    with pytest.raises(ValueError, match=r"length: 2\.0 became 3\.0"):
        run(job(tmp_path, "F", replace(cells, truths=Truths(length=3.0)), Shift()), quiet)


def test_a_flow_says_how_fast_its_cells_move_and_grow():
    """Against differences of what it carries."""
    draw = np.random.default_rng(0)
    clouds = tuple(draw.normal(size=(n, 2)).astype(np.float32) + 2 * k for k, n in enumerate((40, 60, 80)))
    coupling = cf.couplings.UnbalancedSinkhorn(0.5, 5.0)
    learned = {"growth": True, "masses": "counts", "steps": 60, "batch_size": 64, "device": "cpu"}
    found = Flow(partial(cf.SnapshotFlow, coupling=coupling, **learned), solver_steps=4).fit(
        Training(clouds, (0.0, 1.0, 3.0)), seed=0
    )
    step = 1e-2
    pace, moved = found.rates(clouds[1], 1.5), found.carry(clouds[1], 1.5, 1.5 + step)
    assert (moved.x - clouds[1]) / step == pytest.approx(pace.velocity, abs=0.05)
    assert np.log(moved.weight * 60) / step == pytest.approx(pace.growth, abs=0.05)
    assert np.abs(pace.velocity).mean() > 0.5
    kept = Flow(partial(cf.SnapshotFlow, steps=3, batch_size=8, device="cpu"))
    assert kept.fit(Training(clouds, (0.0, 1.0, 3.0)), seed=0).rates(clouds[0], 0.0).growth is None
    noise = {"path": cf.paths.BrownianBridge(1.0), "stochastic": True, "steps": 3, "batch_size": 8, "device": "cpu"}
    bridge = Flow(partial(cf.SnapshotFlow, **noise), stochastic=True)
    assert bridge.fit(Training(clouds, (0.0, 1.0, 3.0)), seed=0).rates is None


def test_tables_show_the_motion_beside_what_is_published(tmp_path):
    cells = replace(make_cells(dim=2), name="gene_circuit", truths=Truths(growth=lambda x: x[:, 1], length=1.5))
    run(job(tmp_path, "F", cells, Shift(growth=lambda x, time: x[:, 1])), quiet)
    table.write(tmp_path, results=tmp_path, command="here")
    lines = (tmp_path / "trajectory.md").read_text().splitlines()
    columns = next(line for line in lines if line.startswith("| method")).split(" | ")
    growth, action = columns.index("growth_r"), columns.index("action")
    shown = {line.split(" | ")[0]: line.split(" | ") for line in lines}
    assert shown["| drift"][growth] == "1.000"
    assert shown["| WFR-FM"][growth] == "0.991"
    assert shown["| static WFR reference"][action] == "1.333"
    assert any(line.startswith("action: ") and "1.5² growth²" in line for line in lines)


@pytest.mark.slow
def test_the_gene_circuit_has_the_length_of_the_published_actions(data_folder, monkeypatch):
    """The static distance of neighbouring snapshots, by another package, is the published reference."""
    import ot

    monkeypatch.setenv("CELLFLOW_DATA", str(data_folder))
    cells = instantiate(OmegaConf.load(CONFIGS / "dataset" / "gene_circuit.yaml")).load()
    length, total = cells.truths.length, 0.0
    for x, y in zip(cells.clouds, cells.clouds[1:], strict=False):
        cost = -np.log(np.cos(np.minimum(cdist(x, y) / (2 * length), np.pi / 2 - 1e-6)) ** 2)
        ones = np.ones(len(x)), np.ones(len(y))
        total += 2 * length**2 * ot.unbalanced.mm_unbalanced2(*ones, cost, reg_m=1.0, returnCost="total")
    assert total / len(cells.clouds[0]) == pytest.approx(1.333, abs=2e-3)
    assert cells.truths.growth(np.array([[9.0, 1.0]])) == pytest.approx([0.5])


# Baselines


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
            assert scores.score(task.scored(exact.x), task.truth[target], weights=exact.weights)["W1"] < 1e-4
            far = scores.score(task.scored(found["copy previous"].x), task.truth[target])["W1"]
            assert far == pytest.approx(3 * np.sqrt(2) * (TIMES[target] - TIMES[target - 1]), rel=1e-3)


def test_both_mixed_weighs_the_nearer_snapshot_more():
    cells, protocol = make_cells(), choose("A")
    task = prepare(cells, protocol, protocol.folds_of(5, dataset="toy")[0])
    mixed = dict(baselines.baselines(task, 1, seed=0))["both mixed"]
    assert mixed.weights[:40].sum() == pytest.approx(2 / 3)  # real times 0, 1, 3


def test_baselines_of_a_stitched_fold_see_training_snapshots_only():
    cells, protocol = make_cells(), choose("E")
    task = prepare(cells, protocol, protocol.folds_of(5, dataset="toy")[0])
    assert task.neighbours(1) == (0, 2)
    assert task.neighbours(3) == (2, 4)
    assert [name for name, _ in baselines.baselines(task, 1, seed=0)] == list(baselines.NAMES)


def test_the_last_snapshot_in_sample_has_no_next_one(tmp_path):
    record = run(job(tmp_path, "F"), quiet)[0]
    last = [row["method"] for row in record["scores"] if row["target"] == 4]
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
            assert scores.score(points.x, task.truth[target], weights=points.weights)["W1"] == pytest.approx(
                expected, abs=0.03
            )


# Records


def test_finished_runs_are_not_done_again(tmp_path):
    first = run(job(tmp_path), quiet)
    assert run(job(tmp_path, method=Broken()), quiet) == first
    assert len(list(tmp_path.rglob("*.json"))) == 6
    assert run(job(tmp_path, seeds=2), quiet)[2]["seed"] == FIRST_SEED + 1


def test_another_configuration_under_the_same_name_is_refused_before_anything_runs(tmp_path):
    run(job(tmp_path, folds=3), quiet)
    with pytest.raises(ValueError, match=r"method\.speed: 1 became 2.*name=") as caught:
        run(job(tmp_path, method=Broken(), settings={"speed": 2}), quiet)
    assert "fold-3" in str(caught.value)
    with pytest.raises(ValueError, match="cells: "):
        run(job(tmp_path, cells=perturbed(make_cells(), 1)), quiet)
    assert run(job(tmp_path, folds=3, settings={"speed": 2}, again=True), quiet)[1]["config"]["method"] == {"speed": 2}


def test_a_damaged_record_is_named(tmp_path):
    run(job(tmp_path, folds=1), quiet)
    path = next(tmp_path.rglob("drift/*.json"))
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match="damaged"):
        run(job(tmp_path, folds=1), quiet)


def test_seeds_are_those_of_the_papers(tmp_path):
    found = run(job(tmp_path, folds=2, seeds=5), quiet)
    assert [record["facts"]["seed"] for record in found[1:]] == [42, 43, 44, 45, 46]


# Methods


def test_a_flow_learns_from_training_cells_alone_and_is_the_same_again():
    clouds = tuple(np.random.default_rng(k).normal(size=(30, 2)).astype(np.float32) + k for k in range(3))
    training = Training(clouds, (0.0, 1.0, 3.0))
    first, second, other = (quick_flow().fit(training, seed=seed).carry(clouds[0], 0.0, 2.0) for seed in (0, 0, 1))
    assert (first.x == second.x).all()
    assert not (first.x == other.x).all()
    assert first.evaluations == 2
    assert training.without(1).times == (0.0, 3.0)
    assert training.adata().n_obs == 90


def test_a_flow_with_growth_returns_masses():
    draw = np.random.default_rng(0)
    clouds = tuple(draw.normal(size=(n, 2)).astype(np.float32) for n in (40, 80))
    coupling = cf.couplings.UnbalancedSinkhorn(0.5, 5.0)
    learned = {"growth": True, "heads": "separate", "masses": "counts", "steps": 100, "batch_size": 64, "device": "cpu"}
    grown = partial(cf.SnapshotFlow, coupling=coupling, **learned)
    found = Flow(grown, solver_steps=20).fit(Training(clouds, (0.0, 1.0)), seed=0).carry(clouds[0], 0.0, 1.0)
    assert found.weight.sum() == pytest.approx(2.0, rel=0.2)


def test_plans_are_solved_once_and_their_seconds_counted_again():
    draw = torch.Generator().manual_seed(3)
    x0, x1 = torch.randn(50, 2, generator=draw), torch.randn(40, 2, generator=draw)
    first, second = Remembered.of("exact"), Remembered.of("exact")
    assert first(x0, x1) is second(x0, x1)
    assert first.facts(9.0)["plan_s"] == second.facts(9.0)["plan_s"] > 0
    assert second.facts(9.0)["train_s"] == pytest.approx(9.0, abs=0.5)
    assert second(x0, x1 + 1) is not first(x0, x1)


def test_the_published_split_is_the_same_for_every_seed():
    training = Training(tuple(np.random.default_rng(k).normal(size=(50, 2)).astype(np.float32) for k in (0, 1)), (0, 1))
    first, second = recipe.published_split(training), recipe.published_split(training)
    for x, y, cloud in zip(first, second, training.clouds, strict=True):
        assert torch.equal(x, y)
        assert len({tuple(row) for row in x.tolist()} & {tuple(row) for row in cloud.tolist()}) == 40


def test_published_batches_take_one_interval_a_sample_and_every_cell_once_an_epoch():
    clouds = tuple(torch.arange(40.0).reshape(40, 1) + 100 * k for k in range(3))
    batches = recipe.IntervalBatches(clouds, (0.0, 1.0, 3.0), cf.couplings.Independent(), 10, seed=0)
    stream = batches.cells(cf.generator(seed=0))
    epoch = torch.cat([next(stream)[1] for _ in range(4)])
    assert torch.equal(epoch.flatten().sort().values, clouds[1].flatten())
    batch = next(iter(batches))
    start, duration = batch.span()
    assert len(batch.x0) == 10
    assert ((batch.x0[:, 0] // 100) == start).all()
    assert ((batch.x1 - batch.x0)[:, 0].sub(100).abs() < 40).all()
    assert (duration == torch.where(start == 0, 1.0, 2.0)).all()


def test_the_published_loss_is_the_error_of_the_velocity():
    batch = cf.Batch(torch.zeros(6, 2), torch.full((6, 2), 4.0), torch.zeros(6), torch.full((6,), 2.0))
    objective = recipe.VelocityPerIndex(sigma=0.1)
    for guess, expected in ((2.0, 0.0), (0.0, 4.0)):
        found = objective(lambda t, x, condition, v=guess: torch.full_like(x, v), batch, generator=cf.generator(seed=0))
        assert found["loss"].item() == pytest.approx(expected)


@pytest.mark.parametrize("method", [recipe.Recipe, peers.Torchcfm], ids=["ours", "torchcfm"])
def test_the_published_recipe_learns_a_shift(method):
    if method is peers.Torchcfm:
        pytest.importorskip("torchcfm.conditional_flow_matching")
    draw = np.random.default_rng(0)
    cloud = draw.normal(size=(60, 2)).astype(np.float32) * 0.3
    training = Training((cloud, cloud + 1, cloud + 3), (0.0, 1.0, 3.0))
    made = (
        method(cf.couplings.Exact(), steps=250, batch_size=32)
        if method is recipe.Recipe
        else method(steps=250, batch_size=32)
    )
    found = made.fit(training, seed=0).carry(cloud, 0.0, 2.0)
    assert found.x.mean(0) - cloud.mean(0) == pytest.approx([2.0, 2.0], abs=0.25)


def test_chains_follow_the_exact_plans():
    draw = np.random.default_rng(0)
    first = draw.normal(size=(20, 2)).astype(np.float32)
    clouds = (first, first[::-1] + 10, first + 20)
    chains = peers.chains_along_plans(Training(tuple(c.copy() for c in clouds), (0, 1, 2)), 30, seed=0)
    assert chains[:, 1] - chains[:, 0] == pytest.approx(np.full((30, 2), 10), abs=1e-4)
    assert chains[:, 2] - chains[:, 1] == pytest.approx(np.full((30, 2), 10), abs=1e-4)


def test_a_peer_that_is_not_there_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv(peers.OTPFM_PYTHON, str(tmp_path / "python"))
    with pytest.raises(MissingDependencyError, match="make peers"):
        peers.Otpfm().fit(Training((np.zeros((3, 2)), np.ones((3, 2))), (0, 1)), seed=0)


@pytest.mark.parametrize("path", sorted((CONFIGS / "method").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_method_file_makes_a_method(path):
    assert callable(instantiate(OmegaConf.load(path), _convert_="all").fit)


@pytest.mark.parametrize("path", sorted((CONFIGS / "dataset").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_data_set_file_makes_a_data_set(path):
    settings = OmegaConf.load(path)
    for key in OmegaConf.missing_keys(settings):
        settings[key] = "there.h5ad"
    assert instantiate(settings).label == ("there" if path.stem == "file" else path.stem)


# The command line


@pytest.fixture
def own_file(tmp_path):
    """A file of the user's, with four snapshots."""
    cells = make_cells(times=(2.0, 3.0, 4.0, 7.0))
    time = np.repeat(cells.times, 40)
    obs = pd.DataFrame({"day": time}, index=[f"cell{k}" for k in range(len(time))])
    path = tmp_path / "mine.h5ad"
    anndata.AnnData(np.zeros((len(time), 0), np.float32), obs=obs, obsm={"X_pca": np.concatenate(cells.clouds)}).write(
        path
    )
    return path


def words(own_file, tmp_path, *more):
    data = ["dataset=file", f"dataset.path={own_file}", "dataset.time_key=day", "dims=2"]
    quick = ["method.flow.steps=3", "method.flow.batch_size=8", "method.solver_steps=2", "seeds=1"]
    return [*data, *quick, f"out={tmp_path / 'runs'}", *more]


def test_a_file_of_the_users_runs_from_the_command_line(own_file, tmp_path, capsys):
    assert main(words(own_file, tmp_path, "protocol=clean")) == 0
    shown = capsys.readouterr().out
    assert "copy previous" in shown
    assert "noise floor" in shown
    records = [json.loads(path.read_text()) for path in sorted((tmp_path / "runs").rglob("otcfm/*.json"))]
    assert [record["fold"] for record in records] == ["1", "2"]
    assert records[0]["dataset"] == "mine"
    results = tmp_path / "results"
    assert main(["table", "--out", str(tmp_path / "runs"), "--results", str(results)]) == 0
    assert "## Protocol clean: mine, 2 dimensions" in (results / "trajectory.md").read_text()
    assert sorted(path.name for path in results.glob("*.png")) == [
        "trajectory-clean-mine-2-predicted.png",
        "trajectory-clean-mine-2-ranking.png",
    ]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["protocol=none"], r"Unknown protocol 'none'. Choose from: 'A', 'A-both', 'clean'"),
        (["fold=9"], r"Unknown fold '9'. Choose from: 'all', '1', '2'"),
        (["dims=4"], r"Expected 1 to 3 dimensions of mine; found dims=4"),
        (["protocol=E"], r"Protocol E needs at least 5 snapshots; mine has 4"),
        (["protocol=B-own-split"], r"keeps 350 \+ 200 cells of each snapshot; mine has one of 40"),
        (["dataset.time_key=week"], r"No `adata.obs\['week'\]`. Available: \['day'\]"),
        (["dataset.path=gone.h5ad"], r"No file gone.h5ad. Name an .h5ad file"),
        (["seeds=-1"], r"Expected seeds >= 0; found -1"),
        (["name=baselines"], r"cannot be called 'baselines'"),
    ],
)
def test_bad_input_is_named_with_the_choices(more, message, own_file, tmp_path, capsys):
    assert main(words(own_file, tmp_path, *more)) == 1
    assert pd.Series([capsys.readouterr().err]).str.contains(message).all()


@pytest.mark.parametrize(("word", "choice"), [("method=none", "otcfm"), ("dataset=none", "gene_circuit")])
def test_unknown_methods_and_data_sets_are_refused_with_the_choices(word, choice, capsys):
    assert main([word]) != 0
    assert choice in capsys.readouterr().err


def test_a_missing_data_set_says_where_to_put_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("CELLFLOW_DATA", str(tmp_path))
    assert main(["dataset=cite"]) == 1
    shown = capsys.readouterr().err
    assert f"{tmp_path / 'cite.h5ad'}" in shown
    assert "set CELLFLOW_DATA" in shown


def test_a_changed_sweep_is_refused_with_the_difference(own_file, tmp_path, capsys):
    assert main(words(own_file, tmp_path, "fold=1")) == 0
    assert main(words(own_file, tmp_path, "fold=1", "method.flow.steps=4")) == 1
    assert "method.flow.steps: 3 became 4" in capsys.readouterr().err
    assert main(words(own_file, tmp_path, "fold=1", "method.flow.steps=4", "name=four")) == 0


def test_several_values_are_swept(own_file, tmp_path):
    assert main(["-m", *words(own_file, tmp_path, "fold=1,2", "method=otcfm,icfm")]) == 0
    found = {path.parent.name + "/" + path.stem for path in (tmp_path / "runs").rglob("*.json")}
    assert {"otcfm/fold-1-seed-42", "otcfm/fold-2-seed-42", "icfm/fold-1-seed-42", "icfm/fold-2-seed-42"} <= found


def test_help_lists_every_choice(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in [*PROTOCOLS, "otcfm", "gene_circuit", "seeds:"]:
        assert name in shown


def test_a_missing_peer_is_skipped_by_name(own_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv(peers.OTPFM_PYTHON, str(tmp_path / "python"))
    data = [word for word in words(own_file, tmp_path) if "method." not in word]
    assert main([*data, "method=otpfm"]) == sweep.SKIPPED
    assert "skipped otpfm" in capsys.readouterr().err


# Tables and figures


@pytest.fixture(scope="module")
def kept_records(tmp_path_factory):
    """Records of two protocols, two methods and two seeds."""
    folder = tmp_path_factory.mktemp("records")
    for protocol in ("A", "F"):
        run(job(folder, protocol, seeds=2), quiet)
        run(job(folder, protocol, method=Drift(growth=0.1), name="growing"), quiet)
    return folder


@pytest.fixture
def several(kept_records, tmp_path):
    """A copy of the records, for one test."""
    return Path(shutil.copytree(kept_records, tmp_path / "records"))


def test_tables_never_mix_protocols(several, tmp_path):
    rows = table.write(several, results=tmp_path / "results", command="here")
    text = (tmp_path / "results" / "trajectory.md").read_text()
    sections = text.split("\n## ")[1:]
    assert [section.splitlines()[0] for section in sections] == [
        "Protocol A: toy, 3 dimensions",
        "Protocol F: toy, 3 dimensions",
    ]
    assert "RME" not in sections[0].splitlines()[4]
    assert "RME" in sections[1].splitlines()[4]
    assert "weighted_W1" in sections[0].splitlines()[4]
    assert set(rows["kind"]) == {"baseline", "floor", "measured"}
    assert len(pd.read_csv(tmp_path / "results" / "trajectory.csv")) == len(rows)


def test_a_summary_averages_targets_and_seeds(several):
    rows = table.frame(table.every(several))
    part = rows[(rows["protocol"] == "A")]
    found = table.summary(part, choose("A")).set_index("method")
    mine = part[part["method"] == "drift"]
    assert found.loc["drift", "mean"] == pytest.approx(mine["W1"].mean())
    assert found.loc["drift", "seeds"] == 2
    assert found.loc["drift", "at 2"] == pytest.approx(mine[mine["target"] == 2]["W1"].mean())
    assert list(found["mean"]) == sorted(found["mean"])


def test_a_target_that_more_seeds_have_reached_counts_no_more(several):
    run(job(several, name="partly"), quiet)
    run(job(several, name="partly", folds=1, seeds=3), quiet)
    part = table.frame(table.every(several)).query("protocol == 'A' and method == 'partly'")
    assert part.groupby("target")["seed"].nunique().nunique() > 1
    found = table.summary(part, choose("A")).set_index("method").loc["partly"]
    for name in ("W2", "energy"):
        assert found[name] == pytest.approx(part.groupby("target")[name].mean().mean())
    part = part.assign(W1=part["W1"] + part["seed"] * (part["target"] > 0))  # seeds differ; one of them is whole
    found = table.summary(part, choose("A")).set_index("method").loc["partly"]
    assert np.isnan(found["sd"])
    assert found["seeds"] == 3


def test_published_rows_stand_only_in_the_table_of_their_protocol():
    published = pd.read_csv(table.PUBLISHED)
    assert set(published["confidence"]) <= {"verified", "secondary"}  # nothing from memory
    assert "cite" not in set(published["dataset"])  # another set of cells
    rows = {"kind": "measured", "fold": "1", "seed": 42, "target": 1, "W1": 0.7, "W1_sd": 0.01, "W2": 0.8}
    shown = {}
    for protocol in ("A", "clean"):
        part = pd.DataFrame(
            [rows | {"protocol": protocol, "dataset": "eb", "dims": 5, "method": "m", "trained_on": ""}]
        )
        shown[protocol] = table.markdown(part, "here").split("## Published under")[0]
    assert "| OT-CFM | published [1] |" in shown["A"]
    assert "[1] [SF]2M: Tong et al. 2024" in shown["A"]
    assert "| m | measured | 0.700 |" in shown["A"]
    assert "published [" not in shown["clean"]
    assert "WLF-OT" not in shown["A"]


def test_figures_have_labelled_axes(several):
    rows = table.frame(table.every(several))
    part = rows[rows["protocol"] == "A"]
    drawn = figures.ranking(part, "A", "toy", 3)
    axes = drawn.axes[0]
    assert axes.get_xlabel() == "W1, mean over 3 snapshots"
    assert {label.get_text() for label in axes.get_yticklabels()} == {*baselines.NAMES, "drift", "growing"}
    panels = figures.predictions(part, several / "A" / "toy-3", "A").axes
    assert len(panels) == 3 * 2
    assert panels[0].get_ylabel() == "dimension 2"
    assert panels[-1].get_xlabel() == "dimension 1"


def test_figures_name_the_score_that_ranks(several):
    """Weighted particles, where the protocol has them, not the same ones all weighing alike."""
    rows = table.frame(table.every(several))
    part = rows[rows["protocol"] == "F"].assign(weighted_W1=lambda part: part["weighted_W1"] + 1)  # to tell them apart
    growing = part[(part["method"] == "growing") & (part["target"] == 1)]
    titles = [axes.get_title() for axes in figures.predictions(part, several / "F" / "toy-3", "F").axes]
    assert f"growing, snapshot 1: W1 {growing['weighted_W1'].iloc[0]:.3f}" in titles


def test_particles_drawn_by_mass_count_alike():
    rng = np.random.default_rng(0)
    x, mass = rng.normal(size=(500, 2)), rng.uniform(0.1, 2, size=500)
    drawn = drawn_by_mass(Particles(x, mass, evaluations=7), 20_000, seed=0)
    assert drawn.weight is None
    assert drawn.evaluations == 7
    times = (drawn.x[:, None, 0] == x[None, :, 0]).sum(axis=0)
    assert np.abs(times - 20_000 * mass / mass.sum()).max() < 1  # systematic: only rounded


def test_a_method_without_every_target_has_no_mean(several):
    run(job(several, name="partly", folds=1), quiet)
    rows = table.frame(table.every(several))
    found = table.summary(rows[rows["protocol"] == "A"], choose("A"))
    assert np.isnan(found.set_index("method").loc["partly", "mean"])
    assert found["method"].iloc[-1] == "partly"


def test_the_interval_of_a_mean_is_that_of_independent_targets(several):
    rows = table.frame(table.every(several))
    part = rows[rows["protocol"] == "F"]
    found = table.summary(part, choose("F")).set_index("method")
    sds = part[part["method"] == "growing"]["weighted_W1_sd"]
    assert len(sds) == 4
    assert found.loc["growing", "half"] == pytest.approx(1.96 * np.sqrt((sds**2).sum()) / 4)
    assert np.isnan(found.loc[baselines.FLOOR, "half"])


def test_a_table_without_records_says_what_to_run(tmp_path, capsys):
    assert main(["table", "--out", str(tmp_path / "none")]) == 1
    assert "No records below" in capsys.readouterr().err


def test_the_list_of_all_runs_names_what_exists():
    for line in OmegaConf.load(sweep.LIST).runs:
        given = dict(word.split("=") for word in line.split())
        assert given["protocol"] in PROTOCOLS
        assert (CONFIGS / "method" / f"{given['method']}.yaml").is_file()
        assert (CONFIGS / "dataset" / f"{given['dataset']}.yaml").is_file()


def test_folds_can_be_asked_for_in_a_list():
    folds = choose("A").folds_of(5, dataset="toy")
    assert [fold.name for fold in choose_folds(folds, ["1", 3])] == ["1", "3"]
    assert Path(table.PUBLISHED).is_file()


# Speed


def test_a_race_is_decided_by_the_first_checkpoint_that_reaches_the_target():
    rows = [
        {"method": "quick", "fold": fold, "seed": 42, "steps": steps, "seconds": seconds, "W1": value}
        for steps, seconds, values in ((10, 1.0, (0.9, 0.7)), (20, 2.0, (0.85, 0.7)), (40, 4.0, (0.7, 0.6)))
        for fold, value in zip("12", values, strict=True)
    ] + [{"method": "never", "fold": fold, "seed": 42, "steps": 10, "seconds": 9.0, "W1": 0.9} for fold in "12"]
    found = speed.verdict(pd.DataFrame(rows)).set_index("method")
    assert found.loc["quick", "first fold"] == 4.0
    assert found.loc["quick", "mean of folds"] == 1.0
    assert np.isnan(found.loc["never", "first fold"])
    other = [row | {"seed": 43, "W1": 0.95 if row["steps"] < 40 else 0.85} for row in rows if row["method"] == "quick"]
    both = speed.verdict(pd.DataFrame(rows + other)).set_index("method")
    assert both.loc["quick", "first fold"] == 4.0  # (0.7 + 0.85) / 2
    assert both.loc["quick", "mean of folds"] == 4.0  # after one second it is (0.9 + 0.7 + 2 * 0.95) / 4


def test_ratios_are_to_the_peer_or_to_the_whole_of_its_training():
    columns = ["method", "first fold", "mean of folds", "trained at most"]
    values = [["quick", 2.0, 4.0, 9.0], ["slow", np.nan, 40.0, 90.0], [speed.PEER, np.nan, 60.0, 100.0]]
    found = speed.sooner(pd.DataFrame(values, columns=columns))
    first, mean = (
        "more than 50 times as fast as torchcfm on the first fold",
        "as fast as torchcfm on the mean of folds",
    )
    assert found == [f"quick: {first}, 15 times {mean}.", f"slow: 1.5 times {mean}."]
    assert speed.sooner(pd.DataFrame(values[:2], columns=columns)) == []


def test_every_contender_is_scored_on_every_fold(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "TARGET", 0.0)  # so that nobody is there early
    cells = make_cells(n=170, times=(0.0, 1.0, 3.0, 4.0))
    rows = speed.race(cells, {"otcfm": (1, 2)}, (2, 3))
    there = importlib.util.find_spec("torchcfm") is not None
    assert ("skipped torchcfm" in capsys.readouterr().out) != there
    assert set(rows["method"]) == {"otcfm"} | ({"torchcfm (published settings)"} if there else set())
    assert (rows.groupby("method").size() == 2 * 2 * len(speed.SEEDS)).all()  # folds, budgets, seeds
    assert (rows.groupby(["fold", "seed"]).size() == 2 * rows["method"].nunique()).all()
    assert (rows["seconds"] > 0).all()
    speed.write(rows, "here", tmp_path)
    assert "not reached" in (tmp_path / "trajectory_speed.md").read_text()


def test_every_flow_of_a_contender_takes_the_steps_of_its_budget():
    assert speed.method_of("otcfm")(7).flow.keywords["steps"] == 7
    assert speed.method_of("otcfm_published")(7).steps == 7
    with pytest.raises(ValueError, match="Unknown method 'none'. Choose from: .*'otcfm'"):
        speed.method_of("none")


def test_weighings_have_the_masses_of_either_side_or_lie_between():
    plan = np.random.default_rng(0).uniform(size=(4, 6)) ** 3
    found = masses.weighings(plan)
    assert list(found) == list(masses.NAMES)
    assert all(weights.sum() == pytest.approx(1) for weights in found.values())
    assert found["the plan"] == pytest.approx(plan / plan.sum())
    assert found["cells before"].sum(axis=1) == pytest.approx(np.full(4, 1 / 4))
    assert found["cells after"].sum(axis=0) == pytest.approx(np.full(6, 1 / 6))
    even = masses.weighings(np.full((4, 6), 1 / 24))  # a balanced plan: nobody's masses differ
    assert all(weights == pytest.approx(np.full((4, 6), 1 / 24)) for weights in even.values())


def test_the_page_of_masses_marks_the_best_of_each_fold():
    text = masses.page({"a | one": [1.0, 3.0], "a | two": [2.0, 2.5]}, "here")
    assert "| a | one | **1.000** | 3.000 | 2.000 |" in text
    assert "| a | two | 2.000 | **2.500** | 2.250 |" in text
    assert "mean 1.750" in text
