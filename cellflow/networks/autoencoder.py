"""Autoencoders, in whose latents large images are small: one of our own, and that of diffusers."""

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from cellflow.errors import optional
from cellflow.networks.stages import Downsample, Norm, Upsample
from cellflow.signature import checked

INSTALL = "pip install 'cellflow-torch[images]'"
BOUND = 3.0
"""Latents of our own lie between its negative and it, so that noise on them cannot be outgrown."""
_DEEPEST = 5


class Autoencoder(nn.Module):
    """Images ``(n, channels, h, w)`` as latents ``(n, latents, h / factor, w / factor)`` of mean 0 and spread 1.

    Parameters
    ----------
    channels
        Channels of the images.
    halvings
        How often both sides are halved.
    patch
        Side of the squares of pixels that become channels before the first level, a power of 2: they count among the
        halvings. No convolution then sees all pixels, which is where most of the time goes.
    latents
        Channels of the latents.
    width
        Channels of the first level.

    Raises
    ------
    ValueError
        When a number is too small, the halvings are too many, or the patch is no power of 2 within them.

    Examples
    --------
    >>> import torch
    >>> net = Autoencoder(3, halvings=2, width=8)
    >>> z = net.encode(torch.zeros(2, 3, 16, 24))
    >>> z.shape, net.decode(z).shape
    (torch.Size([2, 8, 4, 6]), torch.Size([2, 3, 16, 24]))
    >>> Autoencoder(3, halvings=2, patch=4, width=8).encode(torch.zeros(2, 3, 16, 24)).shape
    torch.Size([2, 8, 4, 6])
    """

    shift: Tensor
    scale: Tensor

    @checked
    def __init__(self, channels: int, *, halvings: int, latents: int = 8, width: int = 32, patch: int = 1) -> None:
        super().__init__()
        if min(channels, latents, width) < 1 or not 1 <= halvings <= _DEEPEST:
            raise ValueError(
                f"Expected channels, latents and width >= 1, and 1 to {_DEEPEST} halvings; found {channels}, "
                f"{latents}, {width} and {halvings}."
            )
        left = halvings - (patch.bit_length() - 1)
        if patch < 1 or patch & (patch - 1) or left < 0:
            raise ValueError(f"Expected a patch of 1, 2, 4 ... up to {2**halvings}, all halvings; found {patch}.")
        self.channels, self.latents, self.halvings, self.width = channels, latents, halvings, width
        self.patch, seen = patch, channels * patch**2
        wide = [width * min(2**level, 4) for level in range(left + 1)]
        down: list[nn.Module] = [nn.Conv2d(seen, wide[0], 3, padding=1)]
        up: list[nn.Module] = [nn.Conv2d(latents, wide[-1], 3, padding=1), _Block(wide[-1], wide[-1])]
        for before, after in pairwise(wide):
            down += [_Block(before, after), Downsample(after)]
        for before, after in pairwise(wide[::-1]):
            up += [Upsample(before), _Block(before, after)]
        self.encoder = nn.Sequential(*down, _Block(wide[-1], wide[-1]), nn.Conv2d(wide[-1], latents, 3, padding=1))
        self.decoder = nn.Sequential(*up, Norm(wide[0]), nn.SiLU(), nn.Conv2d(wide[0], seen, 3, padding=1))
        _standard(self, latents)

    @property
    def factor(self) -> int:
        """How many times smaller the sides of the latents are."""
        return int(2**self.halvings)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Return reconstructed images, from their latents plus noise of the same shape."""
        return self._decoded(self.bounded(x) + noise)

    def bounded(self, x: Tensor) -> Tensor:
        """Return latents as they are trained, within bounds."""
        return BOUND * torch.tanh(self.encoder(pixel_unshuffle(x, self.patch)) / BOUND)

    def encode(self, x: Tensor) -> Tensor:
        """Return the latents of images, with mean 0 and spread 1 in each channel once these are known."""
        return (self.bounded(x) - self.shift) / self.scale

    def decode(self, z: Tensor) -> Tensor:
        """Return the images of latents."""
        return self._decoded(self.scale * z + self.shift)

    def record(self) -> dict[str, Any]:
        """Return what is needed to restore it, as JSON."""
        names = ("channels", "halvings", "latents", "width", "patch")
        return {"kind": "own", "sizes": {name: getattr(self, name) for name in names}}

    def _decoded(self, states: Tensor) -> Tensor:
        return pixel_shuffle(self.decoder(states), self.patch)


class DiffusersAutoencoder(nn.Module):
    """An ``AutoencoderKL`` of diffusers, with the interface of `Autoencoder`; the mean of its latents is taken.

    Parameters
    ----------
    network
        The autoencoder.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.config = {name: value for name, value in dict(network.config).items() if not name.startswith("_")}
        self.channels, self.latents = int(self.config["in_channels"]), int(self.config["latent_channels"])
        self.factor = 2 ** (len(self.config["block_out_channels"]) - 1)
        _standard(self, self.latents)

    def encode(self, x: Tensor) -> Tensor:
        """Return the latents of images, with mean 0 and spread 1 in each channel once these are known."""
        found: Tensor = self.network.encode(x).latent_dist.mode()
        return (found - self.shift) / self.scale

    def decode(self, z: Tensor) -> Tensor:
        """Return the images of latents."""
        found: Tensor = self.network.decode(self.scale * z + self.shift).sample
        return found

    def record(self) -> dict[str, Any]:
        """Return what is needed to restore it, as JSON."""
        lists = {name: list(value) if isinstance(value, tuple) else value for name, value in self.config.items()}
        return {"kind": "diffusers", "sizes": lists}


def factor_of(folder: str | Path) -> int:
    """Return by what factor the autoencoder in a folder reduces the sides of images, from its description.

    Raises
    ------
    FileNotFoundError, ValueError
        When there is none.
    """
    blocks = _config(Path(folder)).get("block_out_channels")
    if not isinstance(blocks, list) or not 1 <= len(blocks) <= _DEEPEST + 1:
        raise ValueError(f"{folder} holds no `AutoencoderKL` of diffusers: its config.json names no blocks.")
    return int(2 ** (len(blocks) - 1))


def _config(folder: Path) -> dict[str, Any]:
    """Return the description of an autoencoder of diffusers."""
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"No autoencoder in {folder}: expected the folder of an `AutoencoderKL` of diffusers, with config.json, or "
            "`autoencoder='train'` to train a small one on your images."
        )
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{folder / 'config.json'} is not JSON ({error}).") from error
    if not isinstance(found, dict) or found.get("_class_name", "AutoencoderKL") != "AutoencoderKL":
        raise ValueError(f"{folder} holds no `AutoencoderKL` of diffusers.")
    return found


def from_folder(folder: str | Path) -> DiffusersAutoencoder:
    """Return the ``AutoencoderKL`` in a user's folder; nothing is downloaded.

    Raises
    ------
    FileNotFoundError
        When the folder does not exist.
    MissingDependencyError
        When diffusers is not installed.
    ValueError
        When it holds something else.
    """
    factor_of(folder)
    diffusers = optional("diffusers", install=INSTALL)
    try:
        network = diffusers.AutoencoderKL.from_pretrained(str(folder), local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} holds no `AutoencoderKL` of diffusers with safetensors ({error}).") from error
    return DiffusersAutoencoder(network)


def of_record(record: Mapping[str, Any]) -> Autoencoder | DiffusersAutoencoder:
    """Return an untrained autoencoder from its record.

    Raises
    ------
    ValueError, TypeError
        When the record is invalid.

    Examples
    --------
    >>> of_record(Autoencoder(1, halvings=1).record()).factor
    2
    """
    if record.get("kind") == "own":
        return Autoencoder(**record["sizes"])
    diffusers = optional("diffusers", install=INSTALL)
    return DiffusersAutoencoder(diffusers.AutoencoderKL.from_config(dict(record["sizes"])))


def _standard(network: nn.Module, latents: int) -> None:
    """Give an autoencoder the mean and the spread of its latents, which are not known yet."""
    network.register_buffer("shift", torch.zeros(latents, 1, 1))
    network.register_buffer("scale", torch.ones(latents, 1, 1))


class _Block(nn.Module):
    """Two convolutions with a skip connection."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        first, second = (nn.Conv2d(wide, outputs, 3, padding=1) for wide in (inputs, outputs))
        self.inner = nn.Sequential(Norm(inputs), nn.SiLU(), first, Norm(outputs), nn.SiLU(), second)
        self.past = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        found: Tensor = self.past(hidden) + self.inner(hidden)
        return found
