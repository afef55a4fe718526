"""Reading images: every kind of file and array becomes bytes of one shape, or is refused with a reason."""

import gzip
import struct
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

import cellflow as cf
from cellflow.images import Conversion, ImageSet, files, read_images, scaled, stream_images, to_bytes
from cellflow.images.files import UnreadableImageError

pytestmark = pytest.mark.filterwarnings("ignore:Cropped")  # most pictures here are not square

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]


def only_image(folder, **settings):
    read = read_images(folder, **settings)
    assert len(read) == 1
    return read.images[0]


def save(array, path, **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = array if isinstance(array, Image.Image) else Image.fromarray(array)
    picture.save(path, **settings)
    return path


# --- what a file holds -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["png", "tif", "tiff", "bmp", "PNG"])
@pytest.mark.parametrize("array", [COLOUR, GREY], ids=["colour", "grey"])
def test_lossless_files_come_back(tmp_path, ending, array):
    save(array, tmp_path / f"a.{ending}")
    expected = array.transpose(2, 0, 1) if array.ndim == 3 else array[None]
    np.testing.assert_array_equal(only_image(tmp_path).numpy(), expected)


def test_jpeg_comes_back_nearly(tmp_path):
    smooth = np.linspace(0, 255, 400).reshape(20, 20).astype(np.uint8)
    save(smooth, tmp_path / "a.jpeg", quality=95)
    assert np.abs(only_image(tmp_path)[0].numpy().astype(int) - smooth).max() < 8


def test_grey_is_pillows_luma(tmp_path):
    save(COLOUR, tmp_path / "a.png")
    expected = np.asarray(Image.fromarray(COLOUR).convert("L"))
    np.testing.assert_array_equal(only_image(tmp_path, channels=1)[0].numpy(), expected)
    np.testing.assert_array_equal(read_images(COLOUR[None], channels=1).images[0, 0].numpy(), expected)


def test_grey_becomes_colour_by_repetition(tmp_path):
    save(GREY, tmp_path / "a.png")
    assert (only_image(tmp_path, channels=3).numpy() == GREY).all()


@pytest.mark.parametrize("sides", [(10, 10), (7, 13), (40, 40), (20, 30)])
def test_size_agrees_with_pillow(tmp_path, sides):
    save(COLOUR, tmp_path / "a.png")
    height, width = sides
    scale = max(height / 20, width / 30)
    covering = (max(width, round(30 * scale)), max(height, round(20 * scale)))
    picture = Image.fromarray(COLOUR).resize(covering, Image.Resampling.BILINEAR)
    left, top = (covering[0] - width) // 2, (covering[1] - height) // 2
    expected = np.asarray(picture.crop((left, top, left + width, top + height))).transpose(2, 0, 1).astype(int)
    found = only_image(tmp_path, size=sides).numpy()
    assert found.shape == (3, height, width)
    assert np.abs(found - expected).max() <= 1


def test_scaling_down_is_antialiased():
    stripes = np.tile(np.array([0, 255], np.uint8), (1, 64, 32))
    assert (np.abs(read_images(stripes, size=8).images.numpy().astype(int) - 128) <= 16).all()


def test_the_centre_is_kept():
    wide = np.zeros((1, 8, 24), np.uint8)
    wide[:, :, 8:16] = 255
    assert (read_images(wide, size=8).images == 255).all()


@pytest.mark.parametrize("background", [0, 100, 255])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_shows_the_background(tmp_path, mode, background):
    alpha = np.array([[0, 128, 255, 7, 250]] * 5, np.uint8)
    colour = np.full((5, 5), 40, np.uint8)
    layers = [colour] * (len(mode) - 1) + [alpha]
    save(Image.merge(mode, [Image.fromarray(layer) for layer in layers]), tmp_path / "a.png")
    under = Image.new(mode, (5, 5), (background,) * (len(mode) - 1) + (255,)).convert("RGBA")
    expected = Image.alpha_composite(under, Image.open(tmp_path / "a.png").convert("RGBA")).convert("RGB")
    found = only_image(tmp_path, background=background).numpy()
    assert found.shape[0] == len(mode) - 1
    assert np.abs(found[0].astype(int) - np.asarray(expected)[..., 0]).max() <= 1
    array = np.stack(layers[-4:], axis=-1)[None] if mode == "RGBA" else None
    if array is not None:
        np.testing.assert_array_equal(read_images(array, background=background).images[0].numpy(), found)


def test_transparent_background_is_white_unless_said_otherwise(tmp_path):
    save(np.zeros((4, 4, 4), np.uint8), tmp_path / "a.png")
    assert (only_image(tmp_path) == 255).all()


@pytest.mark.parametrize("transparent", [False, True])
def test_palettes_become_colours(tmp_path, transparent):
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putpixel((1, 0), 1)
    save(picture, tmp_path / "a.png", **({"transparency": 1} if transparent else {}))
    found = only_image(tmp_path).permute(1, 2, 0).tolist()
    assert found == [[[255, 0, 0], [255, 255, 255] if transparent else [0, 0, 255]]]


def test_one_bit_and_cmyk(tmp_path):
    save(np.eye(6, dtype=bool), tmp_path / "bits" / "a.png")
    np.testing.assert_array_equal(only_image(tmp_path / "bits")[0].numpy(), 255 * np.eye(6, dtype=np.uint8))
    save(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), tmp_path / "ink" / "a.tif")
    assert only_image(tmp_path / "ink")[:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("ending", ["tif", "png"])
@pytest.mark.parametrize("white", [65535, 4095])
def test_sixteen_bits_are_scaled_the_same_for_all(tmp_path, ending, white):
    levels = np.array([[0, white // 4, white]], np.uint16)
    save(levels, tmp_path / f"a.{ending}")
    save(levels // 2, tmp_path / f"b.{ending}")
    found = read_images(tmp_path, white_level=white)
    assert found.bytes()[0, 0, 0].tolist() == [0, 64, 255]
    assert found.bytes()[1, 0, 0, 2] in (127, 128)  # not stretched to its own maximum
    np.testing.assert_array_equal(read_images(levels[None], white_level=white).images[0], found.images[0])


def test_sixteen_bits_above_white_are_refused(tmp_path):
    save(np.full((2, 2), 5000, np.uint16), tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"white_level=4095; found 5000 to 5000 in .*a\.tif"):
        read_images(tmp_path, white_level=4095)


def test_photographs_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    save(COLOUR, tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(only_image(tmp_path).numpy(), np.rot90(COLOUR, -1).transpose(2, 0, 1))


def test_stacks_and_floats_of_unknown_white_are_refused(tmp_path):
    pages = [Image.fromarray(GREY), Image.fromarray(GREY)]
    save(pages[0], tmp_path / "stack" / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match=r"a\.tif"):
        read_images(tmp_path / "stack")
    save(np.full((4, 4), 2, np.float32), tmp_path / "float" / "a.tif")
    with pytest.raises(ValueError, match=r"to be told what is white; found 2 to 2 in a\.tif"):
        read_images(tmp_path / "float")


# --- folders -----------------------------------------------------------------------------------------------------


@pytest.fixture
def nested(tmp_path):
    for number, name in enumerate(
        ["b/2.png", "a/1.png", "a/deep/0.tif", ".hidden.png", ".git/3.png", "__MACOSX/4.png"]
    ):
        save(np.full((8 + number, 9), 10 * number, np.uint8), tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


def test_nested_folders_in_order_without_hidden_files(nested):
    found = read_images(nested, size=8, labels="folder")
    assert found.names == ("a/1.png", "a/deep/0.tif", "b/2.png")
    assert found.images[:, 0, 0, 0].tolist() == [10, 20, 0]
    assert found.classes == ("a", "b")
    assert found.labels.tolist() == [0, 0, 1]
    assert found.source == str(nested)


def test_stream_and_memory_give_the_same(nested, global_state_is_untouched):
    held = read_images(nested, size=8, channels=3, labels="folder")
    streamed = stream_images(nested, size=8, channels=3, labels="folder")
    assert torch.equal(streamed.scaled(), held.scaled())
    assert torch.equal(streamed.scaled([2, 0]), held.scaled([2, 0]))
    assert torch.equal(streamed.one_hot(), held.one_hot())
    assert (streamed.shape, len(streamed), streamed.names) == (held.shape, len(held), held.names)
    assert "3 images, 3 x 8 x 8, 2 classes" in repr(streamed)


def test_sizes_that_differ_are_refused(nested):
    with pytest.raises(ValueError, match=r"one size; found 3: 9 x 9 .*Set `size`"):
        read_images(nested)


def test_mixed_channels_are_refused_and_cured(nested):
    save(COLOUR, nested / "c" / "colour.png")
    with pytest.raises(
        ValueError, match=r"3 grey \(such as .*1\.png\) and 1 RGB \(such as .*colour\.png\).*channels=1"
    ):
        read_images(nested, size=8)
    assert read_images(nested, size=8, channels=1).shape == (1, 8, 8)


def test_folders_without_images(tmp_path):
    with pytest.raises(ValueError, match="found no files"):
        read_images(tmp_path)
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text("words")
    for read in (read_images, lambda folder: stream_images(folder, size=8, channels=1)):
        with pytest.raises(ValueError, match=r"found 3 x \.txt"):
            read(tmp_path)
        with pytest.raises(FileNotFoundError, match="No folder"):
            read(tmp_path / "elsewhere")


@pytest.fixture
def damaged(tmp_path):
    whole = save(RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8), tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:2000])
    save(RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8), tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:600])
    (tmp_path / "words.tif").write_text("a text file")
    (tmp_path / "nothing.png").write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize("stream", [False, True])
def test_damaged_files_are_named_and_skipped_only_if_asked(damaged, stream):
    settings = {"size": 8, "channels": 3}
    if stream:
        with pytest.raises(UnreadableImageError, match=r"1 of 1 pictures cannot be read: .*cut\.jpg.*skip_unreadable"):
            stream_images(damaged, **settings).scaled([0])
    else:
        with pytest.raises(UnreadableImageError, match="4 of 5 pictures cannot be read") as caught:
            read_images(damaged, **settings)
        assert all(name in str(caught.value) for name in ("cut.png", "cut.jpg", "words.tif", "nothing.png"))
    with pytest.warns(UserWarning, match=r"Left out 4 of 5 pictures: .*cut\.jpg") as warned:
        found = (stream_images if stream else read_images)(damaged, skip_unreadable=True, **settings)
    assert found.names == ("whole.png",)
    assert len(warned) == 1


@pytest.mark.parametrize("read", [read_images, partial(stream_images, size=8, channels=3)], ids=["memory", "files"])
def test_a_folder_of_damaged_files_is_refused_even_so(tmp_path, read):
    (tmp_path / "a.png").write_text("words")
    with pytest.raises(UnreadableImageError, match="None of 1"):
        read(tmp_path, skip_unreadable=True)


def test_damaged_files_are_counted_over_the_whole_folder(damaged, monkeypatch):
    """Files are checked some at a time: a part without a whole one is no reason to give up."""
    monkeypatch.setattr(files, "_CHECKED_AT_ONCE", 2)
    with pytest.warns(UserWarning, match="Left out 4 of 5 pictures"):
        assert stream_images(damaged, size=8, channels=3, skip_unreadable=True).names == ("whole.png",)


@pytest.mark.parametrize("read", [read_images, partial(stream_images, size=8, channels=1)], ids=["memory", "files"])
def test_one_file_is_not_a_folder(tmp_path, read):
    path = save(GREY, tmp_path / "a.png")
    save(GREY // 2, tmp_path / "b.png")
    if read is read_images:
        assert read(path).names == ("a.png",)
    else:
        with pytest.raises(ValueError, match="is one file"):
            read(path)


@pytest.mark.parametrize("missing", ["size", "channels"])
def test_files_that_are_not_read_yet_cannot_tell_their_shape(nested, missing):
    with pytest.raises(ValueError, match="Expected `size` and `channels`, such as size=64"):
        stream_images(nested, **({"size": 8, "channels": 1} | {missing: None}))


def test_parts_of_a_stream_are_those_of_the_set_in_memory(nested):
    held = read_images(nested, size=8, channels=3, labels="folder")
    streamed = stream_images(nested, size=8, channels=3, labels="folder")
    for a, b in zip(*(images.split(2 / 3, generator=cf.generator(seed=3)) for images in (held, streamed)), strict=True):
        whole = b.read()
        assert torch.equal(whole.images, a.images)
        assert torch.equal(whole.labels, a.labels)
        assert (whole.names, whole.classes) == (a.names, a.classes) == (b.names, b.classes)


# --- arrays ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
@pytest.mark.parametrize("layout", ["(n, h, w)", "(n, h, w, c)", "(n, c, h, w)"])
def test_layouts(kind, layout):
    stack = np.stack([COLOUR, 255 - COLOUR])
    given = {"(n, h, w)": stack[..., 0], "(n, h, w, c)": stack, "(n, c, h, w)": stack.transpose(0, 3, 1, 2)}[layout]
    expected = stack[..., :1] if given.ndim == 3 else stack
    np.testing.assert_array_equal(read_images(kind(given)).images.numpy(), expected.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    "given",
    [GREY, (GREY / 255), (GREY / 255).astype(np.float32), GREY.astype(np.uint16) * 257, GREY.astype(">u2") * 257],
    ids=["uint8", "float64", "float32", "uint16", "big-endian"],
)
def test_ranges(given):
    np.testing.assert_array_equal(read_images(given[None]).bytes()[0, 0].numpy(), GREY)


def test_truth_values():
    assert read_images(np.eye(5, dtype=bool)[None]).images.sum() == 5 * 255


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (np.zeros((2, 4, 4)) - 0.5, ValueError, r"from 0 to 1; found -0\.5 to -0\.5.*\(x \+ 1\) / 2"),
        (np.full((2, 4, 4), 200.0), ValueError, "x / 255"),
        (np.full((2, 4, 4), np.nan), ValueError, "found NaN or infinity in the array"),
        (np.zeros((2, 4, 4), np.int64), TypeError, "int64"),
        (np.zeros((2, 4, 4), complex), TypeError, "complex"),
        (np.zeros((2, 4, 4), str), TypeError, "numbers as pixels"),
        (np.zeros((64, 64, 3), np.uint8), ValueError, "looks like one picture"),
        (np.zeros((64, 64), np.uint8), ValueError, r"found shape \(64, 64\)"),
        (np.zeros((0, 8, 8), np.uint8), ValueError, r"found shape \(0, 8, 8\)"),
        (np.zeros((2, 3, 8, 3), np.uint8), ValueError, "could be channels first or last"),
        (np.zeros((2, 5, 8, 8), np.uint8), ValueError, "Set `channels` to their number"),
    ],
)
def test_arrays_that_could_mean_anything_are_refused(given, error, message):
    with pytest.raises(error, match=message):
        read_images(given)


@pytest.mark.parametrize(
    ("shape", "channels", "found"),
    [((5, 5, 5, 5), 5, 5), ((2, 3, 8, 3), 3, 3), ((2, 1, 8, 3), 1, 1), ((2, 1, 8, 3), 3, 3), ((2, 3, 8, 1), 1, 1)],
)
def test_channels_that_are_given_tell_the_layout_and_come_first_where_both_may_be(shape, channels, found):
    given = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
    with pytest.raises(ValueError, match="Set `channels` to their number|could be channels first or last"):
        read_images(given)
    first = given if shape[1] == channels else given.transpose(0, 3, 1, 2)
    images = read_images(given, channels=channels)
    assert images.shape == (found, *first.shape[2:])
    assert torch.equal(images.images.int() // (257 if images.levels else 1), torch.from_numpy(first).int())


@pytest.mark.parametrize(("ending", "cure"), [("png", ""), ("webp", ""), ("tif", ", or install .* and set `pages`")])
def test_pages_are_advised_for_the_format_that_has_them(ending, cure, tmp_path, monkeypatch):
    monkeypatch.setattr("cellflow.images.files.is_ours", lambda *_: False)  # as without tifffile
    first, second = (Image.fromarray(some) for some in (COLOUR, 255 - COLOUR))
    first.save(tmp_path / f"a.{ending}", save_all=True, append_images=[second])
    with pytest.raises(ValueError, match=rf"holds 2 pages\. Write each to its own file{cure}\.$"):
        read_images(tmp_path)


def test_npy_and_npz(tmp_path):
    stack = np.stack([GREY, GREY.T[:20, :].repeat(2, 1)[:, :30]])
    np.save(tmp_path / "a.npy", stack)
    np.savez(tmp_path / "one.npz", whatever=stack)
    np.savez_compressed(tmp_path / "labelled.npz", images=stack, labels=np.array(["b", "a"]))
    for name in ("a.npy", "one.npz", "labelled.npz"):
        np.testing.assert_array_equal(read_images(tmp_path / name).images[:, 0].numpy(), stack)
    found = read_images(str(tmp_path / "labelled.npz"))
    assert (found.classes, found.labels.tolist()) == (("a", "b"), [1, 0])
    np.savez(tmp_path / "other.npz", x=stack, y=stack)
    with pytest.raises(ValueError, match=r"no array `images`; it holds \['x', 'y'\]"):
        read_images(tmp_path / "other.npz")


def test_pickles_are_not_run(tmp_path):
    np.save(tmp_path / "a.npy", np.array([print, None], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="cannot be read as an array"):
        read_images(tmp_path / "a.npy")


def idx(array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


def test_idx(tmp_path):
    stack = np.stack([GREY, 255 - GREY])
    (tmp_path / "images.idx").write_bytes(idx(stack))
    (tmp_path / "images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(stack)))
    for name in ("images.idx", "images-idx3-ubyte.gz"):
        np.testing.assert_array_equal(read_images(tmp_path / name).images[:, 0].numpy(), stack)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.idx", idx(GREY[None])[:-5], "600 bytes of pixels .* found 595"),
        ("a.idx", b"<html>", "none of these"),
        ("a.gz", b"<html>", "cannot be unpacked"),
        ("a.gz", gzip.compress(idx(GREY[None]))[:-20], "cannot be unpacked"),
        ("a.npz", b"<html>", "cannot be read"),
        ("a.npy", b"<html>", "cannot be read"),
    ],
)
def test_damaged_arrays(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_images(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="No file"):
        read_images(tmp_path / f"no-{name}")


# --- settings and pixels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 0}, "channels=1 for grey"),
        ({"fit": "stretch"}, "Unknown fit"),
        ({"pages": "all"}, "Unknown way to read pages"),
        ({"background": 300}, "from 0"),
        ({"white_level": 0}, "white_level"),
        ({"size": 0}, "at least one pixel"),
        ({"size": (8, -1)}, "at least one pixel"),
    ],
)
def test_conversions_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        Conversion(**settings)


def test_bytes_to_numbers_and_back():
    levels = torch.arange(256, dtype=torch.uint8)
    assert (scaled(levels).min(), scaled(levels).max()) == (-1, 1)
    assert torch.equal(to_bytes(scaled(levels)), levels)
    assert to_bytes(torch.tensor([-7.0, 7.0])).tolist() == [0, 255]
    with pytest.raises(ValueError, match="diverged"):
        to_bytes(torch.tensor([float("nan")]))


def test_a_set_may_have_any_channels_but_only_bytes():
    assert ImageSet(torch.zeros(2, 5, 4, 4, dtype=torch.uint8)).shape == (5, 4, 4)
    with pytest.raises(TypeError, match=r"found torch\.float32"):
        ImageSet(torch.zeros(2, 1, 4, 4))
    with pytest.raises(TypeError, match="found uint8"):
        ImageSet(np.zeros((2, 1, 4, 4), np.uint8))
    with pytest.raises(ValueError, match=r"\(n, c, h, w\)"):
        ImageSet(torch.zeros(2, 4, 4, dtype=torch.uint8))
