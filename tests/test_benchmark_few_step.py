"""The few-step benchmark: scores against closed forms, every method gives a row, the page and the figure."""

import math
import time
from dataclasses import replace

import pytest
import torch

from benchmarks.command import guarded
from benchmarks.few_step import __main__ as command
from benchmarks.few_step import curves, plane
from benchmarks.few_step.curves import JUMPS, Bench, rows
from benchmarks.rows import Table

TINY = plane.Size(steps=2, batch=16, width=8, depth=1, origins=32)


def test_the_board_is_where_it_should_be(rng):
    x = plane.target("checkerboard", 4000, rng)
    assert x.abs().max() <= 1
    square = ((x + 1) * 2).long().clamp(0, 3)
    assert (square.sum(dim=1) % 2 == 0).all()


def test_divergence_is_that_of_the_histograms(rng):
    data = plane.target("checkerboard", 20_000, rng)
    assert plane.divergence(data, data) == pytest.approx(0, abs=1e-12)
    # Data on one of two halves, samples on both: KL is log 2 where bins are full.
    half = torch.rand(200_000, 2, generator=rng) * torch.tensor([1.0, 2.0]) - 1
    both = torch.rand(200_000, 2, generator=rng) * 2 - 1
    assert plane.divergence(both, half) == pytest.approx(math.log(2), abs=0.05)


@pytest.mark.parametrize("task", ["gaussians", "checkerboard"])
def test_every_method_gives_a_row(task, monkeypatch):
    monkeypatch.setattr(plane, "SAMPLES", {task: 64})
    bench = plane.bench(task, TINY, torch.device("cpu"), seed=0)
    found = list(rows(bench, plane.METHODS, time.process_time))
    maps = [name for name in plane.METHODS if name != plane.REFLOW]
    assert [row["method"] for row in found][4:] == maps
    assert all(row["method"].startswith(("velocity, ", plane.REFLOW)) for row in found[:4])
    for row in found:
        assert all(math.isfinite(row[f"at_{k}"]) for k in JUMPS)
        assert math.isfinite(row["semigroup"]) == (row["method"] in maps)


def test_the_page_holds_means_and_published_rows(tmp_path):
    row = {"method": "map", "seed": 0, "seconds": 2.0, "semigroup": 0.5, "device": "abacus"}
    row |= {f"at_{k}": 1.0 / k for k in JUMPS}
    table = Table(tmp_path / "few_step_toy.csv", ("method", "seed"))
    for seed, better in ((0, 1.0), (1, 3.0), (0, 2.0)):  # the first is measured again, and gives way
        table.put(row | {"seed": seed, "at_1": better})
    table.put(row | {"method": "flow, 100 evaluations", "semigroup": float("nan")})
    curve = curves.Curve(
        "few_step_toy", "toy", "W1", "small", ["Small."], best=0.1,
        published={"theirs": [9.0, 8.0, 7.0, 6.0, 5.5], "another": [0.25]}, controls={"noise": 0.09, "blurred": 2.0},
    )  # fmt: skip
    lines = curve.text(table.read(), "python")
    assert any(line.startswith("| map | 2 | 2.5 (0.71) |") for line in lines)
    assert "| published: theirs |  | 9.0000 | 8.0000 | 7.0000 | 6.0000 | 5.5000 |  |  |" in lines
    assert "| published: another |  |  |  |  |  | 0.2500 |  |  |" in lines
    assert "Run on: abacus." in lines[2]
    assert "Floor: 0.1." in lines
    assert "Real images made worse: noise 0.09, blurred 2." in lines
    assert "W1 is blind to: noise." in lines
    assert "W1 sees every control." in replace(curve, controls={"blurred": 2.0}).text(table.read(), "python")
    assert not any(line.startswith("## ") for line in lines)
    names = {text.get_text() for text in curve.draw(table.read()).legends[0].get_texts()}
    assert names == {"map", "flow, 100 evaluations", "published: theirs", "floor"}


def test_what_is_measured_beside_the_score_has_a_table_of_the_rows_that_have_it():
    about = {"seed": 0, "seconds": 2.0, "semigroup": 0.5, "device": "abacus"} | {f"at_{k}": 9.0 for k in JUMPS}
    sharp = {f"sharp_{k}": 1 / k for k in JUMPS}
    found = [
        {"method": "old"} | about,
        {"method": "map"} | about | sharp,
        {"method": "map"} | about | {name: 3 * value for name, value in sharp.items()},
        {"method": "flow, 100 evaluations"} | about | sharp,
    ]
    other = curves.Other("Sharpness", "More is grain.", {"real": 1.0, "blurred": 0.02})
    curve = curves.Curve("few_step_toy", "toy", "W1", "small", ["Small."], others={"sharp": other})
    lines = curve.text(found, "python")
    below = lines[lines.index("## Sharpness") :]
    assert below[2] == "More is grain. real 1, blurred 0.02."
    assert below[-2:] == [
        "| map | 2 | 2 (1.4) | 1 (0.71) | 0.5 (0.35) | 0.25 (0.18) | 0.125 (0.088) |",
        "| flow, 100 evaluations | 1 |  |  |  |  | 0.0625 |",
    ]
    assert "## Sharpness" not in curve.text(found[:1], "python")


def test_rows_of_two_sizes_are_not_mixed_and_the_page_alone_trains_nothing(tmp_path, monkeypatch):
    asked = ["task=gaussians", "seeds=1", f"out={tmp_path}"]
    tiny = ["steps=2", "batch=8"]
    monkeypatch.setattr(plane, "SAMPLES", {"gaussians": 64})
    command.main([*asked, *tiny, "method=direct, from pairs"])
    table = Table(tmp_path / "few_step_gaussians.csv", ("method", "seed"))
    known = table.read()
    assert [row["size"] for row in known] == 3 * ["2 steps of 8, width 64"]
    with pytest.raises(ValueError, match="holds rows of 2 steps of 8, width 64; asked for 3000 steps of 512"):
        command.main([*asked, "method="])
    monkeypatch.delattr(Bench, "velocity")  # so that training fails
    command.main([*asked, *tiny, "note=In a hurry.", "method="])
    assert "In a hurry." in (tmp_path / "few_step_gaussians.md").read_text()
    command.main([*asked, *tiny, "method=direct, from pairs"])  # there already
    assert repr(table.read()) == repr(known)  # some are no numbers


def test_unknown_methods_and_sizes_are_refused(tmp_path):
    with pytest.raises(SystemExit, match="unknown 'Lagrangean'; choose from .*Lagrangian"):
        guarded("few_step", command.main, ["method=Lagrangean", f"out={tmp_path}"])
    with pytest.raises(ValueError, match="size=full is a size of the checkerboard and of images, not of gaussians"):
        command.main(["task=gaussians", "size=full", f"out={tmp_path}"])
