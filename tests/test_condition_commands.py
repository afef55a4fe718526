"""Conditions on the command line: columns as settings, flows to treated cells, and cells predicted from a run."""

import json
import re
import shutil
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

import cellflow as cf
from cellflow.cli import main, runs
from cellflow.cli.built import conditions_of
from cellflow.cli.compose import settings_from
from cellflow.cli.perturbation import having
from cellflow.cli.settings import file_words
from conftest import make_treated

FAST = ["steps=30", "batch_size=32", "progress=false", "device=cpu"]


def treated():
    adata = make_treated(sizes=(80, 60, 60))
    adata.obs["dose"] = np.where(adata.obs["drug"] == "control", 0.0, np.where(np.arange(adata.n_obs) % 2, 1.0, 10.0))
    return adata


def perturb(cells, out, *more):
    return main(["perturb", f"data.path={cells}", "conditions.treatment=drug", f"out={out}", *FAST, *more])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that several tests take a copy of."""
    place = tmp_path_factory.mktemp("treated")
    treated().write_h5ad(place / "cells.h5ad")
    dosed = ["conditions.dose=dose", "within=donor", "data.holdout={donor: x, drug: B}"]
    assert perturb(place / "cells.h5ad", place / "run", *dosed) == 0
    return place / "run"


@pytest.fixture
def run(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "run"))


def columns(*words):
    return conditions_of(settings_from("perturb", list(words)))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], None),
        (["conditions.treatment=drug"], cf.Conditions("drug")),
        (["conditions=drug"], cf.Conditions("drug")),
        (["conditions.dose=tgfb"], cf.Conditions(dose="tgfb")),
        (
            ["conditions.treatment=[a,b]", "conditions.dose=[x,y]", "conditions.separator=null"],
            cf.Conditions(("a", "b"), ("x", "y"), separator=None),
        ),
        (
            ["conditions.treatment=drug", "conditions.categories=donor", "conditions.numbers=[age,bmi]"],
            cf.Conditions("drug", categories=("donor",), numbers=("age", "bmi")),
        ),
        (
            ["conditions.treatment=drug", "conditions.embeddings={drug: morgan}", "conditions.control=it's + DMSO"],
            cf.Conditions("drug", embeddings={"drug": "morgan"}, control="it's + DMSO"),
        ),
    ],
)
def test_columns_are_settings(words, expected):
    assert columns(*words) == expected


def test_conditions_without_a_column_are_refused():
    with pytest.raises(ValueError, match="a column or more"):
        columns("conditions.control=DMSO")


def test_a_run_holds_the_flow_and_what_was_measured(finished):
    facts = json.loads((finished / "run.json").read_text())
    assert facts["command"] == "perturb"
    flow = cf.PerturbationFlow.load(finished)
    assert flow.conditions == cf.Conditions("drug", "dose")
    assert len(pd.read_csv(finished / "history.csv")) == 30
    seen = {(each["drug"], each["dose"]) for each in flow.treatments_}
    assert seen == {("A", 1.0), ("A", 10.0), ("B", 1.0), ("B", 10.0)}
    table = pd.read_csv(finished / "response.csv")
    fitted = table.groupby(["treatment", "group"])["fitted"].all()
    assert fitted.to_dict() == {
        (f"{drug}, dose {dose}", donor): (drug, donor) != ("B", "x")
        for drug in "AB"
        for dose in (1, 10)
        for donor in "xy"
    }
    assert "<html" in (finished / "report.html").read_text()


def test_predicted_cells_are_those_of_python(run, finished):
    assert main(["perturb", f"model={run}", "condition.drug=B", "condition.dose=10", "cells.donor=x"]) == 0
    found = anndata.read_h5ad(run / "perturbed-B-10.h5ad")
    flow, adata = cf.PerturbationFlow.load(finished), treated()
    some = adata[adata.obs["donor"] == "x"].copy()
    expected = cf.tl.perturb(some, flow, condition={"drug": "B", "dose": 10})
    np.testing.assert_allclose(found.obsm["X_pca"], expected.obsm["X_pca"], rtol=1e-5)
    assert (found.obs["origin"].astype(str) == expected.obs["origin"].astype(str)).all()


@pytest.mark.filterwarnings("always:.*treated already")
def test_several_conditions_and_all_cells(run, caplog):
    asked = "condition=[{drug: A, dose: '3'}, {drug: A+B, dose: 1+10}]"
    assert main(["perturb", f"model={run}", asked, "cells=all", f"out={run / 'both.h5ad'}"]) == 0
    assert "120 of 200 `cells` are treated already" in caplog.text
    found = anndata.read_h5ad(run / "both.h5ad")
    assert found.n_obs == 2 * treated().n_obs
    assert set(found.obs["condition"]) == {"A, dose 3", "A 1+B 10"}


def test_without_a_condition_each_treatment_is_predicted(run):
    assert main(["perturb", f"model={run}", "solver.steps=2"]) == 0
    found = anndata.read_h5ad(run / "perturbed.h5ad")
    assert found.obs["condition"].nunique() == 4
    assert main(["perturb", f"model={run}", "solver.steps=2"]) == 1  # nothing is written over


def test_the_report_is_written_again(run):
    (run / "report.html").unlink()
    (run / "response.csv").unlink()
    assert main(["report", f"model={run}"]) == 0
    assert (run / "report.html").exists()
    assert (run / "response.csv").exists()


@pytest.mark.usefixtures("unreported")
def test_a_run_goes_on(finished, tmp_path):
    cells, run = finished.parent / "cells.h5ad", tmp_path / "run"
    assert perturb(cells, run, "regularize=false") == 0
    assert perturb(cells, run, "resume=true", "regularize=false", "batch_size=16") == 1
    assert perturb(cells, run, "resume=true", "regularize=false", "steps=40") == 0
    assert len(pd.read_csv(run / "history.csv")) == 40


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "missing data.path=..., to fit, or model=..., to predict"),
        (["data.path=CELLS"], "missing conditions.treatment=..."),
        (["data.path=nowhere.h5ad", "conditions.treatment=drug"], "No file nowhere.h5ad"),
        (["data.path=CELLS", "conditions.treatment=drugs"], "No column 'drugs' for the conditions"),
        (
            ["data.path=CELLS", "conditions.treatment=drug", "conditions.control=DMSO"],
            "No control: expected cells with 'DMSO'",
        ),
        (["data.path=CELLS", "conditions.treatment=drug", "data.holdout={drug: Z}"], "Choose from: "),
        (["data.path=CELLS", "conditions.treatment=drug", "data.holdout={drug: control}"], "all are controls"),
        (["data.path=CELLS", "conditions.treatment=drug", "data.holdout={line: x}"], "No `adata.obs['line']`"),
        (["data.path=CELLS", "conditions.treatment=drug", "solver=jumps"], "which is for use after `distill`"),
        (["data.path=CELLS", "conditions.treatment=[", "out=x"], "Expected `conditions.treatment` to be"),
        (["model=RUN", "condition.drug=C", "condition.dose=1"], "No 'C' in 'drug': training had 'A', 'B'"),
        (["model=RUN", "condition.drug=A"], "lacks 'dose'"),
        (["model=RUN", "condition.drug=A", "condition.dose=-1"], "doses of 0 or more in 'dose'"),
        (
            ["model=RUN", "condition.drug=A", "condition.dose=1", "condition.batch=1"],
            "'batch' is not one of the columns",
        ),
        (["model=RUN", "cells.donor=z"], "Unknown value of 'donor' in `cells` 'z'"),
        (["model=RUN", "cells=some"], "Expected `cells` to be"),
        (["model=RUN", "genes=[ACTB]"], "Genes can be decoded from 'X_pca'"),
        (["model=RUN", "solver=jumps"], "cf.integrate.Fixed()"),
    ],
)
def test_mistakes_get_one_sentence(words, said, finished, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = {"CELLS": str(finished.parent / "cells.h5ad"), "RUN": str(finished)}
    for name, place in places.items():
        words = [word.replace(name, place) for word in words]
    assert main(["perturb", *words]) == 1
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize("command", [["interpolate", "at=1"], ["velocity"], ["fate", "groupby=drug"], ["distill"]])
def test_commands_on_snapshots_refuse_a_flow_without_times(command, finished, capsys):
    assert main([command[0], f"model={finished}", *command[1:]]) == 1
    assert "holds a PerturbationFlow, not a SnapshotFlow" in capsys.readouterr().err


def test_the_cure_of_a_flow_to_treated_cells_that_is_to_be_distilled(run, capsys):
    """The Python call that the refusal names, after which the command takes jumps."""
    assert main(["distill", f"model={run}"]) == 1
    said = capsys.readouterr().err
    load, save = re.findall("`([^`]*)`", said)[:2]
    adata = treated()
    adata = adata[~((adata.obs["donor"] == "x") & (adata.obs["drug"] == "B"))].copy()  # those of the fit
    flow = eval(load.removeprefix("flow = "), {"cf": cf})
    eval(save.replace("distill(adata)", "distill(adata, steps=2)"), {"flow": flow, "adata": adata})
    assert main(["perturb", f"model={run}", "condition.drug=B", "condition.dose=10", "solver=jumps"]) == 0
    assert anndata.read_h5ad(run / "perturbed-B-10.h5ad").n_obs


@pytest.mark.parametrize("name", ["a/b", "../..", "\u03b2", "x" * 300, "CON:", " "])
def test_a_condition_is_no_path(name):
    (found,) = file_words({"drug": name})
    assert Path(f"perturbed-{found}.h5ad").name == f"perturbed-{found}.h5ad"
    assert len(found) <= 60
    assert found.isascii()


def test_other_conditions_have_other_files():
    """However alike what a file system takes of their names is."""
    names = ["\u00e9", "\u00fc", "_", "10 nM", "10_nM", "A-1", "x" * 300, "x" * 299]
    several = [{"drug": "A"}, {"drug": "1", "dose": ""}]
    asked = [*({"drug": name} for name in names), {"drug": "A", "dose": "1"}, several]
    assert len({name for one in asked for name in file_words(one)}) == len(asked)
    assert file_words({"drug": "A+B", "dose": "0.5"}) == ["A+B-0.5"]


def test_doses_said_in_words_are_numbers(run):
    assert main(["perturb", f"model={run}", "condition.drug=B", "condition.dose=2.5", f"out={run / 'one.h5ad'}"]) == 0
    found = anndata.read_h5ad(run / "one.h5ad").obs
    assert found["dose"].unique().tolist() == [2.5]
    assert found["dose"].dtype == np.float64
    assert found["drug"].dtype == "category"


def test_columns_of_the_user_may_be_called_anything():
    cfg = settings_from("perturb", ["condition.conc.[nM]=3", "condition.it's=${x}", "cells.a b=1"])
    assert cfg.condition == {"conc.[nM]": "3", "it's": "${x}"}
    assert cfg.cells == {"a b": "1"}


def test_cells_are_chosen_by_what_is_printed():
    adata = treated()
    adata.obs["plate"] = pd.Categorical(np.arange(adata.n_obs) % 3)
    assert (
        having(adata, {"plate": "2", "donor": "x"}, setting="cells").sum()
        == ((adata.obs["plate"].astype(int) == 2) & (adata.obs["donor"] == "x")).sum()
    )
    adata.obs["alone"] = np.where(adata.obs["donor"] == "x", "p", "q")
    with pytest.raises(ValueError, match="No cell has all of"):
        having(adata, {"donor": "x", "alone": "q"}, setting="cells")


@pytest.mark.usefixtures("unreported")
@pytest.mark.parametrize(("within", "said"), [([], True), (["within=donor"], False)])
def test_what_is_left_out_of_a_condition_that_is_fitted_is_said_to_be_seen(within, said, tmp_path, capfd):
    """Cells of one donor, without `within`, are of the same condition as those of the others."""
    treated().write_h5ad(tmp_path / "cells.h5ad")
    assert perturb(tmp_path / "cells.h5ad", tmp_path / "run", "data.holdout={donor: x}", *within) == 0
    found = capfd.readouterr()
    assert ("count as seen" in found.out + found.err) == said


def test_settings_of_the_run_are_kept(finished):
    kept = runs.read_settings(finished)
    assert kept["conditions"]["dose"] == "dose"
    assert kept["data"]["holdout"] == {"donor": "x", "drug": "B"}


@pytest.fixture(scope="module")
def over_time(tmp_path_factory):
    """A run over days and drugs: B has no cells at day 0, and begins with the controls."""
    place = tmp_path_factory.mktemp("over_time")
    adata = anndata.concat([treated(), treated(), treated()], index_unique="-")
    adata.obs["day"] = np.repeat([0.0, 1.0, 3.0], adata.n_obs // 3)
    adata.obsm["X_pca"] += 0.2 * adata.obs["day"].to_numpy(dtype=np.float32)[:, None]
    adata = adata[~((adata.obs["day"] == 0) & (adata.obs["drug"] == "B"))].copy()
    adata.write_h5ad(place / "cells.h5ad")
    asked = ["data.time_key=day", "conditions=drug", "within=donor", "coupling=exact", "report=false"]
    assert main(["fit", f"data.path={place / 'cells.h5ad'}", f"out={place / 'run'}", *asked, *FAST]) == 0
    return place / "run"


def test_a_flow_over_time_takes_conditions(over_time):
    flow = cf.SnapshotFlow.load(over_time)
    assert flow.conditions in ("drug", cf.Conditions("drug"))
    assert flow.conditions_.names == ("A", "B")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["interpolate", "at=2", "condition.drug=B"], "interpolated-2-B.h5ad"),
        (["interpolate", "at=2", "condition={drug: A+B}"], "interpolated-2-A+B.h5ad"),
        (["interpolate", "at=2"], "interpolated-2.h5ad"),
        (["velocity", "condition.drug=control"], "velocity-control.h5ad"),
        (["fate", "groupby=donor", "condition.drug=A", "progress=false"], "fate-A.h5ad"),
    ],
    ids=str,
)
def test_commands_on_snapshots_take_a_condition(words, name, over_time, tmp_path):
    run = Path(shutil.copytree(over_time, tmp_path / "run"))
    assert main([words[0], f"model={run}", *words[1:]]) == 0
    assert anndata.read_h5ad(run / name).n_obs > 0


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("condition.drug=C", "No 'C' in 'drug'"),
        ("condition.line=x", "'line' is not one of the columns"),
        ("condition=[{drug: A}]", "Expected `condition` to be"),
    ],
)
def test_wrong_conditions_of_snapshots_get_one_sentence(word, said, over_time, capsys):
    assert main(["velocity", f"model={over_time}", word]) == 1
    assert said in capsys.readouterr().err
