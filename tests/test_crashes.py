"""What a killed, stopped or failed process leaves: the old files or the new ones, and a training that goes on."""

import shutil
from functools import partial

import pytest
from crashing import kills

import cellflow as cf
from cellflow.errors import CheckpointError
from conftest import make_cells

TINY = {"steps": 3, "batch_size": 8, "network": partial(cf.networks.MLP, width=8, depth=1), "regularize": False}


def fitted(slower=1.0, **settings):
    adata = make_cells(times=(0.0, slower, 5.0 * slower))
    return cf.SnapshotFlow(time_key="day", device="cpu", **TINY | settings).fit(adata), adata


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
        ("old distilled", "new"),
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
