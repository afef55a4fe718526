"""The benchmark of fates: who is scored by clones, plans and flows in closed form, and a missing CellRank."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.couplings.course import Course
from benchmarks.fate import __main__ as command
from benchmarks.fate import cellrank_rows, methods
from benchmarks.fate.sets import SETS, Case
from benchmarks.rows import Table


@pytest.fixture
def lanes():
    """Cells in two lanes of three days, of which the second has moved past where the first began."""
    draw = np.random.default_rng(0)
    lane = np.repeat([0.0, 4.0], 30)
    clouds = tuple(np.column_stack([np.full(60, 3.0 * day), lane + 3.0 * day]) for day in range(3))
    clouds = tuple(cloud + 0.1 * draw.normal(size=cloud.shape) for cloud in clouds)
    ends = np.where(lane > 0, "second", "first")
    asked = (np.arange(60), np.arange(10))

    def score(shares):
        truth = np.concatenate([ends, ends[:10]])[:, None] == np.array(["first", "second"])
        return {"overlap": float(np.minimum(shares, truth).sum(axis=1).mean()), "overlap_low": 0, "overlap_high": 1}

    return Case(Course("lanes", clouds, (0.0, 1.0, 2.0)), ends, ("first", "second"), asked, score)


def test_plans_and_flows_keep_lanes_that_cells_who_stay_mix_up(lanes, monkeypatch):
    monkeypatch.setattr(methods, "SAMPLES", 10)
    found = {}
    for name in ("not moving", "exact plan", "flow, exact", "bridge, not regularized"):
        method = methods.METHODS[name]
        if isinstance(method, methods.Flow):
            method = replace(method, settings={**method.settings, "steps": 120, "batch_size": 64, "device": "cpu"})
        shares = method.shares(lanes, seed=0)
        assert shares.shape == (70, 2)
        assert shares.sum(axis=1) == pytest.approx(1)
        found[name] = lanes.score(shares)["overlap"]
    assert found["not moving"] < 0.65
    assert found["exact plan"] == pytest.approx(1)
    assert found["flow, exact"] > 0.9
    assert found["bridge, not regularized"] > 0.9


def test_a_missing_cellrank_is_said_and_leaves_no_row(lanes, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(SETS, "clones", lambda cells: lanes)
    monkeypatch.setenv(cellrank_rows.PYTHON, str(tmp_path / "nowhere"))
    asked = ["set=clones", "method=not moving,exact plan,CellRank, auto plan", f"out={tmp_path}"]
    command.main(asked)
    assert "CellRank needs its own environment" in capsys.readouterr().out
    rows = Table(tmp_path / "fates.csv", ()).read()
    assert [row["method"] for row in rows] == ["not moving", "exact plan"]
    page = (tmp_path / "fates.md").read_text()
    assert "| exact plan | 1 [0, 1] |" in page
    command.main(asked)
    assert Table(tmp_path / "fates.csv", ()).read() == rows  # not measured again


def test_clones_are_asked_of_cells_in_the_order_of_the_snapshots():
    case = SETS["clones"](0)
    assert [len(asked) for asked in case.asked] == [len(cloud) for cloud in case.course.clouds[:-1]]
    random = case.score(np.full((sum(map(len, case.asked)), len(case.names)), 1 / len(case.names)))
    static = case.score(methods.METHODS["auto plan"].shares(case, seed=0))
    assert static["overlap"] > random["overlap"] + 0.1
