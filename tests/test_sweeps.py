"""Sweeps: a folder for each job, one table of all, what a failed job leaves to the others; commands of the docs."""

import re
import shlex
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

import hydra
import pandas as pd
import pytest
from hydra.core.global_hydra import GlobalHydra

import cellflow as cf
from cellflow.cli import compose, configs_folder, main
from cellflow.cli.compose import settings_from
from cellflow.cli.members import Members, record_of, write_record
from cellflow.cli.sweep_table import TABLE, scores_of, shown
from cellflow.cli.words import read_line

PAGE = Path(__file__).parents[1] / "docs" / "many_devices.md"
FAST = ["steps=3", "batch_size=8", "network.width=8", "regularize=false", "device=cpu", "progress=false"]
CELLS = ["data.time_key=time", "data.rep=X_latent", "validate=false", "report=false"]


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    file = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    cf.datasets.branching(seed=0)[::8].copy().write_h5ad(file)
    return file


def sweep(cells, out, *more):
    return main(["fit", "-m", f"data.path={cells}", f"out={out}", *CELLS, *FAST, *more])


def test_a_job_that_fails_is_a_row_and_the_others_are_scored(cells, tmp_path, capsys):
    assert sweep(cells, tmp_path, "data.holdout=[],[9],[2]", "seed=0") == 1
    table = pd.read_csv(tmp_path / TABLE, keep_default_na=False)
    assert list(table["data.holdout"]) == ["[]", "[9]", "[2]"]
    assert "seed" not in table
    assert list(table["status"]) == ["done", "failed", "done"]
    assert [error != "" for error in table["error"]] == [False, True, False]
    for number in (0, 2):
        history = pd.read_csv(tmp_path / str(number) / "history.csv")
        assert table["loss"].astype(str)[number] == str(float(history["loss"].iloc[-1]))
        assert (tmp_path / str(number) / "model.json").exists()
    assert str(tmp_path / TABLE) in capsys.readouterr().err


def test_settings_are_composed_within_a_job_of_hydra_and_leave_it_as_it_was():
    compose._read.cache_clear()
    with hydra.initialize_config_dir(str(configs_folder()), version_base="1.3"):
        outer = GlobalHydra.instance().hydra
        assert compose.defaults("fit")["seed"] == 0
        assert GlobalHydra.instance().hydra is outer
    assert not GlobalHydra.instance().is_initialized()


@pytest.mark.slow
def test_a_sweep_in_other_processes_scores_its_members(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the extra [sweeps]")
    launched = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    words = [word for word in FAST if not word.startswith("regularize")]
    assert main(["demo", "-m", "seed=0,1", "report=false", f"out={tmp_path}", *words, *launched]) == 0
    assert list(pd.read_csv(tmp_path / TABLE)["status"]) == ["done", "done"]


def test_a_member_that_fails_names_settings_as_the_command_does(cells, tmp_path):
    assert sweep(cells, tmp_path, "data.rep=X_nowhere", "seed=0,1") == 1
    table = pd.read_csv(tmp_path / TABLE)
    assert table["error"].str.contains("`data.rep`").all()


def test_a_sweep_that_was_interrupted_goes_on_with_what_is_not_done(cells, tmp_path):
    assert sweep(cells, tmp_path, "seed=0,1") == 0
    first, second = ((tmp_path / name / "model.json").stat().st_mtime_ns for name in "01")
    write_record(tmp_path, 1, status="stopped", seconds=0.1, error="Stopped.")
    assert sweep(cells, tmp_path, "seed=0,1", "resume=true") == 0
    assert (tmp_path / "0" / "model.json").stat().st_mtime_ns == first
    assert (tmp_path / "1" / "model.json").stat().st_mtime_ns > second
    assert record_of(tmp_path, 1)["status"] == "done"


def test_a_sweep_goes_on_only_where_its_numbers_mean_the_same_members(cells, tmp_path, capsys):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "jobs.json").write_text('[["seed=7"]]', encoding="utf-8")
    assert sweep(cells, tmp_path, "seed=1,7", "resume=true") == 1
    assert "was started with seed=7, and is now" in capsys.readouterr().err
    assert not (tmp_path / TABLE).exists()


def test_a_stopped_job_leaves_its_record_and_stops_the_sweep(tmp_path):
    def stop(settings):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Members(stop, [settings_from("report", ["model=x"])], tmp_path, nullcontext)(type("Config", (), {"job": 0}))
    assert record_of(tmp_path, 0)["status"] == "stopped"


def test_scores_are_those_of_the_flow_and_the_best_is_shown_first(tmp_path):
    rows = [(1.0, "flow", 2.0), (2.0, "flow", 4.0), (1.0, "next snapshot", 9.0)]
    pd.DataFrame(rows, columns=["time", "method", "W1"]).to_csv(tmp_path / "validation.csv", index=False)
    assert scores_of(tmp_path) == {"W1": 3.0}
    table = pd.DataFrame({"member": range(50), "status": "done", "W1": [50.0 - k for k in range(50)]})
    lines = shown(table.assign(folder="", error="")).splitlines()
    assert lines[1].split() == ["49", "done", "1"]
    assert lines[-1] == "... and 10 more"


@pytest.mark.parametrize("name", ["joblib", "submitit_local", "submitit_slurm"])
def test_a_launcher_that_is_missing_is_named_with_the_line_that_installs_it(name, cells, tmp_path, capsys):
    if find_spec("hydra_plugins") and find_spec(f"hydra_plugins.hydra_{name.partition('_')[0]}_launcher"):
        pytest.skip("it is not missing")
    assert sweep(cells, tmp_path / "run", "seed=0,1", f"hydra/launcher={name}") == 1
    found = re.search(r"Install it with `pip install (hydra-\w+-launcher)`", capsys.readouterr().err)
    assert found is not None
    assert name.partition("_")[0] in found[1]


def test_a_sweep_is_not_started_by_torchrun(cells, tmp_path, capsys, monkeypatch):
    torchrun = {"TORCHELASTIC_RUN_ID": "1", "RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    for name, value in torchrun.items():
        monkeypatch.setenv(name, value)
    assert sweep(cells, tmp_path / "run", "seed=0,1") == 1
    assert "Start it without torchrun" in capsys.readouterr().err


def commands():
    """The command lines of the page, without what starts them."""
    for block in re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL):
        yield from (line for line in block.splitlines() if re.search(r"\bcellflow ", line))


@pytest.mark.parametrize("line", [*commands()])
def test_commands_of_the_page_are_taken(line):
    words = shlex.split(line)
    command, *rest = words[words.index("cellflow") + 1 :]
    jobs = read_line(rest).jobs()
    assert all(settings_from(command, job) for job in jobs[:1] + jobs[-1:])
    if command == "demo":
        assert len(jobs) == 200
