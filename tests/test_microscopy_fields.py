"""Whole fields on the command line, for fitted models: what is refused is refused at once, with advice that works."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest

import cellflow as cf
from cellflow.cli import main
from cellflow.images.tiff import write_tiffs

tifffile = pytest.importorskip("tifffile")
DRAW = np.random.default_rng(0)
FEW = ["steps=1", "batch_size=2", "network=unet", "network.width=8", "network.multipliers=[1,2]", "network.blocks=1"]
FEW += ["holdout=0.5", "progress=false", "threads=1", "device=cpu"]
TILES = ["size=8", "fit=tiles", "percentiles=[0,100]"]
SHAPE = (2, 20, 12)
"""Channels, height and width of a field."""


def field(shape=SHAPE, kind="uint16"):
    return DRAW.integers(0, 256 if kind == "uint8" else 4096, shape).astype(kind)


def write(folder, fields, channels=("DAPI", "GFP")):
    """Write fields as OME-TIFF, or text as a file that is damaged."""
    folder.mkdir(parents=True)
    for number, one in enumerate(fields):
        path = folder / f"{number}.tif"
        if isinstance(one, bytes):
            path.write_bytes(one)
        else:
            write_tiffs(one[None], [path], channels=channels if len(one) == len(channels) else None)
    return folder


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """Runs of a translator and of a generator on tiles of two channels of 16 bits."""
    place = tmp_path_factory.mktemp("deep")
    source, target = (write(place / name, [field() for _ in range(4)]) for name in ("dmso", "drug"))
    with pytest.MonkeyPatch.context() as patch:
        for command in ("translation", "generation"):
            patch.setattr(f"cellflow.cli.{command}.write_report", lambda *given, **more: None)
        assert main(["translate", f"source={source}", f"target={target}", *TILES, *FEW, f"out={place / 't'}"]) == 0
        assert main(["generate", f"data={source}", *TILES, *FEW, f"out={place / 'g'}"]) == 0
    return {"translate": place / "t", "generate": place / "g"}


def used(run, source, out, *more):
    """Return the words of a command that uses a run."""
    command = "translate" if run.name == "t" else "generate"
    return [command, f"model={run}", f"input={source}", f"out={out}", "solver.steps=1", *more]


@pytest.mark.parametrize("form", ["npy", "npz", "zarr"])
def test_the_fields_of_an_array_are_carried_one_by_one(form, deep, tmp_path, capsys):
    values, path = np.stack([field() for _ in range(3)]), tmp_path / f"some.{form}"
    if form == "zarr":
        pytest.importorskip("zarr").save(str(path), values)
    else:
        {"npy": np.save, "npz": np.savez}[form](path, values)
    assert main(used(deep["translate"], path, tmp_path / "no")) == 1
    advised = re.search(r"Set `(overlap=\d+)`", capsys.readouterr().err)[1]
    assert main(used(deep["translate"], path, tmp_path / "made", advised)) == 0
    assert sorted(each.name for each in (tmp_path / "made").iterdir()) == ["0.tif", "1.tif", "2.tif"]
    model = cf.DomainTranslator.load(deep["translate"], device="cpu")
    made = model.translate(cf.images.read_images(values, channels=2, levels=model.levels_[0]), overlap=2, solver=1)
    found = cf.images.read_images(tmp_path / "made", levels=model.levels_[1])
    np.testing.assert_array_equal(found.levels.numbers(found.scaled()), made.levels.numbers(made.scaled()))


@pytest.mark.filterwarnings("default")
def test_all_files_are_looked_at_before_the_first_field_is_carried(deep, tmp_path, capsys):
    good = field()
    turned = write(tmp_path / "turned", [good], channels=("GFP", "DAPI")) / "0.tif"
    source = write(tmp_path / "in", [good, good, field(kind="uint8"), field((3, 20, 12)), good, field(kind="uint8")])
    (source / "1.tif").write_bytes((source / "0.tif").read_bytes()[:700])
    (source / "4.tif").write_bytes(turned.read_bytes())
    words = used(deep["translate"], source, tmp_path / "made", "overlap=2")
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "5 of 6 files cannot be translated, and none was" in said
    assert "2.tif, 5.tif: Expected images of uint16 numbers in the file" in said
    assert "3.tif: Expected images with 2 channels; found 3" in said
    assert "4.tif: Expected the channels that the levels are of, DAPI, GFP; files name them GFP, DAPI" in said
    assert re.search(r"Cannot be read: \S*1\.tif \(", said)
    assert not (tmp_path / "made").exists()
    for name in ("2", "3", "4", "5"):
        (source / f"{name}.tif").unlink()
    assert main(words) == 1
    assert "set `skip_unreadable=true`" in capsys.readouterr().err
    assert main([*words, "skip_unreadable=true"]) == 0
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["0.tif"]


@pytest.fixture(scope="module")
def shallow(tmp_path_factory):
    """Runs of a translator and of a generator on grey pictures of 8 bits."""
    place = tmp_path_factory.mktemp("shallow")
    source, target = (write(place / name, [field((1, 8, 8), "uint8") for _ in range(6)]) for name in ("a", "b"))
    with pytest.MonkeyPatch.context() as patch:
        for command in ("translation", "generation"):
            patch.setattr(f"cellflow.cli.{command}.write_report", lambda *given, **more: None)
        assert main(["translate", f"source={source}", f"target={target}", *FEW, f"out={place / 't'}"]) == 0
        assert main(["generate", f"data={source}", *FEW, f"out={place / 'g'}"]) == 0
    return {"translate": place / "t", "generate": place / "g"}


@pytest.mark.parametrize("way", ["translate", "generate", "overlap", "stream"])
@pytest.mark.parametrize(("kind", "white"), [("uint16", 4095), ("float32", 4095), ("float32", 0.5)])
@pytest.mark.parametrize("form", ["folder", "npy"])
def test_more_bits_than_a_model_of_bytes_knows_are_refused_without_a_range(
    form, kind, white, way, shallow, tmp_path, capsys
):
    values = (field((2, 1, 8, 8)) / 4095 * white).astype(kind)
    if form == "npy":
        source = tmp_path / "some.npy"
        np.save(source, values)
    else:
        source = write(tmp_path / "in", values)
    if form == "npy" and (way == "stream" or white == 0.5):
        pytest.skip("an array is no stream, and floats from 0 to 1 are bytes in it")
    more = {"overlap": ["overlap=2"], "stream": ["stream=true"]}.get(way, [])
    words = used(shallow["generate" if way == "generate" else "translate"], source, tmp_path / "made", *more)
    assert main(words) == 1
    said = capsys.readouterr().err
    assert re.search(r"Expected images as bytes, as in the fit; found \w+ numbers", said)
    assert not re.search("percentiles|white_level", said)
    eight = np.round(values / values.max() * 255).astype("uint8")  # which is what the message advises
    if form == "npy":
        np.save(source, eight)
    else:
        write_tiffs(eight, [source / "0.tif", source / "1.tif"])
    assert main(words) == 0


@pytest.mark.parametrize("command", ["translate", "generate"])
@pytest.mark.parametrize("more", [[], ["fit=tiles"], ["fit=pad"]])
@pytest.mark.filterwarnings("default")
def test_fields_smaller_than_a_tile_are_refused_with_advice_that_works(more, command, deep, tmp_path, capsys):
    source = write(tmp_path / "in", [field((2, 5, 12))] * 2)
    words = used(deep[command], source, tmp_path / "made")
    assert main([*words, *more]) == 1
    said = capsys.readouterr().err
    assert ("Leave `fit=tiles` out and set" in said) == (more == ["fit=tiles"])
    ways = [way for way in re.findall(r"`([\w=]+)`", said) if way not in more]
    assert ways == ["overlap=2"] * (command == "translate") + ["size=8"]
    for way in ways:
        assert main([*words[:3], f"out={tmp_path / way}", *words[4:], way]) == 0
        shape = (2, 5, 12) if way.startswith("overlap") else (2, 8, 8)
        assert cf.images.read_images(tmp_path / way, white_level=4095).shape == shape


@pytest.fixture(scope="module")
def plate(tmp_path_factory):
    """A folder of fields with a table, and a translator to the drugs in it, fitted on tiles."""
    place = tmp_path_factory.mktemp("plate")
    drugs = ["control"] * 4 + ["A", "B"] * 3
    source = write(place / "in", [field() for _ in drugs])
    table = pd.DataFrame({"file": [f"{number}.tif" for number in range(len(drugs))], "drug": drugs})
    table.to_csv(source / "plate.csv", index=False)
    told = ["table=plate.csv", "conditions.treatment=drug", *TILES, *FEW]
    assert main(["translate", f"source={source}", *told, f"out={place / 't'}"]) == 0
    return source, place / "t"


@pytest.mark.parametrize(
    "asked", [{"condition.drug": "A"}, {"condition.drug": "B", "table": "plate.csv"}, {"table": "plate.csv"}]
)
def test_fields_are_carried_to_conditions(asked, plate, tmp_path, capsys):
    source, run = plate
    if "condition.drug" not in asked:  # the controls have no treatment to be carried to
        treated = tmp_path / "treated"
        shutil.copytree(source, treated)
        pd.read_csv(source / "plate.csv").iloc[4:].to_csv(treated / "plate.csv", index=False)
        [(treated / f"{number}.tif").unlink() for number in range(4)]
        source = treated
    words = used(run, source, tmp_path / "made", *(f"{name}={value}" for name, value in asked.items()))
    assert main(words) == 1
    advised = re.search(r"Set `(overlap=\d+)`", capsys.readouterr().err)[1]
    assert main([*words, advised]) == 0
    assert "overlap=2 condition.drug=" in (run / "report.html").read_text()
    model = cf.DomainTranslator.load(run, device="cpu")
    given = cf.images.read_images(source, table=asked.get("table"), levels=model.levels_[0])
    condition = {"drug": asked["condition.drug"]} if "condition.drug" in asked else None
    made = model.translate(given, condition=condition, overlap=2, solver=1)
    found = cf.images.read_images(tmp_path / "made", table="table.csv", levels=model.levels_[1])
    np.testing.assert_array_equal(found.levels.numbers(found.scaled()), made.levels.numbers(made.scaled()))
    assert found.obs["drug"].tolist() == made.obs["drug"].tolist()
    assert condition is None or set(made.obs["drug"]) == {condition["drug"]}


@pytest.mark.filterwarnings("default")
def test_a_condition_that_is_unknown_is_refused_before_the_first_field(plate, tmp_path, capsys):
    source, run = plate
    rows = pd.DataFrame({"file": ["4.tif", "5.tif"], "drug": ["A", "Z"]})
    rows.to_csv(tmp_path / "table.csv", index=False)
    words = used(run, source, tmp_path / "made", "overlap=2")
    assert main([*words, f"table={tmp_path / 'table.csv'}"]) == 1
    assert "'Z'" in capsys.readouterr().err
    assert main(words) == 1
    assert "expected a `condition` to carry to" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_advice_of_an_overlap_is_not_given_where_noise_is_asked_for(deep, tmp_path, capsys):
    source = write(tmp_path / "in", [field()])
    assert main(used(deep["translate"], source, tmp_path / "made", "solver=noisy")) == 1
    said = capsys.readouterr().err
    assert "`overlap" not in said
    assert "`fit=tiles`" in said
