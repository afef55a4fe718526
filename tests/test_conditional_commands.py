"""`cellflow translate` and `cellflow generate` with a table of what images show: fitted, reported, asked."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import cellflow as cf
from cellflow.cli import main

NETWORK = ["network=unet", "network.width=8", "network.multipliers=[1,2]", "network.blocks=1"]
FAST = [*NETWORK, "steps=6", "batch_size=8", "progress=false", "device=cpu", "solver.steps=2", "threads=1"]
LEVELS = {"control": 20, "A": 90, "B": 160}


@pytest.fixture(scope="module")
def plates(tmp_path_factory):
    """Flat images of two plates; their level tells the drug."""
    folder, rows, draw = tmp_path_factory.mktemp("plates"), [], np.random.default_rng(0)
    for plate in (1, 2):
        for drug, level in LEVELS.items():
            for k in range(8):
                image = np.full((8, 8), level + plate, np.uint8)
                image[0, :4] = draw.integers(255, size=4)
                name = f"p{plate}/{drug}-{k}.png"
                (folder / name).parent.mkdir(exist_ok=True)
                Image.fromarray(image).save(folder / name)
                rows.append((name, drug, f"{plate}"))
    pd.DataFrame(rows, columns=["file", "drug", "plate"]).to_csv(folder / "plate.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def translated(plates, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "drugs"
    told = ["table=plate.csv", "conditions.treatment=drug", "within=plate", "condition_dropout=0.2"]
    assert main(["translate", f"source={plates}", f"out={run}", *told, "preview=3", "holdout=0.25", *FAST]) == 0
    return run


def test_one_folder_is_divided_by_its_table(translated):
    model = cf.DomainTranslator.load(translated, device="cpu")
    assert model.conditions_.names == ("A", "B")
    assert not model.controls_
    assert {path.stem for path in (translated / "figures").glob("*.png")} == {
        "conditions", "translated", "trajectories", "loss"
    }  # fmt: skip
    page = (translated / "report.html").read_text()
    assert "The same source images in each condition" in page
    assert "condition.drug=..." in page


def test_a_folder_is_translated_to_the_condition_asked_for(translated, plates, tmp_path):
    command = ["translate", f"model={translated}", f"input={plates}", "table=plate.csv", f"out={tmp_path / 'out'}"]
    assert main([*command, "condition.drug=B", "solver.steps=2", "guidance=1.5"]) == 0
    found = cf.images.read_images(tmp_path / "out", table="table.csv")
    assert set(found.obs["drug"]) == {"B"}
    model = cf.DomainTranslator.load(translated, device="cpu")
    given = cf.images.read_images(plates, table="plate.csv")
    expected = model.translate(given, condition={"drug": "B"}, guidance=1.5, solver=2)
    assert (found.images == expected.images).all()
    assert found.names == given.names


def test_a_run_is_distilled_and_reported_again(translated, monkeypatch):
    with monkeypatch.context() as patch:  # the page is written below
        patch.setattr("cellflow.cli.translation.write_report", lambda *given, **more: None)
        assert main(["distill", f"model={translated}", "steps=2", "progress=false", "device=cpu", "threads=1"]) == 0
    assert cf.DomainTranslator.load(translated, device="cpu").distilled
    assert main(["report", f"model={translated}"]) == 0


def test_images_are_generated_in_a_condition(plates, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    told = ["table=plate.csv", "conditions.treatment=drug", "conditions.categories=[plate]"]
    assert main(["generate", f"data={plates}", f"out={run}", *told, "preview=6", "holdout=0.25", *FAST]) == 0
    asked = ["condition.drug=A", "condition.plate=1", "n=3", f"out={out}"]
    assert main(["generate", f"model={run}", *asked, "solver.steps=2"]) == 0
    assert cf.images.read_images(out, table="table.csv").obs["drug"].tolist() == ["A"] * 3
    assert "Images of each condition" in (run / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["condition.drug=Z"], "'Z'"),
        (["condition.dose=3"], "'dose' is not one of the columns"),
        (["condition=[{drug: A}, {drug: B}]"], "Expected one condition for the images"),
        ([], "expected a `condition` to carry to"),
    ],
)
def test_wrong_conditions_are_refused_in_a_sentence(words, message, translated, plates, tmp_path, capsys):
    assert main(["translate", f"model={translated}", f"input={plates}", f"out={tmp_path / 'out'}", *words]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table=plate.csv"], "missing target="),
        (["conditions.treatment=drug"], "missing target="),
        (["table=plate.csv", "conditions.treatment=drug", "conditions.control=DMSO"], "'DMSO' in 'drug'"),
        (["table=other.csv", "conditions.treatment=drug"], "No table other.csv"),
    ],
)
def test_wrong_tables_are_refused_in_a_sentence(words, message, plates, tmp_path, capsys):
    assert main(["translate", f"source={plates}", f"out={tmp_path / 'run'}", *FAST, *words]) == 1
    assert message in capsys.readouterr().err
