"""The speed benchmarks: what a race decides, and every entry at toy size."""

import importlib.util
import json

import numpy as np
import pandas as pd
import pytest
import torch
from benchmark_cases import make_cells

from benchmarks.rows import Table
from benchmarks.speed import images, perturbation, toys, training
from benchmarks.speed import trajectory as speed
from benchmarks.trajectory.settings import load


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


def test_every_contender_is_scored_on_every_fold(capsys, monkeypatch):
    monkeypatch.setattr(speed, "TARGET", 0.0)  # so that nobody is there early
    cells = make_cells(n=170, times=(0.0, 1.0, 3.0, 4.0))
    rows = pd.DataFrame(speed.measure(cells, {"otcfm": (1, 2)}, (2, 3)))
    there = importlib.util.find_spec("torchcfm") is not None
    assert ("skipped torchcfm" in capsys.readouterr().out) != there
    assert set(rows["method"]) == {"otcfm"} | ({"torchcfm (published settings)"} if there else set())
    assert (rows.groupby("method").size() == 2 * 2 * len(speed.SEEDS)).all()  # folds, budgets, seeds
    assert (rows.groupby(["fold", "seed"]).size() == 2 * rows["method"].nunique()).all()
    assert (rows["seconds"] > 0).all()
    assert "not reached" in "\n".join(speed.text(rows, "here"))


def test_every_flow_of_a_contender_takes_the_steps_of_its_budget():
    made = load("method", "otcfm", steps=7)
    assert (made.flow.keywords["steps"], made.solver.steps) == (7, 100)
    assert load("method", "otcfm_published", steps=7).steps == 7
    with pytest.raises(ValueError, match="Unknown method 'none'. Choose from: .*'otcfm'"):
        load("method", "none")


def test_a_seed_ends_where_it_first_reaches_the_goal():
    rows = [
        {"method": "cellflow OT-CFM", "seed": seed, "steps": steps, "seconds": steps / 10.0, "W2": w2}
        for seed, scores in ((42, (0.9, 0.5, 0.4)), (43, (0.5, 0.7, 0.3)))
        for steps, w2 in zip((50, 100, 200), scores, strict=True)
    ]
    rows += [row | {"method": "torchcfm OT-CFM", "seconds": 10 * row["seconds"], "W2": 0.8} for row in rows]
    lines = toys.text(rows, (50, 100, 200), seeds=2)
    assert "| cellflow OT-CFM | 75 | 7.5 | 0.500 | more than 26.7 |" in lines
    assert "| torchcfm OT-CFM | 200 (not reached) | 200.0 | 0.800 |  |" in lines


def test_steps_plans_and_imports_are_timed(tmp_path, monkeypatch):
    def alone(command, **_):  # here rather than in a process of its own, which would import torch again
        *_, last = command
        asked = [int(n) for n in last.removeprefix("one_plan=").split(",")] if last.startswith("one_plan") else []
        return json.dumps(training.one_plan(*asked) if asked else 0.25)

    monkeypatch.setattr(training.subprocess, "check_output", alone)
    training.main(["rounds=1", "steps=2", "cells=64", "plans=40", f"--out={tmp_path}"])
    rows = Table(tmp_path / "speed.csv", ("kind", "what")).read()
    kinds = [row["kind"] for row in rows]
    assert kinds[0] == "import"
    assert {"training", "ratio of speeds", "one plan", "peak memory"} <= set(kinds)
    assert [row["what"] for row in rows if row["kind"] == "one plan"] == ["exact plan, 40 x 40", "exact plan, 40 x 45"]
    assert all(row["value"] > 0 for row in rows)
    assert "5 snapshots of 64 cells, 50 dimensions" in (tmp_path / "speed.md").read_text()


def test_images_per_second_are_measured_in_turn(tmp_path, monkeypatch):
    tiny = images.Size(channels=1, pixels=8, batch=2, width=32, multipliers=(1, 2), blocks=1, heads=1)
    monkeypatch.setitem(images.SIZES, "small", tiny)
    images.main(["size=small", "rounds=1", "repeats=1", f"out={tmp_path}"])
    rows = Table(tmp_path / "image_speed_small.csv", ("mode", "network", "task")).read()
    assert [(row["network"], row["task"]) for row in rows if row["network"] == "cellflow"] == [
        ("cellflow", "train"), ("cellflow", "sample"),
    ]  # fmt: skip
    assert all(row["images_per_second"] > 0 for row in rows)
    assert {row["ours_against_it"] for row in rows if row["network"] == "cellflow"} == {1.0}
    assert "Images 1 x 8 x 8, batch 2" in (tmp_path / "image_speed_small.md").read_text()


def test_our_quickest_mode_is_compared_with_the_quickest_of_the_others():
    def row(mode, network, task, rate):
        return {"mode": mode, "network": network, "task": task, "images_per_second": rate}

    rows = [row("plain", "cellflow", "train", 10.0), row("quick", "cellflow", "train", 30.0)]
    assert list(images.best_of(rows)) == []
    rows += [row("plain", "torchcfm", "train", 9.0), row("plain", "diffusers", "train", 12.0)]
    assert list(images.best_of(rows)) == [
        "- train: ours at its best (quick) is 2.5 times diffusers at its best (plain)."
    ]


def test_what_is_added_to_images_per_second_one_by_one(tmp_path, monkeypatch):
    """On a chip whose peak is known; in modes that a CPU has too."""
    tiny = images.Size(channels=1, pixels=8, batch=2, width=32, multipliers=(1, 2), blocks=1, heads=1)
    made, real = [], images.Contender

    def contender(*given):
        made.append(real(*given))
        return made[-1]

    monkeypatch.setitem(images.SIZES, "small", tiny)
    monkeypatch.setattr(images, "NETWORKS", {"cellflow": images.ours, "torchcfm": images.ours})
    monkeypatch.setattr(images.peers, "is_there", lambda name: True)
    monkeypatch.setattr(images, "Contender", contender)
    monkeypatch.setattr(images, "peak_of", lambda device: 1e9)
    words = ["size=small", "rounds=1", "repeats=1", f"out={tmp_path}"]
    monkeypatch.setattr(images, "ON_A_CPU", images.MODES[:2])
    images.main(words)
    monkeypatch.setattr(images, "ON_A_CPU", images.MODES[:3])
    images.main(words)  # goes on with the third
    assert [one.optimizer.defaults["fused"] for one in made] == [False, False, True, True, True, True]
    assert [one.bf16 for one in made] == [False] * 4 + [True] * 2
    table = Table(tmp_path / "image_speed_small.csv", ("mode", "network", "task"))
    rows = table.read()
    assert len(rows) == 3 * 2 * 2
    for row in rows:
        done = row["images_per_second"] * images.operations(row["network"], row["task"], tiny)
        assert row["share_of_peak"] == pytest.approx(done / 1e9, rel=1e-3)
        assert "CPU" in row["device"]
    assert images.operations("cellflow", "train", tiny) > 2 * images.operations("cellflow", "sample", tiny)
    table.put(*(row for row in rows if (row["mode"], row["network"]) != ("bf16", "torchcfm")), whole=True)
    images.main(words)
    assert len(made) == 8  # ours again, beside the one that was missing
    assert len(table.read()) == len(rows)
    table.put(*(row | {"device": "another"} for row in rows))
    images.main(words)
    assert {row["device"] for row in table.read()} == {rows[0]["device"]}


def test_rows_of_a_package_that_is_gone_keep_their_page(tmp_path, monkeypatch):
    """A run goes on where torchcfm is no longer installed: its rows stay, and the page names it without a version."""
    tiny = images.Size(channels=1, pixels=8, batch=2, width=32, multipliers=(1, 2), blocks=1, heads=1)
    monkeypatch.setitem(images.SIZES, "small", tiny)
    monkeypatch.setattr(images, "NETWORKS", {"cellflow": images.ours, "torchcfm": images.ours})
    monkeypatch.setattr(images, "OTHERS", ("torchcfm", "not-a-package"))
    words = ["size=small", "rounds=1", "repeats=1", f"out={tmp_path}"]
    monkeypatch.setattr(images.peers, "is_there", lambda name: True)
    images.main(words)
    table = Table(tmp_path / "image_speed_small.csv", ("mode", "network", "task"))
    table.put(*(row | {"network": "not-a-package"} for row in table.read() if row["network"] == "torchcfm"))
    monkeypatch.setattr(images.peers, "is_there", lambda name: name == "cellflow")
    images.main(words)
    assert {row["network"] for row in table.read()} == {"cellflow", "torchcfm", "not-a-package"}
    page = (tmp_path / "image_speed_small.md").read_text()
    assert f"torch {torch.__version__}" in page
    assert ", not-a-package" in page


def test_conditions_are_measured_at_toy_size(tmp_path):
    words = [f"out={tmp_path}", "conditions=3", "cells=20", "controls=30", "rounds=1", "steps=2", "asked=40,2"]
    perturbation.main(words)
    rows = {row["what"]: row["value"] for row in Table(tmp_path / "perturbation_speed.csv", ()).read()}
    assert rows["step at 3 conditions / step without"] > 0
    assert {"step at 3 conditions", "perturb, 40 cells x 2 conditions", "perturb, memory"} < set(rows)
    assert "| step at 3 conditions |" in (tmp_path / "perturbation_speed.md").read_text()
