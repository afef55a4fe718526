"""Picture files from strangers: what they claim is checked before it is believed, and every file is named.

And what a process may use of its machine, which a container does not show by its number of cores.
"""

import gzip
import io
import os
import random
import re
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

import cellflow as cf
from cellflow import machine
from cellflow.images import arrays, files, limits, read_images, stream_images
from cellflow.images.files import UnreadableImageError

pytestmark = pytest.mark.filterwarnings("ignore:Cropped")  # no file here is square

DRAW = np.random.default_rng(0)
COLOUR = Image.fromarray(DRAW.integers(0, 255, (12, 10, 3), dtype=np.uint8))
DEEP = Image.fromarray(DRAW.integers(0, 65535, (12, 10)).astype(np.uint16))


def held(picture, kind, **given):
    """The bytes of a picture file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **given)
    return buffer.getvalue()


def turned():
    found = Image.Exif()
    found[274] = 6
    return found


ALL_FILES = {
    "rgb.png": held(COLOUR, "PNG"),
    "palette.png": held(COLOUR.convert("P"), "PNG", transparency=3),
    "deep.png": held(DEEP, "PNG"),
    "two-colours.png": held(COLOUR.convert("1"), "PNG"),
    "turned.png": held(COLOUR, "PNG", exif=turned()),
    "animated.png": held(COLOUR, "PNG", save_all=True, append_images=[COLOUR.rotate(9)]),
    "rgb.jpg": held(COLOUR, "JPEG"),
    "cmyk.jpg": held(COLOUR.convert("CMYK"), "JPEG"),
    "rgb.tif": held(COLOUR, "TIFF"),
    "cmyk.tif": held(COLOUR.convert("CMYK"), "TIFF"),
    "deep.tif": held(DEEP, "TIFF"),
    "floats.tif": held(COLOUR.convert("F"), "TIFF"),
    "rgb.bmp": held(COLOUR, "BMP"),
    "rgb.webp": held(COLOUR, "WEBP"),
}
REFUSED = {"animated.png": "holds 2 pages", "floats.tif": "floats from 0 to 1, or to be told what is white"}
READERS = {
    "memory": lambda folder, **given: read_images(folder, size=8, channels=1, **given).images,
    "stream": lambda folder, **given: stream_images(folder, size=8, channels=1, **given).scaled(),
}
each_reader = pytest.mark.parametrize("reader", READERS)


@each_reader
@pytest.mark.parametrize("name", ALL_FILES)
def test_every_kind_of_file_is_read_or_refused_by_name(reader, name, tmp_path):
    (tmp_path / name).write_bytes(ALL_FILES[name])
    if name in REFUSED:
        with pytest.raises(ValueError, match=f"(?=.*{re.escape(name)}).*{REFUSED[name]}"):
            READERS[reader](tmp_path)
    else:
        assert READERS[reader](tmp_path).shape == (1, 1, 8, 8)


def damaged(data, draw):
    data = bytearray(data)
    if draw.random() < 0.4:
        data = data[: draw.randrange(1, len(data))]
    for _ in range(draw.choice([0, 1, 2, 5, 30])):
        reach = min(len(data), draw.choice([40, 200, len(data)]))
        data[draw.randrange(reach)] = draw.choice([0, 1, 127, 255, draw.randrange(256)])
    return bytes(data)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, at damaged EXIF tags
def test_damaged_files_are_read_or_refused_by_name(tmp_path, capfd):
    """Whatever bytes are damaged: 12,000 such files were tried when this was written."""
    draw, read, said = random.Random(3), 0, []
    for _ in range(400):
        name = draw.choice(list(ALL_FILES))
        path = tmp_path / name
        path.write_bytes(damaged(ALL_FILES[name], draw))
        try:
            files.decode(path, cf.images.pixels.Conversion())
            read += 1
        except ValueError as error:
            said.append(str(path) in str(error))
    assert all(said)
    assert min(read, len(said)) > 50
    capfd.readouterr()  # decoders complain by themselves


def bomb(path, width, height):
    """A picture of few kilobytes for its pixels."""
    Image.new("1", (width, height)).save(path)


@each_reader
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_unpacked(reader, tmp_path, monkeypatch):
    bomb(tmp_path / "bomb.png", 17_000, 16_000)
    assert (tmp_path / "bomb.png").stat().st_size < 50_000
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: pytest.fail("it was unpacked"))
    with pytest.raises(UnreadableImageError, match=r"bomb.png \(it claims 17000 x 16000 pixels, more than max_pixels"):
        READERS[reader](tmp_path)


@each_reader
def test_more_pixels_can_be_asked_for(reader, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)  # in place of a picture that takes a second
    COLOUR.save(tmp_path / "large.png")
    assert len(READERS[reader](tmp_path, max_pixels=120)) == 1
    with pytest.raises(UnreadableImageError, match=r"10 x 12 pixels, more than max_pixels=119.*set `max_pixels`"):
        READERS[reader](tmp_path, max_pixels=119)
    assert Image.MAX_IMAGE_PIXELS == 20
    with pytest.raises(ValueError, match="Expected max_pixels >= 1"):
        READERS[reader](tmp_path, max_pixels=0)


def test_a_bomb_can_be_left_out(tmp_path):
    bomb(tmp_path / "bomb.png", 17_000, 16_000)
    COLOUR.save(tmp_path / "good.png")
    with pytest.warns(UserWarning, match=r"Left out 1 of 2 pictures: .*bomb.png"):
        assert len(read_images(tmp_path, size=8, skip_unreadable=True)) == 1


@each_reader
@pytest.mark.parametrize("chunk", ["zTXt", "iTXt", "iCCP"])
def test_a_bomb_in_a_text_of_a_png_is_refused(reader, chunk, tmp_path):
    text = "a" * (70 * 2**20)
    extra = PngImagePlugin.PngInfo()
    if chunk == "zTXt":
        extra.add_text("comment", text, zip=True)
    elif chunk == "iTXt":
        extra.add_itxt("comment", text, zip=True)
    profile = {"icc_profile": text.encode()} if chunk == "iCCP" else {}
    COLOUR.save(tmp_path / "text.png", pnginfo=extra, **profile)
    assert (tmp_path / "text.png").stat().st_size < 200_000
    with pytest.raises(UnreadableImageError, match=r"text.png \(Decompressed data too large"):
        READERS[reader](tmp_path)


def test_other_formats_are_not_opened_whatever_their_name(tmp_path):
    """PostScript, for one, would be handed to another program."""
    COLOUR.save(tmp_path / "drawing.eps")
    (tmp_path / "drawing.eps").rename(tmp_path / "drawing.png")
    with pytest.raises(UnreadableImageError, match=r"drawing.png \(cannot identify"):
        read_images(tmp_path)


def claiming(shape, dtype="|u1", data=b"\0" * 80):
    """An .npy file that claims a shape."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue() + data


def idx(shape, data):
    return bytes([0, 0, 8, len(shape)]) + np.array(shape, dtype=">u4").tobytes() + data


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as found:
        for name, data in members.items():
            found.writestr(name, data)
    return buffer.getvalue()


TERABYTE = (2**20, 1024, 1024)
HOSTILE_ARRAYS = {
    "a.npy": (claiming(TERABYTE), r"a.npy cannot be read.*it claims 1 TiB, of shape .* holds 80 bytes"),
    "objects.npy": (claiming((3,), "|O"), "objects.npy cannot be read.*holds Python objects"),
    "short.npy": (claiming((3, 8, 8)), "it claims 192 bytes, of shape .*, and holds 80 bytes"),
    "cut.npy": (claiming((3, 8, 8))[:20], "cut.npy cannot be read"),
    "text.npy": (b"hello", "text.npy cannot be read"),
    "a.npz": (zipped({"images.npy": claiming(TERABYTE)}), "a.npz cannot be read.*it claims 1 TiB"),
    "objects.npz": (zipped({"images.npy": claiming((3,), "|O")}), "objects.npz cannot be read.*Python objects"),
    "other.npz": (zipped({"x.npy": b"", "y.npy": b""}), "no array `images`"),
    "cut.npz": (zipped({"images.npy": claiming((3, 8, 8))})[:40], "cut.npz cannot be read"),
    "a.idx": (idx(TERABYTE, b"\0" * 80), r"a.idx claims 1 TiB once it is unpacked|Expected 1099511627776 bytes"),
    "a.gz": (gzip.compress(idx(TERABYTE, b"\0" * 80)), r"a.gz claims 1 TiB|Expected 1099511627776 bytes"),
    "more.gz": (
        gzip.compress(idx((3, 8, 8), b"\0" * 2**26)),
        "Expected 192 bytes of pixels in .*found more than 192",
    ),
    "cut.gz": (gzip.compress(idx((3, 8, 8), b"\0" * 192))[:30], "cut.gz cannot be unpacked"),
    "sides.idx": (bytes([0, 0, 8, 200]) + b"\0" * 40, "Expected .* bytes of pixels in"),
}


@pytest.mark.parametrize("name", HOSTILE_ARRAYS)
def test_arrays_that_claim_what_is_not_there_are_refused_at_once(name, tmp_path):
    data, words = HOSTILE_ARRAYS[name]
    (tmp_path / name).write_bytes(data)
    began = time.perf_counter()
    with pytest.raises(ValueError, match=words):
        read_images(tmp_path / name)
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("name", ["a.npz", "a.gz"])
def test_what_would_not_fit_into_memory_is_not_unpacked(name, tmp_path, monkeypatch):
    pixels = b"\0" * (30 * 64 * 64)
    data = zipped({"images.npy": claiming((30, 64, 64), data=pixels)})
    (tmp_path / name).write_bytes(data if name == "a.npz" else gzip.compress(idx((30, 64, 64), pixels)))
    assert len(read_images(tmp_path / name)) == 30
    monkeypatch.setattr(arrays, "usable_memory", lambda: 100_000.0)
    with pytest.raises(ValueError, match=r"claims 120 KiB once it is unpacked, of shape \(30, 64, 64\); there"):
        read_images(tmp_path / name)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["u1", ">u2", "<f8", "?"])
def test_arrays_come_back_as_numpy_writes_them(order, dtype, tmp_path):
    values = np.asarray(DRAW.integers(0, 2, (5, 6, 7)).astype(dtype), order=order)
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "b.npz", images=values, labels=np.arange(5))
    np.savez_compressed(tmp_path / "c.npz", values)
    for path in ("a.npy", "b.npz", "c.npz"):
        found, labels = arrays.read_arrays(tmp_path / path)
        assert found.dtype == values.dtype
        assert (found == values).all()
        assert (labels is not None) == (path == "b.npz")


def test_threads_share_a_budget_of_pixels():
    budget, lock, now, most = limits.PixelBudget(100), threading.Lock(), 0, 0

    def work(pixels):
        nonlocal now, most
        with budget.hold(pixels):
            with lock:
                now += min(pixels, 100)
                most = max(most, now)
            time.sleep(0.002)
            with lock:
                now -= min(pixels, 100)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, [30, 60, 5, 500] * 10))
    assert 60 <= most <= 100
    assert budget.left == 100


def test_the_budget_is_given_back_where_a_picture_fails():
    budget = limits.PixelBudget(10)
    with pytest.raises(KeyError), budget.hold(7):
        raise KeyError
    assert budget.left == 10


def test_pictures_are_decoded_within_the_budget(tmp_path, monkeypatch):
    for k in range(12):
        COLOUR.save(tmp_path / f"{k}.png")
    held_at_once = []

    class Watched(limits.PixelBudget):
        def hold(self, pixels):
            held_at_once.append(pixels)
            return super().hold(pixels)

    monkeypatch.setattr(files, "PixelBudget", Watched)
    read_images(tmp_path, size=8)
    assert held_at_once == [120] * 12


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Control groups of a container, which a test fills."""
    root = tmp_path / "cgroup"
    root.mkdir()
    monkeypatch.setattr(machine, "GROUPS", root)
    monkeypatch.setattr(machine, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 64, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)

    def fill(own, **settings):
        (tmp_path / "own").write_text(own)
        for name, text in settings.items():
            path = root / Path(name.replace("__", "/"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(path.name.replace("-", ".")).write_text(text)

    return fill


@pytest.mark.parametrize(
    ("own", "settings", "cores"),
    [
        ("0::/\n", {"cpu-max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu-max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu-max": "10000 100000\n"}, 1),
        ("0::/\n", {"cpu-max": "max 100000\n"}, 64),
        ("0::/\n", {"cpu-max": ""}, 64),
        ("0::/jobs/one\n", {"jobs__cpu-max": "400000 100000", "jobs__one__cpu-max": "max 100000"}, 4),
        ("0::/jobs/one\n", {"jobs__cpu-max": "400000 100000", "jobs__one__cpu-max": "300000 100000"}, 3),
        ("0::/elsewhere\n", {"cpu-max": "500000 100000\n"}, 5),
        ("3:cpu,cpuacct:/a\n", {"cpu,cpuacct__a__cpu-cfs_quota_us": "600000",
                                 "cpu,cpuacct__a__cpu-cfs_period_us": "100000"}, 6),
        ("3:cpu,cpuacct:/a\n", {"cpu,cpuacct__cpu-cfs_quota_us": "-1",
                                 "cpu,cpuacct__cpu-cfs_period_us": "100000"}, 64),
        ("", {}, 64),
    ],
)  # fmt: skip
def test_quotas_of_containers_are_respected(groups, own, settings, cores):
    groups(own, **settings)
    assert machine.usable_cores() == cores


def test_affinity_is_respected(groups, monkeypatch):
    groups("0::/\n", **{"cpu-max": "900000 100000\n"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5}, raising=False)
    assert machine.usable_cores() == 2


def test_machines_without_either_count_their_cores(groups, monkeypatch, tmp_path):
    monkeypatch.delattr(os, "sched_getaffinity")
    assert not (tmp_path / "own").exists()
    assert machine.usable_cores() == 64


def test_the_memory_of_a_container_counts(groups):
    groups("0::/a\n", **{"a__memory-max": "1048576\n", "memory-max": "max\n"})
    assert machine.usable_memory() == 2**20
    groups("5:memory:/b\n", **{"a__memory-max": "max", "memory__b__memory-limit_in_bytes": "2097152\n"})
    assert machine.usable_memory() == 2**21


def test_nothing_counts_the_cores_of_the_whole_machine():
    package = Path(cf.__file__).parent
    users = {path.name for path in package.rglob("*.py") if "cpu_count" in path.read_text()}
    assert users == {"machine.py"}
