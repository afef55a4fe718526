"""Data to start with: one real set in the package, two public ones on request, and one with a known truth."""

from cellflow.datasets.simulated import Branching, branching
from cellflow.datasets.single_cell import cite, embryoid_body, hsmm

__all__ = ["Branching", "branching", "cite", "embryoid_body", "hsmm"]
