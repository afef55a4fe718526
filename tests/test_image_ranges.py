"""What the numbers of cameras become, whatever form they come in: nothing is lost, refused or ignored without a word.

Each property is tested over the members of its kind: readers, fits, number types, forms.
"""

import re
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

import cellflow as cf
from cellflow.cli import main
from cellflow.cli.image_runs import check_fitted
from cellflow.cli.settings import Settings
from cellflow.errors import OutsideLevelsWarning
from cellflow.images import Conversion, ImageSet, Levels, read_images, stream_images
from cellflow.images.reducing import block_means

tifffile = pytest.importorskip("tifffile")
DRAW = np.random.default_rng(0)
TWELVE = Levels((0.0,), (4095.0,))
TENTH = 0.1
"""A white that single precision has no number for."""
tiny = partial(cf.networks.UNet, width=8, multipliers=(1, 2), blocks=1)


def as_form(form, values, place):
    """Return images ``(n, h, w)`` or ``(n, c, h, w)`` as an array, or in files of that form below a folder."""
    if form == "array":
        return values
    if form == "tensor":
        return torch.from_numpy(values)
    if form == "folder":
        (place / "folder").mkdir()
        for number, image in enumerate(values):
            tifffile.imwrite(place / "folder" / f"{number}.tif", image, photometric="minisblack")
        return place / "folder"
    if form == "file":
        tifffile.imwrite(place / "file.tif", values[0], photometric="minisblack")
        return place / "file.tif"
    path = place / f"images.{form}"
    if form == "zarr":
        pytest.importorskip("zarr").save(str(path), values)
    else:
        {"npy": np.save, "npz": np.savez}[form](path, values)
    return path


ARRAYS = ("array", "tensor", "npy", "npz", "zarr")
READERS = {
    "memory": read_images,
    "stream": lambda folder, **given: stream_images(folder, **({"channels": 1, "size": 8} | given)).read(),
}


# --- saturated pixels --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fit", ["crop", "pad", "tiles"])
@pytest.mark.parametrize(
    ("kind", "white"), [("uint16", 65535), ("uint16", 4095), ("float32", 1.0), ("float32", TENTH), ("uint32", 10**6)]
)
@pytest.mark.parametrize("form", ["array", "npy", "zarr", "folder", "stream"])
def test_saturated_pixels_stay_white_at_any_size(form, kind, white, fit, tmp_path):
    values = np.full((2, 50, 40), white, kind)
    given = {} if white in (65535, 1.0) else {"white_level": white}
    if form == "stream" and fit == "tiles":
        pytest.skip("streams have no tiles")
    source = as_form("folder" if form == "stream" else form, values, tmp_path)
    reader = stream_images if form == "stream" else read_images
    for size in ((35, 28), (23, 19), (61, 49)) if fit != "tiles" else ((35, 28),):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is cropped
            seen = reader(source, size=size, fit=fit, channels=1, **given).scaled()
        assert seen.max() == 1
        assert fit == "pad" or bool((seen == 1).all())


def test_grey_of_saturated_colours_is_white():
    colours = np.full((1, 8, 8, 3), 65535, np.uint16)
    assert bool((read_images(colours, channels=1).scaled() == 1).all())


@pytest.mark.parametrize("factor", [2, 4, 16, 64])
@pytest.mark.parametrize("white", [65535, 0.1, 1 / 3])
def test_means_over_blocks_are_no_brighter_than_what_they_are_of(white, factor):
    values = np.full((2, 130, 67), white, np.float32)
    assert (block_means(values, factor) == torch.tensor(values[0, 0, 0])).all()


def test_values_between_stay_between_at_any_size():
    values = DRAW.integers(1000, 4096, (2, 40, 50)).astype(np.uint16)
    images = read_images(values, size=(30, 37), white_level=4095, fit="pad")
    kept = images.levels.numbers(images.scaled())
    assert values.min() <= kept.min() <= kept.max() <= values.max()


# --- images outside the levels that they are read with -----------------------------------------------------------

BRIGHT = DRAW.integers(3000, 65000, (3, 16, 16)).astype(np.uint16)
DARK = DRAW.integers(0, 250, (3, 16, 16)).astype(np.uint16)
RIGHT = DRAW.integers(0, 4096, (3, 16, 16)).astype(np.uint16)


def outside(source, **given):
    """Return what is said of the levels while images are read."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_images(source, **given)
    return [str(each.message) for each in caught if issubclass(each.category, OutsideLevelsWarning)]


@pytest.mark.parametrize("fit", [{}, {"size": 8}, {"size": 8, "fit": "pad"}, {"size": 8, "fit": "tiles"}])
@pytest.mark.parametrize("form", [*ARRAYS, "folder", "file"])
def test_images_that_are_far_brighter_or_darker_than_the_fit_are_told_once(form, fit, tmp_path):
    source = as_form(form, BRIGHT, tmp_path)
    (said,) = outside(source, levels=TWELVE, **fit)
    n = 1 if form == "file" else 3
    assert re.match(rf"In {n} of {n} images of .*, up to (9\d|100)(\.\d+)? % of the pixels are above white", said)
    assert "of 0 to 4095)" in said
    (tmp_path / "dark").mkdir()
    (said,) = outside(as_form(form, DARK, tmp_path / "dark"), levels=TWELVE, **fit)
    assert re.match(rf"In {n} of {n} images of .*, as little as \d(\.\d+)? % of the range is used", said)
    (tmp_path / "right").mkdir()
    assert outside(as_form(form, RIGHT, tmp_path / "right"), levels=TWELVE, **({} if "size" in fit else fit)) == []


def test_one_image_of_many_is_found_and_named(tmp_path):
    folder = as_form("folder", np.concatenate([RIGHT, BRIGHT[:1]]), tmp_path)
    (said,) = outside(folder, levels=TWELVE)
    assert "In 1 of 4 images" in said
    assert re.search(r"\(3\.tif: \d+ to \d+ of 0 to 4095\)", said)
    (said,) = outside(np.concatenate([RIGHT[:1], BRIGHT[:1], DARK[:3]]), levels=TWELVE)
    assert "above white (1: " in said
    assert re.search(r"In 3 of 5 images of .*range is used \([234]: ", said)
    assert "what is outside is cut off" in said


def test_some_dim_images_are_nothing_to_warn_of(tmp_path):
    assert outside(np.concatenate([RIGHT, DARK[:1]]), levels=TWELVE) == []
    (said,) = outside(DARK, levels=TWELVE)
    assert "cut off" not in said


@pytest.mark.parametrize("percentiles", [(0, 100), (0.1, 99.9), (1, 99), (5, 95)])
def test_sparse_and_empty_images_of_a_fit_are_not_outside_its_levels(percentiles, rng):
    sparse = (torch.rand(20, 1, 16, 16, generator=rng) < 0.1) * torch.randint(
        500, 4000, (20, 1, 16, 16), generator=rng
    ) + torch.randint(0, 20, (20, 1, 16, 16), generator=rng)
    empty = torch.randint(0, 20, (5, 1, 16, 16), generator=rng)
    values = torch.cat([sparse, empty]).numpy().astype(np.uint16)
    levels = read_images(values, percentiles=percentiles).levels
    assert outside(values, levels=levels) == []


def test_streams_look_at_some_files_and_tell_once(tmp_path):
    folder = as_form("folder", BRIGHT, tmp_path)
    with pytest.warns(OutsideLevelsWarning, match="In 3 of 3 images") as caught:
        stream = stream_images(folder, size=8, channels=1, levels=TWELVE)
    assert len(caught) == 1
    stream.scaled([0])


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "float32"])
def test_every_kind_of_number_can_be_outside(kind):
    white = {"uint8": 100, "float32": 0.5}.get(kind, 4095)
    levels = Levels((white / 2,), (float(white),), "uint16" if kind == "int16" else kind)
    ramp = np.linspace(0, 1, 256).reshape(1, 16, 16)
    (said,) = outside((ramp * white * 2).astype(kind), levels=levels)
    assert "above white" in said
    assert "below black" in said
    assert outside((white * (1 + ramp) / 2).astype(kind), levels=levels) == []


def test_the_channel_is_named():
    values = np.stack([RIGHT, BRIGHT], axis=1)
    levels = Levels((0.0, 0.0), (4095.0, 4095.0), channels=("DAPI", "GFP"))
    (said,) = outside(values, channels=2, levels=levels)
    assert "of the pixels of channel GFP are above white" in said


def test_the_images_of_a_fit_are_not_outside_their_own_levels():
    images = DRAW.gamma(2, 300, (20, 32, 32)).astype(np.uint16)
    for percentiles in ((0, 100), (0.1, 99.9), (1, 99)):
        levels = read_images(images, percentiles=percentiles).levels
        assert outside(images, levels=levels) == []


def test_what_is_padded_around_an_image_is_no_part_of_it():
    values = (RIGHT // 2 + 1000).astype(np.uint16)[:, :8]
    given = {"size": 16, "fit": "pad"}
    padded = read_images(values, percentiles=(0, 100), **given)
    assert padded.levels.low[0] >= 1000
    assert outside(values, levels=padded.levels, **given) == []
    assert read_images(values.astype(np.float32) - 9000, percentiles=(0, 100), **given).scaled()[0, 0, 0, 0] == -1


@pytest.mark.filterwarnings("always::UserWarning")
def test_the_command_line_tells_once_that_its_input_is_outside(tmp_path, capsys):
    for name, values in (("a", RIGHT), ("b", RIGHT // 2), ("bright", BRIGHT)):
        (tmp_path / name).mkdir()
        for number, image in enumerate(np.concatenate([values, values[::-1]])):
            tifffile.imwrite(tmp_path / name / f"{number}.tif", np.roll(image, number, axis=0))
    few = ["steps=1", "batch_size=2", "network=unet", "network.width=8", "network.multipliers=[1,2]"]
    few += ["network.blocks=1", "holdout=0.5", "white_level=4095", "progress=false", "threads=1"]
    run = tmp_path / "run"
    assert main(["translate", f"source={tmp_path / 'a'}", f"target={tmp_path / 'b'}", *few, f"out={run}"]) == 0
    capsys.readouterr()
    use = ["translate", f"model={run}", f"input={tmp_path / 'bright'}"]
    assert main([*use, f"out={tmp_path / 'made'}"]) == 0
    assert capsys.readouterr().err.count("above white") == 1
    assert main([*use, "overlap=4", f"out={tmp_path / 'fields'}"]) == 0
    said = capsys.readouterr().err
    assert (said.count("above white"), said.count("further images are outside")) == (1, 1)


# --- four channels -----------------------------------------------------------------------------------------------

FOUR = DRAW.integers(0, 256, (3, 4, 9, 16)).astype(np.uint8)


@pytest.mark.parametrize("kind", ["uint8", "bool", "uint16", "int16", "float32"])
@pytest.mark.parametrize("order", ["first", "last"])
@pytest.mark.parametrize("form", ARRAYS)
def test_four_channels_are_kept_where_they_are_asked_for(form, order, kind, tmp_path):
    values = FOUR > 99 if kind == "bool" else FOUR / np.float32(255) if kind == "float32" else FOUR.astype(kind)
    given = {"white_level": 255} if kind in ("uint16", "int16") else {}
    laid = values if order == "first" else np.ascontiguousarray(values.transpose(0, 2, 3, 1))
    images = read_images(as_form(form, laid, tmp_path), channels=4, **given)
    np.testing.assert_allclose(
        images.levels.numbers(images.scaled()), values * (255 if kind == "bool" else 1), atol=1e-5
    )


@pytest.mark.parametrize("form", ARRAYS)
@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_four_channels_without_their_number_are_transparent_with_a_warning(kind, form, tmp_path):
    values = FOUR if kind == "uint8" else FOUR / np.float32(255)
    source = as_form(form, values, tmp_path)
    with pytest.warns(UserWarning, match=r"last of the 4 channels of .* for transparency.*channels=4.*channels=3"):
        guessed = read_images(source)
    assert torch.equal(read_images(source, channels=3).images, guessed.images)
    assert read_images(source, percentiles=(0, 100)).shape[0] == 4


def test_channels_of_which_no_pixel_is_opaque_are_told(tmp_path):
    dim = np.ascontiguousarray(np.moveaxis(FOUR // 2, 1, -1))
    for values in (dim, (dim / 255).astype(np.float32)):
        with pytest.warns(UserWarning, match="for transparency"):
            read_images(values)


def test_pictures_with_their_transparency_last_are_no_surprise():
    last = np.ascontiguousarray(np.moveaxis(FOUR, 1, -1))
    last[0, 0, 0, 3] = 255
    first = np.ascontiguousarray(np.moveaxis(last, -1, 1))
    with pytest.warns(UserWarning, match="for transparency"):
        guessed = read_images(first)
    assert torch.equal(read_images(last).images, guessed.images)
    assert read_images(last, channels=4).shape[0] == 4


def test_an_axis_of_four_is_found_beside_one_of_three():
    values = np.ascontiguousarray(DRAW.integers(0, 256, (2, 3, 16, 4)).astype(np.uint8))
    assert read_images(values, channels=4).shape == (4, 3, 16)


def test_channels_in_the_samples_of_a_grey_tiff_are_kept(tmp_path):
    for count in (2, 4, 5):
        values = np.ascontiguousarray(DRAW.integers(0, 256, (9, 16, count)).astype(np.uint8))
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", planarconfig="contig")
        images = read_images(tmp_path)
        np.testing.assert_array_equal(images.levels.numbers(images.scaled())[0], values.transpose(2, 0, 1))


def test_colours_with_a_fourth_channel_in_a_tiff_are_all_kept_where_they_are_asked_for(tmp_path):
    values = np.ascontiguousarray(FOUR[0].transpose(1, 2, 0))
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extrasamples=["unspecified"])
    images = read_images(tmp_path, channels=4)
    np.testing.assert_array_equal(images.levels.numbers(images.scaled())[0], FOUR[0])
    assert read_images(tmp_path).shape[0] == read_images(tmp_path, channels=3).shape[0] == 3


# --- padding -----------------------------------------------------------------------------------------------------

WIDE = {
    "bytes": np.full((1, 8, 16), 200, np.uint8),
    "truth": np.ones((1, 8, 16), bool),
    "colours": np.full((1, 8, 16, 3), 200, np.uint8),
    "16 bits": np.full((1, 8, 16), 60000, np.uint16),
    "signed": np.full((1, 8, 16), 30000, np.int16),
    "floats": np.full((1, 8, 16), 0.9),
    "two channels": np.full((1, 2, 8, 16), 200, np.uint8),
}


@pytest.mark.parametrize(("background", "grey"), [(None, -1), (0, -1), (255, 1), (51, -0.6)])
@pytest.mark.parametrize("of", WIDE)
def test_padding_is_black_for_every_depth_unless_it_is_set(of, background, grey):
    given = {"channels": 2} if of == "two channels" else {}
    given |= {"white_level": 32767} if of == "signed" else {}
    for images in (
        read_images(WIDE[of], size=16, fit="pad", background=background, **given),
        read_images(read_images(WIDE[of], **given), size=16, fit="pad", background=background),
    ):
        seen = images.scaled()[0]
        assert seen[:, [0, -1]].flatten().tolist() == pytest.approx([grey] * seen[:, [0, -1]].numel(), abs=1e-6)
        assert bool((seen[:, 4:-4] > 0.5).all())


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["uint8", "uint16"])
def test_files_are_padded_with_black_too(kind, reader, tmp_path):
    Image.fromarray(np.full((8, 16), np.iinfo(kind).max, kind)).save(tmp_path / "a.png")
    assert READERS[reader](tmp_path, size=16, fit="pad").scaled()[0, 0, 0, 0] == -1
    assert READERS[reader](tmp_path, size=16, fit="pad", background=255).scaled()[0, 0, 0, 0] == 1


def test_transparency_is_white_and_padding_black(tmp_path):
    Image.new("RGBA", (16, 8), (0, 0, 0, 0)).save(tmp_path / "a.png")
    seen = read_images(tmp_path, size=16, fit="pad").scaled()[0, 0, :, 0]
    assert seen.tolist() == [-1] * 4 + [1] * 8 + [-1] * 4


# --- settings that exclude each other, or have no effect ---------------------------------------------------------


@pytest.mark.parametrize("form", ["array", "npy", "folder", "stream"])
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"white_level": 4095, "percentiles": (1, 99)}, "`white_level` or `percentiles`, not both"),
        ({"white_level": 4095, "levels": TWELVE}, "`white_level` or `levels`, not both"),
        ({"levels": TWELVE, "percentiles": (1, 99)}, "`levels` or `percentiles`, not both"),
        ({"percentiles": (0.001, 0.999)}, r"fractions, \(0.001, 0.999\). Set `percentiles=\(0.1, 99.9\)`"),
        ({"percentiles": (0, 1)}, re.escape("Set `percentiles=(0, 100)`")),
        ({"percentiles": (99, 1)}, "two ascending numbers"),
        ({"white_level": 0}, "finite white_level above 0"),
        ({"white_level": float("inf")}, "finite white_level above 0"),
        ({"white_level": 70000}, "at most 65535 for images of 16 bits; found 70000"),
    ],
)  # fmt: skip
def test_ranges_that_contradict_or_make_no_sense_are_refused(given, words, form, tmp_path):
    source = as_form("folder" if form == "stream" else form, RIGHT, tmp_path)
    reader = partial(stream_images, size=8) if form == "stream" else read_images
    with pytest.raises(ValueError, match=words):
        reader(source, channels=1, **given)


@pytest.mark.parametrize("form", ["array", "npy", "folder", "file", "stream"])
def test_a_white_level_that_has_no_effect_is_told(form, tmp_path):
    source = as_form("folder" if form == "stream" else form, RIGHT.astype(np.uint8), tmp_path)
    reader = partial(stream_images, size=8) if form == "stream" else read_images
    with pytest.warns(UserWarning, match=r"`white_level=100` has no effect on the images of .*percentiles") as caught:
        images = reader(source, channels=1, white_level=100)
    assert len(caught) == 1
    images.scaled()
    with pytest.warns(UserWarning, match="has no effect"):
        read_images(np.stack([RIGHT, RIGHT], axis=1).astype(np.uint8), channels=2, white_level=100)


@pytest.mark.parametrize("levels", [None, TWELVE])
def test_a_model_has_its_range(levels):
    asked = Settings({"size": None, "channels": None, "percentiles": None, "white_level": None})
    check_fitted(asked, shape=(1, 8, 8), levels=levels)
    for given in ({"percentiles": [0, 100]}, {"white_level": 4095}):
        with pytest.raises(ValueError, match="Leave `white_level` and `percentiles` out"):
            check_fitted(Settings(asked | given), shape=(1, 8, 8), levels=levels)


def test_a_set_of_images_has_the_levels_that_it_has():
    some, deep = read_images(RIGHT.astype(np.uint8)), read_images(RIGHT, white_level=4095)
    for given in ({"percentiles": (1, 99)}, {"levels": TWELVE}):
        with pytest.raises(ValueError, match="bytes without levels"):
            read_images(some, size=8, **given)
    for given in ({"percentiles": (1, 99)}, {"levels": Levels((0.0,), (1.0,))}, {"white_level": 9}):
        with pytest.raises(ValueError, match="already have levels"):
            read_images(deep, size=8, **given)
    with pytest.warns(UserWarning, match="has no effect"):
        read_images(some, size=8, white_level=100)
    assert read_images(deep, size=8, white_level=4095, levels=None).levels == deep.levels


# --- large, fractional and signed numbers ------------------------------------------------------------------------


@pytest.mark.parametrize("form", [*ARRAYS, "folder", "file"])
@pytest.mark.parametrize("kind", ["uint32", "int32", "float32", "float64"])
@pytest.mark.parametrize("white", [200_000, 0.5])
def test_a_white_level_may_be_large_or_a_fraction(white, kind, form, tmp_path):
    if white < 1 and "int" in kind:
        pytest.skip("whole numbers")
    values = np.linspace(0, white, 81).reshape(1, 9, 9).astype(kind)
    source = as_form(form, values, tmp_path)
    images = read_images(source, white_level=white)
    assert images.levels == Levels((0.0,), (float(white),), "float32")
    back = images.levels.numbers(images.scaled())
    np.testing.assert_allclose(back[:, 0], values, atol=white / 65535)
    cf.cli.image_runs.write(images, tmp_path / "out")
    written = tifffile.imread(next((tmp_path / "out").rglob("*.tif")))
    np.testing.assert_array_equal(written.squeeze(), back.squeeze())
    again = read_images(next((tmp_path / "out").rglob("*.tif")), levels=images.levels)
    assert (again.scaled() - images.scaled()).abs().max() <= 1 / 65535 + 1e-6


@pytest.mark.parametrize("form", ["array", "folder"])
@pytest.mark.parametrize("kind", ["uint32", "int32", "float32"])
def test_numbers_of_unknown_white_are_refused_with_a_cure_that_works(kind, form, tmp_path):
    values = np.linspace(0, 4000, 81).reshape(1, 9, 9).astype(kind)
    source = as_form(form, values, tmp_path)
    with pytest.raises(ValueError, match=r"0 to 4000 in .*`white_level` to the largest value.*percentiles"):
        read_images(source)
    assert read_images(source, white_level=4000).scaled().max() == 1
    with pytest.raises(ValueError, match="0 to 4000 in"):
        read_images(source, white_level=3999)


def test_the_former_default_means_what_it_meant():
    """Settings of older runs have it: no images are refused, or become black, for that."""
    assert read_images(np.linspace(0, 1, 81).reshape(1, 9, 9), white_level=65535).scaled().max() == 1
    assert read_images(RIGHT, white_level=65535, percentiles=(1, 99)).levels.high[0] < 4096
    read_images(RIGHT.astype(np.uint8), white_level=65535)
    counts = np.linspace(0, 60000, 81).reshape(1, 9, 9)
    assert read_images(counts, white_level=65535).levels.high == (65535.0,)


@pytest.mark.parametrize("form", [*ARRAYS, "folder", "file", "no tifffile", "stream"])
@pytest.mark.parametrize("kind", ["int8", "int16"])
def test_signed_counts_are_counts(kind, form, tmp_path, monkeypatch):
    top = np.iinfo(kind).max
    values = DRAW.integers(0, top + 1, (2, 8, 8)).astype(kind)
    values[:, 0, 0] = top
    if form == "no tifffile":
        if kind == "int8":
            pytest.skip("Pillow has no such mode")
        source = as_form("folder", values, tmp_path)
        monkeypatch.setattr("cellflow.images.files.is_ours", lambda *_: False)
    else:
        source = as_form("folder" if form == "stream" else form, values, tmp_path)
    images = READERS["stream" if form == "stream" else "memory"](source, white_level=top)
    assert images.levels == Levels((0.0,), (float(top),), "uint16")
    np.testing.assert_array_equal(images.levels.numbers(images.scaled())[:, 0], values[: len(images)])
    assert read_images(source, levels=images.levels).levels == images.levels  # as unsigned ones


@pytest.mark.parametrize("form", ["array", "npy", "folder", "no tifffile", "stream"])
@pytest.mark.parametrize("kind", ["int16", "int32"])
def test_negative_counts_are_refused_or_ranged(kind, form, tmp_path, monkeypatch):
    values = DRAW.integers(-20, 4000, (3, 8, 8)).astype(kind)
    values[0, 0] = 7
    values[1, 0, 0] = -20
    source = as_form("folder" if form in ("stream", "no tifffile") else form, values, tmp_path)
    if form == "no tifffile":
        monkeypatch.setattr("cellflow.images.files.is_ours", lambda *_: False)
    reader = READERS["stream" if form == "stream" else "memory"]
    for given in ({}, {"white_level": 4095}):
        with pytest.raises(ValueError, match=r"numbers of 0 and more.*found -\d+ in .*percentiles"):
            reader(source, **given)
    images = reader(source, percentiles=(0, 100))
    assert images.levels.kind == "float32"
    np.testing.assert_allclose(images.levels.numbers(images.scaled())[:, 0], values, atol=0.1)


def test_a_file_with_negative_numbers_makes_floats_of_all(tmp_path):
    values = DRAW.integers(0, 4000, (2, 8, 8)).astype(np.int16)
    values[1, 0, 0] = -5
    folder = as_form("folder", values, tmp_path)
    assert read_images(folder, percentiles=(0, 100)).levels.kind == "float32"


# --- advice ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", READERS)
def test_advice_for_two_folders_can_be_followed_for_both(reader, tmp_path):
    said = {}
    for name, top in (("source", 4000), ("target", 2800)):
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "0.tif", np.linspace(0, top, 64).reshape(8, 8).astype(np.uint16))
        with pytest.warns(UserWarning, match=f"images of .*{name} use") as caught:
            READERS[reader](tmp_path / name)
        said[name] = str(caught[0].message)
    for name, top in (("source", 4000), ("target", 2800)):
        assert f"Set `percentiles=(0.1, 99.9)`, or `white_level={top}` if other images" in said[name]
        assert "no brighter" in said[name]
        READERS[reader](tmp_path / name, percentiles=(0.1, 99.9))
        READERS[reader](tmp_path / name, white_level=4000)
    with pytest.raises(ValueError, match="found 0 to 4000 in .*source"):  # two folders have a 0.tif
        READERS[reader](tmp_path / "source", white_level=2800)


TO_FIT = (
    "size=8 network=unet network.width=8 network.multipliers=[1,2] network.blocks=1 steps=4 batch_size=4 holdout=0.5"
)
ADVICE = {
    "negative": ([], r"numbers of 0 and more, where .*Set `percentiles=\[0\.1,99\.9\]`\.\n"),
    "large": ([], r"to be told what is white; .*largest value, or `percentiles=\[0\.1,99\.9\]`\.\n"),
    "tiles": (["stream=true", "channels=1", "fit=tiles"], r"cut into tiles\. Set `stream=false`\.\n"),
    "late": (["stream=true", "channels=1"], r"found -2 in .*Set `stream=false` with `percentiles=\[0\.1,99\.9\]`\.\n"),
}


@pytest.mark.usefixtures("unreported")
@pytest.mark.parametrize("what", ADVICE)
def test_advice_on_a_command_line_can_be_followed_there(what, tmp_path, capfd):
    kind = {"tiles": "uint16", "late": "int16"}.get(what, "float32")
    values = DRAW.integers(0, 32000, (16, 8, 8)).astype(kind)
    unseen = sorted(range(16), key=str)[1::2]  # of which a stream does not know when it begins
    if what in ("negative", "late"):
        values[unseen, 0, 0] = -2
    more, words = ADVICE[what]
    given = ["generate", f"data={as_form('folder', values, tmp_path)}", f"out={tmp_path / 'run'}", "device=cpu"]
    given += [*TO_FIT.split(), "holdout=0.5"]
    assert main([*given, *more]) == 1
    said = capfd.readouterr().err
    assert re.search(words, said)
    assert "cf." not in said
    assert "_images`" not in said
    assert main([*given, *more, "stream=false", "percentiles=[0.1,99.9]"]) == 0


def test_the_warning_of_cuts_names_its_folder(tmp_path):
    Image.new("L", (16, 8)).save(tmp_path / "a.png")
    with pytest.warns(UserWarning, match=f"Cropped 1 of 1 images of {re.escape(str(tmp_path))} whose shape"):
        read_images(tmp_path, size=8)


# --- large files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1, 2])
def test_numbers_that_may_not_be_written_to_are_read_without_a_word_of_torch(factor):
    values = np.ones((1, 4, 4), np.float32)
    values.flags.writeable = False
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert block_means(values, factor).max() == 1
    finally:
        torch.set_warn_always(before)


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_files_are_read_at_up_to_half_their_size(fit):
    for side in (10_000, 14_000, 16_384):
        factors = [Conversion(size=size, fit=fit).reduction(side, side) for size in (side // 8, side // 4, side // 2)]
        assert factors == [4, 2, 2]
        assert Conversion(size=side // 2 + 1, fit=fit).reduction(side, side) == 0
    assert Conversion(size=(7000, 3000), fit="pad").reduction(14_000, 14_000) == 2
    assert Conversion(size=(7000, 3000), fit="crop").reduction(14_000, 14_000) == 2
    assert Conversion(size=(7001, 3000), fit="crop").reduction(14_000, 14_000) == 0
    assert Conversion(size=64).reduction(17_000, 17_000) == 0


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_half_the_size_is_the_mean_of_four_pixels(ending, tmp_path, monkeypatch):
    values = DRAW.integers(0, 60000 if ending == "tif" else 256, (20, 30)).astype(
        "uint16" if ending == "tif" else "uint8"
    )
    (tifffile.imwrite if ending == "tif" else lambda path, array: Image.fromarray(array).save(path))(
        tmp_path / f"a.{ending}", values
    )
    monkeypatch.setattr(Conversion, "reduction", lambda *_: 2)
    seen = read_images(tmp_path, size=(10, 15)).scaled()[0, 0].double()
    means = values.reshape(10, 2, 15, 2).mean(axis=(1, 3))
    white = 65535 if ending == "tif" else 255
    np.testing.assert_allclose((seen + 1) / 2 * white, means, atol=0.51)


# --- messages ----------------------------------------------------------------------------------------------------


def test_files_that_are_no_pictures_are_told_what_is_read(tmp_path):
    for name in ("model.py", "scan.czi"):
        (tmp_path / name).write_bytes(b"ZISRAWFILE")
        with pytest.raises(
            ValueError, match=rf"Expected a folder, a picture .* or an array .*; found .*{name}.*OME-TIFF"
        ):
            read_images(tmp_path / name)
    Image.new("L", (8, 8)).save(tmp_path / "drawing.gif")
    assert read_images(tmp_path / "drawing.gif").shape[1:] == (8, 8)  # whatever its name
    (tmp_path / "scans").mkdir()
    (tmp_path / "scan.czi").rename(tmp_path / "scans" / "scan.czi")
    for reader in READERS.values():
        with pytest.raises(ValueError, match=r"found 1 x \.czi\. Export .* as OME-TIFF"):
            reader(tmp_path / "scans")


@pytest.mark.parametrize("reader", READERS)
def test_what_is_missing_is_called_a_file_or_a_folder(reader, tmp_path):
    for name, what in (("a.tif", "file"), ("a.png", "file"), ("a", "folder")):
        with pytest.raises(FileNotFoundError, match=rf"No {what} .*{name}\. The working"):
            READERS[reader](tmp_path / name)


def test_one_channel_is_one(tmp_path):
    two = read_images(FOUR[:, :2], channels=2)
    with pytest.raises(ValueError, match="with 1 channel; found 2"):
        read_images(two, channels=1)
    asked = Settings({"size": None, "channels": 2, "percentiles": None, "white_level": None})
    with pytest.raises(ValueError, match="images of 1 channel; found channels=2"):
        check_fitted(asked, shape=(1, 8, 8), levels=None)
    Image.new("RGBA", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="with 4 channels; found 3 beside transparency"):
        read_images(tmp_path, channels=4)


def test_bytes_of_one_set_may_be_of_any_channels_and_keep_them():
    images = ImageSet(torch.from_numpy(FOUR))
    assert torch.equal(read_images(images, channels=4).images, images.images)


def test_padding_of_a_run_of_an_earlier_version_is_what_it_was():
    """It was white for bytes, black for camera counts; what was asked for is as it is now."""
    former = {"size": 8, "fit": "pad", "white_level": 65535, "background": "former"}
    counts = DRAW.integers(0, 60000, (2, 8, 4)).astype(np.uint16)
    assert read_images(counts, **former).scaled()[:, :, :, 0].max() == -1
    assert read_images((counts // 256).astype(np.uint8), **former).scaled()[:, :, :, 0].min() == 1
    assert read_images(counts, **former | {"white_level": 60000}).scaled()[:, :, :, 0].max() == -1
    assert read_images(counts, **former | {"background": 255}).scaled()[:, :, :, 0].min() == 1
    with pytest.raises(ValueError, match="from 0 .black. to 255 .white.; found 'of old'"):
        read_images(counts, **former | {"background": "of old"})
    grey = read_images(counts, **former | {"background": 128}).scaled()[:, :, :, 0]
    assert grey.min() == grey.max() == pytest.approx(0.0039, abs=1e-4)


@pytest.mark.parametrize("background", [0, 128, 254, 255])
@pytest.mark.parametrize("given", [{}, {"percentiles": (0, 100)}, {"white_level": 60000}, {"levels": TWELVE}])
@pytest.mark.parametrize("form", ["array", "folder", "stream"])
def test_the_border_of_camera_counts_is_the_background_that_is_asked_for(form, given, background, tmp_path):
    source = as_form(
        "folder" if form == "stream" else form, DRAW.integers(0, 4096, (1, 8, 4)).astype("uint16"), tmp_path
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what uses little of its range
        images = READERS["stream" if form == "stream" else "memory"](
            source, size=8, fit="pad", background=background, **given
        )
    assert images.images[0, 0, :, 0].unique().tolist() == [background * 257]


@pytest.mark.parametrize("white_level", [None, 65535])
def test_the_former_default_says_nothing_of_floats_from_0_to_1(white_level):
    values = DRAW.random((3, 1, 8, 8)).astype(np.float32)
    values[0, 0, 0, :2] = 0, 1
    assert read_images(values, white_level=white_level).images.dtype == torch.uint8
    many = values * np.float32(65535)
    if white_level is not None:
        assert read_images(many, white_level=white_level).levels.high == (65535.0,)


UNLIKE = {
    "negative": ("int16", -3, r"numbers of 0 and more, .*found -3 in .*5\.tif.*`read_images` with `percentiles"),
    "bright": ("uint16", 60033, r"0 to 1000, what is white; found .* to 60033 in .*5\.tif.*`white_level`.*percentiles"),
    "bytes": ("uint8", 255, r"0 to 1000, what is white; found .* to 65535 in .*5\.tif, of 8 bits.*`white_level`"),
    "float": (
        "float32",
        900.5,
        r"uint16 numbers, like the first ones; found float32 in .*5\.tif\. Save all files in one way\.",
    ),
}


def with_one_unlike(place, kind, value):
    """Twelve files of a camera, one of which a stream does not look at first and is of another kind or range."""
    folder = as_form("folder", DRAW.integers(0, 900, (12, 8, 8)).astype(np.uint16), place)
    other = DRAW.integers(0, 200, (8, 8)).astype(kind)
    other[0, 0] = value
    tifffile.imwrite(folder / "5.tif", other, photometric="minisblack")
    return folder


@pytest.mark.parametrize("unlike", UNLIKE)
def test_files_that_a_stream_did_not_look_at_are_refused_by_name_when_they_are_read(unlike, tmp_path):
    kind, value, words = UNLIKE[unlike]
    folder = with_one_unlike(tmp_path, kind, value)
    stream = stream_images(folder, size=8, channels=1, white_level=1000)
    assert stream.scaled([0, 1]).shape == (2, 1, 8, 8)
    for some in (stream, stream.take(range(12)).to("cpu")):
        with pytest.raises(ValueError, match=words):
            some.scaled()
    with pytest.raises(ValueError, match=r"5\.tif"):  # as all at once
        read_images(folder, white_level=1000)


@pytest.mark.parametrize("given", [{"percentiles": (0, 100)}, {"levels": TWELVE}])
@pytest.mark.parametrize("unlike", UNLIKE)
def test_a_range_that_is_not_a_white_level_clips_in_streams_but_takes_one_kind_of_numbers(unlike, given, tmp_path):
    kind, value, _ = UNLIKE[unlike]
    folder = with_one_unlike(tmp_path, kind, value)
    if unlike == "bright":
        assert stream_images(folder, size=8, channels=1, **given).scaled().max() == 1
    elif unlike == "bytes":  # they are as in memory
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is far outside
            stream = stream_images(folder, size=8, channels=1, **given)
            assert torch.equal(stream.scaled(), read_images(folder, channels=1, levels=stream.levels).scaled())
    else:
        with pytest.raises(ValueError, match=r"5\.tif"):
            stream_images(folder, size=8, channels=1, **given).scaled()


def test_bytes_among_sixteen_bits_are_the_same_in_a_stream_where_nothing_is_said_of_white(tmp_path):
    folder = as_form("folder", DRAW.integers(0, 65536, (12, 8, 8)).astype(np.uint16), tmp_path)
    tifffile.imwrite(folder / "5.tif", DRAW.integers(0, 256, (8, 8)).astype(np.uint8))
    stream = stream_images(folder, size=8, channels=1)
    assert torch.equal(stream.scaled(), read_images(folder, channels=1).scaled())


def test_one_file_of_each_kind_of_numbers_is_named(tmp_path):
    folder = as_form("folder", RIGHT, tmp_path)
    tifffile.imwrite(folder / "other.tif", RIGHT[0].astype(np.float32))
    with pytest.raises(ValueError, match=r"found both, float32 \(other\.tif\), uint16 \(\d\.tif\)"):
        read_images(folder, white_level=4095)


@pytest.mark.parametrize("form", ["array", "npy", "folder"])
def test_that_images_are_scaled_is_in_the_log(form, tmp_path, caplog):
    caplog.set_level("INFO", logger="cellflow")
    source = as_form(form, RIGHT, tmp_path)
    given = {"channels": 1, "white_level": 4095}
    read_images(source, **given)
    read_images(source, size=RIGHT.shape[1:], **given)
    assert "scaled from" not in caplog.text
    read_images(source, size=4, **given)
    assert f"scaled from {RIGHT.shape[1]} x {RIGHT.shape[2]} to 4 x 4 pixels" in caplog.text
