"""Every committed result has a command that makes it, every command answers, and GPU runs go on where they stopped."""

import fnmatch
import importlib
import re
import shlex
import signal
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, machine
from benchmarks.command import guarded
from benchmarks.few_step import curves, plane
from benchmarks.images import few_step, generation, judge, translation, underway
from benchmarks.images import methods as methods_of_images
from benchmarks.images.tasks import DATASETS, Dataset, shapes
from benchmarks.rows import RESULTS, Table
from benchmarks.scale import __main__ as scale
from benchmarks.scale.case import Watch
from benchmarks.speed import images as speed_of_images
from cellflow.images import ImageSet
from cellflow.training.run import Stopped

README = Path(gpu.__file__).with_name("README.md")
ROWS = [line.split(" | ") for line in README.read_text().splitlines() if "`python -m " in line]
COMMANDS = {words: re.findall(r"`([^`]+)`", names) for names, words in ROWS}
PACKAGES = {"images", "speed"}


def words_of(command):
    """Module and words of a command in the list."""
    python, flag, module, *words = shlex.split(command.strip("` |"))
    assert (python, flag) == ("python", "-m")
    package = module.removeprefix("benchmarks.")
    if package in PACKAGES:
        inner = words.pop(0) if words[0] != "--commit-table" else "training"
        return importlib.import_module(f"{module}.{inner}"), words
    plain = package in ("bridges", "drivers", "embryoid_body") or package.startswith("studies.")
    return importlib.import_module(module if plain else f"{module}.__main__"), words


def test_every_result_is_named_with_its_command():
    named = [name for names in COMMANDS.values() for name in names]
    files = [path.name for path in RESULTS.iterdir()]
    assert not [file for file in files if not any(fnmatch.fnmatch(file, name) for name in named)]
    assert not [name for name in named if not fnmatch.filter(files, name)]
    assert all("--commit-table" in command for command in COMMANDS)


@pytest.mark.parametrize("page", sorted(RESULTS.glob("*.md")), ids=lambda path: path.stem)
def test_pages_and_the_list_have_the_same_commands(page):
    listed = [command.strip("` |") for command in COMMANDS]
    for command in re.findall(r"`(python -m benchmarks[^`]*)`", page.read_text()):
        assert command in listed


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_answers(command, capsys):
    module, words = words_of(command)
    if module.__name__ == "benchmarks.trajectory.__main__":
        words = words[:1]
    given = [word for word in words if word != "--commit-table"]  # nothing is measured: the words alone are checked
    with pytest.raises(SystemExit) as stop:
        module.main([*given, "--help"])
    assert stop.value.code == 0
    assert "--commit-table" in capsys.readouterr().out


def here(case):
    """A measurement that needs no process of its own."""
    found = case.act(watch := Watch(), **case.settings)
    return {**case.key, "made": case.made, "failed": None, **watch.row, **found}


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """Data and networks that take no time."""
    digits = ImageSet(torch.randint(256, (30, 1, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8))
    for name in ("mnist", "fashion", "cifar10_jpeg"):
        monkeypatch.setitem(DATASETS, name, Dataset(lambda split: digits, "mnist"))
    for name in ("stains", "wortmannin"):  # whose data and judge take long
        monkeypatch.setitem(translation.TASKS, name, shapes)
    monkeypatch.setattr(plane, "SAMPLES", {"gaussians": 64})
    monkeypatch.setattr(generation, "EVALUATIONS", (2, 16))
    monkeypatch.setattr(judge, "REPEATS", 2)
    monkeypatch.setattr(few_step, "MOMENTS", 3)
    monkeypatch.setattr(few_step, "MANY", 2)
    monkeypatch.setattr(curves, "JUMPS", (1, 2))
    monkeypatch.setattr(methods_of_images, "SAMPLES", tmp_path / "samples")
    monkeypatch.setattr(underway, "FOLDER", tmp_path / "underway")
    monkeypatch.setattr(scale, "measured", here)
    small = speed_of_images.Size(channels=1, pixels=8, batch=2, width=32, multipliers=(1, 2), blocks=1, heads=1)
    monkeypatch.setitem(speed_of_images.SIZES, "small", small)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_a_line(tmp_path, capsys):
    assert gpu.main([f"out={tmp_path}"]) == 2
    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_every_gpu_job_runs_at_toy_size_and_names_its_device(tiny, tmp_path):
    assert gpu.main(["--cpu-dry-run", f"out={tmp_path}"]) == 0
    found = {path.stem: Table(path, ()).read() for path in tmp_path.glob("*.csv")}
    assert set(found) == {
        "image_speed_small", "translation", "few_step_cifar10_jpeg", "few_step_mnist", "few_step_fashion", "scale_gpu",
        "few_step_gaussians", "generation",
    }  # fmt: skip
    trained = [row for row in found["translation"] if row["train_steps"]]
    assert {(row["task"], row["method"]) for row in trained} == {
        (task, method) for task in ("stains", "wortmannin") for method in ("OT-CFM", "[SF]2M by ends")
    }
    for rows in found.values():
        measured = [row for row in rows if row.get("train_steps", 1)]  # floors and controls train nothing
        assert measured
        assert all("CPU" in row["device"] for row in measured)


def test_gpu_jobs_are_limited_resumed_and_skipped(tmp_path, monkeypatch, capsys):
    done = []
    jobs = dict(list(gpu.JOBS.items())[:3])
    second = list(jobs)[1]
    assert jobs[second]["table"] == jobs[list(jobs)[2]]["table"]  # whose rows are not this one's

    def measure(name, run, limit, where):
        """Write rows, but for one of the second job."""
        of = {key: value[0] if isinstance(value, list) else value for key, value in jobs[name]["of"].items()}
        row = of | {"name": name} | ({"device": "H200, torch 2"} if "device" in of else {})
        table = Table(tmp_path / f"{jobs[name]['table']}.csv", ("name", "k"))
        table.put(*(row | {"k": k} for k in range(jobs[name]["rows"] - (len(done) == 1))))
        done.append((name, limit))

    monkeypatch.setattr(machine, "name", lambda device: "H200, torch 2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "_run", measure)
    monkeypatch.setattr(gpu, "JOBS", jobs)
    assert gpu.main([f"out={tmp_path}", "seconds=150"]) == 0
    assert [name for name, _ in done] == list(jobs)
    assert all(limit <= min(150, jobs[name]["seconds"]) for name, limit in done)
    n = jobs[second]["rows"]
    assert f"Left: {second} ({n - 1} of {n} rows)." in capsys.readouterr().out
    gpu.main([f"out={tmp_path}"])
    assert [name for name, _ in done[3:]] == [second]
    assert "Left: nothing." in capsys.readouterr().out
    gpu.main([f"out={tmp_path / 'new'}", "seconds=10"])
    assert len(done) == 4  # too little time is left to start anything


def test_a_gpu_job_is_stopped_at_its_limit(capsys, monkeypatch):
    real = gpu.subprocess.Popen
    monkeypatch.setattr(gpu.subprocess, "Popen", lambda command: real(["sleep", "60"]))
    gpu._run("a job", "few_step", 0.1, [])
    assert "stopped after 0 s" in capsys.readouterr().out


def test_a_gpu_job_that_does_not_stop_is_ended(monkeypatch):
    real, started = gpu.subprocess.Popen, []
    deaf = ["sh", "-c", "trap '' TERM; exec sleep 60"]
    monkeypatch.setattr(gpu.subprocess, "Popen", lambda command: started.append(real(deaf)) or started[0])
    monkeypatch.setattr(gpu, "GRACE", 0.1)
    gpu._run("a job", "few_step", 0.5, [])
    assert started[0].returncode == -signal.SIGKILL


@pytest.mark.parametrize("name", [name for name, job in gpu.JOBS.items() if job["table"] != "scale_gpu"])
def test_rows_of_a_cpu_that_are_committed_do_not_stand_for_those_of_a_gpu_job(name, monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "name", lambda device: "H200, torch 2")
    table = f"{gpu.JOBS[name]['table']}.csv"
    rows = [row for row in Table(RESULTS / table, ()).read() if "CPU" in (row.get("device") or "CPU")]
    Table(tmp_path / table, ("number",)).put(*(row | {"number": number} for number, row in enumerate(rows)))
    assert gpu.made(gpu.JOBS[name], tmp_path) < gpu.JOBS[name]["rows"]


def test_gpu_rows_are_those_of_the_job_that_do_not_say_how_they_failed(tmp_path):
    job = {"table": "some", "of": {"seed": 0, "method": ["a", "b"]}, "rows": 2}
    assert gpu.made(job, tmp_path) == 0
    rows = [{"method": method, "seed": seed, "failed": None} for method in "abc" for seed in (0, 1)]
    Table(tmp_path / "some.csv", ("method", "seed")).put(*rows)
    assert gpu.made(job, tmp_path) == 2
    Table(tmp_path / "some.csv", ("method", "seed")).put({"method": "a", "seed": 0, "failed": "out of memory"})
    assert gpu.made(job, tmp_path) == 1


@pytest.mark.parametrize(
    ("stop", "said"),
    [
        (Stopped(17, 40, "runs/x"), " after step 17 of 40"),
        (Stopped(17, 40, None), ""),
        (Stopped(0, 0, None, search="a width"), ""),
        (KeyboardInterrupt(), ""),
    ],
)
def test_a_benchmark_that_is_stopped_says_how_it_goes_on(stop, said, capsys):
    def main(words):
        raise stop

    with pytest.raises(SystemExit) as ended:
        guarded("images translation", main)
    assert ended.value.code == 130
    assert ended.value.__suppress_context__
    line = f"benchmarks.images translation: stopped{said}. The same command goes on with what is there.\n"
    assert capsys.readouterr().err == line


def test_gpu_commands_are_understood():
    order = list(gpu.JOBS)
    assert order[:4] == ["images per second", "stains", "cells under wortmannin", "photographs"]
    assert sum(gpu.JOBS[name]["seconds"] for name in order[:6]) <= 720  # of what was asked for first
    for job in gpu.JOBS.values():
        for name in ("run", "toy"):
            act, words = gpu.parts_of(job[name])
            with pytest.raises(SystemExit) as stop:
                act([*words, "--help"])
            assert stop.value.code == 0
