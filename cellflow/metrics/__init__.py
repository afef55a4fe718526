"""Measures of how well a flow does."""

from cellflow.metrics.distances import (
    energy_distance,
    maximum_mean_discrepancy,
    sliced_wasserstein,
    split_half_floor,
    wasserstein,
)

__all__ = [
    "energy_distance",
    "maximum_mean_discrepancy",
    "sliced_wasserstein",
    "split_half_floor",
    "wasserstein",
]
