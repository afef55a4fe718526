"""Seconds and memory at scale: what a watch sees, what becomes of a case that fails, and every subject's cases."""

import inspect
import json

import numpy as np
import pytest

from benchmarks.rows import Table
from benchmarks.scale import __main__ as scale
from benchmarks.scale import parts, steps
from benchmarks.scale.case import Case, Watch

TINY = {"points": 50, "dim": 2, "count": 2, "batch": 8}


def test_a_watch_sees_memory_that_came_within_it_and_is_gone_again():
    before = np.ones(2**24)  # 1/8 GiB
    watch = Watch()
    with watch:
        np.ones(2**25).sum()
    assert 0.24 < watch.row["above_gib"] < 0.35
    assert watch.row["peak_gib"] > watch.row["above_gib"] + before.nbytes / 2**30
    with pytest.raises(RuntimeError, match="measures one thing"), watch:
        pass


def test_rows_are_measured_once_each_in_its_process_and_failures_again(tmp_path, monkeypatch):
    cases = [
        Case(steps.steps, TINY, "tiny", reach="soon"),
        Case(steps.steps, TINY | {"points": -5}, "impossible"),
        Case(steps.steps, TINY, "too late", limit=0.01),
    ]
    monkeypatch.setattr(steps, "CASES", {"small": cases})
    scale.main(["steps", f"out={tmp_path}"])
    rows = {row["problem"]: row for row in Table(tmp_path / "scale.csv", scale.KEY).read()}
    assert rows["tiny"]["failed"] is None
    assert rows["tiny"]["seconds"] > 0
    assert (rows["impossible"]["failed"], rows["too late"]["failed"]) == ("exit code 1", "ended after 0.01 s")
    assert rows["impossible"]["seconds"] is None
    assert "| soon |" in (tmp_path / "scale.md").read_text()
    asked: list[str] = []
    monkeypatch.setattr(scale, "measured", lambda case: asked.append(case.problem) or rows[case.problem])
    scale.main(["steps", f"out={tmp_path}"])
    assert asked == ["impossible", "too late"]
    cases[0] = Case(steps.steps, TINY | {"count": 3}, "tiny")  # of other settings
    scale.main(["steps", f"out={tmp_path}"])
    assert asked[2:] == ["tiny", "impossible", "too late"]
    with pytest.raises(ValueError, match="two sizes"):
        scale.main([f"out={tmp_path}", "size=full"])


@pytest.mark.parametrize("subject", scale.SUBJECTS)
@pytest.mark.parametrize("size", ["small", "full"])
def test_cases_have_names_of_their_own_and_settings_that_their_functions_take(subject, size):
    cases = scale.cases_of(subject, size)
    assert len({tuple(case.key.values()) for case in cases}) == len(cases) > 0
    for case in cases:
        assert case.key["subject"] == subject
        inspect.signature(case.act).bind(Watch(), **json.loads(json.dumps(dict(case.settings))))


def test_parts_of_a_step_are_told_apart():
    (case,) = parts.CASES["small"]
    found = case.act(watch := Watch(), **case.settings)
    assert watch.row["seconds"] > 0
    assert {"matrix products, ms", "forward and backward, ms", "fused optimiser, ms", "batch, ms"} <= set(found)
    assert all(value >= 0 for value in found.values())
