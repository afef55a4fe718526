"""Networks: everything that has weights."""

import warnings
from typing import Any

from cellflow.networks.adapters import DiffusersField, Standardized
from cellflow.networks.embedding import TimeEmbedding
from cellflow.networks.end_guess import EndGuess
from cellflow.networks.ends import EndPoints
from cellflow.networks.flow_map import FlowMap
from cellflow.networks.heads import Heads
from cellflow.networks.mlp import MLP, NETWORKS, resolve
from cellflow.networks.unet import UNet
from cellflow.networks.velocity_guess import GuessedVelocity, VelocityGuess

__all__ = [
    "MLP",
    "NETWORKS",
    "DiffusersField",
    "EndGuess",
    "EndPoints",
    "FlowMap",
    "GuessedVelocity",
    "Heads",
    "Standardized",
    "TimeEmbedding",
    "UNet",
    "VelocityGuess",
    "resolve",
]

_FORMER = {
    "TwoHeads": ('Heads(network, score="shared")', lambda network: Heads(network, score="shared")),
    "TwoNetworks": ("Heads(velocity, score=score)", lambda velocity, score_drift: Heads(velocity, score=score_drift)),
    "GrowthHead": ('Heads(network, growth="shared")', lambda network: Heads(network, growth="shared")),
    "GrowthNetwork": ("Heads(velocity, growth=growth)", lambda velocity, growth: Heads(velocity, growth=growth)),
}
"""What the modules of before are now; their names go in the next version."""


def __getattr__(name: str) -> Any:
    if name not in _FORMER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    shown, build = _FORMER[name]
    warnings.warn(f"`cf.networks.{name}` is now `cf.networks.{shown}`.", FutureWarning, stacklevel=2)
    return build
