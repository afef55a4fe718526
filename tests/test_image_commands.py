"""`cellflow translate`, `cellflow generate` and the image demo, end to end; and what a report says of a bad model."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

import cellflow as cf
from cellflow.cli import image_sizes, left_out, main
from cellflow.cli.compose import settings_from
from cellflow.cli.image_reading import read, read_as_fitted
from cellflow.cli.kept import kept_settings
from cellflow.cli.settings import Settings, plain
from cellflow.report.grids import GAP, nearest, tile
from cellflow.report.image_scores import MADE, REAL, STILL, headline, score_images, sentences
from cellflow.training.checkpoint import load_tensors

NETWORK = ["network=unet", "network.width=8", "network.multipliers=[1,2]", "network.blocks=1"]
FAST = [*NETWORK, "batch_size=8", "progress=false", "device=cpu", "solver.steps=2", "threads=1", "holdout=0.25"]
STREAM = ["stream=true", "size=8", "channels=1"]


def write_folder(folder, level, n=16, channels=1, size=8, seed=0):
    """Images of one level each, with a bright corner whose side differs."""
    draw = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for k in range(n):
        image = np.full((size, size, channels), level + draw.integers(-10, 10), np.uint8)
        image[: k % 4 + 1, : k % 4 + 1] = 255
        Image.fromarray(image.squeeze()).save(folder / f"cell-{k:02d}.png")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("images")
    return write_folder(place / "dark", 60), write_folder(place / "bright", 170, seed=1)


def translate(folders, out, *more):
    source, target = folders
    return main(["translate", f"source={source}", f"target={target}", f"out={out}", "steps=12", *FAST, *more])


@pytest.fixture(scope="module")
def translated(folders, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "dark-to-bright"
    assert translate(folders, run, "preview=5") == 0
    return run


def test_a_translation_run_holds_everything(translated):
    assert json.loads((translated / "run.json").read_text())["command"] == "translate"
    assert yaml.safe_load((translated / "config.yaml").read_text())["steps"] == 12
    assert len(pd.read_csv(translated / "history.csv")) == 12
    names = sorted(path.name for path in (translated / "previews").glob("*.png"))
    assert names == ["step-0000005.png", "step-0000010.png", "step-0000012.png"]
    assert cf.DomainTranslator.load(translated, device="cpu").shape_ == (1, 8, 8)
    assert {path.stem for path in (translated / "figures").glob("*.png")} == {"translated", "trajectories", "loss"}
    page = (translated / "report.html").read_text()
    for words in ("nearest", "FD-PCA", "structural similarity", "transport cost", "Training loss", "t = 0"):
        assert words.lower() in page.lower(), words
    scores = pd.read_csv(translated / "scores.csv")
    assert set(scores["of"]) >= {MADE, STILL, REAL, "own input", "input of another"}


def test_a_folder_is_translated_under_its_own_names(translated, folders, tmp_path):
    out = tmp_path / "out"
    assert main(["translate", f"model={translated}", f"input={folders[0]}", f"out={out}", "solver.steps=2"]) == 0
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in folders[0].iterdir())
    model = cf.DomainTranslator.load(translated, device="cpu")
    expected = model.translate(cf.images.read_images(folders[0]), solver=2).images
    assert torch.equal(cf.images.read_images(out).images, expected)


def test_other_sizes_are_brought_to_the_models(translated, tmp_path, capfd):
    big = write_folder(tmp_path / "big", 60, n=3, size=20)
    assert main(["translate", f"model={translated}", f"input={big}", f"out={tmp_path / 'out'}"]) == 0
    assert cf.images.read_images(tmp_path / "out").shape == (1, 8, 8)
    said = "cell-00.png: 20 x 20 pixels, and the model was fitted on images of 8 x 8 that were not scaled"
    assert said in capfd.readouterr().err
    assert main(["translate", f"model={translated}", f"input={big}", "size=8", f"out={tmp_path / 'asked'}"]) == 0
    assert said not in capfd.readouterr().err
    same = cf.images.read_images(tmp_path / "asked").images
    assert torch.equal(same, cf.images.read_images(tmp_path / "out").images)


def test_a_run_of_an_earlier_version_goes_on_with_its_defaults_of_reading(tmp_path):
    for name, grey in (("dark", 60), ("bright", 200)):
        (tmp_path / name).mkdir()
        for number in range(8):
            image = np.full((8, 5), grey + number, dtype=np.uint8)
            Image.fromarray(image).save(tmp_path / name / f"{number}.png")
    both = [f"source={tmp_path / 'dark'}", f"target={tmp_path / 'bright'}", "size=8", "fit=pad"]
    words = ["translate", *both, f"out={tmp_path / 'run'}", *FAST, "holdout=0.4", "recipe.schedule=constant"]
    assert main([*words, "steps=2", "white_level=65535", "background=255", "heads=shared"]) == 0  # as then
    path = tmp_path / "run" / "config.yaml"
    then = yaml.safe_load(path.read_text()) | {"overlap": 4}  # without effect then
    del then["guess"]  # which that version did not have
    path.write_text(yaml.safe_dump(then))
    assert main([*words, "steps=3", "resume=true"]) == 0
    then = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (then["white_level"], then["background"], then["steps"]) == (65535, "former", 3)
    assert main([*words, "steps=4", "resume=true", "background=255"]) == 0  # as it was typed then
    assert main([*words, "steps=5", "resume=true", "white_level=255"]) == 1  # another white is no default
    used = ["translate", f"model={tmp_path / 'run'}", f"input={tmp_path / 'dark'}", "fit=pad", "solver.steps=1"]
    assert main([*used, f"out={tmp_path / 'made'}"]) == 0
    source = cf.images.read_images(tmp_path / "dark", size=8, fit="pad", background=255)
    model = cf.DomainTranslator.load(tmp_path / "run", device="cpu")
    made = cf.images.read_images(tmp_path / "made").images
    assert torch.equal(made, model.translate(source, solver=1).images)


def test_a_white_beside_percentiles_is_refused_in_new_runs_and_without_effect_in_old_ones(tmp_path, capfd):
    tifffile = pytest.importorskip("tifffile")
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(8):
            tifffile.imwrite(tmp_path / name / f"{number}.tif", rng.integers(0, 4000, (8, 8)).astype("uint16"))
    both = [f"source={tmp_path / 'a'}", f"target={tmp_path / 'b'}", "percentiles=[0,100]", f"out={tmp_path / 'run'}"]
    words = ["translate", *both, *FAST, "holdout=0.4", "recipe.schedule=constant"]
    assert main([*words, "steps=2", "white_level=4095"]) == 1
    assert "Give `white_level` or `percentiles`, not both" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*words, "steps=2"]) == 0
    path = tmp_path / "run" / "config.yaml"
    then = yaml.safe_load(path.read_text())
    del then["guess"]  # which that version did not have
    path.write_text(yaml.safe_dump(then | {"white_level": 4095, "background": 255}))
    assert main(["report", f"model={tmp_path / 'run'}"]) == 0
    assert main([*words, "steps=3", "white_level=4095", "resume=true"]) == 0


@pytest.mark.usefixtures("unreported")
@pytest.mark.parametrize(
    ("kind", "asked", "stored", "border"),
    [
        ("uint16", ["percentiles=[0,100]"], {"white_level": 65535, "background": 255}, -1),
        ("uint16", ["white_level=4095"], {"white_level": 4095, "background": 255}, -1),
        ("uint16", ["white_level=4095", "background=128"], {"white_level": 4095, "background": 128}, 2 * 128 / 255 - 1),
        ("uint16", ["percentiles=[0,100]", "background=255"], None, 1),
        ("uint16", ["white_level=4095", "background=255"], None, 1),
        ("uint8", ["background=255"], {"white_level": 65535, "background": 255}, 1),
        ("uint8", ["white_level=4095", "background=255"], {"white_level": 4095, "background": 255}, 1),
        ("uint8", [], None, -1),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.filterwarnings("ignore:.white_level=4095. has no effect")
def test_the_border_of_images_is_that_of_the_version_of_a_run(stream, kind, asked, stored, border, tmp_path):
    """Version 0.2.0 stored defaults that nobody had asked for, and padded camera counts with black."""
    tifffile, rng = pytest.importorskip("tifffile"), np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(8):
            most = 255 if kind == "uint8" else 4000
            tifffile.imwrite(tmp_path / name / f"{number}.tif", rng.integers(0, most, (8, 5)).astype(kind))
    both = [f"source={tmp_path / 'a'}", f"target={tmp_path / 'b'}", f"out={tmp_path / 'run'}", "size=8", "fit=pad"]
    words = ["translate", *both, *asked, *FAST, "holdout=0.4", "recipe.schedule=constant"]
    words += ["stream=true", "channels=1"] if stream else []
    assert main([*words, "steps=2"]) == 0
    path = tmp_path / "run" / "config.yaml"
    then = yaml.safe_load(path.read_text())
    if stored is not None:
        path.write_text(yaml.safe_dump({key: value for key, value in then.items() if key != "guess"} | stored))
    for steps in (3, 4):
        then = kept_settings(tmp_path / "run", "translate")
        assert read(str(tmp_path / "a"), then).scaled()[:, :, :, 0].unique().tolist() == pytest.approx(
            [border], abs=1e-6
        )
        levels = cf.DomainTranslator.load(tmp_path / "run", device="cpu").levels_[0]
        asked_now = Settings(then | {"input": str(tmp_path / "a"), "background": None})
        given = read_as_fitted(asked_now, then, (1, 8, 8), levels=levels, fields=True)
        assert given.scaled()[:, :, :, 0].unique().tolist() == pytest.approx([border], abs=1e-6)
        assert main([*words, f"steps={steps}", "resume=true"]) == 0


@pytest.mark.parametrize("n", [4, 5, 14, 24])
def test_a_share_that_leaves_enough_to_score_is_named(n):
    cfg = Settings({"holdout": 0.1, "seed": 0})
    images = cf.datasets.digits().take(range(n))
    with pytest.raises(ValueError, match="held out for the scores; found") as error:
        left_out.hold_out(images, cfg)
    named = re.search(r"`holdout=([\d.]+)`", str(error.value))
    assert (named is None) == (n < 5)
    if named:
        cfg.holdout = float(named[1])
        split = left_out.hold_out(images, cfg)
        assert len(split.held_out) >= 3
        assert len(split.fitted) >= 2


@pytest.mark.parametrize("kind", ["folder", "picture", "npy", "zarr", "tiff", "table", "stream"])
def test_another_scale_is_told_of_every_kind_of_input(kind, translated, tmp_path, capfd, rng):
    images = torch.randint(256, (2, 1, 20, 24), dtype=torch.uint8, generator=rng)
    folder, more = tmp_path / "some", []
    folder.mkdir()
    Image.fromarray(images[0, 0].numpy()).save(folder / "b.png")
    Image.fromarray(images[0, 0, :8, :8].numpy()).save(folder / "c.png")
    if kind == "zarr":
        folder = tmp_path / "some.zarr"
        pytest.importorskip("zarr").save(str(folder), images.numpy())
    elif kind == "npy":
        folder = tmp_path / "some.npy"
        np.save(folder, images.numpy())
    elif kind == "tiff":
        pytest.importorskip("tifffile").imwrite(folder / "a.tif", images[0, 0].numpy())
    elif kind == "picture":
        folder = folder / "b.png"
    elif kind == "table":  # which leaves out the large one
        pd.DataFrame({"file": ["c.png"]}).to_csv(tmp_path / "table.csv", index=False)
        more = [f"table={tmp_path / 'table.csv'}"]
    elif kind == "stream":
        more = ["stream=true", "channels=1"]
    used = ["translate", f"model={translated}", f"input={folder}", f"out={tmp_path / 'out'}", "solver.steps=1", *more]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of what is cropped
        assert main(used) == 0
    said = capfd.readouterr().err
    assert (": 20 x 24 pixels, and the model was fitted on images of 8 x 8" in said) == (kind != "table")


@pytest.mark.parametrize("command", ["translate", "generate"])
def test_a_model_of_tiles_does_not_scale_whole_fields(command, tmp_path, capfd):
    wide = write_folder(tmp_path / "wide", 60, n=3, size=20)
    other = write_folder(tmp_path / "other", 200, n=3, size=20)
    data = [f"source={wide}", f"target={other}"] if command == "translate" else [f"data={wide}"]
    assert main([command, *data, "size=8", "fit=tiles", "steps=1", f"out={tmp_path / 'run'}", *FAST]) == 0
    used = [command, f"model={tmp_path / 'run'}", f"input={wide}", "solver.steps=1"]
    assert main([*used, f"out={tmp_path / 'no'}"]) == 1
    said = capfd.readouterr().err
    assert ": 20 x 20 pixels, and the model was fitted on images of 8 x 8 that were not scaled" in said
    assert ("`overlap=2` to carry whole fields in tiles" in said) == (command == "translate")
    assert not (tmp_path / "no").exists()
    Image.fromarray(np.full((8, 8), 9, dtype=np.uint8)).save(wide / "aa.png")  # a tile before the fields
    assert main([*used, f"out={tmp_path / 'no'}"]) == 1
    assert "Expected pictures of one size; found 2" in capfd.readouterr().err
    (wide / "aa.png").unlink()
    assert main([*used, "fit=pad", f"out={tmp_path / 'no'}"]) == 1
    assert "that were not scaled" in capfd.readouterr().err
    for way, shape, n in (("fit=tiles", (1, 8, 8), 27), ("size=8", (1, 8, 8), 3)):
        out = tmp_path / way
        assert main([*used, way, f"out={out}"]) == 0
        found = cf.images.read_images(out)
        assert (found.shape, len(found)) == (shape, n)
    if command == "translate":
        assert main([*used, "overlap=2", f"out={tmp_path / 'fields'}"]) == 0
        assert cf.images.read_images(tmp_path / "fields").shape == (1, 20, 20)
        assert "field 1 of 3: cell-00.png, 20 x 20" in capfd.readouterr().err


def test_a_long_translation_says_how_long_it_takes(translated, folders, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("cellflow.training.run.WORTH_SAYING", 0)
    monkeypatch.setattr("cellflow.estimators.portions.PIXELS_IN_A_CACHE", 64)
    used = [f"model={translated}", f"input={folders[0]}", "device=cpu", "solver.steps=1", f"out={tmp_path / 'out'}"]
    assert main(["translate", *used]) == 0
    n = len(list(folders[0].iterdir()))
    assert f"carrying {n} samples, 1 at once: step 2 of {n}" in capfd.readouterr().err


def test_reverse_goes_the_other_way(translated, folders, tmp_path):
    out = tmp_path / "back"
    command = ["translate", f"model={translated}", f"input={folders[1]}", f"out={out}", "reverse=true"]
    assert main([*command, "solver.steps=3"]) == 0
    model = cf.DomainTranslator.load(translated, device="cpu")
    expected = model.translate(cf.images.read_images(folders[1]), reverse=True, solver=3).images
    assert torch.equal(cf.images.read_images(out).images, expected)


def test_the_report_is_written_again(translated):
    page = translated / "report.html"
    before = (translated / "scores.csv").read_text()
    page.unlink()
    assert main(["report", f"model={translated}"]) == 0
    assert page.exists()
    assert (translated / "scores.csv").read_text() == before


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    place = tmp_path_factory.mktemp("generate")
    write_folder(place / "data" / "dark", 60)
    write_folder(place / "data" / "bright", 170)
    command = ["generate", f"data={place / 'data'}", "labels=folder", f"out={place / 'run'}", "steps=6", *FAST]
    assert main(command) == 0
    return place / "run"


def test_a_generator_run_holds_everything(generated):
    assert cf.ImageGenerator.load(generated, device="cpu").classes_ == ("bright", "dark")
    assert {path.stem for path in (generated / "figures").glob("*.png")} == {"generated", "trajectories", "loss"}
    assert "Images made from noise" in (generated / "report.html").read_text()
    assert len(list((generated / "previews").glob("*.png"))) == 1
    assert main(["report", f"model={generated}"]) == 0


def test_images_are_generated_into_a_folder(generated, tmp_path):
    out = tmp_path / "out"
    command = ["generate", f"model={generated}", "n=11", "label=dark", "guidance=2", f"out={out}", "solver.steps=2"]
    assert main(command) == 0
    assert sorted(path.name for path in out.iterdir())[0] == "00.png"
    model = cf.ImageGenerator.load(generated, device="cpu")
    expected = model.generate(11, label="dark", guidance=2.0, solver=2)
    assert torch.equal(cf.images.read_images(out).images, expected.images)


def test_a_run_on_files_that_stay_where_they_are_is_the_same(translated, folders, tmp_path):
    run = tmp_path / "streamed"
    assert translate(folders, run, "preview=5", *STREAM) == 0
    for name in ("model.safetensors", "history.csv", "scores.csv", "previews/step-0000010.png"):
        assert (run / name).read_bytes() == (translated / name).read_bytes(), name
    (run / "report.html").unlink()
    assert main(["report", f"model={run}"]) == 0
    assert "12 fitted, 4 left out" in (run / "report.html").read_text()


def test_a_generator_is_fitted_from_files_too(generated, tmp_path):
    data = generated.parent / "data"
    command = ["generate", f"data={data}", "labels=folder", f"out={tmp_path / 'run'}", "steps=6", *FAST, *STREAM]
    assert main(command) == 0
    for name in ("model.safetensors", "scores.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (generated / name).read_bytes(), name


def test_a_report_reads_some_of_many_files_and_says_so(folders, tmp_path, monkeypatch):
    page = sys.modules["cellflow.report.image_scores"]
    monkeypatch.setattr(page, "READ", 3)
    stream = cf.images.stream_images(folders[0], size=8, channels=1)
    assert page.Split(stream, stream).in_memory().fitted.names == ("cell-00.png", "cell-05.png", "cell-10.png")
    whole = cf.images.read_images(folders[0])
    assert page.Split(whole, whole).in_memory().fitted is whole
    assert translate(folders, tmp_path / "run", "steps=2", *STREAM) == 0
    text = (tmp_path / "run" / "report.html").read_text()
    assert "at most 3 of each" in text
    assert "12 fitted, 4 left out" in text
    assert "for 3 images it made" in text


def test_a_folder_is_translated_some_at_a_time(translated, folders, tmp_path, monkeypatch):
    monkeypatch.setattr(cf.cli.translation, "AT_ONCE", 5)
    command = ["translate", f"model={translated}", f"input={folders[0]}", "solver.steps=2"]
    assert main([*command, f"out={tmp_path / 'parts'}", "stream=true"]) == 0
    assert main([*command, f"out={tmp_path / 'whole'}"]) == 0
    parts, whole = (cf.images.read_images(tmp_path / name) for name in ("parts", "whole"))
    assert parts.names == whole.names
    assert torch.equal(parts.images, whole.images)


@pytest.mark.usefixtures("unreported")
def test_every_seed_and_every_part_has_noise_of_its_own(bridge, tmp_path, monkeypatch):
    monkeypatch.setattr(cf.cli.translation, "AT_ONCE", 3)
    folder = tmp_path / "alike"
    folder.mkdir()
    for k in range(6):
        Image.fromarray(np.full((8, 8), 60, np.uint8)).save(folder / f"{k}.png")
    command = ["translate", f"model={bridge}", f"input={folder}", "solver.steps=4"]
    found = []
    for name, more in (("a", []), ("b", ["seed=1"]), ("c", ["stream=true"]), ("again", ["stream=true"])):
        assert main([*command, f"out={tmp_path / name}", *more]) == 0
        found.append(cf.images.read_images(tmp_path / name).images)
    assert torch.equal(found[2], found[3])
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[2][:3], found[2][3:])


def test_a_diffusion_model_comes_from_the_same_command(folders, tmp_path):
    more = ["path=variance_preserving", "objective=noise", "steps=2"]
    assert main(["generate", f"data={folders[0]}", f"out={tmp_path / 'run'}", *FAST, *more]) == 0
    assert cf.ImageGenerator.load(tmp_path / "run", device="cpu").objective == "noise"


@pytest.fixture(scope="module")
def bridge(folders, tmp_path_factory):
    run = tmp_path_factory.mktemp("bridge") / "run"
    assert translate(folders, run, "path=brownian_bridge", "path.sigma=0.3", "stochastic=true", "steps=2") == 0
    return run


def test_a_bridge_comes_from_the_same_command(bridge, folders):
    model = cf.DomainTranslator.load(bridge, device="cpu")
    assert model.simulate(cf.images.read_images(folders[0]), solver=2).shape == (1, 8, 8)


def test_settings_that_a_solver_does_not_take_are_refused(bridge, folders, tmp_path, capsys):
    words = ["translate", f"model={bridge}", f"input={folders[0]}", f"out={tmp_path / 'out'}"]
    for more, said in (
        (["strength=0.5", "solver=fixed"], "`strength` needs noise; found 0.5"),
        (["guidance=3"], "`guidance` is for flows without noise; found 3"),
        (["overlap=2", "solver=noisy"], "Leave `solver=noisy` out"),
        (["overlap=2", "strength=0.5"], "`strength` needs noise"),
    ):
        assert main([*words, *more]) == 1
        assert said in capsys.readouterr().err
    assert main([*words, "overlap=2"]) == 0


@pytest.mark.slow
def test_the_demo_translates_cells(tmp_path):
    run = tmp_path / "run"
    small = ["size=16", "steps=4", "preview=2", "network.width=8", "network.multipliers=[1,2]", "network.attention=[1]"]
    assert main(["demo", "task=translation", f"out={run}", "progress=false", "device=cpu", "threads=1", *small]) == 0
    page = (run / "report.html").read_text()
    assert "FD-silhouettes" in page
    assert "Classified as the target class" in page
    assert main(["report", f"model={run}"]) == 0


@pytest.mark.usefixtures("unreported")
def test_resumed_is_the_same_to_the_bit(folders, tmp_path):
    constant = "recipe.schedule=constant"
    assert translate(folders, tmp_path / "whole", constant) == 0
    assert translate(folders, tmp_path / "parts", constant, "steps=7") == 0
    assert translate(folders, tmp_path / "parts", constant, "resume=true") == 0
    a, b = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert a == b


@pytest.mark.slow
def test_control_c_saves_and_says_how_to_go_on(folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source, target = folders
    command = ["translate", f"source={source}", f"target={target}", "out=run", *FAST, "preview=3", "steps=100000"]
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; from cellflow.cli import main; sys.exit(main())", *command],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        wait_for(tmp_path / "run" / "previews" / "step-0000003.png", child)
        child.send_signal(signal.SIGINT)
        _, shown = child.communicate(timeout=120)
    finally:
        child.kill()
    assert child.returncode == 130
    assert "Traceback" not in shown
    printed = next(line for line in shown.splitlines() if line.strip().startswith("cellflow translate"))
    taken = load_tensors(tmp_path / "run" / "training.safetensors")[1]["step"]
    again = [word.replace("steps=100000", f"steps={taken + 2}") for word in shlex.split(printed)[1:]]
    assert main(again) == 0
    assert len(pd.read_csv(tmp_path / "run" / "history.csv")) == taken + 2


def wait_for(path, child):
    for _ in range(1200):
        if path.exists():
            return
        assert child.poll() is None, child.stderr.read()
        time.sleep(0.1)
    raise AssertionError(f"no {path} after two minutes")


BRIDGE = ["path=brownian_bridge", "path.sigma=0.3", "stochastic=true"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["translate"], "missing source=... target=..."),
        (["translate", "source=DARK"], "missing target=..."),
        (["translate", "source=nowhere", "target=DARK"], "No folder nowhere"),
        (["translate", "source=DARK", "target=DARK"], "the same images"),
        (["translate", "source=DARK", "target=TEXTS"], "found 2 x .txt"),
        (["translate", "source=DARK", "target=EMPTY"], "no files"),
        (["translate", "source=DARK", "target=COLOUR"], "one shape"),
        (["translate", "source=DARK", "target=MIXED"], "Set `channels=1`"),
        (["translate", "source=DARK", "target=BROKEN"], "cannot be read"),
        (["translate", "source=DARK", "target=ONE"], "found 1 and 0 of 1"),
        (["translate", "source=DARK", "target=FEW"], "found 6 and 2 of 8, with holdout=0.25"),
        (["translate", "source=DARK", "target=ALPHA"], "one shape"),
        (["translate", "source=DARK", "target=BRIGHT", "stream=true"], "such as size=64 and channels=3"),
        (["translate", "source=DARK", "target=EMPTY", *STREAM], "no files"),
        (["translate", "source=DARK", "target=TEXTS", *STREAM], "found 2 x .txt"),
        (["translate", "source=DARK", "target=BROKEN", *STREAM, "holdout=0.75"], "cell-01.png"),
        (["translate", "source=DARK", "target=DARK", *STREAM], "the same images"),
        (["translate", "source=DARK", "target=ARRAYS", *STREAM], "is one file, which is read whole"),
        (["generate", "data=BRIGHT", "stream=true", "size=8"], "such as size=64 and channels=3"),
        (["generate", "data=ONE"], "found 1 and 0 of 1"),
        (["generate", "data=EMPTY"], "no files"),
        (["generate", "data=BROKEN"], "skip_unreadable"),
        (["translate", "source=DARK", "target=BRIGHT", "holdout=0"], "Expected `holdout`"),
        (["translate", "source=DARK", "target=BRIGHT", "features=faces"], "Unknown feature network"),
        (["translate", "model=nowhere", "input=DARK", "out=x"], "No fitted model in nowhere"),
        (["translate", "model=nowhere"], "missing input=... out=..."),
        (["translate", "source=DARK", "target=BRIGHT", "stepz=1"], "`cellflow translate --help` lists every setting"),
        (["translate", "source=DARK", "target=BRIGHT", "heads=ends"], 'heads="ends" are those of a bridge'),
        (["translate", "source=DARK", "target=BRIGHT", *BRIDGE, "guidance=2"], "`guidance` is for flows without noise"),
        (["translate", "source=DARK", "target=BRIGHT", "overlap=4"], "`overlap` applies to fields that a fitted model"),
        (["translate", "source=DARK", "target=BRIGHT", "size=8x6"], "written in brackets: 'size=[8,6]', height first."),
        (["translate", "source=DARK", "target=BRIGHT", "size=8,6"], "written in brackets: 'size=[8,6]', height first."),
        (["translate", "source=DARK", "target=BRIGHT", "sigma=0.3"], "has no setting `sigma`. Did you mean"),
        (
            ["translate", "source=DARK", "target=BRIGHT", "percentiles=(0,99)"],
            "a list (in square brackets) of 2 numbers from 0 to 100",
        ),
        (["generate"], "missing data=..."),
        (["generate", "model=nowhere", "out=x"], "No fitted model in nowhere"),
        (["generate", "data=DARK", "labels=folder"], "in a folder named after its class"),
        (["generate", "data=DARK", "objective=noise"], "VariancePreserving"),
    ],
)
def test_mistakes_get_one_sentence(arguments, words, folders, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = {"DARK": folders[0], "BRIGHT": folders[1]} | bad_folders(tmp_path)
    given = [arguments[0]]
    for argument in arguments[1:]:
        name, value = argument.split("=")
        given.append(f"{name}={places.get(value, value)}")
    fast = [] if "model" in " ".join(arguments) else [*FAST, "steps=2"]
    assert main([given[0], *fast, *given[1:]]) != 0
    shown = capsys.readouterr().err
    assert words in shown
    assert "Traceback" not in shown


def bad_folders(place):
    names = ("TEXTS", "EMPTY", "COLOUR", "ALPHA", "MIXED", "BROKEN", "ONE", "FEW")
    found = {name: place / name.lower() for name in names}
    for name in ("TEXTS", "EMPTY"):
        found[name].mkdir()
    for name in ("a.txt", "b.txt"):
        (found["TEXTS"] / name).write_text("no image")
    write_folder(found["COLOUR"], 60, channels=3)
    write_folder(found["MIXED"] / "grey", 60, n=2)
    write_folder(found["MIXED"] / "colour", 60, n=2, channels=3)
    write_folder(found["ALPHA"], 60, channels=4)
    write_folder(found["BROKEN"], 60, n=12)
    (found["BROKEN"] / "cell-01.png").write_bytes(b"cut off")
    write_folder(found["ONE"], 60, n=1)
    write_folder(found["FEW"], 60, n=8)
    np.save(place / "arrays.npy", np.zeros((12, 8, 8), np.uint8))
    return found | {"ARRAYS": place / "arrays.npy"}


@pytest.mark.parametrize("more", [[], STREAM], ids=["memory", "files"])
@pytest.mark.filterwarnings("default")
def test_a_damaged_file_is_left_out_only_if_asked(folders, tmp_path, capsys, more):
    broken = bad_folders(tmp_path)["BROKEN"]
    assert translate((broken, folders[1]), tmp_path / "run", "steps=1", "skip_unreadable=true", *more) == 0
    shown = capsys.readouterr().err
    line = next(line for line in shown.splitlines() if "Left out" in line)
    assert line.startswith("warning: Left out 1 of 12 pictures: ")
    assert "cell-01.png" in line
    assert "8 fitted, 3 left out" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.usefixtures("unreported")
def test_sixteen_bits_transparency_and_colour_become_what_is_asked_for(folders, tmp_path):
    """Images of all these kinds come out of a run as the same bytes: white is white, what is transparent is white."""
    for name in ("deep", "clear", "colour"):
        (tmp_path / name).mkdir()
    for path in sorted(folders[0].iterdir()):
        grey = np.asarray(Image.open(path))
        Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep" / f"{path.stem}.tif")
        layers = [np.zeros_like(grey)] * 3 + [255 - grey]
        Image.fromarray(np.stack(layers, axis=-1)).save(tmp_path / "clear" / path.name)
        Image.fromarray(np.stack([grey] * 3, axis=-1)).save(tmp_path / "colour" / path.name)
    weights = []
    for source in (folders[0], *(tmp_path / name for name in ("deep", "clear", "colour"))):
        run = tmp_path / f"run-{source.name}"
        assert translate((source, folders[1]), run, "steps=2", "channels=1") == 0
        weights.append((run / "model.safetensors").read_bytes())
    assert len(set(weights)) == 1


def test_a_size_without_a_network_is_refused_before_anything_is_trained(folders, tmp_path, capsys):
    more = [f"source={folders[0]}", f"target={folders[1]}", f"out={tmp_path / 'run'}", "device=cpu"]
    assert main(["translate", *more, "size=[8,1032]", "fit=pad", "holdout=0.25"]) == 1
    assert 'fit="tiles", size=128' in capsys.readouterr().err


@pytest.mark.parametrize(("device", "expected"), [("cpu", image_sizes.CPU), ("cuda", image_sizes.GPU)])
def test_what_is_left_to_the_machine_follows_from_it_and_is_said(device, expected, caplog):
    cfg = settings_from("generate", ["data=cells", f"device={device}", "batch_size=5"])
    with caplog.at_level("INFO", logger="cellflow"):
        image_sizes.settle(cfg, (3, 256, 256))
    assert (cfg.steps, cfg.batch_size, cfg.network.width) == (expected.steps, 5, expected.width // 2)
    assert f"steps={expected.steps}" in caplog.text
    assert "batch_size" not in caplog.text
    given = settings_from("generate", ["data=cells", "steps=7", "batch_size=5", "network=unet", "network.width=8"])
    before = plain(given)
    image_sizes.settle(given, (3, 256, 256))
    assert plain(given) == before


@pytest.mark.usefixtures("unreported")
def test_a_resumed_run_keeps_what_the_machine_chose(folders, tmp_path, monkeypatch):
    more = [f"data={folders[0]}", f"out={tmp_path / 'run'}", "holdout=0.4", "solver.steps=1", "progress=false"]
    assert main(["generate", *more, "steps=2", "device=cpu"]) == 0
    kept = tmp_path / "run" / "config.yaml"
    then = yaml.safe_load(kept.read_text())
    assert (then["batch_size"], then["network"]["width"]) == (16, 16)
    monkeypatch.setattr(image_sizes, "CPU", image_sizes.GPU)  # as on a machine that has one
    assert main(["generate", *more, "steps=3", "resume=true", "device=cpu"]) == 0
    now = yaml.safe_load(kept.read_text())
    assert now == then | {"steps": 3, "resume": True}


@pytest.mark.usefixtures("unreported")
def test_weights_of_another_network_are_refused(translated, folders, tmp_path, capsys):
    assert translate(folders, tmp_path / "wide", "network.width=16", "steps=1") == 0
    mixed = tmp_path / "mixed"
    shutil.copytree(translated, mixed)
    shutil.copy(tmp_path / "wide" / "model.safetensors", mixed)
    assert main(["translate", f"model={mixed}", f"input={folders[0]}", f"out={tmp_path / 'out'}"]) == 1
    shown = capsys.readouterr().err
    assert "do not fit this model" in shown
    assert "size mismatch" in shown
    assert "Traceback" not in shown
    assert main(["generate", f"model={translated}", f"out={tmp_path / 'out'}"]) == 1
    assert "holds a DomainTranslator" in capsys.readouterr().err
    (mixed / "model.safetensors").write_text("words")
    assert main(["report", f"model={mixed}"]) == 1
    assert "not a safetensors file" in capsys.readouterr().err


def test_nothing_is_written_over(translated, folders, tmp_path, capsys):
    assert translate(folders, translated) == 1
    assert "already holds a run" in capsys.readouterr().err
    full = write_folder(tmp_path / "full", 60, n=1)
    assert main(["translate", f"model={translated}", f"input={folders[0]}", f"out={full}"]) == 1
    assert "is not empty" in capsys.readouterr().err
    twice = write_folder(tmp_path / "twice", 60, n=1)
    Image.open(twice / "cell-00.png").save(twice / "cell-00.tif")
    assert main(["translate", f"model={translated}", f"input={twice}", f"out={tmp_path / 'x'}"]) == 1
    assert "would both be written to" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["below", "here"])
def test_folders_of_ones_own_are_not_taken_for_a_run(place, tmp_path, capfd, caplog):
    """Settings of another tool, beside pictures in folders called as those of a run."""
    folder = tmp_path / "plates" if place == "here" else tmp_path / "plates" / "plate 1"
    for name in ("raw", "previews", "figures"):
        write_folder(folder / name, 60, n=2)
    (folder / "config.yaml").write_text("objective: 20x\nstain: DAPI\n")
    with caplog.at_level("INFO"):
        assert len(cf.images.read_images(tmp_path / "plates")) == 6
        assert "left out" not in caplog.text
        (folder / "config.yaml").write_text("network:\n  _target_: cellflow.networks.UNet\n")
        if place == "here":
            assert len(cf.images.read_images(tmp_path / "plates")) == 2
            assert caplog.text.count("left out") == 2
        else:
            with pytest.raises(ValueError, match="found no files. .*plate 1, of a run of cellflow, was left out"):
                cf.images.read_images(tmp_path / "plates")


@pytest.mark.parametrize("place", ["below", "here"])
def test_a_run_inside_its_own_data_is_no_data(place, tmp_path, capfd, monkeypatch):
    data = write_folder(tmp_path / "data", 60)
    monkeypatch.chdir(data)
    out = "runs/first" if place == "below" else "."
    words = ["generate", "data=.", *FAST, "steps=2", "recipe.schedule=constant"]
    assert main([*words, f"out={out}"]) == 0
    assert list((data / out / "figures").glob("*.png"))
    (data / "made").mkdir()
    Image.new("L", (8, 8)).save(data / "made" / "more.png")
    for reader in (cf.images.read_images, partial(cf.images.stream_images, size=8, channels=1)):
        assert len(reader(data)) == 17
    (data / "made" / "more.png").unlink()
    scores = (data / out / "scores.csv").read_bytes()
    assert main(["report", f"model={out}"]) == 0
    assert capfd.readouterr().err.count("left out") == (1 if place == "below" else 2)
    assert (data / out / "scores.csv").read_bytes() == scores
    assert main([*words, f"out={out}", "steps=3", "resume=true"]) == 0
    assert cf.images.read_images(data / out / "previews").shape[0] == 3  # as it is asked for


@pytest.mark.parametrize("command", ["translate", "generate"])
@pytest.mark.parametrize("out", ["dark/made", "dark", "dark/../dark/deep/made"])
def test_what_is_made_of_a_folder_is_not_written_into_it(command, out, request, folders, tmp_path, capfd, monkeypatch):
    model = request.getfixturevalue("translated" if command == "translate" else "generated")
    monkeypatch.chdir(folders[0].parent)
    assert main([command, f"model={model}", "input=dark", f"out={out}"]) == 1
    said = capfd.readouterr().err
    assert f"`out={Path(out)}` is inside `input=dark`" in said
    assert f"`out={folders[0]}-made`" in said
    assert len(list(folders[0].rglob("*"))) == 16


def test_a_model_that_ignores_its_input_is_found_out():
    """Perfect targets in the wrong order have a perfect distance, and the report says that they ignore their inputs."""
    rng = cf.generator(seed=0)
    inputs = cf.datasets.digits().only("2").scaled()[:80]
    real, reference = inputs.flip(2)[:80], cf.datasets.digits().only("2").scaled()[80:].flip(2)
    honest = score_images(inputs.flip(2) * 0.98, real, reference, inputs=inputs)
    shuffled = real[torch.randperm(len(real), generator=rng)]
    ignoring = score_images(shuffled, real, reference, inputs=inputs)
    assert ignoring.distances[MADE].value <= ignoring.distances[REAL].value * 1.2
    assert ignoring.ignores_input
    assert not honest.ignores_input
    assert "ignore their inputs" in headline(ignoring)
    assert "keeps something of its input" in headline(honest)
    assert any("By this measure the output does not depend" in line for line in sentences(ignoring))


def test_a_model_that_does_nothing_is_no_nearer():
    """The identity keeps everything, and is as far from the target as the source is."""
    inputs = cf.datasets.digits().only("2").scaled()[:80]
    threes = cf.datasets.digits().only("3").scaled()
    scores = score_images(inputs, threes[:80], threes[80:], inputs=inputs)
    assert scores.distances[MADE].value == scores.distances[STILL].value
    assert scores.distances[REAL].value < 0.5 * scores.distances[STILL].value
    assert "no nearer to the target" in headline(scores)
    assert scores.kept["transport cost"].value == 0


def test_the_report_says_what_its_distance_does_not_see():
    """A distance on principal components hardly sees grain, whose energy is what the other score counts."""
    rng = cf.generator(seed=0)
    smooth = torch.linspace(-0.8, 0.8, 64).reshape(1, 1, 8, 8) * torch.rand(240, 1, 1, 1, generator=rng)
    real = smooth + 0.1 * torch.randn(240, 1, 8, 8, generator=rng)
    grainy = real[:80] + 0.3 * torch.randn(80, 1, 8, 8, generator=rng)
    scores = score_images(grainy, real[80:160], real[160:])
    assert scores.sharpness[REAL] == pytest.approx(1, abs=0.1)
    assert scores.sharpness[MADE] == pytest.approx(10, rel=0.15)  # (0.1^2 + 0.3^2) / 0.1^2
    assert scores.sharpness["real target with blur"] < 0.2
    assert any("there is grain" in line for line in sentences(scores))
    frame = scores.to_frame().set_index(["measure", "of"])["value"]
    assert frame["high-frequency ratio", MADE] == pytest.approx(scores.sharpness[MADE])
    spot = scores.distances[REAL]._replace(value=scores.distances["real target with noise of 20"].value)
    blind = scores._replace(distances=scores.distances | {REAL: spot})
    assert "real target with noise of 20" in blind.blind_spots
    assert headline(blind).endswith("does not see every flaw, see below.")
    assert not headline(scores).endswith("see below.")
    said = next(line for line in sentences(blind) if "blind" in line)
    assert "noise of 20 grey levels" in said
    assert "Do not rank models by it." in said


def test_even_images_have_no_sharpness():
    even = torch.rand(20, 1, 1, 1, generator=cf.generator(seed=0)).expand(-1, -1, 8, 8)
    scores = score_images(even, even, even)
    assert scores.sharpness == {}
    assert not any("frequencies" in line for line in sentences(scores))


def test_tiles_hold_the_images_where_they_belong():
    images = torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(6, 1, 4, 5).contiguous()
    picture = tile([images[:3], images[3:]])
    assert picture.shape == (2 * 4 + GAP, 3 * 5 + 2 * GAP, 3)
    for k in range(6):
        row, column = divmod(k, 3)
        part = picture[row * (4 + GAP) :, column * (5 + GAP) :][:4, :5]
        assert (part == k).all()
    assert (picture[4 : 4 + GAP] == 255).all()


def test_the_nearest_image_is_the_nearest():
    among = torch.rand(20, 1, 4, 4, generator=cf.generator(seed=0))
    chosen = torch.tensor([7, 3])
    assert torch.equal(nearest(among[chosen] + 0.001, among), among[chosen])


def test_an_image_is_written_in_its_colours(tmp_path):
    from cellflow.cli.image_runs import write

    images = torch.randint(0, 256, (2, 3, 6, 5), generator=cf.generator(seed=0)).to(torch.uint8)
    write(cf.images.ImageSet(images, names=("a/one.jpg", "two.tif")), tmp_path)
    assert torch.equal(cf.images.read_images(tmp_path).images, images)
    assert Path(tmp_path / "a" / "one.png").exists()
    with pytest.raises(ValueError, match="1 or 3 channels"):
        write(cf.images.ImageSet(images[:, :2]), tmp_path / "two")
