"""Networks: everything that has weights."""

from cellflow.networks.adapters import Standardized
from cellflow.networks.embedding import TimeEmbedding
from cellflow.networks.heads import TwoHeads, TwoNetworks
from cellflow.networks.mlp import MLP, NETWORKS, resolve

__all__ = ["MLP", "NETWORKS", "Standardized", "TimeEmbedding", "TwoHeads", "TwoNetworks", "resolve"]
