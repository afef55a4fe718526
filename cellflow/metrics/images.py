"""Distances between two sets of images, by their features: see `features_of`.

Features are ``(n, d)`` and ``(m, d)``; everything is computed in float64. No score here depends on which output belongs
to which input: report one of `cellflow.metrics.preservation` beside it.
"""

import hashlib
import threading
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cellflow.couplings.problem import check_clouds
from cellflow.files import path_of
from cellflow.metrics.features import TrainedNetwork, features_of
from cellflow.renamed import warn
from cellflow.signature import checked

_ROWS = 1024  # of distances held at once


class FeatureDistance(NamedTuple):
    """A Fréchet distance, and what it depends on.

    Parameters
    ----------
    name
        Name of the distance, which includes the network.
    value
        The distance.
    sha256
        SHA-256 of the weights of the network.
    n, n_reference
        Numbers of images. The distance falls with both: compare only at equal numbers.
    """

    name: str
    value: float
    sha256: str
    n: int
    n_reference: int


class KernelDistance(NamedTuple):
    """A kernel distance, averaged over random subsets.

    Parameters
    ----------
    mean
        Mean over the subsets; about 0 for two samples of the same distribution, negative by chance.
    sd
        Standard deviation over the subsets.
    """

    mean: float
    sd: float


class Neighbours(NamedTuple):
    """Precision, recall, density and coverage of generated images.

    Parameters
    ----------
    precision
        Share of generated images that lie within the balls around real images.
    recall
        Share of real images that lie within the balls around generated images.
    density
        Mean number of balls around real images that hold a generated image, over k; about 1 for two samples of the same
        distribution.
    coverage
        Share of real images with a generated image within their ball.
    """

    precision: float
    recall: float
    density: float
    coverage: float


@checked
def feature_distance(images: Tensor, reference: Tensor, network: TrainedNetwork) -> FeatureDistance:
    """Return the Fréchet distance between images in the features of a shipped network, called ``FD-<network>``.

    Parameters
    ----------
    images, reference
        Images ``(n, c, h, w)`` and ``(m, c, h, w)`` from -1 to 1.
    network
        From `feature_network`.

    Examples
    --------
    >>> import cellflow as cf
    >>> cells = cf.datasets.cell_silhouettes()
    >>> control, treated = (cells.only(name).scaled() for name in ("control", "cytd"))
    >>> feature_distance(control, treated, cf.metrics.feature_network("silhouettes")).name
    'FD-silhouettes'
    """
    x, y = (features_of(side, network) for side in (images, reference))
    return FeatureDistance(f"FD-{network.name}", frechet_distance(x, y), network.sha256, len(x), len(y))


@checked
def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Return the squared 2-Wasserstein distance between the Gaussians with the means and covariances of two clouds.

    Source
    ------
    Heusel et al. 2017, equation 6; Dowson and Landau 1982.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[0.0, 0.0], [2.0, 2.0], [2.0, 0.0]])
    >>> round(frechet_distance(x, x + torch.tensor([3.0, 4.0])), 6)
    25.0
    """
    x, y = _clouds(x, y, least=2)
    spread = _crossed_traces(x, y) if max(len(x), len(y)) < x.shape[1] else _crossed_roots(x, y)
    # Rounding leaves a trace of either sign between equal clouds.
    return max(0.0, float((x.mean(0) - y.mean(0)).square().sum() + spread))


@checked
def kernel_distance(
    x: Tensor, y: Tensor, *, generator: torch.Generator, subset_size: int = 100, subsets: int = 100
) -> KernelDistance:
    """Return the squared maximum mean discrepancy under ``(x y / d + 1)^3``, unbiased, over random subsets (KID).

    Parameters
    ----------
    x, y
        Features ``(n, d)`` and ``(m, d)``.
    generator
        Draws the subsets.
    subset_size
        Points of each set in a subset, drawn without replacement.
    subsets
        Number of subsets.

    Source
    ------
    Bińkowski et al. 2018, equation 4.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> x = torch.randn(200, 3, generator=cf.generator(seed=0))
    >>> kernel_distance(x, x + 1, generator=cf.generator(seed=0)).mean > 1
    True
    """
    x, y = _clouds(x, y, least=2)
    if not 2 <= subset_size <= min(len(x), len(y)) or subsets < 1:
        raise ValueError(
            f"Expected subsets >= 1, and subset_size from 2 to {min(len(x), len(y))}, the points of the smaller set; "
            f"found {subsets} and {subset_size}."
        )
    found = torch.stack(
        [_discrepancy(*(_subset(side, subset_size, generator) for side in (x, y))) for _ in range(subsets)]
    )
    return KernelDistance(float(found.mean()), float(found.std()) if subsets > 1 else 0.0)


@checked
def neighbours(generated: Tensor, real: Tensor, *, k: int = 5) -> Neighbours:
    """Return precision, recall, density and coverage of generated images, by nearest neighbours.

    The ball around a point reaches to its k-th nearest neighbour in its own set.

    Parameters
    ----------
    generated, real
        Features ``(n, d)`` and ``(m, d)``.
    k
        Number of neighbours.

    Source
    ------
    Kynkäänniemi et al. 2019, equation 1; Naeem et al. 2020, equations 3 and 5.

    Examples
    --------
    >>> import torch, cellflow as cf
    >>> real = torch.randn(100, 2, generator=cf.generator(seed=0))
    >>> neighbours(real, real)[:2], neighbours(real + 100, real)
    ((1.0, 1.0), Neighbours(precision=0.0, recall=0.0, density=0.0, coverage=0.0))
    """
    generated, real = _clouds(generated, real, least=k + 1)
    if k < 1:
        raise ValueError(f"Expected k >= 1; found {k}.")
    of_generated, of_real = _radii(generated, k), _radii(real, k)
    counts = torch.zeros(len(generated), dtype=torch.float32, device=real.device)
    recalled, covered = [], []
    for some, radii in zip(real.split(_ROWS), of_real.split(_ROWS), strict=True):
        distances = torch.cdist(some, generated, compute_mode="donot_use_mm_for_euclid_dist")
        inside = distances <= radii[:, None]
        counts += inside.sum(0)
        covered.append(inside.any(1))
        recalled.append((distances <= of_generated).any(1))
    within = [counts > 0, torch.cat(recalled), counts / k, torch.cat(covered)]
    return Neighbours(*(float(share.double().mean()) for share in within))


def _clouds(x: Tensor, y: Tensor, *, least: int) -> tuple[Tensor, Tensor]:
    check_clouds(x, y)
    if x.ndim != 2:
        raise ValueError(f"Expected features (n, d); found shape {tuple(x.shape)}. `features_of` makes them.")
    if min(len(x), len(y)) < least:
        raise ValueError(f"Expected at least {least} points on each side; found {len(x)} and {len(y)}.")
    return x.detach().double(), y.detach().double()


def _crossed_roots(x: Tensor, y: Tensor) -> Tensor:
    """Return the trace of A + B - 2 (A B)^(1/2) of the covariances A and B of two clouds."""
    # The root of A B has the trace of the root of the symmetric A^(1/2) B A^(1/2), which has no imaginary part.
    values, vectors = torch.linalg.eigh(torch.cov(x.T).reshape(x.shape[1], -1))
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    covariance = torch.cov(y.T).reshape(y.shape[1], -1)
    crossed = torch.linalg.eigvalsh(root @ covariance @ root).clamp(min=0).sqrt().sum()
    found: Tensor = values.sum() + covariance.trace() - 2 * crossed
    return found


def _crossed_traces(x: Tensor, y: Tensor) -> Tensor:
    """Return the same of clouds with fewer points than features, without a matrix of features by features.

    With centred X and Y, the eigenvalues of A B are the squares of the singular values of X Y^T / sqrt(n m).
    """
    x, y = ((side - side.mean(0)) / (len(side) - 1) ** 0.5 for side in (x, y))
    found: Tensor = x.square().sum() + y.square().sum() - 2 * torch.linalg.svdvals(x @ y.T).sum()
    return found


def _subset(x: Tensor, size: int, generator: torch.Generator) -> Tensor:
    return x[torch.randperm(len(x), generator=generator, device=generator.device)[:size].to(x.device)]


def _discrepancy(x: Tensor, y: Tensor) -> Tensor:
    """Return the unbiased squared discrepancy between two clouds of one size."""
    n, d = x.shape
    within, between = ((a @ b.T / d + 1) ** 3 for a, b in ((torch.cat([x, y]), torch.cat([x, y])), (x, y)))
    own = (within[:n, :n].sum() + within[n:, n:].sum() - within.trace()) / (n * (n - 1))
    return own - 2 * between.mean()


def _radii(x: Tensor, k: int) -> Tensor:
    """Return the distance of each point to its k-th nearest neighbour in the cloud, itself left out."""
    rows = [torch.cdist(some, x, compute_mode="donot_use_mm_for_euclid_dist") for some in x.split(_ROWS)]
    return torch.cat([row.kthvalue(k + 1, dim=1).values for row in rows])


WEIGHTS = {"f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4": "inception-2015-12-05.pt"}
"""SHA-256 of the files of weights whose distance is called FID, and their names."""
RESIZE = "to 299 x 299 inside the network, bilinear without antialiasing (the original TensorFlow graph)"
_AT_ONCE = 64
_FILTERS = threading.Lock()  # warnings are filtered for all threads together
_CUSTOMARY = 10_000  # below, the bias of the FID is larger than most differences between methods


class InceptionDistance(NamedTuple):
    """An FID, and everything that it depends on.

    Parameters
    ----------
    value
        The distance.
    reference
        Name of the real images.
    n, n_reference
        Numbers of images.
    sha256
        SHA-256 of the weights.
    resize
        How the images were scaled.
    """

    value: float
    reference: str
    n: int
    n_reference: int
    sha256: str
    resize: str


@checked
def fid(images: Tensor, real: Tensor, *, weights: str | Path, reference: str) -> InceptionDistance:
    """Return the standard FID, comparable with that of clean-fid (legacy_tensorflow), StyleGAN and EDM.

    Parameters
    ----------
    images, real
        Bytes ``(n, c, h, w)`` and ``(m, c, h, w)``, which `cellflow.images.to_bytes` makes; grey is repeated.
    weights
        The file ``inception-2015-12-05.pt``; `cellflow.datasets.inception_weights` fetches it.
    reference
        Name of the real images, stored with the result, such as "CIFAR-10 train".

    Raises
    ------
    FileNotFoundError
        When the file of weights does not exist.
    ValueError
        When the file holds other weights: the result would not be the FID. Use `frechet_distance` on your own features,
        under another name.

    Source
    ------
    Heusel et al. 2017, equation 6.

    Examples
    --------
    >>> weights = cellflow.datasets.inception_weights()  # doctest: +SKIP
    >>> fid(mine, real.images, weights=weights, reference=real.source).value  # doctest: +SKIP
    3.5
    """
    for name, side in (("images", images), ("real", real)):
        _check_bytes(name, side)
    sha256 = _checksum(path_of(weights, name="weights"))
    if min(len(images), len(real)) < _CUSTOMARY:
        warn(
            f"FID of {len(images)} images against {len(real)} is biased upwards; published ones use {_CUSTOMARY} or "
            "more, usually 50,000. Report `kernel_distance` beside it."
        )
    network = _load(Path(weights), images.device)
    x, y = (_features(side, network) for side in (images, real))
    return InceptionDistance(frechet_distance(x, y), reference, len(x), len(y), sha256, RESIZE)


def _check_bytes(name: str, images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"Expected `{name}` as bytes (n, c, h, w) with 1 or 3 channels, as published FIDs are computed on; found "
            f"{images.dtype} of shape {tuple(images.shape)}. `cf.images.to_bytes` converts numbers from -1 to 1."
        )


def _checksum(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"No weights {path}. `cf.datasets.inception_weights()` fetches them.")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found not in WEIGHTS:
        raise ValueError(
            f"Expected the weights of the standard FID, {' or '.join(WEIGHTS.values())} (SHA-256 "
            f"{' or '.join(WEIGHTS)}); {path} has {found}. A distance by other weights is not the FID: use "
            "`frechet_distance` of their features, under another name."
        )
    return found


def _load(path: Path, device: torch.device) -> Any:
    """Load the network: the only use of TorchScript, which torch deprecates."""
    with _FILTERS, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.* is", category=DeprecationWarning)
        return torch.jit.load(path, map_location=device).eval()


@torch.no_grad()
def _features(images: Tensor, network: Any) -> Tensor:
    parts = [network(part.expand(-1, 3, -1, -1), return_features=True) for part in images.split(_AT_ONCE)]
    return torch.cat(parts).double()
