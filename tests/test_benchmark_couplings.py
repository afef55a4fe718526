"""The benchmark of where cells go: published scores again, closed forms, and flows that need no plans."""

import numpy as np
import pytest
import torch

from benchmarks.couplings import __main__ as command
from benchmarks.couplings import sets, table
from benchmarks.couplings.course import Coupled, Course, Landed
from benchmarks.couplings.methods import ABLATIONS, METHODS, Flow, Static
from benchmarks.couplings.plans import COSTS, Matched
from benchmarks.rows import Table
from cellflow.couplings import DensePlan


@pytest.mark.parametrize(
    ("method", "own"),
    [("not moving", 0.885), ("exact plan", 0.820), ("unbalanced plan, 1 x travel", 0.886),
     ("exact, 0.5 of the way", 0.863)],
)  # fmt: skip
def test_scores_of_static_plans_on_clones_are_those_that_were_measured_elsewhere(method, own):
    row = sets.hematopoiesis(METHODS[method], 0)
    assert row["own_state"] == pytest.approx(own, abs=6e-4)
    assert row["own_state_low"] < own < row["own_state_high"]
    assert (row["travel"] == 0) == (method == "not moving")


def test_a_balanced_plan_carries_half_of_the_movers_across_and_an_unbalanced_one_reads_their_growth():
    case = {"apart": 14, "moved": 2, "grown": 3}
    balanced = sets.gaussians(METHODS["exact plan"], 0, **case)
    unbalanced = sets.gaussians(METHODS["unbalanced plan, 1 x travel"], 0, **case)
    assert balanced["crossed"] == pytest.approx(0.5, abs=1e-6)
    assert balanced["log_rate"] == pytest.approx(0, abs=1e-6)
    assert unbalanced["crossed"] < 0.01
    assert unbalanced["log_rate"] == pytest.approx(np.log(3), abs=0.02)


def test_descendants_are_followed_through_plans_with_their_masses():
    """Two cells, of which the first doubles in the first interval and the second in the next one."""
    first = DensePlan(torch.tensor([[0.3, 0.3, 0.0], [0.0, 0.0, 0.4]]))  # columns of 1/3 each: 2/3 and 1/3 of the mass
    second = DensePlan(torch.tensor([[0.25, 0, 0, 0], [0, 0.25, 0, 0], [0, 0, 0.25, 0.25]]))
    later = np.array([[0.0], [1.0], [5.0], [7.0]])
    motion = Coupled([first, second], np.array([[0.0], [5.0]]), later)
    # In units of the mean cell: 2 x 2/3 after the first interval, then 3/4 of that; 2/3, then 3/2 of that.
    assert motion.mass == pytest.approx([4 / 3 * 3 / 4, 2 / 3 * 3 / 2])
    assert motion.landing[:, 0] == pytest.approx([0.5, 6.0])
    assert Coupled([first, second], np.array([[0.0], [5.0]]), later, way=0.5).landing[:, 0] == pytest.approx(
        [0.25, 5.5]
    )


def test_cells_without_descendants_stay_and_have_no_mass():
    plan = DensePlan(torch.tensor([[0.5, 0.5], [0.0, 0.0]]))
    motion = Coupled([plan], np.array([[0.0], [9.0]]), np.array([[0.0], [2.0]]))
    assert motion.landing[:, 0] == pytest.approx([1.0, 9.0])
    assert motion.mass == pytest.approx([2.0, 0.0])
    assert (motion.mean(np.ones((2, 1)))[:, 0] == [1.0, 0.0]).all()


def toy(labels=True):
    rng = np.random.default_rng(0)
    clouds = tuple(rng.normal((3 * k, 0), size=(40 + 10 * k, 2)) for k in range(3))
    return Course(
        "toy", clouds, (0.0, 1.0, 4.0), tuple(np.where(c[:, 1] > 0, "a", "b") for c in clouds) if labels else None
    )


@pytest.mark.parametrize("method", [name for name in METHODS if not isinstance(METHODS[name], Flow)])
def test_every_static_method_says_where_all_cells_go(method):
    course = toy()
    motion = METHODS[method].fit(course, seed=0).motion(0, 2)
    assert motion.landing.shape == (40, 2)
    assert np.isfinite(motion.landing).all()
    assert motion.mass.min() >= 0
    if not method.startswith("partial"):
        assert motion.mass.mean() == pytest.approx(1, abs=0.3)


def test_predictions_of_a_flow_come_from_its_field_alone():
    """Without its plans it says the same; with another field it does not."""
    fitted = Flow({"steps": 30, "batch_size": 32}).fit(toy(), seed=0)
    before = fitted.motion(0, 2)
    del fitted.flow.plans_
    after = fitted.motion(0, 2)
    np.testing.assert_array_equal(after.landing, before.landing)
    np.testing.assert_array_equal(after.mass, before.mass)
    with torch.no_grad():
        next(iter(fitted.flow.field_.parameters())).mul_(2)
    assert not np.allclose(fitted.motion(0, 2).landing, before.landing)


def test_methods_do_not_see_labels_unless_they_say_so():
    class Blind(Course):
        @property
        def labels(self):
            pytest.fail("labels were read")

    course = toy()
    blind = object.__new__(Blind)
    for name in ("name", "clouds", "times"):
        object.__setattr__(blind, name, getattr(course, name))
    for name, method in METHODS.items():
        if not name.startswith("label-aware") and not isinstance(method, Flow):
            method.fit(blind, seed=0).motion(0, 1)
    assert set(blind.adata().obs) == {"time"}
    with pytest.raises(ValueError, match="has no labels"):
        Matched(cost="label-aware")(toy(labels=False), 0)


def test_paths_of_the_graph_go_around_what_is_empty():
    """Of a ring that is open on one side the two ends are far from each other."""
    angle = np.linspace(0, 1.6 * np.pi, 80)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    course = Course("ring", (ring[:1], ring[1:]), (0.0, 1.0))
    assert COSTS["squared distance"](course, 0)[0, -1] < 1.5
    assert COSTS["geodesic"](course, 0)[0, -1] > 20


def test_landed_cells_are_read_from_their_neighbours():
    later = np.array([[0.0], [0.1], [5.0]])
    motion = Landed(np.array([[0.0]]), later, mass=[2.0])
    assert motion.descendants(np.array([[3.0], [0.0], [0.0]])) == pytest.approx(np.array([[2.0]]))  # of all three


def test_rows_are_measured_once_and_shown(tmp_path, monkeypatch, capsys):
    measured = []

    def score(method, seed):
        measured.append(method)
        return {"own_state": 0.5, "own_state_low": 0.4, "own_state_high": 0.6, "W1": 1.0}

    monkeypatch.setitem(sets.SETS, "hematopoiesis", score)
    words = ["--set", "hematopoiesis", "--method", "not moving,exact plan", f"out={tmp_path}"]
    command.main(words)
    command.main(words)
    assert len(measured) == 2
    command.main([*words, "--again"])
    assert len(measured) == 4
    page = (tmp_path / "couplings.md").read_text()
    assert "| exact plan | 0.5 [0.4, 0.6] |" in page
    assert "Own state" in page
    assert "| method |" in capsys.readouterr().out
    assert len(Table(tmp_path / "couplings.csv", ("set", "method", "seed")).read()) == 2


def test_other_settings_are_another_row(tmp_path, monkeypatch):
    measured = []
    monkeypatch.setitem(sets.SETS, "hematopoiesis", lambda method, seed: measured.append(method) or {"own_state": 0.5})
    rows = Table(tmp_path / "couplings.csv", ("set", "method", "seed"))
    for matching in (Matched(epsilon=0.1), Matched(epsilon=0.1), Matched(epsilon=0.2)):
        monkeypatch.setitem(METHODS, "exact plan", Static(matching))
        command.once(rows, "hematopoiesis", "exact plan", 0, again=False)
    assert len(measured) == 2
    assert repr(Flow({"steps": 5})) != repr(Flow()) == repr(Flow({"steps": 3000}))


def test_the_page_has_a_text_for_each_table_and_the_worst_of_all_cases():
    rows = [
        {"set": f"gaussians {a}-{m}-{g}", "method": "exact plan", "seed": 0, "apart": a, "crossed": g / 10,
         "log_rate_error": -m / 10}
        for a, m, g in sets.CASES
    ]  # fmt: skip
    lines = table.text(rows, "here")
    assert "| exact plan | 0.300 | 0.300 | -1.000 | -1.000 |" in lines
    assert [line for line in lines if line.startswith("## ")] == ["## Two groups, of which one grows"]
    assert not [name for name in ABLATIONS if name not in METHODS]
    assert {name.split(" ")[0] for name in sets.SETS} == {name.split(" ")[0] for name in table.COLUMNS}


@pytest.mark.parametrize("name", ["dyngen", "gene circuit", "nfkb", "branching"])
def test_every_small_set_scores_cells_that_do_not_move(name, data_folder, monkeypatch):
    monkeypatch.setenv("CELLFLOW_DATA", str(data_folder))
    row = sets.SETS[name](METHODS["not moving"], 0)
    if name == "nfkb":
        assert row["kept_0"] == pytest.approx(1)
        assert row["own_100"] == pytest.approx(row["truth_100"]) == pytest.approx(-0.2, abs=0.01)
    else:
        assert row["travel"] == 0
        assert row["W1"] > 0
