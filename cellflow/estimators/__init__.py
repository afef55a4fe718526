"""Estimators: the parts wired together behind ``fit``."""

from cellflow.estimators.generation import ImageGenerator
from cellflow.estimators.snapshots import SnapshotFlow
from cellflow.estimators.translation import DomainTranslator

__all__ = ["DomainTranslator", "ImageGenerator", "SnapshotFlow"]
