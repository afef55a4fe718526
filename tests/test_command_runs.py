"""What commands check before a fit begins, what they read of a stranger's run, and which errors they say."""

import json
import os
import re

import anndata
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_command_settings import NAMES, NEEDED

import cellflow as cf
from cellflow.cli import COMMANDS, documents, kept, main, runs
from cellflow.cli import cells as cli_cells
from conftest import make_cells


def strange_run(folder, text, estimator="DomainTranslator"):
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(text)
    (folder / "model.json").write_text(json.dumps({"estimator": estimator}))
    return folder


def bomb(width=9):
    rows = ["a0: &a0 [x]"] + [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * width)}]" for k in range(1, width)]
    return "\n".join(rows)


@pytest.mark.parametrize("command", ["fit", "translate", "generate", "perturb"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (bomb(), "found a reference"),
        ("steps: " + "[" * 2000, "lists within lists"),
        ("- 1", "expected lines such as"),
        ("", "expected lines such as"),
        ("1: 2", "expected lines such as"),
        ("steps: !!python/object/apply:os.system [ls]", "found a tag"),
        pytest.param("\x00", "expected YAML", id="zero"),
        ("solver: {_target_: os.system, command: ls}", "a solver is one of"),
        ("solver: {_target_: cellflow.integrate.Fixed, stepz: 1}", "has no setting `stepz`"),
        ("solver: {_target_: cellflow.integrate.Fixed, steps: many}", "Expected `solver.steps` to be"),
        ("solver: {steps: many}", "Expected `solver.steps` to be"),
        ("seed: one", "Expected `seed` to be a whole number"),
        ("progress: 'no'", "Expected `progress` to be true or false"),
        ("seed: " + "9" * 5000, "a date or a number that cannot be"),
    ],
)
def test_settings_of_a_strangers_run_are_data_of_known_kinds(command, text, said, tmp_path):
    folder = strange_run(tmp_path, text)
    with pytest.raises(cf.errors.CheckpointError, match=re.escape(said)):
        kept.kept_settings(folder, command)


def test_nothing_in_a_strangers_settings_is_looked_up(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "hidden")
    text = "data: {path: '${oc.env:SECRET}', time_key: '${seed}'}\nout: ${oc.env:SECRET}"
    cfg = kept.kept_settings(strange_run(tmp_path, text), "fit")
    assert (cfg.data.path, cfg.data.time_key, cfg.out) == ("${oc.env:SECRET}", "${seed}", "${oc.env:SECRET}")
    assert "hidden" not in str(cfg)


def test_a_part_that_a_stranger_names_is_not_built(tmp_path):
    made = tmp_path / "made"
    text = f"solver: {{_target_: os.mkdir, path: {made}}}\nsource: a\ntarget: b"
    for command in ("report", "distill"):
        assert main([command, f"model={strange_run(tmp_path / 'run', text)}"]) == 1
    assert not made.exists()


@pytest.mark.parametrize("text", ["", '"', "\xff"], ids=["nothing", "quote", "no text"])
def test_a_damaged_table_of_a_run_is_said(text, tmp_path):
    (tmp_path / "validation.csv").write_text(text, encoding="latin-1")
    with pytest.raises(cf.errors.CheckpointError, match=r"validation\.csv is damaged"):
        cli_cells.write_report(tmp_path, make_cells(), None)


def test_a_file_that_holds_no_cells_is_said(cells_file, tmp_path, capsys):
    whole = cells_file.read_bytes()
    (tmp_path / "cut.h5ad").write_bytes(whole[:3000])
    (tmp_path / "text.h5ad").write_text("no cells")
    (tmp_path / "empty.zarr").mkdir()
    (tmp_path / "folder.h5ad").mkdir()
    names = [*(path.name for path in tmp_path.iterdir()), "cells.csv"]
    (tmp_path / "cells.csv").write_text("")
    for name in names:
        assert main(["fit", f"data.path={tmp_path / name}", "data.time_key=day", f"out={tmp_path / 'run'}"]) == 1
        said = capsys.readouterr().err
        assert name in said
        assert "Expected" in said
        assert "Traceback" not in said


@pytest.mark.parametrize(
    "text", ["{}", "[", "{'command': 1}", '{"command": "fit", "seconds": 3}', "\xff"], ids=range(5)
)
def test_a_description_of_a_strangers_run_is_refused_in_a_sentence(text, tmp_path):
    (tmp_path / "run.json").write_text(text, encoding="latin-1")
    with pytest.raises(cf.errors.CheckpointError, match=r"run\.json"):
        runs.details(tmp_path)


def test_settings_survive_the_file_they_are_kept_in(tmp_path):
    settings = {"data": {"path": "é"}, "markers": NAMES, "masses": {0: 1.0, "d5": 2}}
    runs.write_settings(tmp_path, settings)
    assert documents.read(tmp_path / "config.yaml") == settings


def test_faults_of_ours_show_their_traceback_and_errors_of_the_machine_do_not(monkeypatch, capsys, tmp_path):
    def fault(cfg):
        return {}[cfg.seed]

    def full(cfg):
        raise OSError(28, os.strerror(28), str(tmp_path / "model.safetensors"))

    def memory(cfg):
        raise MemoryError

    monkeypatch.setitem(COMMANDS, "fit", fault)
    with pytest.raises(KeyError):
        main(["fit", *NEEDED["fit"]])
    monkeypatch.setitem(COMMANDS, "fit", full)
    assert main(["fit", *NEEDED["fit"]]) == 1
    assert capsys.readouterr().err == f"cellflow fit: {tmp_path / 'model.safetensors'}: no space left on device.\n"
    monkeypatch.setitem(COMMANDS, "fit", memory)
    assert main(["fit", *NEEDED["fit"]]) == 1
    assert "not enough memory" in capsys.readouterr().err


@pytest.fixture(scope="module")
def cells_file(tmp_path_factory):
    made = make_cells()
    expression, gene = np.ones((made.n_obs, 1), np.float32), pd.DataFrame(index=["GENE"])
    cells = anndata.AnnData(expression, obs=made.obs, var=gene, obsm=dict(made.obsm))
    cells.obsm["X_flat"] = cells.obsm["X_pca"][:, :1]
    file = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    cells.write_h5ad(file)
    return file


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for name in ("dark", "bright"):
        (folder / name).mkdir()
        for k in range(8):
            image = np.full((8, 8, 3), 20 * k + 60 * (name == "bright"), np.uint8)
            Image.fromarray(image).save(folder / name / f"{k}.png")
    return folder


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fit", "data.path=CELLS", "data.time_key=day", "data.basis=umap"], "No `adata.obsm['X_umap']`"),
        (["fit", "data.path=CELLS", "data.time_key=day", "data.basis=flat"], "two different columns of 'X_flat'"),
        (["fit", "data.path=CELLS", "data.time_key=day", "data.groupby=kind"], "No `adata.obs['kind']`"),
        (["fit", "data.path=CELLS", "data.time_key=day", "n_seeds=0"], "`n_seeds` to be a whole number of at least 1"),
        (["fit", "data.path=CELLS", "data.time_key=day", "genes=[NOGENE]"], "`data.genes` names 'NOGENE'"),
        (["fit", "data.path=CELLS", "data.time_key=day", "genes=[GENE]"], "`data.genes` needs `adata.varm['PCs']`"),
        (["fit", "data.path=CELLS", "data.time_key=day", "genes=A,B"], "'data.genes=[A,B]'"),
        (["demo", "markers=[MYOG,NOGENE]"], "`markers` names 'NOGENE'"),
        (["demo", "components=100000"], "Expected fewer `components`"),
        (["translate", "source=DARK", "target=BRIGHT", "solver=jumps"], "for use after `distill`"),
        (["translate", "source=DARK", "target=BRIGHT", "solver=noisy"], "as no score is learned"),
        (["translate", "source=DARK", "target=BRIGHT", "feature_network=mnist"], "Expected images with 1 channels"),
        (["translate", "source=DARK", "target=BRIGHT", "target_class=cytd"], "choose a network too"),
        (
            ["translate", "source=DARK", "target=BRIGHT", "feature_network=cifar10_jpeg", "target_class=cytd"],
            "Unknown target class 'cytd'. Choose from: ",
        ),
        (["generate", "data=DARK", "solver=noisy"], "as no score is learned"),
        (["generate", "data=DARK", "feature_network=silhouettes"], "Expected images with 1 channels"),
        (["generate", "data=DARK", "preview=0"], "`preview` to be a whole number of at least 1"),
    ],
)
def test_what_would_fail_after_a_fit_is_said_before_it(words, said, cells_file, images, tmp_path, capsys, monkeypatch):
    def fit(self, *data, **more):
        raise AssertionError("the fit began")

    for estimator in (cf.SnapshotFlow, cf.DomainTranslator, cf.ImageGenerator):
        monkeypatch.setattr(estimator, "fit", fit)
    places = {"CELLS": cells_file, "DARK": images / "dark", "BRIGHT": images / "bright"}
    words = [re.sub("CELLS|DARK|BRIGHT", lambda found: str(places[found[0]]), word) for word in words]
    holdout = [] if words[0] in ("fit", "demo") else ["holdout=0.4"]
    assert main([*words, *holdout, f"out={tmp_path / 'run'}"]) == 1
    assert said in capsys.readouterr().err
