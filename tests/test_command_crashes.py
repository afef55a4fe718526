"""Commands that are killed, stopped by a signal, on a full disk or in a folder that is read-only; and then resumed."""

import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
import torch
from crashing import on_a_full_disk, start, wait_for, without_rights
from PIL import Image
from trainings import cells, command, printed

from cellflow.cli import main, runs
from cellflow.errors import CheckpointError
from cellflow.training.checkpoint import STATE, TrainingState, load_tensors

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="signals and limits of POSIX"),
    pytest.mark.usefixtures("unreported"),
]

QUICK = ["progress=false", "device=cpu", "threads=1", "recipe.schedule=constant", "save_every=4", "save_minutes=null"]
CELLS = [
    "data.time_key=time",
    "data.rep=X_latent",
    "validate=false",
    "batch_size=8",
    "network.width=8",
    "network.depth=1",
    "regularize=false",
]
IMAGES = [
    "network=unet", "network.width=8", "network.multipliers=[1,2]", "network.blocks=1", "batch_size=4",
    "solver.steps=2", "holdout=0.25", "preview=100000",
]  # fmt: skip
COMMANDS = {"fit": "model", "perturb": "model", "distill": "flow_map", "translate": "model"}
"""For each command the file of weights that it writes."""


def crossed(default, others):
    """Every command with each of several ends, of which some are in the default run."""
    return [
        pytest.param(*pair, marks=[] if pair in default else pytest.mark.slow)
        for pair in [(verb, other) for verb in COMMANDS for other in others]
    ]


@pytest.fixture(scope="module")
def data():
    """Cells, two folders of images, and a fitted run, where every user may read them."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    cells().write_h5ad(place / "cells.h5ad")
    pixels = torch.randint(0, 255, (24, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).numpy()
    for number, image in enumerate(pixels):
        folder = place / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def fitted(data):
    run = data / "fitted"
    assert main(["fit", f"data.path={data / 'cells.h5ad'}", *CELLS, *QUICK, f"out={run}", "steps=4"]) == 0
    return run


@pytest.fixture
def place(data):
    """A folder for runs."""
    folder = Path(tempfile.mkdtemp(dir=data))
    folder.chmod(0o755)
    return folder


@pytest.fixture
def words(data, request):
    """From a command and the folder of its run to what is asked for."""

    def found(verb, run):
        if verb == "fit":
            return ["fit", f"data.path={data / 'cells.h5ad'}", *CELLS, *QUICK, f"out={run}"]
        if verb == "perturb":
            treated = ["conditions.treatment=fate", "conditions.control=lower", *CELLS[1:]]
            return ["perturb", f"data.path={data / 'cells.h5ad'}", *treated, *QUICK, f"out={run}"]
        if verb == "translate":
            return ["translate", f"source={data / 'a'}", f"target={data / 'b'}", *IMAGES, *QUICK, f"out={run}"]
        if not run.exists():
            shutil.copytree(request.getfixturevalue("fitted"), run)
        return ["distill", f"model={run}", *QUICK]

    return found


def state(verb, run):
    return run / "distilling" / STATE if verb == "distill" else run / STATE


def stopped(asked, number, verb, run, log):
    """Give a command many steps, send its process a signal once it has saved, and return the step that was saved."""
    child = start(command, [*asked, "steps=100000"], log)
    wait_for(state(verb, run), child)
    os.kill(child.pid, number)
    child.join(120)
    expected = -signal.SIGKILL if number == signal.SIGKILL else 130
    assert child.exitcode == expected, log.read_text()
    return load_tensors(state(verb, run))[1]["step"]


def same_weights(verb, one, other):
    name = f"{COMMANDS[verb]}.safetensors"
    return (one / name).read_bytes() == (other / name).read_bytes()


@pytest.mark.parametrize(
    ("verb", "number"),
    crossed(
        {("fit", signal.SIGTERM), ("perturb", signal.SIGINT), ("distill", signal.SIGKILL)},
        [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL],
    ),
)
def test_a_command_that_is_stopped_goes_on_to_the_same_weights(words, place, verb, number):
    """After a signal, by the command that is printed, as it is but for the number of steps."""
    run, log = place / "run", place / "log"
    asked = words(verb, run)
    taken = stopped(asked, number, verb, run, log)
    again = [*asked, "steps=100000", "resume=true"]
    if number != signal.SIGKILL:
        assert f"Stopped after step {taken} of 100000. Saved in" in log.read_text()
        assert "Traceback" not in log.read_text()
        again = printed(log)
    assert main([word.replace("steps=100000", f"steps={taken + 5}") for word in again]) == 0
    assert main([*words(verb, place / "whole"), f"steps={taken + 5}"]) == 0
    assert same_weights(verb, run, place / "whole")
    assert not [path for path in run.rglob("*") if ".partial" in path.name or path.name.startswith(".lock")]


@pytest.mark.parametrize(("verb", "hinder"), crossed({("fit", "full disk")}, ["full disk", "read-only"]))
def test_a_command_that_cannot_write_says_so_and_goes_on_later(words, place, verb, hinder):
    run, log = place / "run", place / "log"
    asked = words(verb, run)
    taken = stopped(asked, signal.SIGKILL, verb, run, place / "first")
    before = state(verb, run).read_bytes()
    again = [*asked, f"steps={taken + 5}", "resume=true"]
    log.touch()
    log.chmod(0o666)
    if hinder == "full disk":
        child = start(on_a_full_disk, command, again, log)
    else:
        run.chmod(0o555)
        child = start(without_rights, command, again, log)
    child.join(120)
    shown = log.read_text()
    run.chmod(0o755)
    assert child.exitcode == 1, shown
    assert "could not be written: " + ("File too large" if hinder == "full disk" else "Permission denied") in shown
    assert "what was saved before is unchanged." in shown
    assert "Traceback" not in shown
    assert state(verb, run).read_bytes() == before
    assert main(again) == 0
    assert main([*words(verb, place / "whole"), f"steps={taken + 5}"]) == 0
    assert same_weights(verb, run, place / "whole")


def test_a_second_command_in_one_folder_is_refused_at_once(words, place, capsys):
    run, log = place / "run", place / "log"
    asked = words("fit", run)
    child = start(command, [*asked, "steps=100000"], log)
    try:
        wait_for(state("fit", run), child)
        kept = (run / "config.yaml").read_bytes()
        assert main([*asked, "steps=100001", "resume=true"]) == 1
        assert f"run is in use by process {child.pid} on " in capsys.readouterr().err
        assert (run / "config.yaml").read_bytes() == kept
    finally:
        child.kill()
        child.join()


def test_a_folder_in_which_only_the_search_was_saved_holds_a_run(place):
    (place / "run" / "search").mkdir(parents=True)
    (place / "run" / "search" / STATE).touch()
    assert runs.new_folder(str(place / "run"), command="fit", resume=True) == place / "run"
    with pytest.raises(FileExistsError, match="already holds a run"):
        runs.new_folder(str(place / "run"), command="fit", resume=False)
    with pytest.raises(CheckpointError, match="It was interrupted: resume with"):
        runs.existing_folder(str(place / "run"))


@pytest.mark.slow
def test_a_search_that_is_stopped_is_resumed_too(data, place, monkeypatch, capsys):
    """How long to train is searched first, in a folder of its own, before there is a state of the training itself."""
    searched = [word for word in CELLS if word != "regularize=false"]
    asked = ["fit", f"data.path={data / 'cells.h5ad'}", *searched, *QUICK, "recipe.warmup=2", "steps=480"]
    real = TrainingState.advance

    def advance(state):
        real(state)
        if state.step == 30:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "advance", advance)
        assert main([*asked, f"out={place / 'run'}"]) == 130
    shown = capsys.readouterr().err
    assert (place / "run" / "search" / STATE).exists()
    assert not (place / "run" / STATE).exists()
    assert "nothing was saved" not in shown
    (place / "log").write_text(shown)
    assert main([*asked, f"out={place / 'run'}"]) == 1
    assert "already holds a run" in capsys.readouterr().err
    assert main(printed(place / "log")) == 0
    assert main([*asked, f"out={place / 'whole'}"]) == 0
    assert same_weights("fit", place / "run", place / "whole")
