"""The trajectory benchmark from its command line to its tables and figures."""

import shutil
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from benchmark_cases import Drift, job, make_cells, quiet
from omegaconf import OmegaConf

from benchmarks.trajectory import __main__ as command
from benchmarks.trajectory import baselines, others, settings, table
from benchmarks.trajectory.__main__ import main
from benchmarks.trajectory.methods import Particles, drawn_by_mass
from benchmarks.trajectory.run import run, table_of
from benchmarks.trajectory.settings import CONFIGS
from benchmarks.trajectory.tasks import PROTOCOLS, choose, choose_folds

pytestmark = pytest.mark.usefixtures("global_state_is_untouched")


@pytest.fixture
def own_file(tmp_path):
    """A file of the user's, with four snapshots."""
    cells = make_cells(times=(2.0, 3.0, 4.0, 7.0))
    time = np.repeat(cells.times, 40)
    obs = pd.DataFrame({"day": time}, index=[f"cell{k}" for k in range(len(time))])
    path = tmp_path / "mine.h5ad"
    anndata.AnnData(np.zeros((len(time), 0), np.float32), obs=obs, obsm={"X_pca": np.concatenate(cells.clouds)}).write(
        path
    )
    return path


def words(own_file, tmp_path, *more):
    data = ["dataset=file", f"dataset.path={own_file}", "dataset.time_key=day", "dims=2"]
    quick = ["method.flow.steps=3", "method.flow.batch_size=8", "method.solver.steps=2", "seeds=1"]
    return [*data, *quick, f"out={tmp_path / 'runs'}", *more]


def test_a_file_of_the_users_runs_from_the_command_line(own_file, tmp_path, capsys):
    assert main(words(own_file, tmp_path, "protocol=clean")) == 0
    shown = capsys.readouterr().out
    assert "copy previous" in shown
    assert "noise floor" in shown
    rows = table_of(tmp_path / "runs").read(run="otcfm")
    assert [row["fold"] for row in rows] == [1, 2]
    assert rows[0]["dataset"] == "mine"
    results = tmp_path / "results"
    assert main(["table", f"records={tmp_path / 'runs'}", f"out={results}"]) == 0
    assert "## Protocol clean: mine, 2 dimensions" in (results / "trajectory.md").read_text()
    assert sorted(path.name for path in results.glob("*.png")) == [
        "trajectory-clean-mine-2-predicted.png",
        "trajectory-clean-mine-2-ranking.png",
    ]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["protocol=none"], r"Unknown protocol 'none'. Choose from: 'A', 'A-both', 'clean'"),
        (["fold=9"], r"Unknown fold '9'. Choose from: 'all', '1', '2'"),
        (["dims=4"], r"Expected 1 to 3 dimensions of mine; found dims=4"),
        (["protocol=E"], r"Protocol E needs at least 5 snapshots; mine has 4"),
        (["protocol=B-own-split"], r"keeps 350 \+ 200 cells of each snapshot; mine has one of 40"),
        (["dataset.time_key=week"], r"No `adata.obs\['week'\]`. Available: \['day'\]"),
        (["dataset.path=gone.h5ad"], r"No file gone.h5ad. Name an .h5ad file"),
        (["seeds=-1"], r"Expected seeds >= 0; found -1"),
        (["name=baselines"], r"cannot be called 'baselines'"),
    ],
)
def test_bad_input_is_named_with_the_choices(more, message, own_file, tmp_path, capsys):
    assert main(words(own_file, tmp_path, *more)) == 1
    assert pd.Series([capsys.readouterr().err]).str.contains(message).all()


@pytest.mark.parametrize(("word", "choice"), [("method=none", "otcfm"), ("dataset=none", "gene_circuit")])
def test_unknown_methods_and_data_sets_are_refused_with_the_choices(word, choice, capsys):
    assert main([word]) != 0
    assert choice in capsys.readouterr().err


def test_a_missing_data_set_says_where_to_put_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("CELLFLOW_DATA", str(tmp_path))
    assert main(["dataset=cite"]) == 1
    shown = capsys.readouterr().err
    assert f"{tmp_path / 'cite.h5ad'}" in shown
    assert "set CELLFLOW_DATA" in shown


def test_a_changed_sweep_is_refused_with_the_difference(own_file, tmp_path, capsys):
    assert main(words(own_file, tmp_path, "fold=1")) == 0
    assert main(words(own_file, tmp_path, "fold=1", "method.flow.steps=4")) == 1
    assert "method.flow.steps: 3 became 4" in capsys.readouterr().err
    assert main(words(own_file, tmp_path, "fold=1", "method.flow.steps=4", "name=four")) == 0


def test_several_values_are_swept(own_file, tmp_path):
    assert main(["-m", *words(own_file, tmp_path, "fold=1,2", "method=otcfm,icfm")]) == 0
    found = {(row["run"], row["fold"], row["seed"]) for row in table_of(tmp_path / "runs").read()}
    assert {("otcfm", 1, 42), ("otcfm", 2, 42), ("icfm", 1, 42), ("icfm", 2, 42)} <= found


def test_help_lists_every_choice(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in [*PROTOCOLS, "otcfm", "gene_circuit", "seeds:"]:
        assert name in shown


def test_a_missing_peer_is_skipped_by_name(own_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv(others.PYTHON, str(tmp_path / "python"))
    data = [word for word in words(own_file, tmp_path) if "method." not in word]
    assert main([*data, "method=otpfm"]) == settings.SKIPPED
    assert "skipped otpfm" in capsys.readouterr().err


@pytest.fixture(scope="module")
def kept_records(tmp_path_factory):
    """Records of two protocols, two methods and two seeds."""
    folder = tmp_path_factory.mktemp("records")
    for protocol in ("A", "F"):
        run(job(folder, protocol, seeds=2), quiet)
        run(job(folder, protocol, method=Drift(growth=0.1), name="growing"), quiet)
    return folder


@pytest.fixture
def several(kept_records, tmp_path):
    """A copy of the records, for one test."""
    return Path(shutil.copytree(kept_records, tmp_path / "records"))


def test_tables_never_mix_protocols(several, tmp_path):
    rows = table.write(several, results=tmp_path / "results", command="here")
    text = (tmp_path / "results" / "trajectory.md").read_text()
    sections = text.split("\n## ")[1:]
    assert [section.splitlines()[0] for section in sections] == [
        "Protocol A: toy, 3 dimensions",
        "Protocol F: toy, 3 dimensions",
    ]
    assert "RME" not in sections[0].splitlines()[4]
    assert "RME" in sections[1].splitlines()[4]
    assert "weighted_W1" in sections[0].splitlines()[4]
    assert set(rows["kind"]) == {"baseline", "floor", "measured"}
    assert len(pd.read_csv(tmp_path / "results" / "trajectory.csv")) == len(rows)


def test_a_summary_averages_targets_and_seeds(several):
    rows = table.frame(several)
    part = rows[(rows["protocol"] == "A")]
    found = table.summary(part, choose("A")).set_index("method")
    mine = part[part["method"] == "drift"]
    assert found.loc["drift", "mean"] == pytest.approx(mine["W1"].mean())
    assert found.loc["drift", "seeds"] == 2
    assert found.loc["drift", "at 2"] == pytest.approx(mine[mine["target"] == 2]["W1"].mean())
    assert list(found["mean"]) == sorted(found["mean"])


def test_a_target_that_more_seeds_have_reached_counts_no_more(several):
    run(job(several, name="partly"), quiet)
    run(job(several, name="partly", folds=1, seeds=3), quiet)
    part = table.frame(several).query("protocol == 'A' and method == 'partly'")
    assert part.groupby("target")["seed"].nunique().nunique() > 1
    found = table.summary(part, choose("A")).set_index("method").loc["partly"]
    for name in ("W2", "energy"):
        assert found[name] == pytest.approx(part.groupby("target")[name].mean().mean())
    part = part.assign(W1=part["W1"] + part["seed"] * (part["target"] > 0))  # seeds differ; one of them is whole
    found = table.summary(part, choose("A")).set_index("method").loc["partly"]
    assert np.isnan(found["sd"])
    assert found["seeds"] == 3


def test_published_rows_stand_only_in_the_table_of_their_protocol():
    published = pd.read_csv(table.PUBLISHED)
    assert set(published["confidence"]) <= {"verified", "secondary"}  # nothing from memory
    assert "cite" not in set(published["dataset"])  # another set of cells
    rows = {"kind": "measured", "fold": "1", "seed": 42, "target": 1, "W1": 0.7, "W1_sd": 0.01, "W2": 0.8}
    shown = {}
    for protocol in ("A", "clean"):
        part = pd.DataFrame(
            [rows | {"protocol": protocol, "dataset": "eb", "dims": 5, "method": "m", "trained_on": ""}]
        )
        shown[protocol] = table.markdown(part, "here").split("## Published under")[0]
    assert "| OT-CFM | published [1] |" in shown["A"]
    assert "[1] [SF]2M: Tong et al. 2024" in shown["A"]
    assert "| m | measured | 0.700 |" in shown["A"]
    assert "published [" not in shown["clean"]
    assert "WLF-OT" not in shown["A"]


def test_figures_have_labelled_axes(several):
    rows = table.frame(several)
    part = rows[rows["protocol"] == "A"]
    drawn = table.ranking(part, "A", "toy", 3)
    axes = drawn.axes[0]
    assert axes.get_xlabel() == "W1, mean over 3 snapshots"
    assert {label.get_text() for label in axes.get_yticklabels()} == {*baselines.NAMES, "drift", "growing"}
    panels = table.predictions(part, several / "A" / "toy-3", "A").axes
    assert len(panels) == 3 * 2
    assert panels[0].get_ylabel() == "dimension 2"
    assert panels[-1].get_xlabel() == "dimension 1"


def test_figures_name_the_score_that_ranks(several):
    """Weighted particles, where the protocol has them, not the same ones all weighing alike."""
    rows = table.frame(several)
    part = rows[rows["protocol"] == "F"].assign(weighted_W1=lambda part: part["weighted_W1"] + 1)  # to tell them apart
    growing = part[(part["method"] == "growing") & (part["target"] == 1)]
    titles = [axes.get_title() for axes in table.predictions(part, several / "F" / "toy-3", "F").axes]
    assert f"growing, snapshot 1: W1 {growing['weighted_W1'].iloc[0]:.3f}" in titles


def test_particles_drawn_by_mass_count_alike():
    rng = np.random.default_rng(0)
    x, mass = rng.normal(size=(500, 2)), rng.uniform(0.1, 2, size=500)
    drawn = drawn_by_mass(Particles(x, mass, evaluations=7), 20_000, seed=0)
    assert drawn.weight is None
    assert drawn.evaluations == 7
    times = (drawn.x[:, None, 0] == x[None, :, 0]).sum(axis=0)
    assert np.abs(times - 20_000 * mass / mass.sum()).max() < 1  # systematic: only rounded


def test_a_method_without_every_target_has_no_mean(several):
    run(job(several, name="partly", folds=1), quiet)
    rows = table.frame(several)
    found = table.summary(rows[rows["protocol"] == "A"], choose("A"))
    assert np.isnan(found.set_index("method").loc["partly", "mean"])
    assert found["method"].iloc[-1] == "partly"


def test_the_interval_of_a_mean_is_that_of_independent_targets(several):
    rows = table.frame(several)
    part = rows[rows["protocol"] == "F"]
    found = table.summary(part, choose("F")).set_index("method")
    sds = part[part["method"] == "growing"]["weighted_W1_sd"]
    assert len(sds) == 4
    assert found.loc["growing", "half"] == pytest.approx(1.96 * np.sqrt((sds**2).sum()) / 4)
    assert np.isnan(found.loc[baselines.FLOOR, "half"])


def test_a_table_without_records_says_what_to_run(tmp_path, capsys):
    assert main(["table", f"records={tmp_path / 'none'}", f"out={tmp_path}"]) == 1
    assert "No records below" in capsys.readouterr().err


def test_the_list_of_all_runs_names_what_exists():
    for line in OmegaConf.load(command.LIST).runs:
        given = dict(word.split("=") for word in line.split())
        assert given["protocol"] in PROTOCOLS
        assert (CONFIGS / "method" / f"{given['method']}.yaml").is_file()
        assert (CONFIGS / "dataset" / f"{given['dataset']}.yaml").is_file()


def test_folds_can_be_asked_for_in_a_list():
    folds = choose("A").folds_of(5, dataset="toy")
    assert [fold.name for fold in choose_folds(folds, ["1", 3])] == ["1", "3"]
    assert Path(table.PUBLISHED).is_file()
