"""How long, how wide and in what batches a flow of images is trained, where the settings leave it to the machine."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import torch

from cellflow.cli import runs
from cellflow.cli.parts import TARGET
from cellflow.cli.settings import Settings
from cellflow.estimators.latents import TRAIN, halvings_for
from cellflow.networks.autoencoder import factor_of
from cellflow.networks.sizes import unet_for
from cellflow.training.search import begun

log = logging.getLogger("cellflow")
SETTLED = ("steps", "batch_size", "network")
"""Settings that may be left to the machine."""
FIRST_LOOK = 2.0
"""Minutes until the first picture, with which a training on a CPU says what it is about."""


class Size(NamedTuple):
    """What a machine trains in an hour or two: training steps, images in each, and channels of the first level."""

    steps: int
    batch_size: int
    width: int


CPU, GPU = Size(2000, 16, 16), Size(10_000, 64, 32)
"""On 64 x 64 pixels a step takes .6 s on one core in the size for a CPU, and 7 s in that for a GPU."""


def settle(cfg: Settings, shape: tuple[int, ...]) -> None:
    """Fill in the settings that depend on the machine, as a resumed run has them, and log them.

    Parameters
    ----------
    cfg
        The settings, which are changed: the run stores the choice.
    shape
        Channels, height and width of the images.

    Raises
    ------
    ValueError
        When there is no default network for such images.

    Examples
    --------
    >>> cfg = Settings({"steps": None, "batch_size": 8, "network": None, "device": "cpu", "resume": False})
    >>> cfg["autoencoder"] = None
    >>> settle(cfg, (1, 64, 64))
    >>> cfg.steps, cfg.batch_size, cfg.network.width, cfg.network.multipliers
    (2000, 8, 16, [1, 2, 2, 2])
    """
    if cfg.resume and cfg.out is not None and begun(Path(cfg.out)):
        then = runs.read_settings(Path(cfg.out))
        for name in SETTLED:
            if cfg.get(name) is None and name in then:
                cfg[name] = Settings(then[name]) if isinstance(then[name], dict) else then[name]
        return
    left = [name for name in SETTLED if cfg.get(name) is None]
    if not left:
        return
    slow = not on_gpu(cfg.device)
    size = CPU if slow else GPU
    cfg.steps, cfg.batch_size = cfg.steps or size.steps, cfg.batch_size or size.batch_size
    if cfg.get("network") is None:
        cfg.network = _network(_carried(cfg.autoencoder, shape), size.width)
    log.info(
        "sized for a %s: %s. Set %s for other sizes",
        "CPU" if slow else "GPU",
        ", ".join(
            {"network": f"network.width={cfg.network.get('width')}"}.get(name, f"{name}={cfg[name]}") for name in left
        ),
        " or ".join(f"`{name}`" for name in left),
    )


def on_gpu(device: str) -> bool:
    """Return whether a training on a device is on a GPU.

    Examples
    --------
    >>> on_gpu("cpu"), on_gpu("cuda:1")
    (False, True)
    """
    return torch.cuda.is_available() if device == "auto" else device != "cpu"


def _carried(autoencoder: str | None, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of what a flow carries, as far as it matters for its network: how long its sides are."""
    if autoencoder is None:
        return shape
    factor = 2 ** halvings_for(shape) if autoencoder == TRAIN else factor_of(autoencoder)
    return shape[0], -(-shape[1] // factor), -(-shape[2] // factor)


def _network(shape: tuple[int, ...], width: int) -> Settings:
    known: dict[str, Any] = unet_for(shape, width=width).keywords
    lists = {name: list(value) if isinstance(value, tuple) else value for name, value in known.items()}
    return Settings({TARGET: "cellflow.networks.UNet", "_partial_": True, "_convert_": "all", **lists})
