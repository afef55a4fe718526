"""Pairing: from snapshots and images to batches of pairs."""

from cellflow.pairing.batches import PairedBatches, paired_batches, snapshot_batches
from cellflow.pairing.image_batches import ImageBatches, image_batches
from cellflow.pairing.metric import RadialMetric, radial_metric

__all__ = [
    "ImageBatches",
    "PairedBatches",
    "RadialMetric",
    "image_batches",
    "paired_batches",
    "radial_metric",
    "snapshot_batches",
]
