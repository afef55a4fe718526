"""The FID as it is published: with the usual weights, or not at all."""

import hashlib
import threading
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cellflow.metrics.images import frechet_distance

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
        What the images were compared with.
    n, n_reference
        Images on either side.
    sha256
        Of the weights.
    resize
        How the images were scaled.
    """

    value: float
    reference: str
    n: int
    n_reference: int
    sha256: str
    resize: str


def fid(images: Tensor, real: Tensor, *, weights: str | Path, reference: str) -> InceptionDistance:
    """Return the standard FID, comparable with that of clean-fid (legacy_tensorflow), StyleGAN and EDM.

    Parameters
    ----------
    images, real
        Bytes ``(n, c, h, w)`` and ``(m, c, h, w)``, which `cellflow.images.to_bytes` makes; grey is repeated.
    weights
        The file ``inception-2015-12-05.pt``; `cellflow.datasets.inception_weights` fetches it.
    reference
        What ``real`` is, for the record, such as "CIFAR-10 train".

    Raises
    ------
    FileNotFoundError
        When there is no such file of weights.
    ValueError
        When the file holds other weights: the result would not be the FID. Use `frechet_distance` on features of
        your own, under another name.

    Source: Heusel et al. 2017, equation 6.

    Examples
    --------
    >>> weights = cellflow.datasets.inception_weights()  # doctest: +SKIP
    >>> fid(mine, real.images, weights=weights, reference=real.source).value  # doctest: +SKIP
    3.5
    """
    for name, side in (("images", images), ("real", real)):
        _check_bytes(name, side)
    sha256 = _checksum(Path(weights))
    if min(len(images), len(real)) < _CUSTOMARY:
        warnings.warn(
            f"FID of {len(images)} images against {len(real)} is biased upwards; published ones use {_CUSTOMARY} or "
            "more, usually 50,000. Report `kernel_distance` beside it.",
            stacklevel=2,
        )
    network = _load(Path(weights), images.device)
    x, y = (_features(side, network) for side in (images, real))
    return InceptionDistance(frechet_distance(x, y), reference, len(x), len(y), sha256, RESIZE)


def _check_bytes(name: str, images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"Expected `{name}` as bytes (n, c, h, w) with 1 or 3 channels, as published FIDs are computed on; found "
            f"{images.dtype} of shape {tuple(images.shape)}. Numbers from -1 to 1 become bytes by `cf.images.to_bytes`."
        )


def _checksum(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"No weights {path}. `cf.datasets.inception_weights()` fetches them.")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found not in WEIGHTS:
        raise ValueError(
            f"Expected the weights of the standard FID, {' or '.join(WEIGHTS.values())} (SHA-256 "
            f"{' or '.join(WEIGHTS)}); {path} has {found}. A distance by other weights is no FID: take "
            "`frechet_distance` of their features, under another name."
        )
    return found


def _load(path: Path, device: torch.device) -> Any:
    """Load the network. The one place that knows TorchScript, which torch will give up one day."""
    with _FILTERS, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.* is", category=DeprecationWarning)
        return torch.jit.load(path, map_location=device).eval()


@torch.no_grad()
def _features(images: Tensor, network: Any) -> Tensor:
    parts = [network(part.expand(-1, 3, -1, -1), return_features=True) for part in images.split(_AT_ONCE)]
    return torch.cat(parts).double()
