"""The few-step benchmark: scores against closed forms, every method gives a row, the page and the figure."""

import math
import multiprocessing

import pytest
import torch

import cellflow as cf
from benchmarks.few_step import __main__ as command
from benchmarks.few_step import images, plane, table

TINY = plane.Size(steps=2, batch_size=16, width=8, depth=1, origins=32)
FEW = images.Setting(width=8, blocks=1, flow_steps=1, steps=1, batch=4, followed=4, samples=6)


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
    rows = list(plane.run(task, TINY, 0, torch.device("cpu"), list(command.PLANE)))
    assert [row["method"] for row in rows][2:] == list(command.PLANE)
    for row in rows:
        assert all(math.isfinite(row[f"at_{k}"]) for k in plane.JUMPS)
        assert math.isfinite(row["semigroup"]) == (
            row["method"] not in (rows[0]["method"], rows[1]["method"], plane.REFLOW)
        )


@pytest.mark.parametrize("method", [images.REFLOWS[0], images.TRAJECTORIES, "semigroup"])
def test_images_are_flowed_reflowed_and_distilled(method, monkeypatch):
    digits = cf.images.ImageSet(torch.zeros(20, 1, 28, 28, dtype=torch.uint8))
    monkeypatch.setitem(images.LOADERS, "mnist", lambda split: digits)
    for name, value in {"MOMENTS": 3, "MANY": 2, "JUMPS": (1, 2)}.items():
        monkeypatch.setattr(images, name, value)
    rows = list(images.run("mnist", range(1), FEW, [method], torch.device("cpu")))
    assert len(rows) == (4 if method in images.REFLOWS else 3)
    assert all(row["at_2"] > 0 for row in rows)


def test_the_page_holds_means_and_published_rows(tmp_path):
    row = {"method": "map", "seed": 0, "seconds": 2.0, "semigroup": 0.5, "device": "abacus"}
    row |= {f"at_{k}": 1.0 / k for k in table.JUMPS}
    for seed, better in ((0, 1.0), (1, 3.0), (0, 2.0)):  # the first is measured again, and gives way
        table.keep(tmp_path / "few_step_toy.csv", row | {"seed": seed, "at_1": better})
    many = row | {"method": "flow, 100 evaluations", "semigroup": float("nan")}
    table.keep(tmp_path / "few_step_toy.csv", many)
    table.write(
        tmp_path / "few_step_toy.csv", title="toy", measure="W1", about=["Small."], best=0.1, command="python",
        published={"theirs": [9.0, 8.0, 7.0, 6.0, 5.5], "another": [0.25]},
    )  # fmt: skip
    page = (tmp_path / "few_step_toy.md").read_text()
    assert "| map | 2 | 2.5 (0.71) |" in page
    assert "| published: theirs | | 9.0000 | 8.0000 | 7.0000 | 6.0000 | 5.5000 | | |" in page
    assert "| published: another | |  |  |  |  | 0.2500 | | |" in page
    assert "Run on: abacus." in page
    assert "Floor: 0.1" in page
    assert (tmp_path / "few_step_toy.png").is_file()


def keep_some(path, seed):
    """Keep a row again and again, in a process of its own."""
    for k in range(20):
        table.keep(path, {"method": f"m{k}", "seed": seed, "device": "abacus", "size": "small"})


def test_seeds_are_kept_side_by_side(tmp_path):
    path = tmp_path / "few_step_toy.csv"
    runs = [multiprocessing.get_context("fork").Process(target=keep_some, args=(path, seed)) for seed in range(3)]
    for run in runs:
        run.start()
    while any(run.is_alive() for run in runs):
        assert {row["device"] for row in table.read(path)} <= {"abacus"}  # never half a file
    assert sorted((row["method"], row["seed"]) for row in table.read(path)) == sorted(
        (f"m{k}", seed) for k in range(20) for seed in range(3)
    )


def test_rows_of_two_sizes_are_not_mixed_and_the_page_alone_trains_nothing(tmp_path, monkeypatch):
    asked = ["few_step", "--task", "gaussians", "--seeds", "1", "--results", str(tmp_path)]
    tiny = ["--steps", "2", "--batch-size", "8"]
    monkeypatch.setattr(plane, "SAMPLES", {"gaussians": 64})
    monkeypatch.setattr("sys.argv", [*asked, *tiny, "--methods", "direct, from pairs"])
    command.main()
    rows = table.read(tmp_path / "few_step_gaussians.csv")
    assert [row["size"] for row in rows] == 3 * ["2 steps of 8, width 64"]
    monkeypatch.setattr("sys.argv", [*asked, "--methods"])
    with pytest.raises(SystemExit, match="holds rows of 2 steps of 8, width 64; asked for 3000 steps of 512"):
        command.main()
    monkeypatch.setattr("sys.argv", [*asked, *tiny, "--note", "In a hurry.", "--methods"])
    monkeypatch.setattr(plane, "run", None)  # would fail when called
    command.main()
    assert "In a hurry." in (tmp_path / "few_step_gaussians.md").read_text()
    assert [row["at_1"] for row in table.read(tmp_path / "few_step_gaussians.csv")] == [row["at_1"] for row in rows]


def test_a_missing_file_is_named_in_a_line(tmp_path, monkeypatch):
    def missing(split):
        raise FileNotFoundError(f"{split} images are nowhere")

    monkeypatch.setitem(images.LOADERS, "mnist", missing)
    monkeypatch.setattr("sys.argv", ["few_step", "--task", "mnist", "--results", str(tmp_path)])
    with pytest.raises(SystemExit, match="few_step: train images are nowhere"):
        command.main()


def test_unknown_methods_are_refused():
    with pytest.raises(SystemExit, match="Choose from: 'Lagrangian'"):
        command._known(["Lagrangean"], ("Lagrangian",))
