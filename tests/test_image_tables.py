"""A table beside a folder of images: which row belongs to which image, wherever the images go, and what is refused."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import cellflow as cf
from cellflow.images import ImageSet, read_images, stream_images
from cellflow.pairing import image_batches

READERS = [read_images, partial(stream_images, size=8, channels=1)]
both = pytest.mark.parametrize("read", READERS, ids=["memory", "files"])
FILES = ("b/3.png", "a/0.png", "b/2.png", "a/1.png")


@pytest.fixture
def plates(tmp_path):
    """Four images of two plates; the level of each is 60 x its number."""
    for k, plate in enumerate("aabb"):
        (tmp_path / plate).mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8), 60 * k, np.uint8)).save(tmp_path / plate / f"{k}.png")
    return tmp_path


def table(**columns):
    """Another order than that of the alphabet; a dose for each number of an image."""
    return pd.DataFrame({"file": FILES, "drug": ["A", "None", "NA", "A"], "dose": [3.0, 0.0, 2.0, 1.0]} | columns)


def of_their_images(images):
    """Whether the dose in each row is the number of the image."""
    levels = ((images.scaled()[:, 0, 0, 0] + 1) * 127.5).round()
    return levels.tolist() == [60 * dose for dose in images.obs["dose"]]


@both
@pytest.mark.parametrize("form", ["frame", "csv", "tsv", "gz", "path", "columns"])
def test_rows_follow_their_images(read, form, plates):
    frame, settings = table(), {}
    if form == "columns":
        frame, settings = frame.rename(columns={"file": "FileName"}), {"file_column": "FileName"}
    given = frame
    if form not in ("frame", "columns"):
        given = {"csv": "plate.csv", "tsv": "plate.tsv", "gz": "plate.csv.gz", "path": plates / "plate.csv"}[form]
        frame.to_csv(plates / given, index=False, sep="\t" if form == "tsv" else ",")
    images = read(plates, table=given, **settings)
    assert images.names == FILES == tuple(images.obs.index)
    assert of_their_images(images)
    assert "obs: " in repr(images)
    assert "drug" not in repr(read(plates))
    rng = cf.generator(seed=0)
    parts = [images.take([2, 0, 0]), images.take(images.obs["drug"] == "A"), *images.split(0.5, generator=rng)]
    for part in [*parts, images.to("cpu"), replace(images, labels=torch.tensor([0, 1, 0, 1])).take([3])]:
        assert of_their_images(part)
        assert tuple(part.obs.index) == part.names
    assert images.take(images.obs["drug"] == "A").names == ("b/3.png", "a/1.png")


def test_streams_read_with_their_table(plates):
    streamed = stream_images(plates, size=8, channels=1, table=table())
    assert of_their_images(streamed.read())
    assert of_their_images(read_images(streamed.read(), size=4))


def test_words_for_nothing_are_missing_and_the_name_of_a_control_is_kept(plates):
    table(drug=["A", "None", "", "NA"]).to_csv(plates / "plate.csv", index=False)
    drug = read_images(plates, table="plate.csv").obs["drug"]
    assert drug.fillna("missing").tolist() == ["A", "None", "missing", "missing"]


@pytest.mark.parametrize(
    "written", [lambda name, folder: f"./{name}", lambda name, folder: name.replace("/", "\\"),
                lambda name, folder: str(folder / name)], ids=["dot", "backslash", "whole"],
)  # fmt: skip
@both
def test_files_are_named_in_several_forms(read, written, plates):
    images = read(plates, table=table(file=[written(name, plates) for name in FILES]))
    assert images.names == FILES
    assert of_their_images(images)


def test_classes_by_a_column_of_the_table(plates):
    images = read_images(plates, table=table(), labels="drug")
    assert images.classes == ("A", "NA", "None")
    assert images.labels.tolist() == [0, 2, 1, 0]
    assert read_images(plates, table=table(), labels="folder").labels.tolist() == [1, 0, 1, 0]
    with pytest.raises(ValueError, match=r"Unknown column of the table 'well'. Choose from: 'file', 'drug', 'dose'"):
        read_images(plates, table=table(), labels="well")
    with pytest.raises(ValueError, match="1 of 4 images have no label in column 'drug'"):
        read_images(plates, table=table(drug=["A", None, "A", "B"]), labels="drug")


def test_arrays_take_a_row_for_each_in_their_order():
    levels = np.arange(3, dtype=np.uint8)[:, None, None] * np.full((8, 8), 60, np.uint8)
    images = read_images(levels, table=pd.DataFrame({"dose": [0.0, 1.0, 2.0]}))
    assert of_their_images(images)
    named, mixed = ImageSet(images.images, names=("x", "y", "z")), {"file": ["z", "x", "y"], "dose": [2.0, 0.0, 1.0]}
    assert of_their_images(read_images(named, table=pd.DataFrame(mixed)))
    assert of_their_images(read_images(images, size=4))


@both
def test_unreadable_images_leave_with_their_rows(read, plates):
    (plates / "a" / "0.png").write_bytes(b"\x89PNG\r\n")
    with pytest.warns(UserWarning, match="Left out 1 of 4 pictures"):
        images = read(plates, table=table(), skip_unreadable=True)
    assert images.names == ("b/3.png", "b/2.png", "a/1.png")
    assert of_their_images(images)


@both
def test_images_without_a_row_are_left_out_with_a_warning(read, plates):
    with pytest.warns(UserWarning, match=r"Left out 2 of 4 pictures, for which the table has no row: 'a/1.png', 'b/2"):
        images = read(plates, table=table().iloc[:2])
    assert images.names == FILES[:2]


@both
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (table().rename(columns={"file": "FileName"}), KeyError, r"no column 'file'.*\['FileName', 'drug', 'dose'\]"),
        (pd.concat([table(), table().iloc[:1]]), ValueError, "has more for 1: 'b/3.png'. Keep one"),
        (table(file=["b/3.png", "./b/3.png", "a/0.png", "a/1.png"]), ValueError, "has more for 1: 'b/3.png'"),
        (table(file=["3.png", "x", "b/2.png", "a/1.png"]), FileNotFoundError, r"2 of 4 .*'3.png', 'x'. There is 'b/3"),
        (table(file=["b/3.png", None, "b/2.png", None]), ValueError, r"Row 1 of the table names no file.*\(2\)"),
        (table().iloc[:0], ValueError, "a row for each image in the table; found none"),
        (table().set_axis(["file", "dose", "dose"], axis=1), ValueError, "found 'dose' twice"),
        ("other.csv", FileNotFoundError, "No table other.csv nor in"),
        ("a/0.png", ValueError, "a table in .csv or .tsv.*read_excel"),
        (table()["drug"], TypeError, "expected `table` to be a DataFrame, text, a Path or None"),
    ],
)
def test_wrong_tables_are_refused(wrong, error, message, read, plates):
    with pytest.raises(error, match=message):
        read(plates, table=wrong)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"file,dose\na/0.png,1,2\n", "as many values in a row of .* found more"),
        (b"\xff\xfe\x00", "cannot be read as a table"),
        (b"", "cannot be read as a table"),
        (b"file,dose\n", "found none"),
    ],
    ids=["more values", "no text", "empty", "header only"],
)
def test_damaged_tables_are_refused(text, message, plates):
    (plates / "plate.csv").write_bytes(text)
    with pytest.raises(ValueError, match=message):
        read_images(plates, table="plate.csv")


def test_two_tables_of_one_name_are_refused(plates, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    for folder in (plates, elsewhere):
        table().to_csv(folder / "plate.csv", index=False)
    with pytest.raises(ValueError, match="There are two tables"):
        read_images(plates, table="plate.csv")
    assert len(read_images(plates, table=plates / "plate.csv")) == 4
    (plates / "plate.csv").unlink()
    assert len(read_images(plates, table="plate.csv")) == 4


@pytest.mark.parametrize("obs", [pd.DataFrame({"a": [1]}), pd.DataFrame([[1, 2]] * 3, columns=["a", "a"])])
def test_sets_refuse_tables_of_other_images(obs):
    with pytest.raises(ValueError, match="a row for each of 3 images, and columns of different names"):
        ImageSet(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), obs=obs)
    with pytest.raises(TypeError, match="expected `obs` to be a DataFrame or None"):
        ImageSet(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), obs=[1, 2, 3])


def test_translated_images_keep_their_table(plates):
    images = read_images(plates, table=table())
    small = partial(cf.networks.UNet, width=8, multipliers=(1,), blocks=1)
    model = cf.DomainTranslator(network=small, steps=1, batch_size=4).fit(
        images, replace(images, images=255 - images.images)
    )
    assert model.translate(images.take([1, 0]), solver=1).obs["dose"].tolist() == [0.0, 3.0]


def test_batches_do_not_depend_on_a_table(plates):
    images = read_images(plates, table=table())
    settings = {"coupling": "independent", "batch_size": 4}
    found = [
        next(iter(image_batches(None, some, generator=cf.generator(seed=0), **settings)))
        for some in (images, replace(images, obs=None))
    ]
    assert torch.equal(found[0].x1, found[1].x1)
