"""What a killed, stopped or failed process leaves: the old files or the new ones, and a training that goes on."""

import os
import shutil
import signal
from functools import partial

import pytest
import torch
from crashing import kills, on_a_full_disk, run, said, without_rights
from trainings import ALL_REFINEMENTS, ALL_TRAININGS, cells, refine_in, train, weights

import cellflow as cf
from cellflow.errors import CheckpointError
from cellflow.training.checkpoint import STATE, load_tensors

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and limits of POSIX")

TINY = {"steps": 3, "batch_size": 8, "network": partial(cf.networks.MLP, width=8, depth=1), "regularize": False}


def fitted(slower=1.0, **settings):
    adata = cells(slower)
    return cf.SnapshotFlow(rep="X_latent", device="cpu", **TINY | settings).fit(adata), adata


def learned(flow):
    """All that a model knows, as one tuple that can be compared."""
    maps = flow.flow_map_.state_dict() if flow.distilled else {}
    tensors = {f"field.{key}": value for key, value in flow.field_.state_dict().items()} | maps
    return flow.clock_.times, {name: tensor.sum().item() for name, tensor in tensors.items()}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def save_over(new, folder):
    cf.SnapshotFlow.load(new, device="cpu").save(folder, overwrite=True)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of two models, of which the second has days ten times as long; and of both with a flow map."""
    place = tmp_path_factory.mktemp("models")
    for name, settings in (("old", {}), ("new", {"slower": 10.0, "seed": 1})):
        flow, adata = fitted(**settings)
        flow.save(place / name)
        flow.distill(adata, steps=2).save(place / f"{name} distilled")
    return place


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("old", "new distilled"),
        pytest.param("old distilled", "new", marks=pytest.mark.slow),
        pytest.param("old", "new", marks=pytest.mark.slow),
        pytest.param("old distilled", "new distilled", marks=pytest.mark.slow),
    ],
)
def test_a_save_over_a_model_that_is_killed_leaves_the_old_or_the_new_one(models, tmp_path, old, new):
    before, after = (learned(cf.SnapshotFlow.load(models / name, device="cpu")) for name in (old, new))
    folder = tmp_path / "model"

    def copy():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(models / old, folder)

    found = []
    for _ in kills(folder, save_over, models / new, folder, before=copy):
        found.append(learned(cf.SnapshotFlow.load(folder, device="cpu")))
        save_over(models / old, folder)  # and what is saved over it is right again
        assert learned(cf.SnapshotFlow.load(folder, device="cpu")) == before
        assert names(folder) == names(models / old)
    turn = found.index(after)
    assert turn > 5
    assert found == [before] * turn + [after] * (len(found) - turn)


def test_a_first_save_that_is_killed_leaves_no_model_or_a_whole_one(models, tmp_path):
    folder = tmp_path / "model"
    new = learned(cf.SnapshotFlow.load(models / "new", device="cpu"))
    for _ in kills(folder, save_over, models / "new", folder, before=lambda: shutil.rmtree(folder, ignore_errors=True)):
        if (folder / "model.json").exists():
            assert learned(cf.SnapshotFlow.load(folder, device="cpu")) == new
        else:
            with pytest.raises(CheckpointError, match="No model in"):
                cf.SnapshotFlow.load(folder, device="cpu")
    assert names(folder) == ["model.json", "model.safetensors"]


def test_tensors_of_another_model_are_refused(models, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(models / "old distilled", folder)
    for name in ("model.safetensors", "flow_map.safetensors"):
        kept = (folder / name).read_bytes()
        shutil.copy(models / "new distilled" / name, folder / name)
        with pytest.raises(CheckpointError, match=f"{name} is not the file that was saved with this model"):
            cf.SnapshotFlow.load(folder)
        (folder / name).write_bytes(kept)
    cf.SnapshotFlow.load(folder)


def test_a_setting_that_holds_itself_is_refused_and_named(models, tmp_path):
    flow, loop = cf.SnapshotFlow.load(models / "old", device="cpu"), []
    loop.append(loop)
    flow.masses = loop
    shutil.copytree(models / "new", tmp_path / "model")
    with pytest.raises(ValueError, match="Expected `masses` to be nested at most 12 deep, to be saved"):
        flow.save(tmp_path / "model", overwrite=True)
    assert learned(cf.SnapshotFlow.load(tmp_path / "model", device="cpu"))[0] == (0.0, 10.0, 50.0)


@pytest.fixture(scope="module")
def whole():
    """The weights of each training that nothing interrupts."""
    return {verb: weights(train(None)) for verb, train in ALL_TRAININGS.items()}


def state(folder):
    return folder / STATE


@pytest.mark.parametrize(
    ("verb", "every"),
    [(verb, 7) for verb in ALL_TRAININGS] + [pytest.param(verb, 1, marks=pytest.mark.slow) for verb in ALL_TRAININGS],
)
def test_a_killed_training_goes_on_to_the_same_weights(whole, tmp_path, verb, every):
    """Killed at every seventh write of a training that saves three times; at each one if the slow tests are run."""
    folder, steps = tmp_path / "run", set()
    again = {"before": lambda: shutil.rmtree(folder, ignore_errors=True), "every": every}
    for _ in kills(folder, train, verb, folder, **again):
        began = state(folder).exists()
        steps.add(load_tensors(state(folder))[1]["step"] if began else 0)
        resumed = ALL_TRAININGS[verb](cf.Run(folder, resume=began))
        assert torch.equal(weights(resumed), whole[verb])
        assert names(folder) == [STATE]
    assert {0, 3, 8} <= steps <= {0, 3, 6, 8}


def rounds_of(folder):
    """The step at which each round was saved last, where it was."""
    places = [folder / f"round-{turn}" / STATE for turn in range(2)]
    return tuple(load_tensors(place)[1]["step"] for place in places if place.exists())


@pytest.mark.parametrize(
    ("kind", "every"),
    [("reflow", 9), ("diffusion", 7)] + [pytest.param(kind, 1, marks=pytest.mark.slow) for kind in ALL_REFINEMENTS],
)
def test_killed_rounds_go_on_to_the_same_weights_and_history(tmp_path, kind, every):
    """Killed while it fits to pairs of its own: in either round, between them, and as their generator is written."""
    whole, folder, met = ALL_REFINEMENTS[kind](None), tmp_path / "run", set()
    again = {"before": lambda: shutil.rmtree(folder, ignore_errors=True), "every": every}
    for _ in kills(folder, refine_in, kind, folder, **again):
        met.add(rounds_of(folder))
        resumed = ALL_REFINEMENTS[kind](cf.Run(folder, resume=bool(rounds_of(folder)), save_every=2))
        assert torch.equal(weights(resumed.field_), weights(whole.field_))
        assert resumed.history_.columns == whole.history_.columns
        assert rounds_of(folder) == (5, 5)
        assert names(folder) == ["round-0", "round-1"]
        assert [names(place) for place in sorted(folder.iterdir())] == [["generator.safetensors", STATE]] * 2
    assert {(), (5, 5)} <= met
    assert {len(saved) for saved in met} == {0, 1, 2}


def begun(verb, folder):
    """A training that was killed after its sixth step."""
    code = run(train, verb, folder, False, 6)
    assert code == -signal.SIGKILL
    return state(folder).read_bytes()


@pytest.mark.parametrize("verb", ALL_TRAININGS)
def test_a_training_on_a_full_disk_says_so_and_goes_on_from_the_earlier_save(whole, tmp_path, verb):
    folder = tmp_path / "run"
    sentence = f"{state(folder)} could not be written: File too large. Free some space, or choose another folder; what"
    kind, found = said(on_a_full_disk, train, verb, folder)
    assert (kind, found[: len(sentence)]) == ("OSError", sentence)
    assert not folder.exists()
    before = begun(verb, folder)
    kind, found = said(on_a_full_disk, train, verb, folder, True)
    assert (kind, found[: len(sentence)]) == ("OSError", sentence)
    assert state(folder).read_bytes() == before
    assert torch.equal(weights(ALL_TRAININGS[verb](cf.Run(folder, resume=True))), whole[verb])


@pytest.mark.parametrize("verb", ALL_TRAININGS)
def test_a_training_in_a_folder_that_is_read_only_is_refused_before_it_begins(whole, shared, verb):
    folder = shared / "run"
    before = begun(verb, folder)
    folder.chmod(0o555)
    for place, resume in ((folder, True), (folder / "new", False)):
        kind, found = said(without_rights, train, verb, place, resume)
        sentence = f"{place} could not be written: Permission denied. Choose a folder that you may write to; what"
        assert (kind, found[: len(sentence)]) == ("PermissionError", sentence)
    folder.chmod(0o755)
    assert state(folder).read_bytes() == before
    assert torch.equal(weights(ALL_TRAININGS[verb](cf.Run(folder, resume=True))), whole[verb])
