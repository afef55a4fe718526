"""Scores of the trajectory benchmark: distances with honest intervals, masses, the motion itself."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
from benchmark_cases import TIMES, Drift, Shift, job, make_cells, measured, quiet
from hydra.utils import instantiate
from omegaconf import OmegaConf
from scipy.spatial.distance import cdist

import cellflow as cf
from benchmarks.studies import masses
from benchmarks.trajectory import scores, table
from benchmarks.trajectory.methods import Flow, Pace, Particles, RollOut, Training
from benchmarks.trajectory.run import run
from benchmarks.trajectory.sets import Truths
from benchmarks.trajectory.settings import CONFIGS
from cellflow.integrate import Fixed, Noisy

pytestmark = pytest.mark.usefixtures("global_state_is_untouched")


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
    row = measured(run(job(tmp_path, "A", cells, Drift(growth=0.1)), quiet))[0]
    assert row["weighted_W1"] == pytest.approx(row["W1"])  # every particle weighs the same
    assert "RME" not in row


def test_mass_errors_are_relative_to_the_true_growth(tmp_path):
    cells = make_cells(n=40, growing=True)
    rows = measured(run(job(tmp_path, "F", cells, Drift(growth=0.1)), quiet))
    for k, row in enumerate(rows, start=1):
        assert row["true_mass"] == pytest.approx((40 + 10 * k) / 40)
        assert row["mass"] == pytest.approx(np.exp(0.1 * TIMES[k]))
        assert row["RME"] == pytest.approx(abs(row["mass"] - row["true_mass"]) / row["true_mass"])
    kept = measured(run(job(tmp_path, "F", cells, Drift(), name="mass kept"), quiet))
    assert [row["mass"] for row in kept] == [1.0] * 4


def test_states_that_are_not_finite_are_refused(tmp_path):
    @dataclass(frozen=True)
    class Lost:
        def fit(self, training, *, seed):
            return RollOut(lambda x, start, stop: Particles(x * np.nan))

    with pytest.raises(FloatingPointError, match="snapshot 1"):
        run(job(tmp_path, method=Lost()), quiet)


@pytest.mark.parametrize("growth", [0.0, 0.4, -0.7])
def test_the_action_of_steady_motion_and_growth_is_known(growth):
    """Half of (speed^2 + length^2 growth^2), times the integral of exp(growth t) over the time."""
    speed, start, stop, length = 3.0, 1.0, 3.0, 1.5

    def rates(x, time):
        return Pace(np.tile([speed, 0.0], (len(x), 1)), np.full(len(x), growth))

    mass = stop - start if growth == 0 else (np.exp(growth * (stop - start)) - 1) / growth
    found = scores.path_action(rates, np.zeros((7, 2)), start, stop, length=length)
    assert found == pytest.approx((speed**2 + (length * growth) ** 2) / 2 * mass, rel=1e-6)


def test_the_action_follows_the_particles_and_their_weights():
    """Each particle runs away from 0 at a speed equal to its place; those at 2 also multiply, evenly in time."""
    x = np.array([[1.0], [2.0]])
    found = scores.path_action(lambda x, time: Pace(x), x, 0.0, 1.0, length=1.0)
    assert found == pytest.approx((1 + 4) / 2 * (np.exp(2) - 1) / 4, rel=1e-6)

    def still(x, time):
        return Pace(np.zeros_like(x), np.where(x[:, 0] > 1.5, 2 * time, 0.0))

    # Weight exp(t^2) / 2, growth 2 t: the integral of exp(t^2) t^2, by quadrature.
    t = np.linspace(0, 1, 20001)
    expected = np.trapezoid(np.exp(t**2) * t**2, t)
    assert scores.path_action(still, x, 0.0, 1.0, length=1.0) == pytest.approx(expected, rel=1e-6)


def test_motion_is_scored_where_the_protocol_has_weights_and_the_data_a_truth(tmp_path):
    cells = replace(make_cells(dim=2), truths=Truths(growth=lambda x: x[:, 1], length=2.0))
    method = Shift(growth=lambda x, time: 3 * x[:, 1] - 1)

    def motion(*given, **options):
        """The same in the rows of all targets of a fold."""
        rows = measured(run(job(tmp_path, *given, **options), quiet))
        found = [{name: row[name] for name in ("action", "length", "growth_r") if name in row} for row in rows]
        assert all(one == found[0] for one, row in zip(found, rows, strict=True) if row["fold"] == rows[0]["fold"])
        return found[0]

    assert motion("A", cells, method) == {}
    for name in ("F", "F-holdout"):
        assert motion(name, cells, method)["growth_r"] == pytest.approx(1.0)
    kept = motion("F", cells, Shift(), name="kept")
    assert kept == {"action": pytest.approx(2 * 0.5**2 / 2 * TIMES[-1]), "length": 2.0}
    assert motion("F", make_cells(dim=2), method, out=tmp_path / "unknown") == {}
    assert motion("F", cells, name="no rates") == {}


def test_a_growth_correlation_takes_every_cell_at_its_own_time(tmp_path):
    """Growth that is right at one time and wrong at the others is no more than partly right."""
    cells = replace(make_cells(dim=2), truths=Truths(growth=lambda x: x[:, 1]))
    once = Shift(growth=lambda x, time: x[:, 1] * (1 if time == TIMES[0] else -1))
    found = measured(run(job(tmp_path, "F", cells, once), quiet))[0]["growth_r"]
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
    found = Flow(partial(cf.SnapshotFlow, coupling=coupling, **learned), solver=Fixed("euler", steps=4)).fit(
        Training(clouds, (0.0, 1.0, 3.0)), seed=0
    )
    step = 1e-2
    pace, moved = found.rates(clouds[1], 1.5), found.carry(clouds[1], 1.5, 1.5 + step)
    assert (moved.x - clouds[1]) / step == pytest.approx(pace.velocity, abs=0.05)
    assert np.log(moved.weight * 60) / step == pytest.approx(pace.growth, abs=0.05)
    assert np.abs(pace.velocity).mean() > 0.5
    kept = Flow(partial(cf.SnapshotFlow, coupling="exact", steps=3, batch_size=8, device="cpu"))
    assert kept.fit(Training(clouds, (0.0, 1.0, 3.0)), seed=0).rates(clouds[0], 0.0).growth is None
    noise = {"path": cf.paths.BrownianBridge(1.0), "stochastic": True, "steps": 3, "batch_size": 8, "device": "cpu"}
    bridge = Flow(partial(cf.SnapshotFlow, **noise), solver=Noisy())
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
    lines = masses.text({"a | one": [1.0, 3.0], "a | two": [2.0, 2.5]}, "here")
    assert "| a | one | **1.000** | 3.000 | 2.000 |" in lines
    assert "| a | two | 2.000 | **2.500** | 2.250 |" in lines
    assert lines[-1].endswith("mean 1.750.")
