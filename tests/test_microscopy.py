"""Microscopes' files: depth, channels and their names survive, in and out; nothing is lost without a word."""

import html
import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import cellflow as cf
from cellflow.cli import main
from cellflow.cli.image_runs import check_fitted, write_parts
from cellflow.cli.left_out import hold_out
from cellflow.cli.settings import Settings
from cellflow.errors import CheckpointError
from cellflow.images import Levels, read_images, stream_images
from cellflow.images.numbers import Numbers, in_steps
from cellflow.images.pixels import Conversion
from cellflow.images.tiff import read_tiff, write_tiffs
from cellflow.images.tiles import blended, cut
from cellflow.report.grids import tile

tiny = partial(cf.networks.UNet, width=8, multipliers=(1, 2), blocks=1)
tifffile = pytest.importorskip("tifffile")
DRAW = np.random.default_rng(0)
WHITE = {"uint8": 255, "uint16": 65535, "float32": 1.0}


def camera(kind, channels=2, n=3, side=8):
    """Images of a camera, from black to white."""
    values = DRAW.random((n, channels, side, side))
    values[0, :, 0, :2] = 0, 1
    return values.astype(np.float32) if kind == "float32" else (values * WHITE[kind]).round().astype(kind)


def saved(folder, values, **given):
    folder.mkdir(exist_ok=True)
    write_tiffs(values, [folder / f"{number}.tif" for number in range(len(values))], **given)
    return folder


@pytest.mark.parametrize("names", [None, ("DAPI", "GFP")])
@pytest.mark.parametrize("kind", WHITE)
def test_numbers_and_names_come_back_as_they_were_written(kind, names, tmp_path):
    values = camera(kind)
    images = read_images(saved(tmp_path / "in", values, channels=names))
    assert images.levels == Levels((0.0, 0.0), (float(WHITE[kind]),) * 2, kind, names)
    back = images.levels.numbers(images.scaled())
    np.testing.assert_allclose(back, values, atol=0 if kind != "float32" else 1e-5)
    assert back.dtype == values.dtype


@pytest.mark.parametrize("reader", [read_images, stream_images])
def test_a_stream_and_a_set_see_the_same(reader, tmp_path):
    folder = saved(tmp_path / "in", camera("uint16"))
    images = reader(folder, size=8, channels=2, white_level=65535)
    assert torch.equal(images.scaled(), read_images(folder).scaled())
    assert (images.scaled().min(), images.scaled().max()) == (-1, 1)


def test_twelve_bits_in_sixteen_are_warned_of_and_named():
    dim = np.linspace(0, 4095, 64).reshape(1, 8, 8).astype(np.uint16)
    with pytest.warns(UserWarning, match=r"use 6.2 % of their range.*white_level=4095"):
        images = read_images(dim)
    assert len(images.scaled().unique()) == 64  # and yet nothing is lost
    assert read_images(dim, white_level=4095).scaled().max() == 1


def test_percentiles_are_those_of_each_channel_over_all_images():
    values = camera("uint16", n=20)
    values[:, 1] //= 20
    images = read_images(values, channels=2, percentiles=(1, 99))
    for channel in range(2):
        expected = np.percentile(values[:, channel], (1, 99))
        assert (images.levels.low[channel], images.levels.high[channel]) == pytest.approx(tuple(expected))
    again = read_images(values[:5], channels=2, levels=images.levels)
    assert torch.equal(again.images, images.images[:5])


def test_stacks_are_refused_until_it_is_said_what_their_planes_are(tmp_path):
    stack = DRAW.integers(0, 65535, (5, 8, 8)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    with pytest.raises(ValueError, match=r"more planes .*5 along.*pages=\"max\""):
        read_images(tmp_path)
    highest = read_images(tmp_path, pages="max")
    np.testing.assert_array_equal(highest.levels.numbers(highest.scaled())[0, 0], stack.max(axis=0))
    channels = read_images(tmp_path, pages="channels")
    np.testing.assert_array_equal(channels.levels.numbers(channels.scaled())[0], stack)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (np.full((8, 8), np.nan, np.float32), "NaN or infinite"),
        (np.full((8, 8), 7.0, np.float32), "to be told what is white"),
        (np.zeros((8, 8), np.complex64), "not an intensity"),
        (np.full((8, 8), -4, np.int32), "numbers of 0 and more"),
    ],
)
def test_numbers_that_are_no_pixels_are_refused_by_name(values, match, tmp_path):
    tifffile.imwrite(tmp_path / "bad.tif", values)
    with pytest.raises(ValueError, match=f"(?=.*bad.tif).*{match}"):
        read_images(tmp_path)


def test_files_of_other_channels_are_refused_by_name(tmp_path):
    saved(tmp_path / "in", camera("uint16", channels=2))
    write_tiffs(camera("uint16", channels=3, n=1), [tmp_path / "in" / "other.tif"])
    with pytest.raises(ValueError, match=r"same channels; found 2 \(.*\), 3 \(other.tif\)"):
        read_images(tmp_path / "in")


def test_a_damaged_file_is_left_out_where_that_is_asked(tmp_path):
    folder = saved(tmp_path / "in", camera("uint16"))
    data = (folder / "1.tif").read_bytes()
    (folder / "1.tif").write_bytes(data[: len(data) // 4])
    with pytest.warns(UserWarning, match=r"Left out 1 of 3 pictures: .*1\.tif"):
        assert len(read_images(folder, skip_unreadable=True)) == 2


def test_planes_beyond_the_limit_are_not_unpacked(tmp_path):
    saved(tmp_path / "in", camera("uint16"))
    with pytest.raises(ValueError, match="claims planes of 64 pixels; set `max_pixels=64`"):
        read_tiff(tmp_path / "in" / "0.tif", Conversion(max_pixels=63))


def test_planes_are_counted_before_they_are_read(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((500, 8, 8), np.uint16), photometric="minisblack")
    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(ValueError, match="more planes .500 along"):
        read_images(tmp_path)


@pytest.mark.parametrize("form", ["array", "tiff"])
def test_colours_of_sixteen_bits_become_grey_as_those_of_eight_do(form, tmp_path):
    colours = DRAW.integers(0, 255, (2, 8, 8, 3)).astype(np.uint8)
    eight = read_images(colours, channels=1).scaled()
    if form == "array":
        sixteen = read_images(colours.astype(np.uint16) * 257, channels=1)
    else:
        for number, image in enumerate(colours):
            tifffile.imwrite(tmp_path / f"{number}.tif", image.astype(np.uint16) * 257, photometric="rgb")
        assert read_images(tmp_path).shape == (3, 8, 8)
        sixteen = read_images(tmp_path, channels=1)
    assert sixteen.shape == (1, 8, 8)
    assert (sixteen.scaled() - eight).abs().max() <= 1 / 255 + 1e-6  # rounded to whole grey levels there


def test_three_channels_of_a_microscope_are_no_colours(tmp_path):
    with pytest.raises(ValueError, match=r"1 channel; found 3, which are not colours"):
        read_images(saved(tmp_path / "in", camera("uint16", channels=3)), channels=1)


@pytest.mark.parametrize("ending", ["png", "tif", "jpg"])
@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_what_is_read_at_reduced_size_looks_the_same(ending, fit, tmp_path, monkeypatch):
    ramp = np.add.outer(np.linspace(0, 120, 96), np.linspace(0, 120, 64))
    values = np.stack([ramp, ramp[::-1], ramp], axis=2).astype(np.uint8)
    if ending == "tif":
        tifffile.imwrite(tmp_path / "large.tif", ramp.astype(np.uint16) * 257)
    else:
        Image.fromarray(values).save(tmp_path / f"large.{ending}")
    whole = read_images(tmp_path, size=(6, 4), fit=fit).scaled()
    monkeypatch.setattr(Conversion, "reduction", lambda *_: 4)
    small = read_images(tmp_path, size=(6, 4), fit=fit).scaled()
    assert (small - whole).abs().max() < 0.05


def test_a_picture_of_14000_pixels_a_side_is_read(tmp_path):
    large = Image.new("1", (14_000, 14_000))
    large.paste(1, (0, 0, 7000, 14_000))
    large.save(tmp_path / "large.png")
    images = read_images(tmp_path, size=8)
    row = images.images[0, 0, 0].tolist()  # with soft edges, as of smaller ones
    assert row[:3] + row[5:] == [255] * 3 + [0] * 3
    with pytest.raises(ValueError, match="more than max_pixels"):
        read_images(tmp_path)  # as large as it is
    with pytest.raises(ValueError, match="more than max_pixels"):
        read_images(tmp_path, size=8, max_pixels=10**8)  # whoever sets a limit means it


def test_tiles_need_a_size_and_name_the_picture_that_is_smaller(tmp_path):
    with pytest.raises(ValueError, match="cuts images into tiles of a `size`"):
        read_images(camera("uint8", channels=1), fit="tiles")
    folder = saved(tmp_path / "in", camera("uint16", side=12))
    write_tiffs(camera("uint16", n=1), [folder / "1.tif"])
    with pytest.raises(ValueError, match=r"1\.tif: Expected fields no smaller than a tile, 9 x 9; found 8 x 8"):
        read_images(folder, size=9, fit="tiles")


def test_a_field_that_is_smaller_than_a_tile_is_one():
    dark, bright = (read_images(camera("uint8", channels=1, n=4) // 2 + shift) for shift in (0, 100))
    model = cf.DomainTranslator(network=tiny, steps=2, batch_size=2, device="cpu").fit(dark, bright)
    small = read_images(camera("uint8", channels=1, n=2, side=12)[:, :, :5])
    made = model.translate(small, overlap=4, solver=1)
    assert made.shape == (1, 5, 12)
    rows = torch.arange(8).clamp(max=4)
    longer = replace(small, images=small.images[:, :, rows])
    assert torch.equal(model.translate(longer, overlap=4, solver=1).images[:, :, :5], made.images)


@pytest.mark.parametrize("fit", ["crop", "pad", "tiles"])
def test_what_is_not_square_is_cropped_with_a_warning_padded_or_tiled(fit):
    field = np.arange(1, 16 * 24 + 1, dtype=np.uint16).reshape(1, 16, 24)
    if fit == "crop":
        with pytest.warns(UserWarning, match="up to 33 % of an image is lost"):
            images = read_images(field, size=8, fit=fit, white_level=400)
    else:
        images = read_images(field, size=8, fit=fit, white_level=400)
    assert images.shape == (1, 8, 8)
    assert len(images) == {"tiles": 6}.get(fit, 1)
    black = (images.scaled() == -1).float().mean()
    assert black == pytest.approx({"pad": 3 / 8}.get(fit, 0), abs=0.01)


def test_tiles_have_the_rows_of_their_image(tmp_path):
    saved(tmp_path / "in", camera("uint16", n=2, side=16))
    plate = pd.DataFrame({"file": ["0.tif", "1.tif"], "drug": ["none", "A"]})
    images = read_images(tmp_path / "in", size=8, fit="tiles", table=plate)
    assert images.names[:2] == ("0@0,0.tif", "0@0,8.tif")
    assert images.obs["drug"].tolist() == ["none"] * 4 + ["A"] * 4


@pytest.mark.parametrize("form", ["array", "npz", "folder", "file"])
def test_tiles_have_the_label_and_the_row_of_their_image_whatever_it_came_in(form, tmp_path):
    values, source = camera("uint16", channels=1, n=2, side=16)[:, 0], tmp_path / "in"
    how = {"size": 8, "fit": "tiles", "white_level": 65535}
    if form in ("folder", "file"):
        saved(source, values[:, None])
        source = source / "0.tif" if form == "file" else source
    elif form == "npz":
        source = tmp_path / "in.npz"
        np.savez(source, images=values, labels=np.array(["b", "a"]))
        assert read_images(source, **how).labels.tolist() == [1] * 4 + [0] * 4
        with pytest.raises(ValueError, match="labels of their own, beside them. Leave `labels` out"):
            read_images(source, labels="folder", **how)
    else:
        source = values
    n = 1 if form == "file" else 2
    plate = pd.DataFrame({"drug": ["none", "A"]})[:n]
    if n == 1 or form == "folder":
        plate["file"] = ["0.tif", "1.tif"][:n]
    images = read_images(source, table=plate, labels=["y", "x"][:n], **how)
    assert images.obs["drug"].tolist() == (["none"] * 4 + ["A"] * 4)[: 4 * n]
    assert tuple(images.obs.index) == images.names
    assert [images.classes[label] for label in images.labels] == (["y"] * 4 + ["x"] * 4)[: 4 * n]
    by_column = read_images(source, table=plate, labels="drug", **how)
    assert [by_column.classes[label] for label in by_column.labels] == images.obs["drug"].tolist()
    assert read_images(source, labels=range(4 * n), **how).labels.tolist() == [*range(4 * n)]  # a label for each tile
    with pytest.raises(ValueError, match=f"a label for each of {n} images; found 3"):
        read_images(source, labels=["a", "b", "c"], **how)
    with pytest.raises(ValueError, match=f"each of {n} images, in their order; found 3|more for 1: 'a'"):
        read_images(source, table=pd.DataFrame({"drug": ["A"] * 3, "file": ["a"] * 3}), **how)


@pytest.mark.parametrize("size", [(8, 8), (13, 21), (8, 30)])
def test_blended_tiles_are_the_field_again_and_have_no_seam(size):
    field = torch.rand(2, *size, generator=cf.generator(seed=0))
    tiles, places = cut(field, (8, 8), overlap=3)
    assert torch.allclose(blended(tiles, places, size), field)
    # Where neighbouring tiles differ by 1, the field goes over in as many steps as they share pixels, and one more.
    number = torch.tensor([left for _, left in places]).unique(return_inverse=True)[1]
    stairs = blended(number[:, None, None, None].expand(-1, 1, 8, 8).double(), places, size)
    assert stairs.diff(dim=2).abs().max() < 1 / (3 + 1) + 1e-9


def test_bytes_and_sixteen_bits_in_one_set_have_one_white():
    steps, levels = in_steps(
        [torch.tensor([[[0, 255]]]).byte(), Numbers(torch.tensor([[[0.0, 65535.0]]]), "uint16")],
        ["a", "b"],
        white_level=65535,
    )
    assert levels.kind == "uint16"
    assert steps[0].tolist() == steps[1].tolist() == [[[0, 65535]]]


@pytest.mark.parametrize("form", ["npy", "npz", "zarr"])
def test_arrays_of_many_channels_are_read_by_their_number(form, tmp_path):
    values, path = camera("uint16", channels=5), tmp_path / f"images.{form}"
    if form == "zarr":
        zarr = pytest.importorskip("zarr")
        zarr.save(str(path), values)
    else:
        (np.save if form == "npy" else np.savez)(path, values)
    images = read_images(path, channels=5)
    np.testing.assert_array_equal(images.levels.numbers(images.scaled()), values)
    with pytest.raises(ValueError, match="Set `channels` to their number"):
        read_images(path)


def of_ome_zarr(folder, values, axes, *, newer):
    """Write an image as OME-Zarr has it, with a second resolution."""
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(str(folder), mode="w")
    for name, some in {"0": values, "1": values[..., ::2, ::2]}.items():
        group.create_array(name, shape=some.shape, dtype=some.dtype)[...] = some
    scales = [{"axes": [{"name": name} for name in axes], "datasets": [{"path": "0"}, {"path": "1"}]}]
    group.attrs.update({"ome": {"version": "0.5", "multiscales": scales}} if newer else {"multiscales": scales})
    return folder


@pytest.mark.parametrize("newer", [True, False])
@pytest.mark.parametrize(("axes", "channels"), [("yx", 1), ("cyx", 5), ("tczyx", 5)])
def test_an_image_of_ome_zarr_is_read_in_full(newer, axes, channels, tmp_path):
    values = camera("uint16", n=1, channels=channels)
    shape = [{"c": channels, "y": values.shape[2], "x": values.shape[3]}.get(name, 1) for name in axes]
    folder = of_ome_zarr(tmp_path / "a.ome.zarr", values.reshape(shape), axes, newer=newer)
    folder = folder.rename(tmp_path / ("a" if newer else folder.name))  # what it holds says what it is
    images = read_images(folder, channels=channels, white_level=65535)
    np.testing.assert_array_equal(images.levels.numbers(images.scaled()), values)


def test_axes_and_groups_that_are_no_image_of_ome_zarr_are_refused(tmp_path):
    turned = of_ome_zarr(tmp_path / "a.zarr", camera("uint16", n=1, channels=2)[0], "cxy", newer=True)
    with pytest.raises(ValueError, match="its axes are c, x, y, which do not end with y, x"):
        read_images(turned, channels=2)
    group = pytest.importorskip("zarr").open_group(str(turned), mode="a")
    group.create_group("inside")
    group.attrs.update({"ome": {"multiscales": [{"axes": ["y", "x"], "datasets": [{"path": "inside"}]}]}})
    with pytest.raises(ValueError, match="full resolution, `inside`, is no array"):
        read_images(turned, channels=2)


def test_a_stack_of_ome_zarr_and_several_arrays_are_refused_with_a_way_out(tmp_path):
    zarr = pytest.importorskip("zarr")
    stack = of_ome_zarr(tmp_path / "a.zarr", camera("uint16", n=3, channels=2), "zcyx", newer=True)
    with pytest.raises(ValueError, match="found 3 along z. Take the brightest pixel"):
        read_images(stack, channels=2)
    zarr.open_group(str(stack), mode="a").attrs.update({"ome": {"multiscales": [{"datasets": []}]}})
    with pytest.raises(ValueError, match="cannot be read as an array of pictures"):
        read_images(stack, channels=2)
    zarr.save(str(tmp_path / "b.zarr"), first=np.zeros((2, 8, 8)), second=np.zeros((2, 8, 8)))
    with pytest.raises(ValueError, match=r"Give one of them, such as .*b\.zarr.first"):
        read_images(tmp_path / "b.zarr")


def test_a_translator_returns_the_numbers_of_the_target(tmp_path):
    source = read_images(camera("uint16", n=6), channels=2, white_level=65535)
    target = read_images(camera("float32", n=6) * 3 + 2, channels=2, percentiles=(0, 100))
    model = cf.DomainTranslator(network=tiny, steps=2, batch_size=4).fit(source, target)
    model.save(tmp_path / "model")
    model = cf.DomainTranslator.load(tmp_path / "model")
    assert model.levels_ == (source.levels, target.levels)
    made = model.translate(source, solver=2)
    assert made.levels == target.levels
    assert model.translate(target, reverse=True, solver=2).levels == source.levels
    with pytest.raises(ValueError, match=r"levels=flow.levels_\[0\]"):
        model.translate(target, solver=2)


def test_levels_of_other_channels_are_no_model(tmp_path):
    images = read_images(camera("uint16", n=6), channels=2)
    cf.ImageGenerator(network=tiny, steps=1, batch_size=4).fit(images).save(tmp_path / "model")
    path = tmp_path / "model" / "model.json"
    about = json.loads(path.read_text())
    about["learned"]["levels"] = [Levels((0.0,), (1.0,)).record()]
    path.write_text(json.dumps(about))
    with pytest.raises(CheckpointError, match="expected levels of the channels in `learned.shape`; found 1"):
        cf.ImageGenerator.load(tmp_path / "model")


def test_a_generator_returns_the_numbers_that_it_saw(tmp_path):
    images = read_images(camera("uint16", n=6), channels=2)
    model = cf.ImageGenerator(network=tiny, steps=2, batch_size=4).fit(images)
    model.save(tmp_path / "model")
    made = cf.ImageGenerator.load(tmp_path / "model", network=tiny).generate(2, solver=2)
    assert made.levels == images.levels
    assert made.images.dtype == torch.uint16


class Ramp(torch.nn.Module):
    """A velocity that depends on the place in a tile: where tiles meet without overlap it jumps."""

    def __init__(self, channels):
        super().__init__()
        self.height = torch.nn.Parameter(torch.tensor(0.2))

    def forward(self, t, x, condition=None):
        return self.height * torch.linspace(-1, 1, x.shape[-1]).expand_as(x)


def test_a_field_of_2048_pixels_has_no_seams_where_its_tiles_of_128_meet(rng):
    dark, bright = (cf.images.ImageSet(torch.full((2, 1, 128, 128), grey, dtype=torch.uint8)) for grey in (100, 150))
    model = cf.DomainTranslator(network=Ramp, steps=1, batch_size=2, device="cpu").fit(dark, bright)
    torch.nn.init.constant_(model.field_.height, 0.2)
    field = cf.images.ImageSet(torch.randint(100, 150, (1, 1, 2048, 2048), dtype=torch.uint8, generator=rng))
    steepest = {}
    for overlap in (0, 32):
        made = model.translate(field, solver=1, overlap=overlap).images
        assert made.shape == field.images.shape
        steepest[overlap] = float((made.float() - field.images.float()).diff(dim=-1).abs().max())
    assert steepest[0] == pytest.approx(0.4 * 127.5, abs=1)
    assert steepest[32] <= 3  # the same change over 32 pixels, of whole grey levels


def test_fields_without_an_overlap_are_told_of_it():
    dark, bright = (cf.images.ImageSet(torch.full((2, 1, 8, 12), grey, dtype=torch.uint8)) for grey in (100, 150))
    field = cf.images.ImageSet(torch.zeros(1, 1, 16, 16, dtype=torch.uint8))
    model = cf.DomainTranslator(network=Ramp, steps=1, batch_size=2, device="cpu").fit(dark, bright)
    with pytest.raises(ValueError, match=r"`translate\(\.\.\., overlap=2\)` carries whole fields.*`size=\(8, 12\)`"):
        model.translate(field)
    assert model.translate(field, overlap=2, solver=1).shape == (1, 16, 16)
    generator = cf.ImageGenerator(network=Ramp, steps=1, batch_size=2, device="cpu").fit(dark)
    with pytest.raises(ValueError, match=r"`size=\(8, 12\)`, which scales them"):
        generator.translate(field, strength=0.5)


def test_large_fields_are_carried_by_tiles_and_keep_their_size_and_rows():
    """Of a flow that moves every pixel alike, tiles make no difference."""
    small, plate = camera("uint16", n=6), pd.DataFrame({"plate": ["a", "b"]})
    model = cf.DomainTranslator(network=tiny, steps=1, batch_size=4)
    model.fit(read_images(small, channels=2), read_images(small[::-1] // 2, channels=2))
    for weight in model.field_.parameters():
        torch.nn.init.zeros_(weight)
    fields = read_images(camera("uint16", n=2, side=21)[:, :, :13], channels=2, table=plate)
    made = model.translate(fields, solver=2, overlap=3)
    assert torch.equal(made.images, fields.images)
    assert made.obs["plate"].tolist() == ["a", "b"]
    low = replace(fields, images=fields.images[:, :, :4])
    assert torch.equal(model.translate(low, solver=2, overlap=3).images, low.images)


def test_a_folder_of_16_bit_tiff_becomes_one(tmp_path):
    """On the command line: tiles to learn from, whole fields to translate, numbers and names as they were."""
    for name, scale in (("dmso", 1), ("drug", 2)):
        saved(tmp_path / name, camera("uint16", n=4, side=16) // scale, channels=("DAPI", "GFP"))
    write_tiffs(camera("uint16", n=1, side=24)[..., :20], [tmp_path / "dmso" / "wide.tif"], channels=("DAPI", "GFP"))
    fit = [f"source={tmp_path / 'dmso'}", f"target={tmp_path / 'drug'}", "size=8", "fit=tiles", "percentiles=[0,100]"]
    small = ["steps=1", "batch_size=4", "network=unet", "network.width=8"]
    more = ["network.multipliers=[1,2]", "network.blocks=1", "solver=fixed", "solver.steps=1", "holdout=0.3"]
    assert main(["translate", *fit, *small, *more, f"out={tmp_path / 'run'}"]) == 0
    report = html.unescape(re.sub(r"<[^>]*>", "", (tmp_path / "run" / "report.html").read_text()))
    assert "images read withsize=8 fit=tiles percentiles=[0,100]" in report.replace("\n", "")
    assert "overlap=2" in report
    assert "images = cf.images.read_images('FIELD.tif', levels=model.levels_[0])" in report
    assert "model.translate(images, overlap=2)" in report
    used = [f"model={tmp_path / 'run'}", f"input={tmp_path / 'dmso'}", "overlap=2", f"out={tmp_path / 'made'}"]
    assert main(["translate", *used]) == 0
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == [*(f"{k}.tif" for k in range(4)), "wide.tif"]
    made = read_tiff(tmp_path / "made" / "wide.tif", Conversion())
    assert (made.values.shape, made.kind, made.channels) == ((2, 24, 20), "uint16", ("DAPI", "GFP"))


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    write_tiffs(camera("uint16", n=1), [tmp_path / "a.tif"])
    assert [path.name for path in Path(tmp_path).iterdir()] == ["a.tif"]


def test_the_page_on_microscopy_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[1] / "docs" / "microscopy.md").read_text()
    names: dict = {"__name__": "page"}
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(block, names)
    assert repr(names["source"]) == re.search(r"# (ImageSet\(.*\))", text)[1]
    assert names["numbers"].shape == (3, 2, 64, 96)


def test_class_folders_may_be_links_and_a_link_upwards_ends(tmp_path):
    real = saved(tmp_path / "elsewhere", camera("uint16"))
    (tmp_path / "in").mkdir()
    for name in ("dmso", "drug"):
        (tmp_path / "in" / name).symlink_to(real)
    (real / "back").symlink_to(tmp_path / "in")
    images = read_images(tmp_path / "in", labels="folder")
    assert images.classes == ("dmso", "drug")
    assert {"dmso/0.tif", "drug/2.tif"} <= set(images.names)


HALF = np.eye(8) > 0


@pytest.mark.parametrize(
    ("values", "how"),
    [
        (HALF, {"photometric": "minisblack"}),
        (np.where(HALF, 0, 65535).astype("uint16"), {"photometric": "miniswhite"}),
        (np.stack([HALF, HALF & False]), {"photometric": "minisblack"}),
    ],
    ids=["bits", "white is zero", "stack of bits"],
)
def test_white_is_white_however_it_is_stored(values, how, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", values, **how)
    seen = read_images(tmp_path, pages="max").scaled()[0, 0]
    assert torch.equal(seen == 1, torch.from_numpy(HALF))
    assert torch.equal(seen == -1, torch.from_numpy(~HALF))


def test_alpha_in_sixteen_bits_is_no_channel(tmp_path):
    colours = camera("uint16", channels=4, n=1)[0].transpose(1, 2, 0)
    alpha = {"photometric": "rgb", "extrasamples": ["unassalpha"]}
    tifffile.imwrite(tmp_path / "a.tif", colours, **alpha)
    with pytest.raises(ValueError, match="transparent pixels"):
        read_images(tmp_path)
    colours[..., 3] = 65535
    tifffile.imwrite(tmp_path / "a.tif", colours, **alpha)
    assert read_images(tmp_path).shape == (3, 8, 8)


def test_lzw_in_one_grey_plane_needs_no_other_package(tmp_path):
    from PIL import Image

    values = camera("uint16", channels=1, n=1)[0, 0]
    Image.fromarray(values).save(tmp_path / "a.tif", compression="tiff_lzw")
    images = read_images(tmp_path)
    np.testing.assert_array_equal(images.levels.numbers(images.scaled())[0, 0], values)


def ome(planes, end="</OME>"):
    space, first = "http://www.openmicroscopy.org/Schemas/OME/2016-06", "Type='uint16' SizeX='8' SizeY='8' SizeC='1'"
    pixels = (
        f"<Pixels ID='Pixels:0' DimensionOrder='XYCZT' {first} SizeZ='1' SizeT='{planes}'><TiffData IFD='0'/></Pixels>"
    )
    return f"<?xml version='1.0'?><OME xmlns='{space}'><Image ID='Image:0'>{pixels}</Image>{end}"


def ome_set(folder, names, *, channels, positions=1, backwards=False):
    """Write an OME-TIFF of several files, of which each describes all, as Micro-Manager does; return what is in each.

    A file has one channel, or all of one position; ``backwards``, the last of them first.
    """
    space, n = "http://www.openmicroscopy.org/Schemas/OME/2016-06", len(channels)
    each = "".join(
        f"<Channel ID='Channel:0:{c}' Name='{name}' SamplesPerPixel='1'/>" for c, name in enumerate(channels)
    )

    def plane(c, file, ifd):
        uuid = f"<UUID FileName='{names[file]}'>urn:uuid:{file}</UUID>"
        return f"<TiffData FirstC='{c}' FirstT='0' FirstZ='0' IFD='{ifd}' PlaneCount='1'>{uuid}</TiffData>"

    images = ""
    for position in range(positions):
        of = [plane(c, c, 0) if positions == 1 else plane(c, position, n - 1 - c if backwards else c) for c in range(n)]
        sizes = f"Type='uint16' SizeX='8' SizeY='8' SizeC='{n}' SizeZ='1' SizeT='1'"
        pixels = f"<Pixels ID='Pixels:{position}' DimensionOrder='XYZTC' {sizes}>{each}{''.join(of)}</Pixels>"
        images += f"<Image ID='Image:{position}'>{pixels}</Image>"
    folder.mkdir()
    values = camera("uint16", channels=1 if positions == 1 else n, n=len(names))
    for number, (name, image) in enumerate(zip(names, values, strict=True)):
        about = f"<?xml version='1.0'?><OME xmlns='{space}' UUID='urn:uuid:{number}'>{images}</OME>"
        tifffile.imwrite(folder / name, image, description=about, metadata=None, photometric="minisblack")
    return values


def test_each_file_of_a_set_of_ome_tiff_is_an_image_of_its_own(tmp_path):
    """What is said of the other files is left alone: they are read for themselves, or are not there."""
    values = ome_set(tmp_path / "stains", ["c0.ome.tif", "c1.ome.tif"], channels=["DAPI", "GFP"])
    for number, name in enumerate(["DAPI", "GFP"]):
        images = read_images(tmp_path / "stains" / f"c{number}.ome.tif")
        assert images.levels.channels == (name,)
        np.testing.assert_array_equal(images.levels.numbers(images.scaled()), values[number][None])
    with pytest.raises(ValueError, match="files name them DAPI and GFP. Read those of one kind"):
        read_images(tmp_path / "stains")
    with pytest.warns(UserWarning, match="Left out 1 of 2"):
        chosen = read_images(tmp_path / "stains", table=pd.DataFrame({"file": ["c1.ome.tif"]}))
    assert (len(chosen), chosen.shape) == (1, (1, 8, 8))
    (tmp_path / "stains" / "c1.ome.tif").unlink()
    assert len(read_images(tmp_path / "stains")) == 1


@pytest.mark.parametrize("reader", [read_images, stream_images])
@pytest.mark.parametrize("channels", [["DAPI"], ["DAPI", "GFP"]])
def test_each_position_of_a_set_of_ome_tiff_is_an_image_of_its_own(channels, reader, tmp_path):
    values = ome_set(tmp_path / "in", [f"pos{k}.ome.tif" for k in range(3)], channels=channels, positions=3)
    how = {"pages": "channels"} if len(channels) > 1 else {}
    if how:
        with pytest.raises(ValueError, match='more planes .2 along.*`pages="channels"`'):
            read_images(tmp_path / "in")
    images = reader(tmp_path / "in", size=8, channels=len(channels), **how)
    assert images.levels.channels == tuple(channels)
    np.testing.assert_array_equal(images.levels.numbers(images.scaled()), values)


def test_names_of_channels_follow_the_planes_of_a_file(tmp_path):
    ome_set(tmp_path / "in", ["a.ome.tif", "b.ome.tif"], channels=["DAPI", "GFP"], positions=2, backwards=True)
    assert read_images(tmp_path / "in", pages="channels", channels=2).levels.channels == ("GFP", "DAPI")


def test_a_file_that_names_itself_is_whole_whatever_its_number(tmp_path):
    """As one that was written again, with another number than its planes have."""
    space, values = "http://www.openmicroscopy.org/Schemas/OME/2016-06", camera("uint16", channels=2, n=1)
    uuid = "<UUID FileName='a.ome.tif'>urn:uuid:1</UUID>"
    planes = "".join(f"<TiffData FirstC='{c}' IFD='{c}' PlaneCount='1'>{uuid}</TiffData>" for c in range(2))
    each = "".join(f"<Channel ID='Channel:0:{c}' Name='{name}' SamplesPerPixel='1'/>" for c, name in enumerate("AB"))
    sizes = "Type='uint16' SizeX='8' SizeY='8' SizeC='2' SizeZ='1' SizeT='1' DimensionOrder='XYZTC'"
    image = f"<Image ID='Image:0'><Pixels ID='Pixels:0' {sizes}>{each}{planes}</Pixels></Image>"
    about = f"<?xml version='1.0'?><OME xmlns='{space}' UUID='urn:uuid:9'>{image}</OME>"
    tifffile.imwrite(tmp_path / "a.ome.tif", values[0], description=about, metadata=None, photometric="minisblack")
    images = read_images(tmp_path, channels=2)
    assert images.levels.channels == ("A", "B")
    np.testing.assert_array_equal(images.levels.numbers(images.scaled()), values)


def test_damaged_or_boastful_descriptions_are_no_harm(tmp_path, monkeypatch):
    values = camera("uint16", channels=1, n=1)[0, 0]
    tifffile.imwrite(tmp_path / "a.tif", values, description=ome(1, "<</OME>"), metadata=None)
    assert len(read_images(tmp_path)) == 1
    tifffile.imwrite(tmp_path / "a.tif", values, description=ome(1000), metadata=None)
    with pytest.raises(ValueError, match=r"a\.tif .it claims 1000 planes, of which 999 are missing"):
        read_images(tmp_path, pages="max")
    tifffile.imwrite(tmp_path / "a.tif", np.stack([values] * 4), photometric="minisblack")
    assert len(read_images(tmp_path, pages="max")) == 1
    monkeypatch.setattr("cellflow.images.tiff.usable_memory", lambda: 4 * 128 - 1)
    with pytest.raises(ValueError, match="it claims .* GiB; there are"):
        read_images(tmp_path, pages="max")


@pytest.mark.parametrize("reader", [read_images, stream_images])
def test_levels_are_of_one_kind_of_numbers_and_one_order_of_channels(reader, tmp_path):
    levels = Levels((0.0, 0.0), (4095.0, 4095.0), channels=("DAPI", "GFP"))
    how = {"size": 8, "channels": 2, "levels": levels}
    with pytest.raises(ValueError, match="of uint16 numbers in .*; found uint8"):
        reader(saved(tmp_path / "bytes", camera("uint8")), **how)
    with pytest.raises(ValueError, match="files name them GFP, DAPI"):
        reader(saved(tmp_path / "turned", camera("uint16"), channels=("GFP", "DAPI")), **how).scaled()


def test_refining_takes_the_levels_of_the_fit():
    values = camera("uint16", n=6)
    source, target = (read_images(some, channels=2) for some in (values, values // 2))
    model = cf.DomainTranslator(network=tiny, steps=1, batch_size=4).fit(source, target)
    other = read_images(values, channels=2, percentiles=(10, 90))
    with pytest.raises(ValueError, match=r"levels=flow.levels_\[1\]"):
        model.refine(source, other, rounds=1, steps=1)


def test_fields_keep_their_labels():
    values = camera("uint16", n=4, side=12)
    fields = read_images(values, channels=2, labels=["a", "b", "a", "b"])
    small, other = (
        read_images(some, channels=2, labels=["a", "b", "a", "b"])
        for some in (values[..., :8, :8], values[..., 4:, 4:])
    )
    model = cf.DomainTranslator(network=tiny, steps=1, batch_size=4, within_labels=True).fit(small, other)
    assert torch.equal(model.translate(fields, solver=1, overlap=2).labels, fields.labels)


@pytest.mark.parametrize("holdout", [0.1, 0.5])
def test_tiles_of_one_field_are_fitted_or_scored_and_never_both(holdout):
    cfg = Settings({"holdout": holdout, "seed": 0, "fit": "tiles", "size": 8})
    tiles = read_images(camera("uint16", n=6, side=24), channels=2, size=8, fit="tiles")
    split = hold_out(tiles, cfg)
    fitted, held = ({name.split("@")[0] for name in part.names} for part in (split.fitted, split.held_out))
    assert not fitted & held
    assert len(split.held_out) >= max(3, round(holdout * 54))
    assert len(split.fitted) + len(split.held_out) == 54
    with pytest.warns(UserWarning, match="too few fields"):
        assert len(hold_out(tiles.take(range(9)), Settings(cfg | {"holdout": 1 / 3})).held_out) == 3


def test_channels_are_shown_each_in_its_colour():
    one = torch.full((1, 2, 1, 1), -1.0)
    one[0, 1] = 1
    assert tile([one])[0, 0].tolist() == [0, 255, 0]
    assert tile([one.flip(1)])[0, 0].tolist() == [255, 0, 255]
    assert len({tuple(tile([row])[0, 0]) for row in torch.eye(5).reshape(5, 1, 5, 1, 1) * 2 - 1}) == 5


def test_what_the_model_settles_is_refused_on_the_command_line():
    asked = Settings({"size": None, "channels": None, "percentiles": None, "white_level": 65535})
    levels = Levels((0.0, 0.0), (1.0, 1.0))
    check_fitted(Settings(asked | {"size": 64, "channels": 2}), shape=(2, 64, 64), levels=levels)
    for given in ({"size": 32}, {"size": [64, 32]}, {"channels": 1}, {"percentiles": [0, 100]}, {"white_level": 4095}):
        with pytest.raises(ValueError, match="[Ll]eave"):
            check_fitted(Settings(asked | given), shape=(2, 64, 64), levels=levels)


def test_nothing_is_translated_that_could_not_be_written(tmp_path):
    def parts():
        raise AssertionError("begun")
        yield

    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.png").touch()
    with pytest.raises(ValueError, match=r"both be written to .*one"):
        write_parts(parts(), ["one.tif", "one.png"], tmp_path / "new", None)
    with pytest.raises(FileExistsError, match="not empty"):
        write_parts(parts(), ["one.tif"], tmp_path / "full", None)


def named(*channels, kind="uint16", seed=0):
    values = torch.rand(4, len(channels), 8, 8, generator=cf.generator(seed=seed))
    levels = Levels((0.0,) * len(channels), (4095.0,) * len(channels), kind, channels)
    return cf.images.ImageSet(levels.steps(4095 * values), levels=levels)


def test_channels_in_another_order_are_refused_by_every_verb():
    one, other, crossed = named("A", "B"), named("A", "B", seed=1), named("B", "A", seed=2)
    model = cf.DomainTranslator(network=tiny, steps=1, batch_size=2, progress=False)
    with pytest.raises(ValueError, match="found A, B in the source and B, A in the target"):
        model.fit(one, crossed)
    model.fit(one, other)
    for carry in (model.translate, partial(model.translate, overlap=2), model.trajectory):
        with pytest.raises(ValueError, match="Expected the channels of the fit, A, B; found B, A"):
            carry(crossed)
    with pytest.raises(ValueError, match="found B, A"):
        model.refine(crossed, other, rounds=1, steps=1)
    unnamed = cf.images.ImageSet(one.images, levels=replace(one.levels, channels=None))
    assert model.translate(unnamed).levels.channels == ("A", "B")
    model.fit(named("brightfield"), named("DNA", seed=1))  # domains may have channels of their own
    assert model.translate(named("brightfield", seed=3)).levels.channels == ("DNA",)


def test_numbers_of_a_camera_are_refused_by_a_model_of_bytes():
    deep = named("A")
    source, target = (cf.images.ImageSet(torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)) for _ in range(2))
    model = cf.DomainTranslator(network=tiny, steps=1, batch_size=2, progress=False).fit(source, target)
    generator = cf.ImageGenerator(network=tiny, steps=1, batch_size=2, progress=False).fit(source)
    for carry in (model.translate, generator.translate):
        with pytest.raises(ValueError, match="Expected images as bytes, as in the fit; found uint16 numbers"):
            carry(deep)


def test_the_warning_of_dim_images_gives_a_white_level_that_all_channels_allow():
    dim, bright = torch.tensor([0.0, 3000.0]), torch.tensor([0.0, 3900.0])
    image = torch.stack([dim, bright])[:, None]
    with pytest.warns(UserWarning, match="white_level=3900"):
        in_steps([Numbers(image, "uint16")], ["a.tif"], white_level=65535)
    in_steps([Numbers(image, "uint16")], ["a.tif"], white_level=3900)
    with pytest.warns(UserWarning, match=re.escape("0 to 255. Set `percentiles=")):  # bytes have one white
        in_steps([Numbers(image / 200, "uint8")], ["a.tif"], white_level=65535)
    with pytest.warns(UserWarning, match=re.escape("0 to 60000. Set `percentiles=")):  # of no help to a dim channel
        in_steps([Numbers(torch.stack([dim / 30, 20 * dim])[:, None], "uint16")], ["a.tif"], white_level=60000)
    with pytest.warns(UserWarning, match=re.escape("0 to 1. Set `percentiles=")):
        in_steps([Numbers(image / 1e7, "float32")], ["a.tif"], white_level=65535)


def test_negative_numbers_have_no_white_level():
    with pytest.raises(ValueError, match=r"0 and more.*found -5"):
        in_steps([Numbers(torch.tensor([-5.0, 9.0])[None, None], "float32")], ["a.tif"], white_level=9)


def test_a_link_that_leads_nowhere_is_a_file_that_cannot_be_read(tmp_path):
    folder = saved(tmp_path / "in", camera("uint16"))
    (folder / "lost.tif").symlink_to(tmp_path / "nowhere.tif")
    with pytest.raises((ValueError, OSError), match="lost.tif"):
        read_images(folder)
    with pytest.warns(UserWarning, match="Left out 1 of 4"):
        assert len(read_images(folder, skip_unreadable=True)) == 3


def test_tiles_without_names_are_held_out_one_by_one():
    images = cf.images.ImageSet(torch.arange(8, dtype=torch.uint8)[:, None, None, None].expand(8, 1, 8, 8).clone())
    with pytest.warns(UserWarning, match="too few fields"):
        split = hold_out(images, Settings({"holdout": 0.4, "seed": 0, "fit": "tiles", "size": 8}))
    assert (len(split.fitted), len(split.held_out)) == (5, 3)
