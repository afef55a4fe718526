"""The command line: every command end to end, its help, its errors, and Ctrl-C."""

import html
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import yaml

import cellflow as cf
from cellflow.cli import COMMANDS, configs_folder, main, runs
from cellflow.cli import cells as cli_cells
from cellflow.cli.former import modern_words
from cellflow.training.checkpoint import load_tensors
from conftest import make_cells

FAST = ["steps=30", "batch_size=32", "progress=false", "device=cpu"]


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["translate", "--help"]])
def test_a_help_that_nobody_reads_to_its_end_ends_in_silence(words):
    read, written = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "cellflow", *words], stdout=written, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(written)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.fixture
def cells_file(tmp_path):
    make_cells().write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


def fit(cells_file, out, *more):
    return main(["fit", f"data.path={cells_file}", "data.time_key=day", f"out={out}", *FAST, *more])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that several tests take a copy of."""
    place = tmp_path_factory.mktemp("finished")
    cells = make_cells()
    cells.obs["kind"] = ["a", "b"] * (cells.n_obs // 2)
    cells.write_h5ad(place / "cells.h5ad")
    assert fit(place / "cells.h5ad", place / "run", "validate=false") == 0
    return place / "run"


@pytest.fixture
def run(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_fit_writes_everything_that_a_run_folder_holds(cells_file, tmp_path):
    run = tmp_path / "run"
    assert fit(cells_file, run) == 0
    facts = json.loads((run / "run.json").read_text())
    assert facts["seed"] == 0
    assert facts["seconds"]["fit"] > 0
    assert "torch" in facts["versions"]
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["steps"] == 30
    assert config["path"] == {"_target_": "cellflow.paths.Linear", "sigma": 0.0}
    history = pd.read_csv(run / "history.csv")
    assert len(history) == 30
    assert set(pd.read_csv(run / "validation.csv")["method"]) >= {"flow", "linear transport", "previous snapshot"}
    assert cf.SnapshotFlow.load(run).clock_.times == (0.0, 1.0, 5.0)
    assert "<html" in (run / "report.html").read_text()
    assert any((run / "figures").glob("*.png"))
    assert not list(run.glob("*.pkl"))


def test_weights_and_expected_growth_are_columns_of_the_file(cells_file, tmp_path):
    adata = anndata.read_h5ad(cells_file)
    adata.obs["w"], adata.obs["rate"] = 1 + np.arange(adata.n_obs) % 3, np.linspace(-0.1, 0.1, adata.n_obs)
    adata.write_h5ad(tmp_path / "told.h5ad")
    run = tmp_path / "run"
    more = ["growth=true", "weight_key=w", "prior_key=rate", "masses=counts"]
    assert fit(tmp_path / "told.h5ad", run, *more) == 0
    flow = cf.SnapshotFlow.load(run)
    sums = adata.obs.groupby("day")["w"].sum()
    assert flow.masses_ == pytest.approx(tuple(sums / sums.iloc[0]))
    assert (flow.weight_key, flow.prior_key) == ("w", "rate")
    assert "obs['rate'], is included" in html.unescape((run / "report.html").read_text())


def test_a_growing_population_is_fitted_validated_and_reported(cells_file, tmp_path):
    run = tmp_path / "run"
    more = ["coupling=unbalanced", "coupling.epsilon=1", "coupling.relaxation=50", "growth=true"]
    assert fit(cells_file, run, *more, "masses={0: 1.0, 1: 1.5, 5.0: 4}") == 0
    flow = cf.SnapshotFlow.load(run)
    assert flow.masses_ == (1.0, 1.5, 4.0)
    assert list(pd.read_csv(run / "history.csv").columns) == ["step", "loss", "velocity", "growth", "learning_rate"]
    assert main(["interpolate", f"model={run}", "at=[3]"]) == 0
    assert anndata.read_h5ad(run / "interpolated-3.h5ad").obs["weight"].nunique() > 2


OWN_NETWORK = """
from torch import nn

class Straight(nn.Module):
    def __init__(self, dim, width, depth):
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(dim, dim) for _ in range(depth)))

    def forward(self, t, x, condition=None):
        return self.layers(x)
"""


@pytest.mark.usefixtures("unreported")
def test_a_network_of_ones_own_is_given_again_to_the_commands_that_follow(cells_file, tmp_path, monkeypatch, capsys):
    (tmp_path / "own_network.py").write_text(OWN_NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    run, own = tmp_path / "run", "network._target_=own_network.Straight"
    assert fit(cells_file, run, own, "network.depth=2", "validate=false") == 0
    assert main(["interpolate", f"model={run}", "at=3"]) == 1
    assert "network._target_=" in capsys.readouterr().err
    assert main(["interpolate", f"model={run}", "at=3", own]) == 0  # its depth is that of the run
    assert main(["velocity", f"model={run}", own]) == 0
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["network"]["depth"] = {"_target_": "os.mkdir", "path": str(tmp_path / "made")}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["velocity", f"model={run}", own, f"out={tmp_path / 'v.h5ad'}"]) == 1
    assert not (tmp_path / "made").exists()  # what is written in a folder is not run


def test_cells_in_several_files_are_one_data_set(tmp_path):
    """As a pattern or as a list; the run keeps where they are, and later commands read them again."""
    cells = make_cells()
    days = sorted(cells.obs["day"].unique())
    files = [tmp_path / f"day{day:g}.h5ad" for day in days]
    for day, file in zip(days, files, strict=True):
        cells[cells.obs["day"] == day].write_h5ad(file)
    once = ["data.time_key=day", *FAST, "validate=false", "report=false"]
    listed = f"[{','.join(str(file) for file in files)}]"
    for said, run in ((f"data={tmp_path}/day*.h5ad", "glob"), (f"data.path={listed}", "list")):
        assert main(["fit", said, f"out={tmp_path / run}", *once]) == 0
        assert yaml.safe_load((tmp_path / run / "config.yaml").read_text())["data"]["path"] == sorted(map(str, files))
    assert main(["interpolate", f"model={tmp_path / 'list'}", "at=3", f"out={tmp_path / 'one.h5ad'}"]) == 0
    whole, parts = (load_tensors(tmp_path / run / "model.safetensors")[0] for run in ("glob", "list"))
    assert all((whole[name] == parts[name]).all() for name in whole)


def test_interpolate_velocity_and_report_follow(run, tmp_path):
    assert main(["interpolate", f"model={run}", "at=[0.5,3]"]) == 0
    found = anndata.read_h5ad(run / "interpolated-0.5-3.h5ad")
    assert set(found.obs["day"]) == {0.5, 3.0}
    assert main(["interpolate", f"model={run}", "at=0.5", f"out={tmp_path / 'sub' / 'one.h5ad'}"]) == 0
    assert (tmp_path / "sub" / "one.h5ad").exists()
    assert main(["velocity", f"model={run}"]) == 0
    assert anndata.read_h5ad(run / "velocity.h5ad").obsm["velocity"].shape == (150, 3)
    assert main(["fate", f"model={run}", "groupby=kind", "solver.steps=2"]) == 0
    assert anndata.read_h5ad(run / "fate.h5ad").obsm["fate"].columns.tolist() == ["a", "b"]
    assert main(["fate", f"model={run}", "terminal=auto", "solver.steps=2", f"out={tmp_path / 'found.h5ad'}"]) == 0
    found = anndata.read_h5ad(tmp_path / "found.h5ad")
    assert list(found.uns["fate"]["groups"]) == list(found.uns["fate"]["states"]["state"])
    before = (run / "report.html").read_text()
    assert main(["report", f"model={run}", "validate=true", "data.groupby=kind"]) == 0
    assert "Where cells end" in (run / "report.html").read_text()
    assert (run / "report.html").read_text() != before
    assert (run / "validation.csv").exists()


def test_left_out_times_are_neither_seen_nor_forgotten(cells_file, tmp_path):
    run = tmp_path / "run"
    assert fit(cells_file, run, "data.holdout=[1]") == 0
    assert cf.SnapshotFlow.load(run).clock_.times == (0.0, 5.0)
    assert set(pd.read_csv(run / "validation.csv")["time"]) == {1.0}


@pytest.mark.parametrize("epsilon", [0.5, "path"])
@pytest.mark.usefixtures("unreported")
def test_parts_are_chosen_by_name(cells_file, tmp_path, epsilon):
    run = tmp_path / "run"
    coupling = ["coupling=sinkhorn", f"coupling.epsilon={epsilon}"]
    more = ["path=brownian_bridge", "path.sigma=0.3", *coupling, "network.width=16"]
    assert fit(cells_file, run, "validate=false", *more) == 0
    flow = cf.SnapshotFlow.load(run)
    assert flow.path == cf.paths.BrownianBridge(0.3)
    assert flow.coupling == cf.couplings.Sinkhorn(epsilon)


def test_a_bridge_with_a_score_is_fitted_saved_and_reported(cells_file, tmp_path):
    run = tmp_path / "run"
    more = ["path=brownian_bridge", "path.sigma=0.3", "stochastic=true", "heads=separate", "validate=false"]
    more += ["growth=false"]
    assert fit(cells_file, run, *more) == 0
    again = cf.SnapshotFlow.load(run)
    assert (again.stochastic, again.heads) == (True, "separate")
    assert list(pd.read_csv(run / "history.csv").columns) == ["step", "loss", "velocity", "score", "learning_rate"]


@pytest.mark.usefixtures("unreported")
def test_a_sweep_gives_each_job_its_folder(cells_file, tmp_path):
    run = tmp_path / "sweep"
    assert fit(cells_file, run, "validate=false", "-m", "seed=0,1") == 0
    assert [cf.SnapshotFlow.load(run / job).seed for job in ("0", "1")] == [0, 1]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_setting_and_needs_no_hydra(command, capsys):
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Examples:" in shown
    assert "hydra" not in shown
    config = yaml.safe_load((configs_folder() / f"{command}.yaml").read_text())
    for key, value in config.items():
        names = [f"{key}.{inner}" for inner in value] if isinstance(value, dict) else [key]
        assert all(name in shown for name in names if key != "defaults")


def test_overview_lists_every_command(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {command} " in shown for command in COMMANDS)


def test_the_version_is_told_and_the_package_runs_without_its_script(capsys):
    assert main(["--version"]) == 0
    said = f"cellflow {cf.__version__}\n"
    assert capsys.readouterr().out == said
    command = [sys.executable, "-m", "cellflow", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fits"], "unknown command 'fits'. Choose from: demo, fit"),
        (["fit"], "missing data.path=... data.time_key=..."),
        (["fit", "data.path=nowhere.h5ad", "data.time_key=day"], "No file nowhere.h5ad"),
        (["fit", "data.path=CELLS", "data.time_key=hour"], "No `adata.obs['hour']`. Available: ['day']"),
        (["fit", "data.path=CELLS", "data.time_key=day", "data.rep=X_umap"], "No `adata.obsm['X_umap']`"),
        (["fit", "data.path=CELLS", "data.time_key=day", "data.holdout=[7]"], "No cells at time 7"),
        (["fit", "data.path=CELLS", "data.time_key=day", "path=brownian_bridge"], "missing path.sigma=..."),
        (["fit", "data.path=CELLS", "data.time_key=day", "recipe.ema=2"], "0 <= ema < 1"),
        (["interpolate", "model=nowhere", "at=[1]"], "No fitted model in nowhere"),
        (["fit", "data.path=CELLS", "data.time_key=day", "data.holdout=[a]"], "`data.holdout` holds 'a': not numbers"),
        (["fit", "data.path=CELLS", "data.time_key=day", "steps=abc"], "`steps` to be a whole number"),
        (["fit", "data.path=CELLS", "data.time_key=day", "stepz=3"], "`cellflow fit --help` lists every setting"),
        (["report", "model=nowhere"], "No fitted model in nowhere"),
    ],
)
def test_mistakes_get_one_sentence(arguments, words, cells_file, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [word.replace("CELLS", str(cells_file)) for word in arguments]
    assert main(arguments) != 0
    shown = capsys.readouterr().err
    assert words in shown
    assert "Traceback" not in shown


@pytest.mark.usefixtures("unreported")
def test_a_failed_start_does_not_block_the_folder(cells_file, tmp_path):
    run = tmp_path / "run"
    assert fit(cells_file, run, "data.rep=X_nothing") == 1
    assert fit(cells_file, run, "validate=false") == 0


def test_a_run_is_never_overwritten(cells_file, run, capsys):
    weights = (run / "model.safetensors").read_bytes()
    assert fit(cells_file, run, "seed=3") == 1
    assert "already holds a run" in capsys.readouterr().err
    assert (run / "model.safetensors").read_bytes() == weights
    assert main(["velocity", f"model={run}"]) == 0
    assert main(["velocity", f"model={run}"]) == 1
    assert "exists. Choose another file with `out=`" in capsys.readouterr().err


@pytest.mark.usefixtures("unreported")
def test_resuming_with_other_settings_is_refused_with_the_difference(finished, run, capsys):
    cells_file = finished.parent / "cells.h5ad"
    assert fit(cells_file, run, "resume=true", "batch_size=16") == 1
    assert "batch_size: 32 became 16" in capsys.readouterr().err
    assert fit(cells_file, run, "resume=true", "validate=false", "steps=40") == 0
    assert len(pd.read_csv(run / "history.csv")) == 40


def test_a_left_out_edge_is_reported_and_drawn(cells_file, tmp_path):
    """With the last of three snapshots left out nothing lies between two others: fitted and reported all the same."""
    run = tmp_path / "run"
    assert fit(cells_file, run, "data.holdout=5") == 0
    assert (run / "report.html").exists()
    assert (run / "run.json").exists()
    assert not (run / "validation.csv").exists()
    assert set(pd.read_csv(run / "validation_new_cells.csv")["time"]) == {1.0}
    assert main(["report", f"model={run}", f"data.path={cells_file}"]) == 0


def test_where_cells_go_is_validated_by_columns_that_are_named(cells_file, tmp_path, capsys, monkeypatch):
    run, cells = tmp_path / "run", anndata.read_h5ad(cells_file)
    cells.obs["kind"] = ["a", "b"] * (cells.n_obs // 2)
    cells.obs["clone"] = [f"clone{k % 7}" for k in range(cells.n_obs)]
    cells.write_h5ad(tmp_path / "kinds.h5ad")
    assert fit(tmp_path / "kinds.h5ad", run, "data.groupby=sort") == 1
    assert "No `adata.obs['sort']`" in capsys.readouterr().err
    assert not (run / "history.csv").exists()
    assert fit(tmp_path / "kinds.h5ad", run, "data.groupby=kind", "keep_aside=false") == 0
    table = pd.read_csv(run / "validation_couplings.csv")
    assert set(table["score"]) == {"label persistence"}
    assert set(table["cells"]) == {"fitted"}
    assert not (run / "validation_new_cells.csv").exists()
    assert "Mass that lands on its own label" in (run / "report.html").read_text()
    assert main(["report", f"model={run}", "validate=true", "n_seeds=2", "data.lineage_key=clone"]) == 0
    table = pd.read_csv(run / "validation_couplings.csv")
    assert set(table["score"]) == {"label persistence", "clone agreement"}
    assert set(table["cells"]) == {"fitted", "new"}
    page = (run / "report.html").read_text()
    assert "Agreement of clones" in page
    assert "New cells, which were held out of the fit" in page
    monkeypatch.setattr(cli_cells, "write_report", lambda *given, **more: None)  # the page was looked at above
    assert main(["report", f"model={run}", "validate=true", "keep_aside=false"]) == 0
    assert not (run / "validation_new_cells.csv").exists()  # what was not validated again does not stay


def test_commands_leave_nothing_where_they_are_called(cells_file, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert fit(cells_file, tmp_path / "run", "validate=false") == 0
    assert main(["velocity", f"model={tmp_path / 'run'}"]) == 0
    assert list(elsewhere.iterdir()) == []


def test_nothing_to_resume_is_said(cells_file, tmp_path, capsys):
    assert fit(cells_file, tmp_path / "empty", "resume=true") == 1
    assert "Nothing to resume" in capsys.readouterr().err


def test_control_c_saves_exits_with_130_and_says_how_to_go_on(cells_file, tmp_path, monkeypatch):
    """The printed command is run as it is, from the folder where the first one was given."""
    monkeypatch.chdir(tmp_path)
    steps = ["progress=false", "steps=100000", "validate=false", "batch_size=8", "network.width=8", "regularize=false"]
    steps += ["report=false", "save_every=20"]
    command = ["fit", f"data.path={cells_file.name}", "data.time_key=day", "out=run", *steps]
    run = tmp_path / "run"
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; from cellflow.cli import main; sys.exit(main())", *command],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    _wait_for(run / "training.safetensors", child)
    child.send_signal(signal.SIGINT)
    _, shown = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "of 100000. Saved in" in shown
    assert "Traceback" not in shown
    printed = next(line for line in shown.splitlines() if line.strip().startswith("cellflow fit"))
    taken = load_tensors(run / "training.safetensors")[1]["step"]
    again = [word.replace("steps=100000", f"steps={taken + 5}") for word in shlex.split(printed)[1:]]
    assert main(again) == 0
    assert len(pd.read_csv(run / "history.csv")) == taken + 5


def _wait_for(path: Path, child: subprocess.Popen) -> None:
    for _ in range(6000):
        if path.exists():
            return
        assert child.poll() is None, child.stderr.read()
        time.sleep(0.02)
    child.kill()
    raise AssertionError(f"no {path} after two minutes")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("jumps=2", ["solver=jumps", "solver.steps=2"]),
        ("jumps=1,2", ["solver=jumps", "solver.steps=1,2"]),
        ("sampling_steps=4", ["solver.steps=4"]),
        ("noise=false sampling_steps=4", ["solver=fixed", "solver.method=midpoint", "solver.steps=4"]),
        ("noise=false sampling_steps=4 jumps=1", ["solver=jumps", "solver.steps=1"]),
        ("noise=true", []),
        ("jumps=null", []),
        ("score=two_networks", ["stochastic=true", "heads=separate"]),
        ("growth=two_heads", ["growth=true", "heads=shared"]),
        ("taught=false", ["teacher=false"]),
        ("judge=mnist", ["feature_network=mnist"]),
        ("forget=0.2", ["condition_dropout=0.2"]),
        ("bend=0.0", ["curve=straight"]),
        ("bend=0.5", ["curve=spline", "curve.bend=0.5"]),
        ("bend=0,1", ["curve=spline", "curve.bend=0,1"]),
    ],
)
def test_old_settings_are_taken_with_a_warning(old, new):
    with pytest.warns(FutureWarning, match=old.split("=")[0]):
        assert sorted(modern_words(["model=run", *old.split()])) == sorted(["model=run", *new])


def test_settings_of_today_are_left_as_they_are():
    words = ["model=run", "growth=true", "solver=noisy", "at=[3.5]", "+extra=1", "-m"]
    assert modern_words(words) == words


def test_runs_of_earlier_versions_are_read_with_the_settings_of_today(tmp_path):
    then = {"sampling_steps": 40, "noise": False, "jumps": None, "score": None, "steps": 3, "bend": 0.5}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(then))
    found = runs.read_settings(tmp_path)
    assert found.pop("solver") == {"_target_": "cellflow.integrate.Fixed", "method": "midpoint", "steps": 40}
    assert found.pop("curve") == {"_target_": "cellflow.pairing.Spline", "bend": 0.5}
    assert found == {"stochastic": False, "steps": 3}
    runs.refuse_changes(tmp_path, {"steps": 5, "stochastic": False, "solver": {"steps": None}})
    with pytest.raises(ValueError, match="stochastic: False became True"):
        runs.refuse_changes(tmp_path, {"stochastic": True})


def test_figures_are_drawn_on_a_umap_where_there_is_one(run, tmp_path, monkeypatch):
    """As those of `cellflow.pl` are; the prediction is placed among the cells."""
    drawn = {}
    monkeypatch.setattr(cli_cells, "_keep", lambda figure, folder, name: drawn.update({name.split("-")[0]: figure}))
    adata = make_cells()
    adata.obs["kind"] = ["a", "b"] * (adata.n_obs // 2)
    adata.obsm["X_umap"] = adata.obsm["X_pca"][:, :2] + 1
    adata.write_h5ad(cells := tmp_path / "cells.h5ad")
    for command, words in {"velocity": [], "fate": ["groupby=kind"], "interpolate": ["at=3"]}.items():
        for basis, label in ((None, "UMAP 1"), ("pca", "PC 1")):
            asked = [] if basis is None else [f"basis={basis}"]
            out = f"out={tmp_path / f'{command}-{basis}.h5ad'}"
            assert main([command, f"model={run}", f"data.path={cells}", out, *words, *asked]) == 0
            (figure,) = drawn.values()
            figure = getattr(figure, "figure", figure)
            assert label in {ax.get_xlabel() for ax in figure.axes}, (command, basis)
            drawn.clear()
