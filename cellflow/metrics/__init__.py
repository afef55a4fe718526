"""Metrics: distances between samples, scores of where cells go, scores of images, intervals."""

from cellflow.metrics.controls import blind_to, high_frequency_ratio, spoiled
from cellflow.metrics.distances import (
    energy_distance,
    maximum_mean_discrepancy,
    population_distance,
    sliced_wasserstein,
    split_half_floor,
    thinned,
    wasserstein,
)
from cellflow.metrics.fates import fate_overlap
from cellflow.metrics.features import FeatureNetwork, feature_network, features_of
from cellflow.metrics.images import (
    FeatureDistance,
    InceptionDistance,
    KernelDistance,
    Neighbours,
    feature_distance,
    fid,
    frechet_distance,
    kernel_distance,
    neighbours,
)
from cellflow.metrics.intervals import Interval, bootstrap, real_floor, standard_error
from cellflow.metrics.persistence import clone_agreement, label_persistence, label_shares
from cellflow.metrics.preservation import (
    Preservation,
    against_shuffled,
    foreground,
    mask_dice,
    structural_similarity,
    target_accuracy,
    transport_cost,
)

__all__ = [
    "FeatureDistance",
    "FeatureNetwork",
    "InceptionDistance",
    "Interval",
    "KernelDistance",
    "Neighbours",
    "Preservation",
    "against_shuffled",
    "blind_to",
    "bootstrap",
    "clone_agreement",
    "energy_distance",
    "fate_overlap",
    "feature_distance",
    "feature_network",
    "features_of",
    "fid",
    "foreground",
    "frechet_distance",
    "high_frequency_ratio",
    "kernel_distance",
    "label_persistence",
    "label_shares",
    "mask_dice",
    "maximum_mean_discrepancy",
    "neighbours",
    "population_distance",
    "real_floor",
    "sliced_wasserstein",
    "split_half_floor",
    "spoiled",
    "standard_error",
    "structural_similarity",
    "target_accuracy",
    "thinned",
    "transport_cost",
    "wasserstein",
]
