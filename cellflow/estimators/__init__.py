"""Estimators: the parts wired together behind ``fit``."""

from cellflow.estimators.snapshots import SnapshotFlow

__all__ = ["SnapshotFlow"]
