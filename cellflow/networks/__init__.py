"""Networks: everything that has weights."""

from cellflow.networks.adapters import Standardized
from cellflow.networks.embedding import TimeEmbedding
from cellflow.networks.external import DiffusersField
from cellflow.networks.flow_map import FlowMap
from cellflow.networks.heads import GrowthHead, GrowthNetwork, TwoHeads, TwoNetworks
from cellflow.networks.mlp import MLP, NETWORKS, resolve
from cellflow.networks.unet import UNet

__all__ = [
    "MLP",
    "NETWORKS",
    "DiffusersField",
    "FlowMap",
    "GrowthHead",
    "GrowthNetwork",
    "Standardized",
    "TimeEmbedding",
    "TwoHeads",
    "TwoNetworks",
    "UNet",
    "resolve",
]
