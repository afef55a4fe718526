"""Pairing: from snapshots and images to batches of pairs."""

from cellflow.pairing.batches import PairedBatches, paired_batches, snapshot_batches
from cellflow.pairing.condition_legs import ConditionLeg
from cellflow.pairing.curves import Curve, Spline, Straight
from cellflow.pairing.image_batches import ImageBatches, image_batches
from cellflow.pairing.legs import LegBatches, leg_batches
from cellflow.pairing.mean_curve import Mean
from cellflow.pairing.metric import RBFMetric, rbf_metric

__all__ = [
    "ConditionLeg",
    "Curve",
    "ImageBatches",
    "LegBatches",
    "Mean",
    "PairedBatches",
    "RBFMetric",
    "Spline",
    "Straight",
    "image_batches",
    "leg_batches",
    "paired_batches",
    "rbf_metric",
    "snapshot_batches",
]
