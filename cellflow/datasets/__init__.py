"""Data sets: real ones in the package, public ones to download, and simulated ones with a known truth."""

from cellflow.datasets.images import (
    cell_silhouettes,
    cifar10,
    digits,
    fashion_mnist,
    inception_weights,
    mnist,
    nuclei,
    wortmannin,
)
from cellflow.datasets.perturbed import kang, norman
from cellflow.datasets.planar import eight_gaussians, moons, s_curve
from cellflow.datasets.planted import planted_drivers
from cellflow.datasets.simulated import Branching, branching
from cellflow.datasets.single_cell import cite, embryoid_body, hematopoiesis, hsmm
from cellflow.datasets.treated import Perturbations, perturbations

__all__ = [
    "Branching",
    "Perturbations",
    "branching",
    "cell_silhouettes",
    "cifar10",
    "cite",
    "digits",
    "eight_gaussians",
    "embryoid_body",
    "fashion_mnist",
    "hematopoiesis",
    "hsmm",
    "inception_weights",
    "kang",
    "mnist",
    "moons",
    "norman",
    "nuclei",
    "perturbations",
    "planted_drivers",
    "s_curve",
    "wortmannin",
]
