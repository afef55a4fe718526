"""Sets of images and their batches: who is paired with whom, exact resume, and the sets to start with."""

import gzip
import hashlib
import io
import os
import struct
import sys
import tarfile
import threading
from collections import Counter
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.optimize import linear_sum_assignment
from torch import nn

import cellflow as cf
from cellflow.couplings.within import GroupPlan
from cellflow.datasets import download, images
from cellflow.datasets.public import PublicFile, sha256_of
from cellflow.images import ImageSet, read_images, scaled, stream_images
from cellflow.pairing import image_batches

requires_data = pytest.mark.skipif(not os.environ.get("CELLFLOW_DATA"), reason="needs the data sets in CELLFLOW_DATA")


def make(n, *, seed=0, classes=2, side=6, channels=1):
    """Random images, each with a pixel of its own: the first one is its number."""
    levels = torch.randint(256, (n, channels, side, side), generator=cf.generator(seed), dtype=torch.uint8)
    levels[:, :, 0, 0] = levels[:, :, 0, -1] = torch.arange(n, dtype=torch.uint8)[:, None]
    return ImageSet(levels, torch.arange(n) % classes, tuple(f"{k}.png" for k in range(n)))


def numbers(x):
    """Which image each row of a batch is."""
    return ((x[:, 0, 0, 0] + 1) * 127.5).round().long()


SOURCE, TARGET = make(24, seed=1), make(24, seed=2)


# --- sets --------------------------------------------------------------------------------------------------------


def test_take_only_split_to(rng):
    some = make(10, classes=3)
    assert some.take([7, 2]).names == ("7.png", "2.png")
    assert numbers(some.only("1").scaled()).tolist() == [1, 4, 7]
    assert some.only("1", "2").labels.tolist() == [1, 2, 1, 2, 1, 2]
    assert some.only("2").classes == ("0", "1", "2")
    first, second = some.split(0.3, generator=rng)
    assert (len(first), len(second)) == (3, 7)
    assert sorted([*first.names, *second.names]) == sorted(some.names)
    assert some.to("cpu").images.data_ptr() == some.images.data_ptr()
    assert torch.equal(some.one_hot(torch.tensor([4])), torch.tensor([[0.0, 1.0, 0.0]]))


def test_split_is_seeded(global_state_is_untouched):
    splits = [SOURCE.split(0.5, generator=cf.generator(seed))[0].names for seed in (3, 3, 4)]
    assert splits[0] == splits[1] != splits[2]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda s: replace(s, labels=torch.zeros(3)), "whole numbers from 0"),
        (lambda s: replace(s, labels=torch.zeros(3, dtype=torch.long)), "each of 24 images"),
        (lambda s: replace(s, labels=s.labels - 1), "whole numbers from 0"),
        (lambda s: replace(s, labels=s.labels + 5), "below the number of classes, 2; found 6"),
        (lambda s: replace(s, names=("a",)), "a name for each of 24 images; found 1"),
        (lambda s: s.only("7"), "Unknown class '7'. Choose from: '0', '1'"),
        (lambda s: ImageSet(s.images).only("1"), "Unknown class"),
        (lambda s: ImageSet(s.images).one_hot(), "no labels"),
        (lambda s: s.split(0.0, generator=cf.generator()), "both parts"),
        (lambda s: read_images(s, labels=[[1]]), r"labels \(n,\)"),
        (lambda s: read_images(np.zeros((2, 8, 8)), labels="folder"), "found an array"),
        (lambda s: read_images(s, labels="folder"), "found 24 outside, such as 0.png"),
    ],
)
def test_sets_refuse(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong(SOURCE)


def test_a_set_can_be_read_again():
    small = read_images(SOURCE, size=3, channels=3, labels=["x"] * 24)
    assert small.shape == (3, 3, 3)
    assert (small.classes, small.names) == (("x",), SOURCE.names)


# --- pairs -------------------------------------------------------------------------------------------------------

COSTS = (SOURCE.scaled().flatten(1)[:, None] - TARGET.scaled().flatten(1)).square().sum(2).double()


def pairs_of(batches, steps=64):
    """Who was paired with whom; pairs are drawn evenly over 64 steps at a time."""
    found = list(islice(batches, steps))
    return torch.cat([numbers(b.x0) for b in found]), torch.cat([numbers(b.x1) for b in found])


def test_pixels_are_matched_optimally(rng):
    found = Counter(
        zip(
            *(side.tolist() for side in pairs_of(image_batches(SOURCE, TARGET, batch_size=3, generator=rng))),
            strict=True,
        )
    )
    rows, columns = linear_sum_assignment(COSTS)
    assert found == dict.fromkeys(zip(rows, columns, strict=True), 8)  # all equally often


@pytest.mark.parametrize("way", ["components", "function", "arrays", "tensors"])
def test_features_decide_who_is_matched(way, rng):
    from sklearn.decomposition import PCA

    pixels = [side.scaled().flatten(1).numpy() for side in (SOURCE, TARGET)]
    if way == "components":
        fitted = PCA(3, svd_solver="full").fit(np.concatenate(pixels))
        found, given = [fitted.transform(side) for side in pixels], 3
    else:
        found = [side[:, 7:9] for side in pixels]
        given = {
            "function": lambda x: x.flatten(1)[:, 7:9],
            "arrays": tuple(found),
            "tensors": tuple(map(torch.as_tensor, found)),
        }[way]
    batches = image_batches(SOURCE, TARGET, features=given, batch_size=24, generator=rng)
    costs = ((found[0][:, None] - found[1]) ** 2).sum(2)
    i, j = pairs_of(batches)
    optimal = costs[linear_sum_assignment(costs)].sum()
    assert costs[i, j].sum() / 64 == pytest.approx(optimal, rel=1e-4)
    assert costs[linear_sum_assignment(COSTS)].sum() > 1.05 * optimal  # pixels would have matched others


@pytest.mark.parametrize("ot_batch_size", ["auto", "whole", 8])
@pytest.mark.parametrize("coupling", ["exact", "independent", cf.couplings.Sinkhorn(epsilon=5.0), "given"], ids=str)
def test_every_coupling_gives_pairs_of_the_sets(coupling, ot_batch_size, rng, global_state_is_untouched):
    batches = image_batches(SOURCE, TARGET, coupling=coupling, batch_size=6, generator=rng, ot_batch_size=ot_batch_size)
    for batch in islice(batches, 4):
        assert batch.x0.shape == batch.x1.shape == (6, 1, 6, 6)
        assert torch.equal(batch.x0, SOURCE.scaled(numbers(batch.x0)))
        assert torch.equal(batch.x1, TARGET.scaled(numbers(batch.x1)))
        assert batch.condition is None
    assert (batches.plans == [None]) == (ot_batch_size == 8 and coupling != "given")


@pytest.mark.parametrize(
    ("settings", "whole"),
    [({}, False), ({"features": 2}, True), ({"coupling": "independent"}, True), ({"ot_batch_size": "whole"}, True)],
)
def test_pixels_that_fill_the_memory_are_matched_in_parts(settings, whole, rng, monkeypatch):
    module = sys.modules["cellflow.pairing.choice"]
    monkeypatch.setattr(module, "READ_LIMIT", 1000)
    batches = image_batches(SOURCE, TARGET, batch_size=4, generator=rng, **settings)
    assert (batches.plans != [None]) == whole
    next(iter(batches))
    monkeypatch.setattr(module, "WHOLE_PAIRS", 300)  # 24 x 24 pairs, 2 x 12 x 12 within classes
    monkeypatch.setattr(module, "READ_LIMIT", 10**9)
    settings = {"coupling": cf.couplings.Exact(cf.couplings.Euclidean()), "generator": rng}
    within = [image_batches(SOURCE, TARGET, within_labels=w, **settings).plans != [None] for w in (False, True)]
    assert within == [False, True]


def test_given_pairs_stay_together(rng):
    i, j = pairs_of(image_batches(SOURCE, TARGET, coupling="given", batch_size=8, generator=rng))
    assert torch.equal(i, j)


@pytest.mark.parametrize("ot_batch_size", ["auto", 12])
@pytest.mark.parametrize("coupling", ["exact", "independent"])
def test_classes_stay_together(coupling, ot_batch_size, rng):
    source, target = make(30, seed=1, classes=3), make(40, seed=2, classes=3).take(range(33))
    target = replace(target, labels=torch.tensor([0] * 20 + [1] * 10 + [2] * 3))
    batches = image_batches(
        source, target, coupling=coupling, within_labels=True, batch_size=11, generator=rng, ot_batch_size=ot_batch_size
    )
    i, j = pairs_of(batches, 64 if ot_batch_size == "auto" else 1200)
    assert torch.equal(source.labels[i], target.labels[j])
    shares = torch.bincount(target.labels[j]) / len(j)
    np.testing.assert_allclose(shares, [20 / 33, 10 / 33, 3 / 33], atol=0.001 if ot_batch_size == "auto" else 0.05)
    assert set(i.tolist()) == set(range(30))
    assert set(j.tolist()) == set(range(33))


def test_within_classes_the_matching_is_optimal(rng):
    batches = image_batches(SOURCE, TARGET, within_labels=True, batch_size=24, generator=rng)
    i, j = pairs_of(batches)
    expected = {}
    for label in (0, 1):
        rows, columns = ((side.labels == label).nonzero().squeeze(1) for side in (SOURCE, TARGET))
        a, b = linear_sum_assignment(COSTS[rows][:, columns])
        expected |= dict(zip(rows[a].tolist(), columns[b].tolist(), strict=True))
    assert Counter(zip(i.tolist(), j.tolist(), strict=True)) == dict.fromkeys(expected.items(), 64)
    assert batches.plans[0].permutation.tolist() == [expected[k] for k in range(24)]


@pytest.fixture
def group_plan(rng):
    x0, x1 = torch.randn(5, 2, generator=rng), torch.randn(6, 2, generator=rng)
    left, right = torch.tensor([0, 2, 4]), torch.tensor([1, 3])
    above, below = torch.tensor([0, 5]), torch.tensor([1, 2, 3, 4])
    exact, loose = cf.couplings.Exact(), cf.couplings.Independent()
    return GroupPlan(
        [(left, above, 1 / 3, exact(x0[left], x1[above])), (right, below, 2 / 3, loose(x0[right], x1[below]))],
        shape=(5, 6),
    )


def test_a_plan_of_blocks_is_its_dense_self(group_plan, rng):
    dense = group_plan.dense()
    assert dense.sum() == pytest.approx(1)
    assert (dense[0, 1], dense[1, 0]) == (0, 0)
    assert torch.allclose(group_plan.marginals()[0], dense.sum(1))
    assert torch.allclose(group_plan.marginals()[1], dense.sum(0))
    same = cf.couplings.DensePlan(dense)
    values = torch.randn(5, 3, generator=rng)
    assert torch.allclose(group_plan.push(values), same.push(values), atol=1e-6)
    values = torch.randn(6, generator=rng)
    assert torch.allclose(group_plan.pull(values), same.pull(values), atol=1e-6)
    assert group_plan.permutation is None
    assert repr(group_plan) == "GroupPlan(5 x 6, mass 1, 2 groups)"


@pytest.mark.parametrize("with_replacement", [True, False])
def test_a_plan_of_blocks_draws_by_mass(group_plan, with_replacement, rng):
    i, j = group_plan.sample(60_000, generator=rng, replace=with_replacement)
    found = torch.zeros(5, 6, dtype=torch.double).index_put_((i, j), torch.tensor(1 / 60_000).double(), accumulate=True)
    np.testing.assert_allclose(found, group_plan.dense(), atol=0.005)


def test_a_plan_needs_a_class():
    with pytest.raises(ValueError, match="none in common"):
        GroupPlan([], shape=(1, 1))


# --- noise -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coupling", ["independent", "exact"])
def test_noise_is_normal_fresh_and_every_image_comes_as_often(coupling, rng, global_state_is_untouched):
    batches = image_batches(None, TARGET, coupling=coupling, batch_size=8, generator=rng, ot_batch_size=24)
    found = list(islice(batches, 192))
    noise = torch.cat([batch.x0 for batch in found])
    assert len(noise.unique()) > 0.99 * noise.numel()
    assert abs(noise.mean()) < 0.01
    assert abs(noise.var() - 1) < 0.02
    counts = torch.bincount(torch.cat([numbers(batch.x1) for batch in found]))
    assert counts.min() >= 62
    assert counts.max() <= 66
    assert batches.plans == [None]


def test_noise_is_matched_within_some_batches(rng):
    alone = next(iter(image_batches(None, TARGET, batch_size=8, generator=rng)))
    costs = torch.cdist(alone.x0.flatten(1).double(), alone.x1.flatten(1).double()) ** 2
    assert costs.trace() == pytest.approx(costs[linear_sum_assignment(costs)].sum().item())
    cost = {}
    for coupling in ("independent", "exact"):
        batches = image_batches(None, TARGET, coupling=coupling, batch_size=8, generator=rng, ot_batch_size=24)
        cost[coupling] = torch.cat([(b.x1 - b.x0).flatten(1).square().sum(1) for b in islice(batches, 60)]).mean()
    assert cost["exact"] < 0.95 * cost["independent"]
    three = list(islice(image_batches(None, TARGET, batch_size=8, generator=rng, ot_batch_size=24), 3))
    x0, x1 = (torch.cat([getattr(batch, side) for batch in three]).flatten(1) for side in ("x0", "x1"))
    costs = torch.cdist(x0.double(), x1.double()) ** 2
    assert costs.trace() == pytest.approx(costs[linear_sum_assignment(costs)].sum().item())


# --- the same batches again --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    found = []
    for side, some in (("source", SOURCE), ("target", TARGET)):
        folder = tmp_path_factory.mktemp(side)
        for number, image in enumerate(some.images):
            Image.fromarray(image[0].numpy()).save(folder / f"{number:03d}.png")
        found.append(folder)
    return found


def streams(folders):
    return [stream_images(folder, size=6, channels=1, labels=SOURCE.labels.tolist()) for folder in folders]


SETTINGS = {
    "whole": {},
    "parts": {"ot_batch_size": 8},
    "components": {"features": 4},
    "classes": {"within_labels": True, "condition": "labels"},
    "flip": {"flip": True},
    "noise": {"noise": True, "coupling": "independent", "condition": "labels", "flip": True},
    "matched noise": {"noise": True, "ot_batch_size": 20, "flip": True},
}


def built(settings, source=SOURCE, target=TARGET):
    settings = dict(settings)
    source = None if settings.pop("noise", False) else source
    return image_batches(source, target, batch_size=5, generator=cf.generator(seed=7), **settings)


def same(a, b):
    return all((p is None and q is None) or torch.equal(p, q) for p, q in zip(a, b, strict=True))


@pytest.mark.parametrize("stream", [False, True], ids=["memory", "files"])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_resume_and_streaming_change_nothing(settings, stream, folders):
    expected = list(islice(built(settings), 30))
    batches = built(settings, *(streams(folders) if stream else (SOURCE, TARGET)))
    for start in (0, 1, 7, 29):
        assert same(next(batches.iterate(start)), expected[start])
    assert all(same(a, b) for a, b in zip(batches, expected, strict=False))
    assert not same(expected[0], expected[1])


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_iterators_leave_no_threads(settings):
    before = threading.active_count()
    stream = iter(built(settings))
    next(stream)
    stream.close()
    del stream
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(timeout=5)
    assert threading.active_count() <= before


def test_pairs_are_mirrored_together(rng):
    plain, flipped = (
        list(islice(image_batches(SOURCE, TARGET, batch_size=8, flip=flip, generator=cf.generator(seed=3)), 12))
        for flip in (False, True)
    )
    mirrored = []
    for a, b in zip(plain, flipped, strict=True):
        for x0, x1, y0, y1 in zip(a.x0, a.x1, b.x0, b.x1, strict=True):
            mirrored.append(not torch.equal(x0, y0))
            turned = (x0.flip(-1), x1.flip(-1)) if mirrored[-1] else (x0, x1)
            assert torch.equal(y0, turned[0])
            assert torch.equal(y1, turned[1])
    assert 0.3 < np.mean(mirrored) < 0.7


def test_conditions_belong_to_the_target(rng):
    asked = torch.arange(24.0)[:, None] * torch.tensor([1.0, -1.0])
    for source in (None, SOURCE):
        batch = next(iter(image_batches(source, TARGET, batch_size=9, condition=asked, generator=rng)))
        assert torch.equal(batch.condition, asked[numbers(batch.x1)])
        batch = next(iter(image_batches(source, TARGET, batch_size=9, condition="labels", generator=rng)))
        assert torch.equal(batch.condition.argmax(1), TARGET.labels[numbers(batch.x1)])
        assert batch.condition.shape == (9, 2)


class Convolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, t, x, condition=None):
        return self.layer(x)


def test_training_in_two_sittings_is_training_in_one(tmp_path):
    weights = []
    for sittings in ((6,), (2, 6)):
        torch.manual_seed(0)
        field = Convolution()
        for until in sittings:
            cf.training.fit(
                field, cf.objectives.VelocityMatching(), built(SETTINGS["flip"]), steps=6, until=until,
                generator=cf.generator(seed=1), run=cf.Run(tmp_path / str(len(sittings)), resume=until != sittings[0]),
            )  # fmt: skip
        weights.append(field.layer.weight.detach())
    assert torch.equal(*weights)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"source": SOURCE.take([0])}, "two source images; found 1"),
        ({"target": TARGET.take([0])}, "two target images; found 1"),
        ({"source": TARGET}, "the same images"),
        ({"source": replace(TARGET, images=TARGET.images.clone())}, "the same images"),
        ({"source": make(24, side=8)}, r"1 x 8 x 8 and 1 x 6 x 6.*same `size`"),
        ({"source": make(24, channels=3)}, "3 x 6 x 6"),
        ({"batch_size": 0}, "batch_size"),
        ({"coupling": "exakt"}, "Unknown coupling"),
        ({"condition": "class"}, "condition='labels'"),
        ({"condition": torch.zeros(24)}, r"found shape \(24,\)"),
        ({"condition": torch.zeros(23, 2)}, r"each of 24 target images"),
        ({"condition": "labels", "target": ImageSet(TARGET.images)}, "no labels"),
        ({"within_labels": True, "source": ImageSet(SOURCE.images)}, "labels on both sides"),
        ({"within_labels": True, "source": make(24, classes=3)}, "same classes"),
        ({"within_labels": True, "source": SOURCE.only("1")}, r"\['0'\] are on one side only"),
        ({"features": 0}, "principal components"),
        ({"features": 37}, "between 1 and 36 principal components of 48 images"),
        ({"features": (np.zeros((3, 2)), np.zeros((24, 2)))}, "each of 24 source images; found 3"),
        ({"features": 3, "coupling": "independent"}, "does not use images"),
        ({"source": None, "features": 3}, "Noise has no features"),
        ({"source": None, "within_labels": True}, "Noise has no features"),
        ({"source": None, "ot_batch_size": "whole"}, "match with noise"),
    ],
)
def test_batches_refuse(wrong, message, rng):
    settings = {"source": SOURCE, "target": TARGET, "batch_size": 4, "generator": rng, **wrong}
    with pytest.raises(ValueError, match=message):
        image_batches(settings.pop("source"), settings.pop("target"), **settings)


def test_the_same_folder_twice_is_refused(folders, rng, monkeypatch):
    first, again = (streams([folders[0]])[0] for _ in range(2))
    with pytest.raises(ValueError, match="the same images"):
        image_batches(first, again, generator=rng)
    monkeypatch.chdir(folders[0])
    elsewhere = streams(["."])[0]
    with pytest.raises(ValueError, match="the same images"):
        image_batches(first, elsewhere, generator=rng)
    image_batches(*streams(folders), generator=rng)  # the same names, and other images


def test_files_are_not_all_read_into_memory_for_one_plan(folders, rng, monkeypatch):
    module = sys.modules["cellflow.pairing.choice"]
    monkeypatch.setattr(module, "READ_LIMIT", 48 * 36 - 1)
    sides = streams(folders)
    with pytest.raises(ValueError, match=r"hold their 1,728 pixels in memory.*features=50"):
        image_batches(*sides, ot_batch_size="whole", generator=rng)
    for settings in ({"features": 4}, {"coupling": "independent"}):
        assert image_batches(*sides, ot_batch_size="whole", generator=rng, **settings).plans != [None]
    assert image_batches(*sides, batch_size=4, generator=rng).plans == [None]
    monkeypatch.setattr(module, "READ_LIMIT", 48 * 36)
    assert image_batches(*sides, ot_batch_size="whole", generator=rng).plans != [None]


def test_components_are_fitted_to_no_more_pixels_than_memory_has(rng, monkeypatch):
    module = sys.modules["cellflow.pairing.features"]
    asked = []
    monkeypatch.setattr(ImageSet, "scaled", lambda self, rows: asked.append(len(rows)) or scaled(self.images[rows]))
    monkeypatch.setattr(module, "_FITTED_PIXELS", 8 * 36)
    image_batches(SOURCE, TARGET, features=4, generator=rng)
    assert asked[:2] == [8, 8]
    assert sum(asked[2:]) == 48  # then all are projected


# --- data sets ---------------------------------------------------------------------------------------------------


def test_cell_silhouettes():
    cells = cf.datasets.cell_silhouettes()
    assert cells.shape == (1, 64, 64)
    assert {name: len(cells.only(name)) for name in cells.classes} == {"control": 318, "cytd": 175, "jasp": 157}
    assert Counter(name.split("-")[0] for name in cells.names) == {"dunn": 392, "dlm8": 258}
    area = {name: (cells.only(name).images > 127).double().mean().item() for name in cells.classes}
    assert area["cytd"] > 2 * area["control"]  # spread out, as published
    assert area == pytest.approx({"control": 0.035, "cytd": 0.088, "jasp": 0.047}, abs=0.002)


def test_digits():
    digits = cf.datasets.digits()
    assert torch.bincount(digits.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert (digits.images.min(), digits.images.max()) == (0, 255)


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A web server that holds ``files`` and counts in ``asked``; the folders of data are empty ones."""
    files, asked = {}, Counter()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked[self.path] += 1
            self.send_response(200 if self.path in files else 404)
            content = files.get(self.path, b"")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("CELLFLOW_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CELLFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "TIMEOUT", 5.0)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield files, asked, f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


IMAGES = np.arange(2 * 9, dtype=np.uint8).reshape(2, 3, 3)
LABELS = np.array([7, 3], np.uint8)


@pytest.fixture
def small_mnist(server, monkeypatch):
    files, asked, address = server
    parts = []
    for name, array in (("images", IMAGES), ("labels", LABELS)):
        files[f"/{name}.gz"] = gzip.compress(idx(array))
        parts.append(PublicFile(f"mnist/{name}.gz", hashlib.sha256(idx(array)).hexdigest(), f"{address}/{name}.gz"))
    monkeypatch.setitem(images.MNIST, "train", tuple(parts))
    return files, asked


def test_download_then_cache(small_mnist, tmp_path):
    for _ in range(2):
        found = cf.datasets.mnist()
        np.testing.assert_array_equal(found.images[:, 0].numpy(), IMAGES)
        assert found.labels.tolist() == [7, 3]
        assert len(found.classes) == 10
    assert small_mnist[1] == {"/images.gz": 1, "/labels.gz": 1}
    assert sorted(path.name for path in (tmp_path / "cache").rglob("*.*")) == ["images.gz", "labels.gz"]


@pytest.mark.parametrize("place", ["data/images", "data", "cache"])
def test_files_of_ones_own_come_first_however_packed(small_mnist, tmp_path, place):
    (tmp_path / place / "mnist").mkdir(parents=True)
    for name, array in (("images", IMAGES), ("labels", LABELS)):
        (tmp_path / place / "mnist" / f"{name}.gz").write_bytes(gzip.compress(idx(array), compresslevel=1, mtime=5))
    assert cf.datasets.mnist().labels.tolist() == [7, 3]
    assert not small_mnist[1]


@pytest.mark.parametrize(
    "content",
    [b"<html>Sign in</html>", gzip.compress(b"other", mtime=0), gzip.compress(idx(IMAGES), mtime=0)[:-9]],
    ids=["a page", "other bytes", "cut off"],
)
def test_wrong_files_are_refused_and_not_kept(small_mnist, tmp_path, content):
    small_mnist[0]["/images.gz"] = content
    with pytest.raises(ValueError, match="is not the published mnist/images.gz: expected SHA-256"):
        cf.datasets.mnist()
    assert not list((tmp_path / "cache").rglob("*.gz"))
    (tmp_path / "data" / "mnist").mkdir(parents=True)
    (tmp_path / "data" / "mnist" / "images.gz").write_bytes(content)
    with pytest.raises(ValueError, match="data/mnist/images.gz is not the published"):
        cf.datasets.mnist()


def test_a_server_without_the_file(small_mnist, tmp_path):
    small_mnist[0].clear()
    with pytest.raises(FileNotFoundError) as caught:
        cf.datasets.mnist()
    message = str(caught.value)
    assert all(part in message for part in ("404", "127.0.0.1", str(tmp_path / "cache" / "mnist" / "images.gz")))


def test_official_cifar10(server, monkeypatch):
    files, _, address = server
    records = torch.randint(256, (2, 3073), generator=cf.generator(seed=0), dtype=torch.uint8)
    records[:, 0] = torch.tensor([9, 4])
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name in [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]:
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            info.size = records.numel()
            tar.addfile(info, io.BytesIO(records.numpy().tobytes()))
    files["/c.tar.gz"] = archive.getvalue()
    file = PublicFile("c.tar.gz", hashlib.sha256(archive.getvalue()).hexdigest(), f"{address}/c.tar.gz")
    monkeypatch.setattr(images, "CIFAR10", file)
    test, train = (cf.datasets.cifar10(split) for split in ("test", "train"))
    assert (len(test), len(train)) == (2, 10)
    assert test.labels.tolist() == [9, 4]
    assert torch.equal(test.images[1, 2, 5, 7], records[1, 1 + 2 * 1024 + 5 * 32 + 7])
    assert "JPEG" not in test.source


def test_without_an_address_the_message_says_where_to_put_it(server):
    with pytest.raises(FileNotFoundError, match="no address is known"):
        cf.datasets.nuclei()
    with pytest.raises(FileNotFoundError, match=r"cifar10_jpeg/cifar10_test_jpeg\.npz is not on this machine"):
        cf.datasets.cifar10("test", jpeg=True)
    with pytest.raises(FileNotFoundError, match=r"bbbc013_wortmannin_64\.npz is not on this machine"):
        cf.datasets.wortmannin()


@pytest.mark.parametrize(
    "load", [cf.datasets.mnist, cf.datasets.fashion_mnist, cf.datasets.cifar10, cf.datasets.wortmannin]
)
def test_splits_are_known(load):
    with pytest.raises(ValueError, match="Unknown split 'validation'"):
        load("validation")
    with pytest.raises(ValueError, match="Unknown kind of nuclei"):
        cf.datasets.nuclei("electron")


@requires_data
def test_mnist():
    for split, n in (("train", 60_000), ("test", 10_000)):
        found = cf.datasets.mnist(split)
        assert len(found) == n
    assert torch.bincount(cf.datasets.mnist().labels)[:2].tolist() == [5923, 6742]
    pixels = cf.datasets.mnist().images.double() / 255
    assert (pixels.mean().item(), pixels.std().item()) == pytest.approx((0.1307, 0.3081), abs=1e-4)


@requires_data
def test_fashion_mnist():
    found = cf.datasets.fashion_mnist("test")
    assert torch.bincount(found.labels).tolist() == [1000] * 10
    assert found.classes[9] == "ankle boot"


@requires_data
def test_cells_under_wortmannin_are_split_by_well():
    train, test = (cf.datasets.wortmannin(split) for split in ("train", "test"))
    assert [len(train.only(name)) for name in train.classes] == [302, 184]
    assert [len(test.only(name)) for name in ("control", "wortmannin")] == [149, 159]
    assert train.shape == (2, 64, 64)
    assert set(train.obs["well"]) == {"A01", "A12"}
    assert (train.obs["treatment"].to_numpy() == [train.classes[k] for k in train.labels]).all()
    assert train.names[0].startswith(train.obs["well"].iloc[0])
    assert (test.obs["dose_nM"] > 0).sum() == 159


@requires_data
def test_the_jpeg_copy_says_what_it_is():
    found = cf.datasets.cifar10("test", jpeg=True)
    assert "not the official archive" in repr(found)
    assert torch.bincount(found.labels).tolist() == [1000] * 10
    assert found.shape == (3, 32, 32)


@requires_data
def test_nuclei():
    for kind, channels, sizes in (("fluorescence", 1, (8769, 2252)), ("histology", 3, (1934, 400))):
        train, test = (cf.datasets.nuclei(kind, split) for split in ("train", "test"))
        assert (len(train), len(test)) == sizes
        assert train.shape == (channels, 32, 32)
        assert not set(train.names) & set(test.names)  # split by microscope image
        masks = cf.datasets.nuclei(kind, "test", masks=True)
        assert masks.names == test.names
        # The mask is of this very nucleus: brightness differs inside and outside, image by image.
        inside = masks.scaled() > 0
        grey = test.scaled().mean(1, keepdim=True)
        differs = (grey * inside).sum((1, 2, 3)) / inside.sum((1, 2, 3)) - (grey * ~inside).sum((1, 2, 3)) / (
            ~inside
        ).sum((1, 2, 3))
        assert ((differs > 0) if kind == "fluorescence" else (differs < 0)).double().mean() > 0.95


def test_checksums(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"abc")
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"abc"))
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(tmp_path / "a.bin") == sha256_of(tmp_path / "b.gz") == expected


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_channels_of_their_own_stay_when_a_set_is_brought_to_another_size(channels):
    levels = 40 * torch.arange(1, channels + 1, dtype=torch.uint8)[None, :, None, None]
    images = cf.images.ImageSet(levels.expand(3, -1, 16, 16).contiguous())
    for asked in (None, channels):
        small = cf.images.read_images(images, size=8, channels=asked)
        assert torch.equal(small.images, levels.expand(3, -1, 8, 8))
