"""Estimators with scikit-learn's interface: paths, couplings, networks and training behind ``fit``."""

from cellflow.estimators.generation import ImageGenerator
from cellflow.estimators.perturbation import PerturbationFlow
from cellflow.estimators.snapshots import SnapshotFlow
from cellflow.estimators.translation import DomainTranslator

__all__ = ["DomainTranslator", "ImageGenerator", "PerturbationFlow", "SnapshotFlow"]
